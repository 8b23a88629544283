"""The update of a tensor that is a family by itself, in each package: Gamma of V, and the step."""

from dslbi_ref import dessilbi as reference
from dslbi_torch import dessilbi as twin
from dslbi_torch import units

UNIT = ("lam", "penalty", "group_dim", "block", "parts", "weight")


def gamma(V, **options):
    """Gamma of the reference."""
    return reference.gamma([V], **options)[0]


def step(W, V, m, grad, **options):
    """One iteration of the reference: new W, V and m."""
    Gamma, rest = _shrunk(reference, V, options)
    return reference.step(W, V, Gamma, m, grad, **rest)


def step_(W, V, m, grad, **options):
    """One iteration of the twin, in place."""
    Gamma, rest = _shrunk(twin, V, options)
    twin.step_(W, V, Gamma, m, grad, **rest)


def _shrunk(package, V, options):
    """Gamma of V, and what the step takes of the options."""
    unit = {key: options[key] for key in UNIT if key in options}
    rest = {key: value for key, value in options.items() if key not in unit}
    if V is None:
        return None, rest
    return package.gamma([V], kappa=options.get("kappa", 1.0), **unit)[0], rest


def split_tensors(optimizer):
    """``(name, W, V, group)`` of every tensor that an optimizer splits."""
    return [
        (name, W, V, family.group)
        for family in units.families(optimizer)
        for name, W, V in zip(family.names, family.Ws, family.Vs, strict=True)
    ]


def group_gamma(V, group):
    """Gamma of a tensor of the twin, with the options of its parameter group."""
    return units.gammas(units.Family([""], [V], [V], group))[0]

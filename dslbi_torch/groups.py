"""Which tensors of a model are split, and how their entries are grouped."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from torch import nn
from torch.optim import Optimizer

from .slices import Units, unit_size
from .units import named

_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# What a rule may say of a weight, the axes whose slices are the groups, and least number of axes.
_GROUPINGS = {
    "group": (0, 1),  # slices along the first axis, whatever they are
    "filter": (0, 3),
    "input channel": (1, 3),
    "kernel": ((0, 1), 3),
    "row": (0, 2),
    "column": (1, 2),
    "tensor": ((), 1),
}
PENALTIES = ("l1", *_GROUPINGS)


def split_groups(
    model: nn.Module,
    rules: Mapping | None = None,
    *,
    conv: str | None = "group",
    linear: str | None = "l1",
    lam: float | dict[str, float] = 1.0,
    weight_decay: float = 0.0,
    weight: str | None = None,
    **options,
) -> list[dict]:
    """Parameter groups for :class:`dslbi_torch.DessiLBI`: weights split, the rest plain.

    Parameters
    ----------
    model : Module
    rules : dict, optional
        What differs from the defaults below. A key says which weights: a parameter's name
        (``"conv3.weight"``), a module's (``"conv3"``: its weight), a pattern
        (``"layer*.conv?.weight"``), or a module type (``nn.Embedding``). The value is a penalty,
        None, or a dict of options (``penalty, lam, nu, kappa, weight, coupling, ...``) of which
        those left out keep their default. Where several rules match, the later one wins, option by
        option.
    conv, linear : penalty or None
        Of the weights of convolutions and of linear layers; what else there is, is split by rules
        only.
    lam : float > 0, or dict with the keys "conv" and "linear"
        Penalty level; of a dict, what only a rule splits has level 1.
    weight_decay : float >= 0
        For the weights of convolutions, linear layers and what a rule splits; the rest gets none.
    weight : None or "sqrt"
        Threshold of a group: lam, or lam times the square root of its size.
    **options
        Any other option of the optimizer, for the split tensors (nu, kappa, coupling, ...).

    Returns
    -------
    list of dict
        One group per set of options, with named parameters; the last holds what is not split. Every
        trainable parameter is in exactly one group. :func:`split_table` shows it.

    Raises
    ------
    ValueError
        For an unknown penalty, a weight that has no such groups, a rule that matches nothing, or a
        model in which nothing would be split although a penalty is asked.

    Notes
    -----
    A penalty is "l1" (every weight by itself), or says what a group is: "group" (a slice along the
    first axis: an output filter, a neuron), "filter", "input channel" or "kernel" of a convolution,
    "row" or "column" of a matrix, or the whole "tensor". Transposed convolutions, whose first axis
    is the input, are grouped by what the word means.
    """
    levels = lam if isinstance(lam, dict) else {"conv": lam, "linear": lam}
    if set(levels) != {"conv", "linear"}:
        raise ValueError(
            'lam must be a number, or a dict with the keys "conv" and "linear", '
            f"got the keys {sorted(levels)}"
        )
    _check_penalty("conv", conv)
    _check_penalty("linear", linear)
    common = dict(lam=1.0 if isinstance(lam, dict) else lam, weight=weight, **options)
    defaults = {
        "conv": {**common, "penalty": conv, "lam": levels["conv"]},
        "linear": {**common, "penalty": linear, "lam": levels["linear"]},
    }
    rules = {key: _as_options(key, rule) for key, rule in (rules or {}).items()}
    unused = dict.fromkeys(rules)
    found, rest = {}, []  # in the order of the model
    for name, p, module in _parameters(model):
        kind = "conv" if isinstance(module, _CONV) else "linear"
        default = isinstance(module, (*_CONV, nn.Linear)) and p is module.weight
        chosen = dict(defaults[kind]) if default else dict(penalty=None, **common)
        matching = [key for key in rules if _matches(key, name, p, module)]
        for key in matching:
            unused.pop(key, None)
            chosen.update(rules[key])
        decay = weight_decay if default or matching else 0.0
        if chosen["penalty"] is None:
            rest.append((name, p, decay))
            continue
        group = {**chosen, **_grouping(name, p, module, chosen["penalty"]), "weight_decay": decay}
        found.setdefault(repr(sorted(group.items())), (group, []))[1].append((name, p))
    if unused:
        names = ", ".join(name for name, _, _ in _parameters(model))
        raise ValueError(f"rule {next(iter(unused))!r} must match a parameter among {names}")
    if not found and (conv or linear or rules):
        raise ValueError(
            f"the model must have a trainable layer to split for conv={conv!r}, linear={linear!r}, "
            "got none"
        )
    groups = [dict(params=params, **group) for group, params in found.values()]
    for decay in sorted({decay for *_, decay in rest}, reverse=True):
        params = [(name, p) for name, p, own in rest if own == decay]
        groups.append(dict(params=params, penalty=None, weight_decay=decay))
    return groups


def _check_penalty(name, penalty):
    if penalty is not None and penalty not in PENALTIES:
        raise ValueError(f"{name} must be None or one of {', '.join(PENALTIES)}, got {penalty!r}")


def _as_options(key, rule):
    options = dict(rule) if isinstance(rule, Mapping) else {"penalty": rule}
    if not (isinstance(key, str) or (isinstance(key, type) and issubclass(key, nn.Module))):
        raise ValueError(f"a rule must be for a name, a pattern or a module type, got {key!r}")
    _check_penalty(f"penalty of rule {key!r}", options.get("penalty"))
    return options


def _parameters(model):
    """Name, tensor and owner of every trainable parameter, shared ones once."""
    seen = set()
    for prefix, module in model.named_modules():
        for name, p in module.named_parameters(recurse=False):
            if p.requires_grad and id(p) not in seen:
                seen.add(id(p))
                yield f"{prefix}.{name}" if prefix else name, p, module


def _matches(key, name, p, module):
    if isinstance(key, type):
        return isinstance(module, key) and p is getattr(module, "weight", None)
    return fnmatchcase(name, key) or name == f"{key}.weight"


def _grouping(name, p, module, penalty):
    """The options ``penalty`` and ``group_dim`` that a penalty's word means for a weight."""
    if penalty == "l1":
        return dict(penalty="l1")
    dim, least = _GROUPINGS[penalty]
    matrix = penalty in ("row", "column")
    if p.ndim < least or (matrix and p.ndim != 2):
        raise ValueError(f"{name} of shape {tuple(p.shape)} has no groups of kind {penalty!r}")
    if isinstance(module, _TRANSPOSED) and penalty in ("group", "filter", "input channel"):
        dim = 1 - dim
    return dict(penalty="group", group_dim=dim)


def split_table(groups: list[dict] | Optimizer) -> str:
    """What :func:`split_groups` or an optimizer splits, as aligned text: one line per tensor, with
    the axes that groups are slices along in brackets, and what is left unpenalised."""
    if isinstance(groups, Optimizer):
        groups = [{**g, "params": named(i, g)} for i, g in enumerate(groups.param_groups)]
    head = ("tensor", "shape", "penalty", "groups", "of size", "lam", "nu", "weight")
    rows, left = [], []
    for group in groups:
        for name, p in group["params"]:
            if group["penalty"] is None:
                left.append((name, p.numel()))
                continue
            size, penalty = 1, group["penalty"]
            if penalty == "group":
                dim = group.get("group_dim", 0)
                size = unit_size([p], Units(dim))
                kept = (dim,) if isinstance(dim, int) else dim
                penalty = f"group[{','.join(map(str, kept))}]"
            shape = "x".join(map(str, p.shape))
            shown = (group.get(key) for key in ("lam", "nu", "weight"))
            shown = ["-" if x is None else f"{x:g}" if not isinstance(x, str) else x for x in shown]
            rows.append((name, shape, penalty, p.numel() // size, size, *shown))
    table = [head, *([str(x) for x in row] for row in rows)]
    widths = [max(len(row[k]) for row in table) for k in range(len(head))]
    lines = [
        "  ".join(x.ljust(widths[k]) if k < 3 else x.rjust(widths[k]) for k, x in enumerate(row))
        for row in table
    ]
    total = sum(n for _, n in left)
    names = ", ".join(name for name, _ in left)
    lines.append(f"unpenalised: {len(left)} tensors, {total:,} parameters ({names})")
    return "\n".join(lines)

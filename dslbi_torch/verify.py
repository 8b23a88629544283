"""Reference against device: both updates on the same gradients, compared in a table."""

from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import torch

from .dessilbi import GAMMA_OPTIONS, DessiLBI
from .torch_private import undecorated_step
from .units import families, gammas

N_STEPS = 100

# Largest difference that passes, relative to the largest entry of the reference.
TOLERANCE = {("float64", "cpu"): 1e-12, ("float32", "cpu"): 5e-5}
TOLERANCE |= {("float64", "cuda"): 1e-10, ("float32", "cuda"): 5e-5}

PENALTIES = (
    ("none", dict(penalty=None)),
    ("l1", dict(penalty="l1")),
    ("group", dict(penalty="group", lam=2.0)),
    ("group sqrt", dict(penalty="group", weight="sqrt", lam=0.35)),
    ("group dim 1", dict(penalty="group", group_dim=1, lam=4.0)),
    ("kernel", dict(penalty="group", group_dim=(0, 1), lam=1.0)),
    ("sparse group", dict(penalty="sparse group", lam=0.6)),
    ("heads", dict(penalty="group", block=2, parts=2, lam=6.0)),
    ("joint", dict(penalty="group", joint=True, lam=4.0)),
)
SHAPES = ((8, 4, 3, 3), (8, 5))  # of the tensors of a parameter group
VARIANTS = (
    ("plain", dict(momentum=0.0)),
    ("momentum", dict(momentum=0.9)),
    ("nesterov, L2", dict(momentum=0.9, nesterov=True, weight_decay=1e-2)),
    ("dampening, decoupled", dict(momentum=0.9, dampening=0.5, weight_decay=1e-2, decoupled=True)),
)


# How a step is computed, and the flags of the optimizer that ask for it.
ROUTES = {
    "loop": dict(foreach=False, fused=False),
    "foreach": dict(foreach=True),
    "fused": dict(fused=True),
    "compiled": dict(foreach=False, fused=False),
}


class Row(NamedTuple):
    """One comparison: where, how, what, the share of entries selected, the largest difference."""

    device: str
    route: str
    dtype: str
    penalty: str
    coupling: str
    variant: str
    selected: float
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance  # a NaN fails


def devices() -> list[str]:
    """Return the devices of this machine that can compute in float64 and float32."""
    return ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


def _gradients(shape, n_steps):
    """Yield a turning signal, stronger from slice to slice, and noise: units enter, stay, leave."""
    rng = np.random.default_rng(0)
    strength = np.linspace(0.02, 0.4, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    signal, phase = strength * rng.standard_normal(shape), rng.uniform(0, 2 * np.pi, shape)
    for k in range(n_steps):
        yield signal * np.cos(phase + 0.03 * k) + 0.1 * rng.standard_normal(shape)


def routes(device: str) -> list[str]:
    """Return the routes that can be taken on a device."""
    return ["loop", "foreach", *(["fused"] if device == "cuda" else []), "compiled"]


def _step(optimizer, route, device):
    """Return a function that takes one step by the route.

    Compiled on a CPU means the traced graph of the step: what its code generator adds needs a C++
    compiler, and is PyTorch's to verify.
    """
    if route != "compiled":
        return optimizer.step
    step = partial(undecorated_step(optimizer), optimizer)
    backend = "aot_eager" if device == "cpu" else "inductor"
    torch._dynamo.reset()  # the cases before count as recompilations otherwise
    return torch.no_grad()(torch.compile(step, backend=backend, fullgraph=True))


def _compare(device, route, dtype, options):
    """Return the largest relative difference of W, V and Gamma in a run, and the share selected.

    The reference runs in float64 on the values that the device's dtype can hold.
    """
    from dslbi_ref.dessilbi import gamma, step

    settings = {**dict(alpha=0.1, kappa=2.0, nu=5.0, lam=0.5), **options}
    rng = np.random.default_rng(1)
    params = [
        torch.nn.Parameter(torch.tensor(0.3 * rng.standard_normal(s), dtype=dtype, device=device))
        for s in SHAPES
    ]
    # A float64 tensor on the CPU shares its memory with the array.
    Ws = [p.detach().double().cpu().numpy().copy() for p in params]
    optimizer = DessiLBI(params, lr=settings.pop("alpha"), **settings, **ROUTES[route])
    take_step = _step(optimizer, route, device)
    group, split = optimizer.param_groups[0], settings["penalty"] is not None
    shrink = {key: settings.pop(key) for key in GAMMA_OPTIONS if key in settings}
    joint = settings.pop("joint", False)
    kappa = shrink["kappa"]
    Vs, ms = [0 * W if split else None for W in Ws], [None] * len(Ws)
    Gammas = list(Vs)
    worst, share = 0.0, 0.0

    def differ(ours, theirs):
        theirs = theirs.detach().double().cpu().numpy()
        return np.abs(ours - theirs).max() / max(1.0, np.abs(ours).max())

    for grads in zip(*(_gradients(W.shape, N_STEPS) for W in Ws), strict=True):
        for k, (p, g) in enumerate(zip(params, grads, strict=True)):
            p.grad = torch.tensor(g, dtype=dtype, device=device)
            old = Ws[k], Vs[k], Gammas[k], ms[k], p.grad.double().cpu().numpy()
            Ws[k], Vs[k], ms[k] = step(*old, alpha=group["lr"], kappa=kappa, **settings)
        take_step()
        worst = max(worst, *map(differ, Ws, params))
        if split:
            parts = [Vs] if joint else [[V] for V in Vs]
            Gammas = [G for part in parts for G in gamma(part, **shrink)]
            found = [G for family in families(optimizer) for G in gammas(family)]
            duals = [optimizer.state[p]["V"] for p in params]
            worst = max(worst, *map(differ, Vs, duals), *map(differ, Gammas, found))
            share = sum(map(np.count_nonzero, Gammas)) / sum(G.size for G in Gammas)
    return worst, share


def verify() -> list[Row]:
    """Compare the twins on every device present, by every route, dtype, penalty and coupling.

    Compiling takes seconds a case, so the compiled step runs with one variant only.
    """
    rows = []
    for device, dtype in product(devices(), (torch.float64, torch.float32)):
        name = str(dtype).removeprefix("torch.")
        for route in routes(device):
            for penalty, structure in PENALTIES:
                couplings = ("outside", "inside") if structure["penalty"] else ("outside",)
                for coupling, (variant, rest) in product(couplings, VARIANTS):
                    if route == "compiled" and (coupling, variant) != ("outside", "momentum"):
                        continue
                    options = {**structure, **rest, "coupling": coupling}
                    worst, share = _compare(device, route, dtype, options)
                    case = (device, route, name, penalty, coupling, variant)
                    rows.append(Row(*case, share, worst, TOLERANCE[name, device]))
    return rows


def table(rows: list[Row]) -> str:
    """Return the rows as aligned text that can be pasted into a bug report."""
    where = [f"torch {torch.__version__}, numpy {np.__version__}"]
    if torch.cuda.is_available():
        where.append(torch.cuda.get_device_name())
    lines = [
        f"DessiLBI, reference against device: {N_STEPS} steps ({', '.join(where)})",
        f"{'device':<7}{'route':<10}{'dtype':<9}{'penalty':<13}{'coupling':<10}{'variant':<22}"
        f"{'selected %':>10}{'difference':>12}{'allowed':>10}",
    ]
    for row in rows:
        lines.append(
            f"{row.device:<7}{row.route:<10}{row.dtype:<9}{row.penalty:<13}{row.coupling:<10}"
            f"{row.variant:<22}"
            f"{100 * row.selected:>10.1f}{row.difference:>12.1e}{row.tolerance:>10.0e}"
            f"{'' if row.passed else '  FAILED'}"
        )
    failed = sum(not row.passed for row in rows)
    lines.append(f"{len(rows) - failed} of {len(rows)} rows agree")
    return "\n".join(lines)

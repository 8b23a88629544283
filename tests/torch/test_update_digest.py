"""The update is what it was: option sets over 60 steps, against numbers that stand in a file.

``golden/update.json`` was written by the optimizer of the first edition: of W, V and m after 60
steps the sum, a weighted sum and the sum of absolute values, for every option set.
"""

import itertools
import json
from pathlib import Path

import pytest
import torch

from dslbi_torch import DessiLBI

GOLDEN = json.loads((Path(__file__).parent / "golden" / "update.json").read_text())
SHAPES = {"w": (4, 3, 3, 3), "u": (5, 7), "b": (6,)}
PENALTIES = {
    "l1": dict(penalty="l1", lam=0.3),
    "group": dict(penalty="group", lam=1.0),
    "sqrt": dict(penalty="group", weight="sqrt", lam=0.2),
    "dim 1": dict(penalty="group", group_dim=1, lam=1.0),
    "kernels": dict(penalty="group", group_dim=(0, 1), lam=0.5),
}
VARIANTS = {
    "plain": dict(momentum=0.0),
    "momentum": dict(momentum=0.9),
    "dampening": dict(momentum=0.9, dampening=0.4),
    "nesterov, decay": dict(momentum=0.9, nesterov=True, weight_decay=0.01),
    "decoupled": dict(momentum=0.9, weight_decay=0.01, decoupled=True),
    "maximize": dict(momentum=0.5, maximize=True),
}
CASES = list(itertools.product(PENALTIES, VARIANTS, ("outside", "inside")))


def values(shape, seed):
    """Numbers that need no generator, and so stay the same in every version of torch."""
    k = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    found = torch.sin(1.7 * (seed + 1) * (k + 1)) + 0.5 * torch.cos(0.31 * (k + seed) ** 1.5)
    return found.view(shape)


def digest(structure, options, foreach):
    W = {n: torch.nn.Parameter(values(s, i)) for i, (n, s) in enumerate(SHAPES.items())}
    groups = [
        dict(params=[("w", W["w"])], **structure),
        dict(params=[("u", W["u"])], penalty="l1", lam=0.3),
        dict(params=[("b", W["b"])]),
    ]
    optimizer = DessiLBI(groups, lr=0.05, nu=1.5, kappa=1.3, foreach=foreach, **options)
    for k in range(60):
        for i, (name, shape) in enumerate(SHAPES.items()):
            W[name].grad = 0.3 * values(shape, 7 * k + i + 3)
        optimizer.step()
    found = []
    for p in W.values():
        state = optimizer.state[p]
        for x in (p.detach(), state.get("V"), state.get("momentum_buffer")):
            if x is not None:
                weighted = x * values(x.shape, 99)
                found += [x.sum().item(), weighted.sum().item(), x.abs().sum().item()]
    return found


@pytest.mark.parametrize("foreach", [False, True], ids=["by piece", "lists"])
@pytest.mark.parametrize("case", CASES, ids="; ".join)
def test_the_update_is_what_it_was(case, foreach):
    penalty, variant, coupling = case
    options = dict(VARIANTS[variant], coupling=coupling)
    found = digest(PENALTIES[penalty], options, foreach)
    expected = torch.tensor(GOLDEN["; ".join(case)], dtype=torch.float64)
    torch.testing.assert_close(
        torch.tensor(found, dtype=torch.float64), expected, rtol=1e-12, atol=1e-12
    )

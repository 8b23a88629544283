"""What enters as one in an optimizer: families of tensors, their duals, Gamma and its support.

A *unit* is a single weight, a slice of a tensor, or the k-th slices of all tensors of a parameter
group with ``joint=True`` together. A *family* is the list of tensors that share units. All that
reads a path (recorder, target, masks, rankings, tables, figures) reads families.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from . import slices
from .arguments import check_optimizer
from .dessilbi import GAMMA_OPTIONS, unchecked_gamma
from .penalties import PENALTIES, one_of
from .slices import by_family, units_of
from .state import dual_dtype
from .wrapped import plain_names, unwraps


class Family(NamedTuple):
    """Tensors that share units, with their names, their duals and the options of their group."""

    names: list[str]
    Ws: list[Tensor]
    Vs: list[Tensor]
    group: dict


def named(groups: list[dict]) -> list[list[tuple[str, Tensor]]]:
    """Return name and tensor of the parameters of each group of an optimizer.

    Names are those of the model itself, also where the optimizer was given a wrapped model's.
    """
    names = [
        group.get("param_names") or [f"group{i}.{j}" for j in range(len(group["params"]))]
        for i, group in enumerate(groups)
    ]
    plain = iter(plain_names([name for own in names for name in own]))
    return [[(next(plain), p) for p in group["params"]] for group in groups]


@unwraps
def families(optimizer: Optimizer) -> list[Family]:
    """Return the families of all that the optimizer splits, V zero before its first step.

    Names come from ``named_parameters()``; tensors given without one are called ``group<i>.<j>``.
    Of a sharded parameter, W and V are DTensors.

    Raises
    ------
    ValueError
        For an optimizer that splits nothing, or that deals its states out to several processes.
    """
    check_optimizer(optimizer)
    if hasattr(optimizer, "consolidate_state_dict"):
        raise ValueError(
            f"the duals of a {type(optimizer).__name__} lie on several processes: "
            "pass its attribute optim for those of this one"
        )
    found = []
    groups = optimizer.param_groups
    for group, pairs in zip(groups, named(groups), strict=True):
        if group.get("penalty") is None:
            continue
        rows = [(name, p, _dual(optimizer, p)) for name, p in pairs]
        for part in by_family(rows, group):
            names, Ws, Vs = map(list, zip(*part, strict=True))
            found.append(Family(names, Ws, Vs, group))
    if not found:
        raise ValueError(f"the optimizer splits nothing: no group has penalty {one_of()}")
    return found


def _dual(optimizer, p):
    begun = getattr(optimizer, "begun", {})  # of a Split, until the base has stepped
    V = optimizer.state.get(p, {}).get("V", begun.get(p))
    return torch.zeros_like(p, dtype=dual_dtype(p), requires_grad=False) if V is None else V


def real(x: Tensor) -> Tensor:
    """Return x, or its real and imaginary parts as one axis more."""
    return torch.view_as_real(x) if x.is_complex() else x


def by_entries(group: dict) -> bool:
    """Return whether the units of a parameter group are single entries."""
    return PENALTIES[group["penalty"]].entries


def scores(family: Family) -> list[Tensor]:
    """Return what must exceed lam for a unit to be selected, each unit once.

    One tensor where units are slices, of the form of the family's first tensor (with axes of length
    1 where a slice extends); one for each tensor where they are single entries. The two parts of a
    complex entry are shrunk one by one, and the larger one counts.
    """
    row = PENALTIES[family.group["penalty"]]
    found = row.score([real(V) for V in family.Vs], units_of(family.group))
    return [score.amax(-1) for score in found] if family.Vs[0].is_complex() else found


def norms(xs: list[Tensor], group: dict) -> list[Tensor]:
    """Return the Euclidean norm of every unit of a family, laid out as :func:`scores`."""
    if by_entries(group):
        return [x.abs() for x in xs]
    return [slices.unit_norms([x.abs() if x.is_complex() else x for x in xs], units_of(group))]


def unit_sizes(family: Family) -> list[int]:
    """Return the number of entries of a unit, for each tensor of :func:`scores`."""
    if by_entries(family.group):
        return [1] * len(family.Ws)
    return [slices.unit_size(family.Ws, units_of(family.group))]


def spread(values: list[Tensor], family: Family) -> list[Tensor]:
    """Lay values of the units, as :func:`scores` has them, over the entries of every tensor.

    Returns
    -------
    list of Tensor
        One for each tensor of the family, broadcastable to it.
    """
    if by_entries(family.group):
        return values
    units = units_of(family.group)
    return [slices.laid_over(values[0], W, units) for W in family.Ws]


def selected(family: Family) -> list[Tensor]:
    """Return whether each entry's unit is selected, for every tensor, broadcastable to it.

    A slice is selected as a whole, also where single entries of Gamma in it happen to be zero.
    """
    lam = family.group["lam"]
    return spread([score > lam for score in scores(family)], family)


def gammas(family: Family) -> list[Tensor]:
    """Return Gamma of every tensor of the family."""
    options = {key: family.group[key] for key in GAMMA_OPTIONS if key in family.group}
    found = unchecked_gamma([real(V) for V in family.Vs], **options)
    return [
        torch.view_as_complex(G) if V.is_complex() else G
        for G, V in zip(found, family.Vs, strict=True)
    ]

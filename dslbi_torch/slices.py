"""Units that are slices of tensors: their norms, their sizes, and values laid over their entries.

Twin of ``dslbi_ref/units.py``, which writes a unit as a label of every entry; here it is a slice,
so that norms are reductions along axes. A *family* is the list of tensors that share units: one
tensor alone, or several of which the k-th slices are one unit together.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .arguments import check_axes, check_count, shown
from .sharding import beside, whole


class Units(NamedTuple):
    """How the entries of a family are gathered into units.

    Attributes
    ----------
    group_dim : int or tuple of int
        The axes along which slices are taken: 0 a filter or neuron, 1 an input channel, (0, 1) a
        kernel, () the whole tensor.
    block : int >= 1
        So many consecutive slices are one unit: a head of an attention layer. In a joint family it
        is the block of the first tensor; of another one a unit has more or fewer, so that all have
        as many units: a head of keys and the queries that it serves.
    parts : int >= 1
        The axis is cut into so many equal parts first, and the k-th block of every part belongs to
        unit k: queries, keys and values in one matrix.
    weight : None or "sqrt"
        The threshold of a unit is lam, or lam times the square root of its number of entries.
    """

    group_dim: int | tuple[int, ...] = 0
    block: int = 1
    parts: int = 1
    weight: str | None = None

    @property
    def single(self) -> bool:
        """Whether every slice is a unit by itself."""
        return self.block == 1 and self.parts == 1


def units_of(group: dict) -> Units:
    """Return the units that the options of a parameter group describe, or the defaults."""
    return Units(**{key: group[key] for key in Units._fields if key in group})


def checked_units(units: Units) -> Units:
    """Return units of plain numbers; refuse what describes none."""
    dims = check_axes(units.group_dim)
    dims = dims if isinstance(units.group_dim, tuple | list) else dims[0]
    if not (units.weight is None or (isinstance(units.weight, str) and units.weight == "sqrt")):
        raise ValueError(f'weight must be None or "sqrt", got {shown(units.weight)}')
    block, parts = check_count("block", units.block), check_count("parts", units.parts)
    return Units(dims, block, parts, units.weight)


def by_family(rows: list, group: dict) -> list[list]:
    """Return the rows of a parameter group's tensors, those of a family together."""
    return [list(rows)] if group.get("joint") else [[row] for row in rows]


def axes(ndim: int, group_dim) -> tuple[int, ...]:
    """Return the axes that a slice extends along: all but those of ``group_dim``."""
    if group_dim == 0 and ndim:  # the usual case, fast: it is asked once a tensor and step
        return tuple(range(1, ndim))
    dims = tuple(group_dim) if isinstance(group_dim, tuple | list) else (group_dim,)
    for d in dims:
        if not -ndim <= d < ndim:
            raise ValueError(f"group_dim must name axes of a {ndim}-d tensor, got {group_dim}")
    kept = {d % ndim for d in dims}
    return tuple(d for d in range(ndim) if d not in kept)


def slice_norms(x: Tensor, group_dim=0) -> Tensor:
    """Return the Euclidean norm of every slice, with axes of length 1 where it extends."""
    summed = axes(x.ndim, group_dim)
    if not summed:  # every entry is a slice; an empty list of axes would mean all of them to torch
        return x.abs()
    return torch.linalg.vector_norm(x, dim=summed, keepdim=True)


def unit_norms(xs: list[Tensor], units: Units) -> Tensor:
    """Return the Euclidean norm of every unit of a family, in the form of its first tensor."""
    if len(xs) == 1 and units.single:
        return slice_norms(xs[0], units.group_dim)
    count = unit_count(xs[0], units)
    found = [_pooled(whole(slice_norms(x, units.group_dim)), units, count) for x in xs]
    if len(found) == 1:
        return found[0]
    first = found[0]
    rows = torch.stack([norm.to(first.device, first.dtype).view(first.shape) for norm in found])
    return torch.linalg.vector_norm(rows, dim=0)


def unit_count(x: Tensor, units: Units) -> int:
    """Return the number of units of a family, given its first tensor."""
    extended = axes(x.ndim, units.group_dim)
    slices = math.prod([n for d, n in enumerate(x.shape) if d not in extended])  # traceable
    return slices // (units.block * units.parts)


def _pooled(norm, units, count):
    """Return norms of units from those of their slices, which lie in blocks of equal parts."""
    if units.single:
        return norm
    d = units.group_dim % norm.ndim
    cut = norm.unflatten(d, (units.parts, count, -1))
    return torch.linalg.vector_norm(cut, dim=(d, d + 2))


def laid_over(values: Tensor, x: Tensor, units: Units) -> Tensor:
    """Lay a value of every unit over the entries of one tensor of the family.

    Returns
    -------
    Tensor
        Broadcastable to x: one value for each slice, with axes of length 1 where it extends.
    """
    if not units.single:
        block = x.shape[units.group_dim] // (units.parts * values.numel())
        values = values.view(1, -1, 1).expand(units.parts, -1, block).reshape(-1)
    if values.ndim != x.ndim:
        extended = axes(x.ndim, units.group_dim)
        values = values.view([1 if d in extended else n for d, n in enumerate(x.shape)])
    return beside(values.to(x.device), x)


def rows(xs: list[Tensor], units: Units) -> Tensor:
    """Return the matrix whose k-th row holds all entries of unit k, in all tensors."""
    parts, count = [], unit_count(xs[0], units)
    for x in xs:
        extended = axes(x.ndim, units.group_dim)
        kept = [d for d in range(x.ndim) if d not in extended]
        slices = x.permute(*kept, *extended).reshape(-1, unit_size([x], Units(units.group_dim)))
        if not units.single:
            slices = slices.unflatten(0, (units.parts, count, -1)).transpose(0, 1)
            slices = slices.flatten(1)
        parts.append(slices)
    return torch.cat(parts, 1)


def unit_size(xs: list[Tensor], units: Units) -> int:
    """Return the number of entries of a unit: those of all its slices, in all tensors."""
    return sum(x.numel() for x in xs) // max(1, unit_count(xs[0], units))


def unit_weight(xs: list[Tensor], units: Units) -> float:
    """Return the factor of lam for the units of a family: 1, or the square root of their size."""
    if units.weight is None:
        return 1.0
    if units.weight != "sqrt":
        raise ValueError(f'weight must be None or "sqrt", got {units.weight!r}')
    return unit_size(xs, units) ** 0.5


def check_units(xs: list[Tensor], names: list, units: Units) -> None:
    """Refuse a family that cannot be gathered into these units, in one line."""
    unit_weight(xs, units)
    counts = []
    for name, x in zip(names, xs, strict=True):
        extended = axes(x.ndim, units.group_dim)
        count = tuple(n for d, n in enumerate(x.shape) if d not in extended)
        if not units.single:
            cut = units.block * units.parts
            if len(count) != 1:
                raise ValueError(
                    f"block and parts need slices along one axis, got group_dim {units.group_dim}"
                )
            if not counts and count[0] % cut:
                raise ValueError(
                    f"block * parts must divide the {count[0]} slices of {name}, "
                    f"got block {units.block} and parts {units.parts}"
                )
            first = counts[0][0] if counts else count[0]
            if not count[0] % (first // units.block):  # as many units, of other blocks
                count = (first,)
        counts.append(count)
        if count != counts[0]:
            raise ValueError(
                f"joint tensors must have equal numbers of slices, got {_times(counts[0])} of "
                f"{names[0]} and {_times(count)} of {name}"
            )


def _times(count):
    return "x".join(map(str, count)) or "1"

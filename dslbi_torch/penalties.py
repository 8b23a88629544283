"""Penalties: what each is, side by side. Twin of ``dslbi_ref/penalties.py``.

    l1      Omega(x) = lam * sum_i |x_i|
    group   Omega(x) = lam * sum_g w_g ||x_g||_2
    sparse group   the sum of both: groups that enter as one, and are sparse inside

with ``prox(v) = argmin_x ||x - v||^2 / 2 + Omega(x)``. Groups are the units of a family of tensors
(:mod:`dslbi_torch.slices`); ``w_g`` is 1, or the square root of the size of the group.

A unit is selected exactly when its *score* exceeds lam, and the dual norm of Omega is the largest
score. So supports, densities, rankings and targets are written once, for every row of the table.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softshrink

from .arguments import check_axes, check_flag, check_held, check_level, check_tensor, shown
from .slices import Units, checked_units, laid_over, rows, slice_norms, unit_norms, unit_weight


class Penalty(NamedTuple):
    """One penalty, as functions of a family of tensors and its units.

    Attributes
    ----------
    value : callable (xs, lam, units) -> Tensor
        Omega at xs.
    prox : callable (vs, lam, units) -> list of Tensor
        The proximal operator at vs, one tensor for each.
    score : callable (vs, units) -> list of Tensor
        What must exceed lam, each unit once: one tensor for the family where units are slices, one
        for each of its tensors where they are single entries.
    subgradient : callable (xs, lam, units) -> list of Tensor
        That of Omega at xs, of least norm.
    entries : bool
        Whether units are single entries.
    sliced : bool
        Whether it looks at slices, so that ``group_dim, block, parts, joint`` mean something.
    scaled : bool
        Whether prox multiplies each unit by :func:`factor` of its score.
    routes : tuple of str
        The fast routes of :mod:`dslbi_torch.routes` that can take it; the plain step always can.
    """

    value: Callable
    prox: Callable
    score: Callable
    subgradient: Callable
    entries: bool
    sliced: bool
    scaled: bool
    routes: tuple[str, ...]

    def dual_norm(self, xs: list[Tensor], units: Units) -> Tensor:
        """Return the largest score (0 of a family without entries)."""
        found = [score.max() for score in self.score(xs, units) if score.numel()]
        return torch.stack(found).max() if found else xs[0].new_zeros(())


def factor(score: Tensor, lam: float) -> Tensor:
    """Return ``max(score - lam, 0) / score``, what prox multiplies a unit of this score by.

    No rounding changes its sign: it is positive exactly where the score exceeds lam. Zero counts as
    the smallest number, so that nothing is divided by it, and infinity as the largest.
    """
    bounds = torch.finfo(score.dtype)
    size = score.clamp(bounds.tiny, bounds.max)
    return softshrink(size, lam).div_(size)


def soft_threshold(v: Tensor, lam: float = 1.0) -> Tensor:
    """Shrink every entry towards zero by ``lam >= 0``: the proximal operator of l1."""
    return _shrunk(check_tensor("v", v), check_level(lam, v))


def _shrunk(v, lam):
    return softshrink(v, lam)  # (prox-l1)


def _group_score(vs, units):
    weight = unit_weight(vs, units)
    size = unit_norms(vs, units)
    return [size if weight == 1 else size / weight]


def _group_prox(vs, lam, units):
    (score,) = _group_score(vs, units)
    scale = factor(score, lam)
    return [laid_over(scale, v, units) * v for v in vs]  # (prox-group)


def _group_subgradient(xs, lam, units):
    size, weight = unit_norms(xs, units), unit_weight(xs, units)
    inward = lam * weight / torch.where(size > 0, size, 1)
    return [laid_over(inward, x, units) * x for x in xs]


def _sparse_group_levels(vs, units):
    """Return the level s at which each group leaves: ``sum_i (|v_i| - s)_+^2 = (s w)^2``.

    With the k entries that exceed s, and the sums S1 and S2 of their sizes and squares, this is
    ``S2 - 2 s S1 + (k - w^2) s^2 = 0``.
    """
    size = rows(vs, units).abs().sort(1, descending=True).values
    square = unit_weight(vs, units) ** 2
    sums, squares = size.cumsum(1), size.square().cumsum(1)
    k = torch.arange(1, size.shape[1] + 1, device=size.device)
    exceed = squares - 2 * size * sums + k * size.square() < square * size.square()
    last = exceed.sum(1, keepdim=True).clamp(min=1) - 1
    S1, S2 = sums.gather(1, last), squares.gather(1, last)
    root = (S1.square() - (last + 1 - square) * S2).clamp(min=0).sqrt()
    return (S2 / (S1 + root).clamp(min=torch.finfo(size.dtype).tiny)).squeeze(1)


def _sparse_group_score(vs, units):
    level = _sparse_group_levels(vs, units)
    return [torch.minimum(v.abs(), laid_over(level, v, units)) for v in vs]


def _sparse_group_prox(vs, lam, units):
    inner = [_shrunk(v, lam) for v in vs]
    (score,) = _group_score(inner, units)
    # The level decides what stays, so that rounding cannot part the prox from the score.
    stays = _sparse_group_levels(vs, units).view(score.shape) > lam
    least = torch.finfo(score.dtype).eps
    scale = torch.where(stays, factor(score, lam).clamp(min=least), 0)
    return [laid_over(scale, v, units) * v for v in inner]  # (prox-sparse-group)


def _sparse_group_subgradient(xs, lam, units):
    group = _group_subgradient(xs, lam, units)
    return [lam * x.sign() + g for x, g in zip(xs, group, strict=True)]


L1 = Penalty(
    value=lambda xs, lam, units: lam * sum(x.abs().sum() for x in xs),
    prox=lambda vs, lam, units: [_shrunk(v, lam) for v in vs],
    score=lambda vs, units: [v.abs() for v in vs],
    subgradient=lambda xs, lam, units: [lam * x.sign() for x in xs],
    entries=True,
    sliced=False,
    scaled=False,
    routes=("pieces", "lists", "kernel"),
)
GROUP = Penalty(
    value=lambda xs, lam, units: lam * unit_weight(xs, units) * unit_norms(xs, units).sum(),
    prox=_group_prox,
    score=_group_score,
    subgradient=_group_subgradient,
    entries=False,
    sliced=True,
    scaled=True,
    routes=("pieces", "lists", "kernel"),
)
SPARSE_GROUP = Penalty(
    value=lambda xs, lam, units: L1.value(xs, lam, units) + GROUP.value(xs, lam, units),
    prox=_sparse_group_prox,
    score=_sparse_group_score,
    subgradient=_sparse_group_subgradient,
    entries=True,
    sliced=True,
    scaled=False,
    routes=(),
)
PENALTIES = {"l1": L1, "group": GROUP, "sparse group": SPARSE_GROUP}


def one_of() -> str:
    """Return the words of the table, for an error."""
    *most, last = (f'"{word}"' for word in PENALTIES)
    return f"{', '.join(most)} or {last}"


def penalty_named(word: str) -> Penalty:
    """Return the row of the table; ValueError for an unknown word."""
    if not (isinstance(word, str) and word in PENALTIES):
        raise ValueError(f"penalty must be {one_of()}, got {shown(word)}")
    return PENALTIES[word]


def l1_norm(x: Tensor, lam: float = 1.0) -> Tensor:
    """Return the value of the l1 penalty, ``lam * sum |x_i|``."""
    lam = check_level(lam, check_tensor("x", x))
    return check_held("x", x, L1.value([x], lam, Units()))


def l1_dual_norm(x: Tensor) -> Tensor:
    """Return the largest absolute entry (0 of an empty tensor)."""
    return L1.dual_norm([check_tensor("x", x)], Units())


def _units(group_dim, weight=None):
    return checked_units(Units(group_dim, weight=weight))


def group_norms(x: Tensor, *, group_dim=0, keepdim: bool = False) -> Tensor:
    """Return the norm of every slice along ``group_dim``, in the shape of the kept axes."""
    x, dims = check_tensor("x", x), check_axes(group_dim)
    found = check_held("x", x, slice_norms(x, dims))
    if check_flag("keepdim", keepdim):
        return found
    return found.reshape([x.shape[d] for d in sorted(d % x.ndim for d in dims)])


def group_norm(x: Tensor, lam: float = 1.0, *, group_dim=0, weight: str | None = None) -> Tensor:
    """Return the value of the group penalty, ``lam * sum_g w_g ||x_g||``."""
    lam = check_level(lam, check_tensor("x", x))
    return check_held("x", x, GROUP.value([x], lam, _units(group_dim, weight)))


def group_soft_threshold(
    v: Tensor, lam: float = 1.0, *, group_dim=0, weight: str | None = None
) -> Tensor:
    """Shorten every group by ``lam * w_g``, to zero at most: the proximal operator of group."""
    lam = check_level(lam, check_tensor("v", v))
    return check_held("v", v, GROUP.prox([v], lam, _units(group_dim, weight))[0])


def group_dual_norm(x: Tensor, *, group_dim=0, weight: str | None = None) -> Tensor:
    """Return the largest ``||x_g|| / w_g`` (0 without groups)."""
    x = check_tensor("x", x)
    return check_held("x", x, GROUP.dual_norm([x], _units(group_dim, weight)))

"""Penalties: value, proximal operator and dual norm. Twin of ``dslbi_ref/penalties.py``.

    l1      Omega(x) = lam * sum_i |x_i|
    group   Omega(x) = lam * sum_g w_g ||x_g||_2

with ``prox(v) = argmin_x ||x - v||^2 / 2 + Omega(x)``. Groups of a tensor are its slices along
``group_dim`` (an axis, or a tuple of axes: ``0`` a filter or neuron, ``1`` an input channel, ``(0,
1)`` a kernel, ``()`` the whole tensor); ``w_g`` is 1, or the square root of the size of the group.
"""

import torch
from torch import Tensor

_ONE = torch.ones((), device="cpu")  # making a tensor of the number takes longer than the rest


def l1_norm(x: Tensor, lam: float = 1.0) -> Tensor:
    """Value of the l1 penalty, ``lam * sum |x_i|``."""
    return lam * x.abs().sum()


def soft_threshold(v: Tensor, lam: float = 1.0) -> Tensor:
    """Proximal operator of the l1 penalty: shrink every entry towards zero by ``lam >= 0``."""
    return v - v.clamp(-lam, lam)  # (prox-l1)


def l1_dual_norm(x: Tensor) -> Tensor:
    """Largest absolute entry (0 of an empty tensor)."""
    return x.abs().max() if x.numel() else x.new_zeros(())


def axes(ndim: int, group_dim) -> tuple[int, ...]:
    """The axes that a group norm sums over: all but those of ``group_dim``."""
    if group_dim == 0 and ndim:  # the usual case, fast: it is asked once a tensor and step
        return tuple(range(1, ndim))
    dims = (group_dim,) if isinstance(group_dim, int) else tuple(group_dim)
    for d in dims:
        if not -ndim <= d < ndim:
            raise ValueError(f"group_dim must name axes of a {ndim}-d tensor, got {group_dim}")
    kept = {d % ndim for d in dims}
    return tuple(d for d in range(ndim) if d not in kept)


def group_norms(x: Tensor, *, group_dim=0, keepdim: bool = False) -> Tensor:
    """Euclidean norm of every group, of the shape of the kept axes."""
    summed = axes(x.ndim, group_dim)
    if not summed:  # every entry is a group; an empty list of axes would mean all of them to torch
        return x.abs()
    return torch.linalg.vector_norm(x, dim=summed, keepdim=keepdim)


def group_size(shape: torch.Size, group_dim=0) -> int:
    """Number of entries of a group."""
    size = 1
    for d in axes(len(shape), group_dim):
        size *= shape[d]
    return size


def group_weight(shape: torch.Size, *, group_dim=0, weight: str | None = None) -> float:
    """Factor of ``lam`` for the groups of a tensor: 1, or the square root of their size."""
    if weight is None:
        return 1.0
    if weight != "sqrt":
        raise ValueError(f'weight must be None or "sqrt", got {weight!r}')
    return group_size(shape, group_dim) ** 0.5


def group_norm(x: Tensor, lam: float = 1.0, *, group_dim=0, weight: str | None = None) -> Tensor:
    """Value of the group penalty, ``lam * sum_g w_g ||x_g||``."""
    w = group_weight(x.shape, group_dim=group_dim, weight=weight)
    return lam * w * group_norms(x, group_dim=group_dim).sum()


def group_scale(v: Tensor, lam: float = 1.0, *, group_dim=0, weight: str | None = None) -> Tensor:
    """The factor ``max(0, 1 - lam * w_g / ||v_g||)`` of every group, broadcastable to ``v``."""
    w = group_weight(v.shape, group_dim=group_dim, weight=weight)
    return scale_of(group_norms(v, group_dim=group_dim, keepdim=True), lam * w)


def scale_of(norms: Tensor, level: float) -> Tensor:
    """The factor of groups of these norms whose threshold is ``level``."""
    # a group of norm 0 gives 1 - level/0 = -inf, clamped to 0
    return torch.sub(_ONE, norms.reciprocal(), alpha=level).relu_()


def group_soft_threshold(
    v: Tensor, lam: float = 1.0, *, group_dim=0, weight: str | None = None
) -> Tensor:
    """Proximal operator of the group penalty: shorten every group by ``lam * w_g``, to zero at
    most."""
    return group_scale(v, lam, group_dim=group_dim, weight=weight) * v  # (prox-group)


def group_dual_norm(x: Tensor, *, group_dim=0, weight: str | None = None) -> Tensor:
    """Largest ``||x_g|| / w_g`` (0 without groups)."""
    w = group_weight(x.shape, group_dim=group_dim, weight=weight)
    norms = group_norms(x, group_dim=group_dim)
    return norms.max() / w if norms.numel() else x.new_zeros(())


def prox(
    v: Tensor, lam: float = 1.0, *, penalty: str = "l1", group_dim=0, weight: str | None = None
) -> Tensor:
    """The proximal operator named by ``penalty`` ("l1" or "group")."""
    if penalty == "l1":
        return soft_threshold(v, lam)
    if penalty == "group":
        return group_soft_threshold(v, lam, group_dim=group_dim, weight=weight)
    raise ValueError(f'penalty must be "l1" or "group", got {penalty!r}')

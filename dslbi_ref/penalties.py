"""Penalties: value, proximal operator and dual norm, side by side.

Two penalties carry the whole book. With weights ``w_g`` (1, or the square root of the group's
size),

    l1      Omega(x) = lam * sum_i |x_i|
    group   Omega(x) = lam * sum_g w_g ||x_g||_2

and ``prox(v) = argmin_x ||x - v||^2 / 2 + Omega(x)``. The dual norm is the smallest ``s`` with
``|<x, v>| <= s * Omega(x)`` at ``lam = 1``: a path leaves zero where the dual norm of the
accumulated gradient reaches ``lam``.

Groups of an array are its slices along ``group_dim`` (an axis, or a tuple of axes: ``0`` a filter
or neuron, ``(0, 1)`` a kernel, ``()`` the whole array). With ``groups``, an integer label for each
slice along the single axis ``group_dim``, slices of one label form one group.
"""

import numpy as np


def _check_level(lam):
    if not 0 <= lam < float("inf"):
        raise ValueError(f"lam must be at least 0 and finite, got {lam}")


def l1_norm(x, lam=1.0):
    """Value of the l1 penalty, ``lam * sum |x_i|``."""
    return lam * np.abs(x).sum()


def soft_threshold(v, lam=1.0):
    """Proximal operator of the l1 penalty: shrink every entry towards zero by ``lam >= 0``."""
    _check_level(lam)
    return np.sign(v) * np.maximum(np.abs(v) - lam, 0.0)  # (prox-l1)


def l1_dual_norm(x):
    """Largest absolute entry (0 of an empty array)."""
    return np.abs(x).max(initial=0.0)


def _axes(ndim, group_dim):
    dims = (group_dim,) if np.isscalar(group_dim) else tuple(group_dim)
    for d in dims:
        if not -ndim <= d < ndim:
            raise ValueError(f"group_dim must name axes of a {ndim}-d array, got {group_dim}")
    kept = {d % ndim for d in dims}
    return tuple(d for d in range(ndim) if d not in kept)


def _labels(x, group_dim, groups):
    """Labels checked and renumbered 0, 1, ..., one for each slice along ``group_dim``."""
    groups = np.asarray(groups)
    if not np.isscalar(group_dim):
        raise ValueError(f"groups label the slices along one axis group_dim, got {group_dim}")
    n_slices = x.shape[group_dim]
    if groups.shape != (n_slices,) or not np.issubdtype(groups.dtype, np.integer):
        raise ValueError(
            f"groups must be {n_slices} integer labels, got {groups.dtype} of shape {groups.shape}"
        )
    return np.unique(groups, return_inverse=True)[1]


def group_norms(x, *, group_dim=0, groups=None):
    """Euclidean norm of every group, shape of the kept axes (or one entry per label, sorted)."""
    axes = _axes(x.ndim, group_dim)
    squares = (x * x).sum(axis=axes)
    if groups is not None:
        squares = np.bincount(_labels(x, group_dim, groups), weights=squares)
    return np.sqrt(squares)


def group_weights(x, *, group_dim=0, groups=None, weight=None):
    """Factor of ``lam`` for every group: 1, or the square root of the size (``weight="sqrt"``)."""
    axes = _axes(x.ndim, group_dim)
    if weight not in (None, "sqrt"):
        raise ValueError(f'weight must be None or "sqrt", got {weight!r}')
    size = np.prod([x.shape[d] for d in axes], dtype=float)
    if groups is not None:
        size = size * np.bincount(_labels(x, group_dim, groups))
    else:
        size = np.full([x.shape[d] for d in range(x.ndim) if d not in axes], size)
    return np.sqrt(size) if weight == "sqrt" else np.ones_like(size)


def group_norm(x, lam=1.0, *, group_dim=0, groups=None, weight=None):
    """Value of the group penalty, ``lam * sum_g w_g ||x_g||``."""
    w = group_weights(x, group_dim=group_dim, groups=groups, weight=weight)
    return lam * (w * group_norms(x, group_dim=group_dim, groups=groups)).sum()


def group_soft_threshold(v, lam=1.0, *, group_dim=0, groups=None, weight=None):
    """Proximal operator of the group penalty: shorten every group by ``lam * w_g``, to zero at
    most.

    Parameters
    ----------
    v : ndarray
    lam : float >= 0
    group_dim : int or tuple of int
        Axes whose slices are groups.
    groups : int array of shape (v.shape[group_dim],), optional
        Slices with one label form one group.
    weight : None or "sqrt"
        ``w_g = 1``, or the square root of the number of entries of the group.
    """
    _check_level(lam)
    w = group_weights(v, group_dim=group_dim, groups=groups, weight=weight)
    norms = group_norms(v, group_dim=group_dim, groups=groups)
    with np.errstate(divide="ignore", invalid="ignore"):  # a group of norm 0 stays 0
        scale = np.where(norms > 0, np.maximum(1.0 - lam * w / norms, 0.0), 0.0)
    if groups is not None:
        scale = scale[_labels(v, group_dim, groups)]
        shape = [1] * v.ndim
        shape[group_dim] = -1
        return scale.reshape(shape) * v  # (prox-group)
    return np.expand_dims(scale, _axes(v.ndim, group_dim)) * v  # (prox-group)


def group_dual_norm(x, *, group_dim=0, groups=None, weight=None):
    """Largest ``||x_g|| / w_g`` (0 without groups)."""
    w = group_weights(x, group_dim=group_dim, groups=groups, weight=weight)
    norms = group_norms(x, group_dim=group_dim, groups=groups)
    return (norms / np.where(w > 0, w, 1.0)).max(initial=0.0)


def prox(v, lam=1.0, *, penalty="l1", group_dim=0, weight=None):
    """The proximal operator named by ``penalty`` ("l1" or "group")."""
    if penalty == "l1":
        return soft_threshold(v, lam)
    if penalty == "group":
        return group_soft_threshold(v, lam, group_dim=group_dim, weight=weight)
    raise ValueError(f'penalty must be "l1" or "group", got {penalty!r}')

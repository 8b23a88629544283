"""Penalties: value, proximal operator and score, side by side.

With weights ``w_g`` (1, or the square root of the unit's size),

    l1      Omega(x) = lam * sum_i |x_i|
    group   Omega(x) = lam * sum_g w_g ||x_g||_2
    sparse group   the sum of both: groups that enter as one, and are sparse inside

and ``prox(v) = argmin_x ||x - v||^2 / 2 + Omega(x)``. Every penalty has a *score*: **a unit is
selected exactly when its score exceeds lam**, that is, when the prox leaves a part of it. The
largest score is the dual norm, the smallest ``s`` with ``|<x, v>| <= s * Omega(x)`` at
``lam = 1``: a path leaves zero where the dual norm of the accumulated gradient reaches ``lam``.

``PENALTIES`` is the table. A further penalty is a further row: nothing else compares its word. What
a unit is, and what a family of arrays, stands in :mod:`dslbi_ref.units`. The functions with names
of their own are the same for a single array.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .checks import INF, check_in, check_scale, no_overflow, real, shown
from .units import Units, labels, norms, slice_axes, unit_weights

TINY = np.finfo(float).tiny


class Penalty(NamedTuple):
    """A penalty by its parts; ``xs`` and ``vs`` are families, lists of arrays.

    Attributes
    ----------
    value : ``(xs, lam, units) -> float``, Omega
    prox : ``(vs, lam, units) -> list of ndarray``, the proximal operator, one array for each
    score : ``(vs, units) -> list of ndarray``
        What must exceed lam, each unit once: one array of all slices, or an array per array where
        units are single entries.
    subgradient : ``(xs, lam, units) -> list of ndarray``, that of Omega of least norm
    """

    value: Callable
    prox: Callable
    score: Callable
    subgradient: Callable

    def dual_norm(self, xs, units):
        """Return the largest score (0 of a family without entries)."""
        return max(score.max(initial=0.0) for score in self.score(xs, units))


def factor(score, lam):
    """Return ``max(score - lam, 0) / score``, what prox multiplies a unit of this score by."""
    return 1 - lam / np.maximum(score, max(lam, TINY))


def _check_level(lam):
    if type(lam) is float and 0 <= lam < INF:  # once a step
        return lam
    (lam,) = check_in(0, INF, lam=lam)
    return lam


# ---- l1: every entry by itself ---------------------------------------------------------------


@no_overflow
def l1_norm(x, lam=1.0):
    """Return the value of the l1 penalty, ``lam * sum |x_i|``."""
    return _check_level(lam) * np.abs(real(x, "x")).sum()


def soft_threshold(v, lam=1.0):
    """Shrink every entry towards zero by ``lam >= 0``: the proximal operator of the l1 penalty."""
    lam, v = _check_level(lam), real(v)
    return np.sign(v) * np.maximum(np.abs(v) - lam, 0.0)  # (prox-l1)


def l1_dual_norm(x):
    """Return the largest absolute entry (0 of an empty array)."""
    return np.abs(real(x, "x")).max(initial=0.0)


# ---- group: every unit as a whole ------------------------------------------------------------


def _family(xs):
    """Return the arrays of a family, real; refuse an array alone, whose rows would pass for one."""
    if not (isinstance(xs, list | tuple) and xs):
        array, none = isinstance(xs, np.ndarray), isinstance(xs, list | tuple)
        got = f"an array of shape {xs.shape}" if array else "none" if none else shown(xs)
        raise ValueError(f"a family must be a list of arrays, at least one, got {got}")
    return [real(x, "a family") for x in xs]


@no_overflow
def _group_value(xs, lam, units):
    lam, xs = _check_level(lam), _family(xs)
    k, count = labels(xs, units)
    return lam * (unit_weights(k, count, units.weight) * norms(xs, k, count)).sum()


def _joint_scores(vs, k, count, units):
    w = unit_weights(k, count, units.weight)
    return norms(vs, k, count) / np.where(w > 0, w, 1.0)  # w is 0 where a unit has no entry


def _group_score(vs, units):
    vs = _family(vs)
    return [_joint_scores(vs, *labels(vs, units), units)]


def _group_prox(vs, lam, units):
    """Shorten every unit by ``lam * w_g``, to zero at most."""
    lam, vs = _check_level(lam), _family(vs)
    k, count = labels(vs, units)
    scale = factor(_joint_scores(vs, k, count, units), lam)
    return [scale[label] * v for label, v in zip(k, vs, strict=True)]  # (prox-group)


def _group_subgradient(xs, lam, units):
    xs = _family(xs)
    k, count = labels(xs, units)
    size = norms(xs, k, count)
    inward = lam * unit_weights(k, count, units.weight) / np.where(size > 0, size, 1.0)
    return [inward[label] * x for label, x in zip(k, xs, strict=True)]


def _squarable(x, name):
    """Return a real array; refuse one whose squares overflow or vanish."""
    x = real(x, name)
    check_scale(name, x)
    return x


def group_norms(x, *, group_dim=0, groups=None):
    """Return the norm of every group, in the shape of the kept axes (or by label, sorted)."""
    x = _squarable(x, "x")
    size = norms([x], *labels([x], Units(group_dim, groups=groups)))
    if groups is not None:
        return size
    return size.reshape([x.shape[d] for d in slice_axes(x.ndim, group_dim)])


def group_norm(x, lam=1.0, *, group_dim=0, groups=None, weight=None):
    """Return the value of the group penalty, ``lam * sum_g w_g ||x_g||``."""
    return _group_value([_squarable(x, "x")], lam, Units(group_dim, groups=groups, weight=weight))


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
    return _group_prox([_squarable(v, "v")], lam, Units(group_dim, groups=groups, weight=weight))[0]


def group_dual_norm(x, *, group_dim=0, groups=None, weight=None):
    """Return the largest ``||x_g|| / w_g`` (0 without groups)."""
    return PENALTIES["group"].dual_norm(
        [_squarable(x, "x")], Units(group_dim, weight=weight, groups=groups)
    )


# ---- sparse group: units that enter as one, and are sparse inside ------------------------------


def _sparse_group_value(xs, lam, units):
    return sum(l1_norm(x, lam) for x in xs) + _group_value(xs, lam, units)


def _sparse_group_prox(vs, lam, units):
    """Shrink every entry, then every unit.

    The level decides what stays, so that rounding cannot part the prox from the score.
    """
    lam, vs = _check_level(lam), _family(vs)
    k, count = labels(vs, units)
    inner = [soft_threshold(v, lam) for v in vs]
    scale = np.maximum(factor(_joint_scores(inner, k, count, units), lam), np.finfo(float).eps)
    scale = np.where(_levels(vs, k, count, units) > lam, scale, 0.0)
    return [scale[label] * v for label, v in zip(k, inner, strict=True)]  # (prox-sparse-group)


def _sparse_group_score(vs, units):
    """Return the smaller of an entry's size and the level at which its unit leaves."""
    vs = _family(vs)
    k, count = labels(vs, units)
    level = _levels(vs, k, count, units)
    return [np.minimum(np.abs(v), level[label]) for label, v in zip(k, vs, strict=True)]


def _levels(vs, k, count, units):
    """Level at which each unit leaves."""
    flat = np.concatenate([label.ravel() for label in k])
    size = np.abs(np.concatenate([v.ravel() for v in vs]))
    members = np.split(
        size[np.argsort(flat, kind="stable")], np.cumsum(np.bincount(flat, minlength=count))[:-1]
    )
    w = unit_weights(k, count, units.weight)
    return np.array([_leaves_at(a, w_g) for a, w_g in zip(members, w, strict=True)])


def _leaves_at(a, w):
    """Return the level s at which a unit of sizes a leaves: ``sum_i (a_i - s)_+^2 = (s w)^2``.

    With the k entries above s, and their sums S1 of sizes and S2 of squares, it solves
    ``S2 - 2 s S1 + (k - w^2) s^2 = 0``; k counts the entries at which the left side is smaller.
    """
    a = np.sort(a)[::-1]
    S1, S2, k = np.cumsum(a), np.cumsum(a * a), np.arange(1, len(a) + 1)
    above = S2 - 2 * a * S1 + k * a * a < (w * a) ** 2
    if not above.any():  # every entry is zero
        return 0.0
    last = np.flatnonzero(above)[-1]
    S1, S2, k = S1[last], S2[last], k[last]
    return S2 / (S1 + np.sqrt(max(S1 * S1 - (k - w * w) * S2, 0.0)))


def _sparse_group_subgradient(xs, lam, units):
    group = _group_subgradient(xs, lam, units)
    return [lam * np.sign(real(x)) + g for x, g in zip(xs, group, strict=True)]


# ---- The table -------------------------------------------------------------------------------

PENALTIES = {
    "l1": Penalty(
        value=lambda xs, lam, units: sum(l1_norm(x, lam) for x in xs),
        prox=lambda vs, lam, units: [soft_threshold(v, lam) for v in vs],
        score=lambda vs, units: [np.abs(real(v)) for v in vs],
        subgradient=lambda xs, lam, units: [lam * np.sign(real(x)) for x in xs],
    ),
    "group": Penalty(_group_value, _group_prox, _group_score, _group_subgradient),
    "sparse group": Penalty(
        _sparse_group_value, _sparse_group_prox, _sparse_group_score, _sparse_group_subgradient
    ),
}


def penalty_named(word):
    """Return the row of the table; refuse another word with the list of them."""
    if not (isinstance(word, str) and word in PENALTIES):
        *most, last = (f'"{known}"' for known in PENALTIES)
        raise ValueError(f"penalty must be {', '.join(most)} or {last}, got {word!r}")
    return PENALTIES[word]

"""Penalties: value, proximal operator and score, side by side.

With weights ``w_g`` (1, or the square root of the unit's size),

    l1      Omega(x) = lam * sum_i |x_i|
    group   Omega(x) = lam * sum_g w_g ||x_g||_2

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


def _check_level(lam):
    if not 0 <= lam < float("inf"):
        raise ValueError(f"lam must be at least 0 and finite, got {lam}")


# ---- l1: every entry by itself ---------------------------------------------------------------


def l1_norm(x, lam=1.0):
    """Return the value of the l1 penalty, ``lam * sum |x_i|``."""
    return lam * np.abs(x).sum()


def soft_threshold(v, lam=1.0):
    """Shrink every entry towards zero by ``lam >= 0``: the proximal operator of the l1 penalty."""
    _check_level(lam)
    return np.sign(v) * np.maximum(np.abs(v) - lam, 0.0)  # (prox-l1)


def l1_dual_norm(x):
    """Return the largest absolute entry (0 of an empty array)."""
    return np.abs(x).max(initial=0.0)


# ---- group: every unit as a whole ------------------------------------------------------------


def _group_value(xs, lam, units):
    k, count = labels(xs, units)
    return lam * (unit_weights(k, count, units.weight) * norms(xs, k, count)).sum()


def _joint_scores(vs, k, count, units):
    w = unit_weights(k, count, units.weight)
    return norms(vs, k, count) / np.where(w > 0, w, 1.0)  # w is 0 where a unit has no entry


def _group_score(vs, units):
    return [_joint_scores(vs, *labels(vs, units), units)]


def _group_prox(vs, lam, units):
    """Shorten every unit by ``lam * w_g``, to zero at most."""
    _check_level(lam)
    k, count = labels(vs, units)
    score = _joint_scores(vs, k, count, units)
    scale = 1 - lam / np.maximum(score, max(lam, TINY))
    return [scale[label] * v for label, v in zip(k, vs, strict=True)]  # (prox-group)


def _group_subgradient(xs, lam, units):
    k, count = labels(xs, units)
    size = norms(xs, k, count)
    inward = lam * unit_weights(k, count, units.weight) / np.where(size > 0, size, 1.0)
    return [inward[label] * x for label, x in zip(k, xs, strict=True)]


def group_norms(x, *, group_dim=0, groups=None):
    """Return the norm of every group, in the shape of the kept axes (or by label, sorted)."""
    size = norms([x], *labels([x], Units(group_dim, groups=groups)))
    return size if groups is not None else size.reshape(_kept(x, group_dim))


def _kept(x, group_dim):
    return [x.shape[d] for d in slice_axes(x.ndim, group_dim)]


def group_weights(x, *, group_dim=0, groups=None, weight=None):
    """Return the factor of ``lam`` for every group: 1, or the root of its size ("sqrt")."""
    w = unit_weights(*labels([x], Units(group_dim, groups=groups)), weight)
    return w if groups is not None else w.reshape(_kept(x, group_dim))


def group_norm(x, lam=1.0, *, group_dim=0, groups=None, weight=None):
    """Return the value of the group penalty, ``lam * sum_g w_g ||x_g||``."""
    return _group_value([x], lam, Units(group_dim, groups=groups, weight=weight))


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
    return _group_prox([v], lam, Units(group_dim, groups=groups, weight=weight))[0]


def group_dual_norm(x, *, group_dim=0, groups=None, weight=None):
    """Return the largest ``||x_g|| / w_g`` (0 without groups)."""
    return PENALTIES["group"].dual_norm([x], Units(group_dim, weight=weight, groups=groups))


# ---- The table -------------------------------------------------------------------------------

PENALTIES = {
    "l1": Penalty(
        value=lambda xs, lam, units: sum(l1_norm(x, lam) for x in xs),
        prox=lambda vs, lam, units: [soft_threshold(v, lam) for v in vs],
        score=lambda vs, units: [np.abs(v) for v in vs],
        subgradient=lambda xs, lam, units: [lam * np.sign(x) for x in xs],
    ),
    "group": Penalty(_group_value, _group_prox, _group_score, _group_subgradient),
}


def penalty_named(word):
    """Return the row of the table; refuse another word with the list of them."""
    if word not in PENALTIES:
        choices = " or ".join(f'"{known}"' for known in PENALTIES)
        raise ValueError(f"penalty must be {choices}, got {word!r}")
    return PENALTIES[word]


def penalty_of_labels(groups=None):
    """Return penalty and units of a linear model: entries (rows) of one label enter together.

    ``groups`` is one integer for each entry along axis 0; None: every entry by itself.
    """
    if groups is None:
        return PENALTIES["l1"], Units(group_dim=None)
    return PENALTIES["group"], Units(groups=groups)

"""The penalty of a linear model: what enters together, what it counts, and which sign it may have.

Made of a row of the table of :mod:`dslbi_ref.penalties`, for arrays whose axis 0 are coefficients,
or rows of D: labels make groups, factors set thresholds of their own, signs cut one side off.
"""

import numpy as np

from .checks import INF, real
from .penalties import PENALTIES, Penalty
from .units import Units, labels


def positive_part(penalty):
    """Return the penalty on entries that must not be negative: infinity elsewhere.

    Its prox is that of the positive part: the penalty falls where a negative entry becomes zero.
    """

    def up(vs):
        return [np.maximum(real(v), 0.0) for v in vs]

    def value(xs, lam, units):
        return INF if any((real(x) < 0).any() for x in xs) else penalty.value(xs, lam, units)

    return penalty._replace(
        value=value,
        prox=lambda vs, lam, units: penalty.prox(up(vs), lam, units),  # (prox-positive)
        score=lambda vs, units: penalty.score(up(vs), units),
    )


def with_factors(penalty, factors):
    """Return ``Omega(w x)``, w one factor for each entry along axis 0, equal within a unit.

    An entry of factor 0 is not penalised, nor has it a sign to keep.
    """
    weighed = factors > 0
    w = np.where(weighed, factors, 1.0)

    def times(xs, w):
        return [(real(x).T * w).T for x in xs]

    def prox(vs, lam, units):
        inner = penalty.prox(times(vs, 1 / w), lam, units)
        pairs = zip(times(inner, w), vs, strict=True)
        return [np.where(weighed, x.T, real(v).T).T for x, v in pairs]  # (prox-factors)

    def score(vs, units):
        with np.errstate(divide="ignore", invalid="ignore"):
            over = [np.where(real(v) == 0, 0.0, (real(v).T / factors).T) for v in vs]
        return penalty.score(over, units)

    def subgradient(xs, lam, units):
        return times(penalty.subgradient(times(xs, factors), lam, units), factors)

    def value(xs, lam, units):
        return penalty.value(times(xs, factors), lam, units)

    return Penalty(value, prox, score, subgradient)


def penalty_of_labels(groups=None, factors=None, positive=False):
    """Return penalty and units of a linear model: entries (rows) of one label enter together.

    ``groups`` is one integer for each entry along axis 0; None: every entry by itself. ``factors``
    and ``positive`` as in :func:`with_factors` and :func:`positive_part`.
    """
    if groups is None:
        penalty, units = PENALTIES["l1"], Units(group_dim=None)
    else:
        penalty, units = PENALTIES["group"], Units(groups=groups)
    penalty = positive_part(penalty) if positive else penalty
    return (penalty if factors is None else with_factors(penalty, factors)), units


def shrink(z, *, kappa, lam=1.0, groups=None, scale=None, factors=None, positive=False):
    """Return the sparse iterate ``gamma = kappa * prox_lam(z)``, times ``scale`` if given.

    ``groups`` (an integer label), ``factors`` and ``scale`` have one number for each entry along
    axis 0.
    """
    penalty, units = penalty_of_labels(groups, factors, positive)
    gamma = kappa * penalty.prox([z], lam, units)[0]
    return gamma if scale is None else (gamma.T * scale).T


def crossing(a, b, lam, *, groups=None, factors=None, positive=False):
    """Return how far from a to b the unit of each entry grows to its threshold, in [0, 1]."""
    _, units = penalty_of_labels(groups)
    if factors is not None:
        a, b = ((x.T / np.where(factors > 0, factors, 1.0)).T for x in (a, b))
    (unit,), count = labels([a], units)

    def inner(x, y):
        return np.bincount(unit.ravel(), (x * y).ravel(), minlength=count)[unit]

    d = b - a
    if positive and groups is not None:  # the norm of the positive part is convex: bisect
        low, high = np.zeros_like(a), np.ones_like(a)
        for _ in range(60):
            middle = (low + high) / 2
            v = np.maximum(a + middle * d, 0.0)
            beyond = inner(v, v) > lam**2
            low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
        return high
    # The larger root of |a + s (b - a)|^2 = lam^2, which lies in [0, 1] where it is asked for.
    q, h, c = inner(d, d), inner(a, d), inner(a, a) - lam**2
    root = np.sqrt(np.maximum(h * h - q * c, 0.0)) - h
    return np.clip(root / np.where(q > 0, q, 1.0), 0.0, 1.0)

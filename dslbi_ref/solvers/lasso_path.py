"""The lasso path of a quadratic, exact: from the level of the first entry down, event by event.

    g(lam) = argmin_g  g'Hg / 2 - c'g + lam |g|_1

Between two events the active set P and its signs s rest, ``g_P = H_PP^-1 (c_P - lam s_P)``, so g
and the pull ``c - H g`` are linear in lam (Osborne, Presnell and Turlach 2000). An event is an
index whose pull reaches lam, or one whose coefficient reaches zero. The rows of H and its factor
are kept as in :mod:`dslbi_ref.solvers.active_set`.
"""

import numpy as np

from ..checks import check_in
from .active_set import Quadratic

# A pull that follows lam closer than this is one of a column that depends on the active ones.
PARALLEL = 1e-9


def lasso_path(H, c, *, ratio=1e-3):
    """Compute the path from ``lam = max |c|`` to ``ratio`` times that.

    Parameters
    ----------
    H : ndarray (p, p), or callable
        Symmetric and positive semi-definite; see :class:`dslbi_ref.solvers.active_set.Rows`.
    c : ndarray (p,)
        In the range of H.
    ratio : float in [0, 1)
        Last level, over the first.

    Returns
    -------
    lam : ndarray (K,)
        Levels of the events, decreasing; the single level 0 where c is zero.
    g, pull : ndarray (K, p)
        The minimiser, and ``c - H g``, at each level; linear between two of them.

    Notes
    -----
    Where active columns depend on one another the minimiser is not unique: one that would have to
    join them stays out, its pull at the boundary.
    """
    (ratio,) = check_in(0, 1, ratio=ratio)
    fit = Quadratic(H, c)
    pull, g = fit.start(), np.zeros(len(c))
    lam = np.abs(pull).max()
    levels, least = [(lam, g, pull)], ratio * lam
    outside = np.ones(len(c), dtype=bool)  # who may join
    joins = np.abs(pull).argmax()
    while lam > least:
        if joins is not None:
            fit.append(joins, lam - np.abs(pull))
            outside[joins] = False
        active = fit.active
        sign = np.sign(pull[active])
        direction = fit.factor.solve(sign)
        slope = fit.rows.product(active, direction, slice(None))
        slope[active] = sign
        fall, joins = _first_to_join(lam, pull, slope, outside)
        leaving, i = _first_to_leave(g[active], direction * sign)
        step = min(fall, leaving, lam - least)
        g = g.copy()
        g[active] += step * direction
        lam, pull = lam - step, pull - step * slope
        if leaving == step:
            g[active[i]], joins = 0.0, None
            fit.values = g[active]
            fit.delete(i)
            outside[:] = True
            outside[fit.active] = False
        levels.append((lam, g, pull))
    return tuple(np.array(column) for column in zip(*levels, strict=True))


def _first_to_join(lam, pull, slope, outside):
    """Return how far lam falls until a pull outside of P is as large, and whose that is."""
    fall = np.full((2, len(pull)), np.inf)
    for row, sign in zip(fall, (1.0, -1.0), strict=True):
        nearing = outside & (1 - sign * slope > PARALLEL)
        gap = np.maximum(lam - sign * pull[nearing], 0.0)
        row[nearing] = gap / (1 - sign * slope[nearing])
    return fall.min(), fall.min(axis=0).argmin()


def _first_to_leave(values, growth):
    """Return how far lam falls until an active coefficient is zero, and its place in P."""
    wait = np.full(len(values), np.inf)
    falling = growth < 0
    wait[falling] = -np.abs(values[falling]) / growth[falling]
    return (wait.min(), wait.argmin()) if len(values) else (np.inf, None)

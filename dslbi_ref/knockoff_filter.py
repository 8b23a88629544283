"""From the clocks of rows and of their copies to a selection: the knockoff filter.

A row has a clock a(t), and enters where that is 1 or -1. Its *copy* has a clock too, and for a row
that is not real it is a coin toss which of the two is the first. So the rows that lose against
their copies say how many of those that win are false (Barber and Candes 2015), and a threshold
keeps that share at q. :mod:`dslbi_ref.knockoffs` and :mod:`dslbi_ref.classical_knockoffs` make the
copies.
"""

from typing import NamedTuple

import numpy as np

from .checks import (
    check_array,
    check_flag,
    check_number,
    check_times,
    check_word,
    no_overflow,
    real,
)
from .iss import collect, iss_states
from .path import TIME_TOLERANCE
from .solvers.lasso_path import lasso_path

# Last time of a path, over that of the first entry.
SPAN = 1000.0


class Selection(NamedTuple):
    """What a knockoff filter names.

    Attributes
    ----------
    selected : bool array (m,)
    sign : ndarray (m,)
        -1, 1, or 0 where a row never enters: the direction of each row.
    W : ndarray (m,)
        Evidence: positive where a row enters before its copy.
    threshold : float
        ``selected`` is ``W >= threshold``; infinity where nothing can be named.
    nu : float or None
    """

    selected: np.ndarray
    sign: np.ndarray
    W: np.ndarray
    threshold: float
    nu: float | None


# ---- The clocks of a path --------------------------------------------------------------------


def exact_clocks(H, c, *, nu, path):
    """Return times t (K,) from 0 to 1000 times the first entry, and the clocks there, (K, m).

    A clock is ``1/nu`` times the integral of ``D beta = gamma + nu (c - H gamma)`` along the path
    "iss", and ``t D beta(1/t) / nu`` along the path "lasso". H is a callable, as for
    :func:`dslbi_ref.iss.iss_states`.
    """
    check_word("path", path, ("iss", "lasso"))
    zero = np.zeros(len(c))
    if not c.any():
        return np.array([0.0, 1.0]), np.stack([zero, zero])
    if path == "iss":
        exact = collect(iss_states(H, c), SPAN / np.abs(c).max())
        clock = exact.z.copy()
        clock[1:] += np.cumsum(exact.gamma[:-1] * np.diff(exact.t)[:, None], axis=0) / nu
        return exact.t, clock  # (knockoff-iss-clock)
    lam, gamma, pull = lasso_path(H, c, ratio=1 / SPAN)
    clock = (gamma / nu + pull) / lam[:, None]  # (knockoff-lasso-clock)
    return np.append(0.0, 1 / lam), np.vstack([zero, clock])


# ---- From clocks to evidence -----------------------------------------------------------------


# What becomes of the levels Z of a row and of its copy, of any sign and of the sign of the row.
STATISTICS = {
    "s": lambda Z, copy, same: Z * _before(Z, copy),
    "st": lambda Z, copy, same: Z * _before(Z, same),
    "bc": lambda Z, copy, same: np.maximum(Z, copy) * _before(Z, copy),
    "bct": lambda Z, copy, same: np.maximum(Z, same) * _before(Z, same),
}


def _before(Z, copy):
    """Return 1 where the row is the first, else -1: a tie counts against it."""
    return np.where(Z > copy, 1.0, -1.0)


def levels(t, clock):
    """Return one over the time at which each clock reaches 1; zero if it never does.

    ``clock`` (K, m) is linear between the times t (K,), and zero at the first.
    """
    there = clock >= 1 - TIME_TOLERANCE
    k = np.maximum(there.argmax(axis=0), 1)
    column = np.arange(clock.shape[1])
    low, high = clock[k - 1, column], clock[k, column]
    reached = there.any(axis=0)
    part = np.minimum((1 - low) / np.where(reached, high - low, 1.0), 1.0)
    time = t[k - 1] + part * (t[k] - t[k - 1])
    return np.where(reached, 1 / np.where(reached, time, 1.0), 0.0)


@no_overflow
def knockoff_statistics(t, clock, zeta, statistic="s"):
    """Return (W, sign) of rows with these clocks, whose copies run faster by ``zeta``.

    Parameters
    ----------
    t : ndarray (K,)
        Increasing from 0.
    clock : ndarray (K, m)
        Linear between times; a row enters where it is 1 or -1.
    zeta : ndarray (m,)
        NaN where there is no copy; there W is zero.
    statistic : "s", "st", "bc" or "bct"
        Of the level Z = 1/t at which a row enters, and that of its copy: W has the size of Z ("s"),
        or of the larger one ("bc"), and is positive where Z is. With "t" a copy enters only with
        the sign of its row.
    """
    check_word("statistic", statistic, tuple(STATISTICS))
    t = check_times(t, "t")
    zeta = real(zeta, "zeta")
    clock = check_array("clock", clock, (len(t), zeta.size))
    check_array("zeta", np.where(np.isnan(zeta), 0.0, zeta), clock.shape[1:])
    up, down = levels(t, clock), levels(t, -clock)
    Z, sign = np.maximum(up, down), np.sign(up - down)
    copied = clock + np.multiply.outer(t, zeta)  # (knockoff-clock)
    up, down = levels(t, copied), levels(t, -copied)
    same = np.where(sign > 0, up, np.where(sign < 0, down, 0.0))
    W = STATISTICS[statistic](Z, np.maximum(up, down), same)
    return np.where(np.isnan(zeta), 0.0, W), sign


# ---- From evidence to a selection ------------------------------------------------------------


def check_rate(q):
    """Return q as a float in (0, 1)."""
    rate = check_number("q", q)
    if not 0 < rate < 1:
        raise ValueError(f"q must be in (0, 1), got {q}")
    return rate


def knockoff_threshold(W, q, *, plus=True):
    """Return the least threshold at which the estimated share of false ones is at most q.

    ``(1 + #{W <= -T}) / #{W >= T} <= q`` for T among the sizes of W; without ``plus`` the 1 is left
    out: more is named, and the control is of a weaker rate.
    """
    W, q, plus = check_array("W", W), check_rate(q), check_flag("plus", plus)
    sizes, named, against = np.unique(np.abs(W[W != 0])), np.sort(W[W > 0]), np.sort(-W[W < 0])
    false = plus + len(against) - np.searchsorted(against, sizes)
    named = np.maximum(len(named) - np.searchsorted(named, sizes), 1)
    good = false <= q * named  # (knockoff-threshold)
    return float(sizes[good.argmax()]) if good.any() else np.inf


def selection_of(W, sign, q, plus, nu):
    threshold = knockoff_threshold(W, q, plus=plus)
    return Selection(W >= threshold, sign, W, threshold, nu)

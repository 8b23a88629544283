"""Stability selection: entries that a path selects on nearly every half of the data.

A path is computed on many halves of the observations, drawn at random, and on each its first q
entries are taken (or all until a time). An entry is stable if the share of halves on which it is
among them, its frequency, is at least a threshold (Meinshausen and Buehlmann 2010). In
*complementary pairs* the two halves of a pair have no observation in common (Shah and Samworth
2013); then the number of false ones is bounded in the mean, whatever the path and the model are:
see :func:`false_bound` and the book.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.optimize import brentq, minimize_scalar

from .checks import (
    check_array,
    check_design,
    check_flag,
    check_integer,
    check_kind,
    check_number,
    check_positive,
    check_word,
    shown,
)
from .optional import brought_by

# ---- Halves and frequencies --------------------------------------------------------------------


class Stability(NamedTuple):
    """How often each entry is selected.

    Attributes
    ----------
    frequency : ndarray of the shape of one gamma
        Share of the halves on which the entry is selected.
    both : ndarray of that shape, or None
        Share of the pairs on both halves of which it is. None: the halves are not paired.
    size : float
        Mean number of entries selected on a half.
    halves : int
    """

    frequency: np.ndarray
    both: np.ndarray | None
    size: float
    halves: int

    def selected(self, threshold):
        """Return the mask of the entries of a frequency of at least ``threshold``, in (1/2, 1]."""
        return self.frequency >= check_threshold(threshold) - 1e-10


def check_threshold(threshold):
    """Return a threshold as a float; refuse one outside (1/2, 1]."""
    (number,) = check_positive(threshold=threshold)
    if not 0.5 < number <= 1:
        raise ValueError(f"threshold must be in (0.5, 1], got {threshold}")
    return number


def half_samples(n, pairs, *, complementary=True, seed=0):
    """Return index arrays of half of n observations, ``2 * pairs`` of them, each of n // 2.

    The halves 2k and 2k + 1 are two parts of one permutation, or, if not ``complementary``, drawn
    independently of each other.
    """
    n, pairs = check_integer("n", n, 4), check_integer("pairs", pairs, 1)
    check_flag("complementary", complementary)
    if not isinstance(seed, np.random.Generator):
        seed = check_integer("seed", seed, 0, 2**128)
    rng, half = np.random.default_rng(seed), n // 2
    if complementary:
        orders = [rng.permutation(n) for _ in range(pairs)]
        return [np.sort(part) for o in orders for part in (o[:half], o[half : 2 * half])]
    return [np.sort(rng.permutation(n)[:half]) for _ in range(2 * pairs)]


def first_entries(times, first):
    """Return the mask of the ``first`` entries by time; all of a tie that would exceed it stay out.

    ``times`` are entry times, infinite where an entry never enters: there may be fewer.
    """
    if first >= times.size:
        return np.isfinite(times)
    return times < np.partition(times, first, axis=None)[first]


def _selection(fit, X, y, first):
    """Return the mask of what is selected on one half."""
    found = fit(X, y)
    if np.ndim(found) and np.asarray(found).dtype == np.bool_:
        return found
    if not hasattr(found, "entry_times"):
        raise ValueError(f"fit must return a Path or a mask of bools, got {shown(found)}")
    times = found.entry_times()
    return np.isfinite(times) if first is None else first_entries(times, first)


def stability_selection(
    fit, X, y, *, first=None, pairs=50, complementary=True, seed=0, n_jobs=None
):
    """Compute selection frequencies over halves of the data.

    Parameters
    ----------
    fit : callable ``(X, y) -> Path``, or ``-> ndarray of bool``
        A path of any kind, for example ``lambda X, y: iss_path(X, y, intercept=True)``; or what a
        method of another kind selects.
    X : ndarray or scipy.sparse, (n, p)
    y : ndarray (n,)
    first : int >= 1, optional
        Take the first entries of each path, that many; a longer path than needed only costs time.
        Default: all that enter until the path ends, which its ``t_max`` says.
    pairs : int >= 1
        Half of the number of halves. The frequency is a multiple of ``1 / (2 pairs)``.
    complementary : bool
        The halves of a pair have no observation in common (Shah and Samworth); False: all halves
        are independent (Meinshausen and Buehlmann).
    seed : int or numpy.random.Generator
    n_jobs : int, optional
        Processes of joblib; -1: one for each core; default: none, in this process.

    Returns
    -------
    Stability

    Raises
    ------
    ValueError
        Shapes do not match, fewer than four observations, ``first`` or ``pairs`` below one.
    ImportError
        ``n_jobs`` without joblib.
    """
    check_kind("fit", fit, callable)
    X = check_design(X, as_is=True)
    X, n = sp.csr_array(X) if sp.issparse(X) else X, X.shape[0]
    y = check_array("y", y, (n,))
    first = None if first is None else check_integer("first", first, 1)
    halves = half_samples(n, pairs, complementary=complementary, seed=seed)
    if n_jobs is None:
        masks = [_selection(fit, X[rows], y[rows], first) for rows in halves]
    else:
        with brought_by("estimators", "n_jobs"):
            from joblib import Parallel, delayed
        n_jobs = check_integer("n_jobs", n_jobs, -1)
        if n_jobs == 0:
            raise ValueError("n_jobs must be None, -1 or at least 1, got 0")
        work = (delayed(_selection)(fit, X[rows], y[rows], first) for rows in halves)
        masks = Parallel(n_jobs=n_jobs)(work)
    masks = np.array(masks)
    both = (masks[::2] & masks[1::2]).mean(axis=0) if complementary else None
    size = masks.reshape(len(masks), -1).sum(axis=1).mean()
    return Stability(masks.mean(axis=0), both, float(size), len(masks))


# ---- How many of them are false ----------------------------------------------------------------


def _worst_case(theta, phi, pairs):
    return theta**2 / (2 * phi - 1)  # (stability-worst-case)


def _unimodal(theta, phi, pairs):
    """Bound for a share of joint selections whose distribution has one mode."""
    least = 0.5 + min(theta**2, 1 / (2 * pairs) + 0.75 * theta**2)
    if theta > 1 / np.sqrt(3) or phi <= least + 1e-10:
        return np.inf
    if phi <= 0.75 + 1e-10:
        return theta**2 / (2 * (2 * phi - 1 - 1 / (2 * pairs)))  # (stability-unimodal)
    return theta**2 * 4 * (1 - phi + 1 / (2 * pairs)) / (1 + 1 / pairs)


def _r_concave(theta, phi, pairs):
    """Bound for shares of joint and of single selections that are -1/2- and -1/4-concave."""
    step = round(2 * pairs * phi)
    joint = r_concave_tail(theta**2, step - pairs, pairs, -0.5)
    return min(joint, r_concave_tail(theta, step, 2 * pairs, -0.25))  # (stability-r-concave)


class Assumption(NamedTuple):
    """What is assumed of an entry of low selection probability.

    ``bound(theta, phi, pairs)`` is the largest chance that it is stable, if theta bounds the chance
    that it is selected on one half; ``implies`` is the assumption that is assumed with it.
    """

    bound: Callable
    implies: str | None


ASSUMPTIONS = {
    "none": Assumption(_worst_case, None),
    "unimodal": Assumption(_unimodal, "none"),
    "r-concave": Assumption(_r_concave, "unimodal"),
}


def false_bound(first, p, threshold, *, pairs=50, assumption="unimodal"):
    """Return a bound on the expected number of false entries that are stable.

    An entry is *of low probability* if it is selected on a random half with probability at most
    ``first / p``, what choosing at random would give it. The bound is on the expected number of
    stable entries of low probability; if no false entry is more probable than that (noise that is
    exchangeable, and a method no worse than chance), it is on the number of false ones.

    Parameters
    ----------
    first : float in (0, p]
        Mean number of entries selected on a half.
    p : int
        Number of all entries.
    threshold : float in (1/2, 1]
        Least frequency of a stable entry, rounded up to a multiple of ``1 / (2 pairs)``.
    pairs : int >= 1
        Number of complementary pairs.
    assumption : "none", "unimodal" or "r-concave"
        On the distribution of the share of pairs (r-concave: and of halves) that select an entry of
        low probability. "none" is the bound of Meinshausen and Buehlmann, ``first^2 / (p (2
        threshold - 1))``, which complementary pairs keep for every number of them; an assumption
        implies the weaker ones, and the least of their bounds is returned.

    Raises
    ------
    ValueError
        A number outside what is said above, another word.

    Notes
    -----
    Shah and Samworth (2013). For independent halves only "none" is proved, in the limit of many.
    """
    p = check_integer("p", p, 1)
    pairs = check_integer("pairs", pairs, 1)
    (size,) = check_positive(first=first)
    if size > p:
        raise ValueError(f"first must be at most p = {p}, got {first}")
    check_word("assumption", assumption, ASSUMPTIONS)
    phi = np.ceil(2 * pairs * check_threshold(threshold) - 1e-10) / (2 * pairs)
    bounds = [float(p)]
    while assumption is not None:
        bound, assumption = ASSUMPTIONS[assumption]
        bounds.append(p * bound(size / p, phi, pairs))
    return min(bounds)


def largest_first(p, threshold, expected, *, pairs=50, assumption="unimodal"):
    """Return the largest ``first`` whose :func:`false_bound` is at most ``expected``.

    Raises
    ------
    ValueError
        Not even one entry may be taken.
    """
    (limit,) = check_positive(expected=expected)
    options = dict(pairs=pairs, assumption=assumption)
    low, high = 0, check_integer("p", p, 1) + 1
    while high - low > 1:  # the bound grows with first
        middle = (low + high) // 2
        if false_bound(middle, p, threshold, **options) <= limit:
            low = middle
        else:
            high = middle
    if low == 0:
        least = false_bound(1, p, threshold, **options)
        raise ValueError(
            f"expected must be at least {least:.3g}, what one entry of {p} gives, got {expected}"
        )
    return low


# ---- The tail of an r-concave distribution ----------------------------------------------------


def r_concave_tail(mean, t, B, r):
    """Return the largest ``P(X >= t)`` of an r-concave X on 0, ..., B with ``E X <= mean * B``.

    r-concave, for r < 0: ``f^r`` is convex, f the probabilities. At the largest tail it is linear:
    ``f_i`` is in proportion to ``(a + i)^(1/r)`` up to some k, has what the mean leaves at k + 1,
    and is zero beyond. So one number a is searched for each k.

    Parameters
    ----------
    mean : float > 0
        From one half on, nothing is bounded: the result is 1.
    t : int from 0 to B
        For t up to twice the mean the result is 1.
    B : int >= 1
    r : float < 0
    """
    (mean,), B = check_positive(mean=mean), check_integer("B", B, 1)
    t = check_integer("t", t, 0, B)
    if not -np.inf < check_number("r", r) < 0:
        raise ValueError(f"r must be negative and finite, got {r}")
    average, i = mean * B, np.arange(B + 1)
    start = int(np.ceil(2 * average - 1e-10)) + 1  # the uniform distribution on fewer has less mean
    if t < start or start > B:
        return 1.0

    def weights(log_a, k):
        return (1 + i[: k + 1] * np.exp(-log_a)) ** (1 / r)

    def surplus(log_a, k):
        w = weights(log_a, k)
        return w @ i[: k + 1] / w.sum() - average

    def below(log_a, k):
        """P(X < t), with the rest of the mass at k + 1."""
        w = weights(log_a, k)
        return w[:t].sum() * (k + 1 - average) / (w @ (k + 1 - i[: k + 1]))

    low = max(start, t - 1)
    ends = [brentq(surplus, -60.0, 60.0, args=(k,), xtol=1e-12) for k in range(low, B + 1)]
    least = below(ends[-1], B)
    for k in range(low, B):
        between = ends[k + 1 - low], ends[k - low]
        inner = minimize_scalar(below, between, args=(k,), method="bounded", bounds=between)
        least = min(least, inner.fun, *(below(a, k) for a in between))
    return float(1 - least)

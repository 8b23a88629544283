"""Split Knockoffs: which rows of ``D beta`` are not zero, with few false ones among those named.

A path says in which order the rows of ``D beta`` enter, not which of them to believe. A *copy* of
each row tells: it looks like the row, and what it knows of y is noise. A row is believed if it
enters before its copy, and early enough that hardly any copy did as well (Cao, Sun and Yao 2024).

In the split model ``(y; 0) = (X; D / sqrt(nu)) beta - (0; I / sqrt(nu)) gamma + noise`` the columns
of gamma are orthogonal, and so are those of the copy. Hence a row and its copy have clocks in
closed form along any path of beta, and only one path has to be solved:

    the row    a_i(t)                  enters where |a_i| = 1
    its copy   a_i(t) + t zeta_i       with zeta = copy'y / sqrt(n)

Along the lasso ``a(t) = t D beta(1/t) / nu``, as published. Along the inverse scale space ``a(t) =
int_0^t D beta / nu``, which is the same as long as no index leaves; this one is ours. Where beta
comes from one part of the rows of X and the copy from the others, the directional false discovery
rate is at most q along any path: the proof is in the book. From all rows at once it is checked by
simulation only, ``benchmarks/knockoffs.py``.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from .checks import (
    check_array,
    check_design,
    check_flag,
    check_integer,
    check_list,
    check_number,
    check_positive,
    check_scale,
    check_transform,
    check_word,
    no_overflow,
)
from .knockoff_filter import (
    STATISTICS,
    check_rate,
    exact_clocks,
    knockoff_statistics,
    levels,
    selection_of,
)
from .problem import split_problem
from .split_iss import split_iss_path, split_quadratic
from .stopping import cross_validate

# Candidates for nu: the range of the authors.
NUS = (1.0, 2.5, 6.3, 16.0, 40.0, 100.0)


# ---- The copy --------------------------------------------------------------------------------


@no_overflow
def split_copy(X, D, *, nu, seed=0):
    """Return the copy of the columns of gamma, at the rows of X: (n, m), and its s.

    Parameters
    ----------
    X : ndarray (n, p)
        Centred, of rank p, with n > p + m.
    D : ndarray (m, p)
    nu : float > 0
    seed : int
        Of the directions that carry the noise of the copy: any will do.

    Notes
    -----
    Its other rows are ``-sqrt(nu) (1/nu - s) I``. With ``S = X'X/n``, ``C^-1 = nu I + D S^-1 D'``
    and U an orthonormal basis of m directions orthogonal to X and to 1, the copy is
    ``U K - s X S^-1 D' / sqrt(n)`` with ``K'K = 2s I - s^2 C^-1``, and s the smaller of 1/nu and
    1.9 times the least eigenvalue of C.
    """
    (nu,), X = check_positive(nu=nu), check_design(X, sparse=False)
    D = check_transform(D, X.shape[1])
    D = D.toarray() if sp.issparse(D) else D
    (n, p), m = X.shape, D.shape[0]
    if n < p + m + 1:
        raise ValueError(f"X must have at least p + m + 1 = {p + m + 1} rows, got {n}")
    independent(X)
    ahead = scipy.linalg.solve(X.T @ X / n, D.T, assume_a="pos")
    inverse = nu * np.eye(m) + D @ ahead
    top = scipy.linalg.eigvalsh(inverse, subset_by_index=[m - 1, m - 1])[0]
    s = min(1.9 / top, 1 / nu)
    K = scipy.linalg.cholesky(2 * s * np.eye(m) - s * s * inverse)
    U = orthogonal_directions(X, m, seed)
    return U @ K - s * (X @ ahead) / np.sqrt(n), s  # (knockoff-copy)


def orthogonal_directions(X, m, seed):
    """Return an orthonormal basis (n, m) of random directions orthogonal to X and to 1."""
    n, p = X.shape
    noise = own_stream(seed).standard_normal((n, m))
    return np.linalg.qr(np.column_stack([np.ones(n), X, noise]))[0][:, p + 1 :]


def own_stream(seed):
    """Return a generator whose numbers are not those of data that were made from the same seed."""
    return np.random.default_rng([check_integer("seed", seed, 0), 1])


# ---- The paths -------------------------------------------------------------------------------


@no_overflow
def split_clocks(X, y, D, *, nu, path="iss"):
    """Return (t, clock) of the rows of D along a path of X and y: see :func:`exact_clocks`."""
    (nu,) = check_positive(nu=nu)
    problem, D = split_problem(X, y, D, intercept=True)
    H, c, _ = split_quadratic(problem, D, nu)
    return exact_clocks(H, c, nu=nu, path=path)


def chosen_nu(X, y, D, nus=NUS, *, folds=5):
    """Return the nu whose exact Split inverse scale space has the least held-out error."""
    nus, least = [nu for one in check_list("nus", nus) for nu in check_positive(nus=one)], []
    if not nus:
        raise ValueError("nus must hold at least one nu, got none")
    rows = check_array("y", y, check_design(X).shape[:1])
    folds = min(check_integer("folds", folds, 2), len(rows))
    for nu in nus:
        first = split_iss_path(X, y, D, nu=nu, intercept=True).t
        if len(first) < 2:
            return nu
        times = np.geomspace(first[1], 20 * first[1], 50)

        def fit(X, y, nu=nu, t_max=times[-1]):
            return split_iss_path(X, y, D, nu=nu, t_max=t_max, intercept=True)

        least.append(cross_validate(fit, X, y, times, folds=folds, part="beta").mean.min())
    return nus[int(np.argmin(least))]


# ---- The filter ------------------------------------------------------------------------------


class Race(NamedTuple):
    """Clocks of the rows of D, (K, m) at times t (K,), and by how much their copies are faster.

    ``zeta`` (m,) is NaN where a row has no copy.
    """

    nu: float
    t: np.ndarray
    clock: np.ndarray
    zeta: np.ndarray


def split_race(X, y, D, *, nu, part, path, seed):
    """Return the :class:`Race` of rows and copies; arguments as of :func:`split_knockoffs`."""
    (n, p), m = X.shape, D.shape[0]
    one = other = slice(None)
    if part is not None:
        if not 0 < check_number("part", part) < 1:
            raise ValueError(f"part must be None or in (0, 1), got {part}")
        order = own_stream(seed).permutation(n)
        one, other = np.split(order, [max(round(part * n), 2)])
    fit = _rows_that_fit(n if part is None else len(other), n, p, m, part)
    (nu,) = check_positive(nu=chosen_nu(X[one], y[one], D) if nu is None else nu)
    t, clock = split_clocks(X[one], y[one], D, nu=nu, path=path)
    tried = np.arange(m)
    if fit < m:
        entered = np.maximum(levels(t, clock), levels(t, -clock))
        tried = np.argsort(-entered, kind="stable")[:fit]
    design = independent(X[other] - X[other].mean(axis=0))
    rows = D[tried].toarray() if sp.issparse(D) else D[tried]
    copy, _ = split_copy(design, rows, nu=nu, seed=seed)
    zeta = np.full(m, np.nan)
    zeta[tried] = copy.T @ y[other] / np.sqrt(len(design))
    return Race(nu, t, clock, zeta)


def split_knockoffs(
    X, y, D, *, q=0.2, nu=None, part=0.4, path="iss", statistic=None, plus=True, seed=0
):
    """Name rows of D whose ``D beta`` is not zero, with a false discovery rate of at most q.

    Parameters
    ----------
    X : ndarray (n, p)
        With columns of a common scale: nu is relative to their variance.
    y : ndarray (n,)
        ``X beta`` plus an intercept and independent normal noise of one variance.
    D : ndarray or scipy.sparse, (m, p)
        Of any rank.
    q : float in (0, 1)
    nu : float > 0, or None
        Coupling; None: one of ``NUS``, by cross-validation on the rows that give the path.
    part : float in (0, 1), or None
        Share of the rows that gives the path; the copy has the others. None: all rows give both.
    path : "lasso" or "iss"
    statistic : "s", "st", "bc", "bct" or None
        See :func:`knockoff_statistics`. None: "st" with a part, "bct" without.
    plus : bool
        Knockoff+, or knockoff, whose control is of a weaker rate.
    seed : int
        Of the part, and of the copy.

    Returns
    -------
    Selection

    Raises
    ------
    ValueError
        An argument outside what is said above; too few rows for the copy; columns of X that depend
        on one another.

    Notes
    -----
    With a part, the expected share of rows named that are zero, or of the other sign, is at most q
    with plus, whatever n, nu, D, the path and the design: the chapter on knockoffs has the proof.
    The copy takes p + m + 1 rows of X; where fewer are left, only the first rows of D to enter are
    tried, as many as fit. Without a part nothing is proved, and only "bc" and "bct" kept the rate,
    for nu of at least 1, in ``benchmarks/results/knockoffs.json``.
    """
    X, y, D, q = checked_data(X, y, D, q)
    plus = check_flag("plus", plus)
    statistic = ("bct" if part is None else "st") if statistic is None else statistic
    check_word("statistic", statistic, tuple(STATISTICS))
    race = split_race(X, y, D, nu=nu, part=part, path=path, seed=seed)
    W, sign = knockoff_statistics(race.t, race.clock, race.zeta, statistic)
    return selection_of(W, sign, q, plus, race.nu)


# ---- What is refused -------------------------------------------------------------------------


def checked_data(X, y, D, q):
    """Return the data as arrays; refuse what is none, and a y that does not vary."""
    X = check_design(X, sparse=False)
    y, D = check_array("y", y, (len(X),)), check_transform(D, X.shape[1])
    check_scale("y", y)
    if not np.ptp(y) > 0:
        raise ValueError(f"y must vary, got {len(y)} times {y[0]:g}")
    return X, y, sp.csr_array(D) if sp.issparse(D) else D, check_rate(q)


def independent(X):
    """Return X, centred; refuse columns that depend on one another."""
    rank = np.linalg.matrix_rank(X, rtol=1e-7)  # its Gram matrix has the square of that
    if rank < X.shape[1]:
        raise ValueError(
            f"X must have independent columns about their means, got rank {rank} of {X.shape[1]}"
        )
    return X


def _rows_that_fit(left, n, p, m, part):
    """Return how many rows of D can have a copy beside ``left`` rows of X."""
    if part is None and left < p + m + 1:
        raise ValueError(
            f"n must be at least p + m + 1 = {p + m + 1} where the path has all rows, got {n}: "
            "part=0.4 tries as many rows of D as fit"
        )
    if left < p + 2:
        rest = f"a part of at most {1 - (p + 2) / n:.3g}" if n > p + 4 else "more rows"
        raise ValueError(f"the copy must have at least p + 2 = {p + 2} rows, got {left}: {rest}")
    return min(m, left - p - 1)

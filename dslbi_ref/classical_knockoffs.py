"""Knockoffs of coefficients, for comparison: of a fixed design, and of rows that are normal.

The copy has the correlations of the columns of X with one another, and none of its own with y. Both
enter one path, and W is the larger of the two levels of entry, negative where the copy was first.
"""

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from .checks import (
    LEAST,
    check_array,
    check_design,
    check_scale,
    no_overflow,
    shown,
)
from .knockoff_filter import STATISTICS, exact_clocks, levels, selection_of
from .knockoffs import checked_data, independent, orthogonal_directions, own_stream


def fixed_knockoffs(X, y, D=None, *, q=0.2, path="lasso", plus=True, seed=0):
    """Name rows of ``D beta`` by the classical knockoffs of a fixed design (Barber, Candes 2015).

    Parameters
    ----------
    D : ndarray or scipy.sparse, (m, p), of full row rank, or None: the identity
        ``X beta`` is written in D beta; the kernel of D is projected out.
    X, y, q, path, plus, seed
        See :func:`split_knockoffs`; n of at least 2m + 1 + the dimension of the kernel of D.
    """
    X = check_design(X, sparse=False)
    X, y, D, q = checked_data(X, y, np.eye(X.shape[1]) if D is None else D, q)
    p = X.shape[1]
    D = D.toarray() if sp.issparse(D) else D
    n, m = len(X), len(D)
    rank = np.linalg.matrix_rank(D)
    if rank < m:
        raise ValueError(f"D must have full row rank, got rank {rank} of {m} rows")
    if n < p + m + 1:
        raise ValueError(f"n must be at least p + m + 1 = {p + m + 1} for the copy, got {n}")
    X = independent(X - X.mean(axis=0))
    kernel = X @ scipy.linalg.null_space(D)
    Z = X @ np.linalg.pinv(D)
    Z = Z - kernel @ np.linalg.lstsq(kernel, Z, rcond=None)[0]
    Z = Z / np.linalg.norm(Z, axis=0)
    return paired_selection(Z, fixed_copy(Z, X, seed), y, q, path, plus)


def fixed_copy(Z, X, seed):
    """Return the copy of columns Z of norm 1 in the span of X, (n, m); its noise avoids X and 1."""
    gram, one = Z.T @ Z, np.eye(Z.shape[1])
    s = min(1.99 * scipy.linalg.eigvalsh(gram)[0], 1.0)
    ahead = np.linalg.solve(gram, s * one)
    K = scipy.linalg.cholesky(2 * s * one - s * ahead)
    return Z - Z @ ahead + orthogonal_directions(X, len(one), seed) @ K  # (knockoff-fixed)


@no_overflow
def gaussian_knockoffs(X, y, *, q=0.2, mean=None, cov=None, path="lasso", plus=True, seed=0):
    """Name coefficients by model-X knockoffs of normal rows (Candes, Fan, Janson, Lv 2018).

    Parameters
    ----------
    mean, cov : ndarray (p,) and (p, p), or None
        Of a row of X; None: as estimated, which needs n > p. n is free where they are known.
    X, y, q, path, plus, seed
        See :func:`split_knockoffs`; any regression of y on X, as long as the rows are independent.
    """
    X = check_design(X, sparse=False)
    X, y, _, q = checked_data(X, y, np.eye(X.shape[1]), q)
    n, p = X.shape
    if cov is None and n <= p:
        raise ValueError(f"cov must be given for n of at most p, got n = {n} and p = {p}")
    mean = X.mean(axis=0) if mean is None else check_array("mean", mean, (p,))
    cov = np.cov(X.T).reshape(p, p) if cov is None else check_array("cov", cov, (p, p))
    check_scale("cov", np.diag(cov))
    gap = np.abs(cov - cov.T).max()
    if not (np.diag(cov).min() >= LEAST and gap <= 1e-8 * np.abs(cov).max()):
        raise ValueError(f"cov must be symmetric, its diagonal positive, got {shown(cov)}")
    size = np.sqrt(np.diag(cov))
    copy = gaussian_copy(X, mean, cov, seed)
    return paired_selection(X / size, copy / size, y, q, path, plus)


def gaussian_copy(X, mean, cov, seed):
    """Return the copy of normal rows, (n, p): a draw given X, whatever y is."""
    size = np.sqrt(np.diag(cov))
    least = scipy.linalg.eigvalsh(cov / np.outer(size, size))[0]
    if not least > 0:
        raise ValueError(f"cov must be positive definite, got a least eigenvalue of {least:.3g}")
    s = min(1.99 * least, 1.0) * size**2
    ahead = np.linalg.solve(cov, np.diag(s))
    K = scipy.linalg.cholesky(2 * np.diag(s) - s[:, None] * ahead)
    noise = own_stream(seed).standard_normal(X.shape) @ K
    return X - (X - mean) @ ahead + noise  # (knockoff-gaussian)


def paired_selection(Z, copy, y, q, path, plus):
    """Let the columns of Z and their copies compete on one path: W is the signed larger level."""
    both = np.column_stack([Z, copy])
    both, y, m = both - both.mean(axis=0), y - y.mean(), Z.shape[1]
    H = both.T @ both / len(y)
    t, clock = exact_clocks(lambda J: H[J], both.T @ y / len(y), nu=1.0, path=path)
    up, down = levels(t, clock), levels(t, -clock)
    Z, copied = np.split(np.maximum(up, down), 2)
    return selection_of(STATISTICS["bc"](Z, copied, copied), np.sign(up - down)[:m], q, plus, None)

"""The columns of X, centred and scaled; a sparse X is centred without being filled."""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from .losses import CURVATURE, spectral_norm_squared


class Design(NamedTuple):
    """The matrix ``X - 1 mean'``, centred in place if dense, and by ``mean`` if sparse.

    Attributes
    ----------
    X : ndarray or scipy.sparse.csc_array, (n, p)
    mean : ndarray (p,) or None
        What is still to be subtracted from each column.
    """

    X: np.ndarray | sp.csc_array
    mean: np.ndarray | None = None

    def dot(self, beta):
        """Product with beta, (p,) or (p, k)."""
        eta = self.X @ beta
        return eta if self.mean is None else eta - self.mean @ beta

    def adjoint(self, r):
        """Product of the transpose with r, (n,) or (n, k)."""
        g = self.X.T @ r
        return g if self.mean is None else g - np.multiply.outer(self.mean, r.sum(axis=0))

    def columns(self, j):
        """Columns j, dense, in Fortran order."""
        block = self.X[:, j]
        block = block.toarray() if sp.issparse(block) else block
        return np.asfortranarray(block if self.mean is None else block - self.mean[j])

    def lipschitz(self, *, loss="squared", intercept=False):
        """Lipschitz constant of the gradient in (beta, intercept).

        A column of ones is orthogonal to centred columns, so the intercept adds the eigenvalue 1 of
        its own; with the squared loss it rests at its minimiser and adds nothing.
        """
        norm = spectral_norm_squared(self.X, self.mean) / self.X.shape[0]
        if intercept and loss != "squared":
            norm = max(norm, 1.0)
        return CURVATURE[loss] * norm


def standardize(X, *, intercept=False, normalize=False):
    """Centre (with an intercept) and scale to ``|column| = sqrt(n)`` (with ``normalize``).

    Parameters
    ----------
    X : ndarray or scipy.sparse.csc_array, (n, p)
        As returned by :func:`dslbi_ref.losses.check_design`.

    Returns
    -------
    design : Design
    centre : ndarray (p,)
        Means of the columns of X; zero without an intercept.
    scale : ndarray (p,) or None
        The columns of X were divided by these; None without ``normalize``.

    Notes
    -----
    A coefficient of the design divided by ``scale`` is one of X, and the intercept of X is that of
    the design minus ``centre @ coefficients``.
    """
    n, p = X.shape
    sparse = sp.issparse(X)
    centre = np.asarray(X.mean(axis=0)).ravel() if intercept else np.zeros(p)
    mean = centre if intercept and sparse else None
    if intercept and not sparse:
        X = X - centre
    if not normalize:
        return Design(X, mean), centre, None
    squares = np.asarray((X * X).sum(axis=0)).ravel()
    size = np.sqrt(squares / n) if not sparse else _centred_size(X, squares, centre)
    # A constant column leaves rounding behind when its mean is taken off.
    flat = np.flatnonzero(size <= 1e-12 * np.maximum(np.sqrt(squares / n), np.abs(centre)))
    if flat.size:
        what = "constant" if intercept else "zero"
        raise ValueError(f"normalize needs columns that vary, got {what} column {flat[0]} of X")
    X = X @ sp.diags_array(1 / size, format="csc") if sparse else X / size
    return Design(X, None if mean is None else mean / size), centre, size


def _centred_size(X, squares, centre):
    """Root mean square of the columns of ``X - 1 centre'``, without cancellation, X sparse."""
    n = X.shape[0]
    stored = np.diff(X.indptr)
    shifted = (X.data - np.repeat(centre, stored)) ** 2
    inside = np.bincount(np.repeat(np.arange(X.shape[1]), stored), shifted, minlength=X.shape[1])
    return np.sqrt((inside + (n - stored) * centre**2) / n)

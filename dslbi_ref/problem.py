"""The columns of X, centred or scaled; a sparse X is centred without being filled."""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from .losses import CURVATURE, spectral_norm_squared


def check_positive(**values):
    """Refuse what is not positive and finite."""
    for name, number in values.items():
        if not 0 < number < np.inf:
            raise ValueError(f"{name} must be positive and finite, got {number}")


class Design(NamedTuple):
    """The matrix ``X - 1 mean'``, centred in place if dense, and by ``mean`` if sparse.

    Attributes
    ----------
    X : ndarray or scipy.sparse.csc_array, (n, p)
    mean : ndarray (p,) or None
        What is still to be subtracted from each column.
    size : float or None
        Largest norm of a column before it was centred; None: of X.
    """

    X: np.ndarray | sp.csc_array
    mean: np.ndarray | None = None
    size: float | None = None

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

    def noise(self, y):
        """Size below which an entry of ``X'y / n`` is rounding error.

        Taking the mean off a column leaves an error of the size of the column as it was.
        """
        size = largest_norm(self.X) if self.size is None else self.size
        return 1e-14 * size * np.linalg.norm(y) / len(y)

    def lipschitz(self, *, loss="squared", intercept=False):
        """Lipschitz constant of the gradient in (beta, intercept).

        A column of ones is orthogonal to centred columns, so the intercept adds the eigenvalue 1 of
        its own; with the squared loss it rests at its minimiser and adds nothing.
        """
        norm = spectral_norm_squared(self.X, self.mean) / self.X.shape[0]
        if intercept and loss != "squared":
            norm = max(norm, 1.0)
        return CURVATURE[loss] * norm


def largest_norm(X):
    """Largest Euclidean norm of a column of X."""
    return float(np.sqrt((X * X).sum(axis=0).max()))


def centred(X, intercept):
    """Design of X, and the column means that were taken off: zero unless ``intercept``.

    A coefficient keeps its meaning; the intercept of X is that of the design, the value at the
    means, minus ``means @ coefficients``.
    """
    if not intercept:
        return Design(X), np.zeros(X.shape[1])
    means = np.asarray(X.mean(axis=0)).ravel()
    size = largest_norm(X)
    return (Design(X, means, size) if sp.issparse(X) else Design(X - means, None, size)), means


def column_scale(X, intercept):
    """Root mean square of each column of X, about its mean with an intercept; none may vanish."""
    n, p = X.shape
    means = np.asarray(X.mean(axis=0)).ravel() if intercept else np.zeros(p)
    if sp.issparse(X):
        stored = np.diff(X.indptr)
        column = np.repeat(np.arange(p), stored)
        squares = np.bincount(column, (X.data - means[column]) ** 2, minlength=p)
        squares = squares + (n - stored) * means**2
    else:
        squares = ((X - means) ** 2).sum(axis=0)
    scale = np.sqrt(squares / n)
    # Taking the mean off a constant column leaves rounding behind.
    flat = np.flatnonzero(scale <= 1e-13 * np.abs(means))
    if flat.size:
        what = "constant" if intercept else "zero"
        raise ValueError(f"normalize needs columns that vary, got {what} column {flat[0]} of X")
    return scale

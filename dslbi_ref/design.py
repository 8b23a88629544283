"""The matrix of a linear model, centred without being filled, and what is known of its columns."""

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, eigsh

from .solvers.blocks import Blocks
from .solvers.packed import MANY


def spectral_norm_squared(X, mean=None, weights=None):
    """Return the square of the largest singular value of X, dense or sparse, or of ``X - 1 mean'``.

    With weights (n,), of that matrix with its rows times their roots.

    Up to a smaller side of 2000, the top eigenvalue of the smaller Gram matrix. Beyond, Lanczos
    iteration to a relative residual of 1e-9, by which the result is raised: a fixed starting vector
    with a part in every direction makes the result repeatable.
    """
    n, p = X.shape
    shift = np.zeros(p) if mean is None else mean
    root = np.ones(n)
    if weights is not None:
        root = np.sqrt(weights)
        X = sp.diags_array(root) @ X if sp.issparse(X) else root[:, None] * X
    if min(n, p) > 2000:
        start = np.cos(np.arange(p) ** 2)

        def product(v):
            eta = X @ v - root * (shift @ v)
            return X.T @ eta - shift * (root @ eta)

        gram = LinearOperator((p, p), matvec=product, dtype=np.float64)
        norm = eigsh(gram, k=1, v0=start, tol=1e-9, return_eigenvectors=False)[0]
        return float(norm * (1 + 1e-9))
    gram = X @ X.T if n <= p else X.T @ X
    gram = gram.toarray() if sp.issparse(gram) else gram
    if mean is not None:
        if n > p:
            cross, rest = np.outer(root @ X, mean), (root @ root) * np.outer(mean, mean)
        else:
            cross, rest = np.outer(X @ mean, root), (mean @ mean) * np.outer(root, root)
        gram = gram - (cross + cross.T - rest)
    top = [len(gram) - 1, len(gram) - 1]
    norm = scipy.linalg.eigh(gram, eigvals_only=True, subset_by_index=top)[0]
    return float(max(norm, 0.0))


class Design(NamedTuple):
    """The matrix ``X - 1 mean'``: centred in a copy if dense, by ``mean`` if sparse or large.

    Attributes
    ----------
    X : ndarray, scipy.sparse.csc_array or Blocks, (n, p)
    mean : ndarray (p,) or None
        What is still to be subtracted from each column.
    size : float or None
        Largest norm of a column before it was centred; None: of X.
    """

    X: np.ndarray | sp.csc_array | Blocks
    mean: np.ndarray | None = None
    size: float | None = None

    def dot(self, beta):
        """Return the product with beta, (p,) or (p, k)."""
        eta = self.X @ beta
        return eta if self.mean is None else eta - self.mean @ beta

    def adjoint(self, r):
        """Return the product of the transpose with r, (n,) or (n, k)."""
        g = self.X.T @ r
        return g if self.mean is None else g - np.multiply.outer(self.mean, r.sum(axis=0))

    def columns(self, j):
        """Return the columns j, dense, in Fortran order."""
        block = self.X[:, j]
        block = block.toarray() if sp.issparse(block) else block
        return np.asfortranarray(block if self.mean is None else block - self.mean[j])

    def part(self, j):
        """Return the Design of the columns j alone."""
        return Design(self.X[:, j], None if self.mean is None else self.mean[j], self.size)

    def noise(self, y):
        """Return the size below which an entry of ``X'y / n`` is rounding error.

        Taking the mean off a column leaves an error of the size of the column as it was.
        """
        size = largest_norm(self.X) if self.size is None else self.size
        return 1e-14 * size * np.linalg.norm(y) / len(y)

    def lipschitz(self, loss, *, intercept=False, weights=None):
        """Return the Lipschitz constant of the gradient in (beta, intercept).

        A column of ones is orthogonal to centred columns, so the intercept adds the eigenvalue 1 of
        its own; with a quadratic loss it rests at its minimiser and adds nothing.
        """
        norm = spectral_norm_squared(self.X, self.mean, weights) / self.X.shape[0]
        if intercept and not loss.quadratic:
            norm = max(norm, 1.0)
        return loss.lipschitz * norm


def largest_norm(X):
    """Return the largest Euclidean norm of a column of X."""
    if isinstance(X, Blocks):
        return float(np.sqrt(X.squares().max()))
    parts = (X[:, j : j + MANY] for j in range(0, X.shape[1], MANY))  # a square is a copy
    return float(np.sqrt(max((part * part).sum(axis=0).max() for part in parts)))


def column_means(X, weights=None):
    """Return the means of the columns, weighted by weights of mean one if there are any."""
    if weights is None:
        return np.asarray(X.mean(axis=0)).ravel()
    return X.T @ weights / len(weights)


def centred(X, intercept, weights=None):
    """Return the Design of X, and the column means taken off: zero unless ``intercept``.

    A coefficient keeps its meaning; the intercept of X is that of the design, the value at the
    means, minus ``means @ coefficients``.
    """
    if not intercept:
        return Design(X), np.zeros(X.shape[1])
    means = column_means(X, weights)
    size = largest_norm(X)
    kept = sp.issparse(X) or isinstance(X, Blocks)
    return (Design(X, means, size) if kept else Design(X - means, None, size)), means


def column_deviation(X, intercept, weights=None):
    """Return the root mean square of each column, about its mean if centred; 0 if rounding."""
    n, p = X.shape
    means = column_means(X, weights) if intercept else np.zeros(p)
    if sp.issparse(X):
        w = np.ones(n) if weights is None else weights
        column, here = np.repeat(np.arange(p), np.diff(X.indptr)), w[X.indices]
        squares = np.bincount(column, here * (X.data - means[column]) ** 2, minlength=p)
        squares = squares + (n - np.bincount(column, here, minlength=p)) * means**2
    elif isinstance(X, Blocks):
        squares = X.squares(means, weights)
    elif weights is None:
        squares = ((X - means) ** 2).sum(axis=0)
    else:
        squares = weights @ (X - means) ** 2
    scale = np.sqrt(squares / n)
    # Taking the mean off a constant column leaves rounding behind.
    return np.where(scale <= 1e-13 * np.abs(means), 0.0, scale)


def column_scale(X, intercept, weights=None):
    """Return the :func:`column_deviation` of X; refuse a column of none."""
    scale = column_deviation(X, intercept, weights)
    flat = np.flatnonzero(scale == 0)
    if flat.size:
        what = "constant" if intercept else "zero"
        raise ValueError(f"normalize needs columns that vary, got {what} column {flat[0]} of X")
    return scale

"""A dense matrix too large to be copied: float32, on disk, or both.

Every product reads it a block at a time, and a block is float64, so sums are as accurate as those
of a copy. Means and scales of the columns enter the vectors, not the matrix.
"""

import numpy as np

# A dense X of more entries than this (128 MB in float64) is not copied.
LARGE = 2**24
# Entries of a block: 2 MB, which a cache holds.
BLOCK = 2**18


class Blocks:
    """The matrix ``X diag(factor)`` of shape (n, p), with the products that a solver needs.

    Parameters
    ----------
    X : ndarray (n, p)
        float32 or float64, in memory or a np.memmap.
    factor : ndarray (p,), optional
    """

    ndim = 2
    __array_ufunc__ = None  # an ndarray leaves ``array @ blocks`` to __rmatmul__

    def __init__(self, X, factor=None):
        self.X, self.shape = np.asarray(X), X.shape
        self.factor = np.ones(X.shape[1]) if factor is None else factor

    def scaled(self, factor):
        """Return the matrix with its columns multiplied by ``factor``, not copied."""
        return Blocks(self.X, self.factor * factor)

    def parts(self):
        """Generate (rows, columns, block in float64) along the axis that is stored by lines."""
        n, p = self.shape
        lines = self.X.strides[0] >= self.X.strides[1]
        long, short = (n, p) if lines else (p, n)
        step, every = max(1, BLOCK // short), slice(None)
        for start in range(0, long, step):
            part = slice(start, start + step)
            rows, columns = (part, every) if lines else (every, part)
            yield rows, columns, self.X[rows, columns].astype(np.float64, copy=False)

    def __matmul__(self, v):
        """Return the product with v, (p,) or (p, k)."""
        v = (self.factor * v.T).T
        if self.X.dtype == np.float64:
            return self.X @ v
        result = np.zeros(self.shape[:1] + v.shape[1:])
        for rows, columns, block in self.parts():
            result[rows] += block @ v[columns]
        return result

    def __rmatmul__(self, left):
        """Return the product of left, (k, n), with the matrix."""
        return (self.T @ left.T).T

    @property
    def T(self):
        return _Transposed(self)

    def __getitem__(self, key):
        """Return ``[:, j]``, columns in float64."""
        rows, j = key
        return self.X[rows, j].astype(np.float64) * self.factor[j]

    def mean(self, axis):
        """Return the column means."""
        return self.T @ np.ones(self.shape[0]) / self.shape[0]

    def squares(self, centre=0.0, weights=None):
        """Return the (weighted) sum of squares of each column about ``centre``, one or (p,)."""
        centre = centre + np.zeros(self.shape[1])
        weights = np.ones(self.shape[0]) if weights is None else weights
        result = np.zeros(self.shape[1])
        for rows, columns, block in self.parts():
            part = block * self.factor[columns] - centre[columns]
            result[columns] += weights[rows] @ (part * part)
        return result


class _Transposed:
    def __init__(self, matrix):
        self.matrix = matrix

    def __matmul__(self, r):
        """Return the product of the transpose with r, (n,) or (n, k)."""
        X = self.matrix
        if X.X.dtype == np.float64:
            result = X.X.T @ r
        else:
            result = np.zeros(X.shape[1:] + r.shape[1:])
            for rows, columns, block in X.parts():
                result[columns] += block.T @ r[rows]
        return (X.factor * result.T).T

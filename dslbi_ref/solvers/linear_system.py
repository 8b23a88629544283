"""Solves with A = nu X'X / n + D'D, the linear system behind every split path.

:func:`solver` returns one function and picks the cheapest of five ways:

    dense X, p <= n or p small     Cholesky of the (p, p) matrix
    dense X, p > n, D sparse       Woodbury around the sparse D'D
    sparse X, A of small bandwidth banded Cholesky
    sparse X, A = c I + grid TV    cosine transform, which diagonalises it
    sparse X, any other A          sparse LU

Where A is singular (X and D share a kernel: constants, when both look at differences only), the
solution of least norm is returned, that is, the product with the pseudo-inverse. Right-hand sides
must lie in the range of A; those of a split path, sums of X'u and D'v, always do.
"""

import numpy as np
import scipy.fft
import scipy.linalg
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from ..checks import check_positive
from ..transforms import grid

# A pivot or an eigenvalue below this part of the largest counts as zero.
SINGULAR = 1e-13
# Up to this size, or above this density, a dense factor is quicker than anything clever.
SMALL = 400
FULL = 0.1


def solver(X, D, nu, *, minus=None):
    """Factor ``A = nu X'X/n + D'D (- minus minus')`` once; return ``solve(b) -> A^+ b``.

    Parameters
    ----------
    X : ndarray or scipy.sparse, (n, p)
    D : ndarray or scipy.sparse, (m, p)
    nu : float > 0
    minus : ndarray (p,), optional
        A vector whose square is taken off: ``sqrt(nu)`` times the column means centres a sparse X.

    Returns
    -------
    solve : callable
        Takes b of shape (p,) or (p, q), in the range of A; returns the solution of least norm, of
        the same shape. It costs O(p^2) per column (Cholesky), O(n p) (Woodbury), O(p) times the
        bandwidth (banded), O(p log p) (cosine transform) or the fill of the factor (sparse LU).

    Raises
    ------
    ValueError
        nu is not positive and finite, X and D differ in columns, or A is zero.
    """
    (nu,) = check_positive(nu=nu)
    (n, p), (m, columns) = X.shape, D.shape
    if columns != p:
        raise ValueError(f"D must have the {p} columns of X, got shape ({m}, {columns})")
    U = np.zeros((p, 0)) if minus is None else minus[:, None]
    s = -np.ones(U.shape[1])
    if sp.issparse(X):
        B = sp.csc_array(nu / n * (X.T @ X) + D.T @ D)
    else:
        B = sp.csc_array(D.T @ D)
        U, s = np.hstack([U, np.sqrt(nu / n) * X.T]), np.append(s, np.ones(n))
    if p <= SMALL or U.shape[1] >= p or B.nnz > FULL * p * p:
        return _dense(B.toarray() + (U * s) @ U.T)
    # Where rounding hides the kernel of D'D (trend filtering of a long signal), the trial shows it.
    try:
        solve = _updated(B, U, s)
        u = np.cos(np.arange(p))
        b = B @ u + U @ (s * (U.T @ u))
        x = solve(b)
        if np.abs(B @ x + U @ (s * (U.T @ x)) - b).max() <= 1e-10 * np.abs(b).max():
            return solve
    except np.linalg.LinAlgError:
        pass
    return _dense(B.toarray() + (U * s) @ U.T)


def _dense(A):
    """Solve by Cholesky, or with the pseudo-inverse by eigenvalues where a pivot vanishes."""
    if not np.abs(A).max(initial=0.0) > 0:
        raise ValueError("nu X'X/n + D'D must not be zero: X and D hold zeros only")
    try:
        factor = scipy.linalg.cho_factor(A, lower=True)
        pivots = np.diag(factor[0]) ** 2
        if pivots.min() > len(A) * SINGULAR * pivots.max():
            return lambda b: scipy.linalg.cho_solve(factor, b, check_finite=False)
    except np.linalg.LinAlgError:
        pass
    return _spectral(A)


def _spectral(A):
    """Multiply by the pseudo-inverse of a symmetric, possibly indefinite, matrix."""
    w, Q = np.linalg.eigh(A)
    kept = np.abs(w) > len(A) * SINGULAR * np.abs(w).max()
    w, Q = w[kept], Q[:, kept]
    return lambda b: Q @ ((Q.T @ b).T / w).T


def _updated(B, U, s):
    """Solve with ``B + U diag(s) U'`` by Woodbury around a sparse factor of B."""
    as_grid = _grid_of(B) if U.shape[1] == 0 else None
    if as_grid is not None:
        return _cosine(*as_grid)
    solve_base, K, E = _grounded(B)
    if U.shape[1] == 0:
        return lambda b: _without(K, solve_base(b))
    F, f = np.hstack([U, E]), np.append(s, -np.ones(E.shape[1]))
    V = solve_base(F)
    w, Q = np.linalg.eigh(np.diag(f) + F.T @ V)
    null = np.abs(w) <= len(w) * SINGULAR * np.abs(w).max()
    K = np.linalg.qr(V @ Q[:, null])[0]
    w, Q = w[~null], Q[:, ~null]

    def woodbury(b):
        x = solve_base(b)
        return x - V @ (Q @ ((Q.T @ (F.T @ x)).T / w).T)

    def solve(b):
        x = woodbury(b)
        # The grounded base is far worse conditioned than A: one refinement gets the digits back.
        x = x + woodbury(b - B @ x - U @ (s * (U.T @ x).T).T)
        return _without(K, x)

    return solve


def _grounded(B):
    """Solve with ``B + E E'``, an orthonormal basis K of the kernel of B, and E.

    E holds as many unit vectors (times a scale) as K has columns, on whose coordinates K is
    invertible: the sum is regular and as sparse as B. If b lies in the range of B, the solution is
    zero on those coordinates, and so solves ``B x = b`` too.
    """
    p = B.shape[0]
    solve, regular = _factor(B)
    if regular:
        return solve, np.zeros((p, 0)), np.zeros((p, 0))
    K = _kernel(B)
    c = B.diagonal().mean()
    J = scipy.linalg.qr(K.T, mode="r", pivoting=True)[1][: K.shape[1]] if K.shape[1] else []
    E = np.zeros((p, K.shape[1]))
    E[J, np.arange(K.shape[1])] = np.sqrt(c)
    solve, regular = _factor(sp.csc_array(B + sp.csc_array(E) @ sp.csr_array(E.T)))
    if not regular:
        raise np.linalg.LinAlgError("rounding hides the kernel")
    return solve, K, E


def _without(K, x):
    """Take off x its part in the span of the orthonormal columns of K."""
    return x - K @ (K.T @ x) if K.shape[1] else x


def _factor(B):
    """Solve with a sparse positive semi-definite matrix, and whether its pivots are sound."""
    p = B.shape[0]
    coo = sp.coo_array(B)
    width = int(np.abs(coo.row - coo.col).max(initial=0))
    if width <= 30:
        band = np.zeros((width + 1, p))
        below = coo.row >= coo.col
        band[(coo.row - coo.col)[below], coo.col[below]] = coo.data[below]
        try:
            factor = scipy.linalg.cholesky_banded(band, lower=True)
        except np.linalg.LinAlgError:
            return None, False
        pivots = factor[0] ** 2
        regular = pivots.min() > p * SINGULAR * pivots.max()
        return lambda b: scipy.linalg.cho_solve_banded((factor, True), b), regular
    try:
        lu = splu(
            B, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
    except RuntimeError:  # an exact zero among the pivots
        return None, False
    pivots = np.abs(lu.U.diagonal())
    return lu.solve, pivots.min() > p * SINGULAR * pivots.max()


def _kernel(B, width=8):
    """Return an orthonormal basis of the kernel of a sparse positive semi-definite matrix.

    Inverse iteration on a block, widened until it holds a vector outside the kernel.
    """
    p = B.shape[0]
    c = B.diagonal().max()
    solve, _ = _factor(B + sp.csc_array(p * SINGULAR * c * sp.eye_array(p)))
    while True:
        Z = np.cos(np.outer(np.arange(p) + 0.5, np.arange(1, width + 1) ** 1.5))
        for _ in range(3):
            Z = np.linalg.qr(solve(Z))[0]
        w, Q = np.linalg.eigh(Z.T @ (B @ Z))
        null = w <= SINGULAR * c
        if not null.all() or width >= p:
            return Z @ Q[:, null]
        width = min(4 * width, p)


def _grid_laplacian(shape):
    D = grid(shape)
    return D.T @ D


def _grid_of(B):
    """Return (c, w, shape) if B is ``c I + w D'D`` for a grid of two or more axes, else None."""
    coo = sp.coo_array(B)
    above = (coo.col > coo.row) & (coo.data != 0)
    strides = np.unique((coo.col - coo.row)[above])[::-1]
    lengths = np.append(B.shape[0], strides[:-1])
    if len(strides) < 2 or strides[-1] != 1 or (lengths % strides).any():
        return None
    shape = tuple((lengths // strides).tolist())
    w = -coo.data[above].mean()
    rest = sp.csc_array(B - w * _grid_laplacian(shape))
    c = rest.diagonal().mean()
    rest = rest - c * sp.eye_array(B.shape[0])
    return None if np.abs(rest).max() > 1e-12 * np.abs(B).max() else (c, w, shape)


def _cosine(c, w, shape):
    """Invert ``c I + w D'D`` on a grid: the cosine transform diagonalises D'D."""
    axes = tuple(range(len(shape)))
    waves = np.ix_(*[2 - 2 * np.cos(np.pi * np.arange(length) / length) for length in shape])
    spectrum = c + w * sum(waves)
    kept = spectrum > SINGULAR * spectrum.max()
    inverse = np.where(kept, 1 / np.where(kept, spectrum, 1.0), 0.0)

    def solve(b):
        image = scipy.fft.dctn(b.reshape(shape + b.shape[1:]), axes=axes, norm="ortho")
        image = inverse.reshape(shape + (1,) * (b.ndim - 1)) * image
        return scipy.fft.idctn(image, axes=axes, norm="ortho").reshape(b.shape)

    return solve

"""Where a split path starts: the minimiser of its loss while gamma is still zero.

min over (beta, intercept) of   f(beta, intercept) + |D beta|^2 / (2 nu)
"""

import numpy as np
import scipy.sparse as sp
from scipy.linalg import null_space
from scipy.optimize import linprog

from ..losses import curvature, null_intercept, residual, value
from .linear_system import solver


def minimiser(design, y, D, *, nu, loss="squared", intercept=False):
    """Minimiser (beta, intercept) of the split loss at gamma = 0; the one of least norm in beta.

    Parameters
    ----------
    design : Design
        Centred if there is an intercept.
    y : ndarray (n,)
    D : scipy.sparse or ndarray, (m, p)
    nu : float > 0
    loss : "squared" or "logistic"
        Squared: one solve. Logistic: Newton's method, to a gradient of 1e-14 of its start.
    intercept : bool

    Raises
    ------
    ValueError
        There is no minimiser: a signal in the kernel of D (with the intercept) separates the
        classes of y, and the loss falls for ever along it.
    """
    if loss == "squared":
        minus = None if design.mean is None else np.sqrt(nu) * design.mean
        b = null_intercept(y) if intercept else 0.0
        c = design.adjoint(y - b) / len(y)
        c = np.where(np.abs(c).max() > design.noise(y), c, 0.0)
        return solver(design.X, D, nu, minus=minus)(nu * c), b
    beta, b = _newton(design, y, D, nu, intercept)
    # Without a minimiser Newton's method adds about one to the predictor in each iteration.
    if np.abs(design.dot(beta) + b).max() > 10 and _separable(design, y, D, intercept):
        raise ValueError(
            'start="minimiser" needs data that the kernel of D does not separate, got separable y; '
            'use start="zero"'
        )
    return beta, b


def _newton(design, y, D, nu, intercept):
    n, p = design.X.shape
    beta, b = np.zeros(p), null_intercept(y, loss="logistic") if intercept else 0.0

    def objective(beta, b):
        tie = D @ beta
        return value(design.dot(beta) + b, y, loss="logistic") + tie @ tie / (2 * nu)

    current = objective(beta, b)
    first = None
    for _ in range(60):
        eta = design.dot(beta) + b
        r, w = residual(eta, y, loss="logistic"), curvature(eta, y, loss="logistic")
        g = design.adjoint(r) + D.T @ (D @ beta) / nu
        g_b = r.sum() if intercept else 0.0
        size = max(np.abs(g).max(), abs(g_b))
        first = size if first is None else first
        if size <= 1e-14 * first:
            break
        d, d_b = _newton_step(design, w, D, nu, g, g_b, intercept)
        slope = g @ d + g_b * d_b
        length = 1.0
        while (new := objective(beta + length * d, b + length * d_b)) > (
            current + 1e-4 * length * slope + 1e-15 * current
        ):
            length /= 2
        if length < 1e-8:  # rounding: no further descent
            break
        beta, b, current = beta + length * d, b + length * d_b, new
    return beta, b


def _newton_step(design, w, D, nu, g, g_b, intercept):
    """Newton direction in (beta, intercept); w is the curvature in eta."""
    X, n = design.X, design.X.shape[0]
    root = np.sqrt(n * w)[:, None]
    if not intercept:
        weighted = sp.csc_array(sp.diags_array(root[:, 0]) @ X) if sp.issparse(X) else root * X
        return -nu * solver(weighted, D, nu)(g), 0.0
    s, h = w.sum(), design.adjoint(w)
    # The Schur complement of the intercept is the Hessian of X centred by its weighted means.
    if sp.issparse(X):
        minus = np.sqrt(nu / s) * (X.T @ w)
        solve = solver(sp.csc_array(sp.diags_array(root[:, 0]) @ X), D, nu, minus=minus)
    else:
        solve = solver(root * (X - h / s), D, nu)
    d = -nu * solve(g - h * g_b / s)
    return d, -(g_b + h @ d) / s


def _separable(design, y, D, intercept):
    """Does some beta in the kernel of D, not orthogonal to all rows, never err on any y?

    If so, it can be scaled until the largest ``y_i eta_i`` is 1: a linear programme whose value is
    0 or at least 1.
    """
    K = null_space(D.toarray() if sp.issparse(D) else D)
    margins = y[:, None] * design.dot(K)
    if intercept:
        margins = np.column_stack([margins, y])
    if margins.shape[1] == 0:
        return False
    n = len(y)
    best = linprog(
        -margins.sum(axis=0),
        A_ub=np.vstack([-margins, margins]),
        b_ub=np.append(np.zeros(n), np.ones(n)),
        bounds=(None, None),
    )
    return best.fun < -0.5

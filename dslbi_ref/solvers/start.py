"""Where a split path starts: the minimiser of its loss while gamma is still zero.

min over (beta, intercept) of   f(beta, intercept) + |D beta|^2 / (2 nu)
"""

import numpy as np
import scipy.sparse as sp
from scipy.linalg import null_space
from scipy.optimize import linprog

from ..checks import check_positive
from .linear_system import solver

# Where the loss is straight, the part of its largest curvature that Newton's method takes instead.
FLAT = 1e-8


def split_solver(problem, D, *, nu):
    """Solve with ``A = nu X'WX/n + D'D``, X centred if the design is: see :func:`solver`."""
    X, mean = problem.design.X, problem.design.mean
    if problem.weights is not None:
        root = np.sqrt(problem.weights)
        X = sp.csc_array(sp.diags_array(root) @ X) if sp.issparse(X) else root[:, None] * X
    return solver(X, D, nu, minus=None if mean is None else np.sqrt(nu) * mean)


def dense_part(problem, D, *, nu):
    """Return ``gamma -> beta(gamma)``, (m,) or (m, q) to (p,) or (p, q); the loss is quadratic.

    beta is the minimiser of the split loss, of least norm where there are several.
    """
    (nu,) = check_positive(nu=nu)
    solve = split_solver(problem, D, nu=nu)
    drive = nu * problem.correlation()
    Dt = D.T.tocsr() if sp.issparse(D) else D.T
    return lambda gamma: solve((drive + (Dt @ gamma).T).T)


def minimiser(problem, D, *, nu):
    """Minimise the split loss at gamma = 0: return (beta, level), beta of least norm.

    Parameters
    ----------
    problem : LinearProblem
        A quadratic loss takes one solve. Another takes Newton's method, to a gradient of 1e-14 of
        its start.
    D : scipy.sparse or ndarray, (m, p)
    nu : float > 0

    Raises
    ------
    ValueError
        There is no minimiser: a signal in the kernel of D (with the intercept) separates the
        classes of y, and the loss falls for ever along it.
    """
    if problem.loss.quadratic:
        solve = split_solver(problem, D, nu=nu)
        return solve(nu * problem.correlation()), problem.level
    beta, b = _newton(problem, D, nu)
    # Without a minimiser Newton's method adds about one to the predictor in each iteration.
    if np.abs(problem.design.dot(beta) + b).max() > 10 and _separable(problem, D):
        raise ValueError(
            'start="minimiser" needs data that the kernel of D does not separate, got separable y; '
            'use start="zero"'
        )
    return beta, b


def _newton(problem, D, nu):
    design, intercept = problem.design, problem.intercept
    beta, b = np.zeros(D.shape[1]), problem.level

    def objective(beta, b):
        tie = D @ beta
        return problem.value(design.dot(beta) + b) + tie @ tie / (2 * nu)

    current = objective(beta, b)
    first = None
    for _ in range(60):
        eta = design.dot(beta) + b
        r, w = problem.gradient(eta), problem.curvature(eta)
        if not w.all():  # straight for some observations: a little curvature keeps the step finite
            w = np.maximum(w, FLAT * (w.max() or 1 / len(w)))
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
    """Return the Newton direction in (beta, intercept); w is the curvature in eta."""
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


def _separable(problem, D):
    """Does the loss fall for ever along some beta in the kernel of D?

    That is a combination of directions of which no fall is negative, and not all are zero. It can
    be scaled until the largest of these is 1: a linear programme whose value is 0 or at least 1.
    """
    if problem.loss.separation is None:
        return False
    K = null_space(D.toarray() if sp.issparse(D) else D)
    E = problem.design.dot(K)
    if problem.intercept:
        E = np.column_stack([E, np.ones(len(E))])
    if E.shape[1] == 0:
        return False
    falls, rests = problem.loss.separation(E, problem.y)
    best = linprog(
        -falls.sum(axis=0),
        A_ub=np.vstack([-falls, falls]),
        b_ub=np.append(np.zeros(len(falls)), np.ones(len(falls))),
        A_eq=rests if len(rests) else None,
        b_eq=np.zeros(len(rests)) if len(rests) else None,
        bounds=(None, None),
    )
    return best.fun < -0.5

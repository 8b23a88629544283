"""Split inverse scale space: Split LBI of the squared loss at infinite kappa, solved exactly.

Of ``|y - X beta|^2 / (2n) + |D beta - gamma|^2 / (2 nu)``, beta is always the minimiser. What is
left is a quadratic in gamma: the inverse scale space of :mod:`dslbi_ref.iss` with another H and c.
"""

import numpy as np
import scipy.sparse as sp

from .checks import check_positive
from .iss import collect, events
from .problem import split_problem
from .solvers.active_set import Quadratic
from .solvers.gram import split_products
from .solvers.packed import MANY, PackedRows
from .solvers.projections import kernel_projector
from .solvers.start import split_solver

# A product whose entries are all below this part of the norms of its factors is rounding error.
NOISE = 1e-14
# Below this part it could be, after a solve with a system of a large condition number.
DOUBT = 1e-8


def _in_kernel(problem, D, beta, tie):
    """Return whether ``tie = D beta`` is the rounding error of a minimiser in the kernel of D.

    That error grows with the condition number of the system that gave beta. Where it could be all
    that there is, the nearest signal in the kernel decides: it leaves no gradient.
    """
    size = np.abs(D).max() * np.linalg.norm(beta)
    if np.abs(tie).max() > DOUBT * size:
        return False
    if np.abs(tie).max() <= NOISE * size:
        return True
    signal = kernel_projector(D)(beta, np.ones(len(tie), dtype=bool))
    gradient = problem.pull(problem.target - problem.design.dot(signal))
    return bool(np.abs(gradient).max() <= 100 * problem.design.noise(problem.y))


def split_quadratic(problem, D, nu):
    """Return (H, c, solve) of the split loss at the best beta, ``g'Hg / 2 - c'g``.

    ``H(J)`` are the rows J of H, and ``solve`` multiplies by the inverse of A.
    """
    solve = split_solver(problem, D, nu=nu)

    def rows(J):
        D_J = D[J].toarray() if sp.issparse(D) else D[J]
        H = -(D @ solve(D_J.T)).T
        H[np.arange(len(J)), J] += 1.0
        return H / nu  # (split-iss-gram)

    rest = solve(problem.correlation())
    c = D @ rest
    if _in_kernel(problem, D, nu * rest, nu * c):
        c = np.zeros(len(c))
    return rows, c, solve


def split_iss_path(
    X,
    y,
    D,
    *,
    nu,
    t_max=None,
    intercept=False,
    sample_weight=None,
    offset=None,
    penalty_factors=None,
    positive=False,
):
    """Compute the exact Split inverse scale space: Split LBI of the squared loss at infinite kappa.

    Of ``|y - X beta|^2 / (2n) + |D beta - gamma|^2 / (2 nu)``, beta is always the minimiser,
    ``A beta = nu X'y/n + D'gamma`` with ``A = nu X'X/n + D'D``. What is left is the inverse scale
    space of gamma with ``H = (I - D A^-1 D') / nu`` and ``c = D A^-1 X'y/n``.
    With an intercept X and y are centred in all of these, and the intercept of a beta is
    ``mean(y) - mean(X) beta``.

    Parameters
    ----------
    X : ndarray or scipy.sparse, (n, p)
    y : ndarray (n,)
    D : ndarray or scipy.sparse, (m, p)
        What should be sparse is ``D beta``; see :mod:`dslbi_ref.transforms`.
    nu : float > 0
        Coupling: the larger, the further gamma and D beta may part.
    t_max : float > 0, optional
        Last time; default 20 t0; infinity: until the gradient is zero.
    intercept : bool
        Fit an intercept that is not penalised, with the columns of X centred for it: a shift of a
        column, or of y, changes nothing else.
    sample_weight, offset, penalty_factors, positive
        As in :func:`dslbi_ref.split_lbi.split_lbi_path`. A gamma_j of factor 0 is always
        ``D_j beta``, so that its row takes no part in the split loss.

    Returns
    -------
    Path
        As of :func:`iss_path`, with beta. The revised estimator at row k is
        ``kernel_projector(D)(beta[k], gamma[k] == 0)``, of :mod:`dslbi_ref.solvers.projections`.

    Raises
    ------
    ValueError
        Shapes do not match, an entry is not finite, D is zero, nu or t_max is not positive.

    Notes
    -----
    Costs one solve with A for each row of D that becomes active. Where A is singular, beta is the
    solution of least norm. Derived here; the papers iterate at finite kappa.
    """
    (nu,) = check_positive(nu=nu)
    problem, D = split_problem(
        X,
        y,
        D,
        intercept=intercept,
        sample_weight=sample_weight,
        offset=offset,
        penalty_factors=penalty_factors,
        positive=positive,
    )
    packed = max(D.shape) > MANY and problem.factors is None
    pulled = problem.penalised(D)
    rows, c, solve = split_quadratic(problem, pulled, nu)
    b = problem.correlation()

    def beta_of(gamma):
        return solve(nu * b[:, None] + pulled.T @ gamma.T).T  # (split-iss-beta)

    H, dual = split_products(rows, c, D, solve, nu) if packed else (rows, None)
    if problem.factors is not None:
        w = problem.penalised(problem.factors)
        H, c = (lambda J: rows(J) / w[J, None] / w), c / w
    path = collect(events(Quadratic(H, c, positive), positive), t_max, dual)
    z, gamma = vars(path)["z"], vars(path)["gamma"]
    if packed:
        nothing = sp.csr_array((len(path.t), D.shape[1]))
        beta = PackedRows(nothing, lambda k: beta_of(gamma[k]))
    elif problem.factors is not None:
        beta = beta_of(gamma / w)
        z, gamma = _with_free_rows(problem, D, z * w, gamma / w, beta)
    else:
        beta = beta_of(gamma)
    return path.changed(
        z=z,
        gamma=gamma,
        beta=beta,
        intercept=problem.at_origin(problem.level, beta),
        centre=problem.means if intercept else None,
        factors=problem.factors,
        positive=problem.positive,
    )


def _with_free_rows(problem, D, z, gamma, beta):
    """Return z and gamma of all rows of D, of which those without a penalty rest at ``D beta``."""
    whole = beta @ D.T
    whole[:, problem.factors > 0] = gamma
    dual = np.zeros_like(whole)
    dual[:, problem.factors > 0] = z
    return dual, whole

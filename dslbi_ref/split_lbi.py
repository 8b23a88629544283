"""Split LBI: a sparse path of D beta for any linear transform D (Huang, Sun, Xiong, Yao 2016).

The penalty acts on a variable gamma of its own, tied to D beta:

    l(beta, gamma) = f(beta) + |D beta - gamma|^2 / (2 nu)

beta follows the gradient of l, gamma follows it through the dual variable z, and both look at the
old values (Jacobi order, as in the authors' toolbox):

    beta_{k+1}  = beta_k - kappa alpha (grad f(beta_k) + D'(D beta_k - gamma_k) / nu)
    z_{k+1}     = z_k + alpha (D beta_k - gamma_k) / nu
    gamma_{k+1} = kappa prox_lam(z_{k+1})

Three estimators come out of one path: the dense beta, which predicts; the sparse gamma, which
selects; and the revised one, the part of beta on which the inactive rows of D vanish.
"""

from itertools import chain, count
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from .checks import check_positive, check_times, check_word
from .design import spectral_norm_squared
from .path import Path, follow
from .problem import (
    checked_step,
    default_times,
    first_jump,
    split_problem,
)
from .shrinkage import shrink
from .solvers.gradients import dense_gradient
from .solvers.projections import revise
from .solvers.start import minimiser
from .theory import step_bound


class SplitLBIState(NamedTuple):
    """One point of the path; ``intercept`` is the linear predictor at the column means of X."""

    t: float
    beta: np.ndarray
    z: np.ndarray
    gamma: np.ndarray
    intercept: float


def first_split_jump(D, beta, *, nu, lam, groups, factors=None, positive=False):
    """Return the time t0 at which gamma leaves zero while beta rests, and z at that time."""
    tie = D @ beta / nu
    noise = 1e-13 * np.abs(D).max() * np.linalg.norm(beta) / nu
    return first_jump(-tie, lam, noise, groups=groups, factors=factors, positive=positive)


def split_lbi_states(
    X,
    y,
    D,
    *,
    nu,
    kappa,
    alpha=None,
    lam=1.0,
    loss="squared",
    groups=None,
    start="minimiser",
    intercept=False,
    sample_weight=None,
    offset=None,
    penalty_factors=None,
    positive=False,
):
    """Generate the path of Split LBI without end, as :class:`SplitLBIState`.

    State 0 is at t = 0. With ``start="minimiser"`` gamma is zero and beta at rest until t0, and
    state 1 is the exact one at t0; Euler steps of size alpha follow (at infinity, and the last one,
    if D beta is zero). With ``start="zero"`` the steps begin at state 0. Parameters, and the errors
    raised, are those of :func:`split_lbi_path`.
    """
    problem, D = split_problem(
        X,
        y,
        D,
        loss=loss,
        intercept=intercept,
        sample_weight=sample_weight,
        offset=offset,
        penalty_factors=penalty_factors,
        positive=positive,
    )
    options = dict(kappa=kappa, alpha=alpha, lam=lam, groups=groups, start=start)
    return _states(problem, D, nu=nu, **options)


def _states(problem, D, *, nu, kappa, alpha, lam, groups, start):
    rule = problem.rule(groups)
    nu, kappa, lam = check_positive(nu=nu, kappa=kappa, lam=lam)
    check_word("start", start, ("minimiser", "zero"))
    D_norm = np.sqrt(spectral_norm_squared(D))
    alpha = checked_step(alpha, step_bound(problem.steepest(), kappa=kappa, nu=nu, D_norm=D_norm))
    Dt = D.T.tocsr() if sp.issparse(D) else D.T
    beta, b = np.zeros(D.shape[1]), problem.level
    if start == "minimiser":
        beta, b = minimiser(problem, problem.penalised(D), nu=nu)
    gradient = dense_gradient(problem)
    t0, gamma = 0.0, np.zeros(D.shape[0])
    gamma[problem.free] = D[problem.free] @ beta
    z = gamma / kappa
    yield SplitLBIState(0.0, beta, z, gamma, b)
    if start == "minimiser":
        t0, moved = first_split_jump(D, beta, nu=nu, lam=lam, **rule)
        z = z + moved
        yield SplitLBIState(t0, beta, z, gamma, b)
        if t0 == np.inf:
            return
    for k in count(1):
        g, g_b = gradient(beta, b)
        r = (D @ beta - gamma) / nu  # (slbi-residual)
        beta = beta - kappa * alpha * (g + Dt @ r)  # (slbi-beta)
        z = z + alpha * r  # (slbi-z)
        gamma = shrink(z, kappa=kappa, lam=lam, **rule)  # (slbi-gamma)
        b = b - kappa * alpha * g_b if problem.intercept else b
        yield SplitLBIState(t0 + k * alpha, beta, z, gamma, b)


def split_lbi_path(
    X,
    y,
    D,
    *,
    nu,
    kappa,
    alpha=None,
    lam=1.0,
    times=None,
    loss="squared",
    groups=None,
    start="minimiser",
    intercept=False,
    sample_weight=None,
    offset=None,
    penalty_factors=None,
    positive=False,
):
    """Compute the path of Split LBI at given times.

    Parameters
    ----------
    X : ndarray or scipy.sparse, (n, p)
    y : ndarray (n,)
        As the loss needs it; see :mod:`dslbi_ref.losses`.
    D : ndarray or scipy.sparse, (m, p)
        The transform whose image is to be sparse; see :mod:`dslbi_ref.transforms`.
    nu : float > 0
        Coupling. The larger, the freer gamma is from D beta: the condition for selecting the true
        support weakens, while beta and gamma part.
    kappa : float > 0
        Speed of gamma; the number of steps grows in proportion to it.
    alpha : float in (0, 2 / (kappa (L + (1 + |D|^2) / nu))), optional
        Step in path time; L as in :func:`dslbi_ref.lbi.lbi_path`. Default: half of the bound.
    lam : float > 0
        Penalty level: the threshold of z.
    times : ndarray, increasing, >= 0, optional
        Default: 100, log-spaced from t0 to 20 t0, where t0 is the time at which the first entry
        leaves zero from the start "minimiser".
    loss : str or Loss
        A word of ``dslbi_ref.losses.LOSSES``, or a row, with a curvature and one predictor.
    groups : int array (m,), optional
        Rows of D with one label enter together.
    start : "minimiser" or "zero"
        beta starts at the minimiser for gamma = 0 and rests there until t0, or at zero, from which
        it moves at once. The paths differ at finite kappa.
    intercept : bool
        Fit an unpenalised intercept, with the columns of X centred for it.
    sample_weight, offset
        As in :func:`dslbi_ref.lbi.lbi_path`.
    penalty_factors : ndarray (m,), at least 0, optional
        Of the rows of D: the threshold of z_j is ``lam * factor_j``. A gamma_j of factor 0 is never
        penalised, and starts at ``D_j beta``.
    positive : bool
        No gamma_j that is penalised becomes negative.

    Returns
    -------
    Path
        Of kind "linear", with ``gamma`` (T, m), ``beta`` and ``tilde`` (T, p).

    Raises
    ------
    ValueError
        An argument outside what is said above; a D of zeros; a step at or above the bound; classes
        that the kernel of D separates, with the start "minimiser".

    Notes
    -----
    The toolbox of the authors begins at zero by default, and at the minimiser whenever times are
    given; here the start does not depend on the times. The step bound counts the coupling with
    ``1 + |D|^2``, as the toolbox does.
    """
    nu, kappa, lam = check_positive(nu=nu, kappa=kappa, lam=lam)
    problem, D = split_problem(
        X,
        y,
        D,
        loss=loss,
        intercept=intercept,
        sample_weight=sample_weight,
        offset=offset,
        penalty_factors=penalty_factors,
        positive=positive,
    )
    options = dict(kappa=kappa, alpha=alpha, lam=lam, groups=groups, start=start)
    states = _states(problem, D, nu=nu, **options)
    first = next(states)
    if times is None:
        rest, rule = first.beta, problem.rule(groups)
        if start == "zero":
            rest = minimiser(problem, problem.penalised(D), nu=nu)[0]
        times = default_times(first_split_jump(D, rest, nu=nu, lam=lam, **rule)[0])
    t = check_times(times)
    z, beta, b = follow(chain([first], states), t, "z", "beta", "intercept")
    return split_path(problem, D, t, z, beta, b, kappa=kappa, lam=lam, groups=groups)


def split_path(problem, D, t, z, beta, levels, *, kappa, lam, groups):
    """Return the path of a split iteration with its revised estimator."""
    rule = problem.rule(groups)
    gamma = np.array([shrink(row, kappa=kappa, lam=lam, **rule) for row in z])
    return Path(
        t=t,
        z=z,
        gamma=gamma,
        beta=beta,
        tilde=revise(D, beta, gamma),
        kappa=kappa,
        lam=lam,
        **rule,
        intercept=problem.at_origin(levels, beta),
        centre=problem.means if problem.intercept else None,
        stop_reason="t_max reached",
    )

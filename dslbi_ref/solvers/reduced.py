"""Split LBI with beta eliminated: fewer and longer steps along nearly the same path.

At every step beta minimises the split loss of :mod:`dslbi_ref.split_lbi` for its gamma:

    beta(gamma) = A^+ (nu X'y/n + D'gamma),   A = nu X'X/n + D'D
    z_{k+1}     = z_k + alpha (D beta(gamma_k) - gamma_k) / nu
    gamma_{k+1} = kappa prox_lam(z_{k+1})

What is left is linearized Bregman iteration on a quadratic whose curvature is at most 1/nu. Steps
may reach 2 nu / kappa, longer by a factor of 1 + |D|^2 + nu |X|^2/n, at the cost of a solve each.
At finite kappa the path differs a little from that of Split LBI, whose beta lags behind; both tend
to the exact path of :mod:`dslbi_ref.iss` as kappa grows.
"""

from itertools import chain, count

import numpy as np

from ..checks import check_positive, check_times
from ..path import follow
from ..problem import checked_step, default_times, split_problem
from ..shrinkage import shrink
from ..split_lbi import SplitLBIState, first_split_jump, split_path
from .start import dense_part


def split_reduced_states(X, y, D, *, nu, kappa, alpha=None, lam=1.0, groups=None, intercept=False):
    """Generate the reduced path without end, as :class:`dslbi_ref.split_lbi.SplitLBIState`.

    State 0 is at t = 0, state 1 at exactly t0, Euler steps of size alpha follow. Parameters, and
    the errors raised, are those of :func:`split_reduced_path`.
    """
    problem, D = split_problem(X, y, D, intercept=intercept)
    beta_of = dense_part(problem, D, nu=nu)
    return _states(problem, D, beta_of, nu=nu, kappa=kappa, alpha=alpha, lam=lam, groups=groups)


def _states(problem, D, beta_of, *, nu, kappa, alpha, lam, groups):
    nu, kappa, lam = check_positive(nu=nu, kappa=kappa, lam=lam)
    alpha = checked_step(alpha, 2 * nu / kappa)
    b = problem.level
    z = gamma = np.zeros(D.shape[0])
    beta = beta_of(gamma)
    yield SplitLBIState(0.0, beta, z, gamma, b)
    t0, z = first_split_jump(D, beta, nu=nu, lam=lam, groups=groups)
    yield SplitLBIState(t0, beta, z, gamma, b)
    if t0 == np.inf:
        return
    for k in count(1):
        z = z + alpha * (D @ beta - gamma) / nu  # (slbi-reduced-z)
        gamma = shrink(z, kappa=kappa, lam=lam, groups=groups)
        beta = beta_of(gamma)  # (slbi-reduced-beta)
        yield SplitLBIState(t0 + k * alpha, beta, z, gamma, b)


def split_reduced_path(
    X, y, D, *, nu, kappa, alpha=None, lam=1.0, times=None, groups=None, intercept=False
):
    """Compute the path of Split LBI with beta eliminated at given times; the loss is squared.

    Parameters
    ----------
    alpha : float in (0, 2 nu / kappa), optional
        Step in path time. Default ``nu / kappa``.
    X, y, D, nu, kappa, lam, times, groups, intercept
        See :func:`dslbi_ref.split_lbi.split_lbi_path`.

    Returns
    -------
    Path
        Of kind "linear". beta belongs to gamma exactly at the given times; between them it is
        interpolated.
    """
    problem, D = split_problem(X, y, D, intercept=intercept)
    beta_of = dense_part(problem, D, nu=nu)
    options = dict(kappa=kappa, alpha=alpha, lam=lam, groups=groups)
    states = _states(problem, D, beta_of, nu=nu, **options)
    first = next(states)
    if times is None:
        times = default_times(first_split_jump(D, first.beta, nu=nu, lam=lam, groups=groups)[0])
    t = check_times(times)
    (z,) = follow(chain([first], states), t, "z")
    gamma = np.array([shrink(row, kappa=kappa, lam=lam, groups=groups) for row in z])
    beta = beta_of(gamma.T).T
    return split_path(problem, D, t, z, beta, problem.level, kappa=kappa, lam=lam, groups=groups)

"""Split LBI with beta eliminated: fewer and longer steps along nearly the same path.

At every step beta minimises the split loss of :mod:`dslbi_ref.split_lbi` for its gamma:

    beta(gamma) = A^+ (nu X'y/n + D'gamma),   A = nu X'X/n + D'D
    z_{k+1}     = z_k + alpha (D beta(gamma_k) - gamma_k) / nu
    gamma_{k+1} = kappa prox_lam(z_{k+1})

What is left is linearized Bregman iteration on a quadratic whose curvature is at most 1/nu. Steps
may reach 2 nu / kappa, longer by a factor of 1 + |D|^2 + nu |X|^2/n, at the price of a solve each.
At finite kappa the path differs a little from that of Split LBI, whose beta lags behind; both tend
to the exact path of :mod:`dslbi_ref.iss` as kappa grows.
"""

from itertools import chain, count

import numpy as np
import scipy.sparse as sp

from ..lbi import checked_step, default_times
from ..losses import null_intercept
from ..path import check_times, evaluate, shrink
from ..problem import centred, check_positive
from ..split_lbi import SplitLBIState, check_problem, first_split_jump, split_path
from .linear_system import solver


def dense_part(X, y, D, *, nu, intercept=False):
    """Function ``gamma -> beta(gamma)``, and the intercept at the column means of X.

    Parameters
    ----------
    X, y, D, nu, intercept
        See :func:`dslbi_ref.split_lbi.split_lbi_path`; the loss is squared.

    Returns
    -------
    beta_of : callable, (m,) or (m, q) -> (p,) or (p, q)
        Minimiser of the split loss, of least norm where there are several.
    b : float
    """
    X, y, D = check_problem(X, y, D)
    design, _ = centred(X, intercept)
    b = null_intercept(y) if intercept else 0.0
    minus = None if design.mean is None else np.sqrt(nu) * design.mean
    solve = solver(design.X, D, nu, minus=minus)
    c = design.adjoint(y - b) / len(y)
    drive = nu * np.where(np.abs(c).max() > design.noise(y), c, 0.0)
    Dt = D.T.tocsr() if sp.issparse(D) else D.T
    return lambda gamma: solve((drive + (Dt @ gamma).T).T), b


def split_reduced_states(X, y, D, *, nu, kappa, alpha=None, lam=1.0, groups=None, intercept=False):
    """The reduced path as an endless generator of :class:`dslbi_ref.split_lbi.SplitLBIState`.

    State 0 is at t = 0, state 1 at exactly t0, Euler steps of size alpha follow. Parameters, and
    the errors raised, are those of :func:`split_reduced_path`.
    """
    check_positive(nu=nu, kappa=kappa, lam=lam)
    alpha = checked_step(alpha, 2 * nu / kappa, nu / kappa)
    beta_of, b = dense_part(X, y, D, nu=nu, intercept=intercept)
    _, _, D = check_problem(X, y, D)
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
    """Path of Split LBI with beta eliminated, evaluated at given times; the loss is squared.

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
    states = split_reduced_states(
        X, y, D, nu=nu, kappa=kappa, alpha=alpha, lam=lam, groups=groups, intercept=intercept
    )
    first = next(states)
    if times is None:
        times = default_times(first_split_jump(D, first.beta, nu=nu, lam=lam, groups=groups)[0])
    t = check_times(times)
    (z,) = evaluate(chain([first], states), t, "z")
    gamma = np.array([shrink(row, kappa=kappa, lam=lam, groups=groups) for row in z])
    beta_of, b = dense_part(X, y, D, nu=nu, intercept=intercept)
    X, y, D = check_problem(X, y, D)
    b = np.full(len(t), b) if intercept else None
    return split_path(X, D, t, z, gamma, beta_of(gamma.T).T, b, kappa, lam, groups)

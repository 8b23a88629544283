"""Linearized Bregman iteration: a sparse path with one gradient and one shrinkage per step.

The iteration discretises ``dz/dt = -grad f(beta)``, ``beta = kappa prox_lam(z)``, f convex:

    z_{k+1}    = z_k - alpha grad f(beta_k)
    beta_{k+1} = kappa prox_lam(z_{k+1})

It is mirror descent with ``Phi = Omega + |.|^2 / (2 kappa)``. As kappa grows and alpha kappa stays
bounded it tends to the inverse scale space of :mod:`dslbi_ref.iss`.
"""

from itertools import chain, count
from typing import NamedTuple

import numpy as np

from .checks import check_positive, check_times
from .path import Path, follow
from .penalties import shrink
from .problem import checked_step, default_times, first_jump, linear_problem
from .solvers.gradients import sparse_gradient
from .theory import step_bound


class LBIState(NamedTuple):
    """One point of the path; ``intercept`` is the linear predictor at the column means of X."""

    t: float
    z: np.ndarray
    beta: np.ndarray
    intercept: float | np.ndarray


def lbi_states(X, y, *, kappa, alpha=None, lam=1.0, loss="squared", groups=None, intercept=False):
    """Generate the path of linearized Bregman iteration without end, as :class:`LBIState`.

    State 0 is zero, at t = 0. Until t0 the coefficients are zero and the gradient is constant, so
    that state 1 is the exact one at t0; Euler steps of size alpha follow. If the gradient is zero
    there is no t0: state 1 is at infinity, and the last. Parameters, and the errors raised, are
    those of :func:`lbi_path`.
    """
    problem = linear_problem(X, y, loss=loss, intercept=intercept)
    return _states(problem, kappa=kappa, alpha=alpha, lam=lam, groups=groups)


def _states(problem, *, kappa, alpha, lam, groups):
    kappa, lam = check_positive(kappa=kappa, lam=lam)
    alpha = checked_step(alpha, step_bound(problem.lipschitz(), kappa=kappa))
    beta = np.zeros((problem.design.X.shape[1], *problem.loss.columns(problem.y)))
    b = problem.level
    gradient = sparse_gradient(problem)
    yield LBIState(0.0, beta, beta, b)
    t0, z = first_jump(gradient(beta, b)[0], lam, groups, problem.design.noise(problem.y))
    yield LBIState(t0, z, beta, b)
    if t0 == np.inf:
        return
    for k in count(1):
        g, g_b = gradient(beta, b)
        z = z - alpha * g  # (lbi-z)
        beta = shrink(z, kappa=kappa, lam=lam, groups=groups)  # (lbi-beta)
        b = b - kappa * alpha * g_b if problem.intercept else b  # (lbi-intercept)
        yield LBIState(t0 + k * alpha, z, beta, b)


def lbi_path(
    X,
    y,
    *,
    kappa,
    alpha=None,
    lam=1.0,
    times=None,
    loss="squared",
    groups=None,
    intercept=False,
    normalize=False,
):
    """Compute the path of linearized Bregman iteration at given times.

    Parameters
    ----------
    X : ndarray or scipy.sparse, (n, p)
    y : ndarray (n,)
        Real (squared), -1 and +1 (logistic), or classes 0, ..., k-1 (multinomial).
    kappa : float > 0
        Speed of beta. The larger, the closer to the inverse scale space and the more steps:
        ``(t_end - t0) / alpha``, in proportion to kappa.
    alpha : float in (0, 2 / (kappa L)), optional
        Step in path time; L is the Lipschitz constant of the gradient of the loss,
        ``|X|^2 / n`` times 1 (squared), 1/4 (logistic) or 1/2 (multinomial), with X centred if
        there is an intercept. Default ``1 / (kappa L)``.
    lam : float > 0
        Penalty level: the threshold of z.
    times : ndarray, increasing, >= 0, optional
        Default: 100, log-spaced from t0 to 20 t0, where t0 is the time of the first entry.
    loss : "squared", "logistic" or "multinomial"
        A word of ``dslbi_ref.losses.LOSSES``.
    groups : int array (p,), optional
        Columns of one label enter together (with the coefficients of every class, if multinomial).
        Default: each coefficient by itself.
    intercept : bool
        Fit an unpenalised intercept. The columns of X are centred for it, so that a shift of a
        column changes nothing but the intercept; it starts at its optimum for beta = 0 and moves by
        kappa * alpha.
    normalize : bool
        Run on columns of norm sqrt(n) (after centring), and report coefficients of X as given.

    Returns
    -------
    Path
        Of kind "linear". ``gamma``, (T, p) or (T, p, k), is beta.

    Raises
    ------
    ValueError
        An argument outside what is said above: shapes that do not match, NaN, a constant column
        with ``normalize``, a step at or above the bound, a gradient of zero without ``times``.

    Notes
    -----
    z is interpolated between steps and shrunk then, and the steps start from exactly t0. The R
    package Libra labels its times up to two steps late, and its multinomial path is the dual
    variable. Osher, Ruan, Xiong, Yao and Yin (2016); Huang and Yao (2018).
    """
    kappa, lam = check_positive(kappa=kappa, lam=lam)
    problem = linear_problem(X, y, loss=loss, intercept=intercept, normalize=normalize)
    states = _states(problem, kappa=kappa, alpha=alpha, lam=lam, groups=groups)
    first, second = next(states), next(states)
    t = default_times(second.t) if times is None else check_times(times)
    z, b = follow(chain([first, second], states), t, "z", "intercept")
    factor = None if problem.scale is None else 1 / problem.scale
    gamma = np.array([shrink(r, kappa=kappa, lam=lam, groups=groups, scale=factor) for r in z])
    return Path(
        t=t,
        z=z,
        gamma=gamma,
        kappa=kappa,
        lam=lam,
        groups=groups,
        scale=factor,
        intercept=problem.at_origin(b, gamma),
        centre=problem.means if intercept else None,
        stop_reason="t_max reached",
    )

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
from .problem import checked_step, default_times, first_jump, linear_problem
from .shrinkage import shrink
from .solvers.gradients import sparse_gradient
from .theory import step_bound


class LBIState(NamedTuple):
    """One point of the path; ``intercept`` is the linear predictor at the column means of X."""

    t: float
    z: np.ndarray
    beta: np.ndarray
    intercept: float | np.ndarray


def lbi_states(
    X,
    y,
    *,
    kappa,
    alpha=None,
    lam=1.0,
    loss="squared",
    groups=None,
    intercept=False,
    sample_weight=None,
    offset=None,
    penalty_factors=None,
    positive=False,
):
    """Generate the path of linearized Bregman iteration without end, as :class:`LBIState`.

    State 0 is zero, at t = 0, but for what is never penalised, which is at its best. Until t0 the
    coefficients rest and the gradient is constant, so that state 1 is the exact one at t0; Euler
    steps of size alpha follow. If the gradient is zero there is no t0: state 1 is at infinity, and
    the last. Parameters, and the errors raised, are those of :func:`lbi_path`.
    """
    problem = linear_problem(
        X,
        y,
        loss=loss,
        intercept=intercept,
        sample_weight=sample_weight,
        offset=offset,
        penalty_factors=penalty_factors,
        positive=positive,
    )
    return _states(problem, kappa=kappa, alpha=alpha, lam=lam, groups=groups)


def _states(problem, *, kappa, alpha, lam, groups):
    kappa, lam = check_positive(kappa=kappa, lam=lam)
    alpha = checked_step(alpha, step_bound(problem.lipschitz(), kappa=kappa))
    beta, b, rule = problem.rest, problem.level, problem.rule(groups)
    gradient = sparse_gradient(problem)
    z = beta / kappa
    yield LBIState(0.0, z, beta, b)
    t0, moved = first_jump(gradient(beta, b)[0], lam, problem.design.noise(problem.y), **rule)
    z = z + moved
    yield LBIState(t0, z, beta, b)
    if t0 == np.inf:
        return
    for k in count(1):
        g, g_b = gradient(beta, b)
        z = z - alpha * g  # (lbi-z)
        beta = shrink(z, kappa=kappa, lam=lam, **rule)  # (lbi-beta)
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
    sample_weight=None,
    offset=None,
    penalty_factors=None,
    positive=False,
):
    """Compute the path of linearized Bregman iteration at given times.

    Parameters
    ----------
    X : ndarray or scipy.sparse, (n, p)
    y : ndarray (n,)
        Real (squared, Huber), -1 and +1 (logistic), counts (Poisson), or classes 0, ..., k-1
        (multinomial).
    kappa : float > 0
        Speed of beta. The larger, the closer to the inverse scale space and the more steps:
        ``(t_end - t0) / alpha``, in proportion to kappa.
    alpha : float in (0, 2 / (kappa L)), optional
        Step in path time; L is the Lipschitz constant of the gradient of the loss,
        ``|X|^2 / n`` times 1 (squared, Huber), 1/4 (logistic) or 1/2 (multinomial), with X centred
        if there is an intercept, and its rows times the roots of the weights. That of the Poisson
        loss is infinite; L bounds it where the loss is at most that of the start, which is far
        above what most data need. Default ``1 / (kappa L)``.
    lam : float > 0
        Penalty level: the threshold of z. An elastic net ``lam (r |beta|_1 + (1 - r) |beta|^2/2)``
        in place of it is lam r as the level, and ``1 / (1 / kappa + lam (1 - r))`` as kappa: its
        ridge part is nothing but a smaller speed.
    times : ndarray, increasing, >= 0, optional
        Default: 100, log-spaced from t0 to 20 t0, where t0 is the time of the first entry.
    loss : str or Loss
        A word of ``dslbi_ref.losses.LOSSES``, or a row, for example ``huber(1.5)``.
    groups : int array (p,), optional
        Columns of one label enter together (with the coefficients of every class, if multinomial).
        Default: each coefficient by itself.
    intercept : bool
        Fit an unpenalised intercept. The columns of X are centred for it, so that a shift of a
        column changes nothing but the intercept; it starts at its optimum for beta = 0 and moves by
        kappa * alpha.
    normalize : bool
        Run on columns of norm sqrt(n) (after centring), and report coefficients of X as given.
    sample_weight : ndarray (n,), positive, optional
        The loss is ``sum w_i f_i / sum w_i``: only ratios matter, and a weight of 2 is a row twice.
    offset : ndarray (n,), or (n, k) if multinomial, optional
        What the linear predictor holds beforehand, for example the log of an exposure.
    penalty_factors : ndarray (p,), at least 0, optional
        The threshold of z_j is ``lam * factor_j``, equal within a group. A column of factor 0 is
        never penalised: it starts at the fit that has no others, and follows the gradient.
    positive : bool
        No coefficient that is penalised becomes negative.

    Returns
    -------
    Path
        Of kind "linear". ``gamma``, (T, p) or (T, p, k), is beta. Its intercept does not hold the
        offset.

    Raises
    ------
    ValueError
        An argument outside what is said above: shapes that do not match, NaN, a constant column
        with ``normalize``, a step at or above the bound, a gradient of zero without ``times``,
        columns of factor 0 along which the loss falls for ever.

    Notes
    -----
    z is interpolated between steps and shrunk then, and the steps start from exactly t0. The R
    package Libra labels its times up to two steps late, and its multinomial path is the dual
    variable. Osher, Ruan, Xiong, Yao and Yin (2016); Huang and Yao (2018).
    """
    kappa, lam = check_positive(kappa=kappa, lam=lam)
    problem = linear_problem(
        X,
        y,
        loss=loss,
        intercept=intercept,
        normalize=normalize,
        sample_weight=sample_weight,
        offset=offset,
        penalty_factors=penalty_factors,
        positive=positive,
    )
    rule = problem.rule(groups)
    states = _states(problem, kappa=kappa, alpha=alpha, lam=lam, groups=groups)
    first, second = next(states), next(states)
    t = default_times(second.t) if times is None else check_times(times)
    z, b = follow(chain([first, second], states), t, "z", "intercept")
    factor = None if problem.scale is None else 1 / problem.scale
    gamma = np.array([shrink(r, kappa=kappa, lam=lam, scale=factor, **rule) for r in z])
    return Path(
        t=t,
        z=z,
        gamma=gamma,
        kappa=kappa,
        lam=lam,
        **rule,
        scale=factor,
        intercept=problem.at_origin(b, gamma),
        centre=problem.means if intercept else None,
        stop_reason="t_max reached",
    )

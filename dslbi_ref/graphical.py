"""Graphs by composite likelihood: Ising and Gaussian models whose edges enter along a path.

The likelihood of a graphical model needs a partition function, the conditional of one variable
given the others does not. A composite loss adds up the negative log-conditionals; with one
parameter theta for each pair of variables it is convex, and linearized Bregman iteration

    z_{k+1}     = z_k - alpha grad f(theta_k)
    theta_{k+1} = kappa prox_lam(z_{k+1})

lets the edges of the graph enter one by one (Huang and Yao 2018). Parameters of single variables
(fields, variances) are not penalised. Pairs i < j are in the order of ``numpy.triu_indices(p, 1)``.
"""

from dataclasses import replace
from itertools import chain, count
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from .checks import (
    check_array,
    check_design,
    check_integer,
    check_positive,
    check_times,
    no_overflow,
)
from .design import spectral_norm_squared
from .path import Path, follow
from .problem import checked_step, default_times, first_jump
from .shrinkage import shrink
from .theory import step_bound


class GraphState(NamedTuple):
    """One point of the path: a z and a theta for each pair, and what is not penalised."""

    t: float
    z: np.ndarray
    theta: np.ndarray
    free: float | np.ndarray


def symmetric(theta, p):
    """Return the (p, p) matrix with a zero diagonal and theta on both sides of it."""
    p = check_integer("p", p, 1, 10**5)
    return _symmetric(check_array("theta", theta, (p * (p - 1) // 2,)), p)


def _symmetric(theta, p):
    Theta = np.zeros((p, p))
    Theta[np.triu_indices(p, 1)] = theta
    return Theta + Theta.T


def pairs(G):
    """Return the derivative in each pair, the sum of those in its two entries of the matrix."""
    return _pairs(_square("G", G))


def _pairs(G):
    return (G + G.T)[np.triu_indices(len(G), 1)]


def _square(name, S):
    """Return a square matrix of entries whose squares are finite."""
    S = check_design(S, name, sparse=False)
    if S.shape[0] != S.shape[1]:
        raise ValueError(f"{name} must be a square matrix, got shape {S.shape}")
    return S


def _spin_problem(theta, field, X):
    """Return the arguments of an Ising loss as arrays of fitting shapes; X is only to be real."""
    X = check_design(X, sparse=False)
    p = X.shape[1]
    theta = check_array("theta", theta, (p * (p - 1) // 2,))
    return theta, check_array("field", field, (p,)), X


def _covariance_problem(theta, S):
    """Return the arguments of a Gaussian loss as arrays of fitting shapes."""
    S = _square("S", S)
    p = len(S)
    if not np.diag(S).min() > 0:
        raise ValueError(f"S must have a positive diagonal, got an entry {np.diag(S).min():g}")
    return check_array("theta", theta, (p * (p - 1) // 2,)), S


@no_overflow
def ising_loss(theta, field, X):
    """``(1/n) sum_si log(1 + exp(-x_si (sum_j theta_ij x_sj + field_i)))``, x in {-1, +1}.

    That is minus the log-conditional of every spin in
    ``P(x) ~ exp((sum_{i<j} theta_ij x_i x_j + sum_i field_i x_i) / 2)``.
    """
    theta, field, X = _spin_problem(theta, field, X)
    eta = X @ _symmetric(theta, X.shape[1]) + field
    return np.logaddexp(0.0, -X * eta).sum() / len(X)


@no_overflow
def ising_gradient(theta, field, X):
    """Return the gradient of :func:`ising_loss` in theta and in the field."""
    return _ising_gradient(*_spin_problem(theta, field, X))


def _ising_gradient(theta, field, X):
    eta = X @ _symmetric(theta, X.shape[1]) + field
    r = -X * expit(-X * eta) / len(X)
    return _pairs(X.T @ r), r.sum(axis=0)


@no_overflow
def precision(theta, S):
    """Return the precision matrix of off-diagonal part theta, the diagonal at its minimiser.

    The loss in ``w = Omega_ii`` is ``-log(w)/2 + w S_ii/2 + q/(2w)`` and a constant, with
    ``q = theta_i' S theta_i``: the minimiser is the positive root of ``S_ii w^2 - w - q``.
    """
    return _precision(*_covariance_problem(theta, S))


def _precision(theta, S):
    Theta = _symmetric(theta, len(S))
    q = ((S @ Theta) * Theta).sum(axis=0)
    s = np.diag(S)
    return Theta + np.diag((1 + np.sqrt(1 + 4 * s * q)) / (2 * s))


@no_overflow
def gaussian_loss(theta, S):
    """Composite loss of a Gaussian with covariance S, minimised over the diagonal of the precision.

    ``sum_i -log(Omega_ii)/2 + (Omega S Omega)_ii / (2 Omega_ii)``: minus the log-conditionals,
    ``x_i | rest ~ N(-sum_j Omega_ij x_j / Omega_ii, 1 / Omega_ii)``, up to constants.
    """
    theta, S = _covariance_problem(theta, S)
    Omega = _precision(theta, S)
    w = np.diag(Omega)
    return (((Omega @ S) * Omega).sum(axis=1) / w - np.log(w)).sum() / 2


@no_overflow
def gaussian_gradient(theta, S):
    """Return the gradient of :func:`gaussian_loss`, the partial one at the best diagonal."""
    return _gaussian_gradient(*_covariance_problem(theta, S))


def _gaussian_gradient(theta, S):
    Omega = _precision(theta, S)
    return _pairs(Omega @ S / np.diag(Omega)[:, None])


def _states(gradient, theta, free, *, kappa, alpha, lam, noise):
    """Generate the states of LBI, from theta = 0 and the free part at its minimiser there."""
    yield GraphState(0.0, theta, theta, free)
    t0, z = first_jump(gradient(theta, free)[0], lam, noise)
    yield GraphState(t0, z, theta, free)
    if t0 == np.inf:
        return
    for k in count(1):
        g, g_free = gradient(theta, free)
        z = z - alpha * g  # (lbi-z)
        theta = shrink(z, kappa=kappa, lam=lam)  # (lbi-beta)
        free = free - kappa * alpha * g_free  # (lbi-intercept)
        yield GraphState(t0 + k * alpha, z, theta, free)


def _path(gradient, p, free, L, noise, *, kappa, alpha, lam, times):
    kappa, lam = check_positive(kappa=kappa, lam=lam)
    alpha = checked_step(alpha, step_bound(L, kappa=kappa))
    theta = np.zeros(p * (p - 1) // 2)
    states = _states(gradient, theta, free, kappa=kappa, alpha=alpha, lam=lam, noise=noise)
    first, second = next(states), next(states)
    t = default_times(second.t) if times is None else check_times(times)
    z, free = follow(chain([first, second], states), t, "z", "free")
    gamma = shrink(z, kappa=kappa, lam=lam)
    end = "t_max reached"
    return Path(t=t, z=z, gamma=gamma, intercept=free, kappa=kappa, lam=lam, stop_reason=end)


def ising_path(X, *, kappa, alpha=None, lam=1.0, times=None):
    """Compute the edges of an Ising model along the path of LBI on :func:`ising_loss`.

    Parameters
    ----------
    X : ndarray (n, p)
        Spins -1 and +1, each column with both.
    kappa : float > 0
        Speed of theta.
    alpha : float in (0, 2 / (kappa L)), optional
        Step; ``L = |[X 1]|^2 / (2n)``, since a pair is in two conditionals. Default half the bound.
    lam : float > 0
        Penalty level.
    times : ndarray, increasing, >= 0, optional
        Default: 100, log-spaced from t0 to 20 t0, where the first edge enters at ``t0 = 1 / max
        |covariance of two spins|`` (lam = 1).

    Returns
    -------
    Path
        ``gamma`` (T, p (p-1) / 2), a column per pair; ``intercept`` (T, p) holds the fields.

    Notes
    -----
    The fields are not penalised. They start at their minimiser for an empty graph and move by
    ``kappa * alpha``. The path of the R package Libra takes the same sum over both sides of a pair,
    but labels its times two steps late.
    """
    X = check_design(X, sparse=False)
    n, p = X.shape
    if p < 2:
        raise ValueError(f"X must have two columns or more, got {p}")
    if not np.isin(X, (-1, 1)).all():
        raise ValueError(f"X must hold spins -1 and +1, got {X[~np.isin(X, (-1, 1))][0]}")
    mean = X.mean(axis=0)
    fixed = np.flatnonzero(np.abs(mean) == 1)
    if fixed.size:
        raise ValueError(
            f"every column of X must hold both spins, got a constant column {fixed[0]}"
        )
    L = spectral_norm_squared(np.column_stack([X, np.ones(n)])) / (2 * n)
    field = np.log((1 + mean) / (1 - mean))

    def gradient(theta, field):
        return _ising_gradient(theta, field, X)

    return _path(gradient, p, field, L, 1e-14, kappa=kappa, alpha=alpha, lam=lam, times=times)


def gaussian_path(X, *, kappa, alpha=None, lam=1.0, times=None):
    """Compute the edges of a Gaussian graphical model along the path on :func:`gaussian_loss`.

    Parameters
    ----------
    X : ndarray (n, p)
        Observations; columns are centred, and should be of one scale. None may be constant.
    kappa : float > 0
        Speed of theta.
    alpha : float in (0, 2 / (kappa L)), optional
        Step; ``L = 2 |S| max_i S_ii`` with the covariance S: no diagonal entry of the precision
        falls below ``1 / S_ii``. Default half the bound.
    lam : float > 0
        Penalty level.
    times : ndarray, increasing, >= 0, optional
        Default: 100, log-spaced from t0 to 20 t0, where the first edge enters at
        ``t0 = 1 / (2 max |S_ij|)`` (lam = 1).

    Returns
    -------
    Path
        ``gamma`` (T, p (p-1) / 2), a column per pair: the off-diagonal precision. The whole matrix
        at row k is ``precision(gamma[k], S)``.

    Notes
    -----
    The diagonal is eliminated: it has a closed form, and the loss stays convex. The path of the R
    package Libra follows another gradient, which is not that of its loss where variances differ.
    """
    X = check_design(X, sparse=False)
    n, p = X.shape
    if p < 2:
        raise ValueError(f"X must have two columns or more, got {p}")
    centred = X - X.mean(axis=0)
    S = centred.T @ centred / n
    flat = np.flatnonzero(np.diag(S) <= 1e-26 * (X**2).mean(axis=0))
    if flat.size:
        raise ValueError(f"no column of X may be constant, got column {flat[0]}")
    top = np.diag(S).max()
    L = 2 * np.linalg.eigvalsh(S)[-1] * top

    def gradient(theta, free):
        return _gaussian_gradient(theta, S), 0.0

    path = _path(gradient, p, 0.0, L, 1e-14 * top, kappa=kappa, alpha=alpha, lam=lam, times=times)
    return replace(path, intercept=None)

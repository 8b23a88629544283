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
import scipy.sparse as sp

from .losses import check_design, check_target, null_intercept, residual
from .path import Path, check_times, evaluate, shrink
from .penalties import dual_norm, penalty_of_labels
from .problem import centred, check_positive, column_scale
from .theory import step_bound


class LBIState(NamedTuple):
    """One point of the path; ``intercept`` is the linear predictor at the column means of X."""

    t: float
    z: np.ndarray
    beta: np.ndarray
    intercept: float | np.ndarray


class GramGradient:
    """Gradient of the squared loss that never looks at X twice for the same column.

    ``X'(X beta - y) / n = sum over active j of beta_j (X'x_j / n) - X'y / n``: columns of the Gram
    matrix are computed as coefficients become active, up to the number at which a product with X is
    the cheaper way.
    """

    def __init__(self, design, y):
        n, p = design.X.shape
        self.design, self.y = design, y
        self.c = design.adjoint(y) / n
        self.capacity = min(p, 2 * design.X.nnz // p if sp.issparse(design.X) else n)
        self.columns = np.empty((p, 0), order="F")
        self.place = np.full(p, -1)
        self.known = np.empty(0, dtype=np.intp)

    def __call__(self, beta):
        n = len(self.y)
        active = np.flatnonzero(beta)
        new = active[self.place[active] < 0]
        if len(self.known) + len(new) > self.capacity:
            return self.design.adjoint(self.design.dot(beta) - self.y) / n
        if new.size:
            s = len(self.known)
            self.place[new] = np.arange(s, s + len(new))
            self.known = np.append(self.known, new)
            if len(self.known) > self.columns.shape[1]:
                room = min(self.capacity, 2 * len(self.known) + 16)
                wider = np.empty((len(beta), room), order="F")
                wider[:, :s] = self.columns[:, :s]
                self.columns = wider
            block = self.design.adjoint(self.design.columns(new)) / n
            self.columns[:, s : s + len(new)] = block
        s = len(self.known)
        return self.columns[:, :s] @ beta[self.known] - self.c


def loss_gradient(design, y, loss, start):
    """Function ``(beta, intercept) -> gradients`` in both, as cheap as the loss allows.

    ``start`` is the intercept at beta = 0. The squared loss keeps it for ever: on centred columns
    the gradient in the intercept does not depend on beta.
    """
    if loss == "squared":
        gram = GramGradient(design, y - start)
        return lambda beta, intercept: (gram(beta), 0.0)

    def gradient(beta, intercept):
        r = residual(design.dot(beta) + intercept, y, loss=loss)
        return design.adjoint(r), r.sum(axis=0)

    return gradient


def checked_step(alpha, bound, default):
    """The step: the default where alpha is None, refused outside (0, bound)."""
    if alpha is None:
        return default
    if not 0 < alpha < bound:
        raise ValueError(
            f"alpha must be positive and below the step bound {bound:.6g}, got {alpha:.6g}"
        )
    return alpha


def first_jump(gradient, lam, groups, noise):
    """``t0 = lam / dual_norm(gradient)``, and ``z = -t0 gradient``, which touches the threshold.

    A gradient within ``noise`` is rounding error: nothing ever moves, t0 is infinite, z is zero.
    """
    penalty, units = penalty_of_labels(groups)
    norm = dual_norm(penalty, [gradient], units)
    if not norm > noise:
        return np.inf, 0.0 * gradient
    t0 = lam / norm
    z = -t0 * gradient
    while dual_norm(penalty, [z], units) > lam:  # rounding must not let anything in before its time
        z = z * (1 - 2.0**-52)
    return t0, z


def default_times(t0):
    """100 times, log-spaced from t0 to 20 t0."""
    if t0 == np.inf:
        raise ValueError("times must be given: the gradient at zero is zero, nothing ever enters")
    return np.geomspace(t0, 20 * t0, 100)


def lbi_states(X, y, *, kappa, alpha=None, lam=1.0, loss="squared", groups=None, intercept=False):
    """The path of linearized Bregman iteration as an endless generator of :class:`LBIState`.

    State 0 is zero, at t = 0. Until t0 the coefficients are zero and the gradient is constant, so
    that state 1 is the exact one at t0; Euler steps of size alpha follow. If the gradient is zero
    there is no t0: state 1 is at infinity, and the last. Parameters, and the errors raised, are
    those of :func:`lbi_path`.
    """
    check_positive(kappa=kappa, lam=lam)
    X = check_design(X)
    n, p = X.shape
    y = check_target(y, n, loss=loss)
    design, _ = centred(X, intercept)
    L = design.lipschitz(loss=loss, intercept=intercept)
    if not L > 0:
        raise ValueError("X must not be zero" + " after centring" * bool(intercept))
    bound = step_bound(L, kappa=kappa)
    alpha = checked_step(alpha, bound, bound / 2)
    k_classes = y.max() + 1 if loss == "multinomial" else None
    beta = np.zeros(p if k_classes is None else (p, k_classes))
    b = null_intercept(y, loss=loss) if intercept else 0.0
    b = b if k_classes is None else b * np.ones(k_classes)
    gradient = loss_gradient(design, y, loss, b)
    yield LBIState(0.0, beta, beta, b)
    t0, z = first_jump(gradient(beta, b)[0], lam, groups, design.noise(y))
    yield LBIState(t0, z, beta, b)
    if t0 == np.inf:
        return
    for k in count(1):
        g, g_b = gradient(beta, b)
        z = z - alpha * g  # (lbi-z)
        beta = shrink(z, kappa=kappa, lam=lam, groups=groups)  # (lbi-beta)
        b = b - kappa * alpha * g_b if intercept else b  # (lbi-intercept)
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
    """Path of linearized Bregman iteration, evaluated at given times.

    Parameters
    ----------
    X : ndarray or scipy.sparse, (n, p)
    y : ndarray (n,)
        Real (squared), -1 and +1 (logistic), or classes 0, ..., k-1 (multinomial).
    kappa : float > 0
        Damping. The larger, the closer to the inverse scale space and the more steps:
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
    X = check_design(X)
    scale = column_scale(X, intercept) if normalize else None
    if normalize:
        X = X @ sp.diags_array(1 / scale) if sp.issparse(X) else X / scale
    states = lbi_states(
        X, y, kappa=kappa, alpha=alpha, lam=lam, loss=loss, groups=groups, intercept=intercept
    )
    first, second = next(states), next(states)
    t = default_times(second.t) if times is None else check_times(times)
    z, b = evaluate(chain([first, second], states), t, "z", "intercept")
    factor = None if scale is None else 1 / scale
    gamma = np.array([shrink(r, kappa=kappa, lam=lam, groups=groups, scale=factor) for r in z])
    means = np.asarray(X.mean(axis=0)).ravel() * (1.0 if scale is None else scale)
    return Path(
        t=t,
        z=z,
        gamma=gamma,
        kappa=kappa,
        lam=lam,
        groups=groups,
        scale=factor,
        intercept=b - np.tensordot(gamma, means, (1, 0)) if intercept else None,
        centre=means if intercept else None,
        stop_reason="t_max reached",
    )

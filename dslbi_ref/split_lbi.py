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

from .lbi import checked_step, default_times, first_jump, loss_gradient
from .losses import check_design, check_target, null_intercept, spectral_norm_squared
from .path import Path, check_times, evaluate, shrink
from .problem import centred, check_positive
from .solvers.projections import kernel_projector
from .solvers.start import minimiser
from .theory import step_bound


class SplitLBIState(NamedTuple):
    """One point of the path; ``intercept`` is the linear predictor at the column means of X."""

    t: float
    beta: np.ndarray
    z: np.ndarray
    gamma: np.ndarray
    intercept: float


def check_problem(X, y, D, loss="squared"):
    """X, y and D checked; D as an ndarray or csr_array."""
    X, D = check_design(X), check_design(D, "D")
    if D.shape[1] != X.shape[1]:
        raise ValueError(f"D must have the {X.shape[1]} columns of X, got shape {D.shape}")
    if not np.abs(D).max() > 0:
        raise ValueError("D must not be zero, got a D of rank zero")
    if loss not in ("squared", "logistic"):
        raise ValueError(f'loss must be "squared" or "logistic", got {loss!r}')
    y = check_target(y, X.shape[0], loss=loss)
    return X, y, sp.csr_array(D) if sp.issparse(D) else D


def first_split_jump(D, beta, *, nu, lam, groups):
    """Time t0 at which gamma leaves zero while beta rests, and z at that time."""
    tie = D @ beta / nu
    noise = 1e-13 * np.abs(D).max() * np.linalg.norm(beta) / nu
    return first_jump(-tie, lam, groups, noise)


def _gradient(design, y, loss, start):
    """As :func:`dslbi_ref.lbi.loss_gradient`; beta is dense, so the whole Gram matrix may pay."""
    n, p = design.X.shape
    if loss != "squared" or p > 2 * n or sp.issparse(design.X):
        return loss_gradient(design, y, loss, start)
    gram, c = design.X.T @ design.X / n, design.adjoint(y - start) / n
    return lambda beta, intercept: (gram @ beta - c, 0.0)


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
):
    """The path of Split LBI as an endless generator of :class:`SplitLBIState`.

    State 0 is at t = 0. With ``start="minimiser"`` gamma is zero and beta at rest until t0, and
    state 1 is the exact one at t0; Euler steps of size alpha follow (at infinity, and the last one,
    if D beta is zero). With ``start="zero"`` the steps begin at state 0. Parameters, and the errors
    raised, are those of :func:`split_lbi_path`.
    """
    check_positive(nu=nu, kappa=kappa, lam=lam)
    if start not in ("minimiser", "zero"):
        raise ValueError(f'start must be "minimiser" or "zero", got {start!r}')
    X, y, D = check_problem(X, y, D, loss)
    design, _ = centred(X, intercept)
    L = design.lipschitz(loss=loss, intercept=intercept)
    bound = step_bound(L, kappa=kappa, nu=nu, D_norm=np.sqrt(spectral_norm_squared(D)))
    alpha = checked_step(alpha, bound, bound / 2)
    Dt = D.T.tocsr() if sp.issparse(D) else D.T
    if start == "minimiser":
        beta, b = minimiser(design, y, D, nu=nu, loss=loss, intercept=intercept)
    else:
        beta, b = np.zeros(D.shape[1]), null_intercept(y, loss=loss) if intercept else 0.0
    gradient = _gradient(design, y, loss, b)
    t0, z = 0.0, np.zeros(D.shape[0])
    gamma = z
    yield SplitLBIState(0.0, beta, z, gamma, b)
    if start == "minimiser":
        t0, z = first_split_jump(D, beta, nu=nu, lam=lam, groups=groups)
        yield SplitLBIState(t0, beta, z, gamma, b)
        if t0 == np.inf:
            return
    for k in count(1):
        g, g_b = gradient(beta, b)
        r = (D @ beta - gamma) / nu  # (slbi-residual)
        beta = beta - kappa * alpha * (g + Dt @ r)  # (slbi-beta)
        z = z + alpha * r  # (slbi-z)
        gamma = shrink(z, kappa=kappa, lam=lam, groups=groups)  # (slbi-gamma)
        b = b - kappa * alpha * g_b if intercept else b
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
):
    """Path of Split LBI, evaluated at given times.

    Parameters
    ----------
    X : ndarray or scipy.sparse, (n, p)
    y : ndarray (n,)
        Real (squared), or -1 and +1 (logistic).
    D : ndarray or scipy.sparse, (m, p)
        The transform whose image is to be sparse; see :mod:`dslbi_ref.transforms`.
    nu : float > 0
        Coupling. The larger, the freer gamma is from D beta: the condition for selecting the true
        support weakens, while beta and gamma part.
    kappa : float > 0
        Damping; the number of steps grows in proportion to it.
    alpha : float in (0, 2 / (kappa (L + (1 + |D|^2) / nu))), optional
        Step in path time; L as in :func:`dslbi_ref.lbi.lbi_path`. Default: half of the bound.
    lam : float > 0
        Penalty level: the threshold of z.
    times : ndarray, increasing, >= 0, optional
        Default: 100, log-spaced from t0 to 20 t0, where t0 is the time at which the first entry
        leaves zero from the start "minimiser".
    loss : "squared" or "logistic"
    groups : int array (m,), optional
        Rows of D with one label enter together.
    start : "minimiser" or "zero"
        beta starts at the minimiser for gamma = 0 and rests there until t0, or at zero, from which
        it moves at once. The paths differ at finite kappa.
    intercept : bool
        Fit an unpenalised intercept, with the columns of X centred for it.

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
    states = split_lbi_states(
        X,
        y,
        D,
        nu=nu,
        kappa=kappa,
        alpha=alpha,
        lam=lam,
        loss=loss,
        groups=groups,
        start=start,
        intercept=intercept,
    )
    first = next(states)
    X, y, D = check_problem(X, y, D, loss)
    if times is None:
        design, _ = centred(X, intercept)
        rest, _ = minimiser(design, y, D, nu=nu, loss=loss, intercept=intercept)
        times = default_times(first_split_jump(D, rest, nu=nu, lam=lam, groups=groups)[0])
    t = check_times(times)
    z, beta, b = evaluate(chain([first], states), t, "z", "beta", "intercept")
    gamma = np.array([shrink(row, kappa=kappa, lam=lam, groups=groups) for row in z])
    return split_path(X, D, t, z, gamma, beta, b if intercept else None, kappa, lam, groups)


def split_path(X, D, t, z, gamma, beta, b, kappa, lam, groups):
    """Path of a split iteration with its revised estimator; b is None without an intercept."""
    project = kernel_projector(D)
    means = None if b is None else np.asarray(X.mean(axis=0)).ravel()
    return Path(
        t=t,
        z=z,
        gamma=gamma,
        beta=beta,
        tilde=np.array([project(row, g == 0) for row, g in zip(beta, gamma, strict=True)]),
        kappa=kappa,
        lam=lam,
        groups=groups,
        intercept=None if b is None else b - beta @ means,
        centre=means,
        stop_reason="t_max reached",
    )

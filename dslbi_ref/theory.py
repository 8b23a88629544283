"""Checkable theory: step bounds, conserved quantities, conditions for selecting the support."""

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from scipy.optimize import linprog

from .checks import (
    check_array,
    check_design,
    check_in,
    check_kind,
    check_number,
    check_positive,
    check_transform,
    no_overflow,
)
from .solvers.linear_system import solver


def step_bound(L, *, kappa, nu=None, D_norm=1.0):
    """Return the step below which the iteration is safe: ``2 / (kappa * Lipschitz constant)``.

    Parameters
    ----------
    L : float >= 0
        Lipschitz constant of the gradient of the loss.
    kappa : float > 0
    nu : float > 0, optional
        Coupling of Split LBI and DessiLBI; None: plain LBI, ``2 / (kappa L)``.
    D_norm : float > 0
        Spectral norm of D (1 for DessiLBI).

    Notes
    -----
    The coupling term alone has a joint gradient with constant ``(1 + |D|^2) / nu``, so the bound is
    ``2 / (kappa (L + (1 + |D|^2) / nu))``. The bound recalled from the paper has 1/nu for D = I; at
    L = 0 it lets steps through that diverge.
    """
    (kappa,), (L, D_norm) = check_positive(kappa=kappa), check_in(0, np.inf, L=L, D_norm=D_norm)
    total = L
    if nu is not None:
        (nu,) = check_positive(nu=nu)
        total = L + (1 + D_norm * D_norm) / nu
    elif not L > 0:
        raise ValueError(f"L must be positive where there is no coupling, got {L}")
    with np.errstate(all="ignore"):
        bound = float(np.float64(2.0) / (kappa * total))
    if not 0 < bound < np.inf:
        raise ValueError(
            f"the step bound 2 / (kappa * {total:g}) must be a positive float, got {bound:g} for "
            f"kappa {kappa:g}: rescale the data or kappa"
        )
    return bound


@no_overflow
def lyapunov(loss, W, Gamma, V_old, Gamma_old, *, alpha, kappa, nu, penalty):
    """Return the Lyapunov function of DessiLBI (and Split LBI, D = I) between consecutive states.

    ``F = alpha * (loss + ||W - Gamma||^2 / (2 nu)) + Omega(Gamma) - <g, Gamma>`` with the
    sub-gradient ``g = V_old - Gamma_old / kappa`` of Omega at ``Gamma_old``. Along full-batch
    iterations with a constant step below :func:`step_bound`, without momentum and decay, F never
    increases.

    Parameters
    ----------
    loss : float
        Loss at W.
    W, Gamma, V_old, Gamma_old : dict[str, ndarray]
        W and Gamma of state k + 1, V and Gamma of state k. Tensors of W that are not split have no
        entry in Gamma and count through the loss only.
    alpha, kappa, nu : float > 0
    penalty : callable ``(name, Gamma_of_that_name) -> float``
        Value of Omega, the penalty level included.
    """
    alpha, kappa, nu = check_positive(alpha=alpha, kappa=kappa, nu=nu)
    Gamma = _tensors("Gamma", Gamma, Gamma)
    W, V_old, Gamma_old = (
        _tensors(name, given, Gamma)
        for name, given in (("W", W), ("V_old", V_old), ("Gamma_old", Gamma_old))
    )
    check_kind("penalty", penalty, callable)
    value = alpha * float(check_array("loss", loss, ()))
    for name, G in Gamma.items():
        g = V_old[name] - Gamma_old[name] / kappa
        value += alpha * ((W[name] - G) ** 2).sum() / (2 * nu)
        omega = check_number("penalty", penalty(name, G))
        value += omega - (g * G).sum()  # (dslbi-lyapunov)
    return value


def _tensors(name, given, like):
    """Return the tensors of a dict that ``like`` names, of the same shapes."""
    check_kind(name, given, dict)
    missing = sorted(set(like) - set(given), key=str)
    if missing:
        raise ValueError(f"{name} must hold every tensor of Gamma, missing {missing}")
    return {key: check_array(f"{name}[{key!r}]", given[key], np.shape(like[key])) for key in like}


@no_overflow
def telescoping_residual(W0, V0, W, V, sum_alpha_u, *, kappa):
    """Return the largest entry of ``W/kappa + V + sum alpha*u`` minus its starting value.

    u is the direction that W follows, momentum and L2 decay included, the coupling left out. The
    coupling cancels between the two updates, so this is rounding error only: with coupling
    "outside" and no decoupled decay for any momentum, with "inside" at momentum 0.
    """
    (kappa,) = check_positive(kappa=kappa)
    shape = np.shape(W0)
    W0, V0, W, V, sum_alpha_u = (
        check_array(name, x, shape)
        for name, x in dict(W0=W0, V0=V0, W=W, V=V, sum_alpha_u=sum_alpha_u).items()
    )
    drift = W / kappa + V + sum_alpha_u - (W0 / kappa + V0)
    return np.abs(drift).max(initial=0.0)


@no_overflow
def path_length(*parts):
    """Return the length of a recorded path up to each state: 0, then the sum of the moves so far.

    A move is the Euclidean norm of the difference of two recorded states, over all parts at once.
    Where the loss has the Kurdyka-Lojasiewicz property and bounded level sets, the length of a
    DessiLBI path in ``P = (W, Gamma)`` is finite below :func:`step_bound`, and so P converges.

    Parameters
    ----------
    *parts : ndarray (T, ...) or dict[str, ndarray (T, ...)]
        What a state consists of, with the path as the leading axis: ``path.W, path.Gamma`` of
        :func:`dslbi_ref.record`. If not every state was recorded, the length is that of the
        polygon through those that were, a lower bound.

    Returns
    -------
    ndarray (T,)
    """
    arrays = [a for part in parts for a in (part.values() if isinstance(part, dict) else [part])]
    arrays = [check_array("parts", a) for a in arrays]
    if not all(a.ndim for a in arrays):
        raise ValueError("parts must have the path as their leading axis, got a number alone")
    counts = sorted({len(a) for a in arrays})
    if len(counts) != 1 or counts[0] == 0:
        raise ValueError(f"parts must hold one number of states, at least 1, got {counts}")
    moves = [np.diff(a, axis=0).reshape(counts[0] - 1, a[0].size) for a in arrays]
    squares = sum((move**2).sum(axis=1) for move in moves)
    return np.concatenate([[0.0], np.cumsum(np.sqrt(squares))])


def _split_support(support, size, name="support"):
    """Return the mask of a support that is neither empty nor everything, and its complement."""
    on = check_array(name, support, (size,)) != 0
    if on.all() or not on.any():
        raise ValueError(f"{name} must hold zeros and non-zeros, got {on.sum()} of {size} non-zero")
    return on, ~on


def irrepresentable(X, support):
    """Return the number ``|X_T'X_S (X_S'X_S)^-1|_inf`` of a support S with complement T.

    Below 1, the lasso and the inverse scale space can select S without any false entry on the way
    (whatever the signs on S); the size is that of the largest row sum.

    Parameters
    ----------
    X : ndarray (n, p)
    support : ndarray (p,)
        Non-zero on S: the true coefficients, or a mask. The columns of S must be independent.
    """
    X = check_design(X, sparse=False)
    S, T = _split_support(support, X.shape[1])
    return _row_sum(X[:, S].T @ X[:, S], X[:, S].T @ X[:, T])


@no_overflow
def _row_sum(square, right):
    """Return the largest row sum of ``|right' square^-1|``; square must be positive definite."""
    factor, info = scipy.linalg.lapack.dpotrf(square)
    if info or (np.diag(factor) ** 2 <= 1e-13 * np.diag(square)).any():
        raise ValueError(
            f"support must be of independent columns, got a Gram matrix of rank below {len(square)}"
        )
    return float(np.abs(scipy.linalg.cho_solve((factor, False), right)).sum(axis=0).max())


def split_irrepresentable(X, D, support, *, nu):
    """Return the irrepresentable number IRR(nu) of Split LBI: that of its own Gram matrix.

    ``IRR(nu) = |Sigma_JI Sigma_II^-1|_inf`` with ``Sigma = I - D A^-1 D'``, ``A = nu X'X/n + D'D``,
    I the support of D beta and J its complement.

    Parameters
    ----------
    X : ndarray (n, p)
    D : ndarray or scipy.sparse, (m, p)
    support : ndarray (m,)
        Non-zero on I: the true D beta, or a mask.
    nu : float > 0
        As nu falls to zero the number tends to :func:`genlasso_conditions` 's IC0. As nu grows it
        vanishes if X determines ``D_I beta``: the reason for splitting.
    """
    X = check_design(X, sparse=False)
    D = check_transform(D, X.shape[1])
    D = D.toarray() if sp.issparse(D) else D
    I, J = _split_support(support, D.shape[0])
    D_I, D_J = D[I], D[J]
    reached = solver(X, D, nu)(D_I.T)
    return _row_sum(np.eye(len(D_I)) - D_I @ reached, -(D_J @ reached).T)


def genlasso_conditions(X, D, signs):
    """Return IC0 and IC1 of the lasso ``|y - X b|^2/2 + lambda |D b|_1`` for the signs of D b.

    With U a basis of the kernel of D_J and ``A = U (U'X'XU)^-1 U'``, the dual variable on J of a
    solution with these signs solves ``D_J' rho_J = (X'X A - 1) D_I' sign_I`` if there is no noise.

        IC0 = |(D_J')^+ (X'X A - 1) D_I'|_inf        the solution of least 2-norm, for any signs
        IC1 = min |rho_J|_inf over all solutions     at most 1: the signs can be recovered

    Parameters
    ----------
    X : ndarray (n, p)
        Independent columns on the kernel of D_J.
    D : ndarray or scipy.sparse, (m, p)
    signs : ndarray (m,)
        Signs of D beta: -1, 0 or 1. Zeros make up J.

    Returns
    -------
    ic0, ic1 : float
        ``ic1 <= ic0``.

    Notes
    -----
    Vaiter, Peyre, Dossal and Fadili (2013) call them that. The toolbox of Split LBI puts D beta
    itself, with entries of size 2, in the place of its signs, and so reports twice IC1.
    """
    X = check_design(X, sparse=False)
    D = check_transform(D, X.shape[1])
    D = D.toarray() if sp.issparse(D) else D
    signs = check_array("signs", signs, (D.shape[0],))
    I, J = _split_support(signs, D.shape[0], "signs")
    if not np.isin(signs, (-1, 0, 1)).all():
        raise ValueError(f"signs must be -1, 0 or 1, got {signs[~np.isin(signs, (-1, 0, 1))][0]}")
    D_I, D_J = D[I], D[J]
    U = scipy.linalg.null_space(D_J)
    if U.shape[1] == 0:
        raise ValueError("signs must be those of some D beta, got a support that only beta = 0 has")
    XU = X @ U / np.abs(X).max(initial=np.finfo(float).tiny)  # the size of X cancels
    if np.linalg.matrix_rank(XU) < U.shape[1]:
        raise ValueError("X must have independent columns on the kernel of D_J, got dependent ones")
    # (X'X A - 1) D_I', from A = U (U'X'XU)^-1 U'
    right = X.T / np.abs(X).max() @ XU @ np.linalg.solve(XU.T @ XU, U.T @ D_I.T) - D_I.T
    ic0 = np.abs(np.linalg.pinv(D_J.T) @ right).sum(axis=1).max()
    m, p = D_J.shape
    level = -np.ones((m, 1))
    program = linprog(
        np.append(np.zeros(m), 1.0),
        A_ub=np.block([[np.eye(m), level], [-np.eye(m), level]]),
        b_ub=np.zeros(2 * m),
        A_eq=np.hstack([D_J.T, np.zeros((p, 1))]),
        b_eq=right @ signs[I],
        bounds=[(None, None)] * m + [(0, None)],
    )
    if not program.success:
        raise ValueError(f"D and X must be of a scale that linprog solves, but: {program.message}")
    return float(ic0), float(program.fun)


@no_overflow
def stopping_time(X, support, *, sigma):
    """Return how long the inverse scale space has no false entry, but for a small probability.

    With ``eta = 1 - irrepresentable(X, support)`` and T the complement of the support S,

        tau = eta / (2 sigma) * sqrt(n / log p) / max_T (|X_j| / sqrt n).

    While no false entry exists, ``rho_T = X_T'X_S (X_S'X_S)^-1 rho_S + t X_T'(I - P_S) noise / n``:
    the first part stays below 1 - eta, and each of the second is normal with a deviation of at most
    ``t sigma |X_j| / n``. A union bound gives the probability ``1 - 1 / (p sqrt(2 pi log p))``.

    Parameters
    ----------
    X : ndarray (n, p)
        p at least 2.
    support : ndarray (p,)
        Non-zero on S; the condition ``irrepresentable(X, support) < 1`` must hold.
    sigma : float > 0
        Standard deviation of the normal noise.
    """
    (sigma,), X = check_positive(sigma=sigma), check_design(X, sparse=False)
    eta = np.float64(1 - irrepresentable(X, support))
    if not eta > 0:
        raise ValueError(f"irrepresentable(X, support) must be below 1, got {1 - eta}")
    n, p = X.shape
    size = np.linalg.norm(X[:, np.asarray(support) == 0], axis=0).max() / np.sqrt(n)
    return float(eta / (2 * sigma) * np.sqrt(n / np.log(p)) / size)

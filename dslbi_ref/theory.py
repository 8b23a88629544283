"""Checkable theory: step bounds, the Lyapunov function, conserved quantities, entry rules."""

import numpy as np


def step_bound(L, *, kappa, nu=None, D_norm=1.0):
    """Largest step below which the iteration is safe: ``2 / (kappa * Lipschitz constant)``.

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
    total = L if nu is None else L + (1 + D_norm**2) / nu
    if not total > 0:
        raise ValueError(f"L must be positive where there is no coupling, got {L}")
    return 2.0 / (kappa * total)


def lyapunov(loss, W, Gamma, V_old, Gamma_old, *, alpha, kappa, nu, penalty):
    """Lyapunov function of DessiLBI (and Split LBI with D = I) between two consecutive states.

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
    value = alpha * loss
    for name, G in Gamma.items():
        g = V_old[name] - Gamma_old[name] / kappa
        value += alpha * ((W[name] - G) ** 2).sum() / (2 * nu)
        value += penalty(name, G) - (g * G).sum()  # (dslbi-lyapunov)
    return value


def telescoping_residual(W0, V0, W, V, sum_alpha_u, *, kappa):
    """Largest entry of ``W/kappa + V + sum alpha*u`` minus its starting value.

    u is the direction that W follows, momentum and L2 decay included, the coupling left out. The
    coupling cancels between the two updates, so this is rounding error only: with coupling
    "outside" and no decoupled decay for any momentum, with "inside" at momentum 0.
    """
    drift = W / kappa + V + sum_alpha_u - (W0 / kappa + V0)
    return np.abs(drift).max(initial=0.0)

"""Mirror descent: gradient steps taken in the dual space of a convex function.

The iteration moves the dual variable ``z = grad Phi(x)`` by the gradient of the loss and reads
``x = grad Phi*(z)`` off it. Phi, a :class:`dslbi_ref.mirror_maps.MirrorMap`, sets the geometry: how
far a step reaches, which constraints hold by themselves, and which of many minimisers is found (the
one nearest to the start in the divergence of Phi). With ``Phi = lam |x|_1 + |x|^2 / (2 kappa)`` it
is linearized Bregman iteration.
"""

import inspect
from typing import NamedTuple

import numpy as np
from scipy.integrate import solve_ivp

from .checks import INF, check_in, check_kind, check_times, real, step_size
from .mirror_maps import MirrorMap

# A flow that needs more gradients than these would take hours.
MAX_GRADIENTS = 10**7


class MirrorState(NamedTuple):
    """One point of the path: time ``t = sum of alpha``, dual variable z, ``x = grad Phi*(z)``."""

    t: float
    z: np.ndarray
    x: np.ndarray


def _start(mirror_map, x0, z0):
    check_kind("mirror_map", mirror_map, MirrorMap)
    if (x0 is None) == (z0 is None):
        raise ValueError("give exactly one of x0 and z0")
    name, start = ("x0", x0) if z0 is None else ("z0", z0)
    start = np.array(real(start, name), dtype=float)
    if start.size == 0 or not np.isfinite(start).all():
        raise ValueError(f"{name} must be finite and not empty, got shape {start.shape}")
    return mirror_map.grad(start) if z0 is None else start


def _finite(name, x, t):
    if not np.isfinite(x).all():
        raise ValueError(f"{name} must stay finite, it does not at t = {t}: try a smaller step")
    return x


def _primal(inverse, z):
    return inverse(z)  # (md-primal)


def _inverse(mirror_map):
    """Return the inverse as it is, without the checks of one point: every state is looked at."""
    return inspect.unwrap(mirror_map.inverse)


def _gradient(grad, x, t):
    g = real(check_kind("grad", grad, callable)(x), "grad")
    if g.shape != x.shape:
        raise ValueError(f"grad must return the shape of x, {x.shape}, got {g.shape}")
    return _finite("grad", g, t)


def mirror_descent_states(grad, mirror_map, x0=None, *, z0=None, alpha):
    """Generate mirror descent without end, as :class:`MirrorState`.

    ``x_{k+1} = argmin_x alpha <grad f(x_k), x> + D(x, x_k)``, in its dual form.

    Parameters
    ----------
    grad : callable ``x -> ndarray``
        (Sub)gradient of the loss f; called once per step.
    mirror_map : MirrorMap
    x0, z0 : ndarray
        The start, as a point of the domain or as its dual variable: exactly one of the two.
    alpha : float > 0, or callable ``k -> float``
        Step of iteration k. If ``L Phi - f`` is convex, the constant step 1/L gives
        ``f(x_k) - f(x*) <= L D(x*, x_0) / k``.

    Notes
    -----
    The lazy form: z is the start minus the sum of the steps. Mapping x back in every step gives the
    same path for all maps of this file but the elastic net, where it would forget z at the zeros.
    """
    z, t, k = _start(mirror_map, x0, z0), 0.0, 0
    inverse = _inverse(mirror_map)
    with np.errstate(over="ignore", invalid="ignore"):
        x = _primal(inverse, z)
    while True:
        yield MirrorState(t, z, _finite("x", x, t))
        alpha_k, g = step_size(alpha, k), _gradient(grad, x, t)
        t, k = t + alpha_k, k + 1
        with np.errstate(over="ignore", invalid="ignore"):  # the next state reports it
            z = z - alpha_k * g  # (md-step)
            x = _primal(inverse, z)


def dual_averaging_states(grad, mirror_map, x0=None, *, z0=None, alpha):
    """Generate dual averaging: all past gradients weigh the same, the newest step scales their sum.

    ``x_k = argmin_x alpha_k <sum of g_i, x> + D(x, x_0)``. A constant alpha is mirror descent. A
    decreasing one needs no horizon: with |g_k|_* <= G and Phi sigma-strongly convex, the regret of
    T steps is at most ``D(x*, x_0) / alpha_{T-1} + sum alpha_k G^2 / (2 sigma)``.

    Parameters as in :func:`mirror_descent_states`, alpha not increasing. The time of a state is
    ``k * alpha_k``.
    """
    z0, k, previous = _start(mirror_map, x0, z0), 0, np.inf
    total, inverse = np.zeros_like(z0), _inverse(mirror_map)
    while True:
        alpha_k = step_size(alpha, k)
        if alpha_k > previous:
            raise ValueError(f"alpha must not increase, got {alpha_k} after {previous}")
        t = k * alpha_k
        with np.errstate(over="ignore", invalid="ignore"):  # the next line reports it
            z = z0 - alpha_k * total  # (md-averaging)
            x = _primal(inverse, z)
        yield MirrorState(t, z, _finite("x", x, t))
        total = total + _gradient(grad, x, t)
        k, previous = k + 1, alpha_k


def mirror_flow(grad, mirror_map, x0=None, *, z0=None, times, rtol=1e-10, atol=1e-12):
    """Follow the continuous-time limit ``dz/dt = -grad f(x)``, ``x = grad Phi*(z)`` to given times.

    Along it ``d/dt D(x*, x(t)) = -<grad f(x), x - x*> <= -(f(x) - f*)`` for convex f.

    Parameters
    ----------
    grad, mirror_map, x0, z0
        As in :func:`mirror_descent_states`.
    times : array of shape (T,)
        Increasing, not negative; the flow starts at time 0.
    rtol, atol : float > 0
        Tolerances of the integrator (scipy's DOP853) for z.

    Returns
    -------
    MirrorState
        With a leading axis of length T on t, z and x.
    """
    times = check_times(times)
    (rtol,) = check_in(1e-13, 1, rtol=rtol)
    (atol,) = check_in(0, INF, atol=atol)
    z0, inverse = _start(mirror_map, x0, z0), _inverse(mirror_map)

    asked = 0

    def velocity(t, z):
        nonlocal asked
        asked += 1
        if asked > MAX_GRADIENTS:
            raise ValueError(
                f"times must be reached within {MAX_GRADIENTS:,} gradients, got t = {t:.6g} of "
                f"{times[-1]:.6g} by then"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            x = _finite("x", _primal(inverse, z.reshape(z0.shape)), t)
        return -_gradient(grad, x, t).ravel()  # (md-flow)

    span = (0.0, max(times[-1], np.finfo(float).tiny))
    run = solve_ivp(velocity, span, z0.ravel(), "DOP853", times, rtol=rtol, atol=atol)
    if not run.success:
        raise ValueError(f"the flow must reach t = {times[-1]}, but: {run.message}")
    z = run.y.T.reshape(-1, *z0.shape)
    return MirrorState(times, z, np.array([mirror_map.inverse(z_t) for z_t in z]))

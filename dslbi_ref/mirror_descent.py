"""Mirror descent: gradient steps taken in the dual space of a convex function.

A mirror map is a convex function Phi with its gradient, the inverse of that gradient and the
Bregman divergence that it induces:

    z = grad Phi(x)        x = grad Phi*(z)        D(x, y) = Phi(x) - Phi(y) - <grad Phi(y), x - y>

The iteration moves z by the gradient of the loss and reads x off z. Phi sets the geometry: how far
a step reaches, which constraints hold by themselves, and which of many minimisers is found (the one
nearest to the start in D). With Phi = lam |x|_1 + |x|^2 / (2 kappa) it is linearized Bregman
iteration.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.integrate import solve_ivp
from scipy.special import logsumexp, rel_entr, xlogy

from .path import check_times
from .penalties import penalty_of_labels
from .problem import check_positive


class MirrorMap(NamedTuple):
    """A convex function Phi by its parts, each a function of arrays.

    Arguments are float arrays; a point outside the domain raises ValueError.

    Attributes
    ----------
    value : ``x -> float``, Phi
    grad : ``x -> z``, gradient of Phi (where Phi has kinks: its subgradient of least norm)
    conjugate : ``z -> float``, Phi*(z) = max_x <z, x> - Phi(x)
    inverse : ``z -> x``, gradient of Phi*
    divergence : ``(x, y, z=None) -> float``, D(x, y) >= 0
        ``z`` is the subgradient of Phi at y. Only :func:`elastic_net` reads it: elsewhere y
        determines it.
    """

    value: Callable
    grad: Callable
    conjugate: Callable
    inverse: Callable
    divergence: Callable


class MirrorState(NamedTuple):
    """One point of the path: time ``t = sum of alpha``, dual variable z, ``x = grad Phi*(z)``."""

    t: float
    z: np.ndarray
    x: np.ndarray


def _above_zero(name, x, or_equal=False):
    x = np.asarray(x, float)
    low = x.min(initial=np.inf)
    if not (low > 0 or (or_equal and low == 0)):
        kind = "non-negative" if or_equal else "positive"
        raise ValueError(f"{name} must be {kind} in this geometry, got an entry {low}")
    return x


def _on_simplex(name, x, or_equal=False):
    x = _above_zero(name, x, or_equal)
    if x.ndim != 1 or not abs(x.sum() - 1) <= 1e-9:
        raise ValueError(f"{name} must be a vector of sum 1, got shape {x.shape} and sum {x.sum()}")
    return x


def euclidean():
    """Phi = |x|^2 / 2 on the whole space: D = |x - y|^2 / 2, mirror descent is gradient descent.

    1-strongly convex in the l2 norm.
    """
    return MirrorMap(
        value=lambda x: (x * x).sum() / 2,
        grad=lambda x: x,
        conjugate=lambda z: (z * z).sum() / 2,
        inverse=lambda z: z,
        divergence=lambda x, y, z=None: ((x - y) ** 2).sum() / 2,
    )


def simplex_entropy():
    """Phi = sum x log x on the probability simplex: D is the Kullback-Leibler divergence.

    The step multiplies, ``x <- x * exp(-alpha * g)``, and normalises. z is determined up to a
    constant; ``grad`` returns log x. 1-strongly convex in the l1 norm (Pinsker). The boundary
    belongs to the domain of Phi and of the first argument of D, not to that of the gradient.
    """

    def divergence(x, y, z=None):
        return rel_entr(_on_simplex("x", x, or_equal=True), _on_simplex("y", y)).sum()

    return MirrorMap(
        value=lambda x: xlogy(_on_simplex("x", x, or_equal=True), x).sum(),
        grad=lambda x: np.log(_on_simplex("x", x)),
        conjugate=lambda z: logsumexp(z),
        inverse=lambda z: np.exp(z - logsumexp(z)),
        divergence=divergence,
    )


def orthant_entropy():
    """Phi = sum x log x - x on the positive orthant: D = sum x log(x / y) - x + y.

    The unnormalised sibling of :func:`simplex_entropy`; strongly convex on bounded sets only.
    """

    def value(x):
        x = _above_zero("x", x, or_equal=True)
        return (xlogy(x, x) - x).sum()

    def divergence(x, y, z=None):
        x, y = _above_zero("x", x, or_equal=True), _above_zero("y", y)
        return (rel_entr(x, y) - x + y).sum()

    return MirrorMap(
        value=value,
        grad=lambda x: np.log(_above_zero("x", x)),
        conjugate=lambda z: np.exp(z).sum(),
        inverse=lambda z: np.exp(z),
        divergence=divergence,
    )


def log_barrier():
    """Phi = -sum log x (Burg's entropy) on the positive orthant: D = sum x/y - log(x/y) - 1.

    The dual domain is the negative orthant: a step that makes an entry of z non-negative has left
    it, and raises ValueError. D (Itakura-Saito) is unchanged when x and y are rescaled together.
    """

    def divergence(x, y, z=None):
        ratio = _above_zero("x", x) / _above_zero("y", y)
        return (ratio - np.log(ratio) - 1).sum()

    return MirrorMap(
        value=lambda x: -np.log(_above_zero("x", x)).sum(),
        grad=lambda x: -1 / _above_zero("x", x),
        conjugate=lambda z: -np.log(_above_zero("-z", -z)).sum() - np.size(z),
        inverse=lambda z: 1 / _above_zero("-z", -z),
        divergence=divergence,
    )


def p_norm(p):
    """Phi = |x|_p^2 / 2 on the whole space, for p in (1, 2].

    (p - 1)-strongly convex in the l_p norm. ``p = 1 + 1 / log(d)`` is close to the l1 geometry in d
    dimensions. The conjugate is |z|_q^2 / 2 with 1/p + 1/q = 1.
    """
    if not 1 < p <= 2:
        raise ValueError(f"p must be in (1, 2], got {p}")
    q = p / (p - 1)

    def norm(x, r):
        top = np.abs(x).max(initial=0.0)  # divided out: large powers overflow
        return top * ((np.abs(x) / top) ** r).sum() ** (1 / r) if top > 0 else 0.0

    def link(x, r):
        size = norm(x, r)
        return np.sign(x) * size * (np.abs(x) / size) ** (r - 1) if size > 0 else 0.0 * x

    return MirrorMap(
        value=lambda x: norm(x, p) ** 2 / 2,
        grad=lambda x: link(x, p),
        conjugate=lambda z: norm(z, q) ** 2 / 2,
        inverse=lambda z: link(z, q),
        divergence=lambda x, y, z=None: (
            norm(x, p) ** 2 / 2 + norm(y, p) ** 2 / 2 - (link(y, p) * x).sum()
        ),
    )


def hypentropy(scale):
    """Phi = sum x asinh(x / scale) - sqrt(x^2 + scale^2) on the whole space, scale > 0.

    Quadratic where |x| is far below the scale, entropic in |x| far above: small scales favour
    sparse minimisers. Gradient flow of a diagonal linear net, x = u*u - v*v from u = v = a, is the
    flow of this map at ``scale = 2 a^2``, four times as fast.

    References: Ghai, Hazan, Singer, "Exponentiated gradient meets gradient descent", 2020.
    """
    check_positive(scale=scale)

    def value(x):
        return (x * np.arcsinh(x / scale) - np.hypot(x, scale)).sum()

    def divergence(x, y, z=None):
        gap = x * (np.arcsinh(x / scale) - np.arcsinh(y / scale))
        return (gap - np.hypot(x, scale) + np.hypot(y, scale)).sum()

    return MirrorMap(
        value=value,
        grad=lambda x: np.arcsinh(x / scale),
        conjugate=lambda z: scale * np.cosh(z).sum(),
        inverse=lambda z: scale * np.sinh(z),
        divergence=divergence,
    )


def elastic_net(kappa, lam=1.0, groups=None):
    """Phi = Omega(x) + |x|^2 / (2 kappa), Omega the l1 or the group penalty: linearized Bregman.

    ``grad Phi*(z) = kappa * prox_lam(z)`` has exact zeros. Phi has a kink at zero, so that x does
    not determine z: keep z, and hand it to the divergence,

        D(x, y; z) = Omega(x) - <rho, x> + |x - y|^2 / (2 kappa),    rho = z - y / kappa.

    ``1/kappa``-strongly convex in the l2 norm.

    Parameters
    ----------
    kappa : float > 0
        Damping.
    lam : float > 0
        Penalty level.
    groups : int array of shape (p,), optional
        Entries (rows, if x has two axes) of one label form one group.
    """
    check_positive(kappa=kappa, lam=lam)

    penalty, units = penalty_of_labels(groups)

    def omega(x):
        return penalty.value([x], lam, units)

    def shrink(z):
        return penalty.prox([z], lam, units)[0]

    def grad(x):
        return x / kappa + penalty.subgradient([x], lam, units)[0]

    def divergence(x, y, z=None):
        rho = (grad(y) if z is None else z) - y / kappa
        return omega(x) - (rho * x).sum() + ((x - y) ** 2).sum() / (2 * kappa)

    return MirrorMap(
        value=lambda x: omega(x) + (x * x).sum() / (2 * kappa),
        grad=grad,
        conjugate=lambda z: kappa * (shrink(z) ** 2).sum() / 2,
        inverse=lambda z: kappa * shrink(z),
        divergence=divergence,
    )


def _start(mirror_map, x0, z0):
    if (x0 is None) == (z0 is None):
        raise ValueError("give exactly one of x0 and z0")
    name, start = ("x0", x0) if z0 is None else ("z0", z0)
    start = np.array(start, dtype=float)
    if start.size == 0 or not np.isfinite(start).all():
        raise ValueError(f"{name} must be finite and not empty, got shape {start.shape}")
    return mirror_map.grad(start) if z0 is None else start


def _finite(name, x, t):
    if not np.isfinite(x).all():
        raise ValueError(f"{name} must stay finite, it does not at t = {t}: try a smaller step")
    return x


def _primal(mirror_map, z, t):
    with np.errstate(over="ignore"):  # an overflow is reported by the next line
        x = mirror_map.inverse(z)  # (md-primal)
    return _finite("x", x, t)


def _gradient(grad, x, t):
    g = np.asarray(grad(x), dtype=float)
    if g.shape != x.shape:
        raise ValueError(f"grad must return the shape of x, {x.shape}, got {g.shape}")
    return _finite("grad", g, t)


def _step_size(alpha, k):
    alpha_k = alpha(k) if callable(alpha) else alpha
    check_positive(alpha=alpha_k)
    return alpha_k


def mirror_descent_states(grad, mirror_map, x0=None, *, z0=None, alpha):
    """Mirror descent as an endless generator of :class:`MirrorState`.

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
    while True:
        x = _primal(mirror_map, z, t)
        yield MirrorState(t, z, x)
        alpha_k = _step_size(alpha, k)
        z = z - alpha_k * _gradient(grad, x, t)  # (md-step)
        t, k = t + alpha_k, k + 1


def dual_averaging_states(grad, mirror_map, x0=None, *, z0=None, alpha):
    """Dual averaging: all past gradients weigh the same, and the newest step scales their sum.

    ``x_k = argmin_x alpha_k <sum of g_i, x> + D(x, x_0)``. A constant alpha is mirror descent. A
    decreasing one needs no horizon: with |g_k|_* <= G and Phi sigma-strongly convex, the regret of
    T steps is at most ``D(x*, x_0) / alpha_{T-1} + sum alpha_k G^2 / (2 sigma)``.

    Parameters as in :func:`mirror_descent_states`, alpha not increasing. The time of a state is
    ``k * alpha_k``.
    """
    z0, k, previous = _start(mirror_map, x0, z0), 0, np.inf
    total = np.zeros_like(z0)
    while True:
        alpha_k = _step_size(alpha, k)
        if alpha_k > previous:
            raise ValueError(f"alpha must not increase, got {alpha_k} after {previous}")
        t = k * alpha_k
        z = z0 - alpha_k * total  # (md-averaging)
        x = _primal(mirror_map, z, t)
        yield MirrorState(t, z, x)
        total = total + _gradient(grad, x, t)
        k, previous = k + 1, alpha_k


def mirror_flow(grad, mirror_map, x0=None, *, z0=None, times, rtol=1e-10, atol=1e-12):
    """The continuous-time limit ``dz/dt = -grad f(x)``, ``x = grad Phi*(z)``, at given times.

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
    z0 = _start(mirror_map, x0, z0)

    def velocity(t, z):
        x = _primal(mirror_map, z.reshape(z0.shape), t)
        return -_gradient(grad, x, t).ravel()  # (md-flow)

    span = (0.0, max(times[-1], np.finfo(float).tiny))
    run = solve_ivp(velocity, span, z0.ravel(), "DOP853", times, rtol=rtol, atol=atol)
    if not run.success:
        raise ValueError(f"the flow must reach t = {times[-1]}, but: {run.message}")
    z = run.y.T.reshape(-1, *z0.shape)
    return MirrorState(times, z, np.array([mirror_map.inverse(z_t) for z_t in z]))

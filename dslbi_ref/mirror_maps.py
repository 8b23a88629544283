"""Mirror maps: convex functions that set the geometry of mirror descent.

A mirror map is a convex function Phi with its gradient, the inverse of that gradient and the
Bregman divergence that it induces:

    z = grad Phi(x)        x = grad Phi*(z)        D(x, y) = Phi(x) - Phi(y) - <grad Phi(y), x - y>

Seven geometries: the Euclidean one, two entropies, a barrier, p-norms, the hypentropy, and the
elastic net, with which mirror descent is linearized Bregman iteration.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp, rel_entr, xlogy

from .checks import check_number, check_positive, no_overflow, real
from .shrinkage import penalty_of_labels


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


def _mirror_map(**parts):
    """Return a map of parts that take real arrays of one shape, and refuse what overflows."""

    def guard(part):
        part = no_overflow(part)

        @functools.wraps(part)
        def guarded(x, *others):
            points = [real(x, "x")]
            for name, p in zip("yz", others, strict=False):
                points.append(None if p is None and name == "z" else real(p, name))
            for name, p in zip("yz", points[1:], strict=False):
                if p is not None and p.shape != points[0].shape:
                    raise ValueError(
                        f"{name} must have the shape of x, {points[0].shape}, got {p.shape}"
                    )
            return part(*points)

        return guarded

    return MirrorMap(**{word: guard(part) for word, part in parts.items()})


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
    return _mirror_map(
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

    return _mirror_map(
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

    return _mirror_map(
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

    return _mirror_map(
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
    p = check_number("p", p)
    if not 1 < p <= 2:
        raise ValueError(f"p must be in (1, 2], got {p}")
    q = p / (p - 1)

    def norm(x, r):
        top = np.abs(x).max(initial=0.0)  # divided out: large powers overflow
        return top * ((np.abs(x) / top) ** r).sum() ** (1 / r) if top > 0 else 0.0

    def link(x, r):
        size = norm(x, r)
        return np.sign(x) * size * (np.abs(x) / size) ** (r - 1) if size > 0 else 0.0 * x

    return _mirror_map(
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
    (scale,) = check_positive(scale=scale)

    def value(x):
        return (x * np.arcsinh(x / scale) - np.hypot(x, scale)).sum()

    def divergence(x, y, z=None):
        gap = x * (np.arcsinh(x / scale) - np.arcsinh(y / scale))
        return (gap - np.hypot(x, scale) + np.hypot(y, scale)).sum()

    return _mirror_map(
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
        Speed of x.
    lam : float > 0
        Penalty level.
    groups : int array of shape (p,), optional
        Entries (rows, if x has two axes) of one label form one group.
    """
    kappa, lam = check_positive(kappa=kappa, lam=lam)

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

    return _mirror_map(
        value=lambda x: omega(x) + (x * x).sum() / (2 * kappa),
        grad=grad,
        conjugate=lambda z: kappa * (shrink(z) ** 2).sum() / 2,
        inverse=lambda z: kappa * shrink(z),
        divergence=divergence,
    )

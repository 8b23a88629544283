"""DessiLBI: Split LBI for the weights of a network (Fu et al., ICML 2020).

The loss L(W) is split from the penalty by a twin variable Gamma of the shape of W:

    Lbar(W, Gamma) = L(W) + ||W - Gamma||^2 / (2 nu)

W follows the gradient of Lbar, and a dual variable V, with ``Gamma = kappa * prox_lam(V)``,
accumulates ``(W - Gamma) / nu``. Gamma starts at zero and grows: what enters first matters most.
"""

from typing import NamedTuple

from .penalties import prox


class DessiLBIState(NamedTuple):
    """One point of the path: the time ``t = sum of alpha`` and one array per tensor name.

    ``V`` and ``Gamma`` hold the split tensors only; ``m`` is empty before the first step and
    without momentum.
    """

    t: float
    W: dict
    V: dict
    Gamma: dict
    m: dict


def _positive(**values):
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be positive and finite, got {value}")


def _check(alpha, kappa, nu, lam, momentum, dampening, weight_decay, nesterov, coupling):
    _positive(alpha=alpha, kappa=kappa, nu=nu, lam=lam)
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")
    if not 0 <= dampening < 1:
        raise ValueError(f"dampening must be in [0, 1), got {dampening}")
    if not 0 <= weight_decay < float("inf"):
        raise ValueError(f"weight_decay must be at least 0 and finite, got {weight_decay}")
    if nesterov and (momentum == 0 or dampening != 0):
        raise ValueError(
            "nesterov needs momentum > 0 and dampening 0, "
            f"got momentum {momentum} and dampening {dampening}"
        )
    if coupling not in ("outside", "inside"):
        raise ValueError(f'coupling must be "outside" or "inside", got {coupling!r}')


def gamma(V, *, kappa=1.0, lam=1.0, penalty="l1", group_dim=0, weight=None):
    """The sparse iterate ``Gamma = kappa * prox_lam(V)``."""
    shrunk = prox(V, lam, penalty=penalty, group_dim=group_dim, weight=weight)
    return kappa * shrunk  # (dslbi-gamma)


def step(
    W,
    V,
    m,
    grad,
    *,
    alpha,
    kappa=1.0,
    nu=100.0,
    lam=1.0,
    penalty="l1",
    group_dim=0,
    weight=None,
    momentum=0.9,
    dampening=0.0,
    weight_decay=0.0,
    decoupled=False,
    nesterov=False,
    coupling="outside",
):
    """One DessiLBI iteration of one tensor.

    Every right-hand side holds old values (Jacobi order), as in the authors' code.

    Parameters
    ----------
    W, grad : ndarray, same shape
        Weights, and the gradient of the loss at W.
    V : ndarray of the shape of W, or None
        Dual variable. None: the tensor is not split and follows plain (momentum) descent.
    m : ndarray of the shape of W, or None
        Momentum buffer. None: this is the first step, and m becomes the gradient. Without momentum
        it is passed through.
    alpha : float > 0
        Step. W moves by ``kappa * alpha``, V by ``alpha / nu``. Safe without momentum for
        ``alpha < 2 / (kappa * (L + 2 / nu))``, L the Lipschitz constant of the gradient.
    kappa, nu, lam : float > 0
        Damping, coupling, penalty level.
    penalty : "l1" or "group"
        Elementwise, or one group per slice along ``group_dim``.
    group_dim : int or tuple of int
    weight : None or "sqrt"
        "sqrt": the threshold of a group is ``lam * sqrt(size)``.
    momentum, dampening : float in [0, 1)
    weight_decay : float >= 0
        Added to the gradient, or with ``decoupled`` taken from W directly.
    nesterov : bool
    coupling : "outside" or "inside"
        Whether the pull ``(W - Gamma) / nu`` stays outside the momentum buffer (the authors' code)
        or enters it (the paper's form, as recalled).

    Returns
    -------
    W, V, m : ndarray
        New arrays; the arguments are not changed.

    Notes
    -----
    The authors' code fixes ``lam = 1`` and adds the decay to the momentum buffer in place; without
    dampening that is the L2 form used here. The step bound recalled from the paper, with 1/nu in
    place of 2/nu, is too large: see :func:`dslbi_ref.theory.step_bound`.
    """
    _check(alpha, kappa, nu, lam, momentum, dampening, weight_decay, nesterov, coupling)
    if grad.shape != W.shape:
        raise ValueError(f"grad must have the shape of W, {W.shape}, got {grad.shape}")
    g = grad
    if weight_decay and not decoupled:
        g = g + weight_decay * W
    if V is not None:
        Gamma = gamma(V, kappa=kappa, lam=lam, penalty=penalty, group_dim=group_dim, weight=weight)
        r = (W - Gamma) / nu  # (dslbi-r)
        if coupling == "inside":
            g = g + r
    u = g
    if momentum:
        m = g if m is None else momentum * m + (1 - dampening) * g  # (dslbi-m)
        u = g + momentum * m if nesterov else m
    W_new = W - kappa * alpha * u  # (dslbi-w)
    if decoupled and weight_decay:
        W_new = W_new - kappa * alpha * weight_decay * W
    if V is not None:
        if coupling == "outside":
            W_new = W_new - kappa * alpha * r
        V = V + alpha * r  # (dslbi-v)
    return W_new, V, m


def dessilbi_states(
    W, grad, *, penalties, alpha, kappa=1.0, lam=1.0, group_dim=0, weight=None, **options
):
    """The DessiLBI path as an endless generator of :class:`DessiLBIState`, starting at W.

    Parameters
    ----------
    W : dict[str, ndarray]
        Initial weights.
    grad : callable
        ``grad(W)`` returns the dict of gradients of the loss at W (a mini-batch loss may differ
        from call to call); it is called once per step.
    penalties : dict[str, "l1" or "group"]
        The tensors to split; tensors without an entry follow plain descent.
    alpha : float, or callable ``k -> float``
        Step of iteration k.
    kappa, lam, group_dim, weight, **options
        See :func:`step`.
    """
    unknown = set(penalties) - set(W)
    if unknown:
        raise ValueError(f"penalties must name tensors of W, got {sorted(unknown)}")
    shape = dict(kappa=kappa, lam=lam, group_dim=group_dim, weight=weight)
    V = {name: 0.0 * W[name] for name in penalties}
    m = {}
    t, k = 0.0, 0
    while True:
        Gamma = {name: gamma(V[name], penalty=penalties[name], **shape) for name in V}
        yield DessiLBIState(t, W, V, Gamma, m)
        g = grad(W)
        missing = sorted(set(W) - set(g))
        if missing:
            raise ValueError(f"grad must return a gradient of every tensor, missing {missing}")
        alpha_k = alpha(k) if callable(alpha) else alpha
        moved = {
            name: step(
                W[name],
                V.get(name),
                m.get(name),
                g[name],
                alpha=alpha_k,
                penalty=penalties.get(name, "l1"),
                **shape,
                **options,
            )
            for name in W
        }
        W = {name: moved[name][0] for name in moved}
        V = {name: moved[name][1] for name in V}
        m = {name: moved[name][2] for name in moved if moved[name][2] is not None}
        t, k = t + alpha_k, k + 1

"""DessiLBI: Split LBI for the weights of a network (Fu et al., ICML 2020).

The loss L(W) is split from the penalty by a twin variable Gamma of the shape of W:

    Lbar(W, Gamma) = L(W) + ||W - Gamma||^2 / (2 nu)

W follows the gradient of Lbar, and a dual variable V, with ``Gamma = kappa * prox_lam(V)``,
accumulates ``(W - Gamma) / nu``. Gamma starts at zero and grows: what the loss holds up enters.
A path may rest at first, so that it starts from trained weights.
"""

from typing import NamedTuple

import numpy as np

from .checks import (
    INF,
    check_flag,
    check_in,
    check_kind,
    check_list,
    check_positive,
    check_word,
    no_overflow,
    real,
    shown,
    step_size,
)
from .penalties import penalty_named
from .release import check_release, dense_start, scaled_levels
from .units import Units


class DessiLBIState(NamedTuple):
    """One point of the path: the time ``t = sum of alpha`` since the path's release, and one array
    per tensor name.

    ``V`` and ``Gamma`` hold the split tensors only; ``m`` is empty before the first step and
    without momentum.
    """

    t: float
    W: dict
    V: dict
    Gamma: dict
    m: dict


def _check(momentum, dampening, weight_decay, decoupled, nesterov, coupling):
    check_flag("decoupled", decoupled)
    check_flag("nesterov", nesterov)
    floats = type(momentum) is type(dampening) is type(weight_decay) is float  # once a step
    if not (floats and 0 <= momentum < 1 and 0 <= dampening < 1 and 0 <= weight_decay < INF):
        check_in(0, 1, momentum=momentum, dampening=dampening)
        check_in(0, INF, weight_decay=weight_decay)
    if nesterov and (momentum == 0 or dampening != 0):
        raise ValueError(
            "nesterov needs momentum > 0 and dampening 0, "
            f"got momentum {momentum} and dampening {dampening}"
        )
    check_word("coupling", coupling, ("outside", "inside"))


@no_overflow
def gamma(Vs, *, kappa=1.0, lam=1.0, penalty="l1", group_dim=0, block=1, parts=1, weight=None):
    """Return ``Gamma = kappa * prox_lam(V)`` of a family, one array for each V.

    Parameters
    ----------
    Vs : list of ndarray
        The dual variables of the tensors that share units: of one tensor, or of joint ones, whose
        k-th slices enter together.
    kappa, lam : float > 0
        Speed of Gamma, penalty level.
    penalty : "l1" or "group"
        Elementwise, or one group per unit.
    group_dim, block, parts, weight
        What a unit is: see :class:`dslbi_ref.units.Units`. With ``weight="sqrt"`` the threshold of
        a group is ``lam * sqrt(size)``, the size of a joint one counted over all its tensors.
    """
    kappa, lam = check_positive(kappa=kappa, lam=lam)
    prox = penalty_named(penalty).prox
    units = Units(group_dim, block, parts, weight)
    return [kappa * shrunk for shrunk in prox(Vs, lam, units)]  # (dslbi-gamma)


@no_overflow
def step(
    W,
    V,
    Gamma,
    m,
    grad,
    *,
    alpha,
    kappa=1.0,
    nu=100.0,
    momentum=0.9,
    dampening=0.0,
    weight_decay=0.0,
    decoupled=False,
    nesterov=False,
    coupling="outside",
):
    """Make one DessiLBI iteration of one tensor.

    Every right-hand side holds old values (Jacobi order), as in the authors' code. The penalty has
    done its work before: ``Gamma`` is that of V, by :func:`gamma`.

    Parameters
    ----------
    W, grad : ndarray, same shape
        Weights, and the gradient of the loss at W.
    V, Gamma : ndarray of the shape of W, or None
        Dual variable and sparse iterate. Both None: the tensor is not split and follows plain
        (momentum) descent.
    m : ndarray of the shape of W, or None
        Momentum buffer. None: this is the first step, and m becomes the gradient. Without momentum
        it is passed through.
    alpha : float > 0
        Step. W moves by ``kappa * alpha``, V by ``alpha / nu``. Safe without momentum for
        ``alpha < 2 / (kappa * (L + 2 / nu))``, L the Lipschitz constant of the gradient.
    kappa, nu : float > 0
        Speed of Gamma, coupling.
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
    alpha, kappa, nu = check_positive(alpha=alpha, kappa=kappa, nu=nu)
    _check(momentum, dampening, weight_decay, decoupled, nesterov, coupling)
    W, grad = real(W, "W"), real(grad, "grad")
    V, Gamma, m = (
        None if x is None else real(x, name) for name, x in (("V", V), ("Gamma", Gamma), ("m", m))
    )
    for name, x in (("grad", grad), ("V", V), ("Gamma", Gamma), ("m", m)):
        number = name == "m" and x is not None and x.ndim == 0  # 0: no momentum yet
        if not (x is None or number or x.shape == W.shape):
            raise ValueError(f"{name} must have the shape of W, {W.shape}, got {x.shape}")
    if (V is None) != (Gamma is None):
        given = "V" if Gamma is None else "Gamma"
        raise ValueError(f"V and Gamma must be given together, or be None, got {given} alone")
    g = grad
    if weight_decay and not decoupled:
        g = g + weight_decay * W
    if V is not None:
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


def _families(W, penalties, joint):
    """Return the families as lists of names: the joint ones, then every other tensor alone."""
    check_kind("W", W, dict)
    if not isinstance(penalties, dict):
        raise ValueError(f"penalties must be a dict of a penalty per name, got {shown(penalties)}")
    for names in joint if isinstance(joint, str) else check_list("joint", joint):
        if isinstance(names, str):  # its letters would pass for names
            raise ValueError(f"joint must be lists of names, got {names!r} alone")
    joint = [check_list("joint", names) for names in joint]
    together = [name for names in joint for name in names]
    strange = [name for name in (*penalties, *together) if name not in W]
    if strange:
        raise ValueError(f"penalties and joint must name tensors of W, got {strange}")
    twice = sorted({name for name in together if together.count(name) > 1})
    if twice:
        raise ValueError(f"joint must name every tensor once, got {twice} again")
    for names in joint:
        words = [penalties.get(name) for name in names]
        if len(set(words)) != 1 or words[0] is None:
            raise ValueError(f"joint tensors {names} must have one penalty, got {words}")
    return joint + [[name] for name in penalties if name not in together]


def dessilbi_states(
    W,
    grad,
    *,
    penalties,
    alpha,
    kappa=1.0,
    nu=100.0,
    lam=1.0,
    group_dim=0,
    block=1,
    parts=1,
    joint=(),
    weight=None,
    release=0,
    pull=0.0,
    power=0.0,
    dense=False,
    **options,
):
    """Generate the DessiLBI path without end, as :class:`DessiLBIState`, starting at W.

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
    kappa, lam, group_dim, block, parts, weight
        See :func:`gamma`.
    nu : float > 0
        Coupling.
    joint : list of lists of str
        Families: the k-th units of all tensors of one list enter together, by their joint norm.
    release : int >= 0
        Steps that the path rests: V, Gamma and the time are zero, and W follows the loss.
    pull : float >= 0
        Part of the path's own pull, ``pull * W / nu``, that W feels while the path rests. With 1 it
        tends to the minimiser of ``L + ||W||^2 / (2 nu)``, where Split LBI starts.
    power : float
        At the release the level of each family is multiplied by ``(rms / typical) ** power``: see
        :func:`dslbi_ref.release.scaled_levels`.
    dense : bool
        The path begins at Gamma = W, and goes from dense to sparse, not at Gamma = 0.
    **options
        See :func:`step`.

    Raises
    ------
    ValueError
        A name that W lacks, a tensor in two families, joint tensors of different penalties or of
        different numbers of units, a gradient that is missing, an option out of its range.
    """
    families = _families(W, penalties, joint)
    check_kind("grad", grad, callable)
    dense = check_flag("dense", dense)
    W = {name: real(w, f"W[{name!r}]") for name, w in W.items()}
    kappa, nu, lam = check_positive(kappa=kappa, nu=nu, lam=lam)
    check_release(release, pull, power)
    units = dict(group_dim=group_dim, block=block, parts=parts, weight=weight)
    levels = dict.fromkeys(penalties, lam)

    def of_families(function, xs):
        """Return what a function makes of every family of xs, by the names of the tensors."""
        found = {}
        for names in families:
            own = dict(kappa=kappa, lam=levels[names[0]], penalty=penalties[names[0]], **units)
            found.update(zip(names, function([xs[name] for name in names], **own), strict=True))
        return {name: found[name] for name in penalties}

    V = {name: np.zeros_like(W[name]) for name in penalties}
    m = {}
    t, k = 0.0, 0
    while True:
        if k == release:
            levels = scaled_levels(W, families, lam=lam, power=power)
            V = of_families(dense_start, W) if dense else V
        Gamma = of_families(gamma, V)
        yield DessiLBIState(t, W, V, Gamma, m)
        g = check_kind("grad", grad(W), dict)
        missing = sorted(set(W) - set(g))
        if missing:
            raise ValueError(f"grad must return a gradient of every tensor, missing {missing}")
        alpha_k = step_size(alpha, k)
        rests = k < release
        coupled = {} if rests and not pull else V
        own = dict(alpha=alpha_k, kappa=kappa, nu=nu / pull if rests and pull else nu, **options)
        moved = {}
        for name in W:
            twins = (coupled[name], Gamma[name]) if name in coupled else (None, None)
            moved[name] = step(W[name], *twins, m.get(name), g[name], **own)
        W = {name: moved[name][0] for name in moved}
        m = {name: moved[name][2] for name in moved if moved[name][2] is not None}
        if not rests:
            V = {name: moved[name][1] for name in V}
            t = t + alpha_k
        k = k + 1

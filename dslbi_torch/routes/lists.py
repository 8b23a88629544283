"""The DessiLBI step over lists of tensors: few launches on a GPU. Twin of ``dessilbi.step_``."""

import torch

from ..penalties import group_norms, group_weight


def _gaps(Ws, Vs, *, kappa, lam, penalty, group_dim, weight):
    """``W - Gamma`` of every tensor, in the dtype of V."""
    if penalty == "l1":
        gaps = torch._foreach_clamp_min(Vs, -lam)
        torch._foreach_clamp_max_(gaps, lam)
        torch._foreach_sub_(gaps, Vs)  # minus the shrunk V
        torch._foreach_mul_(gaps, kappa)
        torch._foreach_add_(gaps, Ws)
        return gaps
    norms = [group_norms(V, group_dim=group_dim, keepdim=True) for V in Vs]
    levels = [lam * group_weight(V.shape, group_dim=group_dim, weight=weight) for V in Vs]
    torch._foreach_reciprocal_(norms)  # 1/0 = inf: the scale of a zero group is clamped to 0
    torch._foreach_mul_(norms, [-level for level in levels])
    torch._foreach_add_(norms, 1)
    torch._foreach_clamp_min_(norms, 0)
    gaps = torch._foreach_mul(Vs, norms)
    torch._foreach_mul_(gaps, -kappa)
    torch._foreach_add_(gaps, Ws)
    return gaps


def step_(
    Ws,
    Vs,
    ms,
    grads,
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
    """One iteration of many tensors of one device, in place: :func:`dslbi_torch.dessilbi.step_`
    with lists in place of tensors (Vs and ms None where those have None).

    Beside the lists it holds one more array of their size, ``W - Gamma``.
    """
    add = torch._foreach_add
    gs = grads
    if weight_decay and not decoupled:
        gs = add(gs, Ws, alpha=weight_decay)
    if Vs is not None:
        gaps = _gaps(
            Ws, Vs, kappa=kappa, lam=lam, penalty=penalty, group_dim=group_dim, weight=weight
        )
        if coupling == "inside":
            gs = add(gs, gaps, alpha=1 / nu)
    if ms is not None:
        torch._foreach_mul_(ms, momentum)
        torch._foreach_add_(ms, gs, alpha=1 - dampening)  # (dslbi-m)
        gs = add(gs, ms, alpha=momentum) if nesterov else ms
    if decoupled and weight_decay:
        _add_(Ws, Ws, -kappa * alpha * weight_decay)
    _add_(Ws, gs, -kappa * alpha)  # (dslbi-w)
    if Vs is not None:
        if coupling == "outside":
            _add_(Ws, gaps, -kappa * alpha / nu)
        _add_(Vs, gaps, alpha / nu)  # (dslbi-v)


def _add_(xs, ys, c):
    """``x += c * y`` for every pair; c is a number, or a tensor of one element."""
    if isinstance(c, torch.Tensor):
        torch._foreach_add_(xs, torch._foreach_mul(ys, c.to(ys[0].device)))
    else:
        torch._foreach_add_(xs, ys, alpha=c)

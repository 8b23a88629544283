"""The step over lists of tensors of one device and dtype: few launches on a GPU."""

import torch

from ..penalties import PENALTIES
from ..slices import Units, laid_over
from ..torch_private import (
    foreach_add,
    foreach_add_,
    foreach_clamp_max_,
    foreach_clamp_min,
    foreach_div_,
    foreach_mul,
    foreach_mul_,
    foreach_sub,
)
from .views import Tensors


def step_(
    tensors: Tensors,
    *,
    alpha,
    kappa,
    nu,
    lam,
    penalty,
    momentum,
    dampening,
    weight_decay,
    decoupled,
    nesterov,
    coupling,
    **units,
):
    """Step many tensors, in place: :func:`dslbi_torch.dessilbi.step_` with lists.

    It needs one more list of arrays, ``W - Gamma``.
    """
    Ws, Vs, ms, gs = tensors.Ws, tensors.Vs, tensors.ms, tensors.grads
    if weight_decay and not decoupled:
        gs = foreach_add(gs, Ws, alpha=weight_decay)
    if Vs is not None:
        gaps = _gaps(tensors, kappa, lam, PENALTIES[penalty], Units(**units))
        if coupling == "inside":
            gs = foreach_add(gs, gaps, alpha=1 / nu)
    us = gs
    if ms is not None:
        foreach_mul_(ms, momentum)
        foreach_add_(ms, gs, alpha=1 - dampening)  # (dslbi-m)
        us = foreach_add(gs, ms, alpha=momentum) if nesterov else ms
    if decoupled and weight_decay:
        _add_(Ws, Ws, -kappa * alpha * weight_decay)
    _add_(Ws, us, -kappa * alpha)  # (dslbi-w)
    if Vs is not None:
        if coupling == "outside":
            _add_(Ws, gaps, -kappa * alpha / nu)
        _add_(Vs, gaps, alpha / nu)  # (dslbi-v)


def _gaps(tensors, kappa, lam, row, units):
    """Return ``W - Gamma`` of every tensor, in the dtype of V."""
    Ws, Vs, scales = tensors.Ws, tensors.Vs, tensors.scales
    if not row.scaled:
        gaps = row.prox(Vs, lam, units)
    else:
        if scales is None:
            scales = _factors([row.score([V], units)[0] for V in Vs], lam)
            scales = [laid_over(s, V, units) for s, V in zip(scales, Vs, strict=True)]
        gaps = foreach_mul(Vs, scales)
    foreach_mul_(gaps, -kappa)
    foreach_add_(gaps, Ws)
    return gaps


def _factors(scores, lam):
    """:func:`dslbi_torch.penalties.factor` of every tensor."""
    bounds = torch.finfo(scores[0].dtype)
    levels = foreach_clamp_min(scores, lam or bounds.tiny)
    foreach_clamp_max_(levels, bounds.max)
    found = foreach_sub(levels, lam)
    foreach_div_(found, levels)
    return found


def _add_(xs, ys, c):
    """Add ``c * y`` to x for every pair; c is a number, or a tensor of one element."""
    if isinstance(c, torch.Tensor):
        foreach_add_(xs, foreach_mul(ys, c.to(ys[0].device)))
    else:
        foreach_add_(xs, ys, alpha=c)

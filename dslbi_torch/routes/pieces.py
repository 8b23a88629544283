"""The DessiLBI step on a CPU: piece by piece, around torch's own fused SGD. Twin of
``dessilbi.step_``."""

import torch
from torch import Tensor
from torch.nn import Parameter

from ..tensors import is_sharded
from .gap import gap_of

# Elements of a piece: small enough that W, V, m, grad and the scratch of one piece stay in the
# processor's cache between the passes of a step.
_PIECE = 1 << 17


def pieces(tensors, penalty, group_dim):
    """Cut the tensors of one parameter along an axis that cuts no group."""
    W = tensors[0]
    if W.numel() <= _PIECE:
        return [tensors]
    indivisible = is_sharded(W) or (penalty == "group" and group_dim == ())
    if indivisible or not W.is_cpu:
        return [tensors]
    dim = _cut(penalty, group_dim)
    rows = max(1, _PIECE * W.shape[dim] // W.numel())
    cut = [[None] * -(-W.shape[dim] // rows) if x is None else x.split(rows, dim) for x in tensors]
    return zip(*cut, strict=True)


def _cut(penalty, group_dim):
    """The axis along which :func:`pieces` are cut."""
    if penalty != "group" or group_dim == ():
        return 0
    return group_dim if isinstance(group_dim, int) else group_dim[0]


def takes(options):
    """Whether :func:`step_` can make a step with these options: with momentum, the pull outside of
    it, and outside autograd and compilation."""
    split = options["penalty"] is not None
    if options["momentum"] == 0 or (split and options["coupling"] != "outside"):
        return False
    return not (
        type(options["alpha"]) is Tensor
        or torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        # torch's kernel counts on tensors without holes, and so on pieces cut along dimension 0
        or (split and options["weight_decay"] and _cut(options["penalty"], options["group_dim"]))
    )


def fits(W, m, grad):
    """Whether W, m and grad are real tensors that lie on the CPU alike and without holes."""
    if not (
        W.is_cpu
        and W.dtype is m.dtype is grad.dtype
        and W.dtype in (torch.float32, torch.float64)
        and type(W) in (Tensor, Parameter)
    ):
        return False
    if W.is_contiguous() and m.is_contiguous() and grad.is_contiguous():
        return True
    alike = W.stride() == m.stride() == grad.stride()
    return alike and W.is_contiguous(memory_format=torch.channels_last)


def step_(
    rows,
    *,
    alpha,
    kappa,
    nu,
    lam,
    penalty,
    group_dim,
    weight,
    momentum,
    dampening,
    weight_decay,
    decoupled,
    nesterov,
    coupling,
):
    """One iteration of many tensors, in place: :func:`dslbi_torch.dessilbi.step_` for rows
    ``(W, V, m, grad)`` that :func:`fits`."""
    decay = kappa * alpha * weight_decay if decoupled else 0.0
    sgd = dict(
        lr=kappa * alpha,
        momentum=momentum,
        dampening=dampening,
        weight_decay=0.0 if decoupled else weight_decay,
        nesterov=nesterov,
        maximize=False,
        is_first_step=False,
    )
    at_once = penalty is None or not sgd["weight_decay"]
    for row in rows if decay or penalty else ():
        for W, V, m, g in pieces(row, penalty, group_dim):
            if penalty is None:
                W.add_(W, alpha=-decay)
                continue
            gap = gap_of(
                W, V, kappa=kappa, lam=lam, penalty=penalty, group_dim=group_dim, weight=weight
            )
            V.add_(gap, alpha=alpha / nu)  # (dslbi-v)
            if gap is W and (decay or not at_once):
                gap = W.clone()
            if not at_once:  # its decay is that of the old W
                torch._fused_sgd_([W], [g], [m], **sgd)  # (dslbi-m)
            if decay:
                W.add_(W, alpha=-decay)
            W.add_(gap, alpha=-kappa * alpha / nu)
    if at_once and rows:
        Ws, _, ms, grads = map(list, zip(*rows, strict=True))
        torch._fused_sgd_(Ws, grads, ms, **sgd)  # (dslbi-w)

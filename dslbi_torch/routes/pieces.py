"""The step on a CPU: piece by piece in the processor's cache, around torch's own fused SGD."""

import torch
from torch import Tensor
from torch.nn import Parameter

from ..penalties import PENALTIES
from ..slices import Units
from ..torch_private import fused_sgd_
from . import gaps
from .gaps import axis, cut, gap_of
from .views import Tensors


def can_take(options: dict) -> bool:
    """Return whether :func:`step_` can take these options.

    They need momentum, and the pull outside of it; autograd and compilation must be off.
    """
    return not (
        options["momentum"] == 0
        or (options["penalty"] is not None and options["coupling"] != "outside")
        or type(options["alpha"]) is Tensor
        or torch.is_grad_enabled()
        or torch.compiler.is_compiling()
    )


def _fits(W, m, grad):
    """Return whether W, m and grad are real, on the CPU, laid out alike and without holes."""
    if not (
        type(W) in _PLAIN and W.dtype in _REAL and W.dtype is m.dtype is grad.dtype and W.is_cpu
    ):
        return False
    if W.is_contiguous() and m.is_contiguous() and grad.is_contiguous():
        return True
    alike = W.stride() == m.stride() == grad.stride()
    return alike and W.is_contiguous(memory_format=torch.channels_last)


_PLAIN, _REAL = (Parameter, Tensor), (torch.float32, torch.float64)


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
) -> Tensors | None:
    """Step many tensors, in place: :func:`dslbi_torch.dessilbi.step_` piece by piece.

    Tensors that do not fit are left alone and returned; None if all fit.
    """
    fit = [_fits(*row) for row in zip(tensors.Ws, tensors.ms, tensors.grads, strict=True)]
    left = None
    if not all(fit):
        left = tensors.rows([k for k, ok in enumerate(fit) if not ok])
        tensors = tensors.rows([k for k, ok in enumerate(fit) if ok])
    sgd = SGD(kappa * alpha, momentum, dampening, 0.0 if decoupled else weight_decay, nesterov)
    decay = kappa * alpha * weight_decay if decoupled else 0.0
    if tensors.Vs is None:
        for W in tensors.Ws if decay else ():
            W.add_(W, alpha=-decay)
        sgd.now(tensors.Ws, tensors.grads, tensors.ms)
        return left
    row, units = PENALTIES[penalty], Units(**units)
    up, down = alpha / nu, -kappa * alpha / nu
    scales = tensors.scales or [None] * len(tensors.Ws)
    columns = tensors.Ws, tensors.Vs, tensors.ms, tensors.grads, scales
    for W, V, m, grad, scale in zip(*columns, strict=True):
        dim = axis(W, row, units, scale)
        # torch's SGD counts on tensors without holes, which only pieces along axis 0 are.
        dense = not dim
        if sgd.weight_decay and not dense:
            dim, dense = None, True
        own = (m, grad) if dense else (None, None)
        for w, v, s, b, g in cut((W, V, scale, *own), dim):
            gap = None if tensors.silent else gap_of(w, v, s, kappa, lam, row, units)
            v.add_(w if gap is None else gap, alpha=up)  # (dslbi-v)
            if sgd.weight_decay:  # its decay is that of the old W, so the pull comes after it
                gap = w.clone() if gap is None else gap
                sgd.now([w], [g], [b])  # (dslbi-m)
                w.add_(gap, alpha=down)
                continue
            if gap is None:
                w.add_(w, alpha=down - decay)
            else:
                if decay:
                    w.add_(w, alpha=-decay)
                w.add_(gap, alpha=down)
            if dense:
                sgd.later(w, g, b)
        if not dense:
            sgd.later(W, grad, m)
    sgd.flush()
    return left


class SGD:
    """torch's fused SGD, called for several pieces at once while the cache still holds them."""

    def __init__(self, lr, momentum, dampening, weight_decay, nesterov):
        self.weight_decay = weight_decay
        self.options = dict(
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
            maximize=False,
            is_first_step=False,
        )
        self.Ws, self.grads, self.ms, self.numel = [], [], [], 0

    def now(self, Ws, grads, ms):
        if Ws:
            fused_sgd_(Ws, grads, ms, **self.options)  # (dslbi-w)

    def later(self, W, grad, m):
        self.Ws.append(W)
        self.grads.append(grad)
        self.ms.append(m)
        self.numel += W.numel()
        if self.numel >= gaps.PIECE:
            self.flush()

    def flush(self):
        self.now(self.Ws, self.grads, self.ms)
        self.Ws, self.grads, self.ms, self.numel = [], [], [], 0

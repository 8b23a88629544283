"""The distance of W from Gamma, which pulls the two together."""

import torch
from torch import Tensor
from torch.nn.functional import softshrink

from .prox import group_scale


def gap_of(W, V, *, kappa, lam, penalty, group_dim, weight):
    """``W - Gamma`` without a pass for Gamma, in the wider dtype of W and V. It may be W itself."""
    if W.dtype != V.dtype:
        W = W.to(V.dtype)
    recorded = torch.is_grad_enabled()
    if recorded:
        V = V.clone()  # the graph keeps it, and V itself will be written to
    if penalty == "l1":
        shrunk = softshrink(V, lam)
        return torch.sub(W, shrunk, alpha=kappa, out=None if recorded else shrunk)
    scale = group_scale(V, lam, group_dim=group_dim, weight=weight)
    if type(scale) is Tensor and scale.device.type == "cpu" and not torch.compiler.is_compiling():
        if not (recorded or scale.any()):  # on a CPU it costs nothing to look
            return W  # no group is selected: Gamma = 0
    return torch.addcmul(W, V, scale, value=-kappa)

"""The distance of W from Gamma, which pulls the two together."""

import torch
from torch import Tensor
from torch.nn.functional import softshrink

from ..penalties import group_norms, group_weight, scale_of


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
    level = lam * group_weight(V.shape, group_dim=group_dim, weight=weight)
    norms = group_norms(V, group_dim=group_dim, keepdim=True)
    if norms.is_cpu and not recorded and type(norms) is Tensor and norms.numel():
        # on a CPU it costs nothing to look
        if not torch.compiler.is_compiling() and norms.max().item() <= level:
            return W  # no group is selected: Gamma = 0
    return torch.addcmul(W, V, scale_of(norms, level), value=-kappa)

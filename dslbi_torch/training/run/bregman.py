"""Linearized Bregman iterations for nets, LinBreg and AdaBreg: sparse from the first step on.

They are what DessiLBI is compared with, and are written here as their paper has them (Bungert,
Roith, Tenbrinck, Burger, *A Bregman learning framework for sparse neural networks*, JMLR 23(192),
2022, with delta = 1). The weights are the proximal image of V, so the net that is trained is the
sparse one; there is no second set of weights beside it, and no coupling.
"""

import math

import torch
from torch import Tensor

from ...penalties import soft_threshold


@torch.no_grad()
def sparsify_(weights: dict[str, Tensor], density: float, generator: torch.Generator) -> None:
    """Keep each weight with the chance ``density``, in (0, 1]; scaled, so that a layer's output
    varies as before."""
    for W in weights.values():
        kept = torch.rand(W.shape, generator=generator) < density
        W.mul_(kept.to(W.device) / math.sqrt(density))


class LinBreg(torch.optim.Optimizer):
    """Step by ``V <- V - lr m``, ``W <- prox_lam(V)`` with m the momentum of the gradient.

    It begins with ``V = W + lam sign(W)``. What has no penalty is stepped by SGD. V is in the
    state, and the levels in the groups, where :class:`dslbi_torch.TargetDensity` looks for them.

    Parameters
    ----------
    groups : list of dict
        Of :func:`dslbi_torch.split_groups`, with the penalty "l1" or none.
    lr : float > 0
    momentum : float in [0, 1)
    """

    def __init__(self, groups, lr, *, momentum=0.9):
        own = dict(lr=lr, lam=1.0, group_dim=0, weight=None, kappa=1, momentum=momentum)
        super().__init__(groups, own)
        for group in self.param_groups:
            for W in group["params"]:
                if group["penalty"]:
                    self.state[W]["V"] = W.detach() + group["lam"] * W.detach().sign()

    def direction(self, W: Tensor, group: dict) -> Tensor:
        """Return m after this gradient."""
        m = self.state[W].setdefault("m", torch.zeros_like(W))
        return m.mul_(group["momentum"]).add_(W.grad)

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for W in group["params"]:
                if W.grad is None:
                    continue
                V, d = self.state[W].get("V"), self.direction(W, group)
                if V is None:
                    W.sub_(d, alpha=group["lr"])
                else:
                    V.sub_(d, alpha=group["lr"])
                    W.copy_(soft_threshold(V, group["lam"]))


class AdaBreg(LinBreg):
    """LinBreg with the direction of Adam in place of m, of the betas ``momentum`` and 0.999."""

    def direction(self, W: Tensor, group: dict) -> Tensor:
        own, beta = self.state[W], group["momentum"]
        if "m" not in own:
            own |= {"m": torch.zeros_like(W), "square": torch.zeros_like(W), "count": 0}
        own["count"] += 1
        m = own["m"].lerp_(W.grad, 1 - beta)
        square = own["square"].lerp_(W.grad.square(), 0.001)
        k = own["count"]
        return (m / (1 - beta**k)) / ((square / (1 - 0.999**k)).sqrt() + 1e-8)

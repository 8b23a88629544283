"""Nets that are sparse from the start under random masks, and RigL, which exchanges their weights.

Source: Evci, Gale, Menick, Castro, Elsen, *Rigging the lottery: making all tickets winners*, ICML
2020.
"""

import math

import torch
from torch import Tensor
from torch.optim import Optimizer


def layer_densities(weights: dict[str, Tensor], density: float, layout: str) -> dict[str, float]:
    """Return the share of each layer at a density of them all.

    ``layout`` is "uniform", or "erk": in proportion to the sum of a layer's sides over their
    product (Mocanu et al. 2018 for matrices, Evci et al. 2020 with the sides of a kernel).
    """
    sizes = {name: W.numel() for name, W in weights.items()}
    if layout == "uniform":
        return dict.fromkeys(sizes, density)
    raw = {name: sum(W.shape) / W.numel() for name, W in weights.items()}
    dense, budget = set(), density * sum(sizes.values())
    while True:
        left = budget - sum(sizes[name] for name in dense)
        rest = sum(raw[name] * sizes[name] for name in sizes if name not in dense)
        scale = left / rest if rest else 0.0
        full = {name for name in sizes if name not in dense and scale * raw[name] >= 1}
        if not full:
            return {name: 1.0 if name in dense else scale * raw[name] for name in sizes}
        dense |= full


def drawn_masks(
    weights: dict[str, Tensor], density: float, layout: str, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return masks by chance, of as many weights of each layer as its layout says."""
    masks = {}
    for name, share in layer_densities(weights, density, layout).items():
        W = weights[name]
        order = torch.randperm(W.numel(), generator=generator)
        masks[name] = (order < round(share * W.numel())).view(W.shape).to(W.device)
    return masks


@torch.no_grad()
def scale_up_(weights: dict[str, Tensor], masks: dict[str, Tensor]) -> None:
    """Scale each layer so that its output under its mask varies as before."""
    for name, W in weights.items():
        W.div_(masks[name].float().mean().clamp(min=1e-9).sqrt())


class RigL:
    """Exchange the smallest weights of every layer for those of largest gradient, in training.

    After each ``every`` steps the ``share`` of a layer's weights that is due is dropped, and as
    many of what was zero are grown, from zero and without momentum; the share falls from ``part``
    by half a cosine to 0 at step ``end``. A step in which weights are exchanged is no other step.

    Parameters
    ----------
    optimizer : Optimizer
        That trains the weights; after each of its steps what the masks do not keep is zero again.
    weights, masks : dict of Tensor
        By the same names. The weights are masked at once.
    end : int
        Step from which on nothing is exchanged.
    every : int >= 1
    part : float in [0, 1]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        weights: dict[str, Tensor],
        masks: dict[str, Tensor],
        end: int,
        every: int = 100,
        part: float = 0.3,
    ):
        self.optimizer, self.weights, self.masks = optimizer, weights, masks
        self.end, self.every, self.part, self.step = end, every, part, 0
        self._hold()
        optimizer.register_step_post_hook(lambda *_: self._hold())

    @torch.no_grad()
    def exchange(self) -> bool:
        """Count a step whose gradients are there; return whether it is spent on an exchange."""
        step, self.step = self.step, self.step + 1
        if step == 0 or step % self.every or step >= self.end:
            return False
        share = self.part / 2 * (1 + math.cos(math.pi * step / self.end))
        for name, W in self.weights.items():
            self.masks[name] = self._exchanged(W, self.masks[name], share)
        self._hold()
        return True

    def _exchanged(self, W, mask, share):
        """The mask after an exchange; what grew is zero, and its momentum too."""
        kept = mask.flatten()  # in the order of the indices, whatever the strides are
        count = min(int(share * kept.sum()), int((~kept).sum()))
        size = W.abs().flatten().masked_fill(~kept, math.inf)
        kept[size.argsort()[:count]] = False
        gain = W.grad.abs().flatten().masked_fill(kept, -1.0)
        grown = torch.zeros_like(kept)
        grown[gain.argsort(descending=True)[:count]] = True
        W.masked_fill_(grown.view(W.shape), 0.0)
        state = self.optimizer.state[W].get("momentum_buffer")
        mask = (kept | grown).view(W.shape)
        if state is not None:
            state.masked_fill_(~mask | grown.view(W.shape), 0.0)
        return mask

    @torch.no_grad()
    def _hold(self):
        for name, W in self.weights.items():
            W.masked_fill_(~self.masks[name], 0.0)

    def state_dict(self) -> dict:
        """The step and the masks, for a checkpoint."""
        return {"step": self.step, "masks": self.masks}

    def load_state_dict(self, state: dict) -> None:
        """Continue a run of the same net."""
        self.step, self.masks = state["step"], dict(state["masks"])
        self._hold()

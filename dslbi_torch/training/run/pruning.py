"""Nets that are sparse in training: kept under masks, or pruned by magnitude on the way."""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...masks.algebra import intersection
from ...masks.apply import apply_masks_
from ...masks.budget import ranked_masks
from ...masks.hold import MaskedTraining
from ...masks.ranking import magnitude_ranking
from ...masks.whole_filters import whole_filters
from ..config import Config
from .exchange import RigL, drawn_masks, scale_up_
from .make_optimizer import groups_of, split_weights

EXCHANGES = 50


def keep_sparse(
    config: Config,
    model: nn.Module,
    masks: dict[str, Tensor] | None,
    optimizer: Optimizer,
    example_input: Tensor,
    steps_per_epoch: int,
) -> "Pruning | RigL | None":
    """Keep a net under masks from now on, prune it on the way, or exchange its weights; return what
    has a state of its own.

    RigL begins at random masks with the shares of "erk", scaled up, and exchanges weights fifty
    times in the ramp, ten steps apart at least: its paper's hundred steps are too many for a run of
    a thousand.
    """
    if masks:
        MaskedTraining(model, optimizer, masks)
    if not config.prune:
        return None
    groups = groups_of(config, model, example_input)
    end = round(config.ramp * config.epochs * steps_per_epoch)
    if config.prune == "rigl":
        weights = split_weights(groups)
        generator = torch.Generator().manual_seed(config.seed)
        masks = drawn_masks(weights, config.target, "erk", generator)
        scale_up_(weights, masks)
        return RigL(optimizer, weights, masks, end, every=max(10, end // EXCHANGES))
    return Pruning(
        config.prune,
        model,
        optimizer,
        groups,
        config.target,
        example_input,
        epochs=config.epochs,
        epoch=steps_per_epoch,
        ramp=config.ramp,
    )


def gradual_density(step: int, end: int, final: float) -> float:
    """Return the density that is due after a step: from 1 to ``final`` at step ``end``, fast at
    first.

    ``final + (1 - final) * (1 - step / end) ** 3``: the cubic schedule of Zhu and Gupta (2017),
    from step 0 on, and ``final`` after ``end``.
    """
    left = max(0.0, 1 - step / end) if end else 0.0
    return final + (1 - final) * left**3


class Pruning:
    """Prune by magnitude while any optimizer trains the net, down to a density.

    "gradual" (Zhu and Gupta 2017): the weights of smallest size go, more and more of them, by
    :func:`gradual_density`, and are kept at zero from then on. In the original a masked weight
    keeps its value, and comes back if others have become smaller; here it is gone.

    "soft" (Soft Filter Pruning, He et al. 2018): after every epoch the filters of smallest norm are
    set to zero, and go on being trained: they may come back, and others go at the next epoch's end.
    The pruning after the last epoch leaves the net. Momenta are left alone, as in the original.

    What is pruned are the groups that the config would split: whole filters and neurons, or single
    weights. With a filter go its bias and the scale and shift of its BatchNorm, which in both
    originals stay.

    Parameters
    ----------
    kind : "gradual" or "soft"
    model, optimizer
    groups : list of dict
        Of :func:`dslbi_torch.split_groups`.
    target : float in (0, 1], or dict of such
        Share of the weights that are kept in the end, as in :func:`dslbi_torch.ranked_masks`.
    example_input : Tensor
    epochs, epoch : int >= 1
        Length of the run, and of an epoch in steps.
    ramp : float in [0, 1]
        "gradual": share of the run in which the density falls.
    """

    def __init__(
        self,
        kind: str,
        model: nn.Module,
        optimizer: Optimizer,
        groups: list[dict],
        target: float | dict[str, float],
        example_input: Tensor,
        *,
        epochs: int,
        epoch: int,
        ramp: float = 0.5,
    ):
        self.model, self.groups, self.target = model, groups, target
        self.weights = split_weights(groups)
        self.example_input, self.epoch, self.step = example_input, epoch, 0
        self.end = max(1, round(ramp * epochs * epoch))
        self.every = max(1, self.end // 50)  # steps between two prunings
        self.held, final = None, self.masks(target)  # refuses a target that cannot be met
        if kind == "gradual":
            everything = {n: torch.ones_like(m) for n, m in final.items()}
            self.held = MaskedTraining(model, optimizer, everything)
        optimizer.register_step_post_hook(self._after_step)

    def masks(self, density: float | dict[str, float]) -> dict[str, Tensor]:
        """Return what is kept at a density of the weights as they are, with what belongs to a
        filter."""
        masks = ranked_masks(magnitude_ranking(self.groups), density)
        return whole_filters(self.model, masks, self.example_input)

    def exchange(self) -> bool:
        """Return False: no step is spent on pruning."""
        return False

    def _after_step(self, *_):
        self.step += 1
        if self.held is None:
            if self.step % self.epoch == 0:
                apply_masks_(self.model, self.masks(self.target))
        elif self.step == self.end or (self.step < self.end and self.step % self.every == 0):
            # What is gone ranks last, but would fill up a share that the next filter exceeds.
            self.held.change(intersection(self.held.masks, self.masks(self._due())))

    def _due(self):
        if isinstance(self.target, dict):
            return {n: gradual_density(self.step, self.end, x) for n, x in self.target.items()}
        return gradual_density(self.step, self.end, self.target)

    def state_dict(self) -> dict:
        """The step and the masks, for a checkpoint."""
        return {"step": self.step, "masks": self.held.masks if self.held else {}}

    def load_state_dict(self, state: dict) -> None:
        """Continue a run of the same net."""
        self.step = state["step"]
        if self.held is not None:
            self.held.change(state["masks"])

"""Nets that are sparse in training: what ``initial``, ``masks``, ``cut`` and ``prune`` of a config
do.
"""

import math

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...masks.algebra import intersection
from ...masks.apply import apply_masks_
from ...masks.budget import ranked_masks
from ...masks.files import load_masks
from ...masks.hold import MaskedTraining
from ...masks.ranking import magnitude_ranking
from ...masks.whole_filters import whole_filters
from ...surgery.compact import compact_with_masks
from ..config import Config
from ..data.sets import Data
from ..nets import table as models
from . import run_folder as folders
from .optimizers import groups_of


def begun(config: Config, model: nn.Module, data: Data) -> tuple[nn.Module, dict | None]:
    """The net as its first step finds it, and the masks under which it is trained.

    With ``cut`` the net is a smaller one, and the masks say what of it is still zero: filters that
    write into a stream that others need, and single weights. With new weights nothing of it is.
    """
    if config.initial:
        state = folders.read_weights(folders.source(config, "initial"))
        load_initial_(model, state, len(data.classes))
    if not config.masks:
        return model, None
    masks = _masks(config, model, data)
    if not config.cut:
        return model, masks
    small, masks = compact_with_masks(model, masks, example(data))
    if config.cut == "keep":
        return small, masks
    models.initialise_(small, init=config.init)
    return small, None


def attach(
    config: Config, model: nn.Module, masks: dict | None, optimizer: Optimizer, data: Data
) -> "Pruning | None":
    """Keep the net under masks from now on, or prune it on the way; returns what has a state of
    its own."""
    if masks:
        MaskedTraining(model, optimizer, masks)
    if not config.prune:
        return None
    return Pruning(
        config.prune,
        model,
        optimizer,
        groups_of(config, model),
        config.shares,
        example(data),
        epochs=config.epochs,
        epoch=math.ceil(len(data.train) / config.batch_size),
        ramp=config.ramp,
    )


def example(data: Data, size: int = 2) -> Tensor:
    """The first pictures of the test set."""
    return next(iter(data.test.batches(size)))[0]


def load_initial_(model: nn.Module, state: dict[str, Tensor], n_classes: int) -> None:
    """Give a net the weights of another, of the same kind.

    Where the other tells another number of classes apart, its last layer is left out: the net keeps
    the one that it has.

    Raises
    ------
    ValueError
        For weights of a net of another kind.
    """
    own = model.state_dict()
    other = sorted(set(own) ^ set(state))
    if other:
        raise ValueError(f"initial must be of the same kind of net, which differs in {other[0]}")
    fitting = {}
    for name, value in state.items():
        if value.shape == own[name].shape:
            fitting[name] = value
        elif not _head(own[name], value, n_classes):
            raise ValueError(
                f"initial must be of the same kind of net: {name} has shape {tuple(value.shape)} "
                f"there, {tuple(own[name].shape)} here"
            )
    model.load_state_dict(own | fitting)


def _head(own, other, n_classes):
    """Whether two tensors differ in nothing but the number of classes."""
    return len(own) == n_classes and own.ndim == other.ndim and own.shape[1:] == other.shape[1:]


def _masks(config, model, data):
    """The masks of a config, without those of a last layer for another number of classes."""
    own, fitting = dict(model.named_parameters()), {}
    for name, mask in load_masks(folders.source(config, "masks")).items():
        W = own.get(name)
        if W is None or W.shape == mask.shape or not _head(W, mask, len(data.classes)):
            fitting[name] = mask  # what is of another net is refused where it is used
    return fitting


def gradual_density(step: int, end: int, final: float) -> float:
    """Density that is due after a step: from 1 to ``final`` at step ``end``, fast at first.

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
        self.example_input, self.epoch, self.step = example_input, epoch, 0
        self.end = max(1, round(ramp * epochs * epoch))
        self.every = max(1, self.end // 50)  # steps between two prunings
        self.held, final = None, self.masks(target)  # refuses a target that cannot be met
        if kind == "gradual":
            everything = {n: torch.ones_like(m) for n, m in final.items()}
            self.held = MaskedTraining(model, optimizer, everything)
        optimizer.register_step_post_hook(self._after_step)

    def masks(self, density: float | dict[str, float]) -> dict[str, Tensor]:
        """What is kept at a density as the weights are now, with what belongs to a filter."""
        masks = ranked_masks(magnitude_ranking(self.groups), density)
        return whole_filters(self.model, masks, self.example_input)

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

"""The support of Gamma as masks: as it is now, and as a record saw it."""

from torch import Tensor
from torch.optim import Optimizer

from ..path import PathRecorder
from ..tensors import whole
from ..units import selected, split_tensors


def support_masks(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return ``1{Gamma != 0}`` of every split tensor, by name; bool, of the shape of the weights.

    The mask of a sharded weight is whole on every process, and every process must ask for it.
    """
    return {
        name: whole(selected(V, group)).expand(V.shape).clone()
        for name, _, V, group in split_tensors(optimizer)
    }


def recorded_masks(recorder: PathRecorder, step: int) -> dict[str, Tensor]:
    """Return ``1{Gamma != 0}`` of every split tensor as it was at a recorded step.

    Parameters
    ----------
    recorder : PathRecorder
        Single weights need one with ``elements=True``.
    step : int
        One of ``recorder.steps``.
    """
    masks = {}
    for name, _, V, group in recorder.tensors():
        chosen = recorder.support(name, step)
        masks[name] = chosen.view(selected(V, group).shape).expand(V.shape).clone()
    return masks

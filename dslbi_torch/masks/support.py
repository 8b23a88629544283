"""The support of Gamma as masks: as it is now, and as a record saw it."""

from torch import Tensor
from torch.optim import Optimizer

from ..arguments import check_kind
from ..path import PathRecorder
from ..sharding import whole
from ..units import families, scores, selected, spread
from ..wrapped import unwraps


@unwraps
def support_masks(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return ``1{Gamma != 0}`` of every split tensor, by name; bool, of the shape of the weights.

    The mask of a sharded weight is whole on every process, and every process must ask for it.
    """
    return {
        name: whole(chosen).expand(V.shape).clone()
        for family in families(optimizer)
        for name, V, chosen in zip(family.names, family.Vs, selected(family), strict=True)
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
    check_kind("recorder", recorder, PathRecorder, "a PathRecorder")
    masks = {}
    for family in recorder.families():
        lists = zip(family.names, scores(family), strict=False)
        chosen = [recorder.support(name, step).view(score.shape) for name, score in lists]
        for name, V, mask in zip(family.names, family.Vs, spread(chosen, family), strict=True):
            masks[name] = mask.expand(V.shape).clone()
    return masks

"""The sparse model as it was when a path crossed a density: its masks, and its weights."""

from contextlib import contextmanager

import torch
from torch import Tensor

from ..arguments import check_kind
from ..path import PathRecorder
from ..sharding import is_sharded
from .apply import restored


def crossing_masks(recorder: PathRecorder, density: float) -> dict[str, Tensor]:
    """Return the support of every split tensor when the path first had a density.

    Parameters
    ----------
    recorder : PathRecorder
        That was asked to keep this density (``at``).
    density : float

    Raises
    ------
    ValueError
        For a density that was not asked for, or was never reached.
    """
    check_kind("recorder", recorder, PathRecorder, "a PathRecorder")
    return recorder.crossings.masks_at(density)


@contextmanager
def crossing_weights(recorder: PathRecorder, density: float):
    """Let the net be the sparse one of when its path first had a density, within the block.

    All that the optimizer trains has the values of then, the split weights on the support of then;
    buffers too, if the recorder was given the model. They are restored after the block, bit for
    bit. Unlike masks on the weights of now, this model was trained at its density: it needs no
    weight that entered later.
    """
    check_kind("recorder", recorder, PathRecorder, "a PathRecorder")
    crossings = recorder.crossings
    crossings.model_at(density)  # refused before anything is written
    tensors = crossings.tensors()
    if any(map(is_sharded, tensors)):
        raise ValueError("weights must be whole for a crossing to be written to them, got shards")
    with restored(tensors):
        with torch.no_grad():
            crossings.write_(density)
        yield

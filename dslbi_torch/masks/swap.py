"""The split weights replaced within a block: by the sparse ones, or by Gamma."""

from contextlib import contextmanager

import torch
from torch import nn
from torch.optim import Optimizer

from ..sharding import is_sharded
from ..units import Family, families, gammas, selected
from ..wrapped import unwraps
from .apply import restored


@unwraps
def sparse_weights(optimizer: Optimizer, model: nn.Module | None = None):
    """Let the split weights be ``W * 1{Gamma != 0}`` within the block, restored after it.

    The sparse model of the paper: dense weights, unselected ones removed, no fine-tuning. What is
    not split (biases, norms) stays as it is. The weights are restored also when the block raises.

    Of sharded weights (FSDP) the model must be given: its gathered copies are dropped on the way
    in and out. Every process must enter.
    """
    return _swapped(optimizer, model, _sparse)


@unwraps
def gamma_weights(optimizer: Optimizer, model: nn.Module | None = None):
    """Let the split weights be Gamma itself within the block, restored after it.

    The model must be given where :func:`sparse_weights` needs it.
    """
    return _swapped(optimizer, model, gammas)


def _sparse(family):
    return [W * chosen for W, chosen in zip(family.Ws, selected(family), strict=True)]


@contextmanager
def _swapped(optimizer, model, values):
    """Let the split weights be ``values(family)`` within the block."""
    found = families(optimizer)
    tensors = [(name, W) for f in found for name, W in zip(f.names, f.Ws, strict=True)]
    sharded = [name for name, W in tensors if is_sharded(W)]
    if sharded and model is None:
        raise ValueError(
            f"model must be given where weights are sharded ({sharded[0]}): "
            "FSDP may hold a gathered copy of the old ones"
        )
    with restored([W for _, W in tensors]):
        try:
            drop_gathered(model, found)
            with torch.no_grad():
                for family in found:
                    for W, value in zip(family.Ws, values(family), strict=True):
                        W.copy_(value)
            yield
        finally:
            drop_gathered(model, found)


def drop_gathered(model: nn.Module | None, found: list[Family]) -> None:
    """Let FSDP drop the weights that it keeps gathered after a forward without a backward.

    Nothing happens where no tensor of the families is sharded.
    """
    if not any(is_sharded(W) for family in found for W in family.Ws):
        return
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()

"""The split weights replaced within a block: by the sparse ones, or by Gamma."""

from contextlib import contextmanager

import torch
from torch import nn
from torch.optim import Optimizer

from ..sharding import is_sharded
from ..units import group_gamma, is_selected, split_tensors
from .apply import restored


def sparse_weights(optimizer: Optimizer, model: nn.Module | None = None):
    """Let the split weights be ``W * 1{Gamma != 0}`` within the block, restored after it.

    The sparse model of the paper: dense weights, unselected ones removed, no fine-tuning. What is
    not split (biases, norms) stays as it is. The weights are restored also when the block raises.

    Of sharded weights (FSDP) the model must be given: its gathered copies are dropped on the way
    in and out. Every process must enter.
    """
    return _swapped(optimizer, model, lambda W, V, group: W * is_selected(V, group))


def gamma_weights(optimizer: Optimizer, model: nn.Module | None = None):
    """Let the split weights be Gamma itself within the block, restored after it.

    The model must be given where :func:`sparse_weights` needs it.
    """
    return _swapped(optimizer, model, lambda W, V, group: group_gamma(V, group).to(W.dtype))


@contextmanager
def _swapped(optimizer, model, value):
    """Let the split weights be ``value(W, V, group)`` within the block."""
    tensors = split_tensors(optimizer)
    sharded = [name for name, W, _, _ in tensors if is_sharded(W)]
    if sharded and model is None:
        raise ValueError(
            f"model must be given where weights are sharded ({sharded[0]}): "
            "FSDP may hold a gathered copy of the old ones"
        )
    with restored([W for _, W, _, _ in tensors]):
        try:
            drop_gathered(model, tensors)
            with torch.no_grad():
                for _, W, V, group in tensors:
                    W.copy_(value(W, V, group))
            yield
        finally:
            drop_gathered(model, tensors)


def drop_gathered(model: nn.Module | None, tensors: list) -> None:
    """Let FSDP drop the weights that it keeps gathered after a forward without a backward.

    ``tensors`` are those of :func:`dslbi_torch.units.split_tensors`; nothing happens where none of
    them is sharded.
    """
    if not any(is_sharded(W) for _, W, _, _ in tensors):
        return
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()

"""Masks applied to weights: for good, or within a block."""

from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..wrapped import unwraps
from .checks import check_masks


@unwraps
@torch.no_grad()
def apply_masks_(model: nn.Module, masks: dict[str, Tensor]) -> nn.Module:
    """Set to zero, in place and for good, what the masks do not keep; return the model."""
    for W, mask in check_masks(model, masks):
        W.masked_fill_(~mask, 0)
    return model


@unwraps
@contextmanager
def masked(model: nn.Module, masks: dict[str, Tensor]):
    """Set to zero within the block what the masks do not keep; restore it bit for bit after it."""
    with restored([W for W, _ in check_masks(model, masks)]):
        apply_masks_(model, masks)
        yield


@contextmanager
def restored(weights: list[Tensor]):
    """Let the weights be after the block what they were before it, bit for bit."""
    kept = [W.detach().clone() for W in weights]
    try:
        yield
    finally:
        with torch.no_grad():
            for W, old in zip(weights, kept, strict=True):
                W.copy_(old)

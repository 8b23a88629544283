"""Masks combined and compared: union, intersection, nestedness."""

from itertools import pairwise

import torch
from torch import Tensor

from .checks import check_same_tensors


def union(*masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return masks that keep what at least one of the given masks keeps."""
    return _combined(masks, lambda tensors: torch.stack(tensors).any(0))


def intersection(*masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return masks that keep what all of the given masks keep."""
    return _combined(masks, lambda tensors: torch.stack(tensors).all(0))


def nested(*masks: dict[str, Tensor]) -> bool:
    """Return whether each of the masks keeps nothing that the next one does not keep."""
    growing = _combined(masks, lambda ts: all(bool((b | ~a).all()) for a, b in pairwise(ts)))
    return all(growing.values())


def _combined(masks, combine):
    """``combine`` of each tensor's masks, by name; masks of different tensors are refused."""
    if not masks:
        raise ValueError("at least one dict of masks must be given, got none")
    first = masks[0]
    for other in masks:
        check_same_tensors(first, other)
    return {name: combine([x[name].to(m.device) for x in masks]) for name, m in first.items()}

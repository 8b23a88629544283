"""Bool tensors as bits: eight entries in each byte, for records and files."""

import torch
from torch import Tensor


def pack_bits(mask: Tensor) -> Tensor:
    """Return a bool tensor as bytes of eight entries each, the first in the lowest bit."""
    flat = torch.nn.functional.pad(mask.flatten().byte(), (0, -mask.numel() % 8))
    powers = 2 ** torch.arange(8, dtype=torch.uint8, device=mask.device)
    return (flat.view(-1, 8) * powers).sum(1, dtype=torch.uint8)


def unpack_bits(bits: Tensor, shape) -> Tensor:
    """Return the bool tensor of that shape that :func:`pack_bits` packed."""
    shape = torch.Size(shape)
    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return ((bits[:, None] >> places) & 1).bool().flatten()[: shape.numel()].view(shape)

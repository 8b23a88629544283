"""The layers that combine channels, and where their units lie in their weights.

A *unit* of a layer is one of its outputs: a filter of a convolution, a neuron of a linear layer.
"""

import torch
from torch import Tensor, nn

from .torch_private import BatchNorm, Convolution, TransposedConvolution

CONV, TRANSPOSED, NORM = Convolution, TransposedConvolution, BatchNorm
LAYERS = (CONV, nn.Linear)  # those that combine channels


def own_parameter(module: nn.Module, key: str) -> nn.Parameter | None:
    """Return a parameter that a module holds itself; None where there is none, or it is computed
    from others."""
    return dict(module.named_parameters(recurse=False)).get(key)


def weight_names(model: nn.Module) -> dict[nn.Module, str]:
    """Return, for every module with a weight, the name under which masks hold it.

    A weight that modules share has one name: the first.
    """
    names = {p: name for name, p in model.named_parameters()}
    weights = {module: own_parameter(module, "weight") for module in model.modules()}
    return {module: names[W] for module, W in weights.items() if W is not None}


def count_units(layer: nn.Module) -> int:
    """Return the number of filters of a convolution, or of neurons of a linear layer."""
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def unit_axis(module: nn.Module, key: str) -> int:
    """Return the axis of a parameter or buffer of a module along which its units lie."""
    return 1 if key == "weight" and isinstance(module, TRANSPOSED) and module.groups == 1 else 0


def unit_rows(layer: nn.Module, x: Tensor) -> Tensor:
    """Return a tensor of the shape of a layer's weight as a matrix, one row for each unit."""
    if isinstance(layer, TRANSPOSED):
        # Input channels come first; within each of the groups the outputs are numbered from 0.
        return x.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1).flatten(1)
    return x.flatten(1)


def alive_units(layer: nn.Module, mask: Tensor) -> Tensor:
    """Return which units of a layer keep anything under the mask of its weight; shape (units,)."""
    return unit_rows(layer, mask).any(1)


def connections(layer: nn.Module) -> Tensor:
    """Return a bool matrix (outputs, inputs): whether a weight between the two is not zero."""
    nonzero = layer.weight != 0
    nonzero = nonzero.flatten(2).any(2) if nonzero.ndim > 2 else nonzero
    groups = getattr(layer, "groups", 1)
    if isinstance(layer, TRANSPOSED):
        nonzero = torch.cat([part.T for part in nonzero.chunk(groups)])
    return torch.block_diag(*nonzero.chunk(groups)).bool()


def cuts_border(layer: nn.Module) -> bool:
    """Return whether a constant input other than 0 gives an output that varies over the places.

    A convolution with zero padding does: at the border the padding takes the constant's place.
    """
    if isinstance(layer, TRANSPOSED):
        return True
    if not isinstance(layer, CONV) or layer.padding_mode != "zeros":
        return False
    pads = (layer.padding == "same",) if isinstance(layer.padding, str) else layer.padding
    return any(pads)

"""Nets as after a training, pictures for them, and masks: for the tests of what cuts nets."""

import torch
import vectors
from torch import nn


def pictures(*shape, dtype=torch.float64):
    return torch.tensor(vectors.array(shape, seed=3), dtype=dtype)


def settle(net, dtype=torch.float64):
    """Running statistics, scales and shifts as after a training, and evaluation mode."""
    g = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            scale, shift = (module.weight, module.bias) if module.affine else (None, None)
            for x in (module.running_mean, shift):
                if x is not None:
                    x.data.copy_(0.3 * torch.randn(x.shape, generator=g))
            for x in (module.running_var, scale):
                if x is not None:
                    x.data.copy_(0.5 + torch.rand(x.shape, generator=g))
    return net.to(dtype).eval()


def removed(net, dead):
    """Masks that remove whole rows: layer name to list of filters."""
    masks = {}
    for name, filters in dead.items():
        masks[f"{name}.weight"] = torch.ones_like(net.get_parameter(f"{name}.weight"), dtype=bool)
        masks[f"{name}.weight"][filters] = False
    return masks

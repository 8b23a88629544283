"""A net for CIFAR-10 that is trained in minutes on two cores: ten epochs, 3.6e14 operations."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

PATCH = 2  # pixels each way that the first layer looks at


class Scale(nn.Module):
    """Multiply by a fixed number."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


class FastNet(nn.Sequential):
    """Whitened patches, three blocks of two 3x3 convolutions, and a linear layer.

    A first layer of 2x2 filters, computed from the pictures by :meth:`whiten_` and frozen, gives
    the blocks inputs of one variance without correlation. In each block a max-pool follows the
    first convolution and its BatchNorm, which has a shift but no scale (it is fixed at 1). The
    logits are divided by 9, which keeps the first steps of a large lr in bounds.

    Parameters
    ----------
    widths : three int
        Channels of the blocks.
    n_classes, in_channels : int

    Notes
    -----
    In the manner of cifar10-airbench (Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU",
    2024, arXiv 2404.00498), written anew: the filters of its blocks begin as the identity, its
    first bias is trained for three epochs only, it pools before BatchNorm, and it averages weights
    on the way; here not. That BatchNorm takes what a convolution gives lets channels be cut.
    """

    def __init__(self, widths=(64, 256, 256), n_classes=10, in_channels=3):
        layers = OrderedDict()
        before = 2 * in_channels * PATCH**2  # every direction, and its negative
        layers["whiten"] = nn.Conv2d(in_channels, before, PATCH)
        layers["whiten"].weight.requires_grad_(False)
        layers["act0"] = nn.GELU()
        for block, width in enumerate(widths, start=1):
            for k in (1, 2):
                conv = nn.Conv2d(before, width, 3, padding=1, bias=False)
                layers[f"conv{block}_{k}"], before = conv, width
                layers[f"bn{block}_{k}"] = nn.BatchNorm2d(width, momentum=0.4)
                layers[f"bn{block}_{k}"].weight.requires_grad_(False)
                if k == 1:
                    layers[f"pool{block}"] = nn.MaxPool2d(2)
                layers[f"act{block}_{k}"] = nn.GELU()
        layers["pool"] = nn.MaxPool2d(3)
        layers["flatten"] = nn.Flatten()
        layers["fc"] = nn.Linear(before, n_classes, bias=False)
        layers["scale"] = Scale(1 / 9)
        super().__init__(layers)

    @torch.no_grad()
    def whiten_(self, pictures: torch.Tensor) -> None:
        """Compute the filters of the first layer from pictures (n, channels, height, width).

        They are the eigenvectors of the covariance of the pictures' patches, each divided by the
        root of its eigenvalue, and their negatives: over these patches every output has variance 1.
        The bias begins at 0.
        """
        patches = F.unfold(pictures.double().cpu(), PATCH).transpose(1, 2).flatten(0, 1)
        variances, directions = torch.linalg.eigh(patches.T.cov())
        # A patch of flat colour has no variance in most directions: they stay small.
        filters = (directions / (variances + 5e-4).sqrt()).T
        filters = torch.cat([filters, -filters]).view_as(self.whiten.weight)
        self.whiten.weight.copy_(filters)
        self.whiten.bias.zero_()

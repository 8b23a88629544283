"""Nets for 32x32 pictures: residual nets, VGG and MobileNetV2. Other sizes work as well."""

from collections import OrderedDict

import torch.nn.functional as F
from torch import nn

from ...optional import brought_by


class Pad(nn.Module):
    """Shortcut option A: every second row and column, and zeros for the new channels."""

    def __init__(self, stride, extra):
        super().__init__()
        self.stride, self.extra = stride, extra

    def forward(self, x):
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))

    def as_convolution(self, in_channels):
        """The same map as a 1x1 convolution, from which channels can be cut."""
        conv = nn.Conv2d(in_channels, in_channels + self.extra, 1, self.stride, bias=False)
        nn.init.dirac_(conv.weight)
        return conv


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut.

    Where the shape changes the shortcut ``downsample`` is, for ``shortcut="A"``, the strided
    identity padded with zeros (no parameters), and for "B" a 1x1 convolution with batch norm.
    """

    def __init__(self, before, width, stride, shortcut):
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        if stride == 1 and before == width:
            self.downsample = nn.Identity()
        elif shortcut == "A":
            self.downsample = Pad(stride, width - before)
        else:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class ResNet(nn.Module):
    """Residual net with a 3x3 stem and no max-pooling: stages of basic blocks, mean, linear.

    Parameters
    ----------
    blocks : sequence of int
        Blocks in each stage; every stage but the first halves the picture.
    widths : sequence of int
        Channels of each stage.
    shortcut : "A" or "B"
        See :class:`BasicBlock`.
    n_classes, in_channels : int

    Notes
    -----
    He et al. (2016), section 4.2: depth 6n + 2 has three stages of n blocks, widths 16, 32, 64, and
    shortcuts A. The lottery-ticket example of DessiLBI's authors takes bottleneck blocks from depth
    54 on, so that its "ResNet-56" is another net than this one.
    """

    def __init__(self, blocks, widths, shortcut, n_classes=10, in_channels=3):
        super().__init__()
        before = widths[0]
        self.conv1 = nn.Conv2d(in_channels, before, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(before)
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
            layers = []
            for k in range(count):
                stride = 2 if k == 0 and stage > 1 else 1
                layers.append(BasicBlock(before, width, stride, shortcut))
                before = width
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self.n_stages = len(blocks)
        self.fc = nn.Linear(before, n_classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in range(1, self.n_stages + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.fc(x.mean(dim=(2, 3)))


# Convolutions in each of the five stages, of width 64, 128, 256, 512, 512.
VGG_STAGES = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(nn.Sequential):
    """VGG of depth 11, 16 or 19 with one linear layer: 13 convolutions and 512-10 for VGG-16.

    Four max-poolings, then the mean over what is left (2x2 for 32x32 pictures).

    Notes
    -----
    This is the form of the lottery-ticket example of DessiLBI's authors. Elsewhere a fifth
    max-pooling takes the place of the mean (as many parameters); the authors' weight-pruning
    example ends in three linear layers 512-512-512-10 (15,253,578 parameters with batch norm), and
    the ImageNet form in 4096-4096-1000. Without batch norm take ``init="he"``: under torch's own
    initial weights the signal dies out on the way, and the logits are the same for every picture.
    """

    def __init__(self, depth, batch_norm, n_classes=10, in_channels=3):
        layers, before = OrderedDict(), in_channels
        for stage, count in enumerate(VGG_STAGES[depth], start=1):
            width = min(32 * 2**stage, 512)
            for k in range(1, count + 1):
                layers[f"conv{stage}_{k}"] = nn.Conv2d(before, width, 3, padding=1)
                if batch_norm:
                    layers[f"bn{stage}_{k}"] = nn.BatchNorm2d(width)
                layers[f"relu{stage}_{k}"] = nn.ReLU()
                before = width
            layers[f"pool{stage}"] = nn.MaxPool2d(2) if stage < 5 else nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["fc"] = nn.Linear(before, n_classes)
        super().__init__(layers)


def mobilenet_v2(n_classes=10, in_channels=3):
    """torchvision's MobileNetV2 with two strides of 2 taken out, so that 32x32 ends as 4x4.

    The strides of the stem and of the stage of width 24 are 1; no stride changes the number of
    parameters. Elsewhere residual blocks that change the width have a projection (2,296,922
    parameters).
    """
    with brought_by("train", "model mobilenetv2"):
        from torchvision.models import MobileNetV2

    # expansion, width, blocks, stride
    stages = [
        *([1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2]),
        *([6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]),
    ]
    model = MobileNetV2(num_classes=n_classes, inverted_residual_setting=stages)
    stem = nn.Conv2d(in_channels, 32, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out")  # as torchvision does
    model.features[0][0] = stem
    return model

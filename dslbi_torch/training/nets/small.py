"""Small nets: LeNets, a net with one convolution, and the plain convolutional nets Conv-2/4/6."""

from collections import OrderedDict

import torch.nn.functional as F
from torch import nn


class LeNet5(nn.Module):
    """LeNet-5 of the official example: ReLU, max-pooling, 28x28 pictures (61,706 parameters)."""

    def __init__(self, n_classes=10, in_channels=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.conv3 = nn.Conv2d(16, 120, 5)
        self.fc1 = nn.Linear(120, 84)
        self.fc2 = nn.Linear(84, n_classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.conv3(x)).flatten(1)
        return self.fc2(F.relu(self.fc1(x)))


class CaffeLeNet5(nn.Module):
    """The LeNet-5 of Caffe and of the pruning literature, 20-50-800-500 (431,080 parameters).

    The only ReLU stands between the linear layers, as in Caffe's file.
    """

    def __init__(self, n_classes=10, in_channels=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * 4 * 4, 500)
        self.fc2 = nn.Linear(500, n_classes)

    def forward(self, x):
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class LeNet300(nn.Module):
    """LeNet-300-100: three linear layers on 28x28 pictures (266,610 parameters)."""

    def __init__(self, n_classes=10, in_channels=1):
        super().__init__()
        self.fc1 = nn.Linear(in_channels * 28 * 28, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, n_classes)

    def forward(self, x):
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))


class OneConv(nn.Module):
    """Five filters and one linear layer on 28x28 pictures (1,510 parameters).

    S2-LBI (arXiv 1904.10873) reports such a net of 1.5 thousand parameters; the size of its filters
    and of its pooling is not known to us, so 7x7 and 4x4 are our choice.
    """

    def __init__(self, n_classes=10, in_channels=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 5, 7)
        self.fc = nn.Linear(5 * 5 * 5, n_classes)

    def forward(self, x):
        return self.fc(F.max_pool2d(F.relu(self.conv1(x)), 4).flatten(1))


class SmallNet(nn.Module):
    """A convolution, two separable ones and a mean over what is left of 28x28 pictures (2,858
    parameters).

    A separable convolution is one filter for each channel (``depth2``) and a mixture of the
    channels at every place (``conv2``): few weights a unit, and so a net to grow from a few units.
    """

    def __init__(self, n_classes=10, in_channels=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 5, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.depth2 = nn.Conv2d(16, 16, 3, groups=16, bias=False)
        self.conv2 = nn.Conv2d(16, 32, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.depth3 = nn.Conv2d(32, 32, 3, groups=32, bias=False)
        self.conv3 = nn.Conv2d(32, 32, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32, n_classes)

    def forward(self, x):
        x = F.relu(self.bn1(F.max_pool2d(self.conv1(x), 2)))
        x = F.relu(self.bn2(F.max_pool2d(self.conv2(self.depth2(x)), 2)))
        x = F.relu(self.bn3(self.conv3(self.depth3(x))))
        return self.fc(x.mean((2, 3)))


class DigitsNet(nn.Module):
    """For the 8x8 digits, with a first layer of 5x5 filters to look at (13,962 parameters)."""

    def __init__(self, n_classes=10, in_channels=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 5, padding=2)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.fc1 = nn.Linear(32 * 2 * 2, 64)
        self.fc2 = nn.Linear(64, n_classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class ConvNet(nn.Sequential):
    """Conv-2, Conv-4 or Conv-6 of the lottery ticket paper, for 32x32 pictures.

    Pairs of 3x3 convolutions of width 64, 128, 256, each pair followed by max-pooling, then linear
    layers 256-256-classes. Almost all weights lie in ``fc1``.
    """

    def __init__(self, depth, n_classes=10, in_channels=3):
        layers, width = OrderedDict(), in_channels
        for k in range(depth):
            width, before = 64 * 2 ** (k // 2), width
            layers[f"conv{k + 1}"] = nn.Conv2d(before, width, 3, padding=1)
            layers[f"relu{k + 1}"] = nn.ReLU()
            if k % 2:
                layers[f"pool{k // 2 + 1}"] = nn.MaxPool2d(2)
        side = 32 // 2 ** (depth // 2)
        layers["flatten"] = nn.Flatten()
        for k, (before, after) in enumerate(((width * side**2, 256), (256, 256))):
            layers[f"fc{k + 1}"] = nn.Linear(before, after)
            layers[f"fc_relu{k + 1}"] = nn.ReLU()
        layers["fc3"] = nn.Linear(256, n_classes)
        super().__init__(layers)

"""The nets: classifiers that return logits, with named layers for paths and figures to name."""

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


# Each net with the height and width of the pictures that it takes.
MODELS = {"lenet5": (LeNet5, 28), "lenet300": (LeNet300, 28), "digits-net": (DigitsNet, 8)}


def build(
    name: str, n_classes: int = 10, in_channels: int = 1, *, init: str = "torch"
) -> nn.Module:
    """A net by name, initialised.

    Parameters
    ----------
    name : "lenet5", "lenet300" or "digits-net"
    n_classes, in_channels : int >= 1
    init : "torch" or "he"
        "torch": the defaults of torch's layers, under which a filter has norm about 1/sqrt(3).
        "he": normal entries of variance 2/fan_in and zero biases, norm about sqrt(2). Without any
        gradient a group enters exactly if its initial norm exceeds ``kappa * lam``, so the choice
        matters.
    """
    if name not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {name!r}")
    if init not in ("torch", "he"):
        raise ValueError(f'init must be "torch" or "he", got {init!r}')
    model = MODELS[name][0](n_classes, in_channels)
    if init == "he":
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
    return model

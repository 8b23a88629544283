"""The nets by name: classifiers that return logits, with layers that paths and figures can name.

======================  =====================  ============  ===================================
name                    pictures               parameters    source
======================  =====================  ============  ===================================
``digits-net``          1x8x8                        13,962  ours
``one-conv``            1x28x28                       1,510  ours, after S2-LBI (1904.10873)
``small-net``           1x28x28                       2,858  ours, to be grown
``lenet5``              1x28x28                      61,706  DessiLBI's own example
``caffe-lenet5``        1x28x28                     431,080  Caffe's MNIST example
``lenet300``            1x28x28                     266,610  LeCun et al. 1998
``conv2``               3x32x32                   4,301,642  Frankle and Carbin 2019
``conv4``               3x32x32                   2,425,930  same
``conv6``               3x32x32                   2,262,602  same
``resnet20``            3x32x32, any                269,722  He et al. 2016, shortcuts A
``resnet32``            same                        464,154  same
``resnet44``            same                        658,586  same
``resnet56``            same                        853,018  same
``resnet110``           same                      1,727,962  same
``resnet20-b``          same                        272,474  same, shortcuts B; so to 110
``resnet18-32``         same                     11,173,962  He et al. 2016, 3x3 stem, no max-pool
``vgg11``               3x32x32, from 16          9,225,610  Simonyan and Zisserman 2015, one fc
``vgg16``               same                     14,719,818  same
``vgg19``               same                     20,029,514  same
``vgg16-bn``            same                     14,728,266  same, batch norm; also 11 and 19
``mobilenetv2``         3x32x32, any              2,236,682  torchvision, two strides fewer
``cifar10-fast``        3x32x32, 25 to 48         1,972,792  after cifar10-airbench
``cifar10-fast-half``   same                        498,104  same, half of the widths
``alexnet``             3x224x224, from 63       61,100,840  torchvision
``resnet18``            3x224x224, any           11,689,512  torchvision
``resnet34``            same                     21,797,672  torchvision
``resnet50``            same                     25,557,032  torchvision
``efficientnet-lite0``  3x224x224, any            4,652,008  Tan and Le 2019, as timm names it
======================  =====================  ============  ===================================

Parameters are counted at 10 classes, those of the last five at 1,000; torchvision's four for
ImageNet take 3 channels only, the others any number. Shortcuts A and B:
:class:`dslbi_torch.training.nets.cifar.BasicBlock`.
"""

import math
from collections.abc import Callable
from functools import partial
from numbers import Integral
from typing import NamedTuple

from torch import nn

from ...optional import brought_by
from . import cifar, efficientnet, fast, small


class NetRow(NamedTuple):
    """How a net is made, and which pictures it takes."""

    make: Callable[..., nn.Module]  # of n_classes and, optionally, in_channels
    smallest: int  # height and width of the pictures
    largest: float
    whitens: bool = False  # whether it has a ``whiten_`` of training pictures


def torchvision_net(name, n_classes=1000, in_channels=3):
    """Return a net for ImageNet as torchvision makes it, without its trained weights."""
    with brought_by("train", f"model {name}"):
        from torchvision.models import get_model

    if in_channels != 3:
        raise ValueError(f"model {name} takes pictures of 3 channels, got {in_channels}")
    return get_model(name, weights=None, num_classes=n_classes)


def _any_size(make, smallest=1):
    return NetRow(make, smallest, math.inf)


# A row is all that a new net needs: nothing else lists them.
NETS = {
    "digits-net": NetRow(small.DigitsNet, 8, 8),
    "one-conv": NetRow(small.OneConv, 28, 28),
    "small-net": NetRow(small.SmallNet, 28, 28),
    "lenet5": NetRow(small.LeNet5, 28, 28),
    "caffe-lenet5": NetRow(small.CaffeLeNet5, 28, 28),
    "lenet300": NetRow(small.LeNet300, 28, 28),
    **{f"conv{depth}": NetRow(partial(small.ConvNet, depth), 32, 32) for depth in (2, 4, 6)},
    **{
        f"resnet{depth}{suffix}": _any_size(
            partial(cifar.ResNet, 3 * [(depth - 2) // 6], (16, 32, 64), shortcut)
        )
        for suffix, shortcut in (("", "A"), ("-b", "B"))
        for depth in (20, 32, 44, 56, 110)
    },
    "resnet18-32": _any_size(partial(cifar.ResNet, (2, 2, 2, 2), (64, 128, 256, 512), "B")),
    **{
        f"vgg{depth}{suffix}": _any_size(partial(cifar.VGG, depth, batch_norm), smallest=16)
        for suffix, batch_norm in (("", False), ("-bn", True))
        for depth in cifar.VGG_STAGES
    },
    "mobilenetv2": _any_size(cifar.mobilenet_v2),
    "cifar10-fast": NetRow(fast.FastNet, 25, 48, whitens=True),
    "cifar10-fast-half": NetRow(partial(fast.FastNet, (32, 128, 128)), 25, 48, whitens=True),
    "alexnet": _any_size(partial(torchvision_net, "alexnet"), smallest=63),
    **{
        name: _any_size(partial(torchvision_net, name))
        for name in ("resnet18", "resnet34", "resnet50")
    },
    "efficientnet-lite0": _any_size(efficientnet.EfficientNetLite0, smallest=32),
}


def build(
    name: str, n_classes: int = 10, in_channels: int | None = None, *, init: str = "torch"
) -> nn.Module:
    """Return a net by name, initialised.

    Parameters
    ----------
    name : one of the table above
    n_classes : int >= 1
    in_channels : int >= 1, optional
        Default: as in the table above.
    init : "torch" or "he"
        "torch": as the net's constructor does; for our own nets the defaults of torch's layers,
        under which a filter has norm about 1/sqrt(3). "he": normal entries of variance 2/fan_in in
        convolutions and linear layers, zero biases, norm about sqrt(2). Without any gradient a
        group enters exactly if its initial norm exceeds ``kappa * lam``, so the choice matters.

    Raises
    ------
    ValueError
        For an unknown name or initialisation, impossible counts, or channels that the net does not
        take.
    """
    if name not in NETS:
        raise ValueError(f"model must be one of {', '.join(NETS)}, got {name!r}")
    if init not in ("torch", "he"):
        raise ValueError(f'init must be "torch" or "he", got {init!r}')
    counts = {"n_classes": n_classes}
    if in_channels is not None:
        counts["in_channels"] = in_channels
    for what, count in counts.items():
        if not (isinstance(count, Integral) and count >= 1):
            raise ValueError(f"{what} must be a whole number of at least 1, got {count!r}")
    model = NETS[name].make(**counts)
    if init == "he":
        for layer in model.modules():
            he_(layer)
    return model


def he_(layer: nn.Module) -> None:
    """Draw a convolution or a linear layer as ``init="he"`` does; others are left as they are."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def initialise_(model: nn.Module, *, init: str = "torch") -> None:
    """Draw the weights of a net anew: "torch" by the ``reset_parameters`` of its layers. What is
    frozen stays."""
    for layer in model.modules():
        if not all(p.requires_grad for p in layer.parameters(recurse=False)):
            continue
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
        if init == "he":
            he_(layer)


def check_pictures(name: str, size: int, dataset: str) -> None:
    """ValueError if the net does not take pictures of ``size`` x ``size``, as ``dataset`` has."""
    net = NETS[name]
    if not net.smallest <= size <= net.largest:
        at_least = "" if net.smallest == net.largest else "at least "
        raise ValueError(
            f"model {name} takes pictures of {at_least}{net.smallest}x{net.smallest}, "
            f"but those of {dataset} have {size}x{size}"
        )

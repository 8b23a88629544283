"""Configs with a name: the experiments of the paper, and small ones for two cores.

Where the settings of a recipe are from is its ``source``:

============  =====================================================================================
``ours``      chosen here, on held-out training pictures where a result is reported
``code``      read in the authors' public code (their examples and their README)
``caption``   read in the captions of the paper's tables; the rest recalled from the paper
``recalled``  recalled from the paper and not read again: it may differ from what was run there
============  =====================================================================================

A number from the paper beside a recalled recipe proves nothing about either.
"""

from dataclasses import replace
from typing import NamedTuple

from .config import Config
from .recipes_fast import ENTRIES


class Recipe(NamedTuple):
    """A config with a name: what it shows, what it needs, where its settings are from."""

    config: Config
    about: str
    needs: str
    source: str = "ours"


def recipe(name: str) -> Recipe:
    """Return the recipe of that name; ValueError names the others."""
    if name not in RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, got {name!r}")
    return RECIPES[name]


# What the recipes are variants of

_LENET5 = Config(
    dataset="mnist",
    model="lenet5",
    shift=1,
    epochs=30,
    lr=0.05,
    schedule="cosine",
    conv="l1",
    linear="l1",
    nu=20.0,
    lam_conv=0.38,
    lam_linear=0.38,
)
_OFFICIAL = Config(
    dataset="mnist",
    model="lenet5",
    normalize=False,
    epochs=60,
    lr=0.1,
    schedule="step",
    milestones=(20, 40),
    nu=20.0,
)
_PAPER = Config(
    init="he",
    epochs=100,
    batch_size=128,
    lr=0.1,
    schedule="step",
    milestones=(30, 60, 90),
    nu=10.0,
    weight_decay=1e-4,
)
_CIFAR = replace(_PAPER, dataset="cifar10", model="resnet20", shift=4, flip=True)
_SWEEP = replace(_CIFAR, epochs=160, milestones=(80, 120), nu=100.0)
_HALF = replace(  # half of the single weights, selected early; W ends on the support of Gamma
    _CIFAR,
    conv="l1",
    linear="l1",
    nu=80.0,
    nu_schedule="lr",
    weight_decay=5e-4,
    target=0.5,
    ramp=0.2,
    record_every=50,
)
_TICKET = replace(
    _CIFAR,
    epochs=200,
    batch_size=64,
    schedule="constant",
    milestones=(),
    nu=100.0,
    nesterov=True,
    weight="sqrt",
    record_every=782,
)
_IMAGENET = replace(
    _PAPER,
    dataset="imagenet",
    model="resnet50",
    init="torch",
    batch_size=256,
    nu=1000.0,
    amp="bf16",
    channels_last=True,
    flip=True,
    workers=8,
    n_classes=1000,
    record_every=1000,
)

# Measured: peak of the process, and training plus evaluation of an epoch, one thread of an EPYC.
_COST = "1.1 GB of memory; 7 s an epoch on one core"
_ILSVRC = "imagenet (ILSVRC 2012: 138 GB of pictures, which you must get yourself)"


def _gpu(megabytes, epochs, thousands=50):
    """What a recipe that no GPU has run needs, by arithmetic: float32 of weights, gradients,
    momentum and V; the pictures of an epoch by the epochs."""
    pictures = f"{epochs * thousands / 1000:g} million pictures in all"
    return (
        f"a GPU, not yet run on one; estimate: {megabytes} MB of its memory for weights, "
        f"gradients, momentum and V, more for the activations of a batch; {pictures} "
        f"({epochs} epochs)"
    )


RECIPES = {
    # two cores
    "digits": Recipe(
        Config(
            epochs=50,
            batch_size=32,
            lr=0.1,
            schedule="cosine",
            momentum=0.8,
            nu=5.0,
            lam_conv=5.0,
            lam_linear=0.4,
            record_every=5,
            threads=1,  # the net is too small for two to be faster
        ),
        "the demo: a small convolutional net on 8x8 digits, filters and single weights selected",
        "no download; 10 s on one core",
    ),
    "mnist-lenet5": Recipe(
        _LENET5,
        "LeNet-5, single weights selected everywhere",
        f"mnist; {_COST}",
    ),
    "mnist-lenet5-filters": Recipe(
        replace(
            _LENET5,
            conv="group",
            weight="sqrt",
            lr=0.04,
            nu=6.0,
            lam_conv=0.25,
            lam_linear=0.05,
            lam_named={"conv3.weight": 0.7},
            target={"conv3.weight": 0.15},  # 18 of 120 filters
            ramp=0.2,
        ),
        "LeNet-5, whole filters selected in the convolutions, single weights in the linear layers",
        f"mnist; {_COST}",
    ),
    "mnist-lenet5-official": Recipe(
        _OFFICIAL,
        "LeNet-5 with the settings of the authors' example",
        f"mnist; {_COST}",
        "code",
    ),
    "mnist-lenet5-paper": Recipe(
        replace(_PAPER, dataset="mnist", model="lenet5"),
        "the MNIST column of Table 2",
        f"mnist; {_COST}",
        "recalled",
    ),
    "fashion-lenet5": Recipe(
        replace(_LENET5, dataset="fashion-mnist"),
        "LeNet-5 on garments, single weights selected everywhere",
        f"fashion-mnist; {_COST}",
    ),
    "mnist-lenet300": Recipe(
        replace(_LENET5, model="lenet300"),
        "LeNet-300-100 (the Lenet-3 of Table 8), single weights selected everywhere",
        "mnist; 1.8 GB of memory; 3 s an epoch on one core",
    ),
    "mnist-small-net": Recipe(
        Config(
            dataset="mnist",
            model="small-net",
            shift=1,
            epochs=14,
            lr=0.1,
            schedule="cosine",
            nu=200.0,
            lam_conv=0.12,
            linear=None,
        ),
        "a net of separable convolutions with whole filters selected, to be grown",
        "mnist; 1.0 GB of memory; time not measured",
    ),
    "mnist-caffe-lenet5-ticket": Recipe(
        replace(
            _LENET5,
            model="caffe-lenet5",
            epochs=2,
            conv="group",
            linear="group",
            nu=10.0,
            # a share of its own for each layer, and every class
            lam_named={
                "conv1.weight": 1.0,
                "conv2.weight": 2.0,
                "fc1.weight": 3.0,
                "fc2.weight": 1e-6,
            },
            target={"conv1.weight": 0.15, "conv2.weight": 0.36, "fc1.weight": 0.6},
        ),
        "search for a ticket of filters in the LeNet-5 of Caffe: 3 of 20, 18 of 50, 300 of 500",
        "mnist; 1.3 GB of memory; 10 s an epoch on one core",
    ),
    "mnist-lenet300-ticket": Recipe(
        replace(_LENET5, model="lenet300", epochs=10, nu=5.0, target=0.02),
        "search for a ticket of one weight in fifty in LeNet-300-100",
        "mnist; 1.8 GB of memory; 4 s an epoch on one core",
    ),
    "cifar10-resnet20-short": Recipe(
        replace(_HALF, epochs=25, schedule="cosine", milestones=()),
        "ResNet-20 in 25 epochs, half of the weights selected",
        "cifar10; with --amp bf16 --channels-last about a minute an epoch on two cores (47 s, of "
        "which 7 s evaluation; 75 to 133 s beside other work); 1.7 GB of memory",
    ),
    "imagenette-resnet18": Recipe(
        Config(
            dataset="imagenette",
            model="resnet18",
            image_size=96,
            flip=True,
            epochs=20,
            batch_size=50,
            lr=0.02,
            schedule="cosine",
            warmup=1,
            nu=1.0,
            weight_decay=5e-4,
            lam_conv=1.0,
            lam_linear=1.0,
            target=0.5,
            ramp=0.3,
            weight="sqrt",
            amp="bf16",
            channels_last=True,
        ),
        "the code path of ImageNet on ten of its classes, in small",
        "imagenette; 55 pictures a second on two cores in bf16, which is 3 minutes an epoch of all "
        "9,469; estimate: 179 MB of memory for weights, gradients, momentum and V, 2 GB in all",
    ),
    **{name: Recipe(*entry) for name, entry in ENTRIES.items()},
    # Tables 1 and 2
    "cifar10-resnet20": Recipe(
        replace(_HALF, epochs=160, milestones=(80, 120)),
        "ResNet-20 in 160 epochs, half of the weights selected",
        f"cifar10; {_gpu(4.3, 160)}",
    ),
    "cifar10-resnet20-paper": Recipe(
        _CIFAR,
        "the CIFAR-10 column of Table 2",
        f"cifar10; {_gpu(4.3, 100)}",
        "recalled",
    ),
    "imagenet-alexnet": Recipe(
        replace(_IMAGENET, model="alexnet", init="torch"),
        "AlexNet of Tables 1 and 2",
        f"{_ILSVRC}; {_gpu(978, 100, 1281.167)}",
        "recalled",
    ),
    "imagenet-resnet18": Recipe(
        replace(_IMAGENET, model="resnet18"),
        "ResNet-18 of Tables 1 and 2",
        f"{_ILSVRC}; {_gpu(187, 100, 1281.167)}",
        "code",
    ),
    "imagenet-resnet50": Recipe(
        _IMAGENET,
        "ResNet-50 with the settings of ResNet-18",
        f"{_ILSVRC}; {_gpu(409, 100, 1281.167)}",
        "code",
    ),
    # Tables 3 to 6: `sweep` runs these over kappa and nu
    "cifar10-vgg16": Recipe(
        replace(_SWEEP, model="vgg16-bn"),
        "VGG-16 of Tables 3 to 6, at kappa 1 and nu 100",
        f"cifar10; {_gpu(236, 160)}",
        "caption",
    ),
    "cifar10-resnet56": Recipe(
        replace(_SWEEP, model="resnet56"),
        "ResNet-56 of Tables 3 to 6, at kappa 1 and nu 100",
        f"cifar10; {_gpu(13.6, 160)}",
        "caption",
    ),
    # Figure 5 and Tables 8 to 11: searches for winning tickets
    "cifar10-vgg16-ticket": Recipe(
        replace(_TICKET, model="vgg16-bn", lam_conv=0.05),
        "search for a ticket of filters in VGG-16",
        f"cifar10; {_gpu(236, 200)}",
        "code",
    ),
    "cifar10-resnet56-ticket": Recipe(
        replace(_TICKET, model="resnet56", lam_conv=0.1),
        "search for a ticket of filters in ResNet-56: the classical net of 853,018 parameters "
        "(the authors' is one of bottlenecks, 869,530)",
        f"cifar10; {_gpu(13.6, 200)}",
        "code",
    ),
    "cifar10-vgg16-weights-ticket": Recipe(
        replace(
            _TICKET,
            model="vgg16-bn",
            conv="l1",
            linear="l1",
            weight=None,
            nu=200.0,
            lam_conv=0.03,
            lam_linear=0.03,
        ),
        "search for a ticket of single weights in VGG-16",
        f"cifar10; {_gpu(236, 200)}",
        "code",
    ),
    **{
        f"cifar10-conv{depth}": Recipe(
            replace(_CIFAR, model=f"conv{depth}", conv="l1", linear="l1", lr=0.02, epochs=60,
                    milestones=(30, 45), target=0.1),
            f"Conv-{depth}{' of Tables 9 and 10' if depth < 6 else ''}, a tenth of the weights",
            f"cifar10; {_gpu(megabytes, 60)}",
        )
        for depth, megabytes in ((2, 69), (4, 39), (6, 36))
    },
}  # fmt: skip
RECIPES = {
    name: entry._replace(config=replace(entry.config, recipe=name))
    for name, entry in RECIPES.items()
}

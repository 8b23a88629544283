"""Nets: sizes known from the literature, shapes, names, initial weights, and what is refused."""

import math

import pytest
import torch
import vectors
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dslbi_torch import split_groups
from dslbi_torch.training.nets import zoo

IMAGENET = ("alexnet", "resnet18", "resnet34", "resnet50", "efficientnet-lite0")

# Parameters at 10 classes (ImageNet: 1,000). From the DessiLBI authors' code: lenet5, lenet300,
# resnet20 to 56 and mobilenetv2 (weight pruning), vgg16-bn (lottery tickets). caffe-lenet5: the
# 431K of Han et al. 2015. resnet110: the 1.7M, and resnet20: the 0.27M of He et al. 2016, table 6.
# ImageNet: torchvision's documentation. The rest is added up from these, layer by layer.
PARAMETERS = {
    "digits-net": 13_962,
    "one-conv": 5 * 49 + 5 + 125 * 10 + 10,
    # 5x5 filters; filters and mixtures of the separable convolutions; scales and shifts; linear
    "small-net": 16 * 25 + 16 * 9 + 16 * 32 + 32 * 9 + 32 * 32 + 2 * (16 + 32 + 32) + 330,
    "lenet5": 61_706,
    "caffe-lenet5": 431_080,
    "lenet300": 266_610,
    "conv2": 4_300_992 + 2 * 64 + 522,  # weights as in the lottery ticket paper, plus biases
    "conv4": 2_425_024 + 2 * (64 + 128) + 522,
    "conv6": 2_261_184 + 2 * (64 + 128 + 256) + 522,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    # two projections: 1x1 convolutions 16 to 32 and 32 to 64, and their batch norms
    "resnet20-b": 269_722 + 512 + 64 + 2048 + 128,
    "resnet32-b": 464_154 + 2752,
    "resnet44-b": 658_586 + 2752,
    "resnet56-b": 853_018 + 2752,
    "resnet110-b": 1_727_962 + 2752,
    # torchvision's, with a stem of 3x3 instead of 7x7 filters and 10 classes
    "resnet18-32": 11_689_512 - 64 * 3 * (49 - 9) - 513 * 990,
    # torchvision's convolutions, and 512 weights and a bias for each class
    "vgg11": 9_220_480 + 5130,
    "vgg16": 14_714_688 + 5130,
    "vgg19": 20_024_384 + 5130,
    "vgg11-bn": 9_220_480 + 5130 + 2 * 2752,
    "vgg16-bn": 14_728_266,
    "vgg19-bn": 20_024_384 + 5130 + 2 * 5504,
    "mobilenetv2": 2_236_682,
    # whitening; six convolutions; two shifts and frozen scales a channel; linear
    "cifar10-fast": 24 * 13 + 9 * (24 * 64 + 64**2 + 64 * 256 + 3 * 256**2) + 4 * 576 + 2560,
    "cifar10-fast-half": 24 * 13 + 9 * (24 * 32 + 32**2 + 32 * 128 + 3 * 128**2) + 4 * 288 + 1280,
    "alexnet": 61_100_840,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "efficientnet-lite0": 4_652_008,
}

# Multiplications and additions of one picture, in millions. ImageNet: torchvision's documentation;
# VGG-16: 313 in the AdeNeL abstract; ResNet-56: 125 to 127 in the pruning literature.
MACS = {
    "resnet56": (32, 126, 1.0),
    "resnet18-32": (32, 556, 1.0),
    "vgg16-bn": (32, 313, 0.5),
    # 10 epochs of 50,000 pictures, forward and twice backward: 3.6e14 operations
    "cifar10-fast": (32, 3.55e14 / (6 * 500_000) / 1e6, 0.5),
    "cifar10-fast-half": (32, 33, 0.5),
    "alexnet": (224, 714, 0.5),
    "resnet18": (224, 1814, 0.5),
    "resnet34": (224, 3664, 0.5),
    "resnet50": (224, 4089, 0.5),
    "efficientnet-lite0": (224, 385, 0.5),  # 407 in its README with all other operations
}


def smallest_shape(name):
    """Two pictures of a size that the net is meant for, or for ImageNet a small one."""
    channels = 1 if zoo.NETS[name].largest <= 28 else 3
    size = 64 if name in IMAGENET else min(zoo.NETS[name].largest, 32)
    return (2, channels, size, size)


def on_meta(name, **options):
    with torch.device("meta"):  # shapes without numbers
        return zoo.build(name, **options)


def test_every_net_is_in_the_table():
    assert list(PARAMETERS) == list(zoo.NETS)


@pytest.mark.parametrize("name", zoo.NETS)
def test_parameter_counts(name):
    model = on_meta(name, n_classes=1000 if name in IMAGENET else 10)
    count = sum(p.numel() for p in model.parameters())
    assert count == PARAMETERS[name]
    printed = [line for line in zoo.__doc__.splitlines() if line.startswith(f"``{name}``")]
    assert all(f" {count:,} " in line for line in printed), "the docstring's table"


@pytest.mark.parametrize("name", MACS)
def test_multiplications_say_that_the_strides_are_right(name):
    size, millions, within = MACS[name]
    counter = FlopCounterMode(display=False)
    model = on_meta(name, n_classes=1000 if name in IMAGENET else 10).eval()
    with counter:
        model(torch.zeros(1, 3, size, size, device="meta"))
    assert counter.get_total_flops() / 2e6 == pytest.approx(millions, abs=within)


def test_the_last_map_of_32x32_pictures():
    last = {"resnet20": "layer3", "resnet18-32": "layer4", "mobilenetv2": "features"}
    for name, layer in last.items():
        model, seen = on_meta(name), []
        model.get_submodule(layer).register_forward_hook(lambda m, x, y, s=seen: s.append(y.shape))
        model(torch.zeros(2, 3, 32, 32, device="meta"))
        side = 8 if name == "resnet20" else 4
        assert seen[0][2:] == (side, side)


@pytest.mark.parametrize("name", zoo.NETS)
def test_the_signal_goes_forward_and_the_gradient_all_the_way_back(name):
    torch.manual_seed(0)
    model = zoo.build(name, init="he")
    x, y = vectors.images(n=2, shape=smallest_shape(name)[1:])
    x = torch.from_numpy(x).float()
    logits = model(x)
    assert logits.shape == (2, 10) and logits.isfinite().all()
    assert not torch.equal(logits[0], logits[1])
    nn.functional.cross_entropy(logits, torch.from_numpy(y)).backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    for parameter_name, p in trained.items():
        assert p.grad is not None and p.grad.isfinite().all(), parameter_name
    first = next(p for p in trained.values() if p.ndim > 1)
    assert first.grad.count_nonzero() > 0


@pytest.mark.parametrize("name", zoo.NETS)
def test_every_convolution_and_linear_layer_is_split(name):
    model = on_meta(name)
    groups = split_groups(model, conv="group", linear="l1", lam=0.1)
    split = {n for group in groups if group["penalty"] for n, _ in group["params"]}
    wanted = {
        f"{n}.weight"
        for n, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.requires_grad
    }
    assert split == wanted and len(wanted) >= 2


@pytest.mark.parametrize("init", ["torch", "he"])
@pytest.mark.parametrize("name", ["caffe-lenet5", "resnet20-b", "mobilenetv2"])
def test_the_seed_decides_the_initial_weights(name, init):
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(zoo.build(name, init=init).state_dict())
    for key, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][key], rtol=0, atol=0)
    assert not all(torch.equal(tensor, states[2][key]) for key, tensor in states[0].items())


def test_shortcut_a_is_the_strided_identity_and_has_no_parameters():
    block = zoo.build("resnet20").layer2[0]
    assert not list(block.downsample.parameters())
    x = torch.from_numpy(vectors.array((2, 16, 6, 6)))
    y = block.downsample(x)
    assert y.shape == (2, 32, 3, 3)
    torch.testing.assert_close(y[:, :16], x[:, :, ::2, ::2], rtol=0, atol=0)
    assert y[:, 16:].count_nonzero() == 0
    # With a silent branch the block is its shortcut.
    nn.init.zeros_(block.bn2.weight)
    x = x.float()
    torch.testing.assert_close(block(x), block.downsample(x).relu(), rtol=0, atol=0)


def test_shortcut_b_projects_where_the_shape_changes_only():
    model = zoo.build("resnet20-b")
    projected = [n for n, layer in model.named_modules() if n.endswith("downsample.0")]
    assert projected == ["layer2.0.downsample.0", "layer3.0.downsample.0"]
    assert model.layer2[0].downsample[0].kernel_size == (1, 1)


def test_layers_have_names_that_figures_can_use():
    names = {name: [n for n, _ in on_meta(name).named_parameters()] for name in zoo.NETS}
    assert [n for n, _ in zoo.build("lenet5").named_children()] == [
        *("conv1", "conv2", "conv3", "fc1", "fc2")
    ]
    assert names["one-conv"] == ["conv1.weight", "conv1.bias", "fc.weight", "fc.bias"]
    assert {"conv6.weight", "fc1.weight", "fc3.bias"} <= set(names["conv6"])
    assert {"conv1.weight", "layer1.0.conv1.weight", "fc.weight"} <= set(names["resnet110"])
    assert {"conv1_1.weight", "bn5_3.weight", "fc.weight"} <= set(names["vgg16-bn"])
    assert {"conv5_4.weight", "fc.weight"} <= set(names["vgg19"])


def test_other_sizes_channels_and_classes():
    for name, shape in (
        ("lenet5", (2, 3, 28, 28)),
        ("lenet300", (2, 3, 28, 28)),
        ("one-conv", (2, 3, 28, 28)),
        ("digits-net", (2, 3, 8, 8)),
        ("conv2", (2, 1, 32, 32)),
        ("resnet20", (2, 1, 8, 8)),
        ("vgg11-bn", (2, 1, 28, 28)),
        ("mobilenetv2", (2, 1, 28, 28)),
    ):
        model = on_meta(name, n_classes=7, in_channels=shape[1])
        assert model(torch.zeros(shape, device="meta")).shape == (2, 7)


def test_initial_filter_norms():
    """sqrt(2) under he, where each entry has variance 2/fan_in; 1/sqrt(3) under torch."""
    torch.manual_seed(0)
    for init, norm in (("he", math.sqrt(2)), ("torch", 1 / math.sqrt(3))):
        filters = zoo.build("lenet5", init=init).conv3.weight.detach().flatten(1)
        # 120 filters of 400 entries: the mean of their norms is within one percent.
        assert filters.norm(dim=1).mean().item() == pytest.approx(norm, rel=0.01)
    he = zoo.build("lenet5", init="he")
    assert all(layer.bias.count_nonzero() == 0 for layer in he.children())


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: zoo.build("lenet7"),
            "model must be one of digits-net, one-conv, .*, got 'lenet7'",
        ),
        (lambda: zoo.build("lenet5", init="zero"), 'init must be "torch" or "he", got \'zero\''),
        (lambda: zoo.build("vgg16", 0), "n_classes must be a whole number of at least 1, got 0"),
        (lambda: zoo.build("conv2", 2.0), "n_classes must be a whole number .*, got 2.0"),
        (lambda: zoo.build("conv2", 10, -3), "in_channels must be a whole number .*, got -3"),
        (
            lambda: zoo.build("resnet50", 10, 1),
            "model resnet50 takes pictures of 3 channels, got 1",
        ),
        (
            lambda: zoo.check_pictures("lenet5", 8, "digits"),
            "model lenet5 takes pictures of 28x28, but those of digits have 8x8",
        ),
        (
            lambda: zoo.check_pictures("alexnet", 32, "cifar10"),
            "model alexnet takes pictures of at least 63x63, but those of cifar10 have 32x32",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", zoo.NETS)
def test_the_smallest_pictures_that_are_admitted_work(name):
    size, channels = zoo.NETS[name].smallest, smallest_shape(name)[1]
    zoo.check_pictures(name, size, "these")
    model = on_meta(name)
    assert model(torch.zeros(2, channels, size, size, device="meta")).shape == (2, 10)
    if size > 1:
        with pytest.raises(ValueError, match="takes pictures of"):
            zoo.check_pictures(name, size - 1, "these")

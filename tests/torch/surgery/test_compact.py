"""Compaction: the small net says what the masked one does; what cannot be followed is refused."""

import copy
import io

import numpy as np
import pytest
import torch
import vectors
from settled import pictures, removed, settle
from torch import nn
from torch.nn import functional as F

from dslbi_torch import (
    DessiLBI,
    apply_masks_,
    compact,
    masked,
    split_groups,
    support_masks,
    whole_filters,
)
from dslbi_torch.surgery.costs import count_macs
from dslbi_torch.surgery.saving import load_compact, save_compact, save_onnx, save_program
from dslbi_torch.training.nets import zoo


def filter_masks(net, share=0.6, seed=2):
    """Masks that keep about that share of the filters of every layer but the last."""
    g = torch.Generator().manual_seed(seed)
    weights = [(name, p) for name, p in net.named_parameters() if p.ndim > 1]
    masks = {}
    for name, p in weights[:-1]:
        alive = torch.rand(len(p), generator=g) < share
        alive[0] = True
        masks[name] = alive.view(-1, *[1] * (p.ndim - 1)).expand(p.shape).clone()
    return masks


def gap(net, masks, small, x):
    """Largest difference of the outputs, relative to the largest output of the masked net."""
    with torch.no_grad(), masked(net, masks):
        expected = net(x)
        assert expected.std() > 0
        return ((small(x) - expected).abs().max() / expected.abs().max()).item()


def parameters(net):
    return sum(p.numel() for p in net.parameters())


NETS = {
    "digits-net": (1, 8),
    "lenet5": (1, 28),
    "caffe-lenet5": (1, 28),
    "lenet300": (1, 28),
    "vgg16-bn": (3, 32),
    "resnet20": (3, 32),
    "resnet20-b": (3, 32),
    "resnet56": (3, 32),
    "mobilenetv2": (3, 32),
    "resnet18": (3, 64),
    "resnet50": (3, 64),
}


@pytest.mark.parametrize("name", NETS)
def test_the_small_net_equals_the_masked_one(name):
    torch.manual_seed(0)
    channels, size = NETS[name]
    net = settle(zoo.build(name, init="he"), torch.float32)
    masks = filter_masks(net)
    x = pictures(2, channels, size, size, dtype=torch.float32)
    masks = whole_filters(net, masks, x)
    before = copy.deepcopy(net.state_dict())
    small = compact(net, masks, x)
    for key, value in net.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    assert gap(net, masks, small, x) < 1e-5
    assert parameters(small) < 0.8 * parameters(net)
    # in float64 it is the same net to the last digits
    net = net.double()
    exact = compact(net, masks, x.double())
    assert parameters(exact) == parameters(small)
    assert gap(net, masks, exact, pictures(3, channels, size, size)) < 1e-13


def small_cnn():
    """Every filter counts: 8 filters, 5 filters (no padding), 7 neurons, 3 classes."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 3)]
    layers += [nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(45, 7), nn.ReLU()]
    return settle(nn.Sequential(*layers, nn.Linear(7, 3)))


def test_exactly_the_dead_go_and_their_constants_are_folded():
    net, x = small_cnn(), pictures(4, 2, 8, 8)
    masks = removed(net, {"0": [1, 6], "3": [0], "7": [2, 3, 4]})
    with torch.no_grad():  # each still says something: its shift or its bias, past the ReLU
        net[1].bias[[1, 6]] = torch.tensor([3.0, 4.0], dtype=torch.float64)
        net[3].bias[0] = 0.7
        net[7].bias[[2, 3, 4]] = 0.5
    small = compact(net, masks, x)
    assert small[0].weight.shape == (6, 2, 3, 3)
    assert small[1].num_features == 6
    assert small[3].weight.shape == (4, 6, 3, 3)
    assert small[7].weight.shape == (4, 36)
    assert small[9].weight.shape == (3, 4)
    assert gap(net, masks, small, x) < 1e-14
    assert gap(net, masks, small, pictures(2, 2, 8, 8)) < 1e-14
    # the constants do matter: without them the outputs are others
    assert gap(net, whole_filters(net, masks, x), small, x) > 0.01


def test_a_reader_without_a_bias_gets_one_for_a_constant_only():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3, bias=False)).double()
    x = pictures(2, 1, 6, 6)
    masks = removed(net, {"0": [1]})
    small = compact(net, masks, x)
    assert small[1].bias is not None and gap(net, masks, small, x) < 1e-14
    masks = whole_filters(net, masks, x)
    small = compact(net, masks, x)
    assert small[1].bias is None and gap(net, masks, small, x) < 1e-14


@pytest.mark.parametrize("mode", ["zeros", "replicate", "reflect", "circular"])
def test_a_constant_at_zero_padding_stays_and_is_said(mode):
    torch.manual_seed(0)
    reader = nn.Conv2d(4, 3, 3, padding=1, padding_mode=mode)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), reader, nn.Flatten(), nn.Linear(48, 2)).double()
    x, masks = pictures(2, 1, 6, 6), removed(net, {"0": [1, 2]})
    with torch.no_grad():
        net[0].bias[1:3] = torch.tensor([0.5, 0.0])
    if mode == "zeros":
        with pytest.warns(UserWarning, match=r"^1 dead channels stay \(1 of 0\): they emit a con"):
            small = compact(net, masks, x)
    else:
        small = compact(net, masks, x)
    assert small[0].out_channels == (3 if mode == "zeros" else 2)
    assert gap(net, masks, small, x) < 1e-14
    masks = whole_filters(net, masks, x)
    assert compact(net, masks, x)[0].out_channels == 2


def test_average_pooling_that_pads_is_a_border_too():
    torch.manual_seed(0)
    pool = nn.AvgPool2d(3, 1, padding=1)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), pool, nn.Conv2d(4, 3, 3), nn.Flatten()).double()
    x, masks = pictures(2, 1, 6, 6), removed(net, {"0": [1]})
    with pytest.warns(UserWarning, match=r"^1 dead .* \(1 of 0\): .* a constant is padded on the"):
        small = compact(net, masks, x)
    assert small[0].out_channels == 4 and gap(net, masks, small, x) < 1e-14
    small = compact(net, whole_filters(net, masks, x), x)
    assert small[0].out_channels == 3


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3)
        self.inner, self.outer = nn.Conv2d(6, 4, 1), nn.Conv2d(4, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(x + self.outer(F.relu(self.inner(x))))
        return self.head(x.mean((2, 3)))


def test_a_channel_of_a_stream_goes_only_if_every_writer_is_dead():
    torch.manual_seed(0)
    net, x = Residual().double(), pictures(3, 1, 6, 6)
    masks = removed(net, {"stem": [0, 1, 2], "outer": [2, 3], "inner": [1]})
    small = compact(net, masks, x)
    assert small.stem.out_channels == small.outer.out_channels == small.head.in_features == 5
    assert (small.inner.in_channels, small.inner.out_channels) == (5, 3)
    assert gap(net, masks, small, x) < 1e-14
    torch.testing.assert_close(  # it was channel 2 that went
        small.head.weight, net.head.weight[:, [0, 1, 3, 4, 5]], rtol=0, atol=0
    )


class Concatenated(nn.Module):
    """Two branches side by side, read by a BatchNorm and a convolution, and by a linear layer."""

    def __init__(self, nested, side):
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 5, 3), nn.Conv2d(1, 4, 3)
        self.norm, self.read = nn.BatchNorm2d(9), nn.Conv2d(9, 3, 1)
        self.nested, self.pool = nested, nn.AdaptiveAvgPool2d(side)
        self.head = nn.Linear((9 + 3) * side**2, 2)

    def forward(self, x):
        left, right = self.left(x), self.right(x)
        both = torch.cat([left, right], 1)
        read = self.read(F.relu(self.norm(both)))
        parts = [both, read] if self.nested else [left, right, read]
        return self.head(self.pool(torch.cat(parts, 1)).flatten(1))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("side", [1, 4])
def test_concatenated_and_flattened_channels_are_found(nested, side):
    torch.manual_seed(0)
    net, x = settle(Concatenated(nested, side)), pictures(3, 1, 6, 6)
    masks = removed(net, {"left": [0, 4], "right": [1], "read": [2]})
    small = compact(net, masks, x)
    assert small.norm.num_features == small.read.in_channels == 6
    assert small.head.in_features == (6 + 2) * side**2
    assert gap(net, masks, small, x) < 1e-13
    assert gap(net, masks, small, pictures(2, 1, 6, 6)) < 1e-13


def test_depthwise_channels_go_with_either_side():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 1),
        nn.Conv2d(6, 6, 3, groups=6, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 4, 1),
        nn.Flatten(),
        nn.Linear(64, 2),
    ).double()
    x = pictures(2, 1, 4, 4)
    masks = whole_filters(net, removed(net, {"0": [1, 2], "1": [2, 4], "3": [0]}), x)
    small = compact(net, masks, x)
    assert small[1].weight.shape == (3, 1, 3, 3) and small[1].groups == 3
    assert small[0].out_channels == small[3].in_channels == 3
    assert gap(net, masks, small, x) < 1e-14


def test_transposed_convolutions_are_cut_on_both_sides():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 5, 3), nn.ReLU(), nn.ConvTranspose2d(5, 4, 2, stride=2), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Conv2d(4, 1, 3)).double()
    x = pictures(2, 1, 6, 6)
    masks = removed(net, {"0": [3]})
    masks["2.weight"] = torch.ones(5, 4, 2, 2, dtype=bool)
    masks["2.weight"][:, 1] = False
    masks = whole_filters(net, masks, x)
    small = compact(net, masks, x)
    assert small[2].weight.shape == (4, 3, 2, 2)
    assert gap(net, masks, small, x) < 1e-14


def test_neurons_that_nobody_reads_go_in_turn():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    net, x = net.double(), pictures(8, 6)
    masks = {f"{k}.weight": torch.ones_like(net[k].weight, dtype=bool) for k in (2, 4)}
    masks["4.weight"][:, [0, 1]] = False  # nobody reads these two of the second layer
    masks["2.weight"][2:, 3] = False  # and this one of the first was read by them only
    small = compact(net, masks, x)
    assert [small[k].weight.shape for k in (0, 2, 4)] == [(4, 6), (2, 4), (3, 2)]
    assert gap(net, masks, small, x) < 1e-14


def test_a_layer_that_is_called_twice_agrees_with_both():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(3, 4), nn.Linear(3, 4)
            self.read = nn.Linear(4, 2)

        def forward(self, x):
            return self.read(self.left(x).relu()) - 2 * self.read(self.right(x).relu())

    torch.manual_seed(0)
    net, x = Twice().double(), pictures(5, 3)
    masks = removed(net, {"left": [1, 2], "right": [2, 3]})
    with torch.no_grad():
        net.left.bias[2] = net.right.bias[2] = 0.3
    small = compact(net, masks, x)
    assert small.read.in_features == small.left.out_features == small.right.out_features == 3
    assert gap(net, masks, small, x) < 1e-14


def test_modes_and_frozen_parameters_are_as_before():
    net, x = small_cnn().train(), pictures(2, 2, 8, 8)
    net[3].eval()
    net[0].weight.requires_grad_(False)
    small = compact(net, removed(net, {"0": [1], "3": [2]}), x)
    assert [m.training for m in small.modules()] == [m.training for m in net.modules()]
    names = {name for name, p in small.named_parameters() if not p.requires_grad}
    assert names == {"0.weight"}
    small(x).sum().backward()  # it trains on


def test_without_masks_what_is_zero_goes():
    net, x = small_cnn(), pictures(2, 2, 8, 8)
    masks = whole_filters(net, removed(net, {"0": [1], "3": [2]}), x)
    small = compact(apply_masks_(net, masks), None, x)
    assert (small[0].out_channels, small[3].out_channels) == (7, 4)
    torch.testing.assert_close(small(x), net(x))
    again = compact(small, None, x)
    assert parameters(again) == parameters(small)


def test_the_three_lines_of_the_design():
    torch.manual_seed(0)
    net = zoo.build("digits-net")
    groups = split_groups(net, conv="group", linear="l1", nu=1.0, lam={"conv": 0.8, "linear": 0.1})
    optimizer = DessiLBI(groups, lr=0.1)
    X, y = vectors.images(64, (1, 8, 8), 10)
    x, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    masks = support_masks(optimizer)
    alive = masks["conv1.weight"].flatten(1).any(1)
    assert 0 < alive.sum() < 16
    masks = whole_filters(net, masks, x)
    small = compact(net, masks, x)
    assert small.conv1.out_channels <= alive.sum()
    assert gap(net, masks, small, x) < 1e-5
    assert count_macs(small, x)[""] < count_macs(net, x)[""]


# Refused


class Scaled(nn.Module):
    """A parameter of its own between two layers."""

    def __init__(self):
        super().__init__()
        self.conv, self.scale = nn.Conv2d(1, 4, 3), nn.Parameter(torch.ones(1, 4, 1, 1))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head((self.conv(x) * self.scale).mean((2, 3)))


class Hiding(nn.Module):
    """An activation after which a live channel looks like a constant."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        x = self.one(x)
        return self.two(torch.where(x > 0, x, 0.0))


def test_what_cannot_be_cut_stays_whole_and_is_named():
    torch.manual_seed(0)
    head = [nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)]
    cases = [
        (
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), *head),
            r"1 \(GroupNorm\) needs all",
        ),
        (
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1, groups=2), *head),
            r"of the grid \(2, 2\) that they are read as, whole rows go only",
        ),
    ]
    for net, said in cases:
        net, x = net.double(), pictures(2, 1, 6, 6)
        masks = whole_filters(net, removed(net, {"0": [1]}), x)
        with pytest.warns(UserWarning, match=r"^1 dead channels stay \(1 of 0\): " + said):
            small = compact(net, masks, x)
        assert small[0].out_channels == 4 and gap(net, masks, small, x) < 1e-14
    net, x = Hiding().double(), pictures(5, 3)
    with pytest.raises(ValueError, match="cannot follow this model: an operation before two hides"):
        compact(net, removed(net, {"one": [1]}), x)


def test_a_parameter_between_two_layers_is_cut_with_them():
    torch.manual_seed(0)
    net, x = Scaled().double(), pictures(2, 1, 6, 6)
    masks = removed(net, {"conv": [1]})
    small = compact(net, masks, x)
    assert small.scale.shape == (1, 3, 1, 1) and small.head.in_features == 3
    assert gap(net, masks, small, x) < 1e-14


def test_whole_groups_of_a_grouped_convolution_go():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 9, 1, groups=3), nn.ReLU(), nn.Flatten()]
    net, x = nn.Sequential(*layers, nn.Linear(144, 2)).double(), pictures(2, 1, 6, 6)
    masks = whole_filters(net, removed(net, {"0": [2, 3], "2": [3, 4, 5]}), x)
    small = compact(net, masks, x)
    assert (small[0].out_channels, small[2].groups, small[2].in_channels) == (4, 2, 4)
    assert small[2].weight.shape == (6, 2, 1, 1) and small[5].in_features == 96
    assert gap(net, masks, small, x) < 1e-14


def test_a_layer_without_filters_is_refused():
    net, x = small_cnn(), pictures(2, 2, 8, 8)
    for name, layer in (("0", 8), ("3", 5), ("7", 7)):
        masks = whole_filters(net, removed(net, {name: slice(None)}), x)
        with pytest.raises(ValueError, match=f"^all {layer} filters of {name} are dead: keep at"):
            compact(net, masks, x)


def test_masks_of_another_model_and_pruning_twice_are_refused():
    net, x = small_cnn(), pictures(2, 2, 8, 8)
    masks = removed(net, {"0": [1]})
    small = compact(net, masks, x)
    with pytest.raises(ValueError, match="or this one was compacted already"):
        compact(small, masks, x)
    with pytest.raises(ValueError, match="has no parameter 'conv.weight'"):
        compact(net, {"conv.weight": masks["0.weight"]}, x)
    for bad in (x[:0], torch.zeros(2, 2, 8, 8, dtype=torch.int64)):
        with pytest.raises(ValueError, match="example_input must hold at least one example"):
            compact(net, masks, bad)


# Saved and exported


def cut_resnet():
    torch.manual_seed(0)
    net, x = settle(zoo.build("resnet20"), torch.float32), pictures(2, 3, 32, 32)
    masks = whole_filters(net, filter_masks(net), x.float())
    return compact(net, masks, x.float()), x.float()


def test_a_compact_model_loads_without_the_original(tmp_path):
    small, x = cut_resnet()
    file = tmp_path / "small.pt"
    state = torch.get_rng_state()
    save_compact(small, file, {"name": "resnet20", "n_classes": 10})
    loaded = load_compact(file, zoo.build)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(loaded(x), small(x), rtol=0, atol=0)
    frozen = [{n for n, p in m.named_parameters() if not p.requires_grad} for m in (small, loaded)]
    assert frozen[0] == frozen[1] != set()  # the shortcuts that were paddings
    loaded.train()(x).sum().backward()
    assert [f.name for f in tmp_path.iterdir()] == ["small.pt"]
    for build in (lambda **_: zoo.build("resnet32"), lambda **_: zoo.build("lenet5")):
        with pytest.raises(ValueError, match="is not of the architecture that was built"):
            load_compact(file, build)
    content = file.read_bytes()
    for broken in (b"", content[: len(content) // 2]):
        file.write_bytes(broken)
        with pytest.raises(ValueError, match="must be a file of dslbi compact model 1, but: "):
            load_compact(file, zoo.build)


def test_single_layers_and_odd_options_load(tmp_path):
    file = tmp_path / "small.pt"
    nets = [
        nn.Linear(3, 2, bias=False),
        nn.Sequential(
            nn.Conv2d(2, 4, (3, 1), (2, 1), "valid", 1, 2, padding_mode="reflect"),
            nn.BatchNorm2d(4, eps=1e-2, momentum=None, affine=False),
            nn.ConvTranspose2d(4, 2, 3, 2, output_padding=1, groups=2),
        ),
    ]
    for net in nets:
        save_compact(net.eval(), file)
        x = torch.ones(2, 3) if isinstance(net, nn.Linear) else torch.ones(2, 2, 8, 8)
        loaded = load_compact(file, lambda net=net: copy.deepcopy(net))
        torch.testing.assert_close(loaded(x), net(x), rtol=0, atol=0)
        assert repr(loaded) == repr(net)


def test_zeros_take_a_bit_each_on_the_disk(tmp_path):
    torch.manual_seed(0)
    net = zoo.build("lenet300")
    save_compact(net, tmp_path / "dense.pt")
    masks = {"fc1.weight": torch.rand(300, 784) < 0.05}
    save_compact(apply_masks_(net, masks), tmp_path / "sparse.pt")
    sizes = [(tmp_path / name).stat().st_size for name in ("dense.pt", "sparse.pt")]
    saved = 4 * 235_200 - 235_200 // 8 - 4 * int(masks["fc1.weight"].sum())
    np.testing.assert_allclose(sizes[0] - sizes[1], saved, atol=2000)
    loaded = load_compact(tmp_path / "sparse.pt", lambda: zoo.build("lenet300"))
    torch.testing.assert_close(loaded.state_dict(), net.state_dict(), rtol=0, atol=0)


def test_the_exported_program_and_onnx_say_the_same(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    small, x = cut_resnet()
    more = torch.cat([x, 2 * x, x[:1]])  # another batch size than at the export
    expected = small(more).detach()
    save_program(small, x[:1], tmp_path / "small.pt2")
    program = torch.export.load(io.BytesIO((tmp_path / "small.pt2").read_bytes())).module()
    torch.testing.assert_close(program(more), expected, rtol=1e-5, atol=1e-5)
    save_onnx(small, x[:1], tmp_path / "small.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "small.onnx", providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(["output"], {"input": more.numpy()})
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["small.onnx", "small.pt2"]

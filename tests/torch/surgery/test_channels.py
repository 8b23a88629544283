"""Channels, heads and groups as units: found, split as one, and cut, in the nets of today."""

import copy
import warnings

import pytest
import torch
from net_families import FAMILIES, half_of, make_family, resnext
from torch import nn

from dslbi_torch import DessiLBI, apply_masks_, compact, split_groups, support_masks, whole_filters
from dslbi_torch.forward import call, map_tensors
from dslbi_torch.surgery.channels import channel_table, coupled_channels
from dslbi_torch.surgery.saving import load_compact, save_compact, save_program
from dslbi_torch.surgery.whole_norm import WholeLayerNorm
from dslbi_torch.torch_private import leaves
from dslbi_torch.units import families

# Of the parameters, at most this is left once half of the units of every family are gone. (The
# attention of torchvision's Swin and what is shuffled in a ShuffleNet stay whole; in an MLP-Mixer,
# what mixes tokens writes all channels.)
LEFT = {"shufflenet v2": 0.75, "swin": 0.8, "mixer": 0.9}


def outputs(model, x):
    return [y for y in leaves(call(model, x)) if isinstance(y, torch.Tensor)]


@pytest.mark.parametrize("name", FAMILIES)
def test_half_of_the_units_are_cut_and_the_outputs_are_equal(name):
    net, x = make_family(name)
    masks = whole_filters(net, half_of(coupled_channels(net, x), net, 1), x)
    with warnings.catch_warnings():
        if name in LEFT:
            warnings.simplefilter("ignore")  # of what stays
        small = compact(net, masks, x)
    before = sum(p.numel() for p in net.parameters())
    assert sum(p.numel() for p in small.parameters()) < LEFT.get(name, 0.6) * before
    masked = apply_masks_(copy.deepcopy(net), masks)
    for a, b in zip(outputs(masked, x), outputs(small, x), strict=True):
        assert a.std() > 0
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["resnet", "convnext", "vit", "llama", "gpt"])
def test_single_filters_at_random_change_nothing_either(name):
    net, x = make_family(name)
    generator, masks = torch.Generator().manual_seed(3), {}
    for key, axis in coupled_channels(net, x).axes.items():
        W = net.get_parameter(key)
        alive = torch.rand(W.shape[axis], generator=generator) < 0.7
        shape = [-1 if d == axis else 1 for d in range(W.ndim)]
        masks[key] = alive.view(shape).expand(W.shape).clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = compact(net, masks, x)
    masked = apply_masks_(copy.deepcopy(net), masks)
    for a, b in zip(outputs(masked, x), outputs(small, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["resnext", "convnext", "vit", "llama", "gpt"])
def test_cut_nets_are_saved_and_loaded(name, tmp_path):
    net, x = make_family(name)
    masks = whole_filters(net, half_of(coupled_channels(net, x), net, 2), x)
    small = compact(net, masks, x)
    save_compact(small, tmp_path / "small.pt")
    loaded = load_compact(tmp_path / "small.pt", lambda: make_family(name)[0])
    for a, b in zip(outputs(small, x), outputs(loaded, x), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["convnext", "vit", "gpt"])
def test_streams_that_were_cut_are_exported(name, tmp_path):
    """For batches of any size, the statistics of the whole width included."""
    net, x = make_family(name)
    masks = whole_filters(net, half_of(coupled_channels(net, x), net, 2), x)
    small = compact(net, masks, x)
    assert any(isinstance(m, WholeLayerNorm) for m in small.modules())
    save_program(small, x, tmp_path / "small.pt2")
    program = torch.export.load(tmp_path / "small.pt2").module()
    more = map_tensors(lambda x: torch.cat([x, x[:1]]), x)
    for a, b in zip(outputs(small, more), outputs(program, more), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-12)


def members(name):
    net, x = make_family(name)
    coupling = coupled_channels(net, x)
    return {f.names[0]: f for f in coupling.families}, coupling.alone


def test_all_that_writes_a_channel_is_one_unit():
    found, alone = members("resnet")
    stream = found["layer1.0.conv3.weight"]
    assert stream.names[1:] == ["layer1.0.downsample.0.weight", "layer1.1.conv3.weight"]
    assert (stream.units, stream.size) == (256, 16 + 64 + 16)
    assert alone == {"fc.weight": "the outputs of the net"}
    heads = members("vit")[0]["attention.qkv.weight"]
    assert (heads.units, heads.block, heads.parts, heads.heads) == (4, 6, 3, True)
    heads = members("vit of torchvision")[0]
    heads = heads["encoder.layers.encoder_layer_0.self_attention.in_proj_weight"]
    assert (heads.units, heads.block, heads.parts, heads.heads) == (4, 6, 3, True)
    found, _ = members("llama")
    assert found["q.weight"].names == ["q.weight", "k.weight", "v.weight"]
    assert (found["q.weight"].units, found["q.weight"].block) == (2, 8)  # two heads each
    assert found["gate.weight"].names == ["gate.weight", "up.weight"]


def test_multiplications_of_a_unit_are_those_of_its_filters_and_of_their_readers():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten())
    coupling = coupled_channels(net, torch.randn(2, 3, 8, 8))
    (family,) = coupling.families
    assert family.macs == 36 * 27 + 36 * 4 and family.size == 27
    assert coupling.alone == {"2.weight": "the outputs of the net"}
    table = channel_table(net, torch.randn(2, 3, 8, 8)).splitlines()
    assert table[1].split() == ["0.weight", "channels", "8", "27", "1,116"]
    assert table[-1] == "2.weight: the outputs of the net"


def test_units_of_a_grouped_convolution_are_what_there_are_more_of():
    """Groups, or channels of every group: these are cut on both sides of the weight."""
    net = resnext(groups=8, width=2)
    found = {f.names[0]: f for f in coupled_channels(net, torch.randn(2, 3, 32, 32)).families}
    groups = found["layer1.0.conv1.weight"]
    assert groups.names == ["layer1.0.conv1.weight", "layer1.0.conv2.weight"]
    assert (groups.units, groups.block, groups.size) == (8, 2, 2 * 64 + 2 * 2 * 9)
    found = members("resnext")[0]  # four groups of four channels
    read, written = found["layer1.0.conv1.weight"], found["layer1.0.conv2.weight"]
    assert read.names == ["layer1.0.conv1.weight"] and written.names == ["layer1.0.conv2.weight"]
    assert (written.units, written.block, written.parts, written.size) == (4, 1, 4, 4 * 4 * 9)


@pytest.mark.parametrize("name", ["resnet", "resnext", "vit", "llama", "gpt"])
def test_a_path_over_units_is_cut_whole(name):
    """What the support of a joint unit leaves dead is cut, in all that writes it."""
    net, x = make_family(name)
    groups = split_groups(net, conv="channel", linear="channel", example_input=x, nu=1.0, lam=1.0)
    optimizer = DessiLBI(groups, lr=0.1)
    for family in families(optimizer):  # half of the units of each are in the support
        units = torch.linspace(0.5, 1.5, 2 * len(family.Ws[0]))
        for W in family.Ws:
            W.grad = torch.zeros_like(W)
    optimizer.step()
    for family in families(optimizer):
        d = family.group["group_dim"]
        block = family.group.get("block", 1)
        parts = family.group.get("parts", 1)
        count = family.Ws[0].shape[d] // (block * parts)
        units = (torch.arange(count) % 2 == 0).double()
        for V in family.Vs:
            each = units.repeat_interleave(V.shape[d] // (parts * count)).repeat(parts)
            V.copy_(1e3 * each.view([-1 if i == d else 1 for i in range(V.ndim)]).expand(V.shape))
    masks = support_masks(optimizer)
    assert all(0.4 < m.double().mean() < 0.7 for m in masks.values())
    small = compact(net, whole_filters(net, masks, x), x)  # warnings are errors: nothing stays
    for key, mask in masks.items():
        dead = [int((~mask.any([i for i in range(mask.ndim) if i != d])).sum()) for d in range(2)]
        before, after = net.get_parameter(key).shape, small.get_parameter(key).shape
        assert any(after[d] <= before[d] - n for d, n in enumerate(dead) if n)


def test_words_say_what_is_coupled():
    net, x = make_family("vit")
    groups = split_groups(net, conv=None, linear="head", example_input=x)
    (split,) = (g for g in groups if g["penalty"] is not None)
    assert [name for name, _ in split["params"]] == ["attention.qkv.weight"]
    assert (split["block"], split["parts"], split["group_dim"]) == (6, 3, 0)
    groups = split_groups(net, {"mlp.*": "channel"}, conv=None, linear=None, example_input=x)
    names = [name for g in groups if g["penalty"] for name, _ in g["params"]]
    assert names == ["mlp.0.weight", "mlp.2.weight"]
    trained = sum(len(g["params"]) for g in groups)
    assert trained == len(list(net.parameters()))


def test_what_cannot_be_coupled_is_named_and_split_by_slices_or_refused():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 2, 1)
    )
    x = torch.randn(2, 3, 8, 8)
    said = r"0.weight.*: 1 \(GroupNorm\) needs all of them in native_group_norm"
    with pytest.warns(
        UserWarning, match="^slices of " + said.replace(".*", " are split by themselves")
    ):
        groups = split_groups(net, conv="channel", example_input=x)
    names = [name for g in groups if g["penalty"] for name, _ in g["params"]]
    assert names == ["0.weight", "2.weight"]
    groups = split_groups(net, conv="channel", example_input=x, uncoupled="dense")
    assert [n for g in groups if g["penalty"] for n, _ in g["params"]] == ["2.weight"]
    with pytest.raises(
        ValueError, match="^the channels of 0.weight must be coupled, but cannot be: 1"
    ):
        split_groups(net, conv="channel", example_input=x, uncoupled="refuse")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(conv="channel"), "example_input must be given where weights are split by 'channel'"),
        (
            dict(conv="channel", uncoupled="no"),
            "uncoupled must be one of slices, dense, refuse, got",
        ),
        (
            dict(conv="channel", example_input=torch.ones(2, 5, 32, 32)),
            "must take example_input of",
        ),
        (dict(conv="channel", example_input=[]), "example_input must be a tensor, got a list"),
    ],
)
def test_bad_input_is_one_line(options, said):
    net, _ = make_family("resnet")
    with pytest.raises(ValueError, match=said) as caught:
        split_groups(net.float(), **options)
    assert "\n" not in str(caught.value)

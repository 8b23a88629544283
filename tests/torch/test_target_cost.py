"""A cost asked for, and what the cut net costs."""

import copy

import pytest
import torch
from costed import NETS, cut, dense, make, one_unit, walk
from net_families import make_family
from torch import nn
from torch.nn import functional as F

from dslbi_torch import (
    DessiLBI,
    Split,
    TargetCost,
    split_groups,
    support_masks,
)
from dslbi_torch.surgery.costs import count_macs
from dslbi_torch.surgery.cut_costs import mac_costs, parameter_costs, widths_of
from dslbi_torch.surgery.live_axes import live_axes
from dslbi_torch.target_cost import factor_of_cost
from dslbi_torch.training.nets import zoo


@pytest.mark.parametrize("name", NETS)
def test_counts_of_living_channels_give_what_the_cut_net_costs(name):
    net, x = make(name)
    axes = live_axes(net, x)
    widths = widths_of(axes)
    costs = {
        "macs": mac_costs(axes, widths),
        "parameters": parameter_costs(axes, widths),
    }
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        alive = (torch.rand(axes.count, generator=generator) < 0.6) | axes.always
        for way in axes.ways:  # what is handed on by padding is alive where it was
            if way.carries is not None:
                alive[way.outputs] |= (way.carries & alive[way.inputs]).any(1)
        masks = {}
        for key, p in net.named_parameters():
            way = next((way for way in axes.ways if way.name == key), None)
            if way is not None:
                kept = alive[way.outputs] | axes.always[way.outputs]
                shape = [-1 if d == way.axes[0] else 1 for d in range(p.ndim)]
                masks[key] = kept.view(shape).expand(p.shape).clone()
        found = cut(net, masks, x)
        counts = widths.counts(alive)
        assert {kind: cost.total(counts) for kind, cost in costs.items()} == found


def test_attention_costs_what_its_inputs_are():
    """Two products of T*T*d, which go with the width that the last layer reads."""
    torch.manual_seed(0)

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.out = (nn.Linear(8, 8, bias=False) for _ in range(4))

        def forward(self, x):
            weights = (self.q(x) @ self.k(x).transpose(1, 2)).softmax(-1)
            return self.out(weights @ self.v(x))

    net, x = Attention(), torch.randn(2, 5, 8)
    axes = live_axes(net, x)
    widths = widths_of(axes)
    costs, sizes = mac_costs(axes, widths), widths.sizes.clone()
    assert costs.total(sizes) == 4 * 5 * 64 + 2 * 25 * 8
    sizes[widths.rows["out.weight"][1]] = 3
    assert costs.total(sizes) == 3 * 5 * 64 + 5 * 24 + 2 * 25 * 3


def test_a_weight_that_is_tied_counts_where_it_is_read():
    net, x = make_family("gpt")  # whose head is its embedding
    axes = live_axes(net, x)
    widths = widths_of(axes)
    assert mac_costs(axes, widths).total(widths.sizes) == count_macs(net, x)[""]


# The controller

JOINT = {"joint": True, "penalty": "filter"}


def steered(name="stream with padding", around=None, rules=None, **options):
    net, x = make(name)
    if name == "branches":
        rules = {"up": "filter", "fc1": "row", "gate": "row"} | (rules or {})
    groups = split_groups(net, rules, linear=None, apart=True, nu=2.0)
    optimizer = Split(around(groups, lr=0.02)) if around else DessiLBI(groups, lr=0.05, momentum=0)
    return net, x, optimizer, TargetCost(optimizer, net, x, **{"steps": 30, **options})


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("kind", ["macs", "parameters"])
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_the_cut_net_costs_what_was_asked_to_within_one_unit(name, kind, share):
    rules = {"[wd][ie]*.weight": JOINT} if name == "branches" else None  # wide and depth
    net, x, optimizer, controller = steered(name, rules=rules, **{kind: share})
    walk(net, optimizer, 30)
    whole, found = dense(net, x)[kind], cut(net, support_masks(optimizer), x)[kind]
    assert controller.expected() * whole == pytest.approx(found, abs=1e-6)
    assert abs(found / whole - share) <= one_unit(controller) / 2, found / whole


@pytest.mark.filterwarnings("ignore:1 dead channels stay")
def test_without_joint_units_the_cut_net_costs_what_was_asked_at_most():
    """A filter before a depthwise convolution goes alone only where what stays behind it is 0."""
    net, x, optimizer, controller = steered("branches", macs=0.5)
    walk(net, optimizer, 30)
    whole, found = dense(net, x)["macs"], cut(net, support_masks(optimizer), x)["macs"]
    assert 0.3 * whole < found <= controller.expected() * whole


@pytest.mark.parametrize("around", [None, torch.optim.AdamW])
def test_resnet_20_at_half_of_its_multiplications(around):
    torch.manual_seed(0)
    net, x = zoo.build("resnet20"), torch.randn(2, 3, 32, 32)
    groups = split_groups(net, linear=None, apart=True, nu=2.0)
    optimizer = Split(around(groups, lr=0.02)) if around else DessiLBI(groups, lr=0.05)
    TargetCost(optimizer, net, x, steps=8, macs=0.5)
    walk(net, optimizer, 8)
    found = cut(net.eval(), support_masks(optimizer), x)["macs"]
    assert found / dense(net, x)["macs"] == pytest.approx(0.5, rel=0.02)


def test_mobilenet_v3_at_half_of_its_multiplications():
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    net, x = torchvision.models.mobilenet_v3_small(num_classes=10), torch.randn(2, 3, 32, 32)
    optimizer = DessiLBI(split_groups(net, linear=None, apart=True, nu=2.0), lr=0.05)
    TargetCost(optimizer, net, x, steps=4, ramp=0.0, macs=0.5)
    walk(net, optimizer, 4)
    found = cut(net.eval(), support_masks(optimizer), x)["macs"]
    assert found / dense(net, x)["macs"] == pytest.approx(0.5, rel=0.02)


def test_joint_streams_are_steered_as_one():
    stream = "layer2.?.[cd]o[nw]*[02].weight"  # both conv2, and the projection
    rules = {stream: JOINT | {"lam": 3.0}}
    net, x, optimizer, _ = steered("stream with projections", rules=rules, macs=0.5)
    assert any(len(group["params"]) == 3 and group["joint"] for group in optimizer.param_groups)
    walk(net, optimizer, 30)
    masks = support_masks(optimizer)
    found = cut(net, masks, x)["macs"]
    assert found / dense(net, x)["macs"] == pytest.approx(0.5, abs=0.05)
    kept = masks["layer2.0.conv2.weight"].flatten(1).any(1)
    assert torch.equal(kept, masks["layer2.1.conv2.weight"].flatten(1).any(1))
    assert 0 < kept.sum() < 7


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, 4)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = Attention(), Attention()
        self.fc1, self.fc2 = nn.Linear(12, 20), nn.Linear(20, 12)

    def forward(self, x):
        x = x + self.a(x)
        x = x + self.fc2(self.fc1(x).relu())
        return x + self.b(x)


@pytest.mark.parametrize("kind", ["macs", "parameters"])
def test_heads_and_neurons_are_counted_as_they_are_cut(kind):
    torch.manual_seed(0)
    net, x = Tokens().eval(), torch.randn(2, 5, 12)
    heads = {"penalty": "row", "block": 4, "parts": 3, "lam": 1.5}
    groups = split_groups(net, {"?.qkv": heads, "fc1": "row"}, linear=None, apart=True, nu=2.0)
    optimizer = DessiLBI(groups, lr=0.05, momentum=0)
    controller = TargetCost(optimizer, net, x, steps=20, **{kind: 0.5})
    walk(net, optimizer, 20)
    whole, found = dense(net, x)[kind], cut(net, support_masks(optimizer), x)[kind]
    assert controller.expected() * whole == pytest.approx(found, abs=1e-6)
    assert abs(found / whole - 0.5) <= one_unit(controller) / 2
    assert any(len(support_masks(optimizer)[f"{k}.qkv.weight"].any(1).unique()) > 1 for k in "ab")


@pytest.mark.parametrize("name", ["vit", "convnext", "efficientnet", "resnext"])
def test_joint_channels_of_the_nets_of_today_are_counted_as_they_are_cut(name):
    """Streams, heads, neurons and groups, as ``split_groups`` couples them."""
    net, x = make_family(name)
    coupled = dict(conv="channel", linear="channel", example_input=x)
    optimizer = DessiLBI(split_groups(net, apart=True, nu=2.0, **coupled), lr=0.05, momentum=0)
    controller = TargetCost(optimizer, net, x, steps=12, macs=0.6)
    walk(net, optimizer, 12)
    whole, found = dense(net, x)["macs"], cut(net.eval(), support_masks(optimizer), x)["macs"]
    assert controller.expected() * whole == pytest.approx(found, abs=1e-6)
    assert found / whole == pytest.approx(0.6, rel=0.02)


def test_the_cost_grows_on_the_ramp_or_falls_from_a_dense_start():
    for first in (0.0, 1.0):
        net, _, optimizer, controller = steered(macs=0.5, first=first, steps=40, ramp=0.5)
        for k in range(4):
            walk(net, optimizer, 10, start=10 * k)
            due = first + (0.5 - first) * min(1, (k + 1) / 2)
            assert controller.expected() == pytest.approx(due, abs=one_unit(controller))


def test_no_layer_is_emptied_however_small_it_was_born():
    for at_least in (1, 2):
        net, x = make("stream with padding")
        with torch.no_grad():
            net.layer1[0].conv1.weight.mul_(1e-3)
        groups = split_groups(net, linear=None, apart=True, nu=2.0)
        optimizer = DessiLBI(groups, lr=0.05, momentum=0)
        TargetCost(optimizer, net, x, steps=30, macs=0.5, at_least=at_least)
        walk(net, optimizer, 30)
        alive = {k: int(m.flatten(1).any(1).sum()) for k, m in support_masks(optimizer).items()}
        assert min(alive.values()) == alive["layer1.0.conv1.weight"] == at_least
        cut(net, support_masks(optimizer), x)


def test_a_checkpoint_of_the_optimizer_alone_continues_bit_for_bit():
    net, _, whole, _ = steered(macs=0.5)
    walk(net, whole, 30)
    first, _, one, _ = steered(macs=0.5)
    walk(first, one, 17)
    second, _, two, _ = steered(macs=0.5)
    second.load_state_dict(first.state_dict())
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    walk(second, two, 13, start=17)
    assert [g.get("lam") for g in whole.param_groups] == [g.get("lam") for g in two.param_groups]
    for a, b in zip(net.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("seed", range(5))
def test_the_factor_is_that_of_trying_all(seed):
    generator = torch.Generator().manual_seed(seed)
    below = torch.rand(20, generator=generator, dtype=torch.float64).mul(8).round().div(8)
    below[3], weight = torch.inf, torch.rand(20, generator=generator, dtype=torch.float64)

    def cost(alive):
        return float((weight * alive).sum()) ** 2

    levels = [*below.unique().tolist()[:-1], 9.0]
    gaps = [*((a + b) / 2 for a, b in zip(levels, levels[1:], strict=False)), levels[0] / 2]
    for share in (0.0, 0.1, 0.35, 0.7, 1.0):
        due = share * cost(below >= 0)
        best = min(abs(cost(below > gap) - due) for gap in gaps if gap > 0)
        found = factor_of_cost(below, cost, due)
        assert abs(cost(below > found) - due) == pytest.approx(best, abs=1e-12)
    assert factor_of_cost(torch.tensor([torch.inf, 0.0]), cost, 1.0) == torch.inf


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of macs, parameters, ms must be given, got none"),
        (dict(macs=0.5, parameters=0.5), "must be given, got macs and parameters"),
        (dict(macs=0.5, times=()), r"times must be left out without ms, got \(\)"),
        (dict(macs=0.0), r"macs must be in \(0, 1\], got 0.0"),
        (dict(parameters=float("nan")), r"parameters must be in \(0, 1\], got nan"),
        (
            dict(macs=0.01),
            r"macs must be at least 0.0\d+ of the dense net, which at_least = 1 unit",
        ),
        (dict(macs=0.5, at_least=6), "at_least must be at most the 5 units of conv1.weight, got 6"),
        (dict(macs=0.5, steps=0), "steps must be an integer of at least 1, got 0"),
        (dict(macs=0.5, ramp=2), r"ramp must be in \[0, 1\], got 2"),
    ],
)
def test_bad_costs_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        steered(**options)


def test_what_does_not_fit_the_model_is_refused():
    net, x = make("stream with padding")
    optimizer = DessiLBI(split_groups(net, linear=None, apart=True))
    options = dict(steps=10, macs=0.5)
    with pytest.raises(ValueError, match=r"must take example_input of shape \(2, 4, 8, 8\), but"):
        TargetCost(optimizer, net, torch.randn(2, 4, 8, 8), **options)
    with pytest.raises(ValueError, match="split tensor conv1.weight must be a parameter of the m"):
        TargetCost(optimizer, copy.deepcopy(net), x, **options)
    with pytest.raises(ValueError, match=r"at_least needs a level of each layer, .*apart=True"):
        TargetCost(DessiLBI(split_groups(net, linear=None)), net, x, **options)
    TargetCost(DessiLBI(split_groups(net, linear=None)), net, x, at_least=0, **options)

"""Compaction of odd nets: gates, shared weights, dense blocks; what stays is said, and why."""

import copy

import pytest
import torch
from settled import pictures, removed, settle
from torch import nn
from torch.nn import functional as F

from dslbi_torch import apply_masks_, compact, whole_filters


def check_equal(net, masks, small, *inputs):
    masked = apply_masks_(copy.deepcopy(net), masks)
    for x in inputs:
        torch.testing.assert_close(small(x), masked(x), rtol=1e-12, atol=1e-12)


class Gated(nn.Module):
    """Squeeze and excitation: every channel times a gate that is computed from all of them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.read, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6, 3)
        self.squeeze, self.excite = nn.Linear(8, 4), nn.Linear(4, 8)

    def forward(self, x):
        x = self.conv(x).relu()
        gate = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        return self.head(self.read(x * gate[:, :, None, None]).mean((2, 3)))


def test_a_dead_filter_goes_with_its_gate():
    net, x = Gated().double(), pictures(2, 3, 8, 8)
    masks = whole_filters(net, removed(net, {"conv": [1, 5]}), x)
    small = compact(net, masks, x)
    assert small.conv.out_channels == small.excite.out_features == small.squeeze.in_features == 6
    assert small.read.in_channels == 6
    check_equal(net, masks, small, x, 5 * pictures(3, 3, 9, 9))


def test_a_product_of_two_constants_is_one():
    net, x = Gated().double(), pictures(2, 3, 8, 8)
    with torch.no_grad():
        net.conv.bias.fill_(1)
    masks = removed(net, {"conv": [1, 5], "excite": [1, 5]})
    small = compact(net, masks, x)
    assert small.conv.out_channels == small.excite.out_features == 6
    check_equal(net, masks, small, x)
    masks = removed(net, {"conv": [1, 5]})  # a constant times what is none
    assert compact(net, masks, x).conv.out_channels == 8


class Added(nn.Module):
    """What a layer gives is added to something that no layer gives."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.two(x + self.one(x))


def test_dead_channels_that_something_is_added_to_stay_and_are_said():
    net, x = Added().double(), pictures(5, 4)
    masks = whole_filters(net, removed(net, {"one": [1, 2]}), x)
    reason = r"^2 dead channels stay \(2 of one\): what their readers are given depends on the"
    with pytest.warns(UserWarning, match=reason):
        small = compact(net, masks, x)
    check_equal(net, masks, small, x)


class Dense(nn.Module):
    """A BatchNorm behind a concatenation adds a shift to what is dead, before zero padding."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.c = nn.BatchNorm2d(16), nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.a(x)
        x = torch.cat([x, self.b(x.relu())], 1)
        return self.head(self.c(self.norm(x).relu()).mean((2, 3)))


def test_a_shift_behind_a_concatenation_is_named_as_what_keeps_a_channel():
    net, x = settle(Dense()), pictures(2, 3, 8, 8)
    net.norm.bias.data.fill_(1)
    masks = removed(net, {"a": [1, 2]})
    masks["a.bias"] = masks["a.weight"].flatten(1).any(1)
    reason = r"they emit a constant that zero padding cuts .* where the layer, or the BatchNorm"
    with pytest.warns(UserWarning, match=reason):
        small = compact(net, masks, x)
    check_equal(net, masks, small, x)
    masks = whole_filters(net, masks, x)  # with which the shift goes too
    small = compact(net, masks, x)
    assert (small.a.out_channels, small.norm.num_features) == (6, 14)
    check_equal(net, masks, small, x)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.d = (nn.Linear(8, 8) for _ in range(4))
        self.c.weight, self.head = self.b.weight, nn.Linear(8, 3)

    def forward(self, x):
        for layer in (self.a, self.b, self.c, self.d):
            x = layer(x).relu()
        return self.head(x)


def test_layers_that_share_a_weight_are_cut_together_or_not_at_all():
    net, x = Tied().double(), pictures(4, 8)
    masks = whole_filters(net, removed(net, {"a": [1], "b": [2, 5], "d": [0, 3]}), x)
    small = compact(net, masks, x)  # what one of them gives on another's channel lives
    assert small.b.weight is small.c.weight and small.b.weight.shape == (8, 8)
    assert small.d.out_features == 6
    check_equal(net, masks, small, x)
    masks = whole_filters(net, removed(net, {"a": [2, 5], "b": [2, 5]}), x)
    small = compact(net, masks, x)
    assert small.b.weight is small.c.weight and small.b.weight.shape == (6, 6)
    assert (small.a.out_features, small.d.in_features) == (6, 6)
    check_equal(net, masks, small, x)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.into = nn.Linear(4, 8), nn.Linear(8, 6)
        self.lstm, self.head = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.lstm(self.into(self.embed(x).relu()))[0][:, -1])


def test_layers_beside_a_recurrent_one_are_cut():
    net, x = Recurrent(), pictures(2, 3, 4).float()
    small = compact(net, whole_filters(net, removed(net, {"embed": [1, 2]}), x), x)
    assert (small.embed.out_features, small.lstm.input_size) == (6, 6)
    assert {p.dtype for p in small.parameters()} == {torch.float32}
    masks = whole_filters(net, removed(net, {"embed": [1, 2]}), x)
    torch.testing.assert_close(small(x), apply_masks_(net, masks)(x))
    masks = whole_filters(net, removed(net, {"into": [1, 2]}), x)
    small = compact(net, masks, x)
    assert (small.into.out_features, small.lstm.input_size) == (4, 4)
    check_equal(net.double(), masks, small.double(), x.double())


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)

    def forward(self, x):
        return self.head(self.layer(self.embed(x)).mean(1))


def test_what_keeps_dead_filters_is_named():
    net, x = Encoder().double().eval(), pictures(2, 5, 6)
    writers = {name: [1, 2] for name in ("embed", "layer.self_attn.out_proj", "layer.linear2")}
    masks = whole_filters(net, removed(net, writers), x)
    reason = r"of layer.linear2\): the code of layer.self_attn \(MultiheadAttention\) takes their"
    with pytest.warns(UserWarning, match=reason):
        small = compact(net, masks, x)
    check_equal(net, masks, small, x)
    masks = removed(net, {"layer.linear1": [0, 3, 4]})
    small = compact(net, masks, x)
    assert small.layer.linear2.in_features == 9
    check_equal(net, masks, small, x)


def test_living_filters_behind_a_dead_norm_are_not_called_dead():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3))
    net[1].weight.data.zero_()
    x = pictures(2, 1, 8, 8)
    with pytest.raises(ValueError, match="^what 0 gives must depend on the input where it is read"):
        compact(net.double().eval(), None, x)


class Padded(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.pad, self.head = nn.Conv2d(3, 8, 3), nn.ZeroPad2d(1), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(F.adaptive_avg_pool2d(self.pad(self.conv(x).relu()), 1).flatten(1))


def test_constants_that_are_padded_hold_at_the_size_of_the_example():
    net, x, larger = Padded().double(), pictures(2, 3, 8, 8), pictures(2, 3, 16, 16)
    net.conv.bias.data.fill_(1)
    masks = removed(net, {"conv": [1, 2]})
    small = compact(net, masks, x)
    check_equal(net, masks, small, x)
    assert (small(larger) - apply_masks_(copy.deepcopy(net), masks)(larger)).abs().max() > 1e-3
    masks = whole_filters(net, masks, x)
    check_equal(net, masks, compact(net, masks, x), x, larger)


class Branching(nn.Module):
    """What it computes depends on what it is fed."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x):
        x = self.first(x).relu()
        if x.sum() > 0:
            x = self.middle(x).relu()
        return self.head(x)


def test_a_branch_on_the_data_is_refused():
    net = Branching()
    masks = removed(net, {"first": [0, 1, 2]})
    masks["middle.weight"] = torch.ones(16, 16, dtype=torch.bool)
    masks["middle.weight"][:, 4:9] = False
    with pytest.raises(ValueError, match="the dependency graph cannot follow this model"):
        compact(net, masks, torch.rand(2, 8))

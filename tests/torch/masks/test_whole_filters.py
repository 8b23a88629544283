"""Which BatchNorm belongs to a filter: that which takes its units, and those of no living one."""

import copy

import pytest
import torch
import vectors
from on_path import equal, filter_masks, make_net
from settled import pictures, removed, settle
from torch import nn
from torch.nn import functional as F

from dslbi_torch import compact, fold_norms, masked, whole_filters


def test_a_removed_filter_emits_exactly_zero():
    net, masks = make_net(), filter_masks()
    x = torch.tensor(vectors.images(4, (1, 8, 8), 3)[0]).float()
    net(x)  # running statistics of their own
    before = copy.deepcopy(net.state_dict())
    whole = whole_filters(net, masks, x)
    equal(net.state_dict(), before)
    assert net.training
    assert set(whole) == {*masks, "0.bias", "1.weight", "1.bias", "5.bias"}
    alive = torch.tensor([True, False, True, True, False, True])
    for name in ("0.bias", "1.weight", "1.bias"):
        torch.testing.assert_close(whole[name], alive)
    torch.testing.assert_close(whole["5.bias"], torch.tensor([True, True, False]))
    net.eval()
    with masked(net, masks):
        assert net[:2](x)[:, 1].any()  # without its bias and its BatchNorm it still says something
    with masked(net, whole):
        out = net[:2](x)
        assert not out[:, [1, 4]].any()
        assert out[:, [0, 2, 3, 5]].flatten(2).any(2).all()
        assert not net(x)[:, 2].any()
    assert set(filter_masks()) == set(masks)  # those given are left as they are


def test_outputs_of_transposed_convolutions_lie_along_their_second_axis():
    net = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6))
    mask = torch.ones(4, 3, 3, 3, dtype=bool)
    mask[:2, 1] = False  # of the first group
    whole = whole_filters(net, {"0.weight": mask}, torch.randn(2, 4, 5, 5))
    alive = torch.tensor([True, False, True, True, True, True])
    torch.testing.assert_close(whole["1.bias"], alive)
    with masked(net.eval(), whole):
        out = net(torch.randn(2, 4, 5, 5)).flatten(2).any(2).any(0)
    torch.testing.assert_close(out, alive)


class Tokens(nn.Module):
    """A linear layer of 8 neurons on tokens; BatchNorm1d scales the tokens."""

    def __init__(self, tokens):
        super().__init__()
        self.linear, self.norm, self.head = nn.Linear(8, 8), nn.BatchNorm1d(tokens), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.norm(self.linear(x)).relu()).mean(1)


@pytest.mark.parametrize("tokens", [8, 5])
def test_a_norm_of_tokens_is_no_norm_of_neurons(tokens):
    net, x = settle(Tokens(tokens)), pictures(2, tokens, 8)
    masks = removed(net, {"linear": [0, 1, 2]})
    assert set(whole_filters(net, masks, x)) == {"linear.weight", "linear.bias"}
    with pytest.raises(ValueError, match="must have a BatchNorm that takes the output of a layer"):
        fold_norms(net, x)


class Shared(nn.Module):
    """One BatchNorm after each of two convolutions."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3)

    def forward(self, x):
        return self.head(F.relu(self.norm(self.a(x))) + F.relu(self.norm(self.b(x))))


def test_a_shared_norm_stays_where_one_of_its_filters_lives():
    net, x = settle(Shared()), pictures(2, 3, 8, 8)
    one = whole_filters(net, removed(net, {"a": [0, 1]}), x)
    assert one["norm.weight"].all() and not one["a.bias"][:2].any() and "b.bias" not in one
    with masked(net, one):
        expected = net(x)
    torch.testing.assert_close(compact(net, one, x)(x), expected)
    both = whole_filters(net, removed(net, {"a": [0, 1], "b": [1, 2]}), x)
    assert both["norm.weight"].tolist() == [True, False] + 6 * [True]
    assert compact(net, both, x).norm.num_features == 7


def test_a_shared_norm_folds_into_both():
    net, x = settle(Shared()), pictures(2, 3, 8, 8)
    small = fold_norms(net, x)
    assert isinstance(small.norm, nn.Identity)
    torch.testing.assert_close(small(x), net(x), rtol=1e-12, atol=1e-12)


class AlsoElse(Shared):
    """The BatchNorm takes something else too."""

    def forward(self, x):
        return self.head(F.relu(self.norm(self.a(x))) + self.norm(self.a(x) + self.b(x)))


def test_a_norm_that_takes_something_else_too_is_of_no_filter():
    net, x = settle(AlsoElse()), pictures(2, 3, 8, 8)
    masks = whole_filters(net, removed(net, {"a": [0, 1]}), x)
    assert set(masks) == {"a.weight", "a.bias"}


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9, affine=False)), (5, 6)),
        (nn.Sequential(nn.ConvTranspose2d(4, 8, 3, groups=2), nn.BatchNorm2d(8)), (2, 4, 5, 5)),
        (nn.Sequential(nn.Conv2d(4, 8, 3, groups=4, bias=False), nn.BatchNorm2d(8)), (2, 4, 5, 5)),
    ],
)
def test_norms_without_scale_and_grouped_layers_fold(net, shape):
    net, x = settle(copy.deepcopy(net)), pictures(*shape)
    small = fold_norms(net, x)
    assert isinstance(small[1], nn.Identity)
    torch.testing.assert_close(small(x), net(x), rtol=1e-12, atol=1e-12)


class Beside(nn.Module):
    """Two layers that share their bias; BatchNorm is called by keyword."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.b.bias = self.a.bias

    def forward(self, x):
        return self.norm(input=self.b(self.a(x).relu()))


def test_a_shared_bias_goes_where_nobody_needs_it():
    net, x = Beside(), torch.randn(3, 4)
    mask = torch.arange(4)[:, None].expand(4, 4) > 0
    one = whole_filters(net, {"a.weight": mask}, x)
    assert set(one) == {"a.weight", "a.bias"} and one["a.bias"].all()
    both = whole_filters(net, {"a.weight": mask, "b.weight": mask}, x)
    assert both["a.bias"].tolist() == [False, True, True, True]
    assert torch.equal(both["norm.weight"], both["a.bias"])

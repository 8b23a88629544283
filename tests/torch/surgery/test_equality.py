"""What a changed net must equal: in float64, layer by layer, so that no small head hides a wrong
channel; what cannot be compared is said in one line."""

import copy
import warnings

import numpy as np
import pytest
import torch
import vectors
from torch import nn
from torch.nn import functional as F

from dslbi_torch import compact, fold_norms, masked, widen_
from dslbi_torch.surgery.equality import compare_outputs, in_float64


def pictures(*shape, dtype=torch.float32):
    return torch.tensor(vectors.array(shape, seed=3), dtype=dtype)


X = pictures(2, 3, 8, 8)


def shuffled(x):
    n, c, *size = x.shape
    return x.view(n, 2, c // 2, *size).transpose(1, 2).reshape(n, c, *size)


def centred(x):
    return x - x.mean(1, keepdim=True)


def normalised(x):
    return F.layer_norm(x, x.shape[1:])


class Between(nn.Module):
    """Two convolutions with an operation between them that the dependency graph does not know."""

    def __init__(self, operation, head):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)
        self.operation = operation
        with torch.no_grad():
            for p in self.head.parameters():
                p.mul_(head)

    def forward(self, x):
        x = self.two(self.operation(self.one(x).relu()))
        return self.head(x.relu().mean((2, 3)))


def without(net, name, index):
    """A mask of one weight, that keeps all but an index."""
    mask = torch.ones_like(net.get_parameter(name), dtype=torch.bool)
    mask[index] = False
    return {name: mask}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("head", [1, 1e-3, 1e-6])
@pytest.mark.parametrize("operation", [shuffled, centred, normalised])
def test_no_small_head_and_no_coarse_dtype_hides_a_wrong_channel(operation, head, dtype):
    net = Between(operation, head).to(dtype)
    with torch.no_grad():
        net.two.weight[:, [0, 1]] = 0  # two channels that nobody reads, but the operation mixes
    exact, x = in_float64(net, X.to(dtype))
    wrong = copy.deepcopy(exact)
    wrong.one = nn.Conv2d(3, 6, 3).double()
    wrong.two = nn.Conv2d(6, 8, 3).double()
    for new, old, cut in (("one", exact.one, np.s_[2:]), ("two", exact.two, np.s_[:, 2:])):
        layer = wrong.get_submodule(new)
        layer.weight.data = old.weight.data[cut]
        layer.bias.data = old.bias.data[2:] if new == "one" else old.bias.data
    with pytest.raises(ValueError, match="cannot follow this model: .* would differ by"):
        compare_outputs(exact, wrong, x, {"one": (torch.arange(2, 8), None), "two": (None, None)})


@pytest.mark.parametrize("operation", [shuffled, centred, normalised])
def test_channels_that_are_mixed_stay(operation):
    net = Between(operation, 1).double()
    masks = without(net, "two.weight", (slice(None), [0, 2]))  # two channels that nobody reads
    small = compact(net, masks, X.double())
    assert small.one.out_channels == small.two.in_channels == 8
    if operation is shuffled:  # pairs of channels go, which stay pairs
        with torch.no_grad():
            net.one.bias.zero_()
        with pytest.warns(UserWarning, match=r"2 of one\): of the grid \(2, 4\) .* whole rows go"):
            compact(net, without(net, "one.weight", [2, 5]), X.double())
        masks = without(net, "one.weight", [1, 5])
        small = compact(net, masks, X.double())
        assert small.one.out_channels == small.two.in_channels == 6
        with torch.no_grad(), masked(net, masks):
            torch.testing.assert_close(small(X.double()), net(X.double()))


@pytest.mark.parametrize("head", [1, 1e-6, 0])
@pytest.mark.parametrize("operation", [shuffled, centred])
def test_a_net_that_would_change_is_not_widened(operation, head):
    net = Between(operation, head)
    with pytest.raises(ValueError, match="cannot follow this model: "):
        widen_(net, torch.optim.SGD(net.parameters(), lr=0.1), {"one": 2}, X)
    assert net.one.out_channels == 8


class ReadTwice(nn.Module):
    """The output of the convolution is read by a BatchNorm and, next to nothing of it, by a sum."""

    def __init__(self, share, head):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2)
        self.aside, self.share = nn.Linear(8, 2), share
        self.norm.running_mean.normal_()
        with torch.no_grad():
            for p in (*self.head.parameters(), *self.aside.parameters()):
                p.mul_(head)

    def forward(self, x):
        x = self.conv(x)
        return self.head(self.norm(x).mean((2, 3))) + self.share * self.aside(x.mean((2, 3)))


@pytest.mark.parametrize(("share", "head"), [(1, 1e-4), (1e-3, 1), (0, 1)])
def test_an_output_that_is_read_twice_is_not_folded(share, head):
    with pytest.raises(ValueError, match="must use the output of a layer before a BatchNorm there"):
        fold_norms(ReadTwice(share, head), X)


def test_what_is_equal_is_accepted_whatever_its_scale_and_dtype():
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for head in (1, 1e-4, 0):
            net = Between(torch.relu, head).to(dtype)
            x = X.to(dtype)
            with torch.no_grad():
                net.one.bias[1] = 0.7
            small = compact(net, without(net, "one.weight", [1]), x)
            assert {p.dtype for p in small.parameters()} == {dtype}
            assert (small.one.out_channels, small.two.out_channels) == (7, 8 if head else 1)
            widen_(net, torch.optim.SGD(net.parameters(), lr=0.1), {"one": 2}, x)
            assert net.one.out_channels == 10


def test_a_sum_that_cancels_is_no_difference():
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1, bias=False))
    with torch.no_grad():
        net[0].weight[:] = torch.randn(4) * torch.tensor([[1.0], [1.0], [0.0]])
        net[0].bias.zero_()
        net[1].weight[:] = torch.tensor([[1 / 3, -1 / 3, 1.0]])
    assert compact(net, None, pictures(5, 4))[0].out_features == 2


# What cannot be compared in float64


class InFloat32(nn.Module):
    """A constant that no conversion of the model reaches."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.mix = nn.Linear(4, 3), nn.Linear(3, 2), [torch.eye(3)]

    def forward(self, x):
        return self.two(self.one(x) @ self.mix[0])


def test_a_model_that_does_not_run_in_float64_is_compared_in_its_own_dtype_and_told():
    net, x = InFloat32(), pictures(5, 4)
    with pytest.warns(UserWarning, match="compared in torch.float32 only, since the model does"):
        exact, y = in_float64(net, x)
    assert y.dtype == exact.one.weight.dtype == torch.float32
    compare_outputs(exact, exact, y, {"one": (None, None)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other, _ = in_float64(net, x)
        with torch.no_grad():
            other.two.bias += 1
        with pytest.raises(ValueError, match="its outputs would differ by"):
            compare_outputs(exact, other, y, {})


class Choosing(nn.Sequential):
    def forward(self, x):
        return super().forward(x).argmax(1)


def net_of(*layers):
    return nn.Sequential(nn.Linear(4, 6), *layers)


ONE_LINE = [
    (net_of(), (object(),), "example_input must be a tensor, got a object"),
    (net_of(), torch.tensor(1.0), r"along its first axis, got shape \(\) and torch.float32"),
    (net_of(), torch.ones(4), r"along its first axis, got shape \(4,\) and torch.float32"),
    (net_of(), torch.ones(2, 5), r"must take example_input of shape \(2, 5\), but: .*multiplied"),
    (net_of(), torch.full((2, 4), torch.nan), "outputs of the model must be numbers, got NaN"),
    (Choosing(nn.Linear(4, 6)), torch.ones(2, 4), "outputs of the model must be floating-point"),
    (nn.Sequential(nn.ReLU()), torch.ones(2, 4), "must have a convolution or a linear layer"),
    (
        net_of(nn.utils.parametrizations.weight_norm(nn.Linear(6, 2))),
        torch.ones(2, 4),
        "the weight of 1 must be a parameter, but is computed: remove",
    ),
]


@pytest.mark.parametrize(("net", "x", "message"), ONE_LINE)
def test_what_cannot_be_compacted_is_said_in_one_line(net, x, message):
    with pytest.raises(ValueError, match=message) as caught:
        compact(net, None, x)
    assert "\n" not in str(caught.value)

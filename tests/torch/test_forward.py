"""One forward pass: what it shows of layers and norms, and what it refuses."""

import pytest
import torch
from on_path import make_net
from torch import nn

from dslbi_torch import whole_filters
from dslbi_torch.surgery.costs import count_macs


def test_which_norm_follows_is_seen_in_the_forward_pass():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv2, self.conv1 = nn.Conv2d(4, 4, 1), nn.Conv2d(1, 4, 1)
            self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4)])

        def forward(self, x):
            x = self.norms[1](self.conv1(x))
            return x + self.norms[0](x.relu() + self.conv2(x))  # takes a sum: no filter's own

    net = Net()
    mask = torch.tensor([True, False, True, True]).view(4, 1, 1, 1)
    masks = {"conv1.weight": mask, "conv2.weight": mask.roll(1, 0).expand(4, 4, 1, 1)}
    whole = whole_filters(net, masks, torch.ones(2, 1, 3, 3))
    followers = {"conv1.bias", "conv2.bias", "norms.1.weight", "norms.1.bias"}
    assert set(whole) - set(masks) == followers
    masks["conv2.weight"] = mask.expand(4, 4, 1, 1)  # now nothing is left of a channel of the sum
    whole = whole_filters(net, masks, torch.ones(2, 1, 3, 3))
    assert set(whole) - set(masks) == followers | {"norms.0.weight", "norms.0.bias"}
    assert whole["norms.0.weight"].tolist() == [True, False, True, True]


@pytest.mark.parametrize("example", [torch.randn(2, 3, 8, 8), torch.randn(2, 1, 8, 8).half()])
def test_an_unsuitable_example_is_named(example):
    net = make_net()
    masks = {"0.weight": torch.ones(6, 1, 3, 3, dtype=bool)}
    for ask in (lambda: whole_filters(net, masks, example), lambda: count_macs(net, example)):
        with pytest.raises(ValueError, match=r"the model must take example_input of shape \(2, "):
            ask()
    with pytest.raises(ValueError, match="example_input must be a tensor, got a NoneType"):
        whole_filters(net, masks, None)
    assert net.training

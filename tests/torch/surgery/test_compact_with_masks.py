"""What of masks is left where a net is cut by them."""

import pytest
import torch
from torch import nn

from dslbi_torch import whole_filters
from dslbi_torch.surgery.compact import compact_with_masks


class Net(nn.Module):
    """Everything that has channels: an ordinary, a depthwise and a transposed convolution, a
    BatchNorm, a PReLU, and a layer that reads several inputs of each channel."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.prelu = nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.PReLU(6)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6)
        self.up, self.head = nn.ConvTranspose2d(6, 5, 2), nn.Linear(125, 3)

    def forward(self, x):
        x = self.depthwise(self.prelu(self.norm(self.first(x))))
        return self.head(self.up(x).relu().flatten(1))


def test_masks_are_cut_as_the_tensors_are():
    """Every weight has a value of its own, which says where it was in the whole net."""
    torch.manual_seed(0)
    net, x = Net().double(), torch.randn(2, 2, 8, 8).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(1 + torch.randperm(p.numel()).view(p.shape) / p.numel())
    masks = {n: torch.rand(p.shape) < 0.8 for n, p in net.named_parameters() if p.ndim > 1}
    masks["first.weight"][[1, 4]] = False
    masks["depthwise.weight"][[1, 4]] = False
    masks["up.weight"][:, 2] = False
    masks = whole_filters(net, masks, x)
    small, left = compact_with_masks(net, masks, x)
    assert small.first.out_channels == small.depthwise.groups == small.prelu.num_parameters == 4
    assert (small.up.in_channels, small.up.out_channels) == (4, 4)
    assert small.head.in_features == 100
    assert set(left) == set(masks)
    for name, p in small.named_parameters():
        if name in masks:
            W = net.get_parameter(name).detach()
            kept = torch.isin(p, W[masks[name]])
            assert torch.equal(left[name], kept) and torch.equal(kept, p != 0)
            assert p.ndim == 1 or 0 < int(kept.sum()) < kept.numel()


@pytest.mark.parametrize("layer", [0, 2])
def test_what_is_dead_without_a_mask_is_refused(layer):
    """A row of zeros, and a column that nobody's row makes good."""
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        if layer == 0:
            net[0].weight[0], net[0].bias[0] = 0, 0
        else:
            net[2].weight[:, 0] = 0
    mask = torch.ones(8, 4, dtype=torch.bool)
    mask[3] = False
    shapes = {0: r"0.weight \(6, 4\) would be left, not \(7, 4\)", 2: r"2.weight \(2, 6\) would be"}
    with pytest.raises(ValueError, match=shapes[layer]):
        compact_with_masks(net, {"0.weight": mask, "0.bias": mask[:, 0]}, torch.randn(2, 4))


def test_a_bias_that_takes_up_a_constant_is_kept():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        net[0].bias.fill_(1)
    weights, biases = torch.ones(8, 4, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)
    weights[3] = False
    small, left = compact_with_masks(
        net, {"0.weight": weights, "2.bias": biases}, torch.randn(2, 4)
    )
    assert left["2.bias"].all() and left["0.weight"].shape == (7, 4)
    torch.testing.assert_close(small[2].bias, net[2].weight[:, 3])

"""What is no mask of a model is refused."""

import copy

import pytest
import torch
from on_path import equal, make_net
from torch import nn

from dslbi_torch import MaskedTraining, apply_masks_, masked, whole_filters
from dslbi_torch.masks.checks import check_masks
from dslbi_torch.surgery.costs import layer_costs


def wrong_masks(net):
    good = torch.ones(6, 1, 3, 3, dtype=bool)
    yield {}, "masks must hold at least one tensor"
    yield {"conv9.weight": good}, "has no parameter 'conv9.weight'"
    yield {"0.weight": good[:5]}, r"must have its shape \(6, 1, 3, 3\), got \(5, 1, 3, 3\)"
    yield {"0.weight": good.float()}, "must be a bool tensor, got torch.float32"
    yield {"0.weight": [True]}, "must be a bool tensor, got list"


def test_masks_of_another_model_are_refused_and_nothing_is_changed():
    net = make_net()
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x = torch.zeros(1, 1, 8, 8)
    for masks, message in wrong_masks(net):
        for call in (
            lambda m: check_masks(net, m),
            lambda m: apply_masks_(net, m),
            lambda m: masked(net, m).__enter__(),
            lambda m: MaskedTraining(net, optimizer, m),
            lambda m: whole_filters(net, m, x),
        ):
            with pytest.raises(ValueError, match=message):
                call(masks)
    equal(net.state_dict(), before)


def test_a_shared_weight_is_masked_under_one_name():
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8, bias=False))
    net[2].weight = net[0].weight
    x, mask = torch.randn(2, 8), torch.arange(64).view(8, 8) < 16
    with pytest.raises(ValueError, match="a shared weight must name it 0.weight, got 2.weight"):
        masked(net, {"2.weight": mask}).__enter__()
    costs = layer_costs(net, {"0.weight": mask}, x)
    assert [layer.nonzero for layer in costs.layers] == [16, 16]
    assert set(whole_filters(net, {"0.weight": mask}, x)) == {"0.weight", "0.bias"}

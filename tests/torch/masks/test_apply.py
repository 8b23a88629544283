"""Masks applied to weights within a block."""

import copy

import pytest
import torch
from on_path import equal, make_net, some_masks

from dslbi_torch import apply_masks_, masked


def test_masked_is_zero_inside_and_restored_bit_for_bit():
    net = make_net()
    masks, before = some_masks(net), copy.deepcopy(net.state_dict())
    with masked(net, masks):
        for name, p in net.state_dict().items():
            expected = before[name] * masks[name] if name in masks else before[name]
            torch.testing.assert_close(p, expected, rtol=0, atol=0)
    equal(net.state_dict(), before)
    with pytest.raises(KeyError, match="stop"), masked(net, masks):
        raise KeyError("stop")
    equal(net.state_dict(), before)
    with masked(net, masks):
        inside = copy.deepcopy(net.state_dict())
    assert apply_masks_(net, masks) is net
    equal(net.state_dict(), inside)

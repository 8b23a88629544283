"""Masks of the support, now and at the snapshots of a record."""

import pytest
import torch
from on_path import equal, trained, trained_filters
from one_tensor import group_gamma, split_tensors

from dslbi_torch import recorded_masks, support_masks


def test_recorded_masks_are_the_supports_at_the_snapshots():
    _, _, path, supports = trained(every=4)
    assert path.steps == list(range(0, 41, 4))
    for step in path.steps:
        equal(recorded_masks(path, step), supports[step])
    # there is something to see: single weights left the support again, so entries do not tell it
    left = [supports[k]["5.weight"] & ~supports[-1]["5.weight"] for k in path.steps]
    assert torch.stack(left).any()
    with pytest.raises(ValueError, match=r"step must be one of the recorded ones, got 5: every 4"):
        recorded_masks(path, 5)
    other = trained(n_steps=1, every=4)[2]
    other.load_state_dict(path.state_dict())
    equal(recorded_masks(other, 12), supports[12])
    with pytest.raises(ValueError, match="single weights need elements=True"):
        recorded_masks(trained(elements=False)[2], 40)


def test_support_masks_are_the_support_of_gamma():
    net, optimizer, _, _ = trained_filters()
    masks = support_masks(optimizer)
    assert set(masks) == {"0.weight", "3.weight"}
    for name, W, V, group in split_tensors(optimizer):
        assert masks[name].shape == W.shape
        assert masks[name].dtype == torch.bool
        torch.testing.assert_close(masks[name], group_gamma(V, group) != 0)
        assert 0 < masks[name].float().mean() < 1

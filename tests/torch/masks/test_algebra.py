"""Masks combined and compared."""

import pytest
import torch
from on_path import make_net, some_masks

from dslbi_torch.masks.algebra import intersection, nested, union


def test_union_intersection_and_nestedness():
    net = make_net()
    a, b = some_masks(net, 0), some_masks(net, 1)
    both, either = intersection(a, b), union(a, b)
    for name in a:
        torch.testing.assert_close(both[name], a[name] & b[name])
        torch.testing.assert_close(either[name], a[name] | b[name])
    assert nested(both, a, either)
    assert nested(a, a)
    assert not nested(a, b)
    with pytest.raises(ValueError, match="masks must be of the same tensors"):
        union(a, {"0.weight": a["0.weight"]})
    for combine in (union, intersection, nested):
        with pytest.raises(ValueError, match="at least one dict of masks must be given, got none"):
            combine()
        with pytest.raises(ValueError, match="masks must hold at least one tensor, got none"):
            combine({}, {})
        with pytest.raises(ValueError, match="must be a bool tensor, got torch.float32"):
            combine({"w": torch.tensor([0.5])}, {"w": torch.tensor([0.5])})


def test_masks_of_other_tensors_are_named():
    a, b = torch.ones(2, 2, dtype=bool), torch.ones(3, 2, dtype=bool)
    with pytest.raises(ValueError, match=r"got of y \(2, 2\) and \(3, 2\)"):
        union({"x": a, "y": a}, {"x": a, "y": b})
    with pytest.raises(ValueError, match=r"got of y \(2, 2\) and none"):
        union({"x": a, "y": a}, {"x": a})

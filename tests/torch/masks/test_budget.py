"""Masks of a given density: of a ranking, and drawn at random."""

import copy

import pytest
import torch
from on_path import equal, make_net, trained

from dslbi_torch import (
    density_curve,
    entry_ranking,
    gamma_ranking,
    magnitude_ranking,
    random_masks,
    ranked_masks,
    split_groups,
    whole_filters,
)
from dslbi_torch.masks.algebra import nested


@pytest.mark.parametrize("per_layer", [False, True])
def test_masks_of_one_order_are_nested_and_as_dense_as_asked(per_layer):
    _, _, path, _ = trained()
    densities = (1e-9, 0.01, 0.1, 0.35, 0.7, 0.99, 1)
    masks = [ranked_masks(entry_ranking(path), d, per_layer=per_layer) for d in densities]
    assert nested(*masks)
    assert not nested(*masks[::-1])
    for d, mask in zip(densities, masks, strict=True):
        parts = (
            list(mask.values()) if per_layer else [torch.cat([m.flatten() for m in mask.values()])]
        )
        for part in parts:
            share = part.float().mean()
            largest = max(54, 9) / part.numel()  # a filter of 1x3x3 or 6x3x3
            assert share <= d + 1e-6 or part.sum() in (1, 9, 54)  # one group at least
            assert share > d - largest
    assert all(m.all() for m in masks[-1].values())


@pytest.mark.parametrize("density", [0, -0.5, 1.5, float("nan"), "0.5", None])
def test_a_density_outside_its_interval_is_refused(density):
    order = gamma_ranking(trained()[1])
    with pytest.raises(ValueError, match=r"density must be in \(0, 1\], got"):
        ranked_masks(order, density)


def test_tensors_may_have_densities_of_their_own():
    order = magnitude_ranking(split_groups(make_net()))
    names = list(order.place)[:2]
    masks = ranked_masks(order, dict(zip(names, (0.5, 0.25), strict=True)))
    assert list(masks) == names
    for share in (0.5, 0.25):
        one = ranked_masks(order, share, per_layer=True)
        name = names[0] if share == 0.5 else names[1]
        torch.testing.assert_close(masks[name], one[name])
    with pytest.raises(ValueError, match="density must name ranked tensors, got 'x'"):
        ranked_masks(order, {"x": 0.5})


def test_a_curve_sees_the_net_under_each_mask_and_leaves_it_as_it_was():
    net = make_net()
    order = magnitude_ranking(split_groups(net, conv="l1", linear="l1"))
    weights = [net[0].weight, net[3].weight, net[5].weight]
    total = sum(W.numel() for W in weights)
    before = copy.deepcopy(net.state_dict())
    curve = density_curve(net, order, lambda net: sum(int(W.count_nonzero()) for W in weights))
    assert curve == {D: int(D * total + 1e-9) for D in (1, 0.2, 0.1, 0.05, 0.025, 0.01)}
    equal(net.state_dict(), before)


def test_random_masks_have_the_layers_densities_and_keep_whole_filters():
    masks = trained()[3][-1]
    drawn = random_masks(masks, seed=1)
    equal(drawn, random_masks(masks, seed=1))
    for name, mask in masks.items():
        assert drawn[name].sum() == mask.sum()
        assert 0 < mask.sum() < mask.numel()
    for name in ("0.weight", "3.weight"):
        filters = drawn[name].flatten(1)
        torch.testing.assert_close(filters.any(1), filters.all(1))
    many = torch.stack([random_masks(masks, seed=s)["5.weight"] for s in range(200)]).float()
    mean, share = many.mean(0), masks["5.weight"].float().mean()
    torch.testing.assert_close(mean, share.expand(mean.shape), atol=0.2, rtol=0)


def test_drawing_refuses_what_follows_a_filter():
    net = make_net()
    masks = {"0.weight": torch.arange(6).view(6, 1, 1, 1).expand(6, 1, 3, 3) < 3}
    with pytest.raises(ValueError, match="masks must be of weights only, got one of 0.bias too"):
        random_masks(whole_filters(net, masks, torch.randn(2, 1, 8, 8)))
    assert random_masks({"b": torch.arange(6) < 2})["b"].sum() == 2
    with pytest.raises(ValueError, match="masks must hold at least one tensor"):
        random_masks({})
    with pytest.raises(ValueError, match="must be a bool tensor, got torch.float32"):
        random_masks({"a": torch.rand(3, 3)})

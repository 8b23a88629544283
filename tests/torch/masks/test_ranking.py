"""Orders of importance: by entry, by Gamma, by magnitude."""

import pytest
import torch
import vectors
from on_path import equal, make_net, trained
from one_tensor import group_gamma, split_tensors
from torch import nn

from dslbi_torch import (
    DessiLBI,
    entry_ranking,
    gamma_ranking,
    magnitude_ranking,
    ranked_masks,
    split_groups,
    support_masks,
)
from dslbi_torch.masks.algebra import union


def test_the_entry_order_is_that_of_the_supports():
    _, optimizer, path, supports = trained()
    order = entry_ranking(path)
    assert sum(p.numel() for p in order.place.values()) == 6 + 4 + 192
    flat = torch.cat([p.flatten() for p in order.place.values()])
    torch.testing.assert_close(flat.sort().values, torch.arange(202), rtol=0, atol=0)
    entered = supports[0]
    for k in (8, 15, 20, 40):
        entered = union(*supports[: k + 1])  # what had entered by then, at that very density
        n = sum(int(m.sum()) for m in entered.values())
        total = sum(m.numel() for m in entered.values())
        assert 0 < n < total
        equal(ranked_masks(order, n / total), entered)
    # ties by the norm in Gamma
    steps, place = path.entry_steps("0.weight"), order.place["0.weight"].flatten()
    norms = gamma_norms(optimizer, "0.weight")
    pairs = [(i, j) for i in range(6) for j in range(6) if steps[i] == steps[j] and i != j]
    for i, j in pairs:
        assert norms[i] <= norms[j] or place[i] < place[j]


def gamma_norms(optimizer, wanted):
    (V, group) = next((V, g) for name, _, V, g in split_tensors(optimizer) if name == wanted)
    return group_gamma(V, group).flatten(1).norm(dim=1)


def test_the_gamma_order_puts_the_nearest_to_entering_behind_what_is_selected():
    _, optimizer, _, supports = trained()
    order = gamma_ranking(optimizer)
    selected = sum(int(m.sum()) for m in supports[-1].values())
    total = sum(m.numel() for m in supports[-1].values())
    equal(ranked_masks(order, selected / total), supports[-1])
    for name, _, V, group in split_tensors(optimizer):
        key = V.abs() if group["penalty"] == "l1" else V.flatten(1).norm(dim=1)
        place = order.place[name].flatten()
        # within a tensor of one level both keys grow with the norm of V
        torch.testing.assert_close(place.argsort(), key.flatten().argsort(descending=True))


def test_magnitude_ranks_groups_of_any_net_by_their_norm():
    net = make_net()
    groups = split_groups(net, conv="group", linear="l1")
    masks = ranked_masks(magnitude_ranking(groups), 0.5, per_layer=True)
    norms = net[0].weight.detach().flatten(1).norm(dim=1)
    expected = norms >= norms.sort().values[3]
    torch.testing.assert_close(masks["0.weight"].flatten(1).all(1), expected)
    torch.testing.assert_close(masks["0.weight"].flatten(1).any(1), expected)
    size = net[5].weight.detach().abs()
    torch.testing.assert_close(masks["5.weight"], size > size.median())
    equal(ranked_masks(magnitude_ranking(DessiLBI(groups, lr=0.1)), 0.5, per_layer=True), masks)
    with pytest.raises(ValueError, match="the groups split nothing"):
        magnitude_ranking([dict(params=[("w", net[0].weight)], penalty=None)])


def test_a_normalised_order_does_not_see_the_scale_of_a_layer():
    orders = {}
    for scale in (1, 1024):
        shapes = {"a": (12, 5), "b": (9, 4)}
        groups = [
            dict(
                params=[(n, nn.Parameter(torch.tensor(vectors.array(shape, seed=i))))],
                lam=1.0 * scale if n == "b" else 1.0,
                penalty="group",
            )
            for i, (n, shape) in enumerate(shapes.items())
        ]
        optimizer = DessiLBI(groups)
        for name, W, V, _ in split_tensors(optimizer):
            c = scale if name == "b" else 1
            W.data.mul_(c)
            optimizer.state[W]["V"] = V + 0.8 * W.detach() + 0.1 * c
        masks = support_masks(optimizer)
        assert all(0 < mask.float().mean() < 1 for mask in masks.values())
        orders[scale] = [gamma_ranking(optimizer, normalised=x).place for x in (False, True)]
    equal(orders[1][1], orders[1024][1])
    plain, normalised = orders[1024]
    entered = masks["b"][:, :1]
    assert plain["b"][entered].max() < plain["a"].min()  # what is large comes first
    assert normalised["b"][entered].max() > normalised["a"].min()
    for name in shapes:  # within a tensor the order is the same
        assert torch.equal(*(x[name].flatten().argsort() for x in (plain, normalised)))


def test_a_recorder_that_was_attached_late_knows_no_order():
    _, _, path, supports = trained(attach_at=20)
    assert any(m.any() for m in supports[20].values())
    with pytest.raises(ValueError, match="but was attached late"):
        entry_ranking(path)
    assert len(entry_ranking(trained(attach_at=1)[2]).place) == 3  # nothing was selected yet


def test_what_diverged_is_not_ranked():
    net, optimizer, path, _ = trained()
    optimizer.state[net[0].weight]["V"][0, 0, 0, 0] = torch.nan
    for rank in (lambda: gamma_ranking(optimizer), lambda: entry_ranking(path)):
        with pytest.raises(ValueError, match="must not be NaN"):
            rank()


def test_a_ranking_refuses_no_density_and_nan_weights():
    net = make_net()
    optimizer = DessiLBI(split_groups(net), lr=0.1)
    with pytest.raises(ValueError, match="density must name at least one of the ranked tensors"):
        ranked_masks(gamma_ranking(optimizer), {})
    with torch.no_grad():
        net[0].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="must not be NaN"):
        gamma_ranking(optimizer, normalised=True)

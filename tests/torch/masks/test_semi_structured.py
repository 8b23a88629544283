"""2:4 sparsity: the projection, and where it runs."""

import pytest
import torch
from torch import nn

from dslbi_torch import apply_masks_
from dslbi_torch.masks.semi_structured import has_kernels, semi_structured, two_four_masks


def net_and_masks():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 5))
    masks = {name: torch.rand(p.shape) < 0.6 for name, p in net.named_parameters() if p.ndim > 1}
    return net, masks


def test_two_of_four_stay_and_they_are_the_largest_of_those_kept():
    net, masks = net_and_masks()
    del masks["3.weight"]
    projected = two_four_masks(net, masks)
    assert set(projected) == {"0.weight", "2.weight", "3.weight"}
    assert projected["0.weight"] is masks["0.weight"]
    for name in ("2.weight", "3.weight"):
        W, mask = net.get_parameter(name).detach(), projected[name].unflatten(1, (-1, 4))
        before = masks.get(name, torch.ones_like(W, dtype=bool)).unflatten(1, (-1, 4))
        torch.testing.assert_close(mask.sum(-1), before.sum(-1).clamp(max=2))
        assert not (mask & ~before).any()
        # the nearest such matrix: what is lost is what is smallest
        size = (W.unflatten(1, (-1, 4)) * before).square()
        best = size.sort(-1, descending=True).values[..., :2].sum(-1)
        torch.testing.assert_close((size * mask).sum(-1), best)


def test_odd_numbers_of_inputs_keep_their_masks():
    net = nn.Linear(6, 3)
    masks = {"weight": torch.rand(3, 6) < 0.5}
    assert two_four_masks(net, masks)["weight"] is masks["weight"]


def test_where_there_are_no_kernels_it_says_what_zeros_are_good_for():
    net, masks = net_and_masks()
    assert not has_kernels("cpu")
    with pytest.raises(ValueError, match="got cpu: there single zeros make a model smaller on di"):
        semi_structured(net, masks)


@pytest.mark.gpu
def test_sparse_kernels_say_what_the_projected_net_says():
    if not has_kernels("cuda"):
        pytest.skip("needs a GPU with 2:4 sparse kernels")
    net = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 64)).cuda().half()
    masks = {"0.weight": torch.rand(256, 128) < 0.5}
    sparse = semi_structured(net, masks)
    expected = apply_masks_(net, two_four_masks(net, masks))
    x = torch.randn(64, 128, device="cuda", dtype=torch.float16)
    torch.testing.assert_close(sparse(x), expected(x), rtol=1e-2, atol=1e-2)
    with pytest.raises(ValueError, match="in float16 or bfloat16 whose sizes are multiples of 64"):
        semi_structured(net.float(), masks)


def test_a_shared_weight_is_projected_under_its_first_name():
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8, bias=False))
    net[1].weight = net[0].weight
    projected = two_four_masks(net, {"0.weight": torch.ones(8, 8, dtype=bool)})
    assert set(projected) == {"0.weight"}
    assert int(apply_masks_(net, projected)[1].weight.count_nonzero()) == 32


def test_a_net_without_parameters_is_refused():
    with pytest.raises(ValueError, match="masks must hold at least one tensor"):
        semi_structured(nn.Sequential(), {})

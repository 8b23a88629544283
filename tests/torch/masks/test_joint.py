"""Masks, rankings and densities of units that extend over several tensors, and of heads.

A joint family of two convolutions is one matrix whose k-th row holds the k-th filters of both: a
matrix of the same values, with rows as groups, says what every mask, order and density must be.
"""

import pytest
import torch
from torch import nn

from dslbi_torch import (
    DessiLBI,
    PathRecorder,
    compact,
    density,
    density_table,
    entry_ranking,
    gamma_ranking,
    gamma_weights,
    magnitude_ranking,
    ranked_masks,
    recorded_masks,
    sparse_weights,
    support_masks,
    whole_filters,
    widen_,
)
from dslbi_torch.masks.ranking import scale_ranking

OPTIONS = dict(lr=0.1, nu=1.0, lam=0.5, penalty="group", momentum=0.9)


class Stream(nn.Module):
    """Two convolutions whose outputs are added, a head, and a layer that is split by itself."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(2, 6, 3, bias=False), nn.Conv2d(2, 6, 1, bias=False)
        self.norm_a, self.norm_b = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4, bias=False)

    def forward(self, x):
        y = self.norm_a(self.a(x)) + self.norm_b(self.b(x[..., 1:-1, 1:-1]))
        return self.head(y.relu().mean((2, 3)))


def groups(net):
    stream = dict(params=[("a.weight", net.a.weight), ("b.weight", net.b.weight)], joint=True)
    return [stream | dict(penalty="group"), dict(params=[("head.weight", net.head.weight)])]


def row(a, b):
    """The matrix whose k-th row holds the k-th filters of both."""
    return torch.cat([a.flatten(1), b.flatten(1)], 1)


def trained(steps):
    """The stream after some steps, its record, and the same of the matrix."""
    net = Stream().double()
    ours = DessiLBI(groups(net), **OPTIONS)
    matrix = nn.Parameter(row(net.a.weight, net.b.weight).detach().clone())
    head = nn.Parameter(net.head.weight.detach().clone())
    other = nn.ParameterDict({"matrix": matrix, "head": head})
    theirs = DessiLBI(list(other.named_parameters()), **OPTIONS)
    paths = [PathRecorder(optimizer) for optimizer in (ours, theirs)]
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for p in (net.a.weight, net.b.weight, net.head.weight):
            size = torch.linspace(0.2, 1, len(p)).view(-1, *[1] * (p.ndim - 1))  # rows differ
            p.grad = size * torch.randn(p.shape, generator=generator, dtype=p.dtype)
        matrix.grad, head.grad = row(net.a.weight.grad, net.b.weight.grad), net.head.weight.grad
        ours.step()
        theirs.step()
    return net, ours, paths[0], other, theirs, paths[1]


@pytest.fixture(scope="module")
def run():
    found = trained(8)
    assert 0 < support_masks(found[1])["a.weight"].float().mean() < 1, "needs a partial selection"
    return found


def check_equal(masks, of_matrix):
    assert torch.equal(row(masks["a.weight"], masks["b.weight"]), of_matrix["matrix"])
    assert torch.equal(masks["head.weight"], of_matrix["head"])


def test_masks_are_spread_to_every_tensor(run):
    net, ours, path, _, theirs, their_path = run
    check_equal(support_masks(ours), support_masks(theirs))
    supports = set()
    for step in path.steps:
        masks = recorded_masks(path, step)
        check_equal(masks, recorded_masks(their_path, step))
        supports.add(int(masks["b.weight"].sum()))
    assert len(supports) > 2
    before = net.a.weight.detach().clone()
    for swapped in (sparse_weights, gamma_weights):
        with swapped(ours), swapped(theirs):
            weights = row(net.a.weight, net.b.weight)
            torch.testing.assert_close(weights, run[3]["matrix"], rtol=1e-12, atol=1e-12)
            assert not weights[:, 0].all()
    assert torch.equal(net.a.weight, before)


@pytest.mark.parametrize(
    "ranking",
    [
        lambda optimizer, path: gamma_ranking(optimizer),
        lambda optimizer, path: gamma_ranking(optimizer, normalised=True),
        lambda optimizer, path: entry_ranking(path),
        lambda optimizer, path: magnitude_ranking(optimizer),
    ],
    ids=["gamma", "normalised", "entry", "magnitude"],
)
@pytest.mark.parametrize("per_layer", [False, True])
def test_joint_units_are_ranked_once(run, ranking, per_layer):
    _, ours, path, _, theirs, their_path = run
    order, of_matrix = ranking(ours, path), ranking(theirs, their_path)
    assert order.families == [("a.weight", "b.weight"), ("head.weight",)]
    for name in ("a.weight", "b.weight"):
        assert torch.equal(order.place[name].flatten(), of_matrix.place["matrix"].flatten())
    for share in (0.01, 0.2, 0.4, 0.5, 0.77, 1):
        masks = ranked_masks(order, share, per_layer=per_layer)
        check_equal(masks, ranked_masks(of_matrix, share, per_layer=per_layer))


def test_a_share_of_one_tensor_is_that_of_its_family(run):
    order = magnitude_ranking(run[1])
    masks = ranked_masks(order, {"b.weight": 0.5})
    assert set(masks) == {"a.weight", "b.weight"}
    of_matrix = ranked_masks(magnitude_ranking(run[4]), {"matrix": 0.5})["matrix"]
    assert torch.equal(row(masks["a.weight"], masks["b.weight"]), of_matrix)
    same = ranked_masks(order, {"b.weight": 0.5, "a.weight": 0.5})
    assert all(torch.equal(same[name], mask) for name, mask in masks.items())
    with pytest.raises(ValueError, match="share units one share, got 0.5 and 0.2 for a.weight"):
        ranked_masks(order, {"b.weight": 0.5, "a.weight": 0.2})


def test_magnitude_of_groups_without_an_optimizer(run):
    net = run[0]
    (stream, head), order = groups(net), magnitude_ranking(run[1])
    other = magnitude_ranking([stream, head | dict(penalty="group")])
    assert all(torch.equal(other.place[name], place) for name, place in order.place.items())
    with pytest.raises(ValueError, match='the groups split nothing: none has penalty "l1"'):
        magnitude_ranking([head])


def test_scales_of_joint_filters_are_ranked_by_their_norm():
    net = Stream()
    with torch.no_grad():
        net.norm_a.weight.copy_(torch.tensor([3.0, 0, 5, 1, 0, 2]))
        net.norm_b.weight.copy_(torch.tensor([4.0, 2, 0, 1, 1, 6]))
    order = scale_ranking(groups(net)[:1], net, torch.randn(2, 2, 8, 8))
    assert order.place["a.weight"].flatten().tolist() == [1, 3, 2, 4, 5, 0]  # sqrt(40) > 5 = 5 > 2
    assert torch.equal(order.place["a.weight"], order.place["b.weight"])


def test_densities_count_units_of_the_family_and_entries_of_the_tensor(run):
    net, ours, _, other, theirs, _ = run
    report, of_matrix = density(ours, net), density(theirs, other)
    assert report.nonzero_split == of_matrix.nonzero_split
    a, b, head = report.layers
    matrix = {layer.name: layer for layer in of_matrix.layers}["matrix"]
    assert a.units == b.units == matrix.units == 6
    assert a.units_selected == b.units_selected == matrix.units_selected
    assert (a.size, b.size, a.nonzero + b.nonzero) == (6 * 18, 6 * 2, matrix.nonzero)
    assert a.nonzero == 18 * a.units_selected and head.units == 4
    assert f"{a.units_selected}/6" in density_table(report)


def test_dead_channels_of_the_stream_are_cut():
    """No writer of a dead channel is left alone, which is what joint units are for."""
    net, optimizer = trained(8)[:2]
    x = torch.randn(4, 2, 8, 8).double()
    masks = whole_filters(net, support_masks(optimizer), x)
    alive = density(optimizer, net).layers[0].units_selected
    small = compact(net, masks, x)
    assert 0 < alive < 6
    assert small.a.out_channels == small.b.out_channels == small.head.in_features == alive
    with sparse_weights(optimizer), torch.no_grad():
        dead = ~masks["norm_a.bias"]
        for norm in (net.norm_a, net.norm_b):
            norm.bias[dead] = 0
        torch.testing.assert_close(small.eval()(x), net.eval()(x), rtol=1e-12, atol=1e-12)


def test_a_widened_stream_has_more_joint_units():
    net, optimizer = trained(8)[:2]
    norms = [(name, p) for name, p in net.named_parameters() if name.startswith("norm")]
    optimizer.add_param_group(dict(params=norms, penalty=None))
    before = support_masks(optimizer)
    widen_(net, optimizer, {"a": 2}, torch.randn(4, 2, 8, 8).double())
    layers = {layer.name: layer for layer in density(optimizer, net).layers}
    assert layers["a.weight"].units == layers["b.weight"].units == 8
    after = support_masks(optimizer)
    for name in ("a.weight", "b.weight"):
        assert torch.equal(after[name][:6], before[name]) and not after[name][6:].any()


def test_heads_are_masked_and_counted_as_one():
    """A fused qkv of two heads of three: rows 0-2, 6-8 and 12-14 are the first head."""
    torch.manual_seed(0)
    net = nn.Linear(5, 18, bias=False).double()
    rows = torch.arange(18) % 6 < 3
    with torch.no_grad():
        net.weight[~rows] *= 1.5
    group = dict(params=[("weight", net.weight)], penalty="group", block=3, parts=3)
    optimizer = DessiLBI([group], lr=0.1, nu=0.1, lam=2.5)
    order = magnitude_ranking(optimizer)
    assert torch.equal(order.place["weight"].flatten(), rows.long())
    mask = ranked_masks(order, 0.9)["weight"]
    assert mask.shape == (18, 5) and torch.equal(mask, ~rows[:, None].expand(18, 5))
    assert ranked_masks(order, 1)["weight"].all()
    path = PathRecorder(optimizer)
    while not support_masks(optimizer)["weight"].any():
        net.weight.grad = torch.zeros_like(net.weight)
        optimizer.step()
    mask = support_masks(optimizer)["weight"]
    assert torch.equal(mask, ~rows[:, None].expand(18, 5)), "the larger head enters first"
    assert torch.equal(recorded_masks(path, path.step)["weight"], mask)
    assert torch.equal(gamma_ranking(optimizer).place["weight"].flatten(), rows.long())
    assert torch.equal(entry_ranking(path).place["weight"].flatten(), rows.long())
    (layer,) = density(optimizer, net).layers
    assert (layer.units, layer.units_selected, layer.nonzero, layer.size) == (2, 1, 45, 90)

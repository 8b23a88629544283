"""Freezing selected filters, and drawing the others anew: the defects of the authors' toolbox.

There the gradient alone of a frozen filter was zeroed, entries were frozen by being zero now, new
weights were written to a copy, a bias was never reset, and orthogonal filters spanned the old ones.
"""

import copy
from functools import partial

import pytest
import torch
import vectors
from one_tensor import split_tensors
from torch import nn

from dslbi_torch import (
    DessiLBI,
    FrozenTraining,
    MaskedTraining,
    Split,
    reinitialise_,
    split_groups,
    support_masks,
    whole_filters,
)

X = torch.tensor(vectors.images(16, (1, 8, 8), 3)[0], dtype=torch.float32)
Y = torch.tensor(vectors.images(16, (1, 8, 8), 3)[1])


def make_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


def dessilbi(net, **options):
    groups = split_groups(net, conv="group", linear="l1", nu=2.0, lam=0.05, weight_decay=0.01)
    return DessiLBI(groups, lr=0.05, **options)


OPTIMIZERS = {
    "dessilbi": dessilbi,
    "dessilbi-inside": lambda net: dessilbi(net, coupling="inside"),
    "dessilbi-foreach": lambda net: dessilbi(net, foreach=True),
    "sgd": lambda net: torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda net: torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1),
    "split": lambda net: Split(
        torch.optim.AdamW(split_groups(net, lam=0.05, linear="l1"), lr=0.01), nu=2.0
    ),
}


def train(net, optimizer, steps=3):
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(X), Y).backward()
        optimizer.step()


def half(net):
    """Masks of every second filter, with its bias and BatchNorm."""
    masks = {}
    for name in ("0.weight", "3.weight"):
        W = net.get_parameter(name)
        masks[name] = torch.zeros_like(W, dtype=bool)
        masks[name][::2] = True
    return whole_filters(net, masks, X)


def states(optimizer, W):
    found = optimizer.state.get(W, {})
    return {k: x.clone() for k, x in found.items() if torch.is_tensor(x) and x.shape == W.shape}


def exactly(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("before", [0, 3])
def test_frozen_entries_stay_bit_equal_and_the_others_train(name, before):
    net = make_net()
    optimizer = OPTIMIZERS[name](net)
    train(net, optimizer, before)  # momentum and V of the frozen entries are not zero then
    masks = half(net)
    weights = {n: p.detach().clone() for n, p in net.named_parameters()}
    duals = {n: states(optimizer, p) for n, p in net.named_parameters()}
    frozen = FrozenTraining(net, optimizer, masks, freeze="kept")
    train(net, optimizer)
    for n, mask in masks.items():
        W = net.get_parameter(n)
        exactly(W[mask], weights[n][mask])
        assert (W != weights[n])[~mask].all()
        assert not W.grad[mask].any()
        own = states(optimizer, W)
        assert own
        for key, value in own.items():
            exactly(value[mask], duals[n].get(key, torch.zeros_like(value))[mask])
            assert value[~mask].any()
    frozen.detach()
    train(net, optimizer)
    assert all((net.get_parameter(n) != weights[n])[mask].all() for n, mask in masks.items())


def test_zeroing_the_gradient_alone_would_not_freeze():
    """What the toolbox does: momentum, decay and the pull move the weight and V all the same."""
    net = make_net()
    optimizer = dessilbi(net)
    train(net, optimizer)
    mask = half(net)["0.weight"]
    W = net[0].weight
    before, V = W.detach().clone(), optimizer.state[W]["V"].clone()
    net(X).sum().backward()
    W.grad[mask] = 0
    optimizer.step()
    assert (W != before)[mask].all() and (optimizer.state[W]["V"] != V)[mask].all()


def test_the_stored_mask_decides_and_not_what_is_zero_now():
    net = make_net()
    with torch.no_grad():
        net[0].weight[0, 0, 0, 0] = 0  # frozen, and zero
        net[0].weight[1, 0, 0, 0] = 0  # trained, and zero
    optimizer = dessilbi(net)
    FrozenTraining(net, optimizer, half(net), freeze="kept")
    train(net, optimizer)
    assert net[0].weight[0, 0, 0, 0] == 0 != net[0].weight[1, 0, 0, 0]


def test_frozen_selected_filters_stay_selected_while_others_enter():
    net = make_net()
    optimizer = dessilbi(net)
    train(net, optimizer, 4)
    first = support_masks(optimizer)
    assert 0 < first["0.weight"].float().mean() < 1
    FrozenTraining(net, optimizer, whole_filters(net, first, X), freeze="kept")
    train(net, optimizer, 60)
    after = support_masks(optimizer)
    assert all(after[n][mask].all() for n, mask in first.items())
    assert after["0.weight"].sum() > first["0.weight"].sum()


def test_frozen_training_goes_on_from_a_checkpoint():
    nets = [make_net() for _ in range(2)]
    optimizers = [dessilbi(net) for net in nets]
    train(nets[0], optimizers[0])
    masks = half(nets[0])
    FrozenTraining(nets[0], optimizers[0], masks, freeze="kept")
    train(nets[0], optimizers[0])
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    FrozenTraining(nets[1], optimizers[1], masks, freeze="kept")
    for net, optimizer in zip(nets, optimizers, strict=True):
        train(net, optimizer)
    for a, b in zip(*(net.parameters() for net in nets), strict=True):
        exactly(a, b)


def test_what_cannot_be_frozen_is_refused():
    net = make_net()
    masks, optimizer = half(net), dessilbi(net)
    with pytest.raises(ValueError, match="the optimizer must have the masked parameter 0.weight"):
        FrozenTraining(net, torch.optim.SGD(net[5].parameters(), lr=0.1), masks, freeze="kept")
    with pytest.raises(ValueError, match="must have its shape"):
        FrozenTraining(net, optimizer, {"0.weight": torch.ones(1, dtype=bool)}, freeze="kept")
    held = MaskedTraining(net, optimizer, {n: torch.ones_like(m) for n, m in masks.items()})
    for refused in (partial(FrozenTraining, freeze="kept"), reinitialise_):
        with pytest.raises(ValueError, match="0.weight is under masks already"):
            refused(net, optimizer, masks)
    held.detach()
    with pytest.raises(ValueError, match='freeze must be "kept" or "removed", got True'):
        FrozenTraining(net, optimizer, masks, freeze=True)
    FrozenTraining(net, optimizer, masks, freeze="kept").detach()


def test_the_rest_can_be_frozen_by_the_same_masks():
    net = make_net()
    optimizer, masks = dessilbi(net), half(net)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    FrozenTraining(net, optimizer, masks, freeze="removed")
    train(net, optimizer)
    for n, mask in masks.items():
        W = net.get_parameter(n)
        exactly(W[~mask], before[n][~mask])
        assert (W != before[n])[mask].all()
    assert (net[5].weight != before["5.weight"]).any()  # a parameter without a mask trains on


# Drawing anew


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("orthogonal", [False, True])
def test_unselected_filters_are_drawn_anew_and_selected_ones_left(name, orthogonal):
    net = make_net()
    optimizer = OPTIMIZERS[name](net)
    train(net, optimizer)
    masks = half(net)
    before = copy.deepcopy(net.state_dict())
    duals = {n: states(optimizer, p) for n, p in net.named_parameters()}
    reinitialise_(net, optimizer, masks, orthogonal=orthogonal)
    for n, value in net.state_dict().items():
        mask = masks.get(n.replace("running_mean", "weight").replace("running_var", "weight"))
        if mask is None:  # the linear layer, and the count of batches
            exactly(value, before[n])
            continue
        exactly(value[mask], before[n][mask])
        assert (value != before[n])[~mask].all()  # the biases of the convolutions too
    for n, mask in masks.items():
        own = states(optimizer, net.get_parameter(n))
        assert own
        for key, value in own.items():
            exactly(value[mask], duals[n][key][mask])
            assert not value[~mask].any()
    norm = net[1]
    assert (norm.weight[1::2] == 1).all() and not norm.bias[1::2].any()
    assert not norm.running_mean[1::2].any() and (norm.running_var[1::2] == 1).all()
    drawn = net[3].weight[1::2]
    assert orthogonal or drawn.abs().max() <= (6 * 9) ** -0.5  # as the layer draws them


def test_what_is_drawn_anew_has_to_be_selected_anew():
    net = make_net()
    optimizer = dessilbi(net)
    train(net, optimizer, 60)
    assert support_masks(optimizer)["3.weight"].all()
    reinitialise_(net, optimizer, half(net))
    assert support_masks(optimizer)["3.weight"].flatten(1).all(1).tolist() == [True, False] * 2
    train(net, optimizer, 60)
    assert support_masks(optimizer)["3.weight"].all()


def test_orthogonal_filters_are_orthogonal_to_the_old_ones_and_to_each_other():
    net = make_net()
    masks, optimizer = half(net), dessilbi(net.double())
    reinitialise_(net, optimizer, masks, orthogonal=True)
    W = net[3].weight.detach().flatten(1)
    products = W @ W.T
    products.fill_diagonal_(0)
    products[::2, ::2] = 0  # the old ones among themselves
    torch.testing.assert_close(products, torch.zeros(4, 4).double(), rtol=0, atol=1e-14)
    assert (W[1::2].norm(dim=1) > 0.3).all()


@pytest.mark.parametrize("groups", [1, 2])
def test_orthogonal_filters_of_a_transposed_convolution_are_its_outputs(groups):
    torch.manual_seed(0)
    net = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, bias=False, groups=groups)).double()
    mask = torch.ones_like(net[0].weight, dtype=bool)
    mask[: 4 // groups, 1] = False  # the second output, of the first group
    before = net[0].weight.detach().clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    reinitialise_(net, optimizer, {"0.weight": mask}, orthogonal=True)
    W = net[0].weight.detach()
    assert torch.equal(W[mask], before[mask]) and not (W == before)[~mask].any()
    per_group = W.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flatten(1)
    products = per_group[1] @ per_group[[0, 2, 3, 4, 5]].T
    torch.testing.assert_close(products, torch.zeros(5).double(), rtol=0, atol=1e-14)
    assert per_group[1].norm() > 0.1


def test_single_weights_can_be_drawn_anew():
    net = make_net()
    optimizer = dessilbi(net)
    train(net, optimizer)
    before = net[5].weight.detach().clone()
    mask = {"5.weight": torch.rand(before.shape) < 0.5}
    reinitialise_(net, optimizer, mask)
    assert torch.equal(net[5].weight == before, mask["5.weight"])


def test_drawing_is_refused_before_anything_changes():
    net = nn.Sequential(nn.Linear(2, 5), nn.Linear(5, 5))
    net[1].w = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    masks = {"1.weight": torch.zeros(5, 5, dtype=bool), "0.weight": torch.zeros(5, 2, dtype=bool)}
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match="at most as many filters .*, got 5 of 2 in 0.weight"):
        reinitialise_(net, optimizer, masks, orthogonal=True)
    for n, value in net.state_dict().items():
        exactly(value, before[n])

    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(3))

    with pytest.raises(ValueError, match="the model must be able to draw .* Bare has no reset"):
        bare = Bare()
        reinitialise_(bare, optimizer, {"w": torch.zeros(3, dtype=bool)})


def test_split_tensors_still_name_what_was_frozen():
    net = make_net()
    optimizer = dessilbi(net)
    FrozenTraining(net, optimizer, half(net), freeze="kept")
    assert [n for n, *_ in split_tensors(optimizer)] == ["0.weight", "3.weight", "5.weight"]


def test_the_callers_masks_may_change_afterwards():
    net, x = nn.Linear(4, 3), torch.randn(5, 4)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    frozen = {"weight": torch.arange(12).view(3, 4) < 6}
    kept = net.weight.detach()[frozen["weight"]].clone()
    FrozenTraining(net, optimizer, frozen, freeze="kept")
    chosen = frozen["weight"].clone()
    frozen["weight"].logical_not_()
    net(x).square().sum().backward()
    optimizer.step()
    assert torch.equal(net.weight.detach()[chosen], kept)
    assert net.weight.grad[~chosen].all()


def test_orthogonal_to_what_is_left_of_a_filter_after_it():
    net = nn.Linear(8, 3).double()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    mask = torch.zeros(3, 8, dtype=torch.bool)
    mask[0, 0] = True
    reinitialise_(net, optimizer, {"weight": mask}, orthogonal=True)
    W = net.weight.detach()
    torch.testing.assert_close(W[1:] @ W[0], torch.zeros(2).double(), rtol=0, atol=1e-12)

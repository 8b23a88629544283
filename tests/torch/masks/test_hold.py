"""Training under masks: what they remove stays exactly zero."""

import copy

import pytest
import torch
import vectors
from on_path import make_net, some_masks
from torch import nn

from dslbi_torch import DessiLBI, MaskedTraining, apply_masks_, split_groups
from dslbi_torch.masks.checks import check_masks

OPTIMIZERS = {
    "sgd": lambda net: torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda net: torch.optim.AdamW(net.parameters(), lr=0.1, amsgrad=True),
    "adagrad": lambda net: torch.optim.Adagrad(net.parameters(), initial_accumulator_value=0.1),
    "rprop": lambda net: torch.optim.Rprop(net.parameters()),
    "lbfgs": lambda net: torch.optim.LBFGS(net.parameters(), max_iter=2),
    "dessilbi": lambda net: DessiLBI(split_groups(net, nu=1.0, lam=0.01), lr=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_gradients_and_states_stay_zero_under_any_optimizer(name):
    net = make_net()
    optimizer = OPTIMIZERS[name](net)
    masks = some_masks(net)
    x, y = (torch.tensor(a) for a in vectors.images(16, (1, 8, 8), 3))
    x, held = x.float(), False

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        if held:
            for W, mask in pairs:
                assert not W.grad[~mask].any()  # before any clipping of their norm
        return loss

    for _ in range(2):  # momenta are there before the masks
        optimizer.step(closure)
    pairs = check_masks(net, masks)
    training, held = MaskedTraining(net, optimizer, masks), True
    start = copy.deepcopy(net.state_dict())
    for _ in range(3):
        optimizer.step(closure)
        for W, mask in pairs:
            states = [W, W.grad]
            for value in optimizer.state[W].values():
                if torch.is_tensor(value) and value.shape == W.shape:
                    states.append(value)
            for value in states:
                assert not value[~mask].any()
            assert len(states) > 2 or name == "lbfgs"
    moved = {k: (v != start[k]) & masks.get(k, True) for k, v in net.state_dict().items()}
    assert all(moved[k].any() for k in masks)
    training.detach()
    held = False
    for _ in range(3):
        optimizer.step(closure)
    assert any(W[~mask].any() for W, mask in pairs)


def test_a_gradient_from_outside_does_not_pass_the_masks():
    net = make_net()
    masks = some_masks(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    training = MaskedTraining(net, optimizer, masks)
    for _ in range(2):
        for p in net.parameters():
            p.grad = torch.full_like(p, torch.inf)
        optimizer.step()
    for W, mask in check_masks(net, masks):
        assert not W[~mask].any() and not optimizer.state[W]["momentum_buffer"][~mask].any()
    training.detach()


def test_masked_training_equals_training_of_the_masked_net_by_hand():
    nets = [make_net().double() for _ in range(2)]
    masks = some_masks(nets[0])
    optimizers = [torch.optim.SGD(n.parameters(), lr=0.1, momentum=0.9) for n in nets]
    MaskedTraining(nets[0], optimizers[0], masks)
    apply_masks_(nets[1], masks)
    x, y = (torch.tensor(a) for a in vectors.images(16, (1, 8, 8), 3))
    for _ in range(5):
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            if net is nets[1]:
                for W, mask in check_masks(net, masks):
                    W.grad *= mask
            optimizer.step()
    for a, b in zip(*(n.parameters() for n in nets), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_masked_training_refuses_what_it_cannot_hold():
    net = make_net()
    masks = some_masks(net)
    with pytest.raises(ValueError, match="the optimizer must have the masked parameter 0.weight"):
        MaskedTraining(net, torch.optim.SGD(net[5].parameters(), lr=0.1), masks)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    training = MaskedTraining(net, optimizer, masks)
    with pytest.raises(ValueError, match="0.weight is under masks already"):
        MaskedTraining(net, optimizer, masks)
    copy.deepcopy(net)
    training.detach()
    with pytest.raises(ValueError, match="masks must be attached to be changed, but are detached"):
        training.change(masks)
    MaskedTraining(net, optimizer, masks).detach()


def test_a_frozen_parameter_may_be_masked_and_is_held_once_it_trains():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    net[0].bias.requires_grad_(False)
    optimizer = torch.optim.SGD(net[0].parameters(), 0.1)
    masks = {"0.weight": torch.rand(8, 4) < 0.5, "0.bias": torch.arange(8) < 5}
    training = MaskedTraining(net, optimizer, masks)
    net[0].bias.requires_grad_(True)
    net(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    for name, mask in masks.items():
        assert not net.get_parameter(name).detach()[~mask].any()
    assert net[0].bias.detach()[masks["0.bias"]].any()
    training.detach()


def test_changed_masks_are_checked():
    net = nn.Linear(4, 3)
    mask = torch.arange(12).view(3, 4) < 6
    training = MaskedTraining(net, torch.optim.SGD(net.parameters(), 0.1), {"weight": mask})
    for wrong in ({"weight": mask.to(torch.uint8)}, None):
        with pytest.raises(ValueError, match="bool tensor|at least one tensor|must be a dict"):
            training.change(wrong)
    assert torch.equal(training.masks["weight"], mask)
    assert net.weight.count_nonzero() == 6

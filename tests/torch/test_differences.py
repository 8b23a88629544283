"""What the page "Where we differ" says of the authors' code, where no other test shows it.

Their update is written here from its equations, in a few lines each, beside ours.
"""

import inspect

import numpy as np
import pytest
import torch
import vectors
from one_tensor import group_gamma
from torch import nn

from dslbi_torch import DessiLBI


def param(shape, seed=0, scale=1.0):
    return nn.Parameter(torch.tensor(vectors.array(shape, seed, scale)))


def test_the_defaults_are_those_of_the_authors_code():
    """Momentum too, although the method as published has none."""
    signature = inspect.signature(DessiLBI).parameters
    theirs = dict(kappa=1, nu=100, lam=1, momentum=0.9, dampening=0, weight_decay=0)
    assert {name: signature[name].default for name in theirs} == theirs


def test_the_pull_inside_the_buffer_is_ten_times_as_strong():
    """Nothing but the pull, weights that hardly move, momentum 0.9: the steady step of W, and V."""
    moves = {}
    for coupling in ("outside", "inside"):
        p = param((3, 4))
        optimizer = DessiLBI([p], lr=1e-7, nu=1.0, penalty="l1", coupling=coupling)
        for _ in range(300):
            before = p.detach().clone()
            p.grad = torch.zeros_like(p)
            optimizer.step()
        moves[coupling] = p.detach() - before, optimizer.state[p]["V"]
    torch.testing.assert_close(
        moves["inside"][0] / moves["outside"][0],
        torch.full((3, 4), 10.0, dtype=torch.float64),
        rtol=1e-3,
        atol=0,
    )
    torch.testing.assert_close(moves["inside"][1], moves["outside"][1], rtol=1e-3, atol=0)


@pytest.mark.parametrize("dampening", [0.0, 0.5])
def test_decay_added_to_the_buffer_is_another_with_dampening(dampening):
    """Theirs adds ``decay * W`` to the buffer in place, after the damped gradient."""
    options = dict(lr=0.1, momentum=0.9, dampening=dampening, weight_decay=0.02)
    p = param((3, 4))
    W, m = p.detach().clone(), None
    optimizer = DessiLBI([p], **options)
    for g in vectors.gradients((3, 4), 50):
        g = torch.tensor(g)
        m = g if m is None else 0.9 * m + (1 - dampening) * g
        m = m + 0.02 * W
        W = W - 0.1 * m
        p.grad = g
        optimizer.step()
    difference = (p.detach() - W).abs().max()
    assert difference < 1e-12 if dampening == 0 else difference > 1e-3


@pytest.mark.parametrize(
    "shape, penalty",
    [((7,), "l1"), ((7,), "group"), ((4, 3, 5), "group"), ((4, 3, 2, 2, 2), "group")],
)
def test_tensors_of_any_shape_are_split(shape, penalty):
    """Scales of a normalisation, filters of 1-d and 3-d convolutions: their Gamma grows."""
    p = param(shape)
    optimizer = DessiLBI([p], lr=0.1, nu=1.0, lam=0.2, penalty=penalty)
    target = p.detach().clone()
    for _ in range(60):
        p.grad = p.detach() - target
        optimizer.step()
    Gamma = group_gamma(optimizer.state[p]["V"], optimizer.param_groups[0])
    assert Gamma.shape == shape
    size = Gamma.abs() if penalty == "l1" else Gamma.reshape(shape[0], -1).norm(dim=1)
    assert 0 < (size > 0).sum() and (Gamma[size > 0].sign() == target[size > 0].sign()).any()


def test_the_root_mean_square_rule_is_the_weight_sqrt():
    """Their lottery example lets a filter in where the root mean square of its V exceeds lam."""
    V = torch.tensor(vectors.array((40, 3, 3, 3), scale=0.5))
    group = DessiLBI([dict(params=[param((40, 3, 3, 3))], penalty="group", weight="sqrt", lam=0.5)])
    Gamma = group_gamma(V, group.param_groups[0])
    enters = V.square().mean(dim=(1, 2, 3)).sqrt() > 0.5
    assert 0 < enters.sum() < 40
    assert torch.equal(Gamma.flatten(1).any(dim=1), enters)


def test_an_order_of_norm_minus_2000_ties_in_float32():
    norms = np.float32([1e-5, 2e-5, 4e-5])
    assert len(set(norms - np.float32(2000))) == 1
    assert len(set(norms)) == 3


def held(W, lr, nu, n_steps, **options):
    """V of our optimizer after steps at which W is put back to where it was."""
    p = nn.Parameter(W.clone())
    optimizer = DessiLBI([p], lr=lr, nu=nu, penalty="l1", **options)
    for _ in range(n_steps):
        with torch.no_grad():
            p.copy_(W)
        p.grad = torch.zeros_like(p)
        optimizer.step()
    return optimizer.state[p]["V"]


def test_a_gamma_momentum_that_is_not_added_freezes_the_dual():
    """Their buffer is multiplied in place, and its sum with the pull is thrown away."""
    W, lr, nu = torch.tensor(vectors.array(20)), 0.1, 10.0
    V, buffer = 0 * W, None
    for _ in range(200):
        pull = W / nu  # Gamma is zero all the time
        if buffer is None:
            buffer = pull.clone()
        else:
            buffer.mul_(0.5).add(pull)
        V = V + lr * buffer
    ours = held(W, lr, nu, 200, lam=1e3)
    torch.testing.assert_close(ours, 200 * lr * W / nu)
    torch.testing.assert_close(V, 2 * lr * W / nu)  # of two steps, however many there were


@pytest.mark.parametrize("scale, same", [(0.2, True), (2.0, False)])
def test_the_capped_selection_is_a_clock_a_hundred_times_slower(scale, same):
    """Theirs scales the pull by ``min(1 - density, 0.01) / max(|W|, 1)``, Gamma by the latter."""
    W, lr, nu, lam = torch.tensor(vectors.array(50, scale=scale)), 0.1, 5.0, 0.01 * scale
    size = W.abs().clamp(min=1)
    V = Gamma = 0 * W
    for _ in range(150):
        density = (Gamma != 0).double().mean()
        V = V + lr / nu * min(1 - density, 0.01) / size * (W - Gamma)
        Gamma = size * V.sign() * (V.abs() - lam).clamp(min=0)
    assert 0.2 < density < 0.99
    difference = (held(W, lr, 100 * nu, 150, lam=lam) - V).abs().max()
    assert difference < 1e-15 if same else difference > 1e-3 * V.abs().max()

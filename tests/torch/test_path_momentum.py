"""Momentum of V: against a loop around the reference, on every route, through checkpoints."""

import copy

import numpy as np
import pytest
import torch
import vectors
from one_tensor import step
from torch import nn

from dslbi_torch import DessiLBI, GammaMomentum, PathRecorder, Split
from dslbi_torch.penalties import group_norms

OPTIONS = dict(kappa=1.5, nu=2.0, lam=0.1, penalty="group")
ROUTES = {
    "one by one": lambda p: DessiLBI([p], lr=0.05, momentum=0.8, **OPTIONS),
    "lists": lambda p: DessiLBI([p], lr=0.05, momentum=0.8, foreach=True, **OPTIONS),
    "split": lambda p: Split(
        torch.optim.SGD([dict(params=[p], penalty="group")], lr=0.075, momentum=0.8),
        **{k: v for k, v in OPTIONS.items() if k != "penalty"},
    ),
}


def start(shape=(4, 3, 3)):
    return nn.Parameter(torch.tensor(vectors.array(shape)))


def steps(p, optimizer, n_steps, first=0):
    for g in list(vectors.gradients(tuple(p.shape), first + n_steps))[first:]:
        p.grad = torch.tensor(g)
        optimizer.step()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_gamma_momentum_is_the_momentum_of_v(route, momentum):
    p = start()
    W, V, m, b = p.detach().numpy().copy(), np.zeros(p.shape), np.zeros(p.shape), np.zeros(p.shape)
    optimizer = ROUTES[route](p)
    GammaMomentum(optimizer, momentum)
    steps(p, optimizer, 25)
    for g in vectors.gradients(tuple(p.shape), 25):
        W, moved, m = step(W, V, m, g, alpha=0.05, momentum=0.8, **OPTIONS)
        b = momentum * b + (moved - V)
        V = V + b
    torch.testing.assert_close(p.detach(), torch.tensor(W), rtol=1e-12, atol=1e-12)
    state = optimizer.state[p]
    torch.testing.assert_close(state["V"], torch.tensor(V), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state["V_buffer"], torch.tensor(b), rtol=1e-12, atol=1e-12)


def test_without_momentum_nothing_changes_bit_for_bit():
    found = []
    for attach in (False, True):
        p = start()
        optimizer = ROUTES["one by one"](p)
        if attach:
            GammaMomentum(optimizer, 0.0)
        steps(p, optimizer, 20)
        found.append((p.detach(), optimizer.state[p]["V"]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_a_steady_pull_enters_earlier_with_momentum(momentum):
    """In the authors' code V stands still after two steps, and nothing ever enters."""
    entry, V = {}, {}
    for key in (0.0, momentum):
        W = torch.tensor(vectors.array((6, 5)))
        p = nn.Parameter(W.clone())
        optimizer = DessiLBI([p], lr=0.1, nu=10.0, lam=2.0, penalty="group", momentum=0)
        GammaMomentum(optimizer, key)
        recorder = PathRecorder(optimizer)
        for _ in range(200):
            with torch.no_grad():
                p.copy_(W)
            p.grad = torch.zeros_like(p)
            optimizer.step()
            if _ == 49:
                V[key] = optimizer.state[p]["V"].clone()
        entry[key] = recorder.entry_steps(next(iter(recorder.entry)))
        pull = 0.1 * W / 10
        outside = group_norms(V[key], group_dim=0) <= 2.0  # Gamma is zero, the pull is W/nu
        k = torch.arange(1, 51)
        expected = pull * ((1 - key**k) / (1 - key)).sum()
        assert outside.any() or key
        torch.testing.assert_close(V[key][outside], expected[outside])
    assert (entry[0.0] > 0).any()
    entered = entry[0.0] > 0
    assert (entry[momentum][entered] < entry[0.0][entered]).all()


@pytest.mark.parametrize("route", ROUTES)
def test_a_checkpoint_holds_the_buffer(route):
    p = start()
    optimizer = ROUTES[route](p)
    GammaMomentum(optimizer, 0.7)
    steps(p, optimizer, 10)
    q = nn.Parameter(p.detach().clone())
    resumed = ROUTES[route](q)
    GammaMomentum(resumed, 0.7)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for x, other in ((p, optimizer), (q, resumed)):
        steps(x, other, 5, first=10)
    torch.testing.assert_close(p.detach(), q.detach(), rtol=0, atol=0)
    for key in ("V", "V_buffer"):
        torch.testing.assert_close(optimizer.state[p][key], resumed.state[q][key], rtol=0, atol=0)


def test_what_has_no_gradient_rests_and_detaching_ends_it():
    p, q = start(), start()
    optimizer = DessiLBI([p, q], lr=0.05, **OPTIONS)
    hook = GammaMomentum(optimizer, 0.7)
    steps(p, optimizer, 3)
    assert "V" not in optimizer.state.get(q, {})
    V = optimizer.state[p]["V"].clone()
    p.grad, q.grad = None, torch.zeros_like(q)
    optimizer.step()
    torch.testing.assert_close(optimizer.state[p]["V"], V, rtol=0, atol=0)
    hook.detach()
    assert not any("V_buffer" in state for state in optimizer.state.values())
    plain = copy.deepcopy(optimizer.state[q]["V"])
    optimizer.step()
    r = (q.detach() - 0) / OPTIONS["nu"]
    assert (optimizer.state[q]["V"] - plain).abs().max() < 0.05 * 1.1 * r.abs().max()
    assert "V_buffer" not in optimizer.state[q]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_parameters_have_a_wide_buffer(dtype):
    p = nn.Parameter(start().detach().to(dtype))
    optimizer = DessiLBI([p], lr=0.05, **OPTIONS)
    GammaMomentum(optimizer, 0.7)
    for _ in range(2):
        p.grad = torch.ones_like(p)
        optimizer.step()
        assert optimizer.state[p]["V_buffer"].dtype == optimizer.state[p]["V"].dtype
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert optimizer.state[p]["V"].dtype == torch.float32


def test_what_cannot_have_a_momentum_is_refused():
    p = start()
    for bad in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\), got"):
            GammaMomentum(DessiLBI([p], penalty="l1"), bad)
    with pytest.raises(ValueError, match="splits nothing"):
        GammaMomentum(torch.optim.SGD([p], lr=0.1), 0.5)


def test_it_is_attached_once():
    p = start()
    optimizer = ROUTES["one by one"](p)
    first = GammaMomentum(optimizer)
    with pytest.raises(ValueError, match="has a GammaMomentum already"):
        GammaMomentum(optimizer)
    first.detach()
    GammaMomentum(optimizer)
    first.detach()  # of nothing
    with pytest.raises(ValueError, match="has a GammaMomentum already"):
        GammaMomentum(optimizer)

"""The start of a path in both packages, in lockstep through the release."""

import numpy as np
import pytest
import torch
import vectors

from dslbi_ref.dessilbi import dessilbi_states
from dslbi_torch import DessiLBI, Release, Split, release_
from dslbi_torch.units import families, gammas

SHAPES = {"filters": (4, 3, 2, 2), "weights": (4, 5), "mixed": (5, 4), "a": (3, 4), "b": (3, 5)}
PENALTIES = {"filters": "group", "weights": "l1", "mixed": "sparse group"}
PENALTIES |= {"a": "group", "b": "group"}
SHAPES["bias"] = (5,)
COMMON = dict(alpha=0.05, kappa=1.5, nu=1.0, lam=0.3)
AFTER, STEPS = 12, 80

STARTS = {
    "none": dict(),
    "pull": dict(pull=1.0),
    "a part of the pull": dict(pull=0.1, power=0.5),
    "levels": dict(power=1.0),
    "dense": dict(dense=True),
    "dense, levels, pull": dict(dense=True, power=-0.5, pull=2.0),
}
OPTIONS = {
    "defaults": dict(),
    "lists": dict(foreach=True),
    "no momentum": dict(momentum=0.0),
    "inside, L2": dict(coupling="inside", weight_decay=0.1, nesterov=True),
    "decoupled": dict(weight_decay=0.1, decoupled=True, dampening=0.3),
}


def start():
    """Initial weights, and targets of the loss; layers differ in size by factors."""
    W = {n: vectors.array(s, seed=i, scale=0.5 + i) for i, (n, s) in enumerate(SHAPES.items())}
    B = {n: vectors.array(s, seed=10 + i, scale=1 + i) for i, (n, s) in enumerate(SHAPES.items())}
    return W, B


def make_groups(W):
    """A parameter group for each family."""
    params = {n: torch.nn.Parameter(torch.tensor(w)) for n, w in W.items()}
    own = {k: v for k, v in COMMON.items() if k != "alpha"}
    rows = [dict(params=[(n, params[n])], penalty=PENALTIES[n]) for n in list(PENALTIES)[:3]]
    rows.append(dict(params=[(n, params[n]) for n in ("a", "b")], penalty="group", joint=True))
    rows.append(dict(params=[("bias", params["bias"])], penalty=None))
    return params, [own | row for row in rows]


def compare(params, optimizer, state, close):
    for name, p in params.items():
        close(p.detach(), state.W[name])
    for family in families(optimizer):
        for name, V, G in zip(family.names, family.Vs, gammas(family), strict=True):
            close(V, state.V[name])
            close(G, state.Gamma[name])


@pytest.mark.parametrize("now", [False, True], ids=["after some steps", "at once"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", STARTS)
def test_lockstep_through_a_release(name, options, now, close):
    start_options, options = STARTS[name], OPTIONS[options]
    W, B = start()
    params, groups = make_groups(W)
    optimizer = DessiLBI(groups, lr=COMMON["alpha"], **options)
    if now:
        release_(optimizer, **{k: v for k, v in start_options.items() if k != "pull"})
    else:
        Release(optimizer, AFTER, **start_options)
    states = dessilbi_states(
        W,
        lambda W: {n: W[n] - B[n] for n in W},
        penalties=PENALTIES,
        joint=[["a", "b"]],
        release=0 if now else AFTER,
        **COMMON,
        **start_options,
        **{"momentum": 0.9, **{k: v for k, v in options.items() if k != "foreach"}},
    )
    entered = set()
    for k, state in zip(range(STEPS), states, strict=False):
        if k != AFTER or now:  # where the reference has released its path, and the twin will
            compare(params, optimizer, state, close)
        if k < AFTER and not now:
            assert state.t == 0 and not any(G.any() for G in state.Gamma.values())
        entered |= {n for n, G in state.Gamma.items() if G.any()}
        for n, p in params.items():
            p.grad = (p - torch.tensor(B[n])).detach()
        optimizer.step()
    assert entered == set(PENALTIES)


@pytest.mark.parametrize("name", STARTS)
def test_a_split_sgd_goes_through_a_release_as_the_reference(name, close):
    W, B = start()
    params, groups = make_groups(W)
    lr = COMMON["alpha"] * COMMON["kappa"]
    optimizer = Split(torch.optim.SGD(groups, lr=lr, momentum=0.9))
    Release(optimizer, AFTER, **STARTS[name])
    states = dessilbi_states(
        W,
        lambda W: {n: W[n] - B[n] for n in W},
        penalties=PENALTIES,
        joint=[["a", "b"]],
        release=AFTER,
        momentum=0.9,
        **COMMON,
        **STARTS[name],
    )
    for k, state in zip(range(STEPS), states, strict=False):
        if k != AFTER:
            compare(params, optimizer, state, close)
        for n, p in params.items():
            p.grad = (p - torch.tensor(B[n])).detach()
        optimizer.step()
    assert sum(np.any(G) for G in state.Gamma.values()) == len(PENALTIES)


@pytest.mark.parametrize("name", PENALTIES)
def test_gamma_begins_at_the_weights(name, close):
    """Whatever the penalty, the level and kappa: from dense to sparse."""
    W, _ = start()
    params, groups = make_groups(W)
    for around in (lambda g: DessiLBI(g, lr=0.1), lambda g: Split(torch.optim.AdamW(g, lr=0.1))):
        optimizer = around([{**group, "lam": 0.7} for group in groups])
        release_(optimizer, dense=True)
        for family in families(optimizer):
            for n, G in zip(family.names, gammas(family), strict=True):
                close(G, W[n])

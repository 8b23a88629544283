"""Split around any optimizer: around SGD it is DessiLBI, around all others the base and a pull."""

import copy
import io
import pickle

import pytest
import torch
import vectors
from one_tensor import split_tensors
from torch import nn

from dslbi_torch import DessiLBI, PathRecorder, Split, sparse_weights, split_groups

SETTINGS = dict(kappa=2.0, nu=1.5, lam=0.2)
SGD = (
    dict(),
    dict(momentum=0.9),
    dict(momentum=0.9, dampening=0.4),
    dict(momentum=0.9, nesterov=True, weight_decay=0.1),
    dict(momentum=0.5, weight_decay=0.1, maximize=True),
    dict(momentum=0.9, foreach=True),
    dict(momentum=0.9, fused=True),
)


class SignStep(torch.optim.Optimizer):
    """A third-party optimizer that counts its steps, and starts when its state is empty."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, dict(lr=lr))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if len(state) == 0:
                    state["step"] = 0
                state["step"] += 1
                p.sub_(p.grad.sign(), alpha=group["lr"] / state["step"])


BASES = {
    "SGD": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
    "Adam": lambda groups: torch.optim.Adam(groups, lr=0.01),
    "AdamW fused": lambda groups: torch.optim.AdamW(groups, lr=0.01, fused=True),
    "AdamW foreach": lambda groups: torch.optim.AdamW(groups, lr=0.01, foreach=True),
    "Adafactor": lambda groups: torch.optim.Adafactor(groups, lr=0.01),
    "third party": SignStep,
}


def net(dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 3)).to(dtype)


def groups(model, **options):
    """The biases' group is a bare one: Split completes it."""
    return split_groups(model, **{**dict(nu=1.5, lam=0.2), **options})


def walk(model, optimizer, n_steps, start=0):
    for k in range(start, start + n_steps):
        for i, p in enumerate(model.parameters()):
            p.grad = torch.tensor(vectors.array(tuple(p.shape), 90 * k + i)).to(p.dtype)
        optimizer.step()


def assert_same(model, ours, other, theirs, rtol=0.0):
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.detach(), q.detach(), rtol=rtol, atol=rtol)
        V, U = ours.state[p].get("V"), theirs.state[q].get("V")
        assert (V is None) == (U is None)
        if V is not None:
            torch.testing.assert_close(V, U, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("options", SGD, ids=str)
@pytest.mark.parametrize("conv", ["group", "l1"])
def test_split_sgd_is_dessilbi(options, conv):
    """The base's lr is kappa * alpha; every option of SGD."""
    a, b = net(), net()
    base = torch.optim.SGD(groups(a, conv=conv, kappa=2.0), lr=0.1, **options)
    split = Split(base)
    plain = {k: v for k, v in options.items() if k not in ("foreach", "fused")}
    alone = DessiLBI(groups(b, conv=conv, kappa=2.0), lr=0.05, **{"momentum": 0, **plain})
    for group in alone.param_groups:  # split_groups left it to the groups to say so
        group.update(weight_decay=plain.get("weight_decay", 0.0), kappa=2.0)
    for group in base.param_groups:
        group.update(weight_decay=plain.get("weight_decay", 0.0), kappa=2.0)
    walk(a, split, 60)
    walk(b, alone, 60)
    assert_same(a, split, b, alone, rtol=1e-12)


@pytest.mark.parametrize("name", BASES)
def test_the_split_is_the_base_and_the_pull(name):
    """From the definition, in plain tensors, with the base stepping a copy of the weights."""
    a, b = net(), net()
    split = Split(BASES[name](groups(a)))
    base = BASES[name]([dict(params=list(b.parameters()), weight_decay=0.0)])
    levels = {id(p): group for group in split.param_groups for p in group["params"]}
    V = {}
    for k in range(6):
        walk(a, split, 1, start=k)
        before = [q.detach().clone() for q in b.parameters()]
        for i, q in enumerate(b.parameters()):
            q.grad = torch.tensor(vectors.array(tuple(q.shape), 90 * k + i))
        base.step()
        for p, q, W in zip(a.parameters(), b.parameters(), before, strict=True):
            group = levels[id(p)]
            if group["penalty"] is None:
                continue
            v = V.setdefault(q, torch.zeros_like(W))
            if group["penalty"] == "l1":
                Gamma = v.sign() * (v.abs() - 0.2).clamp(min=0)
            else:
                norm = v.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
                Gamma = v * (1 - 0.2 / norm.clamp(min=1e-300)).clamp(min=0)
            r = (W - Gamma) / 1.5
            with torch.no_grad():
                q.sub_(r, alpha=group["lr"])
            V[q] = v + group["lr"] * r
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-12, atol=1e-12)


def test_muon_takes_the_matrices_and_another_optimizer_the_rest():
    model = net(torch.float32)
    matrices = [dict(params=[model[2].weight], penalty="l1")]
    split = Split(torch.optim.Muon(matrices, lr=0.01), nu=0.1, lam=0.05)
    walk(model, split, 5)
    assert 0 < (split.state[model[2].weight]["V"].abs() > 0.05).float().mean() < 1


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("route", ["torch.save", "pickle"])
def test_round_trips_continue_bit_for_bit(name, route):
    model = net()
    split = Split(BASES[name](groups(model)))
    walk(model, split, 3)
    if route == "pickle":
        other, again = pickle.loads(pickle.dumps((model, split)))
    else:
        other, file = net(seed=1), io.BytesIO()
        again = Split(BASES[name](groups(other)))
        torch.save(split.state_dict(), file)
        file.seek(0)
        again.load_state_dict(torch.load(file, weights_only=True))
        other.load_state_dict(model.state_dict())
    walk(model, split, 3, start=3)
    walk(other, again, 3, start=3)
    assert_same(model, split, other, again)
    assert again.state is again.base.state
    assert again.param_groups is again.base.param_groups


def test_bf16_keeps_a_float32_dual():
    model = net(torch.bfloat16)
    split = Split(torch.optim.SGD(groups(model), lr=0.1))
    walk(model, split, 3)
    split.load_state_dict(copy.deepcopy(split.state_dict()))
    assert {V.dtype for _, _, V, _ in split_tensors(split)} == {torch.float32}
    walk(model, split, 1, start=3)


def test_without_a_gradient_nothing_moves():
    model = net()
    split = Split(torch.optim.AdamW(groups(model), lr=0.1))
    before = copy.deepcopy(model.state_dict())
    split.step()
    walk(model, split, 1)
    model[0].weight.grad = None
    kept = model[0].weight.detach().clone(), split.state[model[0].weight]["V"].clone()
    split.step()
    for a, b in zip(
        kept, (model[0].weight.detach(), split.state[model[0].weight]["V"]), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not torch.equal(model[2].weight, before["2.weight"])


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_skipped_by_a_gradient_scaler_leaves_no_trace(fused):
    model, twin = net(torch.float32), net(torch.float32)
    split = Split(torch.optim.AdamW(groups(model), lr=0.1, fused=fused))
    plain = Split(torch.optim.AdamW(groups(twin), lr=0.1, fused=fused))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1000)
    for k in range(4):
        for i, (p, q) in enumerate(zip(model.parameters(), twin.parameters(), strict=True)):
            g = torch.tensor(vectors.array(tuple(p.shape), 90 * k + i)).float()
            p.grad, q.grad = g * scaler.get_scale(), g.clone()
            scaler.scale(torch.zeros(()))  # it is lazy: this makes its scale
            if k == 2 and i == 1:
                p.grad[0] = float("inf")
        if k == 0:
            for p, q in zip(model.parameters(), twin.parameters(), strict=True):
                p.grad = q.grad * scaler.get_scale()
        scaler.step(split)
        scaler.update()
        if k != 2:
            plain.step()
    assert_same(model, split, twin, plain, rtol=1e-6)


def test_schedulers_recorders_and_sparse_weights_take_it():
    model = net()
    split = Split(torch.optim.AdamW(groups(model, kappa=2.0), lr=0.1))
    recorder = PathRecorder(split)
    schedule = torch.optim.lr_scheduler.StepLR(split, step_size=2, gamma=0.5)
    for k in range(4):
        walk(model, split, 1, start=k)
        schedule.step()
    assert recorder.times == pytest.approx([0, 0.05, 0.1, 0.125, 0.15])  # alpha = lr / kappa
    with sparse_weights(split):
        pass

    def closure():
        assert torch.is_grad_enabled()
        return torch.tensor(3.0)

    assert split.step(closure) == 3.0


def test_what_cannot_be_split_is_refused():
    p = nn.Parameter(torch.ones(3, 2))
    group = [dict(params=[p], penalty="l1")]
    for base, message in (
        (torch.optim.LBFGS([p]), "base must take one gradient a step, got LBFGS"),
        (DessiLBI([p]), "base must not split already, got DessiLBI"),
        (nn.Linear(2, 2), "base must be a torch optimizer, got Linear"),
    ):
        with pytest.raises(TypeError, match=message):
            Split(base)
    with pytest.raises(ValueError, match="nu must be positive and finite, got 0"):
        Split(torch.optim.SGD(group), nu=0)
    with pytest.raises(ValueError, match="lam must be positive and finite, got nan"):
        Split(torch.optim.SGD([dict(params=[p], penalty="l1", lam=float("nan"))]))
    with pytest.raises(ValueError, match="cannot carry the penalty"):
        Split(torch.optim.SGD([dict(params=[nn.Parameter(torch.ones(()))], penalty="l1")]))
    split = Split(torch.optim.SGD(group))
    with pytest.raises(ValueError, match="penalty must be None, \"l1\".* or .*, got 'l2'"):
        split.add_param_group(dict(params=[nn.Parameter(torch.ones(2))], penalty="l2"))
    assert len(split.param_groups) == 1
    with pytest.raises(ValueError, match="state_dict must be of a Split"):
        split.load_state_dict(torch.optim.SGD([p]).state_dict())

    class Takes(SignStep):
        def __init__(self, params):
            torch.optim.Optimizer.__init__(self, params, dict(lr=0.1, nu=0.7))

    with pytest.raises(ValueError, match=r"Takes has options \['nu'\] of its own"):
        Split(Takes([p]))

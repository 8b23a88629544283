"""DessiLBI as a torch optimizer: the contract around the update that tests/twins checks."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
import vectors
from one_tensor import group_gamma, split_tensors, step_
from torch import nn

from dslbi_torch import DessiLBI, split_groups


def param(shape, seed=0, dtype=torch.float64):
    return nn.Parameter(torch.tensor(vectors.array(shape, seed), dtype=dtype))


def model(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    return net.double()


def walk(optimizer, n_steps, seed=0):
    """Steps on injected gradients, the same sequence for the same seed."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    streams = [vectors.gradients(tuple(p.shape), n_steps, seed + i) for i, p in enumerate(params)]
    for _ in range(n_steps):
        for p, stream in zip(params, streams, strict=True):
            p.grad = torch.tensor(next(stream)).to(p.dtype)
        optimizer.step()


def equal(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def same_state(a, b):
    for ga, gb in zip(a.param_groups, b.param_groups, strict=True):
        for p, q in zip(ga["params"], gb["params"], strict=True):
            equal(p.detach(), q.detach())
            assert set(a.state[p]) == set(b.state[q])
            for key in a.state[p]:
                assert a.state[p][key].dtype == b.state[q][key].dtype
                equal(a.state[p][key], b.state[q][key])


def test_without_penalty_it_is_sgd():
    """kappa * lr is SGD's learning rate; every option of SGD agrees."""
    for options in (
        dict(momentum=0.0),
        dict(momentum=0.9),
        dict(momentum=0.9, dampening=0.3),
        dict(momentum=0.9, nesterov=True, weight_decay=0.1),
        dict(momentum=0.9, weight_decay=0.1, maximize=True),
    ):
        p, q = param((5, 4)), param((5, 4))
        walk(DessiLBI([p], lr=0.01, kappa=2.0, **options), 50)
        walk(torch.optim.SGD([q], lr=0.02, **options), 50)
        torch.testing.assert_close(p, q, rtol=1e-13, atol=1e-13)


@torch.no_grad()
def test_large_tensors_are_stepped_in_pieces_with_the_same_result():
    """A tensor over the piece size, against the update on the whole tensor."""
    from dslbi_torch.routes.gaps import PIECE

    for penalty, group_dim, shape in (
        ("l1", 0, (3, PIECE // 2 + 7)),
        ("group", 0, (700, 3, 140)),
        ("group", 1, (3, 700, 140)),
        ("group", (1, 0), (3, 700, 140)),
        ("group", (), (3, 700, 140)),
    ):
        for variant in VARIANTS:
            p = param(shape)
            grad = torch.tensor(vectors.array(shape, 1))
            whole = p.detach().clone(), torch.zeros_like(p), torch.zeros_like(p)
            options = dict(nu=2.0, lam=0.3, penalty=penalty, group_dim=group_dim, momentum=0.9)
            options |= variant
            optimizer = DessiLBI([p], lr=0.5, **options)
            for _ in range(3):
                p.grad = grad.clone()
                optimizer.step()
                step_(*whole, grad, alpha=0.5, **options)
            for ours, theirs in zip((p.detach(), optimizer.state[p]["V"]), whole[:2], strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


VARIANTS = (
    dict(),
    dict(weight_decay=0.1, nesterov=True),
    dict(weight_decay=0.1, decoupled=True),
    dict(coupling="inside"),
)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_tensors_with_holes_are_stepped_with_the_same_result(variant):
    """Every second column of a larger tensor, and the others stay as they are."""

    base = torch.tensor(vectors.array((6, 8)))
    before = base.clone()
    p, grad = nn.Parameter(base[:, ::2]), torch.tensor(vectors.array((6, 4), 1))
    whole = p.detach().clone(), torch.zeros(6, 4, dtype=p.dtype), torch.zeros(6, 4, dtype=p.dtype)
    options = dict(nu=2.0, lam=0.3, penalty="group", momentum=0.9) | variant
    optimizer = DessiLBI([p], lr=0.5, **options)
    for _ in range(3):
        p.grad = grad.clone()
        optimizer.step()
        step_(*whole, grad, alpha=0.5, **options)
    torch.testing.assert_close(p.detach(), whole[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(base[:, 1::2], before[:, 1::2], rtol=0, atol=0)


def test_non_contiguous_and_channels_last_parameters():
    base = param((4, 3, 3, 3))
    for make in (
        lambda t: t.to(memory_format=torch.channels_last),
        lambda t: t.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    ):
        p = nn.Parameter(make(base.detach().clone()))
        q = nn.Parameter(base.detach().clone())
        for t in (p, q):
            walk(DessiLBI([t], lr=0.1, nu=1.0, lam=0.5, penalty="group"), 30)
        torch.testing.assert_close(p, q, rtol=1e-13, atol=1e-13)


def test_gradients_are_never_changed():
    for options in (
        dict(weight_decay=0.1, momentum=0.0),
        dict(coupling="inside", momentum=0.0),
        dict(nesterov=True, maximize=True),
    ):
        p = param((3, 3))
        grad = torch.tensor(vectors.array((3, 3), 1))
        p.grad = grad.clone()
        optimizer = DessiLBI([p], penalty="l1", **options)
        for _ in range(3):
            optimizer.step()
        equal(p.grad, grad)


def test_a_parameter_without_gradient_is_left_alone():
    p, q = param((2, 2)), param((2, 2), 1)
    before = p.detach().clone()
    optimizer = DessiLBI([p, q], penalty="l1", lr=0.1)
    q.grad = torch.ones_like(q)
    optimizer.step()
    equal(p.detach(), before)
    assert p not in optimizer.state
    assert "V" in optimizer.state[q]


def test_closure_runs_with_gradients_and_its_loss_is_returned():
    p = param((3,))
    optimizer = DessiLBI([p], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    expected = (p.detach() ** 2).sum()
    torch.testing.assert_close(optimizer.step(closure).detach(), expected)


def test_groups_added_later_and_named_parameters():
    net = model()
    names = dict(net.named_parameters())
    optimizer = DessiLBI([dict(params=[("3.weight", names["3.weight"])], penalty="l1")], lr=0.1)
    optimizer.add_param_group(dict(params=[("0.weight", names["0.weight"])], penalty="group"))
    assert [row[0] for row in split_tensors(optimizer)] == ["3.weight", "0.weight"]
    walk(optimizer, 5)
    assert all("V" in optimizer.state[p] for _, p, _, _ in split_tensors(optimizer))
    unnamed = DessiLBI([dict(params=[param((2, 2)), param((2, 3))], penalty="l1")])
    assert [row[0] for row in split_tensors(unnamed)] == ["group0.0", "group0.1"]


def test_schedulers_change_both_clocks():
    """With lr halved, W and V move half as far: the record of lr is the record of time."""
    p = param((4, 4))
    optimizer = DessiLBI([p], lr=0.4, penalty="l1", nu=2.0, momentum=0.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    V_old = torch.zeros(4, 4, dtype=torch.float64)
    for alpha in (0.4, 0.2, 0.1):
        W_old = p.detach().clone()
        p.grad = torch.zeros_like(p)
        optimizer.step()
        scheduler.step()
        Gamma = group_gamma(V_old, optimizer.param_groups[0])
        V = optimizer.state[p]["V"]
        torch.testing.assert_close(V - V_old, alpha / 2.0 * (W_old - Gamma))
        V_old = V.clone()


def test_lam_can_change_between_steps_and_moves_gamma_at_once():
    p = param((6, 6))
    optimizer = DessiLBI([p], lr=0.5, penalty="l1", nu=1.0, lam=0.1)
    walk(optimizer, 20)
    (_, _, V, group) = split_tensors(optimizer)[0]
    before = group_gamma(V, group).count_nonzero()
    group["lam"] = 1e9
    assert before > 0
    assert group_gamma(V, group).count_nonzero() == 0


@pytest.mark.parametrize("route", ["torch.save", "pickle", "deepcopy"])
def test_state_round_trip_continues_bit_for_bit(route):
    """Several groups, named parameters, all kinds of state."""

    def build():
        return DessiLBI(split_groups(model(), nu=2.0, lam=0.2, weight_decay=0.01), lr=0.05)

    one = build()
    walk(one, 20)
    if route == "torch.save":
        file = io.BytesIO()
        torch.save(one.state_dict(), file)
        file.seek(0)
        two = build()
        two.load_state_dict(torch.load(file, weights_only=True))
        for a, b in zip(one.param_groups, two.param_groups, strict=True):
            for p, q in zip(a["params"], b["params"], strict=True):
                q.data.copy_(p.data)
    elif route == "pickle":
        two = pickle.loads(pickle.dumps(one))
    else:
        two = copy.deepcopy(one)
    same_state(one, two)
    walk(one, 20, seed=100)
    walk(two, 20, seed=100)
    same_state(one, two)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_parameters_keep_a_float32_dual_through_save_and_load(dtype):
    """V + lr/nu * W with 2.5e-4 a step stalls far below lam = 1 in bf16; in float32 it enters."""
    p = nn.Parameter(torch.full((4, 4), 0.5, dtype=dtype))
    optimizer = DessiLBI([p], lr=0.005, nu=10.0, penalty="group", momentum=0.0)
    for step in range(5000):
        if step == 2500:
            file = io.BytesIO()
            torch.save(optimizer.state_dict(), file)
            file.seek(0)
            expected = optimizer.state[p]["V"].clone()
            optimizer = DessiLBI([p], lr=0.005, nu=10.0, penalty="group", momentum=0.0)
            optimizer.load_state_dict(torch.load(file, weights_only=True))
            V = optimizer.state[p]["V"]
            assert V.dtype == torch.float32
            equal(V, expected)
        with torch.no_grad():
            p.fill_(0.5)  # the weights are held, so V is a plain running sum
        p.grad = torch.zeros_like(p)
        optimizer.step()
    # norm of a row of V: 5000 * 0.005 / 10 * 0.5 * 2 = 2.5, less Gamma's pull after entry at 1
    assert optimizer.state[p]["V"].norm(dim=1).min() > 1
    assert (group_gamma(optimizer.state[p]["V"], optimizer.param_groups[0]) != 0).all()


def test_loading_is_seen_by_user_hooks_with_the_right_dtype():
    p = nn.Parameter(torch.ones(2, 2, dtype=torch.bfloat16))
    optimizer = DessiLBI([p], penalty="l1")
    p.grad = torch.ones_like(p)
    optimizer.step()
    seen = []
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append(o.state[p]["V"].dtype))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == [torch.float32]


def test_eight_bytes_of_state_per_parameter():
    p = param((32, 16), dtype=torch.float32)
    optimizer = DessiLBI([p], penalty="l1")
    p.grad = torch.ones_like(p)
    optimizer.step()
    size = sum(t.numel() * t.element_size() for t in optimizer.state[p].values())
    assert size == 8 * p.numel()


def test_tensor_lr():
    p, q = param((3, 3)), param((3, 3))
    walk(DessiLBI([p], lr=torch.tensor(0.1), penalty="l1"), 5)
    walk(DessiLBI([q], lr=float(torch.tensor(0.1)), penalty="l1"), 5)
    equal(p.detach(), q.detach())


def test_zero_duals_give_zero_gamma_without_nan():
    p = param((3, 3))
    optimizer = DessiLBI([p], penalty="group")
    (_, _, V, group) = split_tensors(optimizer)[0]
    equal(group_gamma(V, group), torch.zeros_like(V))


NAN = float("nan")
BAD = [
    (dict(lr=0.0), r"Invalid learning rate: 0.0 \(must be positive and finite\)"),
    (dict(lr=-1.0), r"Invalid learning rate: -1.0 \(must be positive and finite\)"),
    (dict(lr=NAN), r"Invalid learning rate: nan \(must be positive and finite\)"),
    (dict(lr=torch.ones(2)), "Tensor lr must be 1-element"),
    (dict(kappa=0), "kappa must be positive and finite, got 0"),
    (dict(kappa=NAN), "kappa must be positive and finite, got nan"),
    (dict(nu=-3), "nu must be positive and finite, got -3"),
    (dict(nu=float("inf")), "nu must be positive and finite, got inf"),
    (dict(lam=0), "lam must be positive and finite, got 0"),
    (dict(lam=NAN), "lam must be positive and finite, got nan"),
    (dict(momentum=1.0), r"Invalid momentum value: 1.0 \(must be in \[0, 1\)\)"),
    (dict(momentum=-0.1), r"Invalid momentum value: -0.1 \(must be in \[0, 1\)\)"),
    (dict(dampening=2), r"dampening must be in \[0, 1\), got 2"),
    (dict(weight_decay=-1), r"Invalid weight_decay value: -1 \(must be at least 0 and finite\)"),
    (dict(nesterov=True, momentum=0), "Nesterov momentum requires a momentum and zero dampening"),
    (dict(coupling="both"), 'coupling must be "outside" or "inside", got \'both\''),
    (dict(penalty="l2"), "penalty must be None, \"l1\".* or .*, got 'l2'"),
    (dict(penalty="group", group_dim=2), "group_dim must name axes of a 2-d tensor, got 2"),
    (dict(penalty="group", weight="size"), "weight must be None or \"sqrt\", got 'size'"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DessiLBI([param((2, 2))], **options)
    optimizer = DessiLBI([param((2, 2))])
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group(dict(params=[param((2, 2))], **options))
    assert len(optimizer.param_groups) == 1  # nothing half-added


def test_bad_tensors_are_refused():
    for shape, penalty in (((), "l1"), ((0, 3), "group"), ((3, 0), "l1")):
        p = nn.Parameter(torch.zeros(shape))
        with pytest.raises(ValueError, match="cannot carry the penalty"):
            DessiLBI([p], penalty=penalty)
        DessiLBI([p])  # without a penalty they are ordinary parameters
    p = param((2, 2))
    with pytest.raises(ValueError, match="appear more than once"):
        DessiLBI([p, p])
    with pytest.raises(ValueError, match="some parameters appear in more than one parameter group"):
        DessiLBI([dict(params=[p]), dict(params=[p])])
    with pytest.raises(ValueError, match="must have a floating dtype, got torch.int64"):
        DessiLBI([nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False)])
    with pytest.raises(ValueError, match="complex parameter 0 must not be negative, got -1"):
        z = nn.Parameter(torch.zeros(2, 2, dtype=torch.complex64))
        DessiLBI([z], penalty="group", group_dim=-1)
    with pytest.raises(ValueError, match=r"unknown options \['mu'\]"):
        DessiLBI([dict(params=[p], mu=3)])
    q = nn.Parameter(torch.zeros(4, 2))
    q.grad = torch.sparse_coo_tensor([[1]], [[1.0, 1.0]], (4, 2), check_invariants=True)
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        DessiLBI([q]).step()


def test_split_groups_cover_every_trainable_parameter_once():
    net = model()
    net[1].bias.requires_grad_(False)
    groups = split_groups(net, nu=3.0, lam={"conv": 0.5, "linear": 0.25}, weight_decay=0.1)
    names = [name for group in groups for name, _ in group["params"]]
    assert sorted(names) == sorted(n for n, p in net.named_parameters() if p.requires_grad)
    assert [(g["penalty"], g["weight_decay"]) for g in groups] == [
        ("group", 0.1),
        ("l1", 0.1),
        (None, 0.0),
    ]
    assert [g.get("lam") for g in groups] == [0.5, 0.25, None]
    optimizer = DessiLBI(groups, lr=0.1)
    assert optimizer.param_groups[0]["nu"] == 3.0


def test_shared_weights_are_split_once():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    groups = split_groups(net)
    assert [name for name, _ in groups[0]["params"]] == ["0.weight"]
    DessiLBI(groups)


@pytest.mark.parametrize("falling", [False, True])
def test_what_is_held_up_outside_the_support(falling):
    """A running mean of -nu G / (1 - momentum) with weights kappa alpha / nu: for constant nu the
    limit does not depend on the steps, and for nu in proportion to lr it goes to zero with them."""
    p, G = param((5,)), torch.linspace(-1, 1, 5, dtype=torch.float64)
    optimizer = DessiLBI([p], lr=0.1, kappa=0.5, nu=2.0, lam=1e9, penalty="l1")
    (group,) = optimizer.param_groups
    optimizer.state[p]["momentum_buffer"] = G / (1 - 0.9)  # has settled
    W = p.detach().clone()
    for k in range(2000):
        group["lr"] = alpha = 0.1 * (1 + np.cos(np.pi * k / 2000)) / 2
        group["nu"] = nu = 2.0 * alpha / 0.1 if falling else 2.0
        c = 0.5 * alpha / nu
        W = (1 - c) * W + c * (-nu * G / (1 - 0.9))
        p.grad = G.clone()
        optimizer.step()
    torch.testing.assert_close(p.detach(), W, rtol=1e-12, atol=1e-12)
    limit = torch.zeros(5, dtype=torch.float64) if falling else -2.0 * G / (1 - 0.9)
    torch.testing.assert_close(p.detach(), limit, rtol=0, atol=0.05)  # of up to 20


def test_steps_with_a_finite_sum_stop_short_of_the_limit():
    """alpha_k = 2^-k with nu = 10 and a gradient of 1: W stops at -0.95, and not at -10."""
    p = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = DessiLBI([p], lr=1.0, nu=10.0, lam=1e9, penalty="l1", momentum=0)
    left = 1.0
    for k in range(1, 60):
        optimizer.param_groups[0]["lr"] = alpha = 2.0**-k
        left *= 1 - alpha / 10
        p.grad = torch.ones_like(p)
        optimizer.step()
    torch.testing.assert_close(p.item(), -10 * (1 - left), rtol=1e-12, atol=1e-12)
    assert -1 < p.item() < -0.9


def test_telescoping_identity_of_the_optimizer():
    """W/kappa + V + sum of alpha*u is constant; u is read off the momentum buffer."""
    p = param((5, 4))
    optimizer = DessiLBI([p], lr=0.1, kappa=3.0, nu=2.0, lam=0.3, penalty="group")
    start = p.detach() / 3.0
    total = torch.zeros_like(start)
    for g in vectors.gradients((5, 4), 200):
        p.grad = torch.tensor(g)
        optimizer.step()
        total += 0.1 * optimizer.state[p]["momentum_buffer"]
    drift = p.detach() / 3.0 + optimizer.state[p]["V"] + total - start
    np.testing.assert_allclose(drift.numpy(), 0, atol=1e-12)

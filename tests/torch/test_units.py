"""Units that extend over several tensors, blocks and parts: what enters as one."""

import copy
import math

import numpy as np
import pytest
import torch
import vectors
from torch import nn

from dslbi_torch import DessiLBI, PathRecorder, RecordedPath, Split, TargetDensity, support_masks
from dslbi_torch.dessilbi import gamma
from dslbi_torch.penalties import PENALTIES
from dslbi_torch.slices import Units
from dslbi_torch.units import families, gammas, norms, scores, selected, unit_sizes

# A stream of five channels that three tensors write: a convolution, a linear layer, a bias.
SHAPES = {"conv": (5, 2, 3, 3), "linear": (5, 4), "bias": (5,)}
ROUTES = {
    "pieces": dict(),
    "lists": dict(foreach=True),
    "one by one": dict(momentum=0.0),
}


def tensors(shapes=SHAPES, seed=0, dtype=torch.float64):
    return {
        name: nn.Parameter(torch.tensor(vectors.array(shape, seed + i), dtype=dtype))
        for i, (name, shape) in enumerate(shapes.items())
    }


def stream(W, **options):
    options = dict(lr=0.05, nu=1.0, lam=0.8, penalty="group", joint=True) | options
    return DessiLBI([dict(params=list(W.items()))], **options)


def step(optimizer, W, k, scale=1.0):
    for i, p in enumerate(W.values()):
        p.grad = scale * torch.tensor(vectors.array(tuple(p.shape), 50 * k + i + 10)).to(p.dtype)
    optimizer.step()


def rows(xs):
    """The matrix whose k-th row holds all entries of unit k."""
    return torch.cat([x.detach().flatten(1) if x.ndim > 1 else x[:, None] for x in xs], 1)


@pytest.mark.parametrize("options", ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize("weight", [None, "sqrt"])
def test_a_joint_family_is_one_matrix(options, weight):
    """Joint units step as the rows of the matrix that holds all tensors side by side."""
    W = tensors()
    lam = 0.8 if weight is None else 0.2
    ours = stream(W, weight=weight, lam=lam, weight_decay=0.01, **options)
    M = nn.Parameter(rows(W.values()).clone())
    whole = DessiLBI(
        [dict(params=[("matrix", M)])],
        **{k: v for k, v in ours.defaults.items() if k not in ("joint", "params")},
    )
    chosen = set()
    for k in range(60):
        step(ours, W, k)
        M.grad = rows([p.grad for p in W.values()])
        whole.step()
        torch.testing.assert_close(rows(W.values()), M.detach(), rtol=1e-12, atol=1e-12)
        (family,) = families(ours)
        V = whole.state[M]["V"]
        torch.testing.assert_close(rows(family.Vs), V, rtol=1e-12, atol=1e-12)
        (alone,) = families(whole)
        torch.testing.assert_close(rows(gammas(family)), gammas(alone)[0], rtol=1e-12, atol=1e-12)
        chosen.add(int(selected(family)[0].sum()))
    assert len(chosen) > 2 and unit_sizes(family) == [2 * 9 + 4 + 1]


@pytest.mark.parametrize("options", ROUTES.values(), ids=ROUTES)
def test_what_is_conserved(options):
    """W/kappa + V + sum of alpha*u does not change, tensor by tensor."""
    W = tensors()
    optimizer = stream(W, kappa=2.0, **{"momentum": 0.9, **options})
    total = {n: p.detach() / 2 for n, p in W.items()}
    for k in range(40):
        step(optimizer, W, k)
        for name, p in W.items():
            u = optimizer.state[p].get("momentum_buffer", p.grad)
            total[name] = total[name] - 0.05 * u
            now = p.detach() / 2 + optimizer.state[p]["V"]
            torch.testing.assert_close(now, total[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("weight", [None, "sqrt"])
def test_without_gradient_the_joint_initial_norm_decides(weight):
    """A unit enters exactly if its joint initial norm exceeds kappa * lam (* sqrt of its size)."""
    W = tensors()
    initial = rows(W.values()).norm(dim=1).detach()
    kappa = 1.5
    factor = 1.0 if weight is None else math.sqrt(23)
    level = float(initial.sort().values[1:3].mean()) / (kappa * factor)
    optimizer = stream(W, kappa=kappa, lam=level, weight=weight, momentum=0.0)
    recorder = PathRecorder(optimizer)
    for _ in range(3000):
        step(optimizer, W, 0, scale=0.0)
    entered = recorder.entry_steps("conv") >= 0
    np.testing.assert_array_equal(entered, (initial > kappa * level * factor).numpy())
    assert 0 < entered.sum() < 5


def test_blocks_of_parts_are_rows_of_a_view():
    """Two parts of three blocks of two slices: unit k holds block k of either part."""
    x = torch.tensor(vectors.array((12, 5)))
    units = Units(block=2, parts=2, weight="sqrt")
    row = PENALTIES["group"]
    matrix = x.view(2, 3, 2, 5).transpose(0, 1).reshape(3, 20)
    torch.testing.assert_close(
        row.score([x], units)[0].flatten(), matrix.norm(dim=1) / math.sqrt(20)
    )
    (found,) = row.prox([x], 0.3, units)
    (expected,) = row.prox([matrix], 0.3, Units(weight="sqrt"))
    again = found.view(2, 3, 2, 5).transpose(0, 1).reshape(3, 20)
    torch.testing.assert_close(again, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        row.value([x], 0.3, units), row.value([matrix], 0.3, Units(weight="sqrt"))
    )


@pytest.mark.parametrize("route", [dict(), dict(foreach=True), dict(coupling="inside")], ids=str)
def test_heads_of_a_fused_matrix_enter_together(route):
    """Queries, keys and values of a head in one matrix, and its rows of another: six tensors' worth
    of slices, one unit."""
    W = tensors({"qkv": (12, 4)})
    optimizer = DessiLBI(
        list(W.items()), lr=0.05, nu=0.5, lam=1.2, penalty="group", block=2, parts=3, **route
    )
    M = nn.Parameter(W["qkv"].detach().view(3, 2, 2, 4).transpose(0, 1).reshape(2, 24).clone())
    alone = DessiLBI([M], lr=0.05, nu=0.5, lam=1.2, penalty="group", **route)
    for k in range(30):
        step(optimizer, W, k)
        M.grad = W["qkv"].grad.view(3, 2, 2, 4).transpose(0, 1).reshape(2, 24)
        alone.step()
    again = W["qkv"].detach().view(3, 2, 2, 4).transpose(0, 1).reshape(2, 24)
    torch.testing.assert_close(again, M.detach(), rtol=1e-12, atol=1e-12)
    (mask,) = support_masks(optimizer).values()
    assert mask.view(3, 2, 2, 4).flatten(2).all(2).eq(mask.view(3, 2, 2, 4).flatten(2).any(2)).all()


def test_prox_of_a_joint_family_minimises():
    """Argmin test: no nearby family has a smaller ||x - v||^2 / (2 step) + lam * Omega(x)."""
    row, lam, units = PENALTIES["group"], 0.7, Units(weight="sqrt")
    vs = [torch.tensor(vectors.array(s, i)) for i, s in enumerate(SHAPES.values())]
    xs = row.prox(vs, 1.7 * lam, units)

    def objective(xs):
        near = sum(((x - v) ** 2).sum() for x, v in zip(xs, vs, strict=True))
        return near / (2 * 1.7) + row.value(xs, lam, units)

    least = objective(xs)
    for seed in range(200):
        size = 10.0 ** -(1 + seed % 6)
        moved = [
            x + size * torch.tensor(vectors.array(x.shape, 9 * seed + i)) for i, x in enumerate(xs)
        ]
        assert objective(moved) > least


def test_split_takes_joint_units():
    a, b = tensors(), tensors()
    alone = stream(a, kappa=2.0, lr=0.05, lam=6.0)
    base = torch.optim.SGD(
        [dict(params=list(b.items()), penalty="group", joint=True)], lr=0.1, momentum=0.9
    )
    split = Split(base, kappa=2.0, nu=1.0, lam=6.0)
    for k in range(30):
        step(alone, a, k)
        step(split, b, k)
    torch.testing.assert_close(rows(a.values()), rows(b.values()), rtol=1e-12, atol=1e-12)
    assert 0 < int(selected(families(split)[0])[0].sum()) < 5


def test_what_reads_a_path_reads_joint_units_once(tmp_path):
    W = tensors()
    optimizer = stream(W)
    TargetDensity(optimizer, 0.4, steps=60, ramp=1.0)
    recorder = PathRecorder(optimizer, every=5)
    for k in range(60):
        step(optimizer, W, k)
    (family,) = families(optimizer)
    masks = support_masks(optimizer)
    assert list(masks) == list(SHAPES)
    kept = rows([m.double() for m in masks.values()])
    assert torch.equal(kept.any(1), kept.all(1)) and int(kept.all(1).sum()) == 2  # 0.4 of five
    recorder.save(tmp_path / "path.npz")
    record = RecordedPath.load(tmp_path / "path.npz")
    assert list(record.entry) == ["conv"] and record.entry["conv"].shape == (5,)
    np.testing.assert_array_equal(recorder.entry_steps("bias"), record.entry["conv"])
    assert record.nonzero["conv"][-1] == 2 * 23
    joint = rows(gammas(family)).norm(dim=1)
    np.testing.assert_allclose(record.gamma_norm["conv"][-1], joint, rtol=1e-6)
    assert len(scores(family)) == 1 and len(norms(family.Ws, family.group)) == 1


def test_a_tensor_without_gradient_counts_and_does_not_move():
    W = tensors()
    optimizer = stream(W)
    for k in range(10):
        step(optimizer, W, k)
    before = W["linear"].detach().clone(), optimizer.state[W["linear"]]["V"].clone()
    (family,) = families(optimizer)
    Gamma = gammas(family)[0]
    V = [x.clone() for x in family.Vs]
    W["linear"].grad = None
    for name in ("conv", "bias"):
        W[name].grad = torch.zeros_like(W[name])
    old = W["conv"].detach().clone()
    optimizer.step()
    torch.testing.assert_close(W["linear"].detach(), before[0], rtol=0, atol=0)
    torch.testing.assert_close(optimizer.state[W["linear"]]["V"], before[1], rtol=0, atol=0)
    expected = V[0] + 0.05 * (old - Gamma)
    torch.testing.assert_close(optimizer.state[W["conv"]]["V"], expected, rtol=1e-12, atol=1e-12)
    alone = gamma([V[0]], lam=0.8, penalty="group")[0]
    assert (alone - Gamma).abs().max() > 1e-3  # its V counts


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (
            {"a": (4, 3), "b": (5, 3)},
            dict(joint=True),
            "joint tensors must have equal numbers of slices, got 4 of a and 5 of b",
        ),
        (
            {"a": (6, 3)},
            dict(block=4),
            "block \\* parts must divide the 6 slices of a, got block 4 and parts 1",
        ),
        (
            {"a": (6, 3)},
            dict(block=2, parts=2),
            "block \\* parts must divide the 6 slices of a, got block 2 and parts 2",
        ),
        ({"a": (6, 3)}, dict(block=0), "block must be an integer of at least 1, got 0"),
        ({"a": (6, 3)}, dict(parts=1.5), "parts must be an integer of at least 1, got 1.5"),
        (
            {"a": (6, 3)},
            dict(block=2, group_dim=(0, 1)),
            "block and parts need slices along one axis, got group_dim \\(0, 1\\)",
        ),
        (
            {"a": (6, 3)},
            dict(joint=True, penalty="l1"),
            "joint needs a penalty of slices, got penalty 'l1'",
        ),
        ({"a": (6, 3)}, dict(penalty="l2"), "penalty must be None, .*, got 'l2'"),
    ],
    ids=str,
)
def test_bad_units_are_refused_in_one_line(shapes, options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        stream(tensors(shapes), **{"joint": False, **options})
    base = torch.optim.SGD(
        [dict(params=list(tensors(shapes).items()), **{"penalty": "group", **options})], lr=0.1
    )
    with pytest.raises(ValueError, match=f"^{message}$"):
        Split(base)


def test_split_around_groups_that_split_nothing_is_refused():
    base = torch.optim.SGD([dict(params=[nn.Parameter(torch.ones(3))])], lr=0.1)
    with pytest.raises(ValueError, match="a group of base must have a penalty"):
        Split(base)


def test_joint_units_resume_bit_for_bit():
    a, b = tensors(), tensors()
    one, two = stream(a), stream(b)
    for k in range(8):
        step(one, a, k)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    with torch.no_grad():
        for p, q in zip(a.values(), b.values(), strict=True):
            q.copy_(p)
    for k in range(8, 20):
        step(one, a, k)
        step(two, b, k)
    torch.testing.assert_close(rows(a.values()), rows(b.values()), rtol=0, atol=0)

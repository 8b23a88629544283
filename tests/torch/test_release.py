"""The release of a path: checkpoints across it, what counts from it, and what is refused."""

import copy

import pytest
import torch
import vectors
from torch import nn

from dslbi_torch import (
    DessiLBI,
    PathRecorder,
    RecordedPath,
    Release,
    Split,
    TargetDensity,
    density,
    release_,
    split_groups,
    support_masks,
)
from dslbi_torch.units import families


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 5))


def dessilbi(model, **options):
    return DessiLBI(split_groups(model, conv="l1", nu=1.0, lam=0.2, apart=True), lr=0.1, **options)


def around_adam(model):
    return Split(torch.optim.AdamW(split_groups(model, nu=0.1, lam=0.2, apart=True), lr=0.01))


OPTIMIZERS = {
    "one by one": lambda model: dessilbi(model, momentum=0),
    "pieces": dessilbi,
    "lists": lambda model: dessilbi(model, foreach=True),
    "around AdamW": around_adam,
}


def walk(model, optimizer, n_steps, start=0):
    """Steps on a least squares problem, so that the weights that are released are trained ones."""
    for k in range(start, start + n_steps):
        x = torch.tensor(vectors.array((8, 1, 4, 4), seed=k)).float()
        y = torch.tensor(vectors.array((8, 5), seed=1000 + k)).float() + x.flatten(1)[:, :5]
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()


def same(a, b):
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("made", OPTIMIZERS)
def test_at_rest_the_step_is_that_of_an_optimizer_that_does_not_split(made):
    resting, plain = net(), net()
    optimizer, other = OPTIMIZERS[made](resting), OPTIMIZERS[made](plain)
    Release(optimizer, 30)
    if isinstance(other, Split):
        other = other.base
    for group in other.param_groups:
        group["penalty"] = None
    walk(resting, optimizer, 30)
    walk(plain, other, 30)
    same(resting, plain)
    assert not any(mask.any() for mask in support_masks(optimizer).values())


@pytest.mark.parametrize("stop", [7, 19, 20, 21, 30])
@pytest.mark.parametrize("first", ["attached", "loaded"])
@pytest.mark.parametrize("made", OPTIMIZERS)
def test_a_checkpoint_of_the_optimizer_alone_goes_on_across_the_release(made, first, stop):
    settings = dict(pull=0.5, power=0.5, steps=60)

    def fresh():
        model = net()
        return model, OPTIMIZERS[made](model)

    def attach(optimizer):
        Release(optimizer, 20, **settings)
        TargetDensity(optimizer, 0.3, steps=60, ramp=0.5)

    model, whole = fresh()
    attach(whole)
    walk(model, whole, 60)
    one, optimizer = fresh()
    attach(optimizer)
    walk(one, optimizer, stop)
    two, again = fresh()
    if first == "attached":
        attach(again)
    two.load_state_dict(one.state_dict())
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    if first == "loaded":
        attach(again)
    walk(two, again, 60 - stop, start=stop)
    same(model, two)
    for a, b in zip(families(whole), families(again), strict=True):
        assert all(torch.equal(V, U) for V, U in zip(a.Vs, b.Vs, strict=True))
        assert {k: v for k, v in a.group.items() if k != "params"} == {
            k: v for k, v in b.group.items() if k != "params"
        }
    assert density(again, two).nonzero_split == pytest.approx(0.3, abs=0.03)  # a group


def test_with_its_own_pull_the_weights_rest_at_the_minimiser(close):
    """Of L + |W|^2 / (2 nu); with momentum outside, of L / (1 - momentum) + |W|^2 / (2 nu)."""
    B, nu = torch.tensor(vectors.array((4, 5))), 2.0
    for momentum in (0.0, 0.5):
        p = nn.Parameter(torch.tensor(vectors.array((4, 5), seed=1)))
        optimizer = DessiLBI([p], lr=0.1, nu=nu, penalty="l1", momentum=momentum)
        Release(optimizer, 1000, pull=1.0)
        for _ in range(1000):
            p.grad = (p - B).detach()
            optimizer.step()
        h = nu / (1 - momentum)
        close(p.detach(), B * h / (h + 1))


def test_the_record_says_where_the_path_was_released(tmp_path):
    model = net()
    optimizer = dessilbi(model)
    Release(optimizer, 13)
    recorder = PathRecorder(optimizer, every=5, elements=True)
    walk(model, optimizer, 40)
    recorder.save(tmp_path / "path.npz")
    record = RecordedPath.load(tmp_path / "path.npz")
    assert record.steps.tolist() == [0, 5, 10, 13, 15, 20, 25, 30, 35, 40]
    expected = [0, 0, 0, 0, 0.2, 0.7, 1.2, 1.7, 2.2, 2.7]
    assert record.times.tolist() == pytest.approx(expected)
    entered = recorder.entry_steps("3.weight")
    assert 13 < entered[entered >= 0].min()
    assert not record.nonzero["3.weight"][:4].any() and record.nonzero["3.weight"][-1] > 0


def test_the_ramp_begins_with_the_release():
    model = net()
    optimizer = dessilbi(model)
    controller = TargetDensity(optimizer, 0.5, steps=100, ramp=0.5, every=1)
    Release(optimizer, 20)
    for step in range(10, 101, 10):
        walk(model, optimizer, 10, start=step)
        due = 0.5 * min(1, max(0, step - 20) / 40)
        assert density(optimizer, model).nonzero_split == pytest.approx(due, abs=0.02)
    assert controller.step == 100


def test_from_dense_to_sparse():
    model = net()
    optimizer = dessilbi(model)
    release_(optimizer, dense=True)
    assert density(optimizer, model).nonzero_split == 1
    TargetDensity(optimizer, 0.2, steps=50, ramp=0.5, first=1.0)
    reached = []
    for k in range(5):
        walk(model, optimizer, 10, start=10 * k)
        reached.append(density(optimizer, model).nonzero_split)
    assert reached == pytest.approx([0.68, 0.36, 0.2, 0.2, 0.2], abs=0.02)


@pytest.mark.parametrize("made", OPTIMIZERS)
def test_a_run_from_dense_to_sparse_goes_on_from_its_checkpoint(made):
    """Also where the path was released anew before the checkpoint came."""
    model = net()
    optimizer = OPTIMIZERS[made](model)
    release_(optimizer, dense=True)
    walk(model, optimizer, 3)
    again = net()
    going_on = OPTIMIZERS[made](again)
    release_(going_on, dense=True)
    again.load_state_dict(copy.deepcopy(model.state_dict()))
    going_on.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for own, o in ((model, optimizer), (again, going_on)):
        walk(own, o, 2, start=3)
    same(model, again)
    for one, two in zip(families(optimizer), families(going_on), strict=True):
        for V, U in zip(one.Vs, two.Vs, strict=True):
            torch.testing.assert_close(V, U, rtol=0, atol=0)


@pytest.mark.parametrize("rise", [0.3, 3.02])
@pytest.mark.parametrize("kappa", [1.0, 3.0])
def test_what_a_rise_of_the_level_takes_from_a_group_that_stays(kappa, rise):
    """Half of it, times kappa, where no gradient gives it back; so the smallest leave first."""
    W = nn.Parameter(torch.tensor(vectors.array((3, 4), seed=1)) + 2)
    optimizer = DessiLBI([W], lr=0.05, kappa=kappa, nu=1.0, lam=0.2, penalty="group", momentum=0)
    release_(optimizer, dense=True)
    before, W.grad = W.detach().clone(), torch.zeros_like(W)
    optimizer.step()
    torch.testing.assert_close(W.detach(), before)  # it rests at Gamma = W
    optimizer.param_groups[0]["lam"] += rise
    for _ in range(600):
        optimizer.step()
    norms = before.norm(dim=1, keepdim=True)
    left = (1 - kappa * rise / 2 / norms).clamp(min=0)
    assert (left > 0).sum() == (2 if kappa * rise > 9 else 3)
    torch.testing.assert_close(W.detach(), before * left)


def test_levels_follow_the_scale_of_the_weights_and_a_typical_one_stays():
    model = net()
    with torch.no_grad():
        model[0].weight.mul_(3)
    W = [model[0].weight.detach(), model[3].weight.detach()]
    rms = [w.double().square().mean().sqrt().item() for w in W]
    typical = torch.cat([w.flatten() for w in W]).double().square().mean().sqrt().item()
    for power in (0.5, 1.0, -1.0):
        optimizer = dessilbi(model)
        release_(optimizer, power=power)
        found = [group["lam"] for group in optimizer.param_groups[:2]]
        assert found == pytest.approx([0.2 * (x / typical) ** power for x in rms], rel=1e-6)


def test_a_copy_without_its_hooks_does_not_rest_for_ever():
    model = net()
    optimizer = dessilbi(model)
    Release(optimizer, 5)
    again = dessilbi(model)
    again.load_state_dict(optimizer.state_dict())
    with pytest.raises(RuntimeError, match="released in 6 steps, and nothing will do it: attach"):
        walk(model, again, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(after=0), "after must be an integer of at least 1, got 0"),
        (dict(after=2.5), "after must be an integer of at least 1, got 2.5"),
        (dict(after=10, steps=10), "after must be below 10, the steps of the run, got 10"),
        (dict(after=1, pull=-1), "pull must be at least 0 and finite, got -1"),
        (dict(after=1, power=float("nan")), "power must be finite, got nan"),
    ],
)
def test_bad_settings_are_one_line(arguments, message):
    with pytest.raises(ValueError, match=message):
        Release(dessilbi(net()), **arguments)


def test_a_path_is_released_once_and_before_it_begins():
    model = net()
    optimizer = dessilbi(model)
    Release(optimizer, 5)
    with pytest.raises(ValueError, match="a path must be released once, got a second release"):
        Release(optimizer, 5)
    with pytest.raises(ValueError, match="released once, got one in 6 steps and one now"):
        release_(optimizer)
    with pytest.raises(ValueError, match="released before the last of 5 steps, got 5 steps of re"):
        TargetDensity(optimizer, 0.5, steps=5)
    optimizer = dessilbi(model)
    release_(optimizer)
    with pytest.raises(ValueError, match="released once, got one before and one now"):
        release_(optimizer)
    with pytest.raises(ValueError, match="a path must be released once, got a second release"):
        Release(optimizer, 5)
    optimizer = dessilbi(model)
    walk(model, optimizer, 1)
    for call in (lambda: release_(optimizer), lambda: Release(optimizer, 5)):
        with pytest.raises(ValueError, match="released before it begins, got a V of 0.weight that"):
            call()


def test_levels_need_weights_and_groups_of_their_own():
    model = net()
    nn.init.zeros_(model[3].weight)
    optimizer = dessilbi(model)
    with pytest.raises(ValueError, match="got the root mean square 0.0 of 3.weight"):
        release_(optimizer, power=1.0)
    assert [g["lam"] for g in optimizer.param_groups[:2]] == [0.2, 0.2]  # nothing has changed
    shared = DessiLBI(split_groups(net(), conv="l1", nu=1.0), lr=0.1)
    for call in (lambda: release_(shared, power=1.0), lambda: Release(shared, 3, power=1.0)):
        with pytest.raises(ValueError, match="apart=True.*, got 0.weight and 3.weight in one"):
            call()

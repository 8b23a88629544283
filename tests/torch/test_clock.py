"""What a run will reach, told beforehand: against runs, and around bases whose step differs."""

import copy
import itertools
import math
import warnings

import numpy as np
import pytest
import torch
import vectors
from torch import nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from dslbi_torch import (
    DessiLBI,
    FallingNu,
    PathRecorder,
    Release,
    Split,
    density,
    forecast,
    split_groups,
    suggest,
)
from dslbi_torch.clock import lr_course

STEPS = 60


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 5)).double()


def around(base, lr=0.02, **options):
    def make(model):
        return Split(base(split_groups(model, nu=0.1, lam=0.5, kappa=2.0), lr=lr), **options)

    return make


OPTIMIZERS = {
    "dessilbi": lambda model: DessiLBI(split_groups(model, nu=0.1, kappa=2.0), lr=0.01),
    "sgd": around(torch.optim.SGD),
    "adamw": around(torch.optim.AdamW),
    "adam": around(torch.optim.Adam),
}
SCHEDULES = {
    "none": lambda o: None,
    "cosine": lambda o: CosineAnnealingLR(o, STEPS, eta_min=1e-4),
    "step": lambda o: StepLR(o, 20, 0.1),
    "warm": lambda o: SequentialLR(o, [LinearLR(o, 0.1, 1.0, 10), StepLR(o, 15, 0.5)], [10]),
    "one cycle": lambda o: OneCycleLR(o, 0.05, total_steps=STEPS + 1, cycle_momentum=False),
    "lambda": lambda o: LambdaLR(o, lambda k: 1 / (1 + k)),
}


def idle(model, optimizer, steps, scheduler=None, every=1):
    """Steps without a gradient of the loss: the pull alone moves W. Returns every lr and nu."""
    seen = []
    for k in range(1, steps + 1):
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
        seen.append([(float(g["lr"]), g.get("nu")) for g in optimizer.param_groups])
        if scheduler is not None and k % every == 0:
            scheduler.step()
    return seen


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", ["dessilbi", "adamw"])
def test_the_course_of_lr_is_that_of_the_run_and_nothing_is_touched(name, schedule):
    model = net()
    optimizer = OPTIMIZERS[name](model)
    scheduler = SCHEDULES[schedule](optimizer)
    before = copy.deepcopy(optimizer.state_dict()["param_groups"])
    state = copy.deepcopy({} if scheduler is None else scheduler.state_dict())
    random = torch.get_rng_state()
    for every in (1, 7):
        course = np.array(lr_course(optimizer, STEPS, scheduler, every))
    assert optimizer.state_dict()["param_groups"] == before and not optimizer.state
    after = {} if scheduler is None else scheduler.state_dict()
    assert str(after) == str(state)
    assert torch.equal(random, torch.get_rng_state())
    seen = idle(model, optimizer, STEPS, scheduler, every=7)
    assert course.T.tolist() == [[lr for lr, _ in row] for row in seen]


@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.filterwarnings("ignore:S must be")
def test_the_pull_leaves_what_is_forecast(name, schedule, falling):
    """Without gradients a product of 1 - pull, which is e^-S but for the square of the pull; the
    same for every base, whose own step is then zero."""
    model = net()
    optimizer = OPTIMIZERS[name](model)
    for group in optimizer.param_groups:
        group.update(lam=1e9 if group["penalty"] else group["lam"], weight_decay=0.0)
    scheduler = SCHEDULES[schedule](optimizer)
    if falling:
        FallingNu(optimizer)
    rows = forecast(optimizer, STEPS, scheduler=scheduler)
    start = [p.detach().clone() for p in model.parameters()]
    recorder = PathRecorder(optimizer)
    seen = idle(model, optimizer, STEPS, scheduler)
    kappa = 2.0 if name == "dessilbi" else 1.0  # lr of a base is kappa * alpha
    pulls = [kappa * lr / nu for (lr, nu), *_ in seen]
    left = math.prod(1 - pull for pull in pulls)
    for row, W, p in zip(rows, start[::2], list(model.parameters())[::2], strict=True):
        assert row.S == pytest.approx(sum(pulls), rel=1e-12)
        assert row.pull == pytest.approx(max(pulls), rel=1e-12) and row.first is None
        assert row.time == pytest.approx(recorder.time, rel=1e-12)
        torch.testing.assert_close(p.detach(), left * W, rtol=1e-9, atol=1e-12)
        assert left <= math.exp(-row.S)


@pytest.mark.parametrize("after", [0, 13])
@pytest.mark.parametrize("name", ["dessilbi", "adamw"])
@pytest.mark.filterwarnings("ignore:S must be")
def test_the_first_entry_is_forecast_for_weights_that_stay(name, after):
    model = net()
    optimizer = OPTIMIZERS[name](model)
    for group in optimizer.param_groups:
        group.update(nu=50.0, lam=0.001)
    if after:
        Release(optimizer, after)
    rows = forecast(optimizer, STEPS)
    recorder = PathRecorder(optimizer, elements=True)
    for _ in range(STEPS):
        start = [p.detach().clone() for p in model.parameters()]
        idle(model, optimizer, 1)
        with torch.no_grad():  # hold the weights where they are
            for p, W in zip(model.parameters(), start, strict=True):
                p.copy_(W)
    for row in rows:
        entered = recorder.entry_steps(row.names[0])
        assert row.first == entered[entered >= 0].min() > after


def test_adam_holds_up_nu_whatever_the_gradient_and_sgd_in_proportion_to_it():
    """Outside the support W goes to ``-nu g / (1 - momentum)`` with SGD, to ``-nu sign(g)`` with
    Adam."""
    g = torch.tensor([1e-3, -1e-2, 0.1], dtype=torch.float64)
    for base, limit in (
        (lambda q: torch.optim.SGD(q, lr=0.01, momentum=0.5), -0.2 * g / (1 - 0.5)),
        (lambda q: torch.optim.Adam(q, lr=0.01, eps=1e-16), -0.2 * g.sign()),
        (lambda q: torch.optim.AdamW(q, lr=0.01, eps=1e-16, weight_decay=0), -0.2 * g.sign()),
    ):
        p = nn.Parameter(torch.tensor(vectors.array(3)))
        optimizer = Split(base([dict(params=[p], penalty="l1", nu=0.2, lam=1e9)]))
        for _ in range(1000):
            p.grad = g.clone()
            optimizer.step()
        torch.testing.assert_close(p.detach(), limit, rtol=1e-9, atol=1e-12)


def test_s_counts_from_the_end_of_the_ramp_and_from_the_release():
    optimizer = DessiLBI([nn.Parameter(torch.ones(3))], lr=0.1, penalty="l1", nu=0.25)
    pull = 0.1 / 0.25
    for ramp, steps in ((0.0, 100), (0.3, 70), (1.0, 100)):
        (row,) = forecast(optimizer, 100, ramp=ramp)
        assert row.S == pytest.approx(steps * pull)
    Release(optimizer, 40)
    (row,) = forecast(optimizer, 100, ramp=0.5)
    assert row.S == pytest.approx(30 * pull) and row.time == pytest.approx(6.0)


def test_a_run_that_cannot_select_is_one_line_with_the_numbers():
    optimizer = DessiLBI([("fc", nn.Parameter(torch.ones(3)))], lr=1e-3, penalty="l1", nu=5)
    with pytest.warns(UserWarning) as caught:
        forecast(optimizer, 1000, ramp=0.5)
    (line,) = [str(warning.message) for warning in caught]
    assert line == (
        "S must be at least 3 to select or cut anything, got 0.1 for fc with nu 5 in 500 steps "
        "after the ramp, which leaves 90% of what is outside the support: a nu of 0.05 makes it 10"
    )
    optimizer.param_groups[0]["nu"] = 0.05
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (row,) = forecast(optimizer, 1000, ramp=0.5)
    assert row.S == pytest.approx(10)


@pytest.mark.parametrize("ramp", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("name", ["dessilbi", "adamw"])
def test_what_is_suggested_is_reached(name, falling, ramp):
    model = net()
    optimizer = OPTIMIZERS[name](model)
    scheduler = CosineAnnealingLR(optimizer, STEPS, eta_min=1e-4)
    settings = dict(scheduler=scheduler, ramp=ramp)
    if falling:
        FallingNu(optimizer)
    values = suggest(optimizer, STEPS, S=4.0, **settings)
    for group, value in zip(optimizer.param_groups, values, strict=True):
        assert ("nu" in value) == (group["penalty"] is not None)
        group.update(value)
    assert [row.S for row in forecast(optimizer, STEPS, **settings)] == pytest.approx([4, 4])


def test_suggested_levels_select_the_density_where_the_weights_stay():
    model = net()
    optimizer = DessiLBI(split_groups(model, conv="l1"), lr=0.01)
    values = suggest(optimizer, STEPS, S=5.0, density=0.3)
    for group, value in zip(optimizer.param_groups, values, strict=True):
        group.update(value)
    for _ in range(STEPS):
        start = [p.detach().clone() for p in model.parameters()]
        idle(model, optimizer, 1)
        with torch.no_grad():
            for p, W in zip(model.parameters(), start, strict=True):
                p.copy_(W)
    # what has entered pushes V back, so a weight may have left again
    assert density(optimizer, model).nonzero_split == pytest.approx(0.3, abs=0.02)


def test_nu_falls_with_lr_and_a_checkpoint_goes_on():
    def fresh():
        model = net()
        optimizer = DessiLBI(split_groups(model, nu=0.5, lam=0.1), lr=0.1)
        return model, optimizer, SCHEDULES["warm"](optimizer)

    model, whole, scheduler = fresh()
    FallingNu(whole)
    seen = [row[0] for row in idle(model, whole, 40, scheduler)]
    top = 0.0
    for lr, nu in seen:
        top = max(top, lr)
        assert nu == pytest.approx(0.5 * lr / top, rel=1e-14)
    assert seen[9][1] == 0.5 > seen[-1][1]
    for stop, late in itertools.product((5, 30), (False, True)):
        one, optimizer, scheduler = fresh()
        FallingNu(optimizer)
        idle(one, optimizer, stop, scheduler)
        two, again, other = fresh()
        if not late:
            FallingNu(again)
        two.load_state_dict(one.state_dict())
        again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        other.load_state_dict(scheduler.state_dict())
        if late:
            FallingNu(again)
        rest = [row[0] for row in idle(two, again, 40 - stop, other)]
        assert rest == seen[stop:]
        for p, q in zip(model.parameters(), two.parameters(), strict=True):
            assert torch.equal(p, q)


@pytest.mark.filterwarnings("ignore:S must be")
def test_a_schedule_from_zero_and_back_to_zero_moves_nothing_there():
    model = net()
    optimizer = DessiLBI(split_groups(model, nu=0.5, lam=1e9), lr=0.1)
    scheduler = LambdaLR(optimizer, lambda k: max(0.0, 1 - abs(k - 5) / 5))
    FallingNu(optimizer)
    rows = forecast(optimizer, 15, scheduler=scheduler)
    start = [p.detach().clone() for p in model.parameters()]
    seen = [row[0] for row in idle(model, optimizer, 15, scheduler)]
    assert [seen[0], seen[4][1], seen[5]] == [(0.0, 0.5), 0.5, (0.1, 0.5)]
    assert seen[9][1] == pytest.approx(0.1) and seen[10:] == [(0.0, seen[9][1])] * 5
    pulls = [lr / nu for lr, nu in seen]
    assert [row.S for row in rows] == pytest.approx([sum(pulls)] * 2)
    left = math.prod(1 - pull for pull in pulls)
    for W, p in zip(start[::2], list(model.parameters())[::2], strict=True):
        torch.testing.assert_close(p.detach(), left * W)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda o: forecast(o, 0), "steps must be an integer of at least 1, got 0"),
        (lambda o: forecast(o, True), "steps must be an integer of at least 1, got True"),
        (lambda o: forecast(o, 5, every=0), "every must be an integer of at least 1, got 0"),
        (lambda o: forecast(o, 5, ramp=2), r"ramp must be in \[0, 1\], got 2"),
        (lambda o: suggest(o, 5, S=0), r"S must be positive and finite, got 0"),
        (lambda o: suggest(o, 5, density=1), r"density must be in \(0, 1\), got 1"),
        (lambda o: suggest(o, 5, S=7), "pull of a step below 1, got 1.4 of W for S 7 in 5 steps"),
        (
            lambda o: forecast(o, 5, scheduler=ReduceLROnPlateau(o)),
            "scheduler must be an LRScheduler of this optimizer that .*, got a ReduceLROnPlateau",
        ),
        (
            lambda o: forecast(o, 5, scheduler=StepLR(OPTIMIZERS["sgd"](net()), 3)),
            "scheduler must be an LRScheduler of this optimizer that .*, got a StepLR",
        ),
        (
            lambda o: (Release(o, 5), forecast(o, 5)),
            "the path must be released before the last of 5 steps, got 5 steps of rest",
        ),
    ],
)
def test_bad_settings_are_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call(DessiLBI([nn.Parameter(torch.ones(3))], lr=0.1, penalty="l1"))


def test_levels_of_zeros_are_refused():
    optimizer = DessiLBI([nn.Parameter(torch.zeros(3))], lr=0.1, penalty="l1")
    with pytest.raises(ValueError, match="levels need weights that are not all zero"):
        suggest(optimizer, 50, density=0.5)

"""The sparse model as it was when the path crossed a density."""

import copy
import io

import pytest
import torch
import vectors
from torch import nn

from dslbi_torch import (
    DessiLBI,
    PathRecorder,
    Release,
    TargetDensity,
    crossing_masks,
    crossing_weights,
    density,
    density_curve,
    entry_ranking,
    gamma_ranking,
    magnitude_ranking,
    release_,
    sparse_weights,
    split_groups,
    support_masks,
)

AT = (0.1, 0.3, 0.5)
STEPS = 60


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 5)
    )


def fresh(conv="l1", **recorder):
    model = net()
    optimizer = DessiLBI(split_groups(model, conv=conv, nu=0.5, lam=0.2), lr=0.1)
    TargetDensity(optimizer, 0.6, steps=STEPS, ramp=1.0, every=1)
    return model, optimizer, PathRecorder(optimizer, elements=True, model=model, **recorder)


def walk(model, optimizer, steps=STEPS, start=0):
    for k in range(start, start + steps):
        x = torch.tensor(vectors.array((8, 1, 4, 4), seed=k)).float()
        optimizer.zero_grad()
        (model(x) - x.flatten(1)[:, :5]).square().mean().backward()
        optimizer.step()
        yield k + 1


def sparse_state(model, optimizer):
    with sparse_weights(optimizer):
        return copy.deepcopy(model.state_dict())


def assert_equal(a, b):
    assert list(a) == list(b)
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("conv", ["l1", "group"])
@pytest.mark.parametrize("after", [0, 15])
def test_it_is_the_model_of_the_first_step_with_that_density(conv, after):
    model, optimizer, recorder = fresh(conv, at=AT)
    if after:
        Release(optimizer, after)
    expected, masks, steps = {}, {}, {}
    for step in walk(model, optimizer):
        reached = density(optimizer, model).nonzero_split
        for d in AT:
            if reached >= d and d not in expected:
                expected[d] = sparse_state(model, optimizer)
                masks[d], steps[d] = support_masks(optimizer), step
    assert sorted(expected) == list(AT) and len(set(steps.values())) == 3
    before = copy.deepcopy(model.state_dict())
    for d in AT:
        with crossing_weights(recorder, d):
            assert_equal(model.state_dict(), expected[d])
        assert_equal(crossing_masks(recorder, d), masks[d])
        kept = recorder.crossings.model_at(d)
        assert kept["step"] == steps[d] and kept["density"] == pytest.approx(d, abs=0.06)
        assert kept["time"] == pytest.approx(0.1 * (steps[d] - after))
        count = sum(values.numel() for values in kept["values"].values())
        assert count == sum(int(mask.sum()) for mask in masks[d].values())  # no zero is kept
    assert_equal(model.state_dict(), before)
    with pytest.raises(ZeroDivisionError), crossing_weights(recorder, 0.1):
        raise ZeroDivisionError
    assert_equal(model.state_dict(), before)


def test_a_path_from_dense_to_sparse_crosses_from_above():
    model = net()
    optimizer = DessiLBI(split_groups(model, conv="l1", nu=0.5, lam=0.2), lr=0.1)
    release_(optimizer, dense=True)
    TargetDensity(optimizer, 0.2, steps=STEPS, ramp=1.0, first=1.0)
    recorder = PathRecorder(optimizer, at=AT)
    expected = {}
    for _ in walk(model, optimizer):
        for d in AT:
            if density(optimizer, model).nonzero_split <= d and d not in expected:
                expected[d] = support_masks(optimizer)
    assert sorted(expected) == [0.3, 0.5]
    for d, masks in expected.items():
        assert_equal(crossing_masks(recorder, d), masks)
    with pytest.raises(ValueError, match=r"must reach the density 0.1 to keep it, got 0.2"):
        crossing_masks(recorder, 0.1)


@pytest.mark.parametrize("stop", [5, 25, 50])
def test_the_recorder_s_checkpoint_holds_what_was_kept(stop):
    model, optimizer, whole = fresh(at=AT)
    list(walk(model, optimizer))
    one, half, recorder = fresh(at=AT)
    list(walk(one, half, stop))
    file = io.BytesIO()
    torch.save([one.state_dict(), half.state_dict(), recorder.state_dict()], file)
    file.seek(0)
    two, again, other = fresh(at=AT)
    for part, state in zip((two, again, other), torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    list(walk(two, again, STEPS - stop, start=stop))
    for d in AT:
        with crossing_weights(whole, d), crossing_weights(other, d):
            assert_equal(model.state_dict(), two.state_dict())
    with pytest.raises(ValueError, match=r"to keep must be \[0.2\] as here, got \[0.1, 0.3, 0.5\]"):
        fresh(at=[0.2])[2].load_state_dict(whole.state_dict())


def test_one_run_has_a_net_of_every_density_by_every_reading():
    model, optimizer, recorder = fresh(at=AT)
    list(walk(model, optimizer))

    def nonzero(model):
        return sum(int((model[k].weight != 0).sum()) for k in (0, 4)) / 174

    readings = recorder, entry_ranking(recorder), gamma_ranking(optimizer)
    for reading in (*readings, magnitude_ranking(optimizer)):
        curve = density_curve(model, reading, nonzero, AT)
        assert list(curve) == list(AT)
        assert list(curve.values()) == pytest.approx(AT, abs=0.02)


def test_off_by_default_and_refusals_of_one_line():
    model, optimizer, recorder = fresh()
    list(walk(model, optimizer))
    assert not recorder.crossings.kept
    with pytest.raises(ValueError, match="one of those to keep, none, got 0.1"):
        density_curve(model, recorder, float, [0.1])
    _, _, recorder = fresh(at=AT)
    with pytest.raises(ValueError, match="one of those to keep, 0.1, 0.3, 0.5, got 0.2"):
        crossing_masks(recorder, 0.2)
    with pytest.raises(ValueError, match="must reach the density 0.1 to keep it, got 0"):
        crossing_masks(recorder, 0.1)
    for bad in (0, 1, -0.1, float("nan"), "half"):
        with pytest.raises(ValueError, match=r"a density to keep must be in \(0, 1\), got"):
            fresh(at=[bad])
    with pytest.raises(ValueError, match="densities to keep must be several numbers, got 0.1"):
        fresh(at=0.1)


@pytest.mark.parametrize("first", [True, False])
def test_a_record_with_buffers_is_not_for_a_recorder_without_the_model(first):
    _, optimizer, recorder = fresh(at=AT)
    list(walk(recorder.crossings.model, optimizer))
    other = PathRecorder(optimizer, elements=True, at=AT)
    with_model = (r"must be \[\] as of the model here, got \['1.running_mean',", other, recorder)
    other.crossings.kept = {0.1: {**recorder.crossings.model_at(0.1), "buffers": {}}}
    without = (r"must be \['1.running_mean', .* as of the model here, got \[\]", recorder, other)
    message, into, of = with_model if first else without
    with pytest.raises(ValueError, match=message):
        into.load_state_dict(of.state_dict())

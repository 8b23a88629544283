"""The record of a path: entries, snapshots, files and checkpoints."""

import numpy as np
import pytest
import torch
from on_path import trained_filters
from recorded import flat
from torch import nn

from dslbi_torch import (
    DessiLBI,
    PathRecorder,
    RecordedPath,
    Split,
    density,
    gamma_weights,
    sparse_weights,
    split_groups,
    support_masks,
)


def test_entry_steps_are_the_first_step_of_each_group_and_weight():
    _, _, path, history = trained_filters(recorder=dict(elements=True))
    for name in ("0.weight", "3.weight"):
        stack = np.stack([h[name].numpy() for h in history])
        if name == "0.weight":
            stack = stack.reshape(len(history), 6, -1).any(-1)
        expected = np.where(stack.any(0), stack.argmax(0) + 1, -1)
        np.testing.assert_array_equal(path.entry_steps(name), expected)
        assert len(set(expected.ravel())) > 3  # they do enter one after the other
    assert "3.weight" not in trained_filters(recorder={})[2].entry


def test_snapshots_hold_norms_counts_and_times():
    net, optimizer, path, history = trained_filters(recorder=dict(every=10))
    record = path.recorded()
    np.testing.assert_array_equal(record.steps, [0, 10, 20, 30, 40])
    np.testing.assert_allclose(record.times, [0, 1, 2, 3, 4], rtol=1e-12, atol=1e-12)
    for name in ("0.weight", "3.weight"):
        counts = [0] + [int(history[k][name].sum()) for k in (9, 19, 29, 39)]
        np.testing.assert_array_equal(record.nonzero[name], counts)
    assert record.gamma_norm["0.weight"].shape == (5, 6)
    np.testing.assert_allclose(
        record.weight_norm["0.weight"][-1],
        net[0].weight.detach().flatten(1).norm(dim=1),
        rtol=1e-6,
    )
    path.record()  # the same step is recorded once
    assert path.steps == [0, 10, 20, 30, 40]
    path.detach()
    optimizer.step()
    assert path.step == 40


def test_record_saves_loads_and_continues(tmp_path):
    _, _, path, _ = trained_filters(recorder=dict(every=10, elements=True))
    path.save(tmp_path / "path.npz")
    loaded = flat(RecordedPath.load(tmp_path / "path.npz"))
    for key, value in flat(path.recorded()).items():
        np.testing.assert_array_equal(loaded[key], value)
    assert [f.name for f in tmp_path.iterdir()] == ["path.npz"]  # nothing temporary is left
    _, optimizer, other, _ = trained_filters(n_steps=1, recorder=dict(every=10, elements=True))
    other.load_state_dict(path.state_dict())
    for key, value in flat(path.recorded()).items():
        np.testing.assert_array_equal(flat(other.recorded())[key], value)
    assert other.step == 40
    with pytest.raises(ValueError, match="every must be 5 as here, got 10"):
        PathRecorder(optimizer, every=5, elements=True).load_state_dict(path.state_dict())
    foreign = DessiLBI([("w", nn.Parameter(torch.ones(2, 2)))], penalty="l1")
    with pytest.raises(ValueError, match="the record must be of the split tensors"):
        PathRecorder(foreign, every=10, elements=True).load_state_dict(path.state_dict())


def test_an_optimizer_that_splits_nothing_is_refused():
    p = nn.Parameter(torch.ones(3))
    optimizer = DessiLBI([p])
    net = nn.Linear(1, 1)
    for call in (
        lambda: PathRecorder(optimizer),
        lambda: support_masks(optimizer),
        lambda: density(optimizer, net),
        lambda: sparse_weights(optimizer).__enter__(),
        lambda: gamma_weights(torch.optim.SGD([p], lr=0.1)).__enter__(),
    ):
        with pytest.raises(ValueError, match="the optimizer splits nothing"):
            call()
    split = DessiLBI([p], penalty="l1")
    with pytest.raises(ValueError, match="every must be an integer of at least 1, got 0"):
        PathRecorder(split, every=0)
    with pytest.raises(ValueError, match="no entry steps of 'x': recorded are"):
        PathRecorder(split).entry_steps("x")


@pytest.mark.parametrize("splits", [lambda o: o, Split], ids=["DessiLBI", "Split"])
def test_a_record_that_was_not_restored_with_its_optimizer_says_so_once(splits):
    def attached():
        net = nn.Linear(3, 2)
        groups = split_groups(net, linear="l1", nu=1.0)
        base = DessiLBI(groups, lr=0.1) if splits is not Split else torch.optim.SGD(groups, lr=0.1)
        return net, splits(base)

    def steps(net, optimizer, count):
        for _ in range(count):
            net.weight.grad = torch.ones(2, 3)
            optimizer.step()

    net, optimizer = attached()
    path = PathRecorder(optimizer)
    steps(net, optimizer, 5)
    states = optimizer.state_dict(), path.state_dict()
    assert states[0]["param_groups"][0]["recorded"] == 5

    said = "^the record must be restored with its optimizer, .* with 5 recorded steps, got one of 0"
    for late in (False, True):  # attached before the state is loaded, or after it
        net, optimizer = attached()
        found = [] if late else [PathRecorder(optimizer)]
        optimizer.load_state_dict(states[0])
        found += [PathRecorder(optimizer)] if late else []
        with pytest.warns(UserWarning, match=said) as warned:
            steps(net, optimizer, 3)
        assert len(warned) == 1 and found[0].step == 3

    for first in (0, 1):  # whichever of the two is loaded first, nothing is said
        net, optimizer = attached()
        path = PathRecorder(optimizer)
        for k in (first, 1 - first):
            (optimizer, path)[k].load_state_dict(states[k])
        steps(net, optimizer, 1)
        assert path.step == optimizer.param_groups[0]["recorded"] == 6
    second = PathRecorder(optimizer)  # beside another one: what came before is not its own
    steps(net, optimizer, 1)
    second.detach(), second.detach(), path.detach()
    assert "recorded" not in optimizer.param_groups[0]
    PathRecorder(optimizer)
    steps(net, optimizer, 1)

"""Masks, sparse evaluation, density reports and the path recorder."""

import numpy as np
import pytest
import torch
import vectors
from recorded import flat
from torch import nn

from dslbi_torch import (
    DessiLBI,
    PathRecorder,
    RecordedPath,
    density,
    density_table,
    gamma_weights,
    sparse_weights,
    split_groups,
    support_masks,
)
from dslbi_torch.units import group_gamma, split_tensors


def trained(n_steps=40, recorder=None):
    """A small net after some steps on injected gradients, partly selected in both layers."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))
    optimizer = DessiLBI(split_groups(net, nu=1.0, lam={"conv": 1.0, "linear": 0.8}), lr=0.1)
    path = PathRecorder(optimizer, **recorder) if recorder is not None else None
    # filters whose gradients differ in strength: they enter one after the other, the first never
    strength = {4: torch.logspace(-1.5, 0, 6).view(-1, 1, 1, 1)}
    with torch.no_grad():
        net[0].weight.mul_(strength[4])
    params = list(net.parameters())
    streams = [vectors.gradients(tuple(p.shape), n_steps, i) for i, p in enumerate(params)]
    history = []
    for _ in range(n_steps):
        for p, stream in zip(params, streams, strict=True):
            g = torch.tensor(next(stream), dtype=torch.float32)
            p.grad = 0.3 * g * strength.get(p.ndim, 1.0)
        optimizer.step()
        history.append({n: m.clone() for n, m in support_masks(optimizer).items()})
    return net, optimizer, path, history


def test_support_masks_are_the_support_of_gamma():
    net, optimizer, _, _ = trained()
    masks = support_masks(optimizer)
    assert set(masks) == {"0.weight", "3.weight"}
    for name, W, V, group in split_tensors(optimizer):
        assert masks[name].shape == W.shape
        assert masks[name].dtype == torch.bool
        torch.testing.assert_close(masks[name], group_gamma(V, group) != 0)
        assert 0 < masks[name].float().mean() < 1


def test_sparse_and_gamma_weights_swap_and_restore():
    net, optimizer, _, _ = trained()
    masks = support_masks(optimizer)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    with sparse_weights(optimizer):
        for name, p in net.named_parameters():
            expected = before[name] * masks[name] if name in masks else before[name]
            torch.testing.assert_close(p.detach(), expected, rtol=0, atol=0)
    with gamma_weights(optimizer):
        for _, W, V, group in split_tensors(optimizer):
            torch.testing.assert_close(W.detach(), group_gamma(V, group), rtol=0, atol=0)
    for context in (sparse_weights, gamma_weights):
        with pytest.raises(KeyError, match="stop"), context(optimizer):
            raise KeyError("stop")
        for name, p in net.named_parameters():
            torch.testing.assert_close(p.detach(), before[name], rtol=0, atol=0)


def test_density_names_both_denominators():
    net, optimizer, _, _ = trained()
    report = density(optimizer, net)
    masks = support_masks(optimizer)
    kept = sum(int(m.sum()) for m in masks.values())
    split = sum(m.numel() for m in masks.values())
    rest = 6 + 3  # the biases count as kept
    assert report.nonzero_split == kept / split
    assert report.nonzero_all == (kept + rest) / (split + rest)
    conv = report.layers[0]
    filters = int(masks["0.weight"].flatten(1).any(1).sum())
    assert (conv.units_selected, conv.units) == (filters, 6)
    text = density_table(report)
    assert f"{filters}/6" in text
    assert "of all parameters" in text
    with pytest.raises(ValueError, match="is not a parameter of this model"):
        density(optimizer, nn.Linear(2, 2))


def test_entry_steps_are_the_first_step_of_each_group_and_weight():
    _, _, path, history = trained(recorder=dict(elements=True))
    for name in ("0.weight", "3.weight"):
        stack = np.stack([h[name].numpy() for h in history])
        if name == "0.weight":
            stack = stack.reshape(len(history), 6, -1).any(-1)
        expected = np.where(stack.any(0), stack.argmax(0) + 1, -1)
        np.testing.assert_array_equal(path.entry_steps(name), expected)
        assert len(set(expected.ravel())) > 3  # they do enter one after the other
    assert "3.weight" not in trained(recorder={})[2].entry


def test_snapshots_hold_norms_counts_and_times():
    net, optimizer, path, history = trained(recorder=dict(every=10))
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
    _, _, path, _ = trained(recorder=dict(every=10, elements=True))
    path.save(tmp_path / "path.npz")
    loaded = flat(RecordedPath.load(tmp_path / "path.npz"))
    for key, value in flat(path.recorded()).items():
        np.testing.assert_array_equal(loaded[key], value)
    assert [f.name for f in tmp_path.iterdir()] == ["path.npz"]  # nothing temporary is left
    _, optimizer, other, _ = trained(n_steps=1, recorder=dict(every=10, elements=True))
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

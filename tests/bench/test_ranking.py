"""The benchmark of the rankings: its own LinBreg, its net, and that it goes on where it stopped."""

import json
import math
from itertools import product

import pytest
import torch
import vectors
from torch.testing import assert_close

from benchmarks import ranking
from dslbi_torch import split_groups
from dslbi_torch.masks.algebra import nested
from dslbi_torch.training.data import datasets
from dslbi_torch.training.data.in_memory import PicturesInMemory
from dslbi_torch.training.nets import zoo


def test_the_net_is_lenet5():
    torch.manual_seed(0)
    net = ranking.Net()
    same = zoo.build("lenet5")
    same.load_state_dict(net.state_dict())
    x = torch.randn(3, 1, 28, 28)
    assert_close(net(x), same(x), rtol=1e-5, atol=1e-6)


def linbreg(gradients, lr=0.1):
    """A layer after LinBreg's steps on given gradients, and where it began."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 3).double()
    groups = split_groups(layer, lam=0.05)
    ranking.sparsify_(groups, 0.5, torch.Generator().manual_seed(0))
    first = [p.detach().clone() for p in layer.parameters()]
    optimizer = ranking.LinBreg(groups, lr)
    for step in zip(*gradients, strict=True):
        for p, g in zip(layer.parameters(), step, strict=True):
            p.grad = torch.as_tensor(g)
        optimizer.step()
    return layer, first


def test_linbreg_is_its_equations():
    gradients = [list(vectors.gradients(shape, 7, i)) for i, shape in enumerate([(3, 4), (3,)])]
    layer, (W, b) = linbreg(gradients)
    v = W + 0.05 * W.sign()
    m_W, m_b = torch.zeros_like(W), torch.zeros_like(b)
    for g_W, g_b in zip(*gradients, strict=True):
        m_W, m_b = 0.9 * m_W + torch.as_tensor(g_W), 0.9 * m_b + torch.as_tensor(g_b)
        v, b = v - 0.1 * m_W, b - 0.1 * m_b
    assert_close(layer.weight.detach(), v.sign() * (v.abs() - 0.05).clamp(min=0))
    assert_close(layer.bias.detach(), b)


def test_linbreg_begins_on_the_sparse_weights():
    gradients = [torch.zeros(1, 3, 4).double(), torch.zeros(1, 3).double()]
    layer, (W, _) = linbreg(gradients)
    assert 0 < int((W == 0).sum()) < 12
    assert_close(layer.weight.detach(), W)


@pytest.fixture
def small(monkeypatch):
    """Noise in place of MNIST, and an epoch a stage: a second for everything."""
    torch.manual_seed(0)
    part = PicturesInMemory(torch.randn(40, 1, 28, 28), torch.arange(40) % 10)
    found = datasets.Data("mnist", part, part, tuple("0123456789"), (1, 28, 28))
    monkeypatch.setattr(ranking.datasets, "load", lambda *_, **__: found)
    monkeypatch.setattr(ranking, "STAGES", tuple((D, 1, 0.05) for D in ranking.DENSITIES))
    monkeypatch.setattr(ranking, "EPOCHS", 1)
    monkeypatch.setattr(ranking, "FINE_TUNING", 1)
    monkeypatch.setattr(ranking, "BATCH", 8)
    monkeypatch.setattr(ranking, "WARM_UP", 1)


def rows(folder):
    return [row for file in sorted(folder.glob("*.json")) for row in json.loads(file.read_text())]


def test_it_goes_on_where_it_stopped(small, tmp_path, monkeypatch):
    assert not ranking.complete(tmp_path, ranking.METHODS, [0], 0, until=0)
    assert len(rows(tmp_path)) == 12 and "with" not in rows(tmp_path)[0]  # and gamma, entry
    trained = (tmp_path / "dessilbi-0.pt").read_bytes()
    assert ranking.complete(tmp_path, ranking.METHODS, [0], 0, until=math.inf)
    assert (tmp_path / "dessilbi-0.pt").read_bytes() == trained
    found = rows(tmp_path)
    assert {(row["method"], row["density"]) for row in found} == set(
        product(ranking.METHODS, ranking.DENSITIES)
    )
    assert all(0 <= row[key] <= 1 for row in found for key in ("without", "with"))
    monkeypatch.setattr(ranking, "read_off", None)  # nothing is left to compute
    assert ranking.complete(tmp_path, ranking.METHODS, [0], 0, until=0)


def test_an_order_alone_has_its_run_trained(small, tmp_path):
    assert ranking.complete(tmp_path, ["entry"], [0], 0, until=math.inf)
    found = rows(tmp_path)
    assert len(found) == 12 and {row["method"] for row in found if "with" in row} == {"entry"}


def test_nets_are_as_dense_as_they_say_and_what_is_removed_stays_zero(small):
    part = ranking.datasets.load().train
    for method in ("dessilbi", "magnitude"):
        nets = ranking.read_off(method, None, part, 0)
        for (_, density), (_, masks) in nets.items():
            assert sum(int(mask.sum()) for mask in masks.values()) == int(61_470 * density)
        for ranked in {own for own, _ in nets} - {"dessilbi"}:  # one order: one mask in the other
            assert nested(*[nets[ranked, D][1] for D in ranking.DENSITIES[::-1]])
    nets = ranking.read_off("linbreg", 0.05, part, 0)
    state, masks = nets["linbreg", 0.05]
    for name, mask in masks.items():
        assert not state[name][~mask].any()

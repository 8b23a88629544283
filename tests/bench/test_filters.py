"""The benchmark of filters: its orders keep what they say, and its intervals are Student's."""

import copy
import json
import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from benchmarks import filters
from dslbi_torch.training.data import datasets
from dslbi_torch.training.data.in_memory import PicturesInMemory
from dslbi_torch.training.nets import zoo
from dslbi_torch.training.run.set_up import open_run


@pytest.fixture
def small(monkeypatch):
    """Noise in place of MNIST: a run is a second."""
    torch.manual_seed(0)
    part = PicturesInMemory(torch.randn(64, 1, 28, 28), torch.arange(64) % 10)
    data = datasets.Data("mnist", part, part, tuple("0123456789"), (1, 28, 28))
    monkeypatch.setattr(datasets, "load", lambda *_, **__: data)
    monkeypatch.setattr(filters, "FINE_TUNING", 1)


def config(net, **changes):
    return replace(filters.NETS[net], nu=0.5, batch_size=8, **changes)


@pytest.mark.parametrize("net", filters.NETS)
def test_every_order_keeps_the_same_share_of_each_layer(net, small, tmp_path):
    rows = filters.rows_of(config(net), tmp_path)
    by = {}
    for row in rows[1:]:
        assert 0 <= row["without"] <= 1
        assert ("with" in row) == (row["reading"] == "layer" and row["density"] in filters.TUNED)
        by.setdefault((row["reading"], row["density"]), []).append(row["filters"])
    assert set(by) == {(r, D) for r, densities in filters.READ.items() for D in densities}
    model = open_run(tmp_path, device="cpu").model
    for (reading, density), found in by.items():
        assert len(found) == len(filters.ORDERS)
        for own in found if reading == "layer" else ():
            for name, count in own.items():
                assert count == max(1, math.floor(density * len(model.get_parameter(name))))
    assert json.loads((tmp_path / "rows.json").read_text()) == rows


def test_a_trial_looks_at_what_decides_alone(small, tmp_path):
    rows = filters.rows_of(config("lenet5", holdout=8), tmp_path)
    assert {row["order"] for row in rows} == {"dense", *filters.DECIDE}
    assert not any("with" in row or row.get("reading") == "net" for row in rows)
    own = [row["without"] for row in rows[1:]]
    assert filters.score(rows) == pytest.approx(sum(own) / len(own))


def test_the_means_of_batch_norm_are_those_of_the_cut_net(small):
    torch.manual_seed(1)
    net = zoo.build("small-net")
    part = datasets.load().train
    before, momenta = copy.deepcopy(net), [net.bn1.momentum]
    filters.norms_anew_(net, part)
    x = torch.nn.functional.max_pool2d(net.conv1(part.x), 2)
    assert_close(net.bn1.running_mean, x.mean((0, 2, 3)))
    assert_close(net.bn1.running_var, x.var((0, 2, 3)))
    assert [net.bn1.momentum] == momenta
    for p, q in zip(net.parameters(), before.parameters(), strict=True):
        assert torch.equal(p, q)


def test_the_interval_is_students():
    own, other = {0: 0.9, 1: 0.8, 2: 0.7}, {0: 0.89, 1: 0.77, 2: 0.68}  # 1, 3, 2 points
    found = filters.paired(own, other)
    half = 4.302653 * 1.0 / math.sqrt(3)  # the 97.5 % point of t with two degrees of freedom
    assert found == pytest.approx({"mean": 2.0, "low": 2 - half, "high": 2 + half}, abs=1e-5)


def test_the_summary_pairs_by_seed():
    rows = [
        {"net": "n", "seed": seed, "order": order, "reading": "layer", "density": 0.3, "without": x}
        for order, values in (("entry", (0.5, 0.7)), ("gamma", (0.4, 0.7)))
        for seed, x in enumerate(values)
    ]
    (cell,) = filters.summary([*rows, {"net": "n", "seed": 0, "order": "dense", "without": 1.0}])
    assert cell["entry"]["mean"] == pytest.approx(60) and cell["gamma"]["mean"] == pytest.approx(55)
    assert cell["gamma"]["entry_minus"]["mean"] == pytest.approx(5)
    assert cell["gamma"]["entry_minus"]["low"] < 0 < cell["gamma"]["entry_minus"]["high"]

"""The benchmark of filters: its orders keep what they say, and its differences are paired."""

import json

import pytest
import torch

from benchmarks import filters
from dslbi_torch.training.data import datasets
from dslbi_torch.training.data.in_memory import PicturesInMemory
from dslbi_torch.training.nets import zoo


@pytest.fixture
def small(monkeypatch):
    """Noise in place of MNIST: a run is a second."""
    torch.manual_seed(0)
    part = PicturesInMemory(torch.randn(64, 1, 28, 28), torch.arange(64) % 10)
    monkeypatch.setattr(filters, "BATCH", 8)
    return datasets.Data("mnist", part, part, tuple("0123456789"), (1, 28, 28))


SETTING = {"nu": 0.5, "power": 0.0}


@pytest.mark.parametrize("net", filters.NETS)
def test_every_order_keeps_the_share_that_it_says(net, small, tmp_path):
    file = tmp_path / "rows.json"
    rows = filters.rows_of(file, net, small, 0, SETTING)
    assert json.loads(file.read_text()) == rows
    assert filters.rows_of(file, net, None, 0, SETTING) == rows  # nothing is computed again
    assert len(rows) == 1 + len(filters.DENSITIES) * len(filters.ORDERS)
    model = zoo.build(net)
    sizes = {name: model.get_parameter(name)[0].numel() for name in rows[1]["filters"]}
    total = sum(size * len(model.get_parameter(name)) for name, size in sizes.items())
    assert not any("fc2" in name or "depth" in name for name in sizes)
    for row in rows[1:]:
        assert 0 <= row["without"] <= 1
        assert ("with" in row) == (row["density"] in filters.TUNED[net])
        kept = sum(sizes[name] * count for name, count in row["filters"].items()) / total
        assert row["density"] - max(sizes.values()) / total < kept <= row["density"]
    for drawn in rows[1:]:  # as many in each layer as by Gamma
        if drawn["order"] == "random":
            (like,) = (
                r for r in rows[1:] if (r["order"], r["density"]) == ("gamma", drawn["density"])
            )
            assert drawn["filters"] == like["filters"]


def test_the_path_starts_at_its_release(small):
    _, _, recorder = filters.path_run("lenet5", small.train, 0, **SETTING)
    first = min(
        int(recorder.entry_steps(name)[recorder.entry_steps(name) >= 0].min())
        for name in ("conv1.weight", "conv2.weight", "conv3.weight", "fc1.weight")
    )
    assert filters.WARM * 8 < first <= filters.EPOCHS * 8  # eight steps an epoch


def test_a_trial_looks_at_what_decides_alone(small, tmp_path):
    rows = filters.rows_of(tmp_path / "rows.json", "lenet5", small, 0, SETTING, trial=True)
    assert {row["order"] for row in rows} == {"dense", *filters.DECIDE}
    assert not any("with" in row for row in rows)
    own = [row["without"] for row in rows[1:]]
    assert filters.score(rows) == pytest.approx(sum(own) / len(own))


def test_the_summary_pairs_by_seed():
    rows = [
        {"net": "n", "seed": seed, "order": order, "density": 0.3, "without": x}
        for order, values in (("entry", (0.5, 0.7)), ("gamma", (0.4, 0.7)))
        for seed, x in enumerate(values)
    ]
    (cell,) = filters.compared([*rows, {"net": "n", "seed": 0, "order": "dense", "without": 1.0}])
    assert cell["entry"]["mean"] == pytest.approx(60) and cell["gamma"]["mean"] == pytest.approx(55)
    assert cell["gamma"]["entry_above"]["difference"] == pytest.approx(5)
    assert cell["gamma"]["entry_above"]["low"] < 0 < cell["gamma"]["entry_above"]["high"]


def test_the_record_keeps_every_net(tmp_path, monkeypatch):
    def rows_of(file, name, data, seed, setting, trial=False):
        return [
            {"order": "dense", "without": 1.0},
            {"order": "entry", "density": 0.3, "without": 0.5 + seed / 10},
            {"order": "gamma", "density": 0.3, "without": 0.5},
        ]

    monkeypatch.setattr(filters, "RECORD", tmp_path / "filters.json")
    monkeypatch.setattr(filters, "load", lambda: None)
    monkeypatch.setattr(filters, "rows_of", rows_of)
    for name in filters.NETS:
        filters.finals(name, [], [1, 2], tmp_path)
    content = json.loads((tmp_path / "filters.json").read_text())
    assert content.keys() == filters.NETS.keys()
    for name, part in content.items():
        assert {row["seed"] for row in part["rows"]} == {1, 2}
        assert part["about"]["command"].endswith(f"--nets {name} --seeds 1 2")
        (cell,) = part["summary"]
        assert cell["gamma"]["entry_above"]["difference"] == pytest.approx(15)

"""The benchmark of the paper's rows: what is tried, what is kept, and that it goes on."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import rows
from dslbi_torch.training.config import Config, without_path
from dslbi_torch.training.data import datasets
from dslbi_torch.training.run.set_up import set_up

OWN = Config(epochs=2, train_size=200, record_every=7, batch_size=32)  # seven steps an epoch
SGD = replace(without_path(OWN, "sgd"), keep=2)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Runs of a second on the digits in place of the parts."""
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    monkeypatch.setattr(rows, "PARTS", {"pair": lambda runs: {"own": OWN, "sgd": SGD}})
    monkeypatch.setattr(rows, "GRIDS", {"pair": {"sgd": (1e-6, 0.05, 1e4)}})
    monkeypatch.setattr(rows, "TRIAL", dict(holdout=300, train_size=300, epochs=2, seed=9))
    return tmp_path


def record(folder, name="pair"):
    return json.loads((folder / f"{name}.json").read_text())


def test_the_best_step_of_the_trials_is_taken_and_all_are_kept(small):
    assert rows.go("pair", [0], small / "runs", until=np.inf)
    found = record(small)
    tried = {row["lr"]: row["held_out"] for row in found["trials"]["sgd"]}
    assert set(tried) == {1e-6, 0.05, 1e4} and tried[1e4] == 0 < tried[1e-6] < tried[0.05]
    assert [(run["name"], run["settings"].get("lr")) for run in found["runs"]] == [
        ("own", None), ("sgd", 0.05)
    ]  # fmt: skip
    assert all("holdout" not in run["settings"] for run in found["runs"])
    assert found["trials"].keys() == {"sgd"}  # what has no grid is as its recipe says


def test_what_is_finished_is_not_computed_again(small, monkeypatch):
    assert not rows.go("pair", [0, 1], small / "runs", until=-np.inf)
    rows.go("pair", [0], small / "runs", until=np.inf)
    first = record(small)["runs"]
    train, calls = rows.train, []
    monkeypatch.setattr(
        rows, "train", lambda config, **kw: (calls.append(config.seed), train(config, **kw))
    )
    assert rows.go("pair", [0, 1], small / "runs", until=np.inf)
    assert calls == [1, 1]
    assert record(small)["runs"][:2] == first
    assert [run["seed"] for run in record(small)["runs"]] == [0, 0, 1, 1]


def test_the_norms_of_filters_are_those_of_the_nets(small, monkeypatch):
    monkeypatch.setattr(rows, "THIRD", "conv1.weight")
    for name, config in (("own", OWN), ("sgd", SGD)):
        config = rows.placed(config, small / name, seed=0)
        run = rows.train(config, progress=False)
        found = rows.filters(config)
        W = run.model.conv1.weight.detach().flatten(1).norm(dim=1)
        assert found["epochs"] == ([0, 1, 2] if name == "own" else [1, 2])
        np.testing.assert_allclose(found["weight_norm"][-1], W, rtol=1e-3)
        assert len(found["weight_norm"]) == len(found["epochs"])
    selected = np.asarray(rows.filters(rows.placed(OWN, small / "own", seed=0))["entry_step"])
    assert selected.shape == (16,)


def test_figure_1_has_a_line_for_each_filter_of_both_runs(small, monkeypatch):
    drawn = []
    monkeypatch.setattr(rows, "THIRD", "conv1.weight")
    monkeypatch.setattr(rows, "FIGURE", small / "figure1.png")
    monkeypatch.setattr(rows, "PARTS", {"figure1": lambda runs: {"dessilbi": OWN, "sgd": SGD}})
    monkeypatch.setattr(rows.plt, "subplots", _noted(rows.plt.subplots, drawn))
    assert rows.go("figure1", [0], small / "runs", until=np.inf)
    assert (small / "figure1.png").stat().st_size > 5000
    (_, axes) = drawn[0]
    runs = record(small, "figure1")["runs"]
    assert [len(ax.lines) for ax in axes] == [16, 16]
    for ax, run in zip(axes, runs, strict=True):
        ends = sorted(line.get_ydata()[-1] for line in ax.lines)
        np.testing.assert_allclose(ends, sorted(run["weight_norm"][-1]))


def _noted(function, results):
    def noted(*args, **kwargs):
        results.append(function(*args, **kwargs))
        return results[-1]

    return noted


@pytest.mark.parametrize(("name", "parameters"), [("found", 1486), ("even", 1466)])
def test_the_nets_of_fixed_width_are_as_large_as_they_say(name, parameters, tmp_path, monkeypatch):
    part = datasets.load("digits").train
    picture = type(part)(part.x.new_zeros(200, 1, 28, 28), part.y[:200])
    data = datasets.Data("mnist", picture, picture, tuple("0123456789"), (1, 28, 28))
    monkeypatch.setattr(datasets, "load", lambda *_, **__: data)
    config = rows.placed(rows.fixed_width(tmp_path)[name], tmp_path / "run")
    model = set_up(config).model
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert (model.conv1.weight.shape[0], model.conv2.weight.shape[0]) == rows.WIDTHS[name][:2]


def test_table_2_has_the_columns_of_the_page_and_a_grid_for_each(tmp_path):
    table = rows.table2(tmp_path)
    assert table.keys() == rows.GRIDS["table2"].keys() and len(table) == 13
    assert table["SGD-Nesterov"].nesterov and table["SGD with l1"].l1 == 1e-3
    assert {config.splits for name, config in table.items() if "Dessi" not in name} == {False}
    assert table["Adam"].weight_decay == 0 != table["SGD-Mom-Wd"].weight_decay

"""The benchmark of the rankings: its net, what it reads off a run, and that it goes on."""

import json
import math
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from benchmarks import intervals, ranking, ranking_runs
from dslbi_torch.masks.algebra import nested
from dslbi_torch.training.data import datasets
from dslbi_torch.training.data.in_memory import PicturesInMemory
from dslbi_torch.training.nets import zoo

PATH = dict(nu=2.0, nu_first=2.0, dwell=1.0, power=0.5, pull=0.1, lr=0.1)
CHOSEN = {
    "dessilbi": PATH,
    "magnitude": dict(lr=0.1, decay=5e-4),
    "plain": dict(lr=0.1, decay=5e-4),
    "linbreg": dict(lr=0.1, first=1.0, ramp=0.0),
}


def test_the_net_is_lenet5():
    torch.manual_seed(0)
    net = ranking_runs.Net()
    same = zoo.build("lenet5")
    same.load_state_dict(net.state_dict())
    x = torch.randn(3, 1, 28, 28)
    assert_close(net(x), same(x), rtol=1e-5, atol=1e-6)


@pytest.fixture
def small(monkeypatch):
    """Noise in place of MNIST, and short runs: a second for everything."""
    torch.manual_seed(0)
    part = PicturesInMemory(torch.randn(40, 1, 28, 28), torch.arange(40) % 10)
    found = datasets.Data("mnist", part, part, tuple("0123456789"), (1, 28, 28))
    monkeypatch.setattr(ranking.datasets, "load", lambda *_, **__: found)
    for name, value in dict(EPOCHS=6, WARM=1, BATCH=8, WARM_UP=1).items():
        monkeypatch.setattr(ranking_runs, name, value)
    monkeypatch.setattr(ranking, "FINE_TUNING", 1)


def rows(folder):
    return [row for file in sorted(folder.glob("*.json")) for row in json.loads(file.read_text())]


METHODS = ("dessilbi", "magnitude", "plain", "linbreg")
NAMES = (*ranking.READINGS, "magnitude", "linbreg")


def test_it_goes_on_where_it_stopped(small, tmp_path, monkeypatch):
    assert not ranking.complete(tmp_path, METHODS, [0], CHOSEN, until=0)
    assert not rows(tmp_path)
    assert ranking.complete(tmp_path, ["dessilbi"], [0], CHOSEN, until=math.inf)
    trained = (tmp_path / "dessilbi-0.pt").read_bytes()
    assert ranking.complete(tmp_path, METHODS, [0], CHOSEN, until=math.inf)
    assert (tmp_path / "dessilbi-0.pt").read_bytes() == trained
    found = rows(tmp_path)
    dense = {("dessilbi", 1.0), ("plain", 1.0)}
    assert {(row["method"], row["density"]) for row in found} == dense | set(
        product(NAMES, ranking.DENSITIES)
    )
    for row in found:
        assert ("with" in row) == ranking.is_tuned(row)
        assert 0 <= row["without"] <= 1 and 0 <= row.get("with", 0) <= 1
        # the few steps of this path are leaps: it has a density and more when it is seen
        assert row["kept"] <= (1.5 if row["method"] == "crossing" else 1.01) * row["density"]
    monkeypatch.setattr(ranking, "read_off", None)  # nothing is left to compute
    assert ranking.complete(tmp_path, METHODS, [0], CHOSEN, until=0)


def test_it_goes_on_from_a_record_whose_runs_are_lost(small, tmp_path, monkeypatch):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    assert ranking.complete(tmp_path / "first", METHODS, [0], CHOSEN, until=math.inf)
    found, file = rows(tmp_path / "first"), tmp_path / "ranking.json"
    file.write_text(json.dumps({"about": {"revision": "a"}, "rows": found}))
    ranking.from_record(file, tmp_path / "second")
    assert rows(tmp_path / "second") == found
    assert json.loads((tmp_path / "second" / "about").read_text()) == {"revision": "a"}
    assert ranking.complete(tmp_path / "second", METHODS, [0], CHOSEN, until=0)
    # what is not yet trained on needs its net: the run is done again, to the same figures
    for row in found:
        if row["method"] == "gamma":
            del row["with"]
    file.write_text(json.dumps({"about": {}, "rows": found}))
    (tmp_path / "second" / "dessilbi-0.json").unlink()
    ranking.from_record(file, tmp_path / "second")
    assert not ranking.complete(tmp_path / "second", METHODS, [0], CHOSEN, until=0)
    assert ranking.complete(tmp_path / "second", METHODS, [0], CHOSEN, until=math.inf)
    assert rows(tmp_path / "second") == rows(tmp_path / "first")


def test_a_method_without_trials_is_refused(monkeypatch, tmp_path, capsys):
    file = tmp_path / "trials.json"
    file.write_text(json.dumps({"trials": []}))
    monkeypatch.setattr(ranking, "TRIALS", file)
    monkeypatch.setattr("sys.argv", ["ranking", "--methods", "pat", "--runs", str(tmp_path / "r")])
    with pytest.raises(SystemExit):
        ranking.main()
    assert "pat: no trials in trials.json: give --trials first" in capsys.readouterr().err


def test_the_readings_of_a_run_are_nested_and_of_its_last_weights(small):
    part = ranking.datasets.load().train
    nets = ranking_runs.dessilbi(part, 0, **PATH)
    last = nets["dessilbi", 1.0][0]
    for name in ("entry", "gamma", "weight"):
        assert nested(*[nets[name, D][1] for D in ranking.DENSITIES[::-1]])
        assert all(nets[name, D][0] is last for D in ranking.DENSITIES)
    for D in ranking.DENSITIES:
        state, masks = nets["crossing", D]
        assert all(bool((state[n][~mask] == 0).all()) for n, mask in masks.items())


def test_the_settings_that_won_are_taken():
    def trial(method, k, *values, names=("rigl",)):
        made = product(names, zip(ranking.DENSITIES, values, strict=True))
        own = [dict(method=name, density=D, without=v) for name, (D, v) in made]
        return dict(method=method, settings=dict(k=k), rows=own)

    found = [
        trial("rigl", 0, 0.9, 0.9, 0.7, 0.9),
        trial("rigl", 1, 0.1, 0.1, 0.8, 0.1),  # 2.5 % decides
        trial("str", 0, 0.9, 0.8, 0.1, 0.1, names=("str",)),
        trial("str", 1, 0.5, 0.6, 0.7, 0.2, names=("str",)),
        trial("dessilbi", 0, 0.9, 0.9, 0.9, 0.1, names=("entry", "crossing", "gamma")),
        trial("dessilbi", 1, 0.9, 0.9, 0.9, 0.2, names=("entry", "crossing", "gamma")),
    ]
    chosen = ranking.best_settings(found)
    assert chosen["rigl"] == {"k": 1} and chosen["dessilbi"] == {"k": 1}
    assert {D: own["k"] for D, own in chosen["str"].items()} == {
        "0.1": 0, "0.05": 0, "0.025": 1, "0.01": 1,
    }  # fmt: skip


def test_an_interval_is_that_of_student():
    a, b = [3.0, 5.0, 4.0], [1.0, 2.0, 3.0]
    found = intervals.paired(a, b)  # differences 2, 3, 1: mean 2, sd 1
    half = 4.302652729749464 / math.sqrt(3)  # the quantile 0.975 of t with 2 degrees of freedom
    assert_close(torch.tensor([found["difference"], found["low"], found["high"]]),
                 torch.tensor([2.0, 2 - half, 2 + half]))  # fmt: skip
    with pytest.raises(ValueError, match="at least two seeds, got 1"):
        intervals.paired([1.0], [2.0])
    with pytest.raises(ValueError, match="as many values as others, got 3 and 1"):
        intervals.paired([1.0, 2.0, 3.0], [2.0])  # NumPy would repeat the one
    assert intervals.summary([1.0, 3.0]) == {"mean": 2.0, "sd": math.sqrt(2), "n": 2}

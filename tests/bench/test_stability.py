"""The benchmark of stability selection on a few sets, and what its record says."""

import json
from pathlib import Path

import numpy as np

from benchmarks import stability

RECORD = Path(stability.__file__).parent / "results" / "stability.json"


def test_the_design_has_its_correlation_and_its_truth():
    X, y, truth = stability.problem(3, 0.5)
    assert truth.sum() == stability.TRUE and X.shape == (stability.N, stability.P)
    neighbours = np.mean([np.corrcoef(X[:, j], X[:, j + 1])[0, 1] for j in range(199)])
    assert abs(neighbours - 0.5) < 0.02
    rest = y - X[:, truth] @ np.linalg.lstsq(X[:, truth], y)[0]
    assert 0.8 < rest.std() < 1.2


def test_one_set(monkeypatch):
    monkeypatch.setattr(stability, "PAIRS", 8)
    firsts = stability.allowed()
    assert firsts["none"] < firsts["unimodal"] < firsts["r-concave"]
    found, seconds, shortest = stability.counts(1, 0.0, firsts)
    true = [found[name][1] for name in firsts]
    assert 2 <= true[0] <= true[1] <= true[2] <= stability.TRUE
    assert found["lasso"][0] > max(found[name][0] for name in firsts)
    assert shortest > firsts["unimodal"] and min(seconds) > 0


def test_the_record_keeps_every_bound_and_beats_the_lasso():
    record = json.loads(RECORD.read_text())
    assert record["seeds"] == [0, 199]
    for part in record["designs"].values():
        *ours, lasso = part["rows"]
        assert [row["first"] for row in ours] == list(stability.allowed().values())
        for row in ours:
            assert row["false"] + 2 * row["standard_error"] < row["bound"] <= stability.EXPECTED
        assert np.diff([row["power"] for row in part["rows"]]).min() > 0
        assert ours[-1]["power"] > 0.9 and ours[-1]["false_share"] < 0.05
        assert lasso["false_share"] > 2 / 3 and lasso["power"] > 0.99


def test_the_table_of_the_book_is_the_recorded_one():
    page = (Path(stability.__file__).parents[1] / "book" / "consistency.md").read_text("utf-8")
    designs = json.loads(RECORD.read_text())["designs"]
    for pair in zip(*(part["rows"] for part in designs.values()), strict=True):
        cells = [pair[0]["method"]]
        cells += [str(pair[0].get("first", "-"))]
        cells += [f"{pair[0]['bound']:.2f}" if "bound" in pair[0] else "-"]
        cells += [f"{row[key]:.2f}" for row in pair for key in ("false", "power")]
        assert f"| {' | '.join(cells)} |" in page

"""The benchmark that begins with a trained net: its course, settings, and what the page says."""

import json

import pytest
import torch
from quoted_records import quoted, record

from benchmarks import pretrained
from dslbi_torch.training.data.datasets import Data
from dslbi_torch.training.data.in_memory import PicturesInMemory

PAGE = "book/results.md"


def data(n=70):
    part = PicturesInMemory(torch.randn(n, 3, 4, 4), torch.arange(n))
    return Data("noise", part, part, tuple(map(str, range(10))), (3, 4, 4))


def test_every_way_sees_the_same_batches_whatever_its_parts_are(monkeypatch):
    monkeypatch.setattr(pretrained, "BATCH", 8)  # eight steps an epoch
    one, two = (pretrained.Course(data(), 3, 0.1) for _ in range(2))
    whole = [y.tolist() for _, y in one.batches(20)]
    parts = [y.tolist() for steps in (5, 4, 11) for _, y in two.batches(steps)]
    assert parts == whole and one.step == two.step == 20
    assert len({tuple(y) for y in whole}) == 20


def test_the_rate_grows_and_falls_and_is_never_0():
    course = pretrained.Course(data(), 0, 0.2)
    rates = [course.rate(step) for step in range(pretrained.STEPS)]
    assert rates[0] == pytest.approx(0.2 / pretrained.GROWTH)
    assert max(rates) == 0.2
    assert rates[-1] == pytest.approx(2e-4, rel=0.1) and min(rates) > 0


def test_the_settings_whose_net_was_best_at_the_end_are_taken():
    rows = [
        dict(way=way, settings=dict(k=k), cut=cut, tuned=tuned)
        for way, k, cut, tuned in (
            *(("path", 0, 0.9, 0.2), ("path", 1, 0.1, 0.4)),
            *(("magnitude", 0, 0.0, 0.7), ("magnitude", 1, 0.0, 0.6), ("group", 0, 0, 0)),
        )
    ]
    assert pretrained.best_settings(rows) == {
        **{"path": {"k": 1}, "magnitude": {"k": 0}, "group": {"k": 0}, "random": {"k": 0}}
    }


def test_the_frozen_settings_are_among_those_that_were_tried():
    trials = record("pretrained_trials")["trials"]
    tried = {(row["way"], json.dumps(row["settings"])) for row in trials}
    assert tried == {
        (way, json.dumps(own)) for way, grid in pretrained.GRIDS.items() for own in grid
    }
    assert {row["seed"] for row in trials} == {pretrained.TRIAL_SEED}


WAYS = {
    "path": "a path from Gamma = W, channels weighed",
    "magnitude": "Torch-Pruning, by magnitude",
    "group": "Torch-Pruning, group norm",
    "random": "random channels",
}


def found(part, way, key):
    side = {"means": "way", "differences": "to"}[part]
    (row,) = [r for r in record("pretrained")[part] if (r[side], r["key"]) == (way, key)]
    return row


@pytest.mark.parametrize("way", WAYS)
def test_a_line_of_the_page_is_the_recorded_one(way):
    cells = [f"{m['mean']:.1f} ({m['sd']:.1f})" for m in (found("means", way, k) for k in KEYS)]
    if way != "path":
        for row in (found("differences", way, key) for key in KEYS):
            cells.append(f"{row['difference']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]")
    else:
        cells += ["–", "–"]
    assert f"| {WAYS[way]} | {' | '.join(cells)} |" in quoted(PAGE)


KEYS = ("cut", "tuned")


def test_what_is_said_of_the_record_is_so():
    whole = record("pretrained")
    assert f"is right on {100 * whole['start']:.1f} % of the test pictures" in quoted(PAGE)
    assert all(abs(row["macs"] - pretrained.MACS) < 0.01 for row in whole["rows"])
    trials = record("pretrained_trials")["trials"]
    chosen = pretrained.best_settings(trials)
    assert all(row["settings"] == chosen[row["way"]] for row in whole["rows"])

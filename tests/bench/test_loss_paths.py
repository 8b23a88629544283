"""The table of other losses in the book is the record of its benchmark."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECORD = json.loads((ROOT / "benchmarks" / "results" / "loss_paths.json").read_text())
NAMES = {"poisson": "Poisson", "huber": "Huber, $\\delta = 1.35$"}


@pytest.mark.parametrize("problem", RECORD["problems"], ids=lambda p: f"{p['loss']}-{p['span']:g}")
def test_the_table_of_losses_is_the_record(problem):
    exact, other = (problem["methods"][name] for name in ("ISS, exact", "skglm"))
    row = (
        f"| {NAMES[problem['loss']]} | ${problem['span']:g}\\,t_0$ | {problem['events']} "
        f"| {exact['seconds']:.2f} s | {other['ratio']:.2f} |"
    )
    assert row in (ROOT / "book" / "costs.md").read_text()


def test_recorded_paths_are_solved():
    """A ratio of times means something if both have come to their end."""
    for problem in RECORD["problems"]:
        assert problem["gradient_on_the_support"] < 1e-12
        assert problem["lasso_residual_of_skglm"] < 1e-2


def test_paths_of_signals_are_no_slower_than_those_of_skglm():
    short = [p["methods"]["skglm"]["ratio"] for p in RECORD["problems"] if p["span"] == 5]
    assert len(short) == 2 and min(short) > 1

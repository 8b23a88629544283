"""What the page of results says of the rankings is what their record carries."""

import pytest
from quoted_records import quoted, ranking_cell, ranking_difference, record

PAGE = "book/results.md"
DENSITIES = (0.1, 0.05, 0.025, 0.01)
LINES = {
    "entry": "one run, by entry",
    "gamma": "the same run, by the size of Gamma",
    "crossing": "the same run, as it was at that density",
    "weight": "the same run, by the size of W",
    "gradual": "gradual magnitude pruning, a run for each",
    "magnitude": "magnitude pruning, one run of SGD",
    "linbreg": "LinBreg, a run for each",
    "adabreg": "AdaBreg, a run for each",
    "rigl": "RigL, a run for each",
    "pat": "PAT (torchao), a run for each",
    "str": "STR, a run for each",
    "random": "random masks, a run for each",
}


def methods():
    return {row["method"] for row in record("ranking")["rows"]} & set(LINES)


@pytest.mark.parametrize("method", LINES)
def test_a_line_of_the_table_is_the_recorded_one(method):
    cells = [ranking_cell(method, D) for D in DENSITIES]
    shown = f"| {LINES[method]} | {' | '.join(cells)} |"
    assert (shown in quoted(PAGE)) == (method in methods())


@pytest.mark.parametrize("other", [m for m in LINES if m != "entry"])
@pytest.mark.parametrize("key", ["without", "with"])
def test_a_line_of_differences_is_the_recorded_one(other, key):
    cells = [ranking_difference("entry", other, D, key) for D in DENSITIES]
    shown = f"| {LINES[other]}, {key} | {' | '.join(cells)} |"
    assert (shown in quoted(PAGE)) == (set(cells) != {"–"})


def test_the_dense_nets_are_the_recorded_ones():
    text = quoted(PAGE)
    assert f"the dense net of the run is right on {ranking_cell('dessilbi', 1.0)} %" in text
    assert f"plain training on {ranking_cell('plain', 1.0)} %" in text


@pytest.mark.parametrize(
    ("other", "words"), [("gamma", "the size of Gamma"), ("weight", "the size of W")]
)
def test_what_is_said_in_words_is_what_the_intervals_say(other, words):
    """Of entry beside the other readings of its run: above, below, or not told apart."""
    kinds = {}
    for D in DENSITIES:
        (row,) = [
            d
            for d in record("ranking")["differences"]
            if (d["of"], d["to"], d["density"], d["key"]) == ("entry", other, D, "without")
        ]
        kind = "above" if row["low"] > 0 else "below" if row["high"] < 0 else "not told apart from"
        kinds.setdefault(kind, []).append(f"{100 * D:g}")
    for kind, found in kinds.items():
        shares = found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}"
        assert f"{kind} {words} at {shares} %" in quoted(PAGE)


def test_within_so_much_of_gamma():
    """Notebook 11: within 0.1 points at 10 and 5 %."""
    for row in record("ranking")["differences"]:
        if (row["of"], row["to"], row["key"]) == ("entry", "gamma", "without"):
            assert (abs(row["difference"]) < 0.1) == (row["density"] >= 0.05)

"""The page on costs: what it shows is what was recorded, and the record bears out what it says."""

import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

EXTENSIONS = Path(__file__).resolve().parents[2] / "book" / "_ext"


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    monkeypatch.delitem(sys.modules, "path_costs", raising=False)
    import path_costs

    return path_costs


@pytest.fixture
def record(page):
    return json.loads(page.RECORD.read_text(encoding="utf-8"))


def cells(markdown):
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in markdown.splitlines()]


def test_tables_hold_the_record(page, record):
    _, _, exact, *others = cells(page.peers(record))
    assert exact[0] == "ISS, exact" and exact[2::2] == ["1.0", "1.0"]
    for row in others:
        recorded = [problem["methods"][row[0]] for problem in record["against_lasso"]]
        for ms, ratio, method in zip(row[1::2], row[2::2], recorded, strict=True):
            assert (float(ms), float(ratio)) == pytest.approx(
                (1e3 * method["seconds"], method["ratio"]), abs=0.051
            )
    assert [row[1] for row in cells(page.end(record))[2:]] == [
        str(row["events"]) for row in record["saturated"]
    ]


def test_the_table_of_large_paths_keeps_what_the_page_promises(page):
    record = json.loads(page.LARGE.read_text(encoding="utf-8"))
    for shown, row in zip(cells(page.large(record))[2:], record["rows"], strict=True):
        assert shown[2] == str(row["events"]) and float(shown[5]) == round(row["seconds"])
        assert row["events"] >= 250 and row["p"] >= 100_000
        assert row["gigabytes_beside"] < 0.4
        if row["kind"] != "sparse":  # less than a copy, or all rows of z
            assert row["gigabytes_beside"] < 8e-9 * row["p"] * min(row["n"], row["events"]) / 2


def test_picture_is_drawn_from_the_record(page, record, tmp_path):
    page.draw(record, tmp_path / "a.svg")
    words = [e.text for e in ElementTree.parse(tmp_path / "a.svg").iter() if e.text]
    counts = record["scaling"]["p (n = 500)"]["events"]
    assert {str(count) for count in counts} <= set(words)


def test_the_record_bears_out_the_page(record):
    assert "one BLAS thread" in record["machine"]
    for problem in record["against_lasso"]:
        assert all(m["ratio"] > 1 for k, m in problem["methods"].items() if k != "ISS, exact")
    for row in record["saturated"]:
        assert row["kkt_residual"] < 1e-10

    def slope(name, rows=slice(None)):
        curve = record["scaling"][name]
        x, y = np.log(curve["size"][rows]), np.log(curve["seconds"][rows])
        return np.polyfit(x, y, 1)[0]

    assert abs(slope("n (p = 2000)")) < 0.4
    assert 1 < slope("p (n = 500)") < 1.5
    events = "events (n = 500, p = 2000)"
    assert slope(events, slice(0, 4)) < 1.2 < slope(events, slice(-4, None)) < 2

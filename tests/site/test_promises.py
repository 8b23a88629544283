"""The page of promises: its figures are those of the records, and its tests exist."""

import importlib
import json
import statistics
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    monkeypatch.delitem(sys.modules, "soak_memory", raising=False)
    return importlib.import_module("soak_memory")


@pytest.fixture
def soak(page):
    return json.loads(page.RECORD.read_text(encoding="utf-8"))


def test_the_figures_of_the_page_are_the_recorded_ones():
    text = (ROOT / "book" / "promises.md").read_text(encoding="utf-8")
    record = json.loads((RESULTS / "promises.json").read_text(encoding="utf-8"))
    kills, flips, start = (record[key] for key in ("kills", "flips", "start_up"))
    assert f"{kills['kills']} kills of {kills['runs']} runs, {kills['bit_equal']} bit-equal" in text
    assert f"{flips['flips']} flips in {flips['files']} files: {flips['refused']} refused, " in text
    assert kills["bit_equal"] == kills["runs"] and flips["another_result"] == 0
    ref, own, torch = (
        statistics.median_high(start[f"{name}_s"]) for name in ("dslbi_ref", "dslbi_torch", "torch")
    )
    assert f"{ref:.2f} s and {own:.2f} s (torch: {torch:.2f} s) of one CPU" in text
    tested = (ROOT / "requirements-tested.txt").read_text().count("--hash=")
    assert f"| {tested} digests |" in text


def test_the_memory_of_a_long_run_is_level(page, soak, tmp_path):
    rows = soak["seconds, MB"]
    assert rows[-1][0] >= 3600 and len(rows) >= 300
    late = [mb for t, mb in rows if t >= rows[-1][0] / 6]
    assert max(late) - min(late) < 0.05 * soak["level_MB"]
    text = " ".join((ROOT / "book" / "promises.md").read_text(encoding="utf-8").split())
    assert f"it grows by {soak['growth_MB_per_hour']:.2f} MB an hour" in text
    assert f"are {soak['gathered_MB']:.2f} MB. " in text
    page.draw(soak, tmp_path / "a.svg")
    words = [e.text for e in ElementTree.parse(tmp_path / "a.svg").iter() if e.text]
    assert f"median after ten minutes: {soak['level_MB']:.0f} MB" in words
    assert f"{soak['steps']:,} steps in {soak['epochs']} epochs" in page.caption(soak)

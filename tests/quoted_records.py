"""The recorded files in benchmarks/, and their figures as the pages print them."""

import json
from pathlib import Path

from benchmarks.intervals import summary

ROOT = Path(__file__).parents[1]


def record(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def quoted(page):
    """The text of a page without the marks of bold type, and its lines as one."""
    return " ".join((ROOT / page).read_text(encoding="utf-8").replace("**", "").split())


def ranking_cell(method, density):
    """Mean and standard deviation over the seeds (of one seed its value) in percent, without /
    with fine-tuning."""
    rows = [
        row
        for row in record("ranking")["rows"]
        if (row["method"], row["density"]) == (method, density)
    ]
    shown = []
    for key in ("without", "with"):
        values = [100 * row[key] for row in rows if key in row]
        if len(values) > 1:
            own = summary(values)
            shown.append(f"{own['mean']:.2f} ({own['sd']:.2f})")
        elif values:
            shown.append(f"{values[0]:.2f}")
    return " / ".join(shown) or "–"


def ranking_difference(ours, other, density, key):
    """Mean difference in points over the seeds that both have, with its interval of 95 %."""
    for row in record("ranking")["differences"]:
        if (row["of"], row["to"], row["density"], row["key"]) == (ours, other, density, key):
            d, low, high = (round(row[k], 2) + 0.0 for k in ("difference", "low", "high"))
            return f"{d:+.2f} [{low:+.2f}, {high:+.2f}]"  # no minus before a zero
    return "–"

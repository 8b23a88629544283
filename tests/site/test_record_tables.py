"""The page of all records: its tables hold what the records hold, and its script draws it."""

import importlib
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

BOOK = Path(__file__).resolve().parents[2] / "book"
RESULTS = BOOK.parent / "benchmarks" / "results"
FILES = sorted(RESULTS.rglob("*.json"))


@pytest.fixture
def records(monkeypatch):
    monkeypatch.syspath_prepend(str(BOOK / "_ext"))
    return importlib.import_module("records")


@pytest.fixture
def run(records):
    """The value of an expression among the page's scripts."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("the script of the page is run by node, and there is none")

    def value(expression):
        tried = f"process.stdout.write(JSON.stringify({expression}));"
        script = records.script().replace("mountRecords(document);", tried)
        done = subprocess.run([node, "-e", script], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    return value


def test_a_list_of_runs_becomes_a_table_and_their_epochs_another(records):
    log = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}, {"epoch": 3, "loss": 1.0}]
    record = {
        "command": "python x.py",
        "settings": {"nu": 5.0},
        "runs": [
            {"seed": 0, "revision": "abc", "acc": 0.5, "log": log},
            {"seed": 1, "revision": "abc", "acc": 0.25, "log": log[:1]},
        ],
    }
    settings, runs, epochs = records.tables(record)
    assert settings == ("", ["what", "value"], [["settings: nu", 5.0]], {})
    assert runs == ("runs", ["seed", "acc"], [[0, 0.5], [1, 0.25]], {})
    assert epochs[:2] == ("runs / log", ["seed", "epoch", "loss"])
    assert epochs[2] == [[0, 1, 2.0], [0, 2, 1.0], [0, 3, 1.0], [1, 1, 2.0]]


def test_keys_name_rows_and_columns_are_turned(records):
    nets = {"A": {"SGD": {"ms": 1.0}, "Adam": {"ms": 2.0}}, "B": {"SGD": {"ms": 4.0}}}
    ((title, columns, rows, same),) = records.tables({"result": nets})
    assert (title, columns, same) == ("result", ["part", "of it", "ms"], {})
    assert rows == [["A", "SGD", 1.0], ["A", "Adam", 2.0], ["B", "SGD", 4.0]]
    turned = {"curve": {"t": [1, 2, 3], "x": [1.0, 4.0, 9.0], "unit": "s"}}
    assert records.tables(turned)[0][1:3] == (
        ["t", "x", "unit"],
        [[1, 1.0, None], [2, 4.0, None], [3, 9.0, None], [None, None, "s"]],
    )
    ((title, columns, rows, _),) = records.tables({"seconds, MB": [[1, 5.0], [2, 6.0]]})
    assert (title, columns, rows) == ("seconds, MB", ["seconds", "MB"], [[1, 5.0], [2, 6.0]])


def test_what_is_the_same_in_all_rows_is_said_once(records):
    many = [{"lr": 0.1, "seed": k, "acc": k / 10} for k in range(3)]
    ((_, columns, rows, same),) = records.tables({"rows": many})
    assert columns == ["seed", "acc"] and same == {"lr": 0.1} and len(rows) == 3


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_record_has_a_table_and_says_how_it_was_made(records, path):
    record = json.loads(path.read_text(encoding="utf-8"))
    made = records.how(record)
    assert made and all(re.search(r"python|pytest", command) for *_, command in made)
    found = records.tables(record)
    assert found
    for _, columns, rows, same in found:
        assert rows and all(len(row) == len(columns) for row in rows)
        assert not set(same) & set(columns)


def test_numbers_of_a_record_are_in_its_tables(records):
    short = importlib.import_module("record_tables").short
    rows = json.loads((RESULTS / "ranking.json").read_text())["rows"]
    title, columns, cells, _ = records.tables({"rows": rows})[0]
    for one, row in zip(rows, cells, strict=True):
        shown = {key: value for key, value in zip(columns, row, strict=True) if value is not None}
        held = {key: short(value) for key, value in one.items() if value is not None}
        assert shown == held


def test_a_later_record_appears_and_a_damaged_one_is_named(records, tmp_path):
    (tmp_path / "later.json").write_text('{"command": "python benchmarks/step.py", "ms": 3}')
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "campaign").mkdir()
    for name in ("a", "b"):
        text = json.dumps({"name": name, "command": f"run {name}", "results": {"acc": 0.5}})
        (tmp_path / "campaign" / f"{name}.json").write_text(text)
    found = records.read(tmp_path)
    assert list(found) == ["broken", "campaign", "later"]
    page = {title: records.section(title, *rest) for title, rest in found.items()}
    assert "`broken.json` cannot be read: " in page["broken"] and "html" not in page["broken"]
    assert page["later"].startswith("## later\n\nCost of one optimizer step")
    assert "<td>ms</td><td>3</td>" in page["later"] and "python benchmarks/step.py" in page["later"]
    assert "<td>a</td><td>0.5</td>" in page["campaign"] and "run b" in page["campaign"]


def test_a_table_says_how_much_of_it_is_shown_without_scripts(records):
    rows = [[k, "<b>" if k else None] for k in range(20)]
    html = records.table_html("t: rows", ["x_1", "word"], rows, {"ok": True, "no": None}, False)
    assert html.count("<tr>") == 1 + 8 and "<b>" not in html.split("<script")[0]
    assert "The first 8 of 20 rows." in html and "The same in all rows: ok: yes." in html
    held = json.loads(re.search(r"json\">(.*)</script>", html)[1])
    assert held == {"title": "t: rows", "columns": ["x_1", "word"], "rows": rows}


def test_rows_are_sorted_by_size_and_words_by_letter(run):
    rows = "[[3, 'b'], [null, 'a10'], [1, 'a9'], [2, null]]"
    assert [r[0] for r in run(f"sorted({rows}, 0, false)")] == [1, 2, 3, None]
    assert [r[0] for r in run(f"sorted({rows}, 0, true)")] == [3, 2, 1, None]
    assert [r[1] for r in run(f"sorted({rows}, 1, false)")] == ["a9", "a10", "b", None]


def test_rows_are_found_by_words_and_by_the_value_of_a_column(run):
    data = "['nu', 'path', 'power'], [[10, 'iss', 1], [1, 'iss', 10], [10, 'lasso', true]]"
    for words, places in (("", 3), ("ISS", 2), ("nu=10", 2), ("nu=10 iss", 1), ("nothing", 0)):
        assert len(run(f"found({data}, {words!r})")) == places
    assert run(f"found({data}, 'power=yes')") == [[10, "lasso", True]]


def test_numbers_are_written_as_they_are_read(run):
    written = run("[0.1 + 0.2, 61706, 1e-7, 0, null, true, 'w', -0.00012345678].map(cell)")
    assert written == ["0.3", "61706", "1.000e-7", "0", "", "yes", "w", "-0.000123457"]


def test_axes_have_round_ticks_within_reach(run):
    for low, high in ((0, 1), (0.86, 0.993), (-3, 17), (1, 90), (1e-3, 5), (7, 7)):
        got = run(f"(a => ({{...a, ends: [{low}, {high}].map(a.at)}}))(axis([{low}, {high}]))")
        a, b = got["range"]
        assert a <= got["ends"][0] <= got["ends"][1] <= b and a < b
        assert 1 <= len(got["ticks"]) <= 7 and all(a <= t <= b for t in got["ticks"])
    powers = run("(a => a.ticks.map(a.name))(axis([0.001, 5]))")
    assert powers == ["0.001", "0.01", "0.1", "1", "10"]


def test_a_plot_has_a_mark_for_each_row_and_a_line_where_x_grows(run):
    rows = "[1, 2, 'a<b'], [2, 4, 'a<b'], [3, 3, 'a<b'], [9, 1, 'c']"
    data = f"{{columns: ['t', 'x_y', 'of'], rows: [{rows}]}}"
    assert run(f"axes({data})") == [0, 1] and run(f"kinds({data})") == [2]
    drawn = run(f"plot({data}, 0, 1, 2)")
    root = ElementTree.fromstring(drawn)
    circles = root.findall(".//{*}circle")
    assert len(circles) == 3 + 1  # and one in the legend
    assert "x y" in drawn and "a&lt;b" in drawn and "NaN" not in drawn
    line = [p for p in root.iter() if p.get("stroke") == "#1B5FC4"]
    assert len(line) == 1
    # the places of the marks are those of the values
    across = [float(c.get("cx")) for c in circles[:3]]
    up = [float(c.get("cy")) for c in circles[:3]]
    assert across[1] - across[0] == pytest.approx(across[2] - across[1], abs=0.11)
    assert up[0] - up[1] == pytest.approx(2 * (up[0] - up[2]), abs=0.11) and up[1] < up[0]
    assert "No row has both" in run(f"plot({{...{data}, rows: []}}, 0, 1, -1)")

"""``{records}`` places every record of ``benchmarks/results`` on a page: commands and tables.

A file is a section, and a folder is one section for all its files. A record that is written later
appears by itself. The tables' first rows are on the page as they are; ``records.js`` takes all rows
from beside them, sorts, finds and draws.
"""

import ast
import json
import re
from html import escape
from importlib.resources import files
from pathlib import Path

from record_tables import how, tables
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SCRIPT = Path(__file__).parents[1] / "_static" / "records.js"
STATIC = 8  # rows of a table that are there without scripts
HOW = ["date", "revision", "machine", "command"]


def read(folder):
    """The records of a folder by title, each with its file: {title: (place, record or error)}."""
    found = {}
    for path in sorted(folder.iterdir()):
        place = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
        try:
            if path.is_dir():
                parts = [json.loads(p.read_text("utf-8")) for p in sorted(path.glob("*.json"))]
                found[path.name] = (f"{place}/", parts)
            elif path.suffix == ".json":
                found[path.stem.replace("_", " ")] = (place, json.loads(path.read_text("utf-8")))
        except ValueError as error:
            found[path.stem.replace("_", " ")] = (place, error)
    return found


def purpose(command):
    """The first line of what the script of a command says of itself; nothing for other commands."""
    script = re.search(r"\bbenchmarks[/.](\w+)", command)
    path = ROOT / "benchmarks" / f"{script[1]}.py" if script else None
    if not (path and path.is_file()):
        return ""
    line = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n\n")[0]
    return " ".join(line.split())


def shown(value):
    """A value as the script shows it, too."""
    if value is None:
        return ""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def table_html(title, columns, rows, same, is_open):
    """A folded table: its first rows for all readers, all of them for the script."""
    data = json.dumps({"title": title, "columns": columns, "rows": rows}, separators=(",", ":"))
    heads = "".join(f'<th scope="col">{escape(c.replace("_", " "))}</th>' for c in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(shown(v))}</td>" for v in row) + "</tr>"
        for row in rows[:STATIC]
    )
    rest = f"<p>The first {STATIC} of {len(rows)} rows.</p>" if len(rows) > STATIC else ""
    same = {key: shown(value) for key, value in same.items() if value is not None}
    alike = "; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in same.items())
    alike = f'<p class="record-same">The same in all rows: {escape(alike)}.</p>' if alike else ""
    count = f"{len(rows)} row{'s' * (len(rows) != 1)}"
    return (
        f"<details{' open' * is_open}><summary>{escape(title)}, {count}</summary>\n"
        f'<div class="record-table"><div class="record-rows" tabindex="0" role="region" '
        f'aria-label="{escape(title)}"><table class="table"><thead><tr>{heads}</tr></thead>'
        f'<tbody>{body}</tbody></table></div>{rest}{alike}<script type="application/json">'
        f"{data.replace('</', '<' + chr(92) + '/')}</script></div></details>\n"
    )


def section(title, place, record):
    """The Markdown of a record's section."""
    if isinstance(record, ValueError):
        return f"## {title}\n\n`{place}` cannot be read: {record}.\n"
    made = how(record)
    words = purpose(made[0][-1]) if made else ""
    parts = [("how it was made", HOW, [list(line) for line in made], {})] if made else []
    parts += [(name or "settings and totals", *rest) for name, *rest in tables(record)]
    html = "".join(table_html(f"{title}: {n}", *rest, k == 0) for k, (n, *rest) in enumerate(parts))
    return f"## {title}\n\n{words} Kept in `{place}`.\n\n```{{raw}} html\n{html}```\n".lstrip()


def script():
    """The script of the page, with what draws the widgets; the page has names of its own."""
    frame = files("dslbi_ref.figures") / "widgets" / "frame.js"
    parts = frame.read_text("utf-8"), SCRIPT.read_text("utf-8")
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "\nmountRecords(document);\n})()"


class Records(SphinxDirective):
    def run(self):
        found = read(RESULTS)
        for path in (*RESULTS.rglob("*"), SCRIPT):
            self.env.note_dependency(str(path))
        text = "\n".join(section(title, *rest) for title, rest in found.items())
        end = f"\n```{{raw}} html\n<script>\n{script()}\n</script>\n```\n"
        return self.parse_text_to_nodes(text + end, allow_section_headings=True)


def setup(app):
    app.add_directive("records", Records)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

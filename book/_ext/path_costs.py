"""Tables and the picture of the page on costs, from records in benchmarks/results at every build.

``{path-costs}`` takes one argument: ``peers``, ``end``, ``large`` or ``figure``. The picture is
drawn into the folder of the build; nothing that is derived from the record lies in the repository.
"""

import json
from functools import partial
from pathlib import Path

from drawn import drawn_figure, saved_figure
from sphinx.util.docutils import SphinxDirective

RECORD = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "paths.json"
LARGE = RECORD.with_name("large.json")
PANELS = {
    "n (p = 2000)": "observations $n$ ($p = 2000$)",
    "p (n = 500)": "columns $p$ ($n = 500$)",
    "m (image)": "rows $m$ of $D$ (images, split)",
    "events (n = 500, p = 2000)": "events ($n = 500$, $p = 2000$)",
}
ALT = (
    "Four panels with logarithmic axes, blue for a whole path and orange, dashed, for one event of "
    "it. Against n the blue curve is level while the orange one rises. Against p, m and the number "
    "of events the blue curve rises."
)
CAPTION = (
    "CPU milliseconds, measured with one BLAS thread. The numbers at the points count the events "
    "of the path."
)


def table(header, rows):
    """Markdown of a table; a first column of words, numbers right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def peers(record):
    """CPU time of each method and its ratio to the exact path, one pair of columns per problem."""
    problems = record["against_lasso"]
    header = ["method"]
    for problem in problems:
        header += ["{n} × {p}, {events} events: ms".format(**problem), "times ISS"]
    rows = [
        [name]
        + [
            f"{number:.1f}"
            for problem in problems
            for row in [problem["methods"][name]]
            for number in (1e3 * row["seconds"], row["ratio"])
        ]
        for name in problems[0]["methods"]
    ]
    return table(header, rows)


def end(record):
    """Paths followed until the gradient is zero."""
    header = ["problem", "events", "leavings", "last time over first", "residual", "seconds"]
    rows = [
        [
            "{n} × {p}".format(**row),
            row["events"],
            row["removals"],
            f"{row['t_end']:.0f}",
            f"{row['kkt_residual']:.0e}",
            f"{row['seconds']:.2f}",
        ]
        for row in record["saturated"]
    ]
    return table(header, rows)


def large(record):
    """Memory and time of paths over very many columns."""
    header = ["X", "size", "events", "GB of X", "GB beside it", "seconds"]
    rows = [
        [
            row["kind"],
            f"{row['n']:,} × {row['p']:,}",
            row["events"],
            f"{row['gigabytes_of_x']:.2f}",
            f"{row['gigabytes_beside']:.2f}",
            f"{row['seconds']:.0f}",
        ]
        for row in record["rows"]
    ]
    return table(header, rows)


def draw(record, path):
    """The picture of the scaling, as an SVG file."""
    with saved_figure(path, 2, 2, figsize=(7.6, 5.6), sharey=True) as axes:
        for ax, (key, label) in zip(axes.flat, PANELS.items(), strict=True):
            rows = record["scaling"][key]
            size, ms = rows["size"], [1e3 * s for s in rows["seconds"]]
            each = [a / b for a, b in zip(ms, rows["events"], strict=True)]
            ax.loglog(size, ms, "C0o-", label="whole path")
            ax.loglog(size, each, "C1s--", label="one event")
            place = dict(textcoords="offset points", ha="center", fontsize=8)
            if not key.startswith("events"):
                for x, y, count in zip(size, ms, rows["events"], strict=True):
                    ax.annotate(str(count), (x, y), (0, 7), **place)
            ax.minorticks_off()
            # labels nearer than a factor of 1.6 would run into each other
            far = [x for x, above in zip(size, [*size[1:], 1e99], strict=True) if above > 1.6 * x]
            ax.set_xticks(far, [f"{x}" for x in far])
            ax.set(xlabel=label, ylim=(0.05, 3000), xlim=(size[0] / 1.4, 1.4 * size[-1]))
        for ax in axes[:, 0]:
            ax.set_ylabel("CPU milliseconds")
            ax.set_yticks([0.1, 1, 10, 100, 1000], ["0.1", "1", "10", "100", "1000"])
        axes[0, 0].legend(loc="upper right")


TABLES = {"peers": peers, "end": end, "large": large}


class PathCosts(SphinxDirective):
    required_arguments = 1

    def run(self):
        kind = self.arguments[0]
        file = LARGE if kind == "large" else RECORD
        self.env.note_dependency(str(file))
        record = json.loads(file.read_text(encoding="utf-8"))
        if kind in TABLES:
            return self.parse_text_to_nodes(TABLES[kind](record))
        if kind != "figure":
            raise self.error(f"path-costs must be {', '.join(TABLES)} or figure, got {kind!r}")
        return drawn_figure(self, "path_costs.svg", partial(draw, record), ALT, CAPTION)


def setup(app):
    app.add_directive("path-costs", PathCosts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

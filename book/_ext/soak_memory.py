"""The picture of a long run's memory, from benchmarks/results/soak.json at every build.

``{soak}`` draws it into the folder of the build; nothing that is derived from the record lies in
the repository.
"""

import json
from functools import partial
from pathlib import Path

from drawn import drawn_figure, saved_figure
from sphinx.util.docutils import SphinxDirective

RECORD = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "soak.json"
ALT = (
    "Memory of the process in megabytes against minutes of training: after a short rise at the "
    "start the curve is level, and the dashed line of its median lies on it."
)


def caption(record):
    """What was run, in a sentence."""
    (first, _), (second, _), *_ = record["seconds, MB"]
    return (
        f"Resident memory of one training, sampled every {second - first:.0f} seconds: "
        f"{record['steps']:,} steps in {record['epochs']} epochs, each with an evaluation and two "
        "checkpoints."
    )


def draw(record, path):
    """The picture, as an SVG file."""
    with saved_figure(path, figsize=(7.0, 2.8)) as ax:
        seconds, mb = zip(*record["seconds, MB"], strict=True)
        ax.plot([t / 60 for t in seconds], mb, "C0-", label="resident memory")
        level = record["level_MB"]
        ax.axhline(level, color="C1", ls="--", label=f"median after ten minutes: {level:.0f} MB")
        ax.set(xlabel="minutes", ylabel="MB", ylim=(0, 1.25 * max(mb)), xlim=(0, seconds[-1] / 60))
        ax.legend(loc="lower right")


class Soak(SphinxDirective):
    def run(self):
        self.env.note_dependency(str(RECORD))
        record = json.loads(RECORD.read_text(encoding="utf-8"))
        return drawn_figure(self, "soak.svg", partial(draw, record), ALT, caption(record))


def setup(app):
    app.add_directive("soak", Soak)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""``{theory-figure} NAME`` places a figure of a theory chapter, drawn at every build."""

from functools import partial

from chapters import (
    consistency,
    convergence,
    dessilbi,
    inverse_scale_space,
    knockoffs,
    mirror_descent,
    split_lbi,
)
from drawn import drawn_figure, saved_figure
from sphinx.util.docutils import SphinxDirective

CHAPTERS = (
    mirror_descent,
    inverse_scale_space,
    consistency,
    split_lbi,
    knockoffs,
    dessilbi,
    convergence,
)
FIGURES = {name: figure for chapter in CHAPTERS for name, figure in chapter.FIGURES.items()}


def draw(figure, path):
    """The picture, as an SVG file."""
    size = (7.6, 2.9) if figure.panels > 1 else (5.6, 3.0)
    with saved_figure(path, 1, figure.panels, figsize=size, squeeze=False) as axes:
        figure.draw(axes[0], figure.curves())


class TheoryFigure(SphinxDirective):
    required_arguments = 1

    def run(self):
        name = self.arguments[0]
        if name not in FIGURES:
            raise self.error(f"theory-figure must be one of {', '.join(FIGURES)}, got {name!r}")
        figure = FIGURES[name]
        file = f"theory_{name}.svg"
        return drawn_figure(self, file, partial(draw, figure), figure.alt, figure.caption)


def setup(app):
    app.add_directive("theory-figure", TheoryFigure)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""A picture that is drawn into the folder of the build, and placed on the page."""

import os
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Figure(NamedTuple):
    """Curves by name, what draws them on so many axes, and the words beside the picture."""

    curves: Callable
    draw: Callable
    panels: int
    alt: str
    caption: str


@contextmanager
def saved_figure(path, *shape, **options):
    """Yield the axes of a figure in the book's style, of ``plt.subplots``; then save it as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.style.context("dslbi_ref.figures.book"):
        fig, axes = plt.subplots(*shape, **options)
        yield axes
        fig.savefig(path, metadata={"Date": None})
        plt.close(fig)


def drawn_figure(directive, name, draw, alt, caption):
    """Return the nodes of a figure that ``draw(path)`` makes as ``name`` in the build's folder."""
    path = Path(directive.env.app.doctreedir) / name
    draw(path)
    place = Path(os.path.relpath(path, directive.env.srcdir)).as_posix()
    return directive.parse_text_to_nodes(
        f"```{{figure}} /{place}\n:alt: {alt}\n:width: 100%\n\n{caption}\n```"
    )

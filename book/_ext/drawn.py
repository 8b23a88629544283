"""A picture that is drawn into the folder of the build, and placed on the page."""

import os
from pathlib import Path


def drawn_figure(directive, name, draw, alt, caption):
    """Return the nodes of a figure that ``draw(path)`` makes as ``name`` in the build's folder."""
    path = Path(directive.env.app.doctreedir) / name
    draw(path)
    place = Path(os.path.relpath(path, directive.env.srcdir)).as_posix()
    return directive.parse_text_to_nodes(
        f"```{{figure}} /{place}\n:alt: {alt}\n:width: 100%\n\n{caption}\n```"
    )

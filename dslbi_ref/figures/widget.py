"""Widgets that compute in the page, without a server: in JupyterLab and on the site alike.

Each is a JavaScript file beside a picture of its first scene, in the folder ``widgets``; what they
share is ``frame.js``. The script has drawn the picture, which is shown where scripts are off.
"""

from html import escape
from importlib.resources import files
from urllib.parse import quote

from ..checks import check_word

# Name, and what the picture shows to readers who hear the page.
WIDGETS = {
    "machine": (
        "Three weights, each a square tied by a spring to a circle, its twin, beside a tube that "
        "fills with the dual variable. Two tubes are full to the level and their twins have gone "
        "to their weights, 2 and 1; the third is filling and its twin is at zero."
    ),
    "ball": (
        "The balls of the elastic net and of hypentropy about the origin, both close to a diamond, "
        "touch the line of solutions near the vertical axis."
    ),
    "entries": (
        "Left, four dual variables run in straight lines from zero to plus or minus one. Right, "
        "four coefficients jump when these arrive; the dashed lasso creeps from the same moments."
    ),
    "births": (
        "Entry times of eight weights. Against their size at birth they fall along a "
        "curve; against the size that the loss asks for they are scattered."
    ),
    "selection": (
        "Above, twelve blue lines begin one after the other between time 1 and time 3, and no "
        "orange one. Below, the number of true rows climbs to twelve, that of false ones stays 0."
    ),
}


class Widget(str):
    """The HTML of a widget; a notebook draws it when it is the value of a cell."""

    def _repr_html_(self):
        return str(self)

    def __repr__(self):
        return "<widget>"


def source(name, then):
    """Return the JavaScript of a widget with all that it needs, and what to do ``then``.

    A strict function keeps what it declares from the page and from other widgets.
    """
    folder = files(__package__) / "widgets"
    frame, own = ((folder / f"{part}.js").read_text("utf-8") for part in ("frame", name))
    return f'(() => {{\n"use strict";\n{frame}\n{own}\n{then}\n}})()'


def widget(name):
    """Return a widget: a drawing with sliders, and a sentence that says what it shows.

    Parameters
    ----------
    name : "machine", "ball", "entries", "births" or "selection"
        Weights with their springs, twins and dual variables; the balls of two mirrors; entry times
        of an orthogonal design; entry by size at birth or by what the loss asks for;
        which rows of ``D beta`` are selected when.

    Returns
    -------
    Widget
        The HTML as a ``str``. It asks nothing from elsewhere.

    Raises
    ------
    ValueError
        For another name.
    """
    check_word("name", name, tuple(WIDGETS))
    picture = (files(__package__) / "widgets" / f"{name}.svg").read_text("utf-8")
    script = source(name, f'mount("{name}", {name});')
    return Widget(
        f'<dslbi-{name}><img width="640" alt="{escape(WIDGETS[name])}" '
        f'src="data:image/svg+xml,{quote(picture, safe=" !$()*+,-./:;=?@[]^_`{|}~")}">'
        f"</dslbi-{name}>\n"
        f"<script>\n{script}\n</script>"
    )

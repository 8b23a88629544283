"""A slider over pictures that needs no server: the same in JupyterLab, on the site and from a file.

All frames lie in the page as ``<img>``, and moving the slider shows one of them. Where scripts are
off (a notebook that is not trusted, a code host's preview) the first frame and its label remain,
so they should make sense alone.
"""

import base64
import io
from html import escape
from urllib.parse import quote

from ..checks import (
    MOST_ENTRIES,
    check_array,
    check_in,
    check_integer,
    check_kind,
    check_list,
    shown,
)
from ..optional import brought_by

# No ids and no <script>: two sliders on a page do not disturb each other, and an output that is
# inserted into a running page works at once.
_MOVE = (
    "const k=+this.value,all=this.closest('figure').querySelectorAll('img');"
    "all.forEach((e,i)=>{e.style.display=i===k?'':'none'});"
    "this.setAttribute('aria-valuetext',all[k].dataset.label);"
    "this.nextElementSibling.textContent=all[k].dataset.label"
)


class Slider(str):
    """The HTML of a slider; a notebook draws it when it is the value of a cell."""

    def _repr_html_(self):
        return str(self)

    def __repr__(self):
        return f"<slider of {self.count('<img ')} frames>"


def _source(frame):
    check_kind("frames", frame, str | bytes)
    data = frame.encode() if isinstance(frame, str) else bytes(frame)
    if data.startswith(b"\x89PNG\r\n"):
        return "data:image/png;base64," + base64.b64encode(data).decode()
    if data.lstrip().startswith((b"<svg", b"<?xml")):
        # escaped text on one line is a quarter smaller than base64
        text = quote(b" ".join(data.split()), safe=" !$'()*+,-./:;=?@[]^_`{|}~")
        return "data:image/svg+xml," + text
    raise ValueError(f"a frame must be SVG text or PNG bytes, got {data[:20]!r}")


def slider(frames, labels, *, name, alt, start=0):
    """Return a slider that shows one of several pictures.

    Parameters
    ----------
    frames : sequence of str or bytes
        SVG text or PNG bytes, best all of one size; see :func:`draw_frames`.
    labels : sequence of str, one per frame
        What stands beside the slider, for example ``"t = 1.50"``.
    name : str
        What the slider changes, for readers who hear the page: ``"path time"``.
    alt : str
        What the pictures show; the label of the frame is added to it.
    start : int in [0, len(frames))
        The frame shown at first, and the only one where scripts are off.

    Returns
    -------
    Slider
        The HTML as a ``str``. The same arguments give the same text.

    Raises
    ------
    ValueError
        No frames, another number of labels, an empty ``name`` or ``alt``, ``start`` out of range,
        or a frame that is neither SVG nor PNG.
    """
    frames, labels = check_list("frames", frames), check_list("labels", labels)
    for word, text in dict(name=name, alt=alt).items():
        check_kind(word, text, str)
    for label in labels:
        check_kind("labels", label, str)
    start = check_integer("start", start, -MOST_ENTRIES)
    if not frames:
        raise ValueError("frames must hold at least one picture, got none")
    if len(labels) != len(frames):
        raise ValueError(f"labels must be one per frame, {len(frames)}, got {len(labels)}")
    if not name.strip() or not alt.strip():
        raise ValueError(f"name and alt must say something, got {name!r} and {alt!r}")
    if not 0 <= start < len(frames):
        raise ValueError(f"start must be in [0, {len(frames)}), got {start}")
    images = [
        f'<img alt="{escape(f"{alt}, {label}")}" data-label="{escape(label)}" '
        f'style="max-width:100%;{"" if k == start else "display:none"}" src="{_source(frame)}">'
        for k, (frame, label) in enumerate(zip(frames, labels, strict=True))
    ]
    # data-lm-...: JupyterLab leaves the arrow keys to the slider. The label is its spoken value.
    handle = (
        f'<input type="range" min="0" max="{len(frames) - 1}" step="1" value="{start}" '
        f'aria-label="{escape(name)}" aria-valuetext="{escape(labels[start])}" '
        f'data-lm-suppress-shortcuts="true" '
        f'style="flex:1 1 auto;max-width:32em" oninput="{_MOVE}">'
    )
    return Slider(
        '<figure class="slider" style="margin:0">\n'
        + "\n".join(images)
        + '\n<div style="display:flex;gap:1em;align-items:center">'
        + handle
        + f'<span aria-hidden="true" style="min-width:8em">{escape(labels[start])}</span>'
        + "</div>\n</figure>"
    )


def draw_frames(draw, values, *, kind="svg", figsize=None):
    """Draw frames for :func:`slider`: ``draw(figure, value)``, on a fresh figure for each value.

    ``kind`` is ``"svg"`` (lines and words: sharp) or ``"png"`` (images, or very many points, in 256
    colours). A frame of the usual size takes 10 to 20 kB, so two dozen are plenty. The bytes depend
    on the drawing and on the versions of matplotlib and Pillow only.
    """
    with brought_by("figures", "draw_frames"):
        import matplotlib
        from matplotlib.figure import Figure
        from PIL import Image  # comes with matplotlib

    if not (isinstance(kind, str) and kind in ("svg", "png")):
        raise ValueError(f'kind must be "svg" or "png", got {shown(kind)}')
    check_kind("draw", draw, callable)
    values = check_list("values", values)
    if figsize is not None:
        figsize = check_array("figsize", figsize, (2,))
        check_in(0.01, 1000, figsize=figsize.min())
        check_in(0.01, 1000, figsize=figsize.max())
    stamps = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # None: leave them out
    frames = []
    with matplotlib.rc_context({"svg.hashsalt": "dslbi"}):
        for value in values:
            figure, buffer = Figure(figsize=figsize), io.BytesIO()
            draw(figure, value)
            if kind == "svg":
                figure.savefig(buffer, format="svg", metadata=stamps)
            else:
                figure.savefig(buffer, format="rgba")
                size = figure.canvas.get_width_height(physical=True)
                image = Image.frombytes("RGBA", size, buffer.getvalue()).convert("RGB")
                buffer = io.BytesIO()
                image.quantize(256, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
            frames.append(buffer.getvalue())
    return frames

"""The slider: what is on the page before anything moves, and what it refuses."""

import base64
import io
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from urllib.parse import unquote

import matplotlib.pyplot as plt
import pytest
from PIL import Image

from dslbi_ref.figures.slider import draw_frames, slider

PNG = b"\x89PNG\r\n\x1a\n rest"
SVG = "<svg xmlns='http://www.w3.org/2000/svg'/>"
WORDS = dict(name="path time", alt="coefficients")


class Tags(HTMLParser):
    """All start tags with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def __getitem__(self, name):
        return [attrs for tag, attrs in self.found if tag == name]


def draw(figure, value):
    axes = figure.subplots()
    axes.plot([0, 1], [0, value])
    axes.set_xlabel("t")


def test_one_frame_shows_and_every_frame_is_described():
    page = Tags(slider([SVG, PNG, SVG], ["t = 1", "t = 2", "t = 3"], start=1, **WORDS))
    images = page["img"]
    assert ["display:none" in image["style"] for image in images] == [True, False, True]
    assert [image["alt"] for image in images] == [f"coefficients, t = {k}" for k in (1, 2, 3)]
    kind, data = images[0]["src"].split(",", 1)
    assert kind == "data:image/svg+xml" and unquote(data) == SVG
    kind, data = images[1]["src"].split(",", 1)
    assert kind == "data:image/png;base64" and base64.b64decode(data) == PNG
    (handle,) = page["input"]
    assert (handle["type"], handle["min"], handle["max"], handle["value"]) == (
        "range",
        "0",
        "2",
        "1",
    )
    assert (handle["aria-label"], handle["aria-valuetext"]) == ("path time", "t = 2")


def test_nothing_is_fetched_and_no_ids_can_clash():
    page = slider([PNG], ["t = 1"], **WORDS)
    assert "http" not in page and "<script" not in page
    assert all("id" not in attrs for _, attrs in Tags(page).found)


def test_an_svg_keeps_every_character():
    svg = '<svg><text>50 % of #1 & "2", größer\n</text></svg>'
    (image,) = Tags(slider([svg], ["a"], **WORDS))["img"]
    assert unquote(image["src"].split(",", 1)[1]) == svg.replace("\n", " ")


def test_words_are_escaped():
    words = dict(name='a "name"', alt='<b> & "c"')
    page = Tags(slider([SVG], ['t < "1"'], **words))
    assert [tag for tag, _ in page.found] == ["figure", "img", "div", "input", "span"]
    assert page["img"][0]["alt"] == '<b> & "c", t < "1"'
    assert page["input"][0]["aria-label"] == 'a "name"'


def test_a_notebook_gets_html_and_a_short_text():
    page = slider([SVG, SVG], ["t = 1", "t = 2"], **WORDS)
    assert page._repr_html_() == str(page) and repr(page) == "<slider of 2 frames>"


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_frames_are_the_same_on_every_call_and_leave_no_figure(kind):
    open_before = plt.get_fignums()
    first, second = (draw_frames(draw, [1.0, 2.0], kind=kind, figsize=(3, 2)) for _ in range(2))
    assert first == second and first[0] != first[1]
    assert plt.get_fignums() == open_before
    assert str(slider(first, ["a", "b"], **WORDS)) == str(slider(second, ["a", "b"], **WORDS))


def test_frames_hold_the_drawing():
    with plt.style.context("dslbi_ref.figures.book"):
        (frame,) = draw_frames(draw, [2.0], figsize=(3, 2))
    assert len(frame) < 12_000
    root = ElementTree.fromstring(frame)
    assert root.get("width") == "216pt"
    assert "t" in [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_png_has_the_size_asked_for():
    with plt.rc_context({"figure.dpi": 100}):
        (frame,) = draw_frames(draw, [1.0], kind="png", figsize=(3, 2))
    image = Image.open(io.BytesIO(frame)).convert("RGB")
    assert image.size == (300, 200)
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert image.getcolors(256) is not None


@pytest.mark.parametrize(
    ("frames", "labels", "change", "says"),
    [
        ([], [], {}, "at least one picture"),
        ([SVG], ["a", "b"], {}, "one per frame, 1, got 2"),
        ([SVG], ["a"], {"start": 1}, r"in \[0, 1\), got 1"),
        ([SVG], ["a"], {"alt": " "}, "must say something"),
        ([SVG], ["a"], {"name": ""}, "must say something"),
        (["<p>no</p>"], ["a"], {}, "SVG text or PNG bytes"),
        ([b"GIF89a"], ["a"], {}, "SVG text or PNG bytes"),
    ],
)
def test_refusals(frames, labels, change, says):
    with pytest.raises(ValueError, match=says):
        slider(frames, labels, **(WORDS | change))


def test_refuses_another_kind():
    with pytest.raises(ValueError, match='"svg" or "png", got \'gif\''):
        draw_frames(draw, [1.0], kind="gif")

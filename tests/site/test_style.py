"""The figure style: found by its name, and its colours stay apart for every reader."""

import itertools
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

# Colour vision deficiencies at full severity, on linear RGB (Machado, Oliveira and Fernandes 2009).
VISION = {
    "ordinary": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


@pytest.fixture
def style():
    with plt.style.context("dslbi_ref.figures.book"):
        yield plt.rcParams


def linear(colour):
    c = np.array(to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIE Lab of linear RGB, white point D65."""
    ratio = XYZ @ np.clip(rgb, 0, 1) / [0.95047, 1.0, 1.08883]
    x, y, z = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(a, b):
    low, high = sorted((XYZ[1] @ linear(a), XYZ[1] @ linear(b)))
    return (high + 0.05) / (low + 0.05)


def test_scale():
    assert contrast("black", "white") == pytest.approx(21, rel=1e-6)
    np.testing.assert_allclose(lab(linear("white")), [100, 0, 0], atol=0.01)


def test_lines_and_words_stand_out_from_the_ground(style):
    for colour in style["axes.prop_cycle"].by_key()["color"]:
        assert contrast(colour, style["figure.facecolor"]) >= 3  # WCAG 2, 1.4.11: graphics
    for key in ("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"):
        assert contrast(style[key], style["figure.facecolor"]) >= 7  # WCAG 2, 1.4.6: text


@pytest.mark.parametrize("vision", VISION)
def test_colours_stay_apart(style, vision):
    colours = style["axes.prop_cycle"].by_key()["color"]
    seen = [lab(VISION[vision] @ linear(c)) for c in colours]
    for (a, x), (b, y) in itertools.combinations(zip(colours, seen, strict=True), 2):
        assert np.linalg.norm(x - y) > 19, (a, b)  # 2.3 is a just noticeable difference


def test_the_style_needs_no_torch():
    code = "import sys, matplotlib.pyplot as plt; plt.style.use('dslbi_ref.figures.book')"
    code += "; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"

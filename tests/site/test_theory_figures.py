"""Figures and exercises of the theory chapters: curves and numbers are those of the formulas."""

import importlib
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dslbi_ref import dessilbi_states, iss_path, lbi_path, record, split_iss_path
from dslbi_ref.mirror_maps import elastic_net, orthant_entropy

BOOK = Path(__file__).resolve().parents[2] / "book"
C = np.array([2.0, -1.25, 0.8, 0.3])


@pytest.fixture
def figures(monkeypatch):
    monkeypatch.syspath_prepend(str(BOOK / "_ext"))
    monkeypatch.delitem(sys.modules, "theory_figures", raising=False)
    return importlib.import_module("theory_figures")


def test_every_figure_is_drawn_described_and_placed_once(figures, tmp_path):
    pages = "\n".join(page.read_text(encoding="utf-8") for page in BOOK.glob("*.md"))
    placed = re.findall(r"^```\{theory-figure\} (\w+)$", pages, re.MULTILINE)
    assert sorted(placed) == sorted(figures.FIGURES)
    for name, figure in figures.FIGURES.items():
        file = tmp_path / f"{name}.svg"
        figures.draw(figure, file)
        assert ElementTree.parse(file).getroot().tag.endswith("svg")
        assert len(figure.alt) > 80 and figure.caption.endswith(".")


@pytest.mark.parametrize("page", ["mirror_descent", "inverse_scale_space", "split_lbi", "dessilbi"])
def test_a_chapter_has_two_figures_and_two_exercises(page):
    text = (BOOK / f"{page}.md").read_text(encoding="utf-8")
    assert text.count("```{theory-figure}") >= 2
    tasks = re.findall(r"^\*\*(\d)\.\*\* ", text, re.MULTILINE)
    assert len(tasks) >= 2 and tasks == re.findall(r"^:::\{dropdown\} Solution (\d)$", text, re.M)


def test_mirrors_and_gap(figures):
    curves = figures.mirrors()
    z, net = curves["z"], curves[r"elastic net, $\kappa = 1$"]
    assert_allclose(net, np.sign(z) * np.maximum(np.abs(z) - 1, 0), atol=1e-12)
    gap = figures.gap()
    x = gap["x"]
    assert_allclose(gap["phi"] - gap["tangent"], x * np.log(x) - x + 1, atol=1e-12)


def test_clocks_and_speeds(figures):
    curves = figures.clocks()
    t, apart = curves["t"][:, None], np.abs(curves["t"][:, None] - 1 / np.abs(C)) > 1e-9
    assert_allclose(curves["z"], np.clip(t * C, -1, 1), atol=1e-9)
    gamma = np.where(t >= 1 / np.abs(C), C, 0)
    assert_allclose(np.where(apart, curves["gamma"], gamma), gamma, atol=1e-9)
    curves = figures.speeds()
    for kappa in (2, 10):
        closed = 2 * (1 - np.exp(-kappa * (curves["t"] - 0.5)))
        assert_allclose(curves[rf"$\kappa = {kappa}$"], closed, atol=2e-3)


def test_the_states_lie_on_the_staircase(figures):
    curves = figures.staircase()
    gamma, rho = curves["flow"]
    assert_allclose(gamma, np.where(np.abs(C) >= 1, C, 0), atol=1e-9)
    assert_allclose(rho, np.clip(C, -1, 1), atol=1e-9)
    gamma, z = curves["slow"]
    assert_allclose(gamma, 2 * np.sign(z) * np.maximum(np.abs(z) - 1, 0), atol=1e-12)
    assert_allclose(gamma, np.interp(z, *curves["ramp"][::-1]), atol=0.02)
    assert_allclose(gamma[:2], C[:2] * (1 - np.exp(-2 * (1 - 1 / np.abs(C[:2])))), atol=2e-3)


def test_springs_delay_by_one_plus_nu(figures):
    curves = figures.springs()
    t = curves["t"][:, None]
    for nu in (0.5, 3.0):
        entry = (1 + nu) / np.abs(C)
        gamma, apart = np.where(t >= entry, C, 0), np.abs(t - entry) > 1e-9
        assert_allclose(np.where(apart, curves[rf"$\nu = {nu:g}$"], gamma), gamma, atol=1e-9)


def test_the_direct_way_fails_where_its_caption_says_so(figures):
    curves = figures.direct()
    assert curves["false"][0] == 5 and curves["IRR"][0] == pytest.approx(5, abs=0.1)
    assert not curves["false"][curves["nu"] >= 1 - 1e-9].any()
    assert not curves["false"][curves["IRR"] < 1].any()
    assert curves["IRR"][-1] == pytest.approx(0.6, abs=0.05)


def test_the_quadratic_and_the_births(figures):
    curves = figures.quadratic()
    entry = curves["t"][(curves["Gamma"] > 0).argmax(axis=0)]
    assert_allclose(entry, [1, 2, 8], atol=0.06)
    assert_allclose(curves["W"][250], [2, 1, 0.125], atol=1e-3)  # t = 5: the third one waits
    births = figures.births()
    at = {kappa: np.abs(births["kappa"] - kappa).argmin() for kappa in (0.9, 1.0, 2.0)}
    assert births["he"][at[0.9]] == 1 and births["he"][at[2.0]] == 0 == births["torch"][at[1.0]]


def test_solutions_of_the_chapter_on_mirror_descent():
    net, one, zero = elastic_net(1.0), np.ones(1), np.zeros(1)
    assert_allclose(net.inverse(np.array([2.5, -1.0, 0.3, 1.0])), [1.5, 0, 0, 0], atol=1e-12)
    for z, distance in ((0.5, 1.0), (1.0, 0.5)):
        assert_allclose(net.divergence(one, zero, np.array([z])), distance)
    entropy = orthant_entropy()
    assert_allclose(entropy.divergence(2 * one, one), 0.386, atol=5e-4)
    assert_allclose(entropy.divergence(one, 2 * one), 0.307, atol=5e-4)


def test_solutions_of_the_chapter_on_inverse_scale_space(figures):
    X, y = figures.orthogonal()
    assert_allclose(iss_path(X, y).at(1.0).gamma, [2, -1.25, 0, 0], atol=1e-9)
    assert_allclose(np.sign(C) * np.maximum(np.abs(C) - 1, 0), [1, -0.25, 0, 0], atol=1e-12)
    late = 0.5 + np.log(100) / 2
    assert late == pytest.approx(2.80, abs=5e-3)
    path = lbi_path(X, y, kappa=2.0, alpha=2e-4, times=[late])
    assert_allclose(path.gamma[0, 0], 0.99 * 2, atol=1e-3)
    assert_allclose(2 * (1 - 0.5 / 50), 0.99 * 2)


def test_solutions_of_the_chapter_on_split_lbi(figures):
    X, y = figures.orthogonal()
    assert_allclose(split_iss_path(X, y, np.eye(4), nu=3.0).entry_times()[3], 13.3, atol=0.05)
    assert_allclose(split_iss_path(X, y, np.eye(4), nu=1.0).entry_times()[0], 1.0)
    for nu, bound, digits in ((2.0, 0.057, 3), (0.01, 0.0004, 4)):
        joint = np.array([[1 + 4 / nu, -2 / nu], [-2 / nu, 1 / nu]])  # f'' = 1 and D = 2
        sure = 2 / (10 * (1 + 5 / nu))
        assert round(sure, digits) == bound and sure <= 2 / (10 * np.linalg.eigvalsh(joint).max())


def test_solutions_of_the_chapter_on_dessilbi(figures):
    for nu, entry, part in ((1.0, [1, 2, 8], 0.5), (3.0, [2, 4, 16], 0.75)):
        path = figures.quadratic(nu=nu, kappa=50.0, steps=9000)
        assert_allclose(path["t"][(path["Gamma"] > 0).argmax(axis=0)], entry, atol=0.05)
        waiting = part * np.array([2.0, 1.0, 0.25])
        assert_allclose(path["W"][25], waiting, atol=1e-3)  # t = 0.5: all of them wait
    for kappa, lam, enters in ((1.0, 1.0, True), (2.0, 0.74, True), (2.0, 0.76, False)):
        states = dessilbi_states(
            {"w": np.array([[0.9, 1.2]])},
            lambda W: {"w": 0 * W["w"]},
            penalties={"w": "group"},
            alpha=0.1,
            kappa=kappa,
            nu=10.0,
            lam=lam,
            momentum=0.0,
        )
        path = record(states, 2000, every=10)
        assert path.Gamma["w"].any() == enters

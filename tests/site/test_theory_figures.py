"""The figures and exercises of the theory chapters: each chapter has two of each, in good form."""

import importlib
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

BOOK = Path(__file__).resolve().parents[2] / "book"
TOC = (BOOK / "_toc.yml").read_text(encoding="utf-8")
CHAPTERS = re.findall(r"file: book/(\w+)\n +title: \"Theory: ", TOC)


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


def test_every_theory_chapter_has_its_file_of_figures(figures):
    names = [chapter.__name__.removeprefix("chapters.") for chapter in figures.CHAPTERS]
    assert sorted(names) == sorted(CHAPTERS)


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_has_two_figures_and_two_exercises(page):
    text = (BOOK / f"{page}.md").read_text(encoding="utf-8")
    assert text.count("```{theory-figure}") >= 2
    tasks = re.findall(r"^\*\*(\d)\.\*\* ", text, re.MULTILINE)
    assert len(tasks) >= 2 and tasks == re.findall(r"^:::\{dropdown\} Solution (\d)$", text, re.M)
    # the numbers of every solution are held by a test
    for solution in re.findall(r"^:::\{dropdown\} Solution.*?^:::$", text, re.M | re.S):
        assert "`test_" in solution


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_and_a_notebook_link_to_each_other(page):
    text = (BOOK / f"{page}.md").read_text(encoding="utf-8")
    names = set(re.findall(r"\]\(\.\./notebooks/(\w+\.ipynb)", text))
    notebooks = [(BOOK.parent / "notebooks" / name).read_text(encoding="utf-8") for name in names]
    assert any(f"](../book/{page}.md" in notebook for notebook in notebooks), names

"""One word for the dual variable: its other names stand in one table of the book."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTATION = ROOT / "book/notation.md"
# A row of D has a clock of its own there, which runs on when the row has entered.
OWN_CLOCKS = {
    "knockoffs.md",
    "05b_which_are_real.ipynb",
    "knockoffs.py",
    "knockoff_filter.py",
}
PAGES = [
    *sorted(ROOT.glob("book/*.md")),
    *sorted(ROOT.glob("notebooks/*.ipynb")),
    ROOT / "README.md",
]
CODE = [f for room in ("dslbi_ref", "dslbi_torch") for f in sorted(ROOT.glob(f"{room}/**/*.py"))]
TABLE = r"\| elsewhere \|.*?\n\n"


def other_names():
    """Return the left column of the table, without its head."""
    table = re.search(TABLE, NOTATION.read_text(), re.S).group()
    return re.findall(r"^\| (\w+) \|", table, re.M)[1:]


def markdown(page):
    """Return the text of a page: of a notebook its Markdown and what its pictures show."""
    if page.suffix == ".py":
        return docstrings(page)
    if page.suffix == ".md":
        return page.read_text()
    cells = json.loads(page.read_text())["cells"]
    text = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
    alt = [c["metadata"].get("mystnb", {}).get("image", {}).get("alt", "") for c in cells]
    return "\n\n".join(text + alt)


def docstrings(file):
    """Return the docstrings of a module, its classes and its functions."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, kinds)]
    return "\n\n".join(ast.get_docstring(n) or "" for n in nodes)


def prose(page):
    """Return a page without code, directives that show code, link targets and the table."""
    text = re.sub(TABLE, "", markdown(page), flags=re.S)
    shown = r"^(`{3,})(?:\w|\{(?!glossary|prf:|math|note|tip|warning|admonition)).*?^\1$"
    text = re.sub(shown, "", text, flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`|\]\([^)]*\)", "", text)


def test_the_table_names_what_others_say():
    assert other_names() == ["counter", "price", "clock", "tension"]


@pytest.mark.parametrize("page", PAGES + CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_says_dual_variable(page):
    names = [n for n in other_names() if n != "clock" or page.name not in OWN_CLOCKS]
    found = re.findall(rf"\b(?:{'|'.join(names)})s?\b", prose(page), re.I)
    assert not found, f"{page.name} should say dual variable, not {sorted(set(found))}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_leaves_zero_enters(page):
    found = re.findall(
        r"\b(?:wak(?:es?|ing)|woken?|awake|asleep|sle(?:eps?|pt|eping|epers?))\b", prose(page), re.I
    )
    assert not found, f"{page.name} should say that it enters, not {sorted(set(found))}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_kappa_is_a_speed(page):
    text = prose(page).replace("Other texts call it damping, though a larger one damps less.", "")
    assert not re.search(r"\bdamp(ing|ed)\b", text, re.I)


def test_the_glossary_has_the_words_of_the_pictures():
    terms = set(re.findall(r"^(\S.*)\n  ", (ROOT / "book/glossary.md").read_text(), re.M))
    words = {"DessiLBI", "border", "dual variable", "gate", "leash", "level", "spring", "twin"}
    assert words <= terms, words - terms

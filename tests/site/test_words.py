"""One word for the dual variable: its other names stand in one table of the book."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTATION = ROOT / "book/notation.md"
# A row of D has a clock of its own there, which runs on when the row has entered.
OWN_CLOCKS = {"book/knockoffs.md"}
PAGES = sorted(ROOT.glob("book/*.md")) + [ROOT / "README.md"]
TABLE = r"\| elsewhere \|.*?\n\n"


def other_names():
    """Return the left column of the table, without its head."""
    table = re.search(TABLE, NOTATION.read_text(), re.S).group()
    return re.findall(r"^\| (\w+) \|", table, re.M)[1:]


def prose(page):
    """Return a page without code, directives that show code, link targets and the table."""
    text = re.sub(TABLE, "", page.read_text(), flags=re.S)
    text = re.sub(r"^(`{3,})(?!\{(?:glossary|prf:|math)).*?^\1$", "", text, flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`|\]\([^)]*\)", "", text)


def test_the_table_names_what_others_say():
    assert other_names() == ["counter", "price", "clock", "tension"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_says_dual_variable(page):
    names = [
        n for n in other_names() if n != "clock" or str(page.relative_to(ROOT)) not in OWN_CLOCKS
    ]
    found = re.findall(rf"\b(?:{'|'.join(names)})s?\b", prose(page), re.I)
    assert not found, f"{page.name} should say dual variable, not {sorted(set(found))}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_kappa_is_a_speed(page):
    text = prose(page).replace("Other texts call it damping, though a larger one damps less.", "")
    assert not re.search(r"\bdamp(ing|ed)\b", text, re.I)


def test_the_glossary_has_the_words_of_the_pictures():
    terms = set(re.findall(r"^(\S.*)\n  ", (ROOT / "book/glossary.md").read_text(), re.M))
    words = {"DessiLBI", "border", "dual variable", "gate", "leash", "level", "spring", "twin"}
    assert words <= terms, words - terms

"""The list of theorems has every statement of the book, under its title and in its order."""

import re
from pathlib import Path

BOOK = Path(__file__).parents[2] / "book"
STATEMENT = r"^`{3,}\{prf:(?!proof\})\w+\}(.*)\n(?::label: (\S+))?"
LISTED = r"^\| \{prf:ref\}`(\S+)` \| (.+) \|$"


def test_every_statement_is_listed_once():
    text = (BOOK / "theorems.md").read_text()
    chapters = re.findall(r"^## \[.+\]\((\w+)\.md\)$", text, re.M)
    found = {
        page.stem: [(label, title.strip()) for title, label in re.findall(STATEMENT, source, re.M)]
        for page in BOOK.glob("*.md")
        if re.search(STATEMENT, source := page.read_text(), re.M)
    }
    assert sorted(found) == sorted(chapters)
    listed = re.findall(LISTED, text, re.M)
    assert listed == [row for chapter in chapters for row in found[chapter]]

"""What the book and the code say of each other: equation labels, and the tests that it names."""

import re
from collections import Counter
from pathlib import Path
from pkgutil import resolve_name

import pytest

ROOT = Path(__file__).resolve().parents[2]
LABEL = re.compile(r"# \(([a-z][a-z0-9-]*)\)$")
EQUATION = re.compile(r"^(`{3,}|:{3,})\{math\}\n:label: (\S+)\n", re.MULTILINE)


def files(package):
    return sorted((ROOT / package).rglob("*.py"))


def labels(package):
    """Label of every line that ends with one, and where it stands."""
    return [
        (found[1], f"{path.relative_to(ROOT)}:{number}", line)
        for path in files(package)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if (found := LABEL.search(line))
    ]


def equations():
    pages = sorted((ROOT / "book").glob("*.md"))
    return Counter(m[2] for p in pages for m in EQUATION.finditer(p.read_text(encoding="utf-8")))


@pytest.mark.parametrize("package", ["dslbi_ref", "dslbi_torch"])
def test_every_equation_label_in_code_is_in_the_book(package):
    book = equations()
    assert {label: where for label, where, _ in labels(package) if label not in book} == {}


def test_an_equation_has_one_place_in_the_book():
    assert [label for label, count in equations().items() if count > 1] == []


@pytest.mark.parametrize(
    ("page", "package"), [("api_ref.md", "dslbi_ref"), ("api_torch.md", "dslbi_torch")]
)
def test_the_reference_lists_every_module_and_every_room(page, package):
    """A module by its members, a folder by what its ``__init__`` says of it."""
    text = (ROOT / "book" / page).read_text(encoding="utf-8")
    listed = re.findall(r"automodule:: ([\w.]+)$", text, re.MULTILINE)
    modules = [path.relative_to(ROOT).with_suffix("").parts for path in files(package)]
    modules = [parts[:-1] if parts[-1] == "__init__" else parts for parts in modules]
    modules = [".".join(p) for p in modules if len(p) > 1 and p[-1] != "__main__"]
    assert sorted(listed) == sorted(modules)


def test_every_name_that_a_page_mentions_exists():
    """Modules, functions and classes of the packages, in the README, the book and the notebooks."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "book").glob("*.md")]
    pages += (ROOT / "notebooks").glob("*.ipynb")
    names = {
        name.removesuffix(".book")  # a style of matplotlib is named as a module would be
        for page in pages
        for name in re.findall(r"\bdslbi_(?:ref|torch)(?:\.[A-Za-z]\w*)+", page.read_text("utf-8"))
    }
    missing = []
    for name in sorted(names):
        try:
            resolve_name(name)
        except (ImportError, AttributeError) as error:
            missing.append(f"{name}: {error}")
    assert len(names) > 50 and missing == []


def test_labels_of_the_twin_are_labels_of_the_reference():
    reference = {label for label, _, _ in labels("dslbi_ref")}
    assert {
        label: where for label, where, _ in labels("dslbi_torch") if label not in reference
    } == {}


def test_the_core_of_the_method_is_labelled_in_both_packages():
    core = {"prox-l1", "prox-group", "dslbi-gamma", "dslbi-m", "dslbi-w", "dslbi-v"}
    for package in ("dslbi_ref", "dslbi_torch"):
        assert core <= {label for label, _, _ in labels(package)}


def test_a_label_ends_a_line_of_code():
    stray = [
        w
        for p in ("dslbi_ref", "dslbi_torch")
        for _, w, line in labels(p)
        if line.strip()[0] == "#"
    ]
    assert stray == []


def test_every_test_that_the_book_names_exists():
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    book = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "book").glob("*.md"))
    named = set(re.findall(r"`(test_\w+)`", book))
    assert named and {name for name in named if f"def {name}(" not in tests} == set()


@pytest.mark.parametrize("page", ["book/reproducing.md", "book/results.md"])
def test_every_recipe_that_a_page_names_exists(page):
    from dslbi_torch.training.recipes import RECIPES

    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"dslbi_torch (?:train|sweep) ([a-z][\w-]*)", text))
    assert named and named - set(RECIPES) == set()

"""The folded solutions of the notebooks pass the checks of their exercises."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools.notebooks import FOLDER
from tools.solutions import is_right, verdicts

CHECK = """\
from dslbi_ref.exercises import attempt


def double(x):
    return None  # your turn


answer = None  # your turn: a number
attempt("exercise 1", double(answer) if answer else None, 6)"""


def said(tmp_path, code):
    fold = f"<details><summary>Solution 1</summary>\n\n```python\n{code}\n```\n\n</details>"
    path = tmp_path / "toy.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(CHECK), new_markdown_cell(fold)]), path)
    return verdicts(path)["1"]


def test_a_right_and_a_wrong_solution_are_told_apart(tmp_path):
    right = "def double(x):\n    return 2 * x\n\n\nanswer = {}"
    assert is_right(said(tmp_path, right.format(3)))
    assert not is_right(said(tmp_path, right.format(4)))
    assert not is_right(said(tmp_path, "answer = None"))


@pytest.mark.parametrize("name", ["01_mirror_descent", "04_split_lbi", "05b_which_are_real"])
def test_solutions_of_a_quick_notebook_are_right(name):
    """The quick ones; ``python tools/solutions.py`` tries all of them."""
    texts = verdicts(FOLDER / f"{name}.ipynb")
    assert len(texts) == 3 and [task for task, text in texts.items() if not is_right(text)] == []

"""The form of the committed notebooks, and that the tool which checks it can see each fault."""

import base64
import io
import re

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from tools.notebooks import (
    FOLDER,
    SIZE_LIMIT,
    dump,
    faults,
    missing_data,
    normalise,
    shrink_pictures,
)

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
ALT = {"mystnb": {"image": {"alt": "two lines that meet"}}}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_form(path):
    assert faults(path) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_and_a_page_of_the_book_link_to_each_other(path):
    pages = set(re.findall(r"\]\(\.\./book/(\w+\.md)", path.read_text(encoding="utf-8")))
    texts = [(FOLDER.parent / "book" / page).read_text(encoding="utf-8") for page in pages]
    assert any(f"../notebooks/{path.name}" in text for text in texts), pages


EXERCISE = (
    "### Exercise 1\n\nWhat is it?\n\n"
    "<details><summary>Hint 1</summary>\n\nOne and one.\n\n</details>\n\n"
    "<details><summary>Solution 1</summary>\n\nIt is 2.\n\n</details>"
)


def picture(alt=True):
    """A code cell that shows a picture."""
    output = new_output("display_data", data={"image/png": "AAAA", "text/plain": "<Figure>"})
    return new_code_cell("plt.show()", outputs=[output], metadata=ALT if alt else {})


def good():
    """A notebook without a fault."""
    sections = ("Goal", "Break it", "Check against theory", "Exercises", "Take-away", "Next")
    cells = [new_markdown_cell("# Title")]
    for name in sections:
        cells += [new_markdown_cell(f"## {name}"), new_code_cell("print(1 + 1)")]
    cells.append(picture())
    cells.append(new_markdown_cell(EXERCISE))
    cells[11].source += "\n\n**Predict, then run.** Is it 2?"
    cells[12].metadata = {"tags": ["hide-output"]}
    nb = new_notebook(cells=cells)
    for i, cell in enumerate((c for c in nb.cells if c.cell_type == "code"), start=1):
        cell.execution_count = i
    return nb


def found(nb, tmp_path, name="01_toy.ipynb"):
    path = tmp_path / name
    path.write_text(dump(normalise(nb, path.stem.replace("_", "-"))), encoding="utf-8")
    return faults(path)


def test_good_notebook_has_no_fault(tmp_path):
    assert found(good(), tmp_path) == []


def _set(i, source):
    def change(nb):
        nb.cells[i].source = source

    return change


def _output(**fields):
    def change(nb):
        nb.cells[2].outputs = [new_output(**fields)]

    return change


def _text(text, name="stdout"):
    return _output(output_type="stream", name=name, text=text)


def _html(text):
    return _output(output_type="display_data", data={"text/html": text})


CHANGES = {
    "first cell": _set(0, "Title"),
    "exactly one title": _set(1, "# Goal"),
    "jumps from level 2 to 4": _set(13 + 1, "#### Deep\n\n<details></details>"),
    "section 'Break it' is missing": _set(3, "## Something else"),
    "15 to 30 cells are wanted, got 14": lambda nb: nb.cells.pop(2),
    "15 to 30 cells are wanted, got 31": lambda nb: nb.cells.extend(
        new_markdown_cell("more") for _ in range(16)
    ),
    "solutions folded": _set(14, "no solution"),
    "need a folded Hint each": _set(14, EXERCISE.replace("Hint 1", "Hint")),
    "need a folded Solution each": _set(14, EXERCISE.replace("Solution 1", "Solution 2")),
    "Predict, then run.**' is missing": _set(11, "## Next"),
    "behind a prediction must be folded": lambda nb: nb.cells[12].metadata.pop("tags"),
    "an exercise is solved": _text("exercise 1, times: right\n"),
    "empty line after </summary>": _set(14, "<details><summary>S</summary>\nx\n</details>"),
    "end with \\cr: the site draws no tag": _set(1, "## Goal\n\n$$a \\\\ b \\tag{1}$$"),
    "absolute path in the source": _set(2, 'open("/home/me/data.csv")'),
    "MyST or GitHub markup": _set(1, "## Goal\n\n:::{note}\nhere\n:::"),
    "that JupyterLab shows raw": _set(1, "## Goal\n\nsee {cite:t}`someone`"),
    "picture without alt text": _set(1, "## Goal\n\n![](x.png)"),
    "picture without alt text: metadata": lambda nb: nb.cells.__setitem__(13, picture(alt=False)),
    "picture without alt text in HTML": _html('<img src="x.png">'),
    "empty code cell": _set(2, " "),
    "ends in ';'": _set(2, "plt.plot([1, 2]);"),
    "error in the outputs": _output(output_type="error", ename="E", evalue="", traceback=[]),
    "stderr": _text("a warning", name="stderr"),
    "absolute path in an output": _text("File /usr/lib/python3/x.py"),
    "memory address": _text("<object at 0x7f00deadbeef>"),
    "execution counts": lambda nb: nb.cells[2].update(execution_count=7),
    "the file must be at most": _text("x" * SIZE_LIMIT),
    "cell of type 'raw'": lambda nb: nb.cells[1].update(cell_type="raw"),
}


@pytest.mark.parametrize("fault", CHANGES)
def test_every_fault_is_seen(fault, tmp_path):
    nb = good()
    CHANGES[fault](nb)
    assert any(fault in line for line in found(nb, tmp_path)), found(nb, tmp_path)


def test_urls_and_home_are_not_absolute_paths(tmp_path):
    nb = good()
    nb.cells[2].source = 'a = "https://example.org/home/x"; b = "~/.cache/dslbi"; c = 8/opt/2'
    assert found(nb, tmp_path) == []


def test_a_heading_inside_a_code_fence_is_no_heading(tmp_path):
    nb = good()
    nb.cells[1].source = "## Goal\n\n```python\n# a comment\n```"
    assert found(nb, tmp_path) == []


def test_the_tour_needs_fewer_sections(tmp_path):
    nb = good()
    nb.cells[3].source = "## Three lines"
    assert found(nb, tmp_path, "00_tour.ipynb") == []


def test_normalise_removes_what_changes_and_is_idempotent(tmp_path):
    nb = good()
    nb.metadata.language_info = {"name": "python", "version": "3.11.0"}
    nb.metadata.widgets = {"state": {}}
    nb.cells[2].metadata = {"execution": {"iopub.execute_input": "now"}, "tags": ["x"]}
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1f"}, "text/plain": "w"}
    nb.cells[2].outputs = [new_output("display_data", data=widget)]
    once = dump(normalise(nb, "01-toy"))
    again = nbformat.reads(once, as_version=4)
    assert once.endswith("}\n") and dump(normalise(again, "01-toy")) == once
    assert again.cells[2].id == "01-toy-03"
    assert again.cells[2].metadata == {"tags": ["x"]}
    assert again.cells[2].outputs[0].data == {"text/plain": "w"}
    assert set(again.metadata) == {"kernelspec", "language_info"}
    assert again.metadata.language_info == {"name": "python"}


def test_a_file_that_is_not_normalised_is_seen(tmp_path):
    path = tmp_path / "01_toy.ipynb"
    path.write_text(dump(normalise(good(), "another-slug")), encoding="utf-8")
    assert faults(path) == ["not normalised: python tools/notebooks.py run"]


def test_missing_data_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DSLBI_DATA", str(tmp_path))
    (tmp_path / "MNIST").mkdir()
    nb = normalise(new_notebook(metadata={"dslbi": {"data": ["MNIST", "cifar10"]}}), "x")
    assert missing_data(nb) == [str(tmp_path / "cifar10")]
    assert missing_data(new_notebook()) == []


def test_pictures_are_stored_in_256_colours():
    """A drawing of few colours keeps each pixel; what has a palette already stays as it is."""
    drawing = np.full((60, 80, 4), 255, dtype=np.uint8)
    drawing[10:30, 10:70, :3] = [27, 95, 196]
    drawing[40, :, :3] = 38
    buffer = io.BytesIO()
    Image.fromarray(drawing).save(buffer, "png")
    nb = good()
    nb.cells[13].outputs[0].data = {"image/png": base64.b64encode(buffer.getvalue()).decode()}
    shrink_pictures(nb)
    once = nb.cells[13].outputs[0].data["image/png"]
    image = Image.open(io.BytesIO(base64.b64decode(once)))
    assert image.mode == "P"
    np.testing.assert_array_equal(image.convert("RGB"), drawing[..., :3])
    shrink_pictures(nb)
    assert nb.cells[13].outputs[0].data["image/png"] == once

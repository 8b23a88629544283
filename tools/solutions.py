"""Try the folded solutions: ``python tools/solutions.py NOTEBOOK ...``.

Each notebook is executed with every solution behind the cell that asks for it, and the check of
that cell must say "right". Nothing is written.
"""

import re
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell

UNDONE = re.compile(
    r"^(?:[\w, ]+ = .*# your turn.*"
    r"|[\w, ]+ = None(?:, None)* *(?:#.*)?"
    r"|def .*:\n    return None.*)\n",
    re.MULTILINE,
)
SOLUTION = re.compile(r"<summary>Solution (\d+)</summary>(.*?)</details>", re.DOTALL)
CODE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def solved(nb):
    """Put the solution and the check anew behind each exercise; return their places by number."""
    cells, places = [], {}
    for above, cell in zip([None, *nb.cells], nb.cells, strict=False):
        found = SOLUTION.search(cell.source) if cell.cell_type == "markdown" else None
        if found and above.cell_type == "code":
            code = "\n".join(CODE.findall(found[2]))
            places[found[1]] = len(cells)
            cells.append(new_code_cell(code + "\n" + UNDONE.sub("", above.source + "\n")))
        cells.append(cell)
    nb.cells = cells
    return places


def verdicts(path):
    """Return for each exercise with a check what it says of the solution: a dict of texts."""
    from nbclient import NotebookClient

    nb = nbformat.read(path, as_version=4)
    places = solved(nb)
    folder = {"metadata": {"path": str(path.parent)}}
    NotebookClient(nb, timeout=300, kernel_name="python3", resources=folder).execute()
    return {
        task: "".join(output.get("text", "") for output in nb.cells[place].outputs)
        for task, place in places.items()
    }


def is_right(text):
    return "right" in text and not re.search("not yet|your turn|not quite", text)


def main():
    wrong = 0
    for path in map(Path, sys.argv[1:]):
        said = verdicts(path)
        for task, text in said.items():
            if not is_right(text):
                wrong += 1
                print(f"{path.name}, exercise {task}: {text.strip()}")
        print(f"{path.name}: {len(said)} solutions tried")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

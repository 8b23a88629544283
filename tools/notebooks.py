"""Run and check the notebooks: ``python tools/notebooks.py {run,check} [NOTEBOOK ...]``.

``run`` executes each notebook in its own folder, stores its figures in 256 colours, normalises it
and writes it back; ``check`` only reads, and lists every fault of form. Without names both take all
of ``notebooks/``.

A notebook that needs data on disk says so in its metadata, ``"dslbi": {"data": ["MNIST"]}``: the
folders it needs under $DSLBI_DATA (else ~/.cache/dslbi). Where one is missing, ``run`` and the test
of its outputs skip it and say why. The form is checked all the same.
"""

import argparse
import base64
import io
import os
import re
import sys
from pathlib import Path

import nbformat

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
SIZE_LIMIT = 600_000  # bytes of one file
CELLS = range(15, 31)
SECTIONS = ("Goal", "Break it", "Check", "Exercises", "Take-away", "Next")
TOUR_SECTIONS = ("Goal", "Exercises", "Take-away", "Next")  # the tour shows, it does not prove
PREDICT = "**Predict, then run.**"
CELL_METADATA = ("tags", "mystnb", "jupyter")
IMAGES = ("image/png", "image/jpeg", "image/svg+xml")

ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/~-])/(?:home|root|tmp|work|usr|opt|mnt|var|Users)/\w|\b[A-Z]:\\\w"
)
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}")
NOT_PORTABLE = re.compile(r"^\s*:{3,}|^\s*`{3,}\{|\{[a-z][\w:+-]*\}`|^> \[!", re.MULTILINE)
WITHOUT_ALT = re.compile(r'!\[\s*\]\(|<img(?![^>]*\balt="[^"]+")', re.IGNORECASE)


def missing_data(nb):
    """Folders that the notebook's metadata asks for and that are not there."""
    root = Path(os.environ.get("DSLBI_DATA") or "~/.cache/dslbi").expanduser()
    names = nb.metadata.get("dslbi", {}).get("data", [])
    return [str(root / name) for name in names if not (root / name).is_dir()]


def normalise(nb, slug):
    """Drop in place whatever changes from run to run or from machine to machine."""
    nb.nbformat, nb.nbformat_minor = 4, 5
    kept = {"dslbi": nb.metadata["dslbi"]} if "dslbi" in nb.metadata else {}
    nb.metadata = nbformat.from_dict(
        kept
        | {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for i, cell in enumerate(nb.cells, start=1):
        cell.id = f"{slug}-{i:02d}"
        cell.metadata = nbformat.from_dict(
            {k: v for k, v in cell.metadata.items() if k in CELL_METADATA}
        )
        cell.pop("attachments", None)
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})
            # a widget's model lives in the kernel: its id is new in every run
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    return nb


def shrink_pictures(nb):
    """Store PNG outputs in 256 colours, in place: they look the same, in a third of the bytes."""
    from PIL import Image

    for output in (o for cell in nb.cells for o in cell.get("outputs", [])):
        data = output.get("data", {})
        if "image/png" not in data:
            continue
        image, buffer = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))), io.BytesIO()
        if image.mode != "P":
            image = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
            image.save(buffer, "png", optimize=True)
            data["image/png"] = base64.b64encode(buffer.getvalue()).decode()


def dump(nb):
    """Text of the file: indented by one, one newline at the end."""
    return nbformat.writes(nb, indent=1).rstrip("\n") + "\n"


def run(path):
    """Execute one notebook, normalise it and write it back; if a cell fails nothing is written."""
    from nbclient import NotebookClient  # `check` does without a kernel

    nb = nbformat.read(path, as_version=4)
    client = NotebookClient(
        nb,
        timeout=120,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    shrink_pictures(nb)
    path.write_text(dump(normalise(nb, _slug(path))), encoding="utf-8")


def _slug(path):
    return path.stem.replace("_", "-")


def _headings(nb):
    """Level and text of every Markdown heading, code fences left out."""
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"^(`{3,}).*?^\1", "", cell.source, flags=re.MULTILINE | re.DOTALL)
            yield from ((len(m[1]), m[2]) for m in re.finditer(r"^(#+) +(.+)$", text, re.MULTILINE))


def _text_faults(nb, path):
    """Order, headings, sections and the Markdown itself."""
    headings = list(_headings(nb))
    if (
        not nb.cells
        or nb.cells[0].cell_type != "markdown"
        or not nb.cells[0].source.startswith("# ")
    ):
        yield "the first cell must be Markdown and begin with the title, '# ...'"
    if sum(level == 1 for level, _ in headings) != 1:
        yield "there must be exactly one title ('# ...')"
    for (above, _), (below, text) in zip(headings, headings[1:], strict=False):
        if below > above + 1:
            yield f"heading {text!r} jumps from level {above} to {below}"
    for section in TOUR_SECTIONS if path.stem.startswith("00") else SECTIONS:
        if not any(text.lower().startswith(section.lower()) for _, text in headings):
            yield f"section {section!r} is missing"
    if len(nb.cells) not in CELLS:
        yield f"{CELLS.start} to {CELLS.stop - 1} cells are wanted, got {len(nb.cells)}"
    text = "\n".join(c.source for c in nb.cells if c.cell_type == "markdown")
    if text.count("<details>") != text.count("</details>") or "<details>" not in text:
        yield "exercises need solutions folded in <details> ... </details>"
    if re.search(r"</summary>\n(?!\n)", text):
        yield "leave an empty line after </summary>, or its Markdown is not drawn"
    if any("\\\\" in m and "\\tag" in m for m in re.findall(r"\$\$.*?\$\$", text, re.DOTALL)):
        yield "lines of a formula with a tag end with \\cr: the site draws no tag beside \\\\"


def _exercise_faults(nb):
    """A hint and a solution of each exercise, a prediction, and no answer before an attempt."""
    text = "\n".join(c.source for c in nb.cells if c.cell_type == "markdown")
    tasks = re.findall(r"^### Exercise (\d+)$", text, re.MULTILINE)
    for fold in ("Hint", "Solution"):
        found = re.findall(rf"<summary>{fold} (\d+)</summary>", text)
        if found != tasks:
            yield f"exercises {tasks} need a folded {fold} each, in their order, got {found}"
    after = [b for a, b in zip(nb.cells, nb.cells[1:], strict=False) if PREDICT in a.source]
    if not after:
        yield f"{PREDICT!r} is missing: one question whose answer is the next cell's output"
    if any("hide-output" not in cell.metadata.get("tags", []) for cell in after):
        yield "the output behind a prediction must be folded: tag 'hide-output'"
    outputs = [o.get("text", "") for cell in nb.cells for o in cell.get("outputs", [])]
    if any(re.search(r"^exercise .*: right$", text, re.MULTILINE) for text in outputs):
        yield "an exercise is solved in the committed outputs"


def _cell_faults(cell):
    """One cell: portable source, outputs that stay the same, a description of every picture."""
    if ABSOLUTE_PATH.search(cell.source):
        yield "absolute path in the source"
    if cell.cell_type == "markdown":
        if NOT_PORTABLE.search(cell.source):
            yield "MyST or GitHub markup that JupyterLab shows raw"
        if WITHOUT_ALT.search(cell.source):
            yield "picture without alt text"
        return
    if cell.cell_type != "code":
        yield f"cell of type {cell.cell_type!r}"
        return
    if not cell.source.strip():
        yield "empty code cell"
    if cell.source.rstrip().endswith(";"):
        yield "ends in ';': end a plot with plt.show()"
    alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
    raises = "raises-exception" in cell.metadata.get("tags", [])
    for output in cell.outputs:
        data = output.get("data", {})
        text = "\n".join(
            [output.get("text", ""), data.get("text/plain", ""), *output.get("traceback", [])]
        )
        if output.output_type == "error" and not raises:
            yield f"error in the outputs: {output.ename}"
        if output.get("name") == "stderr":
            yield "something was written to stderr"
        if ABSOLUTE_PATH.search(text) and not raises:
            yield "absolute path in an output"
        if ADDRESS.search(text):
            yield "memory address in an output"
        if any(kind in data for kind in IMAGES) and not alt.strip():
            yield 'picture without alt text: metadata "mystnb": {"image": {"alt": "..."}}'
        if WITHOUT_ALT.search(data.get("text/html", "")):
            yield "picture without alt text in HTML"


def faults(path):
    """Everything that is wrong with the form of one notebook, as lines; empty if it is in order."""
    text = path.read_text(encoding="utf-8")
    nb = nbformat.reads(text, as_version=4)
    found = [*_text_faults(nb, path), *_exercise_faults(nb)]
    for i, cell in enumerate(nb.cells, start=1):
        found += [f"cell {i}: {fault}" for fault in dict.fromkeys(_cell_faults(cell))]
    counts = [cell.execution_count for cell in nb.cells if cell.cell_type == "code"]
    if counts != list(range(1, len(counts) + 1)):
        found.append("execution counts must be 1, 2, 3, ...: run it from the top")
    if len(text.encode()) > SIZE_LIMIT:
        found.append(f"the file must be at most {SIZE_LIMIT} bytes, got {len(text.encode())}")
    if dump(normalise(nbformat.reads(text, as_version=4), _slug(path))) != text:
        found.append("not normalised: python tools/notebooks.py run")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["run", "check"])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of notebooks/")
    args = parser.parse_args()
    bad = 0
    for path in args.notebooks or sorted(FOLDER.glob("*.ipynb")):
        if not path.is_file():
            sys.exit(f"notebook must be a file, got {path}")
        missing = missing_data(nbformat.read(path, as_version=4))
        if args.command == "run" and missing:
            print(f"{path.name}: skipped, needs {', '.join(missing)}")
            continue
        if args.command == "run":
            run(path)
        found = faults(path)
        bad += bool(found)
        print("\n  ".join([f"{path.name}: {'ok' if not found else ''}", *found]))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()

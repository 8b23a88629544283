"""Draw the first scene of every widget into its SVG file, by node: ``python tools/widgets.py``."""

import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dslbi_ref.figures.widget import WIDGETS, source

FOLDER = Path(__file__).resolve().parents[1] / "dslbi_ref" / "figures" / "widgets"


def main():
    node = shutil.which("node")
    if node is None:
        sys.exit("node is needed to draw the scenes of the widgets, and none was found")
    for name in WIDGETS:
        script = source(name, f"process.stdout.write(scene({name}, {{}}).svg);")
        drawn = subprocess.run([node, "-e", script], capture_output=True, text=True, check=True)
        (FOLDER / f"{name}.svg").write_text(drawn.stdout + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

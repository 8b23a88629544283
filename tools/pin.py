"""Write ``requirements-tested.txt``: the tested set, each file of it by its digest.

    python tools/pin.py

``constraints.txt`` says which versions; this says which files, and adds what torch needs on its
platform: Linux on x86_64 with Python 3.11. It must run there, with ``uv`` (``pip install uv``),
which asks the index that it is set up for. Nothing in the file names where a file came from.
"""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.tags import Tag, sys_tags
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).resolve().parents[1]
TESTED = ROOT / "requirements-tested.txt"
HEAD = """\
# The files that were tested together: Linux, x86_64, Python 3.11. By tools/pin.py; to install them:
#   pip install --require-hashes --no-deps -r requirements-tested.txt
#   pip install --no-deps --no-build-isolation -e .
"""


def locked() -> dict:
    """Return what uv finds for pyproject.toml under constraints.txt, as a lock file holds it."""
    if shutil.which("uv") is None:
        sys.exit("uv must be installed to look for digests: pip install uv")
    call = ["uv", "pip", "compile", "pyproject.toml", "--extra=all", "--extra=check"]
    call += ["--constraint=constraints.txt", f"--python={sys.executable}", "--quiet"]
    done = subprocess.run([*call, "--format=pylock.toml"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"uv found no such set: {' '.join(done.stderr.split())[:300]}")
    return tomllib.loads(done.stdout)


def pinned(package: dict, ranks: dict[Tag, int]) -> str:
    """Return the line of a package: its version, and the digest of the file that pip takes here,
    which is the wheel of the first tag, else the source."""
    fitting = []
    for wheel in package.get("wheels", ()):
        *_, tags = parse_wheel_filename(wheel["url"].rpartition("/")[2].replace("%2B", "+"))
        found = [ranks[tag] for tag in tags if tag in ranks]
        if found:
            fitting.append((min(found), wheel["hashes"]["sha256"]))
    digest = min(fitting)[1] if fitting else package["sdist"]["hashes"]["sha256"]
    return f"{package['name']}=={package['version']} --hash=sha256:{digest}\n"


def main():
    ranks = {tag: rank for rank, tag in enumerate(sys_tags())}
    lines = [pinned(package, ranks) for package in locked()["packages"]]
    TESTED.write_text(HEAD + "".join(sorted(lines)))
    print(f"{len(lines)} files in {TESTED.name}")


if __name__ == "__main__":
    main()

"""The wheel, installed with what it requires and nothing else, runs the README; what an extra
brings is named where it is missing."""

import re
import shutil
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


def required(names):
    """Distributions that those of these names require, and these, as they are installed here."""
    found, due = {}, list(names)
    while due:
        own = metadata.distribution(due.pop())
        if own.name in found:
            continue
        found[own.name] = own
        for line in own.requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                due.append(requirement.name)
    return found.values()


def run(python, *words, cwd):
    call = [str(python), *map(str, words)]
    return subprocess.run(call, cwd=cwd, capture_output=True, text=True, env={"HOME": str(cwd)})


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """The interpreter of a fresh environment with the wheel, and links to the core's packages."""
    folder = tmp_path_factory.mktemp("core")
    source = folder / "source"
    for name in ("dslbi_ref", "dslbi_torch"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    build = ("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q", "-w", folder, source)
    done = run(pip[0], *pip[1:], *build, cwd=folder)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    install = ("--python", python, "install", "--no-deps", "--no-index", "-q", wheel)
    done = run(pip[0], *pip[1:], *install, cwd=folder)
    assert done.returncode == 0, done.stderr
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    (own,) = site.glob("dslbi-*.dist-info")
    lines = metadata.PathDistribution(own).requires
    names = [Requirement(line).name for line in lines if "extra ==" not in line]
    assert sorted(names) == ["numpy", "scipy", "torch", "tqdm"]
    for other in required(names):
        for top in {Path(file).parts[0] for file in other.files if ".." not in file.parts}:
            place, link = other.locate_file(top), site / top
            if not link.exists():
                link.symlink_to(place)
    return python


def test_the_lines_of_the_readme_run_on_the_core_alone(core, tmp_path):
    (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    (tmp_path / "lines.py").write_text(lines)
    done = run(core, "-W", "error", "lines.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert float(re.search(r"tensor\(([\d.]+)\)", done.stdout)[1]) > 0.98


def test_both_packages_import_nothing_beyond_what_they_stand_on(core, tmp_path):
    code = (
        "import sys, torch, numpy; before = set(sys.modules); import {}\n"
        "new = {{name.split('.')[0] for name in set(sys.modules) - before}}\n"
        "print(*sorted(new - sys.stdlib_module_names))"
    )
    for name, allowed in (("dslbi_torch", set()), ("dslbi_ref", {"scipy"})):
        done = run(core, "-c", code.format(name), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        new = {top for top in done.stdout.split() if not top.startswith("_")}
        # packages that torch itself imports, now or when one of its modules is first used
        brought = {"torch", "numpy", "triton", "filelock"} | ({"charset_normalizer"} & new)
        assert new - brought == {name} | allowed


FEATURES = {
    "import dslbi_torch.figures": "dslbi_torch.figures needs matplotlib: .*'dslbi.figures.'",
    "import dslbi_ref.estimators": "dslbi_ref.estimators needs sklearn: .*'dslbi.estimators.'",
    "import dslbi_ref.selectors": "dslbi_ref.estimators needs sklearn: .*'dslbi.estimators.'",
    "from dslbi_ref import *; import numpy as np; X = np.eye(3); iss_path(X, X[0]).plot()": (
        "the figure of a path needs matplotlib: .*'dslbi.figures.'"
    ),
    "import torch; from dslbi_torch.surgery.saving import save_onnx; net = torch.nn.Linear(3, 2); "
    "save_onnx(net, torch.zeros(1, 3), 'net.onnx')": "ONNX needs onnxscript: .*'dslbi.export.'",
    "from dslbi_torch.training.nets import zoo; zoo.build('resnet18')": (
        "model resnet18 needs torchvision: .*'dslbi.train.'"
    ),
}


@pytest.mark.parametrize("code", FEATURES)
def test_a_feature_without_its_extra_says_what_to_install(core, tmp_path, code):
    done = run(core, "-c", code, cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert re.fullmatch(f"ImportError: {FEATURES[code]}", last), last


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ("train", "digits"),
            "dataset digits needs sklearn: pip install 'dslbi[train]'",
        ),
        (("verify",), ""),
        (("recipes",), ""),
    ],
)
def test_the_command_works_on_the_core_or_says_what_to_install(core, tmp_path, words, message):
    done = run(core, "-m", "dslbi_torch", *words, cwd=tmp_path)
    assert done.returncode == (2 if message else 0), done.stderr
    assert done.stderr.strip() == (f"dslbi {words[0]}: {message}" if message else "")

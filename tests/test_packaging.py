"""The lists of packages agree, the files name each other rightly, and the layers keep apart."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name_of(requirement):
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower().replace("_", "-").replace(".", "-")


def test_environment_is_thin_and_held_to_pyproject():
    env = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert set(env) == {"name", "channels", "dependencies"}
    assert env["name"] == PROJECT["name"]
    python, pip, rest = env["dependencies"]
    minor = int(re.fullmatch(r"python=3\.(\d+)", python)[1])
    assert PROJECT["requires-python"] == ">=3.11"
    assert minor >= 11
    assert pip == "pip"
    assert rest == {"pip": ["-e .[all]"]}
    assert "all" in PROJECT["optional-dependencies"]


def test_all_holds_every_extra_but_the_browser():
    extras = set(PROJECT["optional-dependencies"]) - {"all", "check"}  # check drives a browser
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert set(re.fullmatch(r"dslbi\[(.*)\]", everything)[1].split(",")) == extras


def test_every_requirement_is_pinned_in_constraints():
    text = (ROOT / "constraints.txt").read_text()
    pins = dict(re.findall(r"^([^=#\s]+)==(\S+)$", text, flags=re.M))
    pins = {name_of(name): version for name, version in pins.items()}
    required = list(PROJECT["dependencies"])
    for names in PROJECT["optional-dependencies"].values():
        required += [name for name in names if not name.startswith("dslbi[")]
    for requirement in required:
        name, low = requirement.split(">=")
        assert name_of(name) in pins, f"{name} has no pin"
        pinned = [int(x) for x in re.findall(r"\d+", pins[name_of(name)])]
        assert pinned >= [int(x) for x in low.split(".")], f"{name}: pin below its lower bound"


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield ("." * node.level) + (node.module or "")


@pytest.mark.parametrize("path", sorted((ROOT / "dslbi_ref").glob("*.py")), ids=lambda p: p.name)
def test_the_reference_is_numpy_and_scipy_only(path):
    for name in imports(path):
        top = name.split(".")[0]
        assert top not in ("torch", "torchvision", "dslbi_torch"), f"{path.name} imports {name}"
        if top == "sklearn":
            assert path.name in ("estimators.py", "classifiers.py", "selectors.py")


@pytest.mark.parametrize("path", sorted((ROOT / "dslbi_torch").glob("*.py")), ids=lambda p: p.name)
def test_the_library_uses_neither_the_reference_nor_its_laboratory(path):
    for name in imports(path):
        if path.name != "verify.py":
            assert not name.startswith("dslbi_ref"), f"{path.name} imports {name}"
        if path.name != "__main__.py":
            assert "training" not in name, f"{path.name} imports {name}"


def test_nothing_in_the_library_imports_what_is_for_other_trainers():
    paths = [p for p in (ROOT / "dslbi_torch").rglob("*.py") if p.parent.name != "integrations"]
    assert len(paths) > 50
    for path in paths:
        for name in imports(path):
            assert "integrations" not in name, f"{path.name} imports {name}"
            top = name.split(".")[0]
            assert top not in ("transformers", "lightning", "accelerate", "timm"), path.name


def test_make_help_names_every_target():
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, flags=re.M)[1].split()
    described = re.findall(r"^([a-z-]+):.*##", text, flags=re.M)
    assert sorted(phony) == sorted(described)
    for target in phony:
        assert re.search(rf"^{target}:", text, flags=re.M)

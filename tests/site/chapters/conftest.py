import importlib
from pathlib import Path

import pytest

EXTENSIONS = Path(__file__).resolve().parents[3] / "book" / "_ext"


@pytest.fixture
def chapter(request, monkeypatch):
    """The figures of the chapter that the test file is named after."""
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    return importlib.import_module(f"chapters.{request.path.stem.removeprefix('test_')}")

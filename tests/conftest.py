"""Shared fixtures: the tolerance table, where the real data lie, and the GPU mark."""

import os
from pathlib import Path

import numpy as np
import pytest

# Between the packages on one device. A looser number in a test carries its measured error.
TOLERANCE = {"float64": 1e-12, "float32": 5e-5, "float64-gpu": 1e-10}


@pytest.fixture
def close():
    """``close(a, b, dtype="float64")``: equal within the table, relative to the largest of b."""

    def check(a, b, dtype="float64"):
        tol = TOLERANCE[dtype]
        b = np.asarray(b)
        scale = max(1.0, np.abs(b).max(initial=0.0))
        np.testing.assert_allclose(np.asarray(a), b, rtol=tol, atol=tol * scale)

    return check


@pytest.fixture(scope="session")
def data_root():
    """Folder of the real data sets; a test that asks for it skips where there is none."""
    root = os.environ.get("DSLBI_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("needs the real data sets: set DSLBI_DATA to their folder")
    return Path(root)


def pytest_collection_modifyitems(items):
    # Notebooks and files with a slow test first, the many small ones of the reference last: then
    # no process ends long after the others.
    slow = {item.path for item in items if "slow" in item.keywords or item.path.suffix == ".ipynb"}
    items.sort(key=lambda item: (item.path not in slow, item.nodeid.startswith("tests/ref")))
    marked = [item for item in items if "gpu" in item.keywords]
    if not marked:
        return  # and torch, which takes seconds to import, stays out of the reference's tests
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))

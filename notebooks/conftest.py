"""Skips a notebook whose data are not on this machine (the hook sees only ``pytest --nbval``)."""

import pytest

from tools.notebooks import missing_data


def pytest_collection_modifyitems(items):
    for item in items:
        missing = missing_data(item.parent.nb) if hasattr(item.parent, "nb") else []
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(missing)}"))

"""What the modules for other trainers say where the package is not installed."""

import sys
from importlib import import_module

import pytest


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("huggingface", "transformers", "huggingface"),
        ("lightning", "lightning", "lightning"),
        ("accelerate", "accelerate", "huggingface"),
    ],
)
def test_an_absent_package_is_an_import_error_of_one_line(monkeypatch, name, package, extra):
    for module in [m for m in sys.modules if m.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"dslbi_torch.integrations.{name}", raising=False)
    with pytest.raises(
        ImportError, match=rf"^a .* needs {package}.*: pip install 'dslbi\[{extra}\]'$"
    ):
        import_module(f"dslbi_torch.integrations.{name}")

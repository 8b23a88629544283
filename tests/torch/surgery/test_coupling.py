"""What is said where the dependency graph is missing, or does not follow a net."""

import sys

import pytest
import torch
from torch import nn

from dslbi_torch import DessiLBI, compact, split_groups, widen_
from dslbi_torch.surgery.saving import save_onnx


def make_net():
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))


def test_a_missing_package_is_an_import_error_that_says_what_to_install(monkeypatch, tmp_path):
    net, x = make_net(), torch.randn(2, 4)
    optimizer = DessiLBI(split_groups(net), lr=0.1)
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(
        ImportError, match="^widening needs torch_pruning: pip install 'dslbi.surgery.'$"
    ):
        widen_(net, optimizer, {"0": 1}, x)
    compact(net, None, x)  # which follows a net by itself
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match="^ONNX needs onnxscript: pip install 'dslbi.export.'$"):
        save_onnx(net, x, tmp_path / "net.onnx")


class Branch(nn.Module):
    """Fails for an input of which nothing is known."""

    def __init__(self):
        super().__init__()
        self.net = make_net()

    def forward(self, x):
        if x.isnan().any():
            raise RuntimeError("only of numbers")
        return self.net(x)


def test_the_cause_of_what_cannot_be_followed_is_kept():
    with pytest.raises(ValueError, match="cannot follow this model: only of numbers") as caught:
        compact(Branch(), None, torch.randn(2, 4))
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(ValueError, match="must take example_input") as caught:
        compact(make_net().half(), None, torch.randn(2, 3).half())
    assert isinstance(caught.value.__cause__, RuntimeError)

"""A net in eight bits: its outputs, its size, its accuracy."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dslbi_torch import save_int8
from dslbi_torch.surgery.costs import count_macs
from dslbi_torch.surgery.saving import save_onnx

ROOT = Path(__file__).resolve().parents[3]
onnxruntime = pytest.importorskip("onnxruntime")


def run(file, x):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"input": x.numpy()})[0])


def test_what_the_book_says_of_a_smaller_net(tmp_path, monkeypatch):
    """Its code is run: half of the multiplications, and eight bits with the accuracy that it
    names."""
    page = (ROOT / "book" / "smaller_nets.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    found, x, data = (names[key] for key in ("found", "x", "data"))
    macs = [count_macs(net, x)[""] for net in (found.model, names["model"])]
    assert macs[0] / macs[1] == pytest.approx(0.5, abs=0.04)  # a filter of 16
    save_onnx(found.folded, x, "float.onnx")
    assert 2 * Path("small.onnx").stat().st_size < Path("float.onnx").stat().st_size
    inputs, labels = next(iter(data.test.batches(1000)))
    right = [
        float((outputs.argmax(1) == labels).float().mean())
        for outputs in (found.folded(inputs), run("small.onnx", inputs))
    ]
    assert right[0] > 0.8 and abs(right[1] - right[0]) < 0.03


def test_linear_layers_are_one_call_of_torchao(recwarn):
    quantization = pytest.importorskip("torchao.quantization")
    torch.manual_seed(0)
    net, x = (
        nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).eval(),
        torch.randn(8, 64),
    )
    y = net(x).detach()
    quantization.quantize_(net, quantization.Int8DynamicActivationInt8WeightConfig())
    z = net(x).detach()
    assert 0 < (y - z).norm() < 0.05 * y.norm()


def test_weights_take_a_byte_each_and_outputs_are_close(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(64, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 5)
    )
    x = torch.randn(32, 64)
    save_int8(net.eval(), x, [x, (x, None)], tmp_path / "int8.onnx")
    weights = sum(p.numel() for p in net.parameters() if p.ndim > 1)
    assert weights < (tmp_path / "int8.onnx").stat().st_size < 1.2 * weights
    y, z = net(x).detach(), run(tmp_path / "int8.onnx", x)
    assert (y - z).norm() < 0.05 * y.norm()
    assert not np.array_equal(y.numpy(), z.numpy())


def test_batches_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path):
    net, x = nn.Sequential(nn.Linear(4, 3)).eval(), torch.randn(2, 4)
    for batches, message in (
        ([], "batches must hold at least one batch, got none"),
        ([torch.randn(2, 5)], r"must take the batches of shape \(2, 5\) in ONNX Runtime, but: "),
    ):
        with pytest.raises(ValueError, match=message):
            save_int8(net, x, batches, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())

"""The benchmark on a GPU, tried on the CPU, and the script around it, which says what it does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from dslbi_torch import DessiLBI

ROOT = Path(__file__).parents[2]


def test_bytes_of_a_step_are_those_of_its_tensors():
    """SGD reads weight, gradient and momentum and writes two of them; V is read and written too."""
    weight, bias = (torch.nn.Parameter(torch.ones(shape)) for shape in ((5, 4), (5,)))
    split = [{"params": [weight], "penalty": "l1"}, {"params": [bias], "penalty": None}]
    for optimizer, expected in (
        (torch.optim.SGD([weight, bias], lr=0.1, momentum=0.9), 4 * 5 * 25),
        (DessiLBI(split, lr=0.1, nu=1.0, momentum=0.9), 4 * (7 * 20 + 5 * 5)),
    ):
        weight.grad, bias.grad = torch.ones(5, 4), torch.ones(5)
        optimizer.step()
        assert gpu.least_bytes(optimizer) == expected


def test_the_copy_counts_what_is_read_and_what_is_written(monkeypatch):
    monkeypatch.setattr(gpu, "timed", lambda act, device, rounds: [act() is None or 0.5] * rounds)
    assert gpu.copy_rate(torch.device("cpu"), 1000) == 2 * 1000 / 0.5


def shell(tmp_path, *words, **environment):
    own = {"PYTHON": sys.executable, "DSLBI_DATA": str(tmp_path / "data"), **environment}
    return subprocess.run(
        ["sh", str(ROOT / "tools" / "gpu.sh"), *words, "--out", str(tmp_path / "out")],
        capture_output=True, text=True, env={**os.environ, **own},
    )  # fmt: skip


def test_a_dry_run_says_what_would_be_done_and_tries_the_benchmark(tmp_path):
    (tmp_path / "data" / "cifar-10-batches-bin").mkdir(parents=True)
    done = shell(tmp_path, "--dry", "--minutes", "9")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("tests, at most 200 s: ") and " -m gpu tests" in lines[0]
    assert lines[1].startswith("steps, at most 120 s: ")
    assert "DessiLBI foreach" in done.stdout and "digits, dessilbi: " in done.stdout
    assert lines[-2].startswith("table3-resnet56, at most 5")  # of nine minutes
    assert lines[-1].startswith("table3-vgg16, at most 5")
    found = json.loads((tmp_path / "out" / "dry.json").read_text())
    assert found["dry"] and found["steps"]["SGD fused"]["ratio"] == 1
    assert all(row["copy_share"] > 0 for row in found["steps"].values())
    assert set(found["training"]) >= {"sgd", "dessilbi", "ratio"}


@pytest.mark.parametrize(
    "words, message",
    [
        (["--fast"], "gpu.sh takes --minutes, --out and --dry, got --fast\n"),
        (["--minutes", "many"], "minutes must be a whole number of at least 1, got many\n"),
        (["--minutes", "0"], "minutes must be a whole number of at least 1, got 0\n"),
    ],
)
def test_what_is_refused(tmp_path, words, message):
    done = shell(tmp_path, *words)
    assert (done.returncode, done.stderr) == (2, message)


@pytest.mark.parametrize("flag", ["--minutes", "--out"])
def test_a_flag_without_its_value_is_refused(flag):
    script = ["sh", str(ROOT / "tools" / "gpu.sh"), "--dry", flag]
    done = subprocess.run(script, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"{flag} needs a value, got none\n")


@pytest.mark.parametrize("name", ["rounds", "steps"])
def test_nothing_to_measure_is_refused(capsys, name):
    assert gpu.main(["--dry", f"--{name}=0"]) == 2
    assert capsys.readouterr().err == f"{name} must be at least 1, got 0\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path, capsys):
    done = shell(tmp_path)
    assert done.returncode == 2
    assert done.stderr == "gpu.sh needs a GPU; --dry says what it would do\n"
    assert gpu.main([]) == 2
    assert capsys.readouterr().err == "gpu needs a GPU; --dry tries the script without one\n"

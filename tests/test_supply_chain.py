"""What is installed, and what is asked of the network: nothing but the data sets one asked for."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What torch pins itself, and constraints.txt leaves to it.
PLATFORM = re.compile(r"cuda-|nvidia-|triton$")


def name_of(word):
    return re.sub(r"[-_.]+", "-", word).lower()


def pins(file):
    lines = [line for line in (ROOT / file).read_text().splitlines() if line[0] != "#"]
    words = [line.partition(" ")[0].split("==") for line in lines]
    return {name_of(name): version for name, version in words}


def test_the_files_that_were_tested_are_of_the_versions_that_were():
    tested = pins("requirements-tested.txt")
    assert {n: v for n, v in tested.items() if not PLATFORM.match(n)} == pins("constraints.txt")
    assert {"torch", "triton", "numpy", "pytest"} <= tested.keys()


def test_every_file_that_was_tested_has_a_digest_and_no_address():
    text = (ROOT / "requirements-tested.txt").read_text()
    lines = [line for line in text.splitlines() if line[0] != "#"]
    assert len(lines) > 150 and "://" not in text
    for line in lines:
        assert re.fullmatch(r"[\w.-]+==[\w.+!]+ --hash=sha256:[0-9a-f]{64}", line), line


# The hook sees what Python code asks of the network, whoever asks; what it is asked, it refuses.
GUARDED = """
import socket, sys

def refuse(event, args):
    asks = event in ("socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")
    if event == "socket.connect":
        asks = args[0].family in (socket.AF_INET, socket.AF_INET6)
    if asks:
        print("asked the network:", event, flush=True)
        raise OSError("the network is closed")

sys.addaudithook(refuse)
"""
OFFLINE = """
import numpy as np
import dslbi_ref, dslbi_torch
from dslbi_torch.__main__ import main

X = np.random.default_rng(0).standard_normal((20, 5))
dslbi_ref.iss_path(X, X[:, 0]), dslbi_ref.lbi_path(X, X[:, 0], kappa=10)
out = sys.argv[1]
small = ["--epochs=1", "--train-size=200", "--device=cpu", "--threads=1", f"--out={out}"]
statuses = [main(["train", "digits", "--nu=5", "--lam-conv=0.2", "--lam-linear=0.02", *small])]
statuses += [main(["evaluate", out, "--device=cpu"])]
statuses += [main(["prune", out, "--density=0.8", "--per-layer", "--device=cpu"])]
statuses += [main(["compact", out, "--device=cpu"]), main(["path", out]), main(["recipes"])]
print("statuses", statuses)
"""
ASKED = """
from dslbi_torch.__main__ import main

data = ["--dataset=cifar10", "--model=resnet20", f"--data={sys.argv[1]}"]
print("status", main(["train", "digits", *data, f"--out={sys.argv[1]}/run"]))
"""


def run_guarded(program, folder):
    call = [sys.executable, "-c", GUARDED + program, str(folder)]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.slow
def test_nothing_asks_the_network_at_run_time(tmp_path):
    out, _ = run_guarded(OFFLINE, tmp_path / "run")
    assert "statuses [0, 0, 0, 0, 0, 0]" in out and "asked the network" not in out


@pytest.mark.slow
def test_a_data_set_that_was_asked_for_is_fetched_or_said_to_be_missing(tmp_path):
    """That the hook above sees what is asked."""
    out, err = run_guarded(ASKED, tmp_path)
    assert "asked the network" in out and "status 2" in out
    assert "cifar10: " in err and "the download failed" in err


def test_an_archive_is_checked_by_its_digest(tmp_path, monkeypatch, capsys):
    """Whatever comes from the network in place of the official archive is refused."""
    from torchvision.datasets import utils

    from dslbi_torch import __main__ as cli

    def other(url, filename, *_, **__):
        Path(filename).write_bytes(b"something else")

    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, **_: url)
    monkeypatch.setattr(utils, "_urlretrieve", other)
    for name, model in (("cifar10", "resnet20"), ("mnist", "lenet5"), ("imagenette", "resnet18")):
        words = [f"--dataset={name}", f"--model={model}", f"--data={tmp_path / name}"]
        assert cli.main(["train", "digits", *words, f"--out={tmp_path / 'run'}"]) == 2
        err = capsys.readouterr().err
        assert re.search(r"the download failed \(.*(not found or corrupted|Error downloading)", err)
        assert not (tmp_path / "run").exists()

"""SIGTERM and checkpoints within an epoch; several processes equal one."""

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import free_port, together
from recorded import flat
from stopping import stop_after

from dslbi_torch.training import recipes
from dslbi_torch.training.run import checkpoint as checkpoints
from dslbi_torch.training.run import loop, report, train
from dslbi_torch.training.run import processes as group
from dslbi_torch.training.run import run_folder as folders
from dslbi_torch.training.run.contexts import Terminated
from dslbi_torch.training.run.evaluate import evaluate
from dslbi_torch.training.run.set_up import open_run, set_up

ROOT = Path(__file__).parents[4]

# Two epochs of 12 steps, in float64, in which some filters and weights enter.
TINY = dict(
    epochs=2, batch_size=128, lr=0.1, nu=5.0, lam_conv=0.3, lam_linear=0.05, threads=1,
    device="cpu", seed=1, record_every=5, dtype="float64", shift=1, elements=True,
)  # fmt: skip
STEPS = 12


def tiny(out, **changes):
    digits = recipes.recipe("digits").config
    return dataclasses.replace(digits, **{**TINY, **changes}, out=str(out))


def checkpoint(folder):
    return torch.load(Path(folder) / "checkpoint.pt", weights_only=True)


def assert_same(a, b, where="checkpoint", tol=0.0):
    """Equal, through dicts and lists: tensors and numbers to ``tol``."""
    if isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}", tol)
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}.{i}", tol)
    elif isinstance(a, torch.Tensor):
        torch.testing.assert_close(a, b, rtol=tol, atol=tol, msg=where)
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=tol, abs=tol), where
    else:
        assert a == b, where


def assert_same_run(folder, reference, tol=0.0, parts=None):
    """Checkpoint, log and path of two runs, but for times, the folder and the processes."""
    a, b = checkpoint(folder), checkpoint(reference)
    for c in (a, b):
        for key in ("config", "seconds", "world") + (("rng",) if tol else ()):
            c.pop(key)
        c["log"] = [{k: v for k, v in r.items() if k not in _TIMES} for r in c["log"]]
    for key in parts or a:
        assert_same(a[key], b[key], key, tol)
    a, b = flat(report.read_path(folder)), flat(report.read_path(reference))
    assert sorted(a) == sorted(b)
    for key in a:
        np.testing.assert_allclose(a[key], b[key], rtol=max(tol, 1e-6), atol=1e-6, err_msg=key)


_TIMES = ("time_s", "pictures_s")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """``whole(**changes)``: folder of the uninterrupted run, which is trained once."""
    runs = {}

    def trained(**changes):
        key = str(changes)
        if key not in runs:
            runs[key] = tmp_path_factory.mktemp("whole")
            train.train(tiny(runs[key], **changes), progress=False)
        return runs[key]

    return trained


# Within an epoch


EVERYTHING = dict(ema=0.9, target=0.3, schedule="cosine", warmup=0.3, accumulate=2)


@pytest.mark.parametrize("count", [1, 5, STEPS, STEPS + 7])
@pytest.mark.parametrize(
    "changes", [{}, EVERYTHING, dict(amp="fp16", dtype="float32"), dict(optimizer="adamw")], ids=str
)
def test_terminated_and_resumed_is_uninterrupted(whole, tmp_path, monkeypatch, count, changes):
    if "optimizer" in changes:
        changes = {**changes, "split": True, "lr": 0.01}
    with monkeypatch.context() as patch:
        stop_after(patch, count)
        with pytest.raises(Terminated, match=f"stopped after step {count} of {2 * STEPS} with"):
            train.train(tiny(tmp_path / "a", **changes), progress=False)
    saved = checkpoint(tmp_path / "a")
    done = saved["epoch"] * STEPS + saved["batch"]
    assert done == count
    assert not list((tmp_path / "a").glob(".*")), "no temporary file is left"
    torch.manual_seed(999)  # whatever happened in between
    train.train(tiny(tmp_path / "a", **changes), resume=True, progress=False)
    assert_same_run(tmp_path / "a", whole(**changes))
    sessions = json.loads((tmp_path / "a" / "environment.json").read_text())["sessions"]
    assert [s["from_step"] for s in sessions] == [0, count]


@pytest.mark.parametrize("epoch", [1, 2])
def test_terminated_in_an_evaluation_loses_no_step(alone, tmp_path, monkeypatch, epoch):
    """It is broken off, also in the last epoch; a resumed run does nothing else but evaluate."""
    evaluate, calls = train.log_row, []

    def signalled(*args, **options):
        calls.append(None)
        if len(calls) == 1 + epoch:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(train, "log_row", signalled)
        with pytest.raises(Terminated, match=f"stopped after step {epoch * STEPS} of"):
            train.train(tiny(tmp_path / "a"), progress=False)
    saved = checkpoint(tmp_path / "a")
    assert (saved["epoch"], saved["batch"], len(saved["log"])) == (epoch - 1, STEPS, epoch)
    steps, step = [], loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda *args: steps.append(None) or step(*args))
    shared, share = [], train.share_statistics
    monkeypatch.setattr(
        train, "share_statistics", lambda run: shared.append(run.step) or share(run)
    )
    train.train(tiny(tmp_path / "a"), progress=False)
    assert len(steps) == (2 - epoch) * STEPS
    assert shared == [2 * STEPS][epoch - 1 :], "what is saved there is a mean already"
    assert_same_run(tmp_path / "a", alone)


def test_sigterm_is_given_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    train.train(tiny(tmp_path, epochs=1), progress=False)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_terminated_command_has_status_143(tmp_path):
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in TINY.items() if k != "elements"]
    command = [sys.executable, "-m", "dslbi_torch", "train", "digits", *flags, "--epochs=200"]
    command += ["--checkpoint-steps=3", f"--out={tmp_path / 'run'}"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if (tmp_path / "run" / "checkpoint.pt").exists() or process.poll() is not None:
            break
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            pass
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert err.startswith("dslbi train: stopped after step ") and err.count("\n") == 1
    assert err.endswith("; the same command resumes the run\n")


def test_checkpoints_within_an_epoch(alone, tmp_path, monkeypatch):
    """A kill after step 8 loses what came after step 6."""
    step, calls = loop.train_step, []

    def killed(*args):
        calls.append(None)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train.train(tiny(tmp_path / "a", checkpoint_steps=3), progress=False)
    assert (checkpoint(tmp_path / "a")["epoch"], checkpoint(tmp_path / "a")["batch"]) == (0, 6)
    opened = open_run(tmp_path / "a", device="cpu")
    assert opened.recorder.step == 6 and opened.at.batch == 6
    train.train(tiny(tmp_path / "a", checkpoint_steps=3), progress=False)
    assert_same_run(tmp_path / "a", alone)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    """A device that is always full in place of the temporary file: torch raises RuntimeError."""
    run = train.train(tiny(tmp_path / "a", epochs=1), progress=False)
    before = (tmp_path / "a" / "checkpoint.pt").read_bytes()
    atomic = folders.atomic
    run.at.batch = 3
    run.at.losses, run.at.order = torch.zeros(STEPS), run.generator.get_state()

    def full(path):
        return nullcontext("/dev/full") if path.suffix == ".pt" else atomic(path)

    monkeypatch.setattr(checkpoints.folders, "atomic", full)
    with pytest.raises(OSError, match="checkpoint of step 15 was not written: .*is the one before"):
        checkpoints.save(run)
    assert (tmp_path / "a" / "checkpoint.pt").read_bytes() == before
    usage = shutil.disk_usage(tmp_path)._replace(free=123)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"\(the disk is full: 123 bytes are free, a checkpoint has"):
        checkpoints.save(run)


# Several processes


def flags_of(out, *flags):
    """What follows ``dslbi train`` or ``dslbi sweep``, which is refused nu beside nus."""
    swept = any(flag.startswith("--nus") for flag in flags)
    left = {"elements", "nu"} if swept else {"elements"}
    own = [f"--{k.replace('_', '-')}={v}" for k, v in TINY.items() if k not in left]
    return ["digits", *own, "--elements", f"--out={out}", *flags]


def two(out, *flags, program=None, status=0, command="train"):
    """``train digits`` by two processes that end with ``status``; returns what they print."""
    folder = Path(out).with_suffix(".streams")
    found, *texts = together(folder, [command, *flags_of(out, *flags)], program)
    assert found == [status, status], texts[1][-3000:]
    return texts


@pytest.fixture(scope="module")
def alone(whole):
    return whole()


# SIGTERM reaches the first process alone in its fifteenth step, and the other hears of it.
STOPPED = """
import os, signal, sys
from dslbi_torch.__main__ import main
from dslbi_torch.training.run import loop

step, calls = loop.train_step, []

def signalled(*args):
    calls.append(None)
    if len(calls) == 15 and os.environ["RANK"] == "0":
        os.kill(os.getpid(), signal.SIGTERM)
    return step(*args)

loop.train_step = signalled
sys.exit(main())
"""


@pytest.mark.parametrize("flags", [[], ["--shard"]], ids=str)
def test_two_processes_equal_one_on_the_same_batches(alone, tmp_path, flags):
    """Also stopped in the middle of an epoch, resumed, and read by one process."""
    folder, program = tmp_path / "run", tmp_path / "stopped.py"
    program.write_text(STOPPED)
    _, err = two(folder, *flags, program=program, status=143)
    assert err.count("dslbi train: stopped after step 22 of 24 with a checkpoint in") == 2
    assert (checkpoint(folder)["epoch"], checkpoint(folder)["batch"]) == (1, 10)
    config = folders.read_config(folder)
    with pytest.raises(ValueError, match="of 2 processes, and goes on with as many only"):
        train.train(config, progress=False)
    out, _ = two(folder, *flags, "--resume")
    assert out.count("run folder:") == 1, "the first process speaks, and no other"

    again, reference = (open_run(f, device="cpu") for f in (folder, alone))
    assert_same(dict(again.model.state_dict()), dict(reference.model.state_dict()), tol=1e-12)
    for p, q in zip(again.model.parameters(), reference.model.parameters(), strict=True):
        assert_same(again.optimizer.state[p], reference.optimizer.state[q], tol=1e-12)
    parts = ["log", "recorder", "scheduler", "batches", "epoch", "batch"]
    assert_same_run(folder, alone, tol=1e-9, parts=parts)
    assert len(checkpoint(folder)["rng"]) == 2
    assert json.loads((folder / "environment.json").read_text())["processes"] == 2


@pytest.mark.parametrize("flags", [["--ema=0.9"], ["--shard"]], ids=str)
def test_normalisations_of_two_processes_are_those_of_the_checkpoint(tmp_path, flags):
    """Each has statistics of its own pictures: at the end of an epoch all have their mean."""
    few = ["--model=resnet20", "--train-size=256", "--batch-size=64", "--epochs=1"]
    _, err = two(tmp_path / "run", *few, *flags)
    assert "Warning" not in err
    assert_same(*checkpoint(tmp_path / "run")["statistics"], tol=0)
    run = open_run(tmp_path / "run", device="cpu")
    reached, last = evaluate(run), folders.read_log(tmp_path / "run")[-1]
    assert {name: row["accuracy"] for name, row in reached.items()} == {
        name: last[f"acc_{name}"] for name in reached
    }


# Two trainings in one command: how often the processes meet, and who loads the data when.
COUNTED = """
import os, sys, time
import torch.distributed as dist
from dslbi_torch.__main__ import main
from dslbi_torch.training.run import set_up

meet, load, met = dist.init_process_group, set_up._load, []

def counted(*args, **options):
    met.append(None)
    return meet(*args, **options)

def slow(*args):
    begun = time.time()
    time.sleep(0.5 if os.environ["RANK"] == "0" else 0)
    print(f"loaded by {os.environ['RANK']} from {begun} to {time.time()}", flush=True)
    return load(*args)

dist.init_process_group, set_up._load = counted, slow
status = main()
print(f"met {len(met)}", flush=True)
sys.exit(status)
"""


def test_two_processes_sweep(tmp_path):
    """They meet once for all trainings; the first one loads before the other, and speaks alone."""
    (tmp_path / "counted.py").write_text(COUNTED)
    few = ["--train-size=256", "--epochs=1", "--nus=2,5"]
    program = tmp_path / "counted.py"
    out, _ = two(tmp_path / "runs", *few, program=program, command="sweep")
    assert out.count("met 1\n") == 2
    assert out.count("run folders:") == out.count("Best test accuracy %") == 1
    assert (tmp_path / "runs" / "tables.txt").exists()
    spans = [line.split()[2::2] for line in out.splitlines() if line.startswith("loaded by")]
    first, second = ([float(t) for t in span[1:]] for span in sorted(spans)[:: len(spans) // 2])
    assert len(spans) == 4 and first[1] <= second[0]


def test_a_mistake_of_several_processes_is_a_line_of_each(alone):
    """Here and nowhere else torchrun itself starts them: it takes seconds."""
    before = (alone / "checkpoint.pt").read_bytes()
    call = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    # Without the "--" torchrun would take --nu for an abbreviation of an option of its own.
    call += [f"--master-port={free_port()}", "-m", "dslbi_torch", "--", "train", *flags_of(alone)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(call, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr[-3000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("dslbi train:")]
    assert len(lines) == 2 and all("holds a finished run" in line for line in lines)
    assert (alone / "checkpoint.pt").read_bytes() == before


def test_an_address_in_use_is_one_line(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for key, value in dict(
            RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
        ).items():
            monkeypatch.setenv(key, value)
        with pytest.raises(ValueError, match=rf"2 processes must meet at 127.0.0.1:{port}, but: "):
            with group.joined("cpu"):
                pass


def test_too_few_pictures_for_the_processes(monkeypatch):
    monkeypatch.setattr(group.Processes, "in_turn", lambda self, make: make())  # there is one here
    config = tiny("x", batch_size=1436)
    with pytest.raises(ValueError, match="batch_size must leave at least one picture for each of"):
        set_up(config, group.Processes(0, 2, torch.device("cpu")))

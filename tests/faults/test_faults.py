"""Faults on purpose: a full disk, a read-only folder, a killed or a second writer, a clock that
jumps, a lost file, too little memory, a lost process. Each is one line, and nothing is lost."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from faulty import (
    Command,
    ending,
    jumping_clock,
    killed_writer,
    little_memory,
    small_files,
    wait_for,
)
from forked import free_port
from PIL import Image

from dslbi_torch import __main__ as cli
from dslbi_torch.training.run import loop
from dslbi_torch.training.run import run_folder as folders

ROOT = Path(__file__).parents[2]
RUN = [
    *("train", "digits", "--epochs=3", "--train-size=256", "--batch-size=32", "--target=0.3"),
    *("--record-every=2", "--threads=1", "--device=cpu"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the run ends with where nothing befalls it; the folder, and that."""
    folder = tmp_path_factory.mktemp("whole")
    out = folder / "run"
    assert Command(folder, [*RUN, f"--out={out}"]).wait()[0] == 0
    return out, ending(out)


def one_line(text):
    lines = [line for line in text.splitlines() if line.startswith("dslbi ")]
    assert len(lines) == 1 and "Traceback" not in text, text
    return lines[0]


def test_a_clock_that_jumps_changes_nothing(whole, tmp_path):
    out = tmp_path / "run"
    assert Command(tmp_path, [*RUN, f"--out={out}"], jumping_clock, 86_400).wait()[0] == 0
    assert ending(out) == whole[1]
    times = [row["time_s"] for row in folders.read_log(out)]
    assert times == sorted(times) and times[-1] < 3_600


@pytest.mark.parametrize("count", [1, 4, 6, 9, 13])
def test_a_killed_writer_loses_nothing(whole, tmp_path, count):
    """Killed between the writing of a file and its name: what was written of it goes."""
    out = tmp_path / "run"
    status, _ = Command(tmp_path, [*RUN, f"--out={out}"], killed_writer, count).wait()
    assert status == -signal.SIGKILL and list(out.glob(".*.tmp*"))
    assert Command(tmp_path, [*RUN, f"--out={out}"]).wait()[0] == 0
    assert ending(out) == whole[1] and not list(out.glob(".*.tmp*"))


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(whole, tmp_path):
    size = (whole[0] / "checkpoint-0002.pt").stat().st_size
    out = tmp_path / "run"
    status, err = Command(tmp_path, [*RUN, f"--out={out}"], small_files, size - 1_000).wait()
    assert status == 2
    assert "the checkpoint of step " in one_line(err) and "was not written" in one_line(err)
    assert not list(out.glob(".*.tmp*"))
    assert Command(tmp_path, [*RUN, f"--out={out}"]).wait()[0] == 0
    assert ending(out) == whole[1]


@pytest.fixture
def disk(tmp_path):
    """A small disk of our own, which only root can have; what mounts it again with options."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options):
        call = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        return subprocess.run(call, capture_output=True).returncode == 0

    if os.geteuid() != 0 or not mount("size=96k"):
        pytest.skip("needs root that may mount a tmpfs")
    yield place, mount
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_really_full_is_said(whole, disk, tmp_path):
    place, mount = disk
    out = place / "run"
    status, err = Command(tmp_path, [*RUN, f"--out={out}"]).wait()
    assert status == 2 and "the disk is full: " in one_line(err)
    assert mount("remount,size=8m")
    assert Command(tmp_path, [*RUN, f"--out={out}"]).wait()[0] == 0
    assert ending(out) == whole[1]


def test_a_disk_that_is_read_only_is_one_line(disk, tmp_path):
    """Root included, who may write into any folder."""
    place, mount = disk
    assert mount("remount,ro")
    status, err = Command(tmp_path, [*RUN, f"--out={place / 'run'}"]).wait()
    assert status == 2 and "Read-only file system" in one_line(err)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into any folder")
def test_a_folder_that_may_not_be_written_is_one_line(tmp_path):
    tmp_path.chmod(0o555)
    assert cli.main([*RUN, f"--out={tmp_path / 'run'}"]) == 2
    tmp_path.chmod(0o755)


def test_a_second_writer_is_refused_and_the_first_goes_on(whole, tmp_path):
    out = tmp_path / "run"
    first = Command(tmp_path, [*RUN, f"--out={out}"])
    wait_for((out / "checkpoint.pt").exists)
    first.signal(signal.SIGSTOP)
    try:
        status, err = Command(tmp_path, [*RUN, f"--out={out}"]).wait()
    finally:
        first.signal(signal.SIGCONT)
    assert status == 2 and "must have one run at a time" in one_line(err)
    assert first.wait()[0] == 0 and ending(out) == whole[1]


def test_too_little_memory_is_one_line(tmp_path):
    words = ["--dataset=synthetic", "--model=resnet18", "--batch-size=64", "--n-classes=10"]
    for size, more in ((3000, 2**29), (64, 2**29)):  # the data do not fit; a batch does not
        argv = [*RUN, *words, f"--train-size={size}", f"--out={tmp_path / 'run'}"]
        status, err = Command(tmp_path, argv, little_memory, more).wait()
        assert status == 2, err
        assert "batch_size must fit the memory of cpu, got 64: lower it" in one_line(err)


def pictures(root):
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 2)):
        for label in ("a", "b"):
            folder = root / "imagenet" / part / label
            folder.mkdir(parents=True)
            for k in range(count):
                x = rng.integers(256, size=(20, 20, 3), dtype=np.uint8)
                Image.fromarray(x).save(folder / f"{k:02d}.png")


def test_a_file_that_is_lost_in_mid_epoch_is_one_line(tmp_path, monkeypatch, capsys):
    """The last checkpoint stands; once the file is there again, the run goes on from it."""
    monkeypatch.setenv("HOME", str(tmp_path))  # where the list of files is kept
    pictures(tmp_path / "data")
    words = ["--dataset=imagenet", "--model=resnet20", "--image-size=16", "--batch-size=4"]
    call = [*RUN, *words, f"--data={tmp_path / 'data'}", "--train-size=0", "--epochs=2"]
    assert cli.main([*call, f"--out={tmp_path / 'whole'}"]) == 0
    step, steps = loop.train_step, []

    def lost(*args):
        steps.append(None)
        if len(steps) == 9:  # the third of the second epoch's six
            (tmp_path / "data").rename(tmp_path / "gone")
        return step(*args)

    monkeypatch.setattr(loop, "train_step", lost)
    out = tmp_path / "run"
    capsys.readouterr()
    assert cli.main([*call, f"--out={out}"]) == 2
    assert "cannot be read (No such file or directory)" in one_line(capsys.readouterr().err)
    assert folders.read_log(out)[-1]["epoch"] == 1
    (tmp_path / "gone").rename(tmp_path / "data")
    assert cli.main([*call, f"--out={out}"]) == 0
    assert ending(out) == ending(tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_process_of_several_ends_all_of_them(tmp_path):
    """torchrun itself starts them here: it takes seconds."""
    out = tmp_path / "run"
    call = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    call += [f"--master-port={free_port()}", "-m", "dslbi_torch", "--", *RUN]
    call += ["--epochs=2000", f"--out={out}"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    started = subprocess.Popen(call, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)
    try:
        wait_for(lambda: (out / "checkpoint-0001.pt").exists() or started.poll() is not None)
        children = psutil.Process(started.pid).children()
        (second,) = [c for c in children if c.environ().get("RANK") == "1"]
        second.kill()
        _, err = started.communicate(timeout=120)
    finally:
        started.kill()
    assert started.returncode == 1
    (line,) = [line for line in err.splitlines() if line.startswith("dslbi ")]
    assert "all 2 processes must stay until the end, but one has ended (" in line
    assert err.count("Traceback") == 1 and "ChildFailedError" in err, "torchrun's own alone"
    assert not [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]
    before = folders.read_log(out)[-1]["epoch"]
    config = folders.read_config(out)
    assert folders.read_checkpoint(out, config)["epoch"] >= before - 1
    shutil.rmtree(out)

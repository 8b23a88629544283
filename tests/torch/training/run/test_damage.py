"""Damaged files of a run: each is refused in one line, and nothing comes of a flipped bit."""

import dataclasses
import json
import resource
import struct
import zipfile

import numpy as np
import pytest
import torch

from dslbi_torch import RecordedPath, save_masks
from dslbi_torch import __main__ as cli
from dslbi_torch.safe_files import write_tensors
from dslbi_torch.training import recipes
from dslbi_torch.training.run import run_folder as folders
from dslbi_torch.training.run import sessions, train
from dslbi_torch.training.run.set_up import open_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a"
    small = dict(epochs=2, batch_size=128, threads=1, device="cpu", train_size=256, keep=2)
    config = dataclasses.replace(recipes.recipe("digits").config, out=str(folder), **small)
    train.train(config, progress=False)
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of the run, to damage."""
    for path in trained.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def flip_a_bit(file, part):
    """Flip one bit in the middle of a part of an archive."""
    with zipfile.ZipFile(file) as archive:
        info = next(i for i in archive.infolist() if i.filename.endswith(part))
    content = bytearray(file.read_bytes())
    start = info.header_offset + 30  # what is fixed, then the name and what else there is
    start += sum(struct.unpack("<HH", content[start - 4 : start]))
    content[start + info.compress_size // 2] ^= 1 << 6
    file.write_bytes(content)


def refused(capsys, *argv):
    """The one line of a command that ends with status 2."""
    status = cli.main(list(map(str, argv)))
    err = capsys.readouterr().err
    assert status == 2 and err.count("\n") == 1, err
    return err


def largest_part(file):
    with zipfile.ZipFile(file) as archive:
        return max(archive.infolist(), key=lambda i: i.file_size).filename


def test_a_flipped_bit_of_a_checkpoint_is_refused_and_the_one_before_named(capsys, folder):
    flip_a_bit(folder / "checkpoint.pt", largest_part(folder / "checkpoint.pt"))
    (folder / "checkpoint-0002.pt").unlink()  # where files are links, it is the same one
    err = refused(capsys, "evaluate", folder, "--device=cpu")
    assert "is damaged" in err and "checkpoint-0001.pt is whole" in err
    assert open_run(folder, device="cpu", epoch=1).at.epoch == 1
    with pytest.raises(ValueError, match="is damaged"):
        folders.read_weights(folder / "checkpoint.pt")


def test_a_flipped_bit_of_a_record_is_refused(capsys, folder):
    flip_a_bit(folder / "path.npz", largest_part(folder / "path.npz"))
    assert "path.npz must be a recorded path" in refused(capsys, "path", folder)


@pytest.mark.parametrize("row", ["[]", "null", "3", "{}", '{"epoch": 1}', "\xff"])
def test_a_row_of_the_log_of_another_form_is_refused(capsys, folder, row):
    with open(folder / "log.jsonl", "a", encoding="latin-1") as file:
        file.write(row + "\n")
    assert "log.jsonl must hold " in refused(capsys, "path", folder)


@pytest.mark.parametrize("file", ["log.jsonl", "environment.json"])
def test_a_digit_that_is_not_what_was_written_is_refused(folder, file):
    text = (folder / file).read_text()
    key = '"acc_dense": 0.' if file == "log.jsonl" else '"threads": '
    before = text.index(key) + len(key)
    other = str((int(text[before]) + 1) % 10)
    (folder / file).write_text(text[:before] + other + text[before + 1 :])
    read = folders.read_log if file == "log.jsonl" else sessions.read_sessions
    with pytest.raises(ValueError, match=f"{file} .* what its checksum [0-9a-f]{{8}} says, got"):
        read(folder)


@pytest.mark.parametrize("file", ["log.jsonl", "environment.json"])
def test_every_bit_of_a_text_is_refused_or_changes_nothing(folder, file):
    read = folders.read_log if file == "log.jsonl" else sessions.read_sessions
    if file == "log.jsonl":
        folders.write_log(folder, read(folder)[:1])  # a row has it all
    content, whole, refusals = (folder / file).read_bytes(), read(folder), 0
    for at in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[at // 8] ^= 1 << at % 8
        (folder / file).write_bytes(damaged)
        try:
            assert read(folder) == whole, at
        except ValueError:
            refusals += 1
    assert refusals > 4 * len(content)


@pytest.mark.parametrize("layers", [None, {}, 3])
def test_a_log_without_the_tensors_of_the_path_is_refused(capsys, folder, layers):
    rows = folders.read_log(folder)
    rows[1]["layers"] = layers
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "must hold one run" in refused(capsys, "path", folder)


def arrays_of(folder):
    with np.load(folder / "path.npz") as archive:
        return dict(archive)


@pytest.mark.parametrize(
    "key",
    ["steps", "times", "nonzero/conv1.weight", "entry/conv1.weight"]
    + ["gamma_norm/conv1.weight", "weight_norm/conv1.weight"],
)
def test_a_record_without_one_of_its_parts_is_refused(capsys, folder, key):
    arrays = arrays_of(folder)
    short = {**arrays, key: arrays[key][:-1]}
    arrays.pop(key)
    for damaged in (arrays, short):
        np.savez(folder / "path.npz", **damaged)
        assert "path.npz must be a recorded path, but: it has " in refused(capsys, "path", folder)


def test_a_record_of_which_the_directory_loses_parts_is_refused(folder):
    file = folder / "path.npz"
    content = bytearray(file.read_bytes())
    content[content.index(b"PK\1\2") + 33] ^= 1 << 7  # the comment of the first part: 32 kB
    file.write_bytes(content)
    with pytest.raises(ValueError, match="its directory is damaged"):
        RecordedPath.load(file)


def test_another_archive_is_no_record(folder):
    np.savez(folder / "path.npz", steps=np.arange(2), times=np.zeros(2), x=np.zeros(3))
    with pytest.raises(ValueError, match="must be a recorded path, but: it has no nonzero"):
        RecordedPath.load(folder / "path.npz")


def test_a_record_without_snapshots_is_no_record(folder):
    empty = {k: x if k.startswith("entry/") else x[:0] for k, x in arrays_of(folder).items()}
    np.savez(folder / "path.npz", **empty)
    with pytest.raises(
        ValueError, match="path.npz must be a recorded path, but: it has no snapshot"
    ):
        RecordedPath.load(folder / "path.npz")


@pytest.fixture
def small_disk():
    """No file can grow beyond 64 kB: torch's writer raises RuntimeError, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, small_disk):
    with pytest.raises(OSError, match="masks.pt was not written, as on a full disk"):
        save_masks({"a": torch.ones(1 << 20, dtype=bool)}, tmp_path / "masks.pt")
    with pytest.raises(OSError, match="x.pt was not written"):
        write_tensors({"x": torch.ones(1 << 20)}, tmp_path / "x.pt", "numbers")
    assert list(tmp_path.iterdir()) == []

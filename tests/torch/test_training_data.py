"""Data sets: what is loaded, in what order, and what a bad data folder is told."""

import gzip

import numpy as np
import pytest
import torch
import vectors

from dslbi_torch.training import data as datasets


def rows(x):
    """Pictures as sorted tuples: for comparing sets of pictures."""
    return sorted(map(tuple, x.flatten(1).tolist()))


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_digits_are_all_there_with_their_labels():
    from sklearn.datasets import load_digits

    digits = load_digits()
    data = datasets.load("digits", normalize=False)
    assert data.train_x.shape == (1437, 1, 8, 8) and data.test_x.shape == (360, 1, 8, 8)
    everything = torch.tensor(digits.images / 16, dtype=torch.float32)
    assert rows(torch.cat([data.train_x, data.test_x])) == rows(everything)
    labels = torch.cat([data.train_y, data.test_y])
    torch.testing.assert_close(labels.bincount(), torch.tensor(digits.target).bincount())
    pairs = {
        tuple(x): y for x, y in zip(everything.flatten(1).tolist(), digits.target, strict=True)
    }
    for x, y in ((data.train_x, data.train_y), (data.test_x, data.test_y)):
        assert [pairs[tuple(p)] for p in x.flatten(1).tolist()] == y.tolist()
    assert (data.train_x.min(), data.train_x.max()) == (0, 1)
    assert data.train_y.dtype == torch.int64 and data.classes == tuple("0123456789")


def test_the_part_taken_out_is_fixed():
    (kept, _), (out, _) = datasets._take_out(np.arange(100), np.arange(100), 20)
    # Another stream of NumPy's generator would move every accuracy that the project states.
    expected = [5, 8, 9, 10, 11, 13, 16, 20, 27, 36, 37, 52, 72, 75, 81, 82, 83, 90, 93, 94]
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, out])), np.arange(100))


@pytest.mark.parametrize("holdout", [1, 137, 1436])
def test_holdout_comes_from_the_training_set_only(holdout):
    whole = datasets.load("digits")
    held = datasets.load("digits", holdout=holdout)
    assert len(held.test_x) == holdout and len(held.train_x) == 1437 - holdout
    assert rows(torch.cat([held.train_x, held.test_x])) == rows(whole.train_x)
    again = datasets.load("digits", holdout=holdout)
    torch.testing.assert_close(again.test_x, held.test_x, rtol=0, atol=0)


def test_normalize_states_the_statistics_of_the_training_set():
    x = datasets.load("digits", normalize=False, dtype=torch.float64).train_x
    mean, std = datasets.STATISTICS["digits"]
    assert (round(x.mean().item(), 4), round(x.std(correction=0).item(), 4)) == (mean, std)
    normalized = datasets.load("digits", dtype=torch.float64).train_x
    torch.testing.assert_close(normalized, (x - mean) / std)


@pytest.mark.parametrize("holdout", [-1, 1437, 5000])
def test_impossible_holdout(holdout):
    with pytest.raises(ValueError, match=f"holdout must be .* 1437 .*, got {holdout}"):
        datasets.load("digits", holdout=holdout)


def test_unknown_name():
    with pytest.raises(ValueError, match="dataset must be one of .*, got 'imagenet'"):
        datasets.load("imagenet")


def test_batches_cover_the_set_once_in_an_order_of_the_generator_alone():
    x = torch.arange(103)
    first = [list(b.tolist()) for b, _ in datasets.batches(x, x, 10, generator(0))]
    assert [len(b) for b in first] == [10] * 10 + [3]
    flat = sum(first, [])
    assert sorted(flat) == list(range(103)) and flat != sorted(flat)
    torch.manual_seed(99)  # the global generator has no say
    assert [b.tolist() for b, _ in datasets.batches(x, x, 10, generator(0))] == first
    assert [b.tolist() for b, _ in datasets.batches(x, x, 10, generator(1))] != first


def test_batches_keep_labels_with_pictures_and_go_on_from_a_saved_state():
    x = torch.arange(50)
    g = generator(3)
    for xs, ys in datasets.batches(x, -x, 7, g):
        torch.testing.assert_close(xs, -ys)
    state = g.get_state()
    second = [b.tolist() for b, _ in datasets.batches(x, x, 7, g)]
    third = [b.tolist() for b, _ in datasets.batches(x, x, 7, g)]
    h = generator(0)
    h.set_state(state)
    assert [b.tolist() for b, _ in datasets.batches(x, x, 7, h)] == second != third


def test_data_root(monkeypatch):
    monkeypatch.setenv("DSLBI_DATA", "/env")
    assert str(datasets.data_root("/arg")) == "/arg"
    assert str(datasets.data_root()) == "/env"
    monkeypatch.delenv("DSLBI_DATA")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(datasets.data_root()) == "/home/someone/.cache/dslbi"


@pytest.fixture
def raw(tmp_path):
    """A folder that holds all four files of MNIST, none of them right."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in datasets._IDX_SETS["mnist"][2]:
        (raw / file).write_bytes(b"")
    return raw


FIRST = "train-images-idx3-ubyte"


def test_truncated_file(raw, tmp_path):
    (raw / FIRST).write_bytes(bytes(1000))
    with pytest.raises(
        ValueError, match=rf"{FIRST} must hold the official file .* got 1000 bytes .*"
    ):
        datasets.load("mnist", tmp_path)
    assert (raw / FIRST).stat().st_size == 1000


def test_wrong_checksum_of_the_right_size(raw, tmp_path):
    with open(raw / FIRST, "wb") as file:
        file.truncate(16 + 60_000 * 784)
    with pytest.raises(ValueError, match="got 47040016 bytes of MD5 .* delete it and run again"):
        datasets.load("mnist", tmp_path)


def test_truncated_archive(raw, tmp_path):
    (raw / FIRST).unlink()
    (raw / f"{FIRST}.gz").write_bytes(gzip.compress(bytes(range(256)) * 99)[:-9])
    with pytest.raises(ValueError, match=rf"{FIRST}.gz is truncated or damaged"):
        datasets.load("mnist", tmp_path)
    (raw / f"{FIRST}.gz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=rf"{FIRST}.gz is truncated or damaged"):
        datasets.load("mnist", tmp_path)


@pytest.mark.parametrize("name, folder", [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_missing_and_no_network(tmp_path, monkeypatch, name, folder):
    import torchvision

    # Nothing listens on this port, so the download is refused at once, with or without a network.
    monkeypatch.setattr(getattr(torchvision.datasets, folder), "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(FileNotFoundError) as error:
        datasets.load(name, tmp_path)
    message = str(error.value)
    assert "\n" not in message
    for part in (
        FIRST,
        str(tmp_path / folder / "raw"),
        "download failed",
        "--data ROOT",
        "DSLBI_DATA",
    ):
        assert part in message


def test_root_that_cannot_be_written(tmp_path):
    (tmp_path / "MNIST").write_text("a file where a folder should be")
    with pytest.raises(FileNotFoundError, match="not found in .* and the download failed"):
        datasets.load("mnist", tmp_path)


@pytest.mark.data
@pytest.mark.parametrize("name, folder", [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_real_pictures_equal_torchvision_and_their_archives(data_root, tmp_path, name, folder):
    import torchvision

    data = datasets.load(name, data_root, normalize=False)
    assert len(data.train_x) == 60_000 and len(data.test_x) == 10_000
    for part, x, y in (
        (True, data.train_x, data.train_y),
        (False, data.test_x, data.test_y),
    ):
        official = getattr(torchvision.datasets, folder)(data_root, train=part)
        torch.testing.assert_close(x[:, 0], official.data / 255)
        torch.testing.assert_close(y, official.targets)
    mean, std = datasets.STATISTICS[name]
    assert data.train_x.mean().item() == pytest.approx(mean, abs=6e-5)
    assert data.train_x.std().item() == pytest.approx(std, abs=6e-5)

    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    for archive in (data_root / folder / "raw").glob("*.gz"):
        (raw / archive.name).symlink_to(archive)
    packed = datasets.load(name, tmp_path, normalize=False)
    torch.testing.assert_close(packed.train_x, data.train_x, rtol=0, atol=0)
    torch.testing.assert_close(packed.test_y, data.test_y, rtol=0, atol=0)
    assert not list(raw.glob("*-ubyte")), "an archive is read, not unpacked"


def test_shifted_batches_hold_every_picture_moved_by_a_few_pixels():
    """Each moved picture is found again in the padded original, at one of the allowed places."""
    x = torch.tensor(vectors.array((12, 1, 6, 5)))
    y = torch.arange(12)
    moved = list(datasets.batches(x, y, 5, generator(0), shift=2))
    assert [len(ys) for _, ys in moved] == [5, 5, 2]
    assert sorted(torch.cat([ys for _, ys in moved]).tolist()) == list(range(12))
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), value=x.min().item())
    places = set()
    for xs, ys in moved:
        for picture, k in zip(xs, ys, strict=True):
            found = [
                (i, j)
                for i in range(5)
                for j in range(5)
                if padded[k, :, i : i + 6, j : j + 5].equal(picture)
            ]
            assert len(found) == 1
            places.update(found)
    assert len(places) > 6  # they do not all move alike
    again = datasets.batches(x, y, 5, generator(0), shift=2)
    for (xs, _), (other, _) in zip(moved, again, strict=True):
        torch.testing.assert_close(xs, other, rtol=0, atol=0)

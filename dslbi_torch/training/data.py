"""Data sets, as tensors that live on the device.

=================  ==========================  ===============  ===================================
name               pictures                    training + test  where it comes from
=================  ==========================  ===============  ===================================
``digits``         8x8 grey, 10 digits         1,437 + 360      ships with scikit-learn
``mnist``          28x28 grey, 10 digits       60,000 + 10,000  ``ROOT/MNIST/raw``
``fashion-mnist``  28x28 grey, 10 garments     60,000 + 10,000  ``ROOT/FashionMNIST/raw``
=================  ==========================  ===============  ===================================

``ROOT`` is the ``data`` of the call, else ``$DSLBI_DATA``, else ``~/.cache/dslbi``. The files of
the two MNISTs may lie there unpacked or as ``.gz``; each is checked against the MD5 of the official
one.
"""

import gzip
import hashlib
import os
import socket
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

# Mean and standard deviation over all pixels of the training pictures, pixel values in [0, 1].
STATISTICS = {
    "digits": (0.3049, 0.3759),
    "mnist": (0.1307, 0.3081),
    "fashion-mnist": (0.2860, 0.3530),
}
DATASETS = tuple(STATISTICS)

_DIGITS = tuple("0123456789")
_GARMENTS = (
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "boot"),
)
# Folder, class of torchvision, names of the classes, and the MD5 of each unpacked official file.
_IDX_SETS = {
    "mnist": (
        "MNIST",
        _DIGITS,
        {
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
    ),
    "fashion-mnist": (
        "FashionMNIST",
        _GARMENTS,
        {
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
    ),
}


class Data(NamedTuple):
    """Pictures (n, channels, height, width) and integer labels (n,), on one device.

    ``test`` is the official test set, or the held-out part of the training set if ``holdout`` was
    asked.
    """

    name: str
    train_x: torch.Tensor
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor
    classes: tuple[str, ...]


def load(
    name: str,
    data: str | Path | None = None,
    *,
    normalize: bool = True,
    holdout: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Data:
    """A data set by name, on the device.

    Parameters
    ----------
    name : one of ``DATASETS``
    data : folder of the data sets; None: ``$DSLBI_DATA``, else ``~/.cache/dslbi``
    normalize : bool
        True: subtract the mean and divide by the standard deviation in ``STATISTICS``. False: pixel
        values in [0, 1].
    holdout : int >= 0
        Number of training pictures, the same for every seed, that are taken out of the training
        set and returned in place of the test set: for choosing settings.

    Raises
    ------
    FileNotFoundError
        The files are absent and could not be downloaded.
    ValueError
        Unknown name, impossible holdout, or a file that is not the official one.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {name!r}")
    if name == "digits":
        (train_x, train_y), (test_x, test_y), scale = *_digits(), 16
        classes = _DIGITS
    else:
        folder, classes, checksums = _IDX_SETS[name]
        raw = data_root(data) / folder / "raw"
        _fetch(name, folder, raw, checksums)
        files = {file: _read(raw, file, md5) for file, md5 in checksums.items()}
        train_x, train_y = _pictures(files, "train")
        test_x, test_y = _pictures(files, "t10k")
        scale = 255
    if not 0 <= holdout < len(train_x):
        raise ValueError(
            f"holdout must be at least 0 and below the {len(train_x)} training pictures of {name}, "
            f"got {holdout}"
        )
    if holdout:
        (train_x, train_y), (test_x, test_y) = _take_out(train_x, train_y, holdout)

    mean, std = STATISTICS[name] if normalize else (0.0, 1.0)

    def pictures(x):
        return torch.tensor(x, dtype=dtype, device=device).div_(scale).sub_(mean).div_(std)

    def labels(y):
        return torch.tensor(y, dtype=torch.int64, device=device)

    return Data(name, pictures(train_x), labels(train_y), pictures(test_x), labels(test_y), classes)


def batches(x, y, batch_size, generator, *, shift=0):
    """One epoch of batches in an order drawn from ``generator`` (on the CPU).

    With ``shift`` every picture is moved by up to that many pixels along each axis, what comes in
    at the edge being as dark as the darkest pixel of the set. All that is random is drawn when the
    first batch is asked for, and depends on the generator's state alone. The last batch may be
    smaller.
    """
    order = torch.randperm(len(x), generator=generator)
    if not shift:
        for chosen in order.to(x.device).split(batch_size):
            yield x[chosen], y[chosen]
        return
    offsets = torch.randint(2 * shift + 1, (len(x), 2), generator=generator).to(x.device)
    dark = x.min().item()
    for chosen, offset in zip(
        order.to(x.device).split(batch_size), offsets.split(batch_size), strict=True
    ):
        yield _moved(x[chosen], offset, shift, dark), y[chosen]


def _moved(x, offset, shift, dark):
    """Each picture of ``x`` moved by its ``offset - shift`` (rows, columns), one gather in all."""
    n, _, height, width = x.shape
    padded = torch.nn.functional.pad(x, (shift,) * 4, value=dark)
    rows = offset[:, :1] + torch.arange(height, device=x.device)
    columns = offset[:, 1:] + torch.arange(width, device=x.device)
    which = torch.arange(n, device=x.device)[:, None, None]
    return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def data_root(data: str | Path | None = None) -> Path:
    """The folder of the data sets: the argument, else ``$DSLBI_DATA``, else ``~/.cache/dslbi``."""
    return Path(data or os.environ.get("DSLBI_DATA") or "~/.cache/dslbi").expanduser()


def _digits():
    """scikit-learn's digits, pixel values 0 to 16: training part, and one fifth for the test."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return _take_out(digits.images[:, None], digits.target, 360)


def _take_out(x, y, count):
    """Split off ``count`` examples by one fixed shuffle, the same for every seed of a run.

    Not every k-th one: MNIST alternates two populations of writers, so an even stride takes one.
    """
    out = np.zeros(len(x), dtype=bool)
    out[np.random.default_rng(0).permutation(len(x))[:count]] = True
    return (x[~out], y[~out]), (x[out], y[out])


def _fetch(name, folder, raw, checksums):
    """Let torchvision download what is absent below ``raw``; one line says so where that fails."""

    def present(file):
        return (raw / file).exists() or (raw / f"{file}.gz").exists()

    missing = [file for file in checksums if not present(file)]
    if not missing:
        return
    # Imported here only: it takes longer than loading the data, and a complete folder needs no
    # download.
    import torchvision

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # seconds without an answer
    try:
        getattr(torchvision.datasets, folder)(raw.parent.parent, download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise FileNotFoundError(
            f"{name}: {', '.join(missing)} not found in {raw}, and the download failed ({reason}). "
            'Get them on a machine with network access by `python -c "import torchvision; '
            f"torchvision.datasets.{folder}('ROOT', download=True)\"`, then pass --data ROOT or "
            "set DSLBI_DATA=ROOT"
        ) from None
    finally:
        socket.setdefaulttimeout(timeout)


def _read(raw, file, md5):
    """The bytes of an IDX file, unpacked if need be, that match the official MD5."""
    path = raw / file
    if not path.exists():
        path = raw / f"{file}.gz"
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is truncated or damaged ({error}): {_AGAIN}") from None
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise ValueError(
            f"{path} must hold the official file of MD5 {md5}, got {len(content)} bytes of MD5 "
            f"{found} (truncated or another file): {_AGAIN}"
        )
    return content


_AGAIN = "delete it and run again to download it"


def _pictures(files, part):
    """Arrays (n, 1, 28, 28) and (n,) of the verified files: uint8 after a header."""
    x = np.frombuffer(files[f"{part}-images-idx3-ubyte"], np.uint8, offset=16).reshape(
        -1, 1, 28, 28
    )
    return x, np.frombuffer(files[f"{part}-labels-idx1-ubyte"], np.uint8, offset=8)

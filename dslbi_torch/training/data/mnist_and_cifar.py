"""The small data sets as their official files hold them: arrays of unsigned bytes, and classes.

What is checked of the files: the MNISTs' bytes against the MD5 of the
official ones; of CIFAR's binary version the sizes of the files, and that each class has as many
pictures as in the official set (no checksum: copies of the test batch circulate in which single
pictures went through a JPEG); of its Python version torchvision checks the MD5.
"""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np

from .sources import Parts, Wanted, torchvision_sets

DIGITS = tuple("0123456789")
CLASSES = {
    "mnist": DIGITS,
    "fashion-mnist": (
        *("T-shirt", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "boot"),
    ),
    "cifar10": (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
    "cifar100": tuple(
        """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
        butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
        crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
        keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
        mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain
        plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
        television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman
        worm""".split()
    ),
}

_PARTS = {"train": True}, {"train": False}  # of torchvision's classes

# Class of torchvision and folder, and the MD5 of each unpacked official file.
_IDX_SETS = {
    "mnist": (
        "MNIST",
        {
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
    ),
    "fashion-mnist": (
        "FashionMNIST",
        {
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
    ),
}
# Class of torchvision, folder of the binary version, its training and test files, and the bytes
# before the pixels of a picture; the last of them is the class.
_CIFAR_SETS = {
    "cifar10": (
        "CIFAR10",
        "cifar-10-batches-bin",
        tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
        ("test_batch.bin",),
        1,
    ),
    "cifar100": ("CIFAR100", "cifar-100-binary", ("train.bin",), ("test.bin",), 2),
}


def mnist(name: str, root: Path, _: Wanted) -> Parts:
    """Return ``mnist`` or ``fashion-mnist``, from ``root/MNIST/raw`` or
    ``root/FashionMNIST/raw``."""
    folder, checksums = _IDX_SETS[name]
    raw = root / folder / "raw"
    missing = [
        file for file in checksums if not ((raw / file).exists() or (raw / f"{file}.gz").exists())
    ]
    if missing:
        torchvision_sets(name, folder, root, f"{', '.join(missing)} not found in {raw}", *_PARTS)
    files = {file: _idx_file(raw, file, md5) for file, md5 in checksums.items()}
    return Parts(_idx_arrays(files, "train"), _idx_arrays(files, "t10k"), CLASSES[name])


def _idx_file(raw, file, md5):
    """The bytes of an IDX file, unpacked if need be, that match the official MD5."""
    path = raw / file
    if not path.exists():
        path = raw / f"{file}.gz"
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is truncated or damaged ({error}): {_AGAIN}") from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise ValueError(
            f"{path} must hold the official file of MD5 {md5}, got {len(content)} bytes of MD5 "
            f"{found} (truncated or another file): {_AGAIN}"
        )
    return content


_AGAIN = "delete it and run again to download it"


def _idx_arrays(files, part):
    """Arrays (n, 1, 28, 28) and (n,) of the verified files: uint8 after a header.

    torchvision's ``read_image_file`` would do the same less safely: it asserts where a file is
    damaged, reads no ``.gz``, and takes seconds to import, which complete files can do without.
    """
    x = np.frombuffer(files[f"{part}-images-idx3-ubyte"], np.uint8, offset=16)
    y = np.frombuffer(files[f"{part}-labels-idx1-ubyte"], np.uint8, offset=8)
    return x.reshape(-1, 1, 28, 28), y


def cifar(name: str, root: Path, _: Wanted) -> Parts:
    """Return ``cifar10`` or ``cifar100``: the binary version below ``root``, else torchvision's."""
    torchvision_name, folder, train, test, header = _CIFAR_SETS[name]
    folder = root / folder
    files = [folder / file for file in (*train, *test)]
    missing = [file.name for file in files if not file.exists()]
    if not missing:
        sizes = [50_000 // len(train)] * len(train) + [10_000]
        parts = [_binary_file(*pair, header) for pair in zip(files, sizes, strict=True)]
        rows = np.concatenate(parts[:-1]), parts[-1]
        for row, where in zip(rows, (train, test), strict=True):
            _check_classes(row[:, header - 1], len(CLASSES[name]), folder, where)
        parts = ((row[:, header:].reshape(-1, 3, 32, 32), row[:, header - 1]) for row in rows)
        return Parts(*parts, CLASSES[name])
    missing = f"{', '.join(missing)} not found in {folder}"
    sets = torchvision_sets(name, torchvision_name, root, missing, *_PARTS)
    parts = ((part.data.transpose(0, 3, 1, 2), np.array(part.targets)) for part in sets)
    return Parts(*parts, CLASSES[name])


def _binary_file(path, pictures, header):
    """Rows of a binary file: ``header`` bytes of classes, 3,072 of pixels in R, G, B planes."""
    row = header + 3 * 32 * 32
    content = np.fromfile(path, np.uint8)
    if content.size != pictures * row:
        raise ValueError(
            f"{path} must hold {pictures * row} bytes ({pictures} pictures of {row}), got "
            f"{content.size} (truncated or another file)"
        )
    return content.reshape(pictures, row)


def _check_classes(y, n_classes, folder, files):
    counts = np.bincount(y, minlength=n_classes)
    each = len(y) // n_classes
    if len(counts) > n_classes or (counts != each).any():
        raise ValueError(
            f"{', '.join(files)} in {folder} must hold {each} pictures of each of {n_classes} "
            f"classes, got {counts.min()} to {counts.max()} (damaged or another file)"
        )

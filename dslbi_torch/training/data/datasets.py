"""Data sets by name: what they hold, how they are normalised and divided.

==================  ======================  ===============  ======================================
name                pictures                training + test  where it comes from
==================  ======================  ===============  ======================================
``digits``          8x8, 10 digits          1,437 + 360      ships with scikit-learn
``mnist``           28x28, 10 digits        60,000 + 10,000  ``ROOT/MNIST/raw``
``fashion-mnist``   28x28, 10 garments      60,000 + 10,000  ``ROOT/FashionMNIST/raw``
``cifar10``         32x32x3, 10 classes     50,000 + 10,000  ``ROOT/cifar-10-batches-bin``, ``-py``
``cifar100``        32x32x3, 100 classes    50,000 + 10,000  ``ROOT/cifar-100-binary``, ``-python``
``imagenette``      size x size x 3, 10     9,469 + 3,925    ``ROOT/imagenette``, as ImageNet
``imagenette-144``  same, 128 or less       same             ``ROOT/imagenette-144``, small files
``imagenet``        size x size x 3, any    as in ROOT       ``ROOT/imagenet/{train,val}/CLASS/*``
``synthetic``       noise, 1,000 classes    1,024 + 256      drawn here, for timing
==================  ======================  ===============  ======================================

``ROOT`` is the ``data`` of the call, else ``$DSLBI_DATA``, else ``~/.cache/dslbi``. What is absent
there is downloaded through torchvision, but for ImageNet, which cannot be. The files of the two
MNISTs may lie there unpacked or as ``.gz``; those of CIFAR in the official binary version
(preferred) or the Python version. What is checked of them: ``mnist_and_cifar.py``. ``imagenet`` is
any data set with one folder for each class; ROOT may also be that data set, or a single part of it
for training and test: ``class_folders.py``. The pictures of Imagenette and ``imagenet`` stay files
and are decoded in every epoch; all others are tensors on the device.

Normalisation subtracts the mean and divides by the standard deviation of each channel over all
pixels of the training pictures, with pixel values in [0, 1]:

==================  ======================  ======================
name                mean                    standard deviation
==================  ======================  ======================
``digits``          0.3049                  0.3759
``mnist``           0.1307                  0.3081
``fashion-mnist``   0.2860                  0.3530
``cifar10``         0.4914, 0.4822, 0.4465  0.2470, 0.2435, 0.2616
``cifar100``        0.5071, 0.4865, 0.4409  0.2673, 0.2564, 0.2762
``imagenette``      as ImageNet             as ImageNet
``imagenette-144``  as ImageNet             as ImageNet
``imagenet``        0.485, 0.456, 0.406     0.229, 0.224, 0.225
==================  ======================  ======================

ImageNet's are the customary numbers; its deviation is the mean of those within single pictures.
With ``statistics="half"`` they are 127/255 and 128/255 for all, as nets are trained that come from
TensorFlow: EfficientNet-Lite0 loses nine points of its accuracy under ImageNet's.
A data set is one row of ``DATASETS``, and nothing else lists them.

The usual augmentation of CIFAR is ``shift=4, flip=True``; of ImageNet random crops, which its
training pictures always get, and ``flip=True``.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ...optional import brought_by
from .class_folders import find
from .in_memory import PicturesInMemory
from .mnist_and_cifar import DIGITS, cifar, mnist
from .on_disk import PicturesOnDisk
from .sources import Parts, Wanted


def _digits(root, _):
    with brought_by("train", "dataset digits"):
        from sklearn.datasets import load_digits

    found = load_digits()
    x, y = found.images[:, None], found.target
    kept, out = _take_out(len(y), 360)  # one fifth for the test
    return Parts((x[kept], y[kept]), (x[out], y[out]), DIGITS)


def _synthetic(root, wanted):
    """Noise of mean 0 and variance 1 with classes by chance: n training and 256 test pictures."""
    n, size = (wanted.train_size or 1024) + wanted.holdout, wanted.image_size or 224
    n_classes = wanted.n_classes or 1000
    rng = np.random.default_rng(0)
    parts = [
        (rng.standard_normal((k, 3, size, size), np.float32), rng.integers(n_classes, size=k))
        for k in (n, 256)
    ]
    return Parts(*parts, tuple(str(k) for k in range(n_classes)))


class DatasetRow(NamedTuple):
    """How a data set is read, and how its pixels are normalised."""

    load: Callable[[Path, Wanted], Parts]  # of the root
    mean: tuple[float, ...]  # of each channel, with pixel values in [0, 1]
    std: tuple[float, ...]
    white: int = 255  # the pixel value that is 1
    any_size: bool = False  # whether ``image_size`` is free
    n_classes: int = 0  # that it must have; 0: as it comes


_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DATASETS = {
    "digits": DatasetRow(_digits, (0.3049,), (0.3759,), white=16),
    "mnist": DatasetRow(partial(mnist, "mnist"), (0.1307,), (0.3081,)),
    "fashion-mnist": DatasetRow(partial(mnist, "fashion-mnist"), (0.2860,), (0.3530,)),
    "cifar10": DatasetRow(
        partial(cifar, "cifar10"), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    ),
    "cifar100": DatasetRow(
        partial(cifar, "cifar100"), (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    ),
    "imagenette": DatasetRow(partial(find, "imagenette"), *_IMAGENET, any_size=True, n_classes=10),
    "imagenette-144": DatasetRow(
        partial(find, "imagenette-144"), *_IMAGENET, any_size=True, n_classes=10
    ),
    "imagenet": DatasetRow(partial(find, "imagenet"), *_IMAGENET, any_size=True),
    "synthetic": DatasetRow(_synthetic, (0.0,) * 3, (1.0,) * 3, white=1, any_size=True),
}
STATISTICS = ("own", "half")  # what pixels are normalised by


class Data(NamedTuple):
    """A data set in two parts, each with ``len()``, ``batches()`` and ``skipped``.

    ``test`` is the official test set, or the held-out part of the training set if ``holdout`` was
    asked. ``shape`` is (channels, height, width) of a picture as the net sees it.
    """

    name: str
    train: PicturesInMemory | PicturesOnDisk
    test: PicturesInMemory | PicturesOnDisk
    classes: tuple[str, ...]
    shape: tuple[int, int, int]

    def example(self, size: int = 2) -> torch.Tensor:
        """Return the first pictures of the test set."""
        return next(iter(self.test.batches(size)))[0]


def load(
    name: str,
    data: str | Path | None = None,
    *,
    normalize: bool = True,
    statistics: str = "own",
    holdout: int = 0,
    train_size: int = 0,
    shift: int = 0,
    flip: bool = False,
    alternate: bool = False,
    image_size: int = 0,
    workers: int = 0,
    corrupt: str = "refuse",
    n_classes: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Data:
    """Return a data set by name, on the device.

    Parameters
    ----------
    name : one of ``DATASETS``
    data : folder of the data sets; None: ``$DSLBI_DATA``, else ``~/.cache/dslbi``
    normalize : bool
        True: subtract the mean and divide by the standard deviation of the table above. False:
        pixel values in [0, 1].
    statistics : "own" or "half"
        With ``normalize``: the numbers of the table above, or 127/255 and 128/255.
    holdout : int >= 0
        Number of training pictures, the same for every seed, that are taken out of the training
        set and returned in place of the test set: for choosing settings.
    train_size : int >= 0
        Number of training pictures to keep of those that are left: the same for every seed, the
        classes as equal in number as they allow, a larger part containing the smaller. 0: all.
    shift, flip, alternate : int >= 0, bool, bool
        Augmentation of the training pictures: see
        :class:`dslbi_torch.training.data.in_memory.PicturesInMemory`. Files are cropped at
        random in place of a shift, and are mirrored by chance.
    image_size : int >= 0
        Height and width of the pictures of imagenette, imagenet and synthetic; 0: 224. The others
        have their own.
    workers, corrupt : int >= 0, "refuse" or "skip"
        For files: see :class:`dslbi_torch.training.data.on_disk.PicturesOnDisk`.
    n_classes : int >= 0
        Number of classes that the set must have (synthetic: gets); 0: as it comes.

    Raises
    ------
    FileNotFoundError
        The files are absent and could not be downloaded.
    ValueError
        Unknown name, impossible counts, a file that is not the official one, or class folders that
        are empty or differ between training and test.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {name!r}")
    row = DATASETS[name]
    if statistics not in STATISTICS:
        raise ValueError(f"statistics must be one of {', '.join(STATISTICS)}, got {statistics!r}")
    if statistics == "half":
        row = row._replace(mean=(127 / 255,) * len(row.mean), std=(128 / 255,) * len(row.std))
    if image_size and not row.any_size:
        raise ValueError(f"image_size must be 0 for {name}, got {image_size}")
    wanted = Wanted(train_size, holdout, image_size, n_classes)
    found = row.load(data_root(data), wanted)
    if shift and found.folder is not None:
        raise ValueError(f"shift must be 0 for {name}, got {shift}")
    if alternate and found.folder is not None:
        raise ValueError(f"alternate must be no for {name}, got yes")
    n_classes = n_classes or row.n_classes or len(found.classes)
    if len(found.classes) != n_classes:
        raise ValueError(
            f"{name} must have n_classes = {n_classes} classes, got {len(found.classes)}"
        )
    train, test = _divide(name, found, holdout, train_size)
    place = {"device": device, "dtype": dtype}
    if found.folder is None:
        part, black = _in_memory(row, found, normalize=normalize, **place)
        augmentation = dict(shift=shift, flip=flip, alternate=alternate, black=black)
        shape = train[0].shape[1:]
    else:
        size = image_size or 224
        numbers = (row.mean, row.std) if normalize else ((0.0,) * 3, (1.0,) * 3)
        options = dict(size=size, statistics=numbers, workers=workers, corrupt=corrupt)
        part = partial(PicturesOnDisk, found.folder, **options, **place)
        augmentation, shape = dict(crop=True, flip=flip), (3, size, size)
    return Data(name, part(*train, **augmentation), part(*test), found.classes, tuple(shape))


def _in_memory(row, found, *, normalize, device, dtype):
    """What makes a part of a data set from arrays, and how black looks to the net."""

    def pictures(x):
        x = torch.tensor(x, dtype=dtype, device=device).div_(row.white)
        if normalize:
            for channel, mean, std in zip(x.unbind(1), row.mean, row.std, strict=True):
                channel.sub_(mean).div_(std)
        return x

    def part(x, y, **augmentation):
        y = torch.tensor(y, dtype=torch.int64, device=device)
        return PicturesInMemory(pictures(x), y, **augmentation)

    channels = found.train[0].shape[1]
    return part, pictures(np.zeros((1, channels, 1, 1))).flatten()


def require_batch(data: Data, batch_size: int) -> None:
    """ValueError if the training set does not fill one batch."""
    if batch_size > len(data.train):
        raise ValueError(
            f"batch_size must be at most the {len(data.train)} training pictures of {data.name}, "
            f"got {batch_size}"
        )


def data_root(data: str | Path | None = None) -> Path:
    """The folder of the data sets: the argument, else ``$DSLBI_DATA``, else ``~/.cache/dslbi``."""
    return Path(data or os.environ.get("DSLBI_DATA") or "~/.cache/dslbi").expanduser()


def _divide(name, found, holdout, train_size):
    """The training examples to keep, and those to test on."""
    (x, y), test = found.train, found.test
    if not 0 <= holdout < len(y):
        raise ValueError(
            f"holdout must be at least 0 and below the {len(y)} training pictures of {name}, "
            f"got {holdout}"
        )
    if not 0 <= train_size <= len(y) - holdout:
        raise ValueError(
            f"train_size must be at least 0 and at most the {len(y) - holdout} training pictures "
            f"of {name}{' that are not held out' if holdout else ''}, got {train_size}"
        )
    kept = np.arange(len(y))
    if holdout:
        kept, out = _take_out(len(y), holdout)
        test = x[out], y[out]
    if train_size:
        kept = kept[_balanced(y[kept], train_size)]
    return (found.train if len(kept) == len(y) else (x[kept], y[kept])), test


def _take_out(n, count):
    """Indices that stay and ``count`` that go, by one fixed shuffle for every seed of a run.

    Not every k-th one: MNIST alternates two populations of writers, so an even stride takes one.
    """
    out = np.zeros(n, dtype=bool)
    out[np.random.default_rng(0).permutation(n)[:count]] = True
    return np.flatnonzero(~out), np.flatnonzero(out)


def _balanced(y, count):
    """Indices of ``count`` examples: of each class one by chance, then a second, and so on."""
    shuffled = np.random.default_rng(0).permutation(len(y))
    by_class = shuffled[np.argsort(y[shuffled], kind="stable")]
    sizes = np.bincount(y)
    rank_in_class = np.arange(len(y)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(by_class[np.argsort(rank_in_class, kind="stable")[:count]])

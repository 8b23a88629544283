"""Which picture files there are, one folder for each class: ImageNet and what is laid out like it.

The list of files is kept in ``~/.cache/dslbi/index``, because a million of them takes minutes to
read from a network disk; it is read anew when a class folder has changed.
"""

import hashlib
import json
import os
import re
from contextlib import suppress
from pathlib import Path

import numpy as np

from ...safe_files import atomic, with_sum, without_sum
from .sources import Parts, Wanted, torchvision_sets

# Where below the root a data set may lie, or else the root is the data set.
FOLDERS = {
    "imagenette": ("imagenette", "imagenette2-320", "imagenette2"),
    "imagenette-144": ("imagenette-144", "imagenette2-160"),
    "imagenet": ("imagenet",),
}
_DOWNLOADED = {"imagenette": "320px", "imagenette-144": "160px"}  # the shorter side
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def find(name: str, root: Path, _: Wanted) -> Parts:
    """Return the files of a data set below a root, or of the root itself.

    Parameters
    ----------
    name : one of ``FOLDERS``
    root : Path
        Holds ``imagenet/train`` and ``imagenet/val``, or ``train`` and ``val``, each with one
        folder for each class; or, as a single part for both training and test, folders called by
        WordNet numbers (n01440764, ...), in ``imagenet`` or directly.

    Returns
    -------
    Parts
        With the names of the files, relative to the folder, as bytes.

    Raises
    ------
    FileNotFoundError
        Nothing there (Imagenette could not be downloaded either).
    ValueError
        No class folders, an empty one, or different ones for training and test.
    """
    places = [*(root / folder for folder in FOLDERS[name]), root]
    folder = next(filter(_holds_classes, places), None)
    if folder is None:
        missing = f"train/WNID/*.JPEG and val/WNID/*.JPEG not found in {places[0]} or {root}"
        if name not in _DOWNLOADED:
            raise FileNotFoundError(
                f"{name}: {missing}. Get ILSVRC2012 from image-net.org, one folder for each class, "
                "then pass --data ROOT or set DSLBI_DATA=ROOT"
            )
        size = {"size": _DOWNLOADED[name]}
        torchvision_sets(
            name, "Imagenette", root, missing, {"split": "train", **size}, {"split": "val", **size}
        )
        folder = next(filter(_holds_classes, places))
    if not (folder / "train").is_dir():
        part, classes = _pictures("", index(folder))
        return Parts(part, part, classes, folder)
    if not (folder / "val").is_dir():
        raise FileNotFoundError(f"{folder} must hold train and val, but has no val")
    train, test = index(folder / "train"), index(folder / "val")
    if train.keys() != test.keys():
        only = [sorted(a.keys() - b.keys()) for a, b in ((train, test), (test, train))]
        words = (f"{len(names)} ({', '.join(names[:3])})" if names else "none" for names in only)
        raise ValueError(
            f"train and val in {folder} must have the same classes, got "
            f"{' only in train, '.join(words)} only in val"
        )
    (train, classes), (test, _) = _pictures("train/", train), _pictures("val/", test)
    return Parts(train, test, classes, folder)


def _holds_classes(folder):
    """Whether there is a data set: training pictures, or folders called by WordNet numbers."""
    if (folder / "train").is_dir():
        return True
    return folder.is_dir() and any(re.fullmatch(r"n\d{8}", name) for name in os.listdir(folder))


def _pictures(prefix, files):
    """Names and classes of the files, as arrays, and the names of the classes."""
    names = [
        os.fsencode(f"{prefix}{label}/{name}") for label, names in files.items() for name in names
    ]
    y = np.repeat(np.arange(len(files)), [len(names) for names in files.values()])
    return (np.array(names), y), tuple(files)


def index(folder: Path) -> dict[str, list[str]]:
    """Return the picture files of each class folder, both in alphabetical order, from the cache if
    it is up to date."""
    folder = folder.resolve()
    subfolders = sorted(e.name for e in os.scandir(folder) if e.is_dir() and e.name[0] != ".")
    if not subfolders:
        files = sum(1 for _ in os.scandir(folder))
        raise ValueError(
            f"{folder} must hold a folder of pictures for each class, got {files} files only"
        )
    # A folder's time changes with its list of files.
    times = {name: (folder / name).stat().st_mtime_ns for name in subfolders}
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    cache = Path("~/.cache/dslbi/index").expanduser() / f"{folder.name}-{digest}.json"
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        known = without_sum(json.loads(cache.read_text()))
        if known["folder"] == str(folder) and known["times"] == times:
            return known["files"]
    files = {name: _files(folder / name) for name in subfolders}
    empty = [name for name, found in files.items() if not found]
    if empty:
        raise ValueError(
            f"every class folder in {folder} must hold pictures ({' '.join(SUFFIXES)}), got "
            f"{len(empty)} without ({', '.join(empty[:3])})"
        )
    with suppress(OSError):  # a home that cannot be written only costs time
        cache.parent.mkdir(parents=True, exist_ok=True)
        with atomic(cache) as temporary:
            known = with_sum(dict(folder=str(folder), times=times, files=files))
            temporary.write_text(json.dumps(known))
    return files


def _files(folder):
    return sorted(
        name for name in os.listdir(folder)
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    )  # fmt: skip

"""What a data set is read as, and how torchvision downloads one that is absent."""

import socket
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...optional import brought_by
from ...text import one_line


class Parts(NamedTuple):
    """A data set as it is read: pictures and classes of two parts.

    ``train`` and ``test`` are pairs of arrays: of n pictures (n, channels, height, width), or of
    the names of n files below ``folder``; and of n whole numbers, the classes.
    """

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: tuple[str, ...]
    folder: Path | None = None


class Wanted(NamedTuple):
    """What a config wants of a data set that leaves it open; 0: as the set has it."""

    train_size: int = 0
    holdout: int = 0
    image_size: int = 0
    n_classes: int = 0


def torchvision_sets(
    name: str, dataset: str, root: Path, missing: str, train: dict, test: dict
) -> tuple:
    """Return training and test set of torchvision, downloaded if absent.

    Parameters
    ----------
    name, missing : str
        For the message, if that fails: the data set, and what was not found where.
    dataset : str
        Name of the class in ``torchvision.datasets``.
    root : Path
    train, test : dict
        What the class calls the two parts.

    Raises
    ------
    FileNotFoundError
        The set is absent, and the download failed.
    """
    # Imported here only: it takes longer than loading the data, and complete files need no
    # download.
    with brought_by("train", f"to download {name}"):
        import torchvision

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # seconds without an answer
    make = getattr(torchvision.datasets, dataset)
    try:
        return make(root, download=True, **train), make(root, **test)
    except (OSError, RuntimeError) as error:
        reason = one_line(error, None)
        part = "".join(f", {key}={value!r}" for key, value in train.items())
        raise FileNotFoundError(
            f"{name}: {missing}, and the download failed ({reason}). "
            'Get them on a machine with network access by `python -c "import torchvision; '
            f"torchvision.datasets.{dataset}('ROOT'{part}, download=True)\"`, then pass --data "
            "ROOT or set DSLBI_DATA=ROOT"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)

"""Masks as files, one bit an entry."""

from pathlib import Path

from torch import Tensor

from ..bits import pack_bits, unpack_bits
from ..safe_files import read_tensors, write_tensors
from .checks import check_bool_tensors

_KIND = "dslbi masks 1"


def save_masks(masks: dict[str, Tensor], file: str | Path) -> None:
    """Write masks, at least one; the file is replaced whole or not at all."""
    check_bool_tensors(masks)
    packed = {
        name: {"shape": list(m.shape), "bits": pack_bits(m.cpu())} for name, m in masks.items()
    }
    write_tensors({"masks": packed}, file, _KIND)


def load_masks(file: str | Path) -> dict[str, Tensor]:
    """Read the masks that :func:`save_masks` wrote.

    Raises
    ------
    ValueError, FileNotFoundError
        For any other or a damaged file.
    """
    return read_tensors(
        file,
        _KIND,
        lambda content: {
            n: unpack_bits(m["bits"], m["shape"]) for n, m in content["masks"].items()
        },
    )

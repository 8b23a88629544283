"""Files that are written whole or not at all, and read without trusting them."""

import os
import zipfile
from contextlib import contextmanager
from pathlib import Path

import torch


@contextmanager
def atomic(path: str | Path):
    """``with atomic(path) as temporary``: what was written there replaces ``path``, whole or not.

    The temporary file keeps the suffix, is forced to the disk before the renaming, and is removed
    if the body fails.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} must exist, to write {path.name} there")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_tensors(content: dict, file: str | Path, kind: str) -> None:
    """Write tensors and plain data as a file of that kind."""
    with atomic(file) as temporary:
        torch.save({"format": kind, **content}, temporary)


def read_tensors(file: str | Path, kind: str, unpack, device="cpu"):
    """``unpack(content)`` of a file that :func:`write_tensors` wrote with this kind; only data is
    loaded, no code. ValueError for any other or a damaged file."""
    try:
        _check_sums(file)
        content = torch.load(file, map_location=device, weights_only=True)
        found = content.get("format") if isinstance(content, dict) else None
        if found != kind:
            raise ValueError(f"it is a file of {found or 'something else'}")
        return unpack(content)
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} must be a file of {kind}, but does not exist") from None
    except Exception as error:  # torch raises any of RuntimeError, EOFError, UnpicklingError, ...
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(f"{file} must be a file of {kind}, but: {reason}") from None


def _check_sums(file):
    """Refuse a file of which a part is not what its checksum says, which torch does not look at."""
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile:
        raise ValueError("it is a file of something else, or a damaged one") from None
    if damaged:
        raise ValueError(f"its part {damaged} is damaged")

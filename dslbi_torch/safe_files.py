"""Files that are written whole or not at all, and read without trusting them."""

import io
import json
import os
import platform
import re
import struct
import zipfile
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from .arguments import check_file
from .text import one_line


@contextmanager
def atomic(path: str | Path):
    """Give a temporary file that replaces ``path`` when the block ends, whole or not at all.

    The temporary file keeps the suffix, is forced to the disk before the renaming, and is removed
    if the body fails.

    Raises
    ------
    OSError
        The folder is absent, the disk is full, or the like; also where torch's writer says so by a
        RuntimeError.
    """
    path = check_file(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} must exist, to write {path.name} there")
    temporary = path.with_name(f".{path.stem}.{_host()}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except RuntimeError as error:
        if "inline_container" not in str(error):  # the C++ file that writes torch's archives
            raise
        raise OSError(f"{path} was not written, as on a full disk: {one_line(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _host():
    """Name of this machine: the numbers of its processes say nothing on another one."""
    return platform.node() or "host"


@contextmanager
def locked(folder: str | Path):
    """Keep a folder for this process alone inside the block; make it if it is absent, and remove
    it again if nothing was written.

    The lock ends with the process, however that ends. A file system without locks has none, and
    nothing is refused there.

    Raises
    ------
    ValueError
        Another process has it, or it cannot be a folder.
    """
    folder = Path(folder)
    absent = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        places = (place for place in (folder, *folder.parents) if os.path.lexists(place))
        raise ValueError(f"the run folder must be a folder, but {_what(next(places))}") from error
    # A soft lock, which is a mere file, would outlive a killed process.
    lock = FileLock(folder / ".lock", fallback_to_soft=False)
    try:
        with suppress(OSError):  # a disk without locks
            _acquire(lock, folder)
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):  # before it is free: the next one would lock a file of no name
                os.unlink(lock.lock_file)
            with suppress(OSError):
                lock.release()
        with suppress(OSError):  # it is not empty
            for place in absent:
                place.rmdir()


def _acquire(lock, folder):
    try:  # twice: who had the lock may remove its file between the opening and the locking
        lock.acquire(timeout=0.1, poll_interval=0.05)
    except Timeout as error:
        raise ValueError(
            f"{folder} must have one run at a time, but another process trains in it"
        ) from error


def _what(place):
    """What stands where a folder should."""
    if not place.exists():
        return f"{place} is a link to {os.readlink(place)}, which does not exist"
    return f"{place} is {'a file' if place.is_file() else 'something else'}"


def remove_stale(folder: Path) -> None:
    """Remove the temporary files of :func:`atomic` whose writers, on this machine, were killed."""
    if os.name == "nt":  # where to ask after a process would end it
        return
    for path in folder.glob(".*.tmp*"):
        writer = re.fullmatch(rf"\..+\.{re.escape(_host())}\.(\d+)\.tmp(\.\w+)?", path.name)
        if writer and not _alive(int(writer[1])):
            path.unlink(missing_ok=True)


def _alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or no number of a process
        return True
    return True


_SUM = "crc32"


def with_sum(content: dict) -> dict:
    """Return plain data with their checksum, to be written as JSON."""
    return content | {_SUM: _sum(content)}


def without_sum(content: dict) -> dict:
    """Return the data of :func:`with_sum` as they were read from JSON, without their checksum.

    Data without one, such as a row that was written by hand, are taken as they are.

    Raises
    ------
    ValueError
        They are not what their checksum says.
    """
    last, found = next(reversed(content.items()), (_SUM, None))
    if last != _SUM and isinstance(found, str) and re.fullmatch("[0-9a-f]{8}", found):
        raise ValueError(f"the checksum of a file must be called {_SUM}, got {last}")
    data = {key: value for key, value in content.items() if key != _SUM}
    if data != content and content[_SUM] != (found := _sum(data)):
        raise ValueError(f"a file must hold what its checksum {content[_SUM]} says, got {found}")
    return data


def _sum(data):
    """Of the data and not of the text, which may be laid out in any way."""
    return f"{zlib.crc32(json.dumps(data).encode()):08x}"


def write_tensors(content: dict, file: str | Path, kind: str) -> None:
    """Write tensors and plain data as a file of that kind."""
    with atomic(file) as temporary:
        torch.save({"format": kind, **content}, temporary)


def is_plain(content: dict) -> bool:
    """Return whether :func:`read_tensors` could read this back."""
    buffer = io.BytesIO()
    try:
        torch.save(content, buffer)
        buffer.seek(0)
        torch.load(buffer, weights_only=True)
    except Exception:  # pickle raises any of PicklingError, AttributeError, TypeError, ...
        return False
    return True


def read_tensors(file: str | Path, kind: str, unpack, device="cpu"):
    """Return ``unpack(content)`` of a file that :func:`write_tensors` wrote with this kind.

    Only data is loaded, no code.

    Raises
    ------
    FileNotFoundError
    ValueError
        For a file of another kind, or a damaged one.
    """
    with reading(file, f"a file of {kind}"):
        content = torch.load(file, map_location=device, weights_only=True)
        found = content.get("format") if isinstance(content, dict) else None
        if found != kind:
            raise ValueError(f"it is a file of {found or 'something else'}")
        return unpack(content)


@contextmanager
def reading(file: str | Path, what: str):
    """Check the sums of a file that the block reads; what either refuses is one line.

    Raises
    ------
    FileNotFoundError
    ValueError
        That the file must be ``what``, and why it is not.
    """
    check_file(file)
    try:
        check_sums(file)
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} must be {what}, but does not exist") from None
    except Exception as error:  # torch raises any of RuntimeError, EOFError, UnpicklingError, ...
        raise ValueError(f"{file} must be {what}, but: {one_line(error, 120)}") from error


# What a flipped bit makes of reading an archive; a wrong flag asks for a password or a method.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, RuntimeError)


def check_sums(file: str | Path) -> None:
    """Refuse a file of which a part is not what its checksum says, which torch does not look at.

    Raises
    ------
    FileNotFoundError
    ValueError
        For a damaged archive, and for what is none.
    """
    try:
        with open(file, "rb") as stream, zipfile.ZipFile(stream) as archive:
            damaged = archive.testzip()
            found, announced = len(archive.infolist()), _announced(stream, archive)
    except _DAMAGE as error:
        raise ValueError("it is a file of something else, or a damaged one") from error
    if damaged:
        raise ValueError(f"its part {damaged} is damaged")
    if announced not in (found, 0xFFFF):  # which stands for any larger number
        raise ValueError(f"its directory is damaged: {found} parts of {announced}")


def _announced(stream, archive):
    """How many parts the end of an archive says that it has: zipfile loses some in silence."""
    stream.seek(-22 - len(archive.comment), os.SEEK_END)
    return struct.unpack("<H", stream.read(12)[10:])[0]

"""A command in a process of its own that a fault befalls, and what its run folder ends with."""

import hashlib
import os
import resource
import signal
import sys
import time
from pathlib import Path

import torch
from forked import FORKSERVER

from dslbi_torch import RecordedPath
from dslbi_torch.training.run import run_folder as folders

TIMED = ("time_s", "pictures_s")


def small_files(size):
    """No file may grow beyond so many bytes: writing more fails, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def little_memory(more):
    """The process may take so many bytes more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def killed_writer(count):
    """SIGKILL where the ``count``-th file is written, but does not have its name yet."""
    replace, calls = os.replace, []

    def killed(*args, **options):
        calls.append(None)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(*args, **options)

    os.replace = killed


def jumping_clock(seconds):
    """The clock of the day goes back and forth; what measures a time must not ask it."""
    now, calls = time.time, []

    def jumping():
        calls.append(None)
        return now() + seconds * (-1) ** len(calls)

    time.time = jumping


def nothing():
    """No fault."""


FAULTS = {f.__name__: f for f in (nothing, small_files, little_memory, killed_writer)}
FAULTS |= {f.__name__: f for f in (jumping_clock,)}


def _enter(streams, argv, fault, value):
    for name, descriptor in (("out", 1), ("err", 2)):
        file = os.open(f"{streams}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
    sys.argv[:] = ["dslbi", *argv]
    from dslbi_torch.__main__ import main

    FAULTS[fault](*value)
    sys.exit(main(argv))


class Command:
    """``dslbi *argv`` with a fault, in a process that is started at once."""

    def __init__(self, folder, argv, fault=nothing, *value):
        self.streams = Path(folder) / f"streams-{time.monotonic_ns()}"
        self.streams.parent.mkdir(parents=True, exist_ok=True)
        self.process = FORKSERVER.Process(
            target=_enter, args=(str(self.streams), argv, fault.__name__, value)
        )
        self.process.start()

    def begun(self):
        """Whether the process has come to the command."""
        return Path(f"{self.streams}.err").exists()

    def signal(self, number):
        os.kill(self.process.pid, number)

    def wait(self, timeout=300):
        """The status, and what it complained of."""
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        return self.process.exitcode, Path(f"{self.streams}.err").read_text()


def wait_for(condition, timeout=300):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.005)


def ending(folder) -> str:
    """Return a digest of all that a run has come to, its times and its folder's name excepted."""
    content = torch.load(Path(folder) / "checkpoint.pt", weights_only=True)
    for key in ("config", "seconds"):
        content.pop(key)
    content["log"] = [_untimed(row) for row in content["log"]]
    found = hashlib.sha256()
    rows = [_untimed(row) for row in folders.read_log(folder)]
    path = RecordedPath.load(Path(folder) / "path.npz")
    for text in _texts([content, rows, path._asdict()]):
        found.update(text)
    return found.hexdigest()


def _untimed(row):
    return {key: value for key, value in row.items() if key not in TIMED}


def _texts(value):
    """The bytes of every tensor, array and number, through dicts and lists, with their keys."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield repr(key).encode()
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode() + value.numpy().tobytes()
    elif hasattr(value, "tobytes"):
        yield f"{value.dtype} {value.shape}".encode() + value.tobytes()
    else:
        yield repr(value).encode()

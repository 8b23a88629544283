"""What encloses a run: torch's switches, a signal to stop, a full memory."""

import os
import re
import signal
import threading
from contextlib import contextmanager, nullcontext

import torch

from ..config import Config


class Terminated(Exception):
    """The process was asked to stop, and did so after a checkpoint."""


@contextmanager
def asked_to_stop():
    """Give a list that SIGTERM puts something into inside the block."""
    asked = []
    if threading.current_thread() is not threading.main_thread():  # only there can one listen
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


# What torch says where it finds no memory on a CPU, in a plain RuntimeError.
_NO_MEMORY = re.compile(r"DefaultCPUAllocator: [^.]*|std::bad_alloc|could not create a memory.*")


@contextmanager
def memory_errors_in_one_line(config: Config, device: torch.device):
    """Say in one line that the memory of the device is full, and what to do about it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        reason = str(error).partition(". ")[0]
        if type(error) is RuntimeError:
            found = _NO_MEMORY.search(str(error))
            if found is None:
                raise
            reason = found[0]
        elif not isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            raise
        raise torch.OutOfMemoryError(
            f"batch_size must fit the memory of {device}, got {config.batch_size}: lower it, or "
            f"cut a batch into more parts by accumulate, now {config.accumulate} ({reason})"
        ) from error


@contextmanager
def torch_switches(config: Config, device: torch.device):
    """Set torch's switches for the whole process as the config wants them, and back again."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(config.threads or threads)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        with _fastest_convolutions(config) if device.type == "cuda" else nullcontext():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def _fastest_convolutions(config):
    """cuDNN tries its algorithms out, unless the config wants the same one every time."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=not config.deterministic,
        deterministic=cudnn.deterministic,
        allow_tf32=cudnn.allow_tf32,
    )

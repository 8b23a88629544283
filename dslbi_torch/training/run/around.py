"""What a run is wrapped in: torch's switches, signals, a full memory, and what is shown of it."""

import os
import signal
import sys
import threading
from contextlib import contextmanager, nullcontext

import torch
from tqdm.auto import tqdm


@contextmanager
def asked_to_stop():
    """A list that SIGTERM puts something into inside the block."""
    asked = []
    if threading.current_thread() is not threading.main_thread():  # only there can one listen
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def fitting(config, device):
    """One line where the memory of the GPU is full."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).partition(". ")[0]
        raise ValueError(
            f"batch_size must fit the memory of {device}, got {config.batch_size}: lower it, or "
            f"cut a batch into more parts by accumulate, now {config.accumulate} ({reason})"
        ) from None


@contextmanager
def settings(config, device):
    """torch's switches for the whole process, as the config wants them, and back again."""
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


def _in_jupyter():
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config


def progress_bar(run, progress):
    if progress is None:
        progress = sys.stderr.isatty() or _in_jupyter()
    return tqdm(
        total=run.config.epochs * run.steps_per_epoch,
        initial=run.step,
        desc=run.config.recipe or run.config.dataset,
        unit="step",
        disable=not (progress and run.processes.first),
        leave=False,
        dynamic_ncols=True,
    )


def tensorboard_writer(run):
    """A writer for TensorBoard, or None, as a context."""
    if not (run.config.tensorboard and run.processes.first):
        return nullcontext()
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError(
            "tensorboard needs the package of that name: pip install tensorboard"
        ) from None
    return SummaryWriter(run.config.folder / "tensorboard", purge_step=run.at.epoch + 1)


def show_row(writer, row):
    """One line of the log for TensorBoard."""
    if writer is None:
        return
    layers = {f"nonzero/{name}": share for name, share in (row["layers"] or {}).items()}
    for key, value in ({k: v for k, v in row.items() if k != "layers"} | layers).items():
        if value is not None and key != "epoch":
            writer.add_scalar(key, value, row["epoch"])
    writer.flush()

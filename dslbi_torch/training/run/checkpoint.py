"""Checkpoints: all that changes in a run, written whole or not at all, and put back bit for bit.

One file holds the state of the net, the optimizer with V, the schedule, the path, the scaler of
fp16, the running average, the random generators, the log, and how far the run has come, also within
an epoch. What steers the path keeps its state in the optimizer's. With several processes the first
one writes; what is sharded is gathered for it.
"""

import os
import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch.distributed.checkpoint import state_dict as gathered

from ...text import one_line
from .. import config as configs
from . import run_folder as folders
from .state import Run


def save(run: Run) -> None:
    """Write log, path and checkpoint; each file is replaced whole or not at all.

    The checkpoint comes last and holds the log: a run killed in between resumes from the one
    before, and drops what was written after it. Every process must call it.

    Raises
    ------
    OSError
        Where the disk is full, or the like; the checkpoint before is as it was.
    """
    content = everything(run)
    sharded = run.config.shard and not run.processes.first
    if sharded and run.recorder is not None:
        run.recorder.recorded()  # gathered by all for the one that writes
    run.processes.agreed(lambda: _write(run, content))


def _write(run, content):
    folder = run.config.folder
    last = folders.checkpoint_file(folder)
    with writing(run, last):
        folders.write_log(folder, run.at.log)
        if run.recorder is not None:
            run.recorder.save(folder / "path.npz")
        with folders.atomic(last) as temporary:
            torch.save(content, temporary)
        if run.config.keep > 1 and run.at.batch == 0:
            _keep(folder, run.at.epoch, run.config.keep)


@contextmanager
def writing(run: Run, last: Path):
    """Enclose what writes the checkpoint ``last``: say in one line what goes wrong in it."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError on a full disk
        reason = one_line(error)
        before = f"; {last} is the one before" if last.exists() else ""
        raise OSError(
            f"the checkpoint of step {run.step} was not written: {reason}{_full(last)}{before}"
        ) from error


def _full(last):
    """Words for a disk that does not hold another checkpoint: torch's own do not say so."""
    free = shutil.disk_usage(last.parent).free
    needed = last.stat().st_size if last.exists() else 1
    if free >= needed:
        return ""
    return f" (the disk is full: {free:,} bytes are free, a checkpoint has {needed:,})"


def _keep(folder, epoch, count):
    """Give the checkpoint of a finished epoch a name of its own, and drop the oldest such."""
    last, own = folders.checkpoint_file(folder), folders.checkpoint_file(folder, epoch)
    own.unlink(missing_ok=True)
    try:
        os.link(last, own)
    except OSError:  # a file system without links
        shutil.copyfile(last, own)
    for old in kept(folder)[:-count]:
        old.unlink()


def kept(folder: Path) -> list[Path]:
    """Return the checkpoints that a folder keeps by ``keep``, oldest first."""
    return sorted(Path(folder).glob("checkpoint-[0-9][0-9][0-9][0-9]*.pt"))


class LastDamaged(ValueError):
    """The last checkpoint is damaged, but one before it, that of ``epoch``, is whole."""

    def __init__(self, message: str, epoch: int):
        super().__init__(message)
        self.epoch = epoch


@contextmanager
def naming_another(config: configs.Config):
    """Where the last checkpoint proves damaged inside the block, say which kept one is not."""
    try:
        yield
    except folders.Unreadable as error:
        other = _newest_whole(config)
        if other is None:
            raise
        epoch = _epoch(other)
        raise LastDamaged(
            f"{error}; {other.name} is whole: train --resume goes on from it, evaluate --epoch "
            f"{epoch} looks at it",
            epoch,
        ) from error


def _newest_whole(config):
    """The last kept checkpoint that can be read, or None."""
    for path in reversed(kept(config.folder)):
        with suppress(ValueError):
            folders.read_checkpoint(config.folder, config, epoch=_epoch(path))
            return path
    return None


def _epoch(path):
    return int(path.stem.split("-")[1])


def everything(run: Run) -> dict:
    """Return all that changes in a run, as tensors and plain data."""
    model, optimizer = run.model.state_dict(), run.optimizer.state_dict()
    if run.config.shard:
        whole = gathered.StateDictOptions(full_state_dict=True, cpu_offload=True)
        model = gathered.get_model_state_dict(run.model, options=whole)
        # Of an optimizer that has no state yet it would make one, by a step that the path counts.
        if run.optimizer.state:
            optimizer = gathered.get_optimizer_state_dict(run.model, run.optimizer, options=whole)
    at = run.at
    return {
        "config": configs.to_json(run.config),
        "world": run.processes.world,
        "epoch": at.epoch,
        "batch": at.batch,
        "losses": None if at.losses is None else at.losses[: at.batch].cpu().clone(),
        "seconds": at.seconds,
        "log": at.log,
        "model": model,
        "optimizer": optimizer,
        **{name: part.state_dict() for name, part in _parts(run).items()},
        "batches": at.order if at.batch else run.generator.get_state(),
        "rng": run.processes.gathered(_rng(run.processes.device)),
        # within an epoch the processes differ in them: see ``share_statistics``
        "statistics": run.processes.gathered(_own_statistics(run)),
    }


def _statistics(run):
    """What the net and its average have of floating numbers that are not trained: the running
    means and variances of normalisations."""
    nets = [run.model] + ([] if run.average is None else [run.average.module])
    return [b for net in nets for b in net.buffers() if b.is_floating_point()]


def _own_statistics(run):
    """Those of this process, where there are others."""
    return [b.cpu() for b in _statistics(run)] if run.processes.world > 1 else []


def share_statistics(run: Run) -> None:
    """Give every process the mean over the processes of the running statistics, which each has of
    its own pictures alone: what is evaluated then is what the first one saves."""
    if run.processes.world > 1:
        for buffer in _statistics(run):
            run.processes.mean(buffer)


def _rng(device):
    """States of torch's own generators, which a dropout draws from."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def _parts(run):
    """What a run may have beside its net and optimizer, by its name in the checkpoint."""
    parts = {
        "scheduler": run.scheduler,
        "recorder": run.recorder,
        "pruning": run.pruning,
        "scaler": run.scaler,
        "ema": run.average,
    }
    return {name: part for name, part in parts.items() if part is not None}


def restore(run: Run, checkpoint: dict) -> None:
    """Put a checkpoint into a run that was just set up; every process must call it.

    Raises
    ------
    ValueError
        Something is missing in the checkpoint, or is of another shape.
    """
    try:
        _restore(run, checkpoint)
    except torch.OutOfMemoryError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        reason = one_line(error)
        raise ValueError(
            f"the checkpoint in {run.config.folder} must hold all of such a run, but: "
            f"{type(error).__name__} {reason}"
        ) from error


def _restore(run, checkpoint):
    if run.config.shard:
        whole = gathered.StateDictOptions(full_state_dict=True)
        gathered.set_model_state_dict(run.model, checkpoint["model"], options=whole)
        if checkpoint["optimizer"]["state"]:
            gathered.set_optimizer_state_dict(
                run.model, run.optimizer, checkpoint["optimizer"], options=whole
            )
    else:
        run.model.load_state_dict(checkpoint["model"])
        run.optimizer.load_state_dict(checkpoint["optimizer"])
    for name, part in _parts(run).items():
        part.load_state_dict(checkpoint[name])
    run.generator.set_state(checkpoint["batches"].cpu())
    run.at.epoch, run.at.batch = checkpoint["epoch"], checkpoint["batch"]
    run.at.started = time.perf_counter() - checkpoint["seconds"]
    run.at.losses, run.at.log = checkpoint["losses"], checkpoint["log"]
    if run.processes.world > 1:
        own = checkpoint["statistics"][run.processes.rank]
        for buffer, value in zip(_statistics(run), own, strict=True):
            buffer.copy_(value)
    own = checkpoint["rng"][run.processes.rank]
    torch.set_rng_state(own[0].cpu())
    if run.processes.device.type == "cuda" and len(own) > 1:
        torch.cuda.set_rng_state(own[1].cpu(), run.processes.device)

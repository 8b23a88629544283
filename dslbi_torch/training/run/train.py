"""Training: from a :class:`Config` to a run folder, epoch by epoch.

What a run is made of is set up in ``set_up.py``; an epoch and a step stand in ``loop.py``. What it
has reached is measured in ``evaluate.py``, kept in ``checkpoint.py``, and lies in the folder that
``run_folder.py`` describes.
"""

import time
from contextlib import ExitStack

from ...safe_files import locked, remove_stale
from .. import config as configs
from ..config import Config
from . import run_folder as folders
from .checkpoint import LastDamaged, naming_another, restore, save, share_statistics
from .contexts import asked_to_stop, memory_errors_in_one_line, torch_switches
from .evaluate import log_row
from .loop import stop_if_asked, train_epoch
from .outlook import at_chance, outlook
from .processes import joined, lost_processes_in_one_line
from .progress import epoch_line, progress_bar, show_row, tensorboard_writer
from .sessions import write_environment
from .set_up import set_up
from .state import Run


def train(config: Config, *, resume: bool = False, progress: bool | None = None) -> Run:
    """Train as the config says, and leave everything in its run folder.

    An unfinished run of the same config in that folder goes on from its checkpoint, and ends with
    the weights, the path and the log of an uninterrupted one (bit for bit on a CPU with the same
    number of threads; times in the log excepted). Started by torchrun, its processes share every
    batch: ``batch_size`` is that of all together.

    Parameters
    ----------
    config : Config
    resume : bool
        True: refuse to start afresh, and go on from the newest checkpoint that is whole.
    progress : bool, optional
        Whether to show a bar and a line for each epoch. None: the bar in a terminal and in Jupyter
        only.

    Returns
    -------
    Run
        The trained net, its optimizer and its path.

    Raises
    ------
    ValueError, FileNotFoundError
        For a folder that holds a finished run or one of another config, or in which another process
        trains, and for missing or damaged data. Nothing has been written then.
    ImportError
        A package that the config needs is missing.
    BrokenCompiler
        With ``compile``, no compiler works.
    torch.OutOfMemoryError
        The memory of the device does not hold the data or a batch.
    OSError
        A checkpoint could not be written; the one before is as it was. ConnectionError: one of
        several processes has ended.
    FloatingPointError
        The loss or a weight is no longer finite. The checkpoint is the last good one.
    Terminated
        The process was asked to stop (SIGTERM): it did so after a checkpoint, from which the same
        call goes on.
    """
    with ExitStack() as stack:
        processes = stack.enter_context(joined(config.device))
        stack.enter_context(torch_switches(config, processes.device))
        asked = stack.enter_context(asked_to_stop())
        stack.enter_context(memory_errors_in_one_line(config, processes.device))
        stack.enter_context(lost_processes_in_one_line(processes, config.folder))
        processes.agreed(lambda: stack.enter_context(locked(config.folder)))
        checkpoint, notes = _checkpoint(config, processes, resume)
        run = set_up(config, processes)
        begin(run, checkpoint)
        writer = stack.enter_context(tensorboard_writer(run))
        bar = stack.enter_context(progress_bar(run, progress))
        said = processes.first and progress is not False
        for line in (*notes, *outlook(run)) if said else ():
            bar.write(line)
        for epoch in range(run.at.epoch + 1, config.epochs + 1):
            row = _epoch(run, epoch, bar, asked)
            show_row(writer, row)
            if said:
                for line in (epoch_line(row, config.epochs), *at_chance(run, row["loss"])):
                    bar.write(line)
            if epoch < config.epochs:
                stop_if_asked(run, asked, 0)
    return run


def _epoch(run, epoch, bar, asked):
    """Train and evaluate an epoch, with a checkpoint after each; its row of the log."""
    at = run.at
    shared = at.batch == run.steps_per_epoch  # a mean of equal numbers may be another one
    loss, lr, pictures_s = train_epoch(run, bar, asked)
    if not shared:
        share_statistics(run)
    save(run)  # a run that goes on from here does nothing but evaluate
    at.epoch, at.batch, at.losses = epoch, 0, None
    reached = dict(loss=loss, lr=lr, pictures_s=pictures_s)
    row = log_row(run, **reached, between=lambda k: stop_if_asked(run, asked, k))
    at.log.append(row)
    save(run)
    return row


def _checkpoint(config, processes, resume):
    """The checkpoint to go on from, or None, and what is to be said of it; refused is a folder that
    must not be written to."""
    found = None

    def look():
        nonlocal found
        epoch, notes = None, []  # of the checkpoint; None: the last
        try:
            with naming_another(config):
                found = folders.unfinished(config, processes.world)
        except LastDamaged as error:
            if not resume:
                raise
            epoch = error.epoch
            found = folders.unfinished(config, processes.world, epoch)
            notes = [f"the last checkpoint is damaged: this goes on from epoch {epoch}"]
        if resume and found is None:
            raise ValueError(f"{config.folder} must hold an unfinished run, but has no checkpoint")
        return found is not None, epoch, notes

    begun, epoch, notes = processes.agreed(look)
    if begun and found is None:
        found = folders.read_checkpoint(config.folder, config, epoch=epoch)
    return found, notes


def begin(run: Run, checkpoint: dict | None) -> None:
    """Begin the run in its folder, or bring run and folder back to the checkpoint."""
    folder, first = run.config.folder, run.processes.first
    if first:
        remove_stale(folder)
    if checkpoint is None:
        run.at.log.append(log_row(run, lr=run.scheduler.get_last_lr()[0]) | {"time_s": 0.0})
        run.at.started = time.perf_counter()
        if first:
            folders.write_text(folder / "config.json", configs.to_json(run.config))
            folders.keep_sources(run.config)
        save(run)
    else:
        restore(run, checkpoint)
        if first:
            folders.write_log(folder, run.at.log)
    if first:
        write_environment(folder, run.processes.device, run.processes.world, run.step)

"""Training: from a :class:`Config` to a run folder.

Top to bottom: set-up, the loop, one step, what stops it. What a run has reached is measured in
``evaluate.py``, kept in ``checkpoint.py``, and lies in the folder that ``folder.py`` describes.
"""

import copy
import dataclasses
import inspect
import math
import time
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ...files import locked, remove_stale
from ...path import PathRecorder
from ...target import TargetDensity
from .. import config as configs
from ..config import Config
from ..data import sets as datasets
from ..nets import table as models
from . import report
from . import run_folder as folders
from . import sparse_start as sparse
from .around import asked_to_stop, fitting, progress_bar, settings, show_row, tensorboard_writer
from .checkpoint import Position, naming_another, restore, save, share_statistics
from .evaluate import evaluate, forward, log_row
from .optimizers import l1_norm, lr_factor, make_optimizer, nu_factor, scale_norm
from .processes import Processes, joined, pick_device

__all__ = ["Run", "Terminated", "evaluate", "open_run", "set_up", "train", "train_epoch"]


class Run(NamedTuple):
    """A training run in memory. All that changes in it goes into the checkpoint."""

    config: Config
    processes: Processes
    data: datasets.Data
    model: nn.Module
    net: nn.Module  # the model as it is called: compiled, in replicas, or itself
    optimizer: Optimizer
    scheduler: LambdaLR
    controller: TargetDensity | None  # of the penalty levels
    recorder: PathRecorder | None  # None where nothing is split
    pruning: sparse.Pruning | None  # by magnitude, in training
    scaler: torch.amp.GradScaler | None  # of fp16
    average: AveragedModel | None  # of the weights, with ema
    generator: torch.Generator  # of the order of the batches
    at: Position

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.data.train) / self.config.batch_size)

    @property
    def step(self) -> int:
        """Steps that were finished."""
        return self.at.epoch * self.steps_per_epoch + self.at.batch


class Terminated(Exception):
    """The process was asked to stop, and did so after a checkpoint."""


# Set-up


def set_up(config: Config, processes: Processes | None = None) -> Run:
    """Data, net, optimizer, schedule and recorder before the first step; writes nothing."""
    if processes is None:
        processes = Processes(0, 1, pick_device(config.device))
    device, dtype = processes.device, getattr(torch, config.dtype)
    data = processes.in_turn(lambda: _load(config, device, dtype))
    _check_fit(config, data, processes)

    torch.manual_seed(config.seed)
    model = models.build(config.model, len(data.classes), data.shape[0], init=config.init)
    model, masks = sparse.begun(config, model.to(device, dtype), data)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    _check_parts(config, data, processes, model)
    if config.shard and processes.world > 1:
        _shard(model)
    torch.manual_seed(config.seed + processes.rank)  # no two processes drop the same units
    optimizer = make_optimizer(config, model)
    pruning = sparse.attach(config, model, masks, optimizer, data)
    steps = math.ceil(len(data.train) / config.batch_size)
    controller = recorder = scaler = average = None
    if config.shares and config.splits:  # before the recorder, which then sees each step's levels
        controller = TargetDensity(
            optimizer, config.shares, steps=config.epochs * steps, ramp=config.ramp
        )
    if config.splits:
        recorder = PathRecorder(optimizer, every=config.record_every, elements=config.elements)
    if config.amp == "fp16":
        scaler = torch.amp.GradScaler(device.type)
    if config.ema:
        mean = get_ema_multi_avg_fn(config.ema)
        average = AveragedModel(model, multi_avg_fn=mean, use_buffers=True)
    generator = torch.Generator().manual_seed(config.seed)
    scheduler = LambdaLR(optimizer, lambda step: lr_factor(config, step, steps))
    return Run(
        config=config,
        processes=processes,
        data=data,
        model=model,
        net=_callable(config, model, processes),
        optimizer=optimizer,
        scheduler=scheduler,
        controller=controller,
        recorder=recorder,
        pruning=pruning,
        scaler=scaler,
        average=average,
        generator=generator,
        at=Position(),
    )


def _load(config, device, dtype):
    """The data set of a config, on the device."""
    return datasets.load(
        config.dataset,
        config.data,
        normalize=config.normalize,
        holdout=config.holdout,
        train_size=config.train_size,
        shift=config.shift,
        flip=config.flip,
        image_size=config.image_size,
        workers=config.workers,
        corrupt=config.corrupt,
        n_classes=config.n_classes,
        device=device,
        dtype=dtype,
    )


def _check_fit(config, data, processes):
    """Refuse a net for other pictures, and an epoch whose last batch leaves a process idle."""
    datasets.require_batch(data, config.batch_size)
    _check_device(config, processes.device)
    models.check_pictures(config.model, data.shape[-1], config.dataset)
    last = len(data.train) % config.batch_size or config.batch_size
    if last < processes.world:
        raise ValueError(
            f"batch_size must leave at least one picture for each of {processes.world} processes, "
            f"got {config.batch_size}: the last batch has {last} of {len(data.train)} pictures"
        )


def _check_device(config, device):
    """Refuse a fused step off the GPU, and a compiler that does not work, before they are met."""
    if config.fused and device.type != "cuda":
        raise ValueError(f"fused needs a GPU, got device {device}")
    if config.compile:
        try:
            torch.compile(torch.neg)(torch.zeros(1, device=device))
        except Exception as error:  # whatever the compiler behind it raises
            reason = " ".join(str(error).partition("Set TORCH")[0].split())[:200]
            raise ValueError(f"compile needs a compiler that works here, but: {reason}") from None


def _check_parts(config, data, processes, model):
    """Refuse a part of one picture where a BatchNorm then has one value to take a variance of."""
    batches = config.batch_size, len(data.train) % config.batch_size or config.batch_size
    rows = min(batches) // processes.world
    if rows // config.accumulate > 1:
        return
    try:
        with torch.no_grad():
            forward(copy.deepcopy(model).train(), sparse.example(data)[:1], config)
    except ValueError:
        raise ValueError(
            f"batch_size must leave at least two pictures for every part of {config.model} with "
            f"BatchNorm, got {config.batch_size}: the last batch has {batches[1]} of "
            f"{len(data.train)} pictures, for {processes.world} process(es) in "
            f"{config.accumulate} part(s)"
        ) from None


def _shard(model):
    """Cut the weights of each part of the net, and what is left, among the processes."""
    from torch.distributed.fsdp import fully_shard

    for part in model.children():
        if any(True for _ in part.parameters()):
            fully_shard(part)
    fully_shard(model)


def _callable(config, model, processes):
    """The model as the loop calls it."""
    net = torch.compile(model) if config.compile else model
    if processes.world == 1 or config.shard:
        return net
    ids = [processes.device.index] if processes.device.type == "cuda" else None
    # Running statistics stay each process's own until the epoch ends: see ``share_statistics``.
    replicas = nn.parallel.DistributedDataParallel
    new = "forward_sync_buffers" in inspect.signature(replicas).parameters  # in newer torch
    own = {"forward_sync_buffers" if new else "broadcast_buffers": False}
    return replicas(net, device_ids=ids, **own)


# The loop


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
        True: refuse to start afresh.
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
        trains, and for missing or damaged data; nothing has been written then. Also where the
        memory of the GPU does not hold a batch.
    OSError
        A checkpoint could not be written; the one before is as it was.
    FloatingPointError
        The loss or a weight is no longer finite. The checkpoint is the last good one.
    Terminated
        The process was asked to stop (SIGTERM): it did so after a checkpoint, from which the same
        call goes on.
    """
    with ExitStack() as stack:
        processes = stack.enter_context(joined(config.device))
        stack.enter_context(settings(config, processes.device))
        asked = stack.enter_context(asked_to_stop())
        stack.enter_context(fitting(config, processes.device))
        processes.agreed(lambda: stack.enter_context(locked(config.folder)))
        checkpoint = _checkpoint(config, processes, resume)
        run = set_up(config, processes)
        begin(run, checkpoint)
        writer = stack.enter_context(tensorboard_writer(run))
        bar = stack.enter_context(progress_bar(run, progress))
        at = run.at
        for epoch in range(at.epoch + 1, config.epochs + 1):
            shared = at.batch == run.steps_per_epoch  # a mean of equal numbers may be another one
            loss, lr, pictures_s = train_epoch(run, bar, asked)
            if not shared:
                share_statistics(run)
            save(run)  # a run that goes on from here does nothing but evaluate
            at.epoch, at.batch, at.losses = epoch, 0, None
            reached = dict(loss=loss, lr=lr, pictures_s=pictures_s)
            row = log_row(run, **reached, between=lambda k: _heed(run, asked, k))
            at.log.append(row)
            save(run)
            show_row(writer, row)
            if processes.first and progress is not False:
                bar.write(report.epoch_line(row, config.epochs))
            if epoch < config.epochs:
                _heed(run, asked, 0)
    return run


def _checkpoint(config, processes, resume):
    """The checkpoint to go on from, or None; refused is a folder that must not be written to."""
    found = None

    def look():
        nonlocal found
        with naming_another(config):
            found = folders.unfinished(config, processes.world)
        if resume and found is None:
            raise ValueError(f"{config.folder} must hold an unfinished run, but has no checkpoint")
        return found is not None

    if processes.agreed(look) and found is None:
        found = folders.read_checkpoint(config.folder, config)
    return found


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
        folders.write_environment(folder, run.processes.device, run.processes.world, run.step)


def train_epoch(run: Run, bar=None, asked=None, stop=None) -> tuple[float, float, float]:
    """The rest of an epoch: its mean loss, lr in the last step, pictures a second (None where a
    resumed run had trained them all). ``stop(run)`` ends it where that was asked."""
    config, at, data = run.config, run.at, run.data.train
    rank, world = run.processes.rank, run.processes.world
    steps, start = run.steps_per_epoch, at.batch
    losses = torch.zeros(steps, dtype=getattr(torch, config.dtype), device=run.processes.device)
    if start:
        losses[:start] = at.losses
    at.losses, at.order = losses, run.generator.get_state()
    run.net.train()
    checked, clock = start, time.perf_counter()
    batches = data.batches(config.batch_size, run.generator, start=start, rank=rank, world=world)
    for k, (x, y) in enumerate(batches, start):
        size = min(config.batch_size, len(data) - k * config.batch_size)
        losses[k] = train_step(run, x, y, size)
        run.scheduler.step()
        at.batch = k + 1
        # Looking at the loss waits for the device, so it is done once in fifty steps.
        last = at.batch == steps
        stopping = _agree_to_stop(run, asked)
        saving = config.checkpoint_steps and at.batch % config.checkpoint_steps == 0
        if at.batch % 50 == 0 or last or stopping or saving:
            _check_losses(run, checked)
            checked = at.batch
        if bar is not None:
            bar.update()
            if checked == at.batch:
                bar.set_postfix(epoch=at.epoch + 1, loss=f"{losses[k].item() / size:.3f}")
        if stopping and not last:
            (stop or _stop)(run)
        elif saving and not last:
            save(run)
    _check_weights(run)
    seconds, trained = time.perf_counter() - clock, len(data) * (1 - start / steps)
    if run.recorder is not None:
        run.recorder.record()
    pictures_s = round(trained / seconds, 1) if trained else None
    return losses.sum().item() / len(data), _last_lr(run.scheduler), pictures_s


def _last_lr(scheduler):
    """lr of the last step, also where a session before this one has made it."""
    return scheduler.base_lrs[0] * scheduler.lr_lambdas[0](scheduler.last_epoch - 1)


def _set_nu(run):
    """The coupling of the step that is due."""
    nu = run.config.nu * nu_factor(run.config, run.step, run.steps_per_epoch)
    for group in run.optimizer.param_groups:
        if "nu" in group:
            group["nu"] = nu


def train_step(run: Run, x, y, size: int) -> torch.Tensor:
    """One step on this process's part of a batch of ``size`` pictures; its losses, summed."""
    config, optimizer, scaler = run.config, run.optimizer, run.scaler
    _set_nu(run)
    optimizer.zero_grad()
    cut = (z.tensor_split(config.accumulate) for z in (x, y))
    parts = list(zip(*cut, strict=True))
    parts = [part for part in parts if len(part[0])] or parts[:1]
    total = 0.0
    for i, (xs, ys) in enumerate(parts):
        last = i == len(parts) - 1
        with nullcontext() if last else _apart(run.net):
            logits = forward(run.net, xs, config)
            loss = F.cross_entropy(
                logits, ys, reduction="sum", label_smoothing=config.label_smoothing
            )
            total = total + loss.detach()
            # the gradients of the processes are averaged, and theirs must be that of the mean loss
            objective = loss * (run.processes.world / size)
            if config.l1 and last:
                objective = objective + config.l1 * l1_norm(run.model)
            if config.l1_scales and last:
                objective = objective + config.l1_scales * scale_norm(run.model)
            (objective if scaler is None else scaler.scale(objective)).backward()
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    if run.average is not None:
        run.average.update_parameters(run.model)
    return total


@contextmanager
def _apart(net):
    """A block whose gradients stay with each process: another part of the batch is to come."""
    if isinstance(net, nn.parallel.DistributedDataParallel):
        with net.no_sync():
            yield
    elif hasattr(net, "set_requires_gradient_sync"):  # FSDP2
        net.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            net.set_requires_gradient_sync(True)
    else:
        yield


def _check_losses(run, start):
    """Sum the losses over the processes from batch ``start`` on, and refuse what is not finite."""
    at = run.at
    fresh = at.losses[start : at.batch]
    run.processes.total(fresh)
    bad = ~fresh.isfinite()
    if bad.any():
        k = bad.nonzero()[0].item()
        _diverged(run, f"the loss ({fresh[k].item()})", start + k + 1)


def _check_weights(run):
    if not all(p.isfinite().all() for p in run.model.parameters()):
        _diverged(run, "a weight", run.at.batch)


def _diverged(run, what, batch):
    step = run.at.epoch * run.steps_per_epoch + batch
    last = folders.last_file(run.config.folder)
    good = f"; the last good checkpoint is {last}" if last.exists() else ""
    raise FloatingPointError(
        f"{what} is not finite after step {step} (epoch {run.at.epoch + 1}){good}. "
        "A smaller lr may help"
    )


def _agree_to_stop(run, asked):
    """Whether to stop after this step: together with the other processes, which look every tenth
    step."""
    if run.processes.world == 1:
        return bool(asked)
    if run.at.batch % 10 and run.at.batch != run.steps_per_epoch:
        return False
    votes = torch.tensor(float(bool(asked)), device=run.processes.device)
    return run.processes.total(votes).item() > 0


def _heed(run, asked, k):
    """Stop at batch ``k`` of an evaluation if that was asked: all before it is saved. Several
    processes look at every tenth."""
    if (run.processes.world == 1 or k % 10 == 0) and _agree_to_stop(run, asked):
        _terminate(run)


def _stop(run):
    save(run)
    _terminate(run)


def _terminate(run):
    raise Terminated(
        f"stopped after step {run.step} of {run.config.epochs * run.steps_per_epoch} "
        f"with a checkpoint in {run.config.folder}"
    )


def open_run(
    folder: str | Path,
    *,
    data: str | None = None,
    device: str = "auto",
    epoch: int | None = None,
) -> Run:
    """The run of a folder at one of its checkpoints: net, optimizer with V, path.

    Parameters
    ----------
    folder : run folder
    data : folder of the data sets; None: as the run's config says
    device : str
    epoch : int, optional
        One of which the folder keeps the checkpoint (``keep``); None: the last.
    """
    config = folders.read_config(folder)
    config = dataclasses.replace(
        config, out=str(folder), data=data or config.data, device=device, threads=0
    )
    place = pick_device(device)
    with nullcontext() if epoch is not None else naming_another(config):
        checkpoint = folders.read_checkpoint(folder, config, place, epoch=epoch)
    run = set_up(config)
    restore(run, checkpoint)
    return run

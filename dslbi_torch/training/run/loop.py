"""An epoch of training: its batches, one step on a batch, and what breaks it off."""

import time
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.nn import functional as F

from . import run_folder as folders
from .checkpoint import save
from .contexts import Terminated
from .evaluate import forward
from .make_optimizer import scales_l1, weights_l1
from .state import Run


def train_epoch(run: Run, bar=None, asked=None, stop=None) -> tuple[float, float, float | None]:
    """Train the rest of an epoch.

    Parameters
    ----------
    run : Run
    bar : tqdm, optional
        A progress bar to move.
    asked : list, optional
        Not empty: to stop was asked.
    stop : callable, optional
        Called with the run where it is to stop before the epoch ends; None: save it, and raise
        Terminated.

    Returns
    -------
    loss, lr, pictures_s : float
        The mean loss of the whole epoch, lr in the last step, and pictures a second (None where a
        resumed run had trained them all).

    Raises
    ------
    FloatingPointError
        The loss or a weight is no longer finite.
    """
    config, at, data = run.config, run.at, run.data.train
    rank, world = run.processes.rank, run.processes.world
    steps, start = run.steps_per_epoch, at.batch
    losses = torch.zeros(steps, dtype=getattr(torch, config.dtype), device=run.processes.device)
    if start:
        losses[:start] = at.losses
    at.losses, at.order = losses, run.generator.get_state()
    run.net.train()
    checked, clock = start, time.perf_counter()
    place = dict(epoch=at.epoch, start=start, rank=rank, world=world)
    batches = data.batches(config.batch_size, run.generator, **place)
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
            (stop or _save_and_stop)(run)
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


# One step


def train_step(run: Run, x, y, size: int) -> torch.Tensor:
    """Step on this process's part of a batch of ``size`` pictures; return its losses, summed."""
    config, optimizer, scaler = run.config, run.optimizer, run.scaler
    optimizer.zero_grad()
    cut = (z.tensor_split(config.accumulate) for z in (x, y))
    parts = list(zip(*cut, strict=True))
    parts = [part for part in parts if len(part[0])] or parts[:1]
    total = 0.0
    for i, (xs, ys) in enumerate(parts):
        last = i == len(parts) - 1
        with nullcontext() if last else _without_gradient_sync(run.net):
            logits = forward(run.net, xs, config)
            loss = F.cross_entropy(
                logits, ys, reduction="sum", label_smoothing=config.label_smoothing
            )
            total = total + loss.detach()
            # The gradients of the processes are averaged, and theirs must be that of the mean loss.
            objective = loss * (run.processes.world / size)
            if config.l1 and last:
                objective = objective + config.l1 * weights_l1(run.model)
            if config.l1_scales and last:
                objective = objective + config.l1_scales * scales_l1(run.model)
            (objective if scaler is None else scaler.scale(objective)).backward()
    if run.pruning is not None and run.pruning.exchange():
        pass  # a step of its own
    elif scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    if run.average is not None:
        run.average.update_parameters(run.model)
    return total


@contextmanager
def _without_gradient_sync(net):
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


# What breaks it off


def _check_losses(run, start):
    """Sum the losses over the processes from batch ``start`` on, and refuse what is not finite."""
    at = run.at
    fresh = at.losses[start : at.batch]
    run.processes.total(fresh)
    bad = ~fresh.isfinite()
    if bad.any():
        k = bad.nonzero()[0].item()
        raise _diverged(run, f"the loss ({fresh[k].item()})", start + k + 1)


def _check_weights(run):
    if not all(p.isfinite().all() for p in run.model.parameters()):
        raise _diverged(run, "a weight", run.at.batch)


def _diverged(run, what, batch):
    step = run.at.epoch * run.steps_per_epoch + batch
    last = folders.last_file(run.config.folder)
    good = f"; the last good checkpoint is {last}" if last.exists() else ""
    return FloatingPointError(
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


def stop_if_asked(run: Run, asked: list, k: int) -> None:
    """Raise Terminated at batch ``k`` of an evaluation if to stop was asked: all before it is
    saved. Several processes look at every tenth."""
    if (run.processes.world == 1 or k % 10 == 0) and _agree_to_stop(run, asked):
        raise _stopped(run)


def _save_and_stop(run):
    save(run)
    raise _stopped(run)


def _stopped(run):
    return Terminated(
        f"stopped after step {run.step} of {run.config.epochs * run.steps_per_epoch} "
        f"with a checkpoint in {run.config.folder}"
    )

"""Training: from a :class:`Config` to a run folder.

Top to bottom: set-up, evaluation, the loop, checkpoints. The folder is described in ``folder.py``.
"""

import dataclasses
import math
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from ..dessilbi import DessiLBI
from ..groups import split_groups
from ..masks import density, gamma_weights, sparse_weights
from ..path import PathRecorder
from ..target import TargetDensity
from . import config as configs
from . import data as datasets
from . import folder as folders
from . import models, report
from .config import Config


class Run(NamedTuple):
    """A training run in memory. All that changes in it goes into the checkpoint."""

    config: Config
    data: datasets.Data
    model: torch.nn.Module
    optimizer: DessiLBI
    scheduler: LambdaLR
    controller: TargetDensity | None  # of the penalty levels
    recorder: PathRecorder
    generator: torch.Generator  # of the order of the batches

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.data.train) / self.config.batch_size)


# Set-up


def set_up(config: Config) -> Run:
    """Data, net, optimizer, schedule and recorder before the first step; writes nothing."""
    device = pick_device(config.device)
    dtype = getattr(torch, config.dtype)
    data = datasets.load(
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
    datasets.require_batch(data, config.batch_size)
    models.check_pictures(config.model, data.shape[-1], config.dataset)
    torch.manual_seed(config.seed)
    model = models.build(config.model, len(data.classes), data.shape[0], init=config.init)
    model = model.to(device, dtype)
    optimizer = make_optimizer(config, model)
    steps = math.ceil(len(data.train) / config.batch_size)
    controller = None
    if config.shares:  # before the recorder, which then sees each step's levels
        controller = TargetDensity(
            optimizer, config.shares, steps=config.epochs * steps, ramp=config.ramp
        )
    recorder = PathRecorder(optimizer, every=config.record_every, elements=config.elements)
    generator = torch.Generator().manual_seed(config.seed)
    scheduler = LambdaLR(optimizer, lambda step: lr_factor(config, step, steps))
    return Run(config, data, model, optimizer, scheduler, controller, recorder, generator)


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto": a GPU if there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"device must be one that torch can use here, got {name!r}: {reason}"
        ) from None
    return device


def make_optimizer(config: Config, model: torch.nn.Module) -> DessiLBI:
    """The optimizer of a config, with the weights of convolutions and linear layers split."""
    levels = configs.named_numbers("lam_named", config.lam_named)
    groups = split_groups(
        model,
        {name: {"lam": lam} for name, lam in levels.items()},
        conv=config.conv,
        linear=config.linear,
        lam={"conv": config.lam_conv, "linear": config.lam_linear},
        weight=config.weight,
        weight_decay=config.weight_decay,
    )
    return DessiLBI(
        groups,
        config.lr,
        kappa=config.kappa,
        nu=config.nu,
        momentum=config.momentum,
        dampening=config.dampening,
        nesterov=config.nesterov,
        decoupled=config.decoupled,
        coupling=config.coupling,
    )


def lr_factor(config: Config, step: int, steps_per_epoch: int) -> float:
    """What lr is multiplied by in step 0, 1, ... of the run: a function of the step alone."""
    if config.schedule == "step":
        passed = sum(step >= epoch * steps_per_epoch for epoch in config.milestones)
        return config.factor**passed
    if config.schedule == "cosine":
        # Half a cosine from 1 in step 0 towards the end of the last step; never quite lr_min,
        # because DessiLBI refuses lr = 0.
        low = config.lr_min / config.lr
        steps = config.epochs * steps_per_epoch
        return low + (1 - low) * (1 + math.cos(math.pi * min(step, steps - 1) / steps)) / 2
    return 1.0


# Evaluation


@torch.no_grad()
def accuracy(model: torch.nn.Module, part, batch_size=500) -> float:
    """Share of the pictures of ``part`` (``data.test``) that the model, in evaluation mode, puts
    into the right class."""
    was_training = model.training
    model.eval()
    correct = sum((model(x).argmax(1) == y).sum() for x, y in part.batches(batch_size))
    model.train(was_training)
    return correct.item() / len(part)


def evaluate(run: Run) -> dict[str, dict[str, float]]:
    """Accuracy and densities, as fractions, of the three models that a run holds.

    Returns
    -------
    dict
        For "dense" (W), "sparse" (W where Gamma is not zero) and "gamma" (Gamma in place of W):
        ``accuracy``, ``nonzero_split`` (share of the split tensors' entries) and ``nonzero_all``
        (share of all parameters; biases and whatever else is not split count as non-zero). The last
        two also have ``layers``, the share of each split tensor's entries.
    """
    model, test = run.model, run.data.test
    selected = density(run.optimizer, model)
    names = {layer["name"] for layer in selected["layers"]}
    split = [p for name, p in model.named_parameters() if name in names]
    zeros = sum(p.numel() - p.count_nonzero().item() for p in split)
    densities = {key: selected[key] for key in ("nonzero_split", "nonzero_all")}
    densities["layers"] = {
        layer["name"]: layer["nonzero"] / layer["size"] for layer in selected["layers"]
    }
    rows = {
        "dense": {
            "accuracy": accuracy(model, test),
            "nonzero_split": 1 - zeros / sum(p.numel() for p in split),
            "nonzero_all": 1 - zeros / sum(p.numel() for p in model.parameters()),
        }
    }
    with sparse_weights(run.optimizer):
        rows["sparse"] = {"accuracy": accuracy(model, test), **densities}
    with gamma_weights(run.optimizer):
        rows["gamma"] = {"accuracy": accuracy(model, test), **densities}
    return rows


def log_row(run: Run, *, epoch, seconds, lr, loss) -> dict:
    """One line of ``log.jsonl``: accuracies and densities are fractions, loss the epoch's mean."""
    rows = evaluate(run)
    return {
        "epoch": epoch,
        "step": epoch * run.steps_per_epoch,
        "time_s": round(seconds, 3),
        "lr": lr,
        "loss": loss,
        "acc_dense": rows["dense"]["accuracy"],
        "acc_sparse": rows["sparse"]["accuracy"],
        "acc_gamma": rows["gamma"]["accuracy"],
        "nonzero_all": rows["sparse"]["nonzero_all"],
        "nonzero_split": rows["sparse"]["nonzero_split"],
        "layers": rows["sparse"]["layers"],
    }


# The loop


def train(config: Config, *, resume: bool = False, progress: bool | None = None) -> Run:
    """Train as the config says, and leave everything in its run folder.

    An unfinished run of the same config in that folder goes on from its last finished epoch, and
    ends with the weights, the path and the log of an uninterrupted one (bit for bit on a CPU with
    the same number of threads; the log's ``time_s`` excepted).

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
        For a folder that holds a finished run or one of another config, and for missing or damaged
        data; nothing has been written then.
    FloatingPointError
        The loss or a weight is no longer finite. The checkpoint is that of the last good epoch.
    """
    checkpoint = folders.unfinished(config)
    if resume and checkpoint is None:
        raise ValueError(f"{config.folder} must hold an unfinished run, but has no checkpoint")
    with _threads(config.threads):
        run = set_up(config)
        log = begin(run, checkpoint)
        started = time.perf_counter() - log[-1]["time_s"]
        with _bar(run, log[-1]["epoch"], progress) as bar:
            for epoch in range(log[-1]["epoch"] + 1, config.epochs + 1):
                loss, lr = train_epoch(run, epoch, bar)
                seconds = time.perf_counter() - started
                log.append(log_row(run, epoch=epoch, seconds=seconds, lr=lr, loss=loss))
                save(run, log)
                if progress is not False:
                    bar.write(report.epoch_line(log[-1], config.epochs))
    return run


def begin(run: Run, checkpoint: dict | None) -> list[dict]:
    """Make the run folder, or bring it back to its checkpoint; returns the log so far."""
    folder = run.config.folder
    folder.mkdir(parents=True, exist_ok=True)
    if checkpoint is None:
        lr = run.scheduler.get_last_lr()[0]
        log = [log_row(run, epoch=0, seconds=0.0, lr=lr, loss=None)]
        folders.write_text(folder / "config.json", configs.to_json(run.config))
        save(run, log)
    else:
        log = restore(run, checkpoint)
        folders.write_log(folder, log)
    folders.write_environment(folder, next(run.model.parameters()).device, log[-1]["epoch"])
    return log


def train_epoch(run: Run, epoch: int, bar) -> tuple[float, float]:
    """One pass over the training set: the mean loss, and lr in the last step."""
    config, model, optimizer = run.config, run.model, run.optimizer
    weight = next(model.parameters())
    losses = torch.zeros(run.steps_per_epoch, dtype=weight.dtype, device=weight.device)
    checked = 0
    batches = run.data.train.batches(config.batch_size, run.generator)
    for k, (xs, ys) in enumerate(batches):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(xs), ys)
        loss.backward()
        optimizer.step()
        lr = optimizer.param_groups[0]["lr"]
        run.scheduler.step()
        losses[k] = loss.detach() * len(xs)
        bar.update()
        # Looking at the loss waits for the device, so it is done once in fifty steps.
        if k % 50 == 49 or k == run.steps_per_epoch - 1:
            _check_losses(run, epoch, losses, checked, k + 1)
            checked = k + 1
            bar.set_postfix(epoch=epoch, loss=f"{loss.item():.3f}", refresh=False)
    if not all(p.isfinite().all() for p in model.parameters()):
        _diverged(run, epoch, "a weight", epoch * run.steps_per_epoch)
    run.recorder.record()
    return losses.sum().item() / len(run.data.train), lr


def _check_losses(run, epoch, losses, start, stop):
    bad = ~losses[start:stop].isfinite()
    if bad.any():
        k = start + bad.nonzero()[0].item()
        step = (epoch - 1) * run.steps_per_epoch + k + 1
        _diverged(run, epoch, f"the loss ({losses[k].item()})", step)


def _diverged(run, epoch, what, step):
    raise FloatingPointError(
        f"{what} is not finite after step {step} (epoch {epoch}); the last good checkpoint is "
        f"{run.config.folder / 'checkpoint.pt'}, of epoch {epoch - 1}. A smaller lr may help"
    )


@contextmanager
def _threads(count):
    """``count`` CPU threads inside the block; 0: as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _in_jupyter():
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config


def _bar(run, epoch, progress):
    if progress is None:
        progress = sys.stderr.isatty() or _in_jupyter()
    total = run.config.epochs * run.steps_per_epoch
    return tqdm(
        total=total,
        initial=epoch * run.steps_per_epoch,
        desc=run.config.recipe or run.config.dataset,
        unit="step",
        disable=not progress,
        leave=False,
        dynamic_ncols=True,
    )


# Checkpoints


def save(run: Run, log: list[dict]) -> None:
    """Log, path and checkpoint of a finished epoch; each file is replaced whole or not at all.

    The checkpoint comes last and holds the log: a run killed in between resumes from the one
    before, and drops what was written after it.
    """
    folder = run.config.folder
    folders.write_log(folder, log)
    run.recorder.save(folder / "path.npz")
    state = {
        "config": configs.to_json(run.config),
        "epoch": log[-1]["epoch"],
        "log": log,
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scheduler": run.scheduler.state_dict(),
        "controller": run.controller.state_dict() if run.controller else None,
        "recorder": run.recorder.state_dict(),
        "batches": run.generator.get_state(),
        "rng": torch.get_rng_state(),
        "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }
    with folders.atomic(folder / "checkpoint.pt") as temporary:
        torch.save(state, temporary)


def restore(run: Run, checkpoint: dict) -> list[dict]:
    """Put a checkpoint into a run that was just set up; returns its log."""
    run.model.load_state_dict(checkpoint["model"])
    run.optimizer.load_state_dict(checkpoint["optimizer"])
    run.scheduler.load_state_dict(checkpoint["scheduler"])
    if run.controller:
        run.controller.load_state_dict(checkpoint["controller"])
    run.recorder.load_state_dict(checkpoint["recorder"])
    run.generator.set_state(checkpoint["batches"].cpu())
    torch.set_rng_state(checkpoint["rng"].cpu())
    if torch.cuda.is_initialized() and len(checkpoint["rng_cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in checkpoint["rng_cuda"]])
    return checkpoint["log"]


def open_run(folder: str | Path, *, data: str | None = None, device: str = "auto") -> Run:
    """The run of a folder at its last finished epoch: net, optimizer with V, path.

    Parameters
    ----------
    folder : run folder
    data : folder of the data sets; None: as the run's config says
    device : str
    """
    config = folders.read_config(folder)
    config = dataclasses.replace(
        config, out=str(folder), data=data or config.data, device=device, threads=0
    )
    checkpoint = folders.read_checkpoint(folder, config, pick_device(device))
    run = set_up(config)
    restore(run, checkpoint)
    return run

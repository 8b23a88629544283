"""Setting a run up from its config, and opening one that was trained."""

import copy
import dataclasses
import inspect
import math
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ...clock import FallingNu
from ...path import PathRecorder
from ...release import Release, release_
from ...target import TargetDensity
from ...target_cost import TargetCost
from ..config import Config
from ..data import datasets
from ..nets import zoo
from . import run_folder as folders
from .checkpoint import naming_another, restore
from .evaluate import forward
from .initial_net import initial_net
from .make_optimizer import make_optimizer
from .processes import Processes, pick_device
from .pruning import keep_sparse
from .schedules import lr_factor
from .state import Position, Run


class BrokenCompiler(RuntimeError):
    """``torch.compile`` does not work on this machine."""


def set_up(config: Config, processes: Processes | None = None) -> Run:
    """Return data, net, optimizer, schedule and recorder before the first step; write nothing.

    Raises
    ------
    ValueError, FileNotFoundError
        For data that are missing or damaged, or do not fit the config.
    ImportError
        For an optimizer whose package is missing.
    BrokenCompiler
        With ``compile``, where no compiler works.
    """
    if processes is None:
        processes = Processes(0, 1, pick_device(config.device))
    device = processes.device
    data = processes.in_turn(lambda: _load(config, device))
    _check_data(config, data, processes)
    _check_device(config, device)

    model, masks = initial_net(config, data, device)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    _check_batch_norms(config, data, processes, model)
    if config.shard and processes.world > 1:
        _shard(model)
    torch.manual_seed(config.seed + processes.rank)  # no two processes drop the same units
    optimizer = make_optimizer(config, model, data.example())
    steps = math.ceil(len(data.train) / config.batch_size)
    pruning = keep_sparse(config, model, masks, optimizer, data.example(), steps)
    controller = recorder = None
    if config.splits:
        _start_path(config, optimizer, steps)
        if config.nu_schedule == "lr":
            FallingNu(optimizer)
    if config.splits or config.sparse:
        controller = _controller(config, optimizer, steps, model, data)
    if config.splits:  # after the controller: the recorder then sees each step's levels
        recorder = PathRecorder(
            optimizer,
            every=config.record_every,
            elements=config.elements,
            at=config.crossings,
            model=model,
        )
    return Run(
        config=config,
        processes=processes,
        data=data,
        model=model,
        net=_callable(config, model, processes),
        optimizer=optimizer,
        scheduler=LambdaLR(optimizer, lambda step: lr_factor(config, step, steps)),
        controller=controller,
        recorder=recorder,
        pruning=pruning,
        scaler=torch.amp.GradScaler(device.type) if config.amp == "fp16" else None,
        average=_average(config, model),
        generator=torch.Generator().manual_seed(config.seed),
        at=Position(),
    )


def open_run(
    folder: str | Path,
    *,
    data: str | None = None,
    device: str = "auto",
    epoch: int | None = None,
) -> Run:
    """Return the run of a folder at one of its checkpoints: net, optimizer with V, path.

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


def _load(config, device):
    """The data set of a config, on the device."""
    return datasets.load(
        config.dataset,
        config.data,
        normalize=config.normalize,
        statistics=config.statistics,
        holdout=config.holdout,
        train_size=config.train_size,
        shift=config.shift,
        flip=config.flip,
        alternate=config.alternate,
        image_size=config.image_size,
        workers=config.workers,
        corrupt=config.corrupt,
        n_classes=config.n_classes,
        device=device,
        dtype=getattr(torch, config.dtype),
    )


def _start_path(config, optimizer, steps):
    """Let the path start where the config says: with the first step, where it says nothing."""
    start = dict(power=config.release_power, dense=config.dense_start)
    after = math.ceil(config.release * steps)
    if after:
        Release(optimizer, after, pull=config.release_pull, steps=config.epochs * steps, **start)
    elif any(start.values()):
        release_(optimizer, **start)


def _controller(config, optimizer, steps, model, data):
    """What steers the penalty levels towards the target or the cost, if there is one."""
    if config.target is None and config.cost is None:
        return None
    steps *= config.epochs
    options = dict(steps=steps, ramp=config.ramp, first=config.first_share)
    if config.cost is not None:
        options |= config.cost | {"at_least": config.at_least or 1}
        return TargetCost(optimizer, model, data.example(), **options)
    options |= dict(dwell=config.dwell, per_layer=config.per_layer, at_least=config.at_least)
    return TargetDensity(optimizer, config.target, **options)


def _average(config, model):
    """The running average of the weights, if the config wants one."""
    if not config.ema:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)


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


# What is refused


def _check_data(config, data, processes):
    """Refuse a net for other pictures, and an epoch whose last batch leaves a process idle."""
    datasets.require_batch(data, config.batch_size)
    zoo.check_pictures(config.model, data.shape[-1], config.dataset)
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
            raise BrokenCompiler(
                f"compile needs a compiler that works here, but: {reason}"
            ) from error


def _check_batch_norms(config, data, processes, model):
    """Refuse a part of one picture where a BatchNorm then has one value to take a variance of."""
    batches = config.batch_size, len(data.train) % config.batch_size or config.batch_size
    rows = min(batches) // processes.world
    if rows // config.accumulate > 1:
        return
    try:
        with torch.no_grad():
            forward(copy.deepcopy(model).train(), data.example(1), config)
    except ValueError as error:
        raise ValueError(
            f"batch_size must leave at least two pictures for every part of {config.model} with "
            f"BatchNorm, got {config.batch_size}: the last batch has {batches[1]} of "
            f"{len(data.train)} pictures, for {processes.world} process(es) in "
            f"{config.accumulate} part(s)"
        ) from error

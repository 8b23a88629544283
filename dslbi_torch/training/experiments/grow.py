"""Growing a net: start narrow, and widen the layers whose path saturates.

A layer of which nearly all filters are selected has no capacity to spare, so it gets more; one that
leaves filters out has enough. Every round trains for some epochs, looks at the support of Gamma,
and widens (:func:`dslbi_torch.widen_`: the net computes what it did before, old units keep weights,
BatchNorm statistics, V and momentum). The rounds end when nothing is to grow: no layer is
saturated, or no unit fits the budget. Then the net is trained as its config says.

Source: the growing of the authors' TPAMI paper, whose code differs: it has no budget, makes a new
net and optimizer in every round, and so loses V, momentum and running statistics; a linear layer
can hardly saturate there, and the final training multiplies lr by lr itself.
"""

import copy
import math
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ...masks.density import density
from ...masks.whole_filters import whole_filters
from ...penalties import PENALTIES
from ...safe_files import locked
from ...surgery.compact import compact
from ...surgery.saving import save_compact
from ...surgery.widen import Width, reset, widen_, widths
from ...text import text_table
from ..config import Config
from ..nets import zoo
from ..run import checkpoint
from ..run import run_folder as folders
from ..run.contexts import asked_to_stop, memory_errors_in_one_line, torch_switches
from ..run.evaluate import accuracy
from ..run.loop import train_epoch
from ..run.make_optimizer import make_optimizer
from ..run.processes import pick_device, require_one
from ..run.schedules import lr_factor
from ..run.set_up import set_up
from ..run.state import Run
from . import grow_folder
from .compact_run import architecture
from .compare_nets import comparison
from .grow_folder import GrowthPlan


class Grown(NamedTuple):
    """A net that has grown, and the one that it was before it first did, both trained."""

    run: Run
    start: nn.Module
    log: list[dict]  # one row for each epoch: see :func:`grow`


def grow(config: Config, plan: GrowthPlan, *, progress: bool = True) -> Grown:
    """Grow a net as the config and the plan say, and leave it in its run folder.

    Rounds run at the config's constant ``lr``; then follow its ``epochs`` with its schedule. The
    penalty is that of the config: a layer can grow if its filters (neurons) are groups there. The
    start net is the config's, cut down to ``plan.start`` units a layer and drawn anew.

    In the folder: ``grown.pt`` (:func:`dslbi_torch.save_compact`), ``config.json``,
    ``growth.json``, ``environment.json``, ``growth.pt`` (the last checkpoint) and
    ``log.jsonl`` with a row for each epoch: ``epoch, loss, lr, accuracy, parameters, units`` (of
    each width, by its first layer), ``selected`` (share of its filters), and ``grown`` (units that
    were added after it).

    An unfinished growth of the same config in that folder goes on from there, and ends as an
    uninterrupted one (bit for bit on a CPU with the same number of threads).

    Raises
    ------
    ValueError
        For a config without groups, or with what growing does not go with (``UNFIT``), a budget
        below the start net, a net that cannot be followed, several processes, and a folder that
        holds a net, a run or another growth, or in which another process trains. Nothing has been
        written then.
    torch.OutOfMemoryError
        The memory of the GPU does not hold a batch.
    OSError
        A checkpoint could not be written; the one before is as it was.
    FloatingPointError
        The loss or a weight is no longer finite. The checkpoint is the last good one.
    Terminated
        The process was asked to stop (SIGTERM): it did so after a checkpoint.
    """
    require_one("grow")
    _check(config)
    with ExitStack() as stack:
        device = pick_device(config.device)
        stack.enter_context(torch_switches(config, device))
        asked = stack.enter_context(asked_to_stop())
        stack.enter_context(memory_errors_in_one_line(config, device))
        stack.enter_context(locked(config.folder))
        saved = grow_folder.unfinished_growth(config, plan)
        return _grown(start_run(config, plan), plan, saved, asked, progress)


def _grown(run, plan, saved, asked, progress):
    x = run.data.example()
    run, start = (run, None) if saved is None else _restored(run, saved, x)
    grow_folder.begin_growth(run, plan)

    def stop(run):
        grow_folder.save_growth(run, start)
        raise grow_folder.stopped_growth(run)

    while (left := _left(run)) != 0:
        _epoch(run, x, progress, asked, stop)
        if left is None and run.at.epoch % plan.every == 0:
            start = copy.deepcopy(run.model) if start is None else start
            run.at.log[-1]["grown"] = widen_saturated_(run, plan, x)
            run = run if run.at.log[-1]["grown"] else _last(run)
        grow_folder.save_growth(run, start)
        if asked and _left(run) != 0:
            raise grow_folder.stopped_growth(run)
    save_compact(run.model, run.config.folder / "grown.pt", architecture(run))
    return Grown(run, start, run.at.log)


def report(grown: Grown) -> str:
    """Return what the rounds did, and what the net costs and reaches before and after."""
    rounds = [row for row in grown.log if "grown" in row]
    rows = []
    for row in [*rounds, grown.log[-1]]:
        units = (
            f"{name} {n}{f' + {more}' if (more := row.get('grown', {}).get(name)) else ''}"
            f" ({100 * row['selected'][name]:.0f})"
            for name, n in row["units"].items()
        )
        accuracy_percent = f"{100 * row['accuracy']:.2f}"
        rows.append((row["epoch"], f"{row['parameters']:,}", accuracy_percent, ", ".join(units)))
    head = ("epoch", "parameters", "accuracy %", "units (selected %)")
    nets = {"start": grown.start, "grown": grown.run.model}
    return f"{text_table(head, rows, '>>><', (5, 10, 10))}\n\n{comparison(grown.run, nets)}"


# The start


# What growing does not go with. No path is recorded, and only the last checkpoint is kept.
UNFIT = (
    *("target", "cost", "nu_schedule", "initial", "masks", "ema", "compile", "shard"),
    *("release", "release_power", "dense_start"),
    *("elements", "crossings", "keep", "checkpoint_steps", "tensorboard"),
)


def _check(config):
    usual = Config()
    for name in UNFIT:
        if getattr(config, name) != getattr(usual, name):
            raise ValueError(f"{name} must not be set for growing, got {getattr(config, name)!r}")
    words = (config.conv, config.linear)
    if "channel" in words:
        raise ValueError("growing needs groups of single tensors, got channel")
    if not (config.splits and any(PENALTIES[word].sliced for word in words if word)):
        raise ValueError("growing needs a split of conv or linear into groups, got none")


def start_run(config: Config, plan: GrowthPlan) -> Run:
    """Return the run of a config with its net cut down to the start, at constant lr, nothing
    recorded."""
    run = set_up(config)
    if run.recorder is not None:
        run.recorder.detach()
    x = run.data.example()
    masks = {}
    growing = _selected(run, x)
    if not growing:
        raise ValueError(f"model {config.model} must have a layer that can grow, got none")
    for width, _ in growing:
        for layer in width.layers:
            W = run.model.get_submodule(layer).weight
            masks[f"{layer}.weight"] = torch.zeros_like(W, dtype=bool)
            masks[f"{layer}.weight"][: plan.start] = True
    model = compact(run.model, whole_filters(run.model, masks, x), x)
    torch.manual_seed(config.seed)
    zoo.initialise_(model, init=config.init)
    size = count(model)
    if size > plan.budget:
        raise ValueError(
            f"budget must be at least the {size:,} parameters of the start net, got {plan.budget}"
        )
    optimizer = make_optimizer(config, model)
    run = run._replace(model=model, net=model, optimizer=optimizer, recorder=None)
    return _scheduled(run, lambda step: 1.0)


def _last(run):
    """The run with the schedule of the epochs after the rounds."""
    return _scheduled(run, lambda step: lr_factor(run.config, step, run.steps_per_epoch))


def _scheduled(run, factor):
    return run._replace(scheduler=LambdaLR(run.optimizer, factor))


def _draw(config):
    """How the config draws a layer."""

    def draw(layer):
        reset(layer)
        if config.init == "he":
            zoo.he_(layer)

    return draw


# Where it stops and goes on


def _restored(run, saved, x):
    """A run of the start net brought to its checkpoint, and the net before it first grew."""
    start = None
    if saved["start"] is not None:
        start = copy.deepcopy(run.model)
        start.load_state_dict(saved["start"])
    for row in saved["log"]:
        for name, units in row.get("grown", {}).items():
            widen_(run.model, run.optimizer, {name: units}, x)
    run.at.log = saved["log"]
    if _left(run) is not None:
        run = _last(run)
    checkpoint.restore(run, saved)
    return run, start


def _left(run):
    """Epochs that are left where nothing is to grow any more; None before that."""
    for row in run.at.log:
        if row.get("grown") == {}:
            return run.config.epochs - (run.at.epoch - row["epoch"])
    return None


def open_grown(folder: str | Path, *, data: str | None = None, device: str = "auto") -> Run:
    """Return the run of a growth's folder at its last checkpoint: the net as it has grown, its
    optimizer with V, no path; arguments as in :func:`dslbi_torch.training.run.set_up.open_run`."""
    config = folders.read_config(folder)
    config = replace(config, out=str(folder), data=data or config.data, device=device, threads=0)
    run = start_run(config, grow_folder.read_plan(config.folder))
    saved = grow_folder.read_growth(config, run.processes.device)
    return _restored(run, saved, run.data.example())[0]


# A round


def count(model: nn.Module) -> int:
    """Return the number of parameters of a net."""
    return sum(p.numel() for p in model.parameters())


def widen_saturated_(run: Run, plan: GrowthPlan, x: torch.Tensor) -> dict[str, int]:
    """Widen what is saturated, as far as the budget goes; return the units that came, by the first
    layer of each width. Nothing: growing is over.

    Where the budget is short, the widths whose units cost the fewest parameters come first."""
    saturated = [width for width, share in _selected(run, x) if share >= plan.saturated]
    grown = {}
    for name in (width.layers[0] for width in sorted(saturated, key=lambda width: width.cost)):
        # asked anew: a unit costs more once the layer before it has grown
        width = next(width for width in widths(run.model, x) if name in width.layers)
        wanted = max(plan.least, math.floor(plan.rate * width.units) - width.units)
        units = min(wanted, (plan.budget - count(run.model)) // width.cost)
        if units > 0:
            widen_(run.model, run.optimizer, {name: units}, x, draw=_draw(run.config))
            grown[name] = units
    return grown


def _selected(run, x) -> list[tuple[Width, float]]:
    """The widths that can grow, and the share of the filters of each that are selected."""
    layers = {
        layer.name.removesuffix(".weight"): layer
        for layer in density(run.optimizer, run.model).layers
        if layer.units < layer.size  # not of single weights
    }
    found = []
    for width in widths(run.model, x):
        split = [layers[name] for name in width.layers if name in layers]
        if split:
            selected = sum(layer.units_selected for layer in split)
            found.append((width, selected / sum(layer.units for layer in split)))
    return found


def _epoch(run, x, progress, asked=None, stop=None):
    """The rest of an epoch of training, and its row in the log."""
    loss, lr, _ = train_epoch(run, asked=asked, stop=stop)
    run.at.epoch, run.at.batch, run.at.losses = run.at.epoch + 1, 0, None
    found = _selected(run, x)
    row = {
        "epoch": run.at.epoch,
        "loss": loss,
        "lr": lr,
        "accuracy": accuracy(run.model, run.data.test, run.config, run.processes),
        "parameters": count(run.model),
        "units": {width.layers[0]: width.units for width, _ in found},
        "selected": {width.layers[0]: share for width, share in found},
    }
    run.at.log.append(row)
    if progress:
        print(
            f"epoch {row['epoch']:>3}  loss {loss:.4f}  accuracy % {100 * row['accuracy']:6.2f}"
            f"  parameters {row['parameters']:,}"
        )

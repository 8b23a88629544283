"""What the runs of the campaign cost: operations and seconds, and which precision is faster."""

import json
import math
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from dslbi_torch.surgery.costs import count_macs
from dslbi_torch.training.nets import zoo
from dslbi_torch.training.run import loop
from dslbi_torch.training.run.run_folder import write_text
from dslbi_torch.training.run.set_up import set_up

AMPS = {"fp32": None, "bf16": "bf16"}
PICTURES = {"cifar10": (50_000, 3, 32), "imagenette": (9_469, 3, 224), "digits": (1_437, 1, 8)}


def kind(config) -> str:
    """Return what runs of the same cost have in common."""
    size = f"-{config.image_size}" if config.image_size else ""
    return f"{config.dataset}{size} {config.model} {config.batch_size}"


def epoch_operations(config) -> float:
    """Return the operations of an epoch: two for each multiplication, forward and twice back."""
    n, channels, size = PICTURES[config.dataset]
    pictures = config.train_size or n - config.holdout
    return 6.0 * pictures * _multiplications(config.model, channels, config.image_size or size)


@cache
def _multiplications(model, channels, size):
    with torch.device("meta"):
        net, x = zoo.build(model, 10, channels), torch.zeros(1, channels, size, size)
        return count_macs(net, x)[""]


def precision(config, runs: Path, steps=3) -> str | None:
    """Return "bf16" or None, whichever makes the faster steps here; timed once for each kind."""
    timed, key = _timed(runs), kind(config)
    if key not in timed:
        timed[key] = {name: _epoch_s(config, amp, steps) for name, amp in AMPS.items()}
        write_text(runs / "precision.json", json.dumps(timed, indent=1) + "\n")
    return AMPS[min(AMPS, key=timed[key].get)]


def _timed(runs):
    file = runs / "precision.json"
    return json.loads(file.read_text()) if file.exists() else {}


def _epoch_s(config, amp, steps):
    """Seconds that the steps of an epoch take, by the fastest of a few after one that warms up."""
    run = set_up(replace(config, amp=amp, masks=None, initial=None))
    x, y = next(run.data.train.batches(config.batch_size))
    run.net.train()
    times = []
    for _ in range(1 + steps):
        start = time.perf_counter()
        loop.train_step(run, x, y, len(y)).item()
        times.append(time.perf_counter() - start)
    return min(times[1:]) * run.steps_per_epoch


def epoch_s(logs: list, runs: Path) -> dict[str, float]:
    """Return seconds of an epoch by kind of run.

    ``logs`` has pairs of a config and the log of its run so far. A kind that has none yet takes
    what its steps took when they were timed; one that was not timed is left out.
    """
    found = {}
    for config, log in logs:
        if log and log[-1]["epoch"]:
            found.setdefault(kind(config), []).append(log[-1]["time_s"] / log[-1]["epoch"])
    means = {key: sum(values) / len(values) for key, values in found.items()}
    return {key: min(times.values()) for key, times in _timed(runs).items()} | means


def seconds(config, epochs: int, known: dict[str, float], configs) -> float:
    """Return seconds of so many epochs; of a kind that is not known by its operations, at the mean
    rate of the kinds of these configs that are. nan where none is."""
    if kind(config) in known:
        return epochs * known[kind(config)]
    kinds = {kind(other): epoch_operations(other) for other in configs if kind(other) in known}
    rates = [operations / known[key] for key, operations in kinds.items()]
    rate = sum(rates) / len(rates) if rates else math.nan
    return epochs * epoch_operations(config) / rate


def hours(seconds: float) -> str:
    """Return a time as h:mm, or ? where it is not known."""
    if math.isnan(seconds):
        return "?"
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d}"

"""Rows of the paper that two cores can fill, on MNIST: Tables 2 and 8, Figure 1, and growing.

    python -m benchmarks.rows PART ... [--seeds 0 1 2] [--minutes 480] [--runs runs/rows]

table8       The share of non-zeros in each layer of LeNet-300-100: the recipe ``mnist-lenet300``,
             30 epochs.
table2       The MNIST columns of Table 2: ``mnist-lenet5-paper`` in 30 epochs, lr a tenth after 10
             and 20, by every optimizer of the table. The lr of each is the best of three in three
             epochs (a tenth after 1 and 2) on 20,000 training pictures, measured on 10,000 others.
figure1      150 epochs with the levels of the authors' example (``mnist-lenet5-official``), lr a
             tenth after 40 and 80, and the same by SGD: the norms of the 120 filters of the third
             convolution. How many survive is found, not asked for.
fixed_width  Nets of the kind that ``benchmarks/growing.py`` grows, of fixed width from the first
             step, in as many epochs (18) and at most 1,500 parameters, by SGD: with the widths that
             growing has found, and with one width for all layers. The lr of each is the best of
             three in three epochs on held-out pictures, as above.

Each run has a folder below ``--runs`` and goes on from its last checkpoint, so the command may be
stopped (SIGTERM, Ctrl-C) and given again. ``results/PART.json`` is written anew after every run,
with what is finished then, and for ``figure1`` the picture ``book/_static/figure1.png``. The test
set is measured in every epoch, and the last one is what is quoted; nothing was chosen by it.
"""

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks.runs import environment, settings, short
from dslbi_torch import save_masks, whole_filters
from dslbi_torch.figures import filter_norms
from dslbi_torch.path import NEVER
from dslbi_torch.safe_files import atomic
from dslbi_torch.training.config import without_path
from dslbi_torch.training.nets import zoo
from dslbi_torch.training.recipes import recipe
from dslbi_torch.training.run import run_folder as folders
from dslbi_torch.training.run.report import read_path
from dslbi_torch.training.run.sessions import ran_on
from dslbi_torch.training.run.train import train

RESULTS = Path(__file__).parent / "results"
FIGURE = Path(__file__).parents[1] / "book" / "_static" / "figure1.png"
GRID_SEED = 100  # of the trials; no quoted run has it
TRIAL = dict(holdout=10_000, train_size=20_000, epochs=3, seed=GRID_SEED)
DROPPED = ("layers", "acc_ema", "step", "skipped", "time_s", "pictures_s", "nonzero_all")
THIRD = "conv3.weight"

# The rows of each part: {name: config}, and of those that have a grid the values of lr


def table8(runs):
    return {"dessilbi": recipe("mnist-lenet300").config}


def table2(runs):
    own = replace(recipe("mnist-lenet5-paper").config, epochs=30, milestones=(10, 20))
    plain = dict(weight_decay=0.0)
    sgd = without_path(own, "sgd")
    return {
        "DessiLBI": replace(own, momentum=0.0, **plain),
        "DessiLBI-Mom": replace(own, **plain),
        "DessiLBI-Mom-Wd": own,
        "SGD": replace(sgd, momentum=0.0, **plain),
        "SGD with l1": replace(sgd, momentum=0.0, l1=1e-3, **plain),
        "SGD-Mom": replace(sgd, **plain),
        "SGD-Mom-Wd": sgd,
        "SGD-Nesterov": replace(sgd, nesterov=True),
        **{
            name.capitalize(): replace(without_path(own, name), **plain)
            for name in ("adam", "adabound", "adagrad", "amsgrad", "radam")
        },
    }


def figure1(runs):
    own = recipe("mnist-lenet5-official").config
    own = replace(own, epochs=150, milestones=(40, 80), record_every=469)  # steps of an epoch
    return {"dessilbi": own, "sgd": replace(without_path(own, "sgd"), keep=own.epochs)}


WIDTHS = {"found": (13, 24, 12), "even": (16, 16, 16)}  # 1,486 and 1,466 parameters


def fixed_width(runs):
    config = replace(
        without_path(recipe("mnist-small-net").config, "sgd"), epochs=18, channels_last=True
    )
    found = {}
    for name, units in WIDTHS.items():
        file = runs / f"fixed_width-{name}.masks"
        save_first_units(file, config.model, units)
        found[name] = replace(config, masks=str(file), cut="new")
    return found


def save_first_units(file, model, units):
    """Masks of the first filters of each convolution: the lab cuts its net down to them."""
    torch.manual_seed(0)
    net = zoo.build(model)
    masks = {}
    for n, layers in zip(
        units, (("conv1", "depth2"), ("conv2", "depth3"), ("conv3",)), strict=True
    ):
        for layer in layers:
            W = net.get_submodule(layer).weight
            masks[f"{layer}.weight"] = torch.zeros_like(W, dtype=torch.bool)
            masks[f"{layer}.weight"][:n] = True
    save_masks(whole_filters(net, masks, torch.zeros(1, 1, 28, 28)), file)


PARTS = {"table8": table8, "figure1": figure1, "fixed_width": fixed_width, "table2": table2}
_ADAM = (3e-4, 1e-3, 3e-3)
GRIDS = {
    "table2": {
        **dict.fromkeys(("DessiLBI", "SGD", "SGD with l1"), (0.03, 0.1, 0.3)),
        **dict.fromkeys(
            ("DessiLBI-Mom", "DessiLBI-Mom-Wd", "SGD-Mom", "SGD-Mom-Wd", "SGD-Nesterov"),
            (0.01, 0.03, 0.1),
        ),
        **dict.fromkeys(("Adam", "Adabound", "Amsgrad", "Radam"), _ADAM),
        "Adagrad": (3e-3, 1e-2, 3e-2),
    },
    "fixed_width": dict.fromkeys(WIDTHS, (0.03, 0.1, 0.3)),
}


# What is computed


def placed(config, folder, **changes):
    return replace(config, out=str(folder), device="cpu", threads=1, **changes)


def finished(folder, config):
    """The log of a run, if it is finished."""
    if not (folder / "log.jsonl").exists():
        return None
    log = folders.read_log(folder)
    return log if log[-1]["epoch"] == config.epochs else None


def trial(config, folder):
    """Accuracy of a short run on held-out pictures; nothing of one that diverges."""
    if config.milestones:
        config = replace(config, milestones=(1, 2))
    config = placed(config, folder, **TRIAL)
    failed = folder / "diverged"
    if finished(folder, config) is None and not failed.exists():
        try:
            train(config, progress=False)
        except FloatingPointError as error:
            failed.write_text(str(error))
    return 0.0 if failed.exists() else finished(folder, config)[-1]["acc_dense"]


def tuned(part, name, config, runs):
    """A config with the best lr of its grid, and the trials: {lr: accuracy}."""
    tried = {}
    for lr in GRIDS.get(part, {}).get(name, ()):
        folder = runs / f"{part}-{name}-lr-{lr:g}"
        tried[lr] = trial(replace(config, lr=lr), folder)
    return (replace(config, lr=max(tried, key=tried.get)) if tried else config), tried


def go(part, seeds, runs, until):
    """Compute what is not there yet, and write the record after each run; False: time is over."""
    rows = PARTS[part](runs)
    chosen = {}
    for name, config in rows.items():
        if time.monotonic() > until:
            return False
        chosen[name] = tuned(part, name, config, runs)
    done = []
    for seed in seeds:
        for name, (config, _) in chosen.items():
            folder = runs / f"{part}-{name}-{seed}"
            config = placed(config, folder, seed=seed)
            if finished(folder, config) is None:
                if time.monotonic() > until:
                    return False
                train(config, progress=False)
            done.append(kept(part, name, config))
            last = done[-1]["log"][-1]
            print(part, name, seed, {k: v for k, v in last.items() if "acc" in k}, flush=True)
            write(part, seeds, chosen, done)
    return True


# What is kept


def kept(part, name, config):
    """What is kept of a finished run."""
    folder = config.folder
    log, first = folders.read_log(folder), environment(folder)
    found = {
        "name": name,
        "seed": config.seed,
        "date": first["started"][:10],
        **ran_on(first),
        "settings": {k: v for k, v in settings(config).items() if k not in ("masks", "recipe")},
        "seconds": round(log[-1]["time_s"]),
        "log": [
            {k: short(v) for k, v in row.items() if k not in DROPPED and v is not None}
            for row in (log if part == "figure1" else log[-1:])
        ],
        "nonzero_all": short(log[-1]["nonzero_all"]),
        "layers": {k: short(v) for k, v in (log[-1]["layers"] or {}).items()},
    }
    return found | (filters(config) if part == "figure1" else {})


def shown(epochs):
    """Epochs of which norms are kept: all of the beginning, then every fifth."""
    return [*range(min(epochs, 10) + 1), *range(15, epochs + 1, 5)]


def filters(config):
    """The norms of the third convolution's filters after some epochs, and when they entered."""
    epochs = shown(config.epochs)
    if not config.splits:
        Ws = [_checkpoint(config, epoch)["model"][THIRD] for epoch in epochs[1:]]
        norms = [W.flatten(1).norm(dim=1).tolist() for W in Ws]
        return {"epochs": epochs[1:], "weight_norm": _rounded(norms)}
    path = read_path(config.folder)
    steps = np.asarray(path.steps)
    rows = [int(np.argmax(steps >= epoch * config.record_every)) for epoch in epochs]
    return {
        "epochs": epochs,
        "weight_norm": _rounded(path.weight_norm[THIRD][rows]),
        "gamma_norm": _rounded(path.gamma_norm[THIRD][rows]),
        "entry_step": np.asarray(path.entry[THIRD]).tolist(),
    }


def _checkpoint(config, epoch):
    return folders.read_checkpoint(config.folder, config, torch.device("cpu"), epoch=epoch)


def _rounded(norms):
    return [[float(f"{x:.4g}") for x in row] for row in norms]


def write(part, seeds, chosen, done):
    words = " ".join(map(str, seeds))
    content = {
        "command": f"python -m benchmarks.rows {part} --seeds {words}",
        "trials": {
            name: [{"lr": lr, "held_out": accuracy} for lr, accuracy in tried.items()]
            for name, (_, tried) in chosen.items()
            if tried
        },
        "runs": done,
    }
    with atomic(RESULTS / f"{part}.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
    if part == "figure1" and len(done) > 1:
        draw(done)


def draw(runs):
    """The norms of the filters of W along the epochs: the path's, and SGD's."""
    with plt.style.context("dslbi_ref.figures.book"):
        axes = plt.subplots(1, 2, sharey=True, figsize=(8.0, 3.4), layout="constrained")[1]
        for ax, run in zip(axes, runs[:2], strict=True):  # of the first seed
            norms = np.asarray(run["weight_norm"])
            entry = np.asarray(run.get("entry_step", np.full(norms.shape[1], NEVER)))
            filter_norms(run["epochs"], norms, entry=entry, ax=ax, ylabel="norm of the filter in W")
            ax.set(xlabel="epoch")
        axes[1].set(title=f"SGD: {norms.shape[1]} filters", ylabel="")
        axes[0].figure.savefig(FIGURE)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing after these")
    parser.add_argument("--runs", type=Path, default=Path("runs/rows"))
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * args.minutes
    for part in args.parts:
        go(part, args.seeds, args.runs, until)


if __name__ == "__main__":
    main()

"""The order in which filters enter, beside other orders, without and with BatchNorm.

    python -m benchmarks.filters --trials          # on held-out pictures, for the settings below
    python -m benchmarks.filters [--nets lenet5 small-net] [--seeds 10 11 12 13 14]

MNIST. One run of 4 epochs for each net and seed: in the first Gamma and V are zero, and while the
path runs in the other three half of the weights enter, whole filters and neurons at a time. The net
as it is then is cut by four orders, all of this run:

entry      the step at which a filter entered
gamma      its norm in Gamma at the end
magnitude  its norm in W at the end
random     drawn, as many in each layer as by the others

Read off by layers (``layer``: each keeps the same share of its filters, one at least) and of the
whole net (``net``: one order, of the norms as they are). The first is measured at every density,
and at 30 and 10 % also with 2 epochs of training of the cut net; the second, which may leave
nothing of a layer, at 50 and 30 %. What decides the classes (the last layer) and filters of one
channel (small-net's depthwise ones) have levels next to zero and no part in the orders. Where there
is BatchNorm, the means and variances of a cut net are taken anew, over the first 5,000 training
pictures in their order, before it is measured.

nu and the power of the levels (``release_power``) were chosen for each net on 10,000 held-out
training pictures, with seeds 0 and 1, among the four pairs of ``TRIED``: the best mean accuracy by
entry and by Gamma, over layers at all densities, without training of the cut net. They stand in
``SETTINGS`` since before the test set was read.

What is finished lies in ``--runs`` and is not computed again. ``results/filters.json`` has the rows
of all runs, the trials, and of each net, reading and density the means, standard deviations and the
paired differences of entry with their 95 % intervals (Student's t over the seeds).
"""

import argparse
import copy
import json
import math
import statistics
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from scipy.stats import t as student
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR

from dslbi_torch import (
    MaskedTraining,
    apply_masks_,
    entry_ranking,
    gamma_ranking,
    magnitude_ranking,
    random_masks,
    ranked_masks,
    whole_filters,
)
from dslbi_torch.forward import evaluating
from dslbi_torch.layers import NORM
from dslbi_torch.safe_files import atomic
from dslbi_torch.surgery.compact import compact_with_masks
from dslbi_torch.training.config import Config
from dslbi_torch.training.run.sessions import environment
from dslbi_torch.training.run.set_up import open_run
from dslbi_torch.training.run.train import train

RECORD = Path(__file__).parent / "results" / "filters.json"
HELD_OUT, TRIAL_SEEDS, SEEDS = 10_000, (0, 1), (10, 11, 12, 13, 14)
WARM, EPOCHS, FINE_TUNING = 1, 4, 2
LR_FINE, BATCH = 0.02, 128
READ = {"layer": (0.5, 0.3, 0.2, 0.1), "net": (0.5, 0.3)}  # the densities of each reading
TUNED = (0.3, 0.1)  # of these the cut net is trained
ORDERS = ("entry", "gamma", "magnitude", "random")
DECIDE = ORDERS[:2]  # of the trials
ANEW = 5_000  # pictures from which BatchNorm's means and variances are taken
OWN = Config(
    dataset="mnist",
    shift=1,
    epochs=EPOCHS,
    lr=0.05,
    schedule="cosine",
    weight="sqrt",
    release=WARM,
    target=0.5,
    ramp=1.0,
    channels_last=True,
    device="cpu",
    threads=1,
)
APART = 1e-6  # level of what has no part in the orders
NETS = {
    "lenet5": replace(OWN, model="lenet5", linear="group", lam_named={"fc2.weight": APART}),
    "small-net": replace(
        OWN,
        model="small-net",
        linear=None,
        lam_named={"depth2.weight": APART, "depth3.weight": APART},
    ),
}
TRIED = tuple({"nu": nu, "release_power": P} for nu, P in product((2.5, 6.0), (0.0, 1.0)))
SETTINGS = dict.fromkeys(NETS)  # chosen by the trials


# The orders of a run


def masks_of(run, by, density, reading, seed):
    """Masks of whole filters by an order of a run."""
    if by == "random":
        drawn = masks_of(run, "gamma", density, reading, seed)
        return whole_filters(run.model, random_masks(_weights(drawn), seed=seed), _example(run))
    ranking = {
        "entry": lambda: entry_ranking(run.recorder),
        "gamma": lambda: gamma_ranking(run.optimizer),
        "magnitude": lambda: magnitude_ranking(run.optimizer),
    }[by]()
    names = [name for name in ranking.place if name not in run.config.lam_named]
    if reading == "layer":
        masks = ranked_masks(ranking, dict.fromkeys(names, density))
    else:
        own = {name: ranking.place[name] for name in names}
        families = [family for family in ranking.families if family[0] in own]
        masks = ranked_masks(ranking._replace(place=own, families=families), density)
    return whole_filters(run.model, masks, _example(run))


def _weights(masks):
    return {name: mask for name, mask in masks.items() if mask.ndim > 1}


def _example(run):
    return run.data.example()


# What is measured


def measured(run):
    """The rows of a run: accuracy of every cut net, without and with training it."""
    rows, trial = (
        [{"order": "dense", "without": accuracy(run.model, run.data.test)}],
        run.config.holdout,
    )
    cuts = [(reading, D) for reading, densities in READ.items() for D in densities]
    if trial:
        cuts = [cut for cut in cuts if cut[0] == "layer"]
    for (reading, density), by in product(cuts, DECIDE if trial else ORDERS):
        masks = masks_of(run, by, density, reading, run.config.seed)
        net = apply_masks_(copy.deepcopy(run.model), masks)
        norms_anew_(net, run.data.train)
        row = {"order": by, "reading": reading, "density": density}
        row["filters"] = {n: int(m.flatten(1).any(1).sum()) for n, m in _weights(masks).items()}
        row["without"] = accuracy(net, run.data.test)
        if reading == "layer" and density in TUNED and not trial:
            row["with"] = tuned(*compact_with_masks(net, masks, _example(run)), run)
        rows.append(row)
    return rows


@torch.no_grad()
def norms_anew_(net, part):
    """Take the means and variances of BatchNorm anew, from training pictures in their order."""
    norms = [module for module in net.modules() if isinstance(module, NORM)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    net.train()
    for k, (x, _) in enumerate(part.batches(500)):
        if k * 500 >= ANEW:
            break
        net(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def accuracy(net, part):
    with evaluating(net):
        hits = sum(int((net(x).argmax(1) == y).sum()) for x, y in part.batches(500))
    return hits / len(part)


def tuned(net, masks, run):
    """Accuracy of a cut net after a short training; what of it is masked stays zero."""
    part, generator = run.data.train, torch.Generator().manual_seed(run.config.seed + 1000)
    optimizer = torch.optim.SGD(net.parameters(), LR_FINE, momentum=0.9)
    MaskedTraining(net, optimizer, masks)
    fall = CosineAnnealingLR(optimizer, FINE_TUNING * math.ceil(len(part) / BATCH))
    net.train()
    for _ in range(FINE_TUNING):
        for x, y in part.batches(BATCH, generator):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            fall.step()
    return accuracy(net, run.data.test)


def rows_of(config, folder):
    """The rows of a run that is in the folder, or will be."""
    file = folder / "rows.json"
    if not file.exists():
        config = replace(config, out=str(folder))
        log = folder / "log.jsonl"
        if not log.exists() or json.loads(log.read_text().splitlines()[-1])["epoch"] < EPOCHS:
            train(config, progress=False)
        rows = measured(open_run(folder, device="cpu"))
        with atomic(file) as temporary:
            temporary.write_text(json.dumps(rows, indent=1))
    return json.loads(file.read_text())


# Trials and record


def score(rows):
    """What decides among settings."""
    own = [row for row in rows if row["order"] in DECIDE]
    return statistics.fmean(row["without"] for row in own)


def trials(name, runs):
    """The trials of a net: settings and score, the mean over the seeds."""
    found = []
    for change in TRIED:
        words = "-".join(f"{v:g}" for v in change.values())
        scores = []
        for seed in TRIAL_SEEDS:
            config = replace(NETS[name], seed=seed, holdout=HELD_OUT, **change)
            scores.append(score(rows_of(config, runs / f"{name}-try-{words}-{seed}")))
        found.append({**change, "score": statistics.fmean(scores), "scores": scores})
        print(name, found[-1], flush=True)
    return found


def summary(rows):
    """Means, standard deviations, and the differences of entry from the others, in points."""
    cells = {}
    for row in rows:
        if row["order"] != "dense":
            for key in {"without", "with"} & row.keys():
                place = (row["net"], row["reading"], row["density"], key)
                cells.setdefault(place, {}).setdefault(row["order"], {})[row["seed"]] = row[key]
    found = []
    for (net, reading, density, key), orders in cells.items():
        cell = {"net": net, "reading": reading, "density": density, "tuning": key}
        for order, values in orders.items():
            percent = [100 * x for x in values.values()]
            cell[order] = {"mean": statistics.fmean(percent), "sd": statistics.stdev(percent)}
            if order != "entry":
                cell[order]["entry_minus"] = paired(orders["entry"], values)
        found.append(cell)
    return found


def paired(own, other):
    """Mean of the differences over the seeds, in points, and its 95 % interval."""
    found = [100 * (own[seed] - other[seed]) for seed in own]
    mean, n = statistics.fmean(found), len(found)
    half = student.ppf(0.975, n - 1) * statistics.stdev(found) / math.sqrt(n)
    return {"mean": mean, "low": mean - half, "high": mean + half}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=list(NETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--trials", action="store_true", help="on held-out pictures only")
    parser.add_argument("--runs", type=Path, default=Path("runs/filters"))
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    tried = {name: trials(name, args.runs) for name in args.nets}
    if args.trials:
        return
    rows = []
    for name, seed in product(args.nets, args.seeds):
        config = replace(NETS[name], seed=seed, **SETTINGS[name])
        own = rows_of(config, args.runs / f"{name}-{seed}")
        rows += [{"net": name, "seed": seed, **row} for row in own]
        print(name, seed, [row["without"] for row in own[:5]], flush=True)
        record(args, tried, rows)


def record(args, tried, rows):
    about = environment(torch.device("cpu"))
    words = ["--nets", *args.nets, "--seeds", *map(str, args.seeds)]
    about["command"] = " ".join(["python -m benchmarks.filters", *words])
    seeds = {net: {row["seed"] for row in rows if row["net"] == net} for net in args.nets}
    several = [row for row in rows if len(seeds[row["net"]]) > 1]
    content = {
        "about": about,
        "settings": {name: SETTINGS[name] for name in args.nets},
        "trials": tried,
        "summary": summary(several),
        "rows": rows,
    }
    with atomic(RECORD) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()

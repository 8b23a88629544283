"""The order in which filters enter, beside other orders, without and with BatchNorm.

    python -m benchmarks.filters --trials          # on held-out pictures, for the settings below
    python -m benchmarks.filters [--nets lenet5 small-net] [--seeds 10 11 12 13 14]

MNIST, 10,000 of its training pictures, equally many of each class. One run of 6 epochs for each net
and seed: in the first two Gamma and V are zero, and while the path runs in the other four half of
the weights enter, whole filters and neurons at a time. The net as it is then is cut by four orders,
all of this run:

entry      the step at which a filter entered
gamma      its norm in Gamma at the end
magnitude  its norm in W at the end
random     drawn, as many in each layer as by Gamma

A density is the share of the split weights of the whole net that the first filters of one order
hold. It is measured without more training, and at 10 % (small-net: and 30 %) also with 2 epochs of
training of the cut net. Not split are the last layer, whose rows are the classes, and filters of
one channel (small-net's depthwise ones). Where there is BatchNorm, the means and variances of a cut
net are taken anew, over 5,000 training pictures in their order, before it is measured.

nu and the power of the levels (``release_power``) were chosen for each net on 10,000 held-out
training pictures, with seed 0, among the three pairs of ``TRIED``: the best mean accuracy by entry
and by Gamma, at all densities, without training of the cut net. They stand in ``SETTINGS`` since
before the test set was read.

What is finished lies in ``--runs`` and is not computed again. ``results/filters.json`` has of each
net the rows of all runs, the trials, and at each density the means, standard deviations and the
paired differences of entry with their 95 % intervals (Student's t over the seeds).
"""

import argparse
import copy
import json
import math
import statistics
from itertools import islice, product
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmarks.intervals import paired, summary
from dslbi_torch import (
    DessiLBI,
    MaskedTraining,
    PathRecorder,
    Release,
    TargetDensity,
    apply_masks_,
    entry_ranking,
    gamma_ranking,
    magnitude_ranking,
    random_masks,
    ranked_masks,
    split_groups,
    whole_filters,
)
from dslbi_torch.forward import evaluating
from dslbi_torch.layers import NORM
from dslbi_torch.safe_files import atomic
from dslbi_torch.surgery.compact import compact_with_masks
from dslbi_torch.surgery.shrink import renew_statistics_
from dslbi_torch.training.data import datasets
from dslbi_torch.training.nets import zoo
from dslbi_torch.training.run.sessions import environment

RECORD = Path(__file__).parent / "results" / "filters.json"
PICTURES, HELD_OUT, ANEW = 10_000, 10_000, 5_000
TRIAL_SEEDS, SEEDS = (0,), (10, 11, 12, 13, 14)
WARM, EPOCHS, FINE_TUNING, BATCH, SHIFT = 2, 6, 2, 128, 1
LR, LR_FINE, MOMENTUM = 0.05, 0.02, 0.9
ENTERED = 0.5  # share of the split weights that have entered at the end
DENSITIES = (0.5, 0.3, 0.2, 0.1)
TUNED = {"lenet5": (0.1,), "small-net": (0.3, 0.1)}  # where the cut net is trained
ORDERS = ("entry", "gamma", "magnitude", "random")
DECIDE = ORDERS[:2]  # of the trials
NETS = {  # what is split
    "lenet5": dict(rules={"fc2": None}, linear="group"),
    "small-net": dict(rules={"depth*": None}, linear=None),
}
TRIED = tuple({"nu": nu, "power": P} for nu, P in ((0.5, 0.0), (0.5, 1.0), (1.5, 0.0)))
SETTINGS = dict.fromkeys(NETS, {"nu": 0.5, "power": 1.0})  # chosen by the trials


# A run, and its orders


def path_run(name, part, seed, nu, power):
    """Train a net; return it, its optimizer and the record of its path."""
    torch.manual_seed(seed)
    model = zoo.build(name).to(memory_format=torch.channels_last)
    groups = split_groups(model, weight="sqrt", nu=nu, apart=True, **NETS[name])
    optimizer = DessiLBI(groups, LR, momentum=MOMENTUM)
    each = math.ceil(len(part) / BATCH)
    Release(optimizer, WARM * each, power=power, steps=EPOCHS * each)
    TargetDensity(optimizer, ENTERED, steps=EPOCHS * each, ramp=1.0)
    recorder = PathRecorder(optimizer, every=EPOCHS * each)
    train(model, optimizer, part, EPOCHS, seed)
    return model, optimizer, recorder


def train(model, optimizer, part, epochs, seed):
    """Epochs of cross-entropy, lr on half a cosine from where it stands."""
    generator = torch.Generator().manual_seed(seed)
    steps, lr = epochs * math.ceil(len(part) / BATCH), optimizer.param_groups[0]["lr"]
    fall = CosineAnnealingLR(optimizer, steps, eta_min=1e-3 * lr)  # never 0
    model.train()
    for _ in range(epochs):
        for x, y in part.batches(BATCH, generator):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            fall.step()


def masks_of(model, optimizer, recorder, by, density, seed):
    """Masks of whole filters by an order of a run: of the weights, and with what goes with them."""
    ranking = {
        "entry": lambda: entry_ranking(recorder),
        "gamma": lambda: gamma_ranking(optimizer),
        "magnitude": lambda: magnitude_ranking(optimizer),
        "random": lambda: gamma_ranking(optimizer),
    }[by]()
    masks = ranked_masks(ranking, density)
    if by == "random":
        masks = random_masks(masks, seed=seed)
    return masks, whole_filters(model, masks, EXAMPLE)


EXAMPLE = torch.zeros(2, 1, 28, 28)


# What is measured


def measured(name, data, seed, setting, trial):
    """The rows of a run: accuracy of every cut net, without and with training it."""
    part, test = data.train, data.test
    model, *path = path_run(name, part, seed, **setting)
    rows = [{"order": "dense", "without": accuracy(model, test)}]
    for density, by in product(DENSITIES, DECIDE if trial else ORDERS):
        weights, masks = masks_of(model, *path, by, density, seed)
        net = apply_masks_(copy.deepcopy(model), masks)
        if any(isinstance(module, NORM) for module in net.modules()):
            renew_statistics_(net, islice(part.batches(500), ANEW // 500))
        row = {"order": by, "density": density}
        row["filters"] = {n: int(m.flatten(1).any(1).sum()) for n, m in weights.items()}
        row["without"] = accuracy(net, test)
        if density in TUNED[name] and not trial:
            row["with"] = tuned(net, masks, part, test, seed)
        rows.append(row)
    return rows


@torch.no_grad()
def accuracy(net, part):
    with evaluating(net):
        hits = sum(int((net(x).argmax(1) == y).sum()) for x, y in part.batches(500))
    return hits / len(part)


def tuned(net, masks, part, test, seed):
    """Accuracy of a cut net after a short training; what of it is masked stays zero."""
    whole = any(m.ndim > 1 and not m.any() for m in masks.values())  # nothing of a layer is left
    small, left = (net, masks) if whole else compact_with_masks(net, masks, EXAMPLE)
    optimizer = torch.optim.SGD(small.parameters(), LR_FINE, momentum=MOMENTUM)
    MaskedTraining(small, optimizer, left)
    train(small, optimizer, part, FINE_TUNING, seed + 1000)
    return accuracy(small, test)


def rows_of(file, name, data, seed, setting, trial=False):
    """The rows of a run whose file is there, or will be."""
    if not file.exists():
        rows = measured(name, data, seed, setting, trial)
        with atomic(file) as temporary:
            temporary.write_text(json.dumps(rows, indent=1))
    return json.loads(file.read_text())


# Trials and record


def score(rows):
    """What decides among settings."""
    return statistics.fmean(row["without"] for row in rows if row["order"] in DECIDE)


def trials(name, runs):
    """The trials of a net: settings and score, the mean over the seeds."""
    data, found = load(HELD_OUT), []
    for setting in TRIED:
        words = "-".join(f"{v:g}" for v in setting.values())
        files = {seed: runs / f"{name}-try-{words}-{seed}.json" for seed in TRIAL_SEEDS}
        scores = [score(rows_of(f, name, data, s, setting, trial=True)) for s, f in files.items()]
        found.append({**setting, "score": statistics.fmean(scores), "scores": scores})
        print(name, found[-1], flush=True)
    return found


def load(holdout=0):
    return datasets.load("mnist", shift=SHIFT, holdout=holdout, train_size=PICTURES)


def compared(rows):
    """Of each net and density: mean and deviation of every order, and what entry is above it."""
    cells = {}
    for row in rows:
        if row["order"] != "dense":
            for key in [key for key in ("without", "with") if key in row]:
                place = (row["net"], row["density"], key)
                cells.setdefault(place, {}).setdefault(row["order"], {})[row["seed"]] = row[key]
    found = []
    for (net, density, key), orders in cells.items():
        cell = {"net": net, "density": density, "tuning": key}
        points = {by: [100 * values[s] for s in sorted(values)] for by, values in orders.items()}
        for by, own in points.items():
            cell[by] = summary(own)
            if by != "entry" and len(own) > 1:
                cell[by]["entry_above"] = paired(points["entry"], own)
        found.append(cell)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=list(NETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--trials", action="store_true", help="on held-out pictures only")
    parser.add_argument("--runs", type=Path, default=Path("runs/filters"))
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in args.nets:
        tried = trials(name, args.runs)
        if not args.trials:
            finals(name, tried, args.seeds, args.runs)


def finals(name, tried, seeds, runs):
    """The runs of a net with its settings; the record is written anew after each."""
    rows, data = [], load()
    for seed in seeds:
        own = rows_of(runs / f"{name}-{seed}.json", name, data, seed, SETTINGS[name])
        rows += [{"net": name, "seed": seed, **row} for row in own]
        print(name, seed, [row["without"] for row in own[:5]], flush=True)
        about = environment(torch.device("cpu"))
        words = ["--nets", name, "--seeds", *map(str, seeds)]
        about["command"] = " ".join(["python -m benchmarks.filters", *words])
        content = json.loads(RECORD.read_text()) if RECORD.exists() else {}
        content[name] = {
            "about": about,
            "settings": SETTINGS[name],
            "trials": tried,
            "summary": compared(rows),
            "rows": rows,
        }
        with atomic(RECORD) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()

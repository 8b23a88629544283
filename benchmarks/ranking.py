"""Accuracy against density, all read from one run: DessiLBI beside magnitude pruning and LinBreg.

    python benchmarks/ranking.py [--seeds 0 1 2] [--minutes 480] [--runs runs/ranking]

LeNet-5 (61,706 parameters) on MNIST; every method trains 12 epochs from the same initial weights on
the same batches, and reads off a net for each density (non-zero share of the 61,470 weights of its
layers; the 236 biases are kept). Each net is evaluated as it is read ("without"), and after 8
epochs of training under its masks ("with").

dessilbi   one run. The level lam is steered through a stage for each density, from 10 % to 1 %,
           each with its own cosine of the step and its nu, since few weights must be close to
           Gamma. At its end the net is ``W * 1{Gamma != 0}``: the weights of largest |Gamma|.
gamma      the same run at the end of its first stage, in which Gamma grows from nothing to 10 %:
           one ranking for every density, by |Gamma|.
entry      the same, by the step at which a weight entered.
magnitude  one run of SGD: the weights of largest size.
linbreg    LinBreg with momentum (Bungert, Roith, Tenbrinck, Burger, JMLR 23(192), 2022), one run of
           12 epochs for each density: sparse initial weights, and a level that is steered to it.

What is finished lies in ``--runs`` and is not computed again: the command may be stopped and given
again. It prints the table, and once all is done writes ``results/ranking.json`` and ``.csv``, and
draws ``book/_static/ranking.png``.
Settings were chosen for each method on 10,000 held-out training pictures (``--holdout 10000``),
from a step of 0.05, one of 0.1 after a warm-up, and that with decay: with seeds 100 and 101 the
step and all of magnitude pruning, the rest with 100 to 103.
"""

import argparse
import csv
import json
import math
import time
from copy import deepcopy
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from dslbi_torch import (
    DessiLBI,
    MaskedTraining,
    PathRecorder,
    TargetDensity,
    entry_ranking,
    gamma_ranking,
    magnitude_ranking,
    masked,
    ranked_masks,
    split_groups,
)
from dslbi_torch.figures import accuracy_by_density
from dslbi_torch.penalties import soft_threshold
from dslbi_torch.safe_files import atomic
from dslbi_torch.training.data import datasets
from dslbi_torch.training.nets import zoo
from dslbi_torch.training.run.sessions import environment

RESULTS = Path(__file__).parent / "results"
FIGURE = Path(__file__).parents[1] / "book" / "_static" / "ranking.png"
EPOCHS, FINE_TUNING, BATCH, SHIFT, MOMENTUM = 12, 8, 128, 1, 0.9
LR, LR_FINE = 0.1, 0.05
WARM_UP = 400  # steps in which LR is reached; without it some seeds diverge
DECAY = 5e-4  # of the weights; LinBreg has none, 98.98 with it and 98.99 without
STAGES = ((0.1, 8, 15.0), (0.05, 2, 2.0), (0.025, 1, 1.0), (0.01, 1, 0.5))  # density, epochs, nu
DENSITIES = (0.1, 0.05, 0.025, 0.01)
METHODS = ("dessilbi", "magnitude", "linbreg", "gamma", "entry")


def train(model, optimizer, pictures, epochs, generator, warm_up=0):
    """Epochs of cross-entropy, lr on half a cosine from where it stands, after some steps in which
    it grows to there."""
    lr = [group["lr"] for group in optimizer.param_groups]
    steps = epochs * math.ceil(len(pictures) / BATCH)
    growth = LinearLR(optimizer, 0.02, 1.0, max(1, warm_up))
    # never 0, which DessiLBI refuses
    fall = CosineAnnealingLR(optimizer, steps - warm_up, eta_min=1e-3 * lr[0])
    schedule = SequentialLR(optimizer, [growth, fall], [warm_up])
    for _ in range(epochs):
        for x, y in pictures.batches(BATCH, generator):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
    for group, start in zip(optimizer.param_groups, lr, strict=True):
        group["lr"] = start


class Net(zoo.NETS["lenet5"].make):
    """LeNet-5 with its third layer, which sees all of its input at once, as a matrix product: a
    quarter less time on a CPU."""

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(F.linear(x.flatten(1), self.conv3.weight.flatten(1), self.conv3.bias))
        return self.fc2(F.relu(self.fc1(x)))


def start(seed):
    """The net and the order of the batches, the same for every method."""
    torch.manual_seed(seed)
    return Net(), torch.Generator().manual_seed(seed)


# The methods: {(method, density): (weights, masks)}


def dessilbi(pictures, seed):
    model, generator = start(seed)
    groups = split_groups(model, conv="l1", linear="l1", weight_decay=DECAY)
    optimizer = DessiLBI(groups, LR, momentum=MOMENTUM)
    nets, recorder = {}, None
    for density, epochs, nu in STAGES:
        for group in optimizer.param_groups:
            group["nu"] = nu
        steps = epochs * math.ceil(len(pictures) / BATCH)
        first = recorder is None
        steer = TargetDensity(optimizer, density, steps=steps, ramp=0.25 if first else 0)
        if first:
            recorder = PathRecorder(optimizer, every=steps, elements=True)
        train(model, optimizer, pictures, epochs, generator, WARM_UP if first else 0)
        steer.detach()
        masks = ranked_masks(gamma_ranking(optimizer), density)
        nets["dessilbi", density] = deepcopy(model.state_dict()), masks
        if first:
            recorder.detach()
            orders = {"gamma": gamma_ranking(optimizer), "entry": entry_ranking(recorder)}
            for (name, ranking), D in product(orders.items(), DENSITIES):
                nets[name, D] = deepcopy(model.state_dict()), ranked_masks(ranking, D)
    return nets


def magnitude(pictures, seed):
    model, generator = start(seed)
    groups = split_groups(model, conv="l1", linear="l1")
    optimizer = torch.optim.SGD(
        model.parameters(), LR, momentum=MOMENTUM, weight_decay=DECAY, fused=True
    )
    train(model, optimizer, pictures, EPOCHS, generator, WARM_UP)
    ranking = magnitude_ranking(groups)
    state = model.state_dict()
    return {("magnitude", D): (state, ranked_masks(ranking, D)) for D in DENSITIES}


def linbreg(density, pictures, seed):
    model, generator = start(seed)
    groups = split_groups(model, conv="l1", linear="l1", lam=0.05)
    sparsify_(groups, density, torch.Generator().manual_seed(seed))
    optimizer = LinBreg(groups, LR)
    steps = EPOCHS * math.ceil(len(pictures) / BATCH)
    TargetDensity(optimizer, density, steps=steps, ramp=0)
    train(model, optimizer, pictures, EPOCHS, generator, WARM_UP)
    masks = ranked_masks(magnitude_ranking(optimizer), density)
    return {("linbreg", density): (model.state_dict(), masks)}


@torch.no_grad()
def sparsify_(groups, density, generator):
    """Keep each weight with the chance ``density``; scaled, so that a layer's output varies as
    before."""
    for group in groups:
        for _, W in group["params"] if group["penalty"] else ():
            kept = torch.rand(W.shape, generator=generator) < density
            W.mul_(kept / math.sqrt(density))


class LinBreg(torch.optim.Optimizer):
    """v <- v - lr m, theta <- prox(v), with m the momentum of the gradient and delta = 1; biases by
    SGD. It begins with v = theta + lam sign(theta), in the state "V" and with the options that the
    controller of the density looks for."""

    def __init__(self, groups, lr):
        super().__init__(groups, {"lr": lr, "lam": 1.0, "group_dim": 0, "weight": None, "kappa": 1})
        for group in self.param_groups:
            for W in group["params"]:
                self.state[W]["m"] = torch.zeros_like(W)
                if group["penalty"]:
                    self.state[W]["V"] = W.detach() + group["lam"] * W.detach().sign()

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for W in group["params"]:
                m = self.state[W]["m"].mul_(MOMENTUM).add_(W.grad)
                V = self.state[W].get("V")
                if V is None:
                    W.sub_(m, alpha=group["lr"])
                else:
                    V.sub_(m, alpha=group["lr"])
                    W.copy_(soft_threshold(V, group["lam"]))


# What is measured


def read_off(method, density, pictures, seed):
    if method == "linbreg":
        return linbreg(density, pictures, seed)
    return {"dessilbi": dessilbi, "magnitude": magnitude}[method](pictures, seed)


@torch.no_grad()
def accuracy(model, test):
    hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in test.batches(500))
    return hits / len(test)


def without(nets, test):
    """Accuracy of the nets as they were read off."""
    model, found = Net(), {}
    for (method, density), (state, masks) in nets.items():
        model.load_state_dict(state)
        with masked(model, masks):
            found[method, density] = accuracy(model, test)
    return found


def with_fine_tuning(net, pictures, test, seed):
    """Accuracy after a short training under the masks."""
    state, masks = net
    model, generator = Net(), torch.Generator().manual_seed(seed + 1000)
    model.load_state_dict(state)
    optimizer = torch.optim.SGD(model.parameters(), LR_FINE, momentum=MOMENTUM, fused=True)
    MaskedTraining(model, optimizer, masks)
    train(model, optimizer, pictures, FINE_TUNING, generator)
    return accuracy(model, test)


def complete(folder, methods, seeds, holdout, until):
    """Compute what is not yet in the folder; False where the time is over before all is done."""
    pictures, test = datasets.load("mnist", shift=SHIFT, holdout=holdout)[1:3]
    trained = dict.fromkeys("dessilbi" if m in ("gamma", "entry") else m for m in methods)
    runs = {"linbreg": DENSITIES}  # each of the others has one for all densities
    plan = [(m, D, seed) for m in trained for D in runs.get(m, (None,)) for seed in seeds]
    for method, density, seed in plan:
        name = "-".join([method, *([f"{density:g}"] if density else []), str(seed)])
        nets_file, file = folder / f"{name}.pt", folder / f"{name}.json"
        rows = json.loads(file.read_text()) if file.exists() else []
        if not rows:
            nets = read_off(method, density, pictures, seed)
            with atomic(nets_file) as temporary:
                torch.save(nets, temporary)
            for (own, D), value in without(nets, test).items():
                rows.append({"method": own, "seed": seed, "density": D, "without": value})
            save(file, rows)
        for row in rows:
            if "with" in row or row["method"] not in methods:
                continue
            if time.monotonic() > until:
                return False
            nets = torch.load(nets_file, weights_only=True)
            net = nets[row["method"], row["density"]]
            row["with"] = with_fine_tuning(net, pictures, test, seed)
            save(file, rows)
            print(row, flush=True)
    return True


def save(file, rows):
    with atomic(file) as temporary:
        temporary.write_text(json.dumps(rows, indent=1))


def table(rows):
    """Mean (largest minus smallest) over the seeds, in percent, without / with fine-tuning."""

    def show(values):
        values = [100 * v for v in values] or [math.nan]
        return f"{sum(values) / len(values):.2f} ({max(values) - min(values):.2f})"

    lines = [f"{'':<10}" + "".join(f"{100 * D:>21g} % non-zero" for D in DENSITIES)]
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for D in DENSITIES:
            own = [row for row in rows if (row["method"], row["density"]) == (method, D)]
            shown = [show([row[k] for row in own if k in row]) for k in ("without", "with")]
            cells.append(f"{' / '.join(shown):>32}")
        lines.append(f"{method:<10}" + "".join(cells))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing after these")
    parser.add_argument("--holdout", type=int, default=0, help="as in training.data.datasets")
    parser.add_argument("--runs", type=Path, default=Path("runs/ranking"))
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * args.minutes
    done = complete(args.runs, args.methods, args.seeds, args.holdout, until)
    files = sorted(args.runs.glob("*.json"))
    rows = [row for file in files for row in json.loads(file.read_text())]
    print(table(rows))
    if done and not args.holdout:
        record(rows, args.methods, args.seeds)


def record(rows, methods, seeds):
    """The rows as JSON and CSV, and their figure."""
    about = environment(torch.device("cpu"))
    words = ["--methods", *methods, "--seeds", *map(str, seeds)]
    about |= {"command": " ".join(["python benchmarks/ranking.py", *words])}
    text = json.dumps({"about": about, "rows": rows}, indent=1)
    (RESULTS / "ranking.json").write_text(text + "\n")
    with plt.style.context("dslbi_ref.figures.book"):
        without, tuned = accuracy_by_density(rows)
        without.set_ylim(80, 100)  # the others are worth nothing below
        tuned.set_ylim(96, 99.5)
        without.figure.savefig(FIGURE)
    with open(RESULTS / "ranking.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["method", "seed", "density", "without", "with"])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()

"""Accuracy against density: DessiLBI, one run for all densities, beside rivals with a run for each.

    python -m benchmarks.ranking [--seeds 10 11 12 13 14] [--minutes 480] [--runs runs/ranking]
    python -m benchmarks.ranking --trials [--methods rigl ...]

LeNet-5 (61,706 parameters) on MNIST; every method trains 10 epochs from the same initial weights on
the same batches, and gives a net for each density (non-zero share of the 61,470 weights of its
layers; the 236 biases are kept). Each net is evaluated as it is ("without"), and after 8 epochs of
training under its masks ("with"). No method has stages.

dessilbi   one run for all densities. W trains alone for two epochs; then the path is released, and
           grows to 10 % through the other eight. From it are read, each a method of the table:
entry      masks of the weights that entered first, on W as it is at the end;
gamma      masks of the weights of largest |Gamma|;
crossing   the sparse model as it was when the path had that density;
weight     masks of the largest weights of the same run.
magnitude  one run of SGD for all densities: masks of its largest weights.
plain      one run of SGD, which stays dense, with the settings that are best for that.
The others are in ``benchmarks/rivals.py``, with a run of their own for each density.

Settings were chosen on 10,000 held-out training pictures (``--trials``: eight settings or more for
each method, at 2.5 % of the weights, seed 100; the best without fine-tuning), and are in
``benchmarks/results/ranking_trials.json``. They were committed before the test set was read. Those
of the path go back to a study on the same held-out pictures, of about forty runs.

What is finished lies in ``--runs`` and is not computed again: the command may be stopped and given
again; with ``--go-on`` nor is what the record has. It prints the table, and writes
``results/ranking.json`` with the seeds that are complete.
"""

import argparse
import json
import math
import time
from contextlib import nullcontext
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from benchmarks.intervals import paired, summary
from benchmarks.ranking_runs import DENSITIES, GRIDS, ONE_RUN, Net, read_off, train
from benchmarks.rivals import RIVALS, largest, sgd
from dslbi_torch import MaskedTraining, masked
from dslbi_torch.figures import accuracy_by_density
from dslbi_torch.safe_files import atomic
from dslbi_torch.training.data import datasets
from dslbi_torch.training.run.sessions import environment

RESULTS = Path(__file__).parent / "results"
TRIALS = RESULTS / "ranking_trials.json"
FIGURE = Path(__file__).parents[1] / "book" / "_static" / "ranking.png"
SHOWN = ("entry", "gamma", "crossing", "magnitude", *RIVALS)  # weight is much as gamma is
FINE_TUNING, LR_FINE, SHIFT = 8, 0.05, 1
TRIED, TRIAL_SEED = 0.025, 100  # where settings are compared
READINGS = ("entry", "gamma", "crossing", "weight")
LATE = ("gamma", "crossing")  # readings that are trained on after all else is done


# What is measured


@torch.no_grad()
def accuracy(model, test):
    hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in test.batches(500))
    return hits / len(test)


def without(nets, test, seed):
    """Accuracy of the nets as they were read off, and the share of the weights that they have."""
    model, rows = Net(), []
    for (method, density), (state, masks) in nets.items():
        model.load_state_dict(state)
        kept, size = (sum(f(m) for m in masks.values()) for f in (torch.sum, torch.numel))
        with masked(model, masks) if masks else nullcontext():
            row = {"method": method, "seed": seed, "density": density}
            row |= {"kept": float(kept / size) if masks else 1.0}
            rows.append(row | {"without": accuracy(model, test)})
    return rows


def with_fine_tuning(net, pictures, test, seed):
    """Accuracy after a short training under the masks."""
    state, masks = net
    model, generator = Net(), torch.Generator().manual_seed(seed + 1000)
    model.load_state_dict(state)
    optimizer = sgd(model, LR_FINE, 0.0)
    MaskedTraining(model, optimizer, masks)
    train(model, optimizer, pictures, FINE_TUNING, generator, warm_up=0)
    return accuracy(model, test)


def is_tuned(row):
    """Whether a net is trained on under its masks: not the dense ones, nor the rest of a path."""
    return row["density"] < 1 and row["method"] != "weight"


def is_due(row, late):
    """Whether a net is to be trained on now: some are only after all else is done."""
    return "with" not in row and is_tuned(row) and (late or row["method"] not in LATE)


def complete(folder, methods, seeds, chosen, until):
    """Compute what is not yet in the folder; False where the time is over before all is done."""
    sets = datasets.load("mnist", shift=SHIFT)[1:3]
    for late in (False, True):
        for method in methods:
            for seed, density in runs_of(method, seeds):
                if not _one(folder, (method, density, seed), chosen[method], sets, until, late):
                    return False
    return True


def _one(folder, run, settings, sets, until, late):
    """A run with what is read off it, and their fine-tuning; False where the time is over."""
    (method, density, seed), (pictures, test) = run, sets
    if density:
        settings = settings.get(f"{density:g}", settings)
    name = run_name(*run)
    nets_file, file = folder / f"{name}.pt", folder / f"{name}.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    if not rows or (any(is_due(row, late) for row in rows) and not nets_file.exists()):
        if time.monotonic() > until:
            return False
        nets = read_off(method, density, pictures, seed, settings)
        with atomic(nets_file) as temporary:
            torch.save(nets, temporary)
        rows = without(nets, test, seed)
        save(file, rows)
    for row in rows:
        if not is_due(row, late):
            continue
        if time.monotonic() > until:
            return False
        nets = torch.load(nets_file, weights_only=True)
        row["with"] = with_fine_tuning(nets[row["method"], row["density"]], pictures, test, seed)
        save(file, rows)
        print(row, flush=True)
    return True


def from_record(file, folder):
    """Put the runs, or the trials, of a record into a folder that lacks them. Their nets are not
    there: where one is to be trained on, its run is done again."""
    whole, found = json.loads(file.read_text()), {}
    for trial in whole.get("trials", ()):
        k = GRIDS[trial["method"]].index(trial["settings"])
        found[f"{trial['method']}-{k}.json"] = trial
    for row in whole.get("rows", ()):
        method = "dessilbi" if row["method"] in READINGS else row["method"]
        density = None if method in ONE_RUN else row["density"]
        found.setdefault(f"{run_name(method, density, row['seed'])}.json", []).append(row)
    for name, content in (found | {"about": whole["about"]}).items():
        if not (folder / name).exists():
            save(folder / name, content)


def run_name(method, density, seed):
    return "-".join([method, *([f"{density:g}"] if density else []), str(seed)])


def runs_of(method, seeds):
    densities = (None,) if method in ONE_RUN else DENSITIES
    return [(seed, D) for seed in seeds for D in densities]


def save(file, rows):
    with atomic(file) as temporary:
        temporary.write_text(json.dumps(rows, indent=1))


# Settings, on held-out pictures


def trials(methods, folder, until):
    """Compute the trials that are not yet in the folder; False where the time is over."""
    pictures, test = datasets.load("mnist", shift=SHIFT, holdout=10000)[1:3]
    for method in methods:
        for k, settings in enumerate(GRIDS[method]):
            file = folder / f"{method}-{k}.json"
            if file.exists():
                continue
            if time.monotonic() > until:
                return False
            density = None if method in ONE_RUN else TRIED
            nets = read_off(method, density, pictures, TRIAL_SEED, settings)
            if method == "str":  # of one run the nets of all densities
                state, own = Net(), {}
                state.load_state_dict(nets[method, TRIED][0])
                own = {D: largest(state, D) for D in DENSITIES}
                nets = {(method, D): (state.state_dict(), own[D]) for D in DENSITIES}
            rows = without(nets, test, TRIAL_SEED)
            save(file, {"method": method, "settings": settings, "rows": rows})
            print(method, settings, [(r["method"], r["density"], r["without"]) for r in rows])
    return True


def score(trial, density=None):
    """What decides: accuracy without fine-tuning at 2.5 %; of a path, the mean over the densities
    of its best reading; of the dense net its own."""
    rows = trial["rows"]
    if trial["method"] == "plain":
        return rows[0]["without"]
    if trial["method"] == "dessilbi":
        best = {}
        for row in rows:
            if row["method"] in ("entry", "gamma", "crossing"):
                best[row["density"]] = max(best.get(row["density"], 0.0), row["without"])
        return sum(best.values()) / len(best)
    return next(r["without"] for r in rows if r["density"] == (density or TRIED))


def best_settings(found):
    """The settings of each method that won; of STR, whose share is found and not asked for, one for
    each density."""
    chosen = {}
    for method in dict.fromkeys(trial["method"] for trial in found):
        own = [trial for trial in found if trial["method"] == method]
        if method == "str":
            best = {f"{D:g}": max(own, key=lambda trial: score(trial, D)) for D in DENSITIES}
            chosen[method] = {D: trial["settings"] for D, trial in best.items()}
        else:
            chosen[method] = max(own, key=score)["settings"]
    return chosen


# The record


def table(rows):
    """Mean and standard deviation over the seeds, in percent, without / with fine-tuning."""

    def show(values):
        own = summary([100 * v for v in values]) if values else {"mean": math.nan, "sd": math.nan}
        return f"{own['mean']:.2f} ({own['sd']:.2f})"

    lines = [f"{'':<10}" + "".join(f"{100 * D:>21g} % non-zero" for D in DENSITIES)]
    for method in dict.fromkeys(row["method"] for row in rows if row["density"] < 1):
        cells = []
        for D in DENSITIES:
            own = [row for row in rows if (row["method"], row["density"]) == (method, D)]
            shown = [show([row[k] for row in own if k in row]) for k in ("without", "with")]
            cells.append(f"{' / '.join(shown):>32}")
        lines.append(f"{method:<10}" + "".join(cells))
    for method in dict.fromkeys(row["method"] for row in rows if row["density"] == 1):
        lines.append(f"{method:<10}" + show([r["without"] for r in rows if r["method"] == method]))
    return "\n".join(lines)


def differences(rows, ours, other, density, key):
    """Of the seeds that both have: mean difference in points, with its interval of 95 %."""

    def own(method):
        return {
            row["seed"]: 100 * row[key]
            for row in rows
            if row["method"] == method and row["density"] == density and key in row
        }

    a, b = own(ours), own(other)
    seeds = sorted(set(a) & set(b))
    if len(seeds) < 2:
        return None
    found = paired([a[s] for s in seeds], [b[s] for s in seeds])
    return {"of": ours, "to": other, "density": density, "key": key, "seeds": seeds} | found


def made_on(folder, command):
    """Where and when the runs of a folder were begun, kept beside them, and the revisions of the
    code at which they went on."""
    file, now = folder / "about", environment(torch.device("cpu"))
    about = json.loads(file.read_text()) if file.exists() else now | {"command": command}
    if now["revision"] not in (about["revision"], *about.get("later", ())):
        about["later"] = [*about.get("later", ()), now["revision"]]
    save(file, about)
    return about


def record(rows, about):
    """Write the rows and the differences of methods as JSON, and draw them."""
    methods = [m for m in dict.fromkeys(r["method"] for r in rows if r["density"] < 1)]
    found = [
        differences(rows, ours, other, D, key)
        for ours in READINGS
        for other in methods
        if other != ours
        for D in DENSITIES
        for key in ("without", "with")
    ]
    found.append(differences(rows, "dessilbi", "plain", 1.0, "without"))
    whole = {"about": about, "rows": rows, "differences": [row for row in found if row]}
    save(RESULTS / "ranking.json", whole)
    with plt.style.context("dslbi_ref.figures.book"):
        shown = [row for row in rows if row["density"] < 1 and row["method"] in SHOWN]
        without, tuned = accuracy_by_density(shown)
        without.set_ylim(50, 100)
        tuned.set_ylim(94, 99.5)
        without.figure.savefig(FIGURE)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    methods = [*ONE_RUN, *RIVALS]
    parser.add_argument("--methods", nargs="+", default=methods, choices=methods)
    parser.add_argument("--seeds", nargs="+", type=int, default=[10, 11, 12, 13, 14])
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing after these")
    parser.add_argument("--trials", action="store_true", help="settings, on held-out pictures")
    parser.add_argument("--go-on", action="store_true", help="keep the runs of the record")
    parser.add_argument("--runs", type=Path, default=Path("runs/ranking"))
    args = parser.parse_args()
    folder = args.runs / ("trials" if args.trials else "")
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * args.minutes
    command = "python -m benchmarks.ranking" + (" --trials" if args.trials else "")
    if args.go_on:
        from_record(TRIALS if args.trials else RESULTS / "ranking.json", folder)
    about = made_on(folder, command)
    if args.trials:
        done = trials(args.methods, folder, until)
    else:
        chosen = best_settings(json.loads(TRIALS.read_text())["trials"])
        if untried := [method for method in args.methods if method not in chosen]:
            parser.error(f"{' '.join(untried)}: no trials in {TRIALS.name}: give --trials first")
        done = complete(folder, args.methods, args.seeds, chosen, until)
    found = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    if args.trials:
        save(TRIALS, {"about": about, "seed": TRIAL_SEED, "trials": found})
    else:
        rows = [row for own in found for row in own]
        print(table(rows))
        record(rows, about)
    print("done" if done else "the time is over; give the command again")


if __name__ == "__main__":
    main()

"""Records of long training runs: what the notebooks plot, from the run folders.

    python -m dslbi_torch train cifar10-resnet20-short --seed 0 --out runs/r20-0
    python benchmarks/runs.py runs/r20-0 [runs/r20-1 ...] --out cifar10_resnet20_short

Several folders must be of one recipe with the same settings, a seed each. The record,
``benchmarks/results/OUT.json``, has the log of every run, the density of each layer at the end and
when it entered, and where and how the run was made. Without ``--out`` only the table is printed.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

from dslbi_torch import support_masks
from dslbi_torch.training import config as configs
from dslbi_torch.training.run import run_folder as folders
from dslbi_torch.training.run.report import read_path
from dslbi_torch.training.run.sessions import ran_on, read_sessions
from dslbi_torch.training.run.set_up import open_run

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("acc_dense", "acc_sparse", "acc_gamma", "nonzero_split", "nonzero_all")
DROPPED = ("layers", "acc_ema", "step")


def record(folder):
    """What is kept of one finished run."""
    config, log = folders.read_config(folder), folders.read_log(folder)
    if log[-1]["epoch"] < config.epochs:
        raise ValueError(
            f"{folder} must hold a finished run, got epoch {log[-1]['epoch']} of {config.epochs}"
        )
    first = environment(folder)
    words = [word for word in first["command"][1:] if "/" not in word and word != "--out"]
    rows = [{k: short(v) for k, v in row.items() if k not in DROPPED} for row in log]
    return {
        "seed": config.seed,
        "command": " ".join(["python -m dslbi_torch", *words]),
        "date": first["started"][:10],
        **ran_on(first),
        "outside": short(outside(open_run(folder, device="cpu"))),
        "log": rows,
        "layers": {name: short(share) for name, share in log[-1]["layers"].items()},
        "half_entered": half_entered(read_path(folder)),
    }


def environment(folder):
    """What a run was made on: of its first session, and in what those that went on differ."""
    sessions = read_sessions(folder)
    first = sessions[0]
    if len(sessions) > 1:
        own = ("started", "command")
        first["resumed"] = [
            {k: v for k, v in session.items() if k not in own and v != first.get(k)}
            for session in sessions[1:]
        ]
    return first


def short(value):
    """A number with five digits; what is none, as it is."""
    return float(f"{value:.5g}") if isinstance(value, float) else value


def outside(run):
    """Share of the squared norm of the split weights that lies outside the support."""
    masks, weights = support_masks(run.optimizer), dict(run.model.named_parameters())
    squares = {name: weights[name].detach().double() ** 2 for name in masks}
    cut = sum(squares[name][~masks[name]].sum().item() for name in masks)
    return cut / sum(square.sum().item() for square in squares.values())


def half_entered(path):
    """For each tensor the first recorded step with half of the non-zeros of the last one."""
    steps = {}
    for name, counts in path.nonzero.items():
        if counts[-1]:
            steps[name] = int(path.steps[np.argmax(2 * counts >= counts[-1])])
    return steps


def settings(config):
    """The fields of a config that decide its result and are not the defaults."""
    default, own = configs.Config(), dataclasses.asdict(config)
    names = configs.differences(default, config)
    return {name: own[name] for name in names if name != "seed"}


def table(runs):
    """Mean over the seeds, and largest minus smallest, in percent."""
    lines = [f"{'':<16}{'mean':>9}{'spread':>9}"]
    for key in COLUMNS:
        values = [100 * run["log"][-1][key] for run in runs]
        mean, spread = sum(values) / len(values), max(values) - min(values)
        lines.append(f"{key:<16}{mean:>9.2f}{spread:>9.2f}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", help="name of the record, without .json")
    args = parser.parse_args()
    try:
        found = [settings(folders.read_config(folder)) for folder in args.folders]
        if any(own != found[0] for own in found):
            raise ValueError("the runs must have the same settings but for the seed")
        runs = [record(folder) for folder in args.folders]
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f"{found[0]['recipe']}, {len(runs)} seed(s), last epoch, %\n{table(runs)}")
    if args.out:
        name = args.out.removesuffix(".json")
        text = json.dumps({"settings": found[0], "runs": runs}, indent=1)
        (RESULTS / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()

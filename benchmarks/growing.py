"""A net of at most 1,500 parameters for MNIST, grown from three filters a layer; three seeds.

    python benchmarks/growing.py [--seeds 0 1 2] [--runs runs/growing]

Grows what is not yet in the folder of runs (``python -m dslbi_torch grow`` with the printed flags
does the same), prints the table, and records the rounds of every seed in
``benchmarks/results/growing.json``. The mark is 98.40 % at 1.5 thousand parameters (S2-LBI, arXiv
1904.10873). Settings were chosen on 10,000 held-out training pictures.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from dslbi_torch.training import recipes
from dslbi_torch.training.experiments import grow
from dslbi_torch.training.run import run_folder as folders
from dslbi_torch.training.run import sessions

RECORD = Path(__file__).parent / "results" / "growing.json"
RECIPE = "mnist-small-net"
GROWTH = grow.GrowthPlan(budget=1500, start=3, every=1, rate=2.0)


def command(seed):
    """The command line that grows the same net."""
    flags = " ".join(f"--{name} {value}" for name, value in dataclasses.asdict(GROWTH).items())
    return f"python -m dslbi_torch grow {RECIPE} {flags} --seed {seed}"


def record(folder, seed):
    """What is kept of one grown net."""
    log = folders.read_log(folder)
    session = sessions.read_sessions(folder)[0]
    return {
        "seed": seed,
        "command": command(seed),
        "date": session["started"][:10],
        **sessions.ran_on(session),
        "rounds": [_short(row) for row in log if "grown" in row],
        "last": _short(log[-1]),
    }


def _short(row):
    return {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/growing"))
    args = parser.parse_args()
    runs = []
    for seed in args.seeds:
        folder = args.runs / str(seed)
        if not (folder / "grown.pt").exists():
            config = recipes.recipe(RECIPE).config
            grow.grow(dataclasses.replace(config, seed=seed, out=str(folder), holdout=0), GROWTH)
        runs.append(record(folder, seed))
    print(f"{'seed':>4}{'parameters':>12}{'accuracy %':>12}  units")
    for run in runs:
        last = run["last"]
        units = "-".join(str(n) for n in last["units"].values())
        print(f"{run['seed']:>4}{last['parameters']:>12,}{100 * last['accuracy']:>12.2f}  {units}")
    found = [100 * run["last"]["accuracy"] for run in runs]
    spread = max(found) - min(found)
    print(f"mean {sum(found) / len(found):.2f}, largest minus smallest {spread:.2f}")
    content = {"growth": dataclasses.asdict(GROWTH), "runs": runs}
    RECORD.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()

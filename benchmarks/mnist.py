"""The table of LeNet-5 among the results: recipes on MNIST, three seeds, mean and spread.

    python benchmarks/mnist.py [--recipes mnist-lenet5 ...] [--seeds 0 1 2] [--runs runs/table]

Trains what is not yet in the folder of runs (``python -m dslbi_torch train RECIPE --seed S`` does
the same), prints the table, and records the last line of every log in
``benchmarks/results/mnist.json``.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from dslbi_torch.training import recipes
from dslbi_torch.training.run.sessions import ran_on, read_sessions
from dslbi_torch.training.run.train import train

RECORD = Path(__file__).parent / "results" / "mnist.json"


def finished(folder, epochs):
    """Last line of the log of a finished run, and its environment; None where it is not
    finished."""
    log = folder / "log.jsonl"
    if not log.exists():
        return None
    last = json.loads(log.read_text().splitlines()[-1])
    if last["epoch"] < epochs:
        return None
    session = read_sessions(folder)[0]
    words = [word for word in session["command"][1:] if "--out" not in word]
    words = [word for word in words if "/" not in word]  # where it was written is of no interest
    about = {
        "command": " ".join(["python -m dslbi_torch", *words]),
        "date": session["started"][:10],
    }
    return last | {"environment": ran_on(session) | about}


def show(values, digits=2):
    """Mean and spread (largest minus smallest), in percent."""
    values = [100 * v for v in values]
    mean = sum(values) / len(values)
    return f"{mean:.{digits}f} ({max(values) - min(values):.{digits}f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ["mnist-lenet5", "mnist-lenet5-filters", "mnist-lenet5-official"]
    parser.add_argument("--recipes", nargs="+", default=names, choices=sorted(recipes.RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/table"))
    args = parser.parse_args()
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    rows = []
    for name in args.recipes:
        lasts = []
        for seed in args.seeds:
            folder = args.runs / f"{name}-{seed}"
            config = dataclasses.replace(
                recipes.recipe(name).config, seed=seed, out=str(folder), holdout=0
            )
            if finished(folder, config.epochs) is None:
                train(config)
            lasts.append(finished(folder, config.epochs))
        record[name] = {
            "command": f"python benchmarks/mnist.py --recipes {name}",
            "seeds": args.seeds,
            "runs": lasts,
        }
        third = [120 * last["layers"]["conv3.weight"] for last in lasts]
        rows.append(
            f"{name:<24}{show([v['acc_dense'] for v in lasts]):>16}"
            f"{show([v['acc_sparse'] for v in lasts]):>16}"
            f"{show([v['acc_gamma'] for v in lasts]):>16}"
            f"{show([v['nonzero_all'] for v in lasts], 1):>14}"
            f"{' / '.join(f'{x:.0f}' for x in third):>18}"
        )
    print(
        f"{'recipe':<24}{'dense %':>16}{'sparse %':>16}{'Gamma %':>16}{'non-zero %':>14}"
        f"{'conv3, of 120':>18}"
    )
    print("\n".join(rows))
    print(
        "mean (largest minus smallest); non-zero: of all parameters; conv3: filters, in weights/400"
    )
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Winning tickets on MNIST, three seeds: small nets beside the marks of the literature, and beside
the other ways to nets as small.

    python benchmarks/tickets.py [--nets filters weights ...] [--seeds 0 1 2] [--runs runs/tickets]

filters  LeNet-5 of Caffe, 20-50-800-500: 3 and 18 filters and 300 neurons are selected, so that its
         sizes become 3-18-288-300. Mark: an error of at most 0.9 %.
weights  LeNet-300-100: one weight in fifty is selected. Mark: an error of at most 1.9 %.
filters-compared, weights-compared
         The same two nets with every method that they allow (the columns of the paper's Figure 5,
         but for Network Slimming, which needs BatchNorm), in shorter trainings, the weights' search
         stopped at half of its epochs; and the tickets trained on Fashion-MNIST.

Each is the recipe of that name, ``mnist-caffe-lenet5-ticket`` or ``mnist-lenet300-ticket``, as
``dslbi ticket`` runs it, with the settings below. What is finished lies in ``--runs`` and is not
computed again. It prints the tables, and writes ``results/tickets.json``.

The settings of filters and weights were tried on 10,000 held-out training pictures with seed 100
(``--holdout 10000``): filters with a search of 10 epochs, weights with 20 epochs of retraining.
Then the one was shortened and the other lengthened, before anything was seen of the test set. The
warm-up of filters came last: without it the training loss of seed 1 was NaN after 34 steps. Those
of the compared are the same with fewer epochs, and were not tried.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from dslbi_torch.training import recipes
from dslbi_torch.training.experiments import tickets
from dslbi_torch.training.run import report
from dslbi_torch.training.run.sessions import environment

RECORD = Path(__file__).parent / "results" / "tickets.json"
FILTERS = {"epochs": 20, "lr": 0.05, "warmup": 1.0}
WEIGHTS = {"epochs": 40, "lr": 0.1}
SHORT_FILTERS, SHORT_WEIGHTS = FILTERS | {"epochs": 5}, WEIGHTS | {"epochs": 20}
PLANS = {
    "filters": (
        "mnist-caffe-lenet5-ticket",
        tickets.TicketPlan(at=(2,), methods=("ticket",), retrain=FILTERS),
    ),
    "weights": (
        "mnist-lenet300-ticket",
        tickets.TicketPlan(at=(10,), methods=("tuned", "ticket"), retrain=WEIGHTS, tune=WEIGHTS),
    ),
    "filters-compared": (
        "mnist-caffe-lenet5-ticket",
        tickets.TicketPlan(
            at=(2,),
            rounds=2,
            retrain=SHORT_FILTERS,
            tune=SHORT_FILTERS,
            transfer="fashion-mnist",
        ),
    ),
    "weights-compared": (
        "mnist-lenet300-ticket",
        tickets.TicketPlan(
            at=(5,), retrain=SHORT_WEIGHTS, tune=SHORT_WEIGHTS, transfer="fashion-mnist"
        ),
    ),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", choices=list(PLANS), default=list(PLANS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--holdout", type=int, default=0, help="as in the config of a run")
    parser.add_argument("--runs", type=Path, default=Path("runs/tickets"))
    args = parser.parse_args()
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for name in args.nets:
        recipe, plan = PLANS[name]
        config = replace(
            recipes.recipe(recipe).config,
            holdout=args.holdout,
            out=str(args.runs / name),
            device="cpu",
            threads=1,
        )
        plan = plan._replace(seeds=tuple(args.seeds))
        tickets.compare(config, plan)
        rows = json.loads((config.folder / "tickets.json").read_text())["rows"]
        print(f"{name}\n{report.ticket_table(rows, holdout=args.holdout)}\n")
        about = environment(torch.device("cpu"))
        seeds = " ".join(map(str, args.seeds))
        about["command"] = f"python benchmarks/tickets.py --nets {name} --seeds {seeds}"
        record[name] = {"about": about, "recipe": recipe, "plan": plan._asdict(), "rows": rows}
    if not args.holdout:
        RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

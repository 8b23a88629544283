"""The published simulation of Split Knockoffs (Cao, Sun and Yao 2024), with seeds of our own.

    python benchmarks/knockoffs.py [--runs 100] [--out FILE.json]

n = 350 normal rows of p = 100 columns with correlation .5^|i - j|, and unit noise. beta_j is 1 for
j = 1..20, but -1 where j mod 3 = 1, and 0 beyond. D1 = I, D2 = differences, D3 = both; q = .2. A
row of the record is one method on one D over all runs: the false discovery rate of zeros ("zeros")
and of zeros and wrong signs ("directional"), and the power, each with its standard error.

"whole" has path and copy from all rows of X, "part" the path from 2/5 of them; nu is fixed, or
chosen by cross-validation ("cv"). Beside them are classical knockoffs (D1, D2), model-X knockoffs
with the true and with the estimated covariance, and the lasso at the level of cross-validation
(D1). Seconds are of the processor, for a path, its copy and its selection.
"""

import argparse
import json
import time

import numpy as np
import torch
from sklearn.linear_model import LassoCV

from dslbi_ref import transforms
from dslbi_ref.classical_knockoffs import fixed_knockoffs, gaussian_knockoffs
from dslbi_ref.knockoff_filter import STATISTICS, knockoff_statistics, selection_of
from dslbi_ref.knockoffs import split_race
from dslbi_torch.training.run.sessions import environment

N, P, Q = 350, 100, 0.2
NUS = (0.1, 1.0, 3.2, 10.0, 32.0, 100.0)
TRANSFORMS = {
    "D1": np.eye(P),
    "D2": transforms.differences(P).toarray(),
    "D3": np.vstack([np.eye(P), transforms.differences(P).toarray()]),
}
COVARIANCE = 0.5 ** np.abs(np.subtract.outer(np.arange(P), np.arange(P)))
ROOT = np.linalg.cholesky(COVARIANCE)
# (rate, power), of D1, D2, D3
PUBLISHED = {
    "nu by cross-validation": ((0.0266, 1.0), (0.0401, 1.0), (0.0248, 0.9956)),
    "classical": ((0.2011, 1.0), (0.3510, 0.4179), None),
    "nu = 10": ((0.005, 1.0), (0.034, 0.996), (0.010, 0.996)),
    "nu = 1": ((0.227, 1.0), (0.172, 0.979), (0.110, 0.979)),
}


def problem(seed):
    """X (350, 100), y (350,) and beta (100,) of one run."""
    rng = np.random.default_rng(seed)
    beta = np.zeros(P)
    place = np.arange(1, 21)
    beta[:20] = np.where(place % 3 == 1, -1.0, 1.0)
    X = rng.standard_normal((N, P)) @ ROOT.T
    return X, X @ beta + rng.standard_normal(N), beta


def score(selected, sign, truth):
    """Share of zeros and of wrong ones among those named, and the share of true rows named."""
    named = max(selected.sum(), 1)
    zeros, wrong = (selected & (truth == 0)).sum(), (selected & (sign != truth)).sum()
    return zeros / named, wrong / named, selected[truth != 0].mean()


def split_selections(X, y, D, seed, nu):
    """Yield (what it is, Selection, seconds) of every version of Split Knockoffs."""
    for part in (None, 0.4):
        for path in ("iss",) if part or nu is None else ("iss", "lasso"):
            start = time.process_time()
            race = split_race(X, y, D, nu=nu, part=part, path=path, seed=seed)
            for statistic in STATISTICS:
                W, sign = knockoff_statistics(race.t, race.clock, race.zeta, statistic)
                seconds = time.process_time() - start
                for plus in (True, False):
                    what = ("part" if part else "whole", nu or "cv", path, statistic, plus)
                    yield what, selection_of(W, sign, Q, plus, race.nu), seconds


def rival_selections(X, y, D, seed):
    """Yield the same of classical knockoffs, which have neither nu nor a choice of statistic."""
    calls = {}
    if len(D) <= P:
        calls["fixed"] = lambda **o: fixed_knockoffs(X, y, D, **o)
    if len(D) == P:
        known = dict(mean=np.zeros(P), cov=COVARIANCE)
        calls["model-X"] = lambda **o: gaussian_knockoffs(X, y, **known, **o)
        calls["model-X, estimated"] = lambda **o: gaussian_knockoffs(X, y, **o)
    for name, call in calls.items():
        for path in ("lasso", "iss"):
            for plus in (True, False):
                start = time.process_time()
                found = call(q=Q, path=path, plus=plus, seed=seed)
                what = (name, None, path, "bc", plus)
                yield what, found, time.process_time() - start


def simulate(runs):
    """Rows of the record: each method on each D, over the seeds 0, ..., runs - 1."""
    found = {}

    def keep(name, what, scores, seconds):
        found.setdefault((name, *what), []).append((*scores, seconds))

    for seed in range(runs):
        X, y, beta = problem(seed)
        for name, D in TRANSFORMS.items():
            truth = np.sign(D @ beta)
            for nu in (*NUS, None):
                for what, chosen, seconds in split_selections(X, y, D, seed, nu):
                    keep(name, what, score(chosen.selected, chosen.sign, truth), seconds)
            for what, chosen, seconds in rival_selections(X, y, D, seed):
                keep(name, what, score(chosen.selected, chosen.sign, truth), seconds)
        start = time.process_time()
        coef = LassoCV(cv=5).fit(X, y).coef_
        lasso = ("lasso, cross-validated", None, "lasso", None, None)
        scores = score(coef != 0, np.sign(coef), np.sign(beta))
        keep("D1", lasso, scores, time.process_time() - start)
    return [summary(what, np.array(values)) for what, values in found.items()]


def summary(what, values):
    keys = ("transform", "method", "nu", "path", "statistic", "plus")
    row = dict(zip(keys, what, strict=True))
    error = values.std(axis=0) / np.sqrt(len(values))
    for i, name in enumerate(("zeros", "directional", "power")):
        row[name], row[f"{name}_error"] = (round(float(v[i]), 5) for v in (values.mean(0), error))
    return row | {"seconds": round(float(np.median(values[:, 3])), 4)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--out", help="also write the figures to this JSON file")
    args = parser.parse_args()
    about = environment(torch.device("cpu"))
    about["command"] = f"python benchmarks/knockoffs.py --runs {args.runs}"
    rows = simulate(args.runs)
    for row in rows:
        label = " ".join(str(v) for v in list(row.values())[:6])
        print(f"{label:<44}" + "{zeros:8.4f}{directional:8.4f}{power:8.4f}".format(**row))
    if args.out:
        published = {"runs": 20, "rows": PUBLISHED}
        record = about | {"runs": args.runs, "q": Q, "rows": rows, "published": published}
        with open(args.out, "w") as file:
            json.dump(record, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()

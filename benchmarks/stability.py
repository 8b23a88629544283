"""False entries and power of stability selection on exact paths, beside the lasso.

    python benchmarks/stability.py [--sets 200] [--out benchmarks/results/stability.json]

n = p = 200, normal X and unit noise; ten coefficients of random place and sign, of size 0.4 to 0.8.
The columns are independent, which makes the false ones exchangeable, or have correlation
0.5^|i - j|, which does not. On 50 complementary pairs of halves the first entries of the inverse
scale space count; their number is the largest that each bound allows with one false entry expected
and a threshold of 0.75. The rival is the lasso at its cross-validated level (scikit-learn's
LassoCV, five folds).

A bound holds if the mean number of false entries over the sets is below it; the standard error of
that mean is given. CPU seconds of one process.
"""

import argparse
import json
import platform
import time
from datetime import date
from importlib.metadata import version

import numpy as np
from sklearn.linear_model import LassoCV
from threadpoolctl import threadpool_limits

from dslbi_ref.iss import iss_path
from dslbi_ref.stability import ASSUMPTIONS, false_bound, first_entries, half_samples, largest_first

N, P, TRUE, PAIRS, THRESHOLD, EXPECTED = 200, 200, 10, 50, 0.75, 1.0
DESIGNS = {"independent columns": 0.0, "correlated neighbours": 0.5}


def problem(seed, correlation):
    """X (n, p), y (n,) and the mask of the true entries."""
    g = np.random.default_rng(seed)
    X = g.standard_normal((N, P))
    for j in range(1, P):
        X[:, j] = correlation * X[:, j - 1] + np.sqrt(1 - correlation**2) * X[:, j]
    beta = np.zeros(P)
    where = g.choice(P, TRUE, replace=False)
    beta[where] = g.choice([-1.0, 1.0], TRUE) * g.uniform(0.4, 0.8, TRUE)
    return X, X @ beta + g.standard_normal(N), beta != 0


def orders(X, y, seed):
    """Entry times on each half, (2 pairs, p); each path ends at twelve times its first entry."""
    rows = []
    for half in half_samples(N, PAIRS, seed=seed):
        A, b = X[half], y[half]
        rows.append(iss_path(A, b, t_max=12 * len(b) / np.abs(A.T @ b).max()).entry_times())
    return np.array(rows)


def stable(times, first):
    """Mask of the entries that are among the first on three quarters of the halves."""
    share = np.mean([first_entries(row, first) for row in times], axis=0)
    return share >= THRESHOLD - 1e-10


def lasso(X, y):
    """Mask of the coefficients of the lasso at its cross-validated level."""
    return LassoCV(cv=5, max_iter=10_000).fit(X, y).coef_ != 0


def allowed():
    """Number of first entries that each assumption allows."""
    return {
        name: largest_first(P, THRESHOLD, EXPECTED, pairs=PAIRS, assumption=name)
        for name in ASSUMPTIONS
    }


def counts(seed, correlation, firsts):
    """Of each method the numbers of false and of true entries it selects; CPU seconds of both."""
    X, y, truth = problem(seed, correlation)
    start = time.process_time()
    times = orders(X, y, seed)
    found = {name: stable(times, first) for name, first in firsts.items()}
    middle = time.process_time()
    found["lasso"] = lasso(X, y)
    seconds = middle - start, time.process_time() - middle
    pairs = {name: ((mask & ~truth).sum(), (mask & truth).sum()) for name, mask in found.items()}
    return pairs, seconds, np.isfinite(times).sum(axis=1).min()


def simulate(seeds, correlation):
    """One row for each assumption, and one for the lasso."""
    firsts = allowed()
    runs = [counts(seed, correlation, firsts) for seed in seeds]
    rows = []
    for name in (*firsts, "lasso"):
        false, true = np.array([run[0][name] for run in runs]).T
        row = dict(
            method=name,
            false=float(false.mean()),
            standard_error=float(false.std(ddof=1) / np.sqrt(len(false))),
            power=float(true.mean() / TRUE),
            false_share=float((false / np.maximum(false + true, 1)).mean()),
            seconds=float(np.median([run[1][name == "lasso"] for run in runs])),
        )
        if name in firsts:
            bound = false_bound(firsts[name], P, THRESHOLD, pairs=PAIRS, assumption=name)
            row |= dict(first=firsts[name], bound=bound, below=bool(row["false"] <= bound))
        rows.append(row)
    return dict(correlation=correlation, shortest_path=int(min(run[2] for run in runs)), rows=rows)


def show(result):
    for design, part in result.items():
        print(f"{design}: every path has {part['shortest_path']} entries or more")
        for row in part["rows"]:
            kept = "first {first:>3}, bound {bound:.3f}".format(**row) if "first" in row else ""
            print(
                "  {method:<12}{kept:<24} false {false:.3f} +- {standard_error:.3f}, power "
                "{power:.3f}, false share {false_share:.3f}, {seconds:.2f} s".format(
                    kept=kept, **row
                )
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--out", help="also write the figures to this JSON file")
    args = parser.parse_args()
    with threadpool_limits(1, "blas"):
        result = {name: simulate(range(args.sets), c) for name, c in DESIGNS.items()}
    show(result)
    if args.out:
        about = dict(
            command=f"python benchmarks/stability.py --sets {args.sets}",
            date=str(date.today()),
            versions={name: version(name) for name in ("numpy", "scipy", "scikit-learn")},
            machine=f"{platform.machine()}, one BLAS thread, CPU seconds",
            seeds=[0, args.sets - 1],
            settings="fixed before the 200 sets were drawn, on the seeds 1000 to 1004",
            designs=result,
        )
        with open(args.out, "w") as file:
            json.dump(about, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()

"""Cost of exact Poisson and Huber paths, against lasso paths of the same loss by skglm.

    pip install skglm
    python benchmarks/loss_paths.py [--rounds 5] [--out benchmarks/results/loss_paths.json]

n = 1000, p = 5000, no intercept. CPU seconds with one thread; the methods take turns in every
round, and a ratio is of one round: medians over the rounds. Both go from the first entry to a
fifth, and to a tenth, of its penalty level: ISS through every event, skglm through 100 levels,
log-spaced and warm, with its default tolerance of 1e-4 and the solver that its documentation names
for the loss. skglm is called once before, to compile.
"""

import argparse
import json
import platform
import warnings
from datetime import date
from importlib.metadata import version

import numpy as np
from paths import cpu, sparse_model
from threadpoolctl import threadpool_limits

from dslbi_ref.iss import iss_path
from dslbi_ref.losses import huber, loss_named

SPANS, LEVELS, DELTA = (5.0, 10.0), 100, 1.35


def counts(n, p, seed=0):
    """Normal X; counts whose log rates have 20 coefficients of size 0.2."""
    g = np.random.default_rng(seed)
    X = g.standard_normal((n, p))
    beta = np.zeros(p)
    beta[:20] = g.choice([-0.2, 0.2], 20)
    return X, g.poisson(np.exp(X @ beta)).astype(float)


def gross_errors(n, p, seed=0):
    """A sparse linear model of which every twentieth y has an error of size 50."""
    X, y = sparse_model(n, p, 1.0, 3.0, seed)
    y[::20] += 50 * np.random.default_rng(seed + 1).standard_normal(len(y[::20]))
    return X, y


def first_level(X, y, loss):
    """Return the penalty level at which the first coefficient enters."""
    return np.abs(X.T @ loss.gradient(np.zeros(len(y)), y)).max()


def skglm_path(X, y, name, levels):
    """Return the coefficients (p, levels) of skglm."""
    from skglm.datafits import Huber, Poisson
    from skglm.penalties import L1
    from skglm.solvers import AndersonCD, ProxNewton
    from skglm.utils.jit_compilation import compiled_clone

    penalty = compiled_clone(L1(1.0))
    if name == "huber":
        datafit = compiled_clone(Huber(DELTA))
        return AndersonCD(fit_intercept=False).path(X, y, datafit, penalty, alphas=levels)[1]
    datafit = compiled_clone(Poisson())
    datafit.initialize(X, y)
    w, rows = np.zeros(X.shape[1]), []
    for level in levels:
        penalty.alpha = level
        support = int((w != 0).sum())
        solver = ProxNewton(p0=max(10, support), fit_intercept=False)
        w = solver.solve(X, y, datafit, penalty, w.copy(), X @ w)[0]
        rows.append(w)
    return np.array(rows).T


def lasso_residual(X, y, loss, level, w):
    """How far w is from the optimality of the lasso, relative to the level."""
    g = X.T @ loss.gradient(X @ w, y)
    off = np.maximum(np.abs(g) - level, 0.0)
    return float(np.where(w != 0, np.abs(g + level * np.sign(w)), off).max() / level)


def compare(name, loss, data, span, rounds):
    X, y = data(1000, 5000)
    F = np.asfortranarray(X)  # what coordinate descent reads
    first = first_level(X, y, loss)
    levels = first * np.geomspace(1, 1 / span, LEVELS)
    methods = {
        "ISS, exact": lambda: iss_path(X, y, loss=loss, t_max=span / first),
        "skglm": lambda: skglm_path(F, y, name, levels),
    }
    path, w = (solve() for solve in methods.values())
    times = {method: [] for method in methods}
    for _ in range(rounds):
        for method, solve in methods.items():
            times[method].append(cpu(solve)[0])
    base = np.array(times["ISS, exact"])
    flow = -np.array([X.T @ loss.gradient(X @ g, y) for g in path.gamma])
    return dict(
        loss=name,
        span=span,
        events=len(path.t) - 2,
        gradient_on_the_support=float(np.abs(flow[path.gamma != 0]).max() / first),
        lasso_residual_of_skglm=lasso_residual(X, y, loss, levels[-1], w[:, -1]),
        methods={
            method: dict(seconds=float(np.median(t)), ratio=float(np.median(np.array(t) / base)))
            for method, t in times.items()
        },
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", help="also write the figures to this JSON file")
    args = parser.parse_args()
    # What is compiled beforehand is faster, and said to be deprecated.
    warnings.filterwarnings("ignore", message="Passing in a compiled", category=UserWarning)
    with threadpool_limits(1, "blas"):
        results = [
            compare(name, loss, data, span, args.rounds)
            for name, loss, data in (
                ("poisson", loss_named("poisson"), counts),
                ("huber", huber(DELTA), gross_errors),
            )
            for span in SPANS
        ]
    for problem in results:
        print("{loss}, to {span:g} t0: {events} events".format(**problem))
        for method, row in problem["methods"].items():
            print(f"  {method:<12}{row['seconds']:>9.4f} s{row['ratio']:>8.2f} x ISS")
    if args.out:
        about = dict(
            command=f"python benchmarks/loss_paths.py --rounds {args.rounds}",
            date=str(date.today()),
            versions={name: version(name) for name in ("numpy", "scipy", "skglm", "numba")},
            machine=f"{platform.machine()}, one thread, CPU seconds",
            settings=dict(n=1000, p=5000, levels=LEVELS, delta=DELTA),
        )
        with open(args.out, "w") as file:
            json.dump(dict(about, problems=results), file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()

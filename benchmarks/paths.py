"""Cost of exact inverse scale space paths, against lasso paths of the same data.

    python benchmarks/paths.py [--rounds 7] [--quick] [--out benchmarks/results/paths.json]

CPU seconds with one BLAS thread. The methods take turns in every round, so a ratio compares solves
of the same moment; medians over the rounds. Every method goes from the first entry to a twentieth
of its penalty level (the lasso at lambda = 1/t), with its own defaults: 100 levels and a tolerance
for the coordinate descents, every breakpoint for ISS and LARS.
"""

import argparse
import json
import platform
import time
from datetime import date
from importlib.metadata import version

import numpy as np
import scipy.sparse as sp
from sklearn.linear_model import lars_path, lasso_path
from threadpoolctl import threadpool_limits

from dslbi_ref import transforms
from dslbi_ref.iss import iss_path
from dslbi_ref.split_iss import split_iss_path

try:
    from celer import celer_path
except ImportError:
    celer_path = None


def sparse_model(n, p, low, high, seed=0):
    """Normal X and noise; 20 coefficients of random sign and a size between low and high."""
    g = np.random.default_rng(seed)
    X = g.standard_normal((n, p))
    beta = np.zeros(p)
    beta[:20] = g.choice([-1.0, 1.0], 20) * g.uniform(low, high, 20)
    return X, X @ beta + g.standard_normal(n)


def flat_signal(n, p, seed=0):
    """Normal X and noise; coefficients 0 but for a stretch of 2 and one of -2."""
    g = np.random.default_rng(seed)
    X = g.standard_normal((n, p))
    beta = np.zeros(p)
    beta[p // 10 : p // 5] = 2.0
    beta[p // 2 : 3 * p // 5] = -2.0
    D = sp.vstack([transforms.differences(p), transforms.identity(p)], format="csr")
    return X, X @ beta + g.standard_normal(n), D


def noisy_image(side, seed=0):
    """A bright square on a dark ground, with noise: X = I, D all differences of neighbours."""
    g = np.random.default_rng(seed)
    image = np.zeros((side, side))
    image[side // 4 : side // 2, side // 4 : 3 * side // 4] = 1.0
    y = (image + 0.2 * g.standard_normal((side, side))).ravel()
    return sp.eye_array(side * side, format="csc"), y, transforms.grid((side, side))


def cpu(solve):
    start = time.process_time()
    result = solve()
    return time.process_time() - start, result


def median(solve, rounds):
    """Median CPU seconds after one call of warm-up, and the result."""
    result = solve()
    return float(np.median([cpu(solve)[0] for _ in range(rounds)])), result


def kkt_residual(X, y, path):
    """How far the path is from the inclusion: z from its integral, the gradient on the support."""
    flow = (y - path.gamma @ X.T) @ X / len(y)
    moved = np.cumsum(np.diff(path.t)[:, None] * flow[:-1], axis=0)
    on = path.gamma != 0
    return float(
        max(
            np.abs(moved - path.z[1:]).max(),
            np.abs(path.z).max() - 1,
            np.abs(path.z - np.sign(path.gamma))[on].max(),
            np.abs(flow[on]).max(),
        )
    )


def against_lasso(n, p, low, high, rounds):
    """CPU seconds of each method on one problem, and the ratio to exact ISS."""
    X, y = sparse_model(n, p, low, high)
    least = np.abs(X.T @ y).max() / n / 20
    F = np.asfortranarray(X)  # what the coordinate descents would otherwise copy
    methods = {
        "ISS, exact": lambda: iss_path(X, y),
        "LARS (scikit-learn)": lambda: lars_path(X, y, method="lasso", alpha_min=least),
        "lasso_path (scikit-learn)": lambda: lasso_path(F, y, eps=1 / 20),
    }
    if celer_path is not None:
        methods["celer_path"] = lambda: celer_path(F, y, "lasso", eps=1 / 20)
    for solve in methods.values():
        solve()
    times = {name: [] for name in methods}
    for _ in range(rounds):
        for name, solve in methods.items():
            times[name].append(cpu(solve)[0])
    base = np.array(times["ISS, exact"])
    rows = {
        name: dict(seconds=float(np.median(t)), ratio=float(np.median(np.array(t) / base)))
        for name, t in times.items()
    }
    return dict(n=n, p=p, size=[low, high], events=len(iss_path(X, y).t) - 2, methods=rows)


def split(rounds):
    X, y, D = flat_signal(100, 100)
    rows = []
    for nu in (1.0, 10.0):
        seconds, path = median(lambda nu=nu: split_iss_path(X, y, D, nu=nu), 5 * rounds)
        rows.append(dict(n=100, p=100, m=199, nu=nu, events=len(path.t) - 2, seconds=seconds))
    return rows


def saturated(sizes, rounds):
    rows = []
    for n, p in sizes:
        X, y = sparse_model(n, p, 1.0, 1.0)
        seconds, path = median(lambda X=X, y=y: iss_path(X, y, t_max=np.inf), rounds)
        left = int(((path.gamma[:-1] != 0) & (path.gamma[1:] == 0)).sum())
        rows.append(
            dict(
                n=n,
                p=p,
                events=len(path.t) - 1,
                removals=left,
                t_end=float(path.t[-1] / path.t[1]),
                kkt_residual=kkt_residual(X, y, path),
                seconds=seconds,
            )
        )
    return rows


def scaling(rounds):
    """Cost against n, against p, against m (images), and along one path."""
    result = {}

    def curve(name, sizes, solve):
        rows = [(size, *median(lambda size=size: solve(size), rounds)) for size in sizes]
        result[name] = dict(
            size=[row[0] for row in rows],
            seconds=[row[1] for row in rows],
            events=[len(row[2].t) - 2 for row in rows],
        )

    models = {n: sparse_model(n, 2000, 1.0, 1.0) for n in (250, 500, 1000, 2000)}
    curve("n (p = 2000)", list(models), lambda n: iss_path(*models[n]))
    models = {p: sparse_model(500, p, 1.0, 1.0) for p in (500, 1000, 2000, 4000, 8000)}
    curve("p (n = 500)", list(models), lambda p: iss_path(*models[p]))
    images = {side: noisy_image(side) for side in (10, 20, 30, 40, 50)}
    curve("m (image)", list(images), lambda side: split_iss_path(*images[side], nu=10.0))
    result["m (image)"]["size"] = [2 * side * (side - 1) for side in images]
    X, y = models[2000]
    whole = iss_path(X, y, t_max=np.inf)
    ends = [whole.t[k] for k in (25, 50, 100, 200, 400, 800, len(whole.t) - 1)]
    curve("events (n = 500, p = 2000)", ends, lambda t: iss_path(X, y, t_max=t))
    result["events (n = 500, p = 2000)"]["size"] = [
        events + 1 for events in result["events (n = 500, p = 2000)"]["events"]
    ]
    return result


def show(result):
    for problem in result["against_lasso"]:
        print("n = {n}, p = {p}, sizes {size}: {events} events".format(**problem))
        for name, row in problem["methods"].items():
            print(f"  {name:<28}{row['seconds']:>9.4f} s{row['ratio']:>8.2f} x ISS")
    for row in result["split"]:
        print("split, n = p = 100, m = 199, nu = {nu:g}: {events} events".format(**row), end="")
        print(f"{1e3 * row['seconds']:>9.2f} ms")
    for row in result["saturated"]:
        print(
            "saturated, n = {n}, p = {p}: {events} events, {removals} removals, {seconds:.3f} s, "
            "to {t_end:.3g} t0, KKT residual {kkt_residual:.1e}".format(**row)
        )
    for name, rows in result.get("scaling", {}).items():
        print(f"against {name}")
        for size, events, seconds in zip(
            rows["size"], rows["events"], rows["seconds"], strict=True
        ):
            print(f"  {size:>8}{events:>8} events{seconds:>10.4f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="small sizes, no scaling")
    parser.add_argument("--out", help="also write the figures to this JSON file")
    args = parser.parse_args()
    n, p = (200, 1000) if args.quick else (1000, 5000)
    sizes = [(200, 1000)] if args.quick else [(200, 1000), (1000, 2000)]
    with threadpool_limits(1, "blas"):
        result = dict(
            against_lasso=[against_lasso(n, p, *size, args.rounds) for size in ((1, 3), (1, 1))],
            split=split(args.rounds),
            saturated=saturated(sizes, min(args.rounds, 3)),
        )
        if not args.quick:
            result["scaling"] = scaling(min(args.rounds, 3))
    show(result)
    if args.out:
        names = ["numpy", "scipy", "scikit-learn"] + ["celer"] * (celer_path is not None)
        about = dict(
            command=f"python benchmarks/paths.py --rounds {args.rounds}" + " --quick" * args.quick,
            date=str(date.today()),
            versions={name: version(name) for name in names},
            machine=f"{platform.machine()}, one BLAS thread, CPU seconds",
        )
        with open(args.out, "w") as file:
            json.dump(dict(about, **result), file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()

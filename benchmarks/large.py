"""Memory and time of exact paths over very many columns, each in a process of its own.

    python benchmarks/large.py [--quick] [--out benchmarks/results/large.json]

Normal X with 500 rows and 100,000 columns, in float64, in float32, and in float32 on disk; and a
sparse X with 2000 rows and a million columns, 20 normal entries in each. Twenty coefficients are
not zero, the noise has unit variance. Memory is what the process holds at most beside what it held
when X and y were there: of its own pages, so that pages of a file are not counted. CPU seconds with
one BLAS thread.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from importlib.metadata import version

import numpy as np
import scipy.sparse as sp

from dslbi_ref.iss import iss_path

KINDS = ("float64", "float32", "float32 on disk", "sparse")


def own_memory():
    """Bytes of the pages that this process alone has asked for (Linux)."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])


class Peak(threading.Thread):
    """Looks at :func:`own_memory` every five milliseconds."""

    def __init__(self):
        super().__init__(daemon=True)
        self.start_size = self.size = own_memory()

    def run(self):
        while True:
            self.size = max(self.size, own_memory())
            time.sleep(0.005)


def problem(kind, n, p, folder):
    """X of that kind, and y."""
    g = np.random.default_rng(0)
    if kind == "sparse":
        ends, rows = np.arange(0, 20 * p + 1, 20), g.integers(0, n, 20 * p, dtype=np.int32)
        X = sp.csc_array((g.standard_normal(20 * p), rows, ends.astype(np.int32)), shape=(n, p))
        X.sum_duplicates()
        return X, X[:, :20] @ np.full(20, 5.0) + g.standard_normal(n)
    X = g.standard_normal((n, p), dtype=np.float32)
    y = X[:, :20].sum(axis=1, dtype=np.float64) + g.standard_normal(n)
    if kind == "float64":
        X = X.astype(np.float64)
    if kind == "float32 on disk":
        np.save(os.path.join(folder, "X.npy"), X)
        X = np.load(os.path.join(folder, "X.npy"), mmap_mode="r")
    return X, y


def measure(kind, n, p, end):
    """Run one path, until ``end`` times its first entry, and print its row as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        X, y = problem(kind, n, p, folder)
        bytes_of_x = X.data.nbytes + X.indices.nbytes if sp.issparse(X) else X.nbytes
        t_max = end * n / np.abs(X.T @ y).max()
        peak, start = Peak(), time.process_time()
        peak.start()
        path = iss_path(X, y, t_max=t_max)
        row = dict(
            kind=kind,
            n=n,
            p=p,
            events=len(path.t) - 2,
            entries=int(np.isfinite(path.entry_times()).sum()),
            gigabytes_of_x=bytes_of_x / 1e9,
            gigabytes_beside=(peak.size - peak.start_size) / 1e9,
            seconds=time.process_time() - start,
        )
    print(json.dumps(row))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the columns")
    parser.add_argument("--out", help="also write the figures to this JSON file")
    parser.add_argument("--one", choices=KINDS, help="one kind, in this process")
    args = parser.parse_args()
    part = 10 if args.quick else 1
    if args.one:
        sparse = args.one == "sparse"
        n, p, end = (2000, 10**6, 9.5) if sparse else (500, 10**5, 13.4)
        return measure(args.one, n, p // part, end)
    rows = []
    for kind in KINDS:
        command = [sys.executable, __file__, "--one", kind, *["--quick"] * args.quick]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        rows.append(json.loads(done.stdout))
        print(
            "{kind:<16} {n} x {p}: {events} events, {entries} entries, X {gigabytes_of_x:.2f} GB, "
            "{gigabytes_beside:.3f} GB beside it, {seconds:.1f} s".format(**rows[-1])
        )
    if args.out:
        about = dict(
            command="python benchmarks/large.py" + " --quick" * args.quick,
            date=str(date.today()),
            versions={name: version(name) for name in ("numpy", "scipy")},
            machine=f"{platform.machine()}, one BLAS thread, CPU seconds",
            rows=rows,
        )
        with open(args.out, "w") as file:
            json.dump(about, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()

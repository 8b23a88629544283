"""Memory of a long training: the size of the process, sampled while it trains.

    python benchmarks/soak.py [--minutes 60] [--every 10] [--out FILE.json]

One run of the laboratory, in one thread, with all that may gather in hours: single weights and
filters steered to a target density, the path recorded, dense, sparse and Gamma model evaluated and
two checkpoints written in every epoch. The data are noise, so that nothing is downloaded, and the
run goes on until its time is over and it is asked to stop, as by SIGTERM. What a run gathers on
purpose is counted beside its memory: the bytes of the recorded path and of the log.
"""

import argparse
import json
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from dslbi_torch import RecordedPath
from dslbi_torch.training.config import Config
from dslbi_torch.training.run import run_folder as folders
from dslbi_torch.training.run.contexts import Terminated
from dslbi_torch.training.run.sessions import environment
from dslbi_torch.training.run.train import train

SETTINGS = dict(
    dataset="synthetic",
    model="lenet5",
    image_size=28,
    n_classes=10,
    epochs=100_000,
    batch_size=100,
    train_size=4000,
    lr=0.02,
    nu=20.0,
    target=0.2,
    ramp=1e-4,
    record_every=10,
    threads=1,
    device="cpu",
)
MB = 2**20


def resident() -> float:
    """Return the megabytes that this process has in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MB


class Samples:
    """Memory by time, from a thread of its own, until the time is over; then SIGTERM comes."""

    def __init__(self, seconds: float, every: float):
        self.rows, self._seconds, self._every = [], seconds, every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def _sample(self):
        start = time.monotonic()
        for k in range(1, 1 + int(self._seconds / self._every)):
            if self._ended.wait(start + k * self._every - time.monotonic()):
                return
            self.rows.append((round(time.monotonic() - start, 1), round(resident(), 1)))
        os.kill(os.getpid(), signal.SIGTERM)


def soak(folder: Path, seconds: float, every: float, **settings) -> dict:
    """Train until the time is over; return the samples and what the run has gathered."""
    config = Config(**SETTINGS | settings, out=str(folder))
    with Samples(seconds, every) as samples:
        try:
            train(config, progress=False)
        except Terminated:
            pass
        else:
            raise ValueError(f"epochs must outlast {seconds} s, got {config.epochs}")
    path, log = RecordedPath.load(folder / "path.npz"), folders.read_log(folder)
    return {
        "seconds, MB": samples.rows,
        "epochs": log[-1]["epoch"],
        "steps": int(path.steps[-1]),
        "snapshots": len(path.steps),
        "gathered_MB": round(gathered(folder, path) / MB, 2),
        **growth(samples.rows),
    }


def gathered(folder: Path, path: RecordedPath) -> int:
    """Return the bytes of the record and of the log, which grow with the run on purpose."""
    series = (path.nonzero, path.gamma_norm, path.weight_norm, path.entry)
    arrays = [path.steps, path.times, *(x for part in series for x in part.values())]
    return sum(x.nbytes for x in arrays) + (folder / "log.jsonl").stat().st_size


def growth(rows: list) -> dict:
    """Return the level of memory after a sixth of the time, and what a line through the rest says
    that it grows by in an hour."""
    t, mb = np.array(rows).T
    late = t >= t[-1] / 6
    slope = np.polyfit(t[late], mb[late], 1)[0]
    level = float(np.median(mb[late]))
    return {"level_MB": round(level, 1), "growth_MB_per_hour": round(3600 * float(slope), 2)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--every", type=float, default=10, help="seconds between two samples")
    parser.add_argument("--out", help="also write the record to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    about = environment(torch.device("cpu"))
    about["command"] = (
        f"python benchmarks/soak.py --minutes {args.minutes:g} --every {args.every:g}"
    )
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder) / "run", 60 * args.minutes, args.every)
    print({key: value for key, value in found.items() if key != "seconds, MB"})
    if args.out:
        text = json.dumps({"about": about, "settings": SETTINGS, **found}) + "\n"
        Path(args.out).write_text(text)


if __name__ == "__main__":
    main()

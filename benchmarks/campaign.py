"""The long runs, one after the other: what is done stays done, and what is cut off goes on.

    python -m benchmarks.campaign --list
    nice -n 19 python -m benchmarks.campaign [--only NAME|PART ...] [--minutes 480] [--runs FOLDER]

Run from a clean clone of one revision of ``dslbi_torch``; the plan is ``campaign_plan.py``, most
valuable runs first. Each run has a folder below ``--runs`` and goes on from its checkpoint, so the
command may be stopped (SIGTERM, Ctrl-C: no step is lost; killed: at most an epoch) and given again.
A finished one leaves ``results/campaign/NAME.json``: command, revision, device, settings, seed, the
log of its epochs, its results, on which pictures it was measured, and how its settings were chosen.

A run computes in fp32 or in bf16, whichever is faster for its net on this machine; that is timed
once, and kept in ``--runs``. Times are from the logs of runs of the same net, and from these
timings where there is none.
"""

import argparse
import dataclasses
import gc
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks import campaign_plan
from benchmarks.campaign_record import record, score
from dslbi_torch.masks.files import save_masks
from dslbi_torch.safe_files import atomic
from dslbi_torch.training.data import datasets
from dslbi_torch.training.experiments.prune_run import choose_masks
from dslbi_torch.training.run import loop, train
from dslbi_torch.training.run import run_folder as folders
from dslbi_torch.training.run.contexts import Terminated
from dslbi_torch.training.run.set_up import open_run, set_up

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "campaign"
CODE = "dslbi_torch"  # what decides a run, beside its settings


class Unavailable(Exception):
    """A run cannot be made here and now; the message says why."""


# Of one revision


def clean_revision() -> str:
    """Return the last commit that changed the code; ValueError where the tree has other code."""
    changed = _git("status", "--porcelain", "--", CODE, "benchmarks", ":!benchmarks/results")
    if changed:
        files = ", ".join(line[3:] for line in changed.splitlines()[:3])
        raise ValueError(f"a campaign needs a clean clone, got changes in {files}")
    return _git("rev-list", "-1", "HEAD", "--", CODE)


def _git(*words):
    command = ["git", "-C", str(ROOT), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"a campaign needs a git clone: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.rstrip()


def read_records(revision: str) -> dict[str, dict]:
    """Return the records by name; ValueError where one is of another revision."""
    found = {}
    for file in sorted(RESULTS.glob("*.json")):
        found[file.stem] = json.loads(file.read_text())
        _require(revision, found[file.stem]["revision"], file, "move it away")
    return found


def claim(runs: Path, revision: str) -> None:
    """Make the folder of the runs one of this revision; ValueError where it is of another."""
    runs.mkdir(parents=True, exist_ok=True)
    file = runs / "revision"
    if file.exists():
        _require(revision, file.read_text().strip(), runs, "name another folder with --runs")
    folders.write_text(file, revision + "\n")


def _require(revision, found, place, remedy):
    if found != revision:
        raise ValueError(
            f"{place} must be of revision {revision[:12]} of {CODE}, got {found[:12]}: check that "
            f"out, or {remedy}"
        )


# One run


def complete(job, records, runs: Path) -> dict:
    """Train a job, unless its folder holds it finished, and return its record."""
    config, chosen = settled(job, records, runs)
    diverged = None
    if not folders.is_finished(config):
        try:
            train.train(config)
        except FloatingPointError as error:  # which is a result
            diverged = str(error)
    return record(job, config, chosen, diverged)


def settled(job, records, runs: Path):
    """Return the config of a job with all that other runs decide, and what they decided."""
    config = dataclasses.replace(job.config, out=str(runs / job.name), data=data_folder(job))
    chosen = None
    if job.grid:
        best = max(job.grid, key=lambda name: score(records[name]))
        settings = records[best]["settings"]
        chosen = {name: settings.get(name, getattr(job.config, name)) for name in job.fields}
        config = dataclasses.replace(config, **chosen)
    amp = precision(config, runs)
    config = dataclasses.replace(config, amp=amp)
    if job.masks_of:
        file, source = runs / f"{job.name}.masks.pt", runs / job.masks_of
        if not file.exists():
            run = open_run(source, data=config.data, device=config.device)
            save_masks(choose_masks(run, **job.choice), file)
        initial = str(source / "checkpoint.pt") if job.tunes else None
        config = dataclasses.replace(config, masks=str(file), initial=initial)
    return config, chosen


def data_folder(job) -> str | None:
    """Return the folder of a job's data where it is not the root of all data sets."""
    return str(datasets.data_root() / job.data) if job.data else None


def require_data(job, missing: dict) -> None:
    """Raise Unavailable where the data of a job are not there; ask for each data set once."""
    config = job.config
    key = (config.dataset, job.data)
    if key not in missing:
        wanted = dict(image_size=config.image_size, n_classes=config.n_classes)
        try:
            datasets.load(config.dataset, data_folder(job), **wanted)
            missing[key] = ""
        except FileNotFoundError as error:
            missing[key] = " ".join(str(error).split())
    if missing[key]:
        raise Unavailable(f"its data are missing: {missing[key]}")


# How long


def kind(config) -> str:
    """Return what runs of the same cost have in common."""
    size = f"-{config.image_size}" if config.image_size else ""
    return f"{config.dataset}{size} {config.model} {config.batch_size}"


def precision(config, runs: Path, steps=3) -> str | None:
    """Return "bf16" or None, whichever makes the faster steps here; timed once for each kind."""
    file = runs / "precision.json"
    timed = json.loads(file.read_text()) if file.exists() else {}
    key = kind(config)
    if key not in timed:
        timed[key] = {name: _epoch_s(config, amp, steps) for name, amp in AMPS.items()}
        with atomic(file) as temporary:
            temporary.write_text(json.dumps(timed, indent=1) + "\n")
    return AMPS[min(AMPS, key=timed[key].get)]


AMPS = {"fp32": None, "bf16": "bf16"}


def _epoch_s(config, amp, steps):
    """Seconds that the steps of an epoch take, by the fastest of a few after one that warms up."""
    run = set_up(dataclasses.replace(config, amp=amp, masks=None, initial=None))
    x, y = next(run.data.train.batches(config.batch_size))
    run.net.train()
    times = []
    for _ in range(1 + steps):
        start = time.perf_counter()
        loop.train_step(run, x, y, len(y)).item()
        times.append(time.perf_counter() - start)
    return min(times[1:]) * run.steps_per_epoch


def epoch_s(jobs, records, runs: Path) -> dict[str, float]:
    """Return seconds of an epoch by kind of run: of the runs so far, else of its timed steps."""
    file, found = runs / "precision.json", {}
    timed = json.loads(file.read_text()) if file.exists() else {}
    for job in jobs:
        log = _log(job, records, runs)
        if log and log[-1]["epoch"] and job.config:
            found.setdefault(kind(job.config), []).append(log[-1]["time_s"] / log[-1]["epoch"])
    means = {key: sum(values) / len(values) for key, values in found.items()}
    return {key: min(times.values()) for key, times in timed.items()} | means


def _log(job, records, runs):
    if job.name in records:
        return records[job.name]["log"]
    try:
        return folders.read_log(runs / job.name)
    except (FileNotFoundError, ValueError):
        return []


def seconds_left(job, records, runs, epochs: dict) -> float:
    """Return seconds that a job still needs; nan where no run of its kind was timed."""
    if job.waits or job.name in records:
        return 0.0
    log = _log(job, records, runs)
    left = job.config.epochs - (log[-1]["epoch"] if log else 0)
    return left * epochs.get(kind(job.config), math.nan)


# All of them


def listing(jobs, records, runs: Path) -> str:
    """Return a line for each job: its state, its epochs, how long it takes; and the sum."""
    epochs, lines, total, unknown = epoch_s(jobs, records, runs), [], 0.0, 0
    for job in jobs:
        log = _log(job, records, runs)
        left = seconds_left(job, records, runs, epochs)
        state = "done" if job.name in records else "begun" if log else "to do"
        state = "waits" if job.waits else state
        at = "" if job.waits else f"{log[-1]['epoch'] if log else 0}/{job.config.epochs}"
        total += 0 if math.isnan(left) else left
        unknown += math.isnan(left)
        clock = job.waits or ("" if state == "done" else hours(left))
        lines.append(f"{state:<6} {job.part:<10} {job.name:<36} {at:>7}  {clock}".rstrip())
    rest = f", and {unknown} not timed yet" if unknown else ""
    waiting = [job for job in jobs if job.name not in records and not job.waits]
    following = f"next {waiting[0].name}; " if waiting else ""
    done = sum(job.name in records for job in jobs)
    return "\n".join([*lines, f"{done} of {len(jobs)} done; {following}{hours(total)} left{rest}"])


def hours(seconds: float) -> str:
    """Return a time as h:mm, or ? where it is not known."""
    return "?" if math.isnan(seconds) else f"{seconds // 3600:.0f}:{seconds % 3600 // 60:02.0f}"


def chosen_jobs(plan, only) -> list:
    """Return the jobs of these names or parts and what they need, in the order of the plan."""
    wanted = set()
    for word in only or [job.name for job in plan]:
        own = {job.name for job in plan if word in (job.name, job.part)}
        if not own:
            parts = ", ".join(dict.fromkeys(job.part for job in plan))
            raise ValueError(f"only must name runs, or parts ({parts}), got {word!r}")
        wanted |= own
    for job in reversed(plan):  # what a run needs comes before it
        if job.name in wanted:
            wanted |= set(needs(job))
    return [job for job in plan if job.name in wanted]


def needs(job) -> tuple[str, ...]:
    """Return the names of the jobs that must be done before this one."""
    return (*job.grid, *([job.masks_of] if job.masks_of else []))


def campaign(jobs, records, runs: Path, revision: str, until=math.inf) -> None:
    """Complete the jobs one after the other; begin nothing after ``until``. Say what is skipped."""
    missing = {}
    for job in jobs:
        if job.name in records:
            continue
        if time.monotonic() > until:
            print(f"the time is over before {job.name}")
            return
        try:
            if job.waits:
                raise Unavailable(f"it waits for other work: {job.waits}")
            lacking = [name for name in needs(job) if name not in records]
            if lacking:
                raise Unavailable(f"it needs {lacking[0]} first")
            require_data(job, missing)
            print(f"{job.name} begins or goes on", flush=True)
            found = complete(job, records, runs) | {"revision": revision}
        except (Unavailable, ImportError) as error:  # a rival's package
            print(f"{job.name} is skipped: {error}", flush=True)
            continue
        RESULTS.mkdir(parents=True, exist_ok=True)
        folders.write_text(RESULTS / f"{job.name}.json", json.dumps(found, indent=1) + "\n")
        records[job.name] = found
        print(f"{job.name} is done: {found['results']}")
        print(listing(jobs, records, runs).splitlines()[-1], flush=True)
        gc.collect()


def main(words=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="say what is done and what is next")
    parser.add_argument("--only", nargs="+", help="names of runs or parts, with what they need")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing after these")
    parser.add_argument("--runs", type=Path, default=Path("runs/campaign"), help="run folders")
    args = parser.parse_args(words)
    until = time.monotonic() + 60 * args.minutes
    try:
        jobs = chosen_jobs(campaign_plan.PLAN, args.only)
        revision = clean_revision()
        records = read_records(revision)
        if not args.list:
            claim(args.runs, revision)
            campaign(jobs, records, args.runs, revision, until)
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        print(error, file=sys.stderr)
        return 2
    except (Terminated, KeyboardInterrupt) as stop:
        print(f"{stop or 'interrupted'}: the same command goes on from there", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    print(listing(jobs, records, args.runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())

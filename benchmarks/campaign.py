"""The long runs, one after the other: what is done stays done, and what is cut off goes on.

    python -m benchmarks.campaign --list
    nice -n 19 python -m benchmarks.campaign [--only NAME|PART ...] [--minutes 480] [--runs FOLDER]

Run from a clean clone of one revision of ``dslbi_torch``; the plan is ``campaign_plan.py``, most
valuable runs first. Each run has a folder below ``--runs`` and goes on from its checkpoint, so the
command may be stopped (SIGTERM, Ctrl-C: no step is lost; killed: at most an epoch) and given again.
A finished one leaves ``results/campaign/NAME.json``: command, revision, device, settings, seed, the
log of its epochs, its results, on which pictures it was measured, and how its settings were chosen.

A run computes in fp32 or in bf16, whichever is faster for its net on this machine; that is timed
once, and kept in ``--runs``. How long a run will take is said by the logs of runs of the same net,
else by that timing, else by its operations at the rate of the nets that were timed.
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
from benchmarks.campaign_costs import epoch_operations, epoch_s, hours, precision, seconds
from benchmarks.campaign_record import record, score
from dslbi_torch.masks.crossing import crossing_masks, crossing_weights
from dslbi_torch.masks.files import save_masks
from dslbi_torch.masks.whole_filters import whole_filters
from dslbi_torch.training.config import Config
from dslbi_torch.training.data import datasets
from dslbi_torch.training.experiments.prune_run import choose_masks
from dslbi_torch.training.run import run_folder as folders
from dslbi_torch.training.run import train
from dslbi_torch.training.run.contexts import Terminated
from dslbi_torch.training.run.set_up import open_run

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
        # a record leaves out what is the default of all configs
        chosen = {name: settings.get(name, getattr(Config(), name)) for name in job.fields}
        config = dataclasses.replace(config, **chosen)
    amp = precision(config, runs)
    config = dataclasses.replace(config, amp=amp)
    if job.masks_of:
        config = dataclasses.replace(config, **sparse_net(job, config, runs))
    return config, chosen


def sparse_net(job, config, runs: Path) -> dict[str, str | None]:
    """Return the files of the masks of a job and of the weights that it begins with; write them
    where they are not there yet."""
    masks, weights = runs / f"{job.name}.masks.pt", folders.checkpoint_file(runs / job.masks_of)
    crossed = job.choice.get("crossing")
    if crossed:
        weights = runs / f"{job.name}.initial.pt"
    if not masks.exists():
        run = open_run(runs / job.masks_of, data=config.data, device=config.device)
        if crossed:
            kept = whole_filters(
                run.model, crossing_masks(run.recorder, crossed), run.data.example()
            )
            with crossing_weights(run.recorder, crossed), folders.atomic(weights) as temporary:
                torch.save({"model": run.model.state_dict()}, temporary)
        else:
            kept = choose_masks(run, **job.choice)
        save_masks(kept, masks)  # the last: what it needs is there
    return {"masks": str(masks), "initial": str(weights) if job.tunes else None}


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


# How far


def _log(job, records, runs):
    if job.name in records:
        return records[job.name]["log"]
    try:
        return folders.read_log(runs / job.name)
    except (FileNotFoundError, ValueError):
        return []


# All of them


def listing(jobs, records, runs: Path) -> str:
    """Return a line for each job: its state, its epochs, its operations, how long it will take; and
    one for all."""
    logs = {job.name: _log(job, records, runs) for job in campaign_plan.PLAN}
    planned = [job for job in campaign_plan.PLAN if not job.waits]
    known = epoch_s([(job.config, logs[job.name]) for job in planned], runs)
    configs = [job.config for job in planned]
    lines, left = [], 0.0
    for job in jobs:
        line = f"{_state(job, records, logs):<6} {job.part:<11} {job.name:<34}"
        if job.waits:
            lines.append(f"{line} for this: {job.waits}")
            continue
        log, epochs = logs[job.name], job.config.epochs
        at = log[-1]["epoch"] if log else 0
        due = 0 if job.name in records else seconds(job.config, epochs - at, known, configs)
        left += due
        cost = epochs * epoch_operations(job.config)
        lines.append(f"{line} {at:>3}/{epochs:<3} {cost:.1e} operations {hours(due):>6}")
    made = [job.name for job in jobs if not job.waits]
    due = [name for name in made if name not in records]
    following = f"next {due[0]}; " if due else ""
    done = f"{len(made) - len(due)} of {len(made)} done"
    return "\n".join([*lines, f"{done}; {following}{hours(left)} left"])


def _state(job, records, logs):
    if job.waits:
        return "waits"
    return "done" if job.name in records else "begun" if logs[job.name] else "to do"


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

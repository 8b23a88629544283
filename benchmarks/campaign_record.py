"""What the campaign keeps of a finished run."""

from benchmarks.runs import COLUMNS, environment, settings, short
from dslbi_torch.training.run import run_folder as folders
from dslbi_torch.training.run.sessions import ran_on

FILES = ("masks", "initial")  # of this machine: what they hold is said by "masks" of the record
DROPPED = ("layers", "acc_ema", "step", "skipped")


def record(job, config, chosen: dict | None, diverged: str | None = None) -> dict:
    """Return the record of a job that was trained as this config says.

    Parameters
    ----------
    job : campaign_plan.Job
    config : Config
    chosen : dict or None
        The settings that the runs of a grid on held-out pictures decided.
    diverged : str or None
        Why the run has no end.
    """
    log, first = folders.read_log(config.folder), environment(config.folder)
    held_out = f"{config.holdout} training pictures, held out"
    tuned = {"grid": list(job.grid), "chosen": chosen} if job.grid else "not on held-out pictures"
    return {
        "name": job.name,
        "part": job.part,
        "note": job.note,
        "command": f"python -m benchmarks.campaign --only {job.name}",
        "date": first["started"][:10],
        **ran_on(first),
        "settings": {k: v for k, v in settings(config).items() if k not in FILES},
        "seed": config.seed,
        "masks": {"of": job.masks_of, "tunes": job.tunes, **job.choice} if job.masks_of else None,
        "measured_on": held_out if config.holdout else "test set",
        "tuned": "it is of a grid" if config.holdout else tuned,
        "log": [_short(row) for row in log],
        "layers": _short(log[-1]["layers"] or {}),
        "results": {"diverged": diverged} if diverged else _results(config, log),
    }


def _results(config, log):
    """The last epoch, and what the net was before the first: under masks, without fine-tuning."""
    last = {key: log[-1][key] for key in COLUMNS if log[-1][key] is not None}
    without = {"acc_without_tuning": log[0]["acc_dense"]} if config.initial else {}
    return _short(last | without | {"seconds": log[-1]["time_s"]})


def _short(row):
    return {key: short(value) for key, value in row.items() if key not in DROPPED}


def score(found: dict) -> float:
    """Return what decides in a grid: accuracy of the sparse net, or of the only one there is."""
    results = found["results"]
    return results.get("acc_sparse", results.get("acc_dense", 0.0))

"""What decides a growth, and the folder in which it lives and goes on after an interruption."""

import json
import math
from dataclasses import MISSING, asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from ...safe_files import remove_stale, with_sum, without_sum
from .. import config as configs
from ..config import Config, option
from ..config_checks import check_types
from ..run import checkpoint
from ..run import run_folder as folders
from ..run.contexts import Terminated
from ..run.sessions import write_environment
from ..run.state import Run


@dataclass(frozen=True)
class GrowthPlan:
    """When a net is widened, and by how much; impossible values raise ValueError.

    A saturated layer of n units gets ``floor(rate * n)``, but ``least`` new ones at least, and
    fewer where the budget ends.
    """

    budget: int = option(MISSING, "parameters that the net may have, all counted")
    start: int = option(4, "units of every growing layer in the beginning")
    every: int = option(2, "epochs of a round")
    saturated: float = option(0.8, "share of a layer's filters whose selection lets it grow")
    rate: float = option(1.1, "a layer grows to this many times its units, at least 1")
    least: int = option(1, "a layer grows by at least so many units")

    def __post_init__(self):
        check_types(self)
        for name in ("budget", "start", "every", "least"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be a whole number of at least 1, got {getattr(self, name)}"
                )
        if not 0 < self.saturated <= 1:
            raise ValueError(f"saturated must be in (0, 1], got {self.saturated}")
        if not 1 <= self.rate < math.inf:
            raise ValueError(f"rate must be at least 1 and finite, got {self.rate}")


def begin_growth(run: Run, plan: GrowthPlan) -> None:
    """Write what decides a growth into its folder, or note that it goes on."""
    folder = run.config.folder
    remove_stale(folder)
    text = json.dumps(with_sum(asdict(plan)), indent=2) + "\n"
    folders.write_text(folder / "growth.json", text)
    folders.write_text(folder / "config.json", configs.to_json(run.config))
    write_environment(folder, run.processes.device, 1, run.step)


def save_growth(run: Run, start: nn.Module | None) -> None:
    """The checkpoint, which holds the log, and then the log: what is in a log can go on."""
    folder = run.config.folder
    content = checkpoint.everything(run) | {"start": None if start is None else start.state_dict()}
    with checkpoint.writing(run, folder / "growth.pt"):
        with folders.atomic(folder / "growth.pt") as temporary:
            torch.save(content, temporary)
        folders.write_log(folder, run.at.log)


def read_growth(config: Config, device="cpu") -> dict:
    """Return the checkpoint of a growth."""
    holds = "epoch", "log", "start"
    return folders.read_state(config.folder / "growth.pt", config, device, holds)


def stopped_growth(run: Run) -> Terminated:
    """Return what ends a growth that was asked to stop, once it is saved."""
    where = run.config.folder
    return Terminated(f"stopped after step {run.step} with a checkpoint in {where}")


def unfinished_growth(config: Config, plan: GrowthPlan) -> dict | None:
    """Return the checkpoint from which a growth goes on, or None where it starts; refuse a folder
    that holds anything else."""
    folder, other = config.folder, "name another folder with --out"
    if (folder / "grown.pt").exists() or (folder / "checkpoint.pt").exists():
        raise ValueError(f"{folder} holds a net or a run: {other}")
    present = [name for name in folders.FILES if (folder / name).exists()]
    if not present:
        return None
    if not folders.grows(folder):
        raise ValueError(f"{folder} holds {', '.join(present)} but no growth.json: {other}")
    found, wanted = asdict(read_plan(folder)), asdict(plan)
    for name, value in wanted.items():
        if found[name] != value:
            raise ValueError(
                f"{folder} holds another growth ({name} {found[name]} there, {value} here): {other}"
            )
    if "config.json" in present:
        folders.require_config(config, "growth")
    if (folder / "growth.pt").exists():
        return read_growth(config)
    if "log.jsonl" in present:
        raise ValueError(f"{folder} holds the log of a growth, but no growth.pt: {other}")
    return None  # stopped within the first epoch


def read_plan(folder: str | Path) -> GrowthPlan:
    """Return what decided the growth of a folder."""
    file = Path(folder) / "growth.json"
    try:
        return GrowthPlan(**without_sum(json.loads(file.read_text())))
    except (ValueError, TypeError, AttributeError) as error:  # JSON errors included
        raise ValueError(f"{file} cannot be read: {error}") from error

"""``environment.json`` of a run folder: what each session of a run ran on."""

import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

from ...safe_files import with_sum, without_sum
from .run_folder import write_text


def write_environment(folder: Path, device: torch.device, world: int, step: int) -> None:
    """Add this session (from ``step`` on) to ``environment.json``.

    Each session is there with all it ran on; what stands above them is that of the first.
    """
    sessions = []
    if step:
        with suppress(OSError, ValueError):  # absent or damaged: no run depends on it
            sessions = read_sessions(folder)
    sessions.append({"from_step": step, **environment(device), "processes": world})
    content = with_sum({**ran_on(sessions[0]), "sessions": sessions})
    write_text(folder / "environment.json", json.dumps(content, indent=2) + "\n")


def read_sessions(folder: str | Path) -> list[dict]:
    """Return the sessions of a run or a growth, oldest first, each with all that it ran on:
    ``from_step, started, command, revision, python, packages, platform, device, threads,
    processes``."""
    path = Path(folder) / "environment.json"
    try:
        content = without_sum(json.loads(path.read_text()))
        return [dict(session) for session in content["sessions"]]
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{folder} must be a run folder, but has no environment.json"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} must hold the sessions of a run, got {error!r}") from error


def ran_on(session: dict) -> dict:
    """Return what a session ran on, without when and how it was started."""
    own = ("from_step", "started", "command")
    return {key: value for key, value in session.items() if key not in own}


def environment(device: torch.device) -> dict:
    """Return what a run depends on besides its config."""
    packages = ("dslbi", "torch", "torchvision", "numpy", "scikit-learn")
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {
        "revision": _revision(),
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in packages},
        "platform": platform.platform(),
        "device": f"{device}: {name}",
        "threads": torch.get_num_threads(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
    }


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _revision():
    """Git revision of the checkout of this file, ``-dirty`` if changed; None without one."""
    here = str(Path(__file__).parent)
    git = ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None

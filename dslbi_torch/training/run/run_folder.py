"""The run folder: what is in it, written so that a crash at any moment loses nothing.

====================  ====================================================================
``config.json``       the Config
``environment.json``  revision, versions, device, command of every session: the first one and each
                      that went on from it: see ``sessions.py``
``log.jsonl``         one line before training and one for each epoch
``path.npz``          the path: see :class:`dslbi_torch.PathRecorder`
``checkpoint.pt``     everything that a resumed run needs: see ``checkpoint.py``
``initial.pt``        with ``initial``: the weights that it named
``masks.pt``          with ``masks``: a copy of that file
====================  ====================================================================

A run without a split has no ``path.npz``. The ``checkpoint-EPOCH.pt`` are those of the last
``keep`` epochs; the newest is the same file as ``checkpoint.pt``, unless the run has come further.
With ``tensorboard`` there is a folder of that name. What ``prune`` chooses later lies
in ``pruned.pt``, and what ``compact`` makes in ``compact.pt``. The folder of a growth is another:
see ``grow_folder.py``.
"""

import json
import os
import shutil
import zipfile
from pathlib import Path

import torch

from ...optional import brought_by
from ...safe_files import atomic, check_sums, with_sum, without_sum
from ...text import one_line
from .. import config as configs
from ..nets import trained

FILES = ("config.json", "environment.json", "log.jsonl", "path.npz", "checkpoint.pt")

# What a row of the log must have, of a run and of a growth.
_ROWS = (
    {"epoch", "acc_dense", "acc_sparse", "acc_gamma", "nonzero_all", "nonzero_split", "layers"},
    {"epoch", "accuracy", "parameters", "units"},
)


class Unreadable(ValueError):
    """A file that should be a checkpoint is damaged, or none."""


def write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text)


def write_log(folder: Path, log: list[dict]) -> None:
    """Write all rows anew, each with its checksum: with a checkpoint's rows this drops what a
    killed run wrote after it."""
    write_text(folder / "log.jsonl", "".join(json.dumps(with_sum(row)) + "\n" for row in log))


def read_log(folder: str | Path) -> list[dict]:
    """Return the rows of ``log.jsonl``, of a run or of a growth; refuse a row of another form."""
    path = Path(folder) / "log.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} must be a run folder, but has no log.jsonl") from None
    except ValueError as error:  # of JSON, and of what is no text
        raise ValueError(f"{path} must hold one JSON object a line, got {error}") from error
    for k, row in enumerate(rows, 1):
        if not (isinstance(row, dict) and any(keys <= row.keys() for keys in _ROWS)):
            raise ValueError(
                f"{path} must hold a JSON object with {', '.join(sorted(_ROWS[0]))} in each line, "
                f"got {json.dumps(row)[:60]} in line {k}"
            )
        try:
            rows[k - 1] = without_sum(row)
        except ValueError as error:
            raise ValueError(f"{path} is damaged in line {k}: {error}") from error
    return rows


def read_config(folder: str | Path) -> configs.Config:
    """Return the config of a run folder; ValueError where an older or newer version wrote it."""
    path = Path(folder) / "config.json"
    try:
        return configs.from_json(path.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} must be a run folder, but has no config.json") from None
    except configs.OtherFormat as error:
        raise ValueError(f"{path} is of another version: {error}") from error
    except ValueError as error:  # JSON errors included
        raise ValueError(f"{path} cannot be read: {error}") from error


def checkpoint_file(folder: str | Path, epoch: int | None = None) -> Path:
    """Return where the last checkpoint of a run folder lies, or the one kept of an epoch."""
    return Path(folder) / ("checkpoint.pt" if epoch is None else f"checkpoint-{epoch:04d}.pt")


def last_file(folder: str | Path) -> Path:
    """Return where the last checkpoint of a run or of a growth lies, or will lie."""
    return Path(folder) / "growth.pt" if grows(folder) else checkpoint_file(folder)


def read_checkpoint(
    folder: str | Path, config: configs.Config, device="cpu", epoch: int | None = None
) -> dict:
    """Return the last checkpoint of a run folder, or that of an epoch, if it belongs to
    ``config``."""
    if grows(folder):
        raise ValueError(
            f"{folder} must be a run folder, but holds a growth, which grow.open_grown reads"
        )
    return read_state(checkpoint_file(folder, epoch), config, device)


def read_state(
    path: Path, config: configs.Config, device="cpu", holds=("epoch", "log", "world")
) -> dict:
    """Return all that changes in a run, from a file that says of which config it is; refuse a file
    that lacks some of what it ``holds``."""
    try:
        state, found = _load(path, device, lambda c: configs.from_json(c["config"]))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path.parent} must hold a finished epoch, but has no {path.name}"
        ) from None
    differing = other_settings(found, config)
    if differing:
        raise ValueError(f"{path} is of another run: {_compare(found, config, differing)}")
    for name in holds:
        if name not in state:
            raise ValueError(f"{path} must hold all of a run, but has no {name!r}")
    return state


def other_settings(a: configs.Config, b: configs.Config) -> list[str]:
    """Return the fields in which two configs would compute something else. A file that lies as
    before beside the run folder is the same: both may have been moved."""
    return [
        name
        for name in configs.differences(a, b)
        if name not in ("initial", "masks") or _beside(a, name) != _beside(b, name)
    ]


def _beside(config, name):
    """The way from a run folder to a file that its config names."""
    file = getattr(config, name)
    return file and os.path.relpath(file, config.folder)


def grows(folder: str | Path) -> bool:
    """Whether a folder is that of a growth, which is not a run of one net."""
    return (Path(folder) / "growth.json").exists()


def unfinished(config: configs.Config, world: int = 1, epoch: int | None = None) -> dict | None:
    """Return the checkpoint from which a run of ``config`` goes on, the last one or that of an
    epoch, or None where it starts afresh.

    A folder that holds a finished run, or a run of another config or number of processes, is
    refused: nothing is overwritten.
    """
    folder = config.folder
    present = [name for name in FILES if (folder / name).exists()]
    if not present:
        return None
    other = "name another folder with --out"
    if "config.json" not in present:
        raise ValueError(f"{folder} holds {', '.join(present)} but no config.json: {other}")
    if grows(folder):
        raise ValueError(f"{folder} holds a growth: {other}")
    require_config(config, "run")
    if "checkpoint.pt" not in present:  # killed before the first one
        return None
    checkpoint = read_checkpoint(folder, config, epoch=epoch)
    if checkpoint["epoch"] == config.epochs:
        raise ValueError(f"{folder} holds a finished run: {other}")
    if checkpoint["world"] != world:
        raise ValueError(
            f"{folder} holds a run of {checkpoint['world']} processes, and goes on with as many "
            f"only, got {world}: {other}"
        )
    return checkpoint


def require_config(config: configs.Config, what: str) -> None:
    """Refuse a folder whose config would compute something else."""
    found = read_config(config.folder)
    differing = other_settings(found, config)
    if differing:
        raise ValueError(
            f"{config.folder} holds a {what} of another config "
            f"({_compare(found, config, differing)}): name another folder with --out"
        )


def _load(path, device, look):
    """A checkpoint, and what ``look`` sees in it; Unreadable where the file is none."""
    try:
        checkpoint = _read(path, device)
        return checkpoint, look(checkpoint)
    except (FileNotFoundError, ImportError, configs.OtherFormat):
        raise
    # torch raises any of RuntimeError, EOFError, UnpicklingError, ... for a damaged file
    except Exception as error:
        raise Unreadable(
            f"{path} cannot be read, it is truncated or not a checkpoint of a run "
            f"({one_line(error, 120)})"
        ) from error


def _read(path, device):
    """What lies in a file of torch, or in one of tensors alone."""
    if Path(path).suffix == ".safetensors":
        with brought_by("timm", f"{path}"):
            from safetensors.torch import load_file
        return load_file(path, str(device))
    with open(path, "rb") as file:  # torch's form before 2020 has no checksums
        old = file.read(2) == b"\x80\x02" and not zipfile.is_zipfile(file)
    if not old:
        check_sums(path)
    return torch.load(path, map_location=device, weights_only=True)


def is_finished(config: configs.Config) -> bool:
    """Whether the folder of a config holds this very run, trained to its end."""
    if not (config.folder / "checkpoint.pt").exists():
        return False
    return read_checkpoint(config.folder, config)["epoch"] == config.epochs


# What a run takes from other files


def source(config: configs.Config, name: str) -> Path:
    """Return the file that ``initial`` or ``masks`` names; once a run has begun, its own copy."""
    own = config.folder / f"{name}.pt"
    begun = own.exists() and (config.folder / "checkpoint.pt").exists()
    return own if begun else _given(getattr(config, name))


def _given(name):
    """The file of a name: of weights that a package brings, or a path."""
    return trained.installed_file(name) if name in trained.INSTALLED else Path(name)


def read_weights(file: str | Path, device="cpu") -> dict[str, torch.Tensor]:
    """Return the state of the net of a checkpoint, whatever run it belongs to, or of a file of
    weights."""
    try:
        return _load(file, device, trained.state_of)[1]
    except FileNotFoundError:
        raise FileNotFoundError(
            f"initial must be a checkpoint, but {file} does not exist"
        ) from None


def keep_sources(config: configs.Config) -> None:
    """Copy what a run takes from other files into its folder, which then is enough to repeat it."""
    if config.initial:
        with atomic(config.folder / "initial.pt") as temporary:
            torch.save({"model": read_weights(_given(config.initial))}, temporary)
    if config.masks:
        with atomic(config.folder / "masks.pt") as temporary:
            shutil.copyfile(config.masks, temporary)


def _compare(found, wanted, names):
    parts = [f"{n} {getattr(found, n)!r} there, {getattr(wanted, n)!r} here" for n in names[:3]]
    return "; ".join(parts) + ("; ..." if len(names) > 3 else "")

"""One flipped bit in any file that a run leaves: it is refused in a line, or nothing comes of it.

``make kill`` flips 200 (``DSLBI_FLIPS``), ``make test`` fewer. A bit is drawn in two steps, the
file and then the place in it, so that the small files are hit as often as the large ones.
"""

import hashlib
import os
import shutil
from functools import partial

import numpy as np
import pytest
import torch

from dslbi_torch import __main__ as cli
from dslbi_torch import load_compact, load_masks
from dslbi_torch.training.config import Config
from dslbi_torch.training.experiments import grow
from dslbi_torch.training.experiments.grow_folder import GrowthPlan
from dslbi_torch.training.nets import zoo
from dslbi_torch.training.run import report, train
from dslbi_torch.training.run import run_folder as folders
from dslbi_torch.training.run.evaluate import evaluate
from dslbi_torch.training.run.sessions import read_sessions
from dslbi_torch.training.run.set_up import open_run

FLIPS = int(os.environ.get("DSLBI_FLIPS", "24"))
REFUSED = ValueError, OSError
SMALL = dict(
    epochs=3, train_size=128, batch_size=64, nu=5.0, lam_conv=0.5, lam_linear=0.08, threads=1,
    device="cpu", record_every=1,
)  # fmt: skip


def config_of(root, name="run"):
    """The config of one of the runs: a path, a net trained under masks, a growth."""
    if name == "masked":
        plain = dict(optimizer="sgd", initial=root / "run" / "checkpoint.pt")
        plain = {k: str(v) for k, v in (plain | {"masks": root / "run" / "pruned.pt"}).items()}
        return Config(**SMALL | dict(epochs=1, record_every=10) | plain, out=str(root / name))
    changes = dict(epochs=2, record_every=10) if name == "growth" else {}
    return Config(**SMALL | changes, out=str(root / name))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Everything that a run can leave; the run itself was broken off in its last epoch."""
    root = tmp_path_factory.mktemp("whole")
    epoch, count = train.train_epoch, []

    def broken_off(*args, **options):
        count.append(None)
        if len(count) == 3:
            raise KeyboardInterrupt
        return epoch(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "train_epoch", broken_off)
        with pytest.raises(KeyboardInterrupt):
            train.train(config_of(root), progress=False)
    run = str(root / "run")
    assert cli.main(["prune", run, "--density=0.7", "--per-layer", "--device=cpu"]) == 0
    assert cli.main(["compact", run, "--device=cpu"]) == 0
    train.train(config_of(root, "masked"), progress=False)
    grow.grow(config_of(root, "growth"), GrowthPlan(budget=3000, every=1), progress=False)
    return root


def digest(*parts):
    """Of tensors and whatever has a form as text."""
    found = hashlib.sha256()
    for part in parts:
        is_tensor = isinstance(part, torch.Tensor)
        found.update(part.numpy().tobytes() if is_tensor else repr(part).encode())
    return found.hexdigest()


def trained_on(root):
    """What the broken off run ends with."""
    run = train.train(config_of(root), resume=True, progress=False)
    timed = ("time_s", "pictures_s")
    log = [{k: v for k, v in row.items() if k not in timed} for row in run.at.log]
    return digest(*run.model.state_dict().values(), log)


def sessions_of(root):
    return read_sessions(root / "run"), read_sessions(root / "growth")


def masks_of(root):
    return digest(*load_masks(root / "run" / "pruned.pt").values())


def compact_of(root, file):
    return digest(*load_compact(root / file, zoo.build).state_dict().values())


def evaluated(root, name):
    opened = grow.open_grown if name == "growth" else open_run
    return evaluate(opened(root / name, device="cpu"))


READINGS = {
    "run": partial(evaluated, name="run"),
    "masked": partial(evaluated, name="masked"),
    "growth": partial(evaluated, name="growth"),
    "path": lambda root: report.path_table(root / "run"),
    "log": lambda root: (folders.read_log(root / "run"), folders.read_log(root / "growth")),
    "sessions": sessions_of,
    "masks": masks_of,
    "compact": partial(compact_of, file="run/compact.pt"),
    "grown": partial(compact_of, file="growth/grown.pt"),
    "trained on": trained_on,  # the last: it changes the folder
}


def read(root):
    """What every reading gives; None where it refuses."""
    found = {}
    for name, reading in READINGS.items():
        try:
            found[name] = reading(root)
        except REFUSED as error:
            assert "\n" not in str(error), error
            found[name] = None
    return found


def test_a_flipped_bit_is_refused_or_changes_nothing(root, tmp_path):
    place = tmp_path / "runs"
    shutil.copytree(root, place)
    whole = read(place)
    assert None not in whole.values()
    files = sorted(f.relative_to(root) for f in root.rglob("*") if f.is_file())
    rng, seen = np.random.default_rng(int(os.environ.get("DSLBI_SEED", "0"))), 0
    for _ in range(FLIPS):
        shutil.rmtree(place)
        shutil.copytree(root, place)
        file = place / files[rng.integers(len(files))]
        content = bytearray(file.read_bytes())
        at, bit = int(rng.integers(len(content))), int(rng.integers(8))
        content[at] ^= 1 << bit
        file.write_bytes(content)
        found = read(place)
        for name, expected in whole.items():
            assert found[name] in (None, expected), f"{name}: bit {bit} of byte {at} of {file}"
        seen += None in found.values()
    print(f"{FLIPS} flipped bits in {len(files)} files: {seen} refused, 0 with another result")
    assert seen > FLIPS / 4

"""SIGKILL at random moments of a run: it goes on, and ends with every bit of one that was left
alone. ``make kill`` kills a hundred times (``DSLBI_KILLS``), ``make test`` a few."""

import os
import signal
import time

import numpy as np
import pytest
from faulty import Command, ending, wait_for

KILLS = int(os.environ.get("DSLBI_KILLS", "6"))
SMALL = [
    *("train", "digits", "--epochs=4", "--train-size=512", "--batch-size=32", "--threads=1"),
    *("--device=cpu", "--record-every=3"),
]
RUNS = {
    "target": ["--target=0.2"],
    "within epochs": ["--checkpoint-steps=3", "--elements", "--nu=5"],
    "split": ["--optimizer=adamw", "--split", "--ema=0.9", "--shift=1", "--nu=5", "--lr=0.01"],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The seconds that each run takes, and what it ends with."""
    found = {}
    for name, flags in RUNS.items():
        folder = tmp_path_factory.mktemp("whole")
        out = folder / "run"
        command = Command(folder, [*SMALL, *flags, f"--out={out}"])
        wait_for(command.begun)
        start = time.monotonic()
        assert command.wait()[0] == 0
        found[name] = time.monotonic() - start, ending(out)
    return found


def test_what_is_killed_at_random_ends_bit_for_bit_as_what_is_not(whole, tmp_path):
    rng, kills, runs = np.random.default_rng(int(os.environ.get("DSLBI_SEED", "0"))), 0, 0
    while kills < KILLS:
        name = list(RUNS)[runs % len(RUNS)]
        seconds, expected = whole[name]
        out, statuses = tmp_path / f"run-{runs}", []
        argv = [*SMALL, *RUNS[name], f"--out={out}"]
        while 0 not in statuses:
            command = Command(tmp_path, argv)
            wait_for(command.begun)
            moment = rng.uniform(0, seconds)
            again = kills < KILLS and len(statuses) < 3  # then it is left alone
            command.process.join(moment if again else None)
            if command.process.exitcode is None:
                command.signal(signal.SIGKILL)
            status, err = command.wait()
            assert status in (0, -signal.SIGKILL), err
            statuses.append(status)
            kills += status == -signal.SIGKILL
        assert ending(out) == expected, f"{name}, killed {len(statuses) - 1} times"
        assert not list(out.glob(".*.tmp*"))
        runs += 1
    print(f"{kills} kills of {runs} runs, every one of them bit-equal at its end")

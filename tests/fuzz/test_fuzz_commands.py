"""Wrong command lines, each in this process: status 0, 1, 2 or 143, and never a traceback.

A run that starts is stopped in its third step, as by SIGTERM: then its status is 143.
"""

import argparse
import os
import signal
from collections import Counter

import numpy as np
import pytest
import stopping
from fuzz.mutate import Hang, pick

from dslbi_torch import __main__ as cli
from dslbi_torch.training.commands import COMMANDS
from dslbi_torch.training.run import loop

COUNT = int(os.environ.get("FUZZ_LINES", 40))
NUMBERS = ("nan", "inf", "-1", "0", "1", "2.5", "0.5", "1e300", "1e-320", "100")
COUNTS = ("-1", "0", "1", "3", "100", str(10**30), "1.0")
VALUES = "", "nan", "-inf", "-1", "0", "1", "2.5", "1e300", "1e-320", "many", "1,2", "a=1,a=2"
VALUES += ("a=", "=", "None", "nowhere", "none", "l2", "\0", "é", "a" * 300, str(10**30), "true")
SMALL = ("--epochs=1", "--train-size=64", "--batch-size=32", "--threads=1", "--device=cpu")
# Valid in a folder with a run: what a line is made from.
LINES = {
    "train": ("digits", *SMALL),
    "sweep": ("digits", *SMALL, "--kappas=1,2", "--nus=10,20"),
    "ticket": ("digits", *SMALL, "--rounds=2"),
    "grow": ("digits", *SMALL, "--budget=20000"),
    **dict.fromkeys(("evaluate", "path", "compact"), ("run",)),
    "prune": ("run", "--density=0.5"),
    "recipes": (),
}
# They start processes, compile, take minutes, or name what others have.
LEFT = {
    "--workers",
    "--compile",
    "--shard",
    "--data",
    "--tensorboard",
    "--fused",
    "--onnx",
    "--help",
}


def flags_of(name):
    parser = argparse.ArgumentParser()
    COMMANDS[name].add_arguments(parser)
    kinds = {int: COUNTS, float: NUMBERS}
    return {
        flag: None if action.nargs == 0 else kinds.get(action.type, VALUES)
        for action in parser._actions
        for flag in action.option_strings
        if flag.startswith("--") and not LEFT & {flag, f"--{flag[5:]}"}
    }


def _with(flag, values, rng):
    """Return the flag with a value of its kind, or alone where it takes none."""
    return flag if values is None else f"{flag}={pick(rng, values)}"


def wrong_line(rng, folder):
    """Return the words of a command line, some of which are wrong."""
    name = pick(rng, list(LINES))
    words = [name, *LINES[name]]
    flags = flags_of(name)
    for _ in range(1 + rng.integers(2)):
        flag = pick(rng, list(flags)) if flags else "--out"
        way = rng.integers(10)
        if way < 7:
            words.append(_with(flag, flags.get(flag, VALUES), rng))
        elif way == 7:
            words += [flag, pick(rng, VALUES)]
        elif way == 8:
            words[rng.integers(len(words))] = pick(rng, (*VALUES, flag, "--", "-x", flag[:-1]))
        else:
            words.insert(rng.integers(len(words) + 1), pick(rng, (flag, *VALUES)))
    if "--out" in flags and rng.integers(4):
        words.append(f"--out={folder}")
    return words


@pytest.mark.slow
def test_wrong_command_lines(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", *LINES["train"], "--elements", "--out=run"]) == 0
    steps = stopping.stop_after(monkeypatch, 3)
    stopped = loop.train_step

    def late(*_):
        raise Hang

    def third(*args):
        if len(steps) >= 3:
            steps.clear()
        return stopped(*args)

    monkeypatch.setattr(loop, "train_step", third)
    before, found, statuses = signal.signal(signal.SIGPROF, late), [], Counter()
    for seed in range(COUNT):
        words = wrong_line(np.random.default_rng([seed, 20]), tmp_path / str(seed))
        steps.clear()
        signal.setitimer(signal.ITIMER_PROF, 60)
        try:
            status = cli.main(words)
        except (Exception, SystemExit, Hang) as error:
            status = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        err = capsys.readouterr().err
        statuses[status] += 1
        if status not in (0, 1, 2, 143) or "Traceback" in err:
            found.append((seed, status, words))
        elif status == 2 and len(err.splitlines()) != 1:
            found.append((seed, f"{len(err.splitlines())} lines: {err[:200]}", words))
        elif status == 1 and "diverge" not in err:
            found.append((seed, f"status 1: {err[:200]}", words))
    signal.signal(signal.SIGPROF, before)
    print(dict(statuses))
    assert not found

"""The loop: what a run leaves behind, resuming bit for bit, and what stops it."""

import dataclasses
import errno
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from recorded import flat
from torch.nn import functional as F

from benchmarks import runs
from dslbi_torch import (
    DessiLBI,
    compact,
    crossing_weights,
    density,
    support_masks,
    whole_filters,
)
from dslbi_torch import __main__ as cli
from dslbi_torch.safe_files import atomic, locked
from dslbi_torch.surgery.costs import count_macs
from dslbi_torch.training import config as configs
from dslbi_torch.training import recipes
from dslbi_torch.training.config import Config
from dslbi_torch.training.run import loop, outlook, report, sessions, train
from dslbi_torch.training.run import run_folder as folders
from dslbi_torch.training.run.evaluate import evaluate
from dslbi_torch.training.run.processes import pick_device
from dslbi_torch.training.run.set_up import open_run, set_up

ROOT = Path(__file__).parents[4]

# Three epochs of 45 steps in which some filters and some weights enter and others do not.
SMALL = dict(
    epochs=3, batch_size=32, lr=0.1, nu=5.0, lam_conv=0.55, lam_linear=0.08, record_every=20,
    schedule="cosine", threads=1, device="cpu", seed=3, elements=True, shift=1,
)  # fmt: skip
STEPS = 45
KEYS = [
    *("epoch", "step", "time_s", "pictures_s", "lr", "loss"),
    *("acc_dense", "acc_sparse", "acc_gamma", "acc_ema"),
    *("nonzero_all", "nonzero_split", "layers", "skipped"),
]


def small(out, **changes):
    return Config(**{**SMALL, **changes}, out=str(out))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run: the Run in memory, and its folder."""
    folder = tmp_path_factory.mktemp("finished")
    return train.train(small(folder), progress=False), folder


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def checkpoint(folder):
    return torch.load(Path(folder) / "checkpoint.pt", weights_only=True)


def without_time(log):
    return [{k: v for k, v in row.items() if k not in ("time_s", "pictures_s")} for row in log]


def assert_same(a, b, where="checkpoint"):
    """Equal to the last bit, through dicts and lists."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}.{i}")
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=where)
    else:
        assert a == b, where


def assert_same_run(folder, reference):
    a, b = checkpoint(folder), checkpoint(reference)
    a["log"], b["log"] = without_time(a["log"]), without_time(b["log"])
    for key in ("config", "seconds"):  # these differ in the folder's name and in time
        a.pop(key), b.pop(key)
    assert_same(a, b)
    assert without_time(folders.read_log(folder)) == without_time(folders.read_log(reference))
    a, b = flat(report.read_path(folder)), flat(report.read_path(reference))
    assert sorted(a) == sorted(b)
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


# What a run leaves behind


def test_run_folder_is_complete(finished):
    run, folder = finished
    kept = [folders.checkpoint_file(folder, epoch).name for epoch in (2, 3)]
    assert sorted(contents(folder)) == sorted([*folders.FILES, *kept])
    assert (
        folders.read_config(folder) == run.config == configs.from_json(checkpoint(folder)["config"])
    )
    environment = json.loads((folder / "environment.json").read_text())
    assert {"revision", "python", "packages", "platform", "device", "threads"} <= set(environment)
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0]
    assert environment["threads"] == 1
    assert [s["from_step"] for s in environment["sessions"]] == [0]


def test_log_has_a_line_before_training_and_one_for_each_epoch(finished):
    _, folder = finished
    log = folders.read_log(folder)
    assert [list(row) for row in log] == [KEYS] * 4
    assert [row["epoch"] for row in log] == [0, 1, 2, 3]
    assert [row["step"] for row in log] == [0, 45, 90, 135]
    assert log[0]["loss"] is None and log[0]["nonzero_split"] == 0
    assert log[3]["loss"] < log[1]["loss"]
    # lr of the last step of each epoch
    assert [row["lr"] for row in log[1:]] == pytest.approx(
        [0.1 * (1 + np.cos(np.pi * (45 * k - 1) / 135)) / 2 for k in (1, 2, 3)], rel=1e-12
    )
    times = [row["time_s"] for row in log]
    assert times[0] == 0 and times == sorted(times)


def test_log_agrees_with_the_model_by_hand(finished):
    run, folder = finished
    last = folders.read_log(folder)[-1]
    x, y = run.data.test.x, run.data.test.y
    weights = {name: p.detach().clone() for name, p in run.model.named_parameters()}

    def share_right(tensors):
        with torch.no_grad():
            return (
                (torch.func.functional_call(run.model, tensors, x).argmax(1) == y).double().mean()
            )

    masks = support_masks(run.optimizer)
    V = {
        name: run.optimizer.state[p]["V"]
        for name, p in run.model.named_parameters()
        if name in masks
    }
    norms = V["conv1.weight"].flatten(1).norm(dim=1)
    scale = (1 - SMALL["lam_conv"] / norms).clamp(min=0)
    Gamma = {
        "conv1.weight": scale[:, None, None, None] * V["conv1.weight"],
        "fc1.weight": F.softshrink(V["fc1.weight"], SMALL["lam_linear"]),
    }
    for name, value in Gamma.items():
        torch.testing.assert_close(value != 0, masks[name], rtol=0, atol=0)
    sparse = {name: weights[name] * masks[name] for name in masks}
    assert last["acc_dense"] == share_right(weights).item()
    assert last["acc_sparse"] == share_right({**weights, **sparse}).item()

    kept = sum(int(mask.sum()) for mask in masks.values())
    size = sum(mask.numel() for mask in masks.values())
    total = sum(p.numel() for p in run.model.parameters())
    assert last["nonzero_split"] == kept / size
    assert last["nonzero_all"] == (kept + total - size) / total
    for name, mask in masks.items():
        assert last["layers"][name] == mask.double().mean().item()
        assert 0 < last["layers"][name] < 1, f"{name}: the test needs a partial selection"


def test_evaluate_has_three_models_and_leaves_the_weights_alone(finished):
    run, folder = finished
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    rows = evaluate(run)
    assert_same(before, {name: p.detach() for name, p in run.model.named_parameters()})
    last = folders.read_log(folder)[-1]
    assert list(rows) == ["dense", "sparse", "gamma"] and last["acc_ema"] is None
    assert [rows[k]["accuracy"] for k in rows] == [last[f"acc_{k}"] for k in rows]
    assert rows["dense"]["nonzero_split"] == 1
    assert rows["sparse"]["nonzero_all"] == density(run.optimizer, run.model).nonzero_all
    text = report.result_table(rows)
    for key in rows:
        assert f"{100 * rows[key]['accuracy']:.2f}" in text
    assert "on the test set" in text and "on 50 held out" in report.result_table(rows, holdout=50)


def test_dense_density_counts_zeros(finished):
    run, _ = finished
    weight = run.model.fc2.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[0, :5] = 0
    rows = evaluate(run)
    with torch.no_grad():
        weight.copy_(kept)
    split = sum(layer.size for layer in density(run.optimizer, run.model).layers)
    assert rows["dense"]["nonzero_split"] == pytest.approx(1 - 5 / split, rel=1e-12)


def test_reopened_run_is_the_run(finished, tmp_path):
    run, folder = finished
    moved = tmp_path / "moved"
    moved.mkdir()
    for name, content in contents(folder).items():
        (moved / name).write_bytes(content)
    again = open_run(moved, device="cpu")
    assert_same(dict(again.model.state_dict()), dict(run.model.state_dict()))
    assert_same(again.optimizer.state_dict(), run.optimizer.state_dict())
    assert evaluate(again) == evaluate(run)
    assert contents(moved) == contents(folder)


def test_path_is_recorded_at_the_start_every_few_steps_and_at_epoch_ends(finished):
    _, folder = finished
    path = report.read_path(folder)
    assert path.steps.tolist() == [0, 20, 40, 45, 60, 80, 90, 100, 120, 135]
    assert path.entry["conv1.weight"].shape == (16,)
    last = folders.read_log(folder)[-1]["layers"]
    for name, share in last.items():
        assert path.nonzero[name][-1] == pytest.approx(
            share * checkpoint(folder)["model"][name].numel(), abs=1e-6
        )


def test_seed_and_holdout_decide_and_out_does_not(finished, tmp_path):
    _, folder = finished
    train.train(small(tmp_path / "same"), progress=False)
    assert_same_run(tmp_path / "same", folder)
    train.train(small(tmp_path / "other", seed=4), progress=False)
    a, b = checkpoint(folder)["model"], checkpoint(tmp_path / "other")["model"]
    assert not torch.equal(a["fc1.weight"], b["fc1.weight"])
    held = train.train(small(tmp_path / "held", holdout=200, epochs=1), progress=False)
    assert (len(held.data.train), len(held.data.test)) == (1237, 200)


def test_threads_are_given_back(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train.train(small(tmp_path, epochs=1, threads=1), progress=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_float64_and_every_option_run(tmp_path):
    config = small(
        tmp_path, epochs=1, dtype="float64", conv="l1", linear="group", weight="sqrt", kappa=2.0,
        nesterov=True, weight_decay=1e-3, decoupled=True, coupling="inside", normalize=False,
        init="he", schedule="step", milestones=(1,),
    )  # fmt: skip
    run = train.train(config, progress=False)
    assert {p.dtype for p in run.model.parameters()} == {torch.float64}
    assert {state["V"].dtype for state in run.optimizer.state.values() if "V" in state} == {
        torch.float64
    }
    assert np.isfinite(folders.read_log(tmp_path)[-1]["loss"])


# Resuming


def stop_at(monkeypatch, target, name, count):
    """``target.name`` raises KeyboardInterrupt in its ``count``-th call."""
    original, calls = getattr(target, name), []

    def limited(*args, **kwargs):
        calls.append(None)
        if len(calls) == count:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(target, name, limited)


@pytest.mark.parametrize(
    "target, name, count, epoch",
    [
        (F, "cross_entropy", 1, 0),  # before the first step
        (F, "cross_entropy", STEPS + 5, 1),  # within an epoch
        (train, "log_row", 3, 1),  # between the last step of epoch 2 and its evaluation
        (folders, "write_log", 5, 1),  # between the log and the checkpoint of epoch 2
        (torch, "save", 4, 1),  # in the checkpoint before epoch 2 is evaluated
        (torch, "save", 5, 1),  # between the log and the checkpoint of epoch 2
        (train, "train_epoch", 3, 2),  # between two epochs
    ],
)
def test_interrupted_and_resumed_is_uninterrupted(
    finished, tmp_path, monkeypatch, target, name, count, epoch
):
    _, reference = finished
    with monkeypatch.context() as patch:
        stop_at(patch, target, name, count)
        with pytest.raises(KeyboardInterrupt):
            train.train(small(tmp_path), progress=False)
    saved = checkpoint(tmp_path)
    assert saved["epoch"] == epoch
    step = STEPS * epoch + saved["batch"]
    assert not list(tmp_path.glob(".*")), "no temporary file is left"
    torch.manual_seed(1234)  # whatever happened in between
    train.train(small(tmp_path), resume=True, progress=False)
    assert_same_run(tmp_path, reference)
    sessions = json.loads((tmp_path / "environment.json").read_text())["sessions"]
    assert [s["from_step"] for s in sessions] == ([0, step] if step else [0])


@pytest.mark.parametrize("nu_schedule", ["constant", "lr"])
def test_a_target_is_hit_and_resumed(tmp_path, monkeypatch, nu_schedule):
    """``target`` in place of levels: within 10 %, and what it has come to is in the checkpoint."""
    asked = dict(target=0.2, nu_schedule=nu_schedule)
    whole = train.train(small(tmp_path / "whole", **asked), progress=False)
    reached = evaluate(whole)["sparse"]["nonzero_split"]
    assert reached == pytest.approx(0.2, rel=0.1)
    with monkeypatch.context() as patch:
        stop_at(patch, train, "train_epoch", 2)
        with pytest.raises(KeyboardInterrupt):
            train.train(small(tmp_path / "parts", **asked), progress=False)
    train.train(small(tmp_path / "parts", **asked), resume=True, progress=False)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_a_target_may_be_a_share_of_every_layer_with_a_floor(tmp_path):
    asked = dict(conv="group", linear="group", target=0.25, ramp=0.2)
    run = train.train(small(tmp_path / "a", per_layer=True, **asked), progress=False)
    layers = density(run.optimizer, run.model).layers
    assert len(layers) > 2
    for layer in layers:
        assert abs(layer.units_selected - layer.units / 4) <= 0.5, layer
    floor = set_up(small(tmp_path / "b", at_least=2, **asked)).controller
    assert floor.at_least == 2 and len(floor.steered) == len(layers)


@pytest.mark.parametrize("word", ["group", "channel"])
def test_a_cost_is_hit_and_resumed(tmp_path, monkeypatch, word):
    """``cost`` in place of levels: what the cut net has is what was asked, to within a unit."""
    asked = dict(conv=word, linear=word, cost={"macs": 0.5})
    whole = train.train(small(tmp_path / "whole", **asked), progress=False)
    x = whole.data.example()
    masks = whole_filters(whole.model, support_masks(whole.optimizer), x)
    macs = [count_macs(net, x)[""] for net in (compact(whole.model, masks, x), whole.model)]
    assert macs[0] / macs[1] == pytest.approx(0.5, abs=0.04)
    with monkeypatch.context() as patch:
        stop_at(patch, train, "train_epoch", 2)
        with pytest.raises(KeyboardInterrupt):
            train.train(small(tmp_path / "parts", **asked), progress=False)
    train.train(small(tmp_path / "parts", **asked), resume=True, progress=False)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


RELEASED = dict(
    release=1.2, release_pull=0.5, release_power=0.5, target=0.2, ramp=1.0, checkpoint_steps=9,
    crossings=(0.1, 0.05),
)  # fmt: skip


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    folder = tmp_path_factory.mktemp("released")
    return train.train(small(folder, **RELEASED), progress=False), folder


@pytest.mark.parametrize(("count", "step"), [(48, 45), (57, 54), (70, 63)])
def test_resumed_across_a_release_it_is_uninterrupted(released, tmp_path, monkeypatch, count, step):
    """Before the release of step 54, at it, and after it."""
    _, reference = released
    with monkeypatch.context() as patch:
        stop_at(patch, F, "cross_entropy", count)
        with pytest.raises(KeyboardInterrupt):
            train.train(small(tmp_path, **RELEASED), progress=False)
    saved = checkpoint(tmp_path)
    assert STEPS * saved["epoch"] + saved["batch"] == step
    train.train(small(tmp_path, **RELEASED), resume=True, progress=False)
    assert_same_run(tmp_path, reference)


def test_a_released_run_starts_its_path_where_it_says(released):
    run, folder = released
    record = report.read_path(folder)
    assert record.steps[record.times == 0].max() == 54
    entered = np.concatenate([x.ravel() for x in record.entry.values()])
    assert 54 < entered[entered >= 0].min()
    first, *_, last = run.at.log
    assert first["nonzero_split"] == run.at.log[1]["nonzero_split"] == 0
    assert last["nonzero_split"] == pytest.approx(0.2, rel=0.1)
    again = open_run(folder)
    for share in (0.05, 0.1):
        with crossing_weights(again.recorder, share):
            W = again.model.state_dict()
            kept = sum((W[name] != 0).sum() for name in support_masks(again.optimizer))
        size = sum(mask.numel() for mask in support_masks(again.optimizer).values())
        assert int(kept) / size == pytest.approx(share, abs=0.03)
    levels = [group["level"] for group in run.optimizer.param_groups if group["penalty"]]
    assert len(set(levels)) == len(levels) == 4


def test_a_path_that_cannot_select_is_said_in_one_line(tmp_path, capsys):
    train.train(small(tmp_path, epochs=1, nu=5000.0))
    lines = capsys.readouterr().out.splitlines()
    said = [line for line in lines if line.startswith("S must be at least 3")]
    assert len(said) == 1 and "got 0.00" in said[0] and "in 45 steps" in said[0]


def test_a_loss_at_chance_is_said_in_one_line_and_does_not_stop(tmp_path, capsys, monkeypatch):
    run = train.train(small(tmp_path, lr=0.1, kappa=10.0, epochs=2))
    assert run.at.epoch == 2
    said = [line for line in capsys.readouterr().out.splitlines() if "at chance" in line]
    assert len(said) == 2
    assert "the loss has stayed at chance in epoch 1, to step 45: its mean is" in said[0]
    assert "lr / (1 - momentum) must be small, got 10, and is safe below 2 / (L + " in said[0]
    bound = float(said[0].split("2 / (L + 2 / nu) = ")[1].split()[0])
    assert 0.01 < bound < 3
    with monkeypatch.context() as patch:  # the memory does not hold the curvature: still no stop
        patch.setattr(outlook, "_initial_curvature", _no_memory)
        (line,) = outlook.at_chance(run, 2.31)
        assert "is safe below 2 / (L + 2 / nu) = 5 (L = 0 at the initial weights)" in line
        plain = run._replace(config=dataclasses.replace(run.config, optimizer="sgd"))
        (line,) = outlook.at_chance(plain, 2.31)
        assert "lr / (1 - momentum) must be small, got 1, and is safe below 2 / L = inf" in line
    assert outlook.at_chance(run, 2.2) == []


def _no_memory(run):
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_run_from_dense_to_sparse(tmp_path):
    run = train.train(small(tmp_path, dense_start=True, target=0.2, ramp=1.0), progress=False)
    found = [row["nonzero_split"] for row in run.at.log]
    assert found == pytest.approx([1, 0.73, 0.47, 0.2], abs=0.02)


def test_killed_and_resumed_is_uninterrupted(tmp_path):
    """kill -9 of the command itself, twice, wherever it happens to be."""
    folder, reference = tmp_path / "killed", tmp_path / "reference"
    flags = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in {**SMALL, "epochs": 12}.items()
        if name != "elements"
    ]
    command = [sys.executable, "-m", "dslbi_torch", "train", "digits", *flags, "--elements"]
    for rows in (3, 6):
        process = subprocess.Popen(
            [*command, f"--out={folder}"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 300
        while process.poll() is None and _lines(folder) < rows and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors.decode()
    epoch = checkpoint(folder)["epoch"]
    assert 0 < epoch < 12
    config = dataclasses.replace(folders.read_config(folder), out=str(folder))
    train.train(config, resume=True, progress=False)
    train.train(dataclasses.replace(config, out=str(reference)), progress=False)
    assert_same_run(folder, reference)


def _lines(folder):
    try:
        return len((folder / "log.jsonl").read_text().splitlines())
    except FileNotFoundError:
        return 0


def test_every_session_keeps_what_it_ran_on(tmp_path, monkeypatch):
    """Also where the file of the sessions before is damaged."""
    stops = lambda count: stop_at(patch, train, "train_epoch", count)  # noqa: E731
    file = tmp_path / "environment.json"
    for revision, text in (("first", None), ("second", None), ("third", "{")):
        if text is not None:
            file.write_text(text)
        with monkeypatch.context() as patch:
            patch.setattr(sessions, "_revision", lambda revision=revision: revision)
            stops(2)
            with pytest.raises(KeyboardInterrupt):
                train.train(small(tmp_path, epochs=9), progress=False)
        found = json.loads(file.read_text())
        kept = {"first": ["first"], "second": ["first", "second"], "third": ["third"]}[revision]
        assert [session["revision"] for session in found["sessions"]] == kept
        assert found["revision"] == kept[0] and found["sessions"][-1]["threads"] == 1
        differing = [{"from_step": STEPS, "revision": "second"}] if len(kept) == 2 else None
        assert runs.environment(tmp_path).get("resumed") == differing


def test_sessions_are_read_back(finished, tmp_path):
    _, folder = finished
    (session,) = sessions.read_sessions(folder)
    assert session["from_step"] == 0 and session["device"].startswith("cpu")
    assert {*sessions.environment(torch.device("cpu")), "processes", "from_step"} == set(session)
    file = tmp_path / "environment.json"
    own = [{"from_step": 0, "started": "a"}, {"from_step": 9, "started": "b"}]
    file.write_text(json.dumps({"revision": "r", "sessions": own}))
    assert sessions.read_sessions(tmp_path) == own
    for text in ("{", "[]", "{}", '{"sessions": 3}'):
        file.write_text(text)
        with pytest.raises(ValueError, match="environment.json must hold the sessions of a run"):
            sessions.read_sessions(tmp_path)
    with pytest.raises(FileNotFoundError, match="run folder, but has no environment.json"):
        sessions.read_sessions(tmp_path / "nowhere")


@pytest.mark.parametrize("file", ["log.jsonl", "environment.json", "path.npz"])
def test_resuming_needs_the_checkpoint_alone(finished, tmp_path, monkeypatch, file):
    _, reference = finished
    with monkeypatch.context() as patch:
        stop_at(patch, train, "train_epoch", 2)
        with pytest.raises(KeyboardInterrupt):
            train.train(small(tmp_path), progress=False)
    (tmp_path / file).unlink()
    train.train(small(tmp_path), progress=False)
    assert_same_run(tmp_path, reference)


def test_killed_before_the_first_checkpoint_starts_afresh(finished, tmp_path, monkeypatch):
    _, reference = finished
    with monkeypatch.context() as patch:
        stop_at(patch, torch, "save", 1)
        with pytest.raises(KeyboardInterrupt):
            train.train(small(tmp_path), progress=False)
    with pytest.raises(ValueError, match="must hold an unfinished run, but has no checkpoint"):
        train.train(small(tmp_path), resume=True, progress=False)
    train.train(small(tmp_path), progress=False)
    assert_same_run(tmp_path, reference)


def test_resume_without_anything_to_resume(tmp_path):
    with pytest.raises(ValueError, match="must hold an unfinished run, but has no checkpoint"):
        train.train(small(tmp_path / "new"), resume=True, progress=False)
    assert not (tmp_path / "new").exists()


# Refusals: one line, and nothing is changed


@pytest.mark.parametrize(
    "changes, message",
    [
        ({}, "holds a finished run: name another folder with --out"),
        (
            {"nu": 2.0, "epochs": 9},
            r"another config \(epochs 3 there, 9 here; nu 5.0 there, 2.0 here\)",
        ),
        ({"seed": 4}, r"another config \(seed 3 there, 4 here\): name another folder"),
    ],
)
def test_a_folder_in_use_is_refused(finished, changes, message):
    _, folder = finished
    before = contents(folder)
    with pytest.raises(ValueError, match=message):
        train.train(small(folder, **changes), progress=False)
    assert contents(folder) == before


def interrupted(folder, monkeypatch, **changes):
    with monkeypatch.context() as patch:
        stop_at(patch, train, "train_epoch", 2)
        with pytest.raises(KeyboardInterrupt):
            train.train(small(folder, **changes), progress=False)


@pytest.mark.parametrize("size", [0, 1, 1000, -1])
def test_truncated_checkpoint(tmp_path, monkeypatch, size):
    interrupted(tmp_path, monkeypatch)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:size])
    before = contents(tmp_path)
    for call in (
        lambda: train.train(small(tmp_path), progress=False),
        lambda: open_run(tmp_path, device="cpu"),
    ):
        with pytest.raises(
            ValueError, match="checkpoint.pt cannot be read, it is truncated"
        ) as error:
            call()
        assert "\n" not in str(error.value)
    assert contents(tmp_path) == before


def test_checkpoint_of_something_else(tmp_path, monkeypatch):
    interrupted(tmp_path, monkeypatch)
    torch.save({"weights": torch.zeros(3)}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="checkpoint.pt cannot be read, it is .* not a checkpoint"):
        train.train(small(tmp_path), progress=False)


@pytest.mark.parametrize("key", ["world", "epoch", "optimizer", "recorder", "rng"])
def test_a_checkpoint_that_lacks_something(tmp_path, monkeypatch, key):
    interrupted(tmp_path, monkeypatch)
    state = checkpoint(tmp_path)
    state.pop(key)
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=f"must hold all of .*'{key}'"):
        train.train(small(tmp_path), progress=False)
    if key == "epoch":  # what a sweep and a comparison of tickets ask first
        with pytest.raises(ValueError, match="checkpoint.pt must hold all of .* has no 'epoch'"):
            folders.is_finished(small(tmp_path))


def test_a_damaged_checkpoint_names_the_newest_whole_one(tmp_path, capsys):
    train.train(small(tmp_path, keep=3), progress=False)
    for name in ("checkpoint.pt", "checkpoint-0003.pt"):
        (tmp_path / name).unlink()  # they are one file
        (tmp_path / name).write_bytes(b"half")
    for call in (
        lambda: open_run(tmp_path, device="cpu"),
        lambda: train.train(small(tmp_path), progress=False),
    ):
        with pytest.raises(ValueError, match="cannot be read.*checkpoint-0002.pt is whole: .*--re"):
            call()
    assert open_run(tmp_path, device="cpu", epoch=2).at.epoch == 2
    assert cli.main(["evaluate", str(tmp_path), "--epoch=2", "--device=cpu"]) == 0
    second = folders.read_log(tmp_path)[2]["acc_dense"]
    assert f"{100 * second:.2f}" in capsys.readouterr().out


def test_resume_goes_on_from_the_newest_whole_checkpoint(finished, tmp_path, monkeypatch, capsys):
    """By default the last two are kept; the end is that of a run that nothing has damaged."""
    _, reference = finished
    with monkeypatch.context() as patch:
        stop_at(patch, train, "train_epoch", 3)
        with pytest.raises(KeyboardInterrupt):
            train.train(small(tmp_path), progress=False)
    for name in ("checkpoint.pt", "checkpoint-0002.pt"):
        content = bytearray((tmp_path / name).read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / name).unlink()  # they are one file
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="checkpoint-0001.pt is whole: train --resume goes on fr"):
        train.train(small(tmp_path), progress=False)
    train.train(small(tmp_path), resume=True, progress=True)
    assert "the last checkpoint is damaged: this goes on from epoch 1" in "".join(
        capsys.readouterr()
    )
    assert_same_run(tmp_path, reference)


def test_checkpoint_of_another_recipe(tmp_path, monkeypatch):
    interrupted(tmp_path / "a", monkeypatch)
    interrupted(tmp_path / "b", monkeypatch, conv="l1")
    other = (tmp_path / "b" / "checkpoint.pt").read_bytes()
    (tmp_path / "a" / "checkpoint.pt").write_bytes(other)
    for call in (
        lambda: train.train(small(tmp_path / "a"), progress=False),
        lambda: open_run(tmp_path / "a", device="cpu"),
    ):
        with pytest.raises(ValueError, match="is of another run: conv 'l1' there, 'group' here"):
            call()
    assert (tmp_path / "a" / "checkpoint.pt").read_bytes() == other


@pytest.mark.parametrize(
    "text", ["", "{", '{"format": 2, "nu": -1}', '{"format": 2, "what": 1}', "[]"]
)
def test_damaged_config(tmp_path, monkeypatch, text):
    interrupted(tmp_path, monkeypatch)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="config.json cannot be read: "):
        train.train(small(tmp_path), progress=False)


@pytest.mark.parametrize(("found", "words"), [(None, "none"), (1, "1"), (3, "3")])
def test_a_run_folder_of_another_version_is_one_line(finished, tmp_path, capsys, found, words):
    _, folder = finished
    for name, content in contents(folder).items():
        (tmp_path / name).write_bytes(content)
    values = json.loads((tmp_path / "config.json").read_text())
    assert values.pop("format") == configs.FORMAT == 2
    text = json.dumps(values if found is None else values | {"format": found})
    (tmp_path / "config.json").write_text(text)
    for argv in (["evaluate", str(tmp_path)], ["prune", str(tmp_path)], ["path", str(tmp_path)]):
        assert cli.main(argv) == 2
        assert capsys.readouterr().err == (
            f"dslbi {argv[0]}: {tmp_path}/config.json is of another version: "
            f"a config must have format 2, got {words}\n"
        )
    with pytest.raises(ValueError, match="is of another version: a config must have format 2"):
        train.train(small(tmp_path), progress=False)


def test_run_files_without_a_config(tmp_path):
    (tmp_path / "log.jsonl").write_text("mine")
    with pytest.raises(ValueError, match="holds log.jsonl but no config.json"):
        train.train(small(tmp_path), progress=False)
    assert (tmp_path / "log.jsonl").read_text() == "mine"


def test_model_and_pictures_must_fit(tmp_path):
    with pytest.raises(ValueError, match="model lenet5 takes pictures of 28x28, but .* have 8x8"):
        train.train(small(tmp_path / "new", model="lenet5"), progress=False)
    assert not (tmp_path / "new").exists()


def test_a_device_without_numbers():
    with pytest.raises(ValueError, match="device must be one that torch can use here, got 'meta'"):
        pick_device("meta")


def test_a_folder_has_one_run_at_a_time(tmp_path):
    with locked(tmp_path / "a"):
        with pytest.raises(ValueError, match="a must have one run at a time, but another process"):
            train.train(small(tmp_path / "a"), progress=False)
    assert not (tmp_path / "a").exists(), "made, and removed again, since nothing was written"
    train.train(small(tmp_path / "a", epochs=1), progress=False)


def test_a_lock_holds_where_only_a_file_open_for_writing_can_be_locked(tmp_path, monkeypatch):
    """So it is on NFS."""
    flock = fcntl.flock

    def strict(handle, what):
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        return flock(handle, what)

    monkeypatch.setattr(fcntl, "flock", strict)
    test_a_folder_has_one_run_at_a_time(tmp_path)
    assert ".lock" not in contents(tmp_path / "a"), "the lock is removed"


def test_a_lock_whose_file_was_removed_meanwhile_is_none(tmp_path, monkeypatch):
    """The one before removes its file between the opening and the locking of the next."""
    flock, before = fcntl.flock, []

    def late(handle, what):
        if not before:
            before.append((tmp_path / ".lock").unlink())
        return flock(handle, what)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(tmp_path):
        with pytest.raises(ValueError, match="must have one run at a time"):
            with locked(tmp_path):
                pass


def test_a_lock_of_a_killed_process_is_free(tmp_path):
    (tmp_path / ".lock").touch()
    train.train(small(tmp_path, epochs=1), progress=False)
    assert not (tmp_path / ".lock").exists()


def test_a_run_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in ("file", "file/run"):
        with pytest.raises(ValueError, match="must be a folder, but .*/file is a file"):
            train.train(small(tmp_path / out), progress=False)


def test_a_run_folder_that_cannot_be_one(tmp_path, capsys):
    (tmp_path / "link").symlink_to("nowhere")
    for out, reason in (
        ("/dev/null", "/dev/null is something else"),
        ("/dev/null/run", "/dev/null is something else"),
        (tmp_path / "link", f"{tmp_path}/link is a link to nowhere, which does not exist"),
        (tmp_path / "link" / "run", f"{tmp_path}/link is a link to nowhere, which does not exist"),
    ):
        assert cli.main(["train", "digits", "--device=cpu", f"--out={out}"]) == 2
        message = f"dslbi train: the run folder must be a folder, but {reason}\n"
        assert capsys.readouterr().err == message
    assert os.readlink(tmp_path / "link") == "nowhere"


def test_temporary_files_of_killed_writers_are_removed(tmp_path):
    done, host = subprocess.Popen(["true"]), platform.node()
    done.wait()
    names = {
        f".checkpoint.{host}.{done.pid}.tmp.pt": False,
        f".a.name.{host}.{done.pid}.tmp": False,
        f".mine.{host}.{os.getpid()}.tmp.pt": True,
        f".checkpoint.another.machine.{done.pid}.tmp.pt": True,
        f".notes.{done.pid}.txt": True,
        ".notes": True,
    }
    for name in names:
        (tmp_path / name).write_text("half")
    train.train(small(tmp_path, epochs=1), progress=False)
    assert {name: (tmp_path / name).exists() for name in names} == names
    with atomic(tmp_path / "a.pt") as temporary:
        assert temporary.name == f".a.{host}.{os.getpid()}.tmp.pt"
        temporary.touch()


def test_device_that_is_not_there():
    with pytest.raises(
        ValueError, match="device must be one that torch can use here, got 'abacus'"
    ):
        pick_device("abacus")
    assert pick_device("cpu") == torch.device("cpu")


def test_a_failed_write_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    original, calls = torch.save, []

    def full(state, file):
        calls.append(None)
        if len(calls) == 4:
            Path(file).write_bytes(b"half a checkp")
            raise OSError(28, "No space left on device")
        return original(state, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="No space left on device"):
            train.train(small(tmp_path), progress=False)
    assert checkpoint(tmp_path)["epoch"] == 1
    kept = [f"checkpoint-{epoch:04}.pt" for epoch in (0, 1)]  # the last two
    assert sorted(contents(tmp_path)) == sorted([*folders.FILES, *kept])


# Divergence


@pytest.mark.parametrize("call, epoch", [(1, 1), (STEPS, 1), (STEPS + 5, 2), (3 * STEPS, 3)])
def test_nan_loss_names_the_step_and_the_last_good_checkpoint(tmp_path, monkeypatch, call, epoch):
    original, calls = F.cross_entropy, []

    def poisoned(*args, **options):
        calls.append(None)
        loss = original(*args, **options)
        return loss * float("nan") if len(calls) == call else loss

    monkeypatch.setattr(F, "cross_entropy", poisoned)
    message = rf"the loss \(nan\) .* step {call} \(epoch {epoch}\); .*checkpoint.pt\."
    with pytest.raises(FloatingPointError, match=message):
        train.train(small(tmp_path), progress=False)
    saved = checkpoint(tmp_path)
    assert saved["epoch"] == epoch - 1
    assert all(p.isfinite().all() for p in saved["model"].values())
    assert len(folders.read_log(tmp_path)) == epoch


def test_weights_that_overflow_in_the_last_step_are_not_saved(tmp_path, monkeypatch):
    original, calls = DessiLBI.step, []

    def overflowing(self):
        original(self)
        calls.append(None)
        if len(calls) == 2 * STEPS:
            self.param_groups[0]["params"][0].data[0] = float("inf")

    monkeypatch.setattr(DessiLBI, "step", overflowing)
    with pytest.raises(FloatingPointError, match=rf"a weight is not finite after step {2 * STEPS}"):
        train.train(small(tmp_path), progress=False)
    assert checkpoint(tmp_path)["epoch"] == 1


def test_a_real_divergence_stops(tmp_path):
    with pytest.raises(FloatingPointError, match="A smaller lr may help"):
        train.train(small(tmp_path, lr=1e9, momentum=0.99), progress=False)
    assert checkpoint(tmp_path)["epoch"] == 0


# The recipes at work


def test_digits_recipe_selects_in_every_layer(tmp_path):
    """The demo must show something: each layer partly selected, the sparse model as good."""
    config = dataclasses.replace(recipes.recipe("digits").config, out=str(tmp_path))
    train.train(config, progress=False)
    last = folders.read_log(tmp_path)[-1]
    assert all(0 < share < 1 for share in last["layers"].values()), last["layers"]
    assert last["nonzero_all"] < 0.35
    # Six runs on held-out pictures gave 97.6 to 98.6 % and equal sparse models.
    assert last["acc_dense"] > 0.93 and last["acc_sparse"] > last["acc_dense"] - 0.03
    path = report.read_path(tmp_path)
    entry = path.entry["conv1.weight"]
    assert len(np.unique(entry[entry >= 0])) > 3, "filters enter one after the other"
    text = report.path_table(tmp_path)
    assert f"{'conv1.weight':<20}{'group':>8}{np.sum(entry >= 0):>10}{16:>10}" in text
    png = report.draw_path(tmp_path).read_bytes()
    assert png.startswith(b"\x89PNG")


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [
        n
        for n, r in recipes.RECIPES.items()
        if "mnist" in r.config.dataset and r.config.init == "torch"  # He's start far from ln 10
    ],
)
def test_recipes_on_real_pictures(data_root, tmp_path, name):
    """A pass of each: net, data and optimizer fit, and the loss falls from ln 10.

    The official settings (pixels in [0, 1], small initial weights) stay near ln 10 for some 300
    steps, so there the steps are only asked to be finite and to move every weight.
    """
    config = dataclasses.replace(
        recipes.recipe(name).config,
        data=str(data_root),
        out=str(tmp_path),
        holdout=48_000,
        epochs=1,
        schedule="constant",
        threads=1,
    )
    run = set_up(config)
    assert len(run.data.train) == 12_000
    losses = []
    start = [p.detach().clone() for p in run.model.parameters()]
    for xs, ys in run.data.train.batches(128, run.generator):
        run.optimizer.zero_grad()
        loss = F.cross_entropy(run.model(xs), ys)
        loss.backward()
        run.optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(np.log(10), abs=0.15)
    assert np.isfinite(losses).all()
    for before, after in zip(start, run.model.parameters(), strict=True):
        assert not torch.equal(before, after.detach())
    if name not in ("mnist-lenet5-official",):
        assert np.mean(losses[-5:]) < losses[0] - 0.5


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [
        n
        for n, r in recipes.RECIPES.items()
        if r.config.init == "he" and r.config.dataset in ("mnist", "cifar10")
    ],
)
def test_recipes_with_the_weights_of_he_take_a_step(data_root, tmp_path, name):
    """Net, data and optimizer fit (He's weights add up along 28 blocks: a first loss of 6)."""
    config = dataclasses.replace(
        recipes.recipe(name).config,
        data=str(data_root),
        out=str(tmp_path),
        train_size=40,
        batch_size=20,
        threads=1,
    )
    run = set_up(config)
    x, y = next(run.data.train.batches(20, run.generator))
    first = loop.train_step(run, x, y, 20).item() / 20
    assert 2 < first < 10
    assert np.isfinite(loop.train_step(run, x, y, 20).item())
    assert run.recorder.step == 2

"""The campaign: what is cut off goes on, what does not belong is refused, what lacks is skipped."""

import dataclasses
import json
import math
import subprocess
from dataclasses import replace

import pytest
import torch
from stopping import stop_after

from benchmarks import campaign, campaign_costs, campaign_plan
from benchmarks.campaign_plan import Job
from dslbi_torch import crossing_masks, crossing_weights, load_masks
from dslbi_torch.training.config import Config, without_path
from dslbi_torch.training.run import run_folder as folders
from dslbi_torch.training.run import train
from dslbi_torch.training.run.evaluate import evaluate
from dslbi_torch.training.run.set_up import open_run

PATH = Config(
    epochs=3, train_size=200, batch_size=50, threads=1, device="cpu", target=0.5, elements=True,
    conv="l1",
)  # fmt: skip
PLAIN = without_path(PATH, "sgd")
LONGER = replace(PLAIN, train_size=1000, batch_size=10, holdout=100, epochs=2)
TRIED = tuple(Job(f"tried-{lr:g}", "grids", replace(LONGER, lr=lr)) for lr in (1e-6, 0.05))
CHOICE = dict(density=0.3, by="gamma")
FIRST = Job("first", "runs", PATH)
SECOND = Job("second", "runs", replace(PLAIN, epochs=2), "first", CHOICE)
ABSENT = Job("absent", "runs", replace(PLAIN, dataset="cifar10", model="conv2"))
LATER = Job("later", "runs", waits="the wheel is not invented")
PICKED = Job("picked", "grids", PLAIN, grid=tuple(job.name for job in TRIED), fields=("lr",))


def git(root, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(root), *identity, *words], check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone with a plan of seconds."""
    root = tmp_path / "clone"
    (root / "dslbi_torch").mkdir(parents=True)
    (root / "dslbi_torch" / "code.py").write_text("1\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "one")
    monkeypatch.setattr(campaign, "ROOT", root)
    monkeypatch.setattr(campaign, "RESULTS", root / "benchmarks" / "results" / "campaign")
    monkeypatch.setattr(campaign_plan, "PLAN", [FIRST, SECOND])
    monkeypatch.setattr(campaign_costs, "_epoch_s", lambda config, amp, steps: 1 + bool(amp))
    monkeypatch.setenv("DSLBI_DATA", str(tmp_path / "nothing"))
    return root


def records(root):
    files = sorted((root / "benchmarks" / "results" / "campaign").glob("*.json"))
    return {file.stem: json.loads(file.read_text()) for file in files}


def go(root, *words):
    return campaign.main([*words, "--runs", str(root / "runs")])


def without_times(record):
    own = {k: v for k, v in record.items() if k not in ("date", "resumed")}
    rows = [{k: v for k, v in row.items() if k not in ("time_s", "pictures_s")}
            for row in record["log"]]  # fmt: skip
    return own | {"log": rows, "results": {**record["results"], "seconds": 0}}


def test_stopped_and_begun_again_ends_as_if_never_stopped(clone, monkeypatch, capsys):
    assert go(clone) == 0
    whole = records(clone)
    assert set(whole) == {"first", "second"}
    for file in (clone / "benchmarks" / "results" / "campaign").iterdir():
        file.unlink()
    (clone / "runs").rename(clone / "before")
    for count in (6, 8):  # within the second epoch of the first run, and the first of the second
        with monkeypatch.context() as patch:
            stop_after(patch, count)
            assert go(clone) == 143
        out, err = capsys.readouterr()
        assert err.count("\n") == 1 and "the same command goes on" in err
    assert set(records(clone)) == {"first"}
    assert go(clone, "--list") == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed[0].split()[:4] == ["done", "runs", "first", "3/3"]
    assert listed[1].split()[:4] == ["begun", "runs", "second", "0/2"]
    assert listed[2] == "1 of 2 done; next second; 0:01 left"
    assert go(clone) == 0
    again = records(clone)
    for name in whole:
        assert without_times(again[name]) == without_times(whole[name])
    with monkeypatch.context() as patch:  # nothing is left to train
        patch.setattr(train, "train", None)
        assert go(clone) == 0


def test_a_record_says_what_was_run_and_how(clone):
    assert go(clone) == 0
    first, second = records(clone).values()
    assert first["revision"] == campaign.clean_revision()
    assert first["command"] == "python -m benchmarks.campaign --only first"
    assert first["settings"]["target"] == 0.5 and first["seed"] == 0
    assert first["measured_on"] == "test set" and first["tuned"] == "not on held-out pictures"
    assert [row["epoch"] for row in first["log"]] == [0, 1, 2, 3]
    assert first["results"]["nonzero_split"] == pytest.approx(0.5, abs=0.01)
    assert second["masks"] == {"of": "first", "tunes": True, **CHOICE}
    assert second["results"]["acc_without_tuning"] == second["log"][0]["acc_dense"]
    assert not {"masks", "initial", "out", "data"} & second["settings"].keys()
    net = folders.read_weights(clone / "runs" / "second" / "checkpoint.pt")
    split = [net[name] for name in first["layers"]]
    kept = sum(int(W.count_nonzero()) for W in split) / sum(W.numel() for W in split)
    assert kept == pytest.approx(0.3, abs=0.01)


def test_a_net_begins_as_it_was_when_the_path_crossed_a_density(clone, monkeypatch):
    path = FIRST._replace(config=replace(PATH, crossings=(0.3,)))
    tuned = Job("tuned", "runs", replace(PLAIN, epochs=1), "first", dict(crossing=0.3))
    monkeypatch.setattr(campaign_plan, "PLAN", [path, tuned])
    assert go(clone) == 0
    run = open_run(clone / "runs" / "first")
    kept = sum(int(m.sum()) for m in crossing_masks(run.recorder, 0.3).values())
    masks = load_masks(clone / "runs" / "tuned" / "masks.pt")
    split = records(clone)["first"]["layers"]
    assert sum(int(masks[name].sum()) for name in split) == kept
    own = folders.read_weights(clone / "runs" / "tuned" / "initial.pt")
    with crossing_weights(run.recorder, 0.3):
        torch.testing.assert_close(own, dict(run.model.state_dict()), rtol=0, atol=0)
        found = evaluate(run)["dense"]["accuracy"]
    assert records(clone)["tuned"]["results"]["acc_without_tuning"] == pytest.approx(
        found, rel=1e-4
    )
    assert records(clone)["tuned"]["masks"] == {"of": "first", "tunes": True, "crossing": 0.3}


def test_a_grid_on_held_out_pictures_decides(clone, monkeypatch):
    monkeypatch.setattr(campaign_plan, "PLAN", [*TRIED, PICKED])
    assert go(clone, "--only", "picked") == 0  # with what it needs
    found = records(clone)
    assert found["tried-0.05"]["measured_on"] == "100 training pictures, held out"
    assert found["picked"]["tuned"] == {"grid": list(PICKED.grid), "chosen": {"lr": 0.05}}
    assert found["picked"]["measured_on"] == "test set"
    assert folders.read_config(clone / "runs" / "picked").lr == 0.05


def test_a_default_that_a_grid_decides_for_is_taken(clone, monkeypatch):
    tried = TRIED[1]._replace(name="tried", config=replace(LONGER, lr=Config().lr))
    picked = Job("picked", "grids", replace(PLAIN, lr=0.03), grid=("tried",), fields=("lr",))
    monkeypatch.setattr(campaign_plan, "PLAN", [tried, picked])
    assert go(clone) == 0
    assert records(clone)["picked"]["tuned"]["chosen"] == {"lr": Config().lr}


def test_a_run_that_diverges_is_recorded_and_chosen_by_no_one(clone, monkeypatch):
    wild = TRIED[1]._replace(config=replace(TRIED[1].config, lr=1e30))
    monkeypatch.setattr(campaign_plan, "PLAN", [TRIED[0], wild, PICKED])
    assert go(clone) == 0
    found = records(clone)
    assert "is not finite after step" in found["tried-0.05"]["results"]["diverged"]
    assert found["picked"]["tuned"]["chosen"] == {"lr": 1e-6}


def test_what_cannot_be_run_is_skipped_by_name(clone, monkeypatch, capsys):
    plan = [ABSENT, ABSENT._replace(name="too"), LATER, SECOND._replace(masks_of="later")]
    monkeypatch.setattr(campaign_plan, "PLAN", [*plan, FIRST])
    calls, load = [], campaign.datasets.load

    def missing(name, *args, **options):
        calls.append(name)
        if name == "cifar10":
            raise FileNotFoundError("cifar10: train.bin not found")
        return load(name, *args, **options)

    monkeypatch.setattr(campaign.datasets, "load", missing)
    assert go(clone) == 0
    out = capsys.readouterr().out
    assert "absent is skipped: its data are missing: cifar10: train.bin not found\n" in out
    assert "too is skipped: its data are missing" in out and calls.count("cifar10") == 1
    assert "later is skipped: it waits for other work: the wheel is not invented\n" in out
    assert "second is skipped: it needs later first\n" in out
    assert set(records(clone)) == {"first"}
    listed = out.splitlines()[-6:]
    assert listed[2].startswith("waits  runs        later ")
    assert listed[2].endswith(" for this: the wheel is not invented")
    assert listed[-1].startswith("1 of 4 done; next absent; ")


def test_nothing_begins_after_the_time(clone, capsys):
    assert go(clone, "--minutes", "0") == 0
    assert "the time is over before first" in capsys.readouterr().out and not records(clone)


@pytest.mark.parametrize("file", ["dslbi_torch/code.py", "dslbi_torch/new.py"])
def test_a_dirty_tree_is_refused(clone, capsys, file):
    (clone / file).write_text("2\n")
    assert go(clone) == 2
    assert capsys.readouterr().err == f"a campaign needs a clean clone, got changes in {file}\n"
    assert not records(clone) and not (clone / "runs").exists()


def test_records_and_runs_of_another_revision_are_refused(clone, capsys, monkeypatch):
    monkeypatch.setattr(campaign_plan, "PLAN", [TRIED[0]])
    assert go(clone) == 0
    git(clone, "add", "-f", "benchmarks/results")
    git(clone, "commit", "-q", "-m", "a record changes no code")
    assert go(clone) == 0
    (clone / "dslbi_torch" / "code.py").write_text("2\n")
    git(clone, "commit", "-q", "-a", "-m", "two")
    capsys.readouterr()
    assert go(clone) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "tried-1e-06.json must be of revision" in err
    for place in (clone / "benchmarks" / "results" / "campaign").iterdir():
        place.unlink()
    assert go(clone) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "runs must be of revision" in err and "--runs" in err


def test_only_takes_names_and_parts(clone, capsys):
    assert go(clone, "--only", "third") == 2
    assert capsys.readouterr().err == "only must name runs, or parts (runs), got 'third'\n"
    jobs = campaign.chosen_jobs([FIRST, SECOND, LATER], ["second"])
    assert [job.name for job in jobs] == ["first", "second"]


def test_the_precision_is_timed_once_and_the_faster_one_taken(tmp_path):
    assert campaign_costs.precision(PLAIN, tmp_path, steps=1) in (None, "bf16")
    file = tmp_path / "precision.json"
    ((key, timed),) = json.loads(file.read_text()).items()
    assert set(timed) == {"fp32", "bf16"} and all(0 < s < 60 for s in timed.values())
    for times, amp in (((1.0, 2.0), None), ((2.0, 1.0), "bf16")):
        file.write_text(json.dumps({key: dict(zip(timed, times, strict=True))}))
        assert campaign_costs.precision(PLAIN, tmp_path) == amp


def test_how_long_a_run_takes_is_said_by_logs_by_timing_or_by_operations(tmp_path):
    key = campaign_costs.kind(PLAIN)
    assert math.isnan(campaign_costs.seconds(PLAIN, 3, {}, [PLAIN]))
    (tmp_path / "precision.json").write_text(json.dumps({key: {"fp32": 2.0, "bf16": 1.0}}))
    assert campaign_costs.epoch_s([], tmp_path) == {key: 1.0}
    log = [{"epoch": 0, "time_s": 0.0}, {"epoch": 2, "time_s": 8.0}]
    known = campaign_costs.epoch_s([(PLAIN, log), (PATH, log[:1])], tmp_path)
    assert known == {key: 4.0}
    assert campaign_costs.seconds(PATH, 3, known, [PLAIN]) == 12.0
    other = replace(PLAIN, train_size=400, batch_size=10)  # as many operations for a picture
    assert campaign_costs.seconds(other, 3, known, [PLAIN]) == pytest.approx(24.0)
    fast = campaign_plan.settings("cifar10-fast")["dense"]
    assert 10 * campaign_costs.epoch_operations(fast) == pytest.approx(3.55e14, rel=0.01)
    assert [campaign_costs.hours(s) for s in (0, 61, 3600)] == ["0:00", "0:02", "1:00"]


def test_the_plan_is_one_of_runs_that_can_be_made():
    plan, seen = campaign_plan.PLAN, {}
    for job in plan:
        assert job.name not in seen
        assert all(name in seen for name in campaign.needs(job)), job.name
        assert (job.config is None) == bool(job.waits)
        for name in job.grid:
            tried = seen[name].config
            assert tried.holdout == campaign_plan.HELD_OUT and tried.seed not in campaign_plan.SEEDS
        if job.masks_of:
            assert job.config.optimizer == "sgd" and not job.config.prune
        seen[job.name] = job
    fields = {field.name for field in dataclasses.fields(Config)}
    assert all(set(job.fields) <= fields for job in plan)
    ways = [job for job in plan if job.part == "weights" and job.name.endswith("-10-0")]
    for job in ways:  # equal total epochs
        before = seen[job.masks_of].config.epochs if job.tunes and job.masks_of else 0
        assert job.config.epochs + before == campaign_plan.EPOCHS + campaign_plan.TUNING
    trials = [len(job.grid) for job in plan if job.grid]
    assert set(trials) == {3}

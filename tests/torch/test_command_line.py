"""The command line: what it prints, its exit statuses, and one line for every mistake."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dslbi_torch import __main__ as cli
from dslbi_torch import verify
from dslbi_torch.penalties import PENALTIES
from dslbi_torch.training import config as configs
from dslbi_torch.training import recipes
from dslbi_torch.training.run import train

ROOT = Path(__file__).parents[2]
SMALL = ("--epochs=1", "--batch-size=128", "--threads=1", "--device=cpu")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a"
    config = dataclasses.replace(
        recipes.recipe("digits").config, out=str(folder), epochs=1, batch_size=128, device="cpu"
    )
    train.train(config, progress=False)
    return folder


def call(capsys, *argv):
    status = cli.main(list(argv))
    printed = capsys.readouterr()
    return status, printed.out, printed.err


MISTAKES = [
    ((), "arguments are required: COMMAND"),
    (("walk",), "invalid choice: 'walk'"),
    (("train",), "arguments are required: RECIPE"),
    (("train", "digit"), "recipe must be one of digits, "),
    (("train", "digits", "--nux", "3"), "unknown argument --nux, did you mean --nu?"),
    (
        ("train", "digits", "--momentun=0.5"),
        "unknown argument --momentun=0.5, did you mean --momentum?",
    ),
    (("train", "digits", "--epoch", "3"), "unknown argument --epoch, did you mean --epochs?"),
    (("train", "digits", "more"), "unknown argument more"),
    (("train", "digits", "--recipe", "x"), "unknown argument --recipe"),
    (("train", "digits", "--nu"), "argument --nu: expected one argument"),
    (("train", "digits", "--nu", "many"), "argument --nu: invalid float value: 'many'"),
    (("train", "digits", "--nu", "0"), "nu must be positive and finite, got 0.0"),
    (("train", "digits", "--nu", "nan"), "nu must be positive and finite, got nan"),
    (("train", "digits", "--kappa=-1"), "kappa must be positive and finite, got -1.0"),
    (("train", "digits", "--lr", "inf"), "lr must be positive and finite, got inf"),
    (("train", "digits", "--lam-conv", "0"), "lam_conv must be positive and finite, got 0.0"),
    (("train", "digits", "--epochs", "2.5"), "argument --epochs: invalid int value: '2.5'"),
    (("train", "digits", "--epochs", "0"), "epochs must be at least 1, got 0"),
    (
        ("train", "digits", "--conv", "l2"),
        f"conv must be one of {', '.join(PENALTIES)}, channel, none, got 'l2'",
    ),
    (
        ("train", "digits", "--conv", "none", "--linear", "none"),
        "conv or linear must have a penalty",
    ),
    (
        ("train", "digits", "--milestones", "3,x"),
        "--milestones: invalid list of whole numbers value",
    ),
    (("train", "digits", "--schedule", "step"), "milestones must name at least one epoch"),
    (("train", "digits", "--nesterov=yes"), "ignored explicit argument 'yes'"),
    (("train", "digits", "--model", "lenet5"), "takes pictures of 28x28, but those of digits"),
    (("train", "digits", "--holdout", "9999"), "holdout must be at least 0 and below the 1437"),
    (("train", "digits", "--device", "abacus"), "device must be one that torch can use here"),
    (("train", "digits", "--resume"), "must hold an unfinished run, but has no checkpoint"),
    (("evaluate",), "arguments are required: RUN"),
    (("evaluate", "nowhere"), "nowhere must be a run folder, but has no config.json"),
    (("path", "nowhere"), "nowhere must be a run folder, but has no path.npz"),
    (("verify", "--fast"), "unknown argument --fast"),
]


@pytest.mark.parametrize("argv, message", MISTAKES, ids=[" ".join(m[0]) or "-" for m in MISTAKES])
def test_a_mistake_is_one_line_and_status_2(capsys, monkeypatch, tmp_path, argv, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = call(capsys, *argv)
    assert status == 2 and out == ""
    assert err.startswith("dslbi") and err.count("\n") == 1 and err.endswith("\n")
    assert message in err
    assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_a_mistake_shows_no_traceback_in_a_process_of_its_own(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "dslbi_torch", "train", "digits", "--nu", "-3"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == "dslbi train: nu must be positive and finite, got -3.0\n"


def test_missing_data_is_one_line(capsys, monkeypatch, tmp_path):
    import torchvision

    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    out = tmp_path / "run"
    status, _, err = call(
        capsys, "train", "mnist-lenet5", "--data", str(tmp_path), "--out", str(out)
    )
    assert status == 2 and err.count("\n") == 1
    assert "not found in" in err and str(tmp_path / "MNIST" / "raw") in err and "--data" in err
    assert not out.exists()


def test_truncated_data_is_one_line(capsys, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{part}-ubyte").write_bytes(bytes(100))
    status, _, err = call(capsys, "train", "mnist-lenet5", "--data", str(tmp_path))
    assert status == 2 and err.count("\n") == 1
    assert "must hold the official file of MD5" in err and "got 100 bytes" in err


def test_train_prints_the_table_and_every_flag_arrives(capsys, tmp_path):
    out = tmp_path / "run"
    status, printed, err = call(
        capsys,
        *("train", "digits", *SMALL, f"--out={out}", "--seed", "7", "--nu", "2", "--conv", "none"),
        *(
            "--milestones",
            "1,2",
            "--schedule",
            "step",
            "--no-normalize",
            "--nesterov",
            "--elements",
        ),
        *("--lam-linear", "0.05", "--holdout", "100", "--coupling", "inside", "--weight", "none"),
    )
    assert (status, err) == (0, "")
    for part in (
        "dense W",
        "sparse W * 1{Gamma != 0}",
        "Gamma itself",
        "on 100 held out",
        str(out),
    ):
        assert part in printed
    config = json.loads((out / "config.json").read_text())
    wanted = dict(
        recipe="digits", seed=7, nu=2.0, conv=None, milestones=[1, 2], schedule="step", holdout=100,
        normalize=False, nesterov=True, elements=True, lam_linear=0.05, coupling="inside",
        epochs=1, batch_size=128, threads=1, device="cpu", weight=None,
    )  # fmt: skip
    assert {k: config[k] for k in wanted} == wanted


def test_every_field_but_the_recipe_is_a_flag(capsys):
    status, help_text, _ = call(capsys, "train", "--help")
    assert status == 0
    for field in dataclasses.fields(configs.Config):
        assert (f"--{field.name.replace('_', '-')}" in help_text) == (field.name != "recipe")
        assert field.metadata["about"]


def test_evaluate_and_path(capsys, run_folder):
    status, printed, err = call(capsys, "evaluate", str(run_folder), "--device", "cpu")
    assert (status, err) == (0, "")
    last = json.loads((run_folder / "log.jsonl").read_text().splitlines()[-1])
    for key in ("acc_dense", "acc_sparse", "acc_gamma"):
        assert f"{100 * last[key]:.2f}" in printed
    status, printed, err = call(capsys, "path", str(run_folder))
    assert (status, err) == (0, "")
    assert "conv1.weight" in printed and "fc2" in printed
    assert (run_folder / "path.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("file", ["path.npz", "checkpoint.pt", "log.jsonl", "config.json"])
def test_path_of_a_damaged_folder_is_one_line(capsys, run_folder, tmp_path, file):
    for path in run_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / file).write_bytes((run_folder / file).read_bytes()[:-20])
    status, _, err = call(capsys, "path", str(tmp_path))
    assert status == 2 and err.count("\n") == 1 and file in err


def test_a_folder_in_use_is_one_line(capsys, run_folder):
    status, _, err = call(capsys, "train", "digits", *SMALL, "--nu=9", f"--out={run_folder}")
    assert status == 2 and err.count("\n") == 1 and "holds a run of another config" in err


def test_a_diverged_run_is_one_line_and_status_1(capsys, tmp_path):
    status, _, err = call(
        capsys, "train", "digits", *SMALL, "--lr=1e9", "--momentum=0.99", f"--out={tmp_path}"
    )
    assert status == 1 and err.count("\n") == 1
    assert "is not finite after step" in err and str(tmp_path / "checkpoint.pt") in err


def test_an_interruption_is_one_line_and_status_130(capsys, monkeypatch, tmp_path):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train_epoch", interrupted)
    status, _, err = call(capsys, "train", "digits", *SMALL, f"--out={tmp_path}")
    assert status == 130
    assert err == "dslbi train: interrupted; the same command resumes the run\n"


def test_recipes_lists_every_recipe_and_its_needs(capsys):
    status, printed, _ = call(capsys, "recipes")
    assert status == 0
    for name, recipe in recipes.RECIPES.items():
        assert name in printed and recipe.needs in printed


@pytest.mark.parametrize("difference, status", [(1e-15, 0), (1e-3, 1)])
def test_verify_fails_with_a_row(capsys, monkeypatch, difference, status):
    row = verify.Row("cpu", "loop", "float64", "l1", "outside", "plain", 0.5, difference, 1e-12)
    monkeypatch.setattr(verify, "verify", lambda: [row])
    found, printed, _ = call(capsys, "verify")
    assert found == status and "float64" in printed

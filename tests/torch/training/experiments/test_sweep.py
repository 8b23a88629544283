"""A sweep: which runs it makes, what it skips, and its tables, in the layout of the paper's."""

import dataclasses

import pytest

from dslbi_torch import __main__ as cli
from dslbi_torch.training import recipes
from dslbi_torch.training.experiments import sweep
from dslbi_torch.training.run import run_folder as folders
from dslbi_torch.training.run import train

DIGITS = recipes.recipe("digits").config


def small(out):
    return dataclasses.replace(DIGITS, epochs=4, train_size=256, device="cpu", out=str(out))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    config = small(tmp_path_factory.mktemp("sweep"))
    return config, sweep.sweep(config, (1.0, 2.0), (2.0, 5.0), progress=False)


def log_of(config, **values):
    values = {"kappa": config.kappa, "nu": config.nu} | values
    return folders.read_log(config.folder / f"kappa-{values['kappa']:g}-nu-{values['nu']:g}")


def test_every_pair_has_one_run(swept):
    """kappa = 1 and nu = 5 are those of the recipe: one run stands in both tables."""
    config, _ = swept
    names = sorted(p.name for p in config.folder.iterdir() if p.is_dir())
    assert names == ["kappa-1-nu-2", "kappa-1-nu-5", "kappa-2-nu-5"]
    for name in names:
        _, kappa, _, nu = name.split("-")
        found = folders.read_config(config.folder / name)
        assert (found.kappa, found.nu) == (float(kappa), float(nu))


def test_tables_hold_the_numbers_of_the_logs(swept):
    config, text = swept
    assert (config.folder / "tables.txt").read_text() == text + "\n"
    blocks = [block.splitlines() for block in text.split("\n\n")]
    assert len(blocks) == 4
    for block, key, values in zip(blocks[::2], ("kappa", "nu"), ((1, 2), (2, 5)), strict=True):
        assert block[0].startswith("Best test accuracy %, digits-net on digits, ")
        assert block[1].split() == [key, *map(str, values)]
        logs = [log_of(config, **{key: v}) for v in values]
        for line, column in zip(block[2:], ("acc_dense", "acc_sparse"), strict=True):
            best = [max(row[column] for row in log[1:]) for log in logs]
            assert line.split()[1:] == [f"{100 * x:.2f}" for x in best]
    for block, key in zip(blocks[1::2], ("kappa", "nu"), strict=True):
        # an eighth of four epochs is the first one, as is a quarter
        assert block[1].split() == [key, *"epoch 1 epoch 1 epoch 2 epoch 2 epoch 4 epoch 4".split()]
        for line in block[3:]:
            log = log_of(config, **{key: float(line.split()[0])})
            cells = [log[e][c] for e in (1, 2, 4) for c in ("nonzero_split", "acc_sparse")]
            assert line.split()[1:] == [f"{100 * x:.2f}" for x in cells]


def test_milestones_move_with_the_epochs(capsys, monkeypatch):
    """As the epochs of the tables do: a half and three quarters of the run."""
    seen = []
    monkeypatch.setattr(sweep, "sweep", lambda config, *_: seen.append(config))
    for epochs in (40, 7, 1):
        assert cli.main(["sweep", "cifar10-vgg16", f"--epochs={epochs}", "--nus=1"]) == 0
    for flag in ("--milestones=5", "--schedule=constant"):
        assert cli.main(["sweep", "cifar10-vgg16", "--epochs=40", "--nus=1", flag]) == 0
    assert [c.milestones for c in seen] == [(20, 30), (4, 5), (1,), (5,), (80, 120)]


def test_tables_say_what_was_measured_on(tmp_path):
    config = dataclasses.replace(small(tmp_path), epochs=1, holdout=100)
    text = sweep.sweep(config, (), (5.0,), progress=False)
    assert text.startswith("Best held-out accuracy %") and "test accuracy" not in text


def test_finished_runs_are_not_trained_again(swept, monkeypatch):
    config, text = swept
    monkeypatch.setattr(train, "train", lambda *args, **kwargs: pytest.fail("trained again"))
    assert sweep.sweep(config, (1.0, 2.0), (2.0, 5.0)) == text


def test_an_unfinished_sweep_goes_on(tmp_path, monkeypatch):
    calls, original = [], train.train

    def watched(config, **options):
        calls.append(config.folder.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(config, **options)

    monkeypatch.setattr(train, "train", watched)
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(small(tmp_path), (), (2.0, 5.0), progress=False)
    sweep.sweep(small(tmp_path), (), (2.0, 5.0), progress=False)
    assert calls == ["kappa-1-nu-2", "kappa-1-nu-5", "kappa-1-nu-5"]


@pytest.mark.parametrize(
    "argv, message",
    [
        (("digits",), "a sweep needs at least one kappa or nu, got none"),
        (("digits", "--kappas", "1,1"), "each kappa of a sweep must be given once"),
        (("digits", "--kappas", "1,x"), "argument --kappas: invalid list of numbers value"),
        (("digits", "--nus=-1"), "nu must be positive and finite, got -1.0"),
        (("digits", "--nus=1", "--optimizer=sgd"), "a sweep needs an optimizer that splits"),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sweep", *argv]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_the_command_prints_the_tables(capsys, tmp_path):
    flags = ["--epochs=1", "--train-size=128", "--device=cpu", f"--out={tmp_path}", "--nus=3"]
    assert cli.main(["sweep", "digits", *flags]) == 0
    out = capsys.readouterr().out
    assert "Best test accuracy %" in out and "Sparse model by epoch" in out

"""The commands prune and compact: what they write, what they print, and what they refuse."""

import dataclasses
import re
import shutil

import pytest
import torch

from dslbi_torch import __main__ as cli
from dslbi_torch import load_compact, load_masks, masked, save_masks, support_masks, whole_filters
from dslbi_torch.surgery.measure import batch_times
from dslbi_torch.training import recipes
from dslbi_torch.training.experiments import compact_run, prune_run
from dslbi_torch.training.nets import zoo
from dslbi_torch.training.run import train
from dslbi_torch.training.run.set_up import open_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a"
    config = recipes.recipe("digits").config
    small = dict(epochs=6, lam_conv=1.0, lam_linear=0.1, batch_size=32, elements=True)
    train.train(
        dataclasses.replace(config, out=str(folder), device="cpu", threads=1, **small),
        progress=False,
    )
    return folder


@pytest.fixture
def run(folder):
    return open_run(folder, device="cpu")


def call(capsys, *argv):
    status = cli.main([str(word) for word in argv])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def rows(text):
    """Name and numbers of the lines that start with one of the models' names."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 7 and words[0] in ("dense", "sparse", "compact"):
            found[words[0]] = [float(word.replace(",", "")) for word in words[1:]]
    return found


def test_compact_prints_dense_sparse_and_compact_and_writes_what_loads(folder, run, capsys):
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    status, out, err = call(capsys, "compact", folder, "--device=cpu", "--program")
    assert (status, err) == (0, "")
    table = rows(out)
    assert list(table) == ["dense", "sparse", "compact"]
    dense, sparse, compact = table.values()
    assert sparse[0] == compact[0] > 40  # accuracy: the same net
    assert dense[1] == sparse[1] == 13_962 > compact[1]
    assert sparse[2] < dense[2] and compact[2] <= sparse[2]
    assert dense[3] == sparse[3] > compact[3]
    assert dense[5] > sparse[5] > compact[5]
    few, many = re.search(r"smaller on disk only \(([\d,]+) bytes for ([\d,]+)\)", out).groups()
    assert float(few.replace(",", "")) == compact[5] < float(many.replace(",", ""))
    small = load_compact(folder / "compact.pt", zoo.build)
    x, _ = next(iter(run.data.test.batches(50)))
    masks = whole_filters(run.model, support_masks(run.optimizer), x)
    with torch.no_grad(), masked(run.model.eval(), masks):
        torch.testing.assert_close(small(x), run.model(x), rtol=1e-4, atol=1e-4)
    size = (folder / "compact.pt2").stat().st_size
    assert f"{folder / 'compact.pt2'}: {size:,} bytes" in out
    program = torch.export.load(folder / "compact.pt2").module()
    torch.testing.assert_close(program(x), small(x), rtol=1e-4, atol=1e-4)
    after = open_run(folder, device="cpu").model.state_dict()
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("by", prune_run.ORDERS)
def test_prune_writes_masks_of_the_density(folder, run, tmp_path, capsys, by):
    file = tmp_path / "masks.pt"
    argv = ("prune", folder, "--device=cpu", "--density=0.2", f"--by={by}", f"--masks={file}")
    status, out, err = call(capsys, *argv)
    assert (status, err) == (0, "")
    masks = load_masks(file)
    split = {name: masks[name] for name in support_masks(run.optimizer)}
    kept = sum(int(m.sum()) for m in split.values()) / sum(m.numel() for m in split.values())
    assert 0.15 < kept <= 0.2
    alive = masks["conv1.weight"].flatten(1).any(1)
    torch.testing.assert_close(masks["conv1.bias"], alive)
    table = rows(out)
    assert list(table) == ["dense", "sparse"]
    assert table["sparse"][2] == 13_962 - sum(int((~m).sum()) for m in masks.values())
    assert re.search(r"non-zero % of the masked tensors: \d+\.\d\d of [\d,]+", out)
    status, out, err = call(capsys, *argv)
    assert status == 2
    assert err == f"dslbi prune: {file} must not exist, the run was pruned already: " + (
        "name another file\n"
    )


def test_prune_takes_a_recorded_step_and_compact_takes_its_masks(folder, run, tmp_path, capsys):
    step, file = run.recorder.steps[-3], tmp_path / "masks.pt"
    argv = ("prune", folder, "--device=cpu", f"--step={step}", f"--masks={file}")
    assert call(capsys, *argv)[0] == 0
    shapes = {name: m.shape for name, m in load_masks(file).items()}
    assert shapes["fc1.weight"] == (64, 128)
    out = tmp_path / "small.pt"
    argv = ("compact", folder, "--device=cpu", f"--masks={file}", f"--out={out}")
    status, text, _ = call(capsys, *argv)
    assert status == 0 and out.exists()
    assert list(rows(text)) == ["dense", "sparse", "compact"]


def test_prune_says_which_layers_it_empties_and_compact_refuses_them(folder, tmp_path, capsys):
    file = tmp_path / "masks.pt"
    argv = ("prune", folder, "--device=cpu", "--density=0.001", f"--masks={file}")
    status, out, err = call(capsys, *argv)
    assert (status, err) == (0, "")
    empty = [n for n, m in load_masks(file).items() if m.ndim > 1 and not m.any()]
    names = ", ".join(name.removesuffix(".weight") for name in empty)
    assert empty and f"nothing is left of {names}: compact will refuse these masks" in out
    argv = ("compact", folder, "--device=cpu", f"--masks={file}", f"--out={tmp_path / 'a.pt'}")
    status, out, err = call(capsys, *argv)
    assert (status, out) == (2, "") and "are dead: keep at least one" in err


def test_a_run_prunes_into_a_file_of_its_own_that_compact_takes(folder, tmp_path, capsys):
    copied = shutil.copytree(folder, tmp_path / "a", ignore=shutil.ignore_patterns("compact.*"))
    assert call(capsys, "prune", copied, "--device=cpu", "--density=0.1")[0] == 0
    assert (copied / "pruned.pt").exists() and not (copied / "masks.pt").exists()
    status, out, _ = call(capsys, "compact", copied, "--device=cpu")
    assert status == 0
    kept = sum(int((~m).sum()) for m in load_masks(copied / "pruned.pt").values())
    assert rows(out)["sparse"][2] == 13_962 - kept


def test_a_run_without_a_split_is_pruned_by_magnitude_and_cut_by_its_zeros(tmp_path, capsys):
    config = dataclasses.replace(
        recipes.recipe("digits").config, epochs=2, batch_size=64, optimizer="sgd",
        prune="soft", target={"conv1.weight": 0.5, "conv2.weight": 0.25},
    )  # fmt: skip
    folder = tmp_path / "a"
    config = dataclasses.replace(config, out=str(folder), device="cpu", threads=1)
    train.train(config, progress=False)
    status, out, err = call(capsys, "compact", folder, "--device=cpu")
    assert (status, err) == (0, "")
    assert list(rows(out)) == ["dense", "compact"]
    small = load_compact(folder / "compact.pt", zoo.build)
    assert (len(small.conv1.weight), len(small.conv2.weight)) == (8, 8)
    argv = ("prune", folder, "--device=cpu")
    for flags, message in (
        ((), "density must be given where nothing is split (sgd), got none"),
        (("--density=0.1", "--by=gamma"), "by must be magnitude where nothing is split (sgd)"),
        (("--density=0.1", "--by=random"), "by must be magnitude where nothing is split (sgd)"),
    ):
        status, out, err = call(capsys, *argv, *flags)
        assert (status, out) == (2, "") and message in err and err.count("\n") == 1
    assert call(capsys, *argv, "--density=0.1")[0] == 0
    masks = load_masks(folder / "pruned.pt")
    split = [m for m in masks.values() if m.ndim > 1]
    assert 0.08 < sum(int(m.sum()) for m in split) / sum(m.numel() for m in split) <= 0.1
    run = open_run(folder, device="cpu")
    norms = run.model.conv2.weight.detach().flatten(1).norm(dim=1)
    kept = masks["conv2.weight"].flatten(1).any(1)
    assert norms[kept].min() > norms[~kept].max()


def test_single_weights_need_a_run_with_elements(folder, tmp_path, capsys):
    config = dataclasses.replace(recipes.recipe("digits").config, epochs=1, batch_size=128)
    config = dataclasses.replace(config, out=str(tmp_path / "a"), device="cpu", threads=1)
    train.train(config, progress=False)
    for flags, what in ((("--density=0.1", "--by=entry"), "by entry"), (("--step=0",), "step")):
        status, _, err = call(capsys, "prune", tmp_path / "a", "--device=cpu", *flags)
        assert status == 2
        assert err == (
            f"dslbi prune: {what} needs the entry of single weights: train with --elements, "
            "got a run without\n"
        )


@pytest.mark.parametrize(
    ("flags", "files", "message"),
    [
        (("--out={run}/checkpoint.pt",), (), "{run}/checkpoint.pt must not exist: name another"),
        (("--out={run}/m.pt", "--masks={run}/m.pt"), (), "{run}/m.pt must not exist: name another"),
        ((), ("compact.pt",), "{run}/compact.pt must not exist: name another file with --out"),
        (("--onnx",), ("compact.onnx",), "{run}/compact.onnx must not exist: name another"),
        (("--program",), ("compact.pt2",), "{run}/compact.pt2 must not exist: name another"),
        (("--out=c.onnx", "--onnx"), (), "out must have another suffix than .onnx, which is"),
        (("--out=c.pt2", "--program"), (), "out must have another suffix than .pt2, which is"),
    ],
)
def test_compact_overwrites_nothing(
    folder, run, tmp_path, monkeypatch, capsys, flags, files, message
):
    monkeypatch.chdir(tmp_path)
    copied = shutil.copytree(folder, tmp_path / "a", ignore=shutil.ignore_patterns("compact.*"))
    save_masks(support_masks(run.optimizer), copied / "m.pt")
    for name in files:
        (copied / name).write_bytes(b"mine")
    before = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    argv = [flag.format(run=copied) for flag in flags]
    status, out, err = call(capsys, "compact", copied, "--device=cpu", *argv)
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert message.format(run=copied) in err
    assert {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()} == before


def test_a_compaction_that_fails_leaves_nothing(folder, tmp_path, monkeypatch, capsys):
    def fails(*_):
        raise ValueError("no program of this")

    copied = shutil.copytree(folder, tmp_path / "a", ignore=shutil.ignore_patterns("compact.*"))
    before = sorted(copied.iterdir())
    monkeypatch.setattr(compact_run, "save_program", fails)
    status, _, err = call(capsys, "compact", copied, "--device=cpu", "--onnx", "--program")
    assert status == 2 and "no program of this" in err
    assert sorted(copied.iterdir()) == before


def test_norms_are_given_new_statistics_and_folded(tmp_path, capsys):
    """As ``shrink`` does it: the compact net beside its folded one, which is what is exported."""
    config = dataclasses.replace(
        recipes.recipe("digits").config, model="resnet20", epochs=1, train_size=96, batch_size=32,
        conv="group", lam_conv=1e-3, lam_linear=1e-3, out=str(tmp_path), device="cpu", threads=1,
    )  # fmt: skip
    run = train.train(config, progress=False)
    argv = ("compact", tmp_path, "--device=cpu", "--statistics=2", "--program", "--fold")
    status, out, err = call(capsys, *argv)
    assert (status, err) == (0, "")
    assert re.search(r"\ncompact .*\nfolded ", out)
    small, x = load_compact(tmp_path / "compact.pt", zoo.build), run.data.example()
    program = torch.export.load(tmp_path / "compact.pt2").module()
    torch.testing.assert_close(program(x), small(x), rtol=1e-3, atol=1e-3)
    assert not any("running_mean" in name for name, _ in program.named_buffers())
    assert "running_mean" in "".join(small.state_dict())
    generator = torch.Generator().manual_seed(config.seed)
    batches = [x for x, _ in run.data.train.batches(32, generator)][:2]
    means = [small.conv1(x).mean((0, 2, 3)) for x in batches]
    torch.testing.assert_close(small.bn1.running_mean, sum(means) / 2, rtol=1e-4, atol=1e-5)


MISTAKES = [
    (("prune", "--density=0"), "density must be in (0, 1], got 0.0"),
    (("prune", "--density=1.5"), "density must be in (0, 1], got 1.5"),
    (("prune", "--density=0.1", "--by=luck"), "by must be one of gamma, normalised, entry, magn"),
    (("prune", "--by=magnitude"), "by must be left out without a density, got magnitude"),
    (("prune", "--per-layer"), "per_layer must be left out without a density, got True"),
    (("prune", "--seed=0"), "seed must be left out without a density, got 0"),
    (("prune", "--density=0.1", "--seed=3"), "seed must be left out but for random masks, got 3"),
    (("prune", "--density=0.1", "--step=3"), "step must be left out where a density is asked"),
    (("prune", "--step=1"), "step must be one of the recorded ones, got 1: every 5 steps, 0 to"),
    (("compact", "--masks=none.pt"), "none.pt must be a file of dslbi masks 1, but does not exist"),
    (("compact", "--masks={other}"), "masks must be of this model, which has no parameter 'x'"),
    (("compact", "--masks={dead}"), "all 16 filters of conv1 are dead: keep at least one"),
    (("compact", "--out=none/here/small.pt"), "none/here"),
    (("compact", "--statistics=-1"), "statistics must be at least 0, got -1"),
    (("compact", "--statistics=3"), "statistics needs a net with BatchNorm, got 3 without"),
    (("compact", "--fold"), "fold needs a BatchNorm that takes the output of a layer, and onnx or"),
]


@pytest.mark.parametrize(("argv", "message"), MISTAKES)
def test_mistakes_are_one_line_and_write_nothing(folder, tmp_path, capsys, argv, message):
    save_masks({"x": torch.ones(2, dtype=bool)}, tmp_path / "other.pt")
    save_masks({"conv1.weight": torch.zeros(16, 1, 5, 5, dtype=bool)}, tmp_path / "dead.pt")
    files = {name: tmp_path / f"{name}.pt" for name in ("other", "dead")}
    command, *flags = (word.format(**files) for word in argv)
    before = {f.name: f.read_bytes() for f in folder.iterdir()}
    new = f"--{'masks' if command == 'prune' else 'out'}={tmp_path / 'new.pt'}"
    status, out, err = call(capsys, command, folder, "--device=cpu", new, *flags)
    assert status == 2 and out == ""
    assert err.count("\n") == 1 and err.startswith(f"dslbi {command}: ") and message in err
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == before
    assert not (tmp_path / "new.pt").exists()


def test_nets_take_turns_when_they_are_timed():
    calls = []

    class Net(torch.nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            calls.append(self.name)

    nets = {"a": Net("a"), "b": Net("b").train()}
    times = batch_times(nets, torch.zeros(1), rounds=5)
    assert calls == ["a", "b"] * 7  # a pass that checks, and a round that warms up
    assert set(times) == {"a", "b"} and nets["b"].training

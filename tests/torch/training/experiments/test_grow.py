"""The command grow: rounds, budget, stop rule, what it prints and writes, and what it refuses."""

import dataclasses
import json
import platform
import re
import signal
import subprocess

import pytest
import torch
from stopping import stop_after

from benchmarks import growing
from dslbi_torch import __main__ as cli
from dslbi_torch import load_compact
from dslbi_torch.safe_files import locked
from dslbi_torch.training import recipes
from dslbi_torch.training.experiments import grow
from dslbi_torch.training.experiments.grow_folder import GrowthPlan, read_plan
from dslbi_torch.training.nets import zoo
from dslbi_torch.training.run import loop
from dslbi_torch.training.run import run_folder as folders
from dslbi_torch.training.run.contexts import Terminated
from dslbi_torch.training.run.set_up import open_run

FIELDS = dict(epochs=2, lam_conv=0.5, batch_size=32, device="cpu", threads=1)
FLAGS = [f"--{name.replace('_', '-')}={value}" for name, value in FIELDS.items()]
GROWTH = GrowthPlan(budget=2500, start=3, every=2, saturated=0.8, rate=1.5)
LINEAR = dataclasses.replace(GROWTH, start=8, budget=7000)


def config(folder, **fields):
    return dataclasses.replace(
        recipes.recipe("digits").config, out=str(folder), **{**FIELDS, **fields}
    )


def select_everything(run):
    for group in run.optimizer.param_groups:
        group["lam"] = 1e-9


def call(capsys, *argv):
    status = cli.main([str(word) for word in argv])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    return grow.grow(config(tmp_path_factory.mktemp("runs") / "a"), GROWTH, progress=False)


def test_saturated_layers_grow_within_the_budget_until_nothing_grows(grown):
    rounds = [row for row in grown.log if "grown" in row]
    assert [row["epoch"] for row in rounds] == list(range(2, 2 * len(rounds) + 1, 2))
    assert [row["epoch"] for row in grown.log] == list(range(1, 2 * len(rounds) + 3))
    assert len(rounds) > 2 and rounds[-1]["grown"] == {}
    assert all(row["grown"] for row in rounds[:-1])
    for row, after in zip(rounds, grown.log[2::2], strict=False):
        for name, more in row["grown"].items():
            assert row["selected"][name] >= GROWTH.saturated
            assert 1 <= more <= max(1, int(GROWTH.rate * row["units"][name]) - row["units"][name])
        left = [name for name in row["units"] if name not in row["grown"]]
        assert all(row["selected"][name] < GROWTH.saturated for name in left)
        for name, units in after["units"].items():
            assert units == row["units"][name] + row["grown"].get(name, 0)
        assert after["parameters"] <= GROWTH.budget
    assert len({row["parameters"] for row in grown.log[2 * len(rounds) - 2 :]}) == 1
    assert grow.count(grown.run.model) == grown.log[-1]["parameters"]
    assert grow.count(grown.start) == grown.log[0]["parameters"] == 1644


def test_the_last_epochs_have_the_schedule_of_the_config(grown):
    lrs = [row["lr"] for row in grown.log]
    assert set(lrs[:-2]) == {0.1}
    assert 0.1 > lrs[-2] > lrs[-1] > 0


def test_the_folder_says_everything_and_the_net_loads(grown):
    folder = grown.run.config.folder
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        *("config.json", "environment.json", "grown.pt", "growth.json", "growth.pt", "log.jsonl")
    ]
    assert read_plan(folder) == GROWTH
    assert folders.read_log(folder) == grown.log
    net = load_compact(folder / "grown.pt", zoo.build)
    x = next(iter(grown.run.data.test.batches(20)))[0]
    with torch.no_grad():
        torch.testing.assert_close(net(x), grown.run.model.eval()(x), rtol=0, atol=0)
    assert not (net.conv1.weight == 0).any()


def test_the_same_seed_grows_the_same_net_and_another_seed_another(grown, tmp_path):
    same = grow.grow(config(tmp_path / "a"), GROWTH, progress=False)
    assert same.log == grown.log
    other = grow.start_run(config(tmp_path / "b", seed=1), GROWTH)
    first = grow.start_run(config(tmp_path / "b"), GROWTH)
    assert (other.model.conv1.weight != first.model.conv1.weight).all()


def test_rounds_carry_the_state_of_the_optimizer_on(tmp_path):
    run = grow.start_run(config(tmp_path), GROWTH)
    x = next(iter(run.data.test.batches(2)))[0]
    grow._epoch(run, x, False)
    V = run.optimizer.state[run.model.conv1.weight]["V"].clone()
    before = run.model.eval()(x)
    select_everything(run)
    grown = grow.widen_saturated_(run, dataclasses.replace(GROWTH, budget=10_000), x)
    assert grown == {"conv1": 1, "conv2": 1}
    torch.testing.assert_close(run.model(x), before, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        run.optimizer.state[run.model.conv1.weight]["V"][:3], V, rtol=0, atol=0
    )
    assert run.scheduler.optimizer is run.optimizer


@pytest.mark.parametrize("room", [0, 28, 29, 60, 89, 90, 91, 300])
def test_a_budget_is_met_to_the_unit_and_never_exceeded(tmp_path, room):
    """Two widths that grow together share weights: each is priced after the one before it."""
    run = grow.start_run(config(tmp_path), GROWTH)
    x = next(iter(run.data.test.batches(2)))[0]
    torch.nn.functional.cross_entropy(run.model(x), torch.tensor([0, 1])).backward()
    run.optimizer.step()
    select_everything(run)
    budget = grow.count(run.model) + room
    growth = dataclasses.replace(GROWTH, budget=budget, least=50)
    grow.widen_saturated_(run, growth, x)
    size = grow.count(run.model)
    assert size <= budget
    growing = [width for width, _ in grow._selected(run, x)]
    assert len(growing) == 2 and all(size + width.cost > budget for width in growing)


def test_growing_that_cannot_saturate_ends_after_one_round(tmp_path):
    grown = grow.grow(config(tmp_path, lam_conv=1e6, epochs=1), GROWTH, progress=False)
    assert len(grown.log) == 3 and grown.log[1]["grown"] == {}
    assert grow.count(grown.run.model) == 1644


@pytest.mark.parametrize("start", [2, 100])
def test_the_start_is_the_net_of_the_recipe_cut_down(tmp_path, start):
    growth = dataclasses.replace(GROWTH, start=start, budget=100_000)
    run = grow.start_run(config(tmp_path), growth)
    full = zoo.build("digits-net")
    for name in ("conv1", "conv2"):
        units = len(run.model.get_submodule(name).weight)
        assert units == min(start, len(full.get_submodule(name).weight))
    assert len(run.model.fc1.weight) == 64  # l1: it does not grow
    assert run.recorder is None


def test_he_initialisation_is_that_of_the_start(tmp_path):
    run = grow.start_run(config(tmp_path, init="he"), GROWTH)
    assert not run.model.conv1.bias.any() and not run.model.fc1.bias.any()


def test_linear_layers_and_other_optimizers_grow_too(tmp_path):
    fields = dict(
        conv=None, linear="group", lam_linear=0.05, optimizer="adamw", split=True, lr=0.01
    )
    grown = grow.grow(config(tmp_path, nu=1.0, **fields), LINEAR, progress=False)
    assert set(grown.log[-1]["units"]) == {"fc1"}
    assert grown.log[-1]["units"]["fc1"] > 8


def test_the_command_prints_rounds_and_both_nets(tmp_path, capsys):
    words = ["grow", "digits", *FLAGS, "--out", tmp_path / "a", "--budget=1800", "--start=3"]
    status, out, err = call(capsys, *words, "--every=2", "--rate=1.5")
    assert (status, err) == (0, "")
    rows = {cells[0]: cells for line in out.splitlines() if len(cells := line.split()) == 7}
    numbers = {name: [float(w.replace(",", "")) for w in rows[name][1:]] for name in rows
               if name in ("start", "grown")}  # fmt: skip
    assert numbers["start"][1] == 1644 < numbers["grown"][1] <= 1800
    assert numbers["start"][3] < numbers["grown"][3]  # multiplications
    assert re.search(r"conv1 3 \+ 1 \(100\), conv2 3", out)
    assert f"grown net: {tmp_path / 'a' / 'grown.pt'}" in out
    status, out, err = call(capsys, *words)
    assert status == 2 and out == ""
    assert (
        err.startswith(f"dslbi grow: {tmp_path / 'a'} holds a net or a run")
        and err.count("\n") == 1
    )


MISTAKES = [
    ((), "the following arguments are required: --budget"),
    (("--budget=0",), "budget must be a whole number of at least 1, got 0"),
    (("--budget=many",), "argument --budget: invalid int value: 'many'"),
    (("--budget=100",), "budget must be at least the 1,990 parameters of the start net, got 100"),
    (("--budget=3000", "--start=0"), "start must be a whole number of at least 1, got 0"),
    (("--budget=3000", "--saturated=0"), "saturated must be in (0, 1], got 0.0"),
    (("--budget=3000", "--saturated=1.5"), "saturated must be in (0, 1], got 1.5"),
    (("--budget=3000", "--rate=0.9"), "rate must be at least 1 and finite, got 0.9"),
    (("--budget=3000", "--conv=channel"), "growing needs groups of single tensors, got channel"),
    (("--budget=3000", "--conv=l1"), "growing needs a split of conv or linear into groups"),
    (("--budget=3000", "--optimizer=sgd"), "growing needs a split of conv or linear into groups"),
    (("--budget=3000", "--target=0.5"), "target must not be set for growing, got 0.5"),
    (("--budget=3000", "--nu-schedule=lr"), "nu_schedule must not be set for growing, got 'lr'"),
    (("--budget=3000", "--masks=a.pt"), "masks must not be set for growing, got 'a.pt'"),
    (("--budget=3000", "--ema=0.9"), "ema must not be set for growing, got 0.9"),
    (("--budget=3000", "--initial=a.pt"), "initial must not be set for growing, got 'a.pt'"),
    (("--budget=3000", "--elements"), "elements must not be set for growing, got True"),
    (("--budget=3000", "--crossings=0.1"), "crossings must not be set for growing, got (0.1,)"),
    (("--budget=3000", "--release=1"), "release must not be set for growing, got 1.0"),
    (("--budget=3000", "--release-power=1"), "release_power must not be set for growing, got 1.0"),
    (("--budget=3000", "--dense-start"), "dense_start must not be set for growing, got True"),
    (("--budget=3000", "--keep=3"), "keep must not be set for growing, got 3"),
    (("--budget=3000", "--checkpoint-steps=9"), "checkpoint_steps must not be set for growing"),
    (("--budget=3000", "--tensorboard"), "tensorboard must not be set for growing, got True"),
    (("--budget=3000", "--record-every=5"), "unknown argument --record-every=5"),
]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("budget", True, "a whole number"),
        ("every", 1.5, "a whole number"),
        ("rate", "2", "a number"),
        ("saturated", None, "a number"),
    ],
)
def test_a_plan_of_another_type_is_refused(name, value, expected):
    with pytest.raises(ValueError, match=f"^{name} must be {expected}, got {value!r}$"):
        dataclasses.replace(GROWTH, **{name: value})


# Stopped and gone on


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """Grows into a folder until an epoch begins."""

    def stop(epoch, growth=GROWTH, **fields):
        original = grow.train_epoch

        def watched(run, **options):
            if run.at.epoch == epoch:
                raise KeyboardInterrupt
            return original(run, **options)

        with monkeypatch.context() as patch:
            patch.setattr(grow, "train_epoch", watched)
            with pytest.raises(KeyboardInterrupt):
                grow.grow(config(tmp_path / "a", **fields), growth, progress=False)
        return tmp_path / "a"

    return stop


def equal(a, b):
    assert list(a) == list(b)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("where", ["first epoch", "round", "after a round", "last epochs", "end"])
def test_a_growth_that_was_stopped_goes_on_bit_for_bit(grown, stopped, monkeypatch, where):
    over = next(row["epoch"] for row in grown.log if row.get("grown") == {})
    epoch = {"first epoch": 0, "round": 3, "after a round": 4, "last epochs": over + 1, "end": 1}
    folder = stopped(epoch[where])
    assert not (folder / "grown.pt").exists()
    assert len(folders.read_log(folder) if epoch[where] else []) == epoch[where]
    if where == "end":  # stopped again, when all was trained and nothing written
        with monkeypatch.context() as patch:
            patch.setattr(grow, "save_compact", lambda *args: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                grow.grow(config(folder), GROWTH, progress=False)
        monkeypatch.setattr(
            grow, "train_epoch", lambda run, **options: pytest.fail("trained again")
        )
    again = grow.grow(config(folder), GROWTH, progress=False)
    assert again.log == grown.log == folders.read_log(folder)
    equal(again.run.model.state_dict(), grown.run.model.state_dict())
    equal(again.start.state_dict(), grown.start.state_dict())
    states = [grow.checkpoint.everything(g.run)["optimizer"]["state"] for g in (again, grown)]
    for own, other in zip(*(s.values() for s in states), strict=True):
        equal(own, other)
    sessions = json.loads((folder / "environment.json").read_text())["sessions"]
    assert len(sessions) == (2 if epoch[where] > 1 else 3 if where == "end" else 1)


STEPS = 45  # of an epoch


@pytest.mark.parametrize("step", [1, 3 * STEPS + 7, 4 * STEPS])
def test_a_terminated_growth_goes_on_bit_for_bit(grown, tmp_path, monkeypatch, step):
    """Within the first epoch, within a later one, and in the last step of one."""
    folder = tmp_path / "a"
    with monkeypatch.context() as patch:
        calls = stop_after(patch, step)
        message = f"stopped after step {step} with a checkpoint in {folder}"
        with pytest.raises(Terminated, match=message):
            grow.grow(config(folder), GROWTH, progress=False)
    assert len(calls) == step
    assert grow.open_grown(folder, device="cpu").step == step
    torch.manual_seed(999)  # whatever happened in between
    again = grow.grow(config(folder), GROWTH, progress=False)
    assert again.log == grown.log == folders.read_log(folder)
    equal(again.run.model.state_dict(), grown.run.model.state_dict())
    sessions = json.loads((folder / "environment.json").read_text())["sessions"]
    assert [session["from_step"] for session in sessions] == [0, step]


def test_a_terminated_command_has_status_143(tmp_path, capsys, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    stop_after(monkeypatch, 1)
    words = ("grow", "digits", *FLAGS, "--budget=3000", "--out", tmp_path / "a")
    status, _, err = call(capsys, *words)
    assert status == 143 and err.count("\n") == 1
    assert err.endswith(f"checkpoint in {tmp_path / 'a'}; the same command resumes the run\n")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_folder_in_which_another_process_trains_is_refused(tmp_path, capsys):
    words = ("grow", "digits", *FLAGS, "--budget=3000", "--out", tmp_path / "a")
    with locked(tmp_path / "a"):
        status, out, err = call(capsys, *words)
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert "a must have one run at a time, but another process trains in it" in err
    assert not (tmp_path / "a").exists()


def test_a_full_gpu_is_one_line(tmp_path, capsys, monkeypatch):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(loop, "train_step", full)
    words = ("grow", "digits", *FLAGS, "--budget=3000", "--out", tmp_path / "a")
    status, _, err = call(capsys, *words)
    assert status == 2 and "batch_size must fit the memory of cpu, got 32: lower it" in err


def test_what_a_killed_growth_left_is_removed(stopped):
    done = subprocess.Popen(["true"])
    done.wait()
    folder = stopped(1)
    left = folder / f".growth.{platform.node()}.{done.pid}.tmp.pt"
    left.write_text("half")
    stopped(2)
    assert not left.exists()


@pytest.mark.parametrize("command", [("grow", "--budget=3000"), ("ticket",)])
def test_several_processes_are_refused(tmp_path, capsys, monkeypatch, command):
    monkeypatch.setenv("WORLD_SIZE", "2")
    name, *more = command
    status, out, err = call(capsys, name, "digits", *FLAGS, *more, "--out", tmp_path / "a")
    assert (status, out) == (2, "") and not (tmp_path / "a").exists()
    assert (
        err == f"dslbi {name}: {name} must run in one process, got 2: start it without torchrun\n"
    )


def test_a_base_with_a_state_of_its_own_goes_on_too(stopped, tmp_path):
    fields = dict(conv=None, linear="group", lam_linear=0.05, optimizer="adamw", split=True)
    fields |= dict(lr=0.01, nu=1.0, epochs=1)
    whole = grow.grow(config(tmp_path / "b", **fields), LINEAR, progress=False)
    assert whole.log[1]["grown"]
    folder = stopped(3, growth=LINEAR, **fields)
    again = grow.grow(config(folder, **fields), LINEAR, progress=False)
    assert again.log == whole.log
    equal(again.run.model.state_dict(), whole.run.model.state_dict())


def test_an_unfinished_growth_is_not_overwritten(stopped, capsys):
    folder = stopped(3)
    before = content(folder)
    words = ("grow", "digits", *FLAGS, f"--out={folder}", "--every=2", "--start=3", "--budget=2500")
    for flags, message in (
        (("--rate=2",), f"{folder} holds another growth (rate 1.5 there, 2.0 here): name another"),
        (("--rate=1.5", "--lr=0.05"), "a growth of another config (lr 0.1 there, 0.05 here): name"),
    ):
        status, out, err = call(capsys, *words, *flags)
        assert (status, out) == (2, "") and message in err and err.count("\n") == 1
    status, out, err = call(capsys, "train", "digits", *FLAGS, f"--out={folder}")
    assert status == 2 and f"{folder} holds a growth: name another folder with --out" in err
    assert content(folder) == before
    (folder / "growth.pt").unlink()
    status, out, err = call(capsys, *words, "--rate=1.5")
    assert status == 2 and "holds the log of a growth, but no growth.pt: name another" in err


def test_a_growth_stopped_in_its_first_epoch_is_not_overwritten(stopped):
    folder = stopped(0)
    before = content(folder)
    with pytest.raises(ValueError, match=r"another config \(lr 0.1 there, 0.05 here\): name"):
        grow.grow(config(folder, lr=0.05), GROWTH, progress=False)
    assert content(folder) == before


@pytest.mark.parametrize("key", ["epoch", "log", "start"])
def test_a_growth_whose_checkpoint_lacks_something_is_one_line(stopped, capsys, key):
    folder = stopped(1)
    state = torch.load(folder / "growth.pt", weights_only=True)
    state.pop(key)
    torch.save(state, folder / "growth.pt")
    with pytest.raises(ValueError, match=f"growth.pt must hold all of a run, but has no '{key}'"):
        grow.grow(config(folder), GROWTH, progress=False)
    status, out, err = call(capsys, "evaluate", folder, "--device=cpu")
    assert (status, out) == (2, "") and f"has no '{key}'" in err and err.count("\n") == 1


def test_an_interrupted_command_says_that_it_goes_on(tmp_path, capsys, monkeypatch):
    def interrupted(run, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(grow, "train_epoch", interrupted)
    words = ("grow", "digits", *FLAGS, "--budget=3000", "--out", tmp_path / "a")
    status, _, err = call(capsys, *words)
    assert status == 130
    assert err == "dslbi grow: interrupted; the same command resumes the run\n"


# What has grown


def test_a_grown_net_is_evaluated_pruned_and_compacted(grown, tmp_path, capsys):
    folder = tmp_path / "a"
    folder.mkdir()
    for name, data in content(grown.run.config.folder).items():
        (folder / name).write_bytes(data)
    status, out, err = call(capsys, "evaluate", folder, "--device=cpu")
    assert (status, err) == (0, "")
    assert f"{100 * grown.log[-1]['accuracy']:.2f}" in out
    status, out, err = call(
        capsys, "prune", folder, "--device=cpu", "--density=0.5", "--by=magnitude"
    )
    assert (status, err) == (0, "")
    assert "masks: " in out and (folder / "pruned.pt").exists()
    status, out, err = call(capsys, "compact", folder, "--device=cpu", "--program")
    assert (status, err) == (0, "")
    small = load_compact(folder / "compact.pt", zoo.build)
    assert sum(p.numel() for p in small.parameters()) < grown.log[-1]["parameters"]
    x = next(iter(grown.run.data.test.batches(20)))[0]
    program = torch.export.load(folder / "compact.pt2").module()
    with torch.no_grad():
        torch.testing.assert_close(program(x), small(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("path",), "has no path.npz (a run without a split has none, nor has a growth: its log"),
        (("prune", "--density=0.5", "--by=entry"), "by entry needs a recorded path, which a net"),
        (("prune", "--step=10"), "step needs a recorded path, which a net that has grown does not"),
    ],
)
def test_a_grown_net_has_no_path(grown, capsys, argv, message):
    folder = grown.run.config.folder
    before = content(folder)
    status, out, err = call(capsys, argv[0], folder, *argv[1:])
    assert (status, out) == (2, "") and message in err and err.count("\n") == 1
    assert content(folder) == before


def test_a_growth_is_no_run(grown):
    with pytest.raises(ValueError, match="but holds a growth, which grow.open_grown reads"):
        open_run(grown.run.config.folder)


@pytest.mark.parametrize(("flags", "message"), MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(tmp_path, capsys, flags, message):
    status, out, err = call(capsys, "grow", "digits", "--out", tmp_path / "a", *flags)
    assert status == 2 and out == ""
    assert message in err and err.count("\n") == 1
    assert not (tmp_path / "a").exists()


def test_a_net_without_a_layer_that_can_grow_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(
        zoo.NETS, "digits-net", zoo.NetRow(lambda **_: torch.nn.Sequential(
            torch.nn.Conv2d(1, 10, 8), torch.nn.Flatten()), 8, 8),
    )  # fmt: skip
    with pytest.raises(ValueError, match="model digits-net must have a layer that can grow"):
        grow.grow(config(tmp_path / "a"), GROWTH)


def test_a_run_that_diverges_says_so(tmp_path, capsys):
    words = ("grow", "digits", *FLAGS, "--out", tmp_path / "a", "--budget=3000", "--lr=1e30")
    status, _, err = call(capsys, *words)
    assert status == 1 and "is not finite after step" in err and "checkpoint" not in err


def test_a_run_that_diverges_later_names_its_checkpoint(stopped, capsys, monkeypatch):
    folder = stopped(1)
    original = loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda *args: original(*args) * float("nan"))
    with pytest.raises(FloatingPointError, match=f"; the last good checkpoint is {folder}/growth"):
        grow.grow(config(folder), GROWTH, progress=False)
    assert grow.open_grown(folder, device="cpu").at.epoch == 1


def test_the_record_says_how_a_small_net_was_grown():
    """The recipe and growth of the benchmark are those of the record, and so is the command."""
    record = json.loads(growing.RECORD.read_text())
    assert record["growth"] == dataclasses.asdict(growing.GROWTH)
    assert [run["seed"] for run in record["runs"]] == list(range(len(record["runs"])))
    for run in record["runs"]:
        assert run["command"] == growing.command(run["seed"])
        assert run["last"]["parameters"] <= 1500 and run["last"]["accuracy"] >= 0.984
        assert run["rounds"][0]["units"] == {"conv1": 3, "conv2": 3, "conv3": 3}
        assert run["rounds"][-1]["grown"] == {}
        epochs = recipes.recipe(growing.RECIPE).config.epochs
        assert run["last"]["epoch"] == run["rounds"][-1]["epoch"] + epochs
        assert {"revision", "device", "date", "packages"} <= set(run)
    argv = growing.command(0).split()[3:]
    assert cli.COMMANDS.keys() >= {argv[0]} and argv[1] == growing.RECIPE


def test_the_benchmark_grows_records_and_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    small = dataclasses.replace(config(None), out=None, epochs=1)
    monkeypatch.setitem(
        recipes.RECIPES, "mnist-small-net", recipes.RECIPES["digits"]._replace(config=small)
    )
    monkeypatch.setattr(growing, "GROWTH", GROWTH)
    monkeypatch.setattr(growing, "RECORD", tmp_path / "growing.json")
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["growing.py", "--seeds", "0", "--runs", str(tmp_path)])
        growing.main()
    assert capsys.readouterr().out.count("epoch   1  loss") == 1
    (run,) = json.loads((tmp_path / "growing.json").read_text())["runs"]
    assert run["last"]["epoch"] > run["rounds"][-1]["epoch"]
    assert run["command"].startswith("python -m dslbi_torch grow mnist-small-net --budget 2500")

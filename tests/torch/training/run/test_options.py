"""What a config can ask of a run: optimizers, schedules, precision, accumulation, averages."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dslbi_torch import DessiLBI, FallingNu, Split, support_masks
from dslbi_torch import __main__ as cli
from dslbi_torch.training import config as configs
from dslbi_torch.training.config import Config
from dslbi_torch.training.data import datasets, sources
from dslbi_torch.training.nets import zoo
from dslbi_torch.training.run import loop, report, train
from dslbi_torch.training.run import run_folder as folders
from dslbi_torch.training.run.contexts import Terminated, torch_switches
from dslbi_torch.training.run.evaluate import evaluate
from dslbi_torch.training.run.make_optimizer import make_optimizer, weights_l1
from dslbi_torch.training.run.optimizers import OPTIMIZERS, OptimizerRow
from dslbi_torch.training.run.schedules import lr_factor
from dslbi_torch.training.run.set_up import BrokenCompiler, set_up

# One epoch of 12 steps.
TINY = dict(
    epochs=1, batch_size=128, lr=0.1, nu=5.0, lam_conv=0.3, lam_linear=0.05, threads=1,
    device="cpu", seed=1, record_every=5,
)  # fmt: skip


def tiny(out, **changes):
    return Config(**{**TINY, **changes}, out=str(out))


def weights(run):
    return {name: p.detach() for name, p in run.model.named_parameters()}


def assert_close_runs(a, b, tol=1e-12):
    for name, p in weights(a).items():
        torch.testing.assert_close(p, weights(b)[name], rtol=tol, atol=tol, msg=name)


# Optimizers


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_trains(tmp_path, name, split):
    sparse = OPTIMIZERS[name].sparse
    if split and (OPTIMIZERS[name].splits or sparse):
        pytest.skip("refused: it has levels of its own")
    if name == "adabound":
        pytest.importorskip("pytorch_optimizer")
    lr = {"sgd": 0.05, "dessilbi": 0.05, "adagrad": 0.02, "linbreg": 0.05}.get(name, 2e-3)
    levels = dict(target=0.4, first=0.5, conv="l1", linear="l1") if sparse else {}
    config = tiny(
        tmp_path, optimizer=name, split=split, lr=lr, epochs=2, weight_decay=1e-4, **levels
    )
    run = train.train(config, progress=False)
    first, last = folders.read_log(tmp_path)[1:]
    assert last["loss"] < first["loss"] < math.log(10) + 0.1
    has_path = split or name == "dessilbi"
    assert (tmp_path / "path.npz").exists() == has_path
    assert (last["acc_sparse"] is not None) == (has_path or sparse)
    assert isinstance(run.optimizer, (Split, DessiLBI)) == has_path
    own = {"sparse", "gamma"} if has_path else {"sparse"} if sparse else set()
    assert set(run.at.result) == {"dense"} | own
    if sparse:
        assert last["acc_sparse"] == last["acc_dense"]
        assert first["nonzero_split"] < last["nonzero_split"] == pytest.approx(0.4, abs=0.02)


def test_bregman_iterations_begin_at_the_share_that_is_asked_for_and_resume(tmp_path):
    config = tiny(
        tmp_path / "a", optimizer="adabreg", lr=2e-3, target=0.4, first=0.25, conv="l1",
        linear="l1", epochs=2, checkpoint_steps=5,
    )  # fmt: skip
    assert evaluate(set_up(config))["sparse"]["nonzero_split"] == pytest.approx(0.1, abs=0.01)
    whole = train.train(config, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_agree_to_stop", lambda run, _: run.step == 8)
        with pytest.raises(Terminated):
            train.train(dataclasses.replace(config, out=str(tmp_path / "b")), progress=False)
    again = train.train(dataclasses.replace(config, out=str(tmp_path / "b")), progress=False)
    assert_close_runs(again, whole, tol=0)


def test_plain_sgd_is_that_of_torch(tmp_path):
    """The loop around a baseline is the ordinary one: same batches, same steps."""
    config = tiny(tmp_path, optimizer="sgd", nesterov=True, weight_decay=1e-3, dtype="float64")
    run = train.train(config, progress=False)
    own = set_up(config)
    decayed = [p for p in own.model.parameters() if p.ndim > 1]
    others = [p for p in own.model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 1e-3}, {"params": others}]
    sgd = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    for x, y in own.data.train.batches(128, torch.Generator().manual_seed(1)):
        sgd.zero_grad()
        F.cross_entropy(own.model(x), y).backward()
        sgd.step()
    assert_close_runs(run, own)


def test_split_sgd_is_dessilbi(tmp_path):
    options = dict(dtype="float64", nesterov=True, weight_decay=1e-3)
    a = train.train(tiny(tmp_path / "a", **options), progress=False)
    b = train.train(tiny(tmp_path / "b", optimizer="sgd", split=True, **options), progress=False)
    assert_close_runs(a, b)


def test_decay_spares_biases_and_norms():
    model = zoo.build("resnet20")
    for name in ("sgd", "adamw"):
        groups = make_optimizer(Config(optimizer=name, weight_decay=0.1), model).param_groups
        for group in groups:
            assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] > 0}
            assert "penalty" not in group


@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd"}, {"optimizer": "sgd", "split": True}])
def test_biases_and_norms_have_an_lr_of_their_own(changes):
    config = tiny("x", model="resnet20", lr_biases=64.0, weight_decay=1e-3, conv=None, **changes)
    model = zoo.build(config.model)
    optimizer = make_optimizer(config, model)
    lr = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert set(lr) == set(model.parameters())
    assert all(found == (6.4 if p.ndim == 1 else 0.1) for p, found in lr.items())
    assert optimizer.param_groups[0]["lr"] == 0.1  # that of the log


def test_l1_in_the_loss_moves_weights_by_their_sign(tmp_path):
    """One step of SGD with and without it: the difference is lr * l1 * sign(W) on weights."""
    runs = [set_up(tiny(tmp_path, optimizer="sgd", momentum=0.0, l1=l1)) for l1 in (0, 1e-3)]
    start = {name: p.clone() for name, p in weights(runs[0]).items()}
    for run in runs:
        x, y = next(iter(run.data.train.batches(128)))
        loop.train_step(run, x, y, len(x))
    for name, p in weights(runs[0]).items():
        moved = (p - weights(runs[1])[name]) / 1e-4
        expected = start[name].sign() if start[name].ndim > 1 else torch.zeros_like(moved)
        torch.testing.assert_close(moved, expected, rtol=0, atol=2e-3)
    assert weights_l1(runs[0].model) > 0


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pytorch_optimizer", None)
    with pytest.raises(
        ImportError,
        match="^optimizer adabound needs pytorch_optimizer: pip install 'dslbi.train.'$",
    ):
        make_optimizer(Config(optimizer="adabound"), zoo.build("digits-net"))


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(optimizer="lbfgs"), "optimizer must be one of dessilbi, sgd, .*, got 'lbfgs'"),
        (dict(split=True), "split must be no for dessilbi, which splits by itself"),
        (dict(l1=1e-3), "l1 must be 0 where weights are split, got 0.001"),
        (dict(optimizer="sgd", target=0.1), "target needs an optimizer that splits, got sgd"),
        (dict(nu_schedule="cosine"), "nu_schedule must be one of constant, lr, got 'cosine'"),
        (dict(cost={}), "cost must be macs or parameters with a share in "),
        (dict(cost={"ms": 0.5}), "cost must be macs or parameters with a share"),
        (dict(cost={"macs": 0.0}), "cost must be macs or parameters with a share"),
        (dict(cost={"macs": 0.5}, target=0.1), "cost must be none with a target"),
        (dict(cost={"macs": 0.5}, optimizer="sgd"), "cost needs an optimizer that splits, got sgd"),
        (dict(cost={"macs": 0.5}, shard=True), "cost must be none where weights are sharded"),
        (dict(cost={"macs": 0.5}, amp="fp16"), "amp must be bf16 or none with a cost, got fp16"),
        (dict(target=0.1, at_least=-1), "at_least must be at least 0, got -1"),
        (dict(accumulate=0), "accumulate must be at least 1, got 0"),
        (dict(label_smoothing=1.0), r"label_smoothing must be in \[0, 1\), got 1.0"),
        (dict(ema=1.0), r"ema must be in \[0, 1\), got 1.0"),
        (dict(warmup=1.0), r"warmup must be in \[0, epochs = 1\), got 1.0"),
        (dict(amp="fp8"), "amp must be one of bf16, fp16, none, got 'fp8'"),
        (dict(amp="fp16", shard=True), "amp must be bf16 or none where weights are sharded"),
        (dict(ema=0.9, shard=True), "ema and compile must be off where weights are sharded"),
        (dict(keep=0), "keep must be at least 1, got 0"),
    ],
)
def test_impossible_options(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny("x", **changes)


# Schedules


def test_warmup_is_a_ramp_that_joins_the_schedule():
    cosine = Config(epochs=10, schedule="cosine", warmup=2)
    factors = [lr_factor(cosine, k, 5) for k in range(50)]
    np.testing.assert_allclose(factors[:11], [(k + 1) / 11 for k in range(11)], rtol=1e-14)
    expected = [(1 + math.cos(math.pi * k / 40)) / 2 for k in range(40)]
    np.testing.assert_allclose(factors[10:], expected, rtol=1e-14)
    step = Config(epochs=10, schedule="step", milestones=(4,), warmup=0.5, factor=0.2)
    factors = [lr_factor(step, k, 4) for k in range(40)]
    assert factors == [1 / 3, 2 / 3] + [1.0] * 14 + [0.2] * 24


def test_a_triangle_rises_and_falls_in_straight_lines():
    triangle = Config(epochs=10, schedule="triangle", warmup=2, lr=0.5, lr_min=0.05)
    factors = [lr_factor(triangle, k, 5) for k in range(50)]
    np.testing.assert_allclose(factors[:11], [(k + 1) / 11 for k in range(11)], rtol=1e-14)
    np.testing.assert_allclose(factors[10:], np.linspace(1, 0.1, 41)[:-1], rtol=1e-14)
    assert lr_factor(triangle, 50, 5) == factors[-1]  # what the scheduler asks for after the end


def test_nu_falls_as_lr_does_after_the_warmup():
    cosine = Config(epochs=10, schedule="cosine", warmup=2, nu_schedule="lr")
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = DessiLBI([p], lr=0.3, penalty="l1", nu=7.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: lr_factor(cosine, k, 5))
    FallingNu(optimizer)
    factors = []
    for _ in range(50):
        p.grad = torch.zeros(3)
        optimizer.step()
        factors.append(optimizer.param_groups[0]["nu"] / 7.0)
        scheduler.step()
    assert factors[:10] == [1.0] * 10
    assert factors[10:] == pytest.approx([lr_factor(cosine, k, 5) for k in range(10, 50)])


def outside(run):
    """Share of the squared norm of W where Gamma is zero, of all split tensors."""
    masks = support_masks(run.optimizer)
    split = [(weights(run)[name], mask) for name, mask in masks.items()]
    cut = sum((W[~mask] ** 2).sum() for W, mask in split)
    return (cut / sum((W**2).sum() for W, _ in split)).item()


@pytest.mark.parametrize("split", [False, True])
def test_the_pull_of_a_step_is_the_same_in_the_whole_run(tmp_path, split):
    """With nu in proportion to lr: as in a loop that sets it by hand; W and V still move by one
    pull, so ``W / kappa + V + sum alpha u`` is constant; and W ends where Gamma is."""
    changes = dict(optimizer="sgd", split=True) if split else {}
    changes |= dict(schedule="cosine", epochs=6, dtype="float64", kappa=0.5, nu=0.5)
    changes |= dict(target=0.2, ramp=0.2)
    config = tiny(tmp_path / "lr", nu_schedule="lr", **changes)
    run = train.train(config, progress=False)
    own = set_up(config)
    start = {name: p.clone() for name, p in weights(own).items()}
    moved = {name: torch.zeros_like(p) for name, p in start.items()}
    generator = torch.Generator().manual_seed(1)
    for x, y in itertools.chain.from_iterable(
        own.data.train.batches(128, generator) for _ in range(config.epochs)
    ):
        lr = own.optimizer.param_groups[0]["lr"]
        for group in own.optimizer.param_groups:
            group["nu"] = 0.5 * group["lr"] / 0.1
        own.optimizer.zero_grad()
        F.cross_entropy(own.model(x), y).backward()
        own.optimizer.step()
        own.scheduler.step()
        for name, p in own.model.named_parameters():
            u = own.optimizer.state[p]["momentum_buffer"]
            moved[name].add_(u, alpha=2 * lr if split else lr)  # the lr of a base is kappa * alpha
    assert_close_runs(run, own)
    for name, p in run.model.named_parameters():
        V = run.optimizer.state[p].get("V", 0.0)
        kept = 2 * p.detach() + V + moved[name]
        torch.testing.assert_close(kept, 2 * start[name], rtol=1e-12, atol=1e-12)
    constant = train.train(tiny(tmp_path / "constant", **changes), progress=False)
    assert outside(run) < 0.1 * outside(constant) and outside(run) < 0.01


# The same numbers by another way


@pytest.mark.parametrize(
    "changes",
    [dict(accumulate=3), dict(accumulate=500), dict(channels_last=True), dict(deterministic=True)],
    ids=str,
)
def test_how_it_is_computed_does_not_change_what(tmp_path, changes):
    same = dict(dtype="float64", label_smoothing=0.1)
    a = train.train(tiny(tmp_path / "a", **same), progress=False)
    b = train.train(tiny(tmp_path / "b", **same, **changes), progress=False)
    assert_close_runs(a, b)
    assert a.at.result["sparse"] == b.at.result["sparse"]
    assert not torch.are_deterministic_algorithms_enabled()


def test_switches_of_cudnn_are_set_for_a_block_only(tmp_path):
    """Also where someone has forbidden to set them for good, as torch's own tests do."""
    before = torch.backends.cudnn.benchmark
    with torch_switches(tiny(tmp_path), torch.device("cuda")):
        assert torch.backends.cudnn.benchmark
    with torch_switches(tiny(tmp_path, deterministic=True), torch.device("cuda")):
        assert not torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark == before


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_learns_and_keeps_float32(tmp_path, amp):
    plain = train.train(tiny(tmp_path / "a", epochs=2), progress=False)
    run = train.train(tiny(tmp_path / "b", epochs=2, amp=amp), progress=False)
    assert {p.dtype for p in run.model.parameters()} == {torch.float32}
    assert {s["V"].dtype for s in run.optimizer.state.values() if "V" in s} == {torch.float32}
    assert (run.scaler is not None) == (amp == "fp16")
    a, b = (r.at.log[-1]["loss"] for r in (plain, run))
    assert b == pytest.approx(a, rel=0.1) and a != b


def test_label_smoothing_is_that_of_the_formula(tmp_path):
    config = tiny(tmp_path, label_smoothing=0.2)
    run = set_up(config)
    x, y = next(iter(run.data.train.batches(64)))
    with torch.no_grad():
        logs = F.log_softmax(run.model(x), 1)
    wanted = -(0.8 * logs[torch.arange(64), y] + 0.2 * logs.mean(1)).sum()
    torch.testing.assert_close(loop.train_step(run, x, y, 64), wanted, rtol=1e-6, atol=0)


def test_the_running_average_is_the_recursion(tmp_path, monkeypatch):
    """average <- 0.9 average + 0.1 W after every step, from the first W on."""
    seen, step = [], loop.train_step

    def watched(run, *args):
        total = step(run, *args)
        seen.append({name: p.clone() for name, p in weights(run).items()})
        return total

    monkeypatch.setattr(loop, "train_step", watched)
    run = train.train(tiny(tmp_path, ema=0.9, dtype="float64"), progress=False)
    average = seen[0]
    for W in seen[1:]:
        average = {name: 0.9 * average[name] + 0.1 * W[name] for name in W}
    for name, p in run.average.module.named_parameters():
        torch.testing.assert_close(p.detach(), average[name], rtol=1e-12, atol=1e-12)
    assert folders.read_log(tmp_path)[-1]["acc_ema"] == run.at.result["ema"]["accuracy"]


def test_the_compiled_net_is_the_one_that_is_called(tmp_path, monkeypatch):
    """Its code generator is PyTorch's; here the traced graph is run as it is."""
    calls, compile_ = [], torch.compile

    def traced(model):
        calls.append(model)
        return compile_(model, backend="eager")

    a = train.train(tiny(tmp_path / "a", dtype="float64"), progress=False)
    monkeypatch.setattr(torch, "compile", traced)
    b = train.train(tiny(tmp_path / "b", dtype="float64", compile=True), progress=False)
    assert calls[-1] is b.model and b.net is not b.model
    assert_close_runs(a, b)
    assert list(a.model.state_dict()) == list(b.model.state_dict())


def test_what_cannot_run_here_is_refused_before_a_folder_is_made(tmp_path, monkeypatch):
    def broken(_):
        raise RuntimeError("No working C++ compiler found\nin None")

    monkeypatch.setattr(torch, "compile", broken)
    for changes, message in (
        (dict(fused=True), "fused needs a GPU, got device cpu"),
        (dict(compile=True), "compile needs a compiler that works here, but: No working C[+]+ com"),
        (
            dict(model="resnet20", train_size=33, batch_size=32, accumulate=8),
            None,  # every picture has many pixels there
        ),
        (
            dict(model="resnet20", dataset="synthetic", image_size=4, train_size=33, batch_size=32),
            "batch_size must leave at least two pictures for every part of .* the last batch has 1",
        ),
    ):
        if message is None:
            set_up(tiny(tmp_path / "new", **changes))
            continue
        kind = BrokenCompiler if "compile" in changes else ValueError
        with pytest.raises(kind, match=message):
            train.train(tiny(tmp_path / "new", **changes), progress=False)
    assert not (tmp_path / "new").exists()


def test_a_full_memory_is_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has")

    monkeypatch.setattr(loop, "train_step", full)
    words = r"batch_size must fit the memory of cpu, got 128: .*accumulate, now 1 \(CUDA out of mem"
    with pytest.raises(torch.OutOfMemoryError, match=words):
        train.train(tiny(tmp_path), progress=False)


def test_many_classes_have_the_five_most_likely(tmp_path):
    """Top-5 by hand, in the log too; with ten classes there is none."""
    own = dict(dataset="synthetic", model="resnet20", image_size=8, n_classes=20, train_size=128)
    run = train.train(tiny(tmp_path / "a", **own, ema=0.5), progress=False)
    x, y = run.data.test.x, run.data.test.y
    run.model.eval()
    with torch.no_grad():
        order = run.model(x).argsort(1, descending=True)
    last = folders.read_log(tmp_path / "a")[-1]
    for key, count in (("acc_dense", 1), ("acc5_dense", 5)):
        right = [y[i] in order[i, :count] for i in range(len(y))]
        assert last[key] == sum(right) / len(y)
    assert {key for key in last if key[:4] == "acc5"} == {f"acc5_{name}" for name in run.at.result}
    head, _, *lines = report.result_table(run.at.result).splitlines()
    assert "top-5 %" in head and f"{100 * last['acc5_dense']:10.2f}" in lines[0]
    few = evaluate(set_up(tiny(tmp_path / "b")))
    assert not any("top5" in row for row in few.values())
    assert "top-5" not in report.result_table(few)


def test_tensorboard_gets_every_number_of_the_log(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train.train(tiny(tmp_path, tensorboard=True, epochs=2), progress=False)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for row in folders.read_log(tmp_path)[1:]:
        for key in ("acc_dense", "acc_sparse", "loss", "lr", "nonzero_all"):
            found = {e.step: e.value for e in events.Scalars(key)}
            assert found[row["epoch"]] == pytest.approx(row[key], rel=1e-6)
    assert f"nonzero/{next(iter(row['layers']))}" in events.Tags()["scalars"]


def test_tensorboard_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match="^tensorboard needs .*: pip install 'dslbi.train.'$"):
        train.train(tiny(tmp_path / "new", tensorboard=True), progress=False)


def test_places_do_not_make_another_run():
    a, b = Config(), Config(workers=3, keep=5, checkpoint_steps=10, tensorboard=True, out="x")
    assert configs.differences(a, b) == []
    names = {f.name for f in dataclasses.fields(Config)}
    assert set(configs.PLACE) <= names


def test_checkpoints_of_the_last_epochs_are_kept(tmp_path):
    train.train(tiny(tmp_path, epochs=4, keep=2), progress=False)
    names = sorted(p.name for p in tmp_path.glob("checkpoint*"))
    assert names == ["checkpoint-0003.pt", "checkpoint-0004.pt", "checkpoint.pt"]
    epochs = [torch.load(tmp_path / n, weights_only=True)["epoch"] for n in names]
    assert epochs == [3, 4, 4]


def test_an_evaluation_leaves_every_part_its_own_mode(tmp_path):
    """A part that is held in evaluation mode while the rest trains is so afterwards."""
    run = set_up(tiny(tmp_path, train_size=256))
    run.model.train()
    run.model.conv1.eval()
    evaluate(run)
    assert (run.model.training, run.model.conv1.training) == (True, False)
    assert run.model.conv2.training


def test_pairs_of_options_go_together(tmp_path):
    """Every two of these in one short run."""
    options = [
        dict(amp="bf16"), dict(accumulate=2), dict(ema=0.9), dict(channels_last=True),
        dict(target=0.3), dict(split=True, optimizer="adamw"), dict(warmup=0.5),
    ]  # fmt: skip
    for i, (a, b) in enumerate(itertools.combinations(options, 2)):
        config = tiny(tmp_path / str(i), **a, **b, train_size=256, lr=0.01)
        assert np.isfinite(train.train(config, progress=False).at.log[-1]["loss"])


def test_a_row_is_all_that_an_optimizer_a_data_set_and_a_net_need(tmp_path, monkeypatch, capsys):
    """Flags, checks and messages read the tables: no other file lists them."""
    x = np.random.default_rng(0).integers(256, size=(50, 1, 9, 9), dtype=np.uint8)
    part = x, np.arange(50) % 3
    found = sources.Parts(part, part, ("a", "b", "c"))
    rows = {
        "noise": (datasets.DATASETS, datasets.DatasetRow(lambda *_: found, (0.5,), (0.3,))),
        "asgd": (OPTIMIZERS, OptimizerRow(torch.optim.ASGD)),
        "flat": (zoo.NETS, zoo.NetRow(flat_net, 9, 9)),
    }
    for name, (table, row) in rows.items():
        monkeypatch.setitem(table, name, row)
    for optimizer in (["--optimizer=asgd"], ["--optimizer=asgd", "--split"], []):
        out = tmp_path / str(len(optimizer) + 2 * ("--split" in optimizer))
        words = ["--dataset=noise", "--model=flat", "--epochs=1", "--device=cpu", f"--out={out}"]
        assert cli.main(["train", "digits", *words, *optimizer]) == 0, capsys.readouterr().err
        assert folders.read_log(out)[-1]["loss"] > 0
    assert cli.main(["train", "digits", "--optimizer=sdg"]) == 2
    assert ", asgd, got 'sdg'" in capsys.readouterr().err


def flat_net(n_classes, in_channels):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(81 * in_channels, n_classes))

"""Tickets: what a run is started from, masked by, cut by and pruned to, and the comparison."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from dslbi_torch import (
    MaskedTraining,
    load_compact,
    load_masks,
    recorded_masks,
    save_masks,
    split_groups,
    support_masks,
    whole_filters,
)
from dslbi_torch import __main__ as cli
from dslbi_torch.surgery.compact import compact_with_masks
from dslbi_torch.training.config import Config
from dslbi_torch.training.experiments import methods, tickets
from dslbi_torch.training.nets import zoo
from dslbi_torch.training.run import initial_net, loop, pruning, report, train
from dslbi_torch.training.run import run_folder as folders
from dslbi_torch.training.run.contexts import Terminated
from dslbi_torch.training.run.evaluate import evaluate
from dslbi_torch.training.run.set_up import open_run, set_up

# Twelve steps of an epoch.
TINY = Config(
    dataset="digits", model="digits-net", epochs=3, batch_size=64, train_size=768, lr=0.05,
    nu=5.0, lam_conv=0.3, lam_linear=0.05, threads=1, device="cpu", record_every=100,
)  # fmt: skip
SGD = replace(TINY, optimizer="sgd", weight_decay=1e-3)


def equal(a, b):
    assert set(a) == set(b)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0, msg=name)


def trained(config, out, **changes):
    return train.train(replace(config, out=str(out), **changes), progress=False)


def all_epochs(run):
    for epoch in range(run.config.epochs):
        loop.train_epoch(run)
        run.at.epoch, run.at.batch, run.at.losses = epoch + 1, 0, None


def drawn(config, share=0.3, seed=0):
    """Masks by chance: whole filters of convolutions, single weights of linear layers."""
    model, generator = zoo.build(config.model, in_channels=1), torch.Generator()
    generator.manual_seed(seed)
    masks = {}
    for group in split_groups(model, conv="group", linear="l1"):
        for name, W in group["params"] if group["penalty"] else ():
            kept = torch.rand(W.shape if W.ndim == 2 else len(W), generator=generator) < share
            kept.view(-1)[0] = True
            masks[name] = kept.view(-1, *(1,) * (W.ndim - 1) if W.ndim > 2 else W.shape[1:])
            masks[name] = masks[name].expand(W.shape).clone()
    size = 8 if config.dataset == "digits" else 28
    return whole_filters(model, masks, torch.randn(2, 1, size, size))


@pytest.fixture
def masks_file(tmp_path):
    save_masks(drawn(TINY), tmp_path / "drawn.pt")
    return tmp_path / "drawn.pt"


# Starts and masks


def test_a_run_starts_from_the_weights_of_a_checkpoint_bit_for_bit(tmp_path):
    run = trained(TINY, tmp_path / "a", keep=9)
    for epoch in (0, 2, 3):
        file = folders.checkpoint_file(tmp_path / "a", epoch)
        begun = set_up(replace(SGD, seed=7, initial=str(file), out=str(tmp_path / "b")))
        equal(begun.model.state_dict(), folders.read_weights(file))
    equal(begun.model.state_dict(), run.model.state_dict())


def test_rewinding_to_epoch_0_gives_the_initial_weights_of_the_seed(tmp_path):
    trained(TINY, tmp_path / "a", keep=9, seed=3)
    torch.manual_seed(3)
    initial = zoo.build("digits-net", in_channels=1).state_dict()
    equal(folders.read_weights(folders.checkpoint_file(tmp_path / "a", 0)), initial)


@pytest.mark.parametrize("cut", [None, "keep"])
def test_masks_that_keep_everything_change_no_bit(tmp_path, cut):
    run = trained(SGD, tmp_path / "a", keep=9)
    everything = {n: torch.ones_like(m) for n, m in drawn(SGD).items()}
    save_masks(everything, tmp_path / "all.pt")
    initial = str(folders.checkpoint_file(tmp_path / "a", 0))
    again = trained(SGD, tmp_path / "b", masks=str(tmp_path / "all.pt"), initial=initial, cut=cut)
    equal(again.model.state_dict(), run.model.state_dict())
    logs = [folders.read_log(tmp_path / name) for name in "ab"]
    times = ("time_s", "pictures_s")
    a, b = ([{k: v for k, v in row.items() if k not in times} for row in log] for log in logs)
    assert a == b


@pytest.mark.parametrize("config", [TINY, SGD], ids=["dessilbi", "sgd"])
def test_masked_weights_are_zero_at_every_checkpoint(tmp_path, masks_file, config):
    """Also of linear layers, which the official example does not mask."""
    trained(config, tmp_path / "a", masks=str(masks_file), keep=9)
    masks = load_masks(masks_file)
    for epoch in range(4):
        weights = folders.read_weights(folders.checkpoint_file(tmp_path / "a", epoch))
        for name, mask in masks.items():
            assert not weights[name][~mask].any()
            assert epoch == 0 or weights[name][mask].all()


def test_a_kept_weight_that_is_zero_is_trained(tmp_path, masks_file):
    """The official example takes for masked what is zero at the moment."""
    run = trained(SGD, tmp_path / "a", epochs=1)
    state = torch.load(tmp_path / "a" / "checkpoint.pt", weights_only=True)
    state["model"]["fc2.weight"].zero_()
    torch.save(state, tmp_path / "zero.pt")
    own = dict(masks=str(masks_file), initial=str(tmp_path / "zero.pt"))
    run = trained(SGD, tmp_path / "b", epochs=1, **own)
    mask = load_masks(masks_file)["fc2.weight"]
    alive = run.model.fc1.bias.detach() != 0  # a neuron that is masked gives no gradient
    W = run.model.fc2.weight.detach()
    assert (W != 0).sum() > 0.5 * (mask & alive).sum() > 0  # of the others some neurons are dead
    assert not W[~mask].any()


def test_a_run_folder_is_enough_to_go_on_when_its_sources_are_gone(tmp_path, masks_file):
    trained(TINY, tmp_path / "a")
    own = dict(masks=str(masks_file), initial=str(tmp_path / "a" / "checkpoint.pt"))
    whole = trained(SGD, tmp_path / "b", **own)
    config = replace(SGD, out=str(tmp_path / "c"), checkpoint_steps=5, **own)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_agree_to_stop", lambda run, _: run.step == 17)
        with pytest.raises(Terminated):
            train.train(config, progress=False)
    shutil.rmtree(tmp_path / "a")
    masks_file.unlink()
    equal(train.train(config, progress=False).model.state_dict(), whole.model.state_dict())
    opened = open_run(tmp_path / "c", device="cpu")
    equal(opened.model.state_dict(), whole.model.state_dict())


# Cutting


@pytest.mark.parametrize(
    "net", [{"model": "digits-net"}, {"model": "resnet20", "train_size": 128, "epochs": 1}]
)
def test_a_cut_net_is_trained_as_the_masked_one(tmp_path, net):
    config = replace(SGD, dtype="float64", **net)
    save_masks(drawn(config, share=0.5), tmp_path / "masks.pt")
    config = replace(config, masks=str(tmp_path / "masks.pt"))
    masked, small = trained(config, tmp_path / "a"), trained(config, tmp_path / "b", cut="keep")
    sizes = [sum(p.numel() for p in run.model.parameters()) for run in (masked, small)]
    assert sizes[1] < 0.8 * sizes[0]
    x = masked.data.example(50)
    with torch.no_grad():
        logits = [run.model.eval()(x) for run in (masked, small)]
    torch.testing.assert_close(*logits, rtol=1e-10, atol=1e-10)
    left = compact_with_masks(masked.model, load_masks(tmp_path / "masks.pt"), x)[1]
    for name, p in small.model.named_parameters():
        assert name not in left or not p[~left[name]].any()


def test_the_control_from_scratch_is_dense_small_and_new(tmp_path, masks_file):
    own = dict(masks=str(masks_file))
    kept = set_up(replace(SGD, cut="keep", out=str(tmp_path / "a"), **own)).model
    new = set_up(replace(SGD, cut="new", out=str(tmp_path / "b"), **own)).model
    shapes = [{n: tuple(p.shape) for n, p in net.named_parameters()} for net in (kept, new)]
    assert shapes[0] == shapes[1]
    assert (kept.fc1.weight == 0).any() and new.fc1.weight.all()
    # the bounds of torch's own initial weights are those of the small layer, not of the large one
    fan_in = new.conv2.weight[0].numel()
    largest = new.conv2.weight.detach().abs().max().item()
    assert 0.9 * fan_in**-0.5 < largest <= fan_in**-0.5


def test_what_is_no_weight_of_the_net_is_not_drawn_anew():
    """A shortcut that pads becomes a fixed convolution where the net is cut."""
    model = zoo.build("resnet20", in_channels=1)
    masks = drawn(replace(SGD, model="resnet20"), share=0.5)
    small = compact_with_masks(model, masks, torch.randn(2, 1, 8, 8))[0]
    fixed = {n: p.clone() for n, p in small.named_parameters() if not p.requires_grad}
    assert fixed
    zoo.initialise_(small)
    equal({n: p for n, p in small.named_parameters() if n in fixed}, fixed)


# Other data


def test_weights_for_other_classes_come_without_the_last_layer():
    ten, three = (zoo.build("digits-net", n, in_channels=1) for n in (10, 3))
    before = three.fc2.weight.detach().clone()
    initial_net.load_initial_(three, ten.state_dict(), "abc")
    equal({"w": three.fc1.weight.detach()}, {"w": ten.fc1.weight.detach()})
    equal({"w": three.fc2.weight.detach()}, {"w": before})
    for other, message in (
        (zoo.build("lenet5"), "initial must be of the same kind of net, which differs in conv3"),
        (
            zoo.build("digits-net", in_channels=3),
            r"conv1.weight has shape \(16, 3, 5, 5\) there",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            initial_net.load_initial_(three, other.state_dict(), "abc")


def test_masks_for_other_classes_leave_the_last_layer_whole(masks_file):
    data = set_up(TINY).data
    three = zoo.build("digits-net", 3, in_channels=1)
    masks = initial_net._masks(
        replace(SGD, masks=str(masks_file)), three, data._replace(classes="abc")
    )
    assert set(load_masks(masks_file)) - set(masks) == {"fc2.weight", "fc2.bias"}


# Pruning in training


def test_the_cubic_schedule():
    assert [pruning.gradual_density(k, 10, 0.1) for k in (0, 10, 11)] == [1.0, 0.1, 0.1]
    assert pruning.gradual_density(5, 10, 0.2) == pytest.approx(0.2 + 0.8 / 8, rel=1e-15)
    due = [pruning.gradual_density(k, 20, 0.05) for k in range(25)]
    assert all(a > b for a, b in pairwise(due[:21]))
    falls = [a - b for a, b in pairwise(due[:21])]
    assert all(a > b for a, b in pairwise(falls))  # fast at first


@pytest.mark.parametrize("target", [0.1, {"conv1.weight": 0.25, "fc1.weight": 0.05}])
def test_gradual_pruning_follows_the_schedule_and_nothing_comes_back(tmp_path, target):
    config = replace(SGD, prune="gradual", target=target, ramp=0.5, out=str(tmp_path))
    run, held = set_up(config), []
    run.optimizer.register_step_post_hook(lambda *_: held.append(run.pruning.held.masks))
    all_epochs(run)
    assert len(held) == 36
    shares = config.target
    for k, masks in enumerate(held, 1):
        if isinstance(shares, dict):
            parts = [([name], share) for name, share in shares.items()]
        else:
            parts = [([name for name, mask in masks.items() if mask.ndim > 1], shares)]
        for names, share in parts:
            kept, of = (sum(int(f(masks[n])) for n in names) for f in (torch.sum, torch.numel))
            due = pruning.gradual_density(k, 18, share) * of
            largest = 288  # weights of a filter of conv2, the largest group
            assert due - largest < kept <= due * (1 + 1e-9)
    for before, after in pairwise(held):
        assert all(not (after[name] & ~before[name]).any() for name in after)
    for name, mask in held[-1].items():
        assert not dict(run.model.named_parameters())[name][~mask].any()


@pytest.mark.parametrize("prune", ["gradual", "soft", "rigl"])
def test_a_pruned_run_goes_on_bit_for_bit(tmp_path, prune):
    own = dict(conv="l1", linear="l1", ramp=1.0) if prune == "rigl" else {}
    config = replace(SGD, prune=prune, target=0.2, checkpoint_steps=5, **own)
    whole = trained(config, tmp_path / "a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_agree_to_stop", lambda run, _: run.step == 8)
        with pytest.raises(Terminated):
            trained(config, tmp_path / "b")
    equal(trained(config, tmp_path / "b").model.state_dict(), whole.model.state_dict())


def test_soft_pruned_filters_come_back_and_the_last_epoch_ends_pruned(tmp_path):
    target = {"conv1.weight": 0.5, "conv2.weight": 0.5}
    run = set_up(replace(SGD, prune="soft", target=target, out=str(tmp_path)))
    alive = []
    run.optimizer.register_step_post_hook(
        lambda *_: alive.append(run.model.conv2.weight.detach().flatten(1).any(1).clone())
    )
    all_epochs(run)
    counts = [int(a.sum()) for a in alive]
    assert [counts[k] for k in (11, 23, 35)] == [16, 16, 16]  # of 32, at the end of each epoch
    assert all(counts[k] > 16 for k in (10, 13, 22, 25, 34))
    dead = ~alive[-1]
    assert not run.model.conv2.bias.detach()[dead].any()


@pytest.mark.parametrize("channels_last", [False, True])
def test_rigl_exchanges_single_weights_in_its_ramp_and_keeps_their_number(tmp_path, channels_last):
    config = replace(
        SGD, prune="rigl", target=0.2, ramp=0.5, conv="l1", linear="l1",
        channels_last=channels_last, out=str(tmp_path),
    )  # fmt: skip
    run, seen = set_up(config), []
    weights = dict(run.model.named_parameters())
    exchange = run.pruning.exchange
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.pruning, "exchange", lambda: seen.append(exchange()) or seen[-1])
        before = {name: mask.clone() for name, mask in run.pruning.masks.items()}
        all_epochs(run)
    assert [k for k, spent in enumerate(seen) if spent] == [10] and len(seen) == 36
    assert sum(int(m.sum()) for m in before.values()) == pytest.approx(
        0.2 * sum(m.numel() for m in before.values()), abs=3
    )
    for name, mask in run.pruning.masks.items():
        assert int(mask.sum()) == int(before[name].sum())
        assert (mask != before[name]).any() or mask.all()
        assert not weights[name].detach()[~mask].any()
    assert evaluate(run)["sparse"]["nonzero_split"] == pytest.approx(0.2, abs=0.01)


# Network Slimming


def test_filters_are_ranked_by_the_scale_of_the_norm_that_follows(tmp_path):
    from dslbi_torch.masks.budget import ranked_masks
    from dslbi_torch.masks.ranking import scale_ranking

    model, x = zoo.build("resnet20", in_channels=1), torch.randn(2, 1, 8, 8)
    groups = split_groups(model, conv="group", linear="l1")
    norm = dict(model.named_modules())
    scales = {name: m for name, m in norm.items() if isinstance(m, torch.nn.BatchNorm2d)}
    with torch.no_grad():
        for m in scales.values():
            m.weight.copy_(torch.randperm(len(m.weight)) - len(m.weight) // 2 + 0.25)
    ranking = scale_ranking(groups, model, x)
    masks = ranked_masks(ranking, {name: 0.25 for name in ranking.place})
    assert len(masks) == 20
    for name, mask in masks.items():
        if mask.ndim == 4:
            follows = name.replace("conv", "bn") if "conv" in name else name
            follows = {k: m for k, m in scales.items() if f"{k}.weight" == follows}
            (m,) = follows.values()
            size = m.weight.detach().abs()
            kept = mask.flatten(1).all(1)
            assert int(kept.sum()) == len(kept) // 4
            assert size[kept].min() > size[~kept].max()
        else:
            kept = mask.sum().item() / mask.numel()
            assert kept == pytest.approx(0.25, abs=1 / mask.numel())


def test_the_l1_norm_of_the_scales_enters_the_gradient(tmp_path):
    config = replace(
        SGD, model="resnet20", train_size=128, epochs=1, weight_decay=0.0, momentum=0.0
    )
    a, b = (set_up(replace(config, l1_scales=c, out=str(tmp_path))) for c in (0.0, 0.3))
    x, y = next(iter(a.data.train.batches(64)))
    for run in (a, b):
        loop.train_step(run, x, y, len(y))
    gradients = [dict(run.model.named_parameters()) for run in (a, b)]
    for name, p in gradients[0].items():
        norm = name.rsplit(".", 1)[0].split(".")[-1].startswith("bn") and name.endswith("weight")
        wanted = p.grad + 0.3 if norm else p.grad  # scales begin at 1
        torch.testing.assert_close(gradients[1][name].grad, wanted, rtol=1e-5, atol=1e-6, msg=name)


# The comparison

SEARCH = replace(
    TINY,
    epochs=4,
    target={"conv1.weight": 0.5, "conv2.weight": 0.3, "fc1.weight": 0.3},
    ramp=0.5,
    lam_named={
        "conv1.weight": 1.0,
        "conv2.weight": 1.1,
        "fc1.weight": 0.1,
        "fc2.weight": 1e-6,
    },
)
PLAN = tickets.TicketPlan(at=(2, 4), rounds=2, retrain={"epochs": 2}, transfer=None)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A comparison of all methods but slimming, and its table."""
    config = replace(SEARCH, out=str(tmp_path_factory.mktemp("tickets")))
    return config, tickets.compare(config, PLAN, progress=False)


def rows_of(config):
    return json.loads((config.folder / "tickets.json").read_text())["rows"]


def test_what_is_for_a_path_alone_is_left_out_of_retraining():
    search = replace(TINY, nu_schedule="lr", coupling="inside", decoupled=True, target=0.5)
    trial = tickets.Trial(search, PLAN, 0)
    assert trial.search.nu_schedule == "lr" and trial.search.coupling == "inside"
    assert trial.retrain.nu_schedule == "constant" and not trial.retrain.splits


def test_a_ticket_is_what_the_path_had_selected_at_that_epoch(compared, tmp_path):
    """Of the search, of one that was recorded, and of one that stopped there."""
    config, _ = compared
    recorded = trained(SEARCH, tmp_path / "a", elements=True)
    for epoch in (2, 4):
        ticket = load_masks(config.folder / "seed-0" / f"ticket-{epoch}.pt")
        masks = recorded_masks(recorded.recorder, epoch * 12)
        equal({n: m for n, m in ticket.items() if m.ndim > 1}, masks)
        assert {n for n, m in ticket.items() if m.ndim == 1} == {
            name.replace("weight", "bias") for name in masks
        }
    stopped = trained(replace(SEARCH, target=None), tmp_path / "b", epochs=2)
    whole = trained(replace(SEARCH, target=None), tmp_path / "c", keep=9)
    assert whole.at.epoch == 4
    early = open_run(tmp_path / "c", device="cpu", epoch=2)
    equal(support_masks(early.optimizer), support_masks(stopped.optimizer))


def test_every_method_keeps_the_tickets_share_of_each_layer(compared):
    config, _ = compared
    folder = config.folder / "seed-0"
    for epoch in (2, 4):
        ticket = load_masks(folder / f"ticket-{epoch}.pt")
        for name in ("random", "magnitude", "iterative"):
            name = f"{name}-{epoch}" + ("-2-of-2" if name == "iterative" else "")
            masks = load_masks(folder / f"{name}.pt")
            assert {n: int(m.sum()) for n, m in masks.items() if m.ndim > 1} == {
                n: int(m.sum()) for n, m in ticket.items() if m.ndim > 1
            }
        first = load_masks(folder / f"iterative-{epoch}-1-of-2.pt")
        last = load_masks(folder / f"iterative-{epoch}-2-of-2.pt")
        assert all(not (last[n] & ~first[n]).any() for n in last)
        for name in (f"gradual-{epoch}", f"soft-{epoch}"):
            weights = folders.read_weights(folder / name / "checkpoint.pt")
            for n, mask in ticket.items():
                if mask.ndim > 1:
                    assert int(weights[n].count_nonzero()) == int(mask.sum())


def test_methods_begin_with_the_weights_that_they_should(compared):
    config, _ = compared
    folder = config.folder / "seed-0"
    at = {e: folders.read_weights(folders.checkpoint_file(folder / "search", e)) for e in (0, 2)}
    dense = folders.read_weights(folder / "dense" / "checkpoint.pt")
    torch.manual_seed(0)
    equal(at[0], zoo.build("digits-net", in_channels=1).state_dict())
    for name, wanted in (
        ("ticket-2", at[0]),
        ("random-2", at[0]),
        ("iterative-2-1-of-2", at[0]),
        ("iterative-2-2-of-2", at[0]),
        ("tuned-2", at[2]),
        ("magnitude-2", dense),
    ):
        equal(folders.read_weights(folder / name / "initial.pt"), wanted)
    for name in ("reinit-2", "scratch-2"):
        assert folders.read_config(folder / name).seed == methods.OTHER_SEED
        assert not (folder / name / "initial.pt").exists()


def test_rows_say_what_the_nets_are(compared):
    config, text = compared
    rows = rows_of(config)
    assert [row["method"] for row in rows if row["at"] in (None, 2)] == [
        name for name in methods.METHODS if name != "slimming"
    ]
    by = {(row["method"], row["at"]): row for row in rows}
    assert by["dense", None]["density"] == 1 and by["dense", None]["parameters"] == 13_962
    for (name, epoch), row in by.items():
        run = {"dense": "dense"}.get(name, f"{name}-{epoch}")
        run += "-2-of-2" if name == "iterative" else ""
        last = folders.read_log(config.folder / "seed-0" / run)[-1]
        assert row["accuracy"] == last["acc_dense"] and row["seed"] == 0
        if name != "dense":
            small = 0.35 if name == "scratch" else 0.3
            assert 0.02 < row["density"] < small
    epochs = {name: by[name, 4]["epochs"] for name, epoch in by if epoch == 4}
    assert epochs == dict(
        ticket=6,
        tuned=6,
        random=2,
        reinit=6,
        scratch=6,
        magnitude=4,
        iterative=6,
        gradual=2,
        soft=2,
    )
    # a run is its method's alone: of a cut net, the ticket's density is that of its small net
    run = open_run(config.folder / "seed-0" / "ticket-4", device="cpu")
    assert by["ticket", 4]["parameters"] == sum(
        int(p.count_nonzero()) for p in run.model.parameters()
    )
    assert (config.folder / "tickets.txt").read_text() == text + "\n"
    assert text == report.ticket_table(rows)


def test_the_table_holds_means_and_spreads():
    base = dict(dataset="digits", method="ticket", at=3, density=0.1, parameters=100, epochs=5)
    rows = [base | dict(seed=k, accuracy=a) for k, a in enumerate((0.9, 0.95, 0.91))]
    rows[1] |= {"density": 0.13, "parameters": 130}
    head, line, *_ = report.ticket_table(rows, holdout=5).splitlines()
    assert "held-out accuracy %" in head
    assert line.split() == ["digits", "ticket", "3", "92.00", "(5.00)", "11.00", "110", "5"]


def test_what_is_finished_is_not_computed_again(compared, monkeypatch):
    config, text = compared
    for module, name in ((train, "train"), (tickets, "open_run"), (tickets, "measured")):
        monkeypatch.setattr(module, name, lambda *args, **kw: pytest.fail("computed again"))
    assert tickets.compare(config, PLAN) == text


def test_a_comparison_that_was_cut_off_goes_on_to_the_same_rows(compared, tmp_path, monkeypatch):
    config, _ = compared
    chosen = PLAN._replace(methods=("ticket", "random", "soft"))
    short, calls, original = replace(config, out=str(tmp_path)), [], train.train

    def watched(one, **options):
        calls.append(one.folder.name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(one, **options)

    monkeypatch.setattr(train, "train", watched)
    with pytest.raises(KeyboardInterrupt):
        tickets.compare(short, chosen, progress=False)
    tickets.compare(short, chosen, progress=False)
    assert calls == [
        *("search", "ticket-2", "ticket-4", "random-2", "random-2", "random-4"),
        *("soft-2", "soft-4"),
    ]
    wanted = [row for row in rows_of(config) if row["method"] in chosen.methods]
    assert rows_of(short) == wanted


def test_a_comparison_may_be_moved(compared, tmp_path, monkeypatch):
    config, text = compared
    moved = replace(config, out=str(shutil.copytree(config.folder, tmp_path / "moved")))
    monkeypatch.setattr(train, "train", lambda *args, **kw: pytest.fail("trained again"))
    assert tickets.compare(moved, PLAN) == text
    folder = moved.folder / "seed-0" / "ticket-4"
    other = replace(folders.read_config(folder), out=str(folder), masks="another.pt")
    with pytest.raises(ValueError, match=r"is of another run: masks .*, 'another.pt' here"):
        folders.is_finished(other)


def test_a_row_that_was_damaged_is_refused(compared, tmp_path):
    config, _ = compared
    moved = replace(config, out=str(shutil.copytree(config.folder, tmp_path / "moved")))
    file = moved.folder / "seed-0" / "ticket-4" / "row.json"
    whole = file.read_text()
    damaged = whole.replace('"accuracy": 0.', '"accuracy": 1.')
    for text in (damaged, whole[:-9], "[]"):
        assert text != whole
        file.write_text(text)
        with pytest.raises(ValueError, match="row.json must hold what a run has reached: "):
            tickets.compare(moved, PLAN)


def test_a_ticket_becomes_a_small_file(compared, tmp_path, capsys):
    config, _ = compared
    folder = shutil.copytree(config.folder / "seed-0" / "ticket-4", tmp_path / "ticket")
    masks, run = (folder / "masks.pt").read_bytes(), open_run(folder, device="cpu")
    assert cli.main(["compact", str(folder), "--device=cpu", "--program"]) == 0
    small = load_compact(folder / "compact.pt", zoo.build)
    x = run.data.example(50)
    program = torch.export.load(folder / "compact.pt2").module()
    with torch.no_grad():
        wanted = run.model.eval()(x)
        torch.testing.assert_close(small(x), wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(program(x), wanted, rtol=1e-4, atol=1e-4)
    words = ["prune", str(folder), "--device=cpu", "--density=0.25", "--by=magnitude"]
    assert cli.main(words) == 0
    out = str(tmp_path / "smaller.pt")
    assert cli.main(["compact", str(folder), "--device=cpu", f"--out={out}"]) == 0
    assert "masks: " + str(folder / "pruned.pt") in capsys.readouterr().out
    nonzero = [
        sum(int(p.count_nonzero()) for p in load_compact(file, zoo.build).parameters())
        for file in (folder / "compact.pt", out)
    ]
    assert nonzero[1] < 0.7 * nonzero[0]
    assert (folder / "masks.pt").read_bytes() == masks
    equal(open_run(folder, device="cpu").model.state_dict(), run.model.state_dict())


def test_whole_and_cut_nets_reach_the_same(compared, tmp_path):
    config, _ = compared
    plan = PLAN._replace(methods=("ticket",), at=(4,), retrain={"epochs": 1})
    rows = []
    for cut in (True, False):
        own = replace(config, dtype="float64", out=str(tmp_path / str(cut)))
        tickets.compare(own, plan._replace(cut=cut), progress=False)
        rows.append(rows_of(own))
    assert rows[0] == rows[1]


def test_a_net_with_batchnorm_is_slimmed(tmp_path):
    config = replace(
        SEARCH, model="resnet20", train_size=128, epochs=1, target=0.5, lam_conv=1.0,
        lam_named={"fc.weight": 1e-6}, out=str(tmp_path),
    )  # fmt: skip
    plan = tickets.TicketPlan(at=(1,), methods=("slimming",), l1_scales=0.01, tune={"epochs": 2})
    tickets.compare(config, plan, progress=False)
    (row,) = rows_of(config)
    assert row["epochs"] == 3 and row["density"] < 0.5
    folder = tmp_path / "seed-0"
    assert folders.read_config(folder / "slimming").l1_scales == 0.01
    assert folders.read_config(folder / "slimming-1").l1_scales == 0
    assert folders.read_config(folder / "slimming-1").lr == pytest.approx(config.lr / 10)


def test_tickets_are_trained_on_other_data(tmp_path, monkeypatch):
    """The other set has the same pictures, turned upside down."""
    from dslbi_torch.training.data import datasets

    original = datasets.load

    def load(name, *args, **options):
        found = original("digits", *args, **options)
        if name == "mnist":
            for part in (found.train, found.test):
                part.x = part.x.flip(2)
        return found._replace(name=name)

    monkeypatch.setattr(datasets, "load", load)
    config = replace(SEARCH, out=str(tmp_path))
    plan = PLAN._replace(methods=("dense", "ticket", "soft"), at=(4,), transfer="mnist")
    tickets.compare(config, plan, progress=False)
    found = [(row["dataset"], row["method"]) for row in rows_of(config)]
    moved = [("mnist", "dense"), ("mnist", "ticket")]
    assert found == [*(("digits", m) for m in plan.methods), *moved]
    own, other = (tmp_path / "seed-0" / name for name in ("ticket-4", "ticket-4-mnist"))
    equal(load_masks(own / "masks.pt"), load_masks(other / "masks.pt"))
    equal(*(folders.read_weights(folder / "initial.pt") for folder in (own, other)))
    assert folders.read_config(other).dataset == "mnist"


# Mistakes

GOOD = ("digits", "--epochs=1", "--device=cpu", "--train-size=128")
MISTAKES = [
    (("--methods=ticket,luck",), "methods must be among dense, ticket, tuned, random"),
    (
        ("--methods=slimming",),
        "slimming needs a net with BatchNorm, of which whole filters are spl",
    ),
    (("--at=2",), "at must be epochs of the search's 1, got 2"),
    (("--at=0",), "at must be different numbers of at least 1, got (0,)"),
    (("--at=",), "at must be different numbers of at least 1, got ()"),
    (("--at=x",), "argument --at: invalid list of whole numbers value: 'x'"),
    (("--seeds=1,1",), "seeds must be different numbers of at least 0, got (1, 1)"),
    (("--rewind=5",), "rewind must be epochs of the search's 1, got 5"),
    (("--rounds=0",), "rounds must be at least 1, got 0"),
    (("--slimming-l1=-1",), "the l1 of slimming must be at least 0 and finite, got -1.0"),
    (("--retrain", "epoch=3"), "retrain must be fields of a config, got 'epoch=3'"),
    (("--retrain", "lr=x"), "retrain: argument --lr: invalid float value: 'x'"),
    (("--retrain", "lr=-1"), "lr must be positive and finite, got -1.0"),
    (("--retrain", "nu=3"), "retrain may change epochs, batch_size, lr,"),
    (("--tune", "optimizer=dessilbi"), "retrain and tune must name an optimizer that does not"),
    (("--optimizer=sgd",), "a search needs an optimizer that splits, got sgd"),
    (("--transfer=digits",), "transfer must be another data set with pictures of shape (1, 8, 8)"),
    (("--transfer=letters",), "dataset must be one of digits, mnist"),
    (("--masks=none.pt",), "a search must be of the whole net, got masks none.pt"),
    (("--prune=soft",), "prune needs a target, an optimizer that does not split, and no masks"),
    (("--lam-conv=1e6",), "the ticket of epoch 1 must keep something of every layer, but nothing"),
]


@pytest.mark.parametrize(("argv", "message"), MISTAKES)
def test_mistakes_are_one_line(capsys, tmp_path, argv, message):
    assert cli.main(["ticket", *GOOD, f"--out={tmp_path / 'runs'}", *argv]) == 2
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("dslbi ticket: ")]
    assert len(lines) == 1 and message in lines[0]
    if "the ticket of" not in message:  # found out before anything is written
        assert err.count("\n") == 1 and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(cut="keep"), "cut needs the masks to cut the net by, got none"),
        (dict(cut="new", masks="a", initial="b"), "initial must be none for a net that draws new"),
        (dict(optimizer="sgd", prune="soft"), "prune needs a target"),
        (dict(optimizer="sgd", prune="soft", target=0.1, masks="a"), "prune needs a target"),
        (dict(optimizer="sgd", prune="hard", target=0.1), "prune must be one of gradual, soft"),
        (dict(masks="a", shard=True), "masks and prune must be none where weights are sharded"),
    ],
)
def test_impossible_configs(values, message):
    with pytest.raises(ValueError, match=message):
        Config(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(masks="none.pt"), "none.pt must be a file of dslbi masks 1, but does not exist"),
        (dict(initial="none.pt"), "initial must be a checkpoint, but none.pt does not exist"),
        (dict(initial="{masks}"), "cannot be read, it is truncated or not a checkpoint of a run"),
        (dict(masks="{other}"), "masks must be of this model, which has no parameter 'x'"),
        (
            dict(prune="soft", target={"x.weight": 0.5}),
            "density must name ranked tensors, got 'x.wei",
        ),
    ],
)
def test_sources_that_do_not_fit_write_nothing(tmp_path, masks_file, values, message):
    save_masks({"x": torch.ones(2, dtype=bool)}, tmp_path / "other.pt")
    files = {"masks": masks_file, "other": tmp_path / "other.pt"}
    values = {k: v.format(**files) if isinstance(v, str) else v for k, v in values.items()}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        trained(SGD, tmp_path / "run", **values)
    assert not (tmp_path / "run").exists()


def test_masks_may_change_while_a_net_is_trained():
    model = zoo.build("digits-net", in_channels=1)
    masks = drawn(SGD, share=0.8)
    held = MaskedTraining(model, torch.optim.SGD(model.parameters(), 0.1), masks)
    fewer = {name: mask & drawn(SGD, share=0.5, seed=1)[name] for name, mask in masks.items()}
    held.change(fewer)
    equal(held.masks, fewer)
    for name, mask in fewer.items():
        assert not dict(model.named_parameters())[name][~mask].any()
    with pytest.raises(ValueError, match="masks must be of the same tensors"):
        held.change({"conv1.weight": masks["conv1.weight"]})


def test_a_cut_refuses_what_is_dead_without_a_mask():
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    with torch.no_grad():
        net[0].weight[0], net[0].bias[0] = 0, 0
    mask = torch.ones(8, 4, dtype=torch.bool)
    mask[3] = False
    with pytest.raises(ValueError, match=r"of 0.weight \(6, 4\) would be left, not \(7, 4\)"):
        compact_with_masks(net, {"0.weight": mask, "0.bias": mask[:, 0]}, torch.randn(2, 4))

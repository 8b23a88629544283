"""Nets, configs, recipes and the course of lr."""

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
from torch import nn

from dslbi_torch import __main__ as cli
from dslbi_torch.training import config as configs
from dslbi_torch.training import recipes
from dslbi_torch.training.config import Config
from dslbi_torch.training.data import datasets
from dslbi_torch.training.nets import zoo
from dslbi_torch.training.recipes import RECIPES
from dslbi_torch.training.run import train
from dslbi_torch.training.run.make_optimizer import make_optimizer
from dslbi_torch.training.run.processes import Processes
from dslbi_torch.training.run.schedules import lr_factor


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: recipes.recipe("mnist"), "recipe must be one of digits, .*, got 'mnist'"),
    ],
)
def test_unknown_names(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_configs_that_survive_json(name):
    entry = recipes.recipe(name)
    assert entry.config.recipe == name
    assert configs.from_json(configs.to_json(entry.config)) == entry.config
    assert entry.about and entry.needs
    assert entry.source in ("ours", "code", "caption", "recalled")
    assert str(entry.config.folder) == f"runs/{name}"


@pytest.mark.parametrize("name", [n for n, r in RECIPES.items() if "not yet run" in r.needs])
def test_what_an_untried_recipe_needs_is_arithmetic(name):
    config, needs = RECIPES[name].config, RECIPES[name].needs
    imagenet = config.dataset == "imagenet"
    net = zoo.build(config.model, 1000 if imagenet else 10, 3)
    split = sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    megabytes = 4 * (3 * sum(p.numel() for p in net.parameters()) + split) / 1e6
    found = float(re.search(r"estimate: ([\d.]+) MB", needs)[1])
    assert found == pytest.approx(megabytes, rel=0.01)
    pictures = config.epochs * (1_281_167 if imagenet else 50_000)
    assert float(re.search(r"([\d.]+) million", needs)[1]) == pytest.approx(
        pictures / 1e6, rel=1e-4
    )
    assert f"({config.epochs} epochs)" in needs


def test_columns_of_the_tables_are_flags_that_work(capsys, monkeypatch):
    """Those of the book, with each of the four recipes; any that does nothing would be refused."""
    text = (Path(__file__).parents[3] / "book" / "reproducing.md").read_text()
    rows = re.findall(r"^\| ((?:DessiLBI|SGD|A|R)[\w -]*) \| (`--.*?`|none)", text, re.M)
    assert len(rows) == 13
    seen = []
    monkeypatch.setattr(train, "train", lambda config, **_: seen.append(config) or Stopped())
    for recipe in (
        *("imagenet-resnet18", "imagenet-alexnet"),
        *("cifar10-resnet20-paper", "mnist-lenet5-paper"),
    ):
        for _, flags in rows:
            own = [] if flags == "none" else flags.strip("`").split()
            assert cli.main(["train", recipe, *own]) == 0, capsys.readouterr().err
    adaptive = [c for c in seen if c.optimizer not in ("dessilbi", "sgd")]
    assert len(seen) == 52 and len(adaptive) == 20 and {c.lr for c in adaptive} == {1e-3}


class Stopped:
    processes = Processes(1, 2, None)  # one that prints nothing


IDLE = [
    (dict(optimizer="sgd", decoupled=True), "decoupled needs optimizer dessilbi to have an effec"),
    (dict(optimizer="adamw", split=True, coupling="inside"), "coupling needs optimizer dessilbi"),
    (dict(optimizer="sgd", fused=True), "fused needs optimizer dessilbi"),
]
IDLE_FLAGS = [
    *IDLE,
    (dict(optimizer="sgd", nu=7.0), "nu needs an optimizer that splits to have an effect, got 7.0"),
    (dict(optimizer="sgd", kappa=2.0), "kappa needs an optimizer that splits"),
    (dict(optimizer="sgd", nu_schedule="lr"), "nu_schedule needs an optimizer that splits"),
    (dict(nu_schedule="lr", schedule="constant"), "splits, and an lr that falls"),
    (dict(optimizer="sgd", elements=True), "elements needs an optimizer that splits"),
    (dict(optimizer="adam", momentum=0.5), "momentum needs optimizer dessilbi or sgd"),
    (dict(optimizer="adam", nesterov=True), "nesterov needs optimizer dessilbi or sgd"),
    (dict(optimizer="adam", dampening=0.1), "dampening needs optimizer dessilbi or sgd"),
    (dict(milestones=(3,)), "milestones needs schedule step"),
    (
        dict(schedule="step", milestones=(3,), lr_min=0.01),
        "lr_min needs schedule cosine or triangle",
    ),
    (dict(ramp=0.1), "ramp needs a target or a cost"),
    (dict(per_layer=True), "per_layer needs a target, and an optimizer that splits"),
    (dict(at_least=1), "at_least needs a target or a cost, and an optimizer that splits"),
    (dict(release_pull=1.0), "release_pull needs a release, and an optimizer that splits"),
    (dict(optimizer="sgd", release=1.0), "release needs an optimizer that splits"),
    (dict(optimizer="sgd", dense_start=True), "dense_start needs an optimizer that splits"),
    (dict(optimizer="sgd", crossings=(0.1,)), "crossings needs an optimizer that splits"),
    (dict(alternate=True), "alternate needs flip to have an effect, got True without"),
]


@pytest.mark.parametrize(
    "values, message",
    [
        (
            dict(release=20.0),
            r"release must be in \[0, epochs = 20\): the path starts before the l",
        ),
        (dict(release=-1.0), r"release must be in \[0, epochs = 20\): .*, got -1.0"),
        (dict(release_pull=-1.0), "release_pull must be at least 0 and finite, got -1.0"),
        (dict(release_power=float("inf")), "release_power must be finite, got inf"),
        (dict(crossings=(0.1, 1.0)), r"crossings must be densities in \(0, 1\), got \(0.1, 1.0\)"),
        (dict(crossings=0.1), "crossings must be a tuple of numbers, got 0.1"),
    ],
)
def test_starts_that_cannot_be(values, message):
    with pytest.raises(ValueError, match=message):
        Config(**values)


@pytest.mark.parametrize("values, message", IDLE)
def test_what_would_compute_something_else_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Config(**values)


@pytest.mark.parametrize("values, message", IDLE_FLAGS)
def test_a_flag_that_does_nothing_is_refused(capsys, values, message):
    """What a recipe hands on is not: a baseline has its nu, momentum and milestones."""
    flags = [f"--{k.replace('_', '-')}" if v is True else f"--{k.replace('_', '-')}={_text(v)}"
             for k, v in values.items()]  # fmt: skip
    assert cli.main(["train", "digits", *flags]) == 2
    assert message in capsys.readouterr().err


def _text(value):
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def test_recipes_print_the_settings_of_one(capsys):
    assert cli.main(["recipes", "digits"]) == 0
    assert configs.from_json(capsys.readouterr().out) == RECIPES["digits"].config
    assert cli.main(["recipes", "digit"]) == 2
    assert "recipe must be one of digits, " in capsys.readouterr().err


def test_the_help_names_every_data_set_and_net(capsys):
    assert cli.main(["train", "--help"]) == 0
    words = set(re.findall(r"[\w-]+", re.sub(r"-\n +", "-", capsys.readouterr().out)))
    assert {*zoo.NETS, *datasets.DATASETS} <= words


def test_milestones_of_a_recipe_that_never_come(capsys):
    assert cli.main(["train", "mnist-lenet5-paper", "--epochs=30"]) == 2
    assert "milestones must name an epoch before the last, 30" in capsys.readouterr().err


def test_official_recipe_has_the_settings_of_the_authors_example():
    config = RECIPES["mnist-lenet5-official"].config
    expected = dict(
        dataset="mnist", model="lenet5", batch_size=128, lr=0.1, epochs=60, kappa=1, nu=20,
        momentum=0.9, weight_decay=0, normalize=False, conv="group", linear="l1", lam_conv=1,
        lam_linear=1, init="torch", schedule="step", milestones=(20, 40), factor=0.1, holdout=0,
    )  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected


def test_recipes_have_the_settings_of_their_sources():
    """Captions of Tables 3 to 6; the README of the authors' lottery example."""
    for name in ("cifar10-vgg16", "cifar10-resnet56"):
        config = RECIPES[name].config
        expected = dict(epochs=160, lr=0.1, milestones=(80, 120), factor=0.1, kappa=1, nu=100)
        assert {key: getattr(config, key) for key in expected} == expected
    tickets = {
        "cifar10-resnet56-ticket": (100, "group", 0.1),
        "cifar10-vgg16-ticket": (100, "group", 0.05),
        "cifar10-vgg16-weights-ticket": (200, "l1", 0.03),
    }
    for name, wanted in tickets.items():
        config = RECIPES[name].config
        assert (config.nu, config.conv, config.lam_conv) == wanted
        assert (config.epochs, config.batch_size, config.schedule) == (200, 64, "constant")
        assert config.nesterov and config.weight_decay == 1e-4
    for name in ("imagenet-resnet18", "imagenet-resnet50"):
        config = RECIPES[name].config
        assert (config.nu, config.batch_size, config.epochs) == (1000, 256, 100)
        assert config.milestones == (30, 60, 90) and config.weight_decay == 1e-4


def test_json_keeps_tuples_and_none():
    config = Config(
        milestones=(3, 5), schedule="step", conv=None, data="/x", epochs=7,
        lam_named={"fc1.weight": 0.1 + 0.2}, target={"conv1.weight": 1 / 3},
    )  # fmt: skip
    again = configs.from_json(configs.to_json(config))
    assert again == config and again.milestones == (3, 5) and again.conv is None
    assert again.target == {"conv1.weight": 1 / 3}
    assert json.loads(configs.to_json(config))["lam_named"] == {"fc1.weight": 0.1 + 0.2}


@pytest.mark.parametrize(
    "text, message",
    [
        ("[1]", "a config must be a JSON object, got list"),
        ('{"format": 2, "epochs": 3, "epoch": 4}', "fields of Config only, got epoch"),
        ('{"format": 2, "nu": -1}', "nu must be positive and finite, got -1"),
        ('{"format": 2, "epochs": 2.5}', "epochs must be a whole number, got 2.5"),
        ('{"format": 2, "milestones": [1, "a"]}', "milestones must be a tuple of whole numbers"),
        ('{"format": 2, "target": {"a": "b"}}', "target must be a number or numbers by name or no"),
        ('{"nu": 2, "epoch": 4}', "a config must have format 2, got none"),
        ('{"format": 3}', "a config must have format 2, got 3"),
    ],
)
def test_json_that_is_no_config(text, message):
    with pytest.raises(ValueError, match=message):
        configs.from_json(text)
    with pytest.raises(json.JSONDecodeError):
        configs.from_json(text[:-1])


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "values, message",
    [
        *[({k: v}, f"{k} must be positive and finite, got {v!r}")
          for k in ("lr", "lr_biases", "lam_conv", "lam_linear", "kappa", "nu", "factor")
          for v in (0.0, -1.0, NAN, INF)],
        *[({k: 0}, f"{k} must be at least 1, got 0")
          for k in ("epochs", "batch_size", "record_every")],
        *[({k: v}, rf"{k} must be in \[0, 1\), got {v!r}")
          for k in ("momentum", "dampening") for v in (-0.1, 1.0, NAN)],
        *[({k: -1}, f"{k} must be at least 0, got -1")
          for k in ("shift", "image_size", "n_classes", "train_size", "holdout", "whiten",
                    "threads", "workers")],
        ({"whiten": 5}, "whiten must be 0 for digits-net, whose first layer is trained, got 5"),
        ({"seed": -1}, r"seed must be in \[0, 2\*\*63\), got -1"),
        ({"weight_decay": -1e-4}, "weight_decay must be at least 0 and finite, got -0.0001"),
        ({"threads": 10**6}, "threads must be at most 1024, got 1000000"),
        ({"target": 0.5, "amp": "fp16"}, "amp must be bf16 or none with a target, got fp16"),
        ({"lr": 0.1, "lr_min": 0.2}, r"lr_min must be in \[0, lr = 0.1\], got 0.2"),
        ({"dataset": "minst"}, "dataset must be one of digits, mnist, .*, got 'minst'"),
        ({"corrupt": "repair"}, "corrupt must be one of refuse, skip, got 'repair'"),
        ({"model": "x"}, "model must be one of .*, got 'x'"),
        ({"init": "x"}, "init must be one of torch, he, got 'x'"),
        ({"conv": "l2"}, "conv must be one of l1, group, .*, none, got 'l2'"),
        ({"weight": "size"}, "weight must be one of sqrt, none, got 'size'"),
        ({"coupling": "both"}, "coupling must be one of outside, inside, got 'both'"),
        ({"dtype": "float16"}, "dtype must be one of float32, float64, got 'float16'"),
        ({"schedule": "linear"}, "schedule must be one of constant, step, cosine, triangle, got"),
        ({"schedule": "step"}, "milestones must name at least one epoch for schedule step"),
        ({"milestones": (4, 2)}, r"milestones must be increasing epochs from 1 on, got \(4, 2\)"),
        ({"milestones": (0, 2)}, r"milestones must be increasing epochs from 1 on, got \(0, 2\)"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov needs momentum > 0 and dampening 0, got"),
        ({"conv": None, "linear": None}, "conv or linear must have a penalty, got none for both"),
        ({"optimizer": "sgd", "prune": "rigl", "target": 0.1}, "prune rigl exchanges single"),
        ({"optimizer": "linbreg"}, "target must be one share for linbreg, got None"),
        ({"optimizer": "linbreg", "target": 0.1}, "conv and linear must be l1 or none"),
        ({"optimizer": "adabreg", "split": True}, "split must be no for adabreg, whose"),
        ({"first": 0.0}, r"first must be in \(0, 1\], got 0.0"),
        ({"epochs": True}, "epochs must be a whole number, got True"),
        ({"normalize": 1}, "normalize must be true or false, got 1"),
        ({"lr": "0.1"}, "lr must be a number, got '0.1'"),
        ({"out": 3}, "out must be a string or none, got 3"),
    ],
)  # fmt: skip
def test_impossible_values(values, message):
    with pytest.raises(ValueError, match=message):
        Config(**values)


def test_differences_leave_the_place_out():
    a = Config()
    b = dataclasses.replace(
        a, out="x", data="y", device="cpu", threads=3, workers=2, corrupt="skip"
    )
    assert configs.differences(a, b) == []
    assert configs.differences(a, dataclasses.replace(b, nu=3.0, seed=1)) == ["seed", "nu"]


def test_step_schedule():
    config = RECIPES["mnist-lenet5-official"].config
    rates = [
        config.lr * lr_factor(config, step, 469) for step in (0, 20 * 469 - 1, 20 * 469, 40 * 469)
    ]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001], rel=1e-14)


def test_cosine_schedule():
    config = Config(schedule="cosine", epochs=4, lr=0.2, lr_min=0.02)
    rates = [0.2 * lr_factor(config, step, 10) for step in range(42)]
    closed = [0.02 + 0.18 * (1 + math.cos(math.pi * step / 40)) / 2 for step in range(40)]
    assert rates[:40] == pytest.approx(closed, rel=1e-13)
    # The scheduler looks one step beyond the last, where the half cosine may be zero.
    assert rates[40:] == [rates[39]] * 2
    assert lr_factor(dataclasses.replace(config, lr_min=0.0), 40, 10) > 0


def test_constant_schedule():
    assert {lr_factor(Config(), step, 10) for step in (0, 5, 999)} == {1.0}


def test_optimizer_gets_every_setting():
    config = Config(
        conv="group", linear="l1", lam_conv=2.0, lam_linear=0.3, weight="sqrt", kappa=1.5, nu=7.0,
        lr=0.03, momentum=0.8, dampening=0.1, weight_decay=1e-3, decoupled=True, coupling="inside",
    )  # fmt: skip
    model = zoo.build("digits-net")
    optimizer = make_optimizer(config, model)
    seen = {}
    for group in optimizer.param_groups:
        for name in group["param_names"]:
            seen[name] = group
    assert set(seen) == {name for name, _ in model.named_parameters()}
    for layer, module in model.named_children():
        weight, bias = seen[f"{layer}.weight"], seen[f"{layer}.bias"]
        conv = isinstance(module, nn.Conv2d)
        assert (weight["penalty"], weight["lam"]) == (("group", 2.0) if conv else ("l1", 0.3))
        assert (weight["weight_decay"], bias["weight_decay"]) == (1e-3, 0)
        assert bias["penalty"] is None and weight["weight"] == "sqrt"
        for group in (weight, bias):
            shared = (
                "kappa",
                "nu",
                "lr",
                "momentum",
                "dampening",
                "decoupled",
                "coupling",
                "nesterov",
            )
            assert [group[k] for k in shared] == [1.5, 7.0, 0.03, 0.8, 0.1, True, "inside", False]


def test_single_tensors_may_have_levels_of_their_own():
    config = Config(lam_conv=2.0, lam_linear=0.3, lam_named={"conv2.weight": 5, "fc1.weight": 0.1})
    optimizer = make_optimizer(config, zoo.build("digits-net"))
    levels = {
        n: g["lam"] for g in optimizer.param_groups for n in g["param_names"] if "weight" in n
    }
    expected = {"conv1.weight": 2.0, "conv2.weight": 5.0, "fc1.weight": 0.1, "fc2.weight": 0.3}
    assert levels == expected
    for levels in ({}, {"conv2.weight": -1.0}, {"": 1.0}, {"conv2.weight": NAN}, {"fc": INF}):
        with pytest.raises(ValueError, match="lam_named must be a positive number for each name"):
            Config(lam_named=levels)
    for levels in ("conv2.weight=1", {"conv2.weight": "1"}, {"conv2.weight": True}, {3: 1.0}):
        with pytest.raises(ValueError, match="lam_named must be numbers by name or none, got"):
            Config(lam_named=levels)
    with pytest.raises(ValueError, match="rule 'conv9.weight' must match a trainable"):
        make_optimizer(Config(lam_named={"conv9.weight": 1.0}), zoo.build("digits-net"))


def test_target_is_a_share_or_a_share_for_each_name():
    assert Config().target is None and Config(target=0.1).target == 0.1
    shares = {"conv3.weight": 0.15, "fc1.weight": 1.0}
    assert Config(target=shares).target == shares
    for target in (0.0, 1.5, NAN, {}, {"conv1.weight": 2.0}, {"": 0.1}):
        with pytest.raises(ValueError, match=r"target must be in \(0, 1\], or such a share for ea"):
            Config(target=target)
    for target in ("0.1", {"conv1.weight": "x"}, True):
        with pytest.raises(ValueError, match="target must be a number or numbers by name or none"):
            Config(target=target)


@pytest.mark.parametrize(
    ("argv", "values"),
    [
        (["--target=0.1"], {"target": 0.1}),
        (["--target=a.weight=0.15,b.weight=1"], {"target": {"a.weight": 0.15, "b.weight": 1.0}}),
        (["--target=none"], {"target": None}),
        (["--lam-named=fc1.weight=1e-6"], {"lam_named": {"fc1.weight": 1e-6}}),
        (["--lam-named=none"], {"lam_named": None}),
        (["--milestones=1,2", "--schedule=step"], {"milestones": (1, 2), "schedule": "step"}),
        (["--conv=none", "--no-normalize"], {"conv": None, "normalize": False}),
    ],
)  # fmt: skip
def test_flags_are_values(monkeypatch, argv, values):
    seen = []
    monkeypatch.setattr(train, "train", lambda config, **_: seen.append(config) or Stopped())
    assert cli.main(["train", "digits", *argv]) == 0
    assert seen == [dataclasses.replace(RECIPES["digits"].config, **values)]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--target=x", "argument --target: invalid float value: 'x'"),
        ("--target=conv1.weight=x", "--target: must be NAME=NUMBER,..., got 'conv1.weight=x'"),
        ("--target=conv1.weight=2", "target must be in (0, 1], or such a share for each name"),
        ("--target==0.1", "--target: must be NAME=NUMBER,..., got '=0.1'"),
        ("--target=7", "target must be in (0, 1], or such a share for each name, or none, got 7.0"),
        ("--lam-named=conv2.weight", "must be NAME=NUMBER,..., got 'conv2.weight'"),
        ("--lam-named=conv2.weight=-1", "lam_named must be a positive number for each name"),
    ],
)
def test_flags_that_are_no_values(capsys, flag, message):
    assert cli.main(["train", "digits", flag]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1

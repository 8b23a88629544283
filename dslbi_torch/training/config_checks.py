"""What a config must not say: values of another type or range, and options that go against each
other or do nothing.

Each check takes a config and raises ValueError with the field, what it must be, and the value.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Iterable

import torch

from ..penalties import PENALTIES
from .data.datasets import DATASETS, STATISTICS
from .nets.zoo import NETS
from .run.optimizers import OPTIMIZERS

_WORDS = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    types.NoneType: "none",
    tuple[int, ...]: "a tuple of whole numbers",
    tuple[float, ...]: "a tuple of numbers",
    dict[str, float]: "numbers by name",
}


def types_of(config_type: type, field_name: str) -> tuple:
    """Return the types that a field takes: ``(float, NoneType)`` for ``float | None``."""
    hint = typing.get_type_hints(config_type)[field_name]
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def check_types(config) -> None:
    """Refuse a value that is not of its field's type."""
    for field in dataclasses.fields(config):
        value, kinds = getattr(config, field.name), types_of(type(config), field.name)
        if not any(_is(value, kind) for kind in kinds):
            expected = " or ".join(_WORDS[kind] for kind in kinds)
            raise ValueError(f"{field.name} must be {expected}, got {value!r}")


def _is(value, kind):
    if kind in (tuple[int, ...], tuple[float, ...]):
        (each, _) = typing.get_args(kind)
        return isinstance(value, tuple) and all(_is(x, each) for x in value)
    if kind == dict[str, float]:
        return isinstance(value, dict) and all(
            isinstance(name, str) and _is(x, float) for name, x in value.items()
        )
    # A whole number is a fine float, but a bool is no number, nor the other way round.
    return type(value) is kind or (kind is float and type(value) is int)


def check_words(config) -> None:
    """Refuse a word that a field does not take."""
    choices = {
        "dataset": DATASETS,
        "model": NETS,
        "optimizer": OPTIMIZERS,
        "init": ("torch", "he"),
        "statistics": STATISTICS,
        "schedule": ("constant", "step", "cosine", "triangle"),
        "nu_schedule": ("constant", "lr"),
        "conv": (*PENALTIES, "channel", None),
        "linear": (*PENALTIES, "channel", None),
        "weight": ("sqrt", None),
        "coupling": ("outside", "inside"),
        "dtype": ("float32", "float64"),
        "corrupt": ("refuse", "skip"),
        "amp": ("bf16", "fp16", None),
        "cut": ("keep", "new", None),
        "prune": ("gradual", "soft", "rigl", None),
    }
    for name, allowed in choices.items():
        words = ", ".join("none" if word is None else word for word in allowed)
        _require(config, name, getattr(config, name) in allowed, f"one of {words}")


def check_ranges(config) -> None:
    """Refuse a number outside the interval of its field."""
    intervals = {
        ("lr", "lam_conv", "lam_linear", "kappa", "nu", "factor", "lr_biases"): (
            "positive and finite",
            lambda x: 0 < x < math.inf,
        ),
        ("epochs", "batch_size", "record_every", "accumulate", "keep"): (
            "at least 1",
            lambda x: x >= 1,
        ),
        ("momentum", "dampening", "label_smoothing", "ema"): ("in [0, 1)", lambda x: 0 <= x < 1),
        (
            *("shift", "image_size", "n_classes", "train_size", "holdout", "whiten"),
            *("threads", "workers", "checkpoint_steps", "at_least"),
        ): ("at least 0", lambda x: x >= 0),
        ("threads",): ("at most 1024", lambda x: x <= 1024),
        ("ramp",): ("in [0, 1]", lambda x: 0 <= x <= 1),
        ("first",): ("in (0, 1]", lambda x: 0 < x <= 1),
        ("dwell",): ("positive and finite", lambda x: 0 < x < math.inf),
        ("seed",): ("in [0, 2**63)", lambda x: 0 <= x < 2**63),
        ("weight_decay", "l1", "l1_scales", "release_pull"): (
            "at least 0 and finite",
            lambda x: 0 <= x < math.inf,
        ),
    }
    for names, (expected, holds) in intervals.items():
        for name in names:
            _require(config, name, holds(getattr(config, name)), expected)
    most = torch.finfo(getattr(torch, config.dtype)).max
    for name in ("lr", "lam_conv", "lam_linear", "kappa", "nu", "weight_decay", "l1"):
        value = getattr(config, name)
        _require(config, name, value <= most, f"a number that {config.dtype} holds")


def check_shares(config) -> None:
    """Refuse levels that are not positive, and shares outside (0, 1]."""
    levels = config.lam_named
    if levels is not None:
        good = levels and all(name and 0 < x < math.inf for name, x in levels.items())
        _require(config, "lam_named", good, "a positive number for each name, or none")
    target = config.target
    if target is not None:
        shares = target if isinstance(target, dict) else {"all": target}
        good = shares and all(name and 0 < x <= 1 for name, x in shares.items())
        _require(config, "target", good, "in (0, 1], or such a share for each name, or none")
    cost = config.cost
    if cost is not None:
        good = len(cost) == 1 and all(n in ("macs", "parameters") for n in cost)
        good = good and all(0 < x <= 1 for x in cost.values())
        _require(config, "cost", good, "macs or parameters with a share in (0, 1], or none")
    _require(config, "crossings", all(0 < x < 1 for x in config.crossings), "densities in (0, 1)")


def check_schedule(config) -> None:
    """Refuse a course of lr that the epochs do not hold."""
    epochs, lr, milestones = config.epochs, config.lr, config.milestones
    _require(config, "warmup", 0 <= config.warmup < epochs, f"in [0, epochs = {epochs})")
    held = f"in [0, epochs = {epochs}): the path starts before the last step"
    _require(config, "release", 0 <= config.release < epochs, held)
    _require(config, "release_power", math.isfinite(config.release_power), "finite")
    _require(config, "lr_min", 0 <= config.lr_min <= lr, f"in [0, lr = {lr:g}]")
    increasing = all(a < b for a, b in zip((0, *milestones), milestones, strict=False))
    _require(config, "milestones", increasing, "increasing epochs from 1 on")
    if config.schedule == "step" and not milestones:
        raise ValueError("milestones must name at least one epoch for schedule step, got none")


def check_combinations(config) -> None:
    """Refuse fields that go against each other."""
    nothing = config.conv is None and config.linear is None
    entries = {config.conv, config.linear} <= {"l1", None}
    masked, averaged = config.masks or config.prune, config.ema or config.compile
    _refuse(
        (
            config.nesterov and (config.momentum == 0 or config.dampening != 0),
            "nesterov needs momentum > 0 and dampening 0, got momentum "
            f"{config.momentum} and dampening {config.dampening}",
        ),
        (
            config.splits and nothing,
            "conv or linear must have a penalty, got none for both: no path",
        ),
        (
            config.splits and config.l1,
            f"l1 must be 0 where weights are split, got {config.l1}",
        ),
        (
            config.split and OPTIMIZERS[config.optimizer].splits,
            f"split must be no for {config.optimizer}, which splits by itself, got yes",
        ),
        (
            config.split and config.sparse,
            f"split must be no for {config.optimizer}, whose weights are sparse, got yes",
        ),
        (
            config.sparse and not isinstance(config.target, float | int),
            f"target must be one share for {config.optimizer}, got {config.target}",
        ),
        (
            config.sparse and (nothing or not entries),
            f"conv and linear must be l1 or none, and not both none, for {config.optimizer}, got "
            f"{config.conv} and {config.linear}",
        ),
        (
            config.sparse and config.shard,
            f"shard must be no for {config.optimizer}, got yes",
        ),
        (
            config.target and not (config.splits or config.sparse or config.prune),
            f"target needs an optimizer that splits, got {config.optimizer}",
        ),
        (config.cost and config.target, f"cost must be none with a target, got {config.cost}"),
        (
            config.cost and not config.splits,
            f"cost needs an optimizer that splits, got {config.optimizer}",
        ),
        (config.cost and config.shard, "cost must be none where weights are sharded (shard)"),
        (
            config.prune and (config.splits or config.sparse or config.masks or not config.target),
            "prune needs a target, an optimizer that does not split, and no masks",
        ),
        (
            config.prune == "rigl" and (isinstance(config.target, dict) or not entries),
            "prune rigl exchanges single weights (conv and linear: l1 or none) down to one target, "
            f"got conv {config.conv}, linear {config.linear} and target {config.target}",
        ),
        (
            config.prune and nothing,
            "conv or linear must have a penalty, got none for both: no pruning",
        ),
        (
            config.whiten and not NETS[config.model].whitens,
            f"whiten must be 0 for {config.model}, whose first layer is trained, got "
            f"{config.whiten}",
        ),
        (config.cut and not config.masks, "cut needs the masks to cut the net by, got none"),
        (
            config.cut == "new" and config.initial,
            "initial must be none for a net that draws new weights (cut)",
        ),
        (
            config.shard and masked,
            "masks and prune must be none where weights are sharded (shard)",
        ),
        (
            config.shard and averaged,
            "ema and compile must be off where weights are sharded (shard)",
        ),
    )
    if config.amp == "fp16":  # which leaves steps out
        _refuse(
            (config.prune, "amp must be bf16 or none where the net is pruned, got fp16"),
            (config.target, "amp must be bf16 or none with a target, got fp16"),
            (config.cost, "amp must be bf16 or none with a cost, got fp16"),
            (config.shard, "amp must be bf16 or none where weights are sharded, got fp16"),
        )


def _require(config, name, good, expected):
    if not good:
        raise ValueError(f"{name} must be {expected}, got {getattr(config, name)!r}")


def _refuse(*rules):
    """ValueError with the message of the first rule whose condition holds."""
    for condition, message in rules:
        if condition:
            raise ValueError(message)


# Options that would do nothing beside others


def _takers(field):
    """What a field of an optimizer needs: one of those that take it."""
    names = [name for name, row in OPTIMIZERS.items() if field in row.fields]
    return f"optimizer {' or '.join(names)}", lambda c: c.optimizer in names


# What a field needs to have an effect, in words, and whether a config has it.
_STEP = "schedule step", lambda c: c.schedule == "step"
_PATH = "an optimizer that splits", lambda c: c.splits
_LEVELS = "an optimizer that splits, linbreg or adabreg", lambda c: c.splits or c.sparse
NEEDS = {
    **{field: _takers(field) for row in OPTIMIZERS.values() for field in row.fields},
    **dict.fromkeys(("milestones", "factor"), _STEP),
    "lr_min": ("schedule cosine or triangle", lambda c: c.schedule in ("cosine", "triangle")),
    "alternate": ("flip", lambda c: c.flip),
    "statistics": ("normalize", lambda c: c.normalize),
    **dict.fromkeys(("kappa", "nu", "elements"), _PATH),
    **dict.fromkeys(("lam_conv", "lam_linear", "lam_named"), _LEVELS),
    "first": ("optimizer linbreg or adabreg", lambda c: c.sparse),
    **dict.fromkeys(("release", "release_power", "dense_start", "crossings"), _PATH),
    "release_pull": ("a release, and an optimizer that splits,", lambda c: c.release and c.splits),
    "nu_schedule": (
        "an optimizer that splits, and an lr that falls,",
        lambda c: c.splits and c.schedule != "constant",
    ),
    "ramp": ("a target or a cost", lambda c: c.target is not None or c.cost is not None),
    **dict.fromkeys(
        ("dwell", "per_layer"),
        (
            "a target, and an optimizer that splits or is sparse,",
            lambda c: c.target is not None and (c.splits or c.sparse),
        ),
    ),
    "at_least": (
        "a target or a cost, and an optimizer that splits,",
        lambda c: c.splits and (c.target is not None or c.cost is not None),
    ),
}


def refuse_idle(config, names: Iterable[str]) -> None:
    """Refuse a field of these that differs from its default and does nothing.

    A config may have others such: a baseline inherits nu and milestones from its recipe. What
    someone asks for by name is meant to have an effect.
    """
    default = {field.name: field.default for field in dataclasses.fields(config)}
    for name in names:
        words, holds = NEEDS.get(name, ("", lambda _: True))
        value = getattr(config, name)
        if value != default[name] and not holds(config):
            raise ValueError(f"{name} needs {words} to have an effect, got {value!r} without")


def refuse_lost_milestones(config, names: Iterable[str]) -> None:
    """Refuse fewer epochs than leave one of the milestones of a recipe."""
    inherited = "epochs" in names and "milestones" not in names and config.schedule == "step"
    if inherited and config.milestones[0] >= config.epochs:
        raise ValueError(
            f"milestones must name an epoch before the last, {config.epochs}, got those of the "
            f"recipe, {config.milestones}: give milestones, or schedule constant"
        )

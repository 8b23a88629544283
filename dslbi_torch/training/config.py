"""What defines a training run: one frozen dataclass. The named ones are in ``recipes.py``."""

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

from . import idle
from .data import sets as datasets
from .nets import table as models


def option(default, about):
    """A field of a dataclass whose comment is also the help text of its flag."""
    return field(default=default, metadata={"about": about})


OPTIMIZERS = (
    *("dessilbi", "sgd", "adam", "adamw", "amsgrad", "adagrad"),
    *("adamax", "radam", "nadam", "adabound"),
)


@dataclass(frozen=True)
class Config:
    """Everything that decides the result of a run, and where it lives.

    The defaults are those of :class:`dslbi_torch.DessiLBI` where it has the option. Impossible
    values raise ValueError on construction; ``dataclasses.replace`` makes a variant.
    """

    # What is learned from what
    recipe: str = option("", "name of the recipe that this config was made from")
    dataset: str = option("digits", f"data set: {', '.join(datasets.DATASETS)}")
    model: str = option("digits-net", f"net: {', '.join(models.MODELS)}")
    normalize: bool = option(True, "subtract mean and divide by std; no: pixel values in [0, 1]")
    shift: int = option(0, "training pictures are moved by up to this many pixels each way")
    flip: bool = option(False, "training pictures are mirrored left to right by chance")
    image_size: int = option(0, "pixels each way, where the data set leaves it open; 0: 224")
    n_classes: int = option(0, "classes that the data must have; 0: as many as it has")
    train_size: int = option(0, "training pictures to use, equally of all classes; 0: all")
    holdout: int = option(0, "training pictures set aside and evaluated instead of the test set")
    init: str = option("torch", "initial weights: torch (the layers' defaults) or he")
    seed: int = option(0, "seed of the initial weights and of the order of the batches")

    # How long, and how fast
    epochs: int = option(20, "passes over the training set")
    batch_size: int = option(128, "pictures per step; the last batch of an epoch may be smaller")
    lr: float = option(0.1, "step alpha: W moves by kappa * lr, V by lr / nu")
    schedule: str = option("constant", "course of lr: constant, step or cosine")
    milestones: tuple[int, ...] = option((), "step: epochs after which lr is multiplied by factor")
    factor: float = option(0.1, "step: what lr is multiplied by at each milestone")
    lr_min: float = option(0.0, "cosine: where lr ends after the last epoch")
    warmup: float = option(0.0, "epochs in which lr grows in proportion to the steps")
    accumulate: int = option(1, "parts that a batch is cut into, one after the other")
    label_smoothing: float = option(0.0, "share of each label that is spread over all classes")
    ema: float = option(0.0, "decay of a running average of the weights, in [0, 1); 0: none")

    # Which optimizer
    optimizer: str = option(
        "dessilbi",
        "dessilbi, sgd, adam, adamw, amsgrad, adagrad, adamax, radam, nadam or adabound",
    )
    split: bool = option(
        False, "put Split around an optimizer that is not dessilbi, whose lr is then kappa * alpha"
    )
    l1: float = option(0.0, "not split: coefficient of the weights' l1 norm in the loss")
    l1_scales: float = option(0.0, "coefficient of the l1 norm of BatchNorm's scales in the loss")

    # From where, and how much of the net
    initial: str | None = option(None, "checkpoint of a run whose weights are the initial ones")
    masks: str | None = option(None, "file of masks under which the net is trained")
    cut: str | None = option(
        None, "masks: cut the net by them, and keep its initial weights or draw new ones: keep, new"
    )
    prune: str | None = option(
        None, "not split: prune by magnitude in training down to target, gradual or soft"
    )

    # What is split, and the dynamics
    conv: str | None = option("group", "penalty of convolutions: group (filters), l1 or none")
    linear: str | None = option("l1", "penalty of linear layers: group (neurons), l1 or none")
    lam_conv: float = option(1.0, "penalty level lambda of convolutions")
    lam_linear: float = option(1.0, "penalty level lambda of linear layers")
    lam_named: str = option("", "levels of single tensors, as conv3.weight=0.7,fc1.weight=0.1")
    target: str = option(
        "", "in place of lam: share of the split weights to select, as 0.1 or conv3.weight=0.15"
    )
    ramp: float = option(
        0.5, "target: share of the run in which the selected share grows (gradual: falls)"
    )
    weight: str | None = option(None, "sqrt: the level of a group is lam * sqrt(size)")
    kappa: float = option(1.0, "damping kappa")
    nu: float = option(100.0, "coupling nu")
    nu_schedule: str = option("constant", "course of nu: constant, or lr: it falls as lr does")
    momentum: float = option(0.9, "dessilbi, sgd: momentum of the gradient, in [0, 1)")
    dampening: float = option(0.0, "dessilbi, sgd: dampening of the momentum, in [0, 1)")
    nesterov: bool = option(False, "dessilbi, sgd: Nesterov's form of the momentum")
    weight_decay: float = option(0.0, "weight decay (none on biases and norms)")
    decoupled: bool = option(
        False, "dessilbi: take the decay from W directly, not through the gradient"
    )
    coupling: str = option(
        "outside", "dessilbi: pull (W - Gamma)/nu outside or inside the momentum"
    )
    fused: bool = option(False, "dessilbi on a GPU: the step as one kernel")

    # What is recorded of the path
    record_every: int = option(10, "steps between two snapshots of the norms")
    elements: bool = option(False, "also record the entry step of every single weight")

    # How it is computed
    dtype: str = option("float32", "float32 or float64")
    amp: str | None = option(None, "bf16 or fp16: forward pass in mixed precision; none: in dtype")
    channels_last: bool = option(False, "pictures and weights with the channels innermost")
    compile: bool = option(False, "compile the net by torch.compile")
    deterministic: bool = option(False, "deterministic algorithms only, also on a GPU")
    shard: bool = option(False, "several processes: cut the weights among them (FSDP2)")

    # What is kept on disk beside the last checkpoint
    keep: int = option(1, "checkpoints of the last so many epochs are kept")
    checkpoint_steps: int = option(0, "steps between two checkpoints within an epoch; 0: none")
    tensorboard: bool = option(False, "also write the log for TensorBoard")

    # Where it runs: these may change when a run is resumed
    out: str | None = option(None, "run folder; none: runs/RECIPE")
    data: str | None = option(None, "folder of the data sets; none: $DSLBI_DATA or ~/.cache/dslbi")
    device: str = option("auto", "cpu, cuda, cuda:1, ...; auto: a GPU if there is one")
    threads: int = option(0, "CPU threads; 0: as torch chooses")
    workers: int = option(0, "processes that decode picture files; 0: none but the main one")
    corrupt: str = option("refuse", "a picture file that cannot be decoded: refuse or skip")

    def __post_init__(self):
        _check_types(self)
        one_of = {
            "dataset": datasets.DATASETS,
            "model": tuple(models.MODELS),
            "init": ("torch", "he"),
            "schedule": ("constant", "step", "cosine"),
            "nu_schedule": ("constant", "lr"),
            "conv": ("group", "l1", None),
            "linear": ("group", "l1", None),
            "weight": ("sqrt", None),
            "coupling": ("outside", "inside"),
            "dtype": ("float32", "float64"),
            "corrupt": ("refuse", "skip"),
            "optimizer": OPTIMIZERS,
            "amp": ("bf16", "fp16", None),
            "cut": ("keep", "new", None),
            "prune": ("gradual", "soft", None),
        }
        for name, allowed in one_of.items():
            _require(self, name, lambda x, a=allowed: x in a, f"one of {_words(allowed)}")
        for name in ("lr", "lam_conv", "lam_linear", "kappa", "nu", "factor"):
            _require(self, name, lambda x: 0 < x < float("inf"), "positive and finite")
        for name in ("epochs", "batch_size", "record_every", "accumulate", "keep"):
            _require(self, name, lambda x: x >= 1, "at least 1")
        for name in ("momentum", "dampening", "label_smoothing", "ema"):
            _require(self, name, lambda x: 0 <= x < 1, "in [0, 1)")
        for name in (
            *("shift", "image_size", "n_classes", "train_size", "holdout"),
            *("threads", "workers", "checkpoint_steps"),
        ):
            _require(self, name, lambda x: x >= 0, "at least 0")
        _require(self, "threads", lambda x: x <= 1024, "at most 1024")
        _require(self, "ramp", lambda x: 0 <= x <= 1, "in [0, 1]")
        _require(self, "seed", lambda x: 0 <= x < 2**63, "in [0, 2**63)")
        for name in ("weight_decay", "l1", "l1_scales"):
            _require(self, name, lambda x: 0 <= x < float("inf"), "at least 0 and finite")
        _require(self, "warmup", lambda x: 0 <= x < self.epochs, f"in [0, epochs = {self.epochs})")
        _require(self, "lr_min", lambda x: 0 <= x <= self.lr, f"in [0, lr = {self.lr:g}]")
        _require(
            self,
            "milestones",
            lambda x: all(a < b for a, b in zip((0, *x), x, strict=False)),
            "increasing epochs from 1 on",
        )
        if self.schedule == "step" and not self.milestones:
            raise ValueError("milestones must name at least one epoch for schedule step, got none")
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError(
                "nesterov needs momentum > 0 and dampening 0, "
                f"got momentum {self.momentum} and dampening {self.dampening}"
            )
        named_numbers("lam_named", self.lam_named)
        _ = self.shares  # refuses what is no share
        self._check_combinations()

    def _check_combinations(self):
        if self.splits and self.conv is None and self.linear is None:
            raise ValueError("conv or linear must be group or l1, got none for both: no path")
        if self.splits and self.l1:
            raise ValueError(f"l1 must be 0 where weights are split, got {self.l1}")
        if self.split and self.optimizer == "dessilbi":
            raise ValueError("split must be no for dessilbi, which splits by itself, got yes")
        if self.target and not (self.splits or self.prune):
            raise ValueError(f"target needs an optimizer that splits, got {self.optimizer}")
        if self.prune and (self.splits or self.masks or not self.target):
            raise ValueError("prune needs a target, an optimizer that does not split, and no masks")
        if self.prune and self.conv is None and self.linear is None:
            raise ValueError("conv or linear must be group or l1, got none for both: no pruning")
        if self.cut and not self.masks:
            raise ValueError("cut needs the masks to cut the net by, got none")
        if self.cut == "new" and self.initial:
            raise ValueError("initial must be none for a net that draws new weights (cut)")
        if self.shard and (self.masks or self.prune):
            raise ValueError("masks and prune must be none where weights are sharded (shard)")
        if self.prune and self.amp == "fp16":  # which leaves steps out
            raise ValueError("amp must be bf16 or none where the net is pruned, got fp16")
        if self.target and self.amp == "fp16":  # likewise
            raise ValueError("amp must be bf16 or none with a target, got fp16")
        if self.amp == "fp16" and self.shard:
            raise ValueError("amp must be bf16 or none where weights are sharded, got fp16")
        if self.shard and (self.ema or self.compile):
            raise ValueError("ema and compile must be off where weights are sharded (shard)")
        idle.refuse_idle(self, ("decoupled", "coupling", "fused"))  # no recipe hands these on

    @property
    def splits(self) -> bool:
        """Whether the run has a path: dessilbi, or another optimizer with ``split``."""
        return self.split or self.optimizer == "dessilbi"

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.out or f"runs/{self.recipe or self.dataset}")

    @property
    def shares(self) -> float | dict[str, float] | None:
        """``target`` as numbers: a share of all, one for each name, or None."""
        if not self.target:
            return None
        if "=" in self.target:
            return named_numbers("target", self.target, at_most=1)
        share = _number(self.target)
        if not 0 < share <= 1:
            raise ValueError(f"target must be in (0, 1] or NAME=SHARE,..., got {self.target!r}")
        return share


def named_numbers(field_name: str, text: str, at_most: float = math.inf) -> dict[str, float]:
    """``{"conv3.weight": 0.7}`` of ``"conv3.weight=0.7"``; several are separated by commas."""
    want = "NAME=POSITIVE,..." if at_most == math.inf else f"NAME=SHARE,... of at most {at_most:g}"
    numbers = {}
    for part in filter(None, text.split(",")):
        name, _, number = part.partition("=")
        numbers[name] = _number(number)
        if not (name and 0 < numbers[name] <= at_most and math.isfinite(numbers[name])):
            raise ValueError(f"{field_name} must be {want}, got {part!r}")
    return numbers


def _number(text):
    """The number that a text is; NaN, which no interval holds, if it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


# Fields that say where a run happens and what it leaves, not what it computes (a run that refused a
# damaged file may go on without that file).
PLACE = (
    *("out", "data", "device", "threads", "workers", "corrupt"),
    *("keep", "checkpoint_steps", "tensorboard"),
)


def types_of(field_name):
    """Types that a field takes, as a tuple: ``(float, NoneType)`` for ``float | None``."""
    hint = typing.get_type_hints(Config)[field_name]
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def without_path(config: Config, optimizer: str) -> Config:
    """The same training by an optimizer that does not split: what is for a path alone, or for
    dessilbi alone, is as usual."""
    plain = dict(split=False, target="", nu_schedule="constant", elements=False)
    plain |= dict(coupling="outside", decoupled=False, fused=False)
    return dataclasses.replace(config, optimizer=optimizer, **plain)


def differences(a: Config, b: Config) -> list[str]:
    """Names of the fields in which two configs would compute something else."""
    names = [f.name for f in dataclasses.fields(Config) if f.name not in PLACE]
    return [name for name in names if getattr(a, name) != getattr(b, name)]


def to_json(config: Config) -> str:
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """The config that :func:`to_json` wrote; ValueError for unknown fields, impossible values."""
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError(f"a config must be a JSON object, got {type(values).__name__}")
    unknown = sorted(set(values) - {f.name for f in dataclasses.fields(Config)})
    if unknown:
        raise ValueError(f"a config must hold fields of Config only, got {', '.join(unknown)}")
    return Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _check_types(config):
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        kinds = types_of(f.name)
        if kinds == (tuple[int, ...],):
            good = isinstance(value, tuple) and all(type(x) is int for x in value)
            expected = "a tuple of whole numbers"
        else:
            # A whole number is a fine float, but a bool is no number, nor the other way round.
            good = type(value) in kinds or (float in kinds and type(value) is int)
            expected = " or ".join(_TYPE_WORDS[kind] for kind in kinds)
        if not good:
            raise ValueError(f"{f.name} must be {expected}, got {value!r}")


_TYPE_WORDS = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    types.NoneType: "none",
}


def _require(config, name, holds, expected):
    value = getattr(config, name)
    if not holds(value):
        raise ValueError(f"{name} must be {expected}, got {value!r}")


def _words(values):
    return ", ".join("none" if v is None else v for v in values)

"""What defines a training run: one frozen dataclass. The named ones are in ``recipes.py``."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from . import config_checks as checks
from .data.datasets import DATASETS
from .nets.trained import INSTALLED
from .nets.zoo import NETS
from .run.optimizers import OPTIMIZERS

FORMAT = 2  # of ``config.json``: raised when a field gets another meaning


def option(default, about):
    """A field of a dataclass whose comment is also the help text of its flag."""
    return field(default=default, metadata={"about": about})


@dataclass(frozen=True)
class Config:
    """Everything that decides the result of a run, and where it lives.

    The defaults are those of :class:`dslbi_torch.DessiLBI` where it has the option. Impossible
    values raise ValueError on construction; ``dataclasses.replace`` makes a variant. Where a field
    takes a number for each tensor, it is a dict of names; None: there are none.
    """

    # What is learned from what
    recipe: str = option("", "name of the recipe that this config was made from")
    dataset: str = option("digits", f"data set: {', '.join(DATASETS)}")
    model: str = option("digits-net", f"net: {', '.join(NETS)}")
    normalize: bool = option(True, "subtract mean and divide by std; no: pixel values in [0, 1]")
    statistics: str = option(
        "own",
        "normalize: by mean and deviation of the data set (own), or by half of the pixel values",
    )
    shift: int = option(0, "training pictures are moved by up to this many pixels each way")
    flip: bool = option(False, "training pictures are mirrored left to right by chance")
    alternate: bool = option(False, "flip: not by chance, but each picture in every other epoch")
    image_size: int = option(0, "pixels each way, where the data set leaves it open; 0: 224")
    n_classes: int = option(0, "classes that the data must have; 0: as many as it has")
    train_size: int = option(0, "training pictures to use, equally of all classes; 0: all")
    holdout: int = option(0, "training pictures set aside and evaluated instead of the test set")
    init: str = option("torch", "initial weights: torch (the layers' defaults) or he")
    whiten: int = option(0, "training pictures from which a net's first layer is computed; 0: none")
    seed: int = option(0, "seed of the initial weights and of the order of the batches")

    # How long, and how fast
    epochs: int = option(20, "passes over the training set")
    batch_size: int = option(128, "pictures per step; the last batch of an epoch may be smaller")
    lr: float = option(0.1, "step alpha: W moves by kappa * lr, V by lr / nu")
    schedule: str = option("constant", "course of lr: constant, step, cosine or triangle")
    milestones: tuple[int, ...] = option((), "step: epochs after which lr is multiplied by factor")
    factor: float = option(0.1, "step: what lr is multiplied by at each milestone")
    lr_min: float = option(0.0, "cosine, triangle: where lr ends after the last epoch")
    warmup: float = option(0.0, "epochs in which lr grows in proportion to the steps")
    lr_biases: float = option(1.0, "what lr is multiplied by for biases and norms")
    accumulate: int = option(1, "parts that a batch is cut into, one after the other")
    label_smoothing: float = option(0.0, "share of each label that is spread over all classes")
    ema: float = option(0.0, "decay of a running average of the weights, in [0, 1); 0: none")

    # Which optimizer
    optimizer: str = option("dessilbi", f"optimizer: {', '.join(OPTIMIZERS)}")
    split: bool = option(
        False, "put Split around an optimizer that is not dessilbi, whose lr is then kappa * alpha"
    )
    l1: float = option(0.0, "not split: coefficient of the weights' l1 norm in the loss")
    l1_scales: float = option(0.0, "coefficient of the l1 norm of BatchNorm's scales in the loss")

    # From where, and how much of the net
    initial: str | None = option(
        None,
        "weights to begin with: a checkpoint of a run, a file of weights of such a net (of "
        f"torchvision, timm), or what can be installed: {', '.join(INSTALLED)}",
    )
    masks: str | None = option(None, "file of masks under which the net is trained")
    cut: str | None = option(
        None, "masks: cut the net by them, and keep its initial weights or draw new ones: keep, new"
    )
    prune: str | None = option(
        None,
        "not split: the way to a net of target: gradual or soft (by magnitude), or rigl (sparse "
        "from the start, weights are exchanged)",
    )

    # What is split, and the dynamics
    conv: str | None = option(
        "group",
        "penalty of convolutions: group (filters), channel (with all that writes it), l1, none",
    )
    linear: str | None = option(
        "l1", "penalty of linear layers: group (neurons), channel (likewise), l1, none"
    )
    lam_conv: float = option(1.0, "penalty level lambda of convolutions")
    lam_linear: float = option(1.0, "penalty level lambda of linear layers")
    lam_named: dict[str, float] | None = option(
        None, "levels of single tensors, as conv3.weight=0.7,fc1.weight=0.1"
    )
    target: float | dict[str, float] | None = option(
        None, "in place of lam: share of the split weights to select, as 0.1 or conv3.weight=0.15"
    )
    ramp: float = option(
        0.5,
        "target, cost: share of the run in which the selected share grows (gradual: falls; rigl: "
        "weights are exchanged)",
    )
    first: float = option(
        1.0, "linbreg, adabreg: part of the target at which the net begins, to grow in the ramp"
    )
    dwell: float = option(
        1.0, "target: the selected share grows as this power of the steps; above 1: slowly at first"
    )
    cost: dict[str, float] | None = option(
        None,
        "in place of lam: share of the dense net's macs or parameters that the cut net is to have, "
        "as macs=0.5",
    )
    per_layer: bool = option(False, "target: the share of every split tensor by itself")
    at_least: int = option(
        0,
        "target, cost: so many units of every split tensor stay selected, whatever is due (with a "
        "cost one at the least)",
    )
    weight: str | None = option(None, "sqrt: the level of a group is lam * sqrt(size)")
    kappa: float = option(1.0, "speed kappa of Gamma")
    nu: float = option(100.0, "coupling nu")
    release: float = option(
        0.0, "epochs of training before the path starts: until then Gamma and V are zero"
    )
    release_pull: float = option(
        0.0, "release: part of the path's pull on W until then; 1: as Split LBI starts"
    )
    release_power: float = option(
        0.0, "levels at the start in proportion to this power of the size of a tensor's weights"
    )
    dense_start: bool = option(False, "the path starts at Gamma = W, and goes from dense to sparse")
    nu_schedule: str = option("constant", "course of nu: constant, or lr: it falls as lr does")
    momentum: float = option(
        0.9, "dessilbi, sgd, linbreg, adabreg: momentum of the gradient, in [0, 1)"
    )
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
    crossings: tuple[float, ...] = option(
        (), "densities at which the sparse model is kept as it was when the path crossed them"
    )

    # How it is computed
    dtype: str = option("float32", "float32 or float64")
    amp: str | None = option(None, "bf16 or fp16: forward pass in mixed precision; none: in dtype")
    channels_last: bool = option(False, "pictures and weights with the channels innermost")
    compile: bool = option(False, "compile the net by torch.compile")
    deterministic: bool = option(False, "deterministic algorithms only, also on a GPU")
    shard: bool = option(False, "several processes: cut the weights among them (FSDP2)")

    # What is kept on disk beside the last checkpoint
    keep: int = option(2, "checkpoints of the last so many epochs are kept; 1: the last alone")
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
        checks.check_types(self)
        checks.check_words(self)
        checks.check_ranges(self)
        checks.check_shares(self)
        checks.check_schedule(self)
        checks.check_combinations(self)
        # No recipe hands these on, so they are refused wherever they would do nothing.
        checks.refuse_idle(self, ("decoupled", "coupling", "fused"))

    @property
    def splits(self) -> bool:
        """Whether the run has a path: dessilbi, or another optimizer with ``split``."""
        return self.split or OPTIMIZERS[self.optimizer].splits

    @property
    def sparse(self) -> bool:
        """Whether the optimizer keeps the weights sparse by levels: linbreg, adabreg."""
        return OPTIMIZERS[self.optimizer].sparse

    @property
    def first_share(self) -> float:
        """The share of the split weights that levels select as the run begins."""
        if self.sparse:
            return self.first * self.target
        return 1.0 if self.dense_start else 0.0

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.out or f"runs/{self.recipe or self.dataset}")


# Fields that say where a run happens and what it leaves, not what it computes (a run that refused a
# damaged file may go on without that file).
PLACE = (
    *("out", "data", "device", "threads", "workers", "corrupt"),
    *("keep", "checkpoint_steps", "tensorboard"),
)


def without_path(config: Config, optimizer: str) -> Config:
    """Return the same training by an optimizer that does not split: what is for a path alone, or
    for dessilbi alone, has its default."""
    plain = dict(split=False, target=None, cost=None, per_layer=False, at_least=0)
    plain |= dict(first=1.0, nu_schedule="constant", elements=False, crossings=())
    plain |= dict(release=0.0, release_pull=0.0, release_power=0.0, dense_start=False)
    plain |= dict(coupling="outside", decoupled=False, fused=False)
    return dataclasses.replace(config, optimizer=optimizer, **plain)


def differences(a: Config, b: Config) -> list[str]:
    """Return the names of the fields in which two configs would compute something else."""
    names = [f.name for f in dataclasses.fields(Config) if f.name not in PLACE]
    return [name for name in names if getattr(a, name) != getattr(b, name)]


class OtherFormat(ValueError):
    """A config that another version of the package wrote."""


def to_json(config: Config) -> str:
    """Return a config as JSON, with the number of the format."""
    return json.dumps({"format": FORMAT} | dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """Return the config that :func:`to_json` wrote.

    Raises
    ------
    OtherFormat
        Another version of the package wrote it.
    ValueError
        For unknown fields, and for impossible values.
    """
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError(f"a config must be a JSON object, got {type(values).__name__}")
    found = values.pop("format", None)
    if found != FORMAT:
        raise OtherFormat(f"a config must have format {FORMAT}, got {found or 'none'}")
    unknown = sorted(set(values) - {f.name for f in dataclasses.fields(Config)})
    if unknown:
        raise ValueError(f"a config must hold fields of Config only, got {', '.join(unknown)}")
    return Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

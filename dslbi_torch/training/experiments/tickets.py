"""Winning tickets: what DessiLBI selects early, trained alone, beside other ways to a net as small.

A search is a DessiLBI run. What it has selected at an epoch is the ticket, and its share of each
layer is what every other method gets too: see ``methods.py``.

The authors' example zeroes gradients where a weight happens to be zero, masks convolutions alone,
and logs the runs of all tickets of a search to one file. Here the stored masks hold, on every split
layer with all that belongs to a removed filter, and every run has a folder of its own.
"""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from ...layers import NORM
from ...masks.files import load_masks, save_masks
from ...masks.support import support_masks
from ...masks.whole_filters import whole_filters
from ...penalties import PENALTIES
from ...safe_files import with_sum, without_sum
from ...surgery.compact import compact
from ..config import Config, without_path
from ..data import datasets
from ..nets import zoo
from ..run import report, train
from ..run import run_folder as folders
from ..run.make_optimizer import groups_of, split_weights
from ..run.processes import pick_device, require_one
from ..run.sessions import environment
from ..run.set_up import open_run
from ..run.state import Run
from .methods import METHODS, MOVABLE

# What of a config the trainings after the search may have otherwise.
TRAINING = (
    *("epochs", "batch_size", "lr", "schedule", "milestones", "factor", "lr_min", "warmup"),
    *("accumulate", "label_smoothing", "optimizer", "momentum", "dampening", "nesterov"),
    *("weight_decay", "shift", "flip"),
)


class TicketPlan(NamedTuple):
    """What is compared.

    Attributes
    ----------
    at : epochs of the search whose support is a ticket
    methods : names of ``methods.METHODS``; empty: all that the net allows
    seeds : each is a search, and a run of every method
    rewind : epoch of the search from whose weights tickets are trained; 0: the initial ones
    rounds : of ``iterative``
    retrain : fields of Config (``TRAINING``) in which all trainings differ from the search
    tune : fields in which those that train on differ from ``retrain``; without lr, a tenth of its
    l1_scales : of ``slimming``
    transfer : another data set on which the tickets are trained too; None: none
    cut : whether a masked net is cut before it is trained; False: the same, up to rounding, with
        what is removed in it as zeros
    """

    at: tuple[int, ...]
    methods: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    rewind: int = 0
    rounds: int = 3
    retrain: dict = {}  # noqa: RUF012  never changed
    tune: dict = {}  # noqa: RUF012
    l1_scales: float = 1e-4
    transfer: str | None = None
    cut: bool = True


def compare(config: Config, plan: TicketPlan, *, progress: bool | None = None) -> str:
    """Search, train every method, and return the table; ``tickets.json`` and ``tickets.txt`` in the
    config's folder hold it too.

    A run that is finished is not trained again, an unfinished one goes on: the same call continues
    a comparison that was cut off, also in a folder that was moved. The search keeps a checkpoint of
    every epoch (weights, V and momentum), so that a later call may ask for tickets of other ones.

    Parameters
    ----------
    config : Config
        Of the search. When it stops is said beforehand: by ``epochs``, or by ``plan.at`` within
        them. No rule looks at the path and stops it.
    plan : TicketPlan
    progress : bool, optional
        As in :func:`dslbi_torch.training.run.train.train`.

    Raises
    ------
    ValueError
        For an impossible plan and for several processes, before anything is trained; and for a
        ticket in which a layer is empty, once it is found.
    """
    require_one("ticket")
    plan = checked(config, plan)
    rows = []
    for seed in plan.seeds:
        rows += Trial(config, plan, seed, progress).rows()
    about = environment(pick_device(config.device))
    content = {"about": about, "plan": plan._asdict(), "rows": rows}
    folders.write_text(config.folder / "tickets.json", json.dumps(content, indent=1) + "\n")
    text = report.ticket_table(rows, holdout=config.holdout)
    folders.write_text(config.folder / "tickets.txt", text + "\n")
    return text


def checked(config: Config, plan: TicketPlan) -> TicketPlan:
    """Return the plan with its methods named; ValueError for what cannot be done."""
    if not config.splits:
        raise ValueError(f"a search needs an optimizer that splits, got {config.optimizer}")
    if config.masks:
        raise ValueError(f"a search must be of the whole net, got masks {config.masks}")
    for name, low in (("at", 1), ("seeds", 0)):
        values = getattr(plan, name)
        if not values or len(set(values)) < len(values) or min(values) < low:
            raise ValueError(f"{name} must be different numbers of at least {low}, got {values}")
    for name, value in (("at", max(plan.at)), ("rewind", plan.rewind)):
        if not 0 <= value <= config.epochs:
            raise ValueError(f"{name} must be epochs of the search's {config.epochs}, got {value}")
    if plan.rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {plan.rounds}")
    if not 0 <= plan.l1_scales < float("inf"):
        raise ValueError(f"the l1 of slimming must be at least 0 and finite, got {plan.l1_scales}")
    for name in ("retrain", "tune"):
        other = sorted(set(getattr(plan, name)) - set(TRAINING))
        if other:
            raise ValueError(f"{name} may change {', '.join(TRAINING)}, got {other[0]}")
    trial = Trial(config, plan, plan.seeds[0])  # refuses impossible values
    if trial.retrain.splits or trial.tune.splits:
        raise ValueError("retrain and tune must name an optimizer that does not split")
    if plan.transfer is not None:
        _check_transfer(config, plan.transfer)
    filters = config.conv in PENALTIES and PENALTIES[config.conv].sliced
    slims = filters and _has_norms(config)
    if "slimming" in plan.methods and not slims:
        raise ValueError(
            f"slimming needs a net with BatchNorm, of which whole filters are split, "
            f"got {config.model} with conv {config.conv or 'none'}"
        )
    for method in plan.methods:
        if method not in METHODS:
            raise ValueError(f"methods must be among {', '.join(METHODS)}, got {method!r}")
    return plan._replace(
        methods=plan.methods or tuple(m for m in METHODS if m != "slimming" or slims)
    )


def _has_norms(config):
    net = zoo.build(config.model)
    return any(isinstance(module, NORM) and module.affine for module in net.modules())


def _check_transfer(config, name):
    sets = [
        datasets.load(n, config.data, image_size=config.image_size) for n in (config.dataset, name)
    ]
    shapes = [own.shape for own in sets]
    if name == config.dataset or shapes[0] != shapes[1]:
        raise ValueError(
            f"transfer must be another data set with pictures of shape {shapes[0]}, "
            f"got {name} with {shapes[1]}"
        )


class Trial:
    """The runs of one seed, each in a folder of its own below the config's, trained once."""

    def __init__(self, config: Config, plan: TicketPlan, seed: int, progress: bool | None = None):
        self.plan, self.progress, self.suffix = plan, progress, ""
        self.last = None  # the run that was trained last, which need not be read again
        self.folder = config.folder / f"seed-{seed}"
        self.search = replace(
            config, seed=seed, keep=config.epochs + 1, out=str(self.folder / "search")
        )
        base = "sgd" if config.optimizer == "dessilbi" else config.optimizer
        alone = without_path(self.search, base)
        self.retrain = replace(alone, **({"keep": 1} | plan.retrain))
        self.tune = replace(self.retrain, **({"lr": self.retrain.lr / 10} | plan.tune))

    def rows(self) -> list[dict]:
        """Return one row for each method, epoch of the search, and data set."""
        for epoch in self.plan.at:  # first: an empty layer is found out before anything else
            self.ticket(epoch)
        trials = [self]
        if self.plan.transfer:
            moved = copy.copy(self)
            moved.suffix = f"-{self.plan.transfer}"
            moved.retrain = replace(self.retrain, dataset=self.plan.transfer)
            trials.append(moved)
        return [
            trial.row(method, epoch)
            for trial in trials
            for method in self.plan.methods
            if trial is self or method in MOVABLE
            for epoch in ((None,) if method == "dense" else self.plan.at)
        ]

    def row(self, method: str, epoch: int | None) -> dict:
        """Return what a method reaches; it is written down beside its run, once."""
        config, before = METHODS[method](self, epoch)
        file = config.folder / "row.json"
        if not file.exists():
            just = self.last is not None and self.last.config == config
            run = self.last if just else opened(config)
            found = measured(run) | {"epochs": before + config.epochs}
            folders.write_text(file, json.dumps(with_sum(found)) + "\n")
        head = {"dataset": config.dataset, "method": method, "at": epoch, "seed": self.search.seed}
        try:
            return head | without_sum(json.loads(file.read_text()))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} must hold what a run has reached: {error}") from error

    def trained(self, name: str, config: Config, *, masks=None, initial=None, **changes) -> Config:
        """Train a run, unless it is finished; return its config."""
        if masks is not None:
            changes = {"masks": str(masks), "cut": "keep" if self.plan.cut else None} | changes
        if initial is not None:
            changes["initial"] = str(initial)
        return self._finished(
            replace(config, out=str(self.folder / f"{name}{self.suffix}"), **changes)
        )

    def searched(self) -> Config:
        """Run the search, unless it is finished; return its config."""
        return self._finished(self.search)

    def _finished(self, config):
        if not folders.is_finished(config):
            self.last = train.train(config, progress=self.progress)
        return config

    def weights(self, epoch: int) -> Path:
        """Return the checkpoint of an epoch of the search."""
        return folders.checkpoint_file(self.searched().folder, epoch)

    def masks(self, name: str, config: Config, choose, epoch: int | None = None) -> Path:
        """Return a file of what ``choose(run)`` keeps of a finished run as it was after an epoch,
        with all that belongs to a removed filter; chosen once."""
        file = self.folder / f"{name}.pt"
        if not file.exists():
            run = opened(config, epoch)
            save_masks(whole_filters(run.model, choose(run), run.data.example()), file)
        return file

    def ticket(self, epoch: int) -> Path:
        """Return the file of what the search has selected after an epoch."""
        return self.masks(
            f"ticket-{epoch}", self.searched(), lambda run: _selected(run, epoch), epoch
        )

    def shares(self, epoch: int) -> dict[str, float]:
        """Return, of each split layer, the share of its weights that is in the ticket."""
        masks = self.split(self.ticket(epoch))
        return {name: int(mask.sum()) / mask.numel() for name, mask in masks.items()}

    def split(self, file: Path) -> dict[str, torch.Tensor]:
        """Return the masks of a file without those of biases and norms."""
        return {name: mask for name, mask in load_masks(file).items() if mask.ndim > 1}


def opened(config: Config, epoch: int | None = None) -> Run:
    """Return the finished run of a config, as it was after an epoch; None: the last."""
    return open_run(config.folder, data=config.data, device=config.device, epoch=epoch)


def _selected(run, epoch):
    """The support of a search; a layer without any would pass nothing on."""
    masks = support_masks(run.optimizer)
    for name, mask in masks.items():
        if not mask.any():
            raise ValueError(
                f"the ticket of epoch {epoch} must keep something of every layer, but nothing of "
                f"{name} is selected yet: take a later epoch, a smaller lam or nu, or a target"
            )
    return masks


# What is measured


def measured(run: Run) -> dict:
    """Return the accuracy of the last epoch of a finished run, and what its net consists of.

    ``density``: share of the weights that a search splits; ``parameters``: of all, their number.
    Those are counted that are not zero once dead filters are cut out with what reads them.
    """
    config = run.config
    whole = zoo.build(config.model, len(run.data.classes), run.data.shape[0])
    groups = groups_of(config, whole, run.data.example())
    sizes = {name: W.numel() for name, W in split_weights(groups).items()}
    try:
        small = compact(run.model, None, run.data.example())
    except ValueError:  # a dead layer, or a net that cannot be followed
        small = run.model
    trained = {name: p for name, p in small.named_parameters() if p.requires_grad}
    nonzero = {name: int(p.count_nonzero()) for name, p in trained.items()}
    return {
        "density": sum(nonzero[name] for name in sizes) / sum(sizes.values()),
        "parameters": sum(nonzero.values()),
        "accuracy": folders.read_log(config.folder)[-1]["acc_dense"],
    }

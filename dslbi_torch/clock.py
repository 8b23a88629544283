"""What a run will reach, from its optimizer and schedule alone, and a coupling that follows lr.

A path has two times. V grows by ``alpha / nu`` of W in a step, and a unit enters once the sum is
its level. The pull takes the part ``kappa * alpha / nu`` of W outside the support, and with
``S = sum of kappa * alpha / nu`` a part of e^-S is left of what was there. Both can be read off
before the first step.

Around another optimizer (:class:`dslbi_torch.Split`) ``kappa * alpha`` is the base's lr, and both
times are the same whatever the base. What differs is what holds W up outside the support: against
a gradient g that no longer changes W settles at ``-nu * g / (1 - momentum)`` with SGD, and at
``-nu * sign(g)`` with Adam, whose step has the size of lr however small the gradient. So with Adam
nu itself must be small beside the weights that are to count, while lr is small too: a nu that is
tuned with SGD is out of range.
"""

import copy
import math
import warnings
from typing import NamedTuple

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from .arguments import check_count, check_number, check_optimizer
from .state import steps_of_rest
from .target import factors_of_density
from .units import Family, families, scores
from .wrapped import unwraps

MAX_STEPS = 10**7  # whose course is looked at step by step: more would take minutes
LEAST = 3.0  # e^-3 is 5 %: with less nothing is told apart, and nothing can be cut


class Forecast(NamedTuple):
    """What the path of one family of tensors will come to.

    Attributes
    ----------
    names : list of str
    S : float
        Sum of ``kappa * alpha / nu`` over the steps after the ramp: e^-S of what lies outside the
        support is left at the end, gradients apart. Of a ramp that lasts to the end, over all steps
        from the release.
    pull : float
        The largest part of W that the pull takes in one step: safe well below 1.
    time : float
        Path time of the whole run, the sum of alpha from the release.
    first : int or None
        The step after which the first unit enters, if its weights and its level stay as they are
        now; None: it does not.
    """

    names: list[str]
    S: float
    pull: float
    time: float
    first: int | None


class _Course(NamedTuple):
    """One family with alpha and ``alpha / nu`` of each of its steps, from the release on."""

    family: Family
    alphas: list[float]
    rates: list[float]

    def pulls(self) -> list[float]:
        """Return the part of W that the pull takes in each step."""
        return [self.family.group["kappa"] * rate for rate in self.rates]


@unwraps
def forecast(
    optimizer: Optimizer,
    steps: int,
    *,
    scheduler: LRScheduler | None = None,
    every: int = 1,
    ramp: float = 0.0,
) -> list[Forecast]:
    """Return what a run of so many steps will reach, before its first step.

    The scheduler is run on a copy; optimizer and scheduler are not touched. A
    :class:`dslbi_torch.Release` and a :class:`FallingNu` are seen if they are attached.

    Parameters
    ----------
    optimizer : DessiLBI or Split
    steps : int in [1, 1e7]
        Steps of the run, from now on.
    scheduler : LRScheduler, optional
        Of this optimizer, or of the base of a Split. None: lr stays.
    every : int >= 1
        Steps between two steps of the scheduler: those of an epoch, if it is stepped by epochs.
    ramp : float in [0, 1]
        Share of the path in which its density grows, as :class:`dslbi_torch.TargetDensity` has it.

    Returns
    -------
    list of Forecast
        One for each family of tensors. Where an S is below 3 the smallest is warned of in one line.
    """
    found, worst = [], None
    for course in _courses(optimizer, steps, scheduler, every):
        first, pulls = _after_ramp(course, ramp), course.pulls()
        S, time = sum(pulls[first:]), sum(course.alphas)
        row = Forecast(course.family.names, S, max(pulls), time, _first_entry(course, steps))
        found.append(row)
        if S < LEAST and (worst is None or S < worst[0].S):
            worst = row, len(pulls) - first, course.family.group["nu"]
    if worst is not None:
        row, count, nu = worst
        warnings.warn(
            f"S must be at least {LEAST:g} to select or cut anything, got {row.S:.3g} for "
            f"{row.names[0]} with nu {nu:.4g} in {count} steps after the ramp, which leaves "
            f"{math.exp(-row.S):.0%} of what is outside the support: a nu of "
            f"{nu * row.S / 10:.3g} makes it 10",
            stacklevel=3,
        )
    return found


@unwraps
def suggest(
    optimizer: Optimizer,
    steps: int,
    *,
    S: float = 10.0,
    density: float | None = None,
    scheduler: LRScheduler | None = None,
    every: int = 1,
    ramp: float = 0.0,
) -> list[dict]:
    """Return a nu, and levels, for a run that is to reach S and a density.

    Parameters
    ----------
    optimizer, steps, scheduler, every, ramp
        As in :func:`forecast`.
    S : float > 0
        What is to be left outside the support is e^-S. The recipes that were tuned on held-out
        pictures have S from 10 to 30.
    density : float in (0, 1), optional
        Share of the split weights that is to have entered when the ramp ends (the run, for a ramp
        of 0 or 1): with the weights as they are now, so of a net that is trained already. None:
        levels stay as they are.

    Returns
    -------
    list of dict
        For each parameter group what to set, with ``group.update``: nothing where it is not split.
        What a :class:`FallingNu` needs is among it, if one is attached before.

    Raises
    ------
    ValueError
        For values outside these intervals, and for an S that so few steps cannot reach: the pull of
        a step would take more than all of W.
    """
    S = check_number("S", S, 0, open_at="low")
    if density is not None:
        check_number("density", density, 0, 1, open_at="low high")
    courses = _courses(optimizer, steps, scheduler, every)
    found = {id(group): {} for group in optimizer.param_groups}
    grown = []
    for course in courses:
        group, first, pulls = course.family.group, _after_ramp(course, ramp), course.pulls()
        scale = sum(pulls[first:]) / S
        nu, largest = group["nu"] * scale, max(pulls) / scale
        if not 0 < nu < math.inf:
            raise ValueError(
                f"S must give a nu that is positive and finite, got {nu:g} for S {S:g}"
            )
        if not largest < 1:
            raise ValueError(
                f"S must leave the pull of a step below 1, got {largest:.3g} of W for S {S:g} in "
                f"{len(course.alphas)} steps"
            )
        found[id(group)] = {"nu": nu} | ({"nu_top": nu} if "nu_top" in group else {})
        last = first if 0 < ramp < 1 else len(pulls)
        clock = sum(course.rates[:last]) / scale
        grown.append(course.family._replace(Vs=[clock * W.detach() for W in course.family.Ws]))
    if density is not None:
        factors = factors_of_density([(f, f.group["lam"]) for f in grown], density)
        if factors is None:
            raise ValueError("levels need weights that are not all zero")
        for family, factor in zip(grown, factors, strict=True):
            found[id(family.group)]["lam"] = family.group["lam"] * factor
    return [found[id(group)] for group in optimizer.param_groups]


class FallingNu:
    """Let nu fall as lr does, so that the pull of a step stays what it was when lr was largest.

    With a constant nu the pull of a step, ``kappa * alpha * (W - Gamma) / nu``, fades as lr falls,
    and the gradient holds weights up outside the support. With nu in proportion to lr the limit
    goes to zero with lr: the run ends with W on the support of Gamma. While lr grows to a new
    largest value (a warm-up), nu keeps its own; where lr is 0 it stays what it was.

    It is attached as a pre-step hook: no line of the loop changes. The largest lr so far, and nu
    there, are in the parameter groups (``lr_top, nu_top``), so that the optimizer's checkpoint goes
    on with the same bits.

    Parameters
    ----------
    optimizer : DessiLBI or Split
        Groups that are not split are left alone.
    """

    @unwraps
    def __init__(self, optimizer: Optimizer):
        families(optimizer)  # refuses one that splits nothing
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            if group.get("penalty") is not None:
                group.setdefault("nu_top", group["nu"])
                group.setdefault("lr_top", 0.0)
        self._hook = optimizer.register_step_pre_hook(self._before_step)

    def detach(self) -> None:
        """Let nu stay as it is now."""
        self._hook.remove()
        for group in self.optimizer.param_groups:
            for key in ("nu_top", "lr_top"):
                group.pop(key, None)

    def _before_step(self, *_):
        for group in self.optimizer.param_groups:
            lr = float(group["lr"])
            if "nu_top" in group and lr > 0:  # a step of lr 0 moves nothing, and nu stays positive
                group["lr_top"] = max(lr, group["lr_top"])
                group["nu"] = _falling(group["nu_top"], lr, group["lr_top"])


def _falling(nu_top, lr, lr_top):
    return nu_top * (lr / lr_top)


# How alpha and nu go on


class _Stub:
    """What a scheduler's copy takes for its optimizer: the groups without their tensors."""

    _opt_called = True  # a step was taken before the scheduler's

    def __init__(self, optimizer):
        self.param_groups = [
            {k: float(x) if k == "lr" else copy.copy(x) for k, x in group.items() if k != "params"}
            for group in optimizer.param_groups
        ]
        self.defaults = optimizer.defaults
        self.state = {}

    def step(self):
        """Do nothing."""


@unwraps
def lr_course(
    optimizer: Optimizer, steps: int, scheduler: LRScheduler | None = None, every: int = 1
) -> list[list[float]]:
    """Return the lr of each parameter group in each of the coming steps; nothing is touched."""
    steps, every = check_count("steps", steps, 1, MAX_STEPS), check_count("every", every)
    stub = _Stub(check_optimizer(optimizer))
    own = {id(x): stub for x in (optimizer, getattr(optimizer, "base", optimizer))}
    scheduler = getattr(scheduler, "scheduler", scheduler)  # of Accelerate, within its own
    if scheduler is not None:
        known = isinstance(scheduler, LRScheduler) and not isinstance(scheduler, ReduceLROnPlateau)
        if not known or id(scheduler.optimizer) not in own:
            raise ValueError(
                "scheduler must be an LRScheduler of this optimizer that needs no metrics, got a "
                f"{type(scheduler).__name__}"
            )
        scheduler = copy.deepcopy(scheduler, dict(own))
    courses = [[] for _ in stub.param_groups]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a scheduler whose steps are counted by another
        for k in range(1, steps + 1):
            for course, group in zip(courses, stub.param_groups, strict=True):
                course.append(float(group["lr"]))
            if scheduler is not None and k % every == 0:
                scheduler.step()
    return courses


def _courses(optimizer, steps, scheduler, every):
    """The course of every family from the release on."""
    rows = lr_course(optimizer, steps, scheduler, every)
    by_group = {id(g): row for g, row in zip(optimizer.param_groups, rows, strict=True)}
    found = []
    for family in families(optimizer):
        group, rest = family.group, steps_of_rest(family.group, steps)
        unit, top = optimizer.alpha({**group, "lr": 1.0}), group.get("lr_top", 0.0)
        alphas, rates = [], []
        for lr in by_group[id(group)]:
            top = max(lr, top)
            falls = "nu_top" in group and lr > 0
            alphas.append(lr * unit)
            rates.append(
                alphas[-1] / (_falling(group["nu_top"], lr, top) if falls else group["nu"])
            )
        found.append(_Course(family, alphas[rest:], rates[rest:]))
    return found


def _after_ramp(course, ramp):
    """The first step of the path after the ramp; the very first of one that has nothing else."""
    check_number("ramp", ramp, 0, 1)
    return 0 if ramp == 1 else math.ceil(ramp * len(course.alphas))


def _first_entry(course, steps):
    """The step, counted from now, after which the family's largest unit has passed its level."""
    family = course.family
    with torch.no_grad():
        found = scores(family._replace(Vs=[W.detach().double() for W in family.Ws]))
    largest = max(float(score.max()) for score in found if score.numel())
    clock, level = 0.0, family.group["lam"]
    for k, rate in enumerate(course.rates, start=1):
        clock += rate
        if clock * largest > level:
            return steps - len(course.alphas) + k
    return None

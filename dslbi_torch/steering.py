"""What steers penalty levels while a path runs: when it looks, what is due, and its floors."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from .arguments import check_count, check_number
from .sharding import whole
from .state import rests, steps_of_rest
from .torch_private import before_other_hooks
from .units import Family, scores, unit_sizes


class Controller:
    """Set the penalty levels of parameter groups again and again, towards a share that is due.

    How they are set is the method ``control`` of what is derived from it. It is attached as a
    post-step hook: no line of the loop changes. What it has come to is in the steered parameter
    groups, as plain numbers: the levels as they were (``level``), and the steps seen (``steered``),
    of which the path has rested some (``rested``). So the optimizer's checkpoint is enough to go on
    with the same bits.

    Parameters
    ----------
    optimizer : DessiLBI or Split
    steered : list of int
        Which of its parameter groups.
    steps, ramp, first, dwell, every
        As in :class:`dslbi_torch.TargetDensity`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        steered: list[int],
        *,
        steps: int,
        ramp: float,
        first: float,
        every: int,
        dwell: float = 1.0,
    ):
        for name, value in (("ramp", ramp), ("first", first)):
            check_number(name, value, 0, 1)
        if not 0 < dwell < math.inf:
            raise ValueError(f"dwell must be positive and finite, got {dwell}")
        others = getattr(optimizer, "path_controllers", [])
        if any(set(other.steered) & set(steered) for other in others):
            raise ValueError(
                "a level must be steered by one controller, got a second one: detach the first"
            )
        self.optimizer, self.steered = optimizer, steered
        self.steps, self.every = check_count("steps", steps), check_count("every", every)
        self.ramp, self.first, self.dwell = ramp, first, dwell
        for group in self._groups():
            steps_of_rest(group, self.steps)
            for key in ("steered", "rested"):
                group.setdefault(key, 0)
        self._hook = optimizer.register_step_post_hook(self._after_step)
        optimizer.path_controllers = [*others, self]
        # A recorder that is attached already sees each step with the levels that are set for it.
        before_other_hooks(optimizer, self._hook)

    def _groups(self):
        return [self.optimizer.param_groups[i] for i in self.steered]

    @property
    def step(self) -> int:
        """Return the number of steps seen so far."""
        return self._groups()[0]["steered"]

    def detach(self) -> None:
        """Stop steering; the levels stay as they are."""
        self._hook.remove()
        others = self.optimizer.path_controllers
        self.optimizer.path_controllers = [other for other in others if other is not self]
        for group in self._groups():
            for key in ("level", "steered", "rested", "times"):
                group.pop(key, None)

    def _after_step(self, *_):
        for group in self._groups():
            group["steered"] += 1
            group["rested"] += rests(group)
        if rests(self._groups()[0]):
            return
        # V grows by about one part in a step: between two controls by a twentieth at most.
        step = self._path_steps()
        gaps = (self.every, min(self.every, 1 + step // 20))
        if any(step % gap == 0 for gap in gaps) or self.step == self.steps:
            self.control()

    def _path_steps(self):
        return self.step - self._groups()[0]["rested"]

    def _ramped(self):
        """The part of the way from ``first`` to the target that is due."""
        step = self._path_steps()
        ramp = self.ramp * (self.steps - self.step + step)
        return 1.0 if step >= ramp else (step / ramp) ** self.dwell

    def _floor_due(self, at_least, target):
        """The floor that is due: it grows as the share does, and holds at once for one that
        falls."""
        return at_least if self.first > target else int(at_least * self._ramped())


def level_of(group: dict) -> float:
    """Return the level that a parameter group had when it was steered first."""
    return group.setdefault("level", group["lam"])


class Evidence(NamedTuple):
    """What the units of a family say: the factor of its level below which each is selected, their
    sizes, the factor that keeps as many selected as the floor asks, and how its scores lie."""

    factors: Tensor
    sizes: Tensor
    floor: float
    shapes: list[torch.Size]

    def held(self) -> Tensor:
        """Return which units the floor keeps selected."""
        return self.factors > self.floor


def evidence(rows: list[tuple[Family, float]], at_least: int = 0) -> list[Evidence]:
    """Return what the scores of families say at their levels, in float64, on one device."""
    found = []
    for family, level in rows:
        family = family._replace(Vs=[whole(V) for V in family.Vs])  # every process finds one level
        lists = [score / level for score in scores(family)]
        sizes = [torch.full_like(x, n) for x, n in zip(lists, unit_sizes(family), strict=True)]
        device = found[0].factors.device if found else lists[0].device
        factors, sizes = (
            torch.cat([x.flatten().to(device, torch.float64) for x in xs]) for xs in (lists, sizes)
        )
        shapes = [x.shape for x in lists]
        found.append(Evidence(factors, sizes, _floor(factors, at_least), shapes))
    return found


def _floor(factors, at_least):
    """The factor that leaves the largest so many selected, with what is as large; infinite where
    none is to be, or nothing has a score."""
    factors = factors[factors > 0] if at_least else factors[:0]
    if not len(factors):
        return math.inf
    above = factors.topk(min(at_least, len(factors))).values[-1].item()
    below = torch.where(factors < above, factors, 0).max().item()
    return min((above + below) / 2, (1 - 1e-5) * above)  # less than their rounding below it


def check_apart(found: list[Family], what: str) -> None:
    """Refuse families that share a parameter group, and so a level, where ``what`` asks for one
    each."""
    for a, b in zip(found, found[1:], strict=False):
        if a.group is b.group:
            raise ValueError(
                f"{what} needs a level of each layer, but {a.names[0]} and {b.names[0]} share one: "
                "make groups with split_groups(..., apart=True)"
            )


def check_floor(found: list[Family], at_least: int) -> None:
    """Refuse a floor that is no number of units, or of more than a family has."""
    if isinstance(at_least, bool) or not isinstance(at_least, int) or at_least < 0:
        raise ValueError(f"at_least must be an integer of at least 0, got {at_least!r}")
    if not at_least:
        return
    check_apart(found, "at_least")
    for family in found:
        count = sum(score.numel() for score in scores(family))
        if at_least > count:
            raise ValueError(
                f"at_least must be at most the {count} units of {family.names[0]}, got {at_least}"
            )

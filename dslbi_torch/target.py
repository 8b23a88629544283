"""Ask for a density instead of a penalty level."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from .options import check_count
from .sharding import whole
from .state import rests, steps_of_rest
from .units import Family, families, scores, unit_sizes


class TargetDensity:
    """Steer the penalty levels of an optimizer so that a given share of its weights is selected.

    Gamma is a function of V, so at any moment there is a level at which Gamma has a given number of
    non-zeros: a quantile of ``|V|`` (of the groups' norms). The controller multiplies the levels of
    all split tensors by one common factor, so that their ratios stay as set. It chooses the factor
    after every ``every`` steps, as the quantile for the density that is due. This density grows in
    proportion to the steps, from ``first`` to ``target`` in the first ``ramp`` of the run, and is
    ``target`` from then on. Which weights make up the share, and in which order they enter, is left
    to the path.

    It is attached as a post-step hook: no line of the loop changes. What it has come to is in the
    steered parameter groups, as plain numbers: the levels as they were (``level``), and the steps
    seen (``steered``), of which the path has rested some (``rested``). So the optimizer's
    checkpoint is enough to go on with the same bits.

    Parameters
    ----------
    optimizer : DessiLBI or Split
    target : float in (0, 1], or dict of such
        Share of the split tensors' entries, as ``nonzero_split`` of :func:`dslbi_torch.density`.
        It is met to within one group (one entry, without groups) after every control. A dict gives
        names of split tensors their own share: only they are steered, each on its own, with the
        other tensors of its parameter group.
    steps : int >= 1
        Steps of the whole run. The first ones may be without control, while the path rests until a
        :class:`dslbi_torch.Release`.
    ramp : float in [0, 1]
        Share of the run from the release on in which the density grows. 0: at target from the first
        control on.
    first : float in [0, 1]
        The density from which the ramp goes to the target: 0 for a path that begins at zero, 1 for
        one that begins at Gamma = W.
    every : int >= 1
        Steps between two controls, later on; in the beginning, when V grows by large parts of
        itself, there are more. A control sorts the scores of all split tensors.

    Raises
    ------
    ValueError
        For a value outside these intervals, or an optimizer that splits nothing.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        target: float | dict[str, float],
        *,
        steps: int,
        ramp: float = 0.5,
        first: float = 0.0,
        every: int = 10,
    ):
        self.parts = _parts(optimizer, target)
        for name, value in (("ramp", ramp), ("first", first)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {value}")
        steps, every = check_count("steps", steps), check_count("every", every)
        self.optimizer, self.steps = optimizer, steps
        self.ramp, self.first, self.every = ramp, first, every
        for group in self._steered():
            steps_of_rest(group, steps)
            for key in ("steered", "rested"):
                group.setdefault(key, 0)
        self._hook = optimizer.register_step_post_hook(self._after_step)

    def _steered(self):
        groups = self.optimizer.param_groups
        return [groups[i] for _, indices in self.parts for i in indices]

    @property
    def step(self) -> int:
        """Return the number of steps seen so far."""
        return self._steered()[0]["steered"]

    def detach(self) -> None:
        """Stop steering; the levels stay as they are."""
        self._hook.remove()
        for group in self._steered():
            for key in ("level", "steered", "rested"):
                group.pop(key, None)

    def _after_step(self, *_):
        for group in self._steered():
            group["steered"] += 1
            group["rested"] += rests(group)
        if rests(self._steered()[0]):
            return
        # V grows by about one part in a step: between two controls by a twentieth at most.
        step = self._path_steps()
        gaps = (self.every, min(self.every, 1 + step // 20))
        if any(step % gap == 0 for gap in gaps) or self.step == self.steps:
            self.control()

    def _path_steps(self):
        return self.step - self._steered()[0]["rested"]

    @torch.no_grad()
    def control(self) -> None:
        """Set the levels now, for the density that is due."""
        step = self._path_steps()
        ramp = self.ramp * (self.steps - self.step + step)
        due = 1.0 if step >= ramp else step / ramp
        groups, found = self.optimizer.param_groups, families(self.optimizer)
        for target, indices in self.parts:
            levels = {
                id(groups[i]): groups[i].setdefault("level", groups[i]["lam"]) for i in indices
            }
            own = [(f, levels[id(f.group)]) for f in found if id(f.group) in levels]
            factor = factor_of_density(own, self.first + (target - self.first) * due)
            if factor is not None:
                for i in indices:
                    groups[i]["lam"] = groups[i]["level"] * factor


def _parts(optimizer, target):
    """Return the shares, each with the indices of the parameter groups that it is a share of."""
    where = {}
    for family in families(optimizer):
        index = next(i for i, own in enumerate(optimizer.param_groups) if own is family.group)
        where |= dict.fromkeys(family.names, index)
    if isinstance(target, dict):
        for name in target:
            if name not in where:
                raise ValueError(
                    f"target must name split tensors among {sorted(where)}, got {name!r}"
                )
        parts = [(share, [where[name]]) for name, share in target.items()]
    else:
        parts = [(target, sorted(set(where.values())))]
    steered = [i for _, indices in parts for i in indices]
    if len(set(steered)) < len(steered):
        raise ValueError("target must give a parameter group one share, got several tensors of one")
    for share, _ in parts:
        if not 0 < share <= 1:
            raise ValueError(f"target must be in (0, 1], got {share}")
    return parts


def factor_of_density(rows: list[tuple[Family, float]], density: float) -> float | None:
    """Return the factor of the levels of families at which a share of their entries is selected.

    None where every score is zero.
    """
    rows = [row for family, level in rows for row in _scores(family, level)]
    device = rows[0][0].device
    reached = torch.cat([score.to(device, torch.float64) for score, _ in rows])
    sizes = torch.cat([size.to(device, torch.float64) for _, size in rows])
    return _quantile(reached, sizes, density)


def _scores(family: Family, level: float):
    """Yield, for each list of units, the factors of the level below which each is selected, and
    the sizes of the units."""
    family = family._replace(Vs=[whole(V) for V in family.Vs])  # every process finds one level
    for score, size in zip(scores(family), unit_sizes(family), strict=True):
        factor = score.flatten() / level
        yield factor, torch.full_like(factor, size)


def _quantile(scores: Tensor, sizes: Tensor, density: float) -> float | None:
    """Return the factor of the levels at which the selected units make up ``density``.

    The nearer of the two possible shares is taken; None where not even one score is positive.
    """
    largest, total = scores.max().item(), sizes.sum()
    if not largest > 0:
        return None
    parts = [(scores, sizes, 0.0)]
    if len(scores) > _MANY:
        parts.insert(0, _window(scores, sizes, density))
    for scores, sizes, before in parts:
        scores, order = scores.sort(descending=True)
        share = (before + sizes[order].cumsum(0)) / total
        k = int((share - density).abs().argmin())  # the last group to select
        if (k or not before) and k + 1 < len(scores):
            break  # not at the border of the window
    if not before and density < share[0].item() / 2:
        return 1.05 * largest  # nothing is due, nor shall it be before the next control
    above = scores[k].item()
    below = scores[k + 1].item() if k + 1 < len(scores) else 0.0
    if not above > 0:
        return None
    # Of equal scores, all are left out: by a little more than their rounding.
    return (above + below) / 2 if above > below else (1 + 1e-5) * below


_MANY = 40_000  # scores from which on a sort of all takes longer than to look where they matter


def _window(scores, sizes, density):
    """Return the scores about the one that is looked for, their sizes, and the size of all larger
    ones.

    A sample says which they are, so that few have to be sorted.
    """
    step = 4 * len(scores) // _MANY
    sample, order = scores[::step].sort(descending=True)
    share = sizes[::step][order].cumsum(0)
    k = int(torch.searchsorted(share, density * share[-1]))
    margin = int(4 * len(sample) ** 0.5)
    high = sample[k - margin].item() if k >= margin else torch.inf
    low = sample[k + margin].item() if k + margin < len(sample) else -torch.inf
    inside = (scores <= high) & (scores >= low)
    return scores[inside], sizes[inside], sizes[scores > high].sum()

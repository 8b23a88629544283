"""Ask for a density instead of a penalty level."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from .arguments import check_number
from .steering import Controller, check_apart, check_floor, evidence, level_of
from .units import Family, families, unit_sizes
from .wrapped import unwraps


class TargetDensity(Controller):
    """Steer the penalty levels of an optimizer so that a given share of its weights is selected.

    Gamma is a function of V, so at any moment there is a level at which Gamma has a given number of
    non-zeros: a quantile of ``|V|`` (of the groups' norms). The controller multiplies the levels of
    all split tensors by one common factor, so that their ratios stay as set. It chooses the factor
    after every ``every`` steps, as the quantile for the density that is due. This density grows
    from ``first`` to ``target`` in the first ``ramp`` of the run, in proportion to the steps or to
    their power ``dwell``, and is ``target`` from then on. Which weights make up the share, and in
    which order they enter, is left to the path.

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
    dwell : float > 0
        The density that is due lies the part ``(step / steps of the ramp) ** dwell`` of the way
        from ``first`` to ``target``: above 1 the path is longer at few weights.
    every : int >= 1
        Steps between two controls, later on; in the beginning, when V grows by large parts of
        itself, there are more. A control sorts the scores of all split tensors.
    per_layer : bool
        The target is the share of each split tensor (of each joint family), not of all together.
    at_least : int >= 0
        So many units of each split tensor (of each joint family) stay selected, those with the
        largest scores, whatever is due: with 1 no layer is emptied. They count in the share. On a
        ramp that grows the floor grows as the share does. What has no score yet cannot be held.

    Raises
    ------
    ValueError
        For a value outside these intervals, an optimizer that splits nothing, a floor that is more
        than a layer or the target has, and for ``per_layer`` or a floor where tensors share a
        level: ``split_groups(..., apart=True)`` gives each its own.
    """

    @unwraps
    def __init__(
        self,
        optimizer: Optimizer,
        target: float | dict[str, float],
        *,
        steps: int,
        ramp: float = 0.5,
        first: float = 0.0,
        dwell: float = 1.0,
        every: int = 10,
        per_layer: bool = False,
        at_least: int = 0,
    ):
        self.parts, self.at_least = _parts(optimizer, target, per_layer), at_least
        steered = [i for _, indices in self.parts for i in indices]
        options = dict(steps=steps, ramp=ramp, first=first, dwell=dwell, every=every)
        _check_floors(optimizer, self.parts, at_least)
        super().__init__(optimizer, steered, **options)

    @torch.no_grad()
    def control(self) -> None:
        """Set the levels now, for the density that is due."""
        groups, found = self.optimizer.param_groups, families(self.optimizer)
        for target, indices in self.parts:
            due = self.first + (target - self.first) * self._ramped()
            levels = {id(groups[i]): level_of(groups[i]) for i in indices}
            own = [(f, levels[id(f.group)]) for f in found if id(f.group) in levels]
            factors = factors_of_density(own, due, self._floor_due(self.at_least, target))
            for (family, level), factor in zip(own, factors or (), strict=False):
                family.group["lam"] = level * factor


def _parts(optimizer, target, per_layer):
    """Return the shares, each with the indices of the parameter groups that it is a share of."""
    where, found = {}, families(optimizer)
    for family in found:
        index = next(i for i, own in enumerate(optimizer.param_groups) if own is family.group)
        where |= dict.fromkeys(family.names, index)
    if isinstance(target, dict):
        for name in target:
            if name not in where:
                raise ValueError(
                    f"target must name split tensors among {sorted(where)}, got {name!r}"
                )
        if per_layer:
            raise ValueError("per_layer must be left out where target gives layers their shares")
        parts = [(share, [where[name]]) for name, share in target.items()]
    elif per_layer:
        check_apart(found, "per_layer")
        parts = [(target, [i]) for i in sorted(set(where.values()))]
    else:
        parts = [(target, sorted(set(where.values())))]
    steered = [i for _, indices in parts for i in indices]
    if len(set(steered)) < len(steered):
        raise ValueError("target must give a parameter group one share, got several tensors of one")
    for share, _ in parts:
        check_number("target", share, 0, 1, open_at="low")
    return parts


def _check_floors(optimizer, parts, at_least):
    """Refuse a floor that layers cannot have, or that takes more than a target."""
    found = families(optimizer)
    for target, indices in parts:
        groups = [id(optimizer.param_groups[i]) for i in indices]
        own = [family for family in found if id(family.group) in groups]
        check_floor(own, at_least)
        total = sum(W.numel() for family in own for W in family.Ws)
        least = sum(at_least * max(unit_sizes(family)) for family in own) / total
        if least > target:
            raise ValueError(
                f"target must be at least {least:.3g}, the share of at_least = {at_least} units of "
                f"{len(own)} layers, got {target}"
            )


def factors_of_density(
    rows: list[tuple[Family, float]], density: float, at_least: int = 0
) -> list[float] | None:
    """Return the factors of the levels of families at which a share of their entries is selected:
    the same for all but where a floor asks for a smaller one.

    None where every score is zero.
    """
    found = evidence(rows, at_least)
    factors, sizes = (torch.cat(xs) for xs in list(zip(*found, strict=True))[:2])
    floors = [row.floor for row in found]
    if at_least:
        held = torch.cat([row.held() for row in found])
        due = density * sizes.sum() - sizes[held].sum()
        factors, sizes = factors[~held], sizes[~held]
        density = (due / sizes.sum()).clamp(min=0).item() if len(sizes) else 0.0
    factor = _quantile(factors, sizes, density) if len(factors) else None
    if factor is None:  # beside what the floors hold, if anything, all is zero
        held = [floor if floor < torch.inf else 1.0 for floor in floors]
        return held if min(floors) < torch.inf else None
    return [min(factor, floor) for floor in floors]


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

"""Ask for a cost of the cut net instead of a penalty level."""

import math

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .arguments import check_model, check_number, shown
from .sharding import whole
from .steering import Controller, Evidence, check_floor, evidence, level_of
from .surgery.channel_factors import channel_factors
from .surgery.costs import count_macs
from .surgery.cut_costs import mac_costs, parameter_costs, widths_of
from .surgery.layer_times import times_of
from .surgery.live_axes import live_axes
from .surgery.measure import machine_of
from .surgery.time_costs import LayerTimes, plain_times, read_times, time_costs
from .units import families, spread
from .wrapped import unwraps


class TargetCost(Controller):
    """Steer the penalty levels of an optimizer so that the net, once cut, costs a given share.

    Twin of :class:`dslbi_torch.TargetDensity` for what a cut is made for. A layer costs the product
    of its living inputs and outputs, so half of the weights is not half of the multiplications, and
    a channel of a residual stream lives while any of its writers does. One forward pass shows which
    channels there are and what hangs on each; from then on the cost at a level is a sum of products
    of counts. The levels are multiplied by one factor, at which the cost is the nearest to what is
    due: to within one unit after every control, if units are filters or neurons, by themselves or
    joint.

    The hook, the ramp and the state in the parameter groups are those of TargetDensity.

    Parameters
    ----------
    optimizer : DessiLBI or Split
    model : Module
        Whose weights the optimizer splits.
    example_input : Tensor
        What the model takes.
    macs, parameters, ms : float in (0, 1]
        One of them: the share of the dense net's multiply-accumulates (of one example), of its
        parameters, or of the milliseconds of a pass of ``example_input``, that
        :func:`dslbi_torch.compact` is to leave, with the masks of
        :func:`dslbi_torch.whole_filters`.
    times : LayerTimes, optional
        For ``ms``: what :func:`dslbi_torch.layer_times` has measured on this machine, or what JSON
        made of it. None: those that a loaded checkpoint holds, or they are measured now.
    steps, ramp, first, every
        As in TargetDensity; the cost grows from ``first`` to the target.
    at_least : int >= 0
        So many units of each split tensor (of each joint family) stay selected.

    Raises
    ------
    ValueError
        For a value outside these intervals, a cost below what the floor leaves, a floor of more
        units than a layer has, split tensors that share a level (where there is a floor), a model
        that does not take the example, one that cannot be followed, and for times of another
        machine (processor, threads, version of torch) or of another net.

    Notes
    -----
    A unit that is smaller than a filter (a single weight, a kernel) costs nothing by itself: its
    filter is cut when all of them are gone. Where a filter and the depthwise convolution behind it
    are units by themselves, a channel may go or stay with the sign of a shift: it is counted as
    alive, so that the cut net costs what was asked at most. As joint units they are counted
    exactly.

    Milliseconds are met as well as measured layers tell those of the net: within a few percent.
    The times are in the first steered group (``times``), so that a run goes on by those that it
    began with.
    """

    @unwraps
    def __init__(
        self,
        optimizer: Optimizer,
        model: nn.Module,
        example_input: Tensor,
        *,
        steps: int,
        macs: float | None = None,
        parameters: float | None = None,
        ms: float | None = None,
        times: LayerTimes | None = None,
        ramp: float = 0.5,
        first: float = 0.0,
        every: int = 10,
        at_least: int = 1,
    ):
        found = families(optimizer)
        check_model(model)
        self.kind, self.share = _only(macs=macs, parameters=parameters, ms=ms)
        if ms is None and times is not None:
            raise ValueError(f"times must be left out without ms, got {shown(times)}")
        check_floor(found, at_least)
        self.at_least, self.names = at_least, _names(model, found)
        self.axes = live_axes(model, example_input)
        self.widths = widths_of(self.axes)
        groups = optimizer.param_groups
        steered = [i for i, g in enumerate(groups) if any(g is f.group for f in found)]
        if self.kind == "macs":
            self.costs = mac_costs(self.axes, self.widths)
            self.dense = count_macs(model, example_input)[""]
        elif self.kind == "parameters":
            self.costs = parameter_costs(self.axes, self.widths)
            self.dense = sum(p.numel() for p in model.parameters())
        else:
            self.model, self.dense, group = model, 1.0, groups[steered[0]]
            if times is None and "times" not in group:
                times = times_of(model, self.axes, self.widths, example_input)
            self._take(group["times"] if times is None else plain_times(times))
            group["times"] = self.times
        self._check_least(found)
        super().__init__(optimizer, steered, steps=steps, ramp=ramp, first=first, every=every)

    @torch.no_grad()
    def control(self) -> None:
        """Set the levels now, for the cost that is due."""
        if self.kind == "ms" and (loaded := self._groups()[0]["times"]) != self.times:
            self._take(loaded)
        found = families(self.optimizer)
        levels = [level_of(family.group) for family in found]
        rows = list(zip(found, levels, strict=True))
        due = self.first + (self.share - self.first) * self._ramped()
        known = evidence(rows, self._floor_due(self.at_least, self.share))
        factor = factor_of_cost(self._alive_below(found, known), self._cost, due * self.dense)
        for (family, level), row in zip(rows, known, strict=True):
            chosen = min(factor, row.floor)
            if chosen < math.inf:
                family.group["lam"] = level * chosen

    @torch.no_grad()
    def expected(self) -> float:
        """Return the share of the dense net's cost that a cut would leave now."""
        found = families(self.optimizer)
        known = evidence([(family, family.group["lam"]) for family in found])
        return self._cost(self._alive_below(found, known) > 1) / self.dense

    def _take(self, times):
        """Cost by these times, if they are of this machine."""
        known, here = read_times(times), machine_of(self.model)
        if known.machine != here:
            raise ValueError(
                f"ms must be asked for where its times were measured, on {known.machine}, got "
                f"{here}: measure here, and give them as times=layer_times(model, example_input)"
            )
        self.times, self.costs = times, time_costs(self.axes, self.widths, known)

    def _cost(self, alive):
        return self.costs.total(self.widths.counts(alive))

    def _alive_below(self, found, known):
        """The factor of the levels below which each channel is alive."""
        factors = {}
        for family, row in zip(found, known, strict=True):
            flat = torch.where(row.held(), math.inf, row.factors)
            parts = flat.split([shape.numel() for shape in row.shapes])
            laid = [part.view(shape) for part, shape in zip(parts, row.shapes, strict=True)]
            for W, values in zip(family.Ws, spread(laid, family), strict=True):
                factors[self.names[id(W)]] = whole(values).cpu()
        return channel_factors(self.axes, factors)

    def _check_least(self, found):
        """Refuse a share that is less than what the floor leaves at the least."""
        known = []
        for row in evidence([(family, 1.0) for family in found]):
            kept = torch.zeros_like(row.factors)
            kept[: self.at_least] = math.inf
            known.append(Evidence(kept, row.sizes, math.inf, row.shapes))
        least = self._cost(self._alive_below(found, known) > 1) / self.dense
        if least > self.share:
            raise ValueError(
                f"{self.kind} must be at least {least:.3g} of the dense net, which at_least = "
                f"{self.at_least} units of {len(found)} layers leave, got {self.share}"
            )


def _only(**shares):
    """The one share that is asked, with its name."""
    given = {name: share for name, share in shares.items() if share is not None}
    if len(given) != 1:
        asked = " and ".join(given) or "none"
        raise ValueError(f"one of {', '.join(shares)} must be given, got {asked}")
    ((name, share),) = given.items()
    return name, check_number(name, share, 0, 1, open_at="low")


def _names(model, found):
    """The names that the model has for the tensors of families, by their identity."""
    names = {id(p): name for name, p in model.named_parameters()}
    for family in found:
        for name, W in zip(family.names, family.Ws, strict=True):
            if id(W) not in names:
                raise ValueError(f"split tensor {name} must be a parameter of the model, got none")
    return names


def factor_of_cost(below: Tensor, cost, due: float) -> float:
    """Return the factor of the levels at which a cost is nearest to what is due.

    Parameters
    ----------
    below : Tensor
        The factor below which each channel is alive: infinite for those that always are.
    cost : callable (bool Tensor) -> float
        The cost where these channels are alive; it does not fall where more are.
    due : float

    Returns
    -------
    float
        Infinite where no channel has a finite score.
    """
    steps = below[(below > 0) & (below < math.inf)].unique().flip(0)
    if not len(steps):
        return math.inf
    low, high = -1, len(steps) - 1  # alive: all that reach steps[k]; -1: none
    while low < high:
        middle = (low + high) // 2
        if cost(below >= steps[middle] if middle >= 0 else below == math.inf) < due:
            low = middle + 1
        else:
            high = middle
    if low >= 0:
        before = below >= steps[low - 1] if low else below == math.inf
        if due - cost(before) < cost(below >= steps[low]) - due:
            low -= 1
    if low < 0:
        return 1.05 * float(steps[0])
    above = float(steps[low])
    after = float(steps[low + 1]) if low + 1 < len(steps) else 0.0
    return (above + after) / 2

"""Nets of other widths, drawn at random: what a net can be cut to, before anything is selected."""

import warnings

import torch
from torch import nn

from ..masks.whole_filters import whole_filters
from .compact import compact
from .live_axes import LiveAxes, gone_with


def drawn_net(
    model: nn.Module, axes: LiveAxes, example_input, share: float, generator: torch.Generator
) -> nn.Module:
    """Return a net that is cut at random.

    Every layer keeps a part of its channels (of its heads, and of their dimensions) that is drawn
    by itself, up to 0.3 from ``share``: a cost that holds for such nets holds for unequal ones.
    """
    dead = torch.zeros(axes.count, dtype=torch.bool)
    for channels in _axes_of(axes):
        part = share + 0.6 * float(torch.rand(1, generator=generator)) - 0.3
        kept = max(1, min(len(channels), round(part * len(channels))))
        dead[channels[torch.randperm(len(channels), generator=generator)[kept:]]] = True
    alive = ~gone_with(axes, dead.nonzero().flatten()) | axes.always
    masks = {}
    for way in axes.ways:
        if way.carries is None:
            W = model.get_parameter(way.name)
            shape = [-1 if d == way.axes[0] else 1 for d in range(W.ndim)]
            kept = alive[way.outputs]
            kept = kept if kept.any() else torch.ones_like(kept)  # of what two axes have emptied
            masks[way.name] = kept.view(shape).expand(W.shape).clone().to(W.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what stays
        return compact(model, whole_filters(model, masks, example_input), example_input)


def _axes_of(axes):
    """The channels that can go by themselves, by the layer that writes them, or the axis of heads
    or of their dimensions."""
    flat = torch.zeros(axes.count, dtype=torch.bool)
    for grid, _, _ in axes.grids:
        flat[grid] = True
    rows = [way.outputs for way in axes.ways if way.carries is None and not way.one_by_one]
    rows += [sub for _, _, subs in axes.grids for sub in subs if sub is not None]
    taken = flat | axes.always
    for row in rows:
        free = row[~taken[row]].unique()
        taken[row] = True
        if len(free) > 1:
            yield free

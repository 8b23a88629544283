"""At which level of the penalties each channel of a net dies."""

import torch
from torch import Tensor

from .live_axes import LiveAxes


def channel_factors(axes: LiveAxes, factors: dict[str, Tensor]) -> Tensor:
    """Return the factor of the levels below which each channel is alive.

    A channel is alive where something writes it, all that it passes through one by one lets it
    through, and something reads it.

    Parameters
    ----------
    axes : LiveAxes
    factors : dict
        By the name of a weight, the factor below which each of its entries is selected,
        broadcastable to it. What is not among them always is.
    """
    written, read, seen = (torch.zeros(axes.count).double() for _ in range(3))
    passed = torch.full((axes.count,), torch.inf).double()
    for way in axes.ways:
        outputs = _along(factors.get(way.name), way.axes[0], way.outputs)
        inputs = _along(factors.get(way.name), way.axes[1], way.inputs)
        if way.one_by_one:
            passed.scatter_reduce_(0, way.outputs, outputs, "amin")
        else:
            if way.carries is None:
                written.scatter_reduce_(0, way.outputs, outputs, "amax")
            read.scatter_reduce_(0, way.inputs, inputs, "amax")
            seen[way.inputs] = 1
    for name, axis, channels in axes.bare:
        added = _along(factors.get(name), axis, channels)
        added[axes.by_layers[channels]] = 0  # it is no more than a scale there
        written.scatter_reduce_(0, channels, added, "amax")
    read[axes.read] = torch.inf
    seen[axes.read] = 1
    read = torch.where(_closed(seen, axes.grids) > 0, _closed(read, axes.grids), torch.inf)
    written[~axes.by_all] = torch.inf
    found = _carried(axes, written, torch.minimum(passed, read))
    return torch.where(axes.always, torch.inf, found)


def _along(factor, axis, channels):
    """The largest factor of every index of an axis; where a layer is read in groups, of all."""
    if factor is None:
        return torch.full((len(channels),), torch.inf).double()
    rest = [d for d in range(factor.ndim) if d != axis]
    found = factor.amax(rest)
    if found.numel() not in (1, len(channels)):
        found = found.amax()
    return found.expand(len(channels)).clone()


def _closed(values, grids):
    """Let the largest value go to and fro between grids and their axes, until nothing changes: an
    axis has the largest of its row, and a grid the least of its axes."""
    values = values.clone()
    while True:
        before = values.clone()
        for flat, sizes, subs in (*reversed(grids), *grids):
            grid, least = values[flat].view(sizes), torch.full(sizes, torch.inf).double()
            for d, sub in enumerate(subs):
                if sub is None:
                    continue
                rest = [i for i in range(len(sizes)) if i != d]
                values.scatter_reduce_(0, sub, grid.amax(rest), "amax")
                shape = [-1 if i == d else 1 for i in range(len(sizes))]
                least = torch.minimum(least, values[sub].view(shape))
            values.scatter_reduce_(0, flat, least.flatten(), "amax")
        if torch.equal(before, values):
            return values


def _carried(axes, written, open_):
    """The factors of channels, some of which are written by handing on others."""
    carriers = [way for way in axes.ways if way.carries is not None]
    while True:
        written = _closed(written, axes.grids)
        found, before = torch.minimum(written, open_), written.clone()
        for way in carriers:
            of_inputs = torch.where(axes.always[way.inputs], torch.inf, found[way.inputs])
            handed = torch.where(way.carries, of_inputs, 0).amax(1)
            written.scatter_reduce_(0, way.outputs, handed, "amax")
        if torch.equal(before, written):
            return found

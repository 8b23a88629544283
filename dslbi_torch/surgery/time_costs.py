"""What a net takes once its dead channels are cut out, by times that were measured.

The twin of :mod:`dslbi_torch.surgery.cut_costs` for milliseconds. A pass is the sum of its layers,
each read between the widths at which it was measured, and of what goes with the activations that
are alive, with the multiplications that no layer does, and with the net as it is.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..arguments import shown
from ..layers import unit_axis
from .cut_costs import Costs, Widths, mac_costs, sum_of_products
from .live_axes import LiveAxes


class Layer(NamedTuple):
    """A call of a layer: the name of its weight, its row among the kinds, entries of its output."""

    weight: str
    kind: int
    size: int


class Kind(NamedTuple):
    """Layers that are equal, measured: lengths of their weight along outputs and inputs (of one
    group), and the seconds at each pair."""

    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    seconds: tuple[tuple[float, ...], ...]  # by outputs; they do not fall in either


class LayerTimes(NamedTuple):
    """What the layers of a net take on a machine: plain data, which JSON holds.

    Attributes
    ----------
    machine : str
        The processor, the threads and the version of torch that they were measured with.
    layers : tuple of Layer
    kinds : tuple of Kind
    rest : tuple of four floats
        Of a pass of the dense net, what goes with a second of the layers, with an entry of their
        outputs, with a multiply-accumulate beside them, and with nothing.
    """

    machine: str
    layers: tuple
    kinds: tuple
    rest: tuple


class TimeCosts(NamedTuple):
    """The time of a pass as a function of the lengths of axes."""

    widths: Widths
    tables: list  # of the kinds: their nodes and seconds, and the axes of the layers of each
    sizes: Costs  # entries of the outputs of layers
    beside: Costs  # multiply-accumulates of what is no layer
    rest: Tensor

    def parts(self, counts: Tensor) -> list[float]:
        """Return seconds of the layers, entries of their outputs, multiply-accumulates beside them,
        and 1, at these lengths."""
        seconds = sum(_read(kind, counts[axes]) for kind, axes in self.tables)
        return [seconds, self.sizes.total(counts), self.beside.total(counts), 1.0]

    def total(self, counts: Tensor) -> float:
        """Return the time of a pass in that of the dense net at these lengths."""
        return float(self.rest @ counts.new_tensor(self.parts(counts)))


def time_costs(axes: LiveAxes, widths: Widths, times: LayerTimes) -> TimeCosts:
    """Return the time of a net as a function of the lengths of its axes.

    Raises
    ------
    ValueError
        For times of another net.
    """
    _check_net(axes, widths, times)
    rows, called = [[] for _ in times.kinds], {layer.weight for layer in times.layers}
    sizes = []
    for layer in times.layers:
        module = axes.model.get_submodule(layer.weight.rpartition(".")[0])
        row, axis = widths.rows[layer.weight], unit_axis(module, "weight")
        rows[layer.kind].append([row[axis], row[1 - axis]])
        sizes.append((layer.size / float(widths.sizes[row[axis]]), [row[axis]]))
    tables = [
        (Kind(*map(np.asarray, kind)), torch.tensor(own).T)
        for kind, own in zip(times.kinds, rows, strict=True)
    ]
    return TimeCosts(
        widths,
        tables,
        sum_of_products(sizes),
        mac_costs(axes, widths, but=called),
        torch.tensor(times.rest, dtype=torch.float64),
    )


def plain_times(times: LayerTimes) -> tuple:
    """Return times as tuples of numbers and words, which a checkpoint holds."""

    def plain(x):
        return tuple(map(plain, x)) if isinstance(x, tuple | list) else x

    return plain(read_times(times))


def read_times(times) -> LayerTimes:
    """Return times from tuples, or from lists as JSON has them; refuse what is none."""
    try:
        machine, layers, kinds, rest = times
        layers = tuple(Layer(*layer) for layer in layers)
        kinds = tuple(Kind(*kind) for kind in kinds)
        grids = [np.asarray(seconds, dtype=float) for _, _, seconds in kinds]
        good = isinstance(machine, str) and len(rest) == 4
        sizes = [(len(kind.outputs), len(kind.inputs)) for kind in kinds]
        good = good and sizes == [grid.shape for grid in grids]
        good = good and all(0 <= layer.kind < len(kinds) for layer in layers)
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(f"times must be what layer_times returns, got {shown(times)}")
    return LayerTimes(machine, layers, kinds, rest)


def _check_net(axes, widths, times):
    """Refuse times of layers that the net does not have, or has in other widths."""
    weights = dict(axes.model.named_parameters())
    for name, kind, _ in times.layers:
        most = times.kinds[kind].outputs[-1], times.kinds[kind].inputs[-1]
        if name not in weights:
            found = "none"
        else:
            module = axes.model.get_submodule(name.rpartition(".")[0])
            axis = unit_axis(module, "weight")
            sizes = [int(widths.sizes[a]) for a in widths.rows[name][:2]]
            found = sizes[axis], sizes[1 - axis]
        if found != most:
            raise ValueError(
                f"times must be of this net, but are of one whose {name} has {most} outputs and "
                f"inputs, not {found}"
            )


def _read(kind, widths):
    """The seconds of layers of a kind together: linear between the nodes, in both widths."""
    sides = zip((kind.outputs, kind.inputs), widths.numpy(), strict=True)
    (i, a), (j, b) = (_place(nodes, at) for nodes, at in sides)
    s = np.pad(kind.seconds, ((0, 1), (0, 1)), "edge")
    low, high = ((1 - b) * s[k, j] + b * s[k, j + 1] for k in (i, i + 1))
    return float(((1 - a) * low + a * high).sum())


def _place(nodes, at):
    """The node below a width, and the part of the way to the next; below the first, the first."""
    i = np.clip(np.searchsorted(nodes, at, "right") - 1, 0, len(nodes) - 1)
    after = nodes[np.minimum(i + 1, len(nodes) - 1)]
    return i, np.clip((at - nodes[i]) / np.maximum(after - nodes[i], 1), 0, 1)


def fitted_rest(rows: list[list[float]], ratios: list[float]) -> tuple[float, ...]:
    """Return the numbers that are not negative and by which rows come nearest to ratios.

    Errors count in parts of the ratio, as a share that is asked for does.
    """
    from scipy.optimize import nnls  # the package itself imports torch and NumPy alone

    A, b = np.array(rows), np.array(ratios)
    scale = np.abs(A).max(0)
    scale[scale == 0] = 1.0
    found = nnls(A / scale / b[:, None], np.ones(len(b)))[0]
    return tuple(map(float, found / scale))

"""What the layers of a net take on this machine, measured at several widths.

Milliseconds are no product of widths: a processor works on channels by eights and sixteens, and
what surrounds a layer takes time too. So every kind of layer is measured at a grid of living inputs
and outputs. What whole nets take beside their layers (norms, activations, products of activations,
the calls themselves) is fitted to nets that are cut at random.
"""

import copy

import numpy as np
import torch
from torch import nn

from ..arguments import check_model
from ..forward import call, evaluating, run_example
from ..layers import LAYERS, TRANSPOSED, unit_axis, weight_names
from ..wrapped import unwraps
from .cut_costs import Widths, widths_of
from .equality import moved_like
from .live_axes import LiveAxes, live_axes
from .measure import machine_of, seconds_of_pass
from .narrowing import drawn_net
from .time_costs import Kind, Layer, LayerTimes, fitted_rest, time_costs

ROUNDS = 5  # of the measurements of layers, of which the least counts: what disturbs only adds
SHARES = np.linspace(0.25, 0.95, 12)  # of the widths that the whole nets have on average
PASSES = 9  # of each whole net, of which the least counts too


@unwraps
@torch.no_grad()
def layer_times(model: nn.Module, example_input) -> LayerTimes:
    """Measure what the layers of a net take on this machine, as plain data.

    It takes about a minute. The sum over the layers of a cut net, and what is fitted beside it,
    says what a pass of that net takes, in parts of a pass of the dense one.

    Parameters
    ----------
    model : Module
        Left as it is; measured on its device, in its dtype and memory format, in evaluation mode.
    example_input : Tensor, or tuple or dict of tensors
        The batch of which the time counts.

    Raises
    ------
    ValueError
        For a model that does not take the example, or that cannot be followed.
    """
    axes = live_axes(check_model(model), example_input)
    return times_of(model, axes, widths_of(axes), example_input)


@torch.no_grad()
def times_of(model: nn.Module, axes: LiveAxes, widths: Widths, x) -> LayerTimes:
    """Do what :func:`layer_times` does, of a net whose axes are known."""
    full = _laid_like(moved_like(copy.deepcopy(axes.model), model), model)
    layers, grids = [], {}
    for name, layer, given, size in _called_layers(full, x):
        key = repr(layer), tuple(given.shape), given.stride()
        if key not in grids:
            grids[key] = len(grids), _Grid(layer, given)
        layers.append(Layer(name, grids[key][0], size))
    for _ in range(ROUNDS):
        for _, grid in grids.values():
            grid.measure()
    kinds = tuple(grid.kind() for _, grid in grids.values())
    times = LayerTimes(machine_of(model), tuple(layers), kinds, (1.0, 0.0, 0.0, 0.0))
    costs, generator = time_costs(axes, widths, times), torch.Generator().manual_seed(0)
    rows, ratios = [costs.parts(widths.sizes)], [_ratio(full, model, x)]
    for share in SHARES:
        net = drawn_net(model, axes, x, share, generator)
        rows.append(costs.parts(widths.sizes_of(net)))
        ratios.append(_ratio(_laid_like(net, model), model, x))
    return times._replace(rest=fitted_rest(rows, ratios))


def _laid_like(net: nn.Module, model: nn.Module) -> nn.Module:
    """Return a net in the memory format of another."""
    last = torch.channels_last
    filters = [p for p in model.parameters() if p.ndim == 4]
    if any(p.is_contiguous(memory_format=last) and not p.is_contiguous() for p in filters):
        return net.to(memory_format=last)
    return net


def _ratio(net, dense, x):
    """The time of a pass of a net in that of the dense one; they take turns."""
    pairs = []
    with evaluating(net), evaluating(dense):
        for _ in range(PASSES):
            pairs.append([])
            for one in (net, dense):
                call(one, x)  # what the other has left in the caches is not counted
                pairs[-1].append(seconds_of_pass(one, x))
    own, whole = np.min(pairs, axis=0)
    return float(own / whole)


def _called_layers(net, x):
    """The layers that a pass calls: the name of the weight, layer, input, entries of the output."""
    found, handles, names = [], [], weight_names(net)

    def note(layer, given, named, out):
        x = given[0] if given else named["input"]
        found.append((names[layer], layer, x, out.numel()))

    for module in net.modules():
        if isinstance(module, LAYERS):
            handles.append(module.register_forward_hook(note, with_kwargs=True))
    try:
        run_example(net, x)
    finally:
        for handle in handles:
            handle.remove()
    return found


class _Grid:
    """A layer at several widths, with inputs of these, and the seconds that it took."""

    def __init__(self, layer, x):
        W, groups = layer.weight, getattr(layer, "groups", 1)
        axis, each = unit_axis(layer, "weight"), W.shape[0] // groups
        whole = {each * n for n in _nodes(groups)}
        outs = whole | set(_nodes(each)) if groups > 1 else _nodes(W.shape[axis])
        self.outputs, self.inputs = tuple(sorted(outs)), _nodes(W.shape[1 - axis])
        self.cells = [_at_width(layer, x, a, b) for a in self.outputs for b in self.inputs]
        self.seconds = np.full(len(self.cells), np.inf)

    def measure(self):
        for k, (layer, x) in enumerate(self.cells):
            call(layer, x)
            self.seconds[k] = min(self.seconds[k], seconds_of_pass(layer, x))

    def kind(self):
        seconds = self.seconds.reshape(len(self.outputs), -1)
        rising = np.maximum.accumulate(np.maximum.accumulate(seconds, 0), 1)
        digits = [[float(f"{x:.4g}") for x in row] for row in rising]
        return Kind(self.outputs, self.inputs, tuple(map(tuple, digits)))


def _nodes(width: int) -> tuple[int, ...]:
    """Return the widths at which a layer is measured: on both sides of multiples of 16, where its
    time may jump, since a processor takes so many numbers at once."""
    step = 16 * -(-width // 64)
    edges = [k + d for k in range(step, width, step) for d in (0, 1)]
    return tuple(sorted({n for n in (1, 4, 8, 16, 17, *edges, width) if n <= width}))


def _at_width(layer, x, outs, ins):
    """A layer of another width, and an input of it; of one in groups whole ones are gone, and of
    the others some inputs."""
    small, W, groups = copy.copy(layer), layer.weight, getattr(layer, "groups", 1)
    small._parameters = dict(layer._parameters)
    axis, shape, given = unit_axis(layer, "weight"), list(W.shape), list(x.shape)
    shape[axis], shape[1 - axis] = outs, ins
    if groups > 1:
        small.groups = max(1, outs * groups // W.shape[0])
    read = 0 if isinstance(layer, TRANSPOSED) else 1  # the axis of the weight that reads x
    given[x.ndim - 1 if isinstance(layer, nn.Linear) else 1] = shape[read] * (
        small.groups if groups > 1 and read else 1
    )
    small.weight = nn.Parameter(W.new_empty(shape).normal_(), requires_grad=False)
    if layer.bias is not None:
        count = shape[0] if read else small.groups * shape[1]
        small.bias = nn.Parameter(W.new_zeros(count), requires_grad=False)
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    form = torch.channels_last if last and not x.is_contiguous() else torch.contiguous_format
    return _laid_like(small, layer), x.new_empty(given).normal_().contiguous(memory_format=form)

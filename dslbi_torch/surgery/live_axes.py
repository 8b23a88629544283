"""Which indices of a net's parameters go together when channels are cut."""

import copy
import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..forward import evaluating, run_example
from ..layers import LAYERS, TRANSPOSED, unit_axis
from ..masks.whole_filters import whole_filters
from .compact import compact, replace_padding
from .coupling import (
    check_layers,
    coupled_groups,
    dependency_graph,
    is_grouped,
    is_operation,
    shared_modules,
)

STAYS = -1


class LiveAxes(NamedTuple):
    """A net as it is cut, and the channel that every index of its parameters belongs to.

    Attributes
    ----------
    model : Module
        A copy, in which convolutions stand for what pads channels.
    count : int
        Channels: each is one number in all that writes, scales and reads it.
    of : dict
        By the name of a parameter, for each of its axes the channel of each index; ``STAYS`` where
        it is never cut.
    """

    model: nn.Module
    count: int
    of: dict[str, list[Tensor]]
    ways: list  # of Way: its layers
    by_writers: Tensor  # whether a channel goes once all its writers are dead


class Way(NamedTuple):
    """A layer of the net as it is cut: which channels it writes, or passes on one by one, and
    which it reads."""

    name: str  # of its weight
    axes: tuple[int, int]  # of the weight: its outputs, its inputs
    outputs: Tensor  # their channels
    inputs: Tensor
    one_by_one: bool  # a depthwise convolution
    carries: Tensor | None  # of a convolution in the place of padding: what it hands on


def live_axes(model: nn.Module, example_input: Tensor) -> LiveAxes:
    """Return which indices of a net's parameters go together, from one forward pass.

    Raises
    ------
    ValueError
        For a model that the dependency graph cannot follow.
    """
    check_layers(model)
    run_example(model, example_input)
    net = copy.deepcopy(model)
    with evaluating(net):
        replace_padding(net, example_input)
        graph = dependency_graph(net.requires_grad_(True), example_input)
        groups = coupled_groups(graph)
    of = {name: [_none(n) for n in p.shape] for name, p in net.named_parameters()}
    names = {module: name for name, module in net.named_modules()}
    count, tied = 0, shared_modules(net)
    for group in groups:
        width = graph.get_out_channels(group[0].dep.target.module)
        if not _can_go(graph, group, tied):
            continue
        for item in group:
            module = item.dep.target.module
            if is_operation(module):
                continue
            reads = graph.is_in_channel_pruning_fn(item.dep.handler)
            reads &= not graph.is_out_channel_pruning_fn(item.dep.handler)
            own = torch.tensor(item.root_idxs) + count
            for key in ("weight",) if reads else ("weight", "bias"):
                _note(of, names[module], module, key, reads, torch.tensor(item.idxs), own)
        count += width
    net.requires_grad_(False)
    ways = list(_ways(model, net, of))
    return LiveAxes(net, count, of, ways, _gone_without_writers(net, ways, count, example_input))


def _ways(model, net, of):
    """Yield the layers of a net."""
    ours = {name for name, _ in model.named_parameters()}
    for owner, layer in net.named_modules():
        name = f"{owner}.weight".lstrip(".")
        if not isinstance(layer, LAYERS) or name not in of:
            continue
        one_by_one = getattr(layer, "groups", 1) > 1
        out = 0 if one_by_one else unit_axis(layer, "weight")
        carries = None if name in ours else layer.weight.detach().flatten(2).any(2)
        yield Way(name, (out, 1 - out), of[name][out], of[name][1 - out], one_by_one, carries)


@torch.no_grad()
def _gone_without_writers(net, ways, count, x):
    """Which channels go once all their writers are dead: found out by cutting one of each layer.

    Others stay while a depthwise convolution or a norm behind the writers still adds something that
    a gate or a border makes vary.
    """
    writers = [way for way in ways if not way.one_by_one and way.carries is None]
    handed = [way.outputs[way.carries.any(1)] for way in ways if way.carries is not None]
    handed = torch.cat([*handed, torch.tensor([STAYS])])
    probed = torch.zeros(count + 1, dtype=torch.bool)  # the last stands for STAYS
    for way in writers:
        own = way.outputs[way.outputs != STAYS]
        free = own[~torch.isin(own, handed)]
        if len(own) > 1 and not probed[own].any():
            probed[(free if len(free) else own)[0]] = True
    noisy, masks = _without_zeros(net, ways), {}
    for way in writers:
        W = noisy.get_parameter(way.name)
        shape = [-1 if d == way.axes[0] else 1 for d in range(W.ndim)]
        masks[way.name] = ~probed[way.outputs].view(shape).expand(W.shape).to(W.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what stays: it is what is asked
        small = compact(noisy, whole_filters(noisy, masks, x), x)
    gone = torch.ones(count, dtype=torch.bool)
    for way in writers:
        left = small.get_parameter(way.name).shape[way.axes[0]]
        if len(way.outputs) - left < int(probed[way.outputs].sum()):
            gone[way.outputs[way.outputs != STAYS]] = False
    return gone


def _without_zeros(net, ways):
    """Return a copy in which nothing is zero by chance, as biases and scales may be at first."""
    noisy = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(0)
    carriers = {way.name for way in ways if way.carries is not None}
    for name, p in noisy.named_parameters():
        if name not in carriers:
            noise = 0.1 * (1 + torch.rand(p.shape, generator=generator))
            p.copy_(torch.where(p == 0, noise.to(p), p))
    return noisy


def channel_factors(axes: LiveAxes, factors: dict[str, Tensor]) -> Tensor:
    """Return the factor of the levels below which each channel is alive.

    A channel is alive where something writes it (unless it stays without), all that it passes
    through one by one lets it through, and something reads it.

    Parameters
    ----------
    axes : LiveAxes
    factors : dict
        By the name of a weight, the factor below which each of its entries is selected,
        broadcastable to it. What is not among them is always.
    """
    none, always = torch.zeros(axes.count).double(), torch.full((axes.count,), torch.inf).double()
    written, passed, read = none.clone(), always.clone(), none.clone()
    for way in axes.ways:
        outputs, inputs = (_along(factors.get(way.name), axis, way) for axis in way.axes)
        if way.one_by_one:
            _into(passed, way.outputs, outputs, "amin")
        else:
            _into(written, way.outputs, outputs if way.carries is None else None, "amax")
            _into(read, way.inputs, inputs, "amax")
    written = torch.where(axes.by_writers, written, torch.inf)
    return _carried(axes, written, torch.minimum(passed, read))


def _along(factor, axis, way):
    """The largest factor of every index of an axis."""
    n = len(way.outputs if axis == way.axes[0] else way.inputs)
    if factor is None:
        return torch.full((n,), torch.inf).double()
    rest = [d for d in range(factor.ndim) if d != axis]
    return factor.amax(rest).expand(n)


def _into(values, channels, found, how):
    """Put what is found for the indices of an axis into the values of their channels."""
    own = channels != STAYS
    if found is not None and own.any():
        values.scatter_reduce_(0, channels[own], found[own], how)


def _carried(axes, written, open_):
    """The factors of channels, some of which are written by handing on others."""
    carriers = [way for way in axes.ways if way.carries is not None]
    while True:
        found = torch.minimum(written, open_)
        before = written.clone()
        for way in carriers:
            of_inputs = torch.where(way.inputs == STAYS, torch.inf, found[way.inputs])
            handed = torch.where(way.carries, of_inputs, 0).amax(1)
            _into(written, way.outputs, handed, "amax")
        if torch.equal(before, written):
            return found


def _none(n):
    return torch.full((n,), STAYS)


def _can_go(graph, group, tied):
    """Whether channels of a group are cut at all: they are read, and not by who uses the net."""
    read = False
    for item in group:
        node, module, handler = item.dep.target, item.dep.target.module, item.dep.handler
        if graph.is_out_channel_pruning_fn(handler) and not node.outputs:
            return False
        if module in tied or is_grouped(module) or None in item.root_idxs:
            return False
        writes = graph.is_out_channel_pruning_fn(handler)
        read |= isinstance(module, LAYERS) and not writes
    return read


def _note(of, owner, module, key, reads, indices, channels):
    """Note the channels of some units, or inputs, of a module."""
    axes = of.get(f"{owner}.{key}".lstrip("."))
    if axes is None:
        return
    axis = unit_axis(module, key)
    if reads:
        axis = 1 - axis
    if isinstance(module, TRANSPOSED) and module.groups > 1:
        axis = 0
    if len(axes[axis]) > int(indices.max()):
        axes[axis][indices] = channels

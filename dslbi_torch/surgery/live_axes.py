"""Which indices of a net's parameters go together when it is cut, and what it takes for them to go.

:mod:`dslbi_torch.surgery.tracing` says what must stay together. Indices that are the same to it are
one *channel* here. What it takes is found out by cutting one channel of each layer.
"""

import copy
import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..forward import evaluating, run_example
from ..layers import LAYERS, NORM, unit_axis
from ..masks.whole_filters import whole_filters
from .compact import compact, replace_padding
from .costs import attention_in_parts
from .coupling import check_layers
from .equality import in_float64
from .relations import Product, Read
from .tracing import is_conv1d, is_layer_norm, is_rms_norm, traced


class Way(NamedTuple):
    """A weight that channels are read with and written with, or passed on one by one."""

    name: str
    axes: tuple[int, int]  # of the weight: its outputs, its inputs
    outputs: Tensor  # their channels
    inputs: Tensor
    one_by_one: bool  # a depthwise convolution
    carries: Tensor | None  # of a convolution in the place of padding: what it hands on


class LiveAxes(NamedTuple):
    """A net as it is cut, and the channels that the indices of its parameters belong to.

    Attributes
    ----------
    model : Module
        A copy in float64, in which convolutions stand for what pads channels.
    example : Tensor, or tuple or dict of tensors
        What it takes.
    count : int
        Channels: each is one number in all that writes, scales and reads it.
    of : dict
        By the name of a parameter, for each of its axes the channel of each index.
    always : bool Tensor
        The channels that are never cut.
    ways : list of Way
    bare : list of (str, int, Tensor)
        Parameters that no layer holds (a class token, an embedding), an axis, and its channels.
    grids : list of (Tensor, tuple, tuple)
        Channels that are the grid of others (heads and their dimensions), its sizes, and those.
    read : Tensor
        Channels that something reads beside the weights of ``ways``.
    by_layers, by_all : bool Tensor
        Whether a channel goes once all layers that write it are dead, or these and all bare
        parameters.
    """

    model: nn.Module
    example: object
    count: int
    of: dict
    always: Tensor
    ways: list
    bare: list
    grids: list
    read: Tensor
    by_layers: Tensor
    by_all: Tensor


def live_axes(model: nn.Module, example_input) -> LiveAxes:
    """Return which indices of a net's parameters go together, from a few forward passes.

    Raises
    ------
    ValueError
        For a model that does not take the example, or that cannot be followed.
    """
    check_layers(model)
    run_example(model, example_input)
    exact, x = in_float64(model, example_input)
    with evaluating(exact), attention_in_parts():
        net = replace_padding(exact, x)
        trace = traced(net, x)
    found, number = np.unique(trace.relations.classes(), return_inverse=True)
    count, number = len(found), torch.from_numpy(number)
    of = {n: [number[atoms] for atoms in trace.own.get(n, ())] for n, _ in net.named_parameters()}
    grids, others = [], [torch.zeros(0, dtype=torch.long)]
    ours = {id(read) for reader in trace.readers.values() if reader.name for read in reader.reads}
    for step in trace.relations.steps:
        if isinstance(step, Product):
            subs = tuple(None if sub is None else number[sub] for sub in step.subs)
            grids.append((number[step.flat], step.sizes, subs))
        elif isinstance(step, Read) and id(step) not in ours:
            others.append(number[step.ins])
    always = torch.zeros(count, dtype=torch.bool)
    always[number[_pinned(trace)]] = True
    ways = list(_ways(model, trace, of, number))
    layers = {way.name for way in ways}
    bare = [row for row in _bare(net, of, always) if row[0] not in layers]
    known = net, x, count, of, always, ways, bare, grids, torch.cat(others)
    axes = LiveAxes(*known, always, always)
    by_layers = _gone(axes, [])
    by_all = by_layers if by_layers.all() or not bare else by_layers | _gone(axes, bare)
    return axes._replace(by_layers=by_layers, by_all=by_all)


def _pinned(trace):
    """The atoms that stay whatever is masked."""
    written = np.zeros(trace.relations.count, dtype=bool)
    for _, outs in trace.written:
        if isinstance(outs, np.ndarray):
            written[outs] = True
    kept = ~trace.relations.close(written, reads=False)
    for atoms, _ in trace.relations.pins:
        kept[atoms] = True
    return torch.from_numpy(trace.relations.close(kept, reads=False).nonzero()[0])


def _ways(model, trace, of, number):
    """Yield the weights that a net reads and writes channels with."""
    ours = {name for name, _ in model.named_parameters()}
    for reader in trace.readers.values():
        if reader.name not in of or len(of[reader.name]) < 2:
            continue
        owner, _, key = reader.name.rpartition(".")
        module = trace.model.get_submodule(owner)
        out = 0
        if key == "weight" and (isinstance(module, LAYERS) or is_conv1d(module)):
            out = 1 if is_conv1d(module) else unit_axis(module, "weight")
        atoms = (
            reader.ins if isinstance(reader.ins, np.ndarray) else trace.own[reader.name][1 - out]
        )
        carries = None if reader.name in ours else torch.from_numpy(reader.matrix)
        rows = of[reader.name][out], number[atoms]
        yield Way(reader.name, (out, 1 - out), *rows, False, carries)
    for name, groups in trace.groups.items():
        if np.array_equal(groups, trace.own[name][0]):
            yield Way(name, (0, 1), *of[name][:2], True, None)


def _bare(net, of, always):
    """Yield the parameters that are added, or scale, without a layer or a norm: with an axis, and
    its channels."""
    for owner, module in net.named_modules():
        if isinstance(module, (*LAYERS, NORM)) or is_layer_norm(module) or is_rms_norm(module):
            continue
        for key, _ in module.named_parameters(recurse=False):
            name = f"{owner}.{key}".lstrip(".")
            for axis, channels in enumerate(of.get(name, ())):
                if not always[channels].all():
                    yield name, axis, channels


@torch.no_grad()
def _gone(axes, bare):
    """Which channels go once the layers that write them are dead, and these bare parameters: found
    out by cutting one channel of each layer.

    Others stay while a norm or a depthwise convolution behind the writers still adds something that
    a gate or a border makes vary, or something that is not masked is added.
    """
    writers = [way for way in axes.ways if not way.one_by_one and way.carries is None]
    probed = _probed(axes, writers)
    noisy, masks = _without_zeros(axes), {}
    rows = [(way.name, way.axes[0], way.outputs) for way in writers] + list(bare)
    for name, axis, channels in rows:
        W = noisy.get_parameter(name)
        shape = [-1 if d == axis else 1 for d in range(W.ndim)]
        mask = ~probed[channels].view(shape).expand(W.shape).to(W.device)
        masks[name] = masks[name] & mask if name in masks else mask.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what stays: it is what is asked
        small = compact(noisy, whole_filters(noisy, masks, axes.example), axes.example)
    gone = ~axes.always
    for way in writers:
        left = small.get_parameter(way.name).shape[way.axes[0]]
        if len(way.outputs) - left < int(probed[way.outputs].sum()):
            gone[way.outputs] = False
    return gone


def _probed(axes, writers):
    """One channel of each layer that can lose one: none that padding hands on, where there is
    another; of heads and their dimensions what makes the smallest part that can go."""
    handed = [way.outputs[way.carries.any(1)] for way in axes.ways if way.carries is not None]
    handed = torch.cat([*handed, axes.read[:0]])
    probed = torch.zeros(axes.count, dtype=torch.bool)
    for way in writers:
        own = way.outputs[~axes.always[way.outputs]]
        free = own[~torch.isin(own, handed)]
        if len(own.unique()) < 2 or probed[own].any():
            continue
        parts = [gone_with(axes, leaf) for leaf in _leaves(axes, (free if len(free) else own)[0])]
        parts = [p for p in parts if not (p & axes.always).any() and not p[way.outputs].all()]
        if parts:
            probed |= min(reversed(parts), key=lambda part: int(part.sum()))  # heads lie last
    return probed


def _leaves(axes, channel):
    """The channels that are no grid, of those whose grid a channel lies in; or itself."""
    found = []
    for flat, sizes, subs in axes.grids:
        for at in (flat == channel).nonzero().flatten().tolist():
            place = np.unravel_index(at, sizes)
            held = [sub[i] for sub, i in zip(subs, place, strict=True) if sub is not None]
            found += [leaf for sub in held for leaf in _leaves(axes, sub)]
    return list(dict.fromkeys(map(int, found))) or [int(channel)]


def gone_with(axes, leaf):
    """The channels that go with one: of a grid its row, and of rows that are gone their axis."""
    dead = torch.zeros(axes.count, dtype=torch.bool)
    dead[leaf], before = True, 0
    while before != (before := int(dead.sum())):
        for flat, sizes, subs in axes.grids:
            for d, sub in enumerate(subs):
                if sub is not None:
                    shape = [-1 if i == d else 1 for i in range(len(sizes))]
                    dead[flat[dead[sub].view(shape).expand(sizes).flatten()]] = True
                    rest = [i for i in range(len(sizes)) if i != d]
                    dead[sub[dead[flat].view(sizes).all(dim=rest)]] = True
    return dead


def _without_zeros(axes):
    """Return a copy in which nothing is zero by chance, as biases and scales may be at first."""
    noisy = copy.deepcopy(axes.model)
    generator = torch.Generator().manual_seed(0)
    carriers = {way.name for way in axes.ways if way.carries is not None}
    for name, p in noisy.named_parameters():
        if name not in carriers:
            noise = 0.1 * (1 + torch.rand(p.shape, generator=generator))
            p.copy_(torch.where(p == 0, noise.to(p), p))
    return noisy

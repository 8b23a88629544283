"""Which channels of a net can go without a change of what it computes, and why others stay.

A *group* is what the dependency graph couples: a set of channels with all that writes, scales and
reads them. A channel can go where none of its readers needs it.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..layers import LAYERS, NORM, connections, cuts_border
from .coupling import cannot_follow, is_grouped, is_operation

# What a channel may pass through without meeting the others.
_CHANNELWISE = (*LAYERS, NORM, nn.PReLU)

BORDER = (
    "they emit a constant that zero padding cuts at the border; whole_filters makes it 0 where the "
    "layer, or the BatchNorm that takes its output, adds it"
)
MIXED = (
    "what their readers are given depends on the input or on the place all the same: another "
    "activation is added or mixed in, or a constant is padded on the way (which is 0 with the "
    "masks of whole_filters)"
)
TIED = "weights are shared with another layer"


class Net(NamedTuple):
    """A model as it is now, and what is known of it."""

    graph: object  # of its dependencies
    names: dict  # of its modules
    constants: dict  # by layer, the value of each input channel, as constant_inputs gives them
    tied: set  # modules whose parameters others hold too


class Verdict(NamedTuple):
    """What can go of a group of coupled layers."""

    channels: list[int]  # in the numbers of the group
    all_constant: int  # the number of channels, where all reach their readers as constants
    stays: dict  # by reason: how many dead channels stay
    stays_in: str  # the layer that has them


@dataclass
class _Channels:
    """What is known of the channels of a group; the tensors have one entry for each."""

    needless: Tensor  # no reader needs it: it reads it with zeros, or can fold its constant
    known: Tensor  # every reader is given a constant
    border: Tensor  # a reader could fold its constant but for the border
    dead: Tensor  # all its writers are zero
    dead_filters: dict = field(default_factory=dict)  # by layer, how many of its filters are zero
    obstacle: tuple | None = None  # name and class of a module that cannot be followed
    has_readers: bool = False
    tied: bool = False

    @classmethod
    def unseen(cls, count):
        """Return what is assumed before any layer of the group has been looked at."""
        return cls(*(torch.full((count,), x) for x in (True, True, False, True)))

    def add_writer(self, net, layer, item):
        """Note which channels a layer of the group writes."""
        zero = ~connections(layer).any(1)[item.idxs].cpu()
        self.dead[torch.tensor(item.root_idxs)[~zero]] = False
        if zero.any():
            self.dead_filters[net.names[layer]] = int(zero.sum())

    def add_reader(self, net, layer, item):
        """Note which channels a layer of the group needs, and what it is given."""
        self.has_readers = True
        roots = torch.tensor(item.root_idxs)
        value, read = _input_of(net, layer, item.idxs)
        constant = ~value.isnan()
        foldable = (value == 0) | constant & (not cuts_border(layer))
        self.needless[roots[~foldable & read]] = False
        self.known[roots[~constant]] = False
        self.border[roots[constant & ~foldable & read]] = True


def removable(net: Net, group) -> Verdict:
    """Return which channels of a group of coupled layers can go, and which dead ones stay.

    Raises
    ------
    ValueError
        Where a module that cannot be followed takes the outputs of dead filters.
    """
    root = group[0].dep.target.module
    found = _examined(net, group, net.graph.get_out_channels(root))
    if found is None or found.obstacle or not found.has_readers:
        return Verdict([], 0, {}, "")
    name = next(iter(found.dead_filters), net.names[root])
    if found.tied:
        return Verdict([], 0, {TIED: int((found.dead | found.needless).sum())}, name)
    needless, known = found.needless, found.known
    all_constant = len(known) if known.all() else 0
    if needless.all() and not all_constant:  # read by nobody, but a layer needs a channel
        needless[int((~known).nonzero()[0])] = False
    stays = {
        BORDER: int((found.border & known & ~needless).sum()),
        MIXED: int((found.dead & ~known & ~needless).sum()),
    }
    return Verdict(needless.nonzero().flatten().tolist(), all_constant, stays, name)


def _examined(net, group, count):
    """What is known of the channels of a group; None for the outputs of the net."""
    found = _Channels.unseen(count)
    for item in group:
        node, module, handler = item.dep.target, item.dep.target.module, item.dep.handler
        reads = net.graph.is_in_channel_pruning_fn(handler)
        writes = net.graph.is_out_channel_pruning_fn(handler)
        if writes and not node.outputs:
            return None
        if is_operation(module):
            continue
        found.tied |= module in net.tied
        if not isinstance(module, _CHANNELWISE) or is_grouped(module) or None in item.root_idxs:
            name = net.names.get(module, net.graph._param_to_name.get(module))
            found.obstacle = name, type(module).__name__
        elif isinstance(module, LAYERS) and writes and not reads:
            found.add_writer(net, module, item)
        elif isinstance(module, LAYERS) and reads and not writes:
            found.add_reader(net, module, item)
    if found.obstacle and found.dead_filters:
        name, number = next(iter(found.dead_filters.items()))
        raise ValueError(
            f"compact cannot follow {found.obstacle[0]} ({found.obstacle[1]}), which takes the "
            f"outputs of {number} dead filters of {name}"
        )
    return found


def _input_of(net, layer, inputs):
    """Of some inputs of a layer: their constants (NaN: none), and whether a weight that is not
    zero reads them."""
    read = connections(layer).any(0)
    if max(inputs) >= len(read):
        raise cannot_follow(
            f"{net.names[layer]} has {len(read)} inputs, but not number {max(inputs)}"
        )
    unknown = layer.weight.new_full(read.shape, torch.nan)  # of a layer that is not called
    value = net.constants.get(layer, unknown)
    return value[inputs].cpu(), read[inputs].cpu()

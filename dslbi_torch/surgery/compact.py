"""A physically smaller model, equal to the masked one.

Which channels can go is decided here, exactly: one forward pass shows which inputs of every layer
no longer depend on the input of the net, and what they are instead. What else must be cut with a
channel (its BatchNorm, the columns of its readers, other writers of a residual stream) is found by
the dependency graph of Torch-Pruning.
"""

import copy
import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..forward import evaluating
from ..layers import LAYERS, NORM, TRANSPOSED, connections, count_units, cuts_border
from ..masks.apply import apply_masks_
from .constant_inputs import constant_inputs
from .coupling import (
    all_groups,
    check_layers,
    dependency_graph,
    is_grouped,
    is_operation,
    lost,
    shared_modules,
)
from .equality import as_before, compare_outputs, in_float64

# What a channel may pass through without meeting the others.
_CHANNELWISE = (*LAYERS, NORM, nn.PReLU)


def compact(model: nn.Module, masks: dict[str, Tensor] | None, example_input: Tensor) -> nn.Module:
    """A copy of the model from which dead filters and neurons are cut out.

    Its outputs in evaluation mode are those of the masked model: ``W * mask`` in place of W. A
    channel goes where none of its readers needs it: it no longer depends on the input (its filter
    is masked, and so is every other writer of a residual stream), or the weights that read it are
    all zero. What such a channel still emits (its bias, the shift of its BatchNorm) is a constant,
    and is folded into the biases of its readers. A convolution with zero padding sees the constant
    end at the border; there the channel stays, and a warning says so, as of every dead channel that
    stays. With the masks of :func:`dslbi_torch.whole_filters` a removed filter emits 0, which no
    border cuts and which a gate (a product with another activation) leaves 0. Layers that share
    weights with others keep their sizes.

    What is a constant is seen at the size of the example. A constant that is padded and then
    averaged (ZeroPad2d before a global mean) is another one at another size: there the outputs are
    equal for pictures of the example's size, and with masks of ``whole_filters`` for all.

    Parameters
    ----------
    model : Module
        Left as it is. A module without weights that changes the number of channels (a shortcut that
        pads) may offer ``as_convolution(in_channels)``, an equal convolution without bias, which
        takes its place in the copy.
    masks : dict, or None
        None: what is zero in the model already.
    example_input : Tensor
        A batch of at least one example, of any values.

    Returns
    -------
    Module
        Of the same classes as the model, with smaller layers.

    Raises
    ------
    ValueError
        For masks of another model (or of this one before it was compacted), a layer of which all
        filters are dead, and a model that the dependency graph cannot follow, which is found out by
        comparing the outputs of the net and of all its layers, in float64.
    """
    _check_example(example_input)
    check_layers(model)
    masked = copy.deepcopy(model)
    if masks is not None:
        apply_masks_(masked, masks)
    masked, x = in_float64(masked, example_input)
    small = copy.deepcopy(masked)
    with evaluating(small):
        replace_padding(small, x)
        frozen = {name for name, p in small.named_parameters() if not p.requires_grad}
        layers = {n: m for n, m in small.named_modules() if isinstance(m, LAYERS)}
        units = {n: torch.arange(count_units(m)) for n, m in layers.items()}  # those still there
        while _cut(small.requires_grad_(True), x, example_input.to(x.device), units):
            pass
    for name, p in small.named_parameters():
        p.requires_grad_(name not in frozen)
    compare_outputs(masked, small, x, {name: (left, None) for name, left in units.items()})
    return as_before(small, model)


def _check_example(x):
    if not isinstance(x, Tensor):
        raise ValueError(f"example_input must be one tensor, got a {type(x).__name__}")
    if x.ndim < 2 or not len(x) or not x.is_floating_point():
        raise ValueError(
            "example_input must hold at least one example of floating-point numbers along its "
            f"first axis, got shape {tuple(x.shape)} and {x.dtype}"
        )


def replace_padding(model, x):
    """Put ``as_convolution`` of the modules that offer it in their place, frozen."""
    found, handles = {}, []
    for name, module in model.named_modules():
        if hasattr(module, "as_convolution"):
            handles.append(
                module.register_forward_pre_hook(
                    lambda m, inputs, name=name: found.__setitem__(name, inputs[0].shape[1])
                )
            )
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    reference = next(model.parameters())
    for name, channels in found.items():
        conv = model.get_submodule(name).as_convolution(channels)
        conv.requires_grad_(False).train(model.training)
        model.set_submodule(name, conv.to(reference.device, reference.dtype))


# What can go, and its cutting


class _View(NamedTuple):
    """The model as it is now, and what is noted about it."""

    graph: object
    names: dict  # of the modules
    values: dict  # the constants that layers are given
    tied: set  # modules whose parameters others have too
    empty: dict  # by layer: the units, where all reach their readers as constants
    kept: dict  # by reason and layer: how many dead channels stay


def _cut(model, x, example, units):
    """Cut all that can go as the model is now; whether anything went."""
    graph = dependency_graph(model, example)
    names = {module: name for name, module in model.named_modules()}
    try:
        values = constant_inputs(model, x)
    except Exception as error:
        raise lost(error) from None
    view = _View(graph, names, values, shared_modules(model), {}, {})
    cuts = []
    for group in all_groups(graph):
        channels = _removable(view, group)
        if channels:
            root = group[0].dep
            cuts.append(graph.get_pruning_group(root.target.module, root.handler, channels))
    _refuse_empty(view)
    # By layer, in the numbers that all groups have: a cut changes them.
    indices = {}
    for item in (item for group in cuts for item in group):
        module, handler = item.dep.target.module, item.dep.handler
        if not is_operation(module):
            indices.setdefault((module, handler), set()).update(item.idxs)
    for (module, handler), gone in indices.items():
        if isinstance(module, LAYERS) and not graph.is_out_channel_pruning_fn(handler):
            _fold(module, sorted(gone), values)
    for (module, handler), gone in indices.items():
        if isinstance(module, LAYERS) and graph.is_out_channel_pruning_fn(handler):
            left = sorted(set(range(count_units(module))) - gone)
            units[names[module]] = units[names[module]][left]
        handler(module, sorted(gone))
    if not cuts:
        _tell(view.kept)
    return bool(cuts)


def _refuse_empty(view):
    """Refuse the first layer of which no unit would be left: others follow from it."""
    for module, name in view.names.items():
        if name in view.empty:
            count = view.empty[name]
            if not connections(module).any():
                raise ValueError(f"all {count} filters of {name} are dead: keep at least one")
            raise ValueError(
                f"what {name} gives must depend on the input where it is read, but all {count} "
                "channels are constants there"
            )


def _removable(view, group):
    """Which channels of a group of coupled layers can go; what stays or is empty is noted."""
    graph, root = view.graph, group[0].dep.target.module
    count = graph.get_out_channels(root)
    # of each channel: its readers do not need it; they know it; they know it but for the border;
    # all its writers are zero
    needless, known, border, dead = (torch.full((count,), x) for x in (True, True, False, True))
    has_readers, strange, tied, dead_filters = False, None, False, {}
    for item in group:
        node, module = item.dep.target, item.dep.target.module
        reads = graph.is_in_channel_pruning_fn(item.dep.handler)
        writes = graph.is_out_channel_pruning_fn(item.dep.handler)
        layer = isinstance(module, LAYERS)
        if writes and not node.outputs:  # the output of the net
            return []
        if is_operation(module):
            continue
        tied |= module in view.tied
        if not isinstance(module, _CHANNELWISE) or is_grouped(module) or None in item.root_idxs:
            name = view.names.get(module, graph._param_to_name.get(module))
            strange = name, type(module).__name__
        elif layer and writes and not reads:
            zero = ~connections(module).any(1)[item.idxs].cpu()
            dead[torch.tensor(item.root_idxs)[~zero]] = False
            if zero.any():
                dead_filters[view.names[module]] = int(zero.sum())
        elif layer and reads and not writes:
            has_readers = True
            roots = torch.tensor(item.root_idxs)
            value, read = _input_of(module, view.values, item.idxs, view.names)
            foldable = (value == 0) | ~value.isnan() & (not cuts_border(module))
            needless[roots[~foldable & read]] = False
            known[roots[value.isnan()]] = False
            border[roots[~value.isnan() & ~foldable & read]] = True
    if strange and dead_filters:
        name, number = next(iter(dead_filters.items()))
        raise ValueError(
            f"compact cannot follow {strange[0]} ({strange[1]}), which takes the outputs of "
            f"{number} dead filters of {name}"
        )
    if strange or not has_readers:
        return []
    name = next(iter(dead_filters), view.names[root])
    if tied:
        _note(view.kept, _TIED, name, dead | needless)
        return []
    if known.all():
        view.empty[view.names[root]] = count
    elif needless.all():  # read by nobody, but a layer needs a channel
        needless[int((~known).nonzero()[0])] = False
    _note(view.kept, _BORDER, name, border & known & ~needless)
    _note(view.kept, _MIXED, name, dead & ~known & ~needless)
    return needless.nonzero().flatten().tolist()


_BORDER = (
    "they emit a constant that zero padding cuts at the border; whole_filters makes it 0 where the "
    "layer, or the BatchNorm that takes its output, adds it"
)
_MIXED = (
    "what their readers are given depends on the input or on the place all the same: another "
    "activation is added or mixed in, or a constant is padded on the way (which is 0 with the "
    "masks of whole_filters)"
)
_TIED = "weights are shared with another layer"


def _note(kept, reason, name, channels):
    if channels.any():
        kept.setdefault(reason, {})[name] = int(channels.sum())


def _input_of(layer, values, inputs, names):
    """Of some inputs of a layer: their constants, and whether a weight that is not zero reads
    them."""
    read = connections(layer).any(0)
    if max(inputs) >= len(read):
        raise lost(f"{names[layer]} has {len(read)} inputs, but not number {max(inputs)}")
    value = values.get(layer, layer.weight.new_full(read.shape, torch.nan))  # not called: unknown
    return value[inputs].cpu(), read[inputs].cpu()


@torch.no_grad()
def _fold(layer, inputs, values):
    """Add what constant inputs contribute to the bias of their reader."""
    if layer not in values:  # never called
        return
    value = values[layer][inputs].nan_to_num(0).double()  # NaN: read by zero weights only
    W = layer.weight.detach().double()
    W = W[:, inputs] if not isinstance(layer, TRANSPOSED) else W[inputs].transpose(0, 1)
    added = W.flatten(2).sum(2) @ value if W.ndim > 2 else W @ value
    if not added.any():
        return
    old = 0 if layer.bias is None else layer.bias.double()
    layer.bias = nn.Parameter((old + added).to(layer.weight.dtype))


def _tell(kept):
    """Say which dead channels stay, and why."""
    for reason, layers in kept.items():
        where = ", ".join(f"{n} of {name}" for name, n in list(layers.items())[:4])
        more = ", ..." if len(layers) > 4 else ""
        warnings.warn(
            f"{sum(layers.values())} dead channels stay ({where}{more}): {reason}", stacklevel=4
        )

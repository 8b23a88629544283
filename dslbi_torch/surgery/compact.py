"""A physically smaller model, equal to the masked one.

Which channels can go is decided exactly (:mod:`dslbi_torch.surgery.removable`): one forward pass
shows which inputs of every layer no longer depend on the input of the net, and what they are
instead. What else must be cut with a channel (its BatchNorm, the columns of its readers, other
writers of a residual stream) is found by the dependency graph of Torch-Pruning.
"""

import copy
import warnings

import torch
from torch import Tensor, nn

from ..forward import evaluating
from ..layers import LAYERS, NORM, TRANSPOSED, connections
from ..masks.apply import apply_masks_
from ..masks.checks import check_masks
from .constant_inputs import constant_inputs
from .coupling import (
    cannot_follow,
    check_layers,
    coupled_groups,
    dependency_graph,
    is_operation,
    shared_modules,
)
from .equality import compare_outputs, in_float64, moved_like
from .places import Places
from .removable import Net, removable


def compact(model: nn.Module, masks: dict[str, Tensor] | None, example_input: Tensor) -> nn.Module:
    """Return a copy of the model from which dead filters and neurons are cut out.

    Its outputs in evaluation mode are those of the masked model: ``W * mask`` in place of W.

    A channel goes where none of its readers needs it. Either it no longer depends on the input: its
    filter is masked, and so is every other writer of a residual stream. Or the weights that read it
    are all zero. What such a channel still emits (its bias, the shift of its BatchNorm) is a
    constant, and is folded into the biases of its readers.

    A dead channel stays, and a warning says so, where a convolution with zero padding reads it,
    which sees the constant end at the border. With the masks of :func:`dslbi_torch.whole_filters` a
    removed filter emits 0, which no border cuts and which a gate (a product with another
    activation) leaves 0. Layers that share weights with others keep their sizes.

    Constants are those at the size of the example. One that is padded and then averaged (ZeroPad2d
    before a global mean) is another at another size: there the outputs are equal for pictures of
    the example's size, and with masks of ``whole_filters`` for all.

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
    return _compacted(model, masks, example_input)[0]


def compact_with_masks(
    model: nn.Module, masks: dict[str, Tensor], example_input: Tensor
) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return what :func:`compact` does, and the masks of what is left of the masked tensors.

    The small net is then trained under its masks as the whole net would be under the given ones,
    up to rounding, if those are of :func:`dslbi_torch.whole_filters`: what went was zero, and would
    have stayed so.

    Raises
    ------
    ValueError
        As :func:`compact`, and for a net with filters, inputs or scales that are zero without a
        mask: cut out, they could not be trained.
    """
    check_masks(model, masks)
    small, places = _compacted(model, masks, example_input)
    _check_masked(model, masks, places)
    parameters, left = dict(small.named_parameters()), {}
    for name, mask in masks.items():
        # A masked bias that is not zero has taken up the constants that were cut.
        folded = parameters[name].detach() != 0
        left[name] = places.left_of(model, name, mask.to(folded.device)) | folded
    return small, left


def _check_masked(model, masks, places):
    """Refuse what went though its mask keeps it: it was zero itself."""
    for name, p in model.named_parameters():
        owner, _, key = name.rpartition(".")
        if key != "weight" or not isinstance(model.get_submodule(owner), (*LAYERS, NORM)):
            continue
        mask = masks.get(name, torch.ones_like(p, dtype=torch.bool)).to(p.device)
        alive = mask & (p != 0)
        axes = list(places.axes(model, name))
        left = places.left_of(model, name, p).shape
        for axis, kept in axes:
            gone = torch.ones(p.shape[axis], dtype=torch.bool, device=p.device)
            gone[kept] = False
            rest = [d for d in range(p.ndim) if d != axis]
            by_mask, now = ((x.any(rest) if rest else x) for x in (mask, alive))
            if count := int((gone & by_mask & ~now).sum()):
                due = [n + count * (d == axis) for d, n in enumerate(left)]
                raise ValueError(
                    "the net must have no dead filters but those that the masks remove, but of "
                    f"{name} {tuple(left)} would be left, not {tuple(due)}"
                )


def _compacted(model, masks, example_input):
    """The small net, and the places of what is left of the whole one."""
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
        places = Places(small)
        while _cut(small.requires_grad_(True), x, example_input.to(x.device), places):
            pass
    for name, p in small.named_parameters():
        p.requires_grad_(name not in frozen)
    units = {
        n: (places.outputs[n], None) for n, m in small.named_modules() if isinstance(m, LAYERS)
    }
    compare_outputs(masked, small, x, units)
    return moved_like(small, model), places


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


# The cutting


def _cut(model, x, example, places):
    """Cut all that can go as the model is now, and note it in ``places``; return whether anything
    went."""
    graph = dependency_graph(model, example)
    names = {module: name for name, module in model.named_modules()}
    try:
        constants = constant_inputs(model, x)
    except Exception as error:
        raise cannot_follow(error) from error
    net = Net(graph, names, constants, shared_modules(model))
    groups = coupled_groups(graph)
    verdicts = [removable(net, group) for group in groups]
    _check_not_empty(net, groups, verdicts)
    cuts = []
    for group, verdict in zip(groups, verdicts, strict=True):
        if verdict.channels:
            root = group[0].dep
            group = graph.get_pruning_group(root.target.module, root.handler, verdict.channels)
            cuts.append(group)
    if not cuts:
        _warn_of_what_stays(verdicts)
    gone = _indices_by_module(cuts)
    for (module, handler), indices in gone.items():
        if isinstance(module, LAYERS) and not graph.is_out_channel_pruning_fn(handler):
            _fold_constants(module, indices, constants)
    for (module, handler), indices in gone.items():
        inputs = isinstance(module, LAYERS) and not graph.is_out_channel_pruning_fn(handler)
        places.remove(names[module], indices, inputs=inputs)
        handler(module, indices)
    return bool(cuts)


def _indices_by_module(cuts):
    """What goes, by module and by the function that cuts it, in the numbers that all groups have:
    the first cut would change them for the next."""
    indices = {}
    for item in (item for group in cuts for item in group):
        module, handler = item.dep.target.module, item.dep.handler
        if not is_operation(module):
            indices.setdefault((module, handler), set()).update(item.idxs)
    return {key: sorted(gone) for key, gone in indices.items()}


def _check_not_empty(net, groups, verdicts):
    """Refuse the first layer of which no unit would be left: others follow from it."""
    roots = (group[0].dep.target.module for group in groups)
    counts = {root: v.all_constant for root, v in zip(roots, verdicts, strict=True)}
    for module, name in net.names.items():
        count = counts.get(module)
        if not count:
            continue
        if not connections(module).any():
            raise ValueError(f"all {count} filters of {name} are dead: keep at least one")
        raise ValueError(
            f"what {name} gives must depend on the input where it is read, but all {count} "
            "channels are constants there"
        )


@torch.no_grad()
def _fold_constants(layer, inputs, constants):
    """Add what constant inputs contribute to the bias of their reader."""
    if layer not in constants:  # never called
        return
    value = constants[layer][inputs].nan_to_num(0).double()  # NaN: read by zero weights only
    W = layer.weight.detach().double()
    W = W[:, inputs] if not isinstance(layer, TRANSPOSED) else W[inputs].transpose(0, 1)
    added = W.flatten(2).sum(2) @ value if W.ndim > 2 else W @ value
    if not added.any():
        return
    old = 0 if layer.bias is None else layer.bias.double()
    layer.bias = nn.Parameter((old + added).to(layer.weight.dtype))


def _warn_of_what_stays(verdicts):
    """Warn of the dead channels that stay, once for each reason."""
    stay = {}
    for verdict in verdicts:
        for reason, count in verdict.stays.items():
            if count:
                stay.setdefault(reason, {})[verdict.stays_in] = count
    for reason, layers in stay.items():
        where = ", ".join(f"{n} of {name}" for name, n in list(layers.items())[:4])
        more = ", ..." if len(layers) > 4 else ""
        warnings.warn(
            f"{sum(layers.values())} dead channels stay ({where}{more}): {reason}", stacklevel=4
        )

"""A physically smaller model, equal to the masked one.

One forward pass shows what must stay together (:mod:`dslbi_torch.surgery.tracing`), and which
inputs of every layer no longer depend on the input of the net, and what they are instead
(:mod:`dslbi_torch.surgery.unknowns`). What is needed then follows from the outputs backwards
(:mod:`dslbi_torch.surgery.needed`), and all the rest is cut.
"""

import copy
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..forward import call, evaluating, tensors_of
from ..layers import LAYERS, NORM, unit_axis
from ..masks.apply import apply_masks_
from ..masks.checks import check_masks
from ..wrapped import unwraps
from .costs import attention_in_parts
from .coupling import cannot_follow, check_layers
from .equality import compare_outputs, in_float64, moved_like
from .needed import fold_constants_, needed_atoms, warn_of_what_stays
from .resizing import resize_
from .tracing import traced


@unwraps
def compact(model: nn.Module, masks: dict[str, Tensor] | None, example_input) -> nn.Module:
    """Return a copy of the model from which dead filters and neurons are cut out.

    Its outputs in evaluation mode are those of the masked model: ``W * mask`` in place of W.

    A channel goes where none of its readers needs it. Either it no longer depends on the input: its
    filter is masked, and so is every other writer of a residual stream. Or the weights that read it
    are all zero. What such a channel still emits (its bias, the shift of its BatchNorm) is a
    constant, and is folded into the biases of its readers. So go filters and neurons, whole groups
    of grouped convolutions, channels of streams with all that scales and shifts them, heads of
    attention and their dimensions, and the width of embeddings. A LayerNorm or an RMSNorm of which
    channels go keeps the statistics of the whole width.

    A dead channel stays, and a warning says so and why: where a convolution with zero padding reads
    it, which sees the constant end at the border; where something else is added to it; where the
    code of a module takes a size for granted. With the masks of :func:`dslbi_torch.whole_filters` a
    removed filter emits 0, which no border cuts and which a gate (a product with another
    activation) leaves 0.

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
    example_input : Tensor, or tuple or dict of tensors
        A batch of at least one example, of any values: what the model is called with. Whole numbers
        (token ids, masks) are taken as choices.

    Returns
    -------
    Module
        Of the same classes as the model, with smaller layers; a LayerNorm of which channels went is
        a :class:`dslbi_torch.surgery.whole_norm.WholeLayerNorm`.

    Raises
    ------
    ValueError
        For masks of another model (or of this one before it was compacted), a layer of which all
        filters are dead, and a model that cannot be followed, which is found out by comparing the
        outputs of the net and of all its layers, in float64.
    """
    return _compacted(model, masks, example_input)[0]


@unwraps
def compact_with_masks(
    model: nn.Module, masks: dict[str, Tensor], example_input
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
    small, left = _compacted(model, masks, example_input)
    _check_masked(model, masks, left)
    parameters, of_small = dict(small.named_parameters()), {}
    for name, mask in masks.items():
        # A masked bias that is not zero has taken up the constants that were cut.
        folded = parameters[name].detach() != 0
        of_small[name] = _left_of(mask.to(folded.device), left.get(name, ())) | folded
    return small, of_small


def _left_of(x, cut):
    """What is left of a tensor of the shape of a parameter of the whole net."""
    for axis, index in cut:
        x = x.index_select(axis, index.to(x.device))
    return x


def _check_masked(model, masks, left):
    """Refuse what went though its mask keeps it: it was zero itself."""
    for name, p in model.named_parameters():
        owner, _, key = name.rpartition(".")
        if key != "weight" or not isinstance(model.get_submodule(owner), (*LAYERS, NORM)):
            continue
        mask = masks.get(name, torch.ones_like(p, dtype=torch.bool)).to(p.device)
        alive = mask & (p != 0)
        shape = _left_of(p, left.get(name, ())).shape
        for axis, kept in left.get(name, ()):
            gone = torch.ones(p.shape[axis], dtype=torch.bool, device=p.device)
            gone[kept] = False
            rest = [d for d in range(p.ndim) if d != axis]
            by_mask, now = ((x.any(rest) if rest else x) for x in (mask, alive))
            if count := int((gone & by_mask & ~now).sum()):
                due = [n + count * (d == axis) for d, n in enumerate(shape)]
                raise ValueError(
                    "the net must have no dead filters but those that the masks remove, but of "
                    f"{name} {tuple(shape)} would be left, not {tuple(due)}"
                )


def _compacted(model, masks, example_input):
    """The small net, and what is left of the tensors that were cut."""
    _check_example(example_input)
    check_layers(model)
    masked = copy.deepcopy(model)
    if masks is not None:
        apply_masks_(masked, masks)
    masked, x = in_float64(masked, example_input)
    with evaluating(masked), attention_in_parts():
        whole = replace_padding(masked, x)
        small, left = _cut_until_it_runs(masked, whole, traced(whole, x), x)
    for name, module in model.named_modules():
        small.get_submodule(name).training = module.training
    return moved_like(small, model), left


def _check_example(x):
    tensors = tensors_of(x)
    for part in tensors:
        if isinstance(x, Tensor) and (x.ndim < 2 or not x.is_floating_point() and x.ndim > 2):
            break
        if not part.ndim or not len(part):
            break
    else:
        return
    raise ValueError(
        "example_input must hold at least one example of floating-point numbers (or token ids) "
        f"along its first axis, got shape {tuple(part.shape)} and {part.dtype}"
    )


def replace_padding(model, x):
    """Return a copy with ``as_convolution`` of the modules that offer it in their place, frozen;
    the model itself where none does."""
    found, handles = {}, []
    for name, module in model.named_modules():
        if hasattr(module, "as_convolution"):
            handles.append(
                module.register_forward_pre_hook(
                    lambda m, inputs, name=name: found.__setitem__(name, inputs[0].shape[1])
                )
            )
    if not handles:
        return model
    with torch.no_grad():
        call(model, x)
    for handle in handles:
        handle.remove()
    model = sharing_copy(model)
    reference = next(model.parameters())
    for name, channels in found.items():
        conv = model.get_submodule(name).as_convolution(channels)
        conv.requires_grad_(False).train(model.training)
        model.set_submodule(name, conv.to(reference.device, reference.dtype))
    return model


def sharing_copy(model):
    """Return a copy of a model that has its tensors in common with it."""
    tensors = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(x): x for x in tensors})


def _cut_until_it_runs(masked, whole, trace, x):
    """Cut all that can go; where the code of a module takes a size for granted, leave that."""
    before = failed = None
    while True:
        kept = needed_atoms(trace)
        if before is not None and (kept == before).all() and not trace.sizes:
            raise failed if isinstance(failed, ValueError) else cannot_follow(failed) from failed
        before, small = kept, sharing_copy(whole)
        left = resize_(small, trace, kept)
        fold_constants_(small, trace, kept)
        layers = [name for name, m in small.named_modules() if isinstance(m, LAYERS)]
        units = {name: (_units_left(trace, left, name), None) for name in layers}
        stack = []
        try:
            with torch.no_grad(), watched(small, stack):
                call(small, x)
            compare_outputs(masked, small, x, units)
        except Exception as error:
            failed = error
            _give_way(trace, stack)
        else:
            warn_of_what_stays(trace, kept)
            return small, left


def _units_left(trace, left, name):
    """Which units of a layer are left; None for all."""
    layer = trace.model.get_submodule(name)
    return dict(left.get(trace.weights[layer.weight], ())).get(unit_axis(layer, "weight"))


@contextmanager
def watched(model, stack):
    """Keep the names of the modules that run in a list; after an exception they are left there."""
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: stack.append(name)))
        handles.append(module.register_forward_hook(lambda *_: stack.pop() and None))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _give_way(trace, stack):
    """Keep what the innermost module that failed makes of axes, in all modules of its type; if that
    was not it, what is passed on there; where nothing failed but the outputs are others, all."""
    named = dict(trace.model.named_modules())
    kinds = [type(named[name]) for name in reversed(stack)]
    for noted in (trace.shapes, trace.sizes):
        noting = {type(module) for module in noted}
        held = [k for k in kinds if k in noting and (noted is trace.shapes or k not in _PASSING)]
        if held:
            return _keep(trace, noted, held[0])
    _keep(trace, trace.shapes if trace.shapes else trace.sizes, nn.Module)


_PASSING = (nn.Linear, nn.LayerNorm)  # to which it matters what they are given only


def _keep(trace, noted, kind):
    """Pin the axes that are noted of the modules of a type."""
    for module in [module for module in noted if isinstance(module, kind)]:
        name, word = trace.names[module] or "the model", type(module).__name__
        first = trace.told.setdefault(word, name)
        reason = f"the code of {first} ({word}) takes their number for granted"
        for atoms in noted.pop(module):
            trace.relations.pin(atoms, reason)

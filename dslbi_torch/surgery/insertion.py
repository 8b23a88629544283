"""What is inserted into the tensors of a net, and where, so that a layer has more units."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..layers import CONV, LAYERS, NORM, TRANSPOSED, count_units, unit_axis
from ..state import states_alike
from .coupling import cannot_follow, is_grouped, is_operation, shared_modules


class Insertion(NamedTuple):
    """Values that a tensor gets along an axis, before the index ``at``."""

    module: str
    tensor: str
    dim: int
    at: int
    values: Tensor


def insertions(model, graph, name, count, draw):
    """Return the insertions that give a layer ``count`` more units; None for an output of the net.

    ``draw`` draws the parameters of a layer that it is given, in place.

    Raises
    ------
    ValueError
        Where a module that the units go through is shared, or cannot be given more.
    """
    layer = model.get_submodule(name)
    names = {module: n for n, module in model.named_modules()}
    handler = graph.get_pruner_of_module(layer).prune_out_channels
    # Where the last unit lies in every tensor, the new ones come to lie after it.
    group = graph.get_pruning_group(layer, handler, [count_units(layer) - 1])
    plan, seen, tied = [], set(), shared_modules(model)
    for item in group:
        node, module = item.dep.target, item.dep.target.module
        writes = graph.is_out_channel_pruning_fn(item.dep.handler)
        if writes and not node.outputs:
            return None
        if is_operation(module):
            continue
        fits = isinstance(module, (*LAYERS, NORM)) and not is_grouped(module)
        if not fits or module in tied:
            kind = names.get(module, graph._param_to_name.get(module)), type(module).__name__
            raise ValueError(
                f"{name} cannot be widened: its units go through {kind[0]} ({kind[1]}), which is "
                "shared, or cannot be given more"
            )
        first, size = item.idxs[0], len(item.idxs)
        if list(item.idxs) != list(range(first, first + size)):
            raise cannot_follow(f"the inputs of {names[module]} from one unit do not lie together")
        key = module, writes or isinstance(module, NORM), first
        if key in seen:
            continue
        seen.add(key)
        at = first + size
        if isinstance(module, NORM) or writes:
            plan += _new_units(module, names[module], at, count, draw)
        else:
            plan.append(_new_inputs(module, names[module], at, count * size))
    return plan


def read_and_written(plan):
    """Return the name of a module that both reads and writes the new units, or None.

    A tensor of it would grow along two axes at once.
    """
    axes = {}
    for i in plan:
        if axes.setdefault((i.module, i.tensor), i.dim) != i.dim:
            return i.module
    return None


def _new_units(module, name, at, count, draw):
    """New units of a layer or a BatchNorm."""
    fresh = copy.deepcopy(module)
    own = dict(fresh.named_parameters()) | dict(fresh.named_buffers())
    dims = {key: unit_axis(module, key) for key, x in own.items() if x.ndim}
    for key, dim in dims.items():
        shape = list(own[key].shape)
        shape[dim] = count
        _replace_(fresh, key, _inserted(own[key], dim, at, own[key].new_zeros(shape)))
    _fit_sizes_(fresh)
    if isinstance(module, NORM):
        fresh.reset_parameters()
    elif module.weight.requires_grad:
        draw(fresh)
    return [
        Insertion(name, key, dim, at, getattr(fresh, key).detach().narrow(dim, at, count).clone())
        for key, dim in dims.items()
    ]


def _new_inputs(layer, name, at, count):
    """New inputs of a layer, of weight zero."""
    dim = 0 if isinstance(layer, TRANSPOSED) else 1
    shape = list(layer.weight.shape)
    shape[dim] = count
    return Insertion(name, "weight", dim, at, layer.weight.detach().new_zeros(shape))


def is_parameter(model, insertion):
    """Return whether values are inserted into a parameter, and not into a buffer."""
    own = getattr(model.get_submodule(insertion.module), insertion.tensor)
    return isinstance(own, nn.Parameter)


def is_written(model, insertion):
    """Return whether an insertion gives new units to the weight of a layer."""
    module = model.get_submodule(insertion.module)
    written = insertion.dim == unit_axis(module, insertion.tensor)
    return isinstance(module, LAYERS) and insertion.tensor == "weight" and written


def old_units(model, plans):
    """Return, for every layer, the places of its present units after the plans."""
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, LAYERS)]
    places = {name: torch.arange(count_units(layer)) for name, layer in layers}
    for plan in plans:
        for i in sorted(plan, key=lambda i: -i.at):
            if is_written(model, i):
                places[i.module] += i.values.shape[i.dim] * (places[i.module] >= i.at)
    return places


@torch.no_grad()
def insert_(model, plan, optimizer=None):
    """Carry out a plan on a model, and on an optimizer's groups and states."""
    by_tensor = {}
    for i in plan:
        by_tensor.setdefault((i.module, i.tensor), []).append(i)
    replaced = {}
    for (name, key), own in by_tensor.items():
        module = model.get_submodule(name)
        old = getattr(module, key)
        new = old.detach()
        states = {} if optimizer is None else states_alike(optimizer, old)
        for i in sorted(own, key=lambda i: -i.at):
            new = _inserted(new, i.dim, i.at, i.values)
            for state, value in states.items():
                zeros = torch.zeros_like(i.values, dtype=value.dtype, device=value.device)
                states[state] = _inserted(value, i.dim, i.at, zeros)
        _replace_(module, key, new)
        if isinstance(old, nn.Parameter):
            replaced[old] = getattr(module, key)
            if optimizer is not None and old in optimizer.state:
                optimizer.state[replaced[old]] = {**optimizer.state.pop(old), **states}
    for name in {i.module for i in plan}:
        _fit_sizes_(model.get_submodule(name))
    for group in optimizer.param_groups if optimizer is not None else ():
        group["params"][:] = [replaced.get(p, p) for p in group["params"]]


def _inserted(x, dim, at, values):
    """A tensor with values inserted along an axis, laid out in memory as before."""
    before, after = x.detach().split([at, x.shape[dim] - at], dim)
    joined = torch.cat([before, values.to(x), after], dim)
    if x.ndim == 4 and not x.is_contiguous():
        joined = joined.contiguous(memory_format=torch.channels_last)
    return joined


def _replace_(module, key, value):
    """Replace a parameter or a buffer."""
    old = getattr(module, key)
    if isinstance(old, nn.Parameter):
        value = nn.Parameter(value, requires_grad=old.requires_grad)
    setattr(module, key, value)


def _fit_sizes_(module):
    """Let the sizes of a module be those of its tensors."""
    if isinstance(module, NORM):
        sized = module.running_mean if module.weight is None else module.weight
        module.num_features = len(sized)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, CONV):
        if module.groups > 1:  # depthwise
            module.in_channels = module.out_channels = module.groups = len(module.weight)
        else:
            sizes = module.weight.shape[:2]
            module.out_channels, module.in_channels = (
                sizes[::-1] if isinstance(module, TRANSPOSED) else sizes
            )

"""More units in the layers of a net, in the middle of its training, without a change of what it
computes.

The counterpart of :func:`dslbi_torch.compact`: what else must grow with a layer (its BatchNorm, the
columns of its readers, other writers of a residual stream) is found by the same dependency graph.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..forward import evaluating
from ..layers import CONV, LAYERS, NORM, TRANSPOSED, count_units
from ..masks.hold import check_none_held, check_stepped
from ..tensors import states_alike
from .coupling import check_layers, dependency_graph, is_grouped, is_operation, lost, shared_modules
from .equality import compare_outputs, in_float64


class Width(NamedTuple):
    """A number of units that can be changed on its own."""

    layers: tuple[str, ...]  # that write these units: several, where a residual stream is written
    units: int
    cost: int  # parameters that one more unit adds to the net


class _Insertion(NamedTuple):
    """Values that a tensor gets along an axis, before the index ``at``."""

    module: str
    tensor: str
    dim: int
    at: int
    values: Tensor


def reset(layer: nn.Module) -> None:
    """Draw the parameters of a layer as it does when it is made."""
    layer.reset_parameters()


def widths(model: nn.Module, example_input: Tensor) -> list[Width]:
    """All widths of a net, in its order; the outputs of the net are none, nor is a residual stream
    that some layer both reads and writes, of which a unit costs the more the more come at once.

    Raises
    ------
    ValueError
        For a net that the dependency graph cannot follow.
    """
    model = copy.deepcopy(model)
    found, seen = [], set()
    with evaluating(model):
        graph = _graph(model, example_input)
        for name, layer in model.named_modules():
            if not isinstance(layer, LAYERS) or name in seen:
                continue
            plan = _plan(model, graph, name, 1, lambda layer: None)
            if plan is None or _reads_itself(plan):
                continue
            layers = tuple(dict.fromkeys(i.module for i in plan if _is_written(model, i)))
            seen.update(layers)
            cost = sum(i.values.numel() for i in plan if _is_parameter(model, i))
            found.append(Width(layers, count_units(layer), cost))
    return found


@torch.no_grad()
def widen_(
    model: nn.Module,
    optimizer: Optimizer,
    more: dict[str, int],
    example_input: Tensor,
    *,
    draw: Callable[[nn.Module], None] = reset,
) -> None:
    """Give layers more units, in place; the net computes what it did before, and trains on.

    What comes in is drawn anew, what goes out is zero: a new filter (neuron) gets fresh weights,
    and the weights with which other layers read it begin at zero. So in evaluation and in training
    mode the outputs are the same, up to the rounding of longer sums; the outgoing weights receive a
    gradient in the first step, and the incoming ones from the second on. Old units keep their
    weights, their BatchNorm statistics, and their part of every state of the optimizer that has the
    shape of the weights (momenta, V), bit for bit; of new units these states are zero, so Gamma is
    zero, and they have to enter the path as all others did.

    Parameters
    ----------
    model : Module
        New units come after the old ones of their layer. Parameters that grow are new objects,
        without a gradient; scheduler and groups of the optimizer stay as they are.
    optimizer : Optimizer
        Any; its groups and states are made to fit.
    more : dict
        Units to add, by the name of a layer that writes them (``{"conv1": 2}``). A unit of a
        residual stream is added to all that write the stream.
    example_input : Tensor
        A batch of at least one example.
    draw : callable
        Draws the parameters of the layer that it is given, in place.

    Raises
    ------
    ValueError
        For an unknown layer, fewer than one unit, the layer that gives the outputs of the net,
        weights that are shared, masked, frozen or trained by another optimizer, a state of the
        optimizer of another shape than its weights, and a net that the dependency graph cannot
        follow or whose outputs would change. Nothing has changed then.

    Notes
    -----
    New channels of what is not trained (``requires_grad=False``: a shortcut that pads) are zero.
    Where a reader's rows are groups with ``weight="sqrt"``, their level grows with their size, so a
    selected row may leave the support. A recorder must be attached anew, since its arrays have the
    old shapes.

    Difference from the authors' code, which copies named parameters into a new net: there new units
    change the outputs at once, and running statistics, V and momentum are lost.
    """
    check_layers(model)
    for name, count in more.items():
        if isinstance(count, bool) or not (isinstance(count, int) and count >= 1):
            raise ValueError(f"more must be whole numbers of at least 1, got {count!r} for {name}")
        if not isinstance(dict(model.named_modules()).get(name), LAYERS):
            layers = [n for n, m in model.named_modules() if isinstance(m, LAYERS)]
            raise ValueError(f"more must name layers among {', '.join(layers)}, got {name!r}")
    wider, plans = copy.deepcopy(model), []
    with evaluating(wider):
        for name, count in more.items():
            plan = _plan(wider, _graph(wider, example_input), name, count, draw)
            if plan is None:
                raise ValueError(f"{name} must keep its units, which are the outputs of the net")
            if itself := _reads_itself(plan):
                raise ValueError(
                    f"{name} cannot be widened: {itself} both reads and writes its units"
                )
            try:
                _insert(wider, plan)
            except RuntimeError as error:
                raise lost(error) from None
            plans.append(plan)
    places = _old_units(model, plans).items()
    (exact, x), (changed, _) = (in_float64(net, example_input) for net in (model, wider))
    compare_outputs(exact, changed, x, {name: (None, old) for name, old in places})
    touched = {f"{i.module}.{i.tensor}".lstrip(".") for plan in plans for i in plan}
    parameters = {name: p for name, p in model.named_parameters() if name in touched}
    check_none_held(model, parameters)
    check_stepped(optimizer, parameters, "widened")
    for name, p in parameters.items():
        _check_states(optimizer, name, p)
    for plan in plans:
        _insert(model, plan, optimizer)


# What is inserted where


def _graph(model, x):
    """The dependency graph, through what is not trained as well."""
    frozen = [p for p in model.parameters() if not p.requires_grad]
    try:
        for p in frozen:
            p.requires_grad_(True)
        return dependency_graph(model, x)
    finally:
        for p in frozen:
            p.requires_grad_(False)


def _plan(model, graph, name, count, draw):
    """The insertions that give a layer ``count`` more units; None for an output of the net."""
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
            raise lost(f"the inputs of {names[module]} from one unit do not lie together")
        key = module, writes or isinstance(module, NORM), first
        if key in seen:
            continue
        seen.add(key)
        at = first + size
        if isinstance(module, NORM) or writes:
            plan += _written(module, names[module], at, count, draw)
        else:
            plan.append(_read(module, names[module], at, count * size))
    return plan


def _reads_itself(plan):
    """The module of which a tensor would grow along two axes at once, or None."""
    axes = {}
    for i in plan:
        if axes.setdefault((i.module, i.tensor), i.dim) != i.dim:
            return i.module
    return None


def _written(module, name, at, count, draw):
    """New units of a layer or a BatchNorm."""
    fresh = copy.deepcopy(module)
    own = dict(fresh.named_parameters()) | dict(fresh.named_buffers())
    dims = {key: _unit_axis(module, key) for key, x in own.items() if x.ndim}
    for key, dim in dims.items():
        shape = list(own[key].shape)
        shape[dim] = count
        _set(fresh, key, _inserted(own[key], dim, at, own[key].new_zeros(shape)))
    _set_sizes(fresh)
    if isinstance(module, NORM):
        fresh.reset_parameters()
    elif module.weight.requires_grad:
        draw(fresh)
    return [
        _Insertion(name, key, dim, at, getattr(fresh, key).detach().narrow(dim, at, count).clone())
        for key, dim in dims.items()
    ]


def _read(layer, name, at, count):
    """New inputs of a layer, of weight zero."""
    dim = 0 if isinstance(layer, TRANSPOSED) else 1
    shape = list(layer.weight.shape)
    shape[dim] = count
    return _Insertion(name, "weight", dim, at, layer.weight.detach().new_zeros(shape))


def _unit_axis(module, key):
    """The axis of a tensor along which the units of its module lie."""
    return 1 if key == "weight" and isinstance(module, TRANSPOSED) and module.groups == 1 else 0


def _is_parameter(model, insertion):
    own = getattr(model.get_submodule(insertion.module), insertion.tensor)
    return isinstance(own, nn.Parameter)


def _is_written(model, insertion):
    module = model.get_submodule(insertion.module)
    written = insertion.dim == _unit_axis(module, insertion.tensor)
    return isinstance(module, LAYERS) and insertion.tensor == "weight" and written


def _old_units(model, plans):
    """Of every layer, where its units of now lie after the plans."""
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, LAYERS)]
    places = {name: torch.arange(count_units(layer)) for name, layer in layers}
    for plan in plans:
        for i in sorted(plan, key=lambda i: -i.at):
            if _is_written(model, i):
                places[i.module] += i.values.shape[i.dim] * (places[i.module] >= i.at)
    return places


# Insertion


@torch.no_grad()
def _insert(model, plan, optimizer=None):
    """Carry out a plan on a model, and on an optimizer's groups and states."""
    by_tensor = {}
    for i in plan:
        by_tensor.setdefault((i.module, i.tensor), []).append(i)
    replaced = {}
    for (name, key), insertions in by_tensor.items():
        module = model.get_submodule(name)
        old = getattr(module, key)
        new = old.detach()
        states = {} if optimizer is None else states_alike(optimizer, old)
        for i in sorted(insertions, key=lambda i: -i.at):
            new = _inserted(new, i.dim, i.at, i.values)
            for state, value in states.items():
                zeros = torch.zeros_like(i.values, dtype=value.dtype, device=value.device)
                states[state] = _inserted(value, i.dim, i.at, zeros)
        _set(module, key, new)
        if isinstance(old, nn.Parameter):
            replaced[old] = getattr(module, key)
            if optimizer is not None and old in optimizer.state:
                optimizer.state[replaced[old]] = {**optimizer.state.pop(old), **states}
    for name in {i.module for i in plan}:
        _set_sizes(model.get_submodule(name))
    for group in optimizer.param_groups if optimizer is not None else ():
        group["params"][:] = [replaced.get(p, p) for p in group["params"]]


def _check_states(optimizer, name, W):
    """Refuse a state that is neither of the shape of its weight nor a number."""
    for key, value in optimizer.state.get(W, {}).items():
        if isinstance(value, Tensor) and value.numel() > 1 and value.shape != W.shape:
            raise ValueError(
                f"the state {key} of {name} must have its shape {tuple(W.shape)} to be widened, "
                f"got {tuple(value.shape)}"
            )


def _inserted(x, dim, at, values):
    """A tensor with values inserted along an axis, laid out in memory as before."""
    before, after = x.detach().split([at, x.shape[dim] - at], dim)
    joined = torch.cat([before, values.to(x), after], dim)
    if x.ndim == 4 and not x.is_contiguous():
        joined = joined.contiguous(memory_format=torch.channels_last)
    return joined


def _set(module, key, value):
    """Replace a parameter or a buffer."""
    old = getattr(module, key)
    if isinstance(old, nn.Parameter):
        value = nn.Parameter(value, requires_grad=old.requires_grad)
    setattr(module, key, value)


def _set_sizes(module):
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

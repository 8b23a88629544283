"""More units in the layers of a net, in the middle of its training; what it computes stays.

The counterpart of :func:`dslbi_torch.compact`: what else must grow with a layer (its BatchNorm, the
columns of its readers, other writers of a residual stream) is found by the same dependency graph.
"""

import copy
from collections.abc import Callable
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..arguments import check_kind, check_model, check_optimizer, shown
from ..forward import evaluating
from ..layers import LAYERS, count_units
from ..masks.hold import check_none_held, check_stepped
from ..wrapped import unwraps
from .coupling import cannot_follow, check_layers, dependency_graph
from .equality import compare_outputs, in_float64
from .insertion import (
    insert_,
    insertions,
    is_parameter,
    is_written,
    old_units,
    read_and_written,
)

MOST_UNITS = 10**6  # a layer of more would not fit into a memory


class Width(NamedTuple):
    """A number of units that can be changed on its own."""

    layers: tuple[str, ...]  # that write these units: several, where a residual stream is written
    units: int
    cost: int  # parameters that one more unit adds to the net


def reset(layer: nn.Module) -> None:
    """Draw the parameters of a layer as it does when it is made."""
    layer.reset_parameters()


@unwraps
def widths(model: nn.Module, example_input: Tensor) -> list[Width]:
    """Return all widths of a net, in its order.

    The outputs of the net are no width. Nor is a residual stream that some layer both reads and
    writes: the more units come at once, the more each of them would cost.

    Raises
    ------
    ValueError
        For a net that the dependency graph cannot follow.
    """
    model = copy.deepcopy(check_model(model))
    found, seen = [], set()
    with evaluating(model):
        graph = _graph(model, example_input)
        for name, layer in model.named_modules():
            if not isinstance(layer, LAYERS) or name in seen:
                continue
            plan = insertions(model, graph, name, 1, lambda layer: None)
            if plan is None or read_and_written(plan):
                continue
            layers = tuple(dict.fromkeys(i.module for i in plan if is_written(model, i)))
            seen.update(layers)
            cost = sum(i.values.numel() for i in plan if is_parameter(model, i))
            found.append(Width(layers, count_units(layer), cost))
    return found


@unwraps
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
    _check_more(model, more)
    check_optimizer(optimizer)
    check_kind("draw", draw, callable, "callable")
    wider, plans = copy.deepcopy(model), []
    with evaluating(wider):
        for name, count in more.items():
            plans.append(_plan(wider, example_input, name, count, draw))
            try:
                insert_(wider, plans[-1])
            except RuntimeError as error:
                raise cannot_follow(error) from error
    places = old_units(model, plans).items()
    (exact, x), (changed, _) = (in_float64(net, example_input) for net in (model, wider))
    compare_outputs(exact, changed, x, {name: (None, old) for name, old in places})
    touched = {f"{i.module}.{i.tensor}".lstrip(".") for plan in plans for i in plan}
    parameters = {name: p for name, p in model.named_parameters() if name in touched}
    check_none_held(model, parameters)
    check_stepped(optimizer, parameters, "widened")
    for name, p in parameters.items():
        _check_states(optimizer, name, p)
    for plan in plans:
        insert_(model, plan, optimizer)


def _check_more(model, more):
    """Refuse what are not numbers of units to add, by the names of layers."""
    check_layers(model)
    check_kind("more", more, dict, "a dict of numbers of units by layer")
    for name, count in more.items():
        if isinstance(count, bool) or not (isinstance(count, Integral) and count >= 1):
            raise ValueError(
                f"more must be whole numbers of at least 1, got {shown(count)} for {name}"
            )
        if count > MOST_UNITS:
            raise ValueError(f"more must be at most {MOST_UNITS:,}, got {shown(count)} for {name}")
        if not isinstance(dict(model.named_modules()).get(name), LAYERS):
            layers = [n for n, m in model.named_modules() if isinstance(m, LAYERS)]
            raise ValueError(f"more must name layers among {', '.join(layers)}, got {name!r}")


def _plan(model, x, name, count, draw):
    """The insertions that give a layer more units, as the model is now."""
    plan = insertions(model, _graph(model, x), name, count, draw)
    if plan is None:
        raise ValueError(f"{name} must keep its units, which are the outputs of the net")
    if itself := read_and_written(plan):
        raise ValueError(f"{name} cannot be widened: {itself} both reads and writes its units")
    return plan


def _check_states(optimizer, name, W):
    """Refuse a state that is neither of the shape of its weight nor a number."""
    for key, value in optimizer.state.get(W, {}).items():
        if isinstance(value, Tensor) and value.numel() > 1 and value.shape != W.shape:
            raise ValueError(
                f"the state {key} of {name} must have its shape {tuple(W.shape)} to be widened, "
                f"got {tuple(value.shape)}"
            )


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

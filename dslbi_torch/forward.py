"""One forward pass of a model: in evaluation mode, on an example, and what it shows."""

from collections.abc import Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .arguments import check_model
from .layers import LAYERS, NORM
from .text import one_line

_LISTS, _PLAIN = (tuple, list), (bool, int, float, str, type(None))


@contextmanager
def evaluating(model: nn.Module):
    """Put a model in evaluation mode within the block; every module has its own mode after it."""
    modes = [(module, module.training) for module in check_model(model).modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def call(model: nn.Module, x):
    """Return what a model makes of an example: one tensor, a tuple of them, or a dict by name."""
    if isinstance(x, Mapping):
        return model(**x)
    return model(*x) if isinstance(x, _LISTS) else model(x)


def tensors_of(x) -> list[Tensor]:
    """Return the tensors of an example.

    Raises
    ------
    ValueError
        Where it has none, or something else beside them.
    """
    parts = list(x.values() if isinstance(x, Mapping) else x if isinstance(x, _LISTS) else [x])
    found = [part for part in parts if isinstance(part, Tensor)]
    odd = [part for part in parts if not isinstance(part, (Tensor, *_PLAIN))]
    if odd or not found:
        what = type((odd or parts or [x])[0]).__name__
        raise ValueError(
            f"example_input must be a tensor, got a {what} (a tuple or a dict of tensors will do)"
        )
    return found


def examples_in(x) -> int:
    """Return how many examples a batch holds: the length of its first tensor that has an axis."""
    count = next((len(part) for part in tensors_of(x) if part.ndim), 0)
    if not count:
        raise ValueError("example_input must hold at least one example, got none")
    return count


def map_tensors(change, x):
    """Return an example with every tensor of it changed."""
    if isinstance(x, Mapping):
        return {key: map_tensors(change, part) for key, part in x.items()}
    if isinstance(x, _LISTS):
        return tuple(map_tensors(change, part) for part in x)
    return change(x) if isinstance(x, Tensor) else x


@torch.no_grad()
def run_example(model: nn.Module, example_input) -> None:
    """Run a model once, in evaluation mode.

    Raises
    ------
    ValueError
        Where the model does not take the example.
    """
    shapes = [tuple(part.shape) for part in tensors_of(example_input)]
    with evaluating(model):
        try:
            call(model, example_input)
        except Exception as error:
            raise ValueError(
                f"the model must take example_input of shape {', '.join(map(str, shapes))}, "
                f"but: {one_line(error)}"
            ) from error


def layers_and_norms(
    model: nn.Module, example_input: Tensor
) -> list[tuple[nn.Module, nn.Module | None]]:
    """Return the layers that one forward pass calls, and the BatchNorms that take their outputs.

    Each call of a layer is a pair ``(layer, None)``; each BatchNorm that takes the output of a
    layer is a pair ``(layer, norm)``. A BatchNorm is left out if it takes anything else too, or if
    its channels are not the units of the layer: those of a linear layer lie along the last axis,
    and a BatchNorm behind tokens scales the axis before it.
    """
    outputs, pairs, strangers, handles = [], [], set(), []

    def after(layer, _, output):
        outputs.append((output, layer))
        pairs.append((layer, None))

    def before(norm, inputs, named):
        x = inputs[0] if inputs else named["input"]
        found = [layer for y, layer in outputs if y is x and x.ndim == layer.weight.ndim]
        pairs.extend((layer, norm) for layer in found)
        if not found:
            strangers.add(norm)

    for module in model.modules():
        if isinstance(module, LAYERS):
            handles.append(module.register_forward_hook(after))
        elif isinstance(module, NORM):
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
    try:
        run_example(model, example_input)
    finally:
        for handle in handles:
            handle.remove()
    return [(layer, norm) for layer, norm in pairs if norm not in strangers]

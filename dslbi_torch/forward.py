"""One forward pass of a model: in evaluation mode, on an example, and what it shows."""

from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .layers import LAYERS, NORM
from .text import one_line


@contextmanager
def evaluating(model: nn.Module):
    """Put a model in evaluation mode within the block; every module has its own mode after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def run_example(model: nn.Module, example_input: Tensor) -> None:
    """Run a model once, in evaluation mode.

    Raises
    ------
    ValueError
        Where the model does not take the example.
    """
    if not isinstance(example_input, Tensor):
        raise ValueError(f"example_input must be a tensor, got a {type(example_input).__name__}")
    with evaluating(model):
        try:
            model(example_input)
        except Exception as error:
            raise ValueError(
                f"the model must take example_input of shape {tuple(example_input.shape)}, "
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

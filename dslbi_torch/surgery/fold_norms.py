"""Batch norm folded into the layer before it: fewer passes over memory, for inference only."""

import copy

import torch
from torch import Tensor, nn

from ..forward import layers_and_norms
from ..layers import LAYERS, TRANSPOSED
from ..wrapped import unwraps
from .equality import compare_outputs, in_float64, moved_like


@unwraps
def fold_norms(model: nn.Module, example_input: Tensor) -> nn.Module:
    """Return a copy in evaluation mode with each BatchNorm folded into the layer before it.

    In evaluation mode a BatchNorm with running statistics is a scale and a shift of every channel.
    The weights and the bias of the convolution or linear layer whose output it takes can do both,
    and :class:`torch.nn.Identity` takes its place; of a norm that carries its activation (a class
    derived from a BatchNorm, with modules in it) the activation. The copy is for inference, and
    cannot be trained on as the model could: export it
    (:func:`dslbi_torch.surgery.saving.save_program`, :func:`dslbi_torch.surgery.saving.save_onnx`).

    Parameters
    ----------
    model : Module
        Left as it is.
    example_input : Tensor
        What the model takes: one forward pass shows which BatchNorm follows which layer.

    Raises
    ------
    ValueError
        For a model without such a BatchNorm, and one in which the output of such a layer is also
        read by something else, or a layer is called twice: found out by comparing outputs.
    """
    exact, x = in_float64(model, example_input)
    folded = copy.deepcopy(exact).eval()
    names = {module: name for name, module in folded.named_modules()}
    pairs = [(layer, norm) for layer, norm in layers_and_norms(folded, x) if _folds(norm)]
    if not pairs:
        raise ValueError("model must have a BatchNorm that takes the output of a layer, has none")
    for layer, norm in pairs:
        _fold_norm_(layer, norm)
        folded.set_submodule(names[norm], _rest_of(norm))
    layers = {m for m in names if isinstance(m, LAYERS)} - {layer for layer, _ in pairs}
    compared = {names[module]: (None, None) for module in layers | {norm for _, norm in pairs}}
    compare_outputs(exact, folded, x, compared, _read_elsewhere)
    return moved_like(folded, model)


@unwraps
def has_foldable(model: nn.Module, example_input: Tensor) -> bool:
    """Return whether a model has a BatchNorm that takes the output of a layer."""
    return any(_folds(norm) for _, norm in layers_and_norms(model, example_input))


@torch.no_grad()
def _fold_norm_(layer, norm):
    """Change a layer so that it gives what the BatchNorm makes of its output."""
    mean, scale = norm.running_mean, (norm.running_var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -mean * scale if norm.bias is None else norm.bias - mean * scale
    W, ones = layer.weight, [1] * (layer.weight.ndim - 2)
    if isinstance(layer, TRANSPOSED):  # within each group the outputs are numbered from 0
        W = W.unflatten(0, (layer.groups, -1)) * scale.view(layer.groups, 1, -1, *ones)
        W = W.flatten(0, 1)
    else:
        W = W * scale.view(-1, 1, *ones)
    bias = shift if layer.bias is None else layer.bias * scale + shift
    trained = layer.weight.requires_grad
    layer.weight, layer.bias = nn.Parameter(W, trained), nn.Parameter(bias, trained)


def _read_elsewhere(reason):
    return ValueError(
        f"model must use the output of a layer before a BatchNorm there only, and once: {reason}"
    )


def _folds(norm):
    if norm is None or norm.running_mean is None:
        return False
    return _is_plain(norm) or any(True for _ in norm.children())


def _is_plain(norm):
    """Whether a norm does what torch's do, and nothing behind it."""
    return any(type(norm).forward is kind.forward for kind in _OF_TORCH)


_OF_TORCH = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def _rest_of(norm):
    """What is left to do where a norm has been folded: the modules that a derived class holds, in
    their order. That it applies them so is seen when outputs are compared."""
    if _is_plain(norm):
        return nn.Identity()
    children = list(norm.children())
    return children[0] if len(children) == 1 else nn.Sequential(*children)

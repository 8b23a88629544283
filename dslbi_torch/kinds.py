"""What the tensors of a model are: weights of convolutions, linear layers, embeddings, outputs.

A tensor may have several owners (tied weights): it is one thing, with several names.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .forward import call, evaluating, run_example
from .layers import own_parameter
from .torch_private import leaves

_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
_KINDS = ("embedding", "conv", "linear", "other")  # of tied weights, the first
# Steps of the gradient between a layer and its weight.
_VIEWS = ("T", "Transpose", "View", "UnsafeView", "Permute", "Unsqueeze", "Expand", "ToCopy")


class Owned(NamedTuple):
    """A tensor of a model, by all its names, with what holds it."""

    names: list[str]
    tensor: Tensor
    module: nn.Module  # of several, the one that says the kind
    kind: str  # "conv", "linear", "embedding" or "other"


def owned_tensors(model: nn.Module) -> list[Owned]:
    """Return every parameter of a model once, in its order."""
    owners = {}
    for prefix, module in model.named_modules():
        for key, p in module.named_parameters(recurse=False):
            row = f"{prefix}.{key}" if prefix else key, module, _kind(module, key)
            owners.setdefault(id(p), (p, []))[1].append(row)
    found = []
    for p, rows in owners.values():
        names, modules, kinds = map(list, zip(*rows, strict=True))
        kind = min(kinds, key=_KINDS.index)
        found.append(Owned(names, p, modules[kinds.index(kind)], kind))
    return found


def _kind(module, key):
    if isinstance(module, nn.MultiheadAttention) and key in _ATTENTION:
        return "linear"
    if key != "weight":
        return "other"
    if isinstance(module, nn.Linear) or is_conv1d_of_hf(module):
        return "linear"
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return "embedding"
    return "conv" if isinstance(module, _CONV) else "other"


def is_conv1d_of_hf(module: nn.Module) -> bool:
    """Return whether a module is Hugging Face's ``Conv1D``: a linear layer, its inputs first.

    It is known by its form: the package need not be there.
    """
    W, n = own_parameter(module, "weight"), getattr(module, "nf", None)
    return type(module).__name__ == "Conv1D" and W is not None and W.shape[1:] == (n,)


def inputs_first(module: nn.Module) -> bool:
    """Return whether the first axis of a module's weight is its input."""
    return isinstance(module, _TRANSPOSED) or is_conv1d_of_hf(module)


def output_weights(model: nn.Module, example_input=None) -> list[Tensor]:
    """Return the weights of the layers that give the outputs of a model, as far as they are known.

    A model of Hugging Face or timm may say it (``get_output_embeddings``, ``get_classifier``). Of
    another one the gradient of each output of the example is followed back to the first weights:
    where that is one alone, it gives the output. The outputs of a net without a head come from all
    that writes its residual stream, and no one weight gives them.
    """
    say = [getattr(model, key, None) for key in ("get_output_embeddings", "get_classifier")]
    told = [module for module in (f() for f in say if callable(f)) if isinstance(module, nn.Module)]
    weights = [W for W in (own_parameter(module, "weight") for module in told) if W is not None]
    if weights or example_input is None:
        return weights
    run_example(model, example_input)
    matrices = [own for own in owned_tensors(model) if own.tensor.ndim > 1]
    layers = {id(own.tensor) for own in matrices if own.kind in ("conv", "linear")}
    found = [_first_weights(y, matrices) for y in _outputs_with_gradient(model, example_input)]
    return [Ws[0] for Ws in found if len(Ws) == 1 and id(Ws[0]) in layers]


def _outputs_with_gradient(model, example_input):
    """The outputs of the model, made so that a gradient reaches every weight, frozen ones too."""
    ps = [p for p in model.parameters() if p.is_floating_point()]
    were = [p.requires_grad for p in ps]
    try:
        for p in ps:
            p.requires_grad_(True)
        with evaluating(model), torch.enable_grad():
            outputs = leaves(call(model, example_input))
    finally:
        for p, was in zip(ps, were, strict=True):
            p.requires_grad_(was)
    return [y for y in outputs if isinstance(y, Tensor) and y.grad_fn is not None]


def _first_weights(y, matrices):
    """The weights of more than one axis that are met first on the way back from an output."""
    known, found = {id(own.tensor) for own in matrices}, {}
    seen, ahead = set(), [y.grad_fn]
    while ahead:
        node = ahead.pop()
        if node in seen:
            continue
        seen.add(node)
        before = [f for f, _ in node.next_functions if f is not None]
        own = [W for W in map(_behind_views, before) if id(W) in known]
        found |= {id(W): W for W in own}
        if not own:
            ahead += before
    return list(found.values())


def _behind_views(node):
    """The parameter that a step of the gradient belongs to, if only views lie between."""
    while node.name().removesuffix("Backward0") in _VIEWS:
        (node, _), *_ = node.next_functions
        if node is None:
            return None
    return getattr(node, "variable", None)

"""Batch norm folded into the layer before it: fewer passes over memory, for inference only."""

import copy

from torch import Tensor, nn
from torch.nn.utils import fusion

from .compaction import compare_outputs
from .constants import CONV, TRANSPOSED
from .masking import followed


def fold_norms(model: nn.Module, example_input: Tensor) -> nn.Module:
    """A copy for inference, in evaluation mode, with each BatchNorm folded into the layer before.

    A BatchNorm with running statistics is, in evaluation mode, a scale and a shift of every
    channel; both can be had by the weights and the bias of the convolution or linear layer whose
    output it takes. What takes its place is :class:`torch.nn.Identity`. The copy cannot be trained
    on as the model could: export it (:func:`dslbi_torch.saving.save_program`,
    :func:`dslbi_torch.saving.save_onnx`).

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
    folded = copy.deepcopy(model).eval()
    names = {module: name for name, module in folded.named_modules()}
    pairs = [(layer, norm) for layer, norm in followed(folded, example_input) if _folds(norm)]
    if not pairs:
        raise ValueError("model must have a BatchNorm that takes the output of a layer, has none")
    for layer, norm in pairs:
        if isinstance(layer, CONV):
            fused = fusion.fuse_conv_bn_eval(layer, norm, isinstance(layer, TRANSPOSED))
        else:
            fused = fusion.fuse_linear_bn_eval(layer, norm)
        folded.set_submodule(names[layer], fused)
        folded.set_submodule(names[norm], nn.Identity())
    compare_outputs(model, folded, example_input, _shared)
    return folded


def _shared(reason):
    return ValueError(
        f"model must use the output of a layer before a BatchNorm there only, and once: {reason}"
    )


def _folds(norm):
    return norm is not None and norm.running_mean is not None

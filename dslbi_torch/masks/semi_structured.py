"""2:4 sparsity: of every four weights at most two, for which some GPUs have kernels."""

import copy

import torch
from torch import Tensor, nn

from ..arguments import shown
from ..layers import weight_names
from ..wrapped import unwraps
from .apply import apply_masks_
from .checks import check_masks


def has_kernels(device: torch.device | str) -> bool:
    """Return whether a device multiplies 2:4 sparse matrices.

    NVIDIA GPUs do since the Ampere generation.
    """
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"device must be one of torch, got {shown(device)}") from error
    if device.type != "cuda" or torch.version.hip or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


@unwraps
def two_four_masks(model: nn.Module, masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return masks whose linear layers keep at most two of every four consecutive inputs.

    Of the weights that the masks keep, the two of the largest size stay in each four. This is the
    projection of ``W * mask`` onto such matrices, and changes the model's outputs. Linear weights
    without a mask are projected too. Those with a number of inputs that four does not divide, and
    all other weights, keep the masks that they have.
    """
    check_masks(model, masks)
    projected = dict(masks)
    for module, key in weight_names(model).items():
        if type(module) is nn.Linear and module.in_features % 4 == 0:
            W = module.weight.detach()
            kept = masks.get(key, torch.ones_like(W, dtype=torch.bool)).to(W.device)
            size = W.abs().masked_fill(~kept, -1).unflatten(1, (-1, 4))
            two = torch.zeros_like(size, dtype=torch.bool)
            two.scatter_(-1, size.topk(2, dim=-1).indices, True)
            projected[key] = two.flatten(1) & kept
    return projected


@unwraps
def semi_structured(model: nn.Module, masks: dict[str, Tensor]) -> nn.Module:
    """Return a copy whose linear layers run on 2:4 sparse kernels.

    Their weights are projected by :func:`two_four_masks`; train on under the projected masks first.
    The copy is for inference in float16 or bfloat16. Layers whose sizes are no multiples of 64 stay
    dense.

    Raises
    ------
    ValueError
        On a device without such kernels, where single zeros make a model smaller on disk only, and
        where no layer fits.
    """
    check_masks(model, masks)
    device = next(model.parameters()).device
    if not has_kernels(device):
        raise ValueError(
            f"the device must have 2:4 sparse kernels, got {device.type}: "
            "there single zeros make a model smaller on disk only (save_compact)"
        )
    sparse = apply_masks_(copy.deepcopy(model), two_four_masks(model, masks)).eval()
    fitting = [
        layer
        for layer in sparse.modules()
        if type(layer) is nn.Linear
        and layer.weight.dtype in (torch.float16, torch.bfloat16)
        and layer.in_features % 64 == layer.out_features % 64 == 0
    ]
    if not fitting:
        raise ValueError(
            "the model must have a linear layer in float16 or bfloat16 whose sizes are multiples "
            "of 64, got none"
        )
    for layer in fitting:
        W = torch.sparse.to_sparse_semi_structured(layer.weight.detach())
        layer.weight = nn.Parameter(W, requires_grad=False)
    return sparse

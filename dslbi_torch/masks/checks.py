"""What masks must be: bool tensors by name, of a model's shapes, and of the same tensors.

A mask is a bool tensor of the shape of a parameter, True where it is kept; masks are a dict of them
by the parameter's name. A parameter without a mask is kept whole.
"""

import torch
from torch import Tensor, nn

from ..arguments import check_model, check_tensor
from ..sharding import is_sharded


def check_bool_tensors(masks: dict[str, Tensor]) -> None:
    """Refuse what is not a dict of at least one bool tensor."""
    if not isinstance(masks, dict | None):
        raise ValueError(f"masks must be a dict of bool tensors, got a {type(masks).__name__}")
    if not masks:
        raise ValueError("masks must hold at least one tensor, got none")
    for name, mask in masks.items():
        if not (isinstance(mask, Tensor) and mask.dtype == torch.bool):
            found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(f"the mask of {name} must be a bool tensor, got {found}")
        check_tensor(f"the mask of {name}", mask, floating=False)


def check_masks(model: nn.Module, masks: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return the masked parameters of a model, each with its mask; refuse masks of another."""
    check_model(model)
    check_bool_tensors(masks)
    parameters = dict(model.named_parameters())
    pairs = []
    for name, mask in masks.items():
        if name not in parameters:
            raise ValueError(_no_parameter(model, name))
        W = parameters[name]
        if mask.shape != W.shape:
            raise ValueError(
                f"the mask of {name} must have its shape {tuple(W.shape)}, got "
                f"{tuple(mask.shape)}: it is of another model, or this one was compacted already"
            )
        if is_sharded(W):
            raise ValueError(f"{name} must be a whole tensor to be masked: mask before sharding")
        pairs.append((W, mask.to(W.device)))
    return pairs


def _no_parameter(model, name):
    """The message for a name that masks cannot have."""
    parameters = dict(model.named_parameters())
    shared = dict(model.named_parameters(remove_duplicate=False)).get(name)
    first = next((n for n, p in parameters.items() if p is shared), None)
    if first is not None:
        return f"the mask of a shared weight must name it {first}, got {name}"
    return (
        f"masks must be of this model, which has no parameter {name!r}: "
        f"its first is {next(iter(parameters), None)!r}"
    )


def check_same_tensors(first: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Refuse what is not masks, or masks of other tensors than the first ones."""
    check_bool_tensors(other)
    for name in [*first, *other]:
        shapes = [tuple(x[name].shape) if name in x else "none" for x in (first, other)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"masks must be of the same tensors, got of {name} {shapes[0]} and {shapes[1]}"
            )

"""Masks of weights, extended to what goes with a filter: its bias, and its BatchNorm."""

import torch
from torch import Tensor, nn

from ..forward import layers_and_norms
from ..layers import alive_units, own_parameter, weight_names
from ..surgery.followers import dead_followers
from ..wrapped import unwraps
from .checks import check_masks


@unwraps
def whole_filters(model: nn.Module, masks: dict[str, Tensor], example_input) -> dict[str, Tensor]:
    """Return the masks, extended so that a removed filter or neuron emits exactly 0.

    A filter (a neuron, a row of a linear layer) is removed where its mask keeps none of its
    weights. With it go its bias, and the scale and shift of the BatchNorm that takes its output,
    unless a living filter needs them too. And where all layers that write a channel are removed, so
    is what the channel passes on its stream: scales and shifts of other norms, layer scales, class
    tokens, positions, columns of embeddings. Then the whole unit is 0, and can be cut.

    Parameters
    ----------
    model : Module
        Left as it is, its mode and its running statistics included.
    masks : dict
    example_input : Tensor, or tuple or dict of tensors
        What the model takes: one forward pass shows which BatchNorm follows which layer.
    """
    check_masks(model, masks)
    extended = {name: mask.clone() for name, mask in masks.items()}
    names = {p: name for name, p in model.named_parameters()}
    weights = weight_names(model)
    needed = {}  # by bias, scale or shift: what is alive in any of the layers that it serves
    touched, device = {}, next(iter(masks.values())).device
    pairs = layers_and_norms(model, example_input)
    for layer, norm in pairs:
        key = weights.get(layer)
        whole = torch.ones(layer.weight.shape, dtype=torch.bool, device=device)
        alive = alive_units(layer, masks.get(key, whole))
        own = [own_parameter(layer, "bias")]
        if norm is not None:
            own += [own_parameter(norm, key) for key in ("weight", "bias")]
        for p in own:
            if p is not None:
                needed[p] = needed[p] | alive if p in needed else alive
                if key in masks:
                    touched[p] = names[p]
    for p, name in touched.items():
        alive = needed[p]
        extended[name] = extended[name] & alive if name in extended else alive.clone()
    seen = {module for pair in pairs for module in pair}
    if all(module in seen for module in model.modules() if module._parameters):
        return extended
    return _with_followers(model, extended, example_input)


def _with_followers(model, masks, example_input):
    """Extend masks to what follows a channel of which all writers are removed."""
    try:
        followers = list(dead_followers(model, masks, example_input))
    except ValueError:  # a net that is not followed has filters all the same
        return masks
    for name, axis, dead in followers:
        p = model.get_parameter(name)
        mask = masks.get(name, torch.ones(p.shape, dtype=torch.bool, device=p.device)).clone()
        masks[name] = mask.index_fill_(axis, dead.to(mask.device), False)
    return masks

"""What a cut model knows of its sizes beside those of its layers, as plain data."""

import torch
from torch import Tensor, nn

from .whole_norm import WholeLayerNorm

_NORM = ("whole", "gone", "squares", "axis", "eps")


def sizes_of(model: nn.Module) -> dict:
    """Return, by the name of a module, the numbers that it keeps: heads, dimensions, widths."""
    found = {}
    for name, module in model.named_modules():
        own = {
            key: value
            for key, value in vars(module).items()
            if type(value) in (int, float) and not key.startswith("_")
        }
        if isinstance(module, WholeLayerNorm):
            own = {key: getattr(module, key) for key in _NORM}
        if own:
            found[name] = [type(module).__name__, own]
    return found


def fit_sizes_(model: nn.Module, sizes: dict, state: dict[str, Tensor]) -> None:
    """Give a model that was built anew the sizes of a cut one; its tensors get the forms of the
    state, and no values."""
    for name, (kind, own) in sizes.items():
        module = dict(model.named_modules()).get(name)
        if kind == WholeLayerNorm.__name__ and isinstance(module, nn.LayerNorm):
            left, bias = len(module.weight), module.bias is not None
            model.set_submodule(name, WholeLayerNorm(left, bias=bias, **own))
        elif module is not None and type(module).__name__ == kind:
            vars(module).update({key: own[key] for key in own.keys() & vars(module).keys()})
    for name, module in model.named_modules():
        for key, x in (*module._parameters.items(), *module._buffers.items()):
            new = state.get(f"{name}.{key}".lstrip("."))
            if x is None or new is None or x.shape == new.shape:
                continue
            empty = torch.empty(new.shape, dtype=x.dtype)
            if isinstance(x, nn.Parameter):
                empty = nn.Parameter(empty, requires_grad=x.requires_grad)
            setattr(module, key, empty)
        if isinstance(module, nn.LayerNorm | nn.RMSNorm) and module.weight is not None:
            module.normalized_shape = tuple(module.weight.shape)

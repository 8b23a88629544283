"""Which inputs of a net's layers are constants, whatever the net is fed."""

import torch
from torch import Tensor, nn

from ..layers import LAYERS, NORM, connections
from ..torch_private import OperationMode


def constant_inputs(model: nn.Module, x: Tensor) -> dict[nn.Module, Tensor]:
    """Return the value of each input channel of every layer that is called; NaN where it has none.

    A channel has a value where it depends neither on the input of the net nor on the place. To find
    out, the net is fed NaN. A layer passes NaN on along weights that are not zero only, a BatchNorm
    with a scale that is not zero only, and a product not where a factor is zero (activations are
    finite); everything else does as arithmetic does. So a number that arrives is the same for every
    input.

    Raises
    ------
    ValueError
        Where an operation swallows NaN, which is found out on the real input ``x``.
    """
    names = {module: name for name, module in model.named_modules()}
    with _ZeroTimesAnything():
        constants = _inputs(model, torch.full_like(x, torch.nan))
    seen = _inputs(model, x, slack=1e-3)
    for layer, value in constants.items():
        same = torch.isclose(value, seen[layer], rtol=1e-3, atol=1e-5) | value.isnan()
        if not same.all():
            raise ValueError(f"an operation before {names[layer]} hides what depends on the input")
    return constants


class _ZeroTimesAnything(OperationMode):
    """Within the block 0 times NaN is 0: a channel that is zero stays so, whatever its gate is."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        products = (torch.ops.aten.mul.Tensor, torch.ops.aten.mul_.Tensor)
        zero = (args[0] == 0) | (args[1] == 0) if func in products else None
        result = func(*args, **(kwargs or {}))
        return result if zero is None else result.masked_fill_(zero, 0)


@torch.no_grad()
def _inputs(model, x, slack=0.0):
    """The value of each input channel of every layer that is called; NaN where it varies over the
    places by more than a slack, relative to its size."""
    values, handles = {}, []

    def of_layer(layer, inputs, _):
        x = inputs[0]
        dependent = x.isnan()
        value = x.masked_fill(dependent, 0)
        channel = -1 if isinstance(layer, nn.Linear) else 1
        rest = [d for d in range(x.ndim) if d != channel % x.ndim]
        low, high = x.amin(rest), x.amax(rest)  # of what holds a NaN, NaN
        seen = torch.where(high - low <= slack * (1 + low.abs()), low, torch.nan)
        before = values.get(layer, seen)  # a layer that is called twice
        values[layer] = torch.where(before == seen, seen, torch.nan)
        output = layer.forward(value)
        reached = connections(layer).float() @ dependent.any(dim=rest).float() > 0
        shape = [1] * output.ndim
        shape[channel] = -1
        return output.masked_fill(reached.view(shape), torch.nan)

    def of_norm(norm, _, output):
        if norm.weight is None:
            return output
        shape = [1, -1] + [1] * (output.ndim - 2)
        return torch.where((norm.weight == 0).view(shape), norm.bias.view(shape), output)

    for module in model.modules():
        if isinstance(module, LAYERS):
            handles.append(module.register_forward_hook(of_layer))
        elif isinstance(module, NORM):
            handles.append(module.register_forward_hook(of_norm))
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return values

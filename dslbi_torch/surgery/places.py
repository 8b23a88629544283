"""Which channels of a net are left after cuts, in the numbers of the whole net."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..layers import LAYERS, NORM, count_units, unit_axis


class Places:
    """The outputs and inputs that are left of the modules of a net.

    Attributes
    ----------
    outputs, inputs : dict
        By the name of a module, the numbers that its channels have in the whole net. Layers that
        combine channels have both, a BatchNorm and a PReLU outputs only.
    """

    def __init__(self, model: nn.Module):
        self.outputs, self.inputs = {}, {}
        for name, module in model.named_modules():
            if isinstance(module, LAYERS):
                self.outputs[name] = torch.arange(count_units(module))
                self.inputs[name] = torch.arange(_count_inputs(module))
            elif isinstance(module, NORM):
                self.outputs[name] = torch.arange(module.num_features)
            elif isinstance(module, nn.PReLU) and module.num_parameters > 1:
                self.outputs[name] = torch.arange(module.num_parameters)

    def remove(self, name: str, gone: list[int], *, inputs: bool) -> None:
        """Remove channels of a module, given by their present numbers."""
        of_modules = self.inputs if inputs else self.outputs
        if name in of_modules:
            kept = sorted(set(range(len(of_modules[name]))) - set(gone))
            of_modules[name] = of_modules[name][kept]

    def axes(self, model: nn.Module, parameter: str) -> Iterator[tuple[int, Tensor]]:
        """Yield each axis along which a parameter of the whole net was cut, and what is left."""
        name, _, key = parameter.rpartition(".")
        if name in self.outputs:
            module = model.get_submodule(name)
            axis = unit_axis(module, key)
            yield axis, self.outputs[name]
            if key == "weight" and name in self.inputs and getattr(module, "groups", 1) == 1:
                yield 1 - axis, self.inputs[name]

    def left_of(self, model: nn.Module, parameter: str, x: Tensor) -> Tensor:
        """Return what is left of a tensor of the shape of a parameter of the whole net."""
        for axis, left in self.axes(model, parameter):
            x = x.index_select(axis, left.to(x.device))
        return x


def _count_inputs(layer):
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels

"""How much is selected: shares of non-zeros, each with its denominator."""

from typing import NamedTuple

from torch import nn
from torch.optim import Optimizer

from ..sharding import whole
from ..text import text_table
from ..units import is_selected, split_tensors
from .swap import drop_gathered


class TensorDensity(NamedTuple):
    """What of a split tensor is selected."""

    name: str
    penalty: str
    size: int  # entries
    nonzero: int  # entries that are selected
    units: int  # groups; of an l1 tensor its entries
    units_selected: int


class Density(NamedTuple):
    """Non-zero fractions of the sparse model ``W * 1{Gamma != 0}``, with both denominators."""

    nonzero_split: float  # share of the split tensors' entries that are selected
    nonzero_all: float  # share of all parameters, those that are not split counted as kept
    layers: list[TensorDensity]


def density(optimizer: Optimizer, model: nn.Module) -> Density:
    """Return how much of the split tensors, and of the whole model, is selected.

    Raises
    ------
    ValueError
        Where the optimizer splits nothing, or a split tensor is not a parameter of the model.

    Notes
    -----
    Sharded weights are counted whole, and every process must ask.
    """
    tensors = split_tensors(optimizer)
    drop_gathered(model, tensors)
    own = {id(p) for p in model.parameters()}
    layers = []
    for name, W, V, group in tensors:
        if id(W) not in own:
            raise ValueError(f"split tensor {name} is not a parameter of this model")
        kept = is_selected(V, group)
        n_kept, units = int(whole(kept.sum())), kept.numel()
        nonzero = n_kept * (V.numel() // units)
        layers.append(TensorDensity(name, group["penalty"], V.numel(), nonzero, units, n_kept))
    size = sum(layer.size for layer in layers)
    nonzero = sum(layer.nonzero for layer in layers)
    total = sum(p.numel() for p in model.parameters())
    return Density(nonzero / size, (nonzero + total - size) / total, layers)


def density_table(report: Density) -> str:
    """Return the report of :func:`density` as a table, one line for each split tensor."""
    rows = [
        (
            layer.name,
            layer.penalty,
            f"{layer.size:,}",
            f"{100 * layer.nonzero / layer.size:.2f}",
            "-" if layer.units == layer.size else f"{layer.units_selected}/{layer.units}",
        )
        for layer in report.layers
    ]
    head = ("tensor", "penalty", "weights", "non-zero %", "groups")
    return "\n".join(
        (
            text_table(head, rows, "<>>>>", (23, 7, 10, 10, 12)),
            f"non-zero % of the split tensors: {100 * report.nonzero_split:.2f}",
            f"non-zero % of all parameters:    {100 * report.nonzero_all:.2f}",
        )
    )

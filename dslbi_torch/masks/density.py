"""How much is selected: shares of non-zeros, each with its denominator."""

from typing import NamedTuple

from torch import nn
from torch.optim import Optimizer

from ..arguments import check_kind, check_model
from ..sharding import whole
from ..text import text_table
from ..units import Family, families, scores, spread
from ..wrapped import unwraps
from .swap import drop_gathered


class TensorDensity(NamedTuple):
    """What of a split tensor is selected.

    Tensors that share units (``joint=True``) have a line each: entries are those of the tensor,
    units those of the family, so that every such line has the same units.
    """

    name: str
    penalty: str
    size: int  # entries
    nonzero: int  # entries that are selected
    units: int  # what enters as one; single weights are units of one entry
    units_selected: int


class Density(NamedTuple):
    """Non-zero fractions of the sparse model ``W * 1{Gamma != 0}``, with both denominators."""

    nonzero_split: float  # share of the split tensors' entries that are selected
    nonzero_all: float  # share of all parameters, those that are not split counted as kept
    layers: list[TensorDensity]


@unwraps
def density(optimizer: Optimizer, model: nn.Module) -> Density:
    """Return how much of the split tensors, and of the whole model, is selected.

    Raises
    ------
    ValueError
        Where the optimizer splits nothing, or a split tensor is no parameter of the model: neither
        itself, nor, as in an averaged copy, by its name and its shape.

    Notes
    -----
    Sharded weights are counted whole, and every process must ask.
    """
    found = families(optimizer)
    check_model(model)
    drop_gathered(model, found)
    own = {id(p) for p in model.parameters()}
    copies = {name: p.shape for name, p in model.named_parameters()}  # of an averaged model
    for name, W in (row for family in found for row in zip(family.names, family.Ws, strict=True)):
        if id(W) not in own and copies.get(name) != W.shape:
            raise ValueError(f"split tensor {name} is not a parameter of this model")
    layers = [layer for family in found for layer in _densities(family)]
    size = sum(layer.size for layer in layers)
    nonzero = sum(layer.nonzero for layer in layers)
    total = sum(p.numel() for p in model.parameters())
    return Density(nonzero / size, (nonzero + total - size) / total, layers)


def _densities(family: Family) -> list[TensorDensity]:
    """What of each tensor of a family is selected."""
    units = [score > family.group["lam"] for score in scores(family)]
    rows = []
    for k, kept in enumerate(spread(units, family)):
        own, size = units[k if len(units) > 1 else 0], family.Ws[k].numel()
        nonzero = int(whole(kept.sum())) * (size // max(1, kept.numel()))
        counts = own.numel(), int(whole(own.sum()))
        rows.append(TensorDensity(family.names[k], family.group["penalty"], size, nonzero, *counts))
    return rows


def density_table(report: Density) -> str:
    """Return the report of :func:`density` as a table, one line for each split tensor."""
    check_kind("report", report, Density, "what density returns")
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

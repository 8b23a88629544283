"""What a model costs, layer by layer: weights, and multiplications of one forward pass."""

from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..arguments import check_kind
from ..forward import examples_in, run_example
from ..layers import LAYERS, alive_units, weight_names
from ..masks.checks import check_masks
from ..text import text_table
from ..wrapped import unwraps


class LayerCosts(NamedTuple):
    """What a convolution or a linear layer costs, dense and under its mask."""

    name: str
    weights: int  # entries of its weight tensor
    nonzero: int  # those that are kept
    filters: int  # its outputs
    filters_alive: int  # those of which a weight is kept
    macs: int  # multiply-accumulates of one example
    macs_nonzero: int  # those whose weight is kept: what hardware that skips zeros would do


class ModelCosts(NamedTuple):
    """What a model costs, dense and under masks; what has no mask counts as kept."""

    layers: list[LayerCosts]
    weights: int  # of the layers together
    nonzero: int
    parameters: int  # of the whole model
    parameters_nonzero: int
    masked: int  # entries of the masked tensors
    masked_nonzero: int
    macs: int  # of the whole model
    macs_nonzero: int


@unwraps
def count_macs(model: nn.Module, example_input) -> dict[str, int]:
    """Return the multiply-accumulates of one example, by module; "" is the whole model.

    ``torch.utils.flop_counter`` counts them on one forward pass of the batch ``example_input``
    (a tensor, or a tuple or dict of them, of which the first says how many examples there are):
    convolutions and matrix products, where a MAC is two of its FLOPs. Attention is counted too, a
    masked one as if nothing were masked. The model is left as it is.
    """
    examples = examples_in(example_input)
    counter = FlopCounterMode(display=False)
    with attention_in_parts(), counter:
        run_example(model, example_input)
    root, counts = type(model).__name__, counter.get_flop_counts()
    macs = {}
    for name, _ in model.named_modules():
        flops = sum(counts.get(f"{root}.{name}" if name else "Global", {}).values())
        macs[name] = flops // (2 * examples)
    return macs


@contextmanager
def attention_in_parts():
    """Compute torch's transformer layers within the block by the operations that they are made of.

    Fused into one operation, they would be counted as nothing, and not be followed.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@unwraps
def layer_costs(
    model: nn.Module, masks: dict[str, Tensor] | None, example_input: Tensor
) -> ModelCosts:
    """Return weights and MACs of every layer and of the model, dense and under masks.

    Parameters
    ----------
    model : Module
        Left as it is.
    masks : dict, or None
        None: nothing is masked.
    example_input : Tensor
        A batch of at least one example.
    """
    masks = check_kind("masks", {} if masks is None else masks, dict, "a dict of bool tensors")
    if masks:
        check_masks(model, masks)
    macs, weights = count_macs(model, example_input), weight_names(model)
    layers = []
    for name, layer in model.named_modules():
        if isinstance(layer, LAYERS):
            whole = torch.ones_like(layer.weight, dtype=torch.bool)
            layers.append(_costs_of(name, layer, masks.get(weights.get(layer), whole), macs[name]))
    removed = sum(int((~m).sum()) for m in masks.values())
    parameters = sum(p.numel() for p in model.parameters())
    masked = sum(m.numel() for m in masks.values())
    return ModelCosts(
        layers=layers,
        weights=sum(layer.weights for layer in layers),
        nonzero=sum(layer.nonzero for layer in layers),
        parameters=parameters,
        parameters_nonzero=parameters - removed,
        masked=masked,
        masked_nonzero=masked - removed,
        macs=macs[""],
        macs_nonzero=macs[""] - sum(layer.macs - layer.macs_nonzero for layer in layers),
    )


def _costs_of(name, layer, mask, macs):
    alive, weights, nonzero = alive_units(layer, mask), mask.numel(), int(mask.sum())
    return LayerCosts(
        name=name,
        weights=weights,
        nonzero=nonzero,
        filters=alive.numel(),
        filters_alive=int(alive.sum()),
        macs=macs,
        macs_nonzero=macs * nonzero // max(1, weights),  # every weight is used equally often
    )


def cost_table(costs: ModelCosts) -> str:
    """Return the result of :func:`layer_costs` as a table, one line for each layer."""
    check_kind("costs", costs, ModelCosts, "what layer_costs returns")
    rows = [
        (
            layer.name,
            f"{layer.weights:,}",
            _percent(layer.nonzero, layer.weights),
            f"{layer.filters_alive}/{layer.filters}",
            f"{layer.macs:,}",
            _percent(layer.macs_nonzero, layer.macs),
        )
        for layer in costs.layers
    ]
    of_weights = _percent(costs.nonzero, costs.weights)
    of_macs = _percent(costs.macs_nonzero, costs.macs)
    rows.append(("all layers", f"{costs.weights:,}", of_weights, "", f"{costs.macs:,}", of_macs))
    head = ("layer", "weights", "non-zero %", "filters", "MACs", "non-zero %")
    of_masked = _percent(costs.masked_nonzero, costs.masked)
    of_all = _percent(costs.parameters_nonzero, costs.parameters)
    return "\n".join(
        (
            text_table(head, rows, "<>>>>>", (20, 10, 10, 10, 13, 10)),
            f"non-zero % of the masked tensors: {of_masked} of {costs.masked:,}",
            f"non-zero % of all parameters:     {of_all} of {costs.parameters:,}",
        )
    )


def _percent(part, of):
    return f"{100 * part / of:.2f}" if of else "-"

"""What a model costs, layer by layer: weights, and multiplications of one forward pass."""

from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..masks.apply import alive_outputs, forward
from ..masks.support import check_masks, weight_names
from .constants import LAYERS


def count_macs(model: nn.Module, example_input: Tensor) -> dict[str, int]:
    """Multiply-accumulates of one example, by module; "" is the whole model.

    Counted by ``torch.utils.flop_counter`` (convolutions and matrix products; a MAC is two of its
    FLOPs) on one forward pass of the batch ``example_input``. The model is left as it is. Attention
    is counted too, a masked one as if nothing were masked.
    """
    if isinstance(example_input, Tensor) and not len(example_input):
        raise ValueError("example_input must hold at least one example, got none")
    counter = FlopCounterMode(display=False)
    with _whole_attention(), counter:
        forward(model, example_input)
    root, counts = type(model).__name__, counter.get_flop_counts()
    macs = {}
    for name, _ in model.named_modules():
        flops = sum(counts.get(f"{root}.{name}" if name else "Global", {}).values())
        macs[name] = flops // (2 * len(example_input))
    return macs


@contextmanager
def _whole_attention():
    """A block in which attention is not one fused operation, of which the counter knows nothing."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def layer_costs(
    model: nn.Module, example_input: Tensor, masks: dict[str, Tensor] | None = None
) -> dict:
    """Weights and MACs of every layer, dense and under masks.

    Returns
    -------
    dict
        ``layers``: for each convolution and linear layer ``name, weights, nonzero, filters,
        filters_alive, macs, macs_nonzero``. ``weights`` and ``nonzero`` count the entries of its
        weight tensor, all and those kept; ``filters`` its outputs, alive where a weight is kept;
        ``macs`` of one example; ``macs_nonzero`` those whose weight is kept, which is what
        hardware that skips zeros would do.

        ``weights, nonzero`` of these layers together; ``parameters, parameters_nonzero`` of the
        whole model, what has no mask counted as kept; ``masked, masked_nonzero`` of the masked
        tensors; ``macs, macs_nonzero`` of the whole model.
    """
    masks = masks or {}
    if masks:
        check_masks(model, masks)
    macs, weights = count_macs(model, example_input), weight_names(model)
    layers = []
    for name, module in model.named_modules():
        if not isinstance(module, LAYERS):
            continue
        W = module.weight
        mask = masks.get(weights.get(module), torch.ones_like(W, dtype=bool))
        alive, nonzero = alive_outputs(module, mask), int(mask.sum())
        layers.append(
            dict(
                name=name,
                weights=W.numel(),
                nonzero=nonzero,
                filters=alive.numel(),
                filters_alive=int(alive.sum()),
                macs=macs[name],
                # every weight of a layer is used equally often
                macs_nonzero=macs[name] * nonzero // max(1, W.numel()),
            )
        )
    removed = sum(int((~m).sum()) for m in masks.values())
    parameters = sum(p.numel() for p in model.parameters())
    masked = sum(m.numel() for m in masks.values())
    skipped = sum(layer["macs"] - layer["macs_nonzero"] for layer in layers)
    return dict(
        layers=layers,
        weights=sum(layer["weights"] for layer in layers),
        nonzero=sum(layer["nonzero"] for layer in layers),
        parameters=parameters,
        parameters_nonzero=parameters - removed,
        masked=masked,
        masked_nonzero=masked - removed,
        macs=macs[""],
        macs_nonzero=macs[""] - skipped,
    )


def cost_table(costs: dict) -> str:
    """The result of :func:`layer_costs` as aligned text, one line a layer."""
    width = max([22, *(len(layer["name"]) + 2 for layer in costs["layers"])])
    lines = [
        f"{'layer':<{width}}{'weights':>12}{'non-zero %':>12}{'filters':>12}"
        f"{'MACs':>15}{'non-zero %':>12}"
    ]
    for layer in costs["layers"]:
        filters = f"{layer['filters_alive']}/{layer['filters']}"
        lines.append(
            f"{layer['name']:<{width}}{layer['weights']:>12,}"
            f"{_percent(layer['nonzero'], layer['weights']):>12}{filters:>12}"
            f"{layer['macs']:>15,}{_percent(layer['macs_nonzero'], layer['macs']):>12}"
        )
    lines.append(
        f"{'all layers':<{width}}{costs['weights']:>12,}"
        f"{_percent(costs['nonzero'], costs['weights']):>12}{'':>12}"
        f"{costs['macs']:>15,}{_percent(costs['macs_nonzero'], costs['macs']):>12}"
    )
    lines.append(
        f"non-zero % of the masked tensors: {_percent(costs['masked_nonzero'], costs['masked'])}"
        f" of {costs['masked']:,}"
    )
    share = _percent(costs["parameters_nonzero"], costs["parameters"])
    lines.append(f"non-zero % of all parameters:     {share} of {costs['parameters']:,}")
    return "\n".join(lines)


def _percent(part, of):
    return f"{100 * part / of:.2f}" if of else "-"

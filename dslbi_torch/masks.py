"""Masks of the selected structure, and models that carry only what is selected."""

from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .structure import group_gamma, selected, split_tensors


def support_masks(optimizer: Optimizer) -> dict[str, Tensor]:
    """``1{Gamma != 0}`` of every split tensor, by name; bool, of the shape of the weights."""
    return {
        name: selected(V, group).expand_as(V).clone()
        for name, _, V, group in split_tensors(optimizer)
    }


@contextmanager
def _swapped(optimizer, value):
    """Weights replaced by ``value(W, V, group)`` inside the block, and restored bit for bit after
    it."""
    tensors = split_tensors(optimizer)
    kept = [W.detach().clone() for _, W, _, _ in tensors]
    try:
        with torch.no_grad():
            for _, W, V, group in tensors:
                W.copy_(value(W, V, group))
        yield
    finally:
        with torch.no_grad():
            for (_, W, _, _), old in zip(tensors, kept, strict=True):
                W.copy_(old)


def sparse_weights(optimizer: Optimizer):
    """Context in which the split weights are ``W * 1{Gamma != 0}``, restored afterwards.

    The sparse model of the paper: dense weights, unselected ones removed, no fine-tuning. What is
    not split (biases, norms) stays as it is. Restored also when the block raises.
    """
    return _swapped(optimizer, lambda W, V, group: W * selected(V, group))


def gamma_weights(optimizer: Optimizer):
    """Context in which the split weights are Gamma itself, restored afterwards."""
    return _swapped(optimizer, lambda W, V, group: group_gamma(V, group).to(W.dtype))


def density(optimizer: Optimizer, model: nn.Module) -> dict:
    """Non-zero fractions of the sparse model ``W * 1{Gamma != 0}``, with both denominators.

    Returns
    -------
    dict
        ``nonzero_split`` : share of the split tensors' entries that are selected;
        ``nonzero_all`` : share of all parameters of the model, those not split counted as kept;
        ``layers`` : for each split tensor ``name, penalty, size, nonzero, groups_selected,
        groups_total`` (a weight of an l1 tensor counts as a group).

    Raises
    ------
    ValueError
        Where the optimizer splits nothing, or a split tensor is not a parameter of the model.
    """
    own = {id(p) for p in model.parameters()}
    layers = []
    for name, W, V, group in split_tensors(optimizer):
        if id(W) not in own:
            raise ValueError(f"split tensor {name} is not a parameter of this model")
        kept = selected(V, group)
        layers.append(
            dict(
                name=name,
                penalty=group["penalty"],
                size=V.numel(),
                nonzero=int(kept.sum()) * (V.numel() // kept.numel()),
                groups_selected=int(kept.sum()),
                groups_total=kept.numel(),
            )
        )
    size = sum(layer["size"] for layer in layers)
    nonzero = sum(layer["nonzero"] for layer in layers)
    total = sum(p.numel() for p in model.parameters())
    return dict(
        nonzero_split=nonzero / size,
        nonzero_all=(nonzero + total - size) / total,
        layers=layers,
    )


def density_table(report: dict) -> str:
    """The report of :func:`density` as aligned text, one line per split tensor."""
    lines = [f"{'tensor':<24}{'penalty':>8}{'weights':>12}{'non-zero %':>12}{'groups':>14}"]
    for layer in report["layers"]:
        share = 100 * layer["nonzero"] / layer["size"]
        groups = f"{layer['groups_selected']}/{layer['groups_total']}"
        groups = groups if layer["penalty"] == "group" else "-"
        lines.append(
            f"{layer['name']:<24}{layer['penalty']:>8}{layer['size']:>12,}{share:>12.2f}{groups:>14}"
        )
    lines.append(f"non-zero % of the split tensors: {100 * report['nonzero_split']:.2f}")
    lines.append(f"non-zero % of all parameters:    {100 * report['nonzero_all']:.2f}")
    return "\n".join(lines)

"""Masks of the selected structure, and models that carry only what is selected."""

from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .structure import group_gamma, selected, split_tensors
from .tensors import is_sharded, whole


def support_masks(optimizer: Optimizer) -> dict[str, Tensor]:
    """``1{Gamma != 0}`` of every split tensor, by name; bool, of the shape of the weights.

    The mask of a sharded weight is whole on every process, and every process must ask for it.
    """
    return {
        name: whole(selected(V, group)).expand(V.shape).clone()
        for name, _, V, group in split_tensors(optimizer)
    }


def _reshard(model, tensors):
    """Let FSDP drop the weights that it keeps gathered after a forward without a backward."""
    if not any(is_sharded(W) for _, W, _, _ in tensors):
        return
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@contextmanager
def _swapped(optimizer, model, value):
    """Weights replaced by ``value(W, V, group)`` inside the block, and restored bit for bit after
    it."""
    tensors = split_tensors(optimizer)
    sharded = [name for name, W, _, _ in tensors if is_sharded(W)]
    if sharded and model is None:
        raise ValueError(
            f"model must be given where weights are sharded ({sharded[0]}): "
            "FSDP may hold a gathered copy of the old ones"
        )
    kept = [W.detach().clone() for _, W, _, _ in tensors]
    try:
        _reshard(model, tensors)
        with torch.no_grad():
            for _, W, V, group in tensors:
                W.copy_(value(W, V, group))
        yield
    finally:
        _reshard(model, tensors)
        with torch.no_grad():
            for (_, W, _, _), old in zip(tensors, kept, strict=True):
                W.copy_(old)


def sparse_weights(optimizer: Optimizer, model: nn.Module | None = None):
    """Context in which the split weights are ``W * 1{Gamma != 0}``, restored afterwards.

    The sparse model of the paper: dense weights, unselected ones removed, no fine-tuning. What is
    not split (biases, norms) stays as it is. Restored also when the block raises.

    Of sharded weights (FSDP) the model must be given: its gathered copies are dropped on the way
    in and out. Every process must enter.
    """
    return _swapped(optimizer, model, lambda W, V, group: W * selected(V, group))


def gamma_weights(optimizer: Optimizer, model: nn.Module | None = None):
    """Context in which the split weights are Gamma itself, restored afterwards; model as in
    :func:`sparse_weights`."""
    return _swapped(optimizer, model, lambda W, V, group: group_gamma(V, group).to(W.dtype))


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

    Notes
    -----
    Sharded weights are counted whole, and every process must ask.
    """
    tensors = split_tensors(optimizer)
    _reshard(model, tensors)
    own = {id(p) for p in model.parameters()}
    layers = []
    for name, W, V, group in tensors:
        if id(W) not in own:
            raise ValueError(f"split tensor {name} is not a parameter of this model")
        kept = selected(V, group)
        n_kept = int(whole(kept.sum()))
        layers.append(
            dict(
                name=name,
                penalty=group["penalty"],
                size=V.numel(),
                nonzero=n_kept * (V.numel() // kept.numel()),
                groups_selected=n_kept,
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

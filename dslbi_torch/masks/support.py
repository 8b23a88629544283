"""Masks of the selected structure, and models that carry only what is selected.

A mask is a bool tensor of the shape of a parameter, True where it is kept; masks are a dict of them
by the parameter's name. A parameter without a mask is kept whole.
"""

from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..files import read_tensors, write_tensors
from ..path import PathRecorder
from ..tensors import is_sharded, pack_bits, unpack_bits, whole
from ..units import group_gamma, selected, split_tensors


def support_masks(optimizer: Optimizer) -> dict[str, Tensor]:
    """``1{Gamma != 0}`` of every split tensor, by name; bool, of the shape of the weights.

    The mask of a sharded weight is whole on every process, and every process must ask for it.
    """
    return {
        name: whole(selected(V, group)).expand(V.shape).clone()
        for name, _, V, group in split_tensors(optimizer)
    }


def recorded_masks(recorder: PathRecorder, step: int) -> dict[str, Tensor]:
    """``1{Gamma != 0}`` of every split tensor as it was at a recorded step, one of
    ``recorder.steps``; single weights need a recorder with ``elements=True``."""
    masks = {}
    for name, _, V, group in recorder.tensors():
        chosen = recorder.support(name, step)
        masks[name] = chosen.view(selected(V, group).shape).expand(V.shape).clone()
    return masks


def check_tensors(masks: dict[str, Tensor]) -> None:
    """Refuse what is not a dict of bool tensors, at least one."""
    if not isinstance(masks, dict | None):
        raise ValueError(f"masks must be a dict of bool tensors, got a {type(masks).__name__}")
    if not masks:
        raise ValueError("masks must hold at least one tensor, got none")
    for name, mask in masks.items():
        if not (isinstance(mask, Tensor) and mask.dtype == torch.bool):
            found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(f"the mask of {name} must be a bool tensor, got {found}")


def check_masks(model: nn.Module, masks: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Refuse what is not masks of this model; returns its parameters, each with its mask."""
    check_tensors(masks)
    parameters = dict(model.named_parameters())
    pairs = []
    for name, mask in masks.items():
        if name not in parameters:
            shared = dict(model.named_parameters(remove_duplicate=False)).get(name)
            first = next((n for n, p in parameters.items() if p is shared), None)
            if first is not None:
                raise ValueError(f"the mask of a shared weight must name it {first}, got {name}")
            raise ValueError(
                f"masks must be of this model, which has no parameter {name!r}: "
                f"its first is {next(iter(parameters), None)!r}"
            )
        W = parameters[name]
        if mask.shape != W.shape:
            raise ValueError(
                f"the mask of {name} must have its shape {tuple(W.shape)}, got "
                f"{tuple(mask.shape)}: it is of another model, or this one was compacted already"
            )
        if is_sharded(W):
            raise ValueError(f"{name} must be a whole tensor to be masked: mask before sharding")
        pairs.append((W, mask.to(W.device)))
    return pairs


def weight_names(model: nn.Module) -> dict[nn.Module, str]:
    """Of every module with a weight, the name of it that masks have: of a shared one, the first."""
    names = {p: name for name, p in model.named_parameters()}
    weights = {module: module._parameters.get("weight") for module in model.modules()}
    return {module: names[W] for module, W in weights.items() if W is not None}


def check_same_tensors(first: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Refuse what is not masks, or masks of other tensors than the first ones."""
    check_tensors(other)
    for name in [*first, *other]:
        shapes = [tuple(x[name].shape) if name in x else "none" for x in (first, other)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"masks must be of the same tensors, got of {name} {shapes[0]} and {shapes[1]}"
            )


def _combined(masks, combine):
    if not masks:
        raise ValueError("at least one dict of masks must be given, got none")
    first = masks[0]
    for other in masks:
        check_same_tensors(first, other)
    return {name: combine([x[name].to(m.device) for x in masks]) for name, m in first.items()}


def union(*masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """What at least one of the masks keeps."""
    return _combined(masks, lambda tensors: torch.stack(tensors).any(0))


def intersection(*masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """What all of the masks keep."""
    return _combined(masks, lambda tensors: torch.stack(tensors).all(0))


def nested(*masks: dict[str, Tensor]) -> bool:
    """Whether each of the masks keeps nothing that the next one does not keep."""
    growing = _combined(masks, lambda ts: all(bool((b | ~a).all()) for a, b in pairwise(ts)))
    return all(growing.values())


def save_masks(masks: dict[str, Tensor], file: str | Path) -> None:
    """Write masks, one bit an entry, whole or not at all; at least one."""
    check_tensors(masks)
    packed = {
        name: {"shape": list(m.shape), "bits": pack_bits(m.cpu())} for name, m in masks.items()
    }
    write_tensors({"masks": packed}, file, _KIND)


def load_masks(file: str | Path) -> dict[str, Tensor]:
    """The masks that :func:`save_masks` wrote; ValueError for any other or a damaged file."""
    return read_tensors(
        file,
        _KIND,
        lambda content: {
            n: unpack_bits(m["bits"], m["shape"]) for n, m in content["masks"].items()
        },
    )


_KIND = "dslbi masks 1"


@contextmanager
def restored(weights: list[Tensor]):
    """A block after which the weights are what they were before it, bit for bit."""
    kept = [W.detach().clone() for W in weights]
    try:
        yield
    finally:
        with torch.no_grad():
            for W, old in zip(weights, kept, strict=True):
                W.copy_(old)


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
    with restored([W for _, W, _, _ in tensors]):
        try:
            _reshard(model, tensors)
            with torch.no_grad():
                for _, W, V, group in tensors:
                    W.copy_(value(W, V, group))
            yield
        finally:
            _reshard(model, tensors)


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

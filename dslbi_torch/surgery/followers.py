"""What follows a channel that no layer writes any more: scales, shifts, tokens and positions."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ..forward import evaluating
from .costs import attention_in_parts
from .tracing import is_layer, traced


def dead_followers(model: nn.Module, masks: dict, x) -> Iterator[tuple[str, int, Tensor]]:
    """Yield what belongs to channels of which all layers that write them are removed.

    Yields
    ------
    name, axis, indices
        Of a parameter that scales, shifts or is added to such channels. Columns of an embedding are
        among them; filters of layers are not.

    Raises
    ------
    ValueError
        For a net that cannot be followed.
    """
    with evaluating(model), attention_in_parts():
        trace = traced(model, x)
    least = trace.relations.classes()
    written, lives = np.zeros((2, trace.relations.count), dtype=bool)
    for reader in trace.readers.values():
        own = trace.own.get(reader.name)
        if own is None or not isinstance(reader.outs, np.ndarray):
            continue
        for axis, atoms in enumerate(own):
            if len(atoms) == len(reader.outs) and (least[atoms] == least[reader.outs]).all():
                written[least[atoms]] = True
                lives[least[atoms[_alive(masks.get(reader.name), axis, len(atoms))]]] = True
                break
    for name, axes in trace.own.items():
        owner, _, key = name.rpartition(".")
        if name not in dict(model.named_parameters()):
            continue
        module = model.get_submodule(owner)
        table = isinstance(module, nn.Embedding)  # which the head may read as well
        if key == "weight" and is_layer(module) or (name in trace.readers and not table):
            continue
        for axis, atoms in enumerate(axes):
            dead = (written & ~lives)[least[atoms]]
            if dead.any():
                yield name, axis, torch.from_numpy(np.nonzero(dead)[0])


def _alive(mask, axis, n):
    """Which rows of a weight a mask keeps anything of."""
    if mask is None:
        return np.ones(n, dtype=bool)
    return mask.any([d for d in range(mask.ndim) if d != axis]).numpy(force=True)

"""From a path to a smaller net in one call."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..arguments import check_kind, check_model
from ..forward import call
from ..layers import NORM
from ..masks.support import support_masks
from ..masks.whole_filters import whole_filters
from ..text import one_line
from ..wrapped import unwraps
from .compact import compact
from .fold_norms import fold_norms, has_foldable
from .measure import size_table


class Shrunk(NamedTuple):
    """What :func:`shrink` makes of a net.

    Attributes
    ----------
    model : Module
        The net, cut; it can be trained on, and saved by :func:`dslbi_torch.save_compact`.
    folded : Module, or None
        The same with its BatchNorms folded, for inference; None where it has none to fold.
    masks : dict
        By which the net was cut.
    table : str
        Parameters, MACs, milliseconds and bytes, before and after.
    """

    model: nn.Module
    folded: nn.Module | None
    masks: dict[str, Tensor]
    table: str


@unwraps
def shrink(
    model: nn.Module, optimizer: Optimizer, example_input, batches: Iterable | None = None
) -> Shrunk:
    """Cut a net down to the support of its path: masks, whole units, smaller layers, folded norms.

    Parameters
    ----------
    model : Module
        Left as it is.
    optimizer : DessiLBI or Split
        That splits it.
    example_input : Tensor, or tuple or dict of tensors
        What the model takes; times are those of this batch.
    batches : iterable, optional
        Batches of training inputs, or pairs of inputs and labels, as a loader gives them: from them
        the statistics of the BatchNorms are taken anew (:func:`renew_statistics_`). Those of the
        dense net do not fit a net that has lost inputs. None: they stay.

    Raises
    ------
    ValueError
        As :func:`dslbi_torch.compact` and :func:`renew_statistics_`.
    """
    masks = whole_filters(model, support_masks(optimizer), example_input)
    small = compact(model, masks, example_input)
    if batches is not None:
        renew_statistics_(small, batches)
    folded = fold_norms(small, example_input) if has_foldable(small, example_input) else None
    nets = {"dense": model, "compact": small} | ({"folded": folded} if folded else {})
    return Shrunk(small, folded, masks, size_table(nets, example_input))


@unwraps
@torch.no_grad()
def renew_statistics_(model: nn.Module, batches: Iterable) -> nn.Module:
    """Set the running statistics of BatchNorms to the mean of those of batches, in place.

    The other modules are in evaluation mode meanwhile, and each has its own mode afterwards. What a
    BatchNorm is given depends on those before it, which have the statistics of the batch then, as
    in training.

    Parameters
    ----------
    model : Module
    batches : iterable
        Batches of inputs (tensors, or dicts of them), or lists or tuples that begin with them. All
        are read.

    Raises
    ------
    ValueError
        For no batches, and for batches that the model does not take in training.
    """
    check_kind("batches", batches, Iterable, "an iterable of batches")
    modes = [(module, module.training) for module in check_model(model).modules()]
    norms = [m for m in model.modules() if isinstance(m, NORM) and m.running_mean is not None]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean of all batches
            norm.train()
        count = 0
        for batch in batches:
            count += 1
            inputs = batch[0] if isinstance(batch, list | tuple) else batch
            try:
                call(model, inputs)
            except Exception as error:
                raise ValueError(
                    f"the model must take every batch in training, but of batch {count}: "
                    f"{one_line(error)}"
                ) from error
        if not count:
            raise ValueError("batches must hold at least one batch, got none")
        for norm in norms:
            if not norm.running_var.isfinite().all():
                raise ValueError("batches must have a finite variance, got one that overflows")
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
    return model

"""Norms for the units of a trained net that say what the units do for the loss."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .arguments import check_kind, check_model, check_number, check_optimizer, shown
from .forward import layers_and_norms
from .layers import TRANSPOSED
from .release import check_unbegun
from .units import by_entries, families, norms, spread
from .wrapped import unwraps

LEAST = 1e-3  # of the mean score: no unit is given less


@unwraps
def weigh_units_(
    optimizer: Optimizer,
    model: nn.Module,
    example_input,
    losses: Iterable[Tensor],
    *,
    times: float = 1.0,
) -> list[str]:
    """Give units before a BatchNorm the norms of what they do for the loss, in place.

    A BatchNorm takes the norm of a row away, so a trained net does not say by it what matters, and
    no gradient changes it: along a path from dense to sparse the units would leave in the order of
    norms that mean nothing. But any norm is the same function. To first order the loss changes by
    ``g * dL/dg + b * dL/db`` when a channel with scale g and shift b behind its BatchNorm is lost.
    The root mean square of this over the losses, over all that write the channel, becomes the norm
    of the unit; the mean norm of each family stays, or is multiplied. Call it before
    :func:`dslbi_torch.release_`.

    Parameters
    ----------
    optimizer : DessiLBI or Split
        Before its path has begun.
    model : Module
        Whose weights it splits.
    example_input : Tensor
        What the model takes: one forward pass shows which BatchNorm follows which layer.
    losses : iterable of scalar tensors
        Of the model in training mode, on one batch each, computed one by one:
        ``(F.cross_entropy(model(x), y) for x, y in batches)``. Twenty batches will do.

    times : float > 0
        What the mean norm of each family is multiplied by. A unit that stays loses as much of its
        norm as those had that left, and SGD turns a row by ``lr / norm**2``: with 3 or so the net
        ends with about the norms that it came with.

    Returns
    -------
    list of str
        The split tensors that were weighed: those of families that are followed by BatchNorms with
        scale and shift throughout. The others stay as they are.

    Raises
    ------
    ValueError
        For a path that has begun, a net in which nothing can be weighed, no losses, and one that is
        no scalar, is not finite or does not depend on these BatchNorms.

    Notes
    -----
    The function stays the same as far as ``eps`` of the BatchNorms does not count. Running
    statistics and biases are scaled with the rows. A score below a thousandth of the mean counts as
    that. Not from the paper; the score is the first-order term of Molchanov et al. 2017.
    """
    check_optimizer(optimizer)
    times = check_number("times", times, 0, open_at="low")
    found = families(optimizer)
    check_unbegun(found)
    after = {
        id(layer.weight): (layer, norm)
        for layer, norm in layers_and_norms(check_model(model), example_input)
        if norm is not None and norm.affine and not isinstance(layer, TRANSPOSED)
    }
    weighed = [f for f in found if not by_entries(f.group) and all(id(W) in after for W in f.Ws)]
    if not weighed:
        raise ValueError("units must be followed by BatchNorms with scale and shift, none is")
    rows = {id(W): after[id(W)][1] for f in weighed for W in f.Ws}
    squares = _squares(list(dict.fromkeys(rows.values())), losses)
    with torch.no_grad():
        for family in weighed:
            _weigh(family, [squares[rows[id(W)]] for W in family.Ws], after, times)
    return [name for family in weighed for name in family.names]


def _squares(owners, losses):
    """The sums of the squared first-order changes of the loss, for the channels of each norm."""
    squares = {norm: torch.zeros_like(norm.weight) for norm in owners}
    inputs, count = [p for norm in owners for p in (norm.weight, norm.bias)], 0
    check_kind("losses", losses, Iterable, "an iterable of scalar tensors")
    if getattr(losses, "ndim", 1) == 0:
        raise TypeError(f"losses must be an iterable of scalar tensors, got {shown(losses)}")
    for loss in losses:
        count += 1
        if not (isinstance(loss, Tensor) and loss.ndim == 0 and loss.isfinite()):
            raise ValueError(f"losses must be finite scalar tensors, got {shown(loss)}")
        if not loss.requires_grad:
            raise ValueError(f"losses must depend on the model, that of batch {count} does not")
        grads = iter(torch.autograd.grad(loss, inputs, materialize_grads=True))
        for norm in owners:
            scale, shift = next(grads), next(grads)
            squares[norm] += (norm.weight * scale + norm.bias * shift).detach().square()
    if not count:
        raise ValueError("losses must hold at least one, got none")
    if not any(square.any() for square in squares.values()):
        raise ValueError("losses must depend on the BatchNorms behind the units, got no gradient")
    return squares


def _weigh(family, squares, after, times):
    """Scale the rows of a family's units, and what follows them."""
    laid = [
        (square / W[0].numel()).sqrt().view(-1, *[1] * (W.ndim - 1)).expand_as(W)
        for square, W in zip(squares, family.Ws, strict=True)
    ]
    (score,), (size,) = norms(laid, family.group), norms(family.Ws, family.group)
    if not score.any():
        return
    score = score.clamp(min=LEAST * score.mean())
    factor = torch.where(size > 0, times * score / score.mean() * size.mean() / size, times)
    for W, own in zip(family.Ws, spread([factor], family), strict=True):
        layer, norm = after[id(W)]
        channels = own.expand_as(W).flatten(1)[:, 0]
        W.mul_(own)
        if layer.bias is not None:
            layer.bias.mul_(channels)
        if norm.running_mean is not None:
            norm.running_mean.mul_(channels)
            norm.running_var.mul_(channels.square())

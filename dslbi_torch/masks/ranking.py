"""Orders of importance, and the masks of any density that they give.

An order is total, over the groups (single weights, of an l1 tensor) of the whole net. So the masks
that one order gives at different densities are nested.
"""

from collections.abc import Callable, Iterable
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..forward import layers_and_norms
from ..layers import weight_names
from ..path import NEVER, PathRecorder
from ..sharding import whole
from ..slices import Units, slice_norms, unit_weight
from ..units import group_gamma, split_tensors
from .apply import masked
from .checks import check_bool_tensors


class Ranking(NamedTuple):
    """The groups of a net in the order of their importance.

    Attributes
    ----------
    place : dict
        Of each tensor, the place of each of its groups in the order of the whole net (0: the most
        important), with an axis of length 1 where a group extends.
    shape : dict
        Of each tensor, its shape.
    """

    place: dict[str, Tensor]
    shape: dict[str, torch.Size]


def gamma_ranking(optimizer: Optimizer, *, normalised: bool = False) -> Ranking:
    """By the norm of the group in Gamma (of a single weight: its size), the largest first.

    Where Gamma is zero, the groups that are nearest to entering come first: those with the largest
    ``||V_g|| / (lam * w_g)``, which is below 1 there. Norms of groups of different sizes are
    compared as they are.

    Parameters
    ----------
    optimizer : Optimizer
    normalised : bool
        Select by weight-normalised size: the norm in Gamma is divided by the root mean square of
        the norms of the tensor's groups in W. A layer whose weights are all large is then not kept
        at the cost of one whose weights are all small; within a tensor the order stays.

    Notes
    -----
    The authors' weight-pruning example normalises V itself during training, by ``max(|W|, 1)``
    entry by entry, which does nothing where no weight exceeds 1, and slows the clock a hundredfold
    beside it. Here the update is left alone, so Gamma stays a function of V, and what is
    normalised is the selection.
    """
    norms, nearness, shapes = {}, {}, {}
    for name, W, V, group in split_tensors(optimizer):
        V = whole(V)
        scale = _typical(whole(W.detach()), group) if normalised else 1.0
        norms[name] = _norms(group_gamma(V, group), group) / scale
        nearness[name] = _norms(V, group) / _threshold(V, group)
        shapes[name] = V.shape
    return _ranked(shapes, norms, nearness)


def entry_ranking(recorder: PathRecorder) -> Ranking:
    """By the step at which the group first entered, the earliest first.

    Groups that entered in the same step, and those that never entered, follow each other as in
    :func:`gamma_ranking`. Single weights need a recorder with ``elements=True``.

    Raises
    ------
    ValueError
        For a recorder that was attached when something was already selected.
    """
    if recorder.attached_late():
        raise ValueError(
            "the recorder must be attached before anything is selected, but was attached late: "
            "the entry of what was selected then is unknown"
        )
    recorder.families()  # refuses a net that was widened since
    later = gamma_ranking(recorder.optimizer)
    entry = {}
    for name, place in later.place.items():
        steps = torch.as_tensor(recorder.entry_steps(name)).to(place.device)
        steps = steps.masked_fill(steps == NEVER, torch.iinfo(torch.int64).max)
        entry[name] = -steps.reshape(place.shape)
    return _ranked(later.shape, entry, {name: -place for name, place in later.place.items()})


def magnitude_ranking(groups: Optimizer | list[dict]) -> Ranking:
    """By the norm of the group in W (of a single weight: its size), the largest first.

    Parameters
    ----------
    groups : Optimizer, or list of dict
        An optimizer that splits, or what :func:`dslbi_torch.split_groups` gives: a net that was
        trained by any other optimizer is ranked by it too.
    """
    norms, shapes = {}, {}
    for name, W, group in _split_weights(groups):
        norms[name] = _norms(whole(W.detach()), group)
        shapes[name] = W.shape
    return _ranked(shapes, norms)


def scale_ranking(
    groups: Optimizer | list[dict], model: nn.Module, example_input: Tensor
) -> Ranking:
    """By the size of the scale of the BatchNorm that follows a filter, the largest first: the order
    of Network Slimming (Liu et al. 2017). What no BatchNorm follows is ranked by magnitude.

    Scales and norms of weights are no common measure: where both occur, take masks of a density of
    each layer from it.

    Parameters
    ----------
    groups : Optimizer, or list of dict
        As in :func:`magnitude_ranking`.
    model : Module
    example_input : Tensor
        One forward pass shows which BatchNorm follows which layer.
    """
    names = weight_names(model)
    scales = {
        names.get(layer): norm.weight
        for layer, norm in layers_and_norms(model, example_input)
        if norm is not None and norm.affine
    }
    norms, shapes = {}, {}
    for name, W, group in _split_weights(groups):
        norms[name], shapes[name] = _norms(whole(W.detach()), group), W.shape
        scale = scales.get(name)
        if scale is not None and norms[name].numel() == scale.numel():
            norms[name] = scale.detach().abs().double().view(norms[name].shape)
    return _ranked(shapes, norms)


def ranked_masks(
    ranking: Ranking, density: float | dict[str, float], *, per_layer: bool = False
) -> dict[str, Tensor]:
    """The masks of the most important groups.

    Parameters
    ----------
    ranking : Ranking
    density : float in (0, 1], or dict of such
        Share of the weights of the ranked tensors to keep. Groups are taken in their order until
        the next would exceed the share, one at least: a share is met from below. A dict gives
        tensors a share of their own; those that it does not name get no mask.
    per_layer : bool
        The share of each tensor instead of the share of the whole net.
    """
    if isinstance(density, dict):
        unknown = sorted(set(density) - set(ranking.place))
        if unknown:
            raise ValueError(f"density must name ranked tensors, got {unknown[0]!r}")
        if not density:
            raise ValueError("density must name at least one of the ranked tensors, got none")
        parts = [([name], share) for name, share in density.items()]
    elif per_layer:
        parts = [([name], density) for name in ranking.place]
    else:
        parts = [(list(ranking.place), density)]
    masks = {}
    for part, share in parts:
        if not (isinstance(share, Real) and 0 < share <= 1):
            raise ValueError(f"density must be in (0, 1], got {share!r}")
        places = torch.cat([ranking.place[name].flatten() for name in part])
        sizes = torch.cat([_sizes(ranking, name) for name in part])
        order = places.argsort()
        budget = share * sizes.sum().item() * (1 + 1e-12)
        count = max(1, int((sizes[order].cumsum(0) <= budget).sum()))
        last = places[order[:count]].max() if len(order) else 0
        for name in part:
            masks[name] = (ranking.place[name] <= last).expand(ranking.shape[name]).clone()
    return masks


@torch.no_grad()
def density_curve(
    model: nn.Module,
    ranking: Ranking,
    evaluate: Callable[[nn.Module], float],
    densities: Iterable[float] = (1, 0.2, 0.1, 0.05, 0.025, 0.01),
) -> dict[float, float]:
    """What ``evaluate(model)`` gives at each density of one ranking, without further training.

    Parameters
    ----------
    model : Module
        What was ranked; its weights are the same afterwards, bit for bit.
    ranking : Ranking
    evaluate : callable
        Takes the model, returns a number (an accuracy).
    densities : iterable of float in (0, 1]
        Shares of the weights of the ranked tensors, as in :func:`ranked_masks`.
    """
    found = {}
    for density in densities:
        with masked(model, ranked_masks(ranking, density)):
            found[density] = evaluate(model)
    return found


def _sizes(ranking, name):
    """Number of weights of each group of a tensor."""
    place = ranking.place[name].flatten()
    return torch.full_like(place, ranking.shape[name].numel() // max(1, len(place)))


def random_masks(masks: dict[str, Tensor], *, seed: int = 0) -> dict[str, Tensor]:
    """Masks of the same density in every layer, drawn at random.

    What is kept or removed as a whole in a mask (a filter, a kernel) is so in the drawn one: the
    axes along which it does not change keep this property. Biases and norms follow their filters:
    draw masks of weights, and then extend them by :func:`dslbi_torch.whole_filters`.
    """
    check_bool_tensors(masks)
    flat = [name for name, mask in masks.items() if mask.ndim < 2]
    if flat and len(flat) < len(masks):
        raise ValueError(
            f"masks must be of weights only, got one of {flat[0]} too: what follows a filter is "
            "added by whole_filters, what does not is drawn apart"
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name, mask in masks.items():
        units = mask
        for axis in range(mask.ndim):
            first = mask.narrow(axis, 0, min(1, mask.shape[axis]))
            if bool((mask == first).all()):
                units = units.narrow(axis, 0, first.shape[axis])
        order = torch.randperm(units.numel(), generator=generator).to(mask.device)
        drawn[name] = units.flatten()[order].view(units.shape).expand(mask.shape).clone()
    return drawn


def _split_weights(groups):
    """``(name, W, group)`` of every tensor with a penalty."""
    if isinstance(groups, Optimizer):
        return [(name, W, group) for name, W, _, group in split_tensors(groups)]
    found = [
        (name, W, group)
        for group in groups
        if group.get("penalty") is not None
        for name, W in group["params"]
    ]
    if not found:
        raise ValueError('the groups split nothing: none has penalty "l1" or "group"')
    return found


def _norms(x, group):
    """Norm of each group in float64, with axes of length 1; of an l1 tensor the absolute values."""
    if group["penalty"] == "l1":
        return x.abs().double()
    return slice_norms(x.abs().double(), group.get("group_dim", 0))


def _typical(W, group):
    """Root mean square of the norms of a tensor's groups; 1 where all are zero."""
    size = _norms(W, group).square().mean().sqrt()
    return torch.where(size == 0, 1.0, size)


def _threshold(V, group):
    """What the norm of a group of V must exceed for it to be selected."""
    if group["penalty"] == "l1":
        return float(group["lam"])
    units = Units(group["group_dim"], weight=group["weight"])
    return float(group["lam"]) * unit_weight([V], units)


def _ranked(shapes, *keys):
    """The order by the first key, the largest first; ties by the next key, then by position."""
    flat = [torch.cat([x.flatten() for x in key.values()]) for key in keys]
    if any(key.isnan().any() for key in flat if key.is_floating_point()):
        raise ValueError("what is ranked must not be NaN: the training has diverged")
    order = torch.arange(len(flat[0]), device=flat[0].device)
    for key in reversed(flat):  # sorts that keep what is equal in place: the last one decides
        order = order[key[order].argsort(descending=True, stable=True)]
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=order.device)
    parts = places.split([x.numel() for x in keys[0].values()])
    place = {n: p.view(x.shape) for (n, x), p in zip(keys[0].items(), parts, strict=True)}
    return Ranking(place, {name: torch.Size(shapes[name]) for name in place})

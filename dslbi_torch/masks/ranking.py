"""Orders of importance of the units of a net.

An order is total, over all units of the net, so the masks that one order gives at different
densities are nested (:func:`dslbi_torch.ranked_masks`).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..arguments import check_flag, check_kind, check_list, check_model
from ..forward import layers_and_norms
from ..layers import weight_names
from ..path import NEVER, PathRecorder
from ..penalties import one_of
from ..sharding import whole
from ..slices import by_family
from ..split_table import pairs_of
from ..units import Family, families, gammas, norms, scores, spread
from ..wrapped import plain_name, unwraps


class Ranking(NamedTuple):
    """The units of a net in the order of their importance.

    Attributes
    ----------
    place : dict
        Of each tensor, the place that the unit of each entry has in the order of the whole net (0:
        the most important). It is broadcastable to the tensor: an axis has length 1 where a unit
        extends along it. Entries of one unit have one place, in all tensors that share it.
    shape : dict
        Of each tensor, its shape.
    families : list of tuple
        Names of the tensors that share units; a tensor alone is a tuple of one.
    """

    place: dict[str, Tensor]
    shape: dict[str, torch.Size]
    families: list[tuple[str, ...]]


@unwraps
def gamma_ranking(optimizer: Optimizer, *, normalised: bool = False) -> Ranking:
    """Rank units by their norm in Gamma (single weights by their size), the largest first.

    Where Gamma is zero, the units that are nearest to entering come first: those with the largest
    score over lam, which is below 1 there. Norms of units of different sizes are compared as they
    are.

    Parameters
    ----------
    optimizer : Optimizer
    normalised : bool
        Select by weight-normalised size: the norm in Gamma is divided by the root mean square of
        the norms in W of the units of its family. A layer whose weights are all large is then not
        kept at the cost of one whose weights are all small; within a layer the order stays.

    Notes
    -----
    The authors' weight-pruning example normalises V itself during training, by ``max(|W|, 1)``
    entry by entry, which does nothing where no weight exceeds 1, and slows entries a hundredfold
    beside it. Here the update is left alone, so Gamma stays a function of V, and what is
    normalised is the selection.
    """
    check_flag("normalised", normalised)
    found = [_gathered(family) for family in families(optimizer)]
    return _ranked(found, *_gamma_keys(found, normalised))


def entry_ranking(recorder: PathRecorder) -> Ranking:
    """Rank units by the step at which they first entered, the earliest first.

    Units that entered in the same step, and those that never entered, follow each other as in
    :func:`gamma_ranking`. Single weights need a recorder with ``elements=True``.

    Raises
    ------
    ValueError
        For a recorder that was attached when something was already selected, or to a net that was
        widened since.
    """
    check_kind("recorder", recorder, PathRecorder, "a PathRecorder")
    if recorder.attached_late():
        raise ValueError(
            "the recorder must be attached before anything is selected, but was attached late: "
            "the entry of what was selected then is unknown"
        )
    found = [_gathered(family) for family in recorder.families()]
    keys = _gamma_keys(found)
    entries = [
        [_earliness(recorder, name, norm) for name, norm in zip(family.names, key, strict=False)]
        for family, key in zip(found, keys[0], strict=True)
    ]
    return _ranked(found, entries, *keys)


def _earliness(recorder, name, like):
    """The negative entry steps of the units under a name, which are laid out as ``like``."""
    steps = torch.as_tensor(recorder.entry_steps(name)).to(like.device)
    return -steps.masked_fill(steps == NEVER, torch.iinfo(torch.int64).max).reshape(like.shape)


@unwraps
def magnitude_ranking(groups: Optimizer | list[dict]) -> Ranking:
    """Rank units by their norm in W (single weights by their size), the largest first.

    Parameters
    ----------
    groups : Optimizer, or list of dict
        An optimizer that splits, or what :func:`dslbi_torch.split_groups` gives: a net that was
        trained by any other optimizer is ranked by it too.
    """
    found = _families_of(groups)
    return _ranked(found, [_norms(family.Ws, family.group) for family in found])


@unwraps
def scale_ranking(
    groups: Optimizer | list[dict], model: nn.Module, example_input: Tensor
) -> Ranking:
    """Rank filters by the size of the scale of the BatchNorm that follows, the largest first.

    This is the order of Network Slimming (Liu et al. 2017). Joint filters are ranked by the norm of
    their scales, and what no BatchNorm follows by magnitude. Scales and norms of weights are no
    common measure: where both occur, take masks of a density of each layer from it.

    Parameters
    ----------
    groups : Optimizer, or list of dict
        As in :func:`magnitude_ranking`.
    model : Module
    example_input : Tensor
        One forward pass shows which BatchNorm follows which layer.
    """
    names = weight_names(check_model(model))
    scales = {
        plain_name(names.get(layer, "")): norm.weight
        for layer, norm in layers_and_norms(model, example_input)
        if norm is not None and norm.affine
    }
    found, keys = _families_of(groups), []
    for family in found:
        key = _norms(family.Ws, family.group)
        own = [scales.get(plain_name(name)) for name in family.names]
        if all(scale is not None for scale in own):
            sizes = _norms(own, family.group | {"group_dim": 0})
            if [x.numel() for x in sizes] == [x.numel() for x in key]:
                key = [x.view(y.shape) for x, y in zip(sizes, key, strict=True)]
        keys.append(key)
    return _ranked(found, keys)


def _families_of(groups):
    """The families of an optimizer, or of a list of parameter groups; sharded tensors whole."""
    if isinstance(groups, Optimizer):
        return [_gathered(family) for family in families(groups)]
    found = []
    for group in check_list("groups", groups):
        pairs = pairs_of(group)
        if group.get("penalty") is not None:
            for rows in by_family(pairs, group):
                names, Ws = map(list, zip(*rows, strict=True))
                found.append(_gathered(Family(names, Ws, Ws, group)))
    if not found:
        raise ValueError(f"the groups split nothing: none has penalty {one_of()}")
    return found


def _gathered(family):
    """The family with sharded tensors whole, apart from any gradient."""
    Ws, Vs = ([whole(x.detach()) for x in xs] for xs in (family.Ws, family.Vs))
    return family._replace(Ws=Ws, Vs=Vs)


def _gamma_keys(found, normalised=False):
    """The two keys of :func:`gamma_ranking`: norms in Gamma, and nearness to entering."""
    sizes, nearness = [], []
    for family in found:
        size = _norms(gammas(family), family.group)
        if normalised:
            typical = (_typical(x) for x in _norms(family.Ws, family.group))
            size = [x / y for x, y in zip(size, typical, strict=True)]
        sizes.append(size)
        exact = [V.to(torch.promote_types(V.dtype, torch.float64)) for V in family.Vs]
        levels = scores(family._replace(Vs=exact))
        nearness.append([score / family.group["lam"] for score in levels])
    return sizes, nearness


def _norms(xs, group):
    """The norm of every unit in float64; of single weights the absolute values."""
    return norms([x.detach().abs().double() for x in xs], group)


def _typical(size):
    """Root mean square of norms; 1 where all are zero."""
    typical = size.square().mean().sqrt()
    return torch.where(typical == 0, 1.0, typical)


def _ranked(found, *keys):
    """The order by the first key, the largest first; ties by the next key, then by position.

    A key holds for each family a list of tensors, each unit once.
    """
    flat = [torch.cat([x.flatten() for xs in key for x in xs]) for key in keys]
    if any(key.isnan().any() for key in flat if key.is_floating_point()):
        raise ValueError("what is ranked must not be NaN: the training has diverged")
    order = torch.arange(len(flat[0]), device=flat[0].device)
    for key in reversed(flat):  # sorts that keep what is equal in place: the last one decides
        order = order[key[order].argsort(descending=True, stable=True)]
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=order.device)
    place, shape = {}, {}
    for family, key in zip(found, keys[0], strict=True):
        count = sum(x.numel() for x in key)
        own, places = places[:count].split([x.numel() for x in key]), places[count:]
        own = [p.view(x.shape) for p, x in zip(own, key, strict=True)]
        for name, W, p in zip(family.names, family.Ws, spread(own, family), strict=True):
            place[name], shape[name] = p, W.shape
    return Ranking(place, shape, [tuple(family.names) for family in found])

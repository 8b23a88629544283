"""Masks of a given density: the first units of a ranking, or units drawn at random."""

from collections.abc import Callable, Iterable
from numbers import Real

import torch
from torch import Tensor, nn

from ..arguments import check_count, check_flag, check_kind, check_list, check_model, shown
from ..path import PathRecorder
from ..wrapped import unwraps
from .apply import masked
from .checks import check_bool_tensors
from .crossing import crossing_weights
from .ranking import Ranking


def ranked_masks(
    ranking: Ranking, density: float | dict[str, float], *, per_layer: bool = False
) -> dict[str, Tensor]:
    """Return the masks of the most important units.

    Units are taken in their order until the next would exceed the density, one at least: a density
    is met from below. A unit that several tensors share is counted once, with all its entries.

    Parameters
    ----------
    ranking : Ranking
    density : float in (0, 1], or dict of such
        Share of the weights of the ranked tensors to keep. A dict gives tensors, with all that
        share their units, a share of their own; those that it does not name get no mask.
    per_layer : bool
        The share of each tensor (of each family of tensors that share units) instead of the share
        of the whole net.
    """
    check_flag("per_layer", per_layer)
    masks = {}
    for names, share in _parts(ranking, density, per_layer):
        if not (isinstance(share, Real) and 0 < share <= 1):
            raise ValueError(f"density must be in (0, 1], got {share!r}")
        sizes = _unit_sizes(ranking, names)
        places = sizes.nonzero().flatten()  # in the order of the ranking
        budget = share * sizes.sum().item() * (1 + 1e-12)
        count = max(1, int((sizes[places].cumsum(0) <= budget).sum()))
        last = int(places[count - 1]) if len(places) else -1
        for name in names:
            masks[name] = (ranking.place[name] <= last).expand(ranking.shape[name]).clone()
    return masks


def _parts(ranking, density, per_layer):
    """The names of tensors that have a density together, and this density."""
    check_kind("ranking", ranking, Ranking, "a Ranking")
    parts = (("place", dict), ("shape", dict), ("families", list))
    for field, kind in parts:
        if not (isinstance(part := getattr(ranking, field), kind) and part):
            raise ValueError(f"ranking must have a {field} of its tensors, got {shown(part)}")
    if not isinstance(density, dict):
        if per_layer:
            return [(names, density) for names in ranking.families]
        return [(tuple(ranking.place), density)]
    if not density:
        raise ValueError("density must name at least one of the ranked tensors, got none")
    unknown = sorted(set(density) - set(ranking.place))
    if unknown:
        raise ValueError(f"density must name ranked tensors, got {unknown[0]!r}")
    parts = {}
    for name, share in density.items():
        names = next(names for names in ranking.families if name in names)
        if names in parts and parts[names] != share:
            raise ValueError(
                f"density must give tensors that share units one share, got {parts[names]!r} and "
                f"{share!r} for {name}"
            )
        parts[names] = share
    return list(parts.items())


def _unit_sizes(ranking, names):
    """Entries of each unit, by its place in the order of the whole net; 0 for those of other
    tensors."""
    places = [ranking.place[name].flatten().cpu() for name in names]
    entries = [
        torch.full_like(
            place, ranking.shape[name].numel() // max(1, len(place)), dtype=torch.double
        )
        for name, place in zip(names, places, strict=True)
    ]
    return torch.bincount(torch.cat(places), torch.cat(entries))


@unwraps
@torch.no_grad()
def density_curve(
    model: nn.Module,
    ranking: Ranking | PathRecorder,
    evaluate: Callable[[nn.Module], float],
    densities: Iterable[float] = (1, 0.2, 0.1, 0.05, 0.025, 0.01),
) -> dict[float, float]:
    """Return what ``evaluate(model)`` gives at each density of one run, without more training.

    Parameters
    ----------
    model : Module
        What was ranked; its weights are the same afterwards, bit for bit.
    ranking : Ranking, or PathRecorder
        An order of the units (:func:`dslbi_torch.entry_ranking`, ``gamma_ranking``,
        ``magnitude_ranking``): masks of it on the weights as they are. Or a recorder that kept
        these densities (``at``): the sparse models as they were when the path crossed them.
    evaluate : callable
        Takes the model, returns a number (an accuracy).
    densities : iterable of float in (0, 1]
        Shares of the weights of the ranked tensors, as in :func:`ranked_masks`.
    """
    check_kind("evaluate", evaluate, callable, "callable")
    check_model(model)
    found = {}
    for density in check_list("densities", densities):
        if isinstance(ranking, PathRecorder):
            reading = crossing_weights(ranking, density)
        else:
            reading = masked(model, ranked_masks(ranking, density))
        with reading:
            found[density] = evaluate(model)
    return found


def random_masks(masks: dict[str, Tensor], *, seed: int = 0) -> dict[str, Tensor]:
    """Return masks of the same density in every layer, drawn at random.

    What a mask keeps or removes as a whole (a filter, a kernel), the drawn mask does too: the axes
    along which a mask does not change keep this property. Every tensor is drawn by itself, those
    that share units too. Biases and norms follow their filters: draw masks of weights, and then
    extend them by :func:`dslbi_torch.whole_filters`.
    """
    check_bool_tensors(masks)
    seed = check_count("seed", seed, 0, 2**63 - 1)
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

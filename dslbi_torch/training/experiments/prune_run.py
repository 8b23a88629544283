"""The command ``prune``: what stays of a run's net at a density, written as masks."""

import copy
from pathlib import Path

import torch

from ...masks.apply import apply_masks_
from ...masks.budget import random_masks, ranked_masks
from ...masks.files import load_masks, save_masks
from ...masks.ranking import Ranking, entry_ranking, gamma_ranking, magnitude_ranking
from ...masks.support import recorded_masks, support_masks
from ...masks.whole_filters import whole_filters
from ...surgery.costs import cost_table, layer_costs
from ...units import by_entries, families
from ..run.initial_net import initial_net
from ..run.make_optimizer import groups_of
from ..run.state import Run
from .compare_nets import comparison

PRUNED = "pruned.pt"  # in a run folder, what prune chose
ORDERS = ("gamma", "normalised", "entry", "magnitude", "initial", "random")


def choose_masks(
    run: Run, *, density=None, by=None, step=None, per_layer=False, seed=None
) -> dict[str, torch.Tensor]:
    """Return masks of a run's net, with what belongs to a removed filter.

    Parameters
    ----------
    run : Run
    density : float in (0, 1], optional
        Share of the split weights to keep; None: the support of Gamma. Of a run without a split:
        share of what its config would split.
    by : one of ``ORDERS``, optional
        What decides at a density; None: "gamma", or without a split "magnitude", the only one then.
        "normalised": ``gamma_ranking`` with that option. "initial": the size of the weights as the
        run began, a control of what enters for being born large. "random": as many in each layer
        as by Gamma.
    step : int, optional
        Without a density: the support at this recorded step; None: the last.
    per_layer : bool
        The density of each layer instead of the whole net's.
    seed : int, optional
        Of random masks; None: 0.
    """
    if density is not None:
        if step is not None:
            raise ValueError("step must be left out where a density is asked")
        if seed is not None and by != "random":
            raise ValueError(f"seed must be left out but for random masks, got {seed}")
        by = by or ("gamma" if run.config.splits else "magnitude")
        masks = ranked_masks(_ranking(run, by), density, per_layer=per_layer)
        if by == "random":
            masks = random_masks(masks, seed=seed or 0)
    else:
        for name, value in (("by", by), ("per_layer", per_layer or None), ("seed", seed)):
            if value is not None:
                raise ValueError(f"{name} must be left out without a density, got {value}")
        masks = _support(run, step)
    return whole_filters(run.model, masks, run.data.example())


def _support(run, step):
    """The support of Gamma, now or at a recorded step."""
    if not run.config.splits:
        raise ValueError(
            f"density must be given where nothing is split ({run.config.optimizer}), got none"
        )
    if step is None:
        return support_masks(run.optimizer)
    _require_path(run, "step")
    return recorded_masks(run.recorder, step)


def _ranking(run, by) -> Ranking:
    """What goes last, as ``by`` says."""
    if by not in ORDERS:
        raise ValueError(f"by must be one of {', '.join(ORDERS)}, got {by!r}")
    if by == "magnitude":
        return magnitude_ranking(groups_of(run.config, run.model, run.data.example()))
    if by == "initial":
        model, _ = initial_net(run.config, run.data, run.processes.device)
        return magnitude_ranking(groups_of(run.config, model, run.data.example()))
    if not run.config.splits:
        raise ValueError(
            f"by must be magnitude where nothing is split ({run.config.optimizer}), got {by}"
        )
    if by == "entry":
        _require_path(run, "by entry")
        return entry_ranking(run.recorder)
    return gamma_ranking(run.optimizer, normalised=by == "normalised")


def _require_path(run, what):
    """Refuse what needs more of the path than the run has recorded."""
    if run.recorder is None:
        raise ValueError(f"{what} needs a recorded path, which a net that has grown does not have")
    single = any(by_entries(family.group) for family in families(run.optimizer))
    if single and not run.config.elements:
        raise ValueError(
            f"{what} needs the entry of single weights: train with --elements, got a run without"
        )


def prune(run: Run, file: Path, **choice) -> str:
    """Write the masks that :func:`choose_masks` makes of ``choice``; return what that changes.

    Raises
    ------
    ValueError
        For an impossible choice, and where the file exists: a run is pruned once.
    """
    if file.exists():
        raise ValueError(f"{file} must not exist, the run was pruned already: name another file")
    masks = choose_masks(run, **choice)
    sparse = apply_masks_(copy.deepcopy(run.model), masks)
    save_masks(masks, file)
    layers = cost_table(layer_costs(run.model, masks, run.data.example()))
    table = comparison(run, {"dense": run.model, "sparse": sparse})
    return "\n\n".join([layers, *emptied(masks), table])


def emptied(masks: dict) -> list[str]:
    """Return a line on the layers of which masks keep nothing; none if there are none."""
    names = [
        name.removesuffix(".weight") for name, m in masks.items() if m.ndim > 1 and not m.any()
    ]
    if not names:
        return []
    return [f"nothing is left of {', '.join(names)}: compact will refuse these masks"]


def read_masks(folder: str | Path, file: str | None) -> dict | None:
    """Return the masks of a file, or those that ``prune`` left in a run folder, or None.

    Not those under which a run was trained, ``masks.pt``: a net that was cut has other shapes."""
    default = Path(folder) / PRUNED
    if file is None and not default.exists():
        return None
    return load_masks(file or default)

"""From a finished run to a small network: the commands ``prune`` and ``compact``.

``prune`` writes what stays of a run's net at a density, as masks; ``compact`` cuts the net by them,
without them by the support of Gamma, and where nothing is split by what is zero already: so a
ticket, which was trained under masks, becomes a small file too. Both say what a model costs before
and after.
"""

import copy
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from ...forward import evaluating
from ...masks.apply import apply_masks_
from ...masks.budget import random_masks, ranked_masks
from ...masks.files import load_masks, save_masks
from ...masks.ranking import Ranking, entry_ranking, gamma_ranking, magnitude_ranking
from ...masks.semi_structured import has_kernels
from ...masks.support import recorded_masks, support_masks
from ...masks.whole_filters import whole_filters
from ...surgery.compact import compact
from ...surgery.costs import cost_table, count_macs, layer_costs
from ...surgery.saving import save_compact, save_onnx, save_program
from ..run.evaluate import accuracy
from ..run.optimizers import groups_of
from ..run.sparse_start import example
from ..run.train import Run

PRUNED = "pruned.pt"  # in a run folder, what prune chose
ORDERS = ("gamma", "normalised", "entry", "magnitude", "random")


def choose_masks(
    run: Run, *, density=None, by=None, step=None, per_layer=False, seed=None
) -> dict[str, torch.Tensor]:
    """Masks of a run, with what belongs to a removed filter.

    Parameters
    ----------
    run : Run
    density : float in (0, 1], optional
        Share of the split weights to keep; None: the support of Gamma. Of a run without a split:
        share of what its config would split.
    by : one of ``ORDERS``, optional
        What decides at a density; None: "gamma", or without a split "magnitude", the only one then.
        "normalised": ``gamma_ranking`` with that option. "random": as many in each layer as by
        Gamma.
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
    return whole_filters(run.model, masks, example(run.data))


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
        return magnitude_ranking(groups_of(run.config, run.model))
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
    single = any(group["penalty"] == "l1" for group in run.optimizer.param_groups)
    if single and not run.config.elements:
        raise ValueError(
            f"{what} needs the entry of single weights: train with --elements, got a run without"
        )


def prune(run: Run, file: Path, **choice) -> str:
    """Write the masks that :func:`choose_masks` makes of ``choice``; returns what it changes.

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
    layers = cost_table(layer_costs(run.model, masks, example(run.data)))
    table = comparison(run, {"dense": run.model, "sparse": sparse})
    return "\n\n".join([layers, *emptied(masks), table])


def emptied(masks: dict) -> list[str]:
    """A line on the layers of which masks keep nothing; none if there are none."""
    names = [
        name.removesuffix(".weight") for name, m in masks.items() if m.ndim > 1 and not m.any()
    ]
    if not names:
        return []
    return [f"nothing is left of {', '.join(names)}: compact will refuse these masks"]


def compact_run(run: Run, masks: dict | None, file: Path, *, onnx=False, program=False) -> str:
    """Cut the net of a run by masks and write it; returns what that changes. The original run is
    left as it is.

    Parameters
    ----------
    run : Run
    masks : dict, or None
        None: the support of Gamma; where nothing is split, what is zero in the net already.
    file : path
    onnx, program : bool
        Write ``file`` with the suffix ``.onnx``, ``.pt2`` too.

    Raises
    ------
    ValueError
        For files that exist, or would be the same, and for a net that cannot be cut.
    """
    also = {".onnx": (onnx, save_onnx), ".pt2": (program, save_program)}
    also = {file.with_suffix(suffix): save for suffix, (asked, save) in also.items() if asked}
    if file in also:
        raise ValueError(f"out must have another suffix than {file.suffix}, which is written too")
    for target in (file, *also):
        if target.exists():
            raise ValueError(f"{target} must not exist: name another file with --out")
    if masks is None:
        masks = choose_masks(run) if run.config.splits else {}
    x = example(run.data)
    small = compact(run.model, masks or None, x)
    try:
        for target, save in also.items():  # first: they may need a package that is not there
            save(small, x, target)
        save_compact(small, file, architecture(run))
    except BaseException:
        for target in (file, *also):  # none of them was there, and half of them is none
            target.unlink(missing_ok=True)
        raise
    nets = {"dense": run.model, "compact": small}
    if masks:
        sparse = apply_masks_(copy.deepcopy(run.model), masks)
        nets = {"dense": run.model, "sparse": sparse, "compact": small}
    sizes = [f"{target}: {target.stat().st_size:,} bytes" for target in also]
    return "\n".join([comparison(run, nets), *single_zeros(small), *sizes])


def architecture(run: Run) -> dict:
    """The arguments with which :func:`dslbi_torch.training.nets.table.build` makes the net."""
    return {
        "name": run.config.model,
        "n_classes": len(run.data.classes),
        "in_channels": run.data.shape[0],
    }


def read_masks(folder: str | Path, file: str | None) -> dict | None:
    """The masks of a file, or those that ``prune`` left in a run folder, or None.

    Not those under which a run was trained, ``masks.pt``: a net that was cut has other shapes."""
    default = Path(folder) / PRUNED
    if file is None and not default.exists():
        return None
    return load_masks(file or default)


# Before and after


def comparison(run: Run, nets: dict[str, nn.Module], batch_size: int = 128) -> str:
    """What nets cost and reach, one line each: accuracy, parameters, MACs, time, bytes."""
    x = example(run.data, batch_size)
    times = batch_times(nets, x)
    held_out = run.config.holdout
    lines = [
        f"{'':<10}{'accuracy %':>12}{'':>14}{'of them':>14}{'MACs':>16}"
        f"{'ms per batch':>14}{'bytes':>13}",
        f"{'model':<10}{'held out' if held_out else 'test set':>12}{'parameters':>14}"
        f"{'non-zero':>14}{'per picture':>16}{f'of {len(x)}':>14}{'on disk':>13}",
    ]
    for name, net in nets.items():
        right = accuracy(net, run.data.test, run.config, run.processes)
        parameters = sum(p.numel() for p in net.parameters())
        nonzero = sum(int(p.count_nonzero()) for p in net.parameters())
        lines.append(
            f"{name:<10}{100 * right:>12.2f}{parameters:>14,}{nonzero:>14,}"
            f"{count_macs(net, x[:2])['']:>16,}{1e3 * times[name]:>14.2f}"
            f"{bytes_on_disk(net):>13,}"
        )
    return "\n".join(lines)


@torch.no_grad()
def batch_times(
    nets: dict[str, nn.Module], x: torch.Tensor, *, rounds: int = 30, budget: float = 2.0
) -> dict[str, float]:
    """Median seconds of a forward pass of each net in evaluation mode.

    The nets take turns, so that a ratio compares passes of the same moment. At least three rounds,
    then until the budget in seconds for each net, or the number of rounds, is used up.
    """
    seconds = {name: [] for name in nets}
    started = time.perf_counter()
    for k in range(-1, rounds):  # the first round warms up
        if k >= 3 and time.perf_counter() - started > budget * len(nets):
            break
        for name, net in nets.items():
            with evaluating(net):
                begin = time.perf_counter()
                net(x)
                if x.is_cuda:
                    torch.cuda.synchronize()
                if k >= 0:
                    seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def bytes_on_disk(net: nn.Module) -> int:
    """Size of the file that :func:`dslbi_torch.save_compact` makes of a net."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.pt"
        save_compact(net, file)
        return file.stat().st_size


def single_zeros(net: nn.Module) -> list[str]:
    """What single zeros that are left in a net are good for; nothing if there are few."""
    weights = [p for p in net.parameters() if p.ndim > 1]
    total = sum(p.numel() for p in weights)
    zeros = total - sum(int(p.count_nonzero()) for p in weights)
    if zeros < 0.01 * total:
        return []
    device = weights[0].device
    say = f"{100 * zeros / total:.1f} % of the weights of the compact net are single zeros: "
    if has_kernels(device):
        return [say + "semi_structured() runs linear layers as 2:4 sparse ones on this device"]
    full = copy.deepcopy(net)
    for p in full.parameters():
        p.data.masked_fill_(p.data == 0, 1)
    return [
        say + f"smaller on disk only ({bytes_on_disk(net):,} bytes for {bytes_on_disk(full):,}); "
        f"this device ({device.type}) has no 2:4 sparse kernels"
    ]

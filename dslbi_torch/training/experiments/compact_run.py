"""The command ``compact``: a run's net cut down to a small file.

The net is cut by masks, without them by the support of Gamma, and where nothing is split by what is
zero already: so a ticket, which was trained under masks, becomes a small file too.
"""

import copy
from itertools import islice
from pathlib import Path

import torch

from ...layers import NORM
from ...masks.apply import apply_masks_
from ...surgery.compact import compact
from ...surgery.fold_norms import fold_norms, has_foldable
from ...surgery.saving import save_compact, save_onnx, save_program
from ...surgery.shrink import renew_statistics_
from ..run.state import Run
from .compare_nets import comparison, single_zeros
from .prune_run import choose_masks


def compact_run(
    run: Run, masks: dict | None, file: Path, *, onnx=False, program=False, statistics=0, fold=False
) -> str:
    """Cut the net of a run by masks and write it; return what that changes. The original run is
    left as it is.

    Parameters
    ----------
    run : Run
    masks : dict, or None
        None: the support of Gamma; where nothing is split, what is zero in the net already.
    file : path
    onnx, program : bool
        Write ``file`` with the suffix ``.onnx``, ``.pt2`` too.
    statistics : int >= 0
        Training batches from which the statistics of the BatchNorms are taken anew; 0: they stay.
    fold : bool
        What is written for onnx and program has its BatchNorms folded.

    Raises
    ------
    ValueError
        For files that exist, or would be the same, for a net that cannot be cut, and for options
        that would do nothing.
    """
    also = {".onnx": (onnx, save_onnx), ".pt2": (program, save_program)}
    also = {file.with_suffix(suffix): save for suffix, (asked, save) in also.items() if asked}
    if file in also:
        raise ValueError(f"out must have another suffix than {file.suffix}, which is written too")
    for target in (file, *also):
        if target.exists():
            raise ValueError(f"{target} must not exist: name another file with --out")
    x = run.data.example()
    _check_norms(run.model, x, statistics, fold, written=bool(also))
    if masks is None:
        masks = choose_masks(run) if run.config.splits else {}
    small = compact(run.model, masks or None, x)
    if statistics:
        generator = torch.Generator().manual_seed(run.config.seed)
        batches = run.data.train.batches(run.config.batch_size, generator)
        renew_statistics_(small, islice(batches, statistics))
    folded = fold_norms(small, x) if has_foldable(small, x) else None
    try:
        for target, save in also.items():  # first: they may need a package that is not there
            save(folded if fold else small, x, target)
        save_compact(small, file, architecture(run))
    except BaseException:
        for target in (file, *also):  # none of them was there, and half of them is none
            target.unlink(missing_ok=True)
        raise
    nets = {"dense": run.model}
    if masks:
        nets["sparse"] = apply_masks_(copy.deepcopy(run.model), masks)
    nets["compact"] = small
    if folded is not None:
        nets["folded"] = folded
    sizes = [f"{target}: {target.stat().st_size:,} bytes" for target in also]
    return "\n".join([comparison(run, nets), *single_zeros(small), *sizes])


def _check_norms(model, x, statistics, fold, written):
    """Refuse what is asked of BatchNorms that there are not, or for files that are not written."""
    if statistics < 0:
        raise ValueError(f"statistics must be at least 0, got {statistics}")
    if statistics and not any(isinstance(m, NORM) for m in model.modules()):
        raise ValueError(f"statistics needs a net with BatchNorm, got {statistics} without")
    if fold and not (written and has_foldable(model, x)):
        raise ValueError(
            "fold needs a BatchNorm that takes the output of a layer, and onnx or program"
        )


def architecture(run: Run) -> dict:
    """Return the arguments with which :func:`dslbi_torch.training.nets.zoo.build` makes the net."""
    return {
        "name": run.config.model,
        "n_classes": len(run.data.classes),
        "in_channels": run.data.shape[0],
    }

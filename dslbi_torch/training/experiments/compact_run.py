"""The command ``compact``: a run's net cut down to a small file.

The net is cut by masks, without them by the support of Gamma, and where nothing is split by what is
zero already: so a ticket, which was trained under masks, becomes a small file too.
"""

import copy
from pathlib import Path

from ...masks.apply import apply_masks_
from ...surgery.compact import compact
from ...surgery.saving import save_compact, save_onnx, save_program
from ..run.state import Run
from .compare_nets import comparison, single_zeros
from .prune_run import choose_masks


def compact_run(run: Run, masks: dict | None, file: Path, *, onnx=False, program=False) -> str:
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
    x = run.data.example()
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
    """Return the arguments with which :func:`dslbi_torch.training.nets.zoo.build` makes the net."""
    return {
        "name": run.config.model,
        "n_classes": len(run.data.classes),
        "in_channels": run.data.shape[0],
    }

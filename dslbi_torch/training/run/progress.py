"""What is shown of a run while it trains: a bar, a line for each epoch, TensorBoard."""

import sys
from contextlib import nullcontext

from tqdm.auto import tqdm

from ...optional import brought_by
from .evaluate import EVALUATED
from .state import Run


def _in_jupyter():
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config


def epoch_line(row: dict, epochs: int) -> str:
    """Return one row of the log as a line for the screen."""
    shown = [name for name in EVALUATED if row[f"acc_{name}"] is not None]
    accuracies = "  ".join(f"{name} {100 * row[f'acc_{name}']:6.2f}" for name in shown)
    line = (
        f"epoch {row['epoch']:>3}/{epochs}  {row['time_s']:6.1f} s  loss {row['loss']:.4f}  "
        f"accuracy %: {accuracies}"
    )
    if row["nonzero_all"] is not None:
        line += f"  non-zero % of all: {100 * row['nonzero_all']:6.2f}"
    return line + (f"  damaged files skipped: {row['skipped']}" if row["skipped"] else "")


def progress_bar(run: Run, progress: bool | None) -> tqdm:
    """Return the bar of a run's steps; ``progress`` None: shown in a terminal and in Jupyter."""
    if progress is None:
        progress = sys.stderr.isatty() or _in_jupyter()
    return tqdm(
        total=run.config.epochs * run.steps_per_epoch,
        initial=run.step,
        desc=run.config.recipe or run.config.dataset,
        unit="step",
        disable=not (progress and run.processes.first),
        leave=False,
        dynamic_ncols=True,
    )


def tensorboard_writer(run: Run):
    """Return a writer for TensorBoard, or None, as a context."""
    if not (run.config.tensorboard and run.processes.first):
        return nullcontext()
    with brought_by("train", "tensorboard"):
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter(run.config.folder / "tensorboard", purge_step=run.at.epoch + 1)


def show_row(writer, row: dict) -> None:
    """Write one line of the log for TensorBoard."""
    if writer is None:
        return
    layers = {f"nonzero/{name}": share for name, share in (row["layers"] or {}).items()}
    for key, value in ({k: v for k, v in row.items() if k != "layers"} | layers).items():
        if value is not None and key != "epoch":
            writer.add_scalar(key, value, row["epoch"])
    writer.flush()

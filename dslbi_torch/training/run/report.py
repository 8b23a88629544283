"""What a run found: accuracies and densities, and when each part of the net entered."""

from pathlib import Path

import numpy as np

from ...optional import brought_by
from ...path import NEVER
from ...recorded_path import RecordedPath
from ...text import text_table
from . import run_folder as folders
from .evaluate import EVALUATED


def result_table(rows: dict[str, dict[str, float]], *, holdout: int = 0) -> str:
    """Return the result of :func:`dslbi_torch.training.run.evaluate.evaluate` as a table, in
    percent.

    Parameters
    ----------
    rows : dict
    holdout : int
        Of the config: the head of the accuracy says what it was measured on.
    """
    measured = f"on {holdout} held out" if holdout else "on the test set"
    columns = {
        "accuracy": (f"accuracy %\n{measured}", 18),
        "top5": ("top-5 %", 8),
        "nonzero_split": ("non-zero % of\nsplit tensors", 16),
        "nonzero_all": ("non-zero % of\nall parameters", 16),
    }
    if not any("top5" in row for row in rows.values()):
        del columns["top5"]
    heads, widths = zip(*columns.values(), strict=True)
    lines = [
        (EVALUATED[name], *(f"{100 * row[key]:.2f}" if key in row else "-" for key in columns))
        for name, row in rows.items()
    ]
    return text_table(("\nmodel", *heads), lines, "<" + ">" * len(heads), (26, *widths))


def read_path(folder: str | Path) -> RecordedPath:
    """Return the path that a run has recorded."""
    file = Path(folder) / "path.npz"
    if not file.exists():
        raise FileNotFoundError(
            f"{folder} must be a run folder, but has no path.npz (a run without a split has none, "
            "nor has a growth: its log.jsonl says how the units came)"
        )
    return RecordedPath.load(file)


def path_table(folder: str | Path) -> str:
    """Say when the groups and weights of each tensor entered, then the density along the epochs."""
    path, log = read_path(folder), folders.read_log(folder)
    weights = folders.read_checkpoint(folder, folders.read_config(folder))["model"]
    names = list(path.nonzero)
    for row in log:
        for found in (row.get("layers"), weights):
            if not (isinstance(found, dict) and found.keys() >= {*names}):
                raise ValueError(
                    f"{folder} must hold one run, but its log of epoch {row['epoch']} or its "
                    f"checkpoint lacks tensors of path.npz: {', '.join(names)}"
                )
    return f"{_entries(path, names, weights)}\n\n{_densities(log, names)}"


def draw_path(folder: str | Path) -> Path:
    """Draw the path of a run into ``path.png`` of its folder.

    Accuracies and densities by epoch on the left; on the right, for the first three tensors that
    are split by groups, the norm of every group of Gamma.
    """
    with brought_by("figures", "the picture of a path"):  # here: the text above needs none
        from matplotlib.figure import Figure

    from ... import figures

    path, log = read_path(folder), folders.read_log(folder)
    names = list(path.gamma_norm)[:3]
    figure = Figure(figsize=(11 if names else 6, 6), layout="constrained")
    grid = figure.add_gridspec(6, 2 if names else 1)
    above = figure.add_subplot(grid[:3, 0])
    below = figure.add_subplot(grid[3:, 0], sharex=above)
    figures.density_and_accuracy(log, axes=(above, below))
    rows = 6 // max(1, len(names))
    for i, name in enumerate(names):
        ax = figure.add_subplot(grid[i * rows : (i + 1) * rows, 1])
        entry, norms = path.entry[name], path.gamma_norm[name]
        figures.filter_norms(
            path.steps,
            norms.reshape(len(norms), -1),
            entry=entry.ravel(),
            ax=ax,
            ylabel=f"norm in Gamma, {name.removesuffix('.weight')}",
        )
    file = Path(folder) / "path.png"
    with folders.atomic(file) as temporary:
        figure.savefig(temporary, dpi=120)
    return file


def _entries(path, names, weights):
    rows = []
    for name in names:
        if name in path.entry:
            entry = path.entry[name]
            unit = "group" if name in path.gamma_norm else "weight"
            of, steps = entry.size, np.sort(entry[entry != NEVER])
        else:
            # Single weights are counted at the snapshots only: the first with at least so many.
            counts = np.maximum.accumulate(path.nonzero[name])
            unit, of = "weight", weights[name].numel()
            steps = path.steps[np.searchsorted(counts, np.arange(1, counts[-1] + 1))]
        when = [steps[0], steps[(len(steps) - 1) // 2], steps[-1]] if len(steps) else ["-"] * 3
        rows.append((name, unit, len(steps), of, *when))
    head = ("tensor", "unit", "selected", "of", "first", "half", "all")
    return (
        "Entry: steps by which the first, half and all of what was ever selected had entered\n"
        + text_table(head, rows, "<>>>>>>", (20, 6, 8, 8, 7, 7, 7))
    )


def _densities(log, names):
    rows = []
    # At most a dozen rows, evenly spaced, the first and the last among them.
    for k in sorted({round(k) for k in np.linspace(0, len(log) - 1, min(12, len(log)))}):
        shares = [log[k]["layers"][name] for name in names]
        shares += [log[k][key] for key in ("nonzero_all", "acc_dense", "acc_sparse", "acc_gamma")]
        rows.append((log[k]["epoch"], *(f"{100 * x:.2f}" for x in shares)))
    heads = [name.removesuffix(".weight") for name in names] + ["all", "dense", "sparse", "gamma"]
    return (
        "Density: non-zero % of each tensor, of all parameters, and accuracy %, by epoch\n"
        + text_table(("epoch", *heads), rows, ">" * (1 + len(heads)), (6, *[7] * len(heads)))
    )


def ticket_table(rows: list[dict], *, holdout: int = 0) -> str:
    """Return mean (largest minus smallest) over the seeds, one line for each method, epoch and
    data set.

    Parameters
    ----------
    rows : list of dict
        As in ``tickets.json``.
    holdout : int
        Of the config: what the accuracy was measured on.
    """
    lines = []
    for key in dict.fromkeys((row["dataset"], row["method"], row["at"]) for row in rows):
        own = [row for row in rows if (row["dataset"], row["method"], row["at"]) == key]
        density, parameters, accuracy = (
            sum(row[name] for row in own) / len(own)
            for name in ("density", "parameters", "accuracy")
        )
        right = [row["accuracy"] for row in own]
        spread = f"({100 * (max(right) - min(right)):.2f})"
        dataset, method, epoch = key
        numbers = f"{100 * accuracy:.2f}{spread:>7}", f"{100 * density:.2f}", f"{parameters:,.0f}"
        epoch = "-" if epoch is None else epoch
        lines.append((dataset, method, epoch, *numbers, own[0]["epochs"]))
    head = ("data set", "method", "epoch", f"{'held-out' if holdout else 'test'} accuracy %")
    head += ("non-zero %", "parameters", "epochs")
    seeds = len({row["seed"] for row in rows})
    return text_table(head, lines, "<<>>>>>", (12, 8, 5, 20, 10, 10, 6)) + (
        f"\n{seeds} seed(s): mean (largest minus smallest). epoch: of the search;\n"
        "non-zero %: of the split weights; parameters: non-zero ones;\n"
        "epochs: all that it took, the search included"
    )

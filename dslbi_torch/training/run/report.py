"""What a run found: accuracies and densities, and when each part of the net entered."""

import zipfile
from pathlib import Path

import numpy as np

from ...path import NEVER
from . import run_folder as folders

MODELS = {
    "dense": "dense W",
    "sparse": "sparse W * 1{Gamma != 0}",
    "gamma": "Gamma itself",
    "ema": "running average of W",
}


def result_table(rows: dict[str, dict[str, float]], *, holdout: int = 0) -> str:
    """The result of :func:`dslbi_torch.training.run.train.evaluate` as aligned text, in percent.

    Parameters
    ----------
    rows : dict
    holdout : int
        Of the config: the head of the accuracy says what it was measured on.
    """
    measured = f"on {holdout} held out" if holdout else "on the test set"
    top5 = any("top5" in row for row in rows.values())
    head, blank = (f"{'top-5 %':>10}", " " * 10) if top5 else ("", "")
    lines = [
        f"{'':<26}{'accuracy %':>20}{head}{'non-zero % of':>18}{'non-zero % of':>18}",
        f"{'model':<26}{measured:>20}{blank}{'split tensors':>18}{'all parameters':>18}",
    ]
    for key, row in rows.items():
        cells = f"{MODELS[key]:<26}{100 * row['accuracy']:>20.2f}"
        cells += f"{100 * row['top5']:>10.2f}" if top5 else ""
        for share in ("nonzero_split", "nonzero_all"):
            cells += f"{100 * row[share]:>18.2f}" if share in row else f"{'-':>18}"
        lines.append(cells)
    return "\n".join(lines)


def epoch_line(row: dict, epochs: int) -> str:
    """One row of the log as a line for the screen."""
    shown = [name for name in MODELS if row[f"acc_{name}"] is not None]
    accuracies = "  ".join(f"{name} {100 * row[f'acc_{name}']:6.2f}" for name in shown)
    line = (
        f"epoch {row['epoch']:>3}/{epochs}  {row['time_s']:6.1f} s  loss {row['loss']:.4f}  "
        f"accuracy %: {accuracies}"
    )
    if row["nonzero_all"] is not None:
        line += f"  non-zero % of all: {100 * row['nonzero_all']:6.2f}"
    return line + (f"  damaged files skipped: {row['skipped']}" if row["skipped"] else "")


def read_path(folder: str | Path) -> dict[str, np.ndarray]:
    """The arrays of ``path.npz``: see :meth:`dslbi_torch.PathRecorder.arrays`."""
    file = Path(folder) / "path.npz"
    try:
        with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return dict(arrays)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder} must be a run folder, but has no path.npz (a run without a split has none, "
            "nor has a growth: its log.jsonl says how the units came)"
        ) from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} cannot be read, it is truncated or damaged ({error})") from None


def path_table(folder: str | Path) -> str:
    """When the groups and weights of each tensor entered, then the density along the epochs."""
    path, log = read_path(folder), folders.read_log(folder)
    weights = folders.read_checkpoint(folder, folders.read_config(folder))["model"]
    names = [key.removeprefix("nonzero/") for key in path if key.startswith("nonzero/")]
    return f"{_entries(path, names, weights)}\n\n{_densities(log, names)}"


def draw_path(folder: str | Path) -> Path:
    """Draw the path of a run into ``path.png`` of its folder.

    Accuracies and densities by epoch on the left; on the right, for the first three tensors that
    are split by groups, the norm of every group of Gamma.
    """
    from matplotlib.figure import Figure  # here: the text above needs no matplotlib

    from ... import figures

    path, log = read_path(folder), folders.read_log(folder)
    names = [key.removeprefix("gamma_norm/") for key in path if key.startswith("gamma_norm/")][:3]
    figure = Figure(figsize=(11 if names else 6, 6), layout="constrained")
    grid = figure.add_gridspec(6, 2 if names else 1)
    above = figure.add_subplot(grid[:3, 0])
    below = figure.add_subplot(grid[3:, 0], sharex=above)
    figures.density_and_accuracy(log, axes=(above, below))
    rows = 6 // max(1, len(names))
    for i, name in enumerate(names):
        ax = figure.add_subplot(grid[i * rows : (i + 1) * rows, 1])
        entry, norms = path[f"entry/{name}"], path[f"gamma_norm/{name}"]
        figures.filter_norms(
            path["steps"],
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
    lines = [
        "Entry: steps by which the first, half and all of what was ever selected had entered",
        f"{'tensor':<20}{'unit':>8}{'selected':>10}{'of':>10}{'first':>9}{'half':>9}{'all':>9}",
    ]
    for name in names:
        if f"entry/{name}" in path:
            entry = path[f"entry/{name}"]
            unit = "group" if f"gamma_norm/{name}" in path else "weight"
            of, steps = entry.size, np.sort(entry[entry != NEVER])
        else:
            # Single weights are counted at the snapshots only: the first with at least so many.
            counts = np.maximum.accumulate(path[f"nonzero/{name}"])
            unit, of = "weight", weights[name].numel()
            steps = path["steps"][np.searchsorted(counts, np.arange(1, counts[-1] + 1))]
        when = [steps[0], steps[(len(steps) - 1) // 2], steps[-1]] if len(steps) else ["-"] * 3
        times = "".join(f"{step:>9}" for step in when)
        lines.append(f"{name:<20}{unit:>8}{len(steps):>10}{of:>10}{times}")
    return "\n".join(lines)


def _densities(log, names):
    heads = [name.removesuffix(".weight") for name in names]
    widths = [max(9, len(head) + 2) for head in heads]
    lines = [
        "Density: non-zero % of each tensor, of all parameters, and accuracy %, by epoch",
        f"{'epoch':>6}"
        + "".join(f"{head:>{w}}" for head, w in zip(heads, widths, strict=True))
        + f"{'all':>9}{'dense':>9}{'sparse':>9}{'gamma':>9}",
    ]
    # At most a dozen rows, evenly spaced, the first and the last among them.
    for k in sorted({round(k) for k in np.linspace(0, len(log) - 1, min(12, len(log)))}):
        row = log[k]
        shares = [row["layers"][name] for name in names]
        cells = "".join(f"{100 * x:>{w}.2f}" for x, w in zip(shares, widths, strict=True))
        rest = (row[key] for key in ("nonzero_all", "acc_dense", "acc_sparse", "acc_gamma"))
        lines.append(f"{row['epoch']:>6}{cells}" + "".join(f"{100 * x:>9.2f}" for x in rest))
    return "\n".join(lines)


def ticket_table(rows: list[dict], *, holdout: int = 0) -> str:
    """Mean (largest minus smallest) over the seeds, one line for each method, epoch and data set.

    Parameters
    ----------
    rows : list of dict
        As in ``tickets.json``.
    holdout : int
        Of the config: what the accuracy was measured on.
    """
    measured_on = "held-out" if holdout else "test"
    lines = [
        f"{'data set':<14}{'method':<10}{'epoch':>5}{f'{measured_on} accuracy %':>22}"
        f"{'non-zero %':>12}{'parameters':>12}{'epochs':>8}"
    ]
    for key in dict.fromkeys((row["dataset"], row["method"], row["at"]) for row in rows):
        own = [row for row in rows if (row["dataset"], row["method"], row["at"]) == key]
        mean = {
            name: sum(row[name] for row in own) / len(own)
            for name in ("density", "parameters", "accuracy")
        }
        right = [row["accuracy"] for row in own]
        spread = f"({100 * (max(right) - min(right)):.2f})"
        lines.append(
            f"{key[0]:<14}{key[1]:<10}{'-' if key[2] is None else key[2]:>5}"
            f"{100 * mean['accuracy']:>15.2f}{spread:>7}"
            f"{100 * mean['density']:>12.2f}{mean['parameters']:>12,.0f}{own[0]['epochs']:>8}"
        )
    seeds = len({row["seed"] for row in rows})
    lines.append(
        f"{seeds} seed(s): mean (largest minus smallest). epoch: of the search;\n"
        "non-zero %: of the split weights; parameters: non-zero ones;\n"
        "epochs: all that it took, the search included"
    )
    return "\n".join(lines)

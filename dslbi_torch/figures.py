"""The figures of the book that show a path, a filter or a trade-off: arrays in, matplotlib out.

Colours are those of the style in force, ``plt.style.use("dslbi_ref.figures.book")`` in the
notebooks. Every function draws into the axes it is given, or into a new figure of pyplot's, and
returns the axes.
"""

import math

import numpy as np

from .arguments import check_count, check_kind, check_list, check_number, shown
from .optional import brought_by

with brought_by("figures", "dslbi_torch.figures"):
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator

GREY = "0.72"
_ACCURACIES = (
    ("acc_dense", "dense $W$", "-"),
    ("acc_sparse", r"sparse $W \odot 1\{\Gamma \neq 0\}$", "--"),
    ("acc_gamma", r"$\Gamma$ itself", ":"),
)
_DENSITIES = (
    ("nonzero_split", "of the split tensors", "-"),
    ("nonzero_all", "of all parameters", "--"),
)


def density_and_accuracy(log: list[dict], *, axes: tuple[Axes, Axes] | None = None):
    """Draw accuracies of the dense and the sparse models, and the densities below, over epochs.

    Parameters
    ----------
    log : list of dict
        Lines of ``log.jsonl`` with ``epoch``, the accuracies ``acc_dense, acc_sparse, acc_gamma``
        and the densities ``nonzero_split, nonzero_all``, all of them fractions.
    axes : two Axes, optional
        For the accuracies and for the densities.

    Returns
    -------
    tuple of Axes

    Notes
    -----
    The accuracies are cut off ten points below the least accurate model of the last epoch, since
    the sparse ones start at chance.
    """
    wanted = {"epoch", *(key for key, _, _ in _ACCURACIES + _DENSITIES)}
    log = check_list("log", log)
    if not log:
        raise ValueError("log must hold at least one epoch, got none")
    for row in log:
        if not (isinstance(row, dict) and wanted <= row.keys()):
            raise ValueError(f"a line of the log must have {sorted(wanted)}, got {shown(row)}")
        for key in wanted:
            check_number(f"{key} of log", row[key])
    axes = _check_axes_pair(axes)
    if axes is None:
        axes = plt.subplots(2, sharex=True, figsize=(6.4, 5.0))[1]
    epochs = [float(row["epoch"]) for row in log]
    for ax, curves in zip(axes, (_ACCURACIES, _DENSITIES), strict=True):
        for i, (key, label, line) in enumerate(curves):
            values = [100 * float(row[key]) for row in log]
            ax.plot(epochs, values, line, color=f"C{i}", label=label)
        ax.legend()
    last = [100 * float(log[-1][key]) for key, _, _ in _ACCURACIES]
    axes[0].set_ylim(max(0.0, min(last) - 10), max(last) + 2)
    axes[0].set_ylabel("accuracy %")
    axes[1].set(ylabel="non-zero %", xlabel="epoch", ylim=(0, None))
    axes[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return tuple(axes)


def accuracy_by_density(rows: list[dict], *, axes: tuple[Axes, Axes] | None = None):
    """Draw the accuracy of the nets that each method reads off its run over their density.

    Parameters
    ----------
    rows : list of dict
        ``method``, ``density`` (in (0, 1]), ``without`` and ``with`` (fractions: accuracy without
        and with fine-tuning; either may be absent), as in ``benchmarks/results/ranking.json``.
        Rows of one method and density are of several seeds: the line is their mean, the band
        reaches from the least to the largest.
    axes : two Axes, optional
        For the accuracies without and with fine-tuning.

    Returns
    -------
    tuple of Axes
    """
    rows = check_list("rows", rows)
    if not rows:
        raise ValueError("rows must hold at least one net, got none")
    for row in rows:
        if not (isinstance(row, dict) and {"method", "density"} <= row.keys()):
            raise ValueError(f"rows must have a method and a density in (0, 1], got {shown(row)}")
        check_kind("method of rows", row["method"], str, "a text")
        check_number("density of rows", row["density"], 0, 1, open_at="low")
        for key in {"without", "with"} & row.keys():
            check_number(f"{key} of rows", row[key])
    rows = [row | {"density": float(row["density"])} for row in rows]
    axes = _check_axes_pair(axes)
    if axes is None:
        axes = plt.subplots(1, 2, sharex=True, figsize=(8.0, 3.6), layout="constrained")[1]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    styles = ("-o", "--s", "-.^", ":D", "-v", "--P")
    densities = sorted({row["density"] for row in rows})
    for ax, key in zip(axes, ("without", "with"), strict=True):
        for i, method in enumerate(methods):
            found = {
                D: [100 * float(row[key]) for row in rows if _is_of(row, method, D) and key in row]
                for D in densities
            }
            found = {100 * D: values for D, values in found.items() if values}
            if not found:
                continue
            means = [sum(values) / len(values) for values in found.values()]
            style = styles[i % len(styles)]  # told apart without colour
            ax.plot(list(found), means, style, markersize=4, color=f"C{i}", label=method)
            low, high = [[f(values) for values in found.values()] for f in (min, max)]
            ax.fill_between(list(found), low, high, color=f"C{i}", alpha=0.2, linewidth=0)
        ax.set(xscale="log", xlabel="non-zero %", title=f"{key} fine-tuning")
        ax.set_xticks([100 * D for D in densities], [f"{100 * D:g}" for D in densities])
        ax.minorticks_off()
    axes[0].set_ylabel("accuracy %")
    axes[0].legend()
    return tuple(axes)


def _check_axes_pair(axes):
    if axes is None:
        return None
    pair = check_list("axes", axes)
    if len(pair) != 2 or not all(isinstance(ax, Axes) for ax in pair):
        raise ValueError(f"axes must be two matplotlib Axes, got {shown(axes)}")
    return pair


def _check_array(name, x, ndim):
    """Return an array of finite numbers of so many axes (None: of any number)."""
    try:
        array = np.asarray(x)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name} must be an array, but {error}") from error
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise ValueError(f"{name} must be an array of finite numbers, got {shown(x)}")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} must be {ndim}-d, got shape {array.shape}")
    return array


def _is_of(row, method, density):
    return (row["method"], row["density"]) == (method, density)


def entry_order(norms: np.ndarray) -> np.ndarray:
    """Return the first row in which each column of ``norms`` is positive; -1: never.

    ``norms`` has shape (snapshots, filters).
    """
    positive = _check_array("norms", norms, 2) > 0
    if not len(positive):
        raise ValueError("norms must have at least one snapshot, got none")
    return np.where(positive.any(axis=0), positive.argmax(axis=0), -1)


def filter_norms(steps, norms, *, entry=None, ax: Axes | None = None, ylabel=None) -> Axes:
    """Draw the norm of every filter over training time; those that were selected in colour.

    The darker the colour, the earlier the filter entered.

    Parameters
    ----------
    steps : array of shape (T,)
        Steps, epochs or path times of the snapshots.
    norms : array of shape (T, n)
        Norm of each filter of Gamma, or of W.
    entry : int array of shape (n,), optional
        When each filter entered, -1 for never, as from ``PathRecorder.entry_steps``. Default: the
        first snapshot with a positive norm, which suits Gamma and not W.
    ax : Axes, optional
    ylabel : str, optional
    """
    steps, norms = _check_array("steps", steps, 1), _check_array("norms", norms, 2)
    if norms.ndim != 2 or steps.shape != norms.shape[:1] or norms.size == 0:
        raise ValueError(
            f"norms must be of shape (len(steps), filters), got {norms.shape} for {steps.shape}"
        )
    entry = entry_order(norms) if entry is None else _check_array("entry", entry, 1)
    if entry.shape != norms.shape[1:]:
        raise ValueError(f"entry must be one per filter, {norms.shape[1]}, got {entry.shape}")
    ax = plt.subplots()[1] if ax is None else check_kind("ax", ax, Axes, "a matplotlib Axes")
    check_kind("ylabel", ylabel, str | None, "a text")
    selected = np.flatnonzero(entry >= 0)
    rest = np.flatnonzero(entry < 0)
    if rest.size:
        ax.plot(steps, norms[:, rest], color=GREY, linewidth=0.8, zorder=1.5)
    times, rank = np.unique(entry[selected], return_inverse=True)
    # the bright end of the map would vanish on white
    colours = plt.get_cmap("plasma")(0.8 * rank / max(len(times) - 1, 1))
    for j, colour in zip(selected, colours, strict=True):
        ax.plot(steps, norms[:, j], color=colour, linewidth=1.4)
    ax.set(xlabel="step", ylabel=ylabel or "norm of the filter", ylim=(0, None))
    ax.set_title(f"{selected.size} of {entry.size} filters selected; dark: entered early")
    return ax


def _tiles(weight):
    """Filters as pictures (n, h, w) or (n, h, w, 3); many channels are laid side by side."""
    n, c, h, w = weight.shape
    if c == 1:
        return weight[:, 0]
    if c == 3:
        return np.moveaxis(weight, 1, -1)
    columns = math.ceil(math.sqrt(c))
    rows = math.ceil(c / columns)
    padded = np.zeros((n, rows * columns, h, w))
    padded[:, :c] = weight
    blocks = padded.reshape(n, rows, columns, h, w)
    return blocks.transpose(0, 1, 3, 2, 4).reshape(n, rows * h, columns * w)


def filters(weight, *, selected=None, columns=None, scale=None, ax: Axes | None = None) -> Axes:
    """Draw a bank of filters as pictures, each in its own tile, in reading order.

    Three channels are drawn as a colour picture around grey; otherwise orange is positive, purple
    negative and white zero, and more than one channel lie side by side in the tile.

    Parameters
    ----------
    weight : array of shape (n, channels, h, w)
        W or Gamma of a convolution; a filter of Gamma that has not entered is an empty tile.
    selected : bool array of shape (n,), optional
        Filters to put in a frame.
    columns : int >= 1, optional
        Tiles in a row; by default about square.
    scale : float > 0, optional
        Weight of full colour, for several pictures on one scale; default the largest of these.
    ax : Axes, optional
    """
    weight = _check_array("weight", weight, None).astype(float)
    if weight.ndim != 4 or weight.size == 0:
        raise ValueError(f"weight must be of shape (n, channels, h, w), got {weight.shape}")
    n = len(weight)
    selected = np.zeros(n, bool) if selected is None else np.asarray(selected)
    if selected.shape != (n,) or selected.dtype != bool:
        raise ValueError(f"selected must be {n} truth values, got {selected.dtype}{selected.shape}")
    columns = math.ceil(math.sqrt(n)) if columns is None else columns
    columns = check_count("columns", columns, 1, 10_000)
    scale = (np.abs(weight).max() or 1.0) if scale is None else scale
    if not check_number("scale", scale) > 0:
        raise ValueError(f"scale must be positive and finite, got {scale}")
    scale = float(scale)

    tiles = _tiles(weight)
    colour = tiles.ndim == 4
    h, w = tiles.shape[1:3]
    rows = math.ceil(n / columns)
    # one pixel between the tiles, in the colour of the ground
    shape = (rows * (h + 1) + 1, columns * (w + 1) + 1)
    sheet = np.ones((*shape, 3)) if colour else np.full(shape, np.nan)
    corners = [((k // columns) * (h + 1) + 1, (k % columns) * (w + 1) + 1) for k in range(n)]
    for tile, (top, left) in zip(tiles, corners, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):  # full colour
            value = np.clip(0.5 + tile / (2 * scale), 0, 1) if colour else tile
        sheet[top : top + h, left : left + w] = value

    ax = plt.subplots(figsize=(0.7 * columns, 0.7 * rows))[1] if ax is None else ax
    check_kind("ax", ax, Axes, "a matplotlib Axes")
    limits = {} if colour else {"cmap": "PuOr_r", "vmin": -scale, "vmax": scale}
    ax.imshow(sheet, interpolation="nearest", **limits)
    for chosen, (top, left) in zip(selected, corners, strict=True):
        box = ((left - 0.5, top - 0.5), w, h)
        line = (
            {"edgecolor": "C0", "linewidth": 2} if chosen else {"edgecolor": GREY, "linewidth": 0.6}
        )
        ax.add_patch(Rectangle(*box, fill=False, **line))
    ax.set_axis_off()
    return ax

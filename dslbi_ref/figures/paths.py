"""The figure of a path: coefficients against path time. matplotlib is imported when it is drawn."""

import numpy as np

from ..checks import check_array, check_kind, check_list, shown
from ..optional import brought_by
from ..path import Path
from ..solvers.packed import columns


def draw(path, ax=None, truth=None, names=None):
    """Draw a path; see :meth:`dslbi_ref.path.Path.plot`."""
    with brought_by("figures", "the figure of a path"):
        import matplotlib.pyplot as plt
        from matplotlib.axes import Axes

    check_kind("path", path, Path)
    if ax is not None:
        check_kind("ax", ax, Axes)
    t = path.t[path.t > 0]
    if t.size == 0:
        raise ValueError("a path is drawn on a logarithmic axis, got no positive time")
    entry = path.entry_times()
    shape, entry = entry.shape, entry.ravel()
    order = np.argsort(entry, kind="stable")[: np.isfinite(entry).sum()]
    curves = columns(vars(path)["gamma"], order)[path.t > 0]
    if truth is not None:
        truth = check_array("truth", truth, shape).ravel() != 0
    if names is not None and len(names := check_list("names", names)) != entry.size:
        raise ValueError(f"names must be {entry.size} words, got {shown(names)}")
    drawstyle = "steps-post" if path.kind == "step" else "default"
    with plt.style.context("dslbi_ref.figures.book"):
        ax = plt.subplots()[1] if ax is None else ax
        colors = plt.rcParams["axes.prop_cycle"].by_key()["color"]
        ends = []
        for i, j in enumerate(order):
            # Five colours for the eye, four dashes where five are not enough.
            kind = (i % 5, i // 5 % 4) if truth is None else (0, 0) if truth[j] else (1, 1)
            style = dict(color=colors[kind[0]], linestyle=["-", "--", "-.", ":"][kind[1]])
            name = None if names is None else names[j]
            # The stretch before the entry would only thicken the axis.
            before = np.arange(len(t)) < (curves[:, i] != 0).argmax() - 1
            curve = np.where(before, np.nan, curves[:, i])
            ax.plot(t, curve, drawstyle=drawstyle, label=name, **style)
            if name is not None and curves[-1, i] != 0:
                ends.append((curves[-1, i], name, style["color"]))
        _write_names(ax, t[-1], ends)
        if truth is not None:
            for label, kind in (("true support", 0), ("other", 1)):
                ax.plot([], [], color=colors[kind], linestyle=["-", "--"][kind], label=label)
            ax.legend(handles=ax.lines[-2:])
        ax.axhline(0.0, color="0.35", linewidth=0.8, zorder=1)
        _time_axis(ax, t)
        ax.set_ylabel("coefficient  (target per unit of feature)")
    return ax


def _write_names(ax, t, ends):
    """Write names at the right ends of their curves, pushed upwards where they would overlap."""
    gap, height = 0.05 * np.ptp(ax.get_ylim()), -np.inf
    for value, name, color in sorted(ends):
        height = max(value, height + gap)
        place = dict(textcoords="offset points", va="center", fontsize="small")
        ax.annotate(name, (t, height), (5, 0), color=color, **place)


def _time_axis(ax, t):
    """Make the axis logarithmic, with plain numbers; on short ranges with 1, 2, 5 in between."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_xscale("log")
    if len(t) > 1:
        ax.set_xlim(t[0], None)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if t[-1] < 1e3 * t[0] else (1,)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("path time $t$  (1 / gradient of the loss)")

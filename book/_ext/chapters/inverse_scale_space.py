"""Figures of the chapter on the inverse scale space."""

import numpy as np
from drawn import Figure

from dslbi_ref import iss_path, lbi_path
from dslbi_ref.mirror_maps import elastic_net

from .designs import C, orthogonal


def clocks():
    path = iss_path(*orthogonal())
    t = np.linspace(0, 4, 401)
    states = [path.at(s) for s in t]
    return {"t": t, "z": np.array([s.z for s in states]), "gamma": [s.gamma for s in states]}


def draw_clocks(axes, curves):
    for ax, key, label in ((axes[0], "z", r"$\rho_j$"), (axes[1], "gamma", r"$\gamma_j$")):
        ax.plot(curves["t"], np.array(curves[key]))
        ax.set(xlabel="time $t$", ylabel=label)
    for level in (-1, 1):
        axes[0].axhline(level, color="0.6", ls="--", lw=1)


def staircase():
    """The graph of the sub-differential, and of its sum with gamma/kappa, with a path's states."""
    X, y = orthogonal()
    flow, kappa = iss_path(X, y).at(1.0), 2.0
    slow = lbi_path(X, y, kappa=kappa, alpha=1e-3, times=[1.0])
    gamma = np.linspace(-2.2, 2.2, 441)
    return {
        "flow": np.array([flow.gamma, flow.z]),
        "slow": np.array([slow.gamma[0], slow.z[0]]),
        "steps": np.array([[-2.2, 0, 0, 2.2], [-1, -1, 1, 1]]),
        "ramp": np.array([elastic_net(kappa).inverse(gamma), gamma]),
    }


def draw_staircase(axes, curves):
    titles = (r"$\partial|\gamma|$", r"with $\gamma/\kappa$ added, $\kappa = 2$")
    pairs = (("steps", "flow"), ("ramp", "slow"))
    for ax, (graph, dots), title in zip(axes, pairs, titles, strict=True):
        ax.plot(*curves[graph], color="0.6")
        for j, (x, z) in enumerate(curves[dots].T):
            ax.plot(x, z, f"C{j}o", ms=6)
        ax.set(xlabel=r"$\gamma_j$", title=title, xlim=(-2.2, 2.2), ylim=(-2.2, 2.2))
    axes[0].set_ylabel(r"dual variable")


def speeds():
    X, y = orthogonal()
    t = np.linspace(0.5, 4, 351)
    exact, first = iss_path(X, y), 0
    curves = {"t": t, "inverse scale space": np.array([exact.at(s).gamma[first] for s in t])}
    for kappa in (2.0, 10.0):
        path = lbi_path(X, y, kappa=kappa, alpha=1e-3 / kappa, times=t)
        curves[rf"$\kappa = {kappa:g}$"] = path.gamma[:, first]
    curves["lasso at $1/t$"] = C[first] * np.maximum(1 - 1 / (C[first] * t), 0)
    return curves


def draw_speeds(axes, curves):
    t, *named = curves.items()
    for (name, x), line in zip(named, ("-", "--", "-.", ":"), strict=True):
        axes[0].plot(t[1], x, line, label=name)
    axes[0].set(xlabel="time $t$", ylabel="first coefficient", ylim=(0, 2.2))
    axes[0].legend(loc="lower right")


FIGURES = {
    "clocks": Figure(
        clocks,
        draw_clocks,
        2,
        "Two panels against time. Left, four straight lines from zero with slopes 2, -1.25, 0.8 "
        "and 0.3, each level once it meets plus or minus one. Right, four coefficients jump from "
        "zero to these slopes at the same times.",
        r"The design of the staircase in time: $\rho_j$ runs with slope $c_j$ "
        r"until it meets a border, and $\gamma_j$ jumps to $c_j$ then.",
    ),
    "staircase": Figure(
        staircase,
        draw_staircase,
        2,
        "Two panels of the dual variable against gamma. Left, a staircase: level at -1, a riser at "
        "gamma = 0 up to 1, level again; two dots lie on the riser, one on each level. Right, the "
        "levels slope upwards, and the two dots on them lie nearer to zero.",
        r"The staircase, and four coefficients at $t = 1$ of an orthogonal design with "
        r"$c = (2, -1.25, 0.8, 0.3)$. Left, a coefficient "
        "climbs the riser while it is zero, and at its edge is free to go anywhere along the "
        "level. "
        r"Right, a finite $\kappa$ tilts the levels: the dual variable says where $\gamma$ is.",
    ),
    "speeds": Figure(
        speeds,
        draw_speeds,
        1,
        "One coefficient against time. The inverse scale space jumps to 2 at time 0.5. At speed 10 "
        "it is there soon after, at speed 2 later; the lasso climbs slowly and stays below 2.",
        r"The same coefficient at three speeds, beside the lasso. A finite $\kappa$ rounds the "
        "jump; the lasso is late for ever.",
    ),
}

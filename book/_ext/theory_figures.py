"""The figures of the theory chapters, drawn by the reference at every build.

``{theory-figure} NAME`` places the figure of that name. Curves are computed apart from drawing, so
that a test can hold them to the chapter's formulas.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from drawn import drawn_figure, saved_figure
from sphinx.util.docutils import SphinxDirective

from dslbi_ref import dessilbi_states, iss_path, lbi_path, record, split_iss_path
from dslbi_ref.mirror_maps import elastic_net, euclidean, hypentropy
from dslbi_ref.nets import layer_init
from dslbi_ref.theory import split_irrepresentable
from dslbi_ref.transforms import differences

C = np.array([2.0, -1.25, 0.8, 0.3])  # correlations of the orthogonal design


class Figure(NamedTuple):
    """Curves by name, what draws them on so many axes, and the words beside the picture."""

    curves: Callable
    draw: Callable
    panels: int
    alt: str
    caption: str


def orthogonal():
    """A design with X'X/n = I and X'y/n = C."""
    X = np.linalg.qr(np.random.default_rng(0).standard_normal((20, 4)))[0] * 20**0.5
    return X, X @ C


def mirrors():
    z = np.linspace(-3, 3, 601)
    maps = {
        "Euclidean": euclidean(),
        "hypentropy, $s = 0.1$": hypentropy(0.1),
        r"elastic net, $\kappa = 1$": elastic_net(1.0),
    }
    return {"z": z, **{name: m.inverse(z) for name, m in maps.items()}}


def draw_mirrors(axes, curves):
    z, *named = curves.items()
    for (name, x), line in zip(named, ("-", "--", "-"), strict=True):
        axes[0].plot(z[1], x, line, label=name)
    axes[0].set(xlabel="$z$", ylabel=r"$x = \nabla\Phi^*(z)$", ylim=(-3, 3))
    axes[0].legend()


def gap():
    x, y = np.linspace(0.02, 2.5, 249), 1.0

    def phi(x):
        return x * np.log(x) - x

    return {"x": x, "phi": phi(x), "tangent": phi(y) + np.log(y) * (x - y)}


def draw_gap(axes, curves):
    x, ax = curves["x"], axes[0]
    ax.plot(x, curves["phi"], label=r"$\Phi(x) = x\log x - x$")
    ax.plot(x, curves["tangent"], "--", label="tangent at $y = 1$")
    ax.fill_between(x, curves["tangent"], curves["phi"], alpha=0.15)
    ax.plot([1], [-1], "o", color="0.2")
    ax.set(xlabel="$x$")
    ax.legend()


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


def springs():
    X, y = orthogonal()
    curves = {"t": np.linspace(0, 12, 601)}
    for nu in (0.5, 3.0):
        path = split_iss_path(X, y, np.eye(4), nu=nu)
        curves[rf"$\nu = {nu:g}$"] = np.array([path.at(s).gamma for s in curves["t"]])
    return curves


def draw_springs(axes, curves):
    t, *named = curves.items()
    for ax, (name, gamma) in zip(axes, named, strict=True):
        ax.plot(t[1], gamma)
        ax.set(title=name, xlabel="time $t$")
    axes[0].set_ylabel(r"$\gamma_j$")


def direct():
    """False rows in when the last true one enters, without noise, by nu; and IRR(nu)."""
    rng = np.random.default_rng(0)
    beta = np.zeros(50)
    beta[7:12], beta[20:25], beta[32:37] = -2.0, 2.0, -2.0
    X = rng.standard_normal((50, 50))
    D = np.vstack([differences(50).toarray(), np.eye(50)])
    true = D @ beta != 0
    nu = np.logspace(-2, 3, 16)
    false = []
    for v in nu:
        entry = split_iss_path(X, X @ beta, D, nu=v).entry_times()
        false.append((entry[~true] < entry[true].max()).sum())
    return {
        "nu": nu,
        "false": np.array(false),
        "IRR": np.array([split_irrepresentable(X, D, true, nu=v) for v in nu]),
    }


def draw_direct(axes, curves):
    for ax, key, label in (
        (axes[0], "false", "false rows that come first"),
        (axes[1], "IRR", r"$\mathrm{IRR}(\nu)$"),
    ):
        ax.semilogx(curves["nu"], curves[key], "o-", ms=3)
        ax.set(xlabel=r"$\nu$", ylabel=label, ylim=(-0.2, None))
    axes[1].axhline(1, color="0.6", ls="--", lw=1)


def quadratic(nu=1.0, kappa=20.0, steps=5000):
    """Weights and twins of the loss |W - B|^2 / 2, every tenth of steps of 0.002."""
    B = np.array([[2.0], [1.0], [0.25]])
    states = dessilbi_states(
        {"w": np.zeros((3, 1))},
        lambda W: {"w": W["w"] - B},
        penalties={"w": "l1"},
        alpha=0.002,
        kappa=kappa,
        nu=nu,
        momentum=0.0,
    )
    path = record(states, steps, every=10)
    return {"t": path.t, "W": path.W["w"][..., 0], "Gamma": path.Gamma["w"][..., 0]}


def draw_quadratic(axes, curves):
    for k in range(3):
        axes[0].plot(curves["t"], curves["W"][:, k], f"C{k}--", lw=1)
        axes[0].plot(curves["t"], curves["Gamma"][:, k], f"C{k}-")
    axes[0].set(xlabel="path time $t$", ylabel=r"$\Gamma$ (solid) and $W$ (dashed)")


def births():
    norms = {}
    for kind in ("he", "torch"):
        W = layer_init((400, 25), np.random.default_rng(0), kind)[0]
        norms[kind] = np.linalg.norm(W, axis=1)
    kappa = np.linspace(0.25, 2.5, 181)
    return {"kappa": kappa} | {k: (n > kappa[:, None]).mean(axis=1) for k, n in norms.items()}


def draw_births(axes, curves):
    for (kind, line), name in zip((("he", "-"), ("torch", "--")), ("He", "PyTorch"), strict=True):
        axes[0].plot(curves["kappa"], 100 * curves[kind], line, label=name)
    axes[0].set(xlabel=r"$\kappa\lambda$", ylabel="% that enter without data")
    axes[0].legend()


FIGURES = {
    "mirrors": Figure(
        mirrors,
        draw_mirrors,
        1,
        "x against z for three mirrors. Euclidean is the diagonal. Hypentropy is flat about zero "
        "and steep outside. The elastic net is exactly zero for z between -1 and 1 and then runs "
        "parallel to the diagonal.",
        r"Three mirrors. The elastic net sends a whole interval of $z$ to $x = 0$: there $z$ "
        "remembers what $x$ does not show.",
    ),
    "gap": Figure(
        gap,
        draw_gap,
        1,
        "A convex curve with its lowest point at x = 1 and the level tangent there. The shaded gap "
        "between them grows faster towards zero than away from it.",
        "The Bregman divergence $D(x, 1)$ of entropy is the shaded gap at $x$.",
    ),
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
        "climbs the riser while it sleeps, and at its edge is free to go anywhere along the level. "
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
    "springs": Figure(
        springs,
        draw_springs,
        2,
        "Two panels of four coefficients that jump from zero to the same values. With nu 3 each "
        "jump comes eight thirds as late as with nu 0.5; the weakest has not come at time 12.",
        r"$D = I$ and an orthogonal design: a looser spring delays each entry by the factor "
        r"$1 + \nu$, and leaves its value.",
    ),
    "direct": Figure(
        direct,
        draw_direct,
        2,
        "Two panels against nu on a logarithmic axis. Left, five false rows enter before the last "
        "true one for the smallest nu, fewer as nu grows, and none from nu = 1. Right, IRR falls "
        "from five through the dashed line at one, near nu = 40, to 0.6.",
        r"The design of notebook 04 without any noise. At the left end, where the spring is stiff "
        "and the path is nearly the direct one, that of $D\\beta$ itself, five false rows come "
        "before the last true one. Where "
        r"$\mathrm{IRR}(\nu) < 1$ none can.",
    ),
    "quadratic": Figure(
        quadratic,
        draw_quadratic,
        1,
        "Three weights rise at once to 1, 0.5 and 0.125 and rest there, while their twins are "
        "zero. At times near 1, 2 and 8 a twin leaves zero, and both go to 2, 1 and 0.25.",
        r"$L = \frac12\lVert W - B\rVert^2$ with $B = (2, 1, 0.25)$, $\nu = \lambda = 1$ and "
        r"$\kappa = 20$. A weight is held half way until its twin enters.",
    ),
    "births": Figure(
        births,
        draw_births,
        1,
        "Share of filters that enter without data against kappa times lambda. With He's "
        "initialisation it is 100 percent up to about 1 and falls to zero by 2; with PyTorch's it "
        "falls to zero before 1.",
        r"400 filters of 25 weights. A filter enters without data if it is born longer than "
        r"$\kappa\lambda$.",
    ),
}


def draw(figure, path):
    """The picture, as an SVG file."""
    size = (7.6, 2.9) if figure.panels > 1 else (5.6, 3.0)
    with saved_figure(path, 1, figure.panels, figsize=size, squeeze=False) as axes:
        figure.draw(axes[0], figure.curves())


class TheoryFigure(SphinxDirective):
    required_arguments = 1

    def run(self):
        name = self.arguments[0]
        if name not in FIGURES:
            raise self.error(f"theory-figure must be one of {', '.join(FIGURES)}, got {name!r}")
        figure = FIGURES[name]
        file = f"theory_{name}.svg"
        return drawn_figure(self, file, partial(draw, figure), figure.alt, figure.caption)


def setup(app):
    app.add_directive("theory-figure", TheoryFigure)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

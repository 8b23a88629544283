"""Figures of the chapter on mirror descent."""

import numpy as np
from drawn import Figure

from dslbi_ref.mirror_maps import elastic_net, euclidean, hypentropy


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
}

"""Figures of the chapter on DessiLBI."""

import numpy as np
from drawn import Figure

from dslbi_ref import dessilbi_states, record
from dslbi_ref.nets import layer_init


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

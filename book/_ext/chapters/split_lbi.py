"""Figures of the chapter on Split LBI."""

import numpy as np
from drawn import Figure

from dslbi_ref import split_iss_path
from dslbi_ref.theory import split_irrepresentable
from dslbi_ref.transforms import differences

from .designs import orthogonal


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


FIGURES = {
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
}

"""Figures of the chapter on linearized Bregman iteration and consistency."""

import numpy as np
from drawn import Figure

from dslbi_ref import iss_path
from dslbi_ref.theory import stopping_time


def imitation(r, beta=(1.0, 0.5, 0.0)):
    """A design whose third column has the correlation r with the first two, and y without noise."""
    gram = np.array([[1, 0, r], [0, 1, r], [r, r, 1]])
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((20, 3)))[0] * 20**0.5
    X = Q @ np.linalg.cholesky(gram).T
    return X, X @ np.array(beta)


def imitator():
    t = np.linspace(0, 3, 301)
    paths = {r: iss_path(*imitation(r), t_max=3.0) for r in (0.45, 0.6)}
    return {"t": t} | {f"$r = {r:g}$": path.at(t).z for r, path in paths.items()}


def draw_imitator(axes, curves):
    t, *named = curves.items()
    for ax, (name, z) in zip(axes, named, strict=True):
        for j, (word, line) in enumerate((("true", "-"), ("true", "-"), ("false", "--"))):
            ax.plot(t[1], z[:, j], f"C{j}{line}", label=f"{j + 1}, {word}")
        ax.axhline(1, color="0.6", ls=":", lw=1)
        ax.set(title=name, xlabel="time $t$", ylim=(0, 1.1))
    axes[0].set_ylabel("dual variable")
    axes[0].legend(loc="lower right")


def noisy():
    """Thirty columns of which four count, 200 rows, unit noise."""
    rng = np.random.default_rng(0)
    X, beta = rng.standard_normal((200, 30)), np.zeros(30)
    beta[:4] = 1.5, -1.2, 1.0, -0.8
    return X, X @ beta + rng.standard_normal(200), beta


def window():
    X, y, beta = noisy()
    path, t = iss_path(X, y, t_max=20.0), np.geomspace(0.4, 20, 801)
    oracle = np.linalg.lstsq(X[:, :4], y)[0]
    return {
        "t": t,
        "gamma": path.at(t).gamma,
        "oracle": oracle,
        "safe": stopping_time(X, beta, sigma=1.0),
        "entries": path.entry_times(),
    }


def draw_window(axes, curves):
    ax = axes[0]
    ax.semilogx(curves["t"], curves["gamma"][:, 4:], color="0.6", lw=0.8)
    for j in range(4):
        ax.semilogx(curves["t"], curves["gamma"][:, j], f"C{j}")
        ax.axhline(curves["oracle"][j], color=f"C{j}", ls=":", lw=1)
    ax.axvline(curves["safe"], color="0.2", ls="--", lw=1)
    ax.text(curves["safe"] * 1.05, 0.45, r"$\bar\tau$")
    ax.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    ax.minorticks_off()
    ax.set(xlabel="time $t$", ylabel=r"$\gamma_j$")


FIGURES = {
    "window": Figure(
        window,
        draw_window,
        1,
        "Thirty coefficients against time on a logarithmic axis. Four jump from zero before time "
        "1.1 and lie on dotted lines then. A dashed line stands at 2.1. From 5.6 on grey lines "
        "leave zero, more and more of them, and the four leave their dotted lines.",
        "The window of the theorem: 200 rows, four true columns of thirty, unit noise. Between "
        r"the last true entry and the first false one the path is the oracle (dotted). $\bar\tau$ "
        "is what the theorem promises; this draw has more.",
    ),
    "imitator": Figure(
        imitator,
        draw_imitator,
        2,
        "Two panels of three dual variables. The first rises to 1 by time 1, the second by time 2. "
        "The third, dashed, follows both: at r = 0.45 it turns level at 0.9; at r = 0.6 it arrives "
        "at 1 at time 4/3, before the second.",
        r"Two true columns, with coefficients 1 and $\frac12$, and a false one that has the "
        "correlation $r$ with each. It adds up $r$ times what both do. Where $2r > 1$ it comes "
        "before the second, whatever the number of observations.",
    ),
}

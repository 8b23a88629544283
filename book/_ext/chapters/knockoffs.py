"""Figures of the chapter on knockoffs."""

import numpy as np
from drawn import Figure

from dslbi_ref.knockoff_filter import knockoff_statistics, knockoff_threshold
from dslbi_ref.knockoffs import split_race
from dslbi_ref.transforms import differences

HEIGHTS = (-0.4, 0.8, 0.2, 1.3, -0.8, 1.0, -1.5, 0.5, -0.3, 1.1, -1.0, 0.0)
SHOWN = {34: "a jump wins", 55: "no jump, loses", 33: "no jump, wins"}


def pieces():
    """A signal of twelve pieces, its differences, and whether they are jumps; 400 rows."""
    rng = np.random.default_rng(2)
    beta, D = 0.3 * np.repeat(HEIGHTS, 5), differences(60)
    X = rng.standard_normal((400, 60))
    return X, X @ beta + rng.standard_normal(400), D, D @ beta


def race():
    X, y, D, gamma = pieces()
    found = split_race(X, y, D, nu=2.5, part=0.5, path="iss", seed=0)
    W, sign = knockoff_statistics(found.t, found.clock, found.zeta, "st")
    copy = found.clock + np.outer(found.t, found.zeta)
    return {
        "t": found.t,
        "row": found.clock,
        "copy": copy,
        "W": W,
        "sign": sign,
        "true": sign * gamma > 0,
        "T": knockoff_threshold(W, 0.2),
    }


def draw_race(axes, curves):
    for ax, (i, title) in zip(axes, SHOWN.items(), strict=True):
        row, copy = (curves["sign"][i] * curves[key][:, i] for key in ("row", "copy"))
        ax.plot(curves["t"], row, "C0-", label="row")
        ax.plot(curves["t"], copy, "C1--", label="copy")
        ax.axhline(1, color="0.6", ls=":", lw=1)
        slow = curves["t"][np.minimum(row, copy) < 1].max()
        ax.set(title=title, xlabel="time $t$", ylim=(-0.2, 1.2), xlim=(0, min(1.2 * slow, 60)))
    axes[0].set_ylabel("clock")
    axes[0].legend(loc="lower right")


def draw_evidence(axes, curves):
    W, true = curves["W"], curves["true"]
    order = np.argsort(-np.abs(W))[:30]
    place = np.arange(len(order))
    for on, colour, label in ((true, "C0", "true"), (~true, "C1", "false")):
        axes[0].bar(place[on[order]], W[order][on[order]], color=colour, label=label)
    for level, line in ((curves["T"], "--"), (-curves["T"], ":")):
        axes[0].axhline(level, color="0.2", ls=line, lw=1)
    axes[0].axhline(0, color="0.2", lw=0.6)
    axes[0].set(xlabel="rows by the size of their evidence", ylabel="$W_i$", xticks=[])
    axes[0].legend()


FIGURES = {
    "race": Figure(
        race,
        draw_race,
        3,
        "Three panels of two lines that rise to 1. For a jump the solid line of the row arrives "
        "first, at time 7, the dashed one of its copy after it. For the second row the copy "
        "arrives first, for the third the row, both at times above 10.",
        "A jump of a signal of twelve pieces, and two rows inside a piece. A copy runs along with "
        "its row and adds noise; a true row has a head start, a false one tosses a coin.",
    ),
    "evidence": Figure(
        race,
        draw_evidence,
        1,
        "Bars of thirty rows by size. Of the eleven largest ten are true, and nine of these point "
        "up, one down; one false bar points up among them. Two levels lie at plus and minus 0.061: "
        "eleven bars reach the upper one, one the lower.",
        "Evidence of the thirty rows with most of it. Those from the threshold (dashed) on are "
        "named: eleven, one of them false. The one below its mirror image (dotted) says how many "
        r"false ones to expect: $(1 + 1)/11 \le q = 0.2$.",
    ),
}

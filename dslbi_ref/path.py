"""Recording of states, and the one object that every solver of the linear chapters returns."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from .checks import (
    check_arraylike,
    check_integer,
    check_kind,
    check_number,
    check_positive,
    check_times,
    no_overflow,
    real,
    shown,
)
from .shrinkage import crossing, shrink
from .solvers.packed import PackedRows, RowsField

# An iteration that would take more steps than these is refused: it would take days.
MAX_STEPS = 10**8
# Two times closer than this, relative to the larger one, are the same time.
TIME_TOLERANCE = 1e-12


def _stack(column):
    """Stack one field of many states; an entry that a state lacks is recorded as NaN."""
    if any(isinstance(entry, dict) for entry in column):
        names = dict.fromkeys(name for entry in column for name in entry)
        return {name: _stack([entry.get(name) for entry in column]) for name in names}
    shown = next((np.asarray(entry) for entry in column if entry is not None), None)
    if shown is None:
        return None
    return np.stack([np.full(shown.shape, np.nan) if e is None else e for e in column])


def record(states, n_steps, every=1):
    """Run a generator of states, and stack every ``every``-th of them.

    Parameters
    ----------
    states : iterator of NamedTuples
        Fields are numbers, arrays, None, or dicts of arrays.
    n_steps : int in [0, 1e8]
        Steps to take; states 0, every, 2 * every, ... up to ``n_steps`` are kept.
    every : int >= 1

    Returns
    -------
    NamedTuple of the same type
        Each array has the path as its leading axis; a field that is None throughout stays None. A
        momentum buffer, absent before the first step, reads NaN there.
    """
    n_steps = check_integer("n_steps", n_steps, 0, MAX_STEPS)
    every = check_integer("every", every, 1)
    check_kind("states", states, Iterator)
    kept = list(islice(states, 0, n_steps + 1, every))
    if not kept:
        raise ValueError("states must yield at least one state, got none")
    if not hasattr(kept[0], "_fields"):
        raise ValueError(f"states must yield NamedTuples, got {shown(kept[0])}")
    return type(kept[0])(*(_stack(column) for column in zip(*kept, strict=True)))


def follow(states, times, *fields):
    """Follow a generator of states to the given times, between which the named fields are linear.

    Parameters
    ----------
    states : iterator of NamedTuples with a field t that grows without end, from 0
    times : ndarray, increasing
    *fields : str
        Fields that are linear in t between two states: z, a dense beta, an intercept; never gamma.

    Returns
    -------
    list of ndarray
        One per field, with one row per time. At the time of a state the row is that state's, bit
        for bit.

    Raises
    ------
    ValueError
        The last time is more than ``MAX_STEPS`` steps away, by the first step after state 1.
    """
    left = right = next(states)
    rows, seen = [], 0
    for t in times:
        while right.t < t * (1 - TIME_TOLERANCE):
            left, right, seen = right, next(states), seen + 1
            if seen == 2 and times[-1] - right.t > MAX_STEPS * (right.t - left.t):
                step = right.t - left.t
                needed = f"{(times[-1] - right.t) / step:.3g}" if step > 0 else "endlessly many"
                raise ValueError(
                    f"times must be reached within {MAX_STEPS:,} steps, but t = {times[-1]:.6g} "
                    f"takes {needed} of {step:.3g} after t = {left.t:.6g}: a smaller kappa or "
                    "larger alpha takes fewer"
                )
        w = min((t - left.t) / (right.t - left.t), 1.0) if right.t > left.t else 1.0
        w = 1.0 if right.t <= t * (1 + TIME_TOLERANCE) else w
        ends = ((getattr(left, f), getattr(right, f)) for f in fields)
        rows.append([(1 - w) * a + w * b for a, b in ends])
    return [np.array(column) for column in zip(*rows, strict=True)]


class PathPoint(NamedTuple):
    """A path at one time, or at several with a leading axis; None: the path has no such part."""

    t: np.ndarray
    z: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray | None
    intercept: np.ndarray | None
    tilde: np.ndarray | None


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Path:
    """A regularization path: dual variable, sparse iterate, and what goes with them, over time.

    Parameters
    ----------
    t : ndarray (T,)
        Path times, increasing, in units of one over the gradient of the loss.
    z : ndarray (T, m) or (T, p, k)
        Dual variable (multinomial loss: one column per class). In the limit of infinite kappa it is
        the sub-gradient rho of the penalty.
    gamma : ndarray of the shape of z
        Sparse iterate.
    beta : ndarray (T, p), optional
        Dense iterate of a split path.
    kappa : float > 0
        Speed of gamma; infinity for the exact paths.
    groups : int array (m,), optional
        A group label per entry (per feature, if multinomial).
    kind : "linear" or "step"
        "linear": z and beta are linear between times, and ``gamma = scale * kappa * prox_lam(z)``.
        "step": exact breakpoints; gamma[k], beta[k],
        intercept[k] hold on [t[k], t[k+1]), while z is linear between breakpoints.
    stop_reason : str
        Why the path ends where it ends.
    lam : float > 0
        Penalty level.
    scale : ndarray (m,), optional
        Factor from the units of z to those of gamma, where the columns of X were normalised.
    intercept : ndarray (T,) or (T, k), optional
    centre : ndarray (p,), optional
        Column means of X: what is linear in a "linear" path is ``intercept + centre @ coef``.
    tilde : ndarray (T, p), optional
        Revised estimator of a split path: beta projected on the kernel of the inactive rows of D.
    factors : ndarray (m,), optional
        Factors of the penalty: an entry leaves zero where z passes ``lam * factor``.
    positive : bool
        No penalised entry of gamma is negative.

    Notes
    -----
    The z of an iteration is linear between its steps. A "linear" path recorded at fewer times is
    exact at those times, and an interpolation between them: a value that must be exact belongs into
    ``times``. Times compare with a relative tolerance of 1e-12.

    An exact path over more than 20,000 entries is packed, and keeps its data to compute z again.
    Reading ``z``, ``gamma`` or ``beta`` fills that array, and so does pickling; no method does.
    """

    t: np.ndarray
    z: np.ndarray = RowsField()
    gamma: np.ndarray = RowsField()
    beta: np.ndarray | None = RowsField(default=None)
    kappa: float
    groups: np.ndarray | None = None
    kind: str = "linear"
    stop_reason: str = ""
    lam: float = 1.0
    scale: np.ndarray | None = None
    intercept: np.ndarray | None = None
    centre: np.ndarray | None = None
    tilde: np.ndarray | None = None
    factors: np.ndarray | None = None
    positive: bool = False

    def __post_init__(self):
        (lam,), kappa = check_positive(lam=self.lam), check_number("kappa", self.kappa)
        if not kappa > 0:
            raise ValueError(f"kappa must be positive, got {self.kappa}")
        self.__dict__.update(lam=lam, kappa=kappa)  # it is frozen
        for name in ("t", "z", "gamma", "beta", "intercept", "tilde", "scale", "centre"):
            check_arraylike(name, vars(self)[name], needed=name in ("t", "z", "gamma"))
        check_times(self.t, "t")
        if self.kind not in ("linear", "step"):
            raise ValueError(f'kind must be "linear" or "step", got {self.kind!r}')
        z, gamma = (vars(self)[name].shape for name in ("z", "gamma"))
        if gamma != z or len(z) < 2:
            raise ValueError(f"gamma must have the shape of z, {z}, got {gamma}")
        for name in ("z", "beta", "intercept", "tilde"):
            value = vars(self)[name]
            if value is not None and np.shape(value)[:1] != np.shape(self.t):
                raise ValueError(
                    f"{name} must have one row per time, {len(self.t)}, got {np.shape(value)}"
                )

    def __getstate__(self):
        return {name: getattr(self, name) for name in vars(self)}

    def changed(self, **parts):
        """Return the path with some of its parts replaced; packed rows stay packed."""
        return Path(**(vars(self) | parts))

    def _locate(self, t):
        """Return the indices of the times around t, and the fraction of the way between them."""
        first, last = self.t[0], self.t[-1]
        low, high = first * (1 - TIME_TOLERANCE), last * (1 + TIME_TOLERANCE)
        if not np.all((low <= t) & (t <= high)):  # also refuses NaN
            raise ValueError(f"t must be in [{first}, {last}], the range of the path, got {t}")
        k = np.searchsorted(self.t * (1 - TIME_TOLERANCE), t, side="right") - 1
        k = np.clip(k, 0, len(self.t) - 1)
        right = np.minimum(k + 1, len(self.t) - 1)
        gap = np.where(right > k, self.t[right] - self.t[k], 1.0)
        return k, right, np.clip((t - self.t[k]) / gap, 0.0, 1.0)

    @no_overflow
    def at(self, t):
        """Return the path at time t, as a :class:`PathPoint`.

        Parameters
        ----------
        t : float or ndarray of shape (q,)
            Times within the range of the path; an array puts a leading axis on every part.

        Notes
        -----
        z is interpolated first and shrunk then: gamma is not linear in t where an entry passes the
        threshold.
        """
        t = real(t, "t").astype(np.float64, copy=False)
        k, right, w = self._locate(t)

        def blend(a):
            weight = w.reshape(w.shape + (1,) * (np.ndim(a) - 1))
            return (1 - weight) * a[k] + weight * a[right]

        z = blend(vars(self)["z"])
        # The projection changes at once with the support, so between times the last one holds.
        tilde = None if self.tilde is None else self.tilde[k]
        beta, intercept = vars(self)["beta"], self.intercept
        if self.kind == "step":
            beta, intercept = (None if a is None else a[k] for a in (beta, intercept))
            return PathPoint(t, z, vars(self)["gamma"][k], beta, intercept, tilde)
        rows = z.reshape((-1,) + vars(self)["z"].shape[1:])
        gamma = np.array([self._shrink(row) for row in rows]).reshape(z.shape)
        beta = None if beta is None else blend(beta)
        if intercept is not None and self.centre is not None:
            # Linear is the value at the centre of the data, not the one at the origin.
            whole, here = (self.gamma, gamma) if beta is None else (self.beta, beta)
            level = blend(intercept + np.tensordot(whole, self.centre, (1, 0)))
            intercept = level - np.tensordot(here, self.centre, (t.ndim, 0))
        elif intercept is not None:
            intercept = blend(intercept)
        return PathPoint(t, z, gamma, beta, intercept, tilde)

    @property
    def _rule(self):
        return dict(groups=self.groups, factors=self.factors, positive=self.positive)

    def _shrink(self, z):
        return shrink(z, kappa=self.kappa, lam=self.lam, scale=self.scale, **self._rule)

    def support(self, t):
        """Return which entries of gamma are not zero at time t (a row for each of several)."""
        packed = isinstance(vars(self)["gamma"], PackedRows)  # then z costs a product with X
        return (vars(self)["gamma"][self._locate(t)[0]] if packed else self.at(t).gamma) != 0

    @no_overflow
    def entry_times(self):
        """Return the time at which each entry first leaves zero; infinity where it never does.

        In a "linear" path that is where the interpolated z passes the threshold. An entry that is
        in the support at the first time has that time, whenever it really entered.
        """
        rows = vars(self)["gamma"]
        if isinstance(rows, PackedRows):
            return np.append(self.t, np.inf)[rows.first()]
        active = np.asarray(rows != 0)
        first = active.argmax(axis=0)  # 0 also where nothing is ever active
        entry = np.where(active.any(axis=0), self.t[first], np.inf)
        if self.kind == "step" or len(self.t) == 1:
            return entry
        for k in np.unique(first[active.any(axis=0) & (first > 0)]):
            part = crossing(self.z[k - 1], self.z[k], self.lam, **self._rule)
            time = self.t[k - 1] + part * (self.t[k] - self.t[k - 1])
            entry = np.where((first == k) & np.isfinite(entry), time, entry)
        return entry

    def auc(self, truth):
        """Return the area under the ROC curve of the entry order: does the truth enter first?

        Parameters
        ----------
        truth : array of the shape of one gamma
            Non-zero (or True) where an entry belongs to the support.

        Returns
        -------
        float
            Probability that a true entry enters before a false one; ties, and pairs of which
            neither ever enters, count one half. An entry that never enters ranks behind all others.
        """
        truth = np.asarray(truth) != 0
        entry = self.entry_times()
        if truth.shape != entry.shape:
            raise ValueError(f"truth must have shape {entry.shape}, got {truth.shape}")
        if truth.all() or not truth.any():
            raise ValueError(f"truth must hold true and false entries, got {truth.sum()} true ones")
        order = np.argsort(entry, axis=None, kind="stable")
        sorted_times = entry.ravel()[order]
        new = sorted_times[1:] > sorted_times[:-1] * (1 + TIME_TOLERANCE)
        place = np.concatenate([[0], np.cumsum(new)])
        true_at = np.bincount(place, weights=truth.ravel()[order])
        false_at = np.bincount(place, weights=~truth.ravel()[order])
        true_before = np.cumsum(true_at) - true_at
        wins = (false_at * (true_before + true_at / 2)).sum()
        return float(wins / (truth.sum() * (~truth).sum()))

    def plot(self, ax=None, *, truth=None, names=None):
        """Draw the coefficients against path time, on a logarithmic axis.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Default: a new figure.
        truth : array of the shape of one gamma, optional
            True support: drawn in blue, everything else dashed in orange.
        names : sequence of str, optional
            Names of the entries, written at the right end of the entries that are not zero there.

        Returns
        -------
        matplotlib Axes
        """
        from .figures.paths import draw

        return draw(self, ax, truth, names)

"""Where to stop on a path: losses along it, the discrepancy principle, cross-validation in time."""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from .checks import (
    check_array,
    check_design,
    check_flag,
    check_in,
    check_integer,
    check_kind,
    check_times,
    check_word,
    no_overflow,
    shown,
)
from .losses import loss_named
from .path import TIME_TOLERANCE, Path
from .weighting import check_weights


def _coefficients(path, part):
    if part is None:
        part = "gamma" if vars(path)["beta"] is None else "beta"
    check_word("part", part, ("gamma", "beta", "tilde"))
    if vars(path)[part] is None:
        raise ValueError(f"the path has no {part}")
    return part


def path_losses(path, X, y, times, *, loss="squared", part=None, rest=False, sample_weight=None):
    """Return the loss of the estimates of a path on the data X, y, at each time.

    Parameters
    ----------
    path : Path
    X : ndarray or scipy.sparse, (n, p)
    y : ndarray (n,)
    times : ndarray (q,)
        Before the first and after the last time of the path the loss is infinite: a path that had
        to end (separable data) has no estimate there, unless it is to ``rest``.
    loss : str or Loss
        A word of ``dslbi_ref.losses.LOSSES``, or a row.
    part : "gamma", "beta" or "tilde", optional
        The estimate; default beta of a split path, else gamma. With an intercept all parts of a
        path have the same prediction at the column means of the data it was fitted to.
    rest : bool
        Keep the first estimate before the path begins, and the last one after it ends.
    sample_weight : ndarray (n,), positive, optional
        The loss is a weighted mean.
    """
    check_kind("path", path, Path)
    times, X = check_array("times", times), check_design(X, as_is=True)
    check_array("y", y, (X.shape[0],))
    y, row, rest = np.asarray(y), loss_named(loss), check_flag("rest", rest)
    weights = check_weights(sample_weight, len(y))
    if X.shape[1] != vars(path)["gamma" if vars(path)["beta"] is None else "beta"].shape[1]:
        raise ValueError(f"X must have the columns of the path, got shape {X.shape}")
    if times.ndim != 1:
        raise ValueError(f"times must be 1-d, got shape {times.shape}")
    times = np.clip(times, path.t[0], path.t[-1]) if rest else times
    part = _coefficients(path, part)
    result = np.full(times.shape, np.inf)
    first, last = path.t[0] * (1 - TIME_TOLERANCE), path.t[-1] * (1 + TIME_TOLERANCE)
    inside = np.flatnonzero((first <= times) & (times <= last))
    for k in range(0, len(inside), 16):  # a few at a time: their rows may be long
        point = path.at(times[inside[k : k + 16]])
        estimates = getattr(point, part)
        levels = np.zeros(len(point.t)) if point.intercept is None else point.intercept
        if point.intercept is not None and point.beta is not None and part != "beta":
            levels = levels + (point.beta - estimates) @ path.centre  # that of beta is given
        pairs = zip(estimates, levels, strict=True)
        result[inside[k : k + 16]] = [_value(row, X, y, b, level, weights) for b, level in pairs]
    return result


@no_overflow
def _value(row, X, y, beta, level, weights):
    terms = row.terms(X @ beta + level, y)
    return (terms if weights is None else weights * terms).mean()


def discrepancy_time(path, X, y, *, sigma, part=None):
    """Return the first time at which the mean squared residual is down to the noise, ``sigma^2``.

    Infinity if it never is; arguments as for :func:`path_losses`. ``path.t`` holds the candidates.
    """
    (sigma,) = check_in(0, np.inf, sigma=sigma)
    check_kind("path", path, Path)
    small = 2 * path_losses(path, X, y, path.t, part=part) <= sigma * sigma
    return float(path.t[small.argmax()]) if small.any() else np.inf


def held_out_losses(fit, X, y, times, splits, *, sample_weight=None, **options):
    """Return the loss at each time on the rows that a fold holds out, (folds, q).

    Parameters
    ----------
    fit : callable ``(X, y) -> Path``, or ``(X, y, sample_weight) -> Path``
    splits : iterable of (train, test)
        The rows to fit and the rows to hold out, as indices or masks.
    sample_weight : ndarray (n,), at least 0, optional
        Then fit takes the weights as a third argument. A row of weight 0 is not held out.
    X, y, times, **options
        See :func:`path_losses`.
    """
    check_kind("fit", fit, callable)
    X = check_design(X)
    X, y = sp.csr_array(X) if sp.issparse(X) else X, np.asarray(y)
    check_array("y", y, (X.shape[0],))
    parts = [X, y]
    if sample_weight is not None:
        parts.append(check_array("sample_weight", sample_weight, (len(y),)))
    losses = []
    for train, test in _splits(splits, len(y)):
        path = check_kind("fit", fit(*(part[train] for part in parts)), Path)
        rest = [part[test] for part in parts]
        if sample_weight is not None:
            counted = np.flatnonzero(rest[2])
            if not counted.size:
                raise ValueError("splits must hold out a row of a positive weight, got none")
            rest = [part[counted] for part in rest]
            options["sample_weight"] = rest.pop()
        losses.append(path_losses(path, *rest, times, **options))
    return np.array(losses)


def _splits(splits, n):
    """Return pairs of rows, as indices of n rows or masks of them; refuse what is no such pair."""
    wanted = "splits must be pairs of rows to fit and rows to hold out"
    try:
        pairs = [tuple(map(np.asarray, pair)) for pair in splits]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{wanted}, got {shown(splits)}") from error
    if not pairs:
        raise ValueError(f"{wanted}, got none")
    for pair in pairs:
        whole = len(pair) == 2 and all(rows.ndim == 1 and rows.dtype.kind in "iub" for rows in pair)
        if not whole:
            raise ValueError(f"{wanted}, got {shown(pair)}")
        for rows in pair:
            mask = rows.dtype == bool
            inside = -n <= rows.min(initial=0) and rows.max(initial=0) < n
            if not (len(rows) == n if mask else inside):
                raise ValueError(f"splits must be of the {n} rows of X, got {shown(rows)}")
            if not (rows.any() if mask else rows.size):
                raise ValueError("splits must be of rows to fit and to hold out, got none of one")
    return pairs


class CrossValidation(NamedTuple):
    """Held-out loss on a grid of times; ``best`` minimises it, ``earliest`` is within one error."""

    t: np.ndarray
    mean: np.ndarray
    error: np.ndarray
    best: float
    earliest: float


def cross_validate(fit, X, y, times, *, folds=5, loss="squared", part=None):
    """Choose the path time by cross-validation.

    Every fold has its own path from t = 0, and all are compared at the same times: t is one over a
    gradient of the mean loss, so it means the same for every number of observations.

    Parameters
    ----------
    fit : callable ``(X, y) -> Path``
        For example ``lambda X, y: iss_path(X, y, t_max=times[-1])``.
    X : ndarray or scipy.sparse, (n, p)
    y : ndarray (n,)
    times : ndarray (q,), increasing
        Where a path of a fold ends early, its loss is infinite from there on.
    folds : int in [2, n], or int array (n,)
        Number of folds, dealt in turn (row i to fold i modulo folds), or the fold of each row.
    loss, part
        As for :func:`path_losses`.

    Returns
    -------
    CrossValidation
        Mean over the folds, and the standard error of that mean, at each time.
    """
    times = check_times(times)
    X = check_design(X)
    X, n = sp.csr_array(X) if sp.issparse(X) else X, X.shape[0]
    y = check_array("y", y, (n,))
    if np.ndim(folds) == 0:
        folds = check_integer("folds", folds, 0)
        if not 2 <= folds <= n:
            raise ValueError(f"folds must be in [2, {n}], got {folds}")
        folds = np.arange(n) % folds
    folds = np.asarray(folds)
    if folds.shape != (n,) or len(np.unique(folds)) < 2:
        raise ValueError(f"folds must be {n} labels of two or more folds, got {folds.shape}")
    splits = [(folds != k, folds == k) for k in np.unique(folds)]
    held = held_out_losses(fit, X, y, times, splits, loss=loss, part=part)
    ended = np.isinf(held).any(axis=0)
    if ended.all():
        raise ValueError("times must reach into the path of every fold, got none that does")
    mean = np.where(ended, np.inf, held.mean(axis=0))
    spread = np.where(ended, 0.0, held).std(axis=0, ddof=1) / np.sqrt(len(held))
    error = np.where(ended, np.inf, spread)
    k = mean.argmin()
    within = (mean <= mean[k] + error[k]).argmax()
    return CrossValidation(times, mean, error, float(times[k]), float(times[within]))

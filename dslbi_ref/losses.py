"""Losses of linear predictors: value, gradient, curvature and what goes with them, side by side.

With ``eta = X beta + intercept`` and n observations,

    squared      f = sum_i (eta_i - y_i)^2 / (2n)                      y real
    huber        f = sum_i h(eta_i - y_i) / n                          y real
    logistic     f = sum_i log(1 + exp(-y_i eta_i)) / n                y in {-1, +1}
    poisson      f = sum_i [exp(eta_i) - y_i eta_i] / n                y in {0, 1, 2, ...}
    multinomial  f = sum_i [log sum_c exp(eta_ic) - eta_{i, y_i}] / n  y in {0, ..., k-1}

where ``h(r) = r^2 / 2`` up to ``|r| = delta``, and ``delta |r| - delta^2 / 2`` beyond.

``LOSSES`` is the table. A further loss is a further row, and every ``loss`` argument takes a word
of the table or a row: no solver compares a loss's name. The gradient in beta is
``X' gradient(eta, y)``, in the intercept the sum of that over the observations.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logsumexp, softmax

from .checks import check_array, check_positive, check_scale, check_word, shown


def one_predictor(y):
    """Return the shape that follows the n in eta where every observation has one predictor."""
    return ()


class Loss(NamedTuple):
    """A convex, smooth loss of a linear predictor by its parts.

    Attributes
    ----------
    terms : ``(eta, y) -> ndarray (n,)``, whose mean is the value
    gradient : ``(eta, y) -> ndarray`` of the shape of eta; the factor 1/n is included
    curvature : ``(eta, y) -> ndarray``, or None
        Second derivative of each term in eta_i, 1/n included: (n,), or (n, k, k) for k classes.
        None: the exact path and the start "minimiser", which need it, refuse the loss.
    lipschitz : float
        Largest second derivative of one term of the sum: the gradient in beta has the Lipschitz
        constant ``lipschitz * |X|^2 / n``. Infinity: ``steepest`` says more.
    null_intercept : ``y -> float or ndarray (k,)``, the minimiser at beta = 0
    check_target : ``(y, n) -> y`` as the loss needs it, or a ValueError of one line
    columns : ``y -> tuple``
        What follows the n in the shape of eta, and the p in that of beta: ``()``, or ``(k,)`` for
        k classes, which y alone knows.
    separation : ``(E, y) -> falls, rests``, or None
        Of directions that move the predictors by E, (n, s) or (n, k, s): the loss falls for ever
        along the combinations v with ``falls @ v >= 0``, not all zero, and ``rests @ v = 0``.
        None: it has a minimiser along every line.
    quadratic : bool
        ``gradient`` is ``(eta - y) / n``: a Gram matrix holds all that there is to know.
    mean : ``eta -> ndarray``, the expected y (multinomial: the probabilities of the classes)
    steepest : ``(eta, y, weights) -> float``, or None
        For a loss of infinite ``lipschitz``: the largest second derivative of a weighted term where
        the weighted loss is at most that at eta, which is where a path that descends stays.
    """

    terms: Callable
    gradient: Callable
    curvature: Callable | None
    lipschitz: float
    null_intercept: Callable
    check_target: Callable
    columns: Callable = one_predictor
    separation: Callable | None = None
    quadratic: bool = False
    mean: Callable = np.asarray
    steepest: Callable | None = None

    def value(self, eta, y):
        """Return the loss, the mean of its terms."""
        return self.terms(eta, y).mean()


def check_numbers(y, n):
    """Return y as an array of n finite numbers, one per row of X."""
    y = check_array("y", y)
    if y.shape != (n,):
        raise ValueError(f"y must have shape ({n},), one entry per row of X, got {y.shape}")
    check_scale("y", y)
    return y


# ---- squared ---------------------------------------------------------------------------------


def _squared_terms(eta, y):
    return (eta - y) ** 2 / 2  # (loss-squared)


def _squared_gradient(eta, y):
    return (eta - y) / len(y)


# ---- Huber -----------------------------------------------------------------------------------


def huber(delta=1.0):
    """Return the row of the Huber loss: squared up to a residual of delta, linear beyond.

    Parameters
    ----------
    delta : float > 0
        In the units of y. Gross errors of y pull with delta at most.
    """
    (delta,) = check_positive(delta=delta)

    def terms(eta, y):
        size = np.abs(eta - y)
        least = np.minimum(size, delta)
        return least * (size - least / 2)  # (loss-huber)

    def slope(eta, y):
        return np.clip(eta - y, -delta, delta)

    def null_intercept(y):
        """Return the root of the sum of slopes, which is linear between the knots y -+ delta."""
        knots = np.sort(np.concatenate([y - delta, y + delta]))
        low, high = 0, len(knots) - 1
        while high - low > 1:
            middle = (low + high) // 2
            falls = slope(knots[middle], y).sum() <= 0
            low, high = (middle, high) if falls else (low, middle)
        (a, b), (left, right) = knots[[low, high]], (slope(knots[j], y).sum() for j in (low, high))
        return a - left * (b - a) / (right - left) if right > left else a

    return Loss(
        terms=terms,
        gradient=lambda eta, y: slope(eta, y) / len(y),
        curvature=lambda eta, y: (np.abs(eta - y) <= delta) / len(y),
        lipschitz=1.0,
        null_intercept=null_intercept,
        check_target=check_numbers,
    )


# ---- logistic --------------------------------------------------------------------------------


def _logistic_terms(eta, y):
    return np.logaddexp(0.0, -y * eta)  # (loss-logistic)


def _logistic_gradient(eta, y):
    return -y * expit(-y * eta) / len(y)


def _logistic_curvature(eta, y):
    return expit(eta) * expit(-eta) / len(y)


def _logistic_intercept(y):
    """Return the intercept at beta = 0; a single class would have no finite one."""
    above, below = (y > 0).sum(), (y < 0).sum()
    if not (above and below):
        raise ValueError(f"y must hold both classes -1 and +1, got only {y[0]:+g}")
    return np.log(above / below)


def _logistic_target(y, n):
    """Return y in float64: -1 and +1, both present."""
    y = check_numbers(y, n)
    present = np.unique(y)
    if not np.isin(present, (-1, 1)).all():
        other = present[~np.isin(present, (-1, 1))][0]
        raise ValueError(f"y of a logistic loss must be in {{-1, +1}}, got {other}")
    if len(present) < 2:
        raise ValueError(f"y must hold both classes -1 and +1, got only {present[0]:+g}")
    return y


def _logistic_separation(E, y):
    """Return the margins, which no separating direction lowers."""
    return y[:, None] * E, E[:0]


# ---- Poisson ---------------------------------------------------------------------------------


def _rate(eta):
    """Return ``exp(eta)``; beyond the largest number it is infinite."""
    with np.errstate(over="ignore"):
        return np.exp(eta)


def _poisson_terms(eta, y):
    return _rate(eta) - y * eta  # (loss-poisson)


def _poisson_intercept(y):
    """Return the intercept at beta = 0; without a count it would be minus infinity."""
    if not y.any():
        raise ValueError("y must hold a count above 0 to have an intercept, got only 0")
    return np.log(y.mean())


def _poisson_target(y, n):
    """Return y in float64: whole numbers, none of them negative."""
    y = check_numbers(y, n)
    bad = y[(y < 0) | (y != np.floor(y))]
    if bad.size:
        raise ValueError(f"y of a Poisson loss must be whole numbers from 0 on, got {bad[0]:g}")
    return y


def _poisson_separation(E, y):
    """Return what lowers the rates of the zeros, and leaves every other rate as it is."""
    return -E[y == 0], E[y > 0]


def _poisson_steepest(eta, y, weights):
    """Bound the weighted rates on a level set of the loss.

    No term is below its minimum ``y - y log y``, so that each rate m has ``w (m - y - y log(m/y))``
    of at most the sum E of what the terms exceed theirs. With ``x = m/y - 1`` and
    ``x - log(1 + x) >= x^2 / (2 (1 + x))`` that is
    ``m <= y + E/w + sqrt((E/w)^2 + 2 y E/w)``.
    """
    least = y - y * np.log(np.where(y > 0, y, 1.0))
    excess = (weights * (_poisson_terms(eta, y) - least)).sum() / weights
    return float((weights * (y + excess + np.sqrt(excess * (excess + 2 * y)))).max())


# ---- multinomial -----------------------------------------------------------------------------


def _multinomial_terms(eta, y):
    own = np.take_along_axis(eta, y[:, None], axis=1)[:, 0]
    return logsumexp(eta, axis=1) - own  # (loss-multinomial)


def _multinomial_gradient(eta, y):
    return (softmax(eta, axis=1) - (y[:, None] == np.arange(eta.shape[1]))) / len(y)


def _multinomial_curvature(eta, y):
    q = softmax(eta, axis=1)
    return (q[:, :, None] * np.eye(q.shape[1]) - q[:, :, None] * q[:, None, :]) / len(y)


def _multinomial_separation(E, y):
    """Return by how much the predictor of each class falls behind that of the own class."""
    own = np.take_along_axis(E, y[:, None, None], axis=1)
    return (own - E).reshape(-1, E.shape[2]), E[:0, 0]


def _multinomial_intercept(y):
    """Return the intercept of mean zero; a class without observations would have no finite one."""
    logs = np.log(np.bincount(y))
    return logs - logs.mean()


def _multinomial_target(y, n):
    """Return y as integers 0, ..., k-1, each present, k >= 2."""
    y = check_numbers(y, n)
    present = np.unique(y)
    if len(present) < 2:
        raise ValueError(f"y must hold at least two classes, got only {present[0]}")
    if not np.array_equal(present, np.arange(len(present))):
        raise ValueError(
            "y of a multinomial loss must be 0, ..., k-1, each present, got "
            f"{shown(present.tolist())}"
        )
    return y.astype(np.intp)


# ---- The table -------------------------------------------------------------------------------

LOSSES = {
    "squared": Loss(
        terms=_squared_terms,
        gradient=_squared_gradient,
        curvature=lambda eta, y: np.full(len(y), 1.0 / len(y)),
        lipschitz=1.0,
        null_intercept=lambda y: y.mean(),
        check_target=check_numbers,
        quadratic=True,
    ),
    "huber": huber(),
    "logistic": Loss(
        terms=_logistic_terms,
        gradient=_logistic_gradient,
        curvature=_logistic_curvature,
        lipschitz=0.25,
        null_intercept=_logistic_intercept,
        check_target=_logistic_target,
        separation=_logistic_separation,
        mean=expit,
    ),
    "poisson": Loss(
        terms=_poisson_terms,
        gradient=lambda eta, y: (_rate(eta) - y) / len(y),
        curvature=lambda eta, y: _rate(eta) / len(y),
        lipschitz=np.inf,
        null_intercept=_poisson_intercept,
        check_target=_poisson_target,
        separation=_poisson_separation,
        mean=_rate,
        steepest=_poisson_steepest,
    ),
    "multinomial": Loss(
        terms=_multinomial_terms,
        gradient=_multinomial_gradient,
        curvature=_multinomial_curvature,
        lipschitz=0.5,  # largest eigenvalue of diag(q) - qq'
        null_intercept=_multinomial_intercept,
        check_target=_multinomial_target,
        columns=lambda y: (int(y.max()) + 1,),
        separation=_multinomial_separation,
        mean=lambda eta: softmax(eta, axis=-1),
    ),
}


def loss_named(loss):
    """Return the row of a word of the table, or the row given; refuse anything else."""
    return loss if isinstance(loss, Loss) else LOSSES[check_word("loss", loss, LOSSES)]


def curved_loss(loss, *, classes=True):
    """Return the row of a loss with a curvature (with ``classes=False``: and one predictor)."""

    def fits(row):
        return row.curvature is not None and (classes or row.columns is one_predictor)

    words = [word for word, row in LOSSES.items() if fits(row)]
    if isinstance(loss, Loss) and fits(loss):
        return loss
    return LOSSES[check_word("loss", loss, words, " here")]

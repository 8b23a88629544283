"""Losses of linear predictors: value, gradient, curvature and what goes with them, side by side.

With ``eta = X beta + intercept`` and n observations,

    squared      f = sum_i (eta_i - y_i)^2 / (2n)                      y real
    logistic     f = sum_i log(1 + exp(-y_i eta_i)) / n                y in {-1, +1}
    multinomial  f = sum_i [log sum_c exp(eta_ic) - eta_{i, y_i}] / n  y in {0, ..., k-1}

``LOSSES`` is the table. A further loss is a further row: no solver compares a loss's name. The
gradient in beta is ``X' gradient(eta, y)``, in the intercept the sum of that over the observations.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logsumexp, softmax

from .checks import check_array, check_scale, check_word


class Loss(NamedTuple):
    """A convex, smooth loss of a linear predictor by its parts.

    Attributes
    ----------
    value : ``(eta, y) -> float``
    gradient : ``(eta, y) -> ndarray`` of the shape of eta; the factor 1/n is included
    curvature : ``(eta, y) -> ndarray (n,)``, or None
        Second derivative in each eta_i, 1/n included. None: no such numbers (the classes of the
        multinomial loss are coupled); the exact path and the start "minimiser" need them.
    lipschitz : float
        Largest second derivative of one term of the sum: the gradient in beta has the Lipschitz
        constant ``lipschitz * |X|^2 / n``.
    null_intercept : ``y -> float or ndarray (k,)``, the minimiser at beta = 0
    check_target : ``(y, n) -> y`` as the loss needs it, or a ValueError of one line
    columns : ``y -> tuple``
        What follows the n in the shape of eta, and the p in that of beta: ``()``, or ``(k,)`` for
        k classes, which y alone knows.
    separation : ``y -> signs (n,)``, or None
        For these signs s, the loss falls for ever along every eta with ``s_i eta_i >= 0``, not all
        zero: where a combination of columns is such an eta, there is no minimiser. None: the loss
        grows along every line, and there always is one.
    quadratic : bool
        ``gradient`` is ``(eta - y) / n``: a Gram matrix holds all that there is to know.
    """

    value: Callable
    gradient: Callable
    curvature: Callable | None
    lipschitz: float
    null_intercept: Callable
    check_target: Callable
    columns: Callable = lambda y: ()
    separation: Callable | None = None
    quadratic: bool = False


def check_numbers(y, n):
    """Return y as an array of n finite numbers, one per row of X."""
    y = check_array("y", y)
    if y.shape != (n,):
        raise ValueError(f"y must have shape ({n},), one entry per row of X, got {y.shape}")
    check_scale("y", y)
    return y


# ---- squared ---------------------------------------------------------------------------------


def _squared_value(eta, y):
    return ((eta - y) ** 2).mean() / 2  # (loss-squared)


def _squared_gradient(eta, y):
    return (eta - y) / len(y)


# ---- logistic --------------------------------------------------------------------------------


def _logistic_value(eta, y):
    return np.logaddexp(0.0, -y * eta).mean()  # (loss-logistic)


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


# ---- multinomial -----------------------------------------------------------------------------


def _multinomial_value(eta, y):
    own = np.take_along_axis(eta, y[:, None], axis=1)[:, 0]
    return (logsumexp(eta, axis=1) - own).mean()  # (loss-multinomial)


def _multinomial_gradient(eta, y):
    return (softmax(eta, axis=1) - (y[:, None] == np.arange(eta.shape[1]))) / len(y)


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
            f"y of a multinomial loss must be 0, ..., k-1, each present, got {present}"
        )
    return y.astype(np.intp)


# ---- The table -------------------------------------------------------------------------------

LOSSES = {
    "squared": Loss(
        value=_squared_value,
        gradient=_squared_gradient,
        curvature=lambda eta, y: np.full(len(y), 1.0 / len(y)),
        lipschitz=1.0,
        null_intercept=lambda y: y.mean(),
        check_target=check_numbers,
        quadratic=True,
    ),
    "logistic": Loss(
        value=_logistic_value,
        gradient=_logistic_gradient,
        curvature=_logistic_curvature,
        lipschitz=0.25,
        null_intercept=_logistic_intercept,
        check_target=_logistic_target,
        separation=lambda y: y,
    ),
    "multinomial": Loss(
        value=_multinomial_value,
        gradient=_multinomial_gradient,
        curvature=None,
        lipschitz=0.5,  # largest eigenvalue of diag(q) - qq'
        null_intercept=_multinomial_intercept,
        check_target=_multinomial_target,
        columns=lambda y: (int(y.max()) + 1,),
    ),
}


def loss_named(word):
    """Return the row of the table; refuse another word with the list of them."""
    return LOSSES[check_word("loss", word, LOSSES)]


def curved_loss(word):
    """Return the row of a loss with a curvature; refuse another word with the list of those."""
    curved = [name for name, loss in LOSSES.items() if loss.curvature is not None]
    return LOSSES[check_word("loss", word, curved, " here")]

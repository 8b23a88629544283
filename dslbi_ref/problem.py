"""What every linear solver does first: checks, centring, scaling, the intercept, t0 and the step.

A sparse X is centred without being filled. :func:`linear_problem` does all of it, once, and a
solver starts from what it returns.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from .checks import check_design, check_flag, check_number, check_transform
from .design import Design, centred, column_scale
from .losses import Loss, curved_loss, loss_named
from .shrinkage import penalty_of_labels
from .solvers.active_newton import Smooth
from .solvers.blocks import LARGE, Blocks
from .weighting import check_factors, check_factors_of_groups, check_offset, check_weights

NONE = np.empty(0, dtype=int)

# ---- The step ----------------------------------------------------------------------------------


def checked_step(alpha, bound):
    """Return the step, half of the bound where alpha is None; refuse one outside (0, bound)."""
    if not 0 < bound < np.inf:
        raise ValueError(f"alpha must have a finite step bound, got {bound:g}: rescale kappa or nu")
    if alpha is None:
        return bound / 2
    alpha = check_number("alpha", alpha)
    if not 0 < alpha < bound:
        raise ValueError(
            f"alpha must be positive and below the step bound {bound:.6g}, got {alpha:.6g}"
        )
    return alpha


# ---- The problem -----------------------------------------------------------------------------


class LinearProblem(NamedTuple):
    """Data as a solver takes them.

    Attributes
    ----------
    design : Design
        Scaled, and centred if there is an intercept.
    y : ndarray (n,)
        As the loss needs it.
    loss : Loss
    intercept : bool
    level : float or ndarray (k,)
        The predictor at the column means of X when beta is zero: the best one, or 0 without an
        intercept.
    means : ndarray (p,)
        Column means of X as given; zero without an intercept.
    scale : ndarray (p,) or None
        What the columns were divided by.
    rest : ndarray (p,) or (p, k)
        The best coefficients while all that is penalised is zero.
    weights : ndarray (n,) or None
        Of the observations, of mean one; None: all one.
    offset : float or ndarray of the shape of the predictors
        What they hold beforehand.
    factors : ndarray (p,) or None
        What each coefficient counts in the penalty (of a split problem: each row of D).
    positive : bool
        Nothing that is penalised is negative.
    """

    design: Design
    y: np.ndarray
    loss: Loss
    intercept: bool
    level: float | np.ndarray
    means: np.ndarray
    scale: np.ndarray | None
    rest: np.ndarray
    weights: np.ndarray | None = None
    offset: float | np.ndarray = 0.0
    factors: np.ndarray | None = None
    positive: bool = False

    # The loss at linear predictors eta, the offset not counted

    def weighted(self, r):
        """Return r, one row for each observation, times the weights."""
        return r if self.weights is None else (self.weights * r.T).T

    def value(self, eta):
        return self.weighted(self.loss.terms(eta + self.offset, self.y)).mean()

    def gradient(self, eta):
        return self.weighted(self.loss.gradient(eta + self.offset, self.y))

    def curvature(self, eta):
        return self.weighted(self.loss.curvature(eta + self.offset, self.y))

    def steepest(self):
        """Return the Lipschitz constant of the gradient where a path that descends can come."""
        loss, weights = self.loss, self.weights
        if loss.steepest is not None:
            eta = self.design.dot(self.rest) + self.level + self.offset
            w = np.ones(len(self.y)) if weights is None else weights
            loss, weights = loss._replace(lipschitz=loss.steepest(eta, self.y, w)), None
        return self.design.lipschitz(loss, intercept=self.intercept, weights=weights)

    def lipschitz(self):
        """Return that Lipschitz constant; refuse a design of zeros."""
        L = self.steepest()
        if not L > 0:
            raise ValueError("X must not be zero" + " after centring" * self.intercept)
        return L

    # A quadratic loss: weighted products

    @property
    def target(self):
        """What the coefficients fit."""
        return self.y - self.offset - self.level

    def pull(self, r):
        """Return ``X'W r / n``, r (n,) or (n, k)."""
        return self.design.adjoint(self.weighted(r)) / len(self.y)

    def correlation(self):
        """Return ``X'W (y - offset - level) / n``, zero if it is rounding error."""
        c = self.pull(self.target)
        return c if np.abs(c).max() > self.design.noise(self.y) else np.zeros(len(c))

    # The penalty

    @property
    def free(self):
        """Indices that are never penalised."""
        return NONE if self.factors is None else np.flatnonzero(self.factors == 0)

    def rule(self, groups):
        """Return what the penalty is made of, as :func:`dslbi_ref.shrinkage.shrink` takes it."""
        return dict(groups=groups, factors=self.factors, positive=self.positive)

    def penalised(self, D):
        """Return the rows of D that have a penalty; to others gamma is tied without a pull."""
        return D if self.factors is None else D[self.factors > 0]

    def over_factors(self, x, j=slice(None)):
        """Return x, one row for each entry j, over the factors; what is free as it is."""
        if self.factors is None:
            return x
        return (x.T / np.where(self.factors > 0, self.factors, 1.0)[j]).T

    def at_origin(self, levels, coefficients):
        """Return intercepts of X as given, from predictors at its means; None if there are none."""
        if not self.intercept:
            return None
        if isinstance(coefficients, np.ndarray):
            return levels - np.tensordot(coefficients, self.means, (1, 0))
        return levels - coefficients @ self.means


def linear_problem(
    X,
    y,
    *,
    loss="squared",
    intercept=False,
    normalize=False,
    blocks=False,
    sample_weight=None,
    offset=None,
    penalty_factors=None,
    positive=False,
):
    """Check, scale and centre the data of a linear model, and fit what is never penalised.

    Parameters
    ----------
    X : ndarray or scipy.sparse, (n, p)
    y : ndarray (n,)
    loss : str or Loss
        A word of ``dslbi_ref.losses.LOSSES``, or a row.
    intercept : bool
        Centre the columns, about their weighted means.
    normalize : bool
        Scale the columns to norm sqrt(n), about their means with an intercept.
    blocks : bool
        Read a large dense X by :class:`~dslbi_ref.solvers.blocks.Blocks`, as it is.
    sample_weight, offset, penalty_factors, positive
        See :func:`dslbi_ref.lbi.lbi_path`.
    """
    X, row = check_design(X, as_is=blocks), loss_named(loss)
    n, p = X.shape
    for name, flag in (("intercept", intercept), ("normalize", normalize), ("positive", positive)):
        check_flag(name, flag)
    y = row.check_target(y, n)
    k, weights = row.columns(y), check_weights(sample_weight, n)
    if isinstance(X, np.ndarray) and blocks:
        X = Blocks(X) if X.size > LARGE else X.astype(np.float64, copy=False)
    scale = column_scale(X, intercept, weights) if normalize else None
    if normalize and isinstance(X, Blocks):
        X = X.scaled(1 / scale)
    elif normalize:
        X = X @ sp.diags_array(1 / scale, format="csc") if sp.issparse(X) else X / scale
    design, means = centred(X, intercept, weights)
    problem = LinearProblem(
        design,
        y,
        row,
        bool(intercept),
        level=(row.null_intercept(y) if intercept else 0.0) + np.zeros(k),
        means=means if scale is None else means * scale,
        scale=scale,
        rest=np.zeros((p, *k)),
        weights=weights,
        offset=check_offset(offset, (n, *k)),
        factors=check_factors(penalty_factors, p),
        positive=bool(positive),
    )
    moved = intercept and (weights is not None or np.ndim(problem.offset))
    return _null_model(problem) if moved or problem.free.size else problem


def _null_model(problem):
    """Return the problem with the best intercept and free coefficients of an empty model."""
    if problem.loss.curvature is None:
        raise ValueError(
            "sample_weight and offset beside an intercept, and penalty_factors of 0, must go with "
            "a loss that has a curvature, got one without"
        )
    fit = Smooth(problem)
    fit.start()
    level = fit.intercept + np.zeros(fit.shape) if problem.intercept else problem.level
    return problem._replace(level=level, rest=fit.coefficients().reshape(problem.rest.shape))


def split_problem(
    X,
    y,
    D,
    *,
    loss="squared",
    intercept=False,
    sample_weight=None,
    offset=None,
    penalty_factors=None,
    positive=False,
):
    """Return a :class:`LinearProblem` of one predictor, and D as an ndarray or csr_array."""
    data = dict(intercept=intercept, sample_weight=sample_weight, offset=offset)
    problem = linear_problem(X, y, loss=curved_loss(loss, classes=False), **data)
    D = check_transform(D, problem.design.X.shape[1])
    if not np.abs(D).max() > 0:
        raise ValueError("D must not be zero, got a D of rank zero")
    factors = check_factors(penalty_factors, D.shape[0], "row of D")
    problem = problem._replace(factors=factors, positive=check_flag("positive", positive))
    return problem, sp.csr_array(D) if sp.issparse(D) else D


# ---- Where path time starts ------------------------------------------------------------------


def first_jump(gradient, lam, noise, *, groups=None, factors=None, positive=False):
    """Return ``t0 = lam / dual_norm(-gradient)``, and ``z = -t0 gradient`` at the threshold.

    A gradient within ``noise`` is rounding error: nothing ever moves, t0 is infinite, z is zero.
    What is never penalised rests.
    """
    check_factors_of_groups(factors, groups)
    if factors is not None:
        gradient = np.where(factors > 0, gradient.T, 0.0).T
        noise = noise / factors[factors > 0].min()
    penalty, units = penalty_of_labels(groups, factors, positive)
    norm = penalty.dual_norm([-gradient], units)
    if not norm > noise:
        return np.inf, 0.0 * gradient
    if lam < 1e-300:  # no rounding could be undone below
        raise ValueError(f"lam must be at least 1e-300, got {lam:g}")
    t0 = lam / norm
    z = -t0 * gradient
    while penalty.dual_norm([z], units) > lam:  # rounding must not let anything in too early
        z = z * (1 - 2.0**-52)
    return t0, z


def default_times(t0):
    """Return 100 times, log-spaced from t0 to 20 t0."""
    if t0 == np.inf:
        raise ValueError("times must be given: the gradient at zero is zero, nothing ever enters")
    if not 1e-300 <= t0 <= 1e300:
        raise ValueError(f"lam must let the first entry be in [1e-300, 1e300], got t0 = {t0:g}")
    return np.geomspace(t0, 20 * t0, 100)

"""What every linear solver does first: checks, centring, scaling, the intercept, t0 and the step.

A sparse X is centred without being filled. :func:`linear_problem` does all of it, once, and a
solver starts from what it returns.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, eigsh

from .checks import check_design, check_flag, check_number, check_transform
from .losses import Loss, curved_loss, loss_named
from .penalties import penalty_of_labels
from .solvers.blocks import LARGE, Blocks

# ---- The step ----------------------------------------------------------------------------------


def checked_step(alpha, bound):
    """Return the step, half of the bound where alpha is None; refuse one outside (0, bound)."""
    if alpha is None:
        return bound / 2
    alpha = check_number("alpha", alpha)
    if not 0 < alpha < bound:
        raise ValueError(
            f"alpha must be positive and below the step bound {bound:.6g}, got {alpha:.6g}"
        )
    return alpha


# ---- The columns of X ------------------------------------------------------------------------


def spectral_norm_squared(X, mean=None):
    """Return the square of the largest singular value of X, dense or sparse, or of ``X - 1 mean'``.

    Up to a smaller side of 2000, the top eigenvalue of the smaller Gram matrix. Beyond, Lanczos
    iteration to a relative residual of 1e-9, by which the result is raised: a fixed starting vector
    with a part in every direction makes the result repeatable.
    """
    n, p = X.shape
    shift = np.zeros(p) if mean is None else mean
    if min(n, p) > 2000:
        start = np.cos(np.arange(p) ** 2)

        def product(v):
            eta = X @ v - shift @ v
            return X.T @ eta - shift * eta.sum()

        gram = LinearOperator((p, p), matvec=product, dtype=np.float64)
        norm = eigsh(gram, k=1, v0=start, tol=1e-9, return_eigenvectors=False)[0]
        return float(norm * (1 + 1e-9))
    gram = X @ X.T if n <= p else X.T @ X
    gram = gram.toarray() if sp.issparse(gram) else gram
    if mean is not None:
        cross = np.multiply.outer(X.sum(axis=0), mean) if n > p else (X @ mean)[:, None]
        rest = n * np.outer(mean, mean) if n > p else mean @ mean
        gram = gram - (cross + cross.T - rest)
    top = [len(gram) - 1, len(gram) - 1]
    norm = scipy.linalg.eigh(gram, eigvals_only=True, subset_by_index=top)[0]
    return float(max(norm, 0.0))


class Design(NamedTuple):
    """The matrix ``X - 1 mean'``: centred in a copy if dense, by ``mean`` if sparse or large.

    Attributes
    ----------
    X : ndarray, scipy.sparse.csc_array or Blocks, (n, p)
    mean : ndarray (p,) or None
        What is still to be subtracted from each column.
    size : float or None
        Largest norm of a column before it was centred; None: of X.
    """

    X: np.ndarray | sp.csc_array | Blocks
    mean: np.ndarray | None = None
    size: float | None = None

    def dot(self, beta):
        """Return the product with beta, (p,) or (p, k)."""
        eta = self.X @ beta
        return eta if self.mean is None else eta - self.mean @ beta

    def adjoint(self, r):
        """Return the product of the transpose with r, (n,) or (n, k)."""
        g = self.X.T @ r
        return g if self.mean is None else g - np.multiply.outer(self.mean, r.sum(axis=0))

    def columns(self, j):
        """Return the columns j, dense, in Fortran order."""
        block = self.X[:, j]
        block = block.toarray() if sp.issparse(block) else block
        return np.asfortranarray(block if self.mean is None else block - self.mean[j])

    def part(self, j):
        """Return the Design of the columns j alone."""
        return Design(self.X[:, j], None if self.mean is None else self.mean[j], self.size)

    def noise(self, y):
        """Return the size below which an entry of ``X'y / n`` is rounding error.

        Taking the mean off a column leaves an error of the size of the column as it was.
        """
        size = largest_norm(self.X) if self.size is None else self.size
        return 1e-14 * size * np.linalg.norm(y) / len(y)

    def lipschitz(self, loss, *, intercept=False):
        """Return the Lipschitz constant of the gradient in (beta, intercept).

        A column of ones is orthogonal to centred columns, so the intercept adds the eigenvalue 1 of
        its own; with a quadratic loss it rests at its minimiser and adds nothing.
        """
        norm = spectral_norm_squared(self.X, self.mean) / self.X.shape[0]
        if intercept and not loss.quadratic:
            norm = max(norm, 1.0)
        return loss.lipschitz * norm


def largest_norm(X):
    """Return the largest Euclidean norm of a column of X."""
    if isinstance(X, Blocks):
        return float(np.sqrt(X.squares().max()))
    return float(np.sqrt((X * X).sum(axis=0).max()))


def centred(X, intercept):
    """Return the Design of X, and the column means taken off: zero unless ``intercept``.

    A coefficient keeps its meaning; the intercept of X is that of the design, the value at the
    means, minus ``means @ coefficients``.
    """
    if not intercept:
        return Design(X), np.zeros(X.shape[1])
    means = np.asarray(X.mean(axis=0)).ravel()
    size = largest_norm(X)
    kept = sp.issparse(X) or isinstance(X, Blocks)
    return (Design(X, means, size) if kept else Design(X - means, None, size)), means


def column_deviation(X, intercept):
    """Return the root mean square of each column, about its mean if centred; 0 if rounding."""
    n, p = X.shape
    means = np.asarray(X.mean(axis=0)).ravel() if intercept else np.zeros(p)
    if sp.issparse(X):
        stored = np.diff(X.indptr)
        column = np.repeat(np.arange(p), stored)
        squares = np.bincount(column, (X.data - means[column]) ** 2, minlength=p)
        squares = squares + (n - stored) * means**2
    elif isinstance(X, Blocks):
        squares = X.squares(means)
    else:
        squares = ((X - means) ** 2).sum(axis=0)
    scale = np.sqrt(squares / n)
    # Taking the mean off a constant column leaves rounding behind.
    return np.where(scale <= 1e-13 * np.abs(means), 0.0, scale)


def column_scale(X, intercept):
    """Return the :func:`column_deviation` of X; refuse a column of none."""
    scale = column_deviation(X, intercept)
    flat = np.flatnonzero(scale == 0)
    if flat.size:
        what = "constant" if intercept else "zero"
        raise ValueError(f"normalize needs columns that vary, got {what} column {flat[0]} of X")
    return scale


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
    """

    design: Design
    y: np.ndarray
    loss: Loss
    intercept: bool
    level: float | np.ndarray
    means: np.ndarray
    scale: np.ndarray | None

    def value(self, eta):
        """Return the loss at the linear predictors eta."""
        return self.loss.value(eta, self.y)

    def gradient(self, eta):
        return self.loss.gradient(eta, self.y)

    def curvature(self, eta):
        return self.loss.curvature(eta, self.y)

    def steepest(self):
        """Return the Lipschitz constant of the gradient where a path that descends can come."""
        loss = self.loss
        if loss.steepest is not None:
            eta = np.full((len(self.y), *loss.columns(self.y)), self.level)
            loss = loss._replace(lipschitz=loss.steepest(eta, self.y, np.ones(len(self.y))))
        return self.design.lipschitz(loss, intercept=self.intercept)

    def lipschitz(self):
        """Return that Lipschitz constant; refuse a design of zeros."""
        L = self.steepest()
        if not L > 0:
            raise ValueError("X must not be zero" + " after centring" * self.intercept)
        return L

    def correlation(self):
        """Return ``X'(y - level) / n``, zero if it is rounding error."""
        c = self.design.adjoint(self.y - self.level) / len(self.y)
        return c if np.abs(c).max() > self.design.noise(self.y) else np.zeros(len(c))

    def at_origin(self, levels, coefficients):
        """Return intercepts of X as given, from predictors at its means; None if there are none."""
        if not self.intercept:
            return None
        if isinstance(coefficients, np.ndarray):
            return levels - np.tensordot(coefficients, self.means, (1, 0))
        return levels - coefficients @ self.means


def linear_problem(X, y, *, loss="squared", intercept=False, normalize=False, blocks=False):
    """Check, scale and centre the data of a linear model.

    Parameters
    ----------
    X : ndarray or scipy.sparse, (n, p)
    y : ndarray (n,)
    loss : str or Loss
        A word of ``dslbi_ref.losses.LOSSES``, or a row.
    intercept : bool
        Centre the columns.
    normalize : bool
        Scale the columns to norm sqrt(n), about their means with an intercept.
    blocks : bool
        Read a large dense X by :class:`~dslbi_ref.solvers.blocks.Blocks`, as it is.
    """
    X, row = check_design(X, as_is=blocks), loss_named(loss)
    check_flag("intercept", intercept)
    check_flag("normalize", normalize)
    y = row.check_target(y, X.shape[0])
    if isinstance(X, np.ndarray) and blocks:
        X = Blocks(X) if X.size > LARGE else X.astype(np.float64, copy=False)
    scale = column_scale(X, intercept) if normalize else None
    if normalize and isinstance(X, Blocks):
        X = X.scaled(1 / scale)
    elif normalize:
        X = X @ sp.diags_array(1 / scale, format="csc") if sp.issparse(X) else X / scale
    design, means = centred(X, intercept)
    level = (row.null_intercept(y) if intercept else 0.0) + np.zeros(row.columns(y))
    means = means if scale is None else means * scale
    return LinearProblem(design, y, row, bool(intercept), level, means, scale)


def split_problem(X, y, D, *, loss="squared", intercept=False):
    """Return a :class:`LinearProblem` of one predictor, and D as an ndarray or csr_array."""
    problem = linear_problem(X, y, loss=curved_loss(loss, classes=False), intercept=intercept)
    D = check_transform(D, problem.design.X.shape[1])
    if not np.abs(D).max() > 0:
        raise ValueError("D must not be zero, got a D of rank zero")
    return problem, sp.csr_array(D) if sp.issparse(D) else D


# ---- Where the clock starts ------------------------------------------------------------------


def first_jump(gradient, lam, groups, noise):
    """Return ``t0 = lam / dual_norm(gradient)``, and ``z = -t0 gradient`` at the threshold.

    A gradient within ``noise`` is rounding error: nothing ever moves, t0 is infinite, z is zero.
    """
    penalty, units = penalty_of_labels(groups)
    norm = penalty.dual_norm([gradient], units)
    if not norm > noise:
        return np.inf, 0.0 * gradient
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

"""Losses of linear predictors: value, derivative, curvature, Lipschitz constant, side by side.

With ``eta = X beta + intercept`` and n observations,

    squared      f = sum_i (eta_i - y_i)^2 / (2n)                      y real
    logistic     f = sum_i log(1 + exp(-y_i eta_i)) / n                y in {-1, +1}
    multinomial  f = sum_i [log sum_c exp(eta_ic) - eta_{i, y_i}] / n  y in {0, ..., k-1}

Every function takes the loss by name. The gradient in beta is ``X' residual``, in the intercept the
sum of the residual over the observations.
"""

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, eigsh
from scipy.special import expit, logsumexp, softmax

# Largest second derivative of one term of the sum (softmax: largest eigenvalue of diag(q) - qq').
CURVATURE = {"squared": 1.0, "logistic": 0.25, "multinomial": 0.5}


def _check_loss(loss):
    if loss not in CURVATURE:
        raise ValueError(f"loss must be one of {', '.join(CURVATURE)}, got {loss!r}")


def value(eta, y, *, loss="squared"):
    """Loss at the linear predictor eta, of shape (n,), or (n, k) for the multinomial loss."""
    _check_loss(loss)
    if loss == "squared":
        return ((eta - y) ** 2).mean() / 2  # (loss-squared)
    if loss == "logistic":
        return np.logaddexp(0.0, -y * eta).mean()  # (loss-logistic)
    own = np.take_along_axis(eta, y[:, None], axis=1)[:, 0]
    return (logsumexp(eta, axis=1) - own).mean()  # (loss-multinomial)


def residual(eta, y, *, loss="squared"):
    """Derivative of the loss with respect to eta, same shape; the factor 1/n is included."""
    _check_loss(loss)
    if loss == "squared":
        return (eta - y) / len(y)
    if loss == "logistic":
        return -y * expit(-y * eta) / len(y)
    return (softmax(eta, axis=1) - (y[:, None] == np.arange(eta.shape[1]))) / len(y)


def curvature(eta, y, *, loss="squared"):
    """Second derivative in each eta_i (1/n included), shape (n,): squared or logistic loss."""
    if loss not in ("squared", "logistic"):
        raise ValueError(f"loss must be squared or logistic, got {loss!r}")
    if loss == "squared":
        return np.full(len(y), 1.0 / len(y))
    return expit(eta) * expit(-eta) / len(y)


def gradient(X, y, beta, *, loss="squared", intercept=0.0):
    """Gradient of the loss in beta, shape (p,) or (p, k).

    Parameters
    ----------
    X : ndarray or scipy.sparse, (n, p)
    y : ndarray (n,)
        See the head of this file for the values that each loss takes.
    beta : ndarray (p,), or (p, k) for the multinomial loss
    intercept : float, or ndarray (k,)
    """
    return X.T @ residual(X @ beta + intercept, y, loss=loss)


def null_intercept(y, *, loss="squared"):
    """Intercept that minimises the loss at beta = 0: float, or (k,) with mean zero.

    A class without observations has no finite minimiser: :func:`check_target` refuses it.
    """
    _check_loss(loss)
    if loss == "squared":
        return y.mean()
    if loss == "logistic":
        return np.log((y > 0).sum() / (y < 0).sum())
    logs = np.log(np.bincount(y))
    return logs - logs.mean()


def spectral_norm_squared(X, mean=None):
    """Square of the largest singular value of X (dense or sparse, n by p), or of ``X - 1 mean'``.

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
        cross = X @ mean
        gram = gram - (n * np.outer(mean, mean) if n > p else cross + cross[:, None] - mean @ mean)
    top = [len(gram) - 1, len(gram) - 1]
    norm = scipy.linalg.eigh(gram, eigvals_only=True, subset_by_index=top)[0]
    return float(max(norm, 0.0))


def lipschitz(X, *, loss="squared"):
    """Lipschitz constant of the gradient in beta: |X|^2 / n times 1, 1/4 or 1/2.

    With an intercept pass X centred and with a column of ones appended, or only centred if the loss
    is squared (the intercept then decouples).
    """
    _check_loss(loss)
    return CURVATURE[loss] * spectral_norm_squared(X) / X.shape[0]


def check_design(X, name="X"):
    """X as a float64 array, or csc_array if sparse; refused unless 2-d, non-empty and finite."""
    if sp.issparse(X):
        X = sp.csc_array(X, dtype=np.float64)
        entries = X.data
    else:
        X = entries = np.asarray(X, dtype=np.float64)
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"{name} must be a non-empty 2-d array, got shape {X.shape}")
    if not np.isfinite(entries).all():
        raise ValueError(f"{name} must be finite, got {entries[~np.isfinite(entries)][0]}")
    return X


def check_target(y, n, *, loss="squared"):
    """y as the loss needs it, refused in one line otherwise.

    Float64 of shape (n,); logistic: -1 and +1, both present; multinomial: integers 0, ..., k-1,
    each present, k >= 2.
    """
    _check_loss(loss)
    y = np.asarray(y)
    if y.shape != (n,):
        raise ValueError(f"y must have shape ({n},), one entry per row of X, got {y.shape}")
    if y.dtype.kind not in "biuf":
        raise ValueError(f"y must be numeric, got {y.dtype}")
    if not np.isfinite(y).all():
        raise ValueError(f"y must be finite, got {y[~np.isfinite(y)][0]}")
    if loss == "squared":
        return y.astype(np.float64)
    present = np.unique(y)
    if loss == "logistic":
        if not np.isin(present, (-1, 1)).all():
            other = present[~np.isin(present, (-1, 1))][0]
            raise ValueError(f"y of a logistic loss must be in {{-1, +1}}, got {other}")
        if len(present) < 2:
            raise ValueError(f"y must hold both classes -1 and +1, got only {present[0]:+g}")
        return y.astype(np.float64)
    if len(present) < 2:
        raise ValueError(f"y must hold at least two classes, got only {present[0]}")
    if not np.array_equal(present, np.arange(len(present))):
        raise ValueError(
            f"y of a multinomial loss must be 0, ..., k-1, each present, got {present}"
        )
    return y.astype(np.intp)

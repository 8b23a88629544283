"""Layers by hand, forward and backward in NumPy, without autograd.

Every layer is a pair of functions. ``layer(X, ...)`` returns its output and a ``cache``;
``layer_back(cache, dY)`` takes the gradient of the loss with respect to that output and returns
the gradients with respect to the inputs, in their order.

Everything is float64. Images are (n, channels, height, width). Where a function has a corner we
choose the subgradient that torch chooses: the derivative of ReLU at 0 is 0, and in a window with
several maxima the first one, row by row, receives the gradient.
"""

import numpy as np
from scipy.special import expit, logsumexp

from .checks import check_finite, check_integer, check_word, no_overflow, real


def require(condition, message):
    """Raise a ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


# ---- Layers --------------------------------------------------------------------------


@no_overflow
def linear(X, W, b):
    """Return ``Y = X W' + b`` for X (n, p), W (k, p), b (k,); Y is (n, k)."""
    X, W, b = real(X, "X"), real(W, "W"), real(b, "b")
    require(
        W.ndim == 2 and b.shape == W.shape[:1],
        f"W and b must be (k, p), (k,), got {W.shape}, {b.shape}",
    )
    require(X.ndim == 2 and X.shape[1] == W.shape[1], f"X must be (n, {W.shape[1]}), got {X.shape}")
    return X @ W.T + b, (X, W)


def linear_back(cache, dY):
    """Return the gradients ``dX, dW, db`` of :func:`linear`."""
    X, W = cache
    return dY @ W, dY.T @ X, dY.sum(axis=0)


@no_overflow
def conv2d(X, W, b, padding=0):
    """Convolve with stride 1, in the sense of deep-learning libraries (a cross-correlation).

    ``Y[i, o, y, x] = b[o] + sum_{c,u,v} W[o, c, u, v] * Xp[i, c, y + u, x + v]``, where Xp is X
    with ``padding`` zeros on each of the four sides.

    Parameters
    ----------
    X : ndarray (n, c, h, w)
    W : ndarray (k, c, r, s)
    b : ndarray (k,)
    padding : int >= 0

    Returns
    -------
    Y : ndarray (n, k, h + 2 padding - r + 1, w + 2 padding - s + 1)
    cache : tuple

    Notes
    -----
    All windows are laid out as the columns of one matrix, so that the sum is a matrix product.
    """
    X, W, b = real(X, "X"), real(W, "W"), real(b, "b")
    require(
        W.ndim == 4 and b.shape == W.shape[:1],
        f"W and b must be 4-d and (k,), got {W.shape}, {b.shape}",
    )
    require(
        X.ndim == 4 and X.shape[1] == W.shape[1],
        f"X must be (n, {W.shape[1]}, h, w), got {X.shape}",
    )
    padding = check_integer("padding", padding, 0, 10**4)
    k, c, r, s = W.shape
    Xp = np.pad(X, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    require(
        Xp.shape[2] >= r and Xp.shape[3] >= s,
        f"X with its padding must be at least as large as the kernel {(r, s)}, got {Xp.shape[2:]}",
    )
    windows = np.lib.stride_tricks.sliding_window_view(Xp, (r, s), axis=(2, 3))
    n, _, h, w = windows.shape[:4]
    columns = windows.transpose(1, 4, 5, 0, 2, 3).reshape(c * r * s, n * h * w)
    Y = (W.reshape(k, -1) @ columns).reshape(k, n, h, w).swapaxes(0, 1) + b[:, None, None]
    return Y, (columns, W, Xp.shape, padding)


def conv2d_back(cache, dY):
    """Return the gradients ``dX, dW, db`` of :func:`conv2d`; dX adds up what each window says."""
    columns, W, shape, padding = cache
    k, c, r, s = W.shape
    n, _, h, w = dY.shape
    dY = dY.swapaxes(0, 1).reshape(k, n * h * w)
    dW = (dY @ columns.T).reshape(W.shape)
    d_windows = (W.reshape(k, -1).T @ dY).reshape(c, r, s, n, h, w)
    dXp = np.zeros(shape)
    for u in range(r):
        for v in range(s):
            dXp[:, :, u : u + h, v : v + w] += d_windows[:, u, v].swapaxes(0, 1)
    dX = dXp[:, :, padding : shape[2] - padding, padding : shape[3] - padding]
    return dX, dW, dY.sum(axis=1)


def max_pool(X, size=2):
    """Return the largest entry of every ``size`` x ``size`` block of X (n, c, h, w).

    Y is (n, c, h // size, w // size); what fills no block at the lower and right edge is left out.
    """
    X, size = real(X, "X"), check_integer("size", size, 0)
    require(X.ndim == 4, f"X must be (n, c, h, w), got {X.shape}")
    n, c, h, w = X.shape
    require(1 <= size <= min(h, w), f"size must lie in [1, {min(h, w)}], got {size}")
    blocks = X[:, :, : h // size * size, : w // size * size]
    blocks = blocks.reshape(n, c, h // size, size, w // size, size).swapaxes(3, 4)
    blocks = blocks.reshape(n, c, h // size, w // size, size * size)
    first = blocks.argmax(axis=-1)[..., None]
    return np.take_along_axis(blocks, first, axis=-1)[..., 0], (first, X.shape, size)


def max_pool_back(cache, dY):
    """Return the gradient ``dX`` of :func:`max_pool`: each block's goes to its first maximum."""
    first, (n, c, h, w), size = cache
    blocks = np.zeros((*dY.shape, size * size))
    np.put_along_axis(blocks, first, dY[..., None], axis=-1)
    blocks = blocks.reshape(n, c, h // size, w // size, size, size).swapaxes(3, 4)
    dX = np.zeros((n, c, h, w))
    dX[:, :, : h // size * size, : w // size * size] = blocks.reshape(
        n, c, h // size * size, w // size * size
    )
    return dX


def relu(X):
    """Return ``max(x, 0)``, entry by entry."""
    X = real(X, "X")
    return np.maximum(X, 0.0), X


def relu_back(X, dY):
    """Return the gradient ``dX`` of :func:`relu`; at 0 the derivative is taken to be 0."""
    return np.where(X > 0, dY, 0.0)


@no_overflow
def softplus(X):
    """Return ``log(1 + exp(x))``, the smooth activation for which the convergence theory holds.

    Exact for every x. torch returns x itself above its ``threshold`` of 20, an error of up to 2e-9.
    """
    X = real(X, "X")
    return np.logaddexp(0.0, X), X


def softplus_back(X, dY):
    """Return the gradient ``dX`` of :func:`softplus`, whose derivative is the logistic function."""
    return expit(X) * dY


def activation_pair(name):
    """Return the activation of this name and its ``_back``."""
    check_word("activation", name, ("relu", "softplus"))
    return (relu, relu_back) if name == "relu" else (softplus, softplus_back)


def cross_entropy(logits, y):
    """Return the mean of ``-log softmax(logits)[i, y_i]``: logits (n, k), y (n,) in [0, k)."""
    logits = real(logits, "logits")
    require(
        logits.ndim == 2 and logits.size > 0,
        f"logits must be (n, k) and not empty, got {logits.shape}",
    )
    check_finite("logits", logits)
    n, k = logits.shape
    y = np.asarray(y)
    require(
        y.shape == (n,) and np.issubdtype(y.dtype, np.integer),
        f"y must be {n} integers, got {y.dtype} of shape {y.shape}",
    )
    require(y.min() >= 0 and y.max() < k, f"y must lie in [0, {k}), got {y.min()} to {y.max()}")
    log_p = logits - logsumexp(logits, axis=1, keepdims=True)
    return -log_p[np.arange(n), y].mean(), (log_p, y)


def cross_entropy_back(cache):
    """Return the gradient of :func:`cross_entropy` in the logits: ``(softmax - one-hot) / n``."""
    log_p, y = cache
    d_logits = np.exp(log_p)
    d_logits[np.arange(len(y)), y] -= 1.0
    return d_logits / len(y)

"""Networks by hand: an MLP and LeNet-5, forward and backward in NumPy, without autograd.

Every layer is a pair of functions. ``layer(X, ...)`` returns its output and a ``cache``;
``layer_back(cache, dY)`` takes the gradient of the loss with respect to that output and returns
the gradients with respect to the inputs, in their order. A network is a few such lines read
forwards, then backwards: that is the whole of back-propagation.

Parameters are ``dict[name, ndarray]`` with the names and layouts of torch (``"conv1.weight"`` of
shape (out, in, height, width), ``"fc1.weight"`` of shape (out, in)), so that a ``state_dict``
converts name by name. Everything is float64. Images are (n, channels, height, width).

Where a function has a corner we choose the subgradient that torch chooses: the derivative of ReLU
at 0 is 0, and in a window with several maxima the first one, row by row, receives the gradient.
"""

import numpy as np
from scipy.special import expit, logsumexp


def _require(condition, message):
    if not condition:
        raise ValueError(message)


# ---- Layers --------------------------------------------------------------------------


def linear(X, W, b):
    """``Y = X W' + b`` for X (n, p), W (k, p), b (k,); Y is (n, k)."""
    _require(
        W.ndim == 2 and b.shape == W.shape[:1],
        f"W and b must be (k, p), (k,), got {W.shape}, {b.shape}",
    )
    _require(
        X.ndim == 2 and X.shape[1] == W.shape[1], f"X must be (n, {W.shape[1]}), got {X.shape}"
    )
    return X @ W.T + b, (X, W)


def linear_back(cache, dY):
    """Gradients ``dX, dW, db`` of :func:`linear`."""
    X, W = cache
    return dY @ W, dY.T @ X, dY.sum(axis=0)


def conv2d(X, W, b, padding=0):
    """Cross-correlation with stride 1, as every deep-learning library calls convolution.

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
    _require(
        W.ndim == 4 and b.shape == W.shape[:1],
        f"W and b must be 4-d and (k,), got {W.shape}, {b.shape}",
    )
    _require(
        X.ndim == 4 and X.shape[1] == W.shape[1],
        f"X must be (n, {W.shape[1]}, h, w), got {X.shape}",
    )
    _require(padding >= 0, f"padding must be at least 0, got {padding}")
    k, c, r, s = W.shape
    Xp = np.pad(X, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    _require(
        Xp.shape[2] >= r and Xp.shape[3] >= s,
        f"X with its padding must be at least as large as the kernel {(r, s)}, got {Xp.shape[2:]}",
    )
    windows = np.lib.stride_tricks.sliding_window_view(Xp, (r, s), axis=(2, 3))
    n, _, h, w = windows.shape[:4]
    columns = windows.transpose(1, 4, 5, 0, 2, 3).reshape(c * r * s, n * h * w)
    Y = (W.reshape(k, -1) @ columns).reshape(k, n, h, w).swapaxes(0, 1) + b[:, None, None]
    return Y, (columns, W, Xp.shape, padding)


def conv2d_back(cache, dY):
    """Gradients ``dX, dW, db`` of :func:`conv2d`; dX adds every window back to where it was cut."""
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
    """Largest entry of every ``size`` x ``size`` block of X (n, c, h, w).

    Y is (n, c, h // size, w // size); what fills no block at the lower and right edge is left out.
    """
    _require(X.ndim == 4, f"X must be (n, c, h, w), got {X.shape}")
    n, c, h, w = X.shape
    _require(1 <= size <= min(h, w), f"size must lie in [1, {min(h, w)}], got {size}")
    blocks = X[:, :, : h // size * size, : w // size * size]
    blocks = blocks.reshape(n, c, h // size, size, w // size, size).swapaxes(3, 4)
    blocks = blocks.reshape(n, c, h // size, w // size, size * size)
    first = blocks.argmax(axis=-1)[..., None]
    return np.take_along_axis(blocks, first, axis=-1)[..., 0], (first, X.shape, size)


def max_pool_back(cache, dY):
    """Gradient ``dX`` of :func:`max_pool`: each block's gradient goes to its first maximum."""
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
    """``max(x, 0)``, entry by entry."""
    return np.maximum(X, 0.0), X


def relu_back(X, dY):
    """Gradient ``dX`` of :func:`relu`; at 0 the derivative is taken to be 0."""
    return np.where(X > 0, dY, 0.0)


def softplus(X):
    """``log(1 + exp(x))``, the smooth activation for which the convergence theory holds.

    Exact for every x. torch returns x itself above its ``threshold`` of 20, an error of up to 2e-9.
    """
    return np.logaddexp(0.0, X), X


def softplus_back(X, dY):
    """Gradient ``dX`` of :func:`softplus`, whose derivative is the logistic function."""
    return expit(X) * dY


def _activation(name):
    """The pair of functions named by ``name``."""
    _require(name in ("relu", "softplus"), f'activation must be "relu" or "softplus", got {name!r}')
    return (relu, relu_back) if name == "relu" else (softplus, softplus_back)


def cross_entropy(logits, y):
    """Mean of ``-log softmax(logits)[i, y_i]`` for logits (n, k) and integers y (n,) in [0, k)."""
    _require(
        logits.ndim == 2 and logits.size > 0,
        f"logits must be (n, k) and not empty, got {logits.shape}",
    )
    n, k = logits.shape
    y = np.asarray(y)
    _require(
        y.shape == (n,) and np.issubdtype(y.dtype, np.integer),
        f"y must be {n} integers, got {y.dtype} of shape {y.shape}",
    )
    _require(y.min() >= 0 and y.max() < k, f"y must lie in [0, {k}), got {y.min()} to {y.max()}")
    log_p = logits - logsumexp(logits, axis=1, keepdims=True)
    return -log_p[np.arange(n), y].mean(), (log_p, y)


def cross_entropy_back(cache):
    """Gradient of :func:`cross_entropy` with respect to the logits: ``(softmax - one-hot) / n``."""
    log_p, y = cache
    d_logits = np.exp(log_p)
    d_logits[np.arange(len(y)), y] -= 1.0
    return d_logits / len(y)


# ---- Where training starts -----------------------------------------------------------


def layer_init(shape, rng, init="torch"):
    """Random weight and bias of one layer whose weight has ``shape`` (out, in, ...).

    Parameters
    ----------
    shape : tuple of int
        ``fan_in`` is the product of all but the first.
    rng : numpy.random.Generator
    init : "torch" or "he"
        "torch": weight and bias uniform on ``[-1, 1] / sqrt(fan_in)``, the default of torch (there
        written as ``kaiming_uniform`` with ``a = sqrt(5)``). "he": weight normal with variance
        ``2 / fan_in`` (He et al. 2015), bias zero.

    Notes
    -----
    The start decides what can enter by itself: with zero gradient V tends to ``W / kappa``, so a
    group enters if its initial norm is larger than ``kappa * lam``. The root mean square norm of a
    filter or neuron is ``1 / sqrt(3)`` under "torch" and ``sqrt(2)`` under "he", whatever its size.
    """
    _require(init in ("torch", "he"), f'init must be "torch" or "he", got {init!r}')
    fan_in = np.prod(shape[1:])
    if init == "he":
        return rng.normal(0.0, np.sqrt(2.0 / fan_in), shape), np.zeros(shape[0])
    bound = 1.0 / np.sqrt(fan_in)
    return rng.uniform(-bound, bound, shape), rng.uniform(-bound, bound, shape[0])


# ---- MLP -----------------------------------------------------------------------------


def _batch(X):
    X = np.asarray(X, dtype=float)
    _require(X.ndim >= 2 and X.size > 0, f"X must be a batch (n, ...) and not empty, got {X.shape}")
    _require(np.isfinite(X).all(), "X must be finite, got NaN or infinity")
    return X


def _names(params, layers):
    expected = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    wrong = sorted(expected ^ set(params))
    _require(
        not wrong,
        f"params must hold weight and bias of {', '.join(layers)}, missing or extra: {wrong}",
    )


def mlp_init(sizes, rng, init="torch"):
    """Parameters ``fc1, fc2, ...`` of the fully connected net with layer ``sizes`` (inputs first).

    LeNet-300-100 is ``(784, 300, 100, 10)``. See :func:`layer_init` for ``rng`` and ``init``.
    """
    _require(
        len(sizes) >= 2 and all(isinstance(s, int | np.integer) and s > 0 for s in sizes),
        f"sizes must be at least two positive integers, got {sizes}",
    )
    params = {}
    for i in range(1, len(sizes)):
        shape = (sizes[i], sizes[i - 1])
        params[f"fc{i}.weight"], params[f"fc{i}.bias"] = layer_init(shape, rng, init)
    return params


def _mlp_forward(params, X, activation):
    act = _activation(activation)[0]
    depth = max(1, len(params) // 2)
    _names(params, [f"fc{i}" for i in range(1, depth + 1)])
    H = _batch(X)
    H = H.reshape(len(H), -1)
    caches = []
    for i in range(1, depth + 1):
        H, fc = linear(H, params[f"fc{i}.weight"], params[f"fc{i}.bias"])
        H, a = act(H) if i < depth else (H, None)
        caches.append((fc, a))
    return H, caches


def mlp_logits(params, X, activation="relu"):
    """Outputs (n, classes) for X (n, ...), flattened; the activation stands between layers only."""
    return _mlp_forward(params, X, activation)[0]


def mlp_loss_grad(params, X, y, activation="relu"):
    """Mean cross-entropy of the fully connected net, and its gradient.

    Parameters
    ----------
    params : dict[str, ndarray]
        As :func:`mlp_init` returns them.
    X : ndarray (n, ...), flattened
    y : int ndarray (n,)
    activation : "relu" or "softplus"

    Returns
    -------
    loss : float
    grads : dict[str, ndarray]
        Names and shapes of ``params``.
    """
    logits, caches = _mlp_forward(params, X, activation)
    act_back = _activation(activation)[1]
    loss, ce = cross_entropy(logits, y)
    dH, grads = cross_entropy_back(ce), {}
    for i in range(len(caches), 0, -1):
        fc, a = caches[i - 1]
        dH = dH if a is None else act_back(a, dH)
        dH, grads[f"fc{i}.weight"], grads[f"fc{i}.bias"] = linear_back(fc, dH)
    return loss, {name: grads[name] for name in params}


# ---- LeNet-5 -------------------------------------------------------------------------

LENET5_SHAPES = {
    "conv1": (6, 1, 5, 5),
    "conv2": (16, 6, 5, 5),
    "conv3": (120, 16, 5, 5),
    "fc1": (84, 120),
    "fc2": (10, 84),
}


def lenet5_init(rng, init="torch"):
    """Parameters of LeNet-5, 61,706 numbers. See :func:`layer_init` for ``rng`` and ``init``."""
    params = {}
    for layer, shape in LENET5_SHAPES.items():
        params[f"{layer}.weight"], params[f"{layer}.bias"] = layer_init(shape, rng, init)
    return params


def _lenet5_forward(params, X, activation):
    act = _activation(activation)[0]
    _names(params, list(LENET5_SHAPES))
    X = _batch(X)
    _require(X.shape[1:] == (1, 28, 28), f"X must be (n, 1, 28, 28), got {X.shape}")
    p = {layer: (params[f"{layer}.weight"], params[f"{layer}.bias"]) for layer in LENET5_SHAPES}
    H, conv1 = conv2d(X, *p["conv1"], padding=2)  # (n, 6, 28, 28)
    H, a1 = act(H)
    H, pool1 = max_pool(H)
    H, conv2 = conv2d(H, *p["conv2"])  # (n, 16, 10, 10)
    H, a2 = act(H)
    H, pool2 = max_pool(H)
    H, conv3 = conv2d(H, *p["conv3"])  # (n, 120, 1, 1)
    H, a3 = act(H)
    H, fc1 = linear(H.reshape(len(H), -1), *p["fc1"])
    H, a4 = act(H)
    logits, fc2 = linear(H, *p["fc2"])
    return logits, (conv1, a1, pool1, conv2, a2, pool2, conv3, a3, fc1, a4, fc2)


def lenet5_logits(params, X, activation="relu"):
    """Outputs (n, 10) of LeNet-5 for X (n, 1, 28, 28)."""
    return _lenet5_forward(params, X, activation)[0]


def lenet5_loss_grad(params, X, y, activation="relu"):
    """Mean cross-entropy of LeNet-5, and its gradient.

    Three 5 x 5 convolutions (6, 16 and 120 filters, the first with padding 2), a 2 x 2 max-pool
    after each of the first two, and two linear layers (84, 10); an activation after every layer but
    the last.

    Parameters
    ----------
    params : dict[str, ndarray]
        As :func:`lenet5_init` returns them.
    X : ndarray (n, 1, 28, 28)
    y : int ndarray (n,), classes 0 to 9
    activation : "relu" or "softplus"

    Returns
    -------
    loss : float
    grads : dict[str, ndarray]
        Names and shapes of ``params``.
    """
    logits, caches = _lenet5_forward(params, X, activation)
    conv1, a1, pool1, conv2, a2, pool2, conv3, a3, fc1, a4, fc2 = caches
    act_back = _activation(activation)[1]
    loss, ce = cross_entropy(logits, y)
    g = {}
    dH = cross_entropy_back(ce)
    dH, *g["fc2"] = linear_back(fc2, dH)
    dH = act_back(a4, dH)
    dH, *g["fc1"] = linear_back(fc1, dH)
    dH = act_back(a3, dH.reshape(a3.shape))
    dH, *g["conv3"] = conv2d_back(conv3, dH)
    dH = max_pool_back(pool2, dH)
    dH = act_back(a2, dH)
    dH, *g["conv2"] = conv2d_back(conv2, dH)
    dH = max_pool_back(pool1, dH)
    dH = act_back(a1, dH)
    _, *g["conv1"] = conv2d_back(conv1, dH)
    grads = {f"{n}.{part}": g[n][i] for n in g for i, part in enumerate(("weight", "bias"))}
    return loss, {name: grads[name] for name in params}

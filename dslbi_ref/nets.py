"""Networks by hand: an MLP and LeNet-5, forward and backward through :mod:`dslbi_ref.nets_layers`.

A network is a few lines of layers read forwards, then backwards: that is the whole of
back-propagation. Parameters are ``dict[name, ndarray]`` with the names and layouts of torch
(``"conv1.weight"`` of shape (out, in, height, width), ``"fc1.weight"`` of shape (out, in)), so that
a ``state_dict`` converts name by name.
"""

import numpy as np

from .checks import check_finite, check_integer, check_kind, check_word, real, shown
from .nets_layers import (
    activation_pair,
    conv2d,
    conv2d_back,
    cross_entropy,
    cross_entropy_back,
    linear,
    linear_back,
    max_pool,
    max_pool_back,
    require,
)

# ---- Where training starts -----------------------------------------------------------


def layer_init(shape, rng, init="torch"):
    """Draw weight and bias of one layer whose weight has ``shape`` (out, in, ...).

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
    check_word("init", init, ("torch", "he"))
    check_kind("rng", rng, np.random.Generator)
    check_kind("shape", shape, tuple | list)
    require(len(shape) >= 2, f"shape must be (out, in, ...), got {shape}")
    shape = tuple(check_integer("shape", s, 1) for s in shape)
    fan_in = np.prod(shape[1:])
    if init == "he":
        return rng.normal(0.0, np.sqrt(2.0 / fan_in), shape), np.zeros(shape[0])
    bound = 1.0 / np.sqrt(fan_in)
    return rng.uniform(-bound, bound, shape), rng.uniform(-bound, bound, shape[0])


# ---- MLP -----------------------------------------------------------------------------


def _batch(X):
    X = real(X, "X").astype(np.float64, copy=False)
    require(X.ndim >= 2 and X.size > 0, f"X must be a batch (n, ...) and not empty, got {X.shape}")
    check_finite("X", X)
    return X


def _names(params, layers):
    check_kind("params", params, dict)
    expected = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    wrong = sorted(expected ^ set(params), key=str)
    require(
        not wrong,
        f"params must hold weight and bias of {', '.join(layers)}, missing or extra: {wrong}",
    )


def mlp_init(sizes, rng, init="torch"):
    """Draw ``fc1, fc2, ...`` of the fully connected net with layer ``sizes`` (inputs first).

    LeNet-300-100 is ``(784, 300, 100, 10)``. See :func:`layer_init` for ``rng`` and ``init``.
    """
    check_kind("sizes", sizes, tuple | list)
    require(
        len(sizes) >= 2 and all(isinstance(s, int | np.integer) and s > 0 for s in sizes),
        f"sizes must be at least two positive integers, got {shown(sizes)}",
    )
    params = {}
    for i in range(1, len(sizes)):
        shape = (sizes[i], sizes[i - 1])
        params[f"fc{i}.weight"], params[f"fc{i}.bias"] = layer_init(shape, rng, init)
    return params


def _mlp_forward(params, X, activation):
    act = activation_pair(activation)[0]
    check_kind("params", params, dict)
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
    """Return outputs (n, classes) for X (n, ...), flattened; no activation after the last layer."""
    return _mlp_forward(params, X, activation)[0]


def mlp_loss_grad(params, X, y, activation="relu"):
    """Return the mean cross-entropy of the fully connected net, and its gradient.

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
    act_back = activation_pair(activation)[1]
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
    """Draw LeNet-5, 61,706 numbers. See :func:`layer_init` for ``rng`` and ``init``."""
    params = {}
    for layer, shape in LENET5_SHAPES.items():
        params[f"{layer}.weight"], params[f"{layer}.bias"] = layer_init(shape, rng, init)
    return params


def _lenet5_forward(params, X, activation):
    act = activation_pair(activation)[0]
    _names(params, list(LENET5_SHAPES))
    X = _batch(X)
    require(X.shape[1:] == (1, 28, 28), f"X must be (n, 1, 28, 28), got {X.shape}")
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
    """Return the outputs (n, 10) of LeNet-5 for X (n, 1, 28, 28)."""
    return _lenet5_forward(params, X, activation)[0]


def lenet5_loss_grad(params, X, y, activation="relu"):
    """Return the mean cross-entropy of LeNet-5, and its gradient.

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
    act_back = activation_pair(activation)[1]
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

"""Hand-written layers and nets against finite differences and closed forms."""

import numpy as np
import pytest
import vectors

from dslbi_ref import nets
from dslbi_ref import nets_layers as layers

# Central differences with h = 1e-5 in float64: rounding eps / h and truncation h^2 are both about
# 1e-11, times the size of the values. Measured: 1.05e-9 at most (a sum of 288 outputs of conv2d),
# below 2e-10 outside conv2d.
H = 1e-5
FD = dict(rtol=0, atol=5e-9)


def numeric_gradient(f, x):
    """All partial derivatives of the scalar f at x, by central differences."""
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):
        e = np.zeros_like(x)
        e[i] = H
        gradient[i] = (f(x + e) - f(x - e)) / (2 * H)
    return gradient


def check_layer(layer, back, inputs):
    """Every gradient of the layer, for a loss that weighs the outputs at random."""
    Y, cache = layer(*inputs)
    dY = vectors.array(Y.shape, seed=99)
    found = back(cache, dY)
    found = found if isinstance(found, tuple) else (found,)
    assert len(found) == len(inputs)
    for i, gradient in enumerate(found):

        def f(x, i=i):
            return (dY * layer(*inputs[:i], x, *inputs[i + 1 :])[0]).sum()

        assert gradient.shape == inputs[i].shape
        np.testing.assert_allclose(gradient, numeric_gradient(f, inputs[i]), **FD)


def conv_inputs(n, c, k, h, w, kernel):
    return [
        vectors.array((n, c, h, w), seed=1),
        vectors.array((k, c, *kernel), seed=2),
        vectors.array(k, seed=3),
    ]


def test_linear():
    inputs = [vectors.array(s, seed=i) for i, s in enumerate([(3, 5), (4, 5), (4,)])]
    check_layer(layers.linear, layers.linear_back, inputs)


CONV_CASES = [
    (2, 3, 4, 6, 6, (3, 3), 0),
    (1, 1, 2, 5, 7, (5, 5), 2),
    (2, 2, 3, 4, 5, (2, 3), 1),
    (3, 4, 2, 3, 3, (3, 3), 0),
    (2, 2, 2, 3, 4, (1, 1), 0),
]


@pytest.mark.parametrize("n, c, k, h, w, kernel, padding", CONV_CASES)
def test_conv2d(n, c, k, h, w, kernel, padding):
    check_layer(
        lambda X, W, b: layers.conv2d(X, W, b, padding=padding),
        layers.conv2d_back,
        conv_inputs(n, c, k, h, w, kernel),
    )


@pytest.mark.parametrize("n, c, k, h, w, kernel, padding", CONV_CASES)
def test_conv2d_is_the_sum_in_its_docstring(n, c, k, h, w, kernel, padding, close):
    X, W, b = conv_inputs(n, c, k, h, w, kernel)
    Y = layers.conv2d(X, W, b, padding=padding)[0]
    assert Y.shape == (n, k, h + 2 * padding - kernel[0] + 1, w + 2 * padding - kernel[1] + 1)
    Xp = np.zeros((n, c, h + 2 * padding, w + 2 * padding))
    Xp[:, :, padding : padding + h, padding : padding + w] = X
    expected = np.empty(Y.shape)
    for i, o, y, x in np.ndindex(Y.shape):
        expected[i, o, y, x] = b[o] + (W[o] * Xp[i, :, y : y + kernel[0], x : x + kernel[1]]).sum()
    close(Y, expected)


@pytest.mark.parametrize("h, w, size", [(4, 6, 2), (5, 7, 2), (2, 3, 2), (7, 8, 3), (3, 3, 1)])
def test_max_pool(h, w, size):
    X = vectors.array((2, 3, h, w), seed=4)
    check_layer(lambda X: layers.max_pool(X, size), layers.max_pool_back, [X])
    Y = layers.max_pool(X, size)[0]
    assert Y.shape == (2, 3, h // size, w // size)
    for i, c, y, x in np.ndindex(Y.shape):
        block = X[i, c, size * y : size * (y + 1), size * x : size * (x + 1)]
        assert Y[i, c, y, x] == block.max()


def test_max_pool_gives_a_tie_to_the_first():
    X = np.array([[[[1.0, 2.0], [2.0, 2.0]]]])
    Y, cache = layers.max_pool(X)
    np.testing.assert_array_equal(Y, [[[[2.0]]]])
    np.testing.assert_array_equal(layers.max_pool_back(cache, 3 * Y), [[[[0.0, 6.0], [0.0, 0.0]]]])


@pytest.mark.parametrize("name", ["relu", "softplus"])
def test_activations(name):
    check_layer(
        getattr(layers, name), getattr(layers, name + "_back"), [vectors.array((4, 3), seed=5)]
    )


def test_relu_at_zero_has_derivative_zero():
    Y, cache = layers.relu(np.array([-1.0, 0.0, 2.0]))
    np.testing.assert_array_equal(Y, [0.0, 0.0, 2.0])
    np.testing.assert_array_equal(layers.relu_back(cache, np.ones(3)), [0.0, 0.0, 1.0])


def test_softplus_neither_overflows_nor_loses_its_tail(close):
    Y, cache = layers.softplus(np.array([-1000.0, -40.0, 0.0, 1000.0]))
    np.testing.assert_allclose(Y, [0.0, np.exp(-40.0), np.log(2.0), 1000.0], rtol=1e-12)
    close(layers.softplus_back(cache, np.ones(4)), [0.0, np.exp(-40.0), 0.5, 1.0])


def test_cross_entropy(close):
    logits, y = vectors.array((5, 4), seed=6), np.array([0, 3, 3, 1, 2])
    loss, cache = layers.cross_entropy(logits, y)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    close(loss, -np.log(p[np.arange(5), y]).mean())
    numeric = numeric_gradient(lambda z: layers.cross_entropy(z, y)[0], logits)
    np.testing.assert_allclose(layers.cross_entropy_back(cache), numeric, **FD)
    shifted = layers.cross_entropy(logits + 1e4, y)[0]  # 1e4 leaves 12 digits of the differences
    np.testing.assert_allclose(shifted, loss, rtol=1e-11)
    close(layers.cross_entropy(np.zeros((3, 7)), np.array([0, 1, 2]))[0], np.log(7.0))


# ---- Nets ------------------------------------------------------------------------------------


def mlp():
    params = nets.mlp_init((6, 5, 4, 3), vectors.rng(0))
    X, y = vectors.images(7, shape=(2, 3), classes=3)
    return nets.mlp_loss_grad, params, X, y


def lenet5(n=3):
    X, y = vectors.images(n)
    return nets.lenet5_loss_grad, nets.lenet5_init(vectors.rng(0)), X, y


def test_every_partial_derivative_of_the_mlp():
    loss_grad, params, X, y = mlp()
    grads = loss_grad(params, X, y, activation="softplus")[1]
    assert list(grads) == list(params)
    for name in params:
        numeric = numeric_gradient(
            lambda x, name=name: loss_grad({**params, name: x}, X, y, activation="softplus")[0],
            params[name],
        )
        np.testing.assert_allclose(grads[name], numeric, **FD)


def test_directional_derivatives_of_lenet5():
    """Along random directions, tensor by tensor: every one of the 61,706 entries takes part."""
    loss_grad, params, X, y = lenet5()
    grads = loss_grad(params, X, y, activation="softplus")[1]
    assert list(grads) == list(params)
    for seed, name in enumerate(params):
        assert grads[name].shape == params[name].shape
        direction = vectors.array(params[name].shape, seed=seed)
        direction /= np.linalg.norm(direction)

        def f(s, name=name, direction=direction):
            moved = {**params, name: params[name] + s * direction}
            return loss_grad(moved, X, y, activation="softplus")[0]

        numeric = (f(H) - f(-H)) / (2 * H)
        np.testing.assert_allclose((grads[name] * direction).sum(), numeric, **FD)


def test_an_mlp_of_one_layer_is_multinomial_regression(close):
    X, y = vectors.images(9, shape=(6,), classes=4)
    params = nets.mlp_init((6, 4), vectors.rng(1))
    logits = X @ params["fc1.weight"].T + params["fc1.bias"]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    loss, grads = nets.mlp_loss_grad(params, X, y)
    close(nets.mlp_logits(params, X), logits)
    close(loss, -np.log(p[np.arange(9), y]).mean())
    close(grads["fc1.weight"], (p - np.eye(4)[y]).T @ X / 9)
    close(grads["fc1.bias"], (p - np.eye(4)[y]).mean(axis=0))


def test_the_loss_of_a_batch_is_the_mean_over_its_samples(close):
    loss_grad, params, X, y = lenet5()
    loss, grads = loss_grad(params, X, y)
    single = [loss_grad(params, X[i : i + 1], y[i : i + 1]) for i in range(len(X))]
    close(loss, np.mean([s[0] for s in single]))
    for name in params:
        close(grads[name], np.mean([s[1][name] for s in single], axis=0))


@pytest.mark.parametrize("problem", [mlp, lenet5])
def test_arguments_are_not_written_to(problem):
    loss_grad, params, X, y = problem()
    before = {name: value.copy() for name, value in params.items()}
    X_before, y_before = X.copy(), y.copy()
    loss_grad(params, X, y)
    for name in params:
        np.testing.assert_array_equal(params[name], before[name])
    np.testing.assert_array_equal(X, X_before)
    np.testing.assert_array_equal(y, y_before)


def test_lenet5_has_61706_parameters():
    assert sum(p.size for p in nets.lenet5_init(vectors.rng(0)).values()) == 61706
    lenet_300_100 = nets.mlp_init((784, 300, 100, 10), vectors.rng(0))
    assert sum(p.size for p in lenet_300_100.values()) == 266610


# ---- Initialisation --------------------------------------------------------------------------


@pytest.mark.parametrize("init, mean_square_norm", [("torch", 1 / 3), ("he", 2.0)])
@pytest.mark.parametrize("shape", [(2000, 400), (500, 16, 5, 5)])
def test_mean_square_norm_of_a_group_at_the_start(init, mean_square_norm, shape):
    W, b = nets.layer_init(shape, vectors.rng(2), init)
    squares = (W**2).reshape(shape[0], -1).sum(axis=1)
    error = squares.std() / np.sqrt(shape[0])
    assert abs(squares.mean() - mean_square_norm) < 4 * error
    assert b.shape == shape[:1]
    bound = np.sqrt(1 / np.prod(shape[1:]))
    if init == "torch":
        assert 0.99 * bound < np.abs(W).max() <= bound and 0.9 * bound < np.abs(b).max() <= bound
    else:
        assert not b.any() and np.abs(W).max() > 3 * bound


def test_inits_repeat_and_differ():
    a, b = (nets.lenet5_init(vectors.rng(3), init="he") for _ in range(2))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    other = nets.lenet5_init(vectors.rng(4), init="he")
    assert all((a[n] != other[n]).any() for n in a if n.endswith("weight"))


# ---- Bad input -------------------------------------------------------------------------------

P = nets.lenet5_init(vectors.rng(0))
X, Y = vectors.images(2)
BAD_INPUT = [
    (
        lambda: nets.lenet5_logits(P, X[:, :, :20]),
        r"X must be \(n, 1, 28, 28\), got \(2, 1, 20, 28",
    ),
    (lambda: nets.lenet5_logits(P, X[:0]), r"not empty, got \(0, 1, 28, 28\)"),
    (lambda: nets.lenet5_logits(P, X * np.inf), "X must be finite"),
    (lambda: nets.lenet5_logits({**P, "fc3.weight": 0}, X), r"missing or extra: \['fc3.weight'\]"),
    (
        lambda: nets.lenet5_logits({"fc1.weight": P["fc1.weight"]}, X),
        "missing or extra.*conv1.bias",
    ),
    (lambda: nets.lenet5_logits(P, X, activation="tanh"), "activation must be .* got 'tanh'"),
    (lambda: nets.lenet5_loss_grad(P, X, Y + 0.5), "y must be 2 integers, got float64"),
    (
        lambda: nets.lenet5_loss_grad(P, X, Y[:1]),
        r"y must be 2 integers, got int64 of shape \(1,\)",
    ),
    (lambda: nets.lenet5_loss_grad(P, X, Y * 0 + 10), r"y must lie in \[0, 10\), got 10 to 10"),
    (lambda: nets.lenet5_loss_grad(P, X, Y * 0 - 1), r"y must lie in \[0, 10\), got -1 to -1"),
    (lambda: nets.mlp_logits({}, X), "params must hold weight and bias of fc1"),
    (lambda: nets.mlp_logits(nets.mlp_init((5, 2), vectors.rng(0)), X), r"X must be \(n, 5\), got"),
    (lambda: nets.mlp_init((5,), vectors.rng(0)), "at least two positive integers"),
    (lambda: nets.mlp_init((5, 0), vectors.rng(0)), "at least two positive integers"),
    (lambda: nets.mlp_init((5, 2.5), vectors.rng(0)), "at least two positive integers"),
    (lambda: nets.lenet5_init(vectors.rng(0), init="zero"), "init must be .* got 'zero'"),
    (lambda: layers.conv2d(X, np.ones((2, 3, 5, 5)), np.ones(2)), r"X must be \(n, 3, h, w\)"),
    (lambda: layers.conv2d(X, np.ones((2, 1, 5, 5)), np.ones(3)), r"W and b .* got .*\(3,\)"),
    (lambda: layers.conv2d(X, np.ones((2, 1, 29, 5)), np.ones(2)), "as large as the kernel"),
    (lambda: layers.conv2d(X, np.ones((2, 1, 5, 5)), np.ones(2), padding=-1), "padding .* got -1"),
    (lambda: layers.max_pool(X[0]), r"X must be \(n, c, h, w\), got \(1, 28, 28\)"),
    (lambda: layers.max_pool(X, size=29), r"size must lie in \[1, 28\], got 29"),
    (lambda: layers.max_pool(X, size=0), "size must .* got 0"),
    (lambda: layers.linear(X[:, 0, 0], np.ones((2, 5)), np.ones(2)), r"X must be \(n, 5\), got"),
    (lambda: layers.linear(X[:, 0, 0], np.ones((2, 28)), np.ones(3)), "W and b must be"),
    (
        lambda: layers.cross_entropy(np.zeros((0, 3)), np.zeros(0, int)),
        "logits must be .* not empty",
    ),
]


@pytest.mark.parametrize("call, message", BAD_INPUT, ids=range(len(BAD_INPUT)))
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)

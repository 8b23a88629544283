"""Hand-written layers and nets against torch autograd, in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import vectors
from one_tensor import group_gamma, split_tensors

from dslbi_ref import nets
from dslbi_ref import nets_layers as layers
from dslbi_ref.dessilbi import dessilbi_states
from dslbi_torch import DessiLBI, split_groups
from dslbi_torch.training.nets.small import LeNet5, LeNet300


def tensors(*arrays):
    return [torch.tensor(a, requires_grad=True) for a in arrays]


def check(close, pair, torch_function, inputs, **options):
    """Output and every gradient of the layer, for a loss that weighs the outputs at random."""
    layer, layer_back = pair
    Y, cache = layer(*inputs, **options)
    dY = vectors.array(Y.shape, seed=99)
    ours = layer_back(cache, dY)
    twins = tensors(*inputs)
    torch_Y = torch_function(*twins, **options)
    torch_Y.backward(torch.tensor(dY))
    close(Y, torch_Y.detach())
    for gradient, twin in zip(ours if isinstance(ours, tuple) else (ours,), twins, strict=True):
        close(gradient, twin.grad)


@pytest.mark.parametrize("n, p, k", [(5, 7, 3), (1, 4, 6), (3, 1, 1)])
def test_linear(close, n, p, k):
    inputs = [vectors.array(s, seed=i) for i, s in enumerate([(n, p), (k, p), (k,)])]
    check(close, (layers.linear, layers.linear_back), F.linear, inputs)


@pytest.mark.parametrize("padding", [0, 1, 2, 4])
@pytest.mark.parametrize(
    "n, c, k, h, w, kernel",
    [
        (4, 3, 5, 12, 12, (5, 5)),
        (1, 1, 6, 28, 28, (5, 5)),
        (2, 16, 20, 5, 5, (5, 5)),
        (3, 2, 4, 7, 9, (3, 2)),
        (2, 3, 2, 5, 4, (1, 1)),
        (2, 1, 1, 3, 11, (2, 4)),
    ],
)
def test_conv2d(close, n, c, k, h, w, kernel, padding):
    inputs = [
        vectors.array((n, c, h, w), seed=1),
        vectors.array((k, c, *kernel), seed=2),
        vectors.array(k, seed=3),
    ]
    check(close, (layers.conv2d, layers.conv2d_back), F.conv2d, inputs, padding=padding)


def test_conv2d_takes_an_array_that_is_not_contiguous(close):
    """What a layer gets from the one before may be a transposed view."""
    X = vectors.array((6, 9, 3, 2), seed=1).transpose(3, 2, 1, 0)
    inputs = [X, vectors.array((4, 3, 3, 3), seed=2), vectors.array(4, seed=3)]
    check(close, (layers.conv2d, layers.conv2d_back), F.conv2d, inputs)


@pytest.mark.parametrize("h, w, size", [(8, 6, 2), (7, 5, 2), (2, 3, 2), (10, 8, 3), (4, 4, 4)])
@pytest.mark.parametrize("ties", [False, True])
def test_max_pool(close, h, w, size, ties):
    X = vectors.array((3, 2, h, w), seed=4)
    if ties:
        X = np.maximum(np.round(X), 0.0)  # after a ReLU most windows have several maxima
    check(
        close,
        (lambda X: layers.max_pool(X, size), layers.max_pool_back),
        lambda X: F.max_pool2d(X, size),
        [X],
    )


# Softplus without torch's cut at 20, whose error of 2e-9 a test to 1e-12 sees (layers.softplus).
ACTIVATIONS = {"relu": F.relu, "softplus": lambda x: F.softplus(x, threshold=700)}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(close, name):
    X = np.concatenate([vectors.array(50, seed=5, scale=10.0), [0.0, -0.0, 40.0, -40.0]])
    check(close, (getattr(layers, name), getattr(layers, name + "_back")), ACTIVATIONS[name], [X])


@pytest.mark.parametrize("n, k", [(6, 10), (1, 3), (4, 1)])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_cross_entropy(close, n, k, scale):
    logits = vectors.array((n, k), seed=6, scale=scale)
    y = np.arange(n) % k
    (twin,) = tensors(logits)
    expected = F.cross_entropy(twin, torch.tensor(y))
    expected.backward()
    loss, cache = layers.cross_entropy(logits, y)
    close(loss, expected.detach())
    close(layers.cross_entropy_back(cache), twin.grad)


# ---- Nets ------------------------------------------------------------------------------------


def torch_lenet5(p, x, act):
    x = F.max_pool2d(act(F.conv2d(x, p["conv1.weight"], p["conv1.bias"], padding=2)), 2)
    x = F.max_pool2d(act(F.conv2d(x, p["conv2.weight"], p["conv2.bias"])), 2)
    x = act(F.conv2d(x, p["conv3.weight"], p["conv3.bias"])).flatten(1)
    x = act(F.linear(x, p["fc1.weight"], p["fc1.bias"]))
    return F.linear(x, p["fc2.weight"], p["fc2.bias"])


def torch_mlp(p, x, act):
    x = act(F.linear(x.flatten(1), p["fc1.weight"], p["fc1.bias"]))
    x = act(F.linear(x, p["fc2.weight"], p["fc2.bias"]))
    return F.linear(x, p["fc3.weight"], p["fc3.bias"])


def mlp_init(rng, init="torch"):
    return nets.mlp_init((784, 300, 100, 10), rng, init)


NETS = {
    "lenet5": (nets.lenet5_init, nets.lenet5_logits, nets.lenet5_loss_grad, torch_lenet5, LeNet5),
    "mlp": (mlp_init, nets.mlp_logits, nets.mlp_loss_grad, torch_mlp, LeNet300),
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("activation", ["relu", "softplus"])
@pytest.mark.parametrize("init", ["torch", "he"])
@pytest.mark.parametrize("n", [1, 8])
def test_nets(close, net, activation, init, n):
    start, logits, loss_grad, forward, _ = NETS[net]
    params = start(vectors.rng(0), init)
    X, y = vectors.images(n)
    twins = dict(zip(params, tensors(*params.values()), strict=True))
    out = forward(twins, torch.tensor(X), ACTIVATIONS[activation])
    expected = F.cross_entropy(out, torch.tensor(y))
    expected.backward()
    loss, grads = loss_grad(params, X, y, activation)
    close(logits(params, X, activation), out.detach())
    close(loss, expected.detach())
    for name in params:
        close(grads[name], twins[name].grad)


@pytest.mark.parametrize("net", NETS)
def test_a_state_dict_of_the_models_converts_name_by_name(close, net):
    start, logits, loss_grad, _, Model = NETS[net]
    model = Model().double()
    params = start(vectors.rng(0))
    model.load_state_dict({name: torch.tensor(value) for name, value in params.items()})
    X, y = vectors.images(5)
    F.cross_entropy(model(torch.tensor(X)), torch.tensor(y)).backward()
    grads = loss_grad(params, X, y)[1]
    assert list(grads) == [name for name, _ in model.named_parameters()]
    close(logits(params, X), model(torch.tensor(X)).detach())
    for name, twin in model.named_parameters():
        close(grads[name], twin.grad)


@pytest.mark.parametrize("net", NETS)
def test_the_default_start_is_that_of_torch(net):
    """The same distribution: no entry beyond torch's bound, and the same root mean square."""
    start, *_, Model = NETS[net]
    ours = start(vectors.rng(0))
    torch.manual_seed(0)
    twin = Model().state_dict()
    for name, value in ours.items():
        theirs = twin[name].double().numpy()
        assert value.shape == theirs.shape
        fan_in = np.prod(ours[name.replace("bias", "weight")].shape[1:])
        for found in (value, theirs):  # uniform on an interval of length 2 / sqrt(fan_in)
            assert np.abs(found).max() <= 1.000001 / np.sqrt(fan_in)  # torch rounds to float32
            error = np.sqrt(4 / 45 / found.size)  # standard deviation of the mean of squares
            assert abs((found**2).mean() * fan_in - 1 / 3) < 4 * error


# ---- Training ----------------------------------------------------------------------------------


def test_dessilbi_training_of_lenet5(close):
    """Everything by hand against everything in torch: same start, same batches, 200 steps.

    Measured: at most 3e-15 in W, V and Gamma. The step is small enough for the loss to fall
    steadily; at lr 0.1 it jumps, and rounding grows to 1e-4 within 80 steps, in float64 too.
    """
    lr, options = 0.02, dict(nu=10.0, lam=0.1)
    start = nets.lenet5_init(vectors.rng(0), init="he")
    X, y = vectors.images(16 * 8)
    batches = [(X[k % 8 :: 8], y[k % 8 :: 8]) for k in range(200)]

    following = iter(batches)
    states = dessilbi_states(
        start,
        lambda W: nets.lenet5_loss_grad(W, *next(following))[1],
        penalties={f"conv{i}.weight": "group" for i in (1, 2, 3)}
        | {f"fc{i}.weight": "l1" for i in (1, 2)},
        alpha=lr,
        momentum=0.9,
        **options,
    )
    model = LeNet5().double()
    model.load_state_dict({name: torch.tensor(value) for name, value in start.items()})
    optimizer = DessiLBI(split_groups(model, **options), lr=lr, momentum=0.9)

    next(states)
    active = {}
    for k, (batch, classes) in enumerate(batches, start=1):
        state = next(states)
        optimizer.zero_grad()
        F.cross_entropy(model(torch.tensor(batch)), torch.tensor(classes)).backward()
        optimizer.step()
        if k % 10:
            continue
        for name, W in model.named_parameters():
            close(W.detach(), state.W[name])
        for name, _, V, group in split_tensors(optimizer):
            Gamma = group_gamma(V, group).numpy()
            close(V, state.V[name])
            close(Gamma, state.Gamma[name])
            np.testing.assert_array_equal(Gamma != 0, state.Gamma[name] != 0)
            active.setdefault(name, []).append((Gamma != 0).mean())
    for name, densities in active.items():  # entry on the way, not before and not all at the end
        assert densities[0] == 0 < densities[-1], name
    assert active["fc1.weight"][-1] < 0.5

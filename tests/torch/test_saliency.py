"""Activation maximisation and guided backpropagation against what can be written down."""

import pytest
import torch
import vectors
from torch import nn
from torch.nn import functional as F

from dslbi_torch.saliency import activation_maximisation, guided_backprop
from dslbi_torch.training.nets import zoo

RELUS = {
    "module": nn.ReLU(),
    "in place": nn.ReLU(inplace=True),
    "function": F.relu,
    "torch.relu": torch.relu,
    "method": torch.Tensor.relu,
    "method in place": torch.Tensor.relu_,
}


class Net(nn.Module):
    """Two linear layers with a ReLU between them, in float64."""

    def __init__(self, relu=torch.relu):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 5), nn.Linear(5, 4)
        self.unused = nn.Linear(2, 2)
        self.relu = relu
        self.double()
        for seed, layer in enumerate((self.fc1, self.fc2)):
            layer.weight.data = torch.from_numpy(vectors.array(layer.weight.shape, seed))

    def forward(self, x):
        return self.fc2(self.relu(self.fc1(x)))


def pictures(n):
    return torch.from_numpy(vectors.array((n, 6), seed=7))


def test_the_best_picture_for_a_linear_filter_is_the_filter():
    """Cauchy and Schwarz: of all pictures of one norm the filter's own direction excites most."""
    model = nn.Sequential(nn.Conv2d(2, 3, 5)).double()
    best = activation_maximisation(model, "0", [2, 0], shape=(2, 5, 5), norm=4.0)
    w = model[0].weight.detach()[[2, 0]]
    expected = 4 * w / w.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    # measured: 5e-8, what is left of the noise in the beginning
    torch.testing.assert_close(best, expected, rtol=0, atol=1e-5)


def test_the_picture_excites_more_than_any_of_many_others():
    torch.manual_seed(0)
    model = zoo.build("lenet5", init="he").double()
    best = activation_maximisation(model, "conv3", range(8), shape=(1, 28, 28), norm=10.0)
    torch.testing.assert_close(best.flatten(1).norm(dim=1), torch.full((8,), 10.0).double())
    others = torch.from_numpy(vectors.array((200, 1, 28, 28)))
    others *= 10 / others.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    seen = []
    model.conv3.register_forward_hook(lambda m, x, y: seen.append(y.flatten(1)[:, :8]))
    with torch.no_grad():
        model(best), model(others)
    assert (seen[0].diagonal() > seen[1].amax(dim=0)).all()


def test_a_silent_filter_has_no_picture_and_the_seed_decides_the_others():
    torch.manual_seed(0)
    model = zoo.build("lenet5", init="he")
    nn.init.zeros_(model.conv3.weight[1].data)
    first, again, other = (
        activation_maximisation(model, "conv3", [0, 1], shape=(1, 28, 28), steps=5, seed=seed)
        for seed in (3, 3, 4)
    )
    assert first[0].any() and not first[1].any()
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("kind", RELUS)
def test_guided_backprop_is_the_product_that_it_should_be(kind):
    """W1' ((h > 0) * max(0, row of W2)), h the input of the ReLU."""
    model, x, channels = Net(RELUS[kind]), pictures(3), [3, 0, 3]
    h = model.fc1(x).detach()
    rows = model.fc2.weight.detach()[channels]
    expected = ((h > 0) * rows.clamp_min(0)) @ model.fc1.weight.detach()
    guided = guided_backprop(model, "fc2", channels, x)
    torch.testing.assert_close(guided, expected, rtol=0, atol=1e-12)
    assert not torch.equal(expected, ((h > 0) * rows) @ model.fc1.weight.detach())


def test_without_a_relu_below_it_is_the_gradient():
    model, x = Net(), pictures(2)
    rows = model.fc1.weight.detach()[[4, 1]]
    torch.testing.assert_close(guided_backprop(model, "fc1", [4, 1], x), rows, rtol=0, atol=0)


def test_of_several_places_the_strongest_is_taken():
    model = nn.Sequential(nn.Conv2d(1, 2, 3)).double()
    x = torch.from_numpy(vectors.array((1, 1, 8, 8)))
    place = model(x)[0, 1].argmax().item()
    expected = torch.zeros_like(x)
    top, left = divmod(place, 6)
    expected[0, 0, top : top + 3, left : left + 3] = model[0].weight.detach()[1, 0]
    torch.testing.assert_close(guided_backprop(model, "0", [1], x), expected, rtol=0, atol=0)


def test_works_through_batch_norm_and_residual_blocks():
    torch.manual_seed(0)
    model = zoo.build("resnet20", init="he")
    x = torch.from_numpy(vectors.images(n=2, shape=(3, 32, 32))[0]).float()
    guided = guided_backprop(model, "layer2.0.conv1", [0, 5], x)
    assert guided.shape == x.shape and guided.isfinite().all() and guided.flatten(1).any(1).all()
    best = activation_maximisation(model, "layer1.0.conv1", [3], shape=(3, 32, 32), steps=3)
    assert best.shape == (1, 3, 32, 32) and best.any()


def test_the_model_is_left_as_it_was():
    torch.manual_seed(0)
    model = zoo.build("resnet20")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.from_numpy(vectors.images(n=1, shape=(3, 32, 32))[0]).float()
    for call in (
        lambda: activation_maximisation(model, "conv1", [0], shape=(3, 32, 32), steps=2),
        lambda: guided_backprop(model, "conv1", [0], x),
        lambda: pytest.raises(ValueError, guided_backprop, model, "conv1", [16], x),
    ):
        call()
        assert model.training and not model.conv1._forward_hooks
        assert all(p.grad is None for p in model.parameters())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    y = F.relu(torch.tensor([-1.0, 2.0], requires_grad=True))  # ReLUs are themselves again
    assert "Guided" not in type(y.grad_fn).__name__


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m, x: guided_backprop(m, "fc9", [0], x), "layer must be one of fc1, fc2, .*'fc9'"),
        (lambda m, x: guided_backprop(m, "", [0], x), "layer must be one of fc1, .* got ''"),
        (
            lambda m, x: guided_backprop(m, "fc2", [4], x),
            r"channels must be in \[0, 4\), got \[4\]",
        ),
        (lambda m, x: guided_backprop(m, "fc2", [-1], x), r"channels must be in .* got \[-1\]"),
        (
            lambda m, x: guided_backprop(m, "fc2", [0, 1], x),
            "one picture per filter is needed, .*1",
        ),
        (lambda m, x: guided_backprop(m, "unused", [0], x), "must take part in the forward pass"),
        (
            lambda m, x: activation_maximisation(m, "fc2", [0], shape=(6,), norm=0.0),
            "norm must be positive, got 0.0",
        ),
        (
            lambda m, x: activation_maximisation(m, "fc2", [0], shape=(6,), lr=float("nan")),
            "lr must be in .*, got nan",
        ),
        (
            lambda m, x: activation_maximisation(m, "fc2", [0], shape=(6,), steps=0),
            "steps must be at least 1, got 0",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(Net(), pictures(1))


@pytest.mark.parametrize("look", [activation_maximisation, guided_backprop])
def test_every_part_of_the_model_keeps_its_own_mode(look):
    """A part that is held in evaluation mode while the rest trains is so afterwards."""
    model = Net().train()
    model.fc1.eval()
    if look is guided_backprop:
        look(model, "fc2", [0], pictures(1))
    else:
        look(model, "fc2", [0], shape=(6,), steps=1)
    assert (model.training, model.fc1.training, model.fc2.training) == (True, False, True)

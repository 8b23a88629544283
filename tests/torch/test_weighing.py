"""Norms that say what units do for the loss: the function stays, and so does the order of them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from dslbi_torch import DessiLBI, release_, split_groups, weigh_units_
from dslbi_torch.units import families, norms
from dslbi_torch.weighing import LEAST


class Residual(nn.Module):
    """Two writers of one stream, a bias among them, and a layer that no BatchNorm follows."""

    def __init__(self, eps=1e-13):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, bias=True), nn.BatchNorm2d(8, eps=eps)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8, eps=eps)
        self.inner, self.bn3 = nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6, eps=eps)
        self.last, self.head = nn.Conv2d(6, 5, 1), nn.Linear(5, 4)
        for norm in (self.bn1, self.bn2, self.bn3):
            nn.init.uniform_(norm.weight, 0.2, 2.0)
            nn.init.uniform_(norm.bias, -1.0, 1.0)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        x = x + self.bn2(self.conv2(x))
        x = self.bn3(self.inner(x.relu())).relu()
        return self.head(self.last(x).relu().mean((2, 3)))


def made(**options):
    net = Residual(**options).double()
    x = torch.randn(32, 3, 8, 8, dtype=torch.float64)
    y = torch.arange(32) % 4
    groups = split_groups(net, conv="channel", linear=None, apart=True, example_input=x[:2])
    return net, DessiLBI(groups, lr=0.1), x, y


def losses(net, x, y):
    return (F.cross_entropy(net(a), b) for a, b in zip(x.split(8), y.split(8), strict=True))


def test_the_function_stays_the_same_in_training_and_in_evaluation():
    net, optimizer, x, y = made()
    net(x)
    for norm in (net.bn1, net.bn2, net.bn3):
        norm.momentum = 0.0  # so that the running statistics change with the rows alone
    before, trained = net.eval()(x), net.train()(x[:8])
    weights = net.conv1.weight.detach().clone()
    found = weigh_units_(optimizer, net, x[:2], losses(net, x, y))
    assert set(found) == {"conv1.weight", "conv2.weight", "inner.weight"}
    assert (net.conv1.weight - weights).norm() > 0.1 * weights.norm()
    assert_close(net(x[:8]), trained, rtol=1e-9, atol=1e-9)
    assert_close(net.eval()(x), before, rtol=1e-9, atol=1e-9)


def test_norms_are_the_first_order_changes_of_the_loss_when_a_channel_is_lost():
    net, optimizer, x, y = made()
    h, squares = 1e-5, {}
    for name in ("bn1", "bn2", "bn3"):
        norm = net.get_submodule(name)
        squares[name] = torch.zeros(norm.num_features, dtype=torch.float64)
        for k in range(norm.num_features):
            for a, b in zip(x.split(8), y.split(8), strict=True):
                changed = []
                for factor in (1 - h, 1 + h):
                    kept = norm.weight[k].item(), norm.bias[k].item()
                    with torch.no_grad():
                        norm.weight[k] *= factor
                        norm.bias[k] *= factor
                        changed.append(F.cross_entropy(net(a), b).item())
                        norm.weight[k], norm.bias[k] = kept
                squares[name][k] += ((changed[1] - changed[0]) / (2 * h)) ** 2
    means = [norms(f.Ws, f.group)[0].mean().item() for f in families(optimizer)]
    weigh_units_(optimizer, net, x[:2], losses(net, x, y))
    expected = {
        "conv1.weight": (squares["bn1"] + squares["bn2"]).sqrt(),  # of one stream
        "inner.weight": squares["bn3"].sqrt(),
    }
    for family, mean in zip(families(optimizer), means, strict=True):
        (own,) = norms(family.Ws, family.group)
        assert own.mean().item() == pytest.approx(mean, rel=1e-12)
        if family.names[0] in expected:
            score = expected[family.names[0]]
            score = score.clamp(min=LEAST * score.mean())  # one is dead behind its ReLU
            assert_close(own.flatten() / own.mean(), score / score.mean(), rtol=1e-6, atol=1e-9)


def test_no_gradient_changes_the_norm_of_a_row_before_a_batch_norm():
    """Why the norms of a trained net must be given a meaning: the loss holds none of them up."""
    net, _, x, y = made()
    F.cross_entropy(net(x), y).backward()
    for W in (net.conv1.weight, net.conv2.weight, net.inner.weight):
        along = (W * W.grad).flatten(1).sum(1)
        assert along.abs().max() < 1e-12 < 1e-4 < W.grad.abs().max()


def test_a_row_of_zeros_stays_and_eps_hardly_counts():
    net, optimizer, x, y = made(eps=1e-5)
    with torch.no_grad():
        net.inner.weight[2] = 0
        net.inner.bias[2] = 0
    before = net(x)
    weigh_units_(optimizer, net, x[:2], losses(net, x, y))
    assert not net.inner.weight[2].any() and net.inner.weight.isfinite().all()
    assert_close(net(x), before, rtol=1e-2, atol=1e-2)


def test_what_cannot_be_weighed_is_refused():
    net, optimizer, x, y = made()
    for wrong, said in (
        ([], "losses must hold at least one, got none"),
        ([torch.zeros(2)], "losses must be finite scalar tensors, got"),
        ([torch.tensor(float("nan"))], "losses must be finite scalar tensors, got"),
        ([torch.tensor(1.0)], "losses must depend on the model, that of batch 1 does not"),
        ([(net.last.weight**2).sum()], "depend on the BatchNorms behind the units, got no grad"),
        (3, "losses must be an iterable of scalar tensors, got 3"),
    ):
        with pytest.raises((ValueError, TypeError), match=said):
            weigh_units_(optimizer, net, x[:2], wrong)
    release_(optimizer, dense=True)
    with pytest.raises(ValueError, match="a path must be released before it begins"):
        weigh_units_(optimizer, net, x[:2], losses(net, x, y))
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    with pytest.raises(ValueError, match="must be followed by BatchNorms with scale and shift"):
        weigh_units_(DessiLBI(split_groups(plain), lr=0.1), plain, torch.rand(2, 3, 9, 9), [])

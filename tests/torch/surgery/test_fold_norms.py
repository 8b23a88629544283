"""Folding of BatchNorm: the same outputs from fewer layers; what cannot be folded is refused."""

import pytest
import torch
import vectors
from torch import nn
from torch.testing import assert_close

from dslbi_torch import fold_norms
from dslbi_torch.training.nets import zoo


def pictures(*shape):
    return torch.tensor(vectors.array(shape, seed=3))


def settle(net):
    """Running statistics, scales and shifts as after a training, and evaluation mode."""
    g = torch.Generator().manual_seed(1)
    for norm in norms(net):
        if norm.running_mean is not None:
            norm.running_mean.normal_(0, 0.3, generator=g)
            norm.running_var.uniform_(0.5, 1.5, generator=g)
        norm.bias.data.normal_(0, 0.3, generator=g)
        norm.weight.data.uniform_(0.5, 1.5, generator=g)
    return net.double().eval()


def norms(net):
    return [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("name", ["resnet20", "vgg11-bn", "mobilenetv2"])
def test_outputs_are_the_same_without_any_norm(name):
    torch.manual_seed(0)
    net = settle(zoo.build(name))
    x = pictures(2, 3, 32, 32)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    small = fold_norms(net, x)
    assert norms(net) and not norms(small)
    assert_close(small(x), net(x), rtol=1e-9, atol=1e-9)
    y = pictures(3, 3, 32, 32) + 1
    assert_close(small(y), net(y), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_one_channel_by_hand():
    """W = 2, no bias; mean 3, variance 4 - eps, scale 5, shift 7: y = 5 (2 x - 3) / 2 + 7."""
    net = nn.Sequential(nn.Conv1d(1, 1, 1, bias=False), nn.BatchNorm1d(1)).double().eval()
    with torch.no_grad():
        net[0].weight.fill_(2)
        net[1].running_mean.fill_(3)
        net[1].running_var.fill_(4 - net[1].eps)
        net[1].weight.fill_(5)
        net[1].bias.fill_(7)
    small = fold_norms(net, torch.ones(1, 1, 3, dtype=torch.float64))
    assert isinstance(small[1], nn.Identity)
    assert_close(small[0].weight.item(), 5.0)
    assert_close(small[0].bias.item(), -0.5)


@pytest.mark.parametrize("kind", ["linear", "transposed"])
def test_linear_and_transposed_layers(kind):
    torch.manual_seed(0)
    if kind == "linear":
        net, x = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)), pictures(3, 4)
    else:
        net = nn.Sequential(nn.ConvTranspose2d(4, 5, 3), nn.BatchNorm2d(5))
        x = pictures(3, 4, 6, 6)
    net = settle(net)
    small = fold_norms(net, x)
    assert not norms(small)
    assert_close(small(x), net(x), rtol=1e-12, atol=1e-12)


def test_a_net_in_training_keeps_its_mode_and_statistics():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).train()
    fold_norms(net, torch.randn(2, 3, 8, 8))
    assert all(m.training for m in net.modules())
    assert net[1].num_batches_tracked.item() == 0


class NormAct(nn.BatchNorm2d):
    """As timm has it: a norm that carries what follows it."""

    def __init__(self, n):
        super().__init__(n)
        self.drop, self.act = nn.Dropout(0.5), nn.SiLU(inplace=True)

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


class NormRelu(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


class Named(nn.BatchNorm2d):
    """Another class, and nothing else."""


def test_a_norm_that_carries_its_activation_leaves_it_behind():
    torch.manual_seed(0)
    net = settle(nn.Sequential(
        nn.Conv2d(3, 4, 3), NormAct(4), nn.Conv2d(4, 5, 1), Named(5), nn.ReLU(), nn.Conv2d(5, 2, 1),
        NormRelu(2),
    ))  # fmt: skip
    x = pictures(2, 3, 6, 6)
    small = fold_norms(net, x)
    assert_close(small(x), net(x), rtol=1e-12, atol=1e-12)
    assert isinstance(small[1], nn.Sequential) and isinstance(small[1][1], nn.SiLU)
    assert isinstance(small[3], nn.Identity)
    assert norms(small) == [small[6]]  # what its forward does besides is not known: it stays


class Wrong(NormAct):
    """It does not apply the modules that it holds in their order."""

    def forward(self, x):
        return self.act(super().forward(x) + 1)


class Twice(nn.Module):
    """The output of the layer is read by a norm and by a sum."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        y = self.layer(x)
        return y + self.norm(y)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Linear(4, 4), "must have a BatchNorm that takes the output of a layer"),
        (
            nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)),
            "must have a BatchNorm that takes the output of a layer",
        ),
        (nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4)), "must have a BatchNorm"),
        (Twice(), "must use the output of a layer before a BatchNorm there only"),
    ],
)
def test_what_cannot_be_folded_is_refused(net, message):
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=message):
        fold_norms(settle(net), pictures(3, 4))


def test_a_norm_that_does_something_else_with_its_modules_is_refused():
    torch.manual_seed(0)
    net = settle(nn.Sequential(nn.Conv2d(3, 4, 3), Wrong(4)))
    with pytest.raises(ValueError, match="must use the output of a layer before a BatchNorm there"):
        fold_norms(net, pictures(2, 3, 6, 6))

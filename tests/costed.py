"""Small nets that are cut, what they cost then, and a walk that selects by chance."""

import torch
from torch import nn

from dslbi_torch import compact, whole_filters
from dslbi_torch.surgery.costs import count_macs
from dslbi_torch.surgery.live_axes import gone_with
from dslbi_torch.training.nets import zoo
from dslbi_torch.training.nets.cifar import ResNet


class Branches(nn.Module):
    """A depthwise convolution, a concatenation, a flattening, a gate and two linear layers."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 5, 3)
        self.wide = nn.Conv2d(11, 12, 1)
        self.depth = nn.Conv2d(12, 12, 3, groups=12, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.up = nn.ConvTranspose2d(12, 7, 2)
        self.gate = nn.Linear(7, 7)
        self.fc1, self.fc2 = nn.Linear(7 * 25, 9), nn.Linear(9, 4)

    def forward(self, x):
        x = torch.cat([self.a(x), self.b(x)], 1).relu()
        x = self.up(self.norm(self.depth(self.wide(x))).relu())
        x = x * self.gate(x.mean((2, 3))).sigmoid()[:, :, None, None]
        return self.fc2(self.fc1(x.flatten(1)).relu())


NETS = {
    "branches": (Branches, (3, 8, 8)),
    "stream with padding": (lambda: ResNet((1, 2, 1), (5, 7, 9), "A"), (3, 8, 8)),
    "stream with projections": (lambda: ResNet((1, 2), (5, 7), "B"), (3, 8, 8)),
    "digits-net": (lambda: zoo.build("digits-net"), (1, 8, 8)),
}


def make(name):
    torch.manual_seed(0)
    build, shape = NETS[name]
    return build().eval(), torch.randn(2, *shape)


def cut(net, masks, x):
    small = compact(net, whole_filters(net, masks, x), x)
    return {
        "macs": count_macs(small, x)[""],
        "parameters": sum(p.numel() for p in small.parameters()),
    }


def dense(net, x):
    return {
        "macs": count_macs(net, x)[""],
        "parameters": sum(p.numel() for p in net.parameters()),
    }


def walk(net, optimizer, n_steps, start=0):
    for k in range(start, start + n_steps):
        generator = torch.Generator().manual_seed(k)
        for p in net.parameters():
            p.grad = (1e-2 * torch.randn(p.shape, generator=generator)).to(p.dtype)
        optimizer.step()


def one_unit(controller):
    """The largest share of the cost that a channel alone takes with it."""
    axes = controller.axes
    rest = [controller._cost(~gone_with(axes, k)) for k in range(axes.count) if not axes.always[k]]
    whole = controller._cost(torch.ones(axes.count, dtype=torch.bool))
    return (whole - min(rest)) / controller.dense

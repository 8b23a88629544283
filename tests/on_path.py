"""Small nets on a path: masks of them, their records, and every support."""

import torch
import vectors
from torch import nn

from dslbi_torch import DessiLBI, PathRecorder, split_groups, support_masks


def make_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3, bias=False),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


def trained(n_steps=40, elements=True, every=1, attach_at=0):
    """A small net after some steps on injected gradients, its record, and every support."""
    net = make_net()
    groups = split_groups(net, nu=1.0, lam={"conv": 1.0, "linear": 0.8})
    optimizer = DessiLBI(groups, lr=0.1)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    streams = [vectors.gradients(tuple(p.shape), n_steps, i) for i, p in enumerate(params)]
    path, supports = None, []
    for k in range(n_steps + 1):
        if k == attach_at:
            path = PathRecorder(optimizer, every=every, elements=elements)
        supports.append(support_masks(optimizer))
        if k == n_steps:
            break
        for p, stream in zip(params, streams, strict=True):
            # slices of different strength enter one after the other, and turn back in the end
            strength = torch.logspace(-1.7, 0, len(p)).view(-1, *[1] * (p.ndim - 1))
            sign = 1 if k < 20 else -2
            p.grad = 0.3 * sign * torch.tensor(next(stream), dtype=torch.float32) * strength
        optimizer.step()
    return net, optimizer, path, supports


def equal(a, b):
    assert list(a) == list(b)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0)


def some_masks(net, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(p.shape, generator=g) < 0.5
        for name, p in net.named_parameters()
        if name.endswith("weight") and p.ndim > 1
    }


def filter_masks():
    masks = {name: torch.ones_like(p, dtype=bool) for name, p in make_net().named_parameters()}
    masks = {name: masks[name] for name in ("0.weight", "3.weight", "5.weight")}
    masks["0.weight"][[1, 4]] = False
    masks["0.weight"][2, 0, 0, 0] = False  # one weight less is no filter less
    masks["3.weight"][0] = False
    masks["5.weight"][2] = False
    return masks


def trained_filters(n_steps=40, recorder=None):
    """A small net after some steps on injected gradients, partly selected in both layers."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))
    optimizer = DessiLBI(split_groups(net, nu=1.0, lam={"conv": 1.0, "linear": 0.8}), lr=0.1)
    path = PathRecorder(optimizer, **recorder) if recorder is not None else None
    # filters whose gradients differ in strength: they enter one after the other, the first never
    strength = {4: torch.logspace(-1.5, 0, 6).view(-1, 1, 1, 1)}
    with torch.no_grad():
        net[0].weight.mul_(strength[4])
    params = list(net.parameters())
    streams = [vectors.gradients(tuple(p.shape), n_steps, i) for i, p in enumerate(params)]
    history = []
    for _ in range(n_steps):
        for p, stream in zip(params, streams, strict=True):
            g = torch.tensor(next(stream), dtype=torch.float32)
            p.grad = 0.3 * g * strength.get(p.ndim, 1.0)
        optimizer.step()
        history.append({n: m.clone() for n, m in support_masks(optimizer).items()})
    return net, optimizer, path, history

"""A small net in the middle of its path, what may be wrong with it, and checks of results."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from fuzz.mutate import pick
from torch import nn

import dslbi_torch as d
from dslbi_torch.masks import ranking

# ---- A small net in the middle of its path ----------------------------------------------------


def make_net(width=4):
    torch.manual_seed(0)
    layers = nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 3, 3)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(12, 3))


def stepped(optimizer, model, n=3):
    for p in model.parameters():
        p.grad = 0.1 * torch.ones_like(p)
    for _ in range(n):
        optimizer.step()
    return optimizer


def make_optimizer(model, steps=3):
    groups = d.split_groups(model, nu=0.5, lam=0.05)
    return stepped(d.DessiLBI(groups, lr=0.1), model, steps)


def world(*wanted, **more):
    """Fresh arguments by name: a net, its optimizer, a recorder, masks, a batch."""

    def arguments():
        model = make_net()
        optimizer = make_optimizer(model, 0 if "fresh" in wanted else 3)
        made = {"model": model, "optimizer": optimizer, "example_input": torch.ones(2, 1, 6, 6)}
        if "recorder" in wanted:
            new = make_optimizer(model, 0)
            made["recorder"] = d.PathRecorder(new, elements=True, at=(0.01,), model=model)
            stepped(new, model)
        if "masks" in wanted:
            made["masks"] = d.support_masks(optimizer)
        if "ranking" in wanted:
            made["ranking"] = d.magnitude_ranking(optimizer)
        if "groups" in wanted:
            made["groups"] = d.split_groups(model)
        own = {key: value() if callable(value) else value for key, value in more.items()}
        return {key: made[key] for key in wanted if key in made} | own

    return arguments


def _other_net(net, rng):
    with torch.no_grad():
        nan = make_net()
        nan[0].weight[0, 0, 0, 0] = torch.nan
    nets = (
        nan,
        make_net(6),
        nn.Sequential(),
        nn.Linear(3, 2),
        make_net().half(),
        make_net().double(),
    )
    return pick(rng, (*nets, make_net().requires_grad_(False), nn.ModuleList([nn.ReLU()])))


def _other_optimizer(optimizer, rng):
    net = make_net()
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    split = d.Split(torch.optim.Adam(d.split_groups(net), lr=0.1))
    return pick(rng, (sgd, split, make_optimizer(net), make_optimizer(make_net(6), 0)))


def _tensor(x, rng):
    dtypes = (
        torch.float16,
        torch.bfloat16,
        torch.float64,
        torch.complex64,
        torch.int64,
        torch.bool,
    )
    shapes = (
        lambda x: x[:0],
        lambda x: x[..., :0],
        lambda x: x.flatten(),
        lambda x: x[None],
        lambda x: x[..., None],
        lambda x: x[:-1],
        lambda x: x[..., :-1],
        lambda x: x.mT if x.ndim > 1 else x,
        lambda x: x.sum(),
        lambda x: x.numpy(),
        lambda x: x.tolist(),
        lambda x: x.to_sparse(),
        lambda x: x.to("meta"),
        lambda x: 0 * x,
    )
    way = rng.integers(4)
    if way == 0:
        return x.to(pick(rng, dtypes))
    if way == 1:
        return pick(rng, shapes)(x)
    x = x.float() if way == 2 else x.clone()
    if way == 2:
        return x * pick(rng, (1e30, 1e-30, -1.0, 1e38))
    if x.numel() and x.is_floating_point():
        x.view(-1)[rng.integers(x.numel())] = pick(rng, (np.nan, np.inf, -np.inf, 1e38, 1e-44))
    return x


def _other_ranking(ranking, rng):
    return ranking._replace(**{pick(rng, ranking._fields): pick(rng, ({}, None, [], 3))})


OTHERS = (
    (nn.Module, _other_net),
    (torch.optim.Optimizer, _other_optimizer),
    (torch.Tensor, _tensor),
    (ranking.Ranking, _other_ranking),
)

# ---- Checks of results -----------------------------------------------------------------------


def are_masks(masks, given):
    for mask in masks.values():
        assert mask.dtype == torch.bool


def density_is_met(masks, given):
    if isinstance(given["density"], float | int) and given["per_layer"] is False:
        kept, size = (sum(f(m) for m in masks.values()) for f in (torch.sum, torch.numel))
        assert kept / size <= given["density"] + 9 / size  # one unit at least


def is_prox(shrunk, given):
    v, lam = given["v"], float(given["lam"])
    torch.testing.assert_close(shrunk, torch.sign(v) * (v.abs() - lam).clamp(min=0))


def steered(**given):
    """Return the density after some steps under a target, and what was due."""
    optimizer = given["optimizer"]
    d.TargetDensity(**given)
    for _ in range(3):
        optimizer.step()
    return {k: m.float().mean() for k, m in d.support_masks(optimizer).items()}


def stepping(make):
    def function(**given):
        model = make_net()
        optimizer = stepped(make(model, **given), model, 1)
        return list(model.parameters()), list(optimizer.state.values())

    return function


def within(manager):
    def function(**given):
        with manager(**given):
            return None

    return function


def attached(kind):
    """Attach something to an optimizer, and take steps."""

    def function(**given):
        kind(**given)
        for _ in range(2):
            given["optimizer"].step()
        return [p.detach() for group in given["optimizer"].param_groups for p in group["params"]]

    return function


def drawn(function):
    def draw(**given):
        function(**given)
        plt.close("all")

    return draw


def saved(name):
    """Return a file of masks or of a net, in the working folder."""
    if name == "net.pt":
        d.save_compact(make_net(), name, {"width": 4})
    else:
        d.save_masks(world("masks")()["masks"], name)
    return name


def ones(*shape):
    return lambda: torch.linspace(-1, 1, int(np.prod(shape))).reshape(shape)

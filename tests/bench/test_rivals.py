"""The rivals of the ranking are their papers' equations, and reach the share that is asked for."""

import pytest
import torch
import vectors
from torch import nn
from torch.testing import assert_close

from benchmarks import rivals
from dslbi_torch.training.run import bregman, exchange


def layer_after(kind, gradients, lr=0.1, lam=0.05, density=0.5):
    """A layer after an optimizer's steps on given gradients, and where it began."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 3).double()
    groups = rivals.groups_of(layer, lam=lam)
    if density < 1:
        weights = {"weight": layer.weight}
        bregman.sparsify_(weights, density, torch.Generator().manual_seed(0))
    first = [p.detach().clone() for p in layer.parameters()]
    optimizer = kind(groups, lr)
    for step in zip(*gradients, strict=True):
        for p, g in zip(layer.parameters(), step, strict=True):
            p.grad = torch.as_tensor(g)
        optimizer.step()
    return layer, first


def some_gradients():
    return [list(vectors.gradients(shape, 7, i)) for i, shape in enumerate([(3, 4), (3,)])]


def test_linbreg_is_its_equations():
    gradients = some_gradients()
    layer, (W, b) = layer_after(bregman.LinBreg, gradients)
    v = W + 0.05 * W.sign()
    m_W, m_b = torch.zeros_like(W), torch.zeros_like(b)
    for g_W, g_b in zip(*gradients, strict=True):
        m_W, m_b = 0.9 * m_W + torch.as_tensor(g_W), 0.9 * m_b + torch.as_tensor(g_b)
        v, b = v - 0.1 * m_W, b - 0.1 * m_b
    assert_close(layer.weight.detach(), v.sign() * (v.abs() - 0.05).clamp(min=0))
    assert_close(layer.bias.detach(), b)


def test_linbreg_begins_on_the_sparse_weights():
    gradients = [torch.zeros(1, 3, 4).double(), torch.zeros(1, 3).double()]
    layer, (W, _) = layer_after(bregman.LinBreg, gradients)
    assert 0 < int((W == 0).sum()) < 12
    assert_close(layer.weight.detach(), W)


def test_adabreg_with_a_level_of_zero_is_adam():
    gradients = some_gradients()
    layer, first = layer_after(bregman.AdaBreg, gradients, lr=0.01, lam=0.0, density=1)
    same = [nn.Parameter(p.clone()) for p in first]
    adam = torch.optim.Adam(same, lr=0.01)
    for step in zip(*gradients, strict=True):
        for p, g in zip(same, step, strict=True):
            p.grad = torch.as_tensor(g)
        adam.step()
    for p, q in zip(layer.parameters(), same, strict=True):
        assert_close(p.detach(), q.detach())


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 5))


X = torch.randn(64, 30, generator=torch.Generator().manual_seed(0))
Y = X[:, :5].argmax(1)


def course(steps=60):
    def train(model, optimizer, generator, instead=None):
        for step in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(X), Y).backward()
            if instead is None or not instead(step):
                optimizer.step()

    return rivals.Course(train, steps, 3, torch.Generator().manual_seed(0), torch.randn(1, 30))


@pytest.mark.parametrize("layout", ["uniform", "erk"])
@pytest.mark.parametrize("density", [0.9, 0.2, 0.02])
def test_a_layout_has_the_share_of_the_whole_net(layout, density):
    weights = rivals.weights_of(net())
    shares = exchange.layer_densities(weights, density, layout)
    kept = sum(share * weights[name].numel() for name, share in shares.items())
    assert kept == pytest.approx(density * 1400)
    assert all(0 < share <= 1 for share in shares.values())


def test_erk_gives_small_layers_more():
    shares = exchange.layer_densities(rivals.weights_of(net()), 0.1, "erk")
    assert shares["2.weight"] / shares["0.weight"] == pytest.approx((45 / 200) / (70 / 1200))


SETTINGS = {
    "gradual": dict(lr=0.1, ramp=0.5),
    "linbreg": dict(lr=0.1, first=0.2, ramp=0.5),
    "adabreg": dict(lr=0.03, first=1.0, ramp=0.0),
    "rigl": dict(lr=0.1, layout="erk", scaled=True, every=10),
    "pat": dict(lr=0.1, warm=0.1, heal=0.7),
    "str": dict(lr=0.1, start=-5.0, decay=1e-3),
    "random": dict(lr=0.1, layout="uniform", scaled=True),
}


@pytest.mark.parametrize("name", rivals.RIVALS)
def test_a_rival_trains_the_share_that_is_asked_for(name):
    if name == "pat":
        pytest.importorskip("torchao", reason="PAT is torchao's")
    model, own = net(), course()
    masks = rivals.RIVALS[name](model, 0.2, own, **SETTINGS[name])
    weights = rivals.weights_of(model)
    assert masks.keys() == weights.keys()
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert 260 <= kept <= 281  # of 1,400; a layout rounds for each layer
    with torch.no_grad():
        for n, W in weights.items():
            W.mul_(masks[n])
        assert (model(X).argmax(1) == Y).float().mean() > 0.6  # by chance 0.2


def test_rigl_exchanges_weights_and_grows_them_from_zero():
    model = net()
    weights = rivals.weights_of(model)
    before = exchange.drawn_masks(weights, 0.2, "erk", torch.Generator().manual_seed(0))
    seen = []

    def train(model, optimizer, generator, instead):
        for step in range(3):
            optimizer.zero_grad()
            model(X).square().mean().backward()
            grown = {n: W.detach().clone() for n, W in weights.items()}
            if instead(step):
                seen.append({n: (grown[n], W.detach().clone()) for n, W in weights.items()})
            else:
                optimizer.step()

    own = rivals.Course(train, 3, 1, torch.Generator().manual_seed(0), None)
    settings = dict(lr=0.1, layout="erk", scaled=False, every=2, end=1.0)
    masks = rivals.rigl(model, 0.2, own, **settings)
    assert len(seen) == 1
    changed = 0
    for name, mask in masks.items():
        assert int(mask.sum()) == int(before[name].sum())
        old, new = seen[0][name]
        count = int((before[name] & ~mask).sum())
        changed += count
        gone = old.abs()[before[name] & ~mask]
        stays = old.abs()[before[name] & mask & (new != 0)]  # what is dropped may grow again
        assert count == 0 or gone.max() <= stays.min()
        assert bool((new[mask & ~before[name]] == 0).all())
    assert changed > 0


def test_the_threshold_of_str_is_soft_and_learned():
    unit = rivals.Threshold(-1.0)
    W = torch.tensor([-1.0, -0.1, 0.2, 0.9], requires_grad=True)
    t = torch.sigmoid(torch.tensor(-1.0)).item()
    out = unit(W)
    assert_close(out.detach(), torch.tensor([-1 + t, 0.0, 0.0, 0.9 - t]))
    out.sum().backward()
    assert_close(W.grad, torch.tensor([1.0, 0.0, 0.0, 1.0]))
    assert unit.s.grad is not None

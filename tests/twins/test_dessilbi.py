"""The DessiLBI update in NumPy and in PyTorch, in lockstep on the same gradients."""

import numpy as np
import pytest
import torch
import vectors
from one_tensor import gamma, group_gamma, step, step_

from dslbi_torch import DessiLBI
from dslbi_torch.routes import gaps

# One tensor of every kind: shape, and how it is split.
TENSORS = {
    "elements": ((4, 5), dict(penalty="l1")),
    "filters": ((4, 3, 2, 2), dict(penalty="group")),
    "channels": ((4, 3, 2, 2), dict(penalty="group", group_dim=1, weight="sqrt")),
    "kernels": ((4, 3, 2, 2), dict(penalty="group", group_dim=(0, 1), weight="sqrt")),
    "whole": ((3, 4), dict(penalty="group", group_dim=())),
    "bias": ((5,), dict(penalty=None)),
}

# Options of the optimizer; alpha is a function of the step.
OPTIONS = {
    "defaults": dict(),
    "no momentum": dict(momentum=0, dampening=0.5),  # dampening is then without effect
    "dampening": dict(dampening=0.5),
    "nesterov": dict(nesterov=True),
    "L2": dict(weight_decay=0.02, dampening=0.3),
    "L2, no momentum": dict(weight_decay=0.02, momentum=0),
    "decoupled": dict(weight_decay=0.02, decoupled=True),
    "inside": dict(coupling="inside"),
    "inside, no momentum": dict(coupling="inside", momentum=0, kappa=3.0),
    "inside, all": dict(coupling="inside", nesterov=True, weight_decay=0.02, decoupled=True),
    "levels": dict(kappa=0.5, nu=5.0, lam=1.5),
    "changing lr": dict(alpha=lambda k: 0.05 / (1 + k / 300)),
}


def reference_options(options):
    """The options of one tensor for ``step`` and for ``gamma`` of the reference."""
    shape = {k: options[k] for k in ("kappa", "lam", "group_dim", "weight") if k in options}
    shape["penalty"] = options["penalty"] or "l1"  # without effect where V is None
    rest = {k: v for k, v in options.items() if k not in (*shape, "alpha")}
    return shape, rest


class Lockstep:
    """Tensors trained by the reference and, in one or more dtypes, by the optimizer.

    ``options`` holds all options of each tensor, ``alpha`` among them.
    """

    def __init__(self, shapes, options, dtypes=(torch.float64,)):
        self.options = options
        self.W = {n: vectors.array(s, seed=i) for i, (n, s) in enumerate(shapes.items())}
        self.V = {n: None if o["penalty"] is None else 0 * self.W[n] for n, o in options.items()}
        self.m = dict.fromkeys(self.W)
        self.optimizers = [self.optimizer(dtype) for dtype in dtypes]
        self.k = 0

    def optimizer(self, dtype):
        groups = []
        for name, o in self.options.items():
            p = torch.nn.Parameter(torch.tensor(self.W[name], dtype=dtype))
            rest = {k: v for k, v in o.items() if k != "alpha"}
            groups.append(dict(params=[(name, p)], lr=o["alpha"](0), **rest))
        return DessiLBI(groups)

    def step(self, grads):
        for name, g in grads.items():
            shape, rest = reference_options(self.options[name])
            alpha = self.options[name]["alpha"](self.k)
            self.W[name], self.V[name], self.m[name] = step(
                self.W[name], self.V[name], self.m[name], g, alpha=alpha, **shape, **rest
            )
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                (name,), (p,) = group["param_names"], group["params"]
                group["lr"] = self.options[name]["alpha"](self.k)
                p.grad = torch.tensor(grads[name], dtype=p.dtype)
            optimizer.step()
        self.k += 1

    def check(self, close):
        """W, V, Gamma agree within the tolerance of the dtype, the support in float64 exactly."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                (name,), (p,) = group["param_names"], group["params"]
                dtype = str(p.dtype).removeprefix("torch.")
                close(p.detach(), self.W[name], dtype)
                if self.V[name] is None:
                    assert "V" not in optimizer.state[p]
                    continue
                V = optimizer.state[p]["V"]
                G = group_gamma(V, group).numpy()
                expected = gamma(self.V[name], **reference_options(self.options[name])[0])
                close(V, self.V[name], dtype)
                close(G, expected, dtype)
                if dtype == "float64":
                    np.testing.assert_array_equal(G != 0, expected != 0)

    def supports(self):
        return {
            n: (gamma(V, **reference_options(self.options[n])[0]) != 0)
            for n, V in self.V.items()
            if V is not None
        }


def run(lockstep, close, n_steps, every):
    """Step, compare, and return the names of the tensors whose support changed on the way."""
    shapes = [W.shape for W in lockstep.W.values()]
    streams = [vectors.gradients(shape, n_steps, seed=i) for i, shape in enumerate(shapes)]
    before, moved = lockstep.supports(), set()
    for k, grads in enumerate(zip(*streams, strict=True), start=1):
        lockstep.step(dict(zip(lockstep.W, grads, strict=True)))
        if k % every == 0:
            lockstep.check(close)
            now = lockstep.supports()
            moved |= {n for n in now if (now[n] != before[n]).any()}
            before = now
    return moved


SHAPES = {name: shape for name, (shape, _) in TENSORS.items()}


@pytest.mark.parametrize("options", OPTIONS)
def test_lockstep(close, options):
    """2,000 steps on injected gradients, both dtypes against the one reference."""
    common = dict(alpha=lambda k: 0.02, nu=2.0, lam=0.7) | OPTIONS[options]
    options = {name: {**common, **kind} for name, (_, kind) in TENSORS.items()}
    lockstep = Lockstep(SHAPES, options, (torch.float64, torch.float32))
    moved = run(lockstep, close, 2000, every=100)
    assert moved == set(SHAPES) - {"bias"}


def test_lockstep_with_different_options_in_every_group(close):
    options = {
        "elements": dict(alpha=lambda k: 0.02, lam=0.3, nu=1.0, nesterov=True),
        "filters": dict(alpha=lambda k: 0.01, kappa=2.0, nu=5.0, momentum=0),
        "channels": dict(alpha=lambda k: 0.03, dampening=0.2, weight_decay=0.01),
        "kernels": dict(alpha=lambda k: 0.02 if k < 300 else 0.002, coupling="inside", nu=0.5),
        "whole": dict(alpha=lambda k: 0.02, lam=2.0, nu=1.0),
        "bias": dict(alpha=lambda k: 0.01, weight_decay=0.1, decoupled=True),
    }
    options = {name: {**options[name], **kind} for name, (_, kind) in TENSORS.items()}
    assert run(Lockstep(SHAPES, options), close, 600, every=50) == set(SHAPES) - {"bias"}


def test_lockstep_in_pieces(close, monkeypatch):
    """Tensors larger than the processor's cache are stepped piece by piece: here every one is."""
    monkeypatch.setattr(gaps, "PIECE", 7)
    common = dict(alpha=lambda k: 0.02, nu=1.0, lam=0.5)
    options = {name: {**common, **kind} for name, (_, kind) in TENSORS.items()}
    assert run(Lockstep(SHAPES, options), close, 300, every=10)


@pytest.mark.parametrize("group_dim", [None, 0, 1, (0, 1), (1, 0), (1,), (-1,), -2, ()], ids=str)
def test_lockstep_of_a_large_tensor(close, group_dim):
    shapes = {"large": (70, 4000)}
    kind = dict(penalty="l1") if group_dim is None else dict(penalty="group", group_dim=group_dim)
    options = {"large": dict(alpha=lambda k: 0.2, nu=1.0, lam=1.0, **kind)}
    assert run(Lockstep(shapes, options), close, 4, every=1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", TENSORS)
def test_step_function(close, name, dtype):
    """The free function ``step_``, in place, without the optimizer around it."""
    shape, kind = TENSORS[name]
    options = dict(alpha=0.05, kappa=1.5, nu=2.0, lam=0.4, weight_decay=0.01) | kind
    split = options["penalty"] is not None
    options["penalty"] = options["penalty"] or "l1"
    W, V, m = vectors.array(shape, 1), vectors.array(shape, 2) if split else None, 0.0
    pW, pV, pm = (torch.tensor(x, dtype=dtype) for x in (W, 0 * W if V is None else V, 0 * W))
    pV = pV if split else None
    for grad in vectors.gradients(shape, 50):
        W, V, m = step(W, V, m, grad, **options)
        p_grad = torch.tensor(grad, dtype=dtype)
        before = p_grad.clone()
        step_(pW, pV, pm, p_grad, **options)
        torch.testing.assert_close(p_grad, before, rtol=0, atol=0)
    dtype = str(dtype).removeprefix("torch.")
    close(pW, W, dtype)
    close(pm, m, dtype)
    if split:
        close(pV, V, dtype)


def test_a_scheduler_is_a_function_alpha(close):
    """StepLR against the same steps as a function of k in the reference."""
    shape = (4, 5)
    W, V, m = vectors.array(shape), np.zeros(shape), None
    p = torch.nn.Parameter(torch.tensor(W))
    optimizer = DessiLBI([("w", p)], lr=0.05, nu=1.0, lam=0.5, penalty="l1")
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=40, gamma=0.3)
    for k, grad in enumerate(vectors.gradients(shape, 200)):
        W, V, m = step(W, V, m, grad, alpha=0.05 * 0.3 ** (k // 40), nu=1.0, lam=0.5)
        p.grad = torch.tensor(grad)
        optimizer.step()
        scheduler.step()
    close(p.detach(), W)
    close(optimizer.state[p]["V"], V)
    assert 0 < (gamma(V, lam=0.5) != 0).mean()


def test_maximize_is_the_opposite_gradient(close):
    shape = (4, 5)
    W, V, m = vectors.array(shape), np.zeros(shape), None
    p = torch.nn.Parameter(torch.tensor(W))
    optimizer = DessiLBI([p], lr=0.05, nu=1.0, lam=0.5, penalty="l1", maximize=True)
    for grad in vectors.gradients(shape, 100):
        W, V, m = step(W, V, m, -grad, alpha=0.05, nu=1.0, lam=0.5)
        p.grad = torch.tensor(grad)
        optimizer.step()
    close(p.detach(), W)
    close(optimizer.state[p]["V"], V)

"""What is said of a run in one line, without stopping it: a path too short, a loss at chance."""

import math
import warnings

import torch
from torch.nn import functional as F

from ...clock import forecast
from .evaluate import forward
from .initial_net import initial_net
from .optimizers import OPTIMIZERS
from .state import Run

FEW_STEPS = 40  # before so many steps a loss at chance says nothing


def outlook(run: Run) -> list[str]:
    """Return the warning of a run whose path cannot select anything, before its first step."""
    config = run.config
    if not config.splits or run.step:
        return []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        forecast(
            run.optimizer,
            config.epochs * run.steps_per_epoch,
            scheduler=run.scheduler,
            ramp=config.ramp if run.controller is not None else 0.0,
        )
    return [str(warning.message) for warning in caught]


def at_chance(run: Run, loss: float) -> list[str]:
    """Return a line on an epoch whose mean loss is that of a guess, with the safe step.

    The step ``kappa * lr``, over ``1 - momentum`` where there is one, is safe below
    ``2 / (L + 2 / nu)``, with L the largest curvature of the loss at the initial weights.
    """
    config, classes = run.config, len(run.data.classes)
    if loss < 0.995 * math.log(classes) or run.step < FEW_STEPS:
        return []
    try:
        L = _initial_curvature(run)
    except torch.OutOfMemoryError:  # it must not stop the run
        L = 0.0
    tie = 2 / config.nu if config.splits else 0.0
    words = "2 / (L + 2 / nu)" if config.splits else "2 / L"
    bound = 2 / (L + tie) if L + tie else math.inf
    kappa = config.kappa if config.splits and not config.split else 1.0
    gathered = config.momentum if "momentum" in OPTIMIZERS[config.optimizer].fields else 0.0
    step = "kappa * lr / (1 - momentum)" if gathered else "kappa * lr"
    return [
        f"the loss has stayed at chance in epoch {run.at.epoch}, to step {run.step}: its mean is "
        f"{loss:.4g}, a guess has {math.log(classes):.4g}; {step} must be small, got "
        f"{kappa * config.lr / (1 - gathered):.4g}, and is safe below {words} = "
        f"{bound:.3g} (L = {L:.3g} at the initial weights)"
    ]


def _initial_curvature(run, iterations=10, pictures=64):
    """The largest eigenvalue of the Hessian on a batch, in size, by power iteration."""
    config, device = run.config, run.processes.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model, _ = initial_net(config, run.data, device)
        x, y = next(iter(run.data.train.batches(pictures, torch.Generator().manual_seed(0))))
        params = [p for p in model.parameters() if p.requires_grad]
        loss = F.cross_entropy(forward(model.train(), x, config), y)
        grads = torch.autograd.grad(loss, params, create_graph=True)
        v = [torch.randn_like(p) for p in params]
        size = 0.0
        for _ in range(iterations):
            norm = torch.stack([x.square().sum() for x in v]).sum().sqrt()
            v = [x / norm for x in v]
            product = sum((g * x).sum() for g, x in zip(grads, v, strict=True))
            v = torch.autograd.grad(product, params, retain_graph=True)
            size = torch.stack([x.square().sum() for x in v]).sum().sqrt().item()
            if not 0 < size < math.inf:
                break
        return size

"""The optimizer of a config, and the course of its step: DessiLBI, and everything it is set beside.

===============  ==========================================================================
``optimizer``    what it is
===============  ==========================================================================
``dessilbi``     :class:`dslbi_torch.DessiLBI`
``sgd``          ``torch.optim.SGD`` with momentum, dampening, nesterov; l1 in the loss by ``l1``
``adam``         ``torch.optim.Adam``; ``amsgrad`` the same with ``amsgrad=True``
``adamw``        ``torch.optim.AdamW``; likewise ``adagrad``, ``adamax``, ``radam``, ``nadam``
``adabound``     of the package ``pytorch-optimizer``, with its default bounds
===============  ==========================================================================

With ``split`` any of them but the first is the base of :class:`dslbi_torch.Split`. Decay is on
weights alone, never on biases and norms, for all of them.
"""

import math

import torch
from torch import nn
from torch.optim import Optimizer

from ...dessilbi import DessiLBI
from ...groups import split_groups
from ...layers import LAYERS, NORM
from ...split import Split
from .. import config as configs
from ..config import Config


def make_optimizer(config: Config, model: nn.Module) -> Optimizer:
    """The optimizer of a config, with the weights of convolutions and linear layers split."""
    groups = groups_of(config, model)
    sgd = dict(momentum=config.momentum, dampening=config.dampening, nesterov=config.nesterov)
    if config.optimizer == "dessilbi":
        return DessiLBI(
            groups,
            config.lr,
            kappa=config.kappa,
            nu=config.nu,
            decoupled=config.decoupled,
            coupling=config.coupling,
            fused=config.fused or None,
            **sgd,
        )
    if not config.split:
        groups = [{key: group[key] for key in group if key in _PLAIN} for group in groups]
    base = _base(config.optimizer)(
        groups, lr=config.lr, **(sgd if config.optimizer == "sgd" else {})
    )
    if config.split:
        return Split(base, kappa=config.kappa, nu=config.nu)
    return base


def groups_of(config: Config, model: nn.Module) -> list[dict]:
    """The parameter groups of a config, with what it says of splitting them."""
    levels = configs.named_numbers("lam_named", config.lam_named)
    return split_groups(
        model,
        {name: {"lam": lam} for name, lam in levels.items()},
        conv=config.conv,
        linear=config.linear,
        lam={"conv": config.lam_conv, "linear": config.lam_linear},
        weight=config.weight,
        weight_decay=config.weight_decay,
    )


_PLAIN = ("params", "weight_decay")


def _base(name):
    """The class, or what makes an instance, of an optimizer that does not split."""
    if name == "amsgrad":
        return lambda groups, lr: torch.optim.Adam(groups, lr=lr, amsgrad=True)
    if name == "adabound":
        try:
            from pytorch_optimizer import AdaBound
        except ImportError:
            raise ValueError(
                "optimizer adabound needs the package pytorch-optimizer: "
                "pip install pytorch-optimizer"
            ) from None
        return AdaBound
    names = {"sgd": "SGD", "adamw": "AdamW", "radam": "RAdam", "nadam": "NAdam"}
    return getattr(torch.optim, names.get(name, name.capitalize()))


def l1_norm(model: nn.Module) -> torch.Tensor:
    """Sum of the absolute entries of all convolutions and linear layers: the term of SGD + l1."""
    return sum(m.weight.abs().sum() for m in model.modules() if isinstance(m, LAYERS))


def scale_norm(model: nn.Module) -> torch.Tensor:
    """Sum of the absolute scales of all BatchNorms: the term of Network Slimming."""
    return sum(m.weight.abs().sum() for m in model.modules() if isinstance(m, NORM))


def lr_factor(config: Config, step: int, steps_per_epoch: int) -> float:
    """What lr is multiplied by in step 0, 1, ... of the run: a function of the step alone."""
    warm = math.ceil(config.warmup * steps_per_epoch)
    if step < warm:
        return (step + 1) / (warm + 1)
    if config.schedule == "step":
        passed = sum(step >= epoch * steps_per_epoch for epoch in config.milestones)
        return config.factor**passed
    if config.schedule == "cosine":
        # Half a cosine from 1 in the first step after the warm-up towards the end of the last one;
        # never quite lr_min, because an optimizer refuses lr = 0.
        low = config.lr_min / config.lr
        steps = config.epochs * steps_per_epoch - warm
        done = min(step - warm, steps - 1)
        return low + (1 - low) * (1 + math.cos(math.pi * done / steps)) / 2
    return 1.0


def nu_factor(config: Config, step: int, steps_per_epoch: int) -> float:
    """What nu is multiplied by in step 0, 1, ... of the run: with ``nu_schedule`` lr what lr is,
    but for the warm-up.

    A constant nu lets the pull of a step, ``alpha (W - Gamma) / nu``, fade as lr falls, and outside
    the support the gradient then holds weights up: they settle at ``-nu g / (1 - momentum)``. With
    nu in proportion to lr the pull of a step is the same in the whole run, and that limit goes to
    zero: the run ends with W on Gamma's support. W and V move by the same pull at any nu, so
    ``W / kappa + V + sum alpha u`` stays constant.
    """
    if config.nu_schedule == "constant" or step < config.warmup * steps_per_epoch:
        return 1.0
    return lr_factor(config, step, steps_per_epoch)

"""The optimizer of a config, with its parameter groups, and the penalties that a loss may have.

Decay is on weights alone, never on biases and norms, for all optimizers.
"""

import torch
from torch import nn
from torch.optim import Optimizer

from ...groups import split_groups
from ...layers import LAYERS, NORM
from ...split import Split
from ..config import Config
from .bregman import sparsify_
from .optimizers import OPTIMIZERS


def make_optimizer(
    config: Config, model: nn.Module, example_input: torch.Tensor | None = None
) -> Optimizer:
    """Return the optimizer of a config, with the weights of convolutions and linear layers
    split; where it keeps them sparse, they are made so."""
    groups, row = groups_of(config, model, example_input), OPTIMIZERS[config.optimizer]
    if config.lr_biases != 1:
        groups = _with_lr_of_biases(config, groups)
    if config.sparse:
        generator = torch.Generator().manual_seed(config.seed)
        sparsify_(split_weights(groups), config.first_share, generator)
    elif not config.splits:
        keys = ("params", "weight_decay", "lr")
        groups = [{key: group[key] for key in keys if key in group} for group in groups]
    options = {name: getattr(config, name) for name in row.fields}
    if "fused" in options:
        options["fused"] = config.fused or None  # None: the optimizer chooses among its routes
    optimizer = row.make(groups, lr=config.lr, **options)
    return Split(optimizer, kappa=config.kappa, nu=config.nu) if config.split else optimizer


def groups_of(
    config: Config, model: nn.Module, example_input: torch.Tensor | None = None
) -> list[dict]:
    """Return the parameter groups of a config, with what it says of splitting them. The example is
    needed where channels are split."""
    return split_groups(
        model,
        {name: {"lam": lam} for name, lam in (config.lam_named or {}).items()},
        conv=config.conv,
        linear=config.linear,
        lam={"conv": config.lam_conv, "linear": config.lam_linear},
        weight=config.weight,
        outputs=True,
        example_input=example_input,
        weight_decay=config.weight_decay,
        apart=bool(config.release_power or config.per_layer or config.at_least or config.cost),
    )


def split_weights(groups: list[dict]) -> dict[str, torch.Tensor]:
    """Return by name the tensors of parameter groups that have a penalty."""
    return {name: W for group in groups if group["penalty"] for name, W in group["params"]}


def _with_lr_of_biases(config, groups):
    """The groups, with what has one axis (biases and norms) in groups of its own lr."""
    weights, biases = [], []
    for group in groups:
        for found, factor in ((weights, 1), (biases, config.lr_biases)):
            own = [(name, p) for name, p in group["params"] if (p.ndim == 1) == (found is biases)]
            if own:
                found.append(group | {"params": own, "lr": factor * config.lr})
    return weights + biases


def weights_l1(model: nn.Module) -> torch.Tensor:
    """Return the sum of the absolute entries of all convolutions and linear layers: the term of
    SGD + l1."""
    return sum(m.weight.abs().sum() for m in model.modules() if isinstance(m, LAYERS))


def scales_l1(model: nn.Module) -> torch.Tensor:
    """Return the sum of the absolute scales of all BatchNorms: the term of Network Slimming."""
    return sum(m.weight.abs().sum() for m in model.modules() if isinstance(m, NORM))

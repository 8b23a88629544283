"""The optimizers of the laboratory by name: a row is all that a new one needs.

===============  ==========================================================================
``optimizer``    what it is
===============  ==========================================================================
``dessilbi``     :class:`dslbi_torch.DessiLBI`
``sgd``          ``torch.optim.SGD`` with momentum, dampening, nesterov; l1 in the loss by ``l1``
``adam``         ``torch.optim.Adam``; ``amsgrad`` the same with ``amsgrad=True``
``adamw``        ``torch.optim.AdamW``; likewise ``adagrad``, ``adamax``, ``radam``, ``nadam``
``adabound``     of the package ``pytorch-optimizer``, with its default bounds
``linbreg``      linearized Bregman iterations, whose weights are sparse themselves; ``adabreg``
                 the same with the steps of Adam
===============  ==========================================================================

With ``split`` any of them but the first and the last two is the base of
:class:`dslbi_torch.Split`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch.optim import Optimizer

from ...dessilbi import DessiLBI
from ...optional import brought_by
from .bregman import AdaBreg, LinBreg


class OptimizerRow(NamedTuple):
    """How an optimizer is made, and which fields of a config it takes besides lr and decay."""

    make: Callable[..., Optimizer]  # of parameter groups, lr, and the fields
    fields: tuple[str, ...] = ()
    splits: bool = False  # by itself: it takes no Split around it
    sparse: bool = False  # its weights are: it has levels, but no path, and takes no Split either


def _adabound(groups, lr):
    with brought_by("train", "optimizer adabound"):
        from pytorch_optimizer import AdaBound
    return AdaBound(groups, lr=lr)


_MOMENTUM = ("momentum", "dampening", "nesterov")
OPTIMIZERS = {
    "dessilbi": OptimizerRow(
        DessiLBI, (*_MOMENTUM, "kappa", "nu", "decoupled", "coupling", "fused"), True
    ),
    "sgd": OptimizerRow(torch.optim.SGD, _MOMENTUM),
    "adam": OptimizerRow(torch.optim.Adam),
    "adamw": OptimizerRow(torch.optim.AdamW),
    "amsgrad": OptimizerRow(partial(torch.optim.Adam, amsgrad=True)),
    "adagrad": OptimizerRow(torch.optim.Adagrad),
    "adamax": OptimizerRow(torch.optim.Adamax),
    "radam": OptimizerRow(torch.optim.RAdam),
    "nadam": OptimizerRow(torch.optim.NAdam),
    "adabound": OptimizerRow(_adabound),
    "linbreg": OptimizerRow(LinBreg, ("momentum",), sparse=True),
    "adabreg": OptimizerRow(AdaBreg, ("momentum",), sparse=True),
}

"""The private names of torch that this package counts on, all in one place.

A new torch may move or change them; what breaks then breaks here. Each has been in torch since 2.4
or longer, and torch's own layers and optimizers are built from it.
"""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.optim.optimizer import (
    Optimizer,
    _default_to_fused_or_foreach,
    _use_grad_for_differentiable,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

# The classes of which all convolutions, transposed ones and batch norms are.
Convolution, TransposedConvolution, BatchNorm = _ConvNd, _ConvTransposeNd, _BatchNorm

OperationMode = TorchDispatchMode
leaves = tree_leaves
TensorTable = WeakIdKeyDictionary  # of tensors as such, not of their values

fused_sgd_ = torch._fused_sgd_
foreach_add = torch._foreach_add
foreach_add_ = torch._foreach_add_
foreach_clamp_max_ = torch._foreach_clamp_max_
foreach_clamp_min = torch._foreach_clamp_min
foreach_div_ = torch._foreach_div_
foreach_mul = torch._foreach_mul
foreach_mul_ = torch._foreach_mul_
foreach_neg = torch._foreach_neg
foreach_sub = torch._foreach_sub

use_grad_for_differentiable = _use_grad_for_differentiable


def foreach_pays(tensors) -> bool:
    """Return whether torch.optim would step these tensors in lists by default."""
    return _default_to_fused_or_foreach(tensors, False)[1]


def by_device_and_dtype(tensors):
    """Return, for each device and dtype, the places of its tensors in a list."""
    cut = Optimizer._group_tensors_by_device_and_dtype([tensors], with_indices=True)
    return {place: indices for place, (_, indices) in cut.items()}


def before_other_hooks(optimizer, handle) -> None:
    """Let a post-step hook be called before those that were registered earlier."""
    optimizer._optimizer_step_post_hooks.move_to_end(handle.id, last=False)


def version(x) -> int:
    """Return how often a tensor has been written to."""
    return x._version


def convert_tensors(module: nn.Module, convert) -> nn.Module:
    """Replace, in place, every parameter and buffer of a module by ``convert`` of it."""
    return module._apply(convert)


def undecorated_step(optimizer):
    """Return the step of an optimizer without torch's profiler and hooks around it."""
    return type(optimizer).step.__wrapped__.__wrapped__

"""What an optimizer splits: names, duals, Gamma and its support. For masks, paths and figures."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from .dessilbi import GAMMA_OPTIONS, gamma
from .penalties import group_scale
from .tensors import dual_dtype


def named(i: int, group: dict) -> list[tuple[str, Tensor]]:
    """Name and tensor of the parameters of an optimizer's group ``i``."""
    names = group.get("param_names") or [f"group{i}.{j}" for j in range(len(group["params"]))]
    return list(zip(names, group["params"], strict=True))


def split_tensors(optimizer: Optimizer) -> list[tuple[str, Tensor, Tensor, dict]]:
    """``(name, W, V, group)`` of every tensor that the optimizer splits, V zero before its first
    step.

    Names come from ``named_parameters()``; tensors given without one are called
    ``group<i>.<j>``. An optimizer that splits nothing is refused. Of a sharded parameter, W and V
    are DTensors.
    """
    if hasattr(optimizer, "consolidate_state_dict"):
        raise ValueError(
            f"the duals of a {type(optimizer).__name__} lie on several processes: "
            "pass its attribute optim for those of this one"
        )
    found = []
    for i, group in enumerate(optimizer.param_groups):
        if group.get("penalty") is None:
            continue
        for name, p in named(i, group):
            V = optimizer.state.get(p, {}).get("V")
            if V is None:
                V = torch.zeros_like(p, dtype=dual_dtype(p), requires_grad=False)
            found.append((name, p, V, group))
    if not found:
        raise ValueError('the optimizer splits nothing: no group has penalty "l1" or "group"')
    return found


def group_gamma(V: Tensor, group: dict) -> Tensor:
    """Gamma of a tensor with the settings of its parameter group."""
    options = {key: group[key] for key in GAMMA_OPTIONS}
    if V.is_complex():
        return torch.view_as_complex(gamma(torch.view_as_real(V), **options))
    return gamma(V, **options)


def selected(V: Tensor, group: dict) -> Tensor:
    """Whether Gamma is non-zero: per entry for l1, per group (with axes of length 1) for group.

    A group is selected as a whole, also where single entries of it happen to be zero.
    """
    if group["penalty"] == "l1":
        if V.is_complex():  # its two parts are shrunk one by one
            return (torch.view_as_real(V).abs() > group["lam"]).any(-1)
        return V.abs() > group["lam"]
    keys = ("lam", "group_dim", "weight")
    return group_scale(V, **{key: group[key] for key in keys}) > 0

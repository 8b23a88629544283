"""What an option may be. Each refusal is one line, in torch's words where torch has some."""

import math
import numbers

import numpy as np
import torch
from torch import Tensor

from .arguments import check_count, shown
from .penalties import PENALTIES, one_of
from .slices import by_family, check_units, units_of
from .state import dual_dtype


def plain(group: dict) -> dict:
    """Return options with Python's numbers in the place of NumPy's, which no checkpoint takes."""

    def python(value):
        if isinstance(value, tuple | list):
            return type(value)(map(python, value))
        return value.item() if isinstance(value, np.generic) else value

    return {key: x if key == "params" else python(x) for key, x in group.items()}


def _float(value):
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except OverflowError:  # of a long integer
        return math.inf if value > 0 else -math.inf


def _check_number(name, value, low, *, strict, high=math.inf):
    """Refuse a value outside (low, high) or [low, high), NaN included, and what is no number."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (real or isinstance(value, Tensor)):
        raise ValueError(f"{name} must be a number, got {shown(value)}")
    number = _float(value)
    if not ((low < number if strict else low <= number) and number < high):
        want = "positive and finite" if strict else f"at least {low} and finite"
        if high < math.inf:
            want = f"in [{low}, {high})"
        known = _TORCH_WORDS.get(name)  # what torch.optim says, where it has the option
        raise ValueError(
            f"{known}: {value} (must be {want})" if known else f"{name} must be {want}, got {value}"
        )


_TORCH_WORDS = {
    "lr": "Invalid learning rate",
    "momentum": "Invalid momentum value",
    "weight_decay": "Invalid weight_decay value",
}


def _check_flags(group, *names):
    for name in names:
        if not isinstance(group[name], bool):
            raise ValueError(f"{name} must be True or False, got {group[name]!r}")


def check_group(group):
    """Refuse options of a group that no step could be made with."""
    _check_flags(group, "decoupled", "nesterov", "maximize", "capturable", "differentiable")
    for name in ("foreach", "fused"):
        if not isinstance(group[name], bool | None):
            raise ValueError(f"{name} must be True, False or None, got {group[name]!r}")
    if isinstance(group["lr"], Tensor) and group["lr"].numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if group["foreach"] and group["fused"]:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
    if group["fused"] and group["differentiable"]:
        raise RuntimeError("`fused` does not support `differentiable`")
    if group["foreach"] and group["differentiable"]:
        raise RuntimeError("`foreach` does not support `differentiable`")
    _check_number("lr", group["lr"], 0, strict=True)
    check_splitting(group)
    for name in ("momentum", "dampening"):
        _check_number(name, group[name], 0, strict=False, high=1)
    _check_number("weight_decay", group["weight_decay"], 0, strict=False)
    if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
        raise ValueError("Nesterov momentum requires a momentum and zero dampening")
    if group["coupling"] not in ("outside", "inside"):
        raise ValueError(f'coupling must be "outside" or "inside", got {group["coupling"]!r}')


def check_splitting(group):
    """Refuse options that say how W is coupled to Gamma and cannot be."""
    for name in ("kappa", "nu", "lam"):
        _check_number(name, group[name], 0, strict=True)
    word = group["penalty"]
    if word is not None and not (isinstance(word, str) and word in PENALTIES):
        raise ValueError(f"penalty must be None, {one_of()}, got {word!r}")
    row = PENALTIES.get(word)
    dims = group["group_dim"]
    for d in dims if isinstance(dims, tuple | list) else (dims,):
        if not isinstance(d, numbers.Integral) or isinstance(d, bool):
            raise ValueError(f"group_dim must be an integer or a tuple of them, got {dims!r}")
    for name in ("block", "parts"):
        check_count(name, group[name])
    weight = group["weight"]
    if not (weight is None or (isinstance(weight, str) and weight == "sqrt")):
        raise ValueError(f'weight must be None or "sqrt", got {shown(weight)}')
    _check_flags(group, "joint")
    for name, alone in (("block", 1), ("parts", 1), ("joint", False)):
        if group[name] != alone and not (row and row.sliced):
            raise ValueError(f"{name} needs a penalty of slices, got penalty {word!r}")


def check_tensors(group):
    """Refuse tensors that cannot be stepped, or cannot carry the penalty of their group."""
    names = list(group.get("param_names") or range(len(group["params"])))
    sliced = group["penalty"] is not None and PENALTIES[group["penalty"]].sliced
    for name, p in zip(names, group["params"], strict=True):
        if not (p.is_floating_point() or p.is_complex()):
            raise ValueError(f"parameter {name} must have a floating dtype, got {p.dtype}")
        if group["fused"] and not (p.is_floating_point() and _has_kernel(p.device.type)):
            raise RuntimeError(
                "`fused=True` requires all the params to be floating point Tensors of supported "
                f"devices: ['cuda'], got parameter {name} of {p.dtype} on {p.device}"
            )
        _check_steps(group, name, p)
        if group["penalty"] is None:
            continue
        if getattr(p, "_fsdp_flattened", False):  # of the older FSDP: a cut of a flat vector
            if sliced:
                raise ValueError(
                    f"parameter {name} must keep its shape to carry groups, got a flattened one: "
                    "shard with torch.distributed.fsdp.fully_shard, or use l1"
                )
            continue
        if p.ndim == 0 or p.numel() == 0:
            raise ValueError(
                f"parameter {name} of shape {tuple(p.shape)} cannot carry the penalty "
                f'"{group["penalty"]}": it needs at least one axis and one entry'
            )
        dims = group["group_dim"]
        if (
            sliced
            and p.is_complex()
            and min((dims,) if isinstance(dims, int) else dims, default=0) < 0
        ):
            raise ValueError(
                f"group_dim of the complex parameter {name} must not be negative, got {dims}"
            )
    if sliced:
        rows = list(zip(group["params"], names, strict=True))
        for family in filter(None, by_family(rows, group)):
            check_units(*map(list, zip(*family, strict=True)), units_of(group))


def _check_steps(group, name, p):
    """Refuse steps and levels that the dtype of a parameter, or that of its V, does not hold."""
    lr, kappa, nu, lam = (_float(group[key]) for key in ("lr", "kappa", "nu", "lam"))
    decay = _float(group.get("weight_decay", 0.0))
    dual = dual_dtype(p)
    steps = {"lr": (lr, p.dtype), "kappa * lr": (kappa * lr, p.dtype)}
    steps["kappa * lr * weight_decay"] = kappa * lr * decay, p.dtype
    if group["penalty"] is not None:
        steps |= {"lr / nu": (lr / nu, dual), "1 / nu": (1 / nu, dual), "kappa": (kappa, dual)}
        steps["lam"] = lam, dual
    for what, (size, dtype) in steps.items():
        if size > torch.finfo(dtype).max:
            raise ValueError(
                f"{what} must be a number that {dtype} holds, got {size:g} for parameter {name}"
            )


def _has_kernel(device_type):
    if device_type == "cuda":
        return True
    from .routes import kernel  # it loads triton

    return device_type == "cpu" and kernel.INTERPRETED

"""What an argument may be: a number, a word, a flag, a tensor, a net, an optimizer, a file.

What is not is refused in one line that names it, with the value. Twin of ``dslbi_ref/checks.py``;
options of parameter groups are in :mod:`dslbi_torch.options`.
"""

import math
import numbers
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

MOST = 2**31 - 1  # what is counted: steps, units, channels


def shown(value) -> str:
    """Return a value as a short text of one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---- Numbers, words, flags -------------------------------------------------------------------


def check_number(name: str, value, low=-math.inf, high=math.inf, *, open_at: str = "") -> float:
    """Return a finite number in [low, high] as a float; ``open_at`` holds "low", "high" or both."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if not isinstance(value, numbers.Real) or isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be a number, got {shown(value)}")
    try:
        number = float(value)
    except OverflowError:  # of a long integer
        number = math.inf
    above = low < number if "low" in open_at else low <= number
    below = number < high if "high" in open_at else number <= high
    if not (above and below and math.isfinite(number)):
        raise ValueError(f"{name} must be {_interval(low, high, open_at)}, got {shown(value)}")
    return number


def _interval(low, high, open_at):
    if high == math.inf:
        kinds = {
            -math.inf: "finite",
            0: "positive and finite" if open_at else "at least 0 and finite",
        }
        if low in kinds:
            return kinds[low]
    left = "(" if "low" in open_at or low == -math.inf else "["
    right = ")" if "high" in open_at or high == math.inf else "]"
    return f"in {left}{low:g}, {high:g}{right}"


def check_level(lam, x: Tensor) -> float:
    """Return a penalty level, at least 0, that the dtype of x holds."""
    return check_number("lam", lam, 0, torch.finfo(x.dtype).max)


def check_held(name: str, x: Tensor, result: Tensor) -> Tensor:
    """Return what was computed of x; refuse an overflow, which looks at the result."""
    if not bool(result.isfinite().all()) and bool(x.isfinite().all()):
        size = float(x.abs().max())
        raise ValueError(f"{name} must be of a size that {x.dtype} holds, got entries of {size:g}")
    return result


def check_count(name: str, value, least: int = 1, most: int = MOST) -> int:
    """Return a whole number of Python or NumPy, from ``least`` to ``most``, as an int."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not (whole and value >= least):
        raise ValueError(f"{name} must be an integer of at least {least}, got {shown(value)}")
    if value > most:
        raise ValueError(f"{name} must be an integer of at most {most:,}, got {shown(value)}")
    return int(value)


def check_flag(name: str, value) -> bool:
    """Return True or False; refuse what is neither."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def check_axes(group_dim) -> tuple[int, ...]:
    """Return axes as a tuple of ints, from one or a tuple of them, of whatever range."""
    dims = tuple(group_dim) if isinstance(group_dim, tuple | list) else (group_dim,)
    for d in dims:
        if not isinstance(d, numbers.Integral) or isinstance(d, bool):
            raise ValueError(
                f"group_dim must be an integer or a tuple of them, got {shown(group_dim)}"
            )
    return tuple(int(d) for d in dims)


# ---- Objects ---------------------------------------------------------------------------------


def check_kind(name: str, value, kind, what: str):
    """Return an object of a class (a callable, if ``kind`` is ``callable``); ``what`` names it."""
    if not (callable(value) if kind is callable else isinstance(value, kind)):
        raise ValueError(f"{name} must be {what}, got {shown(value)}")
    return value


def check_model(model, name: str = "model") -> nn.Module:
    """Return a net; refuse what is none."""
    return check_kind(name, model, nn.Module, "a torch.nn.Module")


def check_optimizer(optimizer) -> Optimizer:
    """Return an optimizer, or what wraps one; refuse what is none."""
    if not (isinstance(optimizer, Optimizer) or hasattr(optimizer, "param_groups")):
        raise ValueError(f"optimizer must be a torch optimizer, got {shown(optimizer)}")
    return optimizer


def check_tensor(name: str, x, *, floating: bool = True) -> Tensor:
    """Return a dense tensor that holds its numbers, floating ones unless said otherwise."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a tensor, got {shown(x)}")
    if x.layout != torch.strided or x.is_meta:
        kind = "one on the meta device" if x.is_meta else f"a {x.layout} one"
        raise ValueError(f"{name} must be a dense tensor that holds its numbers, got {kind}")
    if floating and not x.is_floating_point():
        raise ValueError(f"{name} must have a floating dtype, got {x.dtype}")
    return x


def check_list(name: str, values) -> list:
    """Return the entries of an iterable as a list; a text is none."""
    try:
        if not isinstance(values, str | bytes):
            return list(values)
    except TypeError:
        pass
    raise ValueError(f"{name} must be a sequence, got {shown(values)}")


def check_file(file) -> Path:
    """Return a path; a number is none, though Python would take it for a stream that is open."""
    if not isinstance(file, str | os.PathLike) or not os.fspath(file):
        raise ValueError(f"file must be a path, got {shown(file)}")
    return Path(file)

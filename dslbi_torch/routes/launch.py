"""The kernel over a list of tensors: what it can take, and the launch of a step.

Triton is asked for when the module is imported; where it is missing, :func:`why_not` says so.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from . import kernel
from .kernel_tables import FLAT_TILES, ROW_TILES, Table, block_rows, mismatch, tensor_rows

# What the step depends on, and the penalties whose squared norms are carried from step to step.
OPTIONS = ("alpha", "kappa", "nu", "lam", "penalty", "group_dim", "weight", "momentum")
OPTIONS += ("dampening", "weight_decay", "decoupled", "nesterov", "coupling")
CARRIES_NORMS = ("group",)


class Unsupported(ValueError):
    """Lists that the fused step cannot take."""


def why_not(
    Ws: list[Tensor],
    Vs: list[Tensor] | None,
    ms: list[Tensor] | None,
    grads: list[Tensor],
    norms: list[Tensor] | None = None,
    *,
    penalty: str | None = "l1",
    group_dim: int | tuple[int, ...] = 0,
) -> str | None:
    """Return why :func:`step_` cannot take these lists, in one line; None if it can."""
    if kernel.triton is None:
        return "the fused step needs triton, which is not installed"
    if not Ws:
        return None
    device, dtype = Ws[0].device, Ws[0].dtype
    if device.type != "cuda" and not (device.type == "cpu" and kernel.INTERPRETED):
        return f"the fused step needs tensors on a GPU, got {device}"
    if device.type == "cuda" and not _triton_runs_on(device):
        return f"the fused step needs a GPU of compute capability 7.0 or later, got {device}"
    if dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        return f"the fused step needs a real floating dtype, got {dtype}"
    if penalty == "group" and (group_dim not in (0, (0,)) or not all(W.ndim for W in Ws)):
        return f"the fused step needs groups along dimension 0, got group_dim {group_dim}"
    dual = torch.promote_types(dtype, torch.float32)
    lists = [("W", Ws, dtype), ("gradient", grads, dtype)]
    if ms is not None:
        lists.append(("momentum buffer", ms, dtype))
    if penalty is not None:
        lists.append(("V", Vs, dual))
    if penalty == "group" and norms is not None:
        lists.append(("vector of norms", norms, dual))
    return mismatch(Ws, lists)


@cache
def _triton_runs_on(device):
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (7, 0)


def step_(
    Ws: list[Tensor],
    Vs: list[Tensor] | None,
    ms: list[Tensor] | None,
    grads: list[Tensor],
    norms: list[Tensor] | None,
    *,
    alpha: float | Tensor,
    kappa: float = 1.0,
    nu: float = 100.0,
    lam: float = 1.0,
    penalty: str | None = "l1",
    group_dim: int | tuple[int, ...] = 0,
    weight: str | None = None,
    momentum: float = 0.9,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    nesterov: bool = False,
    coupling: str = "outside",
    maximize: bool = False,
    table: Table | None = None,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    refresh: bool = False,
) -> None:
    """Step a list of tensors, in place: :func:`dslbi_torch.dessilbi.step_` in one launch.

    Parameters
    ----------
    Ws, Vs, ms, grads : lists of tensors
        As :func:`why_not` wants them: one device, one dtype, contiguous; V float32 beside half
        precision. Vs is None for penalty None, ms is None without momentum. Arithmetic is done in
        the dtype of V and rounded once. The first step of a tensor has m = 0 and dampening 0.
    norms : list of tensors, or None
        For penalty "group": per tensor the squared norms ||V_g||^2, one per slice along dimension
        0, contiguous, in the dtype of V. Zeros beside V = 0; after any other change of V (loading
        it) they must be made by :func:`norms_` with the settings of the step. lam, kappa and all
        else may change freely.
    alpha : float or one-element tensor
        A tensor on the device of W is read by the kernel, so that a captured graph follows it.
    table : Table
        What is kept of this list between steps; give every list its own. Nothing is allocated or
        uploaded as long as addresses, shapes and settings stay.
    grad_scale, found_inf : one-element tensors, or None
        As in the fused optimizers of torch: gradients are divided by grad_scale, and nothing is
        written where found_inf is not 0.
    refresh : bool
        Make ``norms`` from V and do nothing else.

    Raises
    ------
    Unsupported
        With the reason of :func:`why_not`, before anything is written. It is asked when addresses
        or gradients' layouts change, not at every step.
    """
    if not Ws:
        return
    table = Table() if table is None else table
    group, device, dtype = penalty == "group", Ws[0].device, Ws[0].dtype
    dual = torch.promote_types(dtype, torch.float32)
    lists = Ws, Vs if penalty else None, ms, grads, norms if group else None
    columns = [[0] * len(Ws) if x is None else [t.data_ptr() for t in x] for x in lists]
    shapes = [W.shape for W in Ws]
    key = group, group_dim, shapes, columns, [(g.dtype, g.stride()) for g in grads]
    if table.tensors.key != (device, key):  # what stands at the same addresses was checked before
        reason = why_not(Ws, Vs, ms, grads, norms, penalty=penalty, group_dim=group_dim)
        if reason is None and group and norms is None:
            reason = 'the fused step needs norms for penalty "group", got None'
        if reason:
            raise Unsupported(reason)
    blocks = table.blocks((shapes, group), device, lambda: block_rows(shapes, group))
    if not len(blocks):
        return
    tensors = table.tensors(key, device, lambda: tensor_rows(shapes, columns, group, dual.itemsize))
    on_device = isinstance(alpha, Tensor) and alpha.device == device
    settings = (1.0 if on_device else float(alpha), kappa, 1 / nu, lam)
    settings += (momentum, 1 - dampening, weight_decay)
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel._kernel[(len(blocks),)](
            blocks,
            tensors,
            table.settings(settings, device, lambda: torch.tensor(settings, dtype=torch.float64)),
            alpha if on_device else None,
            None if grad_scale is None else grad_scale.to(device, non_blocking=True),
            None if found_inf is None else found_inf.to(device, non_blocking=True),
            int(refresh),
            TILES=ROW_TILES if group else FLAT_TILES,
            TYPE=getattr(kernel.tl, str(dtype).removeprefix("torch.")),
            DUAL=getattr(kernel.tl, str(dual).removeprefix("torch.")),
            PENALTY=penalty,
            WEIGHT=weight,
            MOMENTUM=ms is not None,
            NESTEROV=nesterov,
            COUPLING=coupling,
            DECAY=None if not weight_decay else "decoupled" if decoupled else "l2",
            MAXIMIZE=maximize,
            num_warps=4,
            enable_fp_fusion=False,  # bits must not depend on what a compiler fuses
        )
    if not refresh:
        increment_version(Ws)  # a backward pass through the old W must still be refused


def norms_(
    Ws: list[Tensor],
    Vs: list[Tensor],
    ms: list[Tensor] | None,
    grads: list[Tensor],
    norms: list[Tensor],
    **options,
) -> None:
    """Make ``norms`` from V, to the bits that a run of :func:`step_` would have carried here.

    It takes what the next step takes, and runs the same compiled kernel, which leaves all but the
    norms alone: another kernel might sum a row in another order.
    """
    step_(Ws, Vs, ms, grads, norms, **options, refresh=True)


def bytes_per_parameter(
    dtype: torch.dtype, *, penalty: str | None = "l1", momentum: float = 0.9
) -> int:
    """Return the bytes that a step moves for one parameter.

    W, V and m are read and written once, and the gradient is read once.
    """
    split = 2 * torch.promote_types(dtype, torch.float32).itemsize if penalty else 0
    return 3 * dtype.itemsize + (2 * dtype.itemsize if momentum else 0) + split

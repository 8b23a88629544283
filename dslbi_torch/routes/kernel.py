"""The DessiLBI step in one pass over memory: one Triton launch for a whole list of tensors.

A step does about ten operations per element, so its time is the bytes it moves. SGD with momentum
reads W, m and the gradient and writes W and m: 20 bytes per float32 parameter. DessiLBI must read
and write V as well: 28 bytes, 1.4 times as much, and no more, because Gamma is a function of V. For
l1 it is recomputed element by element. For groups it needs ||V_g|| of the old V before the first
element of the group is touched; the squared norm is therefore carried from step to step, one scalar
per group: read at the start of the pass, and summed anew from the V that the pass writes.

A program owns whole groups, and sums each in one fixed order: no atomics, no second pass, the same
bits in every run. :func:`norms_` makes the carried norms from V with the same compiled kernel, so
that a resumed run goes on bit for bit. Triton comes with the CUDA builds of torch; where it is
missing this module still imports, and :func:`why_not` says so.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from .kernel_tables import FLAT_TILES, ROW_TILES, Table, block_rows, mismatch, tensor_rows

try:
    import triton
    import triton.language as tl
    from triton import jit
except ImportError:
    triton = None

    def jit(function=None, **_):
        return function or jit


@jit
def _at(base, i, WIDE: tl.constexpr):
    """Pointers ``base + i``; the compiler is told when words of WIDE elements are aligned."""
    pointers = base + i
    if WIDE > 1:
        pointers = tl.multiple_of(
            pointers, (1, WIDE * base.dtype.element_ty.primitive_bitwidth // 8)
        )
    return pointers


@jit
def _tile(
    blocks,
    tensors,
    settings,
    alpha,
    grad_scale,
    found_inf,
    refresh,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    WIDE: tl.constexpr,
    TYPE: tl.constexpr,
    DUAL: tl.constexpr,
    PENALTY: tl.constexpr,
    WEIGHT: tl.constexpr,
    MOMENTUM: tl.constexpr,
    NESTEROV: tl.constexpr,
    COUPLING: tl.constexpr,
    DECAY: tl.constexpr,
    MAXIMIZE: tl.constexpr,
):
    """One step of ROWS rows of one tensor; only their norms, of V as it is, if ``refresh``."""
    block = blocks + 2 * tl.program_id(0)
    entry = tensors + 8 * tl.load(block).to(tl.int64)
    first = tl.load(block + 1).to(tl.int64) * ROWS
    W = tl.load(entry).to(tl.pointer_type(TYPE))
    V = tl.load(entry + 1).to(tl.pointer_type(DUAL))
    m = tl.load(entry + 2).to(tl.pointer_type(TYPE))
    G = tl.load(entry + 3).to(tl.pointer_type(TYPE))
    norms = tl.load(entry + 4).to(tl.pointer_type(DUAL))
    numel = tl.load(entry + 5)
    n_cols = tl.load(entry + 6) if PENALTY == "group" else COLS
    origin = first * n_cols
    row = tl.arange(0, ROWS)[:, None]
    col = tl.arange(0, COLS)[None, :]
    # Within a tile 32 bits are enough: several rows are held only of short ones.
    i = row * tl.minimum(n_cols, 65536).to(tl.int32) + col

    live = refresh == 0
    if found_inf is not None:
        live = live & (tl.load(found_inf) == 0)
    reached = live | (refresh != 0)  # V and the norms are also read for a refresh

    # Settings are multiplied in float64 and rounded once, as Python floats are for torch.
    a = tl.load(settings) if alpha is None else tl.load(alpha).to(tl.float64)
    kappa = tl.load(settings + 1)
    inv_nu = tl.load(settings + 2)
    lam = tl.load(settings + 3)
    momentum = tl.load(settings + 4).to(DUAL)
    undamped = tl.load(settings + 5).to(DUAL)
    decay = tl.load(settings + 6)

    if grad_scale is not None:
        inv_scale = 1 / tl.load(grad_scale).to(DUAL)
    if PENALTY == "group":
        norms = norms + first + row
        inside = row * n_cols < tl.where(reached, numel - origin, 0)
        squared = tl.load(norms, mask=inside, other=0)
        if WEIGHT == "sqrt":
            lam = lam * tl.sqrt(n_cols.to(tl.float64))
        scale = 1 - lam.to(DUAL) / tl.sqrt(tl.where(squared == 0, 1, squared))
        # not a maximum, which would lose NaN; a group of norm 0 is below every threshold
        scale = tl.where((squared == 0) | (scale < 0), 0, scale)
        total = tl.zeros((ROWS, COLS), DUAL)

    for start in range(0, n_cols, COLS):
        here = origin + start
        in_row = col < tl.minimum(n_cols - start, COLS).to(tl.int32)
        left = tl.minimum(numel - here, ROWS * 65536).to(tl.int32)
        read = in_row & (i < tl.where(reached, left, 0))
        mask = in_row & (i < tl.where(live, left, 0))
        if WIDE > 1:
            read = tl.max_constancy(read, (1, WIDE))
            mask = tl.max_constancy(mask, (1, WIDE))
        w = tl.load(_at(W + here, i, WIDE), mask=mask, other=0).to(DUAL)
        g = tl.load(_at(G + here, i, WIDE), mask=mask, other=0).to(DUAL)
        if grad_scale is not None:
            g = g * inv_scale
        if MAXIMIZE:
            g = -g
        if DECAY == "l2":
            g = g + decay.to(DUAL) * w

        if PENALTY is not None:
            v = tl.load(_at(V + here, i, WIDE), mask=read, other=0)
            if PENALTY == "l1":
                level = lam.to(DUAL)
                prox = tl.where(v > level, v - level, tl.where(v < -level, v + level, 0 * v))
            else:
                prox = scale * v  # (prox-group)
            gap = w - kappa.to(DUAL) * prox  # (dslbi-gamma)
            if COUPLING == "inside":
                g = g + inv_nu.to(DUAL) * gap
            v_new = v + (a * inv_nu).to(DUAL) * gap  # (dslbi-v)
            tl.store(_at(V + here, i, WIDE), v_new, mask=mask)
            if PENALTY == "group":
                v_new = tl.where(mask, v_new, v)
                total = total + v_new * v_new

        if MOMENTUM:
            mu = tl.load(_at(m + here, i, WIDE), mask=mask, other=0).to(DUAL)
            mu = momentum * mu + undamped * g  # (dslbi-m)
            tl.store(_at(m + here, i, WIDE), mu.to(TYPE), mask=mask)
            g = g + momentum * mu if NESTEROV else mu

        w_new = w - (kappa * a).to(DUAL) * g  # (dslbi-w)
        if DECAY == "decoupled":
            w_new = w_new - (kappa * a * decay).to(DUAL) * w
        if PENALTY is not None:
            if COUPLING == "outside":
                w_new = w_new - (kappa * a * inv_nu).to(DUAL) * gap
        tl.store(_at(W + here, i, WIDE), w_new.to(TYPE), mask=mask)

    if PENALTY == "group":
        tl.store(norms, tl.sum(total, axis=1, keep_dims=True), mask=inside)


@jit(do_not_specialize=["refresh"])
def _kernel(
    blocks,
    tensors,
    settings,
    alpha,
    grad_scale,
    found_inf,
    refresh,
    TILES: tl.constexpr,
    TYPE: tl.constexpr,
    DUAL: tl.constexpr,
    PENALTY: tl.constexpr,
    WEIGHT: tl.constexpr,
    MOMENTUM: tl.constexpr,
    NESTEROV: tl.constexpr,
    COUPLING: tl.constexpr,
    DECAY: tl.constexpr,
    MAXIMIZE: tl.constexpr,
):
    """One program per entry of ``blocks``; the tensor says which tile its rows want."""
    tensor = tl.load(blocks + 2 * tl.program_id(0)).to(tl.int64)
    tile = tl.load(tensors + 8 * tensor + 7)
    for k in tl.static_range(len(TILES)):
        if tile == k:
            _tile(
                blocks,
                tensors,
                settings,
                alpha,
                grad_scale,
                found_inf,
                refresh,
                TILES[k][0],
                TILES[k][1],
                TILES[k][2],
                TYPE,
                DUAL,
                PENALTY,
                WEIGHT,
                MOMENTUM,
                NESTEROV,
                COUPLING,
                DECAY,
                MAXIMIZE,
            )


INTERPRETED = triton is not None and not isinstance(_kernel, triton.JITFunction)


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
    """Why :func:`step_` cannot take these lists, in one line; None if it can."""
    if triton is None:
        return "the fused step needs triton, which is not installed"
    if not Ws:
        return None
    device, dtype = Ws[0].device, Ws[0].dtype
    if device.type != "cuda" and not (device.type == "cpu" and INTERPRETED):
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
    """One DessiLBI iteration of a list of tensors, in place: :func:`dslbi_torch.dessilbi.step_`.

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
        _kernel[(len(blocks),)](
            blocks,
            tensors,
            table.settings(settings, device, lambda: torch.tensor(settings, dtype=torch.float64)),
            alpha if on_device else None,
            None if grad_scale is None else grad_scale.to(device, non_blocking=True),
            None if found_inf is None else found_inf.to(device, non_blocking=True),
            int(refresh),
            TILES=ROW_TILES if group else FLAT_TILES,
            TYPE=getattr(tl, str(dtype).removeprefix("torch.")),
            DUAL=getattr(tl, str(dual).removeprefix("torch.")),
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

    Takes what the next step takes, and runs its compiled kernel with everything but the norms left
    alone: another kernel might sum a row in another order.
    """
    step_(Ws, Vs, ms, grads, norms, **options, refresh=True)


def bytes_per_parameter(
    dtype: torch.dtype, *, penalty: str | None = "l1", momentum: float = 0.9
) -> int:
    """Bytes that a step moves for one parameter: W, V, m in and out once, the gradient in once."""
    split = 2 * torch.promote_types(dtype, torch.float32).itemsize if penalty else 0
    return 3 * dtype.itemsize + (2 * dtype.itemsize if momentum else 0) + split

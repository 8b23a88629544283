"""The DessiLBI step in one pass over memory: one Triton launch for a whole list of tensors.

A step does about ten operations per element, so its time is the bytes it moves. SGD with momentum
reads W, m and the gradient and writes W and m: 20 bytes per float32 parameter. DessiLBI must read
and write V as well: 28 bytes, 1.4 times as much, and no more, because Gamma is a function of V. For
l1 it is recomputed element by element. For groups it needs ||V_g|| of the old V before the first
element of the group is touched; the squared norm is therefore carried from step to step, one scalar
per group: read at the start of the pass, and summed anew from the V that the pass writes.

A program owns whole groups, and sums each in one fixed order: no atomics, no second pass, the same
bits in every run. ``refresh`` makes the carried norms from V with the same compiled kernel, so that
a resumed run goes on bit for bit. Triton comes with the CUDA builds of torch; where it is missing
this module still imports. :mod:`dslbi_torch.routes.launch` calls the kernel.
"""

from __future__ import annotations

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

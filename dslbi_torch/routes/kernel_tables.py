"""What the fused step knows of a list of tensors: addresses, shapes and settings, on the device.

One launch serves a whole list, so the kernel finds its tensors through a table in device memory.
It is made on the host and uploaded without synchronisation, and only when something has changed.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import Parameter

# Rows and columns that a program holds at a time, and how many elements may be moved as one word.
# A program of a group penalty owns whole rows and walks their columns, so rows come in three
# lengths; without groups a tensor is cut into pieces. The second of a pair is for addresses or
# sizes that are no multiples of a word.
ROW_TILES = ((1, 1024, 4), (1, 512, 1), (4, 256, 4), (4, 128, 1), (16, 32, 1))
FLAT_TILES = ((1, 1024, 4), (1, 1024, 1))


@cache
def tiling(shape, group):
    """Return the number of entries, the length of a row, its first tile, the number of blocks."""
    numel = shape.numel()
    if not group or not numel:
        return numel, 0, 0, -(-numel // FLAT_TILES[0][1])
    length = numel // shape[0]
    tile = 4 if length <= ROW_TILES[4][1] else 2 if length <= ROW_TILES[2][1] else 0
    return numel, length, tile, -(-shape[0] // ROW_TILES[tile][0])


def block_rows(shapes, group):
    """Return, for every block, its tensor and its number there: shape (blocks, 2)."""
    counts = torch.tensor([tiling(shape, group)[3] for shape in shapes])
    tensor = torch.repeat_interleave(counts)
    number = torch.arange(len(tensor)) - (counts.cumsum(0) - counts)[tensor]
    return torch.stack([tensor, number], 1).int()


def tensor_rows(shapes, columns, group, itemsize):
    """Return five addresses, size, length of a row and tile of every tensor: shape (tensors, 8).

    ``itemsize`` is that of the widest of W, V, m and grad.
    """
    rows = []
    for shape, *addresses in zip(shapes, *columns, strict=True):
        numel, length, tile, _ = tiling(shape, group)
        wide = (ROW_TILES if group else FLAT_TILES)[tile][2]
        if (length if group else numel) % wide or any(a % (wide * itemsize) for a in addresses[:4]):
            tile += 1
        rows.append((*addresses, numel, length, tile))
    return torch.tensor(rows)


def mismatch(Ws, lists):
    """Return why lists of ``(name, tensors, dtype)`` do not fit the Ws, in one line, or None."""
    device = Ws[0].device
    for name, tensors, dtype in lists:
        if tensors is None or len(tensors) != len(Ws):
            return f"the fused step needs one {name} for every W"
        rows = name == "vector of norms"
        for W, t in zip(Ws, tensors, strict=True):
            if type(t) is not Tensor and type(t) is not Parameter:
                return f"the fused step needs plain tensors, a {name} is a {type(t).__name__}"
            if t.layout != torch.strided:
                return f"the fused step needs dense tensors, a {name} is {t.layout}"
            shape = W.shape[:1] if rows else W.shape
            if (t.dtype, t.device, t.shape) != (dtype, device, shape):
                want = f"{dtype} of shape {tuple(shape)} on {device}"
                found = f"{t.dtype} of shape {tuple(t.shape)} on {t.device}"
                return f"the fused step needs a {name} as {want}, got {found}"
            # channels_last keeps the slices along dimension 0 contiguous, and is as good
            if not ((rows or W.is_contiguous()) and t.is_contiguous()) and not _channels_last(t, W):
                return f"the fused step needs W and {name} contiguous, in the same layout"
    return None


def _channels_last(*tensors):
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    form = formats.get(tensors[0].ndim)
    return form is not None and all(t.is_contiguous(memory_format=form) for t in tensors)


class Mirror:
    """A small tensor on the device, made anew only when its key changes.

    It is uploaded from pinned memory without synchronisation. While a CUDA graph is captured the
    upload becomes a part of the graph, repeated at every replay: what it reads and writes is kept,
    and the pinned memory was set aside before, since capture allows no such allocation.
    """

    def __init__(self):
        self.key = self.tensor = self.spare = None
        self.kept = []

    def __call__(self, key, device, make):
        capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        if (device, key) == self.key:
            if capturing:
                self.kept.append(self.tensor)
            return self.tensor
        values = make()
        if device.type != "cuda":
            self.key, self.tensor = (device, key), values
            return values
        host = self.spare if capturing else None
        if host is None or host.shape != values.shape:
            host = torch.empty_like(values, pin_memory=True)
        tensor = host.copy_(values).to(device, non_blocking=True)
        if capturing:
            self.spare = None
            self.kept.append((host, tensor))
            return tensor  # holds nothing before the first replay: not for a step outside
        self.key, self.tensor = (device, key), tensor
        if self.spare is None or self.spare.shape != values.shape:
            self.spare = torch.empty_like(values, pin_memory=True)
        return tensor


class Table:
    """What the kernel knows of one list of tensors, kept on the device between its steps.

    It holds addresses, shapes and settings, no state: a copy or a pickle of it is empty. It must
    outlive the CUDA graphs that were captured with it.
    """

    def __init__(self):
        self.blocks, self.tensors, self.settings = Mirror(), Mirror(), Mirror()

    def __reduce__(self):
        return Table, ()

"""What of a net must stay together: indices of axes, related by what a forward pass does with them.

Every index of every axis of every parameter is an *atom*, a whole number. An axis of a tensor is
described by the atoms of its indices (an array), by None (its indices are places, tokens or
examples, which cannot be cut), or by FREE (it was expanded or filled, and takes any size). What a
forward pass does relates atoms in three ways:

========  ==========================================================================
Same      two axes meet (added, multiplied, contracted): their indices stay or go together
Product   an axis is read as a grid: what stays of it is a grid too (heads times dimensions)
Read      a layer needs an input where an output that stays has a weight for it
========  ==========================================================================

So what must stay is the least set of atoms that holds what is needed and is closed under all
relations, and it is found by going to and fro through them. Nothing is multiplied out: a relation
is as large as the axes that it relates, a Read as the weights of its layer.
"""

import time
from typing import NamedTuple

import numpy as np

FREE = "free"
MOST = 2**24  # indices of an axis that are followed
SECONDS = 300  # that a graph may take
MIXED = (
    "what their readers are given depends on the input or on the place all the same: another "
    "activation is added or mixed in, or a constant is padded on the way (which is 0 with the "
    "masks of whole_filters)"
)


class Same(NamedTuple):
    """Two axes whose indices stay or go in pairs."""

    a: np.ndarray
    b: np.ndarray

    def grow(self, kept):
        """Keep the partners of what is kept."""
        both = kept[self.a] | kept[self.b]
        kept[self.a[both]] = True
        kept[self.b[both]] = True


class Product(NamedTuple):
    """An axis, and those that it is the grid of; of a sub-axis that is None everything stays."""

    flat: np.ndarray
    sizes: tuple[int, ...]
    subs: tuple

    def grow(self, kept):
        """Keep the rows of what is kept, and the grid of the rows that are."""
        grid = kept[self.flat].reshape(self.sizes)
        stays = np.ones(self.sizes, dtype=bool)
        for d, sub in enumerate(self.subs):
            if sub is None:
                continue
            rest = tuple(i for i in range(len(self.sizes)) if i != d)
            kept[sub[grid.any(rest)]] = True
            shape = [1] * len(self.sizes)
            shape[d] = -1
            stays &= kept[sub].reshape(shape)
        kept[self.flat[stays.ravel()]] = True


class Read:
    """What a contraction needs: ``needed[o, i]`` says whether output o has to do with input i."""

    def __init__(self, outs, ins, needed):
        self.outs, self.ins, self.needed, self.seen = outs, ins, needed, -1

    def grow(self, kept):
        """Keep the inputs that outputs which are kept have to do with."""
        rows = np.ones(len(self.needed), dtype=bool) if self.outs is None else kept[self.outs]
        count = int(rows.sum())
        if count != self.seen:
            self.seen = count
            kept[self.ins[self.needed[rows].any(0)]] = True


class Relations:
    """Atoms and their relations, in the order of the forward pass.

    Attributes
    ----------
    pins : list of (array, str)
        Atoms that stay in any case, and why.
    """

    def __init__(self):
        self.count, self.steps, self.pins, self.start = 0, [], [], time.monotonic()
        self._grids = {}

    def fresh(self, n: int) -> np.ndarray:
        """Return n new atoms."""
        self.count += n
        return np.arange(self.count - n, self.count)

    def equate(self, a, b) -> None:
        """Let two axes stay or go together."""
        if a is not b and not np.array_equal(a, b):
            self.steps.append(Same(a, b))

    def pin(self, axis, reason: str) -> None:
        """Let an axis stay in any case."""
        if isinstance(axis, np.ndarray):
            self.pins.append((axis, reason))

    def join(self, axes, reason: str):
        """Return the axis that axes of equal sizes are together."""
        atoms = [axis for axis in axes if isinstance(axis, np.ndarray)]
        if not atoms:
            return FREE if all(axis is FREE for axis in axes) else None
        for other in atoms[1:]:
            self.equate(atoms[0], other)
        if any(axis is None for axis in axes):
            self.pin(atoms[0], reason)
        return atoms[0]

    def split(self, axis, sizes: tuple[int, ...]) -> list:
        """Return the axes of a grid that an axis is read as."""
        if not isinstance(axis, np.ndarray) or len(sizes) == 1:
            return [axis] * len(sizes)
        if (known := self._grids.get((axis.tobytes(), sizes))) is not None:
            return list(known)
        grid = axis.reshape(sizes)
        varies = [bool((grid != grid.take([0], d)).any()) for d in range(len(sizes))]
        if sum(varies) <= 1:  # rows that are all alike are places
            first = [np.s_[:] if v else 0 for v in varies]
            return [grid[tuple(first)] if v else None for v in varies]
        subs = [self.fresh(n) if v else None for n, v in zip(sizes, varies, strict=True)]
        self._keep_grid(axis, sizes, subs)
        return subs

    def merge(self, axes: list, sizes: tuple[int, ...], reason: str):
        """Return the axis that the axes of a grid are together."""
        if len(axes) == 1:
            return axes[0]
        held = [d for d, axis in enumerate(axes) if isinstance(axis, np.ndarray)]
        size = int(np.prod(sizes))
        if not held or size > MOST:
            for d in held:
                self.pin(axes[d], reason)
            return FREE if axes and all(axis is FREE for axis in axes) else None
        if len(held) == 1:
            shape = [1] * len(sizes)
            shape[held[0]] = -1
            return np.broadcast_to(axes[held[0]].reshape(shape), sizes).reshape(-1)
        key = tuple(a.tobytes() if isinstance(a, np.ndarray) else None for a in axes), sizes
        if key not in self._grids:
            flat = self.fresh(size)
            self._grids[key] = flat
            self._keep_grid(flat, sizes, [a if isinstance(a, np.ndarray) else None for a in axes])
        return self._grids[key]

    def _keep_grid(self, flat, sizes, subs):
        self._grids[flat.tobytes(), sizes] = tuple(subs)
        key = tuple(None if sub is None else sub.tobytes() for sub in subs), sizes
        self._grids.setdefault(key, flat)
        self.steps.append(Product(flat, sizes, tuple(subs)))

    def close(self, kept: np.ndarray, *, reads: bool = True) -> np.ndarray:
        """Let what is kept grow, in place, until it is closed under the relations."""
        steps = [step for step in self.steps if reads or not isinstance(step, Read)]
        for step in steps:
            if isinstance(step, Read):
                step.seen = -1
        count = -1
        while count != (count := int(kept.sum())):
            for step in (*reversed(steps), *steps):
                step.grow(kept)
            self.check_time()
        return kept

    def classes(self, more=()) -> np.ndarray:
        """Return, for every atom, the least one that is the same as it, ``more`` being so too."""
        least = np.arange(self.count)
        pairs = [step for step in self.steps if isinstance(step, Same)] + list(more)
        changed = True
        while changed:
            before = least.copy()
            for a, b in (*pairs, *reversed(pairs)):
                low = np.minimum(least[a], least[b])
                np.minimum.at(least, a, low)
                np.minimum.at(least, b, low)
            changed = (before != least).any()
            self.check_time()
        return least

    def check_time(self) -> None:
        """Give up a graph that takes too long."""
        if time.monotonic() - self.start > SECONDS:
            raise ValueError(f"its graph is given up after {SECONDS} seconds")

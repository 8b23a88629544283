"""What enters as one: a label for every entry, the same for all entries of a unit.

A unit is a single entry, a slice of an array, several slices that belong together, or the same
slice of several arrays. A *family* is the list of the arrays that share units: one array alone, or
joint arrays whose k-th slices are one unit. However a unit is described, it becomes an integer for
every entry, and nothing that follows asks where the integers come from.
"""

from numbers import Integral
from typing import NamedTuple

import numpy as np

from .checks import check_integer, shown


class Units(NamedTuple):
    """How a family falls into units.

    Attributes
    ----------
    group_dim : int, tuple of int, or None
        Axes whose slices are units: ``0`` a filter or neuron, ``(0, 1)`` a kernel, ``()`` the whole
        array; None: every entry by itself.
    block : int >= 1
        So many consecutive slices are one unit: a head of an attention layer.
    parts : int >= 1
        The axis is cut into so many equal parts first, and the k-th blocks of all parts are one
        unit: the queries, keys and values of a head in one array.
    weight : None or "sqrt"
        A unit counts once, or by the square root of its number of entries.
    groups : int array, optional
        A label for each slice along the single axis ``group_dim``, instead of blocks: slices of one
        label are one unit. Units are in the order of the labels.
    """

    group_dim: int | tuple[int, ...] | None = 0
    block: int = 1
    parts: int = 1
    weight: str | None = None
    groups: np.ndarray | None = None


def labels(xs, units):
    """Label every entry 0, 1, ..., in one integer array for each array of the family.

    Parameters
    ----------
    xs : list of ndarray
        A family.
    units : Units

    Returns
    -------
    labels : list of int ndarray, of the shapes of xs
    count : int
        Number of units; those without an entry count too.

    Raises
    ------
    ValueError
        An axis that an array lacks, labels that do not fit the slices, a ``block`` or ``parts``
        that does not divide the axis, joint arrays of different numbers of units.
    """
    if units.group_dim is None:
        found, count = [], 0
        for x in xs:
            found.append(count + np.arange(x.size).reshape(x.shape))
            count += x.size
        return found, count
    found = [_labels_of_one(x, units) for x in xs]
    counts = [count for _, count in found]
    if len(set(counts)) > 1:
        raise ValueError(f"joint arrays must have equally many units, got {counts}")
    return [label for label, _ in found], counts[0]


def _labels_of_one(x, units):
    """Return the labels of one array whose units are slices, and their number."""
    if units.groups is not None and x.ndim == 0:
        raise ValueError("groups must label the entries along an axis, got an array without one")
    axes = slice_axes(x.ndim, units.group_dim)
    if units.groups is not None:
        along, count = _renumbered(x, units)
    elif type(units.block) is type(units.parts) is int and units.block == units.parts == 1:
        lengths = [x.shape[d] for d in axes]
        count = int(np.prod(lengths, dtype=int))
        along = np.arange(count).reshape(lengths)
    else:
        along, count = _blocks(x, axes, units)
    others = tuple(d for d in range(x.ndim) if d not in axes)
    return np.broadcast_to(np.expand_dims(along, others), x.shape), count


def slice_axes(ndim, group_dim):
    """Return the axes of ``group_dim`` in increasing order, counted from the front."""
    dims = tuple(group_dim) if isinstance(group_dim, tuple | list) else (group_dim,)
    for d in dims:
        if not (isinstance(d, Integral) and -ndim <= d < ndim):
            raise ValueError(f"group_dim must name axes of a {ndim}-d array, got {group_dim!r}")
    return tuple(sorted({d % ndim for d in dims}))


def _renumbered(x, units):
    """Return the given labels of the slices, renumbered 0, 1, ... in their order."""
    groups = np.asarray(units.groups)
    if not np.isscalar(units.group_dim):
        raise ValueError(f"groups label the slices along one axis group_dim, got {units.group_dim}")
    n = x.shape[units.group_dim]
    if groups.shape != (n,) or not np.issubdtype(groups.dtype, np.integer):
        raise ValueError(
            f"groups must be {n} integer labels, got {groups.dtype} of shape {groups.shape}"
        )
    names, along = np.unique(groups, return_inverse=True)
    return along, len(names)


def _blocks(x, axes, units):
    """Label blocks of slices: the k-th blocks of all parts are one unit."""
    block = check_integer("block", units.block, 1)
    parts = check_integer("parts", units.parts, 1)
    if len(axes) != 1:
        raise ValueError(f"block and parts need one axis group_dim, got {units.group_dim}")
    n = x.shape[axes[0]]
    if n % (block * parts):
        raise ValueError(
            f"block * parts must divide the {n} slices of an axis, got {block} * {parts}"
        )
    count = n // parts // block
    return np.arange(n) % (n // parts) // block, count


def unit_sizes(labels, count):
    """Return the number of entries of each unit, (count,)."""
    return sum(np.bincount(label.ravel(), minlength=count) for label in labels)


def unit_weights(labels, count, weight):
    """Return what each unit counts: 1, or the square root of its size (``weight="sqrt"``)."""
    if weight is None:
        return np.ones(count)
    if not (isinstance(weight, str) and weight == "sqrt"):
        raise ValueError(f'weight must be None or "sqrt", got {shown(weight)}')
    return np.sqrt(unit_sizes(labels, count))


def norms(xs, labels, count):
    """Return the Euclidean norm of each unit over all arrays of the family, (count,)."""
    squares = (
        np.bincount(label.ravel(), np.square(x, dtype=np.float64).ravel(), minlength=count)
        for x, label in zip(xs, labels, strict=True)
    )
    return np.sqrt(sum(squares))

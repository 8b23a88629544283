"""Rows of a long path over many entries: what cannot be computed again is kept, the rest is not.

A path of 300 events over 100,000 entries fills 0.24 GB for each of z and gamma. But gamma is zero
nearly everywhere, and z is the integral of a flow that gamma determines.
"""

import numpy as np
import scipy.sparse as sp

# A path over more entries than this is packed; below, its rows are small beside the data.
MANY = 20_000


class PackedRows:
    """An array (T, m), indexed by rows, that is held without being filled.

    Parameters
    ----------
    stored : scipy.sparse.csr_array (T, m)
        What is kept.
    compute : callable ``k -> ndarray (len(k), m)``, optional
        The rows k, in which the stored entries are overwritten. Default: zero where not stored.
    """

    ndim = 2

    def __init__(self, stored, compute=None):
        self.stored, self.compute, self.shape = stored, compute, stored.shape

    def __getitem__(self, k):
        """Return rows as an ndarray; k is an integer, a slice, or an array of indices."""
        place = np.arange(self.shape[0])[k]
        rows = np.ravel(place)
        kept = self.stored[rows]
        if self.compute is None:
            dense = kept.toarray()
        else:
            dense = self.compute(rows)
            dense[np.repeat(np.arange(len(rows)), np.diff(kept.indptr)), kept.indices] = kept.data
        return dense.reshape(*np.shape(place), self.shape[1])

    def __matmul__(self, v):
        """Return the product with v, (m,), a few rows at a time."""
        if self.compute is None:
            return self.stored @ v
        return np.concatenate([self[k : k + 8] @ v for k in range(0, self.shape[0], 8)])

    def __truediv__(self, scale):
        """Return the rows with each column divided by its scale, (m,); they are stored whole."""
        return PackedRows(sp.csr_array(self.stored * (1 / scale)))

    def first(self):
        """Return the number of the first row in which each column is stored, (m,); T if in none."""
        T, m = self.shape
        first = np.full(m, T)
        row = np.repeat(np.arange(T), np.diff(self.stored.indptr))
        np.minimum.at(first, self.stored.indices, row)
        return first


def columns(rows, j):
    """Return the flat columns j, (T, len(j)), of rows that are an ndarray or stored whole."""
    if isinstance(rows, PackedRows):
        return rows.stored[:, j].toarray()
    return rows.reshape(len(rows), -1)[:, j]


class RowsField:
    """A field of a dataclass: given as an ndarray or as PackedRows, read as an ndarray.

    ``vars(instance)`` holds the form that was given, until the field is read: then it is filled.
    """

    def __init__(self, **default):
        self.default = default

    def __set_name__(self, owner, name):
        self.name = name

    def __set__(self, instance, value):
        vars(instance)[self.name] = value

    def __get__(self, instance, owner=None):
        if instance is None:  # a dataclass asks for the default
            if not self.default:
                raise AttributeError(f"{self.name} has no default")
            return self.default["default"]
        value = vars(instance)[self.name]
        if isinstance(value, PackedRows):
            value = vars(instance)[self.name] = value[:]
        return value


class Events:
    """The events of an exact path, one by one, dense or packed.

    Parameters
    ----------
    dual : callable ``(t, gamma, intercept) -> (k -> rows k of z)``, or None
        Integrates the flow again, with gamma a csr_array. With it the path is packed: gamma where
        it is not zero, z where it has met the boundary, for there a flow may have been held back.
    """

    def __init__(self, dual):
        self.dual, self.rows, self.met = dual, [], False

    def keep(self, t, z, gamma, intercept):
        """Keep an event; of two that are closer than times can tell only the later one."""
        if self.rows and t <= self.rows[-1][0]:
            self.rows.pop()
        if self.dual is not None:
            self.met = self.met | (np.abs(z) == 1.0)
            z, gamma = ((j, row[j]) for j, row in ((self.met.nonzero()[0], z), _support(gamma)))
        self.rows.append((t, z, gamma, intercept))

    def parts(self, m):
        """Return t, z, gamma and the intercepts (or None) of all events, with m entries each."""
        t, z, gamma, intercept = zip(*self.rows, strict=True)
        t, intercept = np.array(t), None if intercept[0] is None else np.array(intercept)
        if self.dual is None:
            return t, np.array(z), np.array(gamma), intercept
        z, gamma = _stacked(z, m), _stacked(gamma, m)
        return t, PackedRows(z, self.dual(t, gamma, intercept)), PackedRows(gamma), intercept


def _support(row):
    return row.nonzero()[0], row


def _stacked(rows, m):
    """Return rows, each (indices, entries), as a csr_array with m columns."""
    indices, data = (np.concatenate(part) for part in zip(*rows, strict=True))
    ends = np.concatenate([[0], np.cumsum([len(j) for j, _ in rows])])
    return sp.csr_array((data, indices, ends), shape=(len(rows), m))


def area(t, gamma):
    """Return the time integral of step rows gamma (csr, (T, m)) up to each t, as a csr_array."""
    support = np.unique(gamma.indices)
    steps = np.diff(t)[:, None] * gamma[:-1, support].toarray()
    sums = sp.coo_array(np.concatenate([np.zeros((1, len(support))), np.cumsum(steps, axis=0)]))
    return sp.csr_array((sums.data, (sums.row, support[sums.col])), shape=gamma.shape)

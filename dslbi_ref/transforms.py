"""The transform D of Split LBI, as scipy.sparse.csr_array: the structure that D beta makes sparse.

Sign convention: a difference is "next minus current" along the axis, "head minus tail" along an
edge, as in numpy.diff. The kernel of D holds the signals that the penalty leaves alone.

    identity      kernel {0}                          sparse entries
    differences   constants                           piecewise constant signals
    grid          constants                           piecewise constant images (total variation)
    graph         constants on connected components   clusters of nodes
    trend         polynomials of degree <= order      piecewise polynomials
"""

import numpy as np
import scipy.sparse as sp

from .checks import MOST_ENTRIES, check_integer, real, shown


def identity(p):
    """Return the identity, (p, p)."""
    return sp.eye_array(check_integer("p", p, 1), format="csr")


def differences(p):
    """Return first differences, (p - 1, p): row i is ``beta[i + 1] - beta[i]``."""
    return trend(p, 0)


def trend(p, order):
    """Return trend filtering of order k, (p - k - 1, p): the differences of order k + 1.

    Order 0 favours piecewise constant signals, 1 piecewise linear, 2 piecewise quadratic ones.
    """
    order = check_integer("order", order, 0, 1000)
    p = check_integer("p", p, order + 2)
    D = sp.eye_array(p, format="csr")
    for size in range(p, p - order - 1, -1):
        step = sp.diags_array([-1.0, 1.0], offsets=[0, 1], shape=(size - 1, size))
        D = step @ D
    return sp.csr_array(D)


def grid(shape):
    """Return the differences of neighbours on a grid, axis after axis: its total variation.

    Parameters
    ----------
    shape : tuple of int >= 1
        ``D @ x.ravel()`` holds ``np.diff(x, axis=a).ravel()`` for a = 0, 1, ... of an array of this
        shape (C order). An axis of length 1 has no rows.
    """
    shape = [check_integer("shape", s, 1) for s in np.atleast_1d(np.asarray(shape, dtype=object))]
    if np.prod(shape, dtype=object) > MOST_ENTRIES:
        raise ValueError(f"shape must be of at most {MOST_ENTRIES:,} points, got {tuple(shape)}")
    if max(shape, default=1) < 2:
        raise ValueError(f"shape must have an axis of length 2 or more, got {tuple(shape)}")
    blocks = []
    for axis, length in enumerate(shape):
        if length > 1:
            before = sp.eye_array(int(np.prod(shape[:axis], dtype=int)))
            after = sp.eye_array(int(np.prod(shape[axis + 1 :], dtype=int)))
            blocks.append(sp.kron(sp.kron(before, differences(length)), after))
    return sp.csr_array(sp.vstack(blocks))


def graph(edges, n_nodes, weights=None):
    """Return weighted differences along edges: row e, of (tail, head), is w_e (head - tail).

    Parameters
    ----------
    edges : int array (m, 2)
        Pairs of different nodes in 0, ..., n_nodes - 1.
    n_nodes : int >= 2
    weights : ndarray (m,), optional
        Positive and finite; default 1.
    """
    n_nodes = check_integer("n_nodes", n_nodes, 2)
    edges = np.asarray(edges)
    if (
        edges.ndim != 2
        or edges.shape[1:] != (2,)
        or len(edges) == 0
        or edges.dtype.kind not in "iu"
    ):
        raise ValueError(
            f"edges must be an integer array of shape (m, 2), got {edges.dtype} of {edges.shape}"
        )
    outside = edges[(edges < 0) | (edges >= n_nodes)]
    if outside.size:
        raise ValueError(f"edges must join nodes 0 to {n_nodes - 1}, got node {outside[0]}")
    loops = edges[edges[:, 0] == edges[:, 1]]
    if loops.size:
        raise ValueError(f"edges must join different nodes, got {tuple(loops[0].tolist())}")
    w = np.ones(len(edges)) if weights is None else real(weights, "weights")
    if w.shape != (len(edges),) or not (np.isfinite(w) & (w > 0)).all():
        raise ValueError(
            f"weights must be {len(edges)} positive finite numbers, got {shown(weights)}"
        )
    rows = np.repeat(np.arange(len(edges)), 2)
    values = np.stack([-w, w], axis=1).ravel()
    return sp.csr_array((values, (rows, edges.ravel())), shape=(len(edges), n_nodes))

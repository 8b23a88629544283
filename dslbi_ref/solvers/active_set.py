"""Quadratic minimisation under sign constraints, on an active set that changes one by one.

Between two events the inverse scale space rests at the solution of

    min_g  g'Hg / 2 - c'g    with g_j rho_j >= 0 where |rho_j| = 1, and g_j = 0 elsewhere.

From event to event one or two indices change. Three things make an event cheap: rows of H that are
computed when they are needed, a Cholesky factor that is updated, and a warm start.

What the event solver of :mod:`dslbi_ref.iss` asks for, here of a quadratic, in
:mod:`dslbi_ref.solvers.active_newton` of any smooth loss:

    intercept               its present value, or None
    start()                 the flow, minus the gradient, before anything enters
    coefficients()          g
    enter(rho, flow, wait)  minimise again when indices have reached the boundary, and return the
                            new (g, flow), or None where there is no minimiser
"""

import numpy as np
from scipy.linalg import blas, lapack

# A pivot below this fraction of its diagonal entry: the column depends on the active ones.
PIVOT_TOLERANCE = 1e-12
# Flow below this fraction of its largest starting value is rounding error.
FLOW_TOLERANCE = 1e-13
EPS = np.finfo(float).eps
# Rows of H computed at once. 32 together take the time of four alone (n = 1000, p = 5000), and on
# the paths of benchmarks/paths.py nearly all of them are needed in the end.
BLOCK = 32
# Up to this size all of H is computed at the first event.
SMALL = 256


def at_boundary(rho, positive):
    """Return which entries of rho are at 1 or -1: those that may leave zero to that side."""
    return rho == 1.0 if positive else np.abs(rho) == 1.0


class Factor:
    """Upper triangular R with ``R'R = H_PP``, packed by columns: a new one goes to the end."""

    def __init__(self):
        self.size = 0
        self.packed = np.empty(64)

    def append(self, h, diagonal):
        """Append an index whose column of H is (h, diagonal); False, and no change, if dependent.

        The new column of R is w with ``R'w = h``, and below it the root of the pivot
        ``diagonal - w'w``.
        """
        s = self.size
        w = blas.dtpsv(s, self.packed, h, trans=1) if s else h
        pivot = diagonal - w @ w
        if not pivot > PIVOT_TOLERANCE * diagonal:
            return False
        start, end = s * (s + 1) // 2, (s + 1) * (s + 2) // 2
        if end > len(self.packed):
            self.packed = np.concatenate([self.packed, np.empty(end + len(self.packed))])
        self.packed[start : end - 1] = w
        self.packed[end - 1] = np.sqrt(pivot)
        self.size = s + 1
        return True

    def delete(self, i):
        """Delete index number i.

        Without column i, R is triangular except for its row i. A QR decomposition folds that row
        into the triangle below it: orthogonal, hence stable, at a cost of O((s - i)^2).
        """
        s = self.size
        R = lapack.dtpttr(s, self.packed[: s * (s + 1) // 2])[0]
        rest = np.empty((s - 1, s - 1), order="F")
        rest[:i, :i] = R[:i, :i]
        rest[:i, i:] = R[:i, i + 1 :]
        if i < s - 1:
            row, triangle = R[i : i + 1, i + 1 :], R[i + 1 :, i + 1 :]
            rest[i:, i:] = lapack.dtpqrt(0, min(16, s - 1 - i), triangle, row)[0]
        self.packed[: s * (s - 1) // 2] = lapack.dtrttp(rest)[0]
        self.size = s - 1

    def solve(self, b):
        """Return ``H_PP^-1 b``."""
        half = blas.dtpsv(self.size, self.packed, b, trans=1)
        return blas.dtpsv(self.size, self.packed, half, overwrite_x=1)


class Rows:
    """The rows of H that were asked for so far, those of the active indices in front.

    Parameters
    ----------
    H : ndarray (p, p), or callable
        ``H(J)`` returns the rows J, shape (len(J), p); it is asked for many at a time, once each.
    p : int
    """

    def __init__(self, H, p):
        self.compute = H if callable(H) else lambda J: H[J]
        self.place = np.full(p, -1)  # -1: not stored
        self.owner = np.empty(p, dtype=int)  # owner[place[j]] = j
        self.count = 0
        self.store = np.empty((min(p, 4 * BLOCK), p))

    def fetch(self, j, wait):
        """Return row j; compute with it the rows of smallest ``wait``, which are probably next."""
        p = len(self.place)
        if self.place[j] < 0:
            absent = np.flatnonzero(self.place < 0)
            if p > SMALL and len(absent) > BLOCK:
                order = np.where(absent == j, -1.0, wait[absent])
                absent = absent[np.argpartition(order, BLOCK - 1)[:BLOCK]]
            end = self.count + len(absent)
            if end > len(self.store):
                room = min(max(end, 2 * len(self.store)), p)
                self.store = np.concatenate([self.store, np.empty((room - len(self.store), p))])
            self.store[self.count : end] = self.compute(absent)
            self.place[absent] = np.arange(self.count, end)
            self.owner[self.count : end] = absent
            self.count = end
        return self.store[self.place[j]]

    def swap(self, j, k):
        """Exchange the places of row j and of the row at place k."""
        i, other = self.place[j], self.owner[k]
        if i != k:
            row = self.store[i].copy()
            self.store[i] = self.store[k]
            self.store[k] = row
            self.place[j], self.place[other] = k, i
            self.owner[k], self.owner[i] = j, other

    def column(self, j, active, wait):
        """Return ``H[active, j]`` and ``H[j, j]``."""
        row = self.fetch(j, wait)
        return row[active], row[j]

    def product(self, active, values, J):
        """Return ``H g`` at the indices J, for a g of those values at the active indices."""
        s = len(active)
        g = np.empty(s)
        g[self.place[active]] = values
        return g @ self.store[:s, J]


class Products:
    """An H of which nothing is kept, for a p so large that its rows would outweigh the data.

    Parameters
    ----------
    column : callable ``(j, active, wait) -> H[active, j], H[j, j]``
    product : callable ``(active, values, J) -> (H g)[J]``
        g has those values at the active indices; J is an index array, or ``slice(None)``.
    """

    def __init__(self, column, product):
        self.column, self.product = column, product

    def swap(self, j, k):
        """Nothing has a place."""


class Quadratic:
    """The minimiser of ``g'Hg / 2 - c'g`` on its active set P.

    Parameters
    ----------
    H : ndarray (p, p), callable, or Products
        Symmetric and positive semi-definite; see :class:`Rows`.
    c : ndarray (p,)
        In the range of H.
    positive : bool
        No entry of g is negative.
    """

    intercept = None

    def __init__(self, H, c, positive=False):
        self.c, self.positive = c, positive
        self.rows = H if isinstance(H, Products) else Rows(H, len(c))
        self.factor = Factor()
        self.active = np.empty(0, dtype=int)  # P, in the order of the factor
        self.values = np.empty(0)  # g on P; shorter while new indices are at zero
        self.top = 0.0  # largest diagonal entry of H met so far
        self.least = FLOW_TOLERANCE * np.abs(c).max()

    def start(self):
        """Return the flow at g = 0."""
        return np.where(np.abs(self.c) > self.least, self.c, 0.0)

    def coefficients(self):
        """Return g."""
        g = np.zeros(len(self.c))
        g[self.active] = self.values
        return g

    def noise(self):
        """Return the rounding error to expect in the flow, of c itself and of the sum H g."""
        return self.least + 4 * EPS * self.top * np.abs(self.values).sum()

    def flow(self, J=slice(None)):
        """Return ``c - H g`` at the indices J."""
        return self.c[J] - self.rows.product(self.active, self.values, J)

    def append(self, j, wait):
        """Let j join P at value 0; False if its column depends on those of P."""
        h, diagonal = self.rows.column(j, self.active, wait)
        if not self.factor.append(h, diagonal):
            return False
        self.top = max(self.top, diagonal)
        self.rows.swap(j, len(self.active))
        self.active = np.concatenate((self.active, (j,)))
        return True

    def delete(self, i):
        """Let index number i leave P."""
        self.factor.delete(i)
        self.rows.swap(self.active[i], len(self.active) - 1)
        self.active = np.delete(self.active, i)
        self.values = np.delete(self.values, i)

    def descend(self, rho):
        """Go to the minimiser on P; an index that reaches zero on the way leaves. Returns those."""
        left = []
        while True:
            target = self.factor.solve(self.c[self.active])
            blocked = (rho[self.active] * target <= 0).nonzero()[0]
            if not blocked.size:
                self.values = target
                return left
            # The largest step towards the target that keeps every sign.
            new = len(target) - len(self.values)
            self.values = np.concatenate((self.values, np.zeros(new)))
            fraction = self.values[blocked] / (self.values[blocked] - target[blocked])
            first = blocked[fraction.argmin()]
            self.values = self.values + fraction.min() * (target - self.values)
            left.append(self.active[first])
            self.delete(first)

    def enter(self, rho, flow, wait):
        """Admit the indices at the boundary, and minimise again (Lawson and Hanson, warm).

        Parameters
        ----------
        rho : ndarray (p,)
            Sub-gradient at the event; exactly -1 or 1 at the boundary.
        flow : ndarray (p,)
            ``c - H g`` before the event.
        wait : ndarray (p,)
            Time that each index would have needed to the boundary: which rows will be needed next.

        Returns
        -------
        g, flow : ndarray (p,)
            The flow is exactly zero on P, and where it would be rounding error.
        """
        boundary = at_boundary(rho, self.positive)
        boundary[self.active] = False
        waiting = boundary.nonzero()[0]
        push = rho[waiting] * flow[waiting]
        held = []
        for _ in range(3 * len(rho)):  # rounding could make it cycle
            if not waiting.size or push.max() <= self.noise():
                break
            j = waiting[push.argmax()]
            left = self.descend(rho) if self.append(j, wait) else [j]
            if j in left:
                # It depends on P, or bounces back at once, and has to ride along: its rho stays at
                # the boundary until P changes.
                held.append(j)
                left.remove(j)
            waiting = np.concatenate((waiting[waiting != j], np.array(left, dtype=int)))
            if waiting.size:
                push = rho[waiting] * self.flow(waiting)
        g, flow = self.coefficients(), self.flow()
        flow[np.abs(flow) <= self.noise()] = 0.0
        flow[self.active] = 0.0
        rest = np.concatenate((waiting, np.array(held, dtype=int)))
        flow[rest[rho[rest] * flow[rest] > 0]] = 0.0
        return g, flow

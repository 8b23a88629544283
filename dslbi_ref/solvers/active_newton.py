"""A smooth loss under sign constraints, on an active set that changes one by one.

Between two events the inverse scale space of a loss f with a curvature rests at the solution of

    min_{g, b} f(X g + b)    with g_j rho_j >= 0 where |rho_j| = 1, and g_j = 0 elsewhere,

found by Newton's method from the last solution, with the longest step that keeps every sign. The
intercept b and the columns that are never penalised have no sign to keep. What the event solver
asks for is said in :mod:`dslbi_ref.solvers.active_set`.
"""

import numpy as np
from scipy.linalg import blas, lapack
from scipy.optimize import linprog

from .active_set import EPS, FLOW_TOLERANCE, Factor, at_boundary

MAX_NEWTON = 200
# A predictor of 30 is a probability of 1 - 1e-13: is there a finite minimiser at all?
WIDE_MARGIN = 30.0
# A pivot below this part of its diagonal entry: along some direction the loss is nearly straight
# (Huber, beyond delta) or constant (one number added to every class).
FLAT = 1e-10


class Smooth:
    """The minimiser of a smooth loss on its active set P.

    An index is an entry of g, (p,) or (p, k), counted row by row. The unknowns theta are the
    intercepts, the entries that are never penalised, and those in P; column a of Z, and class
    ``kind[a]``, belong to unknown a.

    Parameters
    ----------
    problem : LinearProblem
        Its loss has a curvature. Columns are divided by the factors of its penalty, and g is
        multiplied by them: every rho has its boundary at -1 and 1.
    """

    def __init__(self, problem):
        self.problem, self.design = problem, problem.design
        self.shape = problem.loss.columns(problem.y)
        self.size = np.abs(problem.y).mean()
        self.k = self.shape[0] if self.shape else 1
        n = len(problem.y)
        self.ones = self.k * problem.intercept  # intercepts, in front
        self.Z = np.ones((n, self.ones), order="F")
        self.kind = np.arange(self.ones)
        self.theta = np.ravel(problem.level).astype(float)[: self.ones]
        self.active = np.empty(0, dtype=int)
        self.kept = None  # a Cholesky factor of the second derivative, and its curvatures
        self.factors = [Factor() for _ in range(self.k)]  # of Z'Z, class by class
        for c in range(self.ones):
            self.factors[c].append(np.empty(0), float(n))
        entries = (problem.free[:, None] * self.k + np.arange(self.k)).ravel()
        for j, value in zip(entries, problem.rest[problem.free].ravel(), strict=True):
            if self.append(j):
                self.theta[-1] = value
        self.unsigned, self.active = self.active, np.empty(0, dtype=int)
        self.free = self.ones + len(self.unsigned)  # leading unknowns without a sign
        residual = problem.gradient(self.predictor(self.theta))
        gradient = np.abs(problem.over_factors(self.design.adjoint(residual)))
        j = np.array([gradient.argmax() // self.k])
        size = np.linalg.norm(self.columns(j)) * np.linalg.norm(residual)
        self.noise = max(FLOW_TOLERANCE * gradient.max(), 1e-14 * size)
        # The flow of one class is minus the sum of the others, and so of their rounding errors.
        self.target = self.noise / (2 * self.k) if self.shape else self.noise

    @property
    def intercept(self):
        if not self.ones:
            return None
        return self.theta[: self.ones].copy() if self.shape else float(self.theta[0])

    def start(self):
        """Return the flow before anything enters; what is never penalised is at its minimiser."""
        if self.free and self.descend(np.empty(0)) is None:
            raise ValueError(
                "what is never penalised must have a finite fit to y, got a loss that falls for "
                "ever along it"
            )
        self.centre()
        return self.flow()

    def coefficients(self):
        """Return g."""
        g = np.zeros(self.design.X.shape[1] * self.k)
        g[self.unsigned] = self.theta[self.ones : self.free]
        g[self.active] = self.theta[self.free :]
        return g

    def flow(self):
        """Return minus the gradient of the loss, rounding errors and P set to zero."""
        gradient = self.design.adjoint(self.problem.gradient(self.predictor(self.theta)))
        flow = -self.problem.over_factors(gradient).ravel()
        flow[np.abs(flow) <= self.noise] = 0.0
        flow[self.active] = 0.0
        flow[self.problem.free[:, None] * self.k + np.arange(self.k)] = 0.0
        return flow

    def columns(self, j):
        """Return the columns j of the design over the factors of their penalty."""
        return self.problem.over_factors(self.design.columns(j).T, j).T

    # ---- Along the unknowns ------------------------------------------------------------------

    def predictor(self, theta):
        """Return eta, (n,) or (n, k)."""
        if not self.shape:
            return self.Z @ theta
        return self.Z @ (theta[:, None] * (self.kind[:, None] == np.arange(self.k)))

    def gradient(self, eta):
        """Return the gradient of the loss in theta."""
        g = self.Z.T @ self.problem.gradient(eta)
        return g[np.arange(len(g)), self.kind] if self.shape else g

    def hessian(self, eta):
        """Return the lower triangle of the second derivative in theta, and those in eta."""
        w = self.problem.curvature(eta)
        if not self.shape:
            root = np.sqrt(w)[:, None] * self.Z
            return blas.dsyrk(1.0, root, trans=1, lower=1), w
        hessian = np.empty((len(self.theta),) * 2)
        members = [np.flatnonzero(self.kind == c) for c in range(self.k)]
        blocks = [self.Z[:, member] for member in members]
        for c, d in np.ndindex(self.k, self.k):
            block = blocks[c].T @ (w[:, c, d, None] * blocks[d])
            hessian[np.ix_(members[c], members[d])] = block
        return hessian, np.diagonal(w, axis1=1, axis2=2)

    def factorise(self, eta):
        """Return the Cholesky factor of the second derivative, or None.

        Where the loss is flat along some direction, a little of the identity keeps the step finite,
        and the part of it outside of that direction the same. A minimiser that is not the only one
        is then near the last one.
        """
        hessian, w = self.hessian(eta)
        factor, info = lapack.dpotrf(hessian, lower=1)
        pivots, diagonal = np.diagonal(factor) ** 2, np.diagonal(hessian)
        if info or (pivots <= FLAT * diagonal).any():
            little = FLAT * (w.max() or 1 / len(eta)) * np.einsum("ia,ia->a", self.Z, self.Z)
            factor, info = lapack.dpotrf(hessian + np.diag(little), lower=1)
            self.kept = None
            return None if info else factor
        self.kept = None if self.shape else (factor, w)
        return factor

    def extend(self, column):
        """Give the kept factor the row of a new last column, at the curvatures that it was for."""
        if self.kept is None:
            return
        factor, w = self.kept
        pull = w * column
        row = lapack.dtrtrs(factor, self.Z.T @ pull, lower=1)[0]
        diagonal = column @ pull
        pivot = diagonal - row @ row
        if not pivot > FLAT * diagonal:
            self.kept = None
            return
        wider = np.zeros((len(row) + 1, len(row) + 1), order="F")
        wider[:-1, :-1], wider[-1, :-1], wider[-1, -1] = factor, row, np.sqrt(pivot)
        self.kept = wider, w

    # ---- The active set ----------------------------------------------------------------------

    def append(self, j):
        """Let index j join P at value 0; False if its column depends on those of its class in P."""
        column = self.columns(np.array([j // self.k]))[:, 0]
        c = j % self.k
        own = self.Z[:, self.kind == c] if self.shape else self.Z
        h = own.T @ column
        if not self.factors[c].append(h, column @ column):
            return False
        self.extend(column)
        self.Z = np.concatenate([self.Z.T, column[None]]).T  # in Fortran order
        self.kind = np.append(self.kind, c)
        self.theta = np.append(self.theta, 0.0)
        self.active = np.append(self.active, j)
        return True

    def delete(self, i):
        """Let index number i leave P."""
        i, self.kept = self.free + i, None
        c = self.kind[i]
        self.factors[c].delete(int((self.kind[:i] == c).sum()))
        self.Z = np.delete(self.Z, i, axis=1)
        self.kind, self.theta = np.delete(self.kind, i), np.delete(self.theta, i)
        self.active = np.delete(self.active, i - self.free)

    def separable(self, rho):
        """Does the loss fall for ever along some direction of allowed signs?"""
        if self.problem.loss.separation is None:
            return False
        E = self.Z
        if self.shape:
            E = self.Z[:, None] * (np.arange(self.k)[:, None] == self.kind)
        falls, rests = self.problem.loss.separation(E, self.problem.y)
        signs = rho[self.active]
        bounds = [(None, None)] * self.free + [(0, None) if s > 0 else (None, 0) for s in signs]
        feasible = linprog(
            np.zeros(len(bounds)),
            A_ub=-falls,
            b_ub=np.zeros(len(falls)),
            A_eq=np.vstack([falls.sum(axis=0), rests]),
            b_eq=np.append(1.0, np.zeros(len(rests))),
            bounds=bounds,
        )
        return feasible.status == 0

    def descend(self, rho):
        """Go to the minimiser on P; an index that reaches zero on the way leaves.

        Returns the indices that left, or None if there is no finite minimiser.
        """
        left, doubted, last = [], False, np.inf
        factor = self.kept[0] if self.kept else None
        for _ in range(MAX_NEWTON):
            eta = self.predictor(self.theta)
            if not doubted and np.abs(eta).max() > WIDE_MARGIN:
                doubted = True
                if self.separable(rho):
                    return None
            gradient = self.gradient(eta)
            size = np.abs(gradient).max(initial=0.0)
            # Within a hundred times the noise, what no longer shrinks is rounding.
            if size <= self.target or last <= size <= 100 * self.noise:
                return left
            # From event to event little changes: a factor serves while it brings the gradient down.
            if factor is None or size > last / 10:
                factor = self.factorise(eta)
            if factor is None:
                break
            last = size
            direction = -lapack.dpotrs(factor, gradient, lower=1)[0]
            moved = self._line_search(rho, eta, direction, direction @ gradient)
            if moved is not None:
                left.append(self.active[moved])
                self.delete(moved)
                last, factor = np.inf, None
        return None if self.separable(rho) else left

    def _line_search(self, rho, eta, direction, slope):
        """Move down a slope from eta; return the number of the index that stops it, or None."""
        g, d = self.theta[self.free :], direction[self.free :]
        blocked = np.flatnonzero(rho[self.active] * (g + d) <= 0)
        fraction = -g[blocked] / d[blocked]
        longest = step = min(1.0, fraction.min(initial=1.0))
        old, move = self.problem.value(eta), self.predictor(direction)
        # Near the minimum the decrease is below the rounding error of the value.
        slack = 4 * EPS * (abs(old) + self.size * np.abs(eta).max())

        def rises(step):
            return self.problem.value(eta + step * move) > old + 1e-4 * step * slope + slack

        while rises(step):
            step = step / 2
        self.theta = self.theta + step * direction
        return blocked[fraction.argmin()] if blocked.size and step == longest else None

    def enter(self, rho, flow, wait):
        """Admit the indices at the boundary, and minimise again; None if there is no minimiser.

        Arguments and results as for :meth:`dslbi_ref.solvers.active_set.Quadratic.enter`;
        ``wait`` is not needed here.
        """
        boundary = at_boundary(rho, self.problem.positive)
        boundary[self.active] = False
        held = []
        for _ in range(3 * len(rho)):  # rounding could make it cycle
            push = np.where(boundary, rho * flow, 0.0)
            push[held] = 0.0
            if push.max() <= self.noise:
                break
            j = push.argmax()
            before = self.problem.value(self.predictor(self.theta))
            left = self.descend(rho) if self.append(j) else [j]
            if left is None:
                return None
            fell = self.problem.value(self.predictor(self.theta)) < before - 1e-12 * abs(before)
            # What bounces back at once has to ride along, unless that let others leave for good.
            held = [] if fell else held + [j] if j in left else held
            boundary[left] = True
            boundary[self.active] = False
            flow = self.flow()
        if self.shape:
            self.balance(rho)
        g = self.coefficients()
        flow = np.where(boundary & (rho * flow > 0), 0.0, flow)
        return g, flow

    def centre(self):
        """Bring what has no sign to mean zero over the classes: no probability changes."""
        if self.shape:
            free = self.theta[: self.free].reshape(-1, self.k)
            self.theta[: self.free] = (free - free.mean(axis=1, keepdims=True)).ravel()

    def balance(self, rho):
        """Choose among minimisers the one to which linearized Bregman iteration tends.

        A number added to all classes of a column changes no probability. The gradient, and so the
        dual variable, has sum zero over the classes: where every rho of a column is at the
        boundary, its coefficients have sum zero too, as near as their signs allow.
        """
        self.centre()
        signs, g = (x.reshape(-1, self.k) for x in (rho, self.coefficients()))
        for j in np.flatnonzero((np.abs(signs) == 1.0).all(axis=1) & g.any(axis=1)):
            low = np.where(signs[j] < 0, g[j], -np.inf).max()
            high = np.where(signs[j] > 0, g[j], np.inf).min()
            shift = min(max(g[j].mean(), low), high)
            own = j * self.k + np.arange(self.k)
            if shift and all(self.append(i) for i in np.setdiff1d(own, self.active)):
                self.theta[self.free + np.flatnonzero(np.isin(self.active, own))] -= shift

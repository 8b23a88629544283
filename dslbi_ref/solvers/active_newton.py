"""A smooth loss under sign constraints, on an active set that changes one by one.

Between two events the inverse scale space of a loss f with a curvature rests at the solution of

    min_{g, b} f(X g + b)    with g_j rho_j >= 0 where |rho_j| = 1, and g_j = 0 elsewhere,

found by Newton's method from the last solution, with the longest step that keeps every sign. The
intercept b is not penalised. What the event solver asks for is said in
:mod:`dslbi_ref.solvers.active_set`.
"""

import numpy as np
import scipy.linalg
from scipy.optimize import linprog

from .active_set import FLOW_TOLERANCE, PIVOT_TOLERANCE

MAX_NEWTON = 100
# A predictor of 30 is a probability of 1 - 1e-13: is there a finite minimiser at all?
WIDE_MARGIN = 30.0


class Smooth:
    """The minimiser of a smooth loss on its active set P.

    Parameters
    ----------
    problem : LinearProblem
        Its loss has a curvature.
    """

    def __init__(self, problem):
        self.design, self.y, self.loss = problem.design, problem.y, problem.loss
        self.free = int(problem.intercept)  # leading columns of Z without a sign
        self.Z = np.ones((len(self.y), self.free))  # ones if there is an intercept, then X_P
        self.theta = np.full(self.free, problem.level)
        self.active = np.empty(0, dtype=int)
        residual = self.loss.gradient(self.Z @ self.theta, self.y)
        gradient = self.design.adjoint(residual)
        j = np.abs(gradient).argmax()
        size = np.linalg.norm(self.design.columns([j])) * np.linalg.norm(residual)
        self.noise = max(FLOW_TOLERANCE * np.abs(gradient[j]), 1e-14 * size)

    @property
    def intercept(self):
        return float(self.theta[0]) if self.free else None

    def start(self):
        """Return the flow at g = 0, the intercept at its minimiser."""
        return self.flow()

    def flow(self):
        """Return minus the gradient of the loss, rounding errors and P set to zero."""
        flow = -self.design.adjoint(self.loss.gradient(self.Z @ self.theta, self.y))
        flow[np.abs(flow) <= self.noise] = 0.0
        flow[self.active] = 0.0
        return flow

    def hessian(self):
        weights = self.loss.curvature(self.Z @ self.theta, self.y)
        return self.Z.T @ (weights[:, None] * self.Z)

    def append(self, j):
        """Let j join P at value 0; False if its column depends on those of P."""
        column = self.design.columns(np.array([j]))
        before = self.Z, self.theta, self.active
        self.Z = np.hstack([self.Z, column])
        self.theta = np.append(self.theta, 0.0)
        self.active = np.append(self.active, j)
        hessian = self.hessian()
        factor, info = scipy.linalg.lapack.dpotrf(hessian)
        if info == 0 and factor[-1, -1] ** 2 > PIVOT_TOLERANCE * hessian[-1, -1]:
            return True
        self.Z, self.theta, self.active = before
        return False

    def delete(self, i):
        """Let index number i leave P."""
        self.Z = np.delete(self.Z, self.free + i, axis=1)
        self.theta = np.delete(self.theta, self.free + i)
        self.active = np.delete(self.active, i)

    def separable(self, rho):
        """Does the loss fall for ever along some direction of allowed signs?

        That is one along which no margin ``s_i eta_i`` falls and some grow, s of the loss.
        """
        if self.loss.separation is None:
            return False
        margins = self.loss.separation(self.y)[:, None] * self.Z
        signs = rho[self.active]
        bounds = [(None, None)] * self.free + [(0, None) if s > 0 else (None, 0) for s in signs]
        total = margins.sum(axis=0)
        feasible = linprog(
            np.zeros(len(total)),
            A_ub=-margins,
            b_ub=np.zeros(len(margins)),
            A_eq=total[None],
            b_eq=[1.0],
            bounds=bounds,
        )
        return feasible.status == 0

    def descend(self, rho):
        """Go to the minimiser on P; an index that reaches zero on the way leaves.

        Returns the indices that left, or None if there is no finite minimiser.
        """
        left, doubted = [], False
        for _ in range(MAX_NEWTON):
            eta = self.Z @ self.theta
            if not doubted and np.abs(eta).max() > WIDE_MARGIN:
                doubted = True
                if self.separable(rho):
                    return None
            gradient = self.Z.T @ self.loss.gradient(eta, self.y)
            if np.abs(gradient).max(initial=0.0) <= self.noise:
                return left
            factor, info = scipy.linalg.lapack.dpotrf(self.hessian(), lower=1)
            if info:
                break
            direction = -scipy.linalg.lapack.dpotrs(factor, gradient, lower=1)[0]
            moved = self._line_search(rho, direction, gradient)
            if moved is not None:
                left.append(self.active[moved])
                self.delete(moved)
        return None if self.separable(rho) else left

    def _line_search(self, rho, direction, gradient):
        """Move along a descent direction; return the number of the index that stops it, or None."""
        g, d = self.theta[self.free :], direction[self.free :]
        blocked = np.flatnonzero(rho[self.active] * (g + d) <= 0)
        fraction = -g[blocked] / d[blocked]
        longest = step = min(1.0, fraction.min(initial=1.0))
        old = self.loss.value(self.Z @ self.theta, self.y)
        slope = direction @ gradient
        # Near the minimum the decrease is below the rounding error of the value.
        slack = 4 * np.finfo(float).eps * old

        def rises(step):
            eta = self.Z @ (self.theta + step * direction)
            return self.loss.value(eta, self.y) > old + 1e-4 * step * slope + slack

        while rises(step):
            step = step / 2
        self.theta = self.theta + step * direction
        return blocked[fraction.argmin()] if blocked.size and step == longest else None

    def enter(self, rho, flow, wait):
        """Admit the indices at the boundary, and minimise again; None if there is no minimiser.

        Arguments and results as for :meth:`dslbi_ref.solvers.active_set.Quadratic.enter`;
        ``wait`` is not needed here.
        """
        boundary = np.abs(rho) == 1.0
        boundary[self.active] = False
        flow = np.where(boundary, flow, 0.0)
        held = []
        for _ in range(3 * len(rho)):  # rounding could make it cycle
            push = np.where(boundary, rho * flow, 0.0)
            push[held] = 0.0
            if push.max() <= self.noise:
                break
            j = push.argmax()
            left = self.descend(rho) if self.append(j) else [j]
            if left is None:
                return None
            held = held + [j] if j in left else held
            boundary[left] = True
            boundary[self.active] = False
            flow = self.flow()
        g = np.zeros_like(rho)
        g[self.active] = self.theta[self.free :]
        flow = self.flow()
        flow[(np.abs(rho) == 1.0) & (rho * flow > 0)] = 0.0
        return g, flow

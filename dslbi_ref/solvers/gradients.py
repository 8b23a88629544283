"""The gradient of a loss along a path, as cheap as the loss and the sparsity of beta allow."""

import numpy as np
import scipy.sparse as sp


class GramGradient:
    """The gradient of a quadratic loss, which never looks at X twice for the same column.

    ``X'(X beta - y) / n = sum over active j of beta_j (X'x_j / n) - X'y / n``: columns of the Gram
    matrix are computed as coefficients become active, up to the number at which a product with X is
    the cheaper way.
    """

    def __init__(self, problem):
        self.problem, self.design, self.y = problem, problem.design, problem.target
        design, (n, p) = self.design, self.design.X.shape
        self.c = problem.pull(self.y)
        self.capacity = min(p, 2 * design.X.nnz // p if sp.issparse(design.X) else n)
        self.columns = np.empty((p, 0), order="F")
        self.place = np.full(p, -1)
        self.known = np.empty(0, dtype=np.intp)

    def __call__(self, beta):
        active = np.flatnonzero(beta)
        new = active[self.place[active] < 0]
        if len(self.known) + len(new) > self.capacity:
            return self.problem.pull(self.design.dot(beta) - self.y)
        if new.size:
            s = len(self.known)
            self.place[new] = np.arange(s, s + len(new))
            self.known = np.append(self.known, new)
            if len(self.known) > self.columns.shape[1]:
                room = min(self.capacity, 2 * len(self.known) + 16)
                wider = np.empty((len(beta), room), order="F")
                wider[:, :s] = self.columns[:, :s]
                self.columns = wider
            block = self.problem.pull(self.design.columns(new))
            self.columns[:, s : s + len(new)] = block
        s = len(self.known)
        return self.columns[:, :s] @ beta[self.known] - self.c


def sparse_gradient(problem):
    """Return the function ``(beta, level) -> gradients`` in both, for a beta that is mostly zero.

    A quadratic loss keeps the level for ever: on centred columns the gradient in it does not depend
    on beta.
    """
    design = problem.design
    if problem.loss.quadratic:
        gram = GramGradient(problem)
        return lambda beta, level: (gram(beta), 0.0)

    def gradient(beta, level):
        r = problem.gradient(design.dot(beta) + level)
        return design.adjoint(r), r.sum(axis=0)

    return gradient


def dense_gradient(problem):
    """Return :func:`sparse_gradient` for a dense beta, for which the whole Gram matrix may pay."""
    design = problem.design
    n, p = design.X.shape
    if not problem.loss.quadratic or p > 2 * n or sp.issparse(design.X):
        return sparse_gradient(problem)
    gram, c = design.X.T @ problem.weighted(design.X) / n, problem.pull(problem.target)
    return lambda beta, level: (gram @ beta - c, 0.0)

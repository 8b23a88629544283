"""The quadratic of an exact path, by its rows or by products, and its flow integrated again.

An H of few columns is kept by rows, as they are needed. One of many is only multiplied: an event
costs a product with the data, and no array beside the data grows with their columns.
"""

import numpy as np

from .active_set import Products
from .packed import area


def linear_gram(problem, packed):
    """Return ``X'WX / n``, X over the factors of the penalty, by rows or (no factors) by products.

    As :class:`dslbi_ref.solvers.active_set.Quadratic` takes it.
    """
    design, n = problem.design, len(problem.y)

    def rows(J):
        # Columns of the block have mean zero, so the means of the other factor drop out.
        H = problem.weighted(design.columns(J)).T @ design.X / n
        return problem.over_factors(problem.over_factors(H, J).T).T

    def column(j, active, wait):
        x = design.columns(np.array([j]))[:, 0]
        pull = problem.weighted(x)
        return design.part(active).adjoint(pull) / n, x @ pull / n

    def product(active, values, J):
        whole = design if isinstance(J, slice) else design.part(J)
        return whole.adjoint(problem.weighted(design.part(active).dot(values))) / n

    return Products(column, product) if packed else rows


def linear_dual(problem):
    """Return what computes the z of a linear model again, for any loss.

    z is minus X' times the time integral of the gradient in the predictor, which has n entries.
    """
    design = problem.design

    def dual(t, gamma, intercept):
        support = np.unique(gamma.indices)
        part, values = design.part(support), gamma[:, support].toarray()
        levels = np.full(len(t), problem.level) if intercept is None else intercept
        driven = np.zeros((len(t), len(problem.y)))
        for k, step in enumerate(np.diff(t)):
            eta = part.dot(values[k]) + levels[k]
            driven[k + 1] = driven[k] - step * problem.gradient(eta)
        return lambda k: design.adjoint(driven[k].T).T

    return dual


def split_products(rows, c, D, solve, nu):
    """Return ``H = (I - D A^-1 D') / nu`` by products, and what computes z again from ``c - H g``.

    Parameters
    ----------
    rows : callable ``J -> H[J]``
    c : ndarray (m,)
    solve : callable ``b -> A^-1 b``
    """

    def column(j, active, wait):
        (row,) = rows(np.array([j]))
        return row[active], row[j]

    def applied(g):
        return (g - D @ solve(D.T @ g)) / nu

    def product(active, values, J):
        g = np.zeros(D.shape[0])
        g[active] = values
        return applied(g)[J]

    def dual(t, gamma, _):
        moved = area(t, gamma)
        return lambda k: t[k, None] * c - applied(moved[k].toarray().T).T

    return Products(column, product), dual

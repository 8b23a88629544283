"""The exact lasso path: its optimality conditions, at and between events, and another program."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import lars_path_gram

from dslbi_ref.solvers.lasso_path import lasso_path


def quadratic(seed, n, p):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    X[:, 1:] += X[:, :-1]
    beta = np.zeros(p)
    beta[: p // 4] = rng.normal(size=p // 4)
    y = X @ beta + rng.normal(size=n)
    return X.T @ X / n, X.T @ y / n


def assert_optimal(H, c, lam, g):
    pull = c - H @ g
    size = np.abs(c).max()
    assert np.abs(pull).max() <= lam + 1e-11 * size
    assert_allclose(pull[g != 0], lam * np.sign(g[g != 0]), rtol=0, atol=1e-11 * size)


@pytest.mark.parametrize(("n", "p"), [(60, 20), (30, 60), (20, 300)])
def test_every_level_solves_its_lasso(n, p):
    H, c = quadratic(n, n, p)
    lam, g, pull = lasso_path(H, c)
    assert lam[0] == np.abs(c).max() and (np.diff(lam) <= 0).all()
    assert_allclose(lam[-1], lam[0] / 1000, rtol=1e-12)
    assert_allclose(pull, c - g @ H, rtol=0, atol=1e-11 * lam[0])
    leaves = ((g[:-1] != 0) & (g[1:] == 0)).any()
    assert leaves or p < n
    for k in range(len(lam) - 1):
        assert_optimal(H, c, lam[k], g[k])
        assert_optimal(H, c, (lam[k] + lam[k + 1]) / 2, (g[k] + g[k + 1]) / 2)


def test_it_is_the_path_of_another_program():
    H, c = quadratic(0, 80, 30)
    lam, g, _ = lasso_path(H, c)
    alphas, _, coefficients = lars_path_gram(c, H, n_samples=1, method="lasso", alpha_min=lam[-1])
    assert_allclose(lam, alphas, rtol=1e-10)
    assert_allclose(g, coefficients.T, rtol=0, atol=1e-9)


def test_rows_may_come_from_a_function():
    H, c = quadratic(1, 40, 25)
    for ours, given in zip(lasso_path(lambda J: H[J], c), lasso_path(H, c), strict=True):
        assert_allclose(ours, given, rtol=1e-14)


def test_a_column_that_depends_on_the_active_ones_stays_out():
    H, c = quadratic(2, 50, 10)
    twice = np.r_[np.arange(10), 0, 3]
    lam, g, pull = lasso_path(H[np.ix_(twice, twice)], c[twice])
    assert_allclose(pull[:, [10, 11]], pull[:, [0, 3]], rtol=0, atol=1e-12)
    for level, row in zip(lam, g, strict=True):
        assert_optimal(H[np.ix_(twice, twice)], c[twice], level, row)


def test_the_end_of_the_path_is_least_squares():
    H, c = quadratic(3, 60, 12)
    lam, g, _ = lasso_path(H, c, ratio=0)
    assert lam[-1] == 0
    assert_allclose(g[-1], np.linalg.solve(H, c), rtol=0, atol=1e-10)


def test_nothing_enters_without_a_pull():
    lam, g, pull = lasso_path(np.eye(3), np.zeros(3))
    assert lam.tolist() == [0.0] and not g.any() and not pull.any()


def test_a_ratio_of_one_is_refused():
    with pytest.raises(ValueError, match=r"ratio must be in \[0, 1\), got 1"):
        lasso_path(np.eye(2), np.ones(2), ratio=1)

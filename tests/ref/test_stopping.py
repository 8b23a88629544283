"""Losses along a path, the discrepancy principle, cross-validation on the time axis."""

import numpy as np
import pytest
import scipy.sparse as sp
import vectors
from numpy.testing import assert_allclose, assert_array_equal

from dslbi_ref.iss import iss_path
from dslbi_ref.lbi import lbi_path
from dslbi_ref.losses import LOSSES
from dslbi_ref.split_iss import split_iss_path
from dslbi_ref.split_lbi import split_lbi_path
from dslbi_ref.stopping import cross_validate, discrepancy_time, path_losses


def test_losses_along_a_step_path():
    X, y, _ = vectors.linear(40, 10, sigma=1.0)
    path = iss_path(X + 1, y + 3, intercept=True)
    times = np.array([0.0, path.t[1] * 0.5, path.t[3], (path.t[3] + path.t[4]) / 2])
    eta = path.gamma[[0, 0, 3, 3]] @ (X + 1).T + path.intercept[[0, 0, 3, 3], None]
    expected = ((y + 3 - eta) ** 2).mean(axis=1) / 2
    assert_allclose(path_losses(path, X + 1, y + 3, times), expected, rtol=1e-12)
    assert_allclose(path_losses(path, sp.csr_array(X + 1), y + 3, times), expected, rtol=1e-12)


def test_losses_beyond_the_path_are_infinite():
    X, y, _ = vectors.linear(40, 10, sigma=1.0)
    path = lbi_path(X, y, kappa=10, times=[2.0, 3.0])
    values = path_losses(path, X, y, [1.0, 2.0, 3.0, 3.1])
    assert_array_equal(np.isinf(values), [True, False, False, True])


def test_part_of_a_split_path():
    X, y, _ = vectors.linear(40, 10, sigma=1.0)
    path = split_iss_path(X, y, np.eye(10), nu=1.0)
    t = path.t[[2, 5]]
    by_beta = [LOSSES["squared"].value(X @ b, y) for b in path.beta[[2, 5]]]
    by_gamma = [LOSSES["squared"].value(X @ g, y) for g in path.gamma[[2, 5]]]
    assert_allclose(path_losses(path, X, y, t), by_beta, rtol=1e-12)
    assert_allclose(path_losses(path, X, y, t, part="gamma"), by_gamma, rtol=1e-12)
    with pytest.raises(ValueError, match="the path has no tilde"):
        path_losses(path, X, y, t, part="tilde")
    with pytest.raises(ValueError, match="part must be"):
        path_losses(path, X, y, t, part="z")


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("part", ["beta", "tilde", "gamma"])
def test_parts_of_a_split_path_do_not_see_where_the_origin_is(part, loss):
    X, y, _ = vectors.linear(40, 10, sigma=1.0) if loss == "squared" else vectors.labels(40, 10)
    options = dict(nu=2.0, kappa=10.0, loss=loss, intercept=True)
    path, moved = (split_lbi_path(Z, y, np.eye(10), **options) for Z in (X, X + 3))
    here = path_losses(path, X, y, path.t, loss=loss, part=part)
    there = path_losses(moved, X + 3, y, path.t, loss=loss, part=part)
    assert_allclose(there, here, rtol=1e-9)
    if part != "beta" and loss == "squared":  # nothing is in at first: the mean of y
        assert_allclose(here[0], LOSSES["squared"].value(np.full(40, y.mean()), y), rtol=1e-12)


def test_discrepancy_time():
    X, y = vectors.orthogonal()
    path = iss_path(X, y, t_max=np.inf)
    c = np.sort(np.abs(X.T @ y / 40))[::-1]
    # every event takes c_j^2 off the mean squared residual
    left = (y**2).mean() - np.r_[0, np.cumsum(c**2)]
    sigma = np.sqrt((left[4] + left[5]) / 2)
    assert_allclose(discrepancy_time(path, X, y, sigma=sigma), 1 / c[4], rtol=1e-12)
    assert discrepancy_time(path, X, y, sigma=1e-3) == np.inf


def naive(fit, X, y, times, label, loss):
    rows = []
    for k in np.unique(label):
        path = fit(X[label != k], y[label != k])
        rows.append(
            [LOSSES[loss].value(X[label == k] @ path.at(t).gamma, y[label == k]) for t in times]
        )
    return np.array(rows)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_cross_validation_against_a_plain_loop(loss):
    X, y, _ = vectors.labels(200, 15) if loss == "logistic" else vectors.linear(60, 30, sigma=1.0)
    times = np.geomspace(0.5, 20, 30)

    def fit(X, y):
        return iss_path(X, y, t_max=times[-1], loss=loss)

    result = cross_validate(fit, X, y, times, folds=4, loss=loss)
    rows = naive(fit, X, y, times, np.arange(len(y)) % 4, loss)
    assert_allclose(result.mean, rows.mean(axis=0), rtol=1e-12)
    assert_allclose(result.error, rows.std(axis=0, ddof=1) / 2, rtol=1e-12)
    k = rows.mean(axis=0).argmin()
    assert result.best == times[k]
    assert 0 < k < 29
    ok = result.mean <= result.mean[k] + result.error[k]
    assert result.earliest == times[ok][0] <= result.best
    labels = np.arange(len(y)) % 4 + 7
    assert_array_equal(cross_validate(fit, X, y, times, folds=labels, loss=loss).mean, result.mean)


def test_cross_validation_of_lbi_tends_to_that_of_iss():
    X, y, _ = vectors.linear(80, 20, sigma=1.0)
    times = np.geomspace(1, 10, 12)
    exact = cross_validate(lambda X, y: iss_path(X, y, t_max=10.0), X, y, times)
    finite = cross_validate(lambda X, y: lbi_path(X, y, kappa=500, times=times), X, y, times)
    assert_allclose(np.median(np.abs(exact.mean - finite.mean)), 0, atol=1e-6)


def test_a_separable_fold_ends_the_comparison():
    X, y, _ = vectors.labels(60, 40, seed=2)

    def fit(X, y):
        return iss_path(X, y, loss="logistic", t_max=100.0)

    ends = [fit(X[np.arange(60) % 5 != k], y[np.arange(60) % 5 != k]).t[-1] for k in range(5)]
    times = np.geomspace(1, 100, 60)
    result = cross_validate(fit, X, y, times, loss="logistic")
    assert_array_equal(np.isinf(result.mean), times > min(ends))
    assert result.best <= min(ends) < 100
    with pytest.raises(ValueError, match="times must reach"):
        cross_validate(fit, X, y, [90.0, 100.0], loss="logistic")


X, Y, _ = vectors.linear(12, 6)


@pytest.mark.parametrize(
    "folds, times, words",
    [
        (1, [1.0], r"folds must be in \[2, 12\], got 1"),
        (13, [1.0], "folds must be in"),
        (np.zeros(12, dtype=int), [1.0], "two or more folds"),
        (np.arange(11), [1.0], "folds must be 12 labels"),
        (3, [2.0, 1.0], "times must be increasing"),
        (3, [-1.0, 1.0], "times must be at least 0"),
    ],
)
def test_bad_input_is_one_clear_line(folds, times, words):
    with pytest.raises(ValueError, match=words) as error:
        cross_validate(lambda X, y: iss_path(X, y, t_max=2.0), X, Y, times, folds=folds)
    assert "\n" not in str(error.value)

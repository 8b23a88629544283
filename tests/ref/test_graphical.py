"""Composite likelihoods: gradients by differences, closed forms at zero, recovered graphs."""

import numpy as np
import pytest
import vectors
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize

from dslbi_ref.graphical import (
    gaussian_gradient,
    gaussian_loss,
    gaussian_path,
    ising_gradient,
    ising_loss,
    ising_path,
    precision,
    symmetric,
)

P = 6
M = P * (P - 1) // 2


def covariance(seed=0):
    """A covariance matrix with very different variances."""
    X = vectors.array((50, P), seed) @ np.diag(np.linspace(0.5, 3, P))
    return X.T @ X / 50


def central(f, x, h=1e-5):
    return np.array([(f(x + h * e) - f(x - h * e)) / (2 * h) for e in np.eye(len(x))])


def test_symmetric_places_each_pair_twice():
    theta = np.arange(1.0, M + 1)
    Theta = symmetric(theta, P)
    assert_array_equal(Theta, Theta.T)
    assert_array_equal(np.diag(Theta), 0)
    assert_array_equal(Theta[np.triu_indices(P, 1)], theta)


def test_ising_gradient_by_differences():
    X = vectors.spins(40, P)
    theta, field = vectors.array(M, 1, 0.5), vectors.array(P, 2, 0.5)
    g, g_field = ising_gradient(theta, field, X)
    # of second order in h = 1e-5; measured 2e-11
    assert_allclose(g, central(lambda x: ising_loss(x, field, X), theta), atol=1e-9)
    assert_allclose(g_field, central(lambda x: ising_loss(theta, x, X), field), atol=1e-9)


def test_ising_loss_is_that_of_the_conditionals():
    X = vectors.spins(1, 4)
    theta, field = vectors.array(6, 3), vectors.array(4, 4)

    def weight(x):
        return np.exp((x @ symmetric(theta, 4) @ x / 2 + field @ x) / 2)

    total = 0.0
    for i in range(4):
        other = np.where(np.arange(4) == i, -X[0], X[0])
        total -= np.log(weight(X[0]) / (weight(X[0]) + weight(other)))
    assert_allclose(ising_loss(theta, field, X), total, rtol=1e-12)


def test_gaussian_gradient_by_differences():
    S, theta = covariance(), vectors.array(M, 1, 0.3)
    numeric = central(lambda x: gaussian_loss(x, S), theta)
    assert_allclose(gaussian_gradient(theta, S), numeric, rtol=1e-8, atol=1e-8)


def test_precision_minimises_over_the_diagonal():
    S, theta = covariance(), vectors.array(M, 1, 0.3)

    def loss(log_w):
        w = np.exp(log_w)
        Omega = symmetric(theta, P) + np.diag(w)
        return (np.diag(Omega @ S @ Omega) / w - log_w).sum() / 2

    best = minimize(loss, np.zeros(P), options=dict(gtol=1e-9))
    assert_allclose(gaussian_loss(theta, S), best.fun, rtol=1e-12)
    assert_allclose(np.diag(precision(theta, S)), np.exp(best.x), rtol=1e-6)  # of the optimiser


def test_gaussian_loss_is_least_at_the_inverse_covariance():
    S = covariance(3)
    Omega = np.linalg.inv(S)
    theta = Omega[np.triu_indices(P, 1)]
    assert_allclose(precision(theta, S), Omega, rtol=1e-10)
    assert_allclose(gaussian_gradient(theta, S), 0, atol=1e-12)


def test_losses_are_convex_along_lines_and_within_their_lipschitz_constants():
    X, S = vectors.spins(60, P), covariance()
    L_ising = np.linalg.norm(np.c_[X, np.ones(60)], 2) ** 2 / 120
    L_gaussian = 2 * np.linalg.eigvalsh(S)[-1] * np.diag(S).max()
    for seed in range(20):
        a, b = vectors.array(M, seed), vectors.array(M, seed + 100)
        u, v = vectors.array(P, seed + 200), vectors.array(P, seed + 300)
        (g, g_f), (h, h_f) = ising_gradient(a, u, X), ising_gradient(b, v, X)
        product = (g - h) @ (a - b) + (g_f - h_f) @ (u - v)
        assert 0 <= product <= L_ising * (((a - b) ** 2).sum() + ((u - v) ** 2).sum())
        product = (gaussian_gradient(a, S) - gaussian_gradient(b, S)) @ (a - b)
        assert 0 <= product <= L_gaussian * ((a - b) ** 2).sum()


def test_first_edges():
    X = vectors.spins(200, P)
    cov = np.cov(X.T, bias=True)[np.triu_indices(P, 1)]
    path = ising_path(X, kappa=5)
    assert_allclose(path.t[0], 1 / np.abs(cov).max(), rtol=1e-12)
    assert_array_equal(path.gamma[0], 0)
    mean = X.mean(axis=0)
    assert_allclose(path.intercept[0], np.log((1 + mean) / (1 - mean)), rtol=1e-12)
    assert_array_equal(path.entry_times().argmin(), np.abs(cov).argmax())
    Y = vectors.array((200, P), 5)
    cov = np.cov(Y.T, bias=True)[np.triu_indices(P, 1)]
    path = gaussian_path(Y, kappa=5)
    assert_allclose(path.t[0], 1 / (2 * np.abs(cov).max()), rtol=1e-12)
    assert_array_equal(path.entry_times().argmin(), np.abs(cov).argmax())


def test_paths_end_at_the_minimiser():
    X = vectors.spins(300, P)
    end = ising_path(X, kappa=2, times=[1.0, 400.0])
    g, g_field = ising_gradient(end.gamma[-1], end.intercept[-1], X)
    assert_allclose(np.r_[g, g_field], 0, atol=1e-12)
    Y = vectors.array((300, P), 5) @ np.diag(np.linspace(0.7, 1.4, P))
    end = gaussian_path(Y, kappa=2, times=[1.0, 400.0])
    S = np.cov(Y.T, bias=True)
    assert_allclose(precision(end.gamma[-1], S), np.linalg.inv(S), rtol=1e-10, atol=1e-12)


def test_the_chain_is_found():
    truth = np.zeros((P, P))
    truth[np.arange(P - 1), np.arange(1, P)] = 1
    truth = truth[np.triu_indices(P, 1)]
    assert ising_path(vectors.spins(500, P), kappa=10).auc(truth) == 1
    noise = vectors.array((1000, P), 6)
    Y = noise.copy()
    for j in range(1, P):  # an autoregression: the precision matrix is tridiagonal
        Y[:, j] = 0.5 * Y[:, j - 1] + noise[:, j]
    assert gaussian_path(Y, kappa=10).auc(truth) == 1


def test_a_path_says_why_it_ends():
    X, Y = vectors.spins(300, P), vectors.array((300, P), 5)
    for path in (ising_path(X, kappa=2), gaussian_path(Y, kappa=2)):
        assert path.stop_reason == "t_max reached"


def test_loss_falls_below_the_step_bound():
    X = vectors.spins(100, P)
    path = ising_path(X, kappa=10, times=np.linspace(1, 30, 300))
    values = [ising_loss(g, f, X) for g, f in zip(path.gamma, path.intercept, strict=True)]
    assert (np.diff(values) <= 1e-14).all()
    with pytest.raises(ValueError, match="step bound"):
        ising_path(X, kappa=10, alpha=1.0)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: ising_path(np.ones((4, 1)), kappa=1), "two columns"),
        (lambda: ising_path(np.zeros((4, 2)), kappa=1), r"spins -1 and \+1, got 0"),
        (lambda: ising_path(np.ones((4, 2)), kappa=1), "constant column 0"),
        (lambda: ising_path(vectors.spins(20, 3), kappa=0), "kappa must be positive"),
        (lambda: gaussian_path(np.ones((4, 1)), kappa=1), "two columns"),
        (lambda: gaussian_path(np.c_[np.arange(4), np.ones(4)], kappa=1), "got column 1"),
        (lambda: gaussian_path(vectors.array((9, 3)) * np.nan, kappa=1), "finite"),
        (lambda: gaussian_path(vectors.array((9, 3)), kappa=1, alpha=9.0), "step bound"),
    ],
)
def test_bad_input_is_one_clear_line(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)

"""Conditions for selecting the support: closed forms, limits, and what they promise."""

import numpy as np
import pytest
import vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from dslbi_ref import transforms
from dslbi_ref.iss import iss_path
from dslbi_ref.theory import (
    genlasso_conditions,
    irrepresentable,
    split_irrepresentable,
    stopping_time,
)


def equicorrelated(r, n=40, p=12):
    """X with ``X'X / n = (1 - r) I + r 11'``."""
    X, _ = vectors.orthogonal(n, p)
    return X @ np.linalg.cholesky((1 - r) * np.eye(p) + r).T


@pytest.mark.parametrize("r, s", [(0.0, 4), (0.3, 4), (0.8, 1), (0.5, 11)])
def test_irrepresentable_of_equal_correlations(r, s):
    X = equicorrelated(r)
    assert_allclose(irrepresentable(X, np.arange(12) < s), s * r / (1 + (s - 1) * r), atol=1e-13)


@pytest.mark.parametrize("nu", [1e-3, 1.0, 50.0])
def test_split_irrepresentable_of_equal_correlations(nu):
    r, s = 0.4, 5
    few, one = (1 - r) * nu, (1 + 11 * r) * nu
    a = few / (1 + few)
    b = (one / (1 + one) - a) / 12
    number = split_irrepresentable(equicorrelated(r), np.eye(12), np.arange(12) < s, nu=nu)
    assert_allclose(number, s * b / (a + s * b), rtol=1e-11)


def test_split_condition_runs_from_genlasso_to_zero():
    X = vectors.array((50, 40), seed=1)
    beta = np.r_[np.zeros(10), np.full(8, 2.0), np.full(12, -1.0), np.zeros(10)]
    D = np.vstack([transforms.differences(40).toarray(), np.eye(40)])
    on = D @ beta != 0
    numbers = [split_irrepresentable(X, D, on, nu=nu) for nu in (1e-7, 1e-1, 1e1, 1e3, 1e8)]
    ic0, _ = genlasso_conditions(X, D, np.sign(D @ beta))
    assert_allclose(numbers[0], ic0, rtol=1e-4)  # of first order in nu
    assert (np.diff(numbers) < 0).all()
    assert numbers[-1] < 1e-4


def test_genlasso_conditions_of_the_identity():
    X, _, beta = vectors.linear(60, 20)
    S = beta != 0
    ic0, ic1 = genlasso_conditions(X, np.eye(20), np.sign(beta))
    projection = X[:, ~S].T @ X[:, S] @ np.linalg.inv(X[:, S].T @ X[:, S])
    assert_allclose(ic0, irrepresentable(X, S), rtol=1e-12)
    assert_allclose(ic1, np.abs(projection @ np.sign(beta[S])).max(), rtol=1e-7)  # of linprog


@pytest.mark.parametrize("left, middle, right", [(3, 6, 4), (2, 10, 9), (1, 3, 1)])
def test_ic1_of_a_flat_signal(left, middle, right):
    # X = I, one jump up and one down: rho runs linearly from 0 at the ends over 1 to -1.
    signal = np.r_[np.zeros(left), np.ones(middle), np.zeros(right)]
    D = transforms.differences(len(signal))
    _, ic1 = genlasso_conditions(np.eye(len(signal)), D, np.sign(D @ signal))
    expected = max(1 - 1 / left, 1 - 2 / middle, 1 - 1 / right)
    assert_allclose(ic1, expected, rtol=1e-7)


def test_ic1_of_a_staircase_is_one():
    signal = np.repeat([0.0, 1.0, 2.0], 5)
    D = transforms.differences(15)
    _, ic1 = genlasso_conditions(np.eye(15), D, np.sign(D @ signal))
    assert_allclose(ic1, 1.0, rtol=1e-7)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), width=st.integers(2, 5))
def test_ic1_never_exceeds_ic0(seed, width):
    X = vectors.array((30, 20), seed)
    beta = np.repeat(np.where(vectors.array(20, seed + 1) > 0, 1.0, -0.5), width)[:20]
    beta[:6] = 0
    D = np.vstack([transforms.differences(20).toarray(), np.eye(20)])
    signs = np.sign(np.round(D @ beta, 12))
    ic0, ic1 = genlasso_conditions(X, D, signs)
    assert 0 <= ic1 <= ic0 * (1 + 1e-7)
    assert_allclose(genlasso_conditions(X, D, -signs), (ic0, ic1), rtol=1e-6)


def test_stopping_time_of_an_orthogonal_design():
    X, _ = vectors.orthogonal(40, 12)
    expected = np.sqrt(40 / np.log(12)) / (2 * 0.5)
    assert_allclose(stopping_time(X, np.arange(12) < 3, sigma=0.5), expected, rtol=1e-12)


def test_no_false_entry_before_the_stopping_time():
    n, p, k, sigma = 400, 30, 4, 1.0
    late = 0
    for seed in range(20):
        X, y, beta = vectors.linear(n, p, k, sigma=sigma, seed=seed)
        tau = stopping_time(X, beta, sigma=sigma)
        entries = iss_path(X, y, t_max=20 * tau).entry_times()
        assert entries[beta == 0].min() > tau
        assert entries[beta != 0].max() < tau
        late += entries[beta == 0].min() < 10 * tau
    assert late > 15  # not for ever, either


X = vectors.array((10, 4))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: irrepresentable(X, [1, 0, 0]), "support must have shape"),
        (lambda: irrepresentable(X, np.ones(4)), "zeros and non-zeros"),
        (lambda: irrepresentable(X, np.zeros(4)), "zeros and non-zeros"),
        (lambda: irrepresentable(X[:, [0, 0, 1]], [1, 1, 0]), "independent"),
        (lambda: split_irrepresentable(X, np.eye(4), [1, 0, 0, 0], nu=-1), "nu must be positive"),
        (lambda: genlasso_conditions(X, np.eye(4), [2, 0, 0, 0]), "signs must be -1, 0 or 1"),
        (lambda: genlasso_conditions(X[:2], np.eye(4), [1, 1, 1, 0]), "independent columns"),
        (lambda: genlasso_conditions(X, np.eye(4)[[0, 1, 2, 3, 3]], [0, 0, 0, 0, 1]), "only beta"),
        (lambda: stopping_time(X, [1, 0, 0, 0], sigma=0), "sigma must be positive"),
        (lambda: stopping_time(X[:, [0, 0, 1]], [1, 0, 0], sigma=1), "must be below 1"),
    ],
)
def test_bad_input_is_one_clear_line(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)

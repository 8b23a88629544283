"""Stability selection: halves and frequencies, bounds against published values and programmes."""

import builtins

import numpy as np
import pytest
import scipy.sparse as sp
import vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linprog

from dslbi_ref.iss import iss_path
from dslbi_ref.lbi import lbi_path
from dslbi_ref.split_iss import split_iss_path
from dslbi_ref.stability import (
    ASSUMPTIONS,
    false_bound,
    first_entries,
    half_samples,
    largest_first,
    r_concave_tail,
    stability_selection,
)
from dslbi_ref.transforms import differences

# ---- halves and frequencies


@pytest.mark.parametrize("n", [20, 21])
def test_complementary_halves_have_nothing_in_common(n):
    halves = half_samples(n, 5, seed=1)
    assert len(halves) == 10
    for a, b in zip(halves[::2], halves[1::2], strict=True):
        assert len(a) == len(b) == 10
        assert len(np.union1d(a, b)) == 20
    independent = half_samples(n, 5, complementary=False, seed=1)
    shared = [len(np.intersect1d(*pair)) for pair in zip(*[iter(independent)] * 2, strict=True)]
    assert len(independent) == 10 and max(shared) > 0
    again = half_samples(n, 5, seed=1)
    assert all((a == b).all() for a, b in zip(halves, again, strict=True))
    assert any((a != b).any() for a, b in zip(halves, half_samples(n, 5, seed=2), strict=True))


def test_every_observation_is_drawn_as_often():
    halves = half_samples(10, 2000, complementary=False, seed=0)
    counts = np.bincount(np.concatenate(halves), minlength=10)
    assert_allclose(counts / 4000, 0.5, atol=0.03)  # four standard errors


def test_the_first_entries_by_time():
    times = np.array([3.0, 1.0, np.inf, 2.0, 2.0])
    assert_array_equal(first_entries(times, 1), [0, 1, 0, 0, 0])
    assert_array_equal(first_entries(times, 2), [0, 1, 0, 0, 0])  # of a tie none or all
    assert_array_equal(first_entries(times, 3), [0, 1, 0, 1, 1])
    assert_array_equal(first_entries(times, 4), [1, 1, 0, 1, 1])
    assert_array_equal(first_entries(times, 9), [1, 1, 0, 1, 1])
    square = first_entries(np.array([[1.0, 2.0], [3.0, 4.0]]), 2)
    assert_array_equal(square, [[1, 1], [0, 0]])


def test_frequencies_are_those_of_the_halves():
    X, y, _ = vectors.linear(30, 8, k=3, sigma=0.5)
    fits = []

    def fit(X, y):
        fits.append(iss_path(X, y))
        return fits[-1]

    found = stability_selection(fit, X, y, first=2, pairs=6, seed=3)
    masks = []
    for rows in half_samples(30, 6, seed=3):
        entry = iss_path(X[rows], y[rows]).entry_times()
        masks.append(entry <= np.sort(entry)[1])
    masks = np.array(masks)
    assert len(fits) == found.halves == 12 and found.size == 2.0
    assert_allclose(found.frequency, masks.mean(axis=0))
    assert_allclose(found.both, (masks[::2] & masks[1::2]).mean(axis=0))
    # an entry of frequency f is selected by at least 2f - 1 of the pairs
    assert (found.both >= 2 * found.frequency - 1 - 1e-12).all()
    assert_array_equal(found.selected(0.75), found.frequency >= 0.75)
    assert 0 < found.selected(0.75).sum() < 8
    independent = stability_selection(fit, X, y, first=2, pairs=6, complementary=False)
    assert independent.both is None


def test_any_path_and_any_selection():
    X, y, beta = vectors.linear(40, 8, k=3, sigma=0.5)
    D = differences(8)
    for fit in (
        lambda X, y: lbi_path(X, y, kappa=20.0),
        lambda X, y: iss_path(sp.csr_array(X), np.where(y > 0, 1.0, -1.0), loss="logistic"),
        lambda X, y: np.abs(X.T @ y) > 10,
    ):
        found = stability_selection(fit, X, y, first=3, pairs=4)
        assert found.frequency.shape == (8,)
        assert found.frequency[beta != 0].mean() > 1.5 * found.frequency[beta == 0].mean() > 0
    split = stability_selection(lambda X, y: split_iss_path(X, y, D, nu=1.0), X, y, pairs=4)
    assert split.frequency.shape == (7,) and split.size > 0
    sparse = stability_selection(iss_path, sp.csc_array(X), y, first=2, pairs=4)
    dense = stability_selection(iss_path, X, y, first=2, pairs=4)
    assert_array_equal(sparse.frequency, dense.frequency)


def test_processes_change_nothing(monkeypatch):
    pytest.importorskip("joblib")
    X, y, _ = vectors.linear(30, 8)
    alone = stability_selection(iss_path, X, y, first=2, pairs=3)
    shared = stability_selection(iss_path, X, y, first=2, pairs=3, n_jobs=2)
    for a, b in zip(alone, shared, strict=True):
        assert_array_equal(a, b)
    plain = builtins.__import__

    def missing(name, *rest):
        if name == "joblib":
            raise ImportError(name)
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    stability_selection(iss_path, X, y, first=2, pairs=1)
    with pytest.raises(ImportError, match="^n_jobs needs joblib: pip install 'dslbi.estimators.'$"):
        stability_selection(iss_path, X, y, n_jobs=1)


# ---- bounds


def test_worst_case_is_the_bound_of_meinshausen_and_buehlmann():
    for first, expected in enumerate((0.05, 0.2, 0.45, 0.8, 1.25, 1.8, 2.45, 3.2, 4.05, 5.0), 1):
        assert_allclose(false_bound(first, 100, 0.6, assumption="none"), expected, rtol=1e-12)
    assert_allclose(false_bound(2.5, 100, 0.9, assumption="none"), 2.5**2 / (0.8 * 100))


def test_published_values_of_complementary_pairs():
    """Of R's stabs 0.6 (50 pairs, 100 entries, threshold 0.6), and of its tests."""
    unimodal = [0.02631579, 0.1052632, 0.2368421, 0.4210526, 0.6578947]
    for first, expected in enumerate(unimodal, 1):
        assert_allclose(false_bound(first, 100, 0.6), expected, rtol=1e-6)
    assert_allclose(false_bound(3, 10, 0.96), 0.176, atol=5e-4)
    published = [0.1637231, 0.2605329, 0.3820466, 0.5295188, 0.7042719, 0.9077127, 1.141338]
    for first, expected in enumerate(published, 4):
        ours = false_bound(first, 100, 0.6, assumption="r-concave")
        assert_allclose(ours, expected, rtol=1e-5)
    # For fewer entries the largest tail fills 0, ..., B, a case that stabs leaves out.
    for first, expected in enumerate((0.006971364, 0.03342845, 0.08691176), 1):
        ours = false_bound(first, 100, 0.6, assumption="r-concave")
        assert expected < ours < 1.004 * expected
    options = dict(assumption="r-concave")
    assert largest_first(200, 0.6, 0.2, **options) == 6
    assert largest_first(200, 0.6, 0.2) == 3
    assert_allclose(false_bound(6, 200, 0.6, **options), 0.174, atol=5e-4)
    assert_allclose(false_bound(7, 200, 0.6, **options), 0.248, atol=5e-4)
    assert_allclose(false_bound(7, 200, 0.62, **options), 0.196, atol=5e-4)


@pytest.mark.parametrize("tau", [0.55, 0.6, 0.75, 0.8, 0.95, 1.0])
def test_unimodal_constant_by_linear_programmes(tau):
    """max P(X >= 2 tau - 1) over distributions on 0, 1/B, ..., 1 of one mode and mean theta^2."""
    B, theta = 20, 0.2
    t = round(B * (2 * tau - 1))
    i, best = np.arange(B + 1), 0.0
    for mode in range(B + 1):
        rise = np.diff(np.eye(B + 1), axis=0)  # f[i+1] - f[i]
        rows = np.where(np.arange(B)[:, None] < mode, -rise, rise)
        programme = linprog(
            -(i >= t).astype(float),
            A_ub=np.vstack([rows, i / B]),
            b_ub=np.append(np.zeros(B), theta**2),
            A_eq=np.ones((1, B + 1)),
            b_eq=[1.0],
        )
        best = max(best, -programme.fun if programme.status == 0 else 0.0)
    bound = false_bound(theta * 1000, 1000, tau, pairs=B) / 1000
    assert best <= bound * (1 + 1e-9)
    assert best > 0.85 * bound  # and not by far


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 10**6),
    B=st.integers(6, 30),
    r=st.sampled_from([-0.5, -0.25]),
    mean=st.floats(0.005, 0.3),
    part=st.floats(0.0, 1.0),
)
def test_no_r_concave_distribution_has_a_larger_tail(seed, B, r, mean, part):
    g = vectors.rng(seed)
    end = g.integers(B // 2, B + 1)
    slopes = np.sort(g.exponential(1.0, B)) * g.exponential(1.0)
    convex = np.cumsum(np.append(0.0, slopes - g.uniform(0, slopes[-1])))
    convex = convex - convex.min() + g.exponential(0.1) + 1e-3
    f = np.where(np.arange(B + 1) <= end, convex ** (1 / r), 0.0)
    f = f / f.sum()
    average = f @ np.arange(B + 1) / B
    t = int(np.ceil(2 * average * B)) + 1 + int(part * B / 2)
    if average < 0.45 and t <= B:
        assert f[t:].sum() <= r_concave_tail(average, t, B, r) + 1e-9
    t = int(np.ceil(2 * mean * B)) + 1 + int(part * B / 2)
    if t <= B:
        tail = r_concave_tail(mean, t, B, r)
        assert mean * 1e-9 < tail <= B * mean / t + 1e-12  # Markov's inequality


def test_extreme_r_concave_tails():
    assert r_concave_tail(0.3, 6, 10, -0.5) == 1.0  # below twice the mean
    assert r_concave_tail(0.6, 10, 10, -0.5) == 1.0
    tails = [r_concave_tail(0.1, t, 40, -0.25) for t in range(9, 41)]
    assert (np.diff(tails) < 0).all()
    grid = [r_concave_tail(mean, 20, 40, -0.25) for mean in (0.001, 0.01, 0.05, 0.1, 0.2)]
    assert (np.diff(grid) > 0).all()


def test_bounds_are_ordered_and_grow():
    for threshold in (0.55, 0.6, 0.75, 0.9, 1.0):
        rows = [
            [false_bound(q, 500, threshold, assumption=name) for q in (1, 5, 20, 60, 200, 500)]
            for name in ASSUMPTIONS
        ]
        assert (np.diff(rows, axis=0) <= 1e-12).all()
        assert (np.diff(rows, axis=1) >= 0).all() and (np.diff(rows, axis=1)[:, :3] > 0).all()
        assert [row[-1] for row in rows] == [500.0] * 3
    assert false_bound(5, 100, 0.601) == false_bound(5, 100, 0.61)  # what 50 pairs can tell


@pytest.mark.parametrize("assumption", list(ASSUMPTIONS))
def test_the_largest_first_is_the_last_within_the_bound(assumption):
    options = dict(assumption=assumption)
    for expected in (0.1, 1.0, 4.0):
        first = largest_first(300, 0.7, expected, **options)
        assert false_bound(first, 300, 0.7, **options) <= expected
        assert false_bound(first + 1, 300, 0.7, **options) > expected
    assert largest_first(3, 1.0, 50.0, **options) == 3


def test_what_the_three_bounds_allow():
    allowed = [largest_first(1000, 0.75, 1.0, assumption=name) for name in ASSUMPTIONS]
    assert allowed == [22, 31, 61]


def test_false_entries_stay_below_every_bound():
    """Exchangeable noise: the mean number of stable false entries over 30 sets."""
    n, p, first, threshold, false = 40, 40, 6, 0.6, []
    for seed in range(30):
        X, y, beta = vectors.linear(n, p, k=4, sigma=2.0, seed=seed)
        found = stability_selection(
            lambda X, y: iss_path(X, y, t_max=30.0), X, y, first=first, pairs=10, seed=seed
        )
        false.append((found.selected(threshold) & (beta == 0)).sum())
    assert 0 < np.mean(false)
    for assumption in ASSUMPTIONS:
        assert np.mean(false) < false_bound(first, p, threshold, pairs=10, assumption=assumption)


# ---- bad input

X, Y, _ = vectors.linear(10, 3, k=2)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: stability_selection(iss_path, X, Y[:9]), "y must have shape"),
        (lambda: stability_selection(iss_path, X[:3], Y[:3]), "n must be at least 4, got 3"),
        (lambda: stability_selection(iss_path, X, Y, first=0), "first must be at least 1, got 0"),
        (lambda: stability_selection(iss_path, X, Y, first=1.5), "first must be an integer"),
        (lambda: stability_selection(iss_path, X, Y, pairs=0), "pairs must be at least 1, got 0"),
        (lambda: stability_selection(lambda X, y: X[0], X, Y), "fit must return a Path or a mask"),
        (lambda: stability_selection(lambda X, y: None, X, Y), "fit must return .*, got None"),
        (
            lambda: stability_selection(iss_path, X, Y, pairs=1).selected(0.5),
            r"threshold must be in \(0.5, 1\], got 0.5",
        ),
        (lambda: false_bound(2, 10, 1.1), r"threshold must be in \(0.5, 1\], got 1.1"),
        (lambda: false_bound(11, 10, 0.9), "first must be at most p = 10, got 11"),
        (lambda: false_bound(0, 10, 0.9), "first must be positive"),
        (lambda: false_bound(2, 0, 0.9), "p must be at least 1"),
        (lambda: false_bound(2, 10, 0.9, assumption="convex"), "assumption must be one of none"),
        (lambda: largest_first(10, 0.9, 0.0), "expected must be positive"),
        (lambda: largest_first(10, 0.6, 0.01), "expected must be at least 0.263, what one entry"),
        (lambda: stability_selection(iss_path, X, Y, n_jobs=0), "n_jobs must be None, -1 or .* 0"),
        (lambda: r_concave_tail(0.1, "a", 10, -0.5), "t must be an integer, got 'a'"),
        (lambda: r_concave_tail(0.1, 12, 10, -0.5), "t must be at most 10, got 12"),
        (lambda: r_concave_tail(0.1, 4, 10, 0.5), "r must be negative and finite, got 0.5"),
    ],
)
def test_bad_input_is_one_clear_line(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)

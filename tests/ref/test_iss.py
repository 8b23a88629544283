"""Exact inverse scale space: closed forms, optimality at every event, limits, hard cases."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import vectors
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linprog, minimize
from sklearn.linear_model import lars_path

from dslbi_ref import transforms
from dslbi_ref.iss import ISSState, collect, iss_path, iss_states
from dslbi_ref.lbi import lbi_path
from dslbi_ref.losses import LOSSES
from dslbi_ref.solvers import active_newton
from dslbi_ref.solvers.active_set import Factor, Quadratic
from dslbi_ref.split_iss import split_iss_path
from dslbi_ref.split_lbi import split_lbi_path


def integral(path):
    """Time integral of gamma up to each breakpoint."""
    steps = np.diff(path.t)[:, None] * path.gamma[:-1]
    return np.concatenate([np.zeros((1, steps.shape[1])), np.cumsum(steps, axis=0)])


def kkt_residual(path, flow):
    """Largest violation of the inclusion over all breakpoints.

    ``flow[k]`` is the negative gradient at gamma[k], computed by the caller from the data. The flow
    has to carry z from event to event, rho to be in the sub-differential at both ends of each
    interval, the gradient to vanish on the support and to point inwards at the boundary.
    """
    z, gamma = path.z, path.gamma
    moved = np.concatenate(
        [np.zeros((1, z.shape[1])), np.cumsum(np.diff(path.t)[:, None] * flow[:-1], 0)]
    )
    on = gamma != 0
    held = (np.abs(z) == 1) & ~on
    return max(
        np.abs(moved - z).max(),
        np.abs(z).max() - 1,
        np.abs(z - np.sign(gamma))[on].max(initial=0),
        np.abs(z[1:] - np.sign(gamma[:-1]))[on[:-1]].max(initial=0),
        np.abs(flow)[on].max(initial=0),
        (z * flow)[held].max(initial=0),
    )


def squared_flow(X, y, path):
    return (y - path.gamma @ X.T) @ X / len(y)


def removals(gamma):
    return int(((gamma[:-1] != 0) & (gamma[1:] == 0)).sum())


# ---- linear model: closed forms and identities


def test_orthogonal_design_enters_unshrunk():
    X, y = vectors.orthogonal()
    c = X.T @ y / len(y)
    path = iss_path(X, y, t_max=np.inf)
    order = np.argsort(-np.abs(c))
    assert_allclose(path.t, np.r_[0, 1 / np.abs(c[order])], rtol=1e-12)
    for k in range(len(c) + 1):
        expected = np.where(np.isin(np.arange(len(c)), order[:k]), c, 0)
        assert_allclose(path.gamma[k], expected, rtol=0, atol=1e-14)
    assert_allclose(path.entry_times(), 1 / np.abs(c), rtol=1e-12)
    assert path.stop_reason.startswith("saturated")
    assert path.kind == "step" and path.kappa == np.inf


@pytest.mark.parametrize("n, p", [(60, 20), (40, 40), (30, 90)])
def test_kkt_residual_until_saturation(n, p):
    X, y, _ = vectors.linear(n, p, k=8, sigma=1.0)
    X = X + 0.7 * X[:, ::-1]  # correlated enough for coordinates to leave
    path = iss_path(X, y, t_max=np.inf)
    assert kkt_residual(path, squared_flow(X, y, path)) < 1e-9
    assert removals(path.gamma) > 0
    assert path.stop_reason.startswith("saturated")
    loss = ((y - path.gamma @ X.T) ** 2).sum(axis=1)
    assert (np.diff(loss) <= 1e-12 * loss[0]).all()


def test_ends_at_least_squares():
    X, y, _ = vectors.linear(60, 20, sigma=1.0)
    path = iss_path(X, y, t_max=np.inf)
    assert_allclose(path.gamma[-1], np.linalg.lstsq(X, y)[0], rtol=1e-10)


def test_ends_at_interpolator_of_least_l1_norm():
    X, y, _ = vectors.linear(15, 40, sigma=1.0, seed=3)
    end = iss_path(X, y, t_max=np.inf).gamma[-1]
    assert_allclose(X @ end, y, atol=1e-10)
    pursuit = linprog(np.ones(80), A_eq=np.hstack([X, -X]), b_eq=y)
    assert_allclose(np.abs(end).sum(), pursuit.fun, rtol=1e-8)  # tolerance of linprog


def test_running_average_is_the_lasso_until_a_coordinate_leaves():
    X, y, _ = vectors.linear(80, 60, k=15, sigma=1.0, seed=1)
    path = iss_path(X, y, t_max=np.inf)
    gone = ((path.gamma[:-1] != 0) & (path.gamma[1:] == 0)).any(axis=1)
    t_gone = path.t[1:][gone][0]
    alphas, _, coefficients = lars_path(X, y, method="lasso")
    area = integral(path)
    before = after = 0
    for alpha, lasso in zip(alphas[1:], coefficients.T[1:], strict=True):
        t = 1 / alpha
        if t > path.t[-1]:
            break
        k = np.searchsorted(path.t, t, side="right") - 1
        average = (area[k] + (t - path.t[k]) * path.gamma[k]) / t
        if t <= t_gone:
            assert_allclose(average, lasso, rtol=0, atol=1e-12)
            before += 1
        else:
            after = max(after, np.abs(average - lasso).max())
    assert before > 5
    assert after > 1e-3


def test_oracle_plateau_is_least_squares_and_the_lasso_is_biased():
    X, y, beta = vectors.linear(100, 40, k=5, sigma=0.3, seed=2)
    S = beta != 0
    path = iss_path(X, y)
    right = ((path.gamma != 0) == S).all(axis=1)
    assert right.any()
    oracle = np.zeros(40)
    oracle[S] = np.linalg.lstsq(X[:, S], y)[0]
    assert_allclose(path.gamma[right], np.tile(oracle, (right.sum(), 1)), atol=1e-12)
    alphas, _, coefficients = lars_path(X, y, method="lasso")
    lasso = coefficients.T[((coefficients.T != 0) == S).all(axis=1)]
    assert np.abs(lasso - oracle).max(axis=1).min() > 10 * np.abs(path.gamma[right] - oracle).max()


def test_first_event_and_averages_scale():
    X, y, _ = vectors.linear(50, 30, sigma=1.0, seed=4)
    path = iss_path(X, y)
    assert_allclose(path.t[1], 50 / np.abs(X.T @ y).max(), rtol=1e-14)
    assert_allclose(path.t[-1], 20 * path.t[1], rtol=1e-14)

    scaled = iss_path(X, 3 * y)
    assert_allclose(scaled.t, path.t / 3, rtol=1e-12)
    assert_allclose(scaled.gamma, 3 * path.gamma, atol=1e-12)

    Q = np.linalg.qr(vectors.array((50, 50), seed=9))[0]
    rotated = iss_path(Q @ X, Q @ y)
    assert_allclose(rotated.t, path.t, rtol=1e-12)
    assert_allclose(rotated.gamma, path.gamma, atol=1e-12)

    signs = np.where(np.arange(30) % 3 == 0, -1.0, 1.0)
    flipped = iss_path(X * signs, y)
    assert_allclose(flipped.gamma * signs, path.gamma, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 25),
    p=st.integers(1, 40),
    rank=st.integers(1, 25),
    seed=st.integers(0, 10**6),
    correlated=st.booleans(),
)
def test_any_shape_and_rank(n, p, rank, seed, correlated):
    X = vectors.array((n, p), seed)
    if rank < min(n, p):
        X = vectors.array((n, rank), seed) @ vectors.array((rank, p), seed + 1) / np.sqrt(rank)
    if correlated:
        X = X + 2 * X[:, :1]
    y = vectors.array(n, seed + 2)
    t0 = 1 / np.abs(X.T @ y / n).max()
    path = iss_path(X, y, t_max=1e4 * t0)
    # Rounding of the flow, about 1e-15, is integrated over 1e4 t0.
    assert kkt_residual(path, squared_flow(X, y, path)) < 1e-9 * max(1, np.abs(path.gamma).max())


def limit_errors(X, y, kappas, loss="squared"):
    """Median over 50 times of the largest error of LBI at each kappa."""
    exact = iss_path(X, y, loss=loss)
    times = np.geomspace(exact.t[1] * 1.01, exact.t[-1], 50)
    errors = []
    for kappa in kappas:
        path = lbi_path(X, y, kappa=kappa, times=times, loss=loss)
        errors.append(np.median(np.abs(path.gamma - exact.at(times).gamma).max(axis=1)))
    return np.array(errors)


def test_lbi_tends_to_the_exact_path():
    X, y, _ = vectors.linear(60, 20, sigma=0.5)
    errors = limit_errors(X, y, [4, 20, 100])
    assert errors[1] < 1e-3 and errors[2] < 1e-12


# ---- linear model: ties, duplicates, riders


def test_ties_enter_together():
    X, _ = vectors.orthogonal()
    c = np.array([1, -1, 1, 0.5, -0.5, 0.25, 0, 0, 0, 0, 0, 0])
    path = iss_path(X, X @ c, t_max=10)
    assert_allclose(path.t, [0, 1, 2, 4, 10], rtol=1e-12)
    assert_allclose(path.gamma[1], np.where(np.abs(c) == 1, c, 0), atol=1e-13)
    assert_allclose(path.gamma[2], np.where(np.abs(c) >= 0.5, c, 0), atol=1e-13)
    assert_allclose(path.gamma[3], c, atol=1e-13)


@settings(deadline=None, max_examples=60)
@given(n=st.integers(2, 15), p=st.integers(2, 20), seed=st.integers(0, 10**6))
def test_small_integers_tie_all_the_time(n, p, seed):
    X, y = np.round(vectors.array((n, p), seed)), np.round(2 * vectors.array(n, seed + 1))
    top = np.abs(X.T @ y / n).max()
    path = iss_path(X, y, t_max=1e4 / max(top, 1e-3))
    assert kkt_residual(path, squared_flow(X, y, path)) < 1e-9


def test_duplicate_columns_ride_along():
    X, y, _ = vectors.linear(40, 15, sigma=1.0, seed=5)
    wide = np.hstack([X, X[:, :4], -X[:, 4:8]])
    path, single = iss_path(wide, y, t_max=np.inf), iss_path(X, y, t_max=np.inf)
    assert kkt_residual(path, squared_flow(wide, y, path)) < 1e-9
    assert_allclose(path.t, single.t, rtol=1e-10)
    assert_allclose(path.gamma @ wide.T, single.gamma @ X.T, atol=1e-10)
    assert_allclose(path.z[:, 15:], np.c_[path.z[:, :4], -path.z[:, 4:8]], atol=1e-12)
    twins = (path.gamma[:, :4] != 0) & (path.gamma[:, 15:19] != 0)
    assert not twins.any()


def test_dependent_column_that_meets_the_boundary_in_a_tie():
    X, _ = vectors.orthogonal(p=3)
    X = np.c_[X, (X[:, 0] + X[:, 1]) / 2]
    y = X[:, :3] @ np.array([1.0, 1.0, 0.5])
    path = iss_path(X, y, t_max=np.inf)
    assert kkt_residual(path, squared_flow(X, y, path)) < 1e-12
    assert_allclose(path.gamma[-1] @ X.T, y, atol=1e-12)


def test_nearly_duplicate_columns_stay_at_the_boundary():
    X, y, _ = vectors.linear(40, 15, sigma=1.0, seed=5)
    wide = np.hstack([X, X + 1e-8 * vectors.array((40, 15), seed=6)])
    path, single = iss_path(wide, y, t_max=100), iss_path(X, y, t_max=100)
    assert np.abs(path.z).max() == 1
    assert ((path.gamma != 0).sum(axis=1) <= 15).all()
    # what rides along is wrong by the distance of the twins, integrated over time
    assert kkt_residual(path, squared_flow(wide, y, path)) < 1e-5
    assert_allclose(path.gamma[-1] @ wide.T, single.gamma[-1] @ X.T, atol=1e-6)


def test_a_column_of_zeros_never_enters():
    X, y, _ = vectors.linear(30, 8)
    X = np.c_[X, np.zeros(30)]
    path = iss_path(X, y, t_max=np.inf)
    assert_array_equal(path.gamma[:, -1], 0)
    assert_array_equal(path.z[:, -1], 0)


def test_no_signal_is_saturated_at_once():
    X, _, _ = vectors.linear(30, 8)
    path = iss_path(X, np.zeros(30))
    assert_array_equal(path.t, [0.0])
    assert path.stop_reason.startswith("saturated")
    assert_array_equal(iss_path(X, np.zeros(30), t_max=2).t, [0.0, 2.0])
    # nor is what rounding leaves of a constant, or of a vector orthogonal to all columns
    assert_array_equal(iss_path(X, np.full(30, 0.1), intercept=True).t, [0.0])
    Q = np.linalg.qr(X, mode="complete")[0]
    assert_array_equal(iss_path(X, Q[:, -1]).t, [0.0])
    assert_array_equal(split_iss_path(X, 1e3 * Q[:, -1], np.eye(8), nu=1.0).gamma, 0)
    halves = np.r_[np.ones(15), -np.ones(15)]
    even = np.r_[X[:15], X[:15]]
    assert_array_equal(iss_path(even, halves, loss="logistic").t, [0.0])
    # X sees the mean of the coefficients only, D their differences only
    flat = split_iss_path(np.ones((30, 8)), X[:, 0], transforms.differences(8), nu=1.0)
    assert_array_equal(flat.t, [0.0])


# ---- t_max, options, data on demand


def test_t_max_is_exact():
    X, y, _ = vectors.linear(40, 30, sigma=1.0, seed=6)
    whole = iss_path(X, y, t_max=np.inf)
    between = 0.3 * whole.t[7] + 0.7 * whole.t[8]
    for t_max in (between, whole.t[7], 0.5 * whole.t[1]):
        path = iss_path(X, y, t_max=t_max)
        assert path.t[-1] == t_max
        assert path.stop_reason == "t_max reached"
        expected = whole.at(t_max)
        assert_allclose(path.z[-1], expected.z, atol=1e-12)
        assert_array_equal(path.gamma[-1], expected.gamma)
    late = iss_path(X, y, t_max=3 * whole.t[-1])
    assert late.t[-1] == 3 * whole.t[-1]
    assert late.stop_reason.startswith("saturated")
    assert_array_equal(late.gamma[-1], whole.gamma[-1])


def test_events_closer_than_the_clock_become_one():
    first, second, flow = np.array([1.0, 0.0]), np.array([1.0, 2.0]), np.array([0.0, 1e-3])
    events = [
        ISSState(0.0, 0 * first, 0 * first, None, np.array([1.0, 0.0]), 1.0, ""),
        ISSState(1.0, first, first, None, flow, 1.0, ""),
        ISSState(1.0, first, second, None, 0 * flow, np.inf, "saturated"),
    ]
    path = collect(iter(events), 5.0)
    assert_array_equal(path.t, [0.0, 1.0, 5.0])
    assert_array_equal(path.gamma[1:], [second, second])


def test_intercept_normalize_and_sparse_columns():
    X, y, _ = vectors.linear(50, 20, sigma=1.0, seed=7)
    X = np.where(np.abs(X) > 0.7, X * np.linspace(0.5, 3, 20) + 2, 0.0)
    y = y + 5
    centred = X - X.mean(axis=0)
    scale = np.sqrt((centred**2).mean(axis=0))
    plain = iss_path(centred / scale, y - y.mean(), t_max=30)
    for design in (X, sp.csr_array(X)):
        path = iss_path(design, y, t_max=30, intercept=True, normalize=True)
        assert_allclose(path.t, plain.t, rtol=1e-12)
        assert_allclose(path.z, plain.z, atol=1e-12)
        assert_allclose(path.gamma, plain.gamma / scale, atol=1e-12)
        assert_allclose(path.scale, 1 / scale, rtol=1e-12)
        assert_allclose(
            (y - path.gamma @ X.T - path.intercept[:, None]).mean(axis=1), 0, atol=1e-12
        )
    bare = iss_path(sp.csr_array(X), y, t_max=1)
    assert_allclose(bare.gamma, iss_path(X, y, t_max=1).gamma, atol=1e-12)
    assert bare.intercept is None and bare.scale is None


def test_rows_of_the_gram_matrix_on_demand():
    X, y, _ = vectors.linear(100, 3000, k=5, seed=8)
    c = X.T @ y / 100
    asked = []

    def rows(J):
        asked.extend(J)
        return X[:, J].T @ X / 100

    for state in iss_states(rows, c):
        if state.until > 2 / np.abs(c).max():
            break
    active = (state.gamma != 0).sum()
    assert 0 < active < 20
    assert len(asked) == len(set(asked)) <= 64
    assert_allclose(state.gamma, iss_path(X, y, t_max=2 / np.abs(c).max()).gamma[-1], atol=1e-12)


def test_states_from_a_matrix():
    X, y, _ = vectors.linear(30, 12, sigma=1.0)
    H, c = X.T @ X / 30, X.T @ y / 30
    states = list(iss_states(H, c))
    path = iss_path(X, y, t_max=np.inf)
    assert_allclose([s.t for s in states], path.t, rtol=1e-12)
    assert_allclose([s.gamma for s in states], path.gamma, atol=1e-12)
    for a, b in zip(states, states[1:], strict=False):
        assert a.until == b.t
        assert_allclose(b.z, a.z + (b.t - a.t) * a.flow, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(moves=st.lists(st.tuples(st.booleans(), st.integers(0, 99)), max_size=60))
def test_factor_follows_any_sequence_of_moves(moves):
    X = vectors.array((40, 30), seed=1)
    H = X.T @ X / 40
    factor, index = Factor(), []
    for grow, i in moves:
        if grow and len(index) < 30:
            j = [j for j in range(30) if j not in index][i % (30 - len(index))]
            assert factor.append(H[j, index], H[j, j])
            index.append(j)
        elif index:
            factor.delete(i % len(index))
            del index[i % len(index)]
        if index:
            b = np.cos(np.arange(len(index)))
            expected = np.linalg.solve(H[np.ix_(index, index)], b)
            assert_allclose(factor.solve(b), expected, rtol=1e-10, atol=1e-12)


def test_factor_refuses_a_dependent_column():
    X = vectors.array((20, 3), seed=2)
    X = np.c_[X, X @ [1.0, -2.0, 0.5]]
    H = X.T @ X
    factor = Factor()
    assert all(factor.append(H[j, :j], H[j, j]) for j in range(3))
    assert not factor.append(H[3, :3], H[3, 3])
    assert factor.size == 3


def test_store_grows_and_keeps_rows_in_place():
    X, y, _ = vectors.linear(200, 400, k=30, sigma=1.0, seed=10)
    H, c = X.T @ X / 200, X.T @ y / 200
    fit = Quadratic(H, c)
    wait = 1 / np.abs(fit.start())
    for j in np.argsort(wait)[:150]:
        fit.append(j, wait)
    fit.values = np.zeros(150)
    for i in (3, 77, 0, 140):
        fit.delete(i)
    fit.descend(np.sign(c))
    s = len(fit.active)
    assert_array_equal(np.sort(fit.rows.place[fit.active]), np.arange(s))
    assert_array_equal(fit.rows.store[fit.rows.place[fit.active]], H[fit.active])
    assert_allclose(fit.flow()[fit.active], 0, atol=1e-13)


# ---- Split


def split_flow(path, D, nu):
    return (path.beta @ D.T - path.gamma) / nu


@pytest.mark.parametrize("nu", [0.1, 1.0, 10.0])
def test_split_of_an_orthogonal_design(nu):
    X, y = vectors.orthogonal()
    c = X.T @ y / len(y)
    path = split_iss_path(X, y, np.eye(12), nu=nu, t_max=np.inf)
    order = np.argsort(-np.abs(c))
    assert_allclose(path.t, np.r_[0, (1 + nu) / np.abs(c[order])], rtol=1e-12)
    assert_allclose(path.entry_times(), (1 + nu) / np.abs(c), rtol=1e-12)
    assert_allclose(path.gamma[-1], c, atol=1e-12)
    assert_allclose(path.beta, (nu * c + path.gamma) / (1 + nu), atol=1e-12)


@pytest.mark.parametrize("nu", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("n, p", [(60, 40), (30, 50)])
def test_split_kkt_residual(n, p, nu):
    X, y, _ = vectors.linear(n, p, sigma=1.0, seed=n)
    D = sp.vstack([transforms.differences(p), transforms.identity(p)], format="csr")
    dense = D.toarray()
    path = split_iss_path(X, y, D, nu=nu, t_max=200.0 * nu)
    assert len(path.t) > 20
    # beta minimises the joint loss given gamma
    gradient = (path.beta @ X.T - y) @ X / n + split_flow(path, dense, nu) @ dense
    assert_allclose(gradient, 0, atol=1e-12)
    assert kkt_residual(path, split_flow(path, dense, nu)) < 1e-9
    other = split_iss_path(X, y, dense, nu=nu, t_max=200.0 * nu)
    assert_allclose(other.t, path.t, rtol=1e-10)
    assert_allclose(other.gamma, path.gamma, atol=1e-10)


def test_split_tends_to_the_plain_path():
    X, y, _ = vectors.linear(50, 20, sigma=1.0)
    t = 5.0
    plain = iss_path(X, y, t_max=t)
    errors = []
    for nu in (1e-3, 1e-4, 1e-5):
        path = split_iss_path(X, y, np.eye(20), nu=nu, t_max=t)
        errors.append(np.abs(path.gamma[-1] - plain.gamma[-1]).max())
    assert_allclose(errors[1:], np.array(errors[:2]) / 10, rtol=0.02)  # of first order in nu


@pytest.mark.parametrize("sparse", [False, True])
def test_split_intercept_is_the_path_of_centred_data(sparse):
    """The best intercept of a beta is mean(y) - mean(X) beta, so beta sees centred data only."""
    X, y, _ = vectors.step_signal()
    X = np.where(np.abs(X) > 0.8, X, 0.0) + 0.5
    D, options = transforms.differences(X.shape[1]), dict(nu=2.0, t_max=np.inf)
    given = sp.csc_array(X) if sparse else X
    path = split_iss_path(given, y + 3.0, D, intercept=True, **options)
    centred = split_iss_path(X - X.mean(axis=0), y - y.mean(), D, **options)
    assert path.stop_reason == centred.stop_reason and centred.intercept is None
    assert_allclose(path.t, centred.t, rtol=1e-9)
    assert_allclose(path.gamma, centred.gamma, atol=1e-9)
    assert_allclose(path.beta, centred.beta, atol=1e-9)
    assert_allclose(path.intercept, 3.0 + y.mean() - path.beta @ X.mean(axis=0), atol=1e-9)
    # at each event the gradient of the split loss in (beta, intercept) is zero
    for beta, b, gamma in zip(path.beta, path.intercept, path.gamma, strict=True):
        r = (X @ beta + b - y - 3.0) / len(y)
        assert abs(r.sum()) < 1e-12
        assert np.abs(X.T @ r + D.T @ (D @ beta - gamma) / 2.0).max() < 1e-9


def test_shifts_change_the_split_intercept_alone():
    X, y, _ = vectors.step_signal()
    D, options = transforms.differences(X.shape[1]), dict(nu=2.0, t_max=5.0, intercept=True)
    shift = 3 * np.cos(np.arange(X.shape[1]))
    plain = split_iss_path(X, y, D, **options)
    moved = split_iss_path(X + shift, y - 7.0, D, **options)
    for name in ("t", "z", "gamma", "beta"):
        assert_allclose(getattr(moved, name), getattr(plain, name), rtol=1e-8, atol=1e-9)
    assert_allclose(moved.intercept, plain.intercept - 7.0 - plain.beta @ shift, atol=1e-8)
    later = plain.at(3.0)
    assert_allclose(later.intercept, y.mean() - later.beta @ X.mean(axis=0), atol=1e-12)


def test_split_lbi_tends_to_the_exact_split_path():
    X, y, _ = vectors.step_signal(50, 30)
    D = sp.vstack([transforms.differences(30), transforms.identity(30)], format="csr")
    exact = split_iss_path(X, y, D, nu=1.0)
    times = np.geomspace(exact.t[1] * 1.01, exact.t[-1], 50)
    errors = []
    for kappa in (5, 20, 80):
        path = split_lbi_path(X, y, D, nu=1.0, kappa=kappa, times=times)
        point = exact.at(times)
        errors.append(
            [
                np.abs(path.gamma - point.gamma).max(axis=1).mean(),
                np.abs(path.beta - point.beta).max(axis=1).mean(),
            ]
        )
    errors = np.array(errors)
    assert (errors[1:] < errors[:-1] / 2).all()
    assert errors[-1].max() < 0.02


def test_split_with_a_common_kernel():
    # X and D see differences only: A is singular on the constants.
    X, y, _ = vectors.linear(30, 25, sigma=1.0, seed=4)
    X = X - X.mean(axis=1, keepdims=True)
    D = transforms.differences(25)
    path = split_iss_path(X, y, D, nu=2.0, t_max=100.0)
    assert kkt_residual(path, split_flow(path, D.toarray(), 2.0)) < 1e-9
    assert_allclose(path.beta.sum(axis=1), 0, atol=1e-10)
    assert np.isfinite(path.entry_times()).any()


def test_split_of_an_image_computes_few_rows():
    # m = 760 differences of a 20 x 20 image of two flat halves
    image = np.where(np.arange(400) % 20 < 8, 1.0, -1.0) + 0.1 * vectors.array(400, seed=3)
    D = transforms.grid((20, 20))
    path = split_iss_path(sp.eye_array(400), image, D, nu=5.0)
    assert kkt_residual(path, split_flow(path, D.toarray(), 5.0)) < 1e-9
    edge = D @ np.where(np.arange(400) % 20 < 8, 1.0, -1.0) != 0
    assert path.auc(edge) > 0.999


# ---- logistic


def logistic_flow(X, y, path):
    level = 0.0 if path.intercept is None else path.intercept[:, None]
    eta = path.gamma @ X.T + level
    return np.array([-X.T @ LOSSES["logistic"].gradient(e, y) for e in eta])


@pytest.mark.parametrize("intercept", [False, True])
def test_logistic_kkt_residual_and_end(intercept):
    X, y, _ = vectors.labels(200, 15, seed=1)
    X = X + 0.5 * intercept
    path = iss_path(X, y, loss="logistic", intercept=intercept, t_max=np.inf)
    assert kkt_residual(path, logistic_flow(X, y, path)) < 1e-9
    assert path.stop_reason.startswith("saturated")

    def full(theta):
        eta = X @ theta[:15] + theta[15] * intercept
        r = LOSSES["logistic"].gradient(eta, y)
        return LOSSES["logistic"].value(eta, y), np.r_[X.T @ r, r.sum() * intercept]

    mle = minimize(full, np.zeros(16), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    assert_allclose(path.gamma[-1], mle[:15], atol=1e-6)  # gtol of the optimiser
    if intercept:
        assert_allclose(path.intercept[-1], mle[15], atol=1e-6)
        eta = path.gamma @ X.T + path.intercept[:, None]
        assert_allclose([LOSSES["logistic"].gradient(e, y).sum() for e in eta], 0, atol=1e-13)


def test_logistic_with_many_columns():
    X, y, _ = vectors.labels(150, 300, seed=3)
    path = iss_path(X, y, loss="logistic", t_max=np.inf)
    assert path.stop_reason.startswith("separable")
    # At the last event, which has no solution, the one before it is held.
    assert_array_equal(path.gamma[-1], path.gamma[-2])
    solved = replace(path, t=path.t[:-1], z=path.z[:-1], gamma=path.gamma[:-1])
    assert kkt_residual(solved, logistic_flow(X, y, solved)) < 1e-9
    # the last plateau has a finite fit, and adding what enters at the end separates the classes
    at_end = np.abs(path.z[-1]) == 1
    margins = y[:, None] * X[:, at_end] * path.z[-1, at_end]
    found = linprog(np.zeros(at_end.sum()), A_ub=-margins, b_ub=-np.ones(150), bounds=(0, None))
    assert found.status == 0
    before = np.abs(path.z[-2]) == 1
    margins = y[:, None] * X[:, before] * path.z[-2, before]
    found = linprog(np.zeros(before.sum()), A_ub=-margins, b_ub=-np.ones(150), bounds=(0, None))
    assert found.status == 2


def test_logistic_leaving_and_duplicates():
    X, y, _ = vectors.labels(120, 30, seed=5)
    X = X + X[:, ::-1] * 0.8
    wide = np.c_[X, X[:, 3], -X[:, 5]]
    path = iss_path(wide, y, loss="logistic", t_max=np.inf)
    single = iss_path(X, y, loss="logistic", t_max=np.inf)
    assert removals(single.gamma) > 0
    assert kkt_residual(path, logistic_flow(wide, y, path)) < 1e-9
    assert_allclose(path.t, single.t, rtol=1e-9)
    assert_allclose(path.gamma @ wide.T, single.gamma @ X.T, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(10, 40), p=st.integers(1, 15), seed=st.integers(0, 10**6))
@example(n=28 % 20 + 20, p=3 + 28 % 9, seed=28)  # Newton's full step would go astray here
@example(n=37 % 20 + 20, p=3 + 37 % 9, seed=37)
def test_logistic_with_heavy_tails(n, p, seed):
    X = vectors.array((n, p), seed) ** 3
    y = np.where(X.sum(axis=1) + 3 * vectors.array(n, seed + 1) > 0, 1.0, -1.0)
    y[:2] = -1.0, 1.0
    path = iss_path(X, y, loss="logistic", intercept=True, t_max=100.0)
    if path.stop_reason.startswith("separable"):
        parts = dict(t=path.t, z=path.z, gamma=path.gamma, intercept=path.intercept)
        path = replace(path, **{name: part[:-1] for name, part in parts.items()})
    size = max(1, np.abs(path.gamma).max())
    assert kkt_residual(path, logistic_flow(X, y, path)) < 1e-9 * size


def test_logistic_near_duplicates():
    X, y, _ = vectors.labels(120, 10, seed=5)
    wide = np.hstack([X, X + 1e-8 * vectors.array((120, 10), seed=6)])
    path = iss_path(wide, y, loss="logistic", t_max=100)
    assert np.abs(path.z).max() == 1
    assert ((path.gamma != 0).sum(axis=1) <= 10).all()
    assert kkt_residual(path, logistic_flow(wide, y, path)) < 1e-5
    single = iss_path(X, y, loss="logistic", t_max=100)
    assert_allclose(path.gamma[-1] @ wide.T, single.gamma[-1] @ X.T, atol=1e-6)


def test_newton_that_does_not_end_asks_whether_there_is_an_end(monkeypatch):
    monkeypatch.setattr(active_newton, "MAX_NEWTON", 3)
    x = np.array([-2.0, -1.0, 1.0, 3.0])
    path = iss_path(x[:, None], np.sign(x), loss="logistic")
    assert path.stop_reason.startswith("separable")
    y = np.array([-1.0, 1.0, -1.0, 1.0])
    assert iss_path(x[:, None], y, loss="logistic").stop_reason.startswith("saturated")


def test_logistic_stops_where_one_column_separates():
    x = np.array([-2.0, -1.0, 1.0, 3.0])
    path = iss_path(x[:, None], np.sign(x), loss="logistic")
    t0 = 1 / np.abs(x / 2).mean()
    assert_allclose(path.t, [0, t0], rtol=1e-14)
    assert_array_equal(path.gamma, 0)
    assert path.stop_reason.startswith("separable")


def test_logistic_stops_where_the_separation_leaves_ties():
    # x = 0 carries both labels, so no margin rule is strict; yet no finite minimiser exists
    x = np.array([-2.0, -1.0, 0.0, 0.0, 1.0, 3.0])
    y = np.array([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])
    path = iss_path(x[:, None], y, loss="logistic")
    assert path.stop_reason.startswith("separable")


def test_logistic_sparse_normalized():
    X, y, _ = vectors.labels(100, 10, seed=2)
    X = np.where(np.abs(X) > 0.5, X * np.linspace(0.5, 3, 10) + 1, 0.0)
    options = dict(loss="logistic", intercept=True, normalize=True)
    dense, sparse = iss_path(X, y, **options), iss_path(sp.csr_array(X), y, **options)
    assert_allclose(sparse.t, dense.t, rtol=1e-10)
    assert_allclose(sparse.gamma, dense.gamma, atol=1e-10)
    assert_allclose(sparse.intercept, dense.intercept, atol=1e-10)
    scale = X.std(axis=0)
    by_hand = iss_path(X / scale, y, loss="logistic", intercept=True)
    assert_allclose(dense.gamma, by_hand.gamma / scale, atol=1e-10)


def test_lbi_tends_to_the_exact_logistic_path():
    X, y, _ = vectors.labels(200, 10, seed=1)
    errors = limit_errors(X, y, [10, 50, 250], loss="logistic")
    assert errors[1] < 1e-3 and errors[2] < 1e-11  # measured 5.5e-13


# ---- bad input

X, Y, _ = vectors.linear(10, 3, k=2)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: iss_path(X, Y[:9]), "y must have shape"),
        (lambda: iss_path(X[:, 0], Y), "X must be"),
        (lambda: iss_path(X[:, :0], Y), "X must be"),
        (lambda: iss_path(np.where(X > 1, np.nan, X), Y), "X must be finite"),
        (lambda: iss_path(X, np.r_[Y[:9], np.inf]), "y must be finite"),
        (lambda: iss_path(X, Y, t_max=0), "t_max must be positive, got 0"),
        (lambda: iss_path(X, Y, t_max=np.nan), "t_max must be positive, got nan"),
        (lambda: iss_path(X, Y, loss="hinge"), "loss must be one of squared, .*logistic.* here"),
        (
            lambda: iss_path(X, Y, loss="multinomial"),
            "y of a multinomial loss must be 0",
        ),
        (lambda: iss_path(X, Y, loss="logistic"), "y of a logistic loss"),
        (lambda: iss_path(X, np.ones(10), loss="logistic"), "both classes"),
        (lambda: iss_path(np.c_[X, np.ones(10)], Y, intercept=True, normalize=True), "constant"),
        (lambda: split_iss_path(X, Y, np.eye(4), nu=1), "D must have the 3 columns"),
        (lambda: split_iss_path(X, Y, np.zeros((2, 3)), nu=1), "D must not be zero"),
        (lambda: split_iss_path(X, Y, np.eye(3), nu=0), "nu must be positive"),
        (lambda: split_iss_path(X, Y, np.eye(3) * np.nan, nu=1), "D must be finite"),
    ],
)
def test_bad_input_is_one_clear_line(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)


def test_arguments_are_not_changed():
    X, y, _ = vectors.linear(20, 8)
    D = transforms.differences(8)
    kept = X.copy(), y.copy(), D.toarray()
    iss_path(X, y, intercept=True, normalize=True, t_max=np.inf)
    iss_path(X, np.sign(y), loss="logistic")
    split_iss_path(X, y, D, nu=1.0)
    assert_array_equal(X, kept[0])
    assert_array_equal(y, kept[1])
    assert_array_equal(D.toarray(), kept[2])

"""Split Knockoffs: the copy and its clocks, the filter, and what is promised."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import lars_path

from dslbi_ref import split_iss_path, transforms
from dslbi_ref.classical_knockoffs import (
    fixed_copy,
    fixed_knockoffs,
    gaussian_copy,
    gaussian_knockoffs,
    paired_selection,
)
from dslbi_ref.knockoff_filter import (
    STATISTICS,
    exact_clocks,
    knockoff_statistics,
    knockoff_threshold,
    levels,
)
from dslbi_ref.knockoffs import chosen_nu, split_clocks, split_copy, split_knockoffs

P = 12
TRANSFORMS = {
    "identity": np.eye(P),
    "differences": transforms.differences(P).toarray(),
    "both": np.vstack([np.eye(P), transforms.differences(P).toarray()]),
}
each_transform = pytest.mark.parametrize("D", TRANSFORMS.values(), ids=TRANSFORMS)


def data(seed=0, n=80, p=P, size=1.0):
    """X with correlated columns, y, and beta: two stretches, the rest is zero."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    X[:, 1:] += 0.6 * X[:, :-1]
    beta = np.zeros(p)
    beta[1 : p // 4 + 1], beta[p // 2 : p // 2 + 2] = size, -size
    return X, X @ beta + rng.normal(size=n) + 5.0, beta


def split_design(X, y, D, nu):
    """The matrices of the split model as they stand in the book, X and y centred."""
    n, m = len(X), len(D)
    X, y = X - X.mean(axis=0), y - y.mean()
    A_beta = np.vstack([X / np.sqrt(n), D / np.sqrt(nu)])
    A_gamma = np.vstack([np.zeros((n, m)), -np.eye(m) / np.sqrt(nu)])
    top, s = split_copy(X, D, nu=nu, seed=1)
    copy = np.vstack([top, -np.sqrt(nu) * (1 / nu - s) * np.eye(m)])
    return A_beta, A_gamma, copy, s, np.append(y / np.sqrt(n), np.zeros(m))


# ---- The copy --------------------------------------------------------------------------------


@each_transform
@pytest.mark.parametrize("nu", [0.3, 1.0, 30.0])
def test_the_copy_has_the_gram_matrices_of_its_rows(D, nu):
    X, y, _ = data()
    A_beta, A_gamma, copy, s, _ = split_design(X, y, D, nu)
    one = np.eye(len(D))
    assert 0 < s <= 1 / nu
    assert_allclose(copy.T @ copy, one / nu, rtol=0, atol=1e-12 / nu)
    assert_allclose(A_beta.T @ copy, A_beta.T @ A_gamma, rtol=0, atol=1e-12 / nu)
    assert_allclose(A_gamma.T @ copy, one / nu - s * one, rtol=0, atol=1e-12 / nu)
    top = copy[: len(X)]
    assert_allclose(top.sum(axis=0), 0, atol=1e-12)  # an intercept changes nothing
    # What is random in a copy is independent from row to row, and only from y as nu grows.
    assert_allclose(top.T @ top, (2 * s - nu * s * s) * one, rtol=0, atol=1e-12)
    assert_allclose((X - X.mean(axis=0)).T @ top / np.sqrt(len(X)), -s * D.T, atol=1e-12)


@each_transform
@pytest.mark.parametrize("path", ["iss", "lasso"])
def test_levels_of_row_and_copy_solve_their_lasso(D, path):
    """By definition: where the lasso of what beta leaves, on the copies, first has a coefficient.

    The Gram matrix is I / nu, so that lasso is one soft threshold.
    """
    nu, (X, y, _) = 2.0, data()
    A_beta, A_gamma, copy, _, target = split_design(X, y, D, nu)
    t, clock = split_clocks(X, y, D, nu=nu, path=path)
    zeta = copy.T @ target
    assert_allclose(zeta, copy[: len(X)].T @ y / np.sqrt(len(X)), rtol=0, atol=1e-12)
    for columns, extra in ((A_gamma, 0.0), (copy, 1.0)):
        run = clock + extra * np.outer(t, zeta)
        level = np.maximum(levels(t, run), levels(t, -run))

        def pull(lam, columns=columns):
            at = np.array([np.interp(1 / lam, t, column) for column in clock.T])
            tie = nu * lam * at  # D beta, of the path at this level
            beta = np.linalg.lstsq(D, tie, rcond=None)[0]
            assert_allclose(D @ beta, tie, rtol=0, atol=1e-8)
            return columns.T @ (target - A_beta @ beta)

        for i in np.flatnonzero(level > 2 / t[-1])[:6]:
            assert abs(pull(level[i] * (1 - 1e-6))[i]) > level[i] * (1 - 1e-6)
            for lam in level[i] * np.array([1 + 1e-6, 1.1, 1.5]):
                assert abs(pull(lam)[i]) < lam


@each_transform
def test_the_lasso_path_is_that_of_the_whole_split_problem(D):
    nu, (X, y, _) = 1.5, data(1)
    A_beta, A_gamma, _, _, target = split_design(X, y, D, nu)
    left = np.eye(len(target)) - A_beta @ np.linalg.pinv(A_beta)
    alphas, _, gamma = lars_path(left @ A_gamma, left @ target, method="lasso")
    alphas = alphas * len(target)  # scikit-learn has the mean of squares
    t, clock = split_clocks(X, y, D, nu=nu, path="lasso")
    Z = np.maximum(levels(t, clock), levels(t, -clock))
    ever = (gamma != 0).any(axis=1) & (Z > 0)
    entry = alphas[(gamma[ever] != 0).argmax(axis=1) - 1]
    assert ever.sum() > len(D) / 2
    assert_allclose(Z[ever], entry, rtol=1e-8)


@each_transform
def test_rows_enter_where_the_split_inverse_scale_space_has_them(D):
    X, y, _ = data(2)
    t, clock = split_clocks(X, y, D, nu=1.5, path="iss")
    path = split_iss_path(X, y, D, nu=1.5, t_max=t[-1], intercept=True)
    Z = np.maximum(levels(t, clock), levels(t, -clock))
    assert_allclose(Z, 1 / path.entry_times(), rtol=1e-10)
    # The clock is the integral of D beta.
    walked = np.cumsum(np.diff(t)[:, None] * (path.beta[:-1] @ D.T), axis=0) / 1.5
    assert_allclose(clock[1:], walked, rtol=0, atol=1e-9 * np.abs(walked).max())


def test_both_paths_have_one_clock_until_a_row_leaves():
    X, y, _ = data(3)
    D = TRANSFORMS["both"]
    (t, clock), (s, other) = (split_clocks(X, y, D, nu=4.0, path=w) for w in ("iss", "lasso"))
    path = split_iss_path(X, y, D, nu=4.0, t_max=t[-1], intercept=True)
    here = path.gamma != 0
    leaves = (here[:-1] & ~here[1:]).any(axis=1)
    end = t[1:][leaves][0] if leaves.any() else t[-1]
    times = np.linspace(t[1], min(end, s[-1]), 50)
    assert here[t < end].any(axis=0).sum() >= 5
    for a, b in zip(clock.T, other.T, strict=True):
        assert_allclose(np.interp(times, t, a), np.interp(times, s, b), rtol=0, atol=1e-8)


def test_nothing_ever_enters_without_a_pull():
    t, clock = exact_clocks(lambda J: np.eye(3)[J], np.zeros(3), nu=1.0, path="iss")
    assert levels(t, clock).tolist() == [0.0, 0.0, 0.0]


# ---- Evidence --------------------------------------------------------------------------------


def test_levels_are_where_a_clock_first_reaches_one():
    t = np.array([0.0, 1.0, 2.0, 4.0])
    clock = np.array([[0, 0, 0, 0], [0.5, -2, 1, 0.9], [0.5, 2, 0, 0.9], [2.5, 3, 5, 0.9]])
    assert_allclose(levels(t, clock), [1 / 2.5, 1 / 1.75, 1.0, 0.0], rtol=1e-14)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_a_copy_that_is_faster_in_the_same_direction_always_wins(statistic):
    """The step of the proof: W < 0 if r zeta > 0, and a positive W is the level of the row."""
    X, y, _ = data(4)
    D = TRANSFORMS["both"]
    t, clock = split_clocks(X, y, D, nu=1.0)
    Z = np.maximum(levels(t, clock), levels(t, -clock))
    zeta = np.random.default_rng(0).normal(size=len(D)) * 0.2
    W, sign = knockoff_statistics(t, clock, zeta, statistic)
    flipped, _ = knockoff_statistics(t, clock, -zeta, statistic)
    entered = Z > 0
    assert set(sign[entered]) == {-1.0, 1.0} and not (W[~entered] > 0).any()
    assert (W[entered & (sign * zeta > 0)] < 0).all()
    assert (flipped[entered & (sign * zeta < 0)] < 0).all()
    assert_array_equal(W[W > 0], Z[W > 0])
    assert (-W[W < 0] >= Z[W < 0]).all()
    assert (W > 0).any()


def test_a_tie_counts_against_the_row():
    t, clock = np.array([0.0, 1.0]), np.array([[0.0], [2.0]])
    for statistic in STATISTICS:
        assert knockoff_statistics(t, clock, np.zeros(1), statistic)[0] == -2.0


def test_a_sign_that_differs_does_not_count_with_t():
    t, clock = np.array([0.0, 1.0]), np.array([[0.0], [2.0]])
    W = {word: knockoff_statistics(t, clock, [-9.0], word)[0][0] for word in STATISTICS}
    assert W == {"s": -2.0, "st": 2.0, "bc": -7.0, "bct": 2.0}


def test_the_sign_of_w_changes_when_row_and_copy_are_swapped():
    Z, copy = np.random.default_rng(1).uniform(size=(2, 20))
    for word in ("s", "bc"):
        W, swapped = STATISTICS[word](Z, copy, copy), STATISTICS[word](copy, Z, Z)
        assert_array_equal(np.sign(swapped), -np.sign(W))
    assert_array_equal(swapped, -W)


@given(
    st.lists(st.integers(-6, 6), min_size=1, max_size=25),
    st.floats(0.05, 0.95),
    st.booleans(),
)
def test_the_threshold_is_the_first_that_is_good(values, q, plus):
    W = np.array(values, dtype=float)
    good = [
        size
        for size in sorted({abs(w) for w in values if w})
        if plus + (W <= -size).sum() <= q * max((W >= size).sum(), 1)
    ]
    assert knockoff_threshold(W, q, plus=plus) == (good[0] if good else np.inf)


# ---- Classical knockoffs ---------------------------------------------------------------------


def swap(Z, copy, which):
    return np.where(which, copy, Z), np.where(which, Z, copy)


def test_a_fixed_copy_can_take_the_place_of_its_column():
    X, _, _ = data(5)
    X = X - X.mean(axis=0)
    Z = X / np.linalg.norm(X, axis=0)
    copy = fixed_copy(Z, X, seed=3)
    pair = np.hstack([Z, copy])
    which = np.arange(P) % 3 == 0
    swapped = np.hstack(swap(Z, copy, which))
    assert_allclose(swapped.T @ swapped, pair.T @ pair, rtol=0, atol=1e-12)
    assert (np.diag(Z.T @ copy) < 0.99).all()
    assert_allclose(copy.sum(axis=0), 0, atol=1e-12)


def test_a_gaussian_copy_has_the_law_of_its_columns():
    rng = np.random.default_rng(6)
    cov = 0.5 ** np.abs(np.subtract.outer(np.arange(4), np.arange(4))) * np.outer(
        [1, 2, 1, 3], [1, 2, 1, 3]
    )
    mean = np.array([1.0, -1.0, 0.0, 4.0])
    X = rng.multivariate_normal(mean, cov, size=40000)
    copy = gaussian_copy(X, mean, cov, seed=6)
    joint = np.cov(np.hstack([X, copy]).T)
    s = np.diag(joint[:4, :4] - joint[:4, 4:])
    wanted = np.block([[cov, cov - np.diag(s)], [cov - np.diag(s), cov]])
    assert_allclose(joint, wanted, rtol=0, atol=0.15)
    assert_allclose(copy.mean(axis=0), mean, atol=0.06)
    assert (s > 0.3 * np.diag(cov)).all()


@pytest.mark.parametrize("path", ["iss", "lasso"])
def test_swapped_columns_change_the_sign_of_w(path):
    X, y, _ = data(7)
    X = X - X.mean(axis=0)
    Z = X / np.linalg.norm(X, axis=0)
    copy = fixed_copy(Z, X, seed=0)
    which = np.arange(P) % 2 == 0
    W = paired_selection(Z, copy, y, 0.2, path, True).W
    other = paired_selection(*swap(Z, copy, which), y, 0.2, path, True).W
    assert_allclose(other, np.where(which, -W, W), rtol=1e-9, atol=0)
    assert (W > 0).any() and (W < 0).any()


def test_classical_knockoffs_do_not_see_the_kernel_of_D():
    X, y, _ = data(8)
    D = TRANSFORMS["differences"]
    here, there = fixed_knockoffs(X, y, D), fixed_knockoffs(X, y + 7 * X.sum(axis=1), D)
    assert_allclose(here.W, there.W, rtol=1e-8)


# ---- What is promised ------------------------------------------------------------------------


def rates(select, D, seeds, **options):
    """Mean directional false discovery rate, its standard error, and the power."""
    wrong, power = [], []
    for seed in seeds:
        X, y, beta = data(seed, **options)
        truth = np.sign(np.round(D @ beta, 12))
        found = select(X, y, seed)
        false = found.selected & (found.sign != truth)
        wrong.append(false.sum() / max(found.selected.sum(), 1))
        power.append((found.selected & (truth != 0)).sum() / (truth != 0).sum())
    return np.mean(wrong), np.std(wrong) / np.sqrt(len(wrong)), np.mean(power)


@pytest.mark.parametrize("statistic", ["s", "st", "bc"])
def test_the_directional_rate_is_kept_with_a_part(statistic):
    D = transforms.differences(30)

    def select(X, y, seed):
        return split_knockoffs(X, y, D, q=0.3, nu=2.0, statistic=statistic, seed=seed)

    rate, error, power = rates(select, D, range(30), n=150, p=30, size=1.5)
    assert rate <= 0.3 + 2 * error
    assert power > (0.5 if statistic == "st" else 0.2)


def test_a_false_row_wins_half_of_the_time_at_most():
    """The coin of the proof: rows of zero, over many sets of data."""
    D = TRANSFORMS["identity"]
    won = lost = 0
    for seed in range(60):
        X, y, beta = data(seed)
        W = split_knockoffs(X, y, D, nu=1.0, seed=seed).W[beta == 0]
        won, lost = won + (W > 0).sum(), lost + (W < 0).sum()
    count = won + lost
    assert count > 200
    assert abs(won - count / 2) < 3 * np.sqrt(count) / 2


def test_from_all_rows_the_coin_is_not_fair():
    """Why the whole path has no proof: the noise of the copy is that of y, with a minus."""
    D = TRANSFORMS["identity"]
    won = lost = 0
    for seed in range(60):
        X, y, beta = data(seed)
        W = split_knockoffs(X, y, D, nu=0.1, part=None, statistic="st", seed=seed).W[beta == 0]
        won, lost = won + (W > 0).sum(), lost + (W < 0).sum()
    assert won > lost + 3 * np.sqrt(won + lost)


@pytest.mark.parametrize("select", [fixed_knockoffs, gaussian_knockoffs])
def test_classical_knockoffs_keep_the_rate(select):
    def run(X, y, seed):
        return select(X, y, q=0.3, seed=seed)

    rate, error, power = rates(run, np.eye(30), range(30), n=150, p=30, size=1.0)
    assert rate <= 0.3 + 2 * error
    assert power > 0.5


def test_neither_shifts_nor_the_size_of_y_nor_a_sparse_D_change_what_is_named():
    X, y, _ = data(9, n=120, size=2.0)
    D = transforms.differences(P)
    first = split_knockoffs(X, y, D, q=0.4, nu=2.0)
    assert first.selected.any()
    for other in (
        split_knockoffs(X + 3, 2 * y - 1, D, q=0.4, nu=2.0),
        split_knockoffs(X, 2 * y, D.toarray(), q=0.4, nu=2.0),
    ):
        assert_allclose(other.W, 2 * first.W, rtol=1e-7)
        assert_array_equal(other.selected, first.selected)
        assert_array_equal(other.sign, first.sign)


def test_nu_is_one_of_the_candidates_and_least_in_error():
    X, y, _ = data(10, size=2.0)
    D = transforms.differences(P)
    assert chosen_nu(X, y, D, nus=(0.5,)) == 0.5
    nu = chosen_nu(X, y, D, nus=(1e-2, 1.0, 1e4))
    assert nu in (1e-2, 1.0)  # least squares, where the spring is gone, is worse
    assert split_knockoffs(X, y, D).nu in (1.0, 2.5, 6.3, 16.0, 40.0, 100.0)


def test_only_as_many_rows_are_tried_as_fit_beside_X():
    X, y, _ = data(11, n=60, size=2.0)
    D = TRANSFORMS["both"]  # 23 rows, of which 36 - 12 - 1 = 23 fit
    whole = split_knockoffs(X, y, D, nu=1.0)
    fewer = split_knockoffs(X, y, D, nu=1.0, part=0.6)  # 24 - 13 = 11 fit
    assert np.count_nonzero(whole.W) > 11 >= np.count_nonzero(fewer.W)


# ---- What is refused -------------------------------------------------------------------------


@pytest.mark.parametrize("q", [0, 1, -0.1, 1.5, np.nan])
def test_a_rate_outside_of_the_interval_is_refused(q):
    X, y, _ = data()
    for select in (fixed_knockoffs, gaussian_knockoffs):
        with pytest.raises(ValueError, match=rf"q must be in \(0, 1\), got {q}$"):
            select(X, y, q=q)
    with pytest.raises(ValueError, match=rf"q must be in \(0, 1\), got {q}$"):
        split_knockoffs(X, y, np.eye(P), q=q)
    with pytest.raises(ValueError, match=rf"q must be in \(0, 1\), got {q}$"):
        knockoff_threshold(np.ones(3), q)


def test_bad_input_is_refused_in_one_line():
    X, y, _ = data(n=40)
    D = TRANSFORMS["both"]

    def refused(message, call, *args, **options):
        with pytest.raises(ValueError, match=message) as error:
            call(*args, **options)
        assert "\n" not in str(error.value)

    refused(
        "n must be at least p . m . 1 = 36 .* got 30: part=0.4 tries",
        split_knockoffs,
        X[:30],
        y[:30],
        D,
        part=None,
    )
    refused(
        "the copy must have at least p . 2 = 14 rows, got 8: a part of at most 0.65",
        split_knockoffs,
        X,
        y,
        D,
        part=0.8,
    )
    refused(
        "at least p . 2 = 14 rows, got 8: more rows", split_knockoffs, X[:13], y[:13], D, part=0.4
    )
    refused(
        "n must be at least p . m . 1 = 25 for the copy, got 24", fixed_knockoffs, X[:24], y[:24]
    )
    refused("D must have full row rank, got rank 12 of 23 rows", fixed_knockoffs, X, y, D)
    refused("part must be None or in .0, 1., got 1", split_knockoffs, X, y, D, part=1)
    refused("nu must be positive and finite, got -1", split_knockoffs, X, y, D, nu=-1)
    refused(
        "path must be one of iss, lasso, got 'lars'", split_knockoffs, X, y, D, nu=1.0, path="lars"
    )
    refused(
        "statistic must be one of s, st, bc, bct, got 'z'", split_knockoffs, X, y, D, statistic="z"
    )
    refused("seed must be at least 0, got -1", split_knockoffs, X, y, D, seed=-1)
    refused("y must vary, got 40 times 1", split_knockoffs, X, np.ones(40), D)
    twin = np.column_stack([X, X[:, 0]])
    refused(
        "independent columns about their means, got rank 12 of 13",
        split_knockoffs,
        twin,
        y,
        np.eye(13),
        nu=1.0,
    )
    refused(
        "cov must be given for n of at most p, got n = 12 and p = 12",
        gaussian_knockoffs,
        X[:12],
        y[:12],
    )
    refused("cov must be positive definite", gaussian_knockoffs, X, y, cov=np.ones((P, P)))
    refused("D must have the 12 columns of X", split_knockoffs, X, y, np.eye(5))

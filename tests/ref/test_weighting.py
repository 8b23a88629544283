"""Weights of observations, offsets, factors of the penalty and signs, in every linear solver."""

import numpy as np
import pytest
import scipy.sparse as sp
import vectors
from numpy.testing import assert_allclose
from scipy.optimize import minimize, nnls
from sklearn.linear_model import Lasso, PoissonRegressor

from dslbi_ref.design import column_deviation, spectral_norm_squared
from dslbi_ref.iss import iss_path
from dslbi_ref.lbi import lbi_path, lbi_states
from dslbi_ref.losses import LOSSES, huber
from dslbi_ref.path import record
from dslbi_ref.penalties import PENALTIES
from dslbi_ref.shrinkage import penalty_of_labels, positive_part, with_factors
from dslbi_ref.solvers.blocks import Blocks
from dslbi_ref.split_iss import split_iss_path
from dslbi_ref.split_lbi import split_lbi_path
from dslbi_ref.transforms import differences

DATA = {
    "squared": vectors.linear(n=40, p=6, k=3, sigma=1.0)[:2],
    "huber": vectors.linear(n=40, p=6, k=3, sigma=1.0)[:2],
    "logistic": vectors.labels(n=60, p=6)[:2],
    "poisson": vectors.counts(n=60, p=6)[:2],
    "multinomial": vectors.classes(n=60, p=6, k=3),
}
FACTORS = np.array([0.5, 2.0, 0.0, 1.0, 1.5, 0.7])
D = differences(6)
SOLVERS = {
    "lbi": lambda X, y, **options: lbi_path(X, y, kappa=5.0, **options),
    "iss": lambda X, y, **options: iss_path(X, y, **options),
    "split lbi": lambda X, y, **options: split_lbi_path(X, y, D, nu=2.0, kappa=5.0, **options),
    "split iss": lambda X, y, **options: split_iss_path(X, y, D, nu=2.0, **options),
}


def takes(solver, loss):
    return loss == "squared" or solver in ("lbi", "iss") or loss != "multinomial"


CASES = [
    (solver, loss)
    for solver in SOLVERS
    for loss in DATA
    if takes(solver, loss) and (solver != "split iss" or loss == "squared")
]


def solve(solver, loss, X, y, **options):
    options = options if solver == "split iss" else dict(options, loss=loss)
    return SOLVERS[solver](X, y, **options)


def same(path, other, rtol=1e-7, atol=1e-7):
    assert_allclose(other.t, path.t, rtol=rtol)
    for name in ("z", "gamma", "beta", "intercept"):
        mine, theirs = getattr(path, name), getattr(other, name)
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert_allclose(theirs, mine, rtol=rtol, atol=atol)


# ---- Weights and offsets


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("solver, loss", CASES)
def test_a_weight_of_two_is_a_row_twice(solver, loss, intercept, sparse):
    X, y = DATA[loss]
    X = np.where(np.abs(X) > 0.3, X, 0.0) if sparse else X
    copies = 1 + (np.arange(len(y)) % 3)
    twice = np.repeat(np.arange(len(y)), copies)
    options = dict(intercept=intercept)
    if solver in ("lbi", "iss"):
        options["normalize"] = True
    if solver.endswith("lbi"):
        options["times"] = np.array([0.5, 1.0, 2.0, 5.0])
        if loss == "poisson":
            options.update(times=np.array([0.3, 0.6, 1.0]), alpha=2e-4)
    made = sp.csr_array if sparse else np.asarray
    path = solve(solver, loss, made(X), y, sample_weight=7.0 * copies, **options)
    same(solve(solver, loss, made(X[twice]), y[twice], **options), path)
    equal = solve(solver, loss, made(X), y, **options)
    moved = np.abs(np.r_[equal.gamma[-1] - path.gamma[-1], equal.z[-1] - path.z[-1]])
    assert moved.max() > 1e-3  # the weights matter


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_offset_is_taken_off_the_target_of_a_squared_loss(solver):
    X, y = DATA["squared"]
    o = vectors.array(40, seed=8)
    options = dict(intercept=True, sample_weight=np.arange(1.0, 41.0))
    path = solve(solver, "squared", X, y - o, **options)
    same(path, solve(solver, "squared", X, y, offset=o, **options))


@pytest.mark.parametrize("loss", ["huber", "logistic", "poisson"])
def test_a_constant_offset_moves_the_intercept_alone(loss):
    X, y = DATA[loss]
    path = iss_path(X, y, loss=loss, intercept=True)
    other = iss_path(X, y, loss=loss, intercept=True, offset=np.full(len(y), 0.7))
    assert_allclose(other.t, path.t, rtol=1e-8)
    assert_allclose(other.gamma, path.gamma, atol=1e-7)
    assert_allclose(other.intercept, path.intercept - 0.7, atol=1e-7)


def test_poisson_with_weights_ends_at_the_fit_of_scikit_learn():
    X, y = DATA["poisson"]
    w = 0.5 + np.arange(60) % 4
    path = iss_path(X, y, t_max=np.inf, loss="poisson", intercept=True, sample_weight=w)
    other = PoissonRegressor(alpha=0, tol=1e-10, max_iter=1000).fit(X, y, sample_weight=w)
    assert_allclose(path.gamma[-1], other.coef_, atol=1e-6)
    assert_allclose(path.intercept[-1], other.intercept_, atol=1e-6)


def test_an_exposure_is_an_offset():
    """Counts over exposures e: rates exp(x beta) times e have the likelihood of counts y."""
    X, y = DATA["poisson"]
    e = np.exp(vectors.array(60, seed=3))
    path = iss_path(X, y, t_max=np.inf, loss="poisson", intercept=True, offset=np.log(e))
    other = PoissonRegressor(alpha=0, tol=1e-10, max_iter=1000).fit(X, y / e, sample_weight=e)
    assert_allclose(path.gamma[-1], other.coef_, atol=1e-6)


@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
@pytest.mark.parametrize("sparse", [False, True])
def test_weighted_columns(shape, sparse, close):
    X = np.where(np.abs(vectors.array(shape)) > 0.7, vectors.array(shape) + 2, 0.0)
    w = np.linspace(0.5, 1.5, shape[0])
    mean = w @ X / shape[0]
    given = sp.csc_array(X) if sparse else X
    rows = np.sqrt(w)[:, None] * (X - mean)
    close(spectral_norm_squared(given, mean, w), np.linalg.norm(rows, 2) ** 2)
    deviation = np.sqrt((rows**2).sum(axis=0) / shape[0])
    close(column_deviation(given, True, w), deviation)
    if not sparse:
        close(column_deviation(Blocks(X), True, w), deviation)


# ---- Optimality with everything at once


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("loss", DATA)
def test_kkt_residual_with_weights_offset_factors_and_signs(loss, intercept, positive):
    X, y = DATA[loss]
    X = X * [1.0, -1, 1, -1, 1, -1]  # most coefficients are positive
    w, row = 1.0 + np.arange(len(y)) % 3, LOSSES[loss]
    offset = 0.3 * vectors.array((len(y), *row.columns(y)), seed=4)
    path = iss_path(
        X,
        y,
        t_max=np.inf,
        loss=loss,
        intercept=intercept,
        sample_weight=w,
        offset=offset,
        penalty_factors=FACTORS,
        positive=positive,
    )
    assert path.stop_reason.startswith("saturated") and len(path.t) > 2 + 2 * (not positive)
    levels = path.intercept if intercept else np.zeros(len(path.t))
    r = np.array(
        [row.gradient(X @ g + b + offset, y) for g, b in zip(path.gamma, levels, strict=True)]
    )
    r = np.moveaxis(np.moveaxis(r, 1, -1) * w / w.mean(), -1, 1)
    flow = -np.einsum("ij,ti...->tj...", X, r)
    size = np.abs(flow[0]).max()
    steps = np.diff(path.t).reshape(-1, *(1,) * (flow.ndim - 1))
    moved = np.cumsum(steps * flow[:-1], axis=0)
    f = FACTORS.reshape(-1, *(1,) * (flow.ndim - 2))
    weighed = np.broadcast_to(f > 0, flow.shape)
    assert_allclose(path.z[1:][weighed[1:]], moved[weighed[1:]], atol=1e-8)
    assert (path.z <= f * (1 + 1e-12)).all() and (positive or (-path.z <= f * (1 + 1e-12)).all())
    on = (path.gamma != 0) & weighed
    assert_allclose(path.z[on], (f * np.sign(path.gamma))[on], atol=1e-12)
    assert np.abs(flow[on | ~weighed]).max() < 1e-10 * size
    assert not positive or (path.gamma[weighed] >= 0).all()
    assert path.gamma[0][~weighed[0]].any()  # the free column is there from the start
    assert not intercept or np.abs(r.sum(axis=1)).max() < 1e-10 * size


# ---- Factors


def test_factors_delay_entries_in_proportion(close):
    """Orthogonal columns: coefficient j enters at factor_j / |c_j|, unshrunk."""
    X, y = vectors.orthogonal()
    c, f = X.T @ y / len(y), np.linspace(0.5, 3.0, 12)
    path = iss_path(X, y, t_max=np.inf, penalty_factors=f)
    close(path.entry_times(), f / np.abs(c))
    close(path.gamma[-1], c)
    close(path.factors, f)


@pytest.mark.parametrize("solver", ["lbi", "iss"])
def test_first_entry_with_factors(solver, close):
    X, y = DATA["squared"]
    f = np.where(FACTORS > 0, FACTORS, 1.0)
    first = np.abs(X.T @ y / 40) / f
    path = solve(solver, "squared", X, y, penalty_factors=f)
    close(path.t[1 if solver == "iss" else 0], 1 / first.max())


def test_a_free_column_is_regressed_out():
    """Frisch, Waugh and Lovell: the others have the path of what the free column leaves."""
    X, y = DATA["squared"]
    x, others = X[:, [2]], np.delete(X, 2, axis=1)
    Q = np.linalg.qr(np.column_stack([np.ones(40), x]))[0]
    rest, target = others - Q @ (Q.T @ others), y - Q @ (Q.T @ y)
    f = np.delete(FACTORS, 2)
    path = iss_path(X, y, t_max=np.inf, intercept=True, penalty_factors=FACTORS)
    other = iss_path(rest, target, t_max=np.inf, penalty_factors=f)
    assert_allclose(path.t, other.t, rtol=1e-9)
    assert_allclose(np.delete(path.gamma, 2, axis=1), other.gamma, atol=1e-9)
    assert_allclose(np.delete(path.z, 2, axis=1), other.z, atol=1e-9)
    rows = zip(path.gamma, path.intercept, strict=True)
    assert_allclose([Q.T @ (y - X @ g - b) for g, b in rows], 0, atol=1e-9)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("loss", DATA)
def test_lbi_tends_to_the_exact_path_with_factors_and_signs(loss, positive):
    X, y = DATA[loss]
    options = dict(loss=loss, intercept=True, penalty_factors=FACTORS, positive=positive)
    exact = iss_path(X, y, **options)
    times = np.geomspace(1.05 * exact.t[1], 5 * exact.t[1], 30)
    gaps = []
    for kappa in (10.0, 100.0):
        path = lbi_path(X, y, kappa=kappa, times=times, **options)
        gap = np.abs(path.gamma - exact.at(times).gamma).reshape(30, -1).max(axis=1)
        gaps.append(np.median(gap))
        assert not positive or (path.gamma[:, FACTORS > 0] >= 0).all()
    assert gaps[1] < 2e-2 and gaps[1] < gaps[0] / 2


def test_a_free_coefficient_of_lbi_follows_the_gradient(close):
    """It starts at the fit without the others, and takes gradient steps of kappa alpha."""
    X, y = DATA["squared"]
    kept = record(lbi_states(X, y, kappa=2.0, alpha=0.1, penalty_factors=FACTORS), 8)
    x = X[:, 2]
    close(kept.beta[:2, 2], np.full(2, x @ y / (x @ x)))
    close(kept.z[:, 2], kept.beta[:, 2] / 2.0)
    g = np.array([x @ (X @ b - y) / 40 for b in kept.beta])
    close(kept.beta[2:, 2], kept.beta[1:-1, 2] - 0.2 * g[1:-1])
    assert np.abs(np.diff(kept.beta[2:, 2])).min() > 0


# ---- Signs


def test_positive_path_ends_at_non_negative_least_squares():
    X, y = DATA["squared"]
    path = iss_path(X, y, t_max=np.inf, positive=True)
    assert_allclose(path.gamma[-1], nnls(X, y)[0], atol=1e-10)
    assert (path.z.min(axis=0) < -1).any()  # a dual variable falls without end


@pytest.mark.parametrize("loss, row", [("poisson", LOSSES["poisson"]), ("huber", huber(0.5))])
def test_positive_path_ends_at_the_bounded_minimum(loss, row):
    X, y = DATA[loss]
    path = iss_path(X, y, t_max=np.inf, loss=row, positive=True)
    found = minimize(
        lambda b: row.value(X @ b, y),
        np.full(6, 0.1),
        jac=lambda b: X.T @ row.gradient(X @ b, y),
        bounds=[(0, None)] * 6,
        method="L-BFGS-B",
        options=dict(ftol=1e-15, gtol=1e-10, maxiter=5000),
    )
    assert_allclose(path.gamma[-1], found.x, atol=1e-5)


def test_only_positive_correlations_enter(close):
    X, y = vectors.orthogonal()
    c = X.T @ y / len(y)
    path = iss_path(X, y, t_max=np.inf, positive=True)
    assert_allclose(path.entry_times(), np.where(c > 0, 1 / np.abs(c), np.inf), rtol=1e-12)
    close(path.gamma[-1], np.maximum(c, 0.0))
    assert path.stop_reason == "saturated: nothing enters any more"


# ---- The lasso of the same penalty


@pytest.mark.parametrize("positive", [False, True])
def test_running_average_is_the_lasso_of_scikit_learn(positive):
    """Until a coefficient leaves: at 1/t the lasso with these weights, factors and signs."""
    X, y, _ = vectors.linear(n=60, p=12, k=4, sigma=0.5)
    w, f = 1.0 + np.arange(60) % 3, np.linspace(0.5, 2.0, 12)
    path = iss_path(X, y, intercept=True, sample_weight=w, penalty_factors=f, positive=positive)
    left = ((path.gamma[:-1] != 0) & (path.gamma[1:] == 0)).any(axis=1)
    last = int(left.argmax()) if left.any() else len(path.t) - 1
    assert last >= 4
    area = np.cumsum(np.diff(path.t)[:, None] * path.gamma[:-1], axis=0)
    for k in range(2, last + 1):
        lasso = Lasso(alpha=1 / path.t[k], tol=1e-12, max_iter=10**6, positive=positive)
        lasso.fit(X / f, y, sample_weight=w)
        assert_allclose(area[k - 1] / path.t[k], lasso.coef_ / f, atol=1e-7)


# ---- Split


def test_split_rows_without_a_penalty_are_free():
    X, y = DATA["squared"]
    f = np.array([1.0, 0.0, 0.5, 2.0, 0.0])
    path = split_iss_path(X, y, D, nu=2.0, t_max=np.inf, intercept=True, penalty_factors=f)
    kept = D.toarray()[f > 0] / f[f > 0][:, None]
    other = split_iss_path(X, y, D.toarray()[f > 0], nu=2.0, intercept=True)
    assert_allclose(path.gamma[:, f == 0], path.beta @ D.toarray()[f == 0].T, atol=1e-12)
    assert_allclose(path.beta[0], other.beta[0], atol=1e-10)
    assert (np.abs(path.z) <= f * (1 + 1e-12)).all()
    flow = (path.beta @ D.T - path.gamma) / 2.0
    moved = np.cumsum(np.diff(path.t)[:, None] * flow[:-1], axis=0)
    assert_allclose(path.z[1:], moved, atol=1e-8)
    assert path.t[1] == pytest.approx(1 / np.abs(kept @ other.beta[0] / 2.0).max())


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("start", ["minimiser", "zero"])
def test_split_lbi_tends_to_the_exact_path_with_everything(start, positive):
    X, y = DATA["squared"]
    f = np.array([1.0, 0.0, 0.5, 2.0, 1.0])
    options = dict(
        nu=2.0,
        intercept=True,
        sample_weight=1.0 + np.arange(40) % 3,
        offset=vectors.array(40, seed=4),
        penalty_factors=f,
        positive=positive,
    )
    ends = split_iss_path(X, y, D, nu=2.0, t_max=np.inf).gamma[-1]
    turned = sp.diags_array(np.sign(ends)) @ D  # most entries of D beta are positive
    exact = split_iss_path(X, y, turned, **options)
    times = np.geomspace(1.05 * exact.t[1], 10 * exact.t[1], 30)
    gaps = []
    for kappa in (10.0, 100.0):
        path = split_lbi_path(X, y, turned, kappa=kappa, times=times, start=start, **options)
        gap = np.abs(path.gamma - exact.at(times).gamma).max(axis=1)
        gaps.append(np.median(gap))
        assert not positive or (path.gamma[:, f > 0] >= 0).all()
    assert gaps[1] < 2e-2 and gaps[1] < gaps[0] / 4


# ---- The penalty


@pytest.mark.parametrize("lam", [0.4, 1.3])
@pytest.mark.parametrize("groups", [None, np.array([0, 0, 1, 1, 1, 2])])
def test_prox_of_factors_and_signs_is_the_argmin(lam, groups):
    f = np.array([0.5, 0.5, 2.0, 2.0, 2.0, 0.0])
    penalty, units = penalty_of_labels(groups, f, True)
    v = vectors.array(6, seed=2, scale=3.0)
    (x,) = penalty.prox([v], lam, units)

    def objective(u):
        return ((u - v) ** 2).sum() / 2 + penalty.value([u], lam, units)

    assert x[5] == v[5] and (x[:5] >= 0).all() and x[:5].any()
    for seed in range(200):
        u = x + vectors.array(6, seed=seed, scale=10.0 ** -(seed % 5))
        u[:5] = np.maximum(u[:5], 0.0)
        assert objective(u) >= objective(x) - 1e-12


@pytest.mark.parametrize("name", ["l1", "group", "sparse group"])
def test_a_score_above_the_level_is_an_entry_that_stays(name):
    groups = np.array([0, 0, 1, 1, 1, 2])
    f = np.array([0.5, 0.5, 2.0, 2.0, 2.0, 1.0])
    units = penalty_of_labels(None if name == "l1" else groups)[1]
    penalty = with_factors(positive_part(PENALTIES[name]), f)
    for seed in range(20):
        v = vectors.array(6, seed=seed, scale=2.0)
        kept = penalty.prox([v], 0.9, units)[0] != 0
        (score,) = penalty.score([v], units)
        enters = score > 0.9
        if name == "group":
            kept = np.array([kept[groups == g].any() for g in range(3)])
        assert (kept == enters).all()


def test_value_of_factors_and_signs(close):
    f = np.array([0.5, 2.0, 0.0])
    penalty, units = penalty_of_labels(None, f)
    x = np.array([1.0, -3.0, 7.0])
    close(penalty.value([x], 2.0, units), 2 * (0.5 + 6.0))
    close(penalty.subgradient([x], 2.0, units)[0], 2 * f * np.sign(x))
    penalty, units = penalty_of_labels(None, f, True)
    assert penalty.value([x], 2.0, units) == np.inf
    close(penalty.value([np.abs(x)], 2.0, units), 13.0)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("groups", [None, np.array([0, 0, 1, 1, 2, 2])])
def test_entry_times_of_factors_and_signs(groups, positive):
    """The recorded entry is where the prox of the interpolated z leaves zero."""
    X, y = DATA["squared"]
    f = np.array([0.5, 0.5, 2.0, 2.0, 1.0, 1.0])
    times = np.geomspace(0.3, 20.0, 25)
    path = lbi_path(
        X, y, kappa=5.0, times=times, groups=groups, penalty_factors=f, positive=positive
    )
    entry = path.entry_times()
    inside = np.isfinite(entry) & (entry > times[0])
    assert inside.any()
    for j in np.flatnonzero(inside):
        before, after = entry[j] * (1 - 1e-9), entry[j] * (1 + 1e-9)
        units = np.arange(6) == j if groups is None else groups == groups[j]
        assert not path.at(before).gamma[units].any() and path.at(after).gamma[units].any()


def test_a_ridge_in_the_penalty_is_a_smaller_kappa(close):
    """argmin of <-z, b> + lam (r |b|_1 + (1 - r) |b|^2 / 2) + |b|^2 / (2 kappa) is the iterate of
    level lam r and of the speed that lbi_path names."""
    lam, r, kappa, z = 1.7, 0.4, 3.0, vectors.array(8, scale=3.0)
    speed = 1 / (1 / kappa + lam * (1 - r))
    path = lbi_path(*vectors.linear(30, 8, 3)[:2], kappa=speed, lam=lam * r, times=[1.0])
    gamma = path._shrink(z)
    near = lam * r * np.sign(gamma) + (lam * (1 - r) + 1 / kappa) * gamma - z
    close(near[gamma != 0], 0 * near[gamma != 0])
    assert (np.abs(z[gamma == 0]) <= lam * r).all() and (gamma != 0).any()


# ---- Bad input


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    "option, message",
    [
        (dict(sample_weight=np.zeros(40)), "sample_weight must be positive, got 0"),
        (dict(sample_weight=-np.arange(40.0)), "sample_weight must be positive, got -39"),
        (dict(sample_weight=np.ones(3)), r"sample_weight must have shape \(40,\), got \(3,\)"),
        (dict(sample_weight=np.full(40, np.nan)), "sample_weight must be finite, got nan"),
        (dict(offset=np.ones(3)), r"offset must have shape \(40,\), got \(3,\)"),
        (dict(offset=np.full(40, np.inf)), "offset must be finite, got inf"),
        (dict(penalty_factors=np.ones(9)), r"penalty_factors must have shape .*, got \(9,\)"),
        (dict(penalty_factors=-1.0), r"penalty_factors must have shape .*, got \(\)"),
    ],
)
def test_bad_weights_are_one_clear_line(solver, option, message):
    with pytest.raises(ValueError, match=message) as error:
        solve(solver, "squared", *DATA["squared"], **option)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    "factors, message",
    [
        ([1, 1, -0.5, 1, 1, 1], "penalty_factors must be at least 0, got -0.5"),
        ([0, 0, 0, 0, 0, 0], "penalty_factors must hold one above 0, got only 0"),
        ([1, 1, np.nan, 1, 1, 1], "penalty_factors must be finite, got nan"),
    ],
)
def test_bad_factors_are_one_clear_line(solver, factors, message):
    m = 5 if solver.startswith("split") else 6
    with pytest.raises(ValueError, match=message):
        solve(solver, "squared", *DATA["squared"], penalty_factors=np.array(factors[:m]))


def test_factors_differ_between_groups_alone():
    X, y = DATA["squared"]
    groups = np.array([0, 0, 1, 1, 2, 2])
    with pytest.raises(ValueError, match="equal within a group, got 0.5 and 2 in group 0"):
        lbi_path(X, y, kappa=1.0, groups=groups, penalty_factors=FACTORS)


def test_a_free_column_must_leave_a_finite_fit():
    X, y = DATA["logistic"]
    X = np.column_stack([X, 3.0 * y])
    f = np.append(np.ones(6), 0.0)
    with pytest.raises(ValueError, match="never penalised must have a finite fit"):
        iss_path(X, y, loss="logistic", penalty_factors=f)


def test_a_loss_without_curvature_takes_no_free_column():
    X, y = DATA["squared"]
    row = LOSSES["huber"]._replace(curvature=None)
    with pytest.raises(ValueError, match="must go with a loss that has a curvature"):
        lbi_path(X, y, kappa=1.0, loss=row, penalty_factors=FACTORS)

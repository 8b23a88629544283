"""Linearized Bregman iteration: an independent loop, closed forms, identities, symmetries."""

from itertools import islice

import numpy as np
import pytest
import scipy.sparse as sp
import vectors
from scipy.optimize import linprog

from dslbi_ref.design import Design
from dslbi_ref.iss import iss_path
from dslbi_ref.lbi import lbi_path, lbi_states
from dslbi_ref.losses import LOSSES
from dslbi_ref.mirror_descent import mirror_descent_states
from dslbi_ref.mirror_maps import elastic_net
from dslbi_ref.path import Path, record
from dslbi_ref.penalties import group_norm, l1_norm
from dslbi_ref.problem import first_jump
from dslbi_ref.shrinkage import penalty_of_labels, shrink


def plain(X, y, times, *, kappa, alpha, lam=1.0, loss="squared", groups=None, intercept=False):
    """The path at given times by the book: Euler steps, and one last short step to each time."""
    n, p = X.shape
    one_hot = np.eye(max(y) + 1)[y] if loss == "multinomial" else None
    shape = (p,) if one_hot is None else (p, one_hot.shape[1])
    X = X - X.mean(axis=0) if intercept else X

    def gradient(b, b0):
        eta = X @ b + b0
        if loss == "squared":
            r = eta - y
        elif loss == "logistic":
            r = -y / (1 + np.exp(y * eta))
        else:
            e = np.exp(eta)
            r = e / e.sum(axis=1)[:, None] - one_hot
        return X.T @ r / n, r.mean(axis=0)

    def shrink(z):
        b = np.zeros(shape)
        labels = np.arange(z.size) if groups is None else np.repeat(groups, z.size // p)
        for g in np.unique(labels):
            part = z.ravel()[labels == g]
            norm = np.sqrt(sum(part**2))
            if norm > lam:
                b.ravel()[labels == g] = kappa * (1 - lam / norm) * part
        return b

    start = {
        "squared": lambda: y.mean(),
        "logistic": lambda: np.log((y == 1).mean() / (y == -1).mean()),
        "multinomial": lambda: np.log(one_hot.mean(axis=0)) - np.log(one_hot.mean(axis=0)).mean(),
    }
    z, b = np.zeros(shape), np.zeros(shape)
    b0 = start[loss]() if intercept else np.zeros(shape[1:])
    g, _ = gradient(b, b0)
    labels = np.arange(g.size) if groups is None else np.repeat(groups, g.size // p)
    t = lam / max(np.sqrt(sum(g.ravel()[labels == k] ** 2)) for k in np.unique(labels))
    rows, k, origin = [], 0, t
    z = -t * g
    for end in times:
        if end <= origin:
            rows.append((shrink(-end * g * (1 - 1e-15)), b0, -end * g))
            continue
        while origin + (k + 1) * alpha <= end:
            gz, g0 = gradient(b, b0)
            z, b0 = z - alpha * gz, b0 - kappa * alpha * g0 * intercept
            b, k = shrink(z), k + 1
        gz, g0 = gradient(b, b0)
        rest = end - (origin + k * alpha)
        rows.append((shrink(z - rest * gz), b0 - kappa * rest * g0 * intercept, z - rest * gz))
    return [np.array(column) for column in zip(*rows, strict=True)]


PROBLEMS = {
    "squared": vectors.linear(n=40, p=60)[:2],
    "logistic": vectors.labels(n=60, p=25)[:2],
    "multinomial": vectors.classes(n=60, p=8, k=3),
}


def first_time(X, y, loss, groups=None, intercept=False):
    return next(
        islice(lbi_states(X, y, kappa=1, loss=loss, groups=groups, intercept=intercept), 1, 2)
    ).t


@pytest.mark.parametrize("loss", PROBLEMS)
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_path_is_that_of_an_independent_loop(loss, grouped, intercept, sparse, close):
    X, y = PROBLEMS[loss]
    X = X + 0.5 if intercept else X
    X = np.where(np.abs(X) > 0.4, X, 0.0) if sparse else X
    groups = np.arange(X.shape[1]) % 7 + 3 if grouped else None
    kappa, lam = 4.0, 0.7
    Xc = X - X.mean(axis=0) if intercept else X
    L = Design(Xc).lipschitz(LOSSES[loss])
    alpha = 1.3 / (kappa * max(L, LOSSES[loss].lipschitz))
    t0 = lam * first_time(X, y, loss, groups, intercept)
    times = np.concatenate([[0, t0 / 3], np.geomspace(1.0001 * t0, t0 + 300.3 * alpha, 25)])
    options = dict(kappa=kappa, alpha=alpha, lam=lam, loss=loss, groups=groups, intercept=intercept)
    path = lbi_path(sp.csr_array(X) if sparse else X, y, times=times, **options)
    beta, level, z = plain(X, y, times, **options)
    assert not beta[1].any() and beta[-1].any()
    close(path.gamma, beta)
    close(path.z, z)
    if intercept:
        close(path.intercept, level - np.tensordot(beta, X.mean(axis=0), (1, 0)))
    else:
        assert path.intercept is None
    for k in (0, 5, 20):
        close(path.at(times[k]).gamma, beta[k])


def test_more_active_columns_than_the_gram_matrix_pays_for(close):
    """p = 60 > n = 12: after 12 active columns the gradient goes through X again."""
    X, y, _ = vectors.linear(n=12, p=60, k=20)
    alpha = 1.0 / (3.0 * Design(X).lipschitz(LOSSES["squared"]))
    times = first_time(X, y, "squared") + alpha * np.array([10.0, 100.5, 400.25])
    path = lbi_path(X, y, kappa=3.0, alpha=alpha, times=times)
    assert (path.gamma[-1] != 0).sum() > 12
    close(path.gamma, plain(X, y, times, kappa=3.0, alpha=alpha)[0])
    Xs = np.where(np.abs(X) > 1.5, X, 0.0)
    path = lbi_path(sp.csr_array(Xs), y, kappa=3.0, alpha=alpha, times=times)
    close(path.gamma, plain(Xs, y, times, kappa=3.0, alpha=alpha)[0])


def test_orthogonal_design_has_a_closed_form(close):
    """z_j grows as t c_j until it passes 1; then b_j - c_j shrinks by 1 - alpha kappa a step."""
    X, y = vectors.orthogonal()
    c = X.T @ y / len(y)
    kappa, alpha = 5.0, 0.03
    states = record(lbi_states(X, y, kappa=kappa, alpha=alpha), 800)
    for j, cj in enumerate(c):
        entered = np.flatnonzero(states.t * abs(cj) > 1 + 1e-12)
        K = entered[0] if entered.size else len(states.t)
        steps = np.arange(len(states.t) - K)
        at_entry = kappa * (states.t[min(K, 800)] * abs(cj) - 1) * np.sign(cj)
        expected = np.zeros(len(states.t))
        expected[K:] = cj - (cj - at_entry) * (1 - alpha * kappa) ** steps
        close(states.beta[:, j], expected)
    path = Path(t=states.t, z=states.z, gamma=states.beta, kappa=kappa)
    inside = states.t[-1] * np.abs(c) > 1
    close(path.entry_times()[inside], 1 / np.abs(c[inside]))
    assert inside.any() and np.isinf(path.entry_times()[~inside]).all()


def test_small_steps_tend_to_the_continuous_path():
    """Linearized ISS of an orthogonal design: c (1 - exp(-kappa (t - 1/|c|)_+)); error O(alpha)."""
    X, y = vectors.orthogonal()
    c = X.T @ y / len(y)
    t = np.linspace(0.5, 4.0, 12) / np.abs(c).max()
    exact = c * -np.expm1(-3.0 * np.maximum(t[:, None] - 1 / np.abs(c), 0.0))
    error = [
        np.abs(lbi_path(X, y, kappa=3.0, alpha=a, times=t).gamma - exact).max()
        for a in (4e-3, 1e-3)
    ]
    assert error[0] < 4e-3 and 3.5 < error[0] / error[1] < 4.5


@pytest.mark.parametrize("groups", [None, np.arange(20) // 4])
def test_lbi_is_mirror_descent_of_the_elastic_net(groups, close):
    X, y, _ = vectors.linear()
    kappa, lam = 2.0, 0.6
    phi = elastic_net(kappa, lam, groups)
    states = lbi_states(X, y, kappa=kappa, lam=lam, groups=groups)
    start = list(islice(states, 2))[1]
    alpha = 1 / (kappa * Design(X).lipschitz(LOSSES["squared"]))
    mirror = mirror_descent_states(
        lambda b: X.T @ LOSSES["squared"].gradient(X @ b, y), phi, z0=start.z, alpha=alpha
    )
    next(mirror)
    for ours, theirs in islice(zip(states, mirror, strict=False), 200):
        close(ours.z, theirs.z)
        close(ours.beta, theirs.x)
        # z - beta / kappa is a sub-gradient of the penalty at beta
        rho = ours.z - ours.beta / kappa
        if groups is None:
            value = l1_norm(ours.beta, lam)
            assert np.abs(rho).max() <= lam * (1 + 1e-12)
        else:
            value = group_norm(ours.beta, lam, groups=groups)
        close(rho @ ours.beta, value)


@pytest.mark.parametrize("loss", PROBLEMS)
def test_loss_descends_up_to_the_bound(loss):
    """f falls by at least (1/(alpha kappa) - L/2) |step|^2, also at 1.9 of 2."""
    X, y = PROBLEMS[loss]
    X = X[:, :8] if loss == "squared" else X  # so that the top eigenvector becomes active
    kappa, L = 3.0, Design(X).lipschitz(LOSSES[loss])
    states = record(lbi_states(X, y, kappa=kappa, alpha=1.9 / (kappa * L), loss=loss), 600)
    f = np.array([LOSSES[loss].value(X @ b, y) for b in states.beta])
    moved = np.array([(d * d).sum() for d in np.diff(states.beta, axis=0)])
    assert moved.max() > 0
    assert (np.diff(f) <= -(L / 1.9 - L / 2) * moved + 1e-14).all()


@pytest.mark.parametrize("factor", [2.0, 2.1, 100.0, 0.0, -1.0, np.nan])
@pytest.mark.parametrize("loss", PROBLEMS)
def test_step_at_the_bound_is_refused_by_name(loss, factor):
    X, y = PROBLEMS[loss]
    bound = 2 / (3.0 * Design(X).lipschitz(LOSSES[loss]))
    with pytest.raises(
        ValueError, match=f"alpha must be positive and below the step bound {bound:.6g}"
    ):
        lbi_path(X, y, kappa=3.0, alpha=factor / 2 * bound, loss=loss)


def test_a_refused_step_is_named_in_six_digits():
    X, y = PROBLEMS["squared"]
    with pytest.raises(ValueError, match=r"got 33\.3333$"):
        lbi_path(X, y, kappa=3.0, alpha=100 / 3)


def test_two_classes_are_a_logistic_model(close):
    """Softmax of two classes with kappa is the logistic path with 2 kappa, from either side."""
    X, y, _ = vectors.labels()
    t = np.geomspace(0.5, 30, 40) * first_time(X, y, "logistic")
    one = lbi_path(X, y, kappa=4.0, alpha=0.05, times=t, loss="logistic", intercept=True)
    two = lbi_path(
        X,
        ((y + 1) / 2).astype(int),
        kappa=2.0,
        alpha=0.05,
        times=t,
        loss="multinomial",
        intercept=True,
    )
    close(two.gamma[:, :, 1], one.gamma / 2)
    close(two.gamma[:, :, 0], -one.gamma / 2)
    close(two.intercept[:, 1] - two.intercept[:, 0], one.intercept)


def test_group_of_an_orthogonal_design_enters_by_its_norm(close):
    X, y = vectors.orthogonal()
    c, groups = X.T @ y / len(y), np.arange(12) // 3
    norms = np.sqrt(np.bincount(groups, c * c))
    t = np.concatenate([1 / np.sort(norms)[::-1], [3 / norms.min()]])
    path = lbi_path(X, y, kappa=50.0, times=t, groups=groups)
    close(path.entry_times(), 1 / norms[groups])
    active = path.gamma.reshape(5, 4, 3) != 0
    assert (active.all(axis=2) == active.any(axis=2)).all()
    # kappa is large: on its plateau each group is its least squares fit
    close(path.gamma[-1], c)


def test_noise_free_limit_is_basis_pursuit():
    """The limit minimises |b|_1 + |b|^2 / (2 kappa) over Xb = y: with a large kappa, |b|_1."""
    X, _, beta = vectors.linear(n=20, p=40, k=3)
    y = X @ beta
    lp = linprog(np.ones(80), A_eq=np.hstack([X, -X]), b_eq=y)
    pursuit = lp.x[:40] - lp.x[40:]
    path = lbi_path(X, y, kappa=50.0, times=[40.0])
    np.testing.assert_allclose(path.gamma[0], pursuit, atol=1e-9)
    early = lbi_path(X, y, kappa=0.2, times=[4000.0]).gamma[0]
    np.testing.assert_allclose(X @ early, y, atol=1e-9)
    assert np.abs(early).sum() > np.abs(pursuit).sum() + 1e-2


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_penalty_level_is_a_change_of_units(loss, close):
    X, y = PROBLEMS[loss]
    t = np.geomspace(1, 20, 15) * first_time(X, y, loss)
    one = lbi_path(X, y, kappa=3.0 * 0.4, alpha=0.02 / 0.4, times=t, loss=loss)
    other = lbi_path(X, y, kappa=3.0, alpha=0.02, lam=0.4, times=0.4 * t, loss=loss)
    close(other.gamma, one.gamma)
    close(other.z, 0.4 * one.z)


def test_symmetries(close):
    X, y, _ = vectors.linear(n=50, p=20)
    t = np.geomspace(1, 20, 15) * first_time(X, y, "squared")
    base = lbi_path(X, y, kappa=3.0, alpha=0.02, times=t)
    scaled = lbi_path(X, 7.0 * y, kappa=21.0, alpha=0.02 / 7, times=t / 7)
    close(scaled.gamma, 7.0 * base.gamma)
    Q = np.linalg.qr(vectors.array((50, 50)))[0]
    close(lbi_path(Q @ X, Q @ y, kappa=3.0, alpha=0.02, times=t).gamma, base.gamma)
    signs = np.where(np.arange(20) % 3 == 0, -1.0, 1.0)
    close(lbi_path(X * signs, y, kappa=3.0, alpha=0.02, times=t).gamma, base.gamma * signs)
    order = np.argsort(vectors.array(20, seed=8))
    close(lbi_path(X[:, order], y, kappa=3.0, alpha=0.02, times=t).gamma, base.gamma[:, order])


@pytest.mark.parametrize("loss", PROBLEMS)
@pytest.mark.parametrize("sparse", [False, True])
def test_shifts_and_scales_of_columns_are_removed(loss, sparse, close):
    X, y = PROBLEMS[loss]
    s, m = np.linspace(0.5, 2.0, X.shape[1]), np.linspace(-3.0, 3.0, X.shape[1])
    t = np.geomspace(1, 20, 15) * first_time(X / X.std(axis=0), y, loss, intercept=True)
    options = dict(kappa=3.0, times=t, loss=loss, intercept=True, normalize=True)
    base = lbi_path(X, y, **options)
    moved = X * s + m
    path = lbi_path(sp.csc_array(moved) if sparse else moved, y, **options)
    close(np.moveaxis(path.gamma, 1, -1) * s, np.moveaxis(base.gamma, 1, -1))
    eta = np.tensordot(path.gamma, moved, (1, 1)), np.tensordot(base.gamma, X, (1, 1))
    if loss == "multinomial":
        close(eta[0] + path.intercept[..., None], eta[1] + base.intercept[..., None])
    else:
        close(eta[0] + path.intercept[:, None], eta[1] + base.intercept[:, None])
    point = path.at(t[3:5])
    close(point.gamma, path.gamma[3:5])
    close(point.intercept, path.intercept[3:5])


def test_normalised_columns_have_norm_sqrt_n(close):
    X, y, _ = vectors.linear(n=50, p=20)
    rms = np.sqrt((X**2).mean(axis=0))
    t = np.geomspace(1, 10, 9)
    given = lbi_path(X, y, kappa=3.0, times=t, normalize=True)
    close(given.gamma, lbi_path(X / rms, y, kappa=3.0, times=t).gamma / rms)


def test_default_times_run_from_the_first_entry_to_twenty_times_it(close):
    X, y, _ = vectors.linear()
    path = lbi_path(X, y, kappa=5.0)
    t0 = 1 / np.abs(X.T @ y / len(y)).max()
    close(path.t, np.geomspace(t0, 20 * t0, 100))
    assert not path.gamma[0].any() and path.gamma[1].any()
    close(path.entry_times().min(), t0)
    assert path.kind == "linear" and path.stop_reason == "t_max reached"


@pytest.mark.parametrize("groups", [None, np.arange(12) // 3])
def test_z_touches_the_threshold_at_t0_and_does_not_pass_it(groups, close):
    """Rounding alone lifts z = t0 c over it for one gradient in thirty, of groups one in six."""
    penalty, units = penalty_of_labels(groups)
    for seed in range(100):
        t0, z = first_jump(vectors.array(12, seed=seed), 0.7, 0.0, groups=groups)
        assert 0.7 * (1 - 1e-15) <= penalty.dual_norm([z], units) <= 0.7
        assert not shrink(z, kappa=1e3, lam=0.7, groups=groups).any()
        close(z, -t0 * vectors.array(12, seed=seed))


def test_nothing_enters_without_a_gradient(close):
    """A constant y is all intercept: the path is zero at any time, and has no t0 to start from."""
    X = vectors.array((30, 5)) + 1000.0
    y = np.full(30, 0.1)
    path = lbi_path(X, y, kappa=2.0, times=[0.0, 3.0], intercept=True)
    np.testing.assert_array_equal(path.gamma, 0)
    close(path.intercept, [0.1, 0.1])
    with pytest.raises(ValueError, match="times must be given: the gradient at zero is zero"):
        lbi_path(X, y, kappa=2.0, intercept=True)


@pytest.mark.parametrize("form", [np.asarray, sp.csc_array])
@pytest.mark.parametrize("offset", [0.0, 10.0, 1e4, 1e6])
def test_the_rounding_of_centring_is_no_gradient(offset, form):
    """y is orthogonal to the columns, and they lie far from zero: nothing may ever enter."""
    X = vectors.array((270, 100)) + offset
    Q = np.linalg.qr(np.column_stack([X, np.ones(270)]))[0]
    y = vectors.array(270, seed=1)
    for _ in range(3):
        y = y - Q @ (Q.T @ y)
    start, first = islice(lbi_states(form(X), y, kappa=2.0, intercept=True), 2)
    assert first.t == np.inf and not first.z.any()
    path = iss_path(form(X), y, intercept=True, t_max=np.inf)
    assert path.stop_reason.startswith("saturated") and not path.gamma.any()
    # and what little there is, is seen
    seen = iss_path(form(X), y + 1e-6 * X[:, 0], intercept=True, t_max=np.inf)
    assert np.isfinite(seen.entry_times()[0])


def test_arguments_are_left_alone_and_states_are_fresh():
    X, y, _ = vectors.linear()
    X0, y0 = X.copy(), y.copy()
    states = list(islice(lbi_states(X, y, kappa=3.0, intercept=True), 300))
    lbi_path(X, y, kappa=3.0, intercept=True, normalize=True)
    np.testing.assert_array_equal(X, X0)
    np.testing.assert_array_equal(y, y0)
    again = list(islice(lbi_states(X, y, kappa=3.0, intercept=True), 300))
    for a, b in zip(states, again, strict=True):
        np.testing.assert_array_equal(a.z, b.z)


GOOD = dict(X=vectors.linear(n=20, p=5)[0], y=vectors.linear(n=20, p=5)[1], kappa=2.0)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(y=np.zeros(19)), r"y must have shape \(20,\)"),
        (dict(y=np.full(20, np.nan)), "y must be finite, got nan"),
        (dict(X=np.full((20, 5), np.inf)), "X must be finite, got inf"),
        (dict(X=np.zeros((20, 0))), "X must be a non-empty 2-d array"),
        (dict(X=np.zeros(20)), "X must be a non-empty 2-d array"),
        (dict(X=np.zeros((20, 5))), "X must not be zero"),
        (dict(X=np.ones((20, 5)), intercept=True), "X must not be zero after centring"),
        (dict(kappa=0.0), "kappa must be positive and finite, got 0.0"),
        (dict(kappa=np.inf), "kappa must be positive and finite, got inf"),
        (dict(lam=-1.0), "lam must be positive and finite, got -1.0"),
        (dict(loss="hinge"), "loss must be one of squared, .*logistic, .*, got 'hinge'"),
        (dict(loss="logistic"), r"y of a logistic loss must be in {-1, \+1}"),
        (dict(loss="logistic", y=np.ones(20)), r"y must hold both classes -1 and \+1"),
        (dict(times=[2.0, 1.0]), "times must be increasing, got 1.0 after 2.0"),
        (dict(times=[-1.0, 1.0]), "times must be at least 0, got -1.0"),
        (dict(times=[1.0, np.inf]), "times must be finite, got inf"),
        (dict(times=[]), "times must be a non-empty 1-d array"),
        (dict(times=3.0), "times must be a non-empty 1-d array"),
        (dict(groups=np.zeros(4, int)), "groups must be 5 integer labels"),
        (dict(groups=np.zeros(5)), "groups must be 5 integer labels"),
        (
            dict(X=np.column_stack([np.ones(20), GOOD["X"]]), normalize=True, intercept=True),
            "normalize needs columns that vary, got constant column 0",
        ),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        lbi_path(**(GOOD | change))

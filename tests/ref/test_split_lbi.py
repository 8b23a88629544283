"""Split LBI: an independent loop, the starts, DessiLBI, the reduced iteration, symmetries."""

from itertools import islice

import numpy as np
import pytest
import scipy.sparse as sp
import vectors
from scipy.optimize import minimize

from dslbi_ref import split_lbi
from dslbi_ref.design import Design
from dslbi_ref.dessilbi import dessilbi_states
from dslbi_ref.losses import LOSSES
from dslbi_ref.path import record
from dslbi_ref.penalties import group_soft_threshold, soft_threshold
from dslbi_ref.solvers.reduced import split_reduced_path, split_reduced_states
from dslbi_ref.solvers.start import minimiser
from dslbi_ref.split_lbi import split_lbi_path, split_lbi_states
from dslbi_ref.theory import step_bound
from dslbi_ref.transforms import differences, grid, identity, trend

FUSED = sp.csr_array(sp.vstack([differences(20), identity(20)]))
NU, KAPPA = 3.0, 5.0
DATA = {
    "squared": vectors.step_signal(n=40, p=20)[:2],
    "logistic": vectors.labels(n=60, p=20)[:2],
}


def rest(X, y, D, nu, loss, intercept):
    """Minimiser for gamma = 0 by a general method, polished by Newton's."""
    n, p = X.shape
    A = np.column_stack([X, np.ones(n)]) if intercept else X
    E = np.column_stack([D, np.zeros(len(D))]) if intercept else D
    ridge = E.T @ E / nu
    if loss == "squared":
        return np.linalg.solve(A.T @ A / n + ridge, A.T @ y / n)

    def value(b):
        return np.log1p(np.exp(-y * (A @ b))).mean() + b @ ridge @ b / 2

    def slope(b):
        return A.T @ (-y / (1 + np.exp(y * (A @ b)))) / n + ridge @ b

    b = minimize(value, np.zeros(A.shape[1]), jac=slope, options=dict(gtol=1e-8)).x
    for _ in range(4):
        q = 1 / (1 + np.exp(-A @ b))
        b = b - np.linalg.solve(A.T @ ((q * (1 - q))[:, None] * A) / n + ridge, slope(b))
    return b


def plain(X, y, D, times, *, nu, kappa, alpha, lam, loss, groups, start, intercept):
    """The path at given times by the book: Euler steps, and one last short step to each time."""
    n, p = X.shape
    mean = X.mean(axis=0)

    def flow(b, z, b0):
        eta = X @ b + b0
        r = (eta - y if loss == "squared" else -y / (1 + np.exp(y * eta))) / n
        tie = D @ b - shrink(z)
        # the intercept that moves is the one at the column means
        db0 = -kappa * r.sum() * intercept
        db = -kappa * ((X - mean * intercept).T @ r + D.T @ tie / nu)
        return db, tie / nu, db0 - db @ mean * intercept

    def shrink(z):
        if groups is None:
            return kappa * soft_threshold(z, lam)
        return kappa * group_soft_threshold(z, lam, groups=groups)

    if start == "minimiser":
        b = rest(X, y, D, nu, loss, intercept)
        b, b0 = (b[:-1], b[-1]) if intercept else (b, 0.0)
        drift = D @ b / nu
        norm = np.abs(drift) if groups is None else np.sqrt(np.bincount(groups, drift**2))
        origin = lam / norm.max()
    else:
        ratio = (y == 1).sum() / (y == -1).sum() if loss == "logistic" else np.nan
        b0 = (y.mean() if loss == "squared" else np.log(ratio)) if intercept else 0.0
        b, drift, origin = np.zeros(p), np.zeros(len(D)), 0.0
    z, k, rows = origin * drift * (1 - 1e-15), 0, []
    for end in times:
        if end < origin:
            rows.append((b, end * drift, 0.0 * drift, b0))
            continue
        while origin + (k + 1) * alpha <= end:
            db, dz, db0 = flow(b, z, b0)
            b, z, b0, k = b + alpha * db, z + alpha * dz, b0 + alpha * db0, k + 1
        part = end - (origin + k * alpha)
        db, dz, db0 = flow(b, z, b0)
        zt = z + part * dz
        rows.append((b + part * db, zt, shrink(zt), b0 + part * db0))
    return [np.array(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("start", ["minimiser", "zero"])
@pytest.mark.parametrize("loss", DATA)
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_path_is_that_of_an_independent_loop(start, loss, grouped, intercept, sparse, close):
    X, y = DATA[loss]
    X, y = (X + 1.0, y + 2.0 * (loss == "squared")) if intercept else (X, y)
    X = np.where(np.abs(X) > 0.4, X, 0.0) if sparse else X
    groups = np.arange(39) % 9 if grouped else None
    alpha, lam = 0.02, 0.8
    times = np.concatenate([[0.0, 0.4], np.geomspace(2.0, 12.0, 20)])
    options = dict(nu=NU, kappa=KAPPA, alpha=alpha, lam=lam, loss=loss, groups=groups)
    options |= dict(start=start, intercept=intercept)
    A, D = (sp.csr_array(X), FUSED) if sparse else (X, FUSED.toarray())
    path = split_lbi_path(A, y, D, times=times, **options)
    beta, z, gamma, b0 = plain(X, y, FUSED.toarray(), times, **options)
    assert gamma[-1].any() and not gamma[-1].all() and not gamma[0].any()
    close(path.beta, beta)
    close(path.z, z)
    close(path.gamma, gamma)
    if intercept:
        close(path.intercept, b0)
        close(path.at(times[5]).intercept, b0[5])
    inactive = path.gamma == 0
    for k in range(len(times)):
        rows = FUSED.toarray()[inactive[k]]
        close(rows @ path.tilde[k], np.zeros(len(rows)))
        close(path.tilde[k], path.beta[k] - np.linalg.pinv(rows) @ (rows @ path.beta[k]))


@pytest.mark.parametrize("shape", [(30, 50), (60, 50)])
def test_wide_designs_take_the_same_path(shape, close):
    """p > 2n leaves the Gram matrix alone; here it is checked against a design of repeated rows."""
    X, y, _ = vectors.step_signal(n=shape[0] // 3, p=shape[1])
    t = np.geomspace(5.0, 60.0, 8)
    options = dict(nu=NU, kappa=KAPPA, alpha=0.01, times=t)
    one = split_lbi_path(X, y, differences(50), **options)
    many = split_lbi_path(np.tile(X, (5, 1)), np.tile(y, 5), differences(50), **options)
    assert one.gamma[-1].any()
    close(one.gamma, many.gamma)


def test_split_lbi_of_the_identity_is_dessilbi():
    """Start zero, momentum 0, lam 1, t = k alpha: the same numbers, up to the order of one sum."""
    X, y, _ = vectors.linear(n=40, p=20)
    nu, kappa, alpha = 2.0, 3.0, 0.03

    def grad(W):
        return {"W": X.T @ LOSSES["squared"].gradient(X @ W["W"], y)}

    net = dessilbi_states(
        {"W": np.zeros(20)},
        grad,
        penalties={"W": "l1"},
        alpha=alpha,
        kappa=kappa,
        nu=nu,
        momentum=0.0,
    )
    net = record(net, 400, every=20)
    ours = split_lbi_states(X, y, identity(20), nu=nu, kappa=kappa, alpha=alpha, start="zero")
    ours = record(ours, 400, every=20)
    assert ours.gamma[-1].any()
    np.testing.assert_allclose(ours.t, net.t, rtol=1e-14)
    np.testing.assert_allclose(ours.beta, net.W["W"], rtol=0, atol=1e-14)
    np.testing.assert_allclose(ours.z, net.V["W"], rtol=0, atol=1e-14)
    np.testing.assert_allclose(ours.gamma, net.Gamma["W"], rtol=0, atol=1e-14)


@pytest.mark.parametrize("loss", DATA)
@pytest.mark.parametrize("intercept", [False, True])
def test_minimiser_is_stationary_and_gamma_rests_until_t0(loss, intercept, close):
    X, y = DATA[loss]
    zero, first, second = islice(
        split_lbi_states(X, y, FUSED, nu=NU, kappa=KAPPA, loss=loss, intercept=intercept), 3
    )
    Xc = X - X.mean(axis=0) if intercept else X
    r = LOSSES[loss].gradient(Xc @ zero.beta + zero.intercept, y)
    close(Xc.T @ r + FUSED.T @ (FUSED @ zero.beta) / NU, np.zeros(20))
    close(r.sum() * intercept, 0.0)
    close(first.t, NU / np.abs(FUSED @ zero.beta).max())
    close(first.z, first.t * (FUSED @ zero.beta) / NU)
    assert not first.gamma.any() and np.abs(first.z).max() <= 1.0
    close(second.beta, zero.beta)
    assert np.count_nonzero(second.gamma) == 1


@pytest.mark.parametrize("loss", DATA)
@pytest.mark.parametrize("start", ["minimiser", "zero"])
def test_split_loss_descends_up_to_the_bound(loss, start):
    X, y = DATA[loss]
    D = FUSED.toarray()
    L = Design(X).lipschitz(LOSSES[loss])
    alpha = 0.95 * step_bound(L, kappa=KAPPA, nu=NU, D_norm=np.linalg.norm(D, 2))
    states = split_lbi_states(X, y, D, nu=NU, kappa=KAPPA, alpha=alpha, loss=loss, start=start)
    states = record(states, 500)
    total = [
        LOSSES[loss].value(X @ b, y) + ((D @ b - g) ** 2).sum() / (2 * NU)
        for b, g in zip(states.beta, states.gamma, strict=True)
    ]
    assert (np.diff(total) <= 1e-14).all() and total[-1] < 0.9 * total[2]


@pytest.mark.parametrize("factor", [1.0, 1.5, 0.0, -1.0, np.nan])
def test_step_at_the_bound_is_refused_by_name(factor):
    X, y = DATA["squared"]
    D_norm = np.linalg.norm(FUSED.toarray(), 2)
    bound = step_bound(Design(X).lipschitz(LOSSES["squared"]), kappa=KAPPA, nu=NU, D_norm=D_norm)
    named = f"alpha must be positive and below the step bound {bound:.6g}"
    with pytest.raises(ValueError, match=named):
        split_lbi_path(X, y, FUSED, nu=NU, kappa=KAPPA, alpha=factor * bound)
    named = f"alpha must be positive and below the step bound {2 * NU / KAPPA:.6g}"
    with pytest.raises(ValueError, match=named):
        split_reduced_path(X, y, FUSED, nu=NU, kappa=KAPPA, alpha=factor * 2 * NU / KAPPA)


def test_reduced_path_of_an_orthogonal_design_has_a_closed_form(close):
    """X'X/n = D = I: z_j = t c_j / (1 + nu) up to 1; then gamma_j - c_j falls geometrically."""
    X, y = vectors.orthogonal()
    c, nu, kappa, alpha = X.T @ y / len(y), 2.0, 5.0, 0.15
    states = record(split_reduced_states(X, y, identity(12), nu=nu, kappa=kappa, alpha=alpha), 300)
    close(states.t[1], (1 + nu) / np.abs(c).max())
    for j, cj in enumerate(c):
        entered = np.flatnonzero(states.t * abs(cj) / (1 + nu) > 1 + 1e-12)
        K = entered[0] if entered.size else len(states.t)
        at_entry = kappa * (states.t[min(K, 300)] * abs(cj) / (1 + nu) - 1) * np.sign(cj)
        expected = np.zeros(len(states.t))
        steps = np.arange(len(states.t) - K)
        expected[K:] = cj - (cj - at_entry) * (1 - alpha * kappa / (1 + nu)) ** steps
        close(states.gamma[:, j], expected)
        close(states.beta[:, j], (nu * cj + expected) / (1 + nu))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
def test_reduced_beta_minimises_the_split_loss(sparse, intercept, close):
    X, y = DATA["squared"]
    X = np.where(np.abs(X) > 0.4, X + 1.0, 0.0) if sparse else X + 1.0
    t = np.geomspace(1.0, 20.0, 12)
    A = sp.csc_array(X) if sparse else X
    path = split_reduced_path(A, y, FUSED, nu=NU, kappa=KAPPA, times=t, intercept=intercept)
    assert path.gamma[-1].any()
    b0 = path.intercept if intercept else np.zeros(12)
    for beta, b, gamma in zip(path.beta, b0, path.gamma, strict=True):
        r = (X @ beta + b - y) / len(y)
        close(X.T @ r + FUSED.T @ (FUSED @ beta - gamma) / NU, np.zeros(20))
        close(r.sum() * intercept, 0.0)


def test_reduced_and_joint_paths_meet_as_kappa_grows():
    X, y = DATA["squared"]
    t = np.geomspace(2.0, 20.0, 15)
    apart = []
    for kappa in (10.0, 40.0, 160.0):
        joint = split_lbi_path(X, y, FUSED, nu=NU, kappa=kappa, times=t)
        reduced = split_reduced_path(X, y, FUSED, nu=NU, kappa=kappa, times=t)
        apart.append(np.abs(joint.gamma - reduced.gamma).mean())
    assert apart[1] < apart[0] / 2 and apart[2] < apart[1] / 2


@pytest.mark.parametrize("path", [split_lbi_path, split_reduced_path])
def test_symmetries(path, close):
    X, y = DATA["squared"]
    t = np.geomspace(2.0, 12.0, 10)
    base = path(X, y, FUSED, nu=NU, kappa=KAPPA, alpha=0.02, times=t)
    assert base.gamma[-1].any()
    scaled = path(X, 7 * y, FUSED, nu=NU, kappa=7 * KAPPA, alpha=0.02 / 7, times=t / 7)
    close(scaled.gamma, 7 * base.gamma)
    close(scaled.tilde, 7 * base.tilde)
    order = np.argsort(vectors.array(39, seed=4))
    signs = np.where(order % 2 == 0, 1.0, -1.0)
    turned = sp.csr_array(sp.diags_array(signs) @ FUSED[order])
    path_turned = path(X, y, turned, nu=NU, kappa=KAPPA, alpha=0.02, times=t)
    close(path_turned.gamma, base.gamma[:, order] * signs)
    close(path_turned.beta, base.beta)
    Q = np.linalg.qr(vectors.array((40, 40)))[0]
    close(path(Q @ X, Q @ y, FUSED, nu=NU, kappa=KAPPA, alpha=0.02, times=t).gamma, base.gamma)
    one = path(X, y, FUSED, nu=NU, kappa=KAPPA, lam=0.4, alpha=0.02, times=t)
    other = path(X, y, FUSED, nu=NU, kappa=0.4 * KAPPA, alpha=0.05, times=t / 0.4)
    close(one.gamma, other.gamma)


@pytest.mark.parametrize("path", [split_lbi_path, split_reduced_path])
def test_shift_of_a_column_moves_only_the_intercept(path, close):
    X, y = DATA["squared"]
    shift, t = np.linspace(-2, 2, 20), np.geomspace(2.0, 12.0, 10)
    options = dict(nu=NU, kappa=KAPPA, alpha=0.02, times=t, intercept=True)
    one, two = path(X, y, FUSED, **options), path(X + shift, y + 5.0, FUSED, **options)
    close(two.beta, one.beta)
    close(two.intercept, one.intercept + 5.0 - one.beta @ shift)


def test_default_times_are_those_of_the_minimiser_for_both_starts(close):
    X, y = DATA["squared"]
    b = rest(X, y, FUSED.toarray(), NU, "squared", False)
    t0 = NU / np.abs(FUSED @ b).max()
    for path in (
        split_lbi_path(X, y, FUSED, nu=NU, kappa=KAPPA),
        split_lbi_path(X, y, FUSED, nu=NU, kappa=KAPPA, start="zero"),
        split_reduced_path(X, y, FUSED, nu=NU, kappa=KAPPA),
    ):
        close(path.t, np.geomspace(t0, 20 * t0, 100))
        assert path.gamma[-1].any() and path.beta.shape == path.tilde.shape == (100, 20)


@pytest.mark.parametrize(
    "D", [differences(30), trend(30, 1), grid((5, 6)), vectors.array((25, 30))]
)
@pytest.mark.parametrize("path", [split_lbi_path, split_reduced_path])
def test_any_transform_gives_its_structure(D, path, close):
    X, y, _ = vectors.step_signal(n=50, p=30)
    found = path(X, y, D, nu=NU, kappa=KAPPA)
    active = found.gamma != 0
    assert active[-1].any() and not active[0].any()
    for k in (0, 30, 99):
        close((D @ found.tilde[k])[~active[k]], np.zeros((~active[k]).sum()))


def test_shared_kernel_is_left_at_zero(close):
    """Ranking by differences of scores: X and D see no constants, and beta holds none."""
    X = differences(20).toarray()
    y = vectors.array(19)
    for path in (split_lbi_path, split_reduced_path):
        found = path(X, y, differences(20), nu=1.0, kappa=KAPPA)
        assert found.gamma[-1].any()
        close(found.beta.sum(axis=1), np.zeros(100))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
def test_separable_classes_have_no_minimiser(sparse, intercept):
    """The mean of the columns separates y, and differences of beta do not see it."""
    X, _ = DATA["logistic"]
    signal = X.sum(axis=1) + intercept * 3.0
    y = np.where(signal > 3.0 * intercept, 1.0, -1.0)
    A = sp.csr_array(X) if sparse else X
    options = dict(nu=NU, kappa=KAPPA, loss="logistic", intercept=intercept)
    with pytest.raises(ValueError, match="needs data that the kernel of D does not separate"):
        split_lbi_path(A, y, differences(20), **options)
    zero = split_lbi_path(A, y, differences(20), start="zero", times=[1.0, 5.0], **options)
    assert np.isfinite(zero.beta).all()
    # the identity has no kernel: every direction is held
    held = split_lbi_path(A, y, identity(20), **options)
    assert held.gamma[-1].any()


def test_far_but_finite_minimiser_is_no_separation(close):
    """One label in the wrong place keeps the minimiser finite, though far out."""
    X = np.linspace(-1, 1, 41)[:, None] * 300.0
    y = np.where(X[:, 0] > 0, 1.0, -1.0)
    y[20] = 1.0
    y[21] = -1.0
    D = np.array([[1e-6]])
    state = next(split_lbi_states(X, y, D, nu=1.0, kappa=1.0, loss="logistic"))
    g = X.T @ LOSSES["logistic"].gradient(X @ state.beta, y) + D[0] ** 2 * state.beta
    assert np.abs(X @ state.beta).max() > 10
    np.testing.assert_allclose(g, 0, atol=1e-12)


def test_nothing_enters_where_the_kernel_explains_y(close):
    X, y = np.eye(12), np.full(12, 0.3)
    for path in (split_lbi_path, split_reduced_path):
        found = path(X, y, differences(12), nu=1.0, kappa=2.0, times=[0.0, 5.0])
        np.testing.assert_array_equal(found.gamma, 0)
        close(found.tilde, np.full((2, 12), 0.3))
        with pytest.raises(ValueError, match="times must be given"):
            path(X, y, differences(12), nu=1.0, kappa=2.0)
        flat = path(X, y, identity(12), nu=1.0, kappa=2.0, times=[0.0, 5.0], intercept=True)
        np.testing.assert_array_equal(flat.beta, 0)


def test_arguments_are_left_alone():
    X, y = DATA["squared"]
    D = FUSED.copy()
    kept = X.copy(), y.copy(), D.toarray()
    split_lbi_path(X, y, D, nu=NU, kappa=KAPPA, intercept=True)
    split_reduced_path(X, y, D, nu=NU, kappa=KAPPA, intercept=True)
    np.testing.assert_array_equal(X, kept[0])
    np.testing.assert_array_equal(y, kept[1])
    np.testing.assert_array_equal(D.toarray(), kept[2])


GOOD = dict(X=DATA["squared"][0], y=DATA["squared"][1], D=FUSED, nu=NU, kappa=KAPPA)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(y=np.zeros(39)), r"y must have shape \(40,\)"),
        (dict(y=np.full(40, np.nan)), "y must be finite, got nan"),
        (dict(X=np.full((40, 20), np.inf)), "X must be finite, got inf"),
        (dict(X=np.zeros((0, 20))), "X must be a non-empty 2-d array"),
        (dict(D=identity(19)), r"D must have the 20 columns of X, got shape \(19, 19\)"),
        (dict(D=np.zeros((3, 20))), "D must not be zero, got a D of rank zero"),
        (dict(D=sp.csr_array((3, 20))), "D must not be zero, got a D of rank zero"),
        (dict(D=np.full((3, 20), np.nan)), "D must be finite, got nan"),
        (dict(D=np.zeros((0, 20))), "D must be a non-empty 2-d array"),
        (dict(nu=0.0), "nu must be positive and finite, got 0.0"),
        (dict(nu=-2.0), "nu must be positive and finite, got -2.0"),
        (dict(kappa=np.nan), "kappa must be positive and finite, got nan"),
        (dict(lam=0.0), "lam must be positive and finite, got 0.0"),
        (dict(times=[2.0, 1.0]), "times must be increasing, got 1.0 after 2.0"),
        (dict(times=[-1.0, 1.0]), "times must be at least 0, got -1.0"),
        (dict(groups=np.zeros(20, int)), "groups must be 39 integer labels"),
    ],
)
@pytest.mark.parametrize("path", [split_lbi_path, split_reduced_path])
def test_bad_input(path, change, message):
    with pytest.raises(ValueError, match=message):
        path(**(GOOD | change))


@pytest.mark.parametrize(
    "change, message",
    [
        (
            dict(loss="multinomial"),
            "loss must be one of squared, .*logistic.* here, got 'multinomial'",
        ),
        (dict(loss="logistic"), r"y of a logistic loss must be in {-1, \+1}"),
        (
            dict(loss="logistic", y=-np.ones(40)),
            r"y must hold both classes -1 and \+1, got only -1",
        ),
        (dict(start="middle"), "start must be one of minimiser, zero, got 'middle'"),
    ],
)
def test_bad_choices(change, message):
    with pytest.raises(ValueError, match=message):
        split_lbi_path(**(GOOD | change))


@pytest.mark.parametrize("times", [None, [1.0]])
@pytest.mark.parametrize("start", ["minimiser", "zero"])
def test_the_start_is_solved_for_once_at_most(monkeypatch, start, times):
    """Default times need t0, which the start "minimiser" has found already."""
    calls = []

    def counted(*args, **options):
        calls.append(1)
        return minimiser(*args, **options)

    monkeypatch.setattr(split_lbi, "minimiser", counted)
    X, y, _ = vectors.linear(n=30, p=6)
    split_lbi_path(X, y, identity(6), nu=1.0, kappa=2.0, start=start, times=times)
    assert len(calls) == int(start == "minimiser" or times is None)

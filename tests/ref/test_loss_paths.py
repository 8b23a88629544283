"""Exact paths, and iterations, of every loss of the table: optimality, ends, and their limits."""

import numpy as np
import pytest
import scipy.sparse as sp
import vectors
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression, PoissonRegressor

from dslbi_ref.iss import iss_path
from dslbi_ref.lbi import lbi_path, lbi_states
from dslbi_ref.losses import huber, loss_named
from dslbi_ref.split_lbi import split_lbi_path, split_lbi_states
from dslbi_ref.stopping import path_losses
from dslbi_ref.transforms import differences


def gross_errors(n=60, p=8):
    """A sparse linear model in which every tenth y is far off."""
    X, y, beta = vectors.linear(n=n, p=p, k=3)
    y = y + 2.0
    y[::10] += 40.0
    return X, y, beta


DATA = {
    "squared": vectors.linear(n=60, p=8, k=3)[:2],
    "huber": gross_errors()[:2],
    "narrow huber": gross_errors()[:2],
    "logistic": vectors.labels(n=80, p=8)[:2],
    "poisson": vectors.counts(n=80, p=8)[:2],
    "multinomial": vectors.classes(n=90, p=6, k=4),
    "two classes": vectors.classes(n=90, p=6, k=2),
}
ROWS = {"narrow huber": huber(0.05), "two classes": "multinomial"}


def problem(name):
    return *DATA[name], ROWS.get(name, name)


def slopes(path, X, y, loss, k=slice(None)):
    """Gradients of the loss in the predictors along a path, one for each row."""
    levels = np.zeros(len(path.t)) if path.intercept is None else path.intercept
    rows = zip(path.gamma, levels, strict=True)
    return np.array([loss_named(loss).gradient(X @ g + b, y) for g, b in rows])


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("name", DATA)
def test_kkt_residual_of_every_loss(name, intercept):
    """z is minus the integral of the gradient, within the subdifferential; the end is a minimum."""
    X, y, loss = problem(name)
    path = iss_path(X, y, t_max=np.inf, loss=loss, intercept=intercept)
    assert path.stop_reason.startswith("saturated") and len(path.t) > 6
    r = slopes(path, X, y, loss)
    flow = -np.einsum("ij,ti...->tj...", X, r)
    steps = np.diff(path.t).reshape(-1, *(1,) * (flow.ndim - 1))
    assert_allclose(path.z[1:], np.cumsum(steps * flow[:-1], axis=0), atol=2e-9)
    assert np.abs(path.z).max() <= 1 + 1e-12
    on = path.gamma != 0
    assert_allclose(path.z[on], np.sign(path.gamma[on]), atol=1e-12)
    size = np.abs(flow[0]).max()
    assert np.abs(flow[on]).max() < 1e-10 * size
    assert np.abs(flow[-1]).max() < 1e-10 * size
    if intercept:
        assert np.abs(r.sum(axis=1)).max() < 1e-11 * size


@pytest.mark.parametrize("name", ["huber", "logistic", "poisson", "multinomial"])
def test_sparse_columns_give_the_same_exact_path(name):
    X, y, loss = problem(name)
    X = np.where(np.abs(X) > 0.5, X, 0.0)
    options = dict(loss=loss, intercept=True, normalize=True)
    path, other = iss_path(X, y, **options), iss_path(sp.csr_array(X), y, **options)
    assert_allclose(other.t, path.t, rtol=1e-9)
    assert_allclose(other.gamma, path.gamma, atol=1e-8)
    assert_allclose(other.intercept, path.intercept, atol=1e-8)


@pytest.mark.parametrize("name", ["huber", "poisson", "multinomial", "two classes"])
def test_lbi_of_every_loss_tends_to_its_exact_path(name):
    X, y, loss = problem(name)
    exact = iss_path(X, y, loss=loss, intercept=True)
    times = np.geomspace(1.05 * exact.t[1], 5 * exact.t[1], 40)
    gaps = []
    for kappa in (10.0, 100.0):
        path = lbi_path(X, y, kappa=kappa, times=times, loss=loss, intercept=True)
        gap = np.abs(path.gamma - exact.at(times).gamma)
        gaps.append(np.median(gap.reshape(40, -1).max(axis=1)))
    assert gaps[1] < 1e-3 and gaps[1] < gaps[0] / 4


def test_poisson_path_ends_at_the_fit_of_scikit_learn():
    X, y, loss = problem("poisson")
    path = iss_path(X, y, t_max=np.inf, loss="poisson", intercept=True)
    other = PoissonRegressor(alpha=0, tol=1e-10, max_iter=1000).fit(X, y)
    assert_allclose(path.gamma[-1], other.coef_, atol=1e-6)
    assert_allclose(path.intercept[-1], other.intercept_, atol=1e-6)


def test_multinomial_path_ends_at_the_fit_of_scikit_learn():
    """The classes are told apart by differences of coefficients."""
    X, y, loss = problem("multinomial")
    path = iss_path(X, y, t_max=np.inf, loss="multinomial", intercept=True)
    assert path.gamma.shape == (len(path.t), 6, 4) and path.intercept.shape == (len(path.t), 4)
    other = LogisticRegression(C=np.inf, tol=1e-10, max_iter=5000).fit(X, y)
    ours = path.gamma[-1] - path.gamma[-1].mean(axis=1, keepdims=True)
    assert_allclose(ours, other.coef_.T - other.coef_.mean(axis=0)[:, None], atol=1e-5)
    assert_allclose(path_losses(path, X, y, path.t[-1:], loss="multinomial"), other_loss(other))


def other_loss(model):
    X, y, _ = problem("multinomial")
    return -np.log(model.predict_proba(X)[np.arange(len(y)), y]).mean()


def test_two_classes_share_what_one_logistic_predictor_holds():
    """A difference of two class predictors has the path of the logistic loss with a penalty twice
    as large: |d/2| + |d/2| = |d|, of gradients that are the same."""
    X, y, _ = problem("two classes")
    two = iss_path(X, y, loss="multinomial", intercept=True)
    one = iss_path(X, 2.0 * y - 1, loss="logistic", intercept=True)
    assert_allclose(two.t, one.t, rtol=1e-9)
    assert_allclose(two.gamma[:, :, 1], -two.gamma[:, :, 0], atol=1e-9)
    assert_allclose(2 * two.gamma[:, :, 1], one.gamma, atol=1e-8)


def test_huber_path_finds_the_support_among_gross_errors():
    X, y, beta = gross_errors()
    robust = iss_path(X, y, loss=huber(0.5), intercept=True)
    plain = iss_path(X, y, intercept=True)
    assert robust.auc(beta) == 1.0 > plain.auc(beta)
    on = robust.at(robust.t[-1]).gamma
    assert_allclose(on[:3], beta[:3], atol=0.2)


def test_huber_end_is_the_minimum():
    X, y, _ = gross_errors()
    row = huber(0.5)
    path = iss_path(X, y, t_max=np.inf, loss=row)
    found = minimize(
        lambda b: row.value(X @ b, y),
        np.zeros(8),
        jac=lambda b: X.T @ row.gradient(X @ b, y),
        method="BFGS",
        options=dict(gtol=1e-10),
    )
    assert_allclose(path.gamma[-1], found.x, atol=1e-7)


@pytest.mark.parametrize("loss", ["poisson", "multinomial"])
def test_exact_path_stops_where_no_minimiser_is_left(loss):
    """A column that is positive on rows of one kind alone: the loss falls for ever along it."""
    X, y = DATA[loss]
    kind = y == 0
    X = np.column_stack([X, np.where(kind, 1.0, 0.0)])
    path = iss_path(X, y, t_max=np.inf, loss=loss, intercept=True)
    assert path.stop_reason.startswith("separable") and np.isfinite(path.gamma).all()
    assert not path.gamma[:, -1].any()


def test_poisson_iteration_descends_on_its_default_step():
    """The loss has no Lipschitz constant, but one on the level set that a path cannot leave."""
    X, y, _ = problem("poisson")
    states = lbi_states(X, y, kappa=5.0, loss="poisson", intercept=True)
    Xc, row = X - X.mean(axis=0), loss_named("poisson")
    kept = [next(states) for _ in range(2000)]
    f = np.array([row.value(Xc @ s.beta + s.intercept, y) for s in kept])
    assert (np.diff(f[1:]) <= 1e-15).all() and f[-1] < f[0] - 0.1


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("name", ["huber", "narrow huber", "poisson"])
def test_split_path_of_every_loss_starts_at_a_minimum(name, intercept):
    X, y, loss = problem(name)
    D, row = differences(8), loss_named(loss)
    first = next(split_lbi_states(X, y, D, nu=2.0, kappa=2.0, loss=loss, intercept=intercept))
    Xc = X - X.mean(axis=0) if intercept else X
    r = row.gradient(Xc @ first.beta + first.intercept, y)
    assert np.abs(Xc.T @ r + D.T @ (D @ first.beta) / 2.0).max() < 1e-11
    assert not intercept or abs(r.sum()) < 1e-11


@pytest.mark.parametrize("name, end", [("huber", 300.0), ("poisson", 30.0)])
def test_split_path_of_every_loss_follows_its_minimum(name, end):
    """Late, beta is the minimiser for its gamma, and most of D beta has become gamma."""
    X, y, loss = problem(name)
    D, row = differences(8), loss_named(loss)
    options = dict(nu=2.0, kappa=2.0, loss=loss, start="zero")
    path = split_lbi_path(X, y, D, times=[0.0, end], **options)
    beta, first = path.beta[-1], X.T @ row.gradient(0 * y, y)
    tie = D @ beta - path.gamma[-1]
    g = X.T @ row.gradient(X @ beta, y) + D.T @ tie / 2.0
    assert np.abs(g).max() < 2e-2 * np.abs(first).max()
    assert np.linalg.norm(tie) < 0.2 * np.linalg.norm(D @ beta)

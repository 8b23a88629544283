"""A loss that no solver has heard of: one row of the table, and every solver takes it."""

import numpy as np
import pytest
import scipy.sparse as sp
import vectors
from scipy.optimize import brentq, minimize

from dslbi_ref.design import Design
from dslbi_ref.iss import iss_path
from dslbi_ref.lbi import lbi_path, lbi_states
from dslbi_ref.losses import LOSSES, Loss, check_numbers
from dslbi_ref.split_lbi import split_lbi_path, split_lbi_states
from dslbi_ref.stopping import cross_validate
from dslbi_ref.transforms import differences


def slope(r):
    return r / np.sqrt(1 + r * r)


# Smooth Huber: quadratic for small residuals, linear for large ones.
ROUNDED = Loss(
    terms=lambda eta, y: np.sqrt(1 + (eta - y) ** 2) - 1,
    gradient=lambda eta, y: slope(eta - y) / len(y),
    curvature=lambda eta, y: (1 + (eta - y) ** 2) ** -1.5 / len(y),
    lipschitz=1.0,
    null_intercept=lambda y: brentq(
        lambda b: slope(b - y).sum(), y.min() - 1, y.max() + 1, xtol=1e-15, rtol=1e-15
    ),
    check_target=lambda y, n: check_numbers(y, n).astype(np.float64),
)


@pytest.fixture(autouse=True)
def table(monkeypatch):
    monkeypatch.setitem(LOSSES, "rounded", ROUNDED)
    monkeypatch.setitem(LOSSES, "uncurved", ROUNDED._replace(curvature=None))


def data():
    """A sparse linear model with three gross errors."""
    X, y, beta = vectors.linear(n=60, p=8, k=3)
    y = y + 2.0
    y[[3, 17, 40]] += 30.0
    return X, y, beta


@pytest.mark.parametrize("sparse", [False, True])
def test_lbi_of_a_new_loss_ends_at_its_minimiser(sparse):
    X, y, _ = data()

    def f(theta):
        r = ROUNDED.gradient(X @ theta[:-1] + theta[-1], y)
        return ROUNDED.value(X @ theta[:-1] + theta[-1], y), np.r_[X.T @ r, r.sum()]

    found = minimize(f, np.zeros(9), jac=True, method="BFGS", options=dict(gtol=1e-11))
    path = lbi_path(
        sp.csc_array(X) if sparse else X,
        y,
        kappa=5.0,
        times=[0.0, 400.0],
        loss="rounded",
        intercept=True,
    )
    end = np.r_[path.gamma[-1], path.intercept[-1]]
    assert np.abs(f(end)[1]).max() < 1e-9
    np.testing.assert_allclose(end, found.x, atol=1e-6)  # accuracy of BFGS


def test_first_entry_of_a_new_loss(close):
    X, y, _ = data()
    states = lbi_states(X, y, kappa=3.0, loss="rounded")
    next(states)
    g = X.T @ ROUNDED.gradient(np.zeros(60), y)
    close(next(states).t, 1 / np.abs(g).max())


def test_exact_path_of_a_new_loss():
    """Zero gradient on the support, flow within the signs elsewhere, the intercept at rest."""
    X, y, beta = data()
    path = iss_path(X, y, t_max=np.inf, loss="rounded", intercept=True)
    assert path.stop_reason.startswith("saturated") and len(path.t) > 8
    for k, (g, b) in enumerate(zip(path.gamma, path.intercept, strict=True)):
        r = ROUNDED.gradient(X @ g + b, y)
        on = (g != 0) & (np.abs(path.z[k]) == 1)
        assert np.abs((X.T @ r)[on]).max(initial=0.0) < 1e-12
        assert abs(r.sum()) < 1e-12
        assert (path.z[k][g != 0] * g[g != 0] > 0).all()
    assert path.auc(beta) == 1.0


@pytest.mark.parametrize("intercept", [False, True])
def test_split_lbi_of_a_new_loss(intercept, close):
    """The start is the minimiser of the split loss; the end is that of the loss itself."""
    X, y, _ = data()
    D, nu = differences(8), 2.0
    options = dict(nu=nu, kappa=4.0, loss="rounded", intercept=intercept)
    start = next(split_lbi_states(X, y, D, **options))
    Xc = X - X.mean(axis=0) if intercept else X
    r = ROUNDED.gradient(Xc @ start.beta + start.intercept, y)
    assert np.abs(Xc.T @ r + D.T @ (D @ start.beta) / nu).max() < 1e-13
    assert not intercept or abs(r.sum()) < 1e-13
    path = split_lbi_path(X, y, D, times=[0.0, 1000.0], **options)
    level = path.intercept[-1] if intercept else 0.0
    r = ROUNDED.gradient(X @ path.beta[-1] + level, y)
    assert np.abs(X.T @ r).max() < 1e-9
    np.testing.assert_allclose(D @ path.beta[-1], path.gamma[-1], atol=1e-7)


def test_cross_validation_of_a_new_loss():
    X, y, _ = data()
    times = np.geomspace(1.0, 50.0, 12)
    cv = cross_validate(
        lambda X, y: lbi_path(X, y, kappa=5.0, times=times, loss="rounded", intercept=True),
        X,
        y,
        times,
        loss="rounded",
    )
    assert np.isfinite(cv.mean).all() and cv.mean.argmin() > 0


def test_a_loss_without_curvature_has_its_iteration():
    X, y, _ = data()
    path = lbi_path(X, y, kappa=5.0, loss="uncurved")
    assert path.gamma[-1].any()
    message = "loss must be one of squared, huber, logistic, .*rounded here, got 'uncurved'"
    for call in (
        lambda: iss_path(X, y, loss="uncurved"),
        lambda: split_lbi_path(X, y, differences(8), nu=1.0, kappa=1.0, loss="uncurved"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("intercept", [False, True])
def test_step_bound_of_a_new_loss(intercept, close):
    X, y, _ = data()
    Xc = np.column_stack([X - X.mean(axis=0), np.ones(60)]) if intercept else X
    got = Design(X - X.mean(axis=0) if intercept else X).lipschitz(ROUNDED, intercept=intercept)
    close(got, np.linalg.norm(Xc, 2) ** 2 / 60)

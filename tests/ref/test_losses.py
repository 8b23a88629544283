"""Losses against finite differences and Hessians, Lipschitz constants against singular values."""

import numpy as np
import pytest
import scipy.sparse as sp
import vectors

from dslbi_ref.checks import check_design
from dslbi_ref.design import Design, centred, column_scale, spectral_norm_squared
from dslbi_ref.losses import LOSSES, huber, loss_named

PROBLEMS = {
    "squared": vectors.linear(n=30, p=6)[:2],
    "huber": vectors.linear(n=30, p=6)[:2],
    "logistic": vectors.labels(n=30, p=6)[:2],
    "poisson": vectors.counts(n=30, p=6)[:2],
    "multinomial": vectors.classes(n=30, p=6, k=3),
}
BOUNDED = [loss for loss in PROBLEMS if np.isfinite(LOSSES[loss].lipschitz)]


def point(loss):
    X, y = PROBLEMS[loss]
    beta = vectors.array((6, 3) if loss == "multinomial" else 6, seed=5)
    return X, y, beta, vectors.array(3, seed=6) if loss == "multinomial" else 0.3


@pytest.mark.parametrize("loss", PROBLEMS)
def test_gradient_is_the_derivative_of_the_value(loss):
    X, y, beta, b = point(loss)

    def f(beta, b):
        return LOSSES[loss].value(X @ beta + b, y)

    g = X.T @ LOSSES[loss].gradient(X @ beta + b, y)
    h = 1e-5
    for i in np.ndindex(beta.shape):
        e = np.zeros_like(beta)
        e[i] = h
        # central differences: error h^2 |f'''| + eps / h, about 1e-10
        np.testing.assert_allclose(g[i], (f(beta + e, b) - f(beta - e, b)) / (2 * h), atol=1e-9)
    g_b = LOSSES[loss].gradient(X @ beta + b, y).sum(axis=0)
    difference = (f(beta, b + h) - f(beta, b - h)) / (2 * h)
    np.testing.assert_allclose(np.sum(g_b), difference, atol=1e-9)
    np.testing.assert_allclose(
        sp.csc_array(X).T @ LOSSES[loss].gradient(sp.csc_array(X) @ beta + b, y), g, atol=1e-14
    )


@pytest.mark.parametrize("loss", PROBLEMS)
def test_curvature_is_the_derivative_of_the_residual(loss):
    X, y, beta, b = point(loss)
    eta, h = X @ beta + b, 1e-5
    row = LOSSES[loss]
    if loss != "multinomial":
        up, down = row.gradient(eta + h, y), row.gradient(eta - h, y)
        np.testing.assert_allclose(row.curvature(eta, y), (up - down) / (2 * h), atol=2e-10)
        return
    for c, e in enumerate(h * np.eye(3)):
        up, down = row.gradient(eta + e, y), row.gradient(eta - e, y)
        np.testing.assert_allclose(
            row.curvature(eta, y)[:, :, c], (up - down) / (2 * h), atol=1e-11
        )


def test_a_huber_loss_of_a_large_delta_is_squared(close):
    X, y, beta, b = point("squared")
    eta = X @ beta + b
    for name in ("value", "gradient", "curvature"):
        close(getattr(huber(100.0), name)(eta, y), getattr(LOSSES["squared"], name)(eta, y))
    close(huber(100.0).null_intercept(y), y.mean())


@pytest.mark.parametrize("n", [29, 30])
@pytest.mark.parametrize("delta", [0.01, 0.5, 3.0])
def test_huber_intercept_is_a_minimiser(n, delta):
    """Of an even number of rows and a small delta the slope is zero on a whole interval."""
    y = vectors.array(n, seed=3)
    b = huber(delta).null_intercept(y)
    assert abs(huber(delta).gradient(np.full(n, b), y).sum()) < 1e-14


def test_steepest_bounds_the_poisson_rates_on_the_level_set():
    """Rates as large as the level allows: every other term at its minimum."""
    y = np.array([0.0, 1.0, 4.0, 30.0])
    w = np.array([0.5, 2.0, 1.0, 0.5])
    row, eta = LOSSES["poisson"], np.array([1.0, 0.5, -1.0, 3.0])
    best = np.log(np.maximum(y, 1e-300))
    excess = (w * (row.terms(eta, y) - np.where(y > 0, row.terms(best, y), 0.0))).sum()
    bound = row.steepest(eta, y, w)
    for i in range(4):
        low, high = best[i] if y[i] else -50.0, 20.0
        for _ in range(200):
            middle = (low + high) / 2
            moved = np.where(np.arange(4) == i, middle, best)
            terms = row.terms(moved, y) - np.where(y > 0, row.terms(best, y), 0.0)
            low, high = (low, middle) if w[i] * terms[i] > excess else (middle, high)
        assert w[i] * np.exp(high) <= bound * (1 + 1e-12)
    assert (w * np.exp(eta)).max() <= bound < 4 * (w * (y + excess / w)).max()


def test_means_are_the_expected_targets(close):
    """At the null intercept the mean of the expected y is that of y."""
    for loss in ("squared", "poisson"):
        y, row = PROBLEMS[loss][1], LOSSES[loss]
        close(row.mean(np.full(30, row.null_intercept(y))).mean(), y.mean())
    y, row = PROBLEMS["logistic"][1], LOSSES["logistic"]
    close(row.mean(row.null_intercept(y)), (y > 0).mean())
    y, row = PROBLEMS["multinomial"][1], LOSSES["multinomial"]
    close(row.mean(row.null_intercept(y)), np.bincount(y) / 30)


def test_values_by_hand():
    np.testing.assert_allclose(
        LOSSES["squared"].value(np.array([1.0, 3.0]), np.array([0.0, 1.0])), 5 / 4
    )
    two = LOSSES["logistic"].value(np.zeros(4), np.array([1.0, -1, 1, 1]))
    np.testing.assert_allclose(two, np.log(2))
    three = LOSSES["multinomial"].value(np.zeros((4, 3)), np.array([0, 1, 2, 2]))
    np.testing.assert_allclose(three, np.log(3))
    counts = LOSSES["poisson"].value(np.log([2.0, 3.0]), np.array([1.0, 0.0]))
    np.testing.assert_allclose(counts, (2 - np.log(2) + 3) / 2)
    straight = LOSSES["huber"].value(np.array([0.5, 4.0]), np.array([0.0, 1.0]))
    np.testing.assert_allclose(straight, (0.125 + 2.5) / 2)
    far = LOSSES["logistic"].value(np.array([800.0, -800.0]), np.array([-1.0, -1.0]))
    np.testing.assert_allclose(far, 400.0)


@pytest.mark.parametrize("loss", PROBLEMS)
def test_null_intercept_is_stationary(loss, close):
    X, y = PROBLEMS[loss]
    b = LOSSES[loss].null_intercept(y)
    eta = np.zeros((30, 3)) + b if loss == "multinomial" else np.full(30, b)
    close(LOSSES[loss].gradient(eta, y).sum(axis=0), np.zeros(np.shape(b)))


@pytest.mark.parametrize("loss", BOUNDED)
def test_lipschitz_bounds_the_hessian_and_is_reached(loss, close):
    """The curvature is at its largest at eta = 0 of a class, and at eta = y of a number; two
    classes are the worst case of the softmax."""
    X, y = PROBLEMS[loss]
    L = Design(X).lipschitz(LOSSES[loss])
    n, p = X.shape
    if loss == "multinomial":
        # second derivative in direction v (e_1 - e_0), where classes 0 and 1 share all probability
        q = np.array([0.5, 0.5, 0.0])
        top = np.linalg.eigvalsh(np.diag(q) - np.outer(q, q))[-1]
        close(L, top * np.linalg.norm(X, 2) ** 2 / n)
    else:
        curvature = LOSSES[loss].curvature
        w = np.maximum(curvature(np.zeros(n), y), curvature(y, y))
        close(L, np.linalg.eigvalsh(X.T @ (w[:, None] * X))[-1])


@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_spectral_norm(shape, shift, close):
    X = vectors.array(shape) + shift
    Xc = X - X.mean(axis=0)
    close(spectral_norm_squared(X), np.linalg.norm(X, 2) ** 2)
    close(spectral_norm_squared(sp.csc_array(X)), np.linalg.norm(X, 2) ** 2)
    implicit = spectral_norm_squared(sp.csc_array(X), X.mean(axis=0))
    close(implicit, np.linalg.norm(Xc, 2) ** 2)


def test_spectral_norm_by_lanczos_is_an_upper_bound():
    X = np.where(np.abs(vectors.array((2100, 2050))) > 2.5, 1.0, 0.0)
    exact = np.linalg.eigvalsh(X.T @ X)[-1]
    got = spectral_norm_squared(sp.csc_array(X))
    assert exact <= got <= exact * (1 + 3e-9)


@pytest.mark.parametrize("sparse", [False, True])
def test_centred_design_is_the_centred_matrix(sparse, close):
    X = np.where(np.abs(vectors.array((20, 7))) > 0.7, vectors.array((20, 7)) + 2, 0.0)
    design, means = centred(sp.csc_array(X) if sparse else X, True)
    Xc = X - X.mean(axis=0)
    v, r = vectors.array((7, 2), seed=1), vectors.array((20, 2), seed=2)
    close(means, X.mean(axis=0))
    close(design.dot(v), Xc @ v)
    close(design.dot(v[:, 0]), Xc @ v[:, 0])
    close(design.adjoint(r), Xc.T @ r)
    close(design.adjoint(r[:, 0]), Xc.T @ r[:, 0])
    close(design.columns(np.array([4, 1])), Xc[:, [4, 1]])
    close(column_scale(sp.csc_array(X) if sparse else X, True), X.std(axis=0))
    close(column_scale(sp.csc_array(X) if sparse else X, False), np.sqrt((X**2).mean(axis=0)))


@pytest.mark.parametrize("loss", BOUNDED)
def test_lipschitz_of_a_design_counts_the_intercept(loss, close):
    X = PROBLEMS[loss][0] * 0.1
    Xc = X - X.mean(axis=0)
    ones = Xc if loss == "squared" else np.column_stack([Xc, np.ones(30)])
    got = centred(X, True)[0].lipschitz(LOSSES[loss], intercept=True)
    close(got, LOSSES[loss].lipschitz * np.linalg.norm(ones, 2) ** 2 / 30)


@pytest.mark.parametrize(
    "y, loss, message",
    [
        (np.zeros(3), "squared", r"y must have shape \(4,\), one entry per row of X, got \(3,\)"),
        (np.zeros((4, 1)), "squared", "y must have shape"),
        (np.array([0, 1, np.nan, 2]), "squared", "y must be finite, got nan"),
        (np.array([0, 1, np.inf, 2]), "squared", "y must be finite, got inf"),
        (np.array(["a", "b", "a", "b"]), "squared", "y must hold real numbers, got <U1"),
        (np.array([0, 1, 1, 0]), "logistic", r"y of a logistic loss must be in {-1, \+1}, got 0"),
        (np.ones(4), "logistic", r"y must hold both classes -1 and \+1, got only \+1"),
        (np.array([0, 0, 0, 0]), "multinomial", "y must hold at least two classes, got only 0"),
        (np.array([0, 2, 2, 3]), "multinomial", "y of a multinomial loss must be 0, ..., k-1"),
        (np.array([0.5, 1, 2, 3]), "multinomial", "y of a multinomial loss must be 0, ..., k-1"),
        (np.array([1, 2.5, 0, 1]), "poisson", "y of a Poisson loss must be whole .*, got 2.5"),
        (np.array([1, -3, 0, 1]), "poisson", "y of a Poisson loss must be whole .*, got -3"),
        (np.zeros(4), "hinge", f"loss must be one of {', '.join(LOSSES)}, got 'hinge'"),
    ],
)
def test_bad_target(y, loss, message):
    with pytest.raises(ValueError, match=message):
        loss_named(loss).check_target(y, 4)


@pytest.mark.parametrize(
    "X, message",
    [
        (np.zeros((0, 3)), r"X must be a non-empty 2-d array, got shape \(0, 3\)"),
        (np.zeros((3, 0)), "X must be a non-empty 2-d array"),
        (np.zeros(3), "X must be a non-empty 2-d array"),
        (np.array([[1.0, np.nan]]), "X must be finite, got nan"),
        (sp.csr_array(np.array([[1.0, -np.inf]])), "X must be finite, got -inf"),
    ],
)
def test_bad_design(X, message):
    with pytest.raises(ValueError, match=message):
        check_design(X)


@pytest.mark.parametrize("sparse", [False, True])
def test_constant_columns_cannot_be_normalised(sparse):
    X = vectors.array((10, 3))
    X[:, 1] = 0.1
    X = sp.csc_array(X) if sparse else X
    with pytest.raises(
        ValueError, match="normalize needs columns that vary, got constant column 1"
    ):
        column_scale(X, True)
    X[:, [1]] = np.zeros((10, 1))
    with pytest.raises(ValueError, match="normalize needs columns that vary, got zero column 1"):
        column_scale(X, False)


def test_counts_of_zero_have_no_intercept():
    with pytest.raises(ValueError, match="y must hold a count above 0 .*, got only 0"):
        LOSSES["poisson"].null_intercept(np.zeros(4))


def test_bad_delta():
    with pytest.raises(ValueError, match="delta must be positive and finite, got 0"):
        huber(0)

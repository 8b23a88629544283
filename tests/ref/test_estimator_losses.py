"""SplitLBIRegressor with other losses, factors of the penalty, signs and sample weights."""

import numpy as np
import pytest
import scipy.sparse as sp
import vectors
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.linear_model import HuberRegressor

from dslbi_ref.estimators import SplitLBIRegressor, SplitLBIRegressorCV
from dslbi_ref.iss import iss_path
from dslbi_ref.losses import huber
from dslbi_ref.split_iss import split_iss_path
from dslbi_ref.transforms import identity

FACTORS = np.array([1.0, 0.5, 2.0, 0.0, 1.0, 1.0])


def counted():
    X, y, _ = vectors.counts(n=80, p=6)
    return X * np.geomspace(0.5, 2, 6) + 1, y


@pytest.mark.parametrize("sparse", [False, True])
def test_poisson_is_the_path_of_the_solver_and_predicts_the_mean(sparse):
    X, y = counted()
    w = 1.0 + np.arange(80) % 3
    given = sp.csr_array(X) if sparse else X
    options = dict(penalty_factors=FACTORS, positive=True)
    est = SplitLBIRegressor(loss="poisson", **options).fit(given, y, sample_weight=w)
    path = iss_path(
        X, y, loss="poisson", intercept=True, normalize=True, sample_weight=w, **options
    )
    assert_allclose(est.coef_path_, path.at(np.minimum(est.t_, path.t[-1])).gamma, atol=1e-8)
    assert (est.coef_[FACTORS > 0] >= 0).all() and est.coef_path_[0, 3] != 0
    assert_allclose(est.predict(given), np.exp(X @ est.coef_ + est.intercept_))
    assert_allclose(w @ est.predict(given), w @ y, rtol=1e-9)  # the intercept is at rest


def test_huber_regressor_withstands_gross_errors():
    X, y, beta = vectors.linear(n=80, p=6, k=2, sigma=0.3)
    y[::10] += 50
    robust = SplitLBIRegressor(loss="huber", delta=0.5).fit(X, y)
    path = iss_path(X, y, loss=huber(0.5), intercept=True, normalize=True)
    assert_allclose(robust.coef_, path.gamma[-1], atol=1e-9)
    plain = SplitLBIRegressor(t=robust.t_stop_).fit(X, y)
    assert np.abs(robust.coef_ - beta).max() < 0.2 < np.abs(plain.coef_ - beta).max()
    other = HuberRegressor(epsilon=1.35, alpha=0).fit(X, y)
    assert np.abs(robust.coef_ - other.coef_).max() < 0.2


@pytest.mark.parametrize("kappa", [np.inf, 50.0])
def test_split_with_factors_signs_and_weights(kappa):
    X, y, _ = vectors.linear(n=60, p=6, k=3)
    w, factors = 1.0 + np.arange(60) % 2, np.array([1.0, 0.0, 2.0, 1.0, 0.5, 1.0])
    options = dict(penalty_factors=factors, positive=True)
    est = SplitLBIRegressor(identity, kappa=kappa, revised=False, **options)
    est.fit(X, y, sample_weight=w)
    exact = split_iss_path(
        X, y, identity(6), nu=1.0, intercept=True, sample_weight=w, t_max=est.t_stop_, **options
    )
    end = exact.at(min(est.t_stop_, exact.t[-1]))
    assert_allclose(est.coef_, end.beta, atol=1e-9 if kappa == np.inf else 2e-2)
    assert (est.gamma_[factors > 0] >= 0).all()


@pytest.mark.parametrize("cv", [False, True])
@pytest.mark.parametrize("loss", ["squared", "huber", "poisson"])
def test_a_weight_of_zero_leaves_a_row_out(loss, cv):
    X, y = counted()
    w = np.where(np.arange(80) % 4 == 1, 0.0, 1.0)
    kept = w > 0
    folds = np.arange(80) % 2
    options = dict(loss=loss, t=3.0)
    if not cv:
        est, other = SplitLBIRegressor(**options), SplitLBIRegressor(**options)
    else:
        splits = [(np.flatnonzero(folds != k), np.flatnonzero(folds == k)) for k in (0, 1)]
        less = folds[kept]
        fewer = [(np.flatnonzero(less != k), np.flatnonzero(less == k)) for k in (0, 1)]
        est = SplitLBIRegressorCV(cv=splits, **options)
        other = SplitLBIRegressorCV(cv=fewer, **options)
    est.fit(X, y, sample_weight=w)
    other.fit(X[kept], y[kept])
    assert_allclose(est.coef_, other.coef_, atol=1e-9)
    assert_allclose(est.t_stop_, other.t_stop_)
    assert not cv or np.ptp(est.cv_loss_) > 0


def test_parameters_survive_a_clone():
    est = SplitLBIRegressorCV(loss="huber", delta=2.0, penalty_factors=FACTORS, positive=True)
    copy = clone(est)
    assert copy.loss == "huber" and copy.delta == 2.0 and copy.positive
    assert_allclose(copy.penalty_factors, FACTORS)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(loss="hinge"), "loss must be one of squared, .*, got 'hinge'"),
        (dict(loss="multinomial"), "loss must be one of squared, .* here, got 'multinomial'"),
        (dict(loss="poisson"), "y of a Poisson loss must be whole numbers from 0 on, got -"),
        (dict(loss="huber", delta=-1), "delta must be positive and finite, got -1"),
        (dict(penalty_factors=np.ones(3)), r"penalty_factors must have shape \(6,\)"),
        (dict(penalty_factors=-FACTORS), "penalty_factors must be at least 0, got -2"),
        (dict(positive=2), "positive must be True or False, got 2"),
        (dict(D=identity, loss="huber"), "kappa must be finite for a loss that is not squared"),
    ],
)
def test_bad_options_are_one_clear_line(options, message):
    X, y, _ = vectors.linear(n=30, p=6)
    with pytest.raises(ValueError, match=message):
        SplitLBIRegressor(**options).fit(X, np.round(3 * y) - 0.0)


def test_bad_weights_are_one_clear_line():
    X, y, _ = vectors.linear(n=30, p=6)
    with pytest.raises(ValueError, match="sample_weight must be at least 0, got -1"):
        SplitLBIRegressor().fit(X, y, sample_weight=-np.ones(30))
    with pytest.raises(ValueError, match="contain at least one non-zero number"):
        SplitLBIRegressor().fit(X, y, sample_weight=np.zeros(30))

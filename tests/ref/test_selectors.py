"""The selectors: scikit-learn's own checks, then against the functions beneath."""

import re

import numpy as np
import pytest
import scipy.sparse as sp
import vectors
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from dslbi_ref.classifiers import SplitLBIClassifier
from dslbi_ref.estimators import SplitLBIRegressor
from dslbi_ref.iss import iss_path
from dslbi_ref.knockoffs import split_knockoffs
from dslbi_ref.selectors import SplitKnockoffSelector, StabilitySelector
from dslbi_ref.stability import false_bound, largest_first, stability_selection
from dslbi_ref.transforms import differences, identity

mark = parametrize_with_checks(
    [
        StabilitySelector(pairs=3),
        StabilitySelector(SplitLBIRegressor(kappa=5.0), threshold=0.51, expected=20.0, pairs=2),
        SplitKnockoffSelector(),
        SplitKnockoffSelector(identity, nu=1.0, part=None, plus=False),
        SplitKnockoffSelector(q=0.5, nu=2.0, path="lasso"),
    ]
)


@pytest.mark.filterwarnings("ignore:No features were selected")  # of the first, from scikit-learn
@pytest.mark.parametrize(
    *mark.args, ids=lambda x: re.sub("at0x[0-9a-f]+", "", mark.kwargs["ids"](x))
)
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_it_is_stability_selection_of_the_exact_path():
    X, y, beta = vectors.linear(60, 20, k=3, sigma=0.5)
    X = X * np.geomspace(0.2, 5, 20) + 1.0
    selector = StabilitySelector(pairs=10, random_state=5).fit(X, y)
    first = largest_first(20, 0.75, 1.0, pairs=10)
    assert selector.first_ == first
    assert selector.bound_ == false_bound(first, 20, 0.75, pairs=10) <= 1.0
    seed = np.random.RandomState(5).randint(2**31 - 1)
    found = stability_selection(
        lambda X, y: iss_path(X, y, intercept=True, normalize=True),
        X,
        y,
        first=first,
        pairs=10,
        seed=seed,
    )
    assert_array_equal(selector.frequency_, found.frequency)
    assert_array_equal(selector.get_support(), found.frequency >= 0.75)
    assert_array_equal(selector.get_support(), beta != 0)
    assert_array_equal(selector.transform(X), X[:, beta != 0])
    sparse = clone(selector).fit(sp.csr_array(X), y)
    assert_array_equal(sparse.frequency_, selector.frequency_)
    assert StabilitySelector(first=2, pairs=4).fit(X, y).first_ == 2
    strict = StabilitySelector(pairs=4, first=3, assumption="none", threshold=1.0).fit(X, y)
    assert strict.bound_ == pytest.approx(9 / 20)


def test_classes_of_any_name_and_number():
    X, names = load_iris(return_X_y=True)
    names = np.array(["a", "b", "c"])[names]
    X = np.hstack([X, vectors.array((150, 6), seed=1)])
    estimator = SplitLBIClassifier(kappa=2.0, t=10.0)
    selector = StabilitySelector(estimator, first=3, pairs=5, random_state=0).fit(X, names)
    assert 0 < selector.get_support()[:4].sum() and not selector.get_support()[4:].any()


def test_before_a_regression_in_a_pipeline():
    X, y, _ = vectors.linear(80, 30, k=3, sigma=1.0)
    selector = StabilitySelector(pairs=10, random_state=0)
    score = cross_val_score(make_pipeline(selector, LinearRegression()), X, y, cv=4)
    assert score.mean() > cross_val_score(LinearRegression(), X, y, cv=4).mean()


def test_real_measurements_beside_noise():
    X, y = load_breast_cancer(return_X_y=True)
    X = np.hstack([X, vectors.array((len(y), 30), seed=0)])
    estimator = SplitLBIClassifier(kappa=1.0, t=30.0)
    selector = StabilitySelector(estimator, pairs=5, random_state=0).fit(X, y)
    assert selector.get_support()[:30].sum() >= 2 and selector.get_support()[30:].sum() == 0


@pytest.mark.parametrize(
    "parameters, words",
    [
        (dict(threshold=0.5), r"threshold must be in \(0.5, 1\], got 0.5"),
        (dict(expected=1e-3), "expected must be at least"),
        (dict(first=0), "first must be positive"),
        (dict(first=21), "first must be at most p = 20, got 21"),
        (dict(first=1.5), "first must be an integer, got 1.5"),
        (dict(assumption="normal"), "assumption must be one of none, unimodal, r-concave"),
        (dict(pairs=0), "pairs must be at least 1"),
        (dict(estimator=SplitLBIRegressor(identity)), "estimator must be one of .* without D"),
        (dict(estimator=LinearRegression()), "estimator must be one of .* without D"),
    ],
)
def test_bad_input_is_one_clear_line(parameters, words):
    X, y, _ = vectors.linear(40, 20)
    with pytest.raises(ValueError, match=words) as error:
        StabilitySelector(**parameters).fit(X, y)
    assert "\n" not in str(error.value)


# ---- Knockoffs -------------------------------------------------------------------------------


def test_it_is_split_knockoffs_of_the_scaled_columns():
    X, y, beta = vectors.linear(120, 20, k=6, sigma=0.2)
    mixed = X * np.geomspace(0.1, 10, 20) + 3.0
    selector = SplitKnockoffSelector(q=0.4, nu=1.0, random_state=4).fit(mixed, y)
    seed = np.random.RandomState(4).randint(2**31 - 1)
    scaled = (mixed - mixed.mean(axis=0)) / mixed.std(axis=0)
    found = split_knockoffs(scaled, y, np.eye(20), q=0.4, nu=1.0, seed=seed)
    assert_allclose(selector.W_, found.W, rtol=1e-8)
    assert_array_equal(selector.get_support(), found.selected)
    assert_array_equal(selector.sign_, found.sign)
    assert (selector.threshold_, selector.nu_) == (pytest.approx(found.threshold), 1.0)
    assert selector.get_support()[beta != 0].mean() > 0.8
    assert_array_equal(selector.transform(mixed), mixed[:, found.selected])


@pytest.mark.parametrize("D", [differences, differences(20), differences(20).toarray()])
def test_a_row_of_D_that_is_named_selects_the_features_it_touches(D):
    X, _, _ = vectors.linear(150, 20)
    beta = np.repeat([0.0, 2.0, -1.0, 0.0, 1.0, 0.0, 3.0, 0.0, -2.0, 0.0], 2)
    y = X @ beta + 0.1 * vectors.array((150,), seed=3)
    selector = SplitKnockoffSelector(D, q=0.4, nu=1.0, random_state=0).fit(X, y)
    truth = np.sign(np.diff(beta))
    assert selector.rows_.sum() >= 6
    assert (selector.sign_[selector.rows_] == truth[selector.rows_]).mean() > 0.5
    first = np.flatnonzero(selector.rows_)
    assert set(np.flatnonzero(selector.get_support())) == set(first) | set(first + 1)


def test_knockoffs_stand_in_front_of_a_regression():
    X, y, beta = vectors.linear(150, 12, k=6, sigma=0.2)
    selector = SplitKnockoffSelector(q=0.4, nu=1.0, random_state=0)
    model = make_pipeline(selector, LinearRegression()).fit(X, y)
    assert model.score(X, y) > 0.9
    with pytest.raises(ValueError, match=r"q must be in \(0, 1\), got 2"):
        SplitKnockoffSelector(q=2).fit(X, y)
    with pytest.raises(ValueError, match="normalize must be True or False, got 'no'"):
        SplitKnockoffSelector(normalize="no").fit(X, y)
    with pytest.raises(ValueError, match="D must have the 12 columns of X, got shape"):
        SplitKnockoffSelector(np.eye(3)).fit(X, y)

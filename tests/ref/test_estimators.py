"""Estimators: scikit-learn's own checks, then against the solvers and closed forms beneath them."""

import re

import numpy as np
import pytest
import scipy.sparse as sp
import vectors
from scipy.special import expit
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import LassoCV, LinearRegression
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from dslbi_ref.classifiers import SplitLBIClassifier, SplitLBIClassifierCV
from dslbi_ref.estimators import SplitLBIRegressor, SplitLBIRegressorCV
from dslbi_ref.iss import iss_path
from dslbi_ref.lbi import lbi_path
from dslbi_ref.split_iss import split_iss_path
from dslbi_ref.split_lbi import split_lbi_path
from dslbi_ref.transforms import differences, identity

INF = np.inf


def checks_of(*estimators):
    """Return the checks, named without addresses: in every process they have the same names."""
    mark = parametrize_with_checks(estimators)
    name = mark.kwargs["ids"]
    return pytest.mark.parametrize(*mark.args, ids=lambda x: re.sub("at0x[0-9a-f]+", "", name(x)))


@checks_of(
    SplitLBIRegressor(),
    SplitLBIRegressor(kappa=10.0),
    SplitLBIRegressor(identity),
    SplitLBIRegressor(identity, kappa=1.0, t=20.0),
    SplitLBIRegressor(loss="huber", t=5.0),
    SplitLBIRegressor(loss="huber", delta=0.5, kappa=5.0, t=5.0),
    SplitLBIRegressor(positive=True),
    SplitLBIRegressor(identity, positive=True),
    SplitLBIRegressorCV(cv=3),
    SplitLBIRegressorCV(cv=3, loss="huber", positive=True, t=5.0),
    SplitLBIClassifier(kappa=1.0),
    SplitLBIClassifier(kappa=INF),
    SplitLBIClassifier(identity, kappa=1.0, t=20.0),
    SplitLBIClassifierCV(cv=2, kappa=1.0, t=30.0),
)
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


# ---- regression: the solver beneath, in the coefficients of X as given -------------------------


def shifted(sigma=0.5):
    """A linear problem with columns of different size and a level of its own."""
    X, y, beta = vectors.linear(n=60, p=12, k=4, sigma=sigma)
    size = np.geomspace(0.2, 5, 12)
    return X * size + 1, y + 3, beta / size


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_plain_paths_are_those_of_the_solvers(normalize, fit_intercept, close):
    X, y, _ = shifted()
    options = dict(intercept=fit_intercept, normalize=normalize)
    est = dict(fit_intercept=fit_intercept, normalize=normalize)
    exact, path = SplitLBIRegressor(**est).fit(X, y), iss_path(X, y, **options)
    close(exact.t_, path.t)
    close(exact.coef_path_, path.gamma)
    close(exact.intercept_path_, path.intercept if fit_intercept else 0 * path.t)
    close(exact.coef_, path.gamma[-1])
    finite = SplitLBIRegressor(kappa=5.0, **est).fit(X, y)
    path = lbi_path(X, y, kappa=5.0, **options)
    close(finite.t_, path.t)
    close(finite.coef_path_, path.gamma)
    close(finite.predict(X), X @ path.gamma[-1] + (path.intercept[-1] if fit_intercept else 0))


def test_exact_split_path_with_an_intercept_is_that_of_centred_data(close):
    X, y, _ = vectors.step_signal()
    X, y, D = X + 1, y + 3, differences(40)
    path = split_iss_path(X - X.mean(axis=0), y - y.mean(), D, nu=2.0)
    est = SplitLBIRegressor(D, nu=2.0, revised=False).fit(X, y)
    close(est.t_, path.t)
    close(est.coef_path_, path.beta)
    close(est.gamma_, path.gamma[-1])
    close(est.predict(X).mean(), y.mean())
    close(SplitLBIRegressor(D, nu=2.0, revised=False).fit(X, y + 7).coef_, est.coef_)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_split_path_of_finite_speed_is_that_of_the_solver(loss, close):
    X, y, _ = vectors.step_signal() if loss == "squared" else vectors.labels()
    D, kind = identity(X.shape[1]), SplitLBIRegressor if loss == "squared" else SplitLBIClassifier
    times = np.array([2.0, 9.0])
    path = split_lbi_path(X, y, D, nu=2.0, kappa=4.0, times=times, loss=loss, intercept=True)
    for t, beta, tilde, b in zip(times, path.beta, path.tilde, path.intercept, strict=True):
        dense = kind(D, nu=2.0, kappa=4.0, t=t, revised=False).fit(X, y)
        close(dense.coef_, beta if loss == "squared" else beta[None])
        close(dense.intercept_, b)
        revised = kind(D, nu=2.0, kappa=4.0, t=t).fit(X, y)
        close(revised.coef_, tilde if loss == "squared" else tilde[None])
        # both have the same value at the means of the data
        gap = X.mean(axis=0) @ (dense.coef_ - revised.coef_).T
        close(revised.intercept_ - dense.intercept_, gap)


@pytest.mark.parametrize("kappa", [INF, 3.0])
def test_revised_coefficients_have_the_structure_that_gamma_selects(kappa, close):
    X, y, beta = vectors.step_signal()
    est = SplitLBIRegressor(differences, nu=5.0, kappa=kappa).fit(X, y)
    t = est.t_[np.abs(est.coef_path_ - beta).max(axis=1).argmin()]
    est.set_params(t=t).fit(X, y)
    assert ((np.diff(est.coef_) == 0) | (est.gamma_ != 0)).all()
    assert 3 <= (np.diff(est.coef_) != 0).sum() < 20  # three true jumps
    dense = clone(est).set_params(revised=False).fit(X, y)
    assert (np.diff(dense.coef_) != 0).all()
    # the nearest signal to the dense one: the remainder is orthogonal to it
    close((dense.coef_ - est.coef_) @ est.coef_, 0.0)


def test_plateau_is_least_squares_on_the_support(close):
    X, y, beta = shifted(sigma=0.05)
    path = SplitLBIRegressor().fit(X, y)
    right = ((path.coef_path_ != 0) == (beta != 0)).all(axis=1)
    est = SplitLBIRegressor(t=path.t_[right][0]).fit(X, y)
    ols = LinearRegression().fit(X[:, :4], y)
    close(est.coef_[:4], ols.coef_)
    assert (est.coef_[4:] == 0).all()
    close(est.intercept_, ols.intercept_)


def test_time_scales_with_the_target(close):
    X, y, _ = shifted()
    for options in (dict(), dict(D=identity, nu=0.5)):
        one = SplitLBIRegressor(t=2.0, **options).fit(X, y)
        two = SplitLBIRegressor(t=1.0, **options).fit(X, 2 * y)
        close(two.coef_, 2 * one.coef_)
        close(two.t_, one.t_ / 2)


def test_coefficients_do_not_depend_on_the_units_of_normalised_columns(close):
    X, y, _ = shifted()
    size = np.geomspace(1e3, 1e-3, 12)
    for kappa in (INF, 5.0):
        a, b = (SplitLBIRegressor(kappa=kappa, t=3.0).fit(Z, y) for Z in (X, X * size + 10))
        close(b.coef_ * size, a.coef_)


def test_a_time_before_the_first_entry_gives_the_empty_model(close):
    X, y, _ = shifted()
    for kappa in (INF, 5.0):
        est = SplitLBIRegressor(kappa=kappa, t=1e-3).fit(X, y)
        assert (est.coef_ == 0).all()
        close(est.intercept_, y.mean())


@pytest.mark.parametrize(
    "options", [dict(), dict(kappa=5.0), dict(D=identity), dict(D=identity, kappa=5.0)]
)
def test_nothing_to_explain(options, close):
    """A constant y: no entry ever, and the level is right."""
    X, y, _ = shifted()
    est = SplitLBIRegressorCV(**options).fit(X, 0 * y + 0.3)
    close(est.coef_, 0 * X[0])
    close(est.predict(X), 0 * y + 0.3)


@pytest.mark.parametrize("kappa", [INF, 5.0])
def test_a_constant_column_is_left_out(kappa, close):
    X, y, _ = shifted()
    with_flat = np.insert(X, 3, 0.1, axis=1)
    est = SplitLBIRegressor(kappa=kappa, t=3.0).fit(with_flat, y)
    assert est.coef_[3] == 0
    close(np.delete(est.coef_, 3), SplitLBIRegressor(kappa=kappa, t=3.0).fit(X, y).coef_)


def test_groups_enter_together():
    X, y, _ = shifted()
    groups = np.arange(12) // 3
    est = SplitLBIRegressor(kappa=5.0, groups=groups).fit(X, y)
    per_group = (est.coef_path_ != 0).reshape(-1, 4, 3)
    assert (per_group.all(axis=2) == per_group.any(axis=2)).all()
    assert len(np.unique(per_group.any(axis=2).sum(axis=1))) > 2


@pytest.mark.parametrize("kappa", [INF, 5.0])
@pytest.mark.parametrize("D", [None, differences])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_sparse_X_and_every_form_of_D(kappa, D, fit_intercept, close):
    X, y, _ = vectors.step_signal()
    X = np.where(np.abs(X) > 0.7, X, 0) + 0.0
    options = dict(kappa=kappa, t=3.0, fit_intercept=fit_intercept)
    dense = SplitLBIRegressor(D, **options).fit(X, y)
    for form in (sp.csr_array, sp.csc_matrix):
        est = SplitLBIRegressor(D, **options).fit(form(X), y)
        close(est.coef_, dense.coef_)
        close(est.predict(form(X)), dense.predict(X))
    if D is not None:
        for form in (sp.csr_array, sp.coo_array, lambda d: d.toarray()):
            close(SplitLBIRegressor(form(D(40)), **options).fit(X, y).coef_, dense.coef_)


# ---- the stopping time -------------------------------------------------------------------------


@pytest.mark.parametrize("options", [dict(), dict(kappa=5.0), dict(D=identity, nu=0.5)])
def test_cross_validation_is_what_it_says(options, close):
    X, y, _ = shifted(sigma=3.0)
    est = SplitLBIRegressorCV(cv=4, **options).fit(X, y)
    assert est.cv_loss_.shape == (4, 100) and est.cv_t_.shape == (100,)
    assert est.t_stop_ == est.cv_t_[est.cv_loss_.mean(axis=0).argmin()]
    assert est.cv_t_[0] < est.t_stop_ < est.cv_t_[-1]
    close(est.cv_t_[-1], 20 * est.cv_t_[0])
    for i, (train, test) in enumerate(KFold(4).split(X)):
        for k in (0, 40, 99):
            one = SplitLBIRegressor(t=est.cv_t_[k], **options).fit(X[train], y[train])
            close(est.cv_loss_[i, k], ((one.predict(X[test]) - y[test]) ** 2).mean() / 2)
    close(est.coef_, SplitLBIRegressor(t=est.t_stop_, **options).fit(X, y).coef_)
    close(est.t_[[0, -1]], SplitLBIRegressor(**options).fit(X, y).t_[[0, -1]])


@pytest.mark.parametrize("k", [2, 3])
def test_cross_validated_classifier_is_what_it_says(k, close):
    X, y = vectors.classes(k=k)
    est = SplitLBIClassifierCV(cv=3, t=60.0).fit(X, y)
    for i, (train, test) in enumerate(StratifiedKFold(3).split(X, y)):
        one = SplitLBIClassifier(t=est.cv_t_[50]).fit(X[train], y[train])
        eta = one.decision_function(X[test]).reshape(len(test), -1)
        sign = np.where(y[test][:, None] == (one.classes_ if k == 3 else [1]), 1, -1)
        close(est.cv_loss_[i, 50], -np.log(expit(sign * eta)).mean())
    assert est.t_stop_ == est.cv_t_[est.cv_loss_.mean(axis=0).argmin()]


def test_stopping_early_beats_the_end_of_the_path_and_the_lasso_on_its_own_ground():
    """Sparse truth, much noise: held-out R^2 of the chosen time."""
    X, y, beta = vectors.linear(n=100, p=200, k=5, sigma=1.5)
    fresh, _, _ = vectors.linear(n=2000, p=200, k=5, seed=1)
    truth = fresh @ beta
    chosen, end = SplitLBIRegressorCV().fit(X, y), SplitLBIRegressor().fit(X, y)
    lasso = LassoCV(cv=5).fit(X, y)
    # measured .99, .93, .80; 5 coefficients against 34
    assert chosen.score(fresh, truth) > lasso.score(fresh, truth) > end.score(fresh, truth)
    assert (chosen.coef_ != 0).sum() < (lasso.coef_ != 0).sum()


def test_real_data():
    X, y = load_diabetes(return_X_y=True)
    ours = cross_val_score(SplitLBIRegressorCV(), X, y).mean()
    lasso = cross_val_score(LassoCV(), X, y).mean()
    assert abs(ours - lasso) < 0.02 and ours > 0.45
    X, y = load_breast_cancer(return_X_y=True)
    est = SplitLBIClassifier(t=30.0)
    assert cross_val_score(est, X, y).mean() > 0.95
    assert 0 < (est.fit(X, y).coef_ != 0).sum() < 25


# ---- classification ----------------------------------------------------------------------------


@pytest.mark.parametrize("kappa", [INF, 5.0])
def test_two_classes_are_the_path_of_the_solver(kappa, close):
    X, y, _ = vectors.labels()
    names = np.where(y > 0, "yes", "no")
    est = SplitLBIClassifier(kappa=kappa).fit(X, names)
    assert list(est.classes_) == ["no", "yes"]
    if kappa == INF:
        path = iss_path(X, y, loss="logistic", intercept=True, normalize=True)
    else:
        path = lbi_path(X, y, kappa=5.0, loss="logistic", intercept=True, normalize=True)
    close(est.t_, path.t)
    close(est.coef_path_[:, 0], path.gamma)
    close(est.intercept_path_[:, 0], path.intercept)
    eta = X @ path.gamma[-1] + path.intercept[-1]
    close(est.decision_function(X), eta)
    close(est.predict_proba(X)[:, 1], expit(eta))
    assert (est.predict(X) == np.where(eta > 0, "yes", "no")).all()


@pytest.mark.parametrize("options", [dict(), dict(kappa=INF), dict(D=identity, kappa=2.0)])
def test_more_classes_are_one_against_the_rest_at_one_time(options, close):
    X, y = vectors.classes(k=3)
    est = SplitLBIClassifier(t=12.0, **options).fit(X, y)
    assert est.coef_.shape == (3, 12) and est.intercept_.shape == (3,)
    assert est.coef_path_.shape == (len(est.t_), 3, 12) and len(est.paths_) == 3
    assert est.gamma_.shape == (3, 12)
    for c in range(3):
        one = SplitLBIClassifier(t=12.0, **options).fit(X, y == c)
        close(est.coef_[c], one.coef_[0])
        close(est.intercept_[c], one.intercept_[0])
    chance = est.predict_proba(X)
    close(chance.sum(axis=1), np.ones(90))
    assert (chance.argmax(axis=1) == est.predict(X)).all()
    assert est.score(X, y) > 0.4  # chance: 1/3


def test_all_classes_end_at_one_time(close):
    X, y = load_iris(return_X_y=True)
    finite = SplitLBIClassifier(kappa=3.0).fit(X, y)
    firsts = [path.entry_times().min() for path in finite.paths_]
    close(finite.t_[[0, -1]], [min(firsts), 20 * max(firsts)])
    exact = SplitLBIClassifier(kappa=INF).fit(X, y)
    close(exact.t_stop_, 20 * max(firsts))
    # Setosa is separable by one column; the others run to the end
    assert [path.t[-1] == exact.t_stop_ for path in exact.paths_] == [False, True, True]


def test_separable_classes():
    """The exact path rests at its last finite model, the finite one goes on and separates."""
    X, y, _ = vectors.labels()
    y = np.sign(X[:, 0] + X[:, 1])
    exact = SplitLBIClassifier(kappa=INF).fit(X, y)
    assert exact.paths_[0].stop_reason.startswith("separable")
    assert exact.t_[-1] < exact.t_stop_
    assert (exact.coef_ == exact.coef_path_[-1]).all() and np.isfinite(exact.coef_).all()
    assert SplitLBIClassifier().fit(X, y).score(X, y) == 1.0


def test_probabilities_where_all_of_them_underflow(close):
    X, y = vectors.classes(k=3)
    est = SplitLBIClassifier(t=12.0).fit(X, y)
    est.intercept_ = est.intercept_ - 1e4
    close(est.predict_proba(X), np.full((90, 3), 1 / 3))


# ---- with the rest of scikit-learn --------------------------------------------------------------


def test_pipeline_and_grid_search(close):
    X, y, _ = shifted()
    pipe = make_pipeline(PolynomialFeatures(2), StandardScaler(), SplitLBIRegressorCV(identity))
    grid = {"splitlbiregressorcv__nu": [0.1, 1.0], "splitlbiregressorcv__D": [None, identity]}
    search = GridSearchCV(pipe, grid, cv=3).fit(X, y)
    assert search.best_score_ > 0.9
    assert search.best_estimator_[-1].coef_.shape == (91,)
    times = SplitLBIRegressor().fit(X, y).t_[1:]
    search = GridSearchCV(SplitLBIRegressor(), {"t": times, "kappa": [INF, 20.0]}, cv=3).fit(X, y)
    close(search.predict(X), SplitLBIRegressor(**search.best_params_).fit(X, y).predict(X))


@pytest.mark.parametrize(
    "est, message",
    [
        (SplitLBIRegressor(kappa=0.0), "kappa must be positive, got 0.0"),
        (SplitLBIRegressor(kappa=np.nan), "kappa must be positive, got nan"),
        (SplitLBIRegressor(t=-1.0), "t must be None, or positive and finite, got -1.0"),
        (SplitLBIRegressor(t=INF), "t must be None, or positive and finite, got inf"),
        (SplitLBIRegressor(groups=np.zeros(12, int)), "kappa must be finite with groups, got inf"),
        (SplitLBIRegressor(identity(5)), "D must have the 12 columns of X"),
        (SplitLBIRegressor(lambda p: None), "D must hold real numbers, got object"),
        (SplitLBIRegressor(np.zeros((3, 12))), "D must not be zero"),
        (SplitLBIRegressor(identity, nu=0.0), "nu must be positive and finite, got 0.0"),
        (SplitLBIRegressor(kappa=1.0, groups=[0, 1]), "groups must be 12 integer labels"),
        (
            SplitLBIClassifier(identity, kappa=INF),
            "kappa must be finite for a loss that is not squared",
        ),
        (SplitLBIClassifierCV(cv=1), "n_splits=1"),
    ],
)
def test_bad_parameters(est, message):
    X, y, _ = shifted()
    y = y > 3 if isinstance(est, SplitLBIClassifier) else y
    with pytest.raises(ValueError, match=message):
        est.fit(X, y)


def test_bad_data():
    X, y, _ = shifted()
    with pytest.raises(ValueError, match="at least two classes, got only 1"):
        SplitLBIClassifier().fit(X, 0 * y.astype(int) + 1)
    with pytest.raises(ValueError, match="X must not be zero after centring"):
        SplitLBIRegressor().fit(0 * X + 2, y)

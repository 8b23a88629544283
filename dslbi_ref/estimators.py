"""Estimators in scikit-learn's manner: one path of models, read at one time.

==========  =====================================  ================================================
            kappa finite                           kappa infinite
==========  =====================================  ================================================
D is None   linearized Bregman iteration           exact inverse scale space
D given     Split LBI                              exact Split inverse scale space (squared loss)
==========  =====================================  ================================================

A path has as many models as times. ``t`` names one; the CV forms choose it by cross-validation,
every fold on the same times. Short times are sparse, long ones fit the data.

This file and :mod:`dslbi_ref.selectors` are the only ones of the package that import scikit-learn.
"""

from functools import reduce

import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, is_classifier, is_regressor
from sklearn.model_selection import check_cv
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from .fitting import PathFit
from .stopping import held_out_losses


def chosen_time(est, X, y, targets, times):
    """Return the time of least loss on the held-out folds; set ``cv_t_`` and ``cv_loss_``."""
    loss = "squared" if is_regressor(est) else "logistic"
    splits = list(check_cv(est.cv, y, classifier=is_classifier(est)).split(X, y))

    def fit(X, target):
        return PathFit(est, X, loss).path(target, times)

    losses = [
        held_out_losses(fit, X, target, times, splits, loss=loss, rest=True) for target in targets
    ]
    est.cv_t_, est.cv_loss_ = times, np.mean(losses, axis=0)
    return float(times[est.cv_loss_.mean(axis=0).argmin()])


class _PathEstimator(BaseEstimator):
    """What both estimators share: X may be sparse, and the model is read at the last time."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _stopping_time(self, X, y, targets, times):
        return float(times[-1])


class SplitLBIRegressor(RegressorMixin, _PathEstimator):
    """Sparse linear regression along a differential inclusion path.

    The loss is ``|y - X beta - b|^2 / (2n)``. Without D the coefficients themselves become sparse,
    with D their image ``D beta``: jumps of a signal, edges of an image, differences of neighbours.

    Parameters
    ----------
    D : ndarray or scipy.sparse (m, p), callable ``p -> D``, or None
        For example ``dslbi_ref.transforms.differences``.
    nu : float > 0
        Coupling of gamma to ``D beta``; not read without D.
    kappa : float > 0
        Speed of gamma. Infinity (default): the exact path, by events. Finite: an iteration,
        whose steps are in proportion to kappa; it has the units of a coefficient of the scaled X.
    t : float > 0 or None
        Path time of the model; None: the end of the path, 20 times the time of the first entry.
        Time has the units of one over the gradient: with y doubled, t halves.
    groups : int array of shape (p,), or (m,) with D
        Entries of one label enter together; for finite kappa only.
    revised : bool
        With D, project beta on the signals whose inactive differences vanish: ``D coef_`` is then
        exactly as sparse as gamma. False: the dense beta.
    fit_intercept : bool
        The intercept is not penalised.
    normalize : bool
        Without D: divide the columns of X by their standard deviation for the path (which columns
        of different size would deform); coefficients belong to X as given. With D the size of
        ``D beta`` counts, and X is left as it is: bring its columns to a common scale.

    Attributes
    ----------
    coef_ : ndarray (p,)
    intercept_ : float
    t_stop_ : float
        Path time of ``coef_``.
    t_ : ndarray (T,)
        Times of the path: its events, and its two ends, if exact; else log-spaced ones.
    coef_path_ : ndarray (T, p)
    intercept_path_ : ndarray (T,)
    gamma_ : ndarray (m,) or (p,)
        The sparse variable at t_stop_: with D the twin of ``D coef_``, without D coef_ itself.
    path_ : dslbi_ref.path.Path
        z refers to the scaled columns; gamma (without D) and beta to X as given.
    n_features_in_, feature_names_in_

    Notes
    -----
    X may be sparse, and is never filled.
    """

    def __init__(
        self,
        D=None,
        *,
        nu=1.0,
        kappa=np.inf,
        t=None,
        groups=None,
        revised=True,
        fit_intercept=True,
        normalize=True,
    ):
        self.D = D
        self.nu = nu
        self.kappa = kappa
        self.t = t
        self.groups = groups
        self.revised = revised
        self.fit_intercept = fit_intercept
        self.normalize = normalize

    def fit(self, X, y):
        """Fit the path to X (n, p) and y (n,), and read the model at t_stop_."""
        X, y = validate_data(
            self, X, y, accept_sparse="csc", dtype=np.float64, ensure_min_samples=2, y_numeric=True
        )
        fit = PathFit(self, X, "squared")
        times = fit.times([y])
        self.t_stop_ = self._stopping_time(X, y, [y], times)
        self.path_ = fit.path(y, times)
        self.t_ = self.path_.t
        self.coef_path_, self.intercept_path_, _ = fit.read(self.path_, self.t_)
        coef, intercept, gamma = fit.read(self.path_, np.array([self.t_stop_]))
        self.coef_, self.intercept_, self.gamma_ = coef[0], float(intercept[0]), gamma[0]
        return self

    def predict(self, X):
        """Return the predictions (n,) of the model at t_stop_."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csc", dtype=np.float64, reset=False)
        return X @ self.coef_ + self.intercept_


class SplitLBIRegressorCV(SplitLBIRegressor):
    """:class:`SplitLBIRegressor` whose time is chosen by cross-validation.

    The candidates are 100 times, log-spaced from the first entry to ``t`` (default: 20 times the
    first entry) of the full data; every fold is read at these times. The time of least mean
    squared error on the held-out folds wins, the first of equals.

    Parameters
    ----------
    cv : int, splitter or iterable
        As in scikit-learn.
    D, nu, kappa, t, groups, revised, fit_intercept, normalize
        See :class:`SplitLBIRegressor`; t is the last candidate.

    Attributes
    ----------
    cv_t_ : ndarray (100,)
    cv_loss_ : ndarray (folds, 100)
        Half the mean squared error.
    coef_, intercept_, t_stop_, t_, coef_path_, ...
        See :class:`SplitLBIRegressor`.
    """

    def __init__(
        self,
        D=None,
        *,
        cv=5,
        nu=1.0,
        kappa=np.inf,
        t=None,
        groups=None,
        revised=True,
        fit_intercept=True,
        normalize=True,
    ):
        super().__init__(
            D,
            nu=nu,
            kappa=kappa,
            t=t,
            groups=groups,
            revised=revised,
            fit_intercept=fit_intercept,
            normalize=normalize,
        )
        self.cv = cv

    def _stopping_time(self, X, y, targets, times):
        return chosen_time(self, X, y, targets, times)


class SplitLBIClassifier(ClassifierMixin, _PathEstimator):
    """Sparse logistic regression along a differential inclusion path.

    More than two classes are fitted one against the rest: k binary paths, read at one common time.
    (The multinomial loss has no exact path and no split form here; it is offered by
    :func:`dslbi_ref.lbi.lbi_path`.)

    Parameters
    ----------
    D, nu, t, groups, revised, fit_intercept, normalize
        See :class:`SplitLBIRegressor`.
    kappa : float > 0
        Speed of gamma. Infinity: the exact path, without D only. It ends where its active columns
        separate the classes, and rests at the last finite coefficients, which may be zero.

    Attributes
    ----------
    classes_ : ndarray (k,)
    coef_ : ndarray (k, p), of shape (1, p) for two classes
    intercept_ : ndarray (k,) or (1,)
    t_stop_ : float
    t_ : ndarray (T,)
        Times of the path; exact: the events of all classes.
    coef_path_ : ndarray (T, k, p) or (T, 1, p)
    intercept_path_ : ndarray (T, k) or (T, 1)
    gamma_ : ndarray, one row for each row of coef_
        As in :class:`SplitLBIRegressor`.
    paths_ : list of dslbi_ref.path.Path
        One for each row of coef_.
    n_features_in_, feature_names_in_
    """

    def __init__(
        self,
        D=None,
        *,
        nu=1.0,
        kappa=10.0,
        t=None,
        groups=None,
        revised=True,
        fit_intercept=True,
        normalize=True,
    ):
        self.D = D
        self.nu = nu
        self.kappa = kappa
        self.t = t
        self.groups = groups
        self.revised = revised
        self.fit_intercept = fit_intercept
        self.normalize = normalize

    def fit(self, X, y):
        """Fit the paths to X (n, p) and the labels y (n,), and read the model at t_stop_."""
        X, y = validate_data(
            self, X, y, accept_sparse="csc", dtype=np.float64, ensure_min_samples=2
        )
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(f"y must hold at least two classes, got only {self.classes_[0]}")
        positive = self.classes_[1:] if len(self.classes_) == 2 else self.classes_
        targets = [np.where(y == c, 1.0, -1.0) for c in positive]
        fit = PathFit(self, X, "logistic")
        times = fit.times(targets)
        self.t_stop_ = self._stopping_time(X, y, targets, times)
        self.paths_ = [fit.path(target, times) for target in targets]
        self.t_ = reduce(np.union1d, [path.t for path in self.paths_])

        def read(times):
            parts = zip(*(fit.read(path, times) for path in self.paths_), strict=True)
            return [np.stack(part, axis=1) for part in parts]

        self.coef_path_, self.intercept_path_, _ = read(self.t_)
        coef, intercept, gamma = read(np.array([self.t_stop_]))
        self.coef_, self.intercept_, self.gamma_ = coef[0], intercept[0], gamma[0]
        return self

    def decision_function(self, X):
        """Return the linear predictors: (n,) for two classes, else (n, k)."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csc", dtype=np.float64, reset=False)
        eta = X @ self.coef_.T + self.intercept_
        return eta[:, 0] if len(self.classes_) == 2 else eta

    def predict_proba(self, X):
        """Return probabilities (n, k); of more than two classes the binary ones over their sum."""
        chance = expit(self.decision_function(X))
        if chance.ndim == 1:
            return np.stack([1 - chance, chance], axis=1)
        total = chance.sum(axis=1, keepdims=True)
        even = np.full_like(chance, 1 / len(self.classes_))  # where all of them underflow
        return np.divide(chance, total, out=even, where=total > 0)

    def predict(self, X):
        """Return the labels (n,) of the model at t_stop_."""
        eta = self.decision_function(X)
        return self.classes_[(eta > 0).astype(int) if eta.ndim == 1 else eta.argmax(axis=1)]


class SplitLBIClassifierCV(SplitLBIClassifier):
    """:class:`SplitLBIClassifier` whose time is chosen by cross-validation.

    As :class:`SplitLBIRegressorCV`, with stratified folds, and the logistic loss in place of the
    squared error (more than two classes: its mean over the binary problems).

    Parameters
    ----------
    cv : int, splitter or iterable
        As in scikit-learn.
    D, nu, kappa, t, groups, revised, fit_intercept, normalize
        See :class:`SplitLBIClassifier`; t is the last candidate.

    Attributes
    ----------
    cv_t_ : ndarray (100,)
    cv_loss_ : ndarray (folds, 100)
    classes_, coef_, intercept_, t_stop_, t_, coef_path_, ...
        See :class:`SplitLBIClassifier`.
    """

    def __init__(
        self,
        D=None,
        *,
        cv=5,
        nu=1.0,
        kappa=10.0,
        t=None,
        groups=None,
        revised=True,
        fit_intercept=True,
        normalize=True,
    ):
        super().__init__(
            D,
            nu=nu,
            kappa=kappa,
            t=t,
            groups=groups,
            revised=revised,
            fit_intercept=fit_intercept,
            normalize=normalize,
        )
        self.cv = cv

    def _stopping_time(self, X, y, targets, times):
        return chosen_time(self, X, y, targets, times)

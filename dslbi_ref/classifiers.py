"""Classifiers in scikit-learn's manner: :mod:`dslbi_ref.estimators` with the logistic loss."""

from functools import reduce

import numpy as np
from scipy.special import expit

from .estimators import PathEstimator, chosen_time
from .fitting import PathFit
from .optional import brought_by

with brought_by("estimators", "dslbi_ref.classifiers"):
    from sklearn.base import ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data


class SplitLBIClassifier(ClassifierMixin, PathEstimator):
    """Sparse logistic regression along a differential inclusion path.

    More than two classes are fitted one against the rest: k binary paths, read at one common time.
    (The multinomial loss has no split form here; :func:`dslbi_ref.lbi.lbi_path` and
    :func:`dslbi_ref.iss.iss_path` take it.)

    Parameters
    ----------
    D, nu, t, groups, revised, fit_intercept, normalize
        See :class:`dslbi_ref.estimators.SplitLBIRegressor`.
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
        As in :class:`dslbi_ref.estimators.SplitLBIRegressor`.
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

    As :class:`dslbi_ref.estimators.SplitLBIRegressorCV`, with stratified folds, and the logistic
    loss in place of the squared error (more than two classes: its mean over the binary problems).

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
        return chosen_time(self, X, y, targets, times, "logistic")

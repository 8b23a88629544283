"""Selectors in scikit-learn's manner: what a path says of halves, or of copies, decides.

This file, :mod:`dslbi_ref.estimators` and :mod:`dslbi_ref.classifiers` are the only ones of the
package that import scikit-learn.
"""

import numpy as np

from .checks import check_design, check_flag, check_transform
from .design import column_deviation
from .estimators import SplitLBIRegressor
from .knockoffs import split_knockoffs
from .optional import brought_by
from .stability import false_bound, first_entries, largest_first, stability_selection

with brought_by("estimators", "dslbi_ref.selectors"):
    from sklearn.base import BaseEstimator, clone, is_classifier
    from sklearn.feature_selection import SelectorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data


class _First:
    """What ``fit`` of :func:`stability_selection` is: the first entries of an estimator's path."""

    def __init__(self, estimator, first):
        self.estimator, self.first = estimator, first

    def __call__(self, X, y):
        fitted = clone(self.estimator).fit(X, y)
        paths = fitted.paths_ if is_classifier(fitted) else [fitted.path_]
        times = np.min([path.entry_times() for path in paths], axis=0)
        return first_entries(times, self.first)


class StabilitySelector(SelectorMixin, BaseEstimator):
    """Select the features that a path enters early on nearly every half of the data.

    Parameters
    ----------
    estimator : SplitLBIRegressor, SplitLBIClassifier, or None
        Without D, whose rows would not be features. Its path, which its ``t`` may end, is computed
        on every half (of several classes: the first entry of any). None: ``SplitLBIRegressor()``,
        exact inverse scale space.
    threshold : float in (1/2, 1]
        Share of the halves that must select a feature.
    expected : float > 0
        Number of false features that may be expected: how many entries of each path are looked at
        is the largest number that :func:`dslbi_ref.stability.false_bound` allows.
    first : int >= 1, optional
        That number itself; then ``expected`` is not read.
    assumption : "none", "unimodal" or "r-concave"
        See :func:`dslbi_ref.stability.false_bound`.
    pairs : int >= 1
        Number of complementary pairs of halves.
    n_jobs : int, optional
        Processes of joblib; default: none, in this process.
    random_state : int, RandomState or None

    Attributes
    ----------
    frequency_ : ndarray (p,)
        Share of the halves that select each feature.
    first_ : int
        Number of entries of each path that were looked at.
    bound_ : float
        Bound on the expected number of selected features of low probability, at ``first_``.
    n_features_in_, feature_names_in_

    Notes
    -----
    X may be sparse. Only the order of entry counts, so no stopping time is chosen, and a
    cross-validated estimator would be a waste.
    """

    def __init__(
        self,
        estimator=None,
        *,
        threshold=0.75,
        expected=1.0,
        first=None,
        assumption="unimodal",
        pairs=50,
        n_jobs=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.threshold = threshold
        self.expected = expected
        self.first = first
        self.assumption = assumption
        self.pairs = pairs
        self.n_jobs = n_jobs
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.required = True
        return tags

    def fit(self, X, y):
        """Compute the frequencies on halves of X (n, p) and y (n,)."""
        estimator = SplitLBIRegressor() if self.estimator is None else self.estimator
        if getattr(estimator, "D", self) is not None:
            raise ValueError(
                "estimator must be one of dslbi_ref.estimators or dslbi_ref.classifiers without D, "
                f"got {estimator!r}"
            )
        labels = is_classifier(estimator)
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            dtype=np.float64,
            ensure_min_samples=4,
            y_numeric=not labels,
        )
        if labels:
            check_classification_targets(y)
            y = np.unique(y, return_inverse=True)[1]
        p, options = X.shape[1], dict(pairs=self.pairs, assumption=self.assumption)
        if self.first is None:
            self.first_ = largest_first(p, self.threshold, self.expected, **options)
        else:
            self.first_ = self.first
        self.bound_ = false_bound(self.first_, p, self.threshold, **options)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        found = stability_selection(
            _First(estimator, self.first_),
            X,
            y,
            first=self.first_,
            pairs=self.pairs,
            seed=seed,
            n_jobs=self.n_jobs,
        )
        self.frequency_, self._stable = found.frequency, found.selected(self.threshold)
        return self

    def _get_support_mask(self):
        check_is_fitted(self)
        return self._stable


class SplitKnockoffSelector(SelectorMixin, BaseEstimator):
    """Select features, or rows of D, with a false discovery rate of at most q.

    Parameters
    ----------
    D : ndarray or scipy.sparse (m, p), callable ``p -> D``, or None
        The rows of D are what is tried; None: the features themselves.
    q : float in (0, 1)
    nu : float > 0, or None
        Coupling; None: by cross-validation, where the path comes from.
    part : float in (0, 1), or None
        Share of the samples that gives the path; the copies have the rest. None: all give both,
        and the rate is not proved.
    path : "iss" or "lasso"
    statistic : "s", "st", "bc", "bct" or None
        See :func:`dslbi_ref.knockoffs.split_knockoffs`.
    plus : bool
        Knockoff+, whose rate is proved, or knockoff, which names more.
    normalize : bool
        Without D: divide the columns of X by their standard deviation. With D the size of
        ``D beta`` counts, and X is left as it is: bring its columns to a common scale.
    random_state : int, RandomState or None

    Attributes
    ----------
    rows_ : bool array (m,)
        The rows of D that are named. ``get_support()`` are the features with an entry in one of
        them: without D the same.
    sign_ : ndarray (m,)
        Direction of each row; 0 where it never enters.
    W_ : ndarray (m,)
        Evidence for each row.
    threshold_ : float
        ``rows_`` is ``W_ >= threshold_``.
    nu_ : float
    n_features_in_, feature_names_in_

    Notes
    -----
    X is dense, and p + 2 samples are left for the copies. The model is a linear one with normal
    noise of one variance: labels of classes are not of that kind.
    """

    def __init__(
        self,
        D=None,
        *,
        q=0.2,
        nu=None,
        part=0.4,
        path="iss",
        statistic=None,
        plus=True,
        normalize=True,
        random_state=None,
    ):
        self.D = D
        self.q = q
        self.nu = nu
        self.part = part
        self.path = path
        self.statistic = statistic
        self.plus = plus
        self.normalize = normalize
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def fit(self, X, y):
        """Name the rows on X (n, p) and y (n,)."""
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2, y_numeric=True)
        X, p = check_design(X), X.shape[1]
        D = self.D(p) if callable(self.D) else self.D
        D = np.eye(p) if D is None else check_transform(D, p)
        if check_flag("normalize", self.normalize) and self.D is None:
            scale = column_deviation(X, True)
            X = X / np.where(scale > 0, scale, 1.0)
        found = split_knockoffs(
            X,
            y,
            D,
            q=self.q,
            nu=self.nu,
            part=self.part,
            path=self.path,
            statistic=self.statistic,
            plus=self.plus,
            seed=check_random_state(self.random_state).randint(2**31 - 1),
        )
        self.rows_, self.sign_, self.W_, self.threshold_, self.nu_ = found
        self._touched = np.asarray(abs(D[self.rows_]).sum(axis=0)).ravel() > 0
        return self

    def _get_support_mask(self):
        check_is_fitted(self)
        return self._touched

"""Selectors in scikit-learn's manner: which features to keep, by what a path says of halves.

This file and :mod:`dslbi_ref.estimators` are the only ones of the package that import scikit-learn.
"""

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.feature_selection import SelectorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from .estimators import SplitLBIRegressor
from .stability import false_bound, first_entries, largest_first, stability_selection


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
                f"estimator must be one of dslbi_ref.estimators without D, got {estimator!r}"
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

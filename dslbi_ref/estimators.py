"""Estimators in scikit-learn's manner: one path of models, read at one time.

==========  =====================================  ================================================
            kappa finite                           kappa infinite
==========  =====================================  ================================================
D is None   linearized Bregman iteration           exact inverse scale space
D given     Split LBI                              exact Split inverse scale space (squared loss)
==========  =====================================  ================================================

A path has as many models as times. ``t`` names one; the CV forms choose it by cross-validation,
every fold on the same times. Short times are sparse, long ones fit the data.

This file, :mod:`dslbi_ref.classifiers` and :mod:`dslbi_ref.selectors` are the only ones of the
package that import scikit-learn.
"""

import numpy as np

from .fitting import PathFit
from .losses import curved_loss, huber
from .optional import brought_by
from .stopping import held_out_losses

with brought_by("estimators", "dslbi_ref.estimators"):
    from sklearn.base import BaseEstimator, RegressorMixin, is_classifier
    from sklearn.model_selection import check_cv
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data


def chosen_time(est, X, y, targets, times, loss, sample_weight=None):
    """Return the time of least loss on the held-out folds; set ``cv_t_`` and ``cv_loss_``."""
    splits = list(check_cv(est.cv, y, classifier=is_classifier(est)).split(X, y))

    def fit(X, target, weights=None):
        return PathFit(est, X, loss, weights).path(target, times)

    options = dict(loss=loss, rest=True, sample_weight=sample_weight)
    losses = [held_out_losses(fit, X, target, times, splits, **options) for target in targets]
    est.cv_t_, est.cv_loss_ = times, np.mean(losses, axis=0)
    return float(times[est.cv_loss_.mean(axis=0).argmin()])


class PathEstimator(BaseEstimator):
    """What all estimators share: X may be sparse, and the model is read at the last time."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _stopping_time(self, X, y, targets, times, *weights):
        return float(times[-1])


class SplitLBIRegressor(RegressorMixin, PathEstimator):
    """Sparse linear regression along a differential inclusion path.

    The loss is ``|y - X beta - b|^2 / (2n)``, or another one. Without D the coefficients themselves
    become sparse, with D their image ``D beta``: jumps of a signal, edges of an image, differences
    of neighbours.

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

    loss : "squared", "huber" or "poisson"
        A word of ``dslbi_ref.losses.LOSSES`` with one predictor. Counts (Poisson) are predicted by
        their expectation ``exp(X coef_ + intercept_)``. With D and a loss that is not squared kappa
        is finite.
    delta : float > 0
        Of the Huber loss: the residual beyond which it is linear, in the units of y.
    penalty_factors : ndarray (p,), or (m,) with D, at least 0, or None
        What each coefficient (each row of D) counts in the penalty; 0: it is never penalised.
    positive : bool
        No coefficient (no entry of gamma) with a penalty is negative.

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
        loss="squared",
        delta=1.35,
        penalty_factors=None,
        positive=False,
    ):
        self.D = D
        self.nu = nu
        self.kappa = kappa
        self.t = t
        self.groups = groups
        self.revised = revised
        self.fit_intercept = fit_intercept
        self.normalize = normalize
        self.loss = loss
        self.delta = delta
        self.penalty_factors = penalty_factors
        self.positive = positive

    def _row(self):
        """Return the loss as a row of its table."""
        row = curved_loss(self.loss, classes=False)
        return huber(self.delta) if self.loss == "huber" else row

    def fit(self, X, y, sample_weight=None):
        """Fit the path to X (n, p) and y (n,), and read the model at t_stop_.

        ``sample_weight`` (n,) is at least 0; a weight of 0 leaves the row out.
        """
        X, y = validate_data(
            self, X, y, accept_sparse="csc", dtype=np.float64, ensure_min_samples=2, y_numeric=True
        )
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
            if sample_weight.min() < 0:
                raise ValueError(f"sample_weight must be at least 0, got {sample_weight.min():g}")
        fit = PathFit(self, X, self._row(), sample_weight)
        times = fit.times([y])
        self.t_stop_ = self._stopping_time(X, y, [y], times, sample_weight)
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
        return self._row().mean(X @ self.coef_ + self.intercept_)


class SplitLBIRegressorCV(SplitLBIRegressor):
    """:class:`SplitLBIRegressor` whose time is chosen by cross-validation.

    The candidates are 100 times, log-spaced from the first entry to ``t`` (default: 20 times the
    first entry) of the full data; every fold is read at these times. The time of least loss
    on the held-out folds wins, the first of equals.

    Parameters
    ----------
    cv : int, splitter or iterable
        As in scikit-learn.
    D, nu, kappa, t, groups, revised, fit_intercept, normalize
        See :class:`SplitLBIRegressor`; t is the last candidate.
    loss, delta, penalty_factors, positive
        See :class:`SplitLBIRegressor`.

    Attributes
    ----------
    cv_t_ : ndarray (100,)
    cv_loss_ : ndarray (folds, 100)
        The loss: half the mean squared error, if squared.
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
        loss="squared",
        delta=1.35,
        penalty_factors=None,
        positive=False,
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
            loss=loss,
            delta=delta,
            penalty_factors=penalty_factors,
            positive=positive,
        )
        self.cv = cv

    def _stopping_time(self, X, y, targets, times, sample_weight):
        return chosen_time(self, X, y, targets, times, self._row(), sample_weight)

"""From the parameters of an estimator to its path: which solver, at which times, read how."""

import numpy as np
import scipy.sparse as sp

from .checks import check_design, check_flag, check_number, check_transform
from .design import column_deviation, column_means
from .iss import iss_path
from .lbi import lbi_path, lbi_states
from .losses import loss_named
from .solvers.projections import revise
from .split_iss import split_iss_path
from .split_lbi import split_lbi_path, split_lbi_states
from .weighting import check_weights

N_TIMES = 100


class PathFit:
    """The paths that an estimator fits to X, one for each target.

    Parameters
    ----------
    est : estimator
        Its parameters are read: D, nu, kappa, t, groups, revised, fit_intercept, normalize, and
        penalty_factors and positive if it has them.
    X : ndarray or scipy.sparse, (n, p)
    loss : str or Loss
    sample_weight : ndarray (n,), at least 0, optional
        A row of weight 0 is left out.
    """

    def __init__(self, est, X, loss, sample_weight=None):
        X, kappa, p = check_design(X), check_number("kappa", est.kappa), X.shape[1]
        for name in ("revised", "fit_intercept", "normalize"):
            check_flag(name, getattr(est, name))
        exact = kappa == np.inf
        if not kappa > 0:
            raise ValueError(f"kappa must be positive, got {est.kappa}")
        if est.t is not None and not 0 < check_number("t", est.t) < np.inf:
            raise ValueError(f"t must be None, or positive and finite, got {est.t}")
        if exact and est.groups is not None:
            raise ValueError("kappa must be finite with groups, got inf")
        if exact and est.D is not None and not loss_named(loss).quadratic:
            raise ValueError("kappa must be finite for a loss that is not squared with D, got inf")
        self.est, self.loss, self.exact, self.D = est, loss, exact, est.D
        self.rows = slice(None)
        if sample_weight is not None:
            self.rows = np.flatnonzero(sample_weight)
            X = sp.csc_array(X.tocsr()[self.rows]) if sp.issparse(X) else X[self.rows]
            sample_weight = sample_weight[self.rows]
        weights = check_weights(sample_weight, X.shape[0])
        self.options = dict(
            sample_weight=weights,
            intercept=est.fit_intercept,
            penalty_factors=getattr(est, "penalty_factors", None),
            positive=getattr(est, "positive", False),
        )
        self.means = column_means(X, weights) if est.fit_intercept else np.zeros(p)
        self.scale = np.ones(p)
        if self.D is None and est.normalize:
            scale = column_deviation(X, est.fit_intercept, weights)
            self.scale = np.where(scale > 0, scale, 1.0)
            X = X @ sp.diags_array(1 / self.scale) if sp.issparse(X) else X / self.scale
        self.X = X
        if callable(self.D):
            self.D = check_transform(self.D(p), p)

    def times(self, targets):
        """Return times, log-spaced from the first entry of any target to t or 20 times the last."""
        options = dict(self.options, loss=self.loss, groups=self.est.groups)
        entries = []
        for y in (target[self.rows] for target in targets):
            if self.D is None:  # the first entry does not depend on kappa
                states = lbi_states(self.X, y, kappa=1.0, **options)
            else:
                states = split_lbi_states(self.X, y, self.D, nu=self.est.nu, kappa=1.0, **options)
            next(states)
            first = next(states)
            if first.t < np.inf:  # else the gradient is zero
                entries.append(first.t)
        t = self.est.t
        if not entries or (t is not None and t <= min(entries)):
            return np.array([0.0 if t is None else t])
        return np.geomspace(min(entries), 20 * max(entries) if t is None else t, N_TIMES)

    def path(self, y, times):
        """Return the path of one target: at ``times``, or if exact up to the last of them."""
        y, t_max = y[self.rows], times[-1] or 1.0  # the only time is 0: nothing enters, ever
        path = self._plain(y, times, t_max) if self.D is None else self._split(y, times, t_max)
        return path.changed(centre=self.means if self.est.fit_intercept else None)

    def _plain(self, y, times, t_max):
        est, options = self.est, dict(self.options, loss=self.loss)
        if self.exact:
            path = iss_path(self.X, y, t_max=t_max, **options)
        else:
            path = lbi_path(self.X, y, times=times, kappa=est.kappa, groups=est.groups, **options)
        return path.changed(gamma=vars(path)["gamma"] / self.scale, scale=1 / self.scale)

    def _split(self, y, times, t_max):
        est, options = self.est, dict(self.options, nu=self.est.nu)
        if self.exact:
            path = split_iss_path(self.X, y, self.D, t_max=t_max, **options)
        else:
            finite = dict(times=times, kappa=est.kappa, groups=est.groups, loss=self.loss)
            path = split_lbi_path(self.X, y, self.D, **finite, **options)
        level = path.intercept + path.beta @ self.means if est.fit_intercept else 0.0
        beta = path.beta
        if est.revised:  # an exact path has no tilde of its own
            beta = revise(self.D, beta, path.gamma) if path.tilde is None else path.tilde
        return path.changed(beta=beta, tilde=None, intercept=level - beta @ self.means)

    def read(self, path, times):
        """Return coefficients (T, p), intercepts (T,), gamma at the times; an ended path rests."""
        point = path.at(np.clip(times, path.t[0], path.t[-1]))
        coef = point.gamma if self.D is None else point.beta
        b = np.zeros(len(coef)) if point.intercept is None else point.intercept
        return coef, b, point.gamma

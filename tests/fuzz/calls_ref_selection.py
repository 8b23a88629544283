"""Valid calls of the reference: selection with an error rate, by knockoffs and by stability."""

import numpy as np
import vectors
from fuzz.calls_ref_paths import SIGNS, X, given, y
from fuzz.mutate import Call

from dslbi_ref import classical_knockoffs, iss, knockoff_filter, knockoffs, losses, stability
from dslbi_ref.selectors import SplitKnockoffSelector, StabilitySelector
from dslbi_ref.transforms import differences

# Steps of one selection, which begins with its checks.
INNER_NAMES = {
    *(
        f"classical_knockoffs.{name}"
        for name in ("fixed_copy", "gaussian_copy", "paired_selection")
    ),
    *(
        f"knockoff_filter.{name}"
        for name in ("check_rate", "exact_clocks", "levels", "selection_of")
    ),
    *(f"knockoffs.{name}" for name in ("checked_data", "independent", "orthogonal_directions")),
    "knockoffs.own_stream",
    "knockoffs.split_race",
    "split_iss.split_quadratic",
    "losses.one_predictor",
    "solvers.lasso_path.lasso_path",
    "stability.check_threshold",
    "stability.first_entries",
    "stability.r_concave_tail",
}
LONG, target = vectors.array((30, 4), 7), vectors.array(30, 8)
D = differences(4).toarray()
KNOCKOFFS = dict(X=LONG, y=target, q=0.4, plus=True, seed=0)
CLOCK = np.cumsum(np.abs(vectors.array((5, 3), 3)), axis=0)
BOUND = dict(p=20, threshold=0.8, pairs=50, assumption="unimodal")


def chosen(estimator, X, y, **options):
    return StabilitySelector(estimator, random_state=0, **options).fit(X, y).frequency_


def rows_named(X, y, **options):
    return SplitKnockoffSelector(random_state=0, **options).fit(X, y).W_


def huber_parts(delta):
    row = losses.huber(delta)
    return row.value(X[:, 0], y), row.gradient(X[:, 0], y), row.curvature(X[:, 0], y)


def named(function):
    def selected(**given):
        found = function(**given)
        return found.selected, found.W

    return selected


CALLS = {
    "losses.huber": Call(huber_parts, given(delta=1.0)),
    "knockoffs.split_copy": Call(knockoffs.split_copy, given(X=LONG, D=D, nu=1.0, seed=0)),
    "knockoffs.split_clocks": Call(
        knockoffs.split_clocks, given(X=LONG, y=target, D=D, nu=1.0, path="iss")
    ),
    "knockoffs.chosen_nu": Call(
        knockoffs.chosen_nu, given(X=LONG, y=target, D=D, nus=(1.0, 10.0), folds=2)
    ),
    "knockoffs.split_knockoffs": Call(
        named(knockoffs.split_knockoffs),
        given(D=D, nu=2.0, part=0.4, path="iss", statistic=None, **KNOCKOFFS),
    ),
    "classical_knockoffs.fixed_knockoffs": Call(
        named(classical_knockoffs.fixed_knockoffs), given(D=D, path="iss", **KNOCKOFFS)
    ),
    "classical_knockoffs.gaussian_knockoffs": Call(
        named(classical_knockoffs.gaussian_knockoffs),
        given(mean=None, cov=np.eye(4), path="iss", **KNOCKOFFS),
    ),
    "knockoff_filter.knockoff_statistics": Call(
        knockoff_filter.knockoff_statistics,
        given(t=np.arange(5.0), clock=CLOCK, zeta=np.ones(3), statistic="st"),
    ),
    "knockoff_filter.knockoff_threshold": Call(
        knockoff_filter.knockoff_threshold, given(W=y, q=0.2, plus=True), infinite=True
    ),
    "stability.half_samples": Call(
        stability.half_samples, given(n=10, pairs=2, complementary=True, seed=0)
    ),
    "stability.stability_selection": Call(
        stability.stability_selection,
        given(
            fit=iss.iss_path,
            X=X,
            y=y,
            first=2,
            pairs=2,
            complementary=True,
            seed=0,
        ),
    ),
    "stability.false_bound": Call(stability.false_bound, given(first=2.0, **BOUND), infinite=True),
    "stability.largest_first": Call(stability.largest_first, given(expected=2.0, **BOUND)),
    "selectors.StabilitySelector": Call(
        chosen,
        given(
            estimator=None,
            threshold=0.75,
            expected=1.0,
            first=2,
            assumption="unimodal",
            pairs=2,
            X=X,
            y=SIGNS,
        ),
        foreign="sklearn",
    ),
    "selectors.SplitKnockoffSelector": Call(
        rows_named,
        given(
            D=None,
            nu=2.0,
            part=0.4,
            path="iss",
            statistic=None,
            normalize=True,
            q=0.4,
            plus=True,
            X=LONG,
            y=target,
        ),
        foreign="sklearn",
        says=("copy",),
    ),
}

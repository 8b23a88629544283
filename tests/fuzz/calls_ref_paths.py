"""Valid calls of the reference: paths, what is said about them, estimators."""

import numpy as np
import vectors
from fuzz.mutate import Call

from dslbi_ref import (
    classifiers,
    estimators,
    graphical,
    iss,
    lbi,
    path,
    shrinkage,
    split_iss,
    split_lbi,
    stopping,
    theory,
    transforms,
)
from dslbi_ref.solvers import projections, reduced

X, y = vectors.array((10, 4), 0), vectors.array(10, 1)
SIGNS, CLASSES = np.where(y > 0, 1.0, -1.0), np.arange(10) % 3
D = transforms.differences(4).toarray()
W = {"a": vectors.array((4, 3), 2), "b": vectors.array((4, 2), 3)}
PATH = lbi.lbi_path(X, y, kappa=2.0)
SPLIT = split_lbi.split_lbi_path(X, y, D, kappa=2.0, nu=1.0)
SPINS, rng = vectors.spins(20, 4), np.random.default_rng


def states_of(function, n=3):
    return lambda **given: path.record(function(**given), n)


def given(**arguments):
    """Fresh arguments: arrays are copies, so that no call changes those of the next."""

    def fresh(x):
        if isinstance(x, dict):
            return {key: fresh(value) for key, value in x.items()}
        return x.copy() if isinstance(x, np.ndarray) else x

    return lambda: fresh(arguments)


# ---- Checks of results -----------------------------------------------------------------------


def close(a, b, tolerance=1e-9):
    scale = max(np.abs(b).max(initial=0.0), 1e-300)
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale)


def is_shrunk(found, _):
    """gamma is that of z, at every time."""
    for z, gamma in zip(found.z, found.gamma, strict=True):
        options = dict(lam=found.lam, groups=found.groups, scale=found.scale)
        options |= dict(factors=found.factors, positive=found.positive)
        close(gamma, shrinkage.shrink(z, kappa=found.kappa, **options))


def is_subgradient(found, _):
    """rho is a sub-gradient of the l1 norm with its factors at gamma."""
    w = np.ones(found.z.shape[1]) if found.factors is None else found.factors
    assert (found.z <= w * (1 + 1e-9)).all() and (
        found.positive or (-found.z <= w * (1 + 1e-9)).all()
    )
    on = (found.gamma != 0) & (w > 0)
    close(found.z[on], (w * np.sign(found.gamma))[on])


# ---- The table -------------------------------------------------------------------------------

LBI = dict(X=X, y=y, kappa=2.0, alpha=None, lam=1.0, loss="squared", groups=None, intercept=False)
REDUCED = {key: value for key, value in LBI.items() if key != "loss"} | dict(D=D, nu=1.0)
WEIGHTS = dict(sample_weight=1.0 + np.arange(10) % 3, offset=vectors.array(10, 2), positive=False)
LBI |= WEIGHTS | dict(penalty_factors=np.array([1.0, 0.5, 2.0, 0.0]))
DATA = {name: LBI[name] for name in ("X", "y", "penalty_factors", *WEIGHTS)}
SPLIT_WEIGHTS = WEIGHTS | dict(penalty_factors=np.array([1.0, 0.0, 2.0]))
SPLIT_LBI = LBI | dict(D=D, nu=1.0, start="minimiser") | SPLIT_WEIGHTS
ESTIMATOR = dict(D=None, nu=1.0, kappa=np.inf, t=None, groups=None, revised=True)
ESTIMATOR |= dict(fit_intercept=True, normalize=True, X=X)
REGRESSOR = dict(y=y, loss="squared", delta=1.35, positive=False)
REGRESSOR |= dict(penalty_factors=np.array([1.0, 0.5, 2.0, 0.0]))
CLASSIFIER = dict(y=SIGNS, kappa=2.0, t=4.0)


def fitted(make):
    """Fit, and return what was fitted and predicted."""

    def function(X, y, **options):
        est = make(**options).fit(X, y)
        return est.coef_, est.intercept_, est.predict(X)

    return function


def path_parts(at, truth, **given):
    made = path.Path(**given)
    return made.at(at), made.support(at), np.isnan(made.entry_times()), made.auc(truth)


CALLS = {
    # paths
    "lbi.lbi_states": Call(states_of(lbi.lbi_states), given(**LBI), infinite=True),
    "lbi.lbi_path": Call(
        lbi.lbi_path, given(times=np.array([0.5, 3.0, 6.0]), normalize=False, **LBI), is_shrunk
    ),
    "split_lbi.split_lbi_states": Call(
        states_of(split_lbi.split_lbi_states), given(**SPLIT_LBI), infinite=True
    ),
    "split_lbi.split_lbi_path": Call(
        split_lbi.split_lbi_path, given(times=np.array([0.5, 3.0, 6.0]), **SPLIT_LBI), is_shrunk
    ),
    "solvers.reduced.split_reduced_states": Call(
        states_of(reduced.split_reduced_states), given(**REDUCED), infinite=True
    ),
    "solvers.reduced.split_reduced_path": Call(
        reduced.split_reduced_path, given(times=np.array([0.5, 1.0]), **REDUCED), is_shrunk
    ),
    "iss.iss_states": Call(
        lambda H, c: list(iss.iss_states(H, c))[-1].gamma, given(H=X.T @ X, c=X.T @ y)
    ),
    "iss.iss_path": Call(
        iss.iss_path,
        given(**DATA, t_max=None, loss="squared", intercept=True, normalize=True),
        is_subgradient,
    ),
    "split_iss.split_iss_path": Call(
        split_iss.split_iss_path,
        given(X=X, y=y, D=D, nu=1.0, t_max=None, intercept=True, **SPLIT_WEIGHTS),
        is_subgradient,
    ),
    "graphical.ising_path": Call(
        graphical.ising_path, given(X=SPINS, kappa=2.0, alpha=None, lam=1.0, times=None), is_shrunk
    ),
    "graphical.gaussian_path": Call(
        graphical.gaussian_path, given(X=X, kappa=0.5, alpha=None, lam=1.0, times=None), is_shrunk
    ),
    "graphical.symmetric": Call(graphical.symmetric, given(theta=np.ones(6), p=4)),
    "graphical.pairs": Call(graphical.pairs, given(G=np.ones((4, 4)))),
    "graphical.ising_loss": Call(
        graphical.ising_loss, given(theta=np.ones(6), field=np.ones(4), X=SPINS)
    ),
    "graphical.ising_gradient": Call(
        graphical.ising_gradient, given(theta=np.ones(6), field=np.ones(4), X=SPINS)
    ),
    "graphical.precision": Call(graphical.precision, given(theta=np.ones(6), S=np.eye(4))),
    "graphical.gaussian_loss": Call(graphical.gaussian_loss, given(theta=np.ones(6), S=np.eye(4))),
    "graphical.gaussian_gradient": Call(
        graphical.gaussian_gradient, given(theta=np.ones(6), S=np.eye(4))
    ),
    # what is said about a path
    "path.record": Call(
        lambda states, **given: path.record(
            lbi.lbi_states(X, y, kappa=1.0) if states is X else states, **given
        ),
        lambda: dict(states=X, n_steps=3, every=1),
    ),
    "path.Path": Call(
        path_parts,
        given(
            at=3.0,
            truth=np.array([1, 1, 0, 0]),
            t=PATH.t,
            z=PATH.z,
            gamma=PATH.gamma,
            kappa=2.0,
            groups=None,
            kind="linear",
        ),
        says=("t",),
    ),
    "theory.step_bound": Call(theory.step_bound, given(L=1.0, kappa=1.0, nu=2.0, D_norm=1.0)),
    "theory.lyapunov": Call(
        theory.lyapunov,
        given(
            loss=1.0,
            W=W,
            Gamma=W,
            V_old=W,
            Gamma_old=W,
            alpha=0.1,
            kappa=1.0,
            nu=1.0,
            penalty=lambda name, G: np.abs(G).sum(),
        ),
    ),
    "theory.telescoping_residual": Call(
        theory.telescoping_residual, given(W0=X, V0=X, W=X, V=X, sum_alpha_u=X, kappa=1.0)
    ),
    "theory.path_length": Call(
        lambda a, b: theory.path_length(a, b), given(a=X, b={"a": X}), says=("parts",)
    ),
    "theory.irrepresentable": Call(
        theory.irrepresentable, given(X=X, support=np.array([1.0, 0, 0, 0]))
    ),
    "theory.split_irrepresentable": Call(
        theory.split_irrepresentable, given(X=X, D=D, support=np.array([1.0, 0, 0]), nu=1.0)
    ),
    "theory.genlasso_conditions": Call(
        theory.genlasso_conditions, given(X=X, D=D, signs=np.array([1.0, 0, 0]))
    ),
    "theory.stopping_time": Call(
        theory.stopping_time,
        given(X=np.linalg.qr(X)[0], support=np.array([1.0, 0, 0, 0]), sigma=1.0),
    ),
    "stopping.path_losses": Call(
        stopping.path_losses,
        given(
            path=SPLIT, X=X, y=y, times=np.array([0.5, 1.0]), loss="squared", part=None, rest=False
        ),
        infinite=True,
    ),
    "stopping.discrepancy_time": Call(
        stopping.discrepancy_time, given(path=PATH, X=X, y=y, sigma=1.0, part=None), infinite=True
    ),
    "stopping.held_out_losses": Call(
        stopping.held_out_losses,
        given(
            fit=iss.iss_path,
            X=X,
            y=y,
            times=np.array([0.5, 1.0]),
            splits=[(np.arange(8), np.arange(8, 10)), (np.arange(2, 10), np.arange(2))],
        ),
        infinite=True,
    ),
    "stopping.cross_validate": Call(
        stopping.cross_validate,
        given(
            fit=iss.iss_path,
            X=X,
            y=y,
            times=np.array([0.5, 1.0]),
            folds=2,
            loss="squared",
            part=None,
        ),
        infinite=True,
    ),
    "transforms.identity": Call(transforms.identity, given(p=4)),
    "transforms.differences": Call(transforms.differences, given(p=4)),
    "transforms.trend": Call(transforms.trend, given(p=6, order=1)),
    "transforms.grid": Call(transforms.grid, given(shape=(3, 4))),
    "transforms.graph": Call(
        transforms.graph, given(edges=vectors.edges(5, 6), n_nodes=5, weights=np.ones(6))
    ),
    "solvers.projections.kernel_projector": Call(
        lambda D, beta, inactive: projections.kernel_projector(D)(beta, inactive),
        given(D=D, beta=y[:4], inactive=np.array([1, 0, 1])),
    ),
    "solvers.projections.revise": Call(
        projections.revise, given(D=D, beta=X, gamma=(X @ D.T) * (X[:, :3] > 0))
    ),
    # estimators
    **{
        f"{module.__name__.removeprefix('dslbi_ref.')}.{name}": Call(
            fitted(getattr(module, name)),
            given(**ESTIMATOR | own),
            foreign="sklearn",
            says=("splits",),
        )
        for module, name, own in (
            (estimators, "SplitLBIRegressor", REGRESSOR | dict(kappa=np.float64(np.inf))),
            (estimators, "SplitLBIRegressorCV", REGRESSOR | dict(cv=2)),
            (classifiers, "SplitLBIClassifier", CLASSIFIER),
            (classifiers, "SplitLBIClassifierCV", CLASSIFIER | dict(cv=2)),
        )
    },
}

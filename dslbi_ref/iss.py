"""Inverse scale space (Burger, Gilboa, Osher, Xu 2006), solved exactly from event to event.

For a convex smooth loss f the inverse scale space is the differential inclusion

    d rho / dt = -grad f(g(t)),    rho(t) in the sub-differential of |g(t)|_1,    rho(0) = g(0) = 0.

While no rho reaches -1 or 1, g rests at the minimiser of f under the signs of rho, the gradient is
constant there, and rho is linear in t. So the path has finitely many breakpoints: the next one
solves one division per index, and one minimisation (Burger, Moeller, Benning, Osher 2013). For
``f(g) = g'Hg / 2 - c'g`` the flow is ``c - H g``; linear regression has ``H = X'X / n`` and
``c = X'y / n``, Split LBI at kappa = infinity has another H (:mod:`dslbi_ref.split_iss`).

Origin: the lasso at lambda = 1/t has ``rho / t = -grad f``. With the squared loss it is the time
average of g, until an index leaves; g itself is free of the shrinkage.
"""

from typing import NamedTuple

import numpy as np

from .checks import check_array, check_number, check_scale
from .losses import curved_loss
from .path import TIME_TOLERANCE, Path
from .problem import linear_problem
from .solvers.active_newton import Smooth
from .solvers.active_set import Products, Quadratic
from .solvers.gram import linear_dual, linear_gram
from .solvers.packed import MANY, Events


class ISSState(NamedTuple):
    """The path from the event at t until the next one: gamma and flow are constant, z is linear.

    ``z`` is rho at t, ``flow`` its time derivative, ``until`` the time of the next event; infinity
    where the path ends, and ``end`` says why.
    """

    t: float
    z: np.ndarray
    gamma: np.ndarray
    intercept: float | None
    flow: np.ndarray
    until: float
    end: str


def iss_states(H, c, *, positive=False):
    """Generate the inverse scale space of ``g'Hg / 2 - c'g``, event by event, to its end.

    Parameters
    ----------
    H : ndarray (p, p), callable, or :class:`dslbi_ref.solvers.active_set.Products`
        Symmetric and positive semi-definite. ``H(J)`` returns the rows J, shape (len(J), p): no row
        is asked for twice, and only those that are needed, with a few that could be.
    c : ndarray (p,)
        In the range of H.
    positive : bool
        No entry of g is negative: only a rho of 1 is at the boundary.

    Yields
    ------
    ISSState
        At t = 0, and at each event.

    Notes
    -----
    The flow is computed from g at each event, so its rounding errors add up in rho and do not
    compound. Indices that reach the boundary within a relative 1e-12 of each other form one event.
    A column that depends on the active ones (a duplicate) stays out, its rho at the boundary.
    """
    c = check_array("c", c)
    if c.ndim != 1 or c.size == 0:
        raise ValueError(f"c must be a non-empty 1-d array, got shape {c.shape}")
    if not (callable(H) or isinstance(H, Products)):
        H = check_array("H", H, (c.size, c.size))
        check_scale("H", H)
    return events(Quadratic(H, c, positive), positive)


def events(fit, positive=False):
    """Generate the events of the flow of a loss; ``fit`` minimises it under the signs of rho."""
    flow = fit.start()
    t, rho, g = 0.0, np.zeros_like(flow), fit.coefficients()
    end = "nothing enters any more" if positive else "the gradient is zero"
    while True:
        sign = np.copysign(1.0, flow)
        with np.errstate(divide="ignore", invalid="ignore"):
            wait = (sign - rho) / flow
        wait[(flow <= 0) if positive else (flow == 0)] = np.inf
        step = wait.min()
        if step == np.inf:
            yield ISSState(t, rho, g, fit.intercept, flow, np.inf, f"saturated: {end}")
            return
        yield ISSState(t, rho, g, fit.intercept, flow, t + step, "")
        t = t + step
        hit = (wait <= step + TIME_TOLERANCE * t).nonzero()[0]
        rho = rho + step * flow  # (iss-flow)
        rho[hit] = sign[hit]
        moved = fit.enter(rho, flow, wait)
        if moved is None:
            end = f"separable: the loss falls for ever along the active columns from t = {t:.6g} on"
            yield ISSState(t, rho, g, fit.intercept, np.zeros_like(flow), np.inf, end)
            return
        g, flow = moved


def collect(states, t_max, dual=None):
    """Record the events up to t_max (None: 20 t0) as a Path, whose last time is t_max if finite.

    With ``dual`` it is packed: see :class:`dslbi_ref.solvers.packed.Events`.
    """
    if t_max is not None:
        t_max = check_number("t_max", t_max)
        if not t_max > 0:
            raise ValueError(f"t_max must be positive, got {t_max}")
    events = Events(dual)
    for state in states:
        t_max = 20 * state.until if t_max is None else t_max
        t = min(state.t, t_max)
        events.keep(t, state.z, state.gamma, state.intercept)
        if state.until > t_max * (1 + TIME_TOLERANCE):
            break
    if t < t_max < np.inf and not state.end.startswith("separable"):
        z = state.z + (t_max - state.t) * state.flow
        events.keep(t_max, z, state.gamma, state.intercept)
    t, z, gamma, intercept = events.parts(len(state.gamma))
    return Path(
        t=t,
        z=z,
        gamma=gamma,
        intercept=intercept,
        kappa=np.inf,
        kind="step",
        stop_reason=state.end or "t_max reached",
    )


def iss_path(
    X,
    y,
    *,
    t_max=None,
    loss="squared",
    intercept=False,
    normalize=False,
    sample_weight=None,
    offset=None,
    penalty_factors=None,
    positive=False,
):
    """Compute the exact inverse scale space of a linear model, by events.

    With the squared loss a coefficient enters unshrunk: while the support is S, the path rests at
    the least squares fit on S (under the signs of rho). It ends where the gradient is zero: at
    least squares, or for p > n at an interpolator.

    Parameters
    ----------
    X : ndarray or scipy.sparse, (n, p)
    y : ndarray (n,)
        As the loss needs it; see :mod:`dslbi_ref.losses`.
    t_max : float > 0, optional
        Last time; default 20 t0, with t0 the time of the first event; infinity: until the gradient
        is zero.
    loss : str or Loss
        A word of ``dslbi_ref.losses.LOSSES``, or a row, with a curvature.
    intercept : bool
        Fit an intercept that is not penalised.
    normalize : bool
        Scale the columns of X to ``sqrt(n)`` (about their means, with an intercept) for the path;
        coefficients are those of the columns as given.
    sample_weight, offset, penalty_factors, positive
        As in :func:`dslbi_ref.lbi.lbi_path`: ``|z_j|`` is at most the factor of the penalty, which
        is the same as a path of the columns over their factors.

    Returns
    -------
    Path
        Of kind "step": t holds 0, the events, and t_max; gamma[k] holds on [t[k], t[k+1]). Its
        ``stop_reason`` begins with "t_max reached", "saturated" (the gradient is zero, gamma holds
        for ever; with ``positive``: nothing enters any more) or "separable" (the active columns
        separate the classes, or rows of count 0: no finite minimiser exists from the last time on;
        gamma holds before it). ``gamma``, (T, p), is (T, p, k) for the multinomial loss.

    Raises
    ------
    ValueError
        Shapes do not match, an entry is not finite, t_max is not positive, the loss is unknown, y
        is not in {-1, +1} or of one class (logistic), a column is constant (``normalize``).

    Notes
    -----
    Costs O(p s) for each event with s active columns, and O(n p) for each column that becomes
    active; no (p, p) matrix is formed. Osher, Ruan, Xiong, Yao and Yin (2016) solve a non-negative
    least squares problem from scratch at each event; here it starts from the last solution.

    A dense X of more than 2^24 entries is never copied: float32, or a np.memmap, is read a block at
    a time. For p > 20,000 nothing of size p is kept of an event, and each costs a product with X
    (but for the multinomial loss).
    """
    problem = linear_problem(
        X,
        y,
        loss=curved_loss(loss),
        intercept=intercept,
        normalize=normalize,
        blocks=True,
        sample_weight=sample_weight,
        offset=offset,
        penalty_factors=penalty_factors,
        positive=positive,
    )
    p, k = problem.design.X.shape[1], problem.loss.columns(problem.y)
    packed = p > MANY and not k and problem.factors is None
    if problem.loss.quadratic and not problem.free.size:
        c = problem.over_factors(problem.correlation())
        fit = Quadratic(linear_gram(problem, packed), c, positive)
    else:
        fit = Smooth(problem)
    path = collect(events(fit, positive), t_max, linear_dual(problem) if packed else None)
    z, gamma = vars(path)["z"], vars(path)["gamma"]
    if k:
        z, gamma = (rows.reshape(-1, p, *k) for rows in (z, gamma))
    if problem.factors is not None:
        w = np.where(problem.factors > 0, problem.factors, 1.0).reshape(-1, *(1 for _ in k))
        z, gamma = z * w, gamma / w
    factor = None
    if problem.scale is not None:
        factor = 1 / problem.scale
        gamma = gamma / problem.scale.reshape(-1, *(1 for _ in k))
    # The level of a quadratic loss rests where it begins.
    levels = problem.level if path.intercept is None else path.intercept
    return path.changed(
        z=z,
        gamma=gamma,
        scale=factor,
        intercept=problem.at_origin(levels, gamma),
        factors=problem.factors,
        positive=problem.positive,
    )

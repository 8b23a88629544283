"""Mirror maps against their definitions; the iteration against bounds, closed forms and scipy."""

from itertools import islice

import numpy as np
import pytest
import vectors
from scipy.optimize import linprog, root

from dslbi_ref.lbi import lbi_states
from dslbi_ref.losses import LOSSES
from dslbi_ref.mirror_descent import (
    dual_averaging_states,
    mirror_descent_states,
    mirror_flow,
)
from dslbi_ref.mirror_maps import (
    elastic_net,
    euclidean,
    hypentropy,
    log_barrier,
    orthant_entropy,
    p_norm,
    simplex_entropy,
)

GROUPS = np.array([0, 0, 1, 1, 1, 2])
SIZE = len(GROUPS)


def free(seed):
    return vectors.array(SIZE, seed)


def positive(seed):
    return np.exp(vectors.array(SIZE, seed))


def simplex(seed):
    x = positive(seed)
    return x / x.sum()


# name: (map, how to draw a point of its domain)
MAPS = {
    "euclidean": (euclidean(), free),
    "simplex": (simplex_entropy(), simplex),
    "orthant": (orthant_entropy(), positive),
    "barrier": (log_barrier(), positive),
    "p-norm": (p_norm(1.3), free),
    "p-norm-2": (p_norm(2), free),
    "hypentropy": (hypentropy(0.4), free),
    "elastic-net": (elastic_net(3.0, 0.7), free),
    "elastic-net-groups": (elastic_net(3.0, 0.7, GROUPS), free),
}
every_map = pytest.mark.parametrize("m, draw", MAPS.values(), ids=MAPS)


def tangent(draw, seed):
    """A direction that stays in the domain: of sum 0 on the simplex."""
    v = vectors.array(SIZE, seed)
    return v - v.mean() if draw is simplex else v


# ---- the maps ----------------------------------------------------------------------------------


@every_map
def test_inverse_undoes_the_gradient(m, draw, close):
    x = draw(1)
    close(m.inverse(m.grad(x)), x)


@every_map
def test_gradient_undoes_the_inverse_away_from_kinks(m, draw, close):
    z = 2 * np.sign(m.grad(draw(2))) + m.grad(draw(2))  # the elastic net: beyond the threshold
    back = m.grad(m.inverse(z))
    shift = (z - back).mean() if draw is simplex else 0.0  # a constant is free on the simplex
    close(back + shift, z)


@every_map
def test_gradients_are_those_of_the_values(m, draw):
    x, v, h = draw(3), tangent(draw, 4), 1e-6
    slope = (m.value(x + h * v) - m.value(x - h * v)) / (2 * h)
    np.testing.assert_allclose((m.grad(x) * v).sum(), slope, rtol=1e-7)  # measured 7e-9
    z, w = m.grad(draw(5)), 0.1 * vectors.array(SIZE, 6)
    slope = (m.conjugate(z + h * w) - m.conjugate(z - h * w)) / (2 * h)
    np.testing.assert_allclose((m.inverse(z) * w).sum(), slope, rtol=1e-7)  # measured 4e-9


@every_map
def test_conjugate_meets_fenchel_young(m, draw, close):
    x, z = draw(7), m.grad(draw(8))
    close(m.value(x) + m.conjugate(m.grad(x)), (x * m.grad(x)).sum())
    assert m.value(x) + m.conjugate(z) >= (x * z).sum()


@every_map
def test_divergence_is_its_definition(m, draw, close):
    x, y = draw(9), draw(10)
    close(m.divergence(x, y), m.value(x) - m.value(y) - (m.grad(y) * (x - y)).sum())
    assert m.divergence(x, y) > 1e-3
    close(m.divergence(x, x), 0.0)


@every_map
def test_three_points(m, draw, close):
    x, y, w = draw(11), draw(12), draw(13)
    cross = ((m.grad(y) - m.grad(w)) * (x - y)).sum()
    close(m.divergence(x, w), m.divergence(x, y) + m.divergence(y, w) + cross)


@every_map
def test_divergence_is_that_of_the_conjugate_swapped(m, draw, close):
    x, y = draw(14), draw(15)
    u, v = m.grad(y), m.grad(x)
    close(m.divergence(x, y), m.conjugate(u) - m.conjugate(v) - (m.inverse(v) * (u - v)).sum())


def test_divergence_of_a_kink_takes_the_subgradient(close):
    for m in (elastic_net(3.0, 0.7), elastic_net(3.0, 0.7, GROUPS)):
        z = vectors.array(SIZE, 16)
        y, x = m.inverse(z), vectors.array(SIZE, 17)
        assert (y == 0).any() and (y != 0).any()
        close(m.divergence(x, y, z), m.value(x) + m.conjugate(z) - (x * z).sum())


def test_known_divergences(close):
    x, y = simplex(18), simplex(19)
    close(simplex_entropy().divergence(x, y), (x * np.log(x / y)).sum())
    close(orthant_entropy().divergence(3 * x, y), (3 * x * np.log(3 * x / y)).sum() - 2)
    close(log_barrier().divergence(5 * x, 5 * y), log_barrier().divergence(x, y))
    close(p_norm(2).divergence(x, y), euclidean().divergence(x, y))


def test_entropies_reach_the_boundary(close):
    x, y = np.array([0.0, 0.25, 0.75]), np.full(3, 1 / 3)
    close(simplex_entropy().divergence(x, y), np.log(3) + x[1:] @ np.log(x[1:]))
    close(orthant_entropy().value(x), x[1:] @ np.log(x[1:]) - 1)


def test_hypentropy_lies_between_the_quadratic_and_the_entropic(close):
    x, y = vectors.array(SIZE, 20), vectors.array(SIZE, 21)
    wide = hypentropy(1e4)
    close(1e4 * wide.divergence(x, y), euclidean().divergence(x, y), "float32")  # O(x^2 / scale^2)
    narrow, x, y = hypentropy(1e-9), np.abs(x), np.abs(y)
    close(narrow.divergence(x, y), orthant_entropy().divergence(x, y))


def test_p_norm_survives_large_powers():
    m = p_norm(1.001)
    z = np.array([1e3, -1e3, 1.0])
    back = m.grad(m.inverse(z))
    np.testing.assert_allclose(back[:2], z[:2], rtol=1e-11)  # measured 5e-14: exponents of 1000
    assert (m.inverse(0 * z) == 0).all() and m.value(0 * z) == 0


@pytest.mark.parametrize("groups", [None, GROUPS])
def test_elastic_net_step_is_the_proximal_step(groups):
    """The step minimises ``alpha <g, x> + D(x, y; z)``: every perturbation is worse."""
    m, g = elastic_net(2.0, 0.6, groups), vectors.array(SIZE, 23)
    z = vectors.array(SIZE, 22)
    y, best = m.inverse(z), m.inverse(z - 0.8 * g)

    def objective(x):
        return 0.8 * (g * x).sum() + m.divergence(x, y, z)

    for seed in range(30):
        shift = vectors.array(SIZE, 100 + seed, scale=10.0 ** -(seed % 4))
        gain = objective(best + shift) - objective(best)
        assert gain >= (shift * shift).sum() / (2 * 2.0) - 1e-12  # 1/kappa-strong convexity


# ---- the iteration -----------------------------------------------------------------------------


def run(states, n):
    return next(islice(states, n, None))


def test_euclidean_is_gradient_descent(close):
    X, y, _ = vectors.linear(n=30, p=6)
    x = np.zeros(6)
    for _ in range(50):
        x = x - 0.01 * (X.T @ (X @ x - y))
    s = run(
        mirror_descent_states(lambda b: X.T @ (X @ b - y), euclidean(), np.zeros(6), alpha=0.01), 50
    )
    close(s.x, x)
    close(s.t, 0.5)


def test_simplex_is_exponentiated_gradient(close):
    x, g = simplex(1), vectors.array((20, SIZE), 2)
    w, feed = x, iter(g)
    for g_k in g:
        w = w * np.exp(-0.3 * g_k)
        w = w / w.sum()
    close(
        run(mirror_descent_states(lambda _: next(feed), simplex_entropy(), x, alpha=0.3), 20).x, w
    )


def test_start_from_the_dual_side_and_changing_steps(close):
    g = vectors.array((5, SIZE), 3)
    feed, z0 = iter(g), vectors.array(SIZE, 4)
    alpha = [0.1, 0.4, 0.2, 0.3, 0.5]
    states = mirror_descent_states(
        lambda _: next(feed), elastic_net(2.0), z0=z0, alpha=alpha.__getitem__
    )
    s = run(states, 5)
    close(s.z, z0 - np.array(alpha) @ g)
    close(s.t, 1.5)
    assert (s.x == 2 * np.sign(s.z) * np.maximum(np.abs(s.z) - 1, 0)).all()


def test_states_are_not_written_to():
    x0 = np.ones(3)
    states = mirror_descent_states(lambda x: x, euclidean(), x0, alpha=0.5)
    first = next(states)
    next(states)
    assert (first.x == 1).all() and (first.z == 1).all() and (x0 == 1).all()


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["l1", "group"])
@pytest.mark.parametrize("loss", ["squared", "huber", "logistic", "poisson", "multinomial"])
def test_elastic_net_descent_is_linearized_bregman(loss, groups, close):
    """Started where LBI leaves zero, at t0, every later iterate has the same bits.

    With the squared loss LBI adds up columns of the Gram matrix: equal to rounding.
    """
    kind = dict(squared=vectors.linear, huber=vectors.linear, poisson=vectors.counts)
    X, y, _ = kind.get(loss, vectors.labels)(n=40, p=SIZE, k=3)
    alpha = 0.0005 if loss == "poisson" else 0.01
    y = (y > 0) + (X[:, 0] > 1).astype(int) if loss == "multinomial" else y
    options = dict(kappa=5.0, lam=0.7, groups=groups)
    bregman = lbi_states(X, y, alpha=alpha, loss=loss, **options)
    next(bregman)
    first = next(bregman)
    mirror = mirror_descent_states(
        lambda x: X.T @ LOSSES[loss].gradient(X @ x, y),
        elastic_net(**options),
        z0=first.z,
        alpha=alpha,
    )
    next(mirror)
    for a, b in islice(zip(bregman, mirror, strict=False), 500):
        if loss == "squared":
            close(a.z, b.z)
            close(a.beta, b.x)
        else:
            assert (a.z == b.z).all() and (a.beta == b.x).all()
    assert (a.beta != 0).any()


# Problems with their constant L of "L Phi - f is convex", and a minimiser.


def relative_problems():
    X, y, _ = vectors.linear(n=40, p=SIZE, k=3)
    H = X.T @ X
    best = np.linalg.solve(H, X.T @ y)
    square = (lambda b: ((X @ b - y) ** 2).sum() / 2, lambda b: X.T @ (X @ b - y))
    top = np.linalg.eigvalsh(H)[-1]
    yield "euclidean", *square, top, best, np.zeros(SIZE)
    yield "elastic-net", *square, 3.0 * top, best, np.zeros(SIZE)
    # v'Hv <= max|H| |v|_1^2 <= max|H| d^(2-2/p) |v|_p^2, and Phi is (p-1)-strongly convex
    L = np.abs(H).max() * SIZE ** (2 - 2 / 1.3) / 0.3
    yield "p-norm", *square, L, best, np.zeros(SIZE)
    inside = simplex(5)
    fit = (lambda x: ((X @ (x - inside)) ** 2).sum() / 2, lambda x: H @ (x - inside))
    yield "simplex", *fit, np.abs(H).max(), inside, np.full(SIZE, 1 / SIZE)
    # Poisson likelihood: sum(counts) Phi - f is convex for the log-barrier
    A = np.abs(X)
    counts = A @ positive(6)
    f = lambda x: (A @ x - counts * np.log(A @ x)).sum()  # noqa: E731
    df = lambda x: A.T @ (1 - counts / (A @ x))  # noqa: E731
    yield "barrier", f, df, counts.sum(), positive(6), np.ones(SIZE)


@pytest.mark.parametrize("problem", list(relative_problems()), ids=lambda q: q[0])
def test_rate_of_relatively_smooth_problems(problem):
    name, f, df, L, best, x0 = problem
    m = MAPS[name][0]
    np.testing.assert_allclose(df(best), 0 * best, atol=1e-12)
    start, last = m.divergence(best, x0), np.inf
    assert f(x0) - f(best) > 0.1
    for k, s in enumerate(islice(mirror_descent_states(df, m, x0, alpha=1 / L), 300)):
        gap = f(s.x) - f(best)
        assert gap * k <= L * start + 1e-9
        assert gap <= last + 1e-9
        last = gap
    assert m.divergence(best, s.x, s.z) < start


@pytest.mark.parametrize("lazy", [False, True])
def test_regret(lazy):
    """Random linear losses against the best corner of the simplex: below the bound, same order."""
    m, T = simplex_entropy(), 400
    start = np.full(SIZE, 1 / SIZE)
    for seed in range(5):
        losses = np.sign(vectors.array((T, SIZE), seed))
        feed = iter(losses)
        if lazy:
            steps = np.sqrt(np.log(SIZE) / np.arange(1, T + 1))
            states = dual_averaging_states(
                lambda _, feed=feed: next(feed), m, start, alpha=steps.__getitem__
            )
            bound = np.log(SIZE) / steps[-1] + steps.sum() / 2
        else:
            step = np.sqrt(2 * np.log(SIZE) / T)
            states = mirror_descent_states(lambda _, feed=feed: next(feed), m, start, alpha=step)
            bound = np.log(SIZE) / step + step * T / 2
        paid = sum(g @ s.x for g, s in zip(losses, states, strict=False))
        regret = paid - losses.sum(axis=0).min()
        assert 0 < regret <= bound
        assert regret > bound / 20


def test_dual_averaging_with_a_constant_step_is_mirror_descent(close):
    X, y, _ = vectors.linear(n=30, p=6)
    for m in (euclidean(), elastic_net(2.0)):
        a, b = (
            run(method(lambda b: X.T @ (X @ b - y) / 30, m, np.zeros(6), alpha=0.1), 200)
            for method in (mirror_descent_states, dual_averaging_states)
        )
        close(a.x, b.x)
        close(a.t, b.t)


def test_dual_averaging_weighs_all_gradients_by_the_newest_step(close):
    g, x0 = vectors.array((9, SIZE), 7), vectors.array(SIZE, 8)
    feed = iter(g)
    s = run(
        dual_averaging_states(lambda _: next(feed), euclidean(), x0, alpha=lambda k: 1 / (k + 1)), 9
    )
    close(s.x, x0 - g.sum(axis=0) / 10)


# ---- the flow ----------------------------------------------------------------------------------


def test_flow_of_a_quadratic_is_exponential():
    X, y, _ = vectors.linear(n=30, p=6)
    H, c = X.T @ X / 30, X.T @ y / 30
    values, Q = np.linalg.eigh(H)
    times = np.linspace(0, 3, 7)
    flow = mirror_flow(lambda b: H @ b - c, euclidean(), np.zeros(6), times=times)
    exact = [Q @ ((1 - np.exp(-values * t)) / values * (Q.T @ c)) for t in times]
    np.testing.assert_allclose(flow.x, exact, atol=1e-9)  # measured 3e-11: integrator, rtol 1e-10
    assert flow.z.shape == flow.x.shape == (7, 6) and (flow.t == times).all()


def test_flow_of_a_linear_loss_on_the_simplex_is_softmax():
    g, x0 = vectors.array(SIZE, 9), simplex(10)
    flow = mirror_flow(lambda x: g, simplex_entropy(), x0, times=[2.5])
    w = x0 * np.exp(-2.5 * g)
    np.testing.assert_allclose(flow.x[0], w / w.sum(), atol=1e-10)


@pytest.mark.parametrize("problem", list(relative_problems()), ids=lambda q: q[0])
def test_flow_decreases_the_divergence_by_the_gap(problem):
    name, f, df, L, best, x0 = problem
    m, times = MAPS[name][0], np.linspace(0, 20 / L, 2001)
    flow = mirror_flow(df, m, x0, times=times)
    D = np.array([m.divergence(best, x, z) for x, z in zip(flow.x, flow.z, strict=True)])
    rate = np.array([(df(x) * (x - best)).sum() for x in flow.x])
    gap = np.array([f(x) - f(best) for x in flow.x])
    assert (np.diff(D) < 0).all() and (rate >= gap - 1e-9).all()
    simpson = (rate[:-2:2] + 4 * rate[1::2] + rate[2::2]).sum() * times[1] / 3  # of -dD/dt
    # measured 2e-10; 6e-7 for the elastic net, whose rate has corners where entries enter
    rtol = 2e-6 if name == "elastic-net" else 1e-9
    np.testing.assert_allclose(D[0] - D[-1], simpson, rtol=rtol)


def test_descent_with_small_steps_follows_the_flow():
    X, y, _ = vectors.linear(n=30, p=6)
    grad = lambda b: X.T @ (X @ b - y) / 30  # noqa: E731
    m = hypentropy(0.1)
    flow = mirror_flow(grad, m, np.zeros(6), times=[1.5]).x[0]
    error = [
        np.abs(run(mirror_descent_states(grad, m, np.zeros(6), alpha=1.5 / n), n).x - flow).max()
        for n in (200, 400, 800)
    ]
    np.testing.assert_allclose(np.divide(error[:-1], error[1:]), 2, rtol=0.02)  # first order


def test_diagonal_net_is_the_hypentropy_flow():
    """Gradient flow of u, v in x = u*u - v*v from u = v = a: hypentropy, scale 2 a^2, time 4 t."""
    X, y, _ = vectors.linear(n=10, p=6)
    grad = lambda b: X.T @ (X @ b - y) / 10  # noqa: E731

    def net(w):
        g = grad(w[0] ** 2 - w[1] ** 2)
        return np.stack([2 * w[0] * g, -2 * w[1] * g])

    a, times = 0.3, np.linspace(0, 2, 9)
    w = mirror_flow(net, euclidean(), np.full((2, 6), a), times=times).x
    x = mirror_flow(grad, hypentropy(2 * a * a), np.zeros(6), times=4 * times).x
    np.testing.assert_allclose(w[:, 0] ** 2 - w[:, 1] ** 2, x, atol=1e-7)  # measured 4e-9


# ---- implicit bias: the limit is the interpolator nearest to the start --------------------------


def underdetermined(positive_solution=False):
    X = vectors.array((3, SIZE), 11)
    return X, X @ (positive(12) if positive_solution else vectors.array(SIZE, 12))


def nearest(m, X, y, z0):
    """Independent solution: Newton on ``X grad Phi*(z0 + X'u) = y``, the optimality condition."""
    found = root(lambda u: X @ m.inverse(z0 + X.T @ u) - y, np.zeros(len(y)), tol=1e-13)
    np.testing.assert_allclose(found.fun, 0 * y, atol=1e-10)
    return m.inverse(z0 + X.T @ found.x)


@pytest.mark.parametrize("name", ["euclidean", "orthant", "p-norm", "hypentropy"])
def test_limit_is_the_nearest_interpolator(name):
    m, draw = MAPS[name]
    X, y = underdetermined(draw is positive)
    x0 = draw(13)
    s = run(mirror_descent_states(lambda x: X.T @ (X @ x - y), m, x0, alpha=0.01), 20000)
    np.testing.assert_allclose(X @ s.x, y, atol=1e-10)
    np.testing.assert_allclose(s.x, nearest(m, X, y, m.grad(x0)), atol=1e-12)  # measured 7e-14
    kernel = np.linalg.svd(X)[2][3:]
    for v in kernel:  # every other interpolator is farther
        for h in (1e-2, -1e-2):
            assert m.divergence(s.x + h * v, x0) > m.divergence(s.x, x0)


def test_limit_of_gradient_descent_is_the_pseudoinverse(close):
    X, y = underdetermined()
    s = run(
        mirror_descent_states(lambda x: X.T @ (X @ x - y), euclidean(), np.zeros(SIZE), alpha=0.05),
        5000,
    )
    close(s.x, np.linalg.pinv(X) @ y)


def basis_pursuit(X, y):
    """min |x|_1 subject to X x = y, as a linear program."""
    p = X.shape[1]
    split = linprog(np.ones(2 * p), A_eq=np.hstack([X, -X]), b_eq=y, method="highs")
    return split.x[:p] - split.x[p:]


def test_limit_of_the_elastic_net_is_basis_pursuit_from_a_finite_kappa_on():
    X, y = underdetermined()
    target = basis_pursuit(X, y)
    assert (np.abs(target) > 1e-9).sum() == 3
    L = np.linalg.norm(X, 2) ** 2
    error = {}
    for kappa in (0.3, 30.0):
        m = elastic_net(kappa)
        grad = lambda x: X.T @ (X @ x - y)  # noqa: E731
        s = run(mirror_descent_states(grad, m, np.zeros(SIZE), alpha=1 / (kappa * L)), 40000)
        np.testing.assert_allclose(X @ s.x, y, atol=1e-10)
        error[kappa] = np.abs(s.x - target).max()
    assert error[0.3] > 0.01  # too much of the quadratic
    assert error[30.0] < 1e-9


def test_limit_of_the_hypentropy_moves_from_least_squares_to_basis_pursuit():
    X, y = underdetermined()
    far_dense, far_sparse = [], []
    for scale in (1e3, 1.0, 1e-2, 1e-4, 1e-6):
        states = mirror_descent_states(
            lambda x: X.T @ (X @ x - y),
            hypentropy(scale),
            np.zeros(SIZE),
            alpha=0.02 / max(scale, 1),
        )
        x = run(states, 10000).x
        np.testing.assert_allclose(X @ x, y, atol=1e-10)
        far_dense.append(np.abs(x - np.linalg.pinv(X) @ y).max())
        far_sparse.append(np.abs(x - basis_pursuit(X, y)).max())
    assert (np.diff(far_dense) > 0).all() and far_dense[0] < 1e-6  # measured 6e-8: x^2 / scale^2
    assert (np.diff(far_sparse) < 0).all() and far_sparse[-1] < 0.05  # measured 0.041: slow, log


# ---- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: p_norm(1), r"p must be in \(1, 2\], got 1"),
        (lambda: hypentropy(0.0), "scale must be positive and finite, got 0.0"),
        (lambda: elastic_net(float("nan")), "kappa must be positive and finite, got nan"),
        (lambda: elastic_net(1.0, lam=-1), "lam must be positive and finite, got -1"),
        (lambda: orthant_entropy().grad(np.array([1.0, 0.0])), "x must be positive .* entry 0.0"),
        (lambda: orthant_entropy().value(np.array([-1.0])), "x must be non-negative .* entry -1.0"),
        (lambda: log_barrier().value(np.array([1.0, np.nan])), "x must be positive .* entry nan"),
        (lambda: log_barrier().inverse(np.array([-1.0, 0.5])), "-z must be positive .* entry -0.5"),
        (lambda: simplex_entropy().grad(np.array([0.5, 0.6])), "x must be a vector of sum 1"),
        (
            lambda: simplex_entropy().grad(np.full((2, 2), 0.25)),
            r"vector of sum 1, got shape \(2, 2\)",
        ),
    ],
)
def test_outside_the_domain(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x0": None}, "give exactly one of x0 and z0"),
        ({"z0": np.zeros(2)}, "give exactly one of x0 and z0"),
        ({"x0": np.array([1.0, np.inf])}, "x0 must be finite and not empty"),
        ({"x0": np.zeros(0)}, r"x0 must be finite and not empty, got shape \(0,\)"),
        ({"alpha": 0.0}, "alpha must be positive and finite, got 0.0"),
        ({"alpha": lambda k: 1.0 - k}, "alpha must be positive and finite, got 0.0"),
        ({"grad": lambda x: x[:1]}, r"grad must return the shape of x, \(2,\), got \(1,\)"),
        ({"grad": lambda x: x * np.nan}, "grad must stay finite, it does not at t = 0.0"),
        ({"mirror_map": orthant_entropy(), "alpha": 2e3}, "x must stay finite, it does not at t"),
        ({"mirror_map": log_barrier(), "alpha": 2.0}, "-z must be positive"),
    ],
)
@pytest.mark.parametrize("method", [mirror_descent_states, dual_averaging_states])
def test_bad_iteration(method, change, message):
    options = dict(grad=lambda x: -x, mirror_map=euclidean(), x0=np.ones(2), alpha=0.1) | change
    with pytest.raises(ValueError, match=message):
        run(method(**options), 5)


def test_dual_averaging_refuses_growing_steps():
    states = dual_averaging_states(lambda x: x, euclidean(), np.ones(2), alpha=lambda k: 1.0 + k)
    with pytest.raises(ValueError, match="alpha must not increase, got 2.0 after 1.0"):
        run(states, 3)


@pytest.mark.parametrize(
    "times", [[], [-1.0, 1.0], [0.0, 2.0, 1.0], [0.0, np.nan], 1.0, [1.0, 1.0]]
)
def test_flow_refuses_bad_times(times):
    with pytest.raises(ValueError, match="times must"):
        mirror_flow(lambda x: x, euclidean(), np.ones(2), times=times)


def test_flow_that_blows_up_says_so():
    with pytest.raises(ValueError, match="stay finite|the flow must reach"):
        mirror_flow(lambda x: -(x**3), euclidean(), np.ones(1), times=[1.0])

"""DessiLBI: the update by hand, conserved quantities, entry rules, the Lyapunov function."""

from itertools import islice

import numpy as np
import pytest
import vectors
from one_tensor import gamma, step

from dslbi_ref import dessilbi, nets, record, theory
from dslbi_ref import penalties as prox
from dslbi_ref.dessilbi import dessilbi_states


def path(W, grad, n_steps, **options):
    """States 0 ... n_steps of a single tensor, named "w"; ``penalty=None``: not split."""
    penalty = options.pop("penalty", "l1")
    penalties = {} if penalty is None else {"w": penalty}
    states = dessilbi_states({"w": W}, grad, penalties=penalties, **options)
    return list(islice(states, n_steps + 1))


def injected(shape, n_steps, seed=0):
    """``grad(W)`` that ignores W and returns prepared gradients one by one, and their list."""
    listed = list(vectors.gradients(shape, n_steps, seed))
    following = iter(listed)
    return lambda W: {"w": next(following)}, listed


def no_gradient(W):
    return {name: 0.0 * w for name, w in W.items()}


# ---- One step by hand ------------------------------------------------------------------------

# W = 2, grad = 1/2, alpha = 1/4, kappa = 2, nu = 4, lam = 1; V = 3 unless said otherwise, hence
# Gamma = 2 (3 - 1) = 4, r = (2 - 4) / 4 = -1/2 and the new V is 3 - 1/8. All numbers are binary.
BY_HAND = [
    (dict(momentum=0), 2.0, 2.875, None),
    (dict(momentum=0, dampening=0.5), 2.0, 2.875, None),
    (dict(momentum=0, coupling="inside"), 2.0, 2.875, None),
    (dict(momentum=0, lam=2.0), 1.75, 3.0, None),
    (dict(momentum=0, V=0.5), 1.5, 0.625, None),
    (dict(momentum=0, V=-3.0), 1.0, -2.625, None),
    (dict(momentum=0, V=None), 1.75, None, None),
    (dict(momentum=0, weight_decay=0.25), 1.75, 2.875, None),
    (dict(momentum=0.5), 2.0, 2.875, 0.5),
    (dict(momentum=0.5, dampening=0.5), 2.0, 2.875, 0.5),
    (dict(momentum=0.5, nesterov=True), 1.875, 2.875, 0.5),
    (dict(momentum=0.5, coupling="inside"), 2.0, 2.875, 0.0),
    (dict(momentum=0.5, m=2.0), 1.5, 2.875, 1.5),
    (dict(momentum=0.5, m=2.0, V=None), 1.25, None, 1.5),
    (dict(momentum=0.5, m=2.0, dampening=0.5), 1.625, 2.875, 1.25),
    (dict(momentum=0.5, m=2.0, nesterov=True), 1.625, 2.875, 1.5),
    (dict(momentum=0.5, m=2.0, coupling="inside"), 1.5, 2.875, 1.0),
    (dict(momentum=0.5, m=2.0, dampening=0.5, weight_decay=0.25), 1.5, 2.875, 1.5),
    (
        dict(momentum=0.5, m=2.0, dampening=0.5, weight_decay=0.25, decoupled=True),
        1.375,
        2.875,
        1.25,
    ),
]


@pytest.mark.parametrize("options, W, V, m", BY_HAND)
def test_one_step_by_hand(options, W, V, m):
    start = [options.get("V", 3.0), options.get("m")]
    start = [None if x is None else np.array([x]) for x in start]
    options = {k: v for k, v in options.items() if k not in ("V", "m")}
    found = step(np.array([2.0]), *start, np.array([0.5]), alpha=0.25, kappa=2.0, nu=4.0, **options)
    assert [None if x is None else x.item() for x in found] == [W, V, m]


def test_one_step_of_a_group_by_hand(close):
    """V = (3, 4), norm 5: Gamma = 2 (1 - 1/5) V = (4.8, 6.4) and r = (W - Gamma) / 4."""
    W, V = np.array([[2.0, 2.0]]), np.array([[3.0, 4.0]])
    options = dict(alpha=0.25, kappa=2.0, nu=4.0, penalty="group", momentum=0)
    W, V, _ = step(W, V, None, 0 * W, **options)
    close(W, [[2.35, 2.55]])
    close(V, [[2.825, 3.725]])


def test_without_penalty_it_is_gradient_descent_with_momentum(close):
    grad, listed = injected((3, 2), 50)
    states = path(np.ones((3, 2)), grad, 50, alpha=0.1, kappa=3.0, penalty=None)
    W, m = np.ones((3, 2)), 0.0
    for g in listed:
        m = 0.9 * m + g
        W = W - 0.3 * m
    close(states[-1].W["w"], W)
    assert states[-1].V == states[-1].Gamma == {}


def test_time_is_the_sum_of_the_steps(close):
    states = path(np.ones(3), no_gradient, 30, alpha=lambda k: 0.1 / (k + 1))
    close([s.t for s in states], np.cumsum([0.0] + [0.1 / (k + 1) for k in range(30)]))


def test_states_are_not_written_to_later():
    shape = (4, 3)
    states = path(np.ones(shape), injected(shape, 40)[0], 40, alpha=0.1, nu=1.0)
    again = path(np.ones(shape), injected(shape, 40)[0], 20, alpha=0.1, nu=1.0)
    for a, b in zip(states, again, strict=False):
        for field in ("W", "V", "Gamma", "m"):
            for name, value in getattr(b, field).items():
                np.testing.assert_array_equal(getattr(a, field)[name], value)


@pytest.mark.parametrize("penalty", ["l1", "group"])
def test_scaling_weights_gradients_and_level_scales_the_path(penalty):
    """The penalty is homogeneous, so the path is; a power of two makes this exact."""
    options = dict(alpha=0.05, nu=2.0, kappa=1.5, penalty=penalty)
    W = vectors.array((5, 4))
    grad, listed = injected(W.shape, 200)
    small = path(W, grad, 200, lam=0.25, **options)
    following = iter(listed)
    large = path(4 * W, lambda _: {"w": 4 * next(following)}, 200, lam=1.0, **options)
    assert small[-1].Gamma["w"].any()
    for a, b in zip(small, large, strict=True):
        np.testing.assert_array_equal(4 * a.W["w"], b.W["w"])
        np.testing.assert_array_equal(4 * a.Gamma["w"], b.Gamma["w"])


# ---- The conserved quantity ------------------------------------------------------------------


def telescope(n_steps=2000, *, kappa=1.5, decay=0.0, alpha=lambda k: 0.02, **options):
    """Residual of the identity along a path with injected gradients, and the path.

    The direction u has momentum and L2 decay in it, but not the coupling.
    """
    shape = (6, 5)
    grad, listed = injected(shape, n_steps)
    options = dict(nu=2.0, lam=0.5, weight_decay=decay) | options
    states = path(vectors.array(shape, seed=9), grad, n_steps, alpha=alpha, kappa=kappa, **options)
    total = np.zeros(shape)
    for k, g in enumerate(listed):
        if not options.get("decoupled"):
            g = g + decay * states[k].W["w"]
        if momentum := options.get("momentum", 0.9):
            m = states[k + 1].m["w"]
            g = g + momentum * m if options.get("nesterov") else m
        total = total + alpha(k) * g
    first, last = states[0], states[-1]
    residual = theory.telescoping_residual(
        first.W["w"], first.V["w"], last.W["w"], last.V["w"], total, kappa=kappa
    )
    assert last.Gamma["w"].any()
    return residual, states


@pytest.mark.parametrize(
    "options",
    [
        dict(momentum=0),
        dict(momentum=0, penalty="group"),
        dict(momentum=0, decay=0.01),
        dict(momentum=0, coupling="inside"),
        dict(momentum=0, coupling="inside", decay=0.01, kappa=0.5),
        dict(),
        dict(kappa=5.0),
        dict(penalty="group", group_dim=1, weight="sqrt", lam=0.2),
        dict(dampening=0.5),
        dict(nesterov=True),
        dict(decay=0.01, nesterov=True),
        dict(alpha=lambda k: 0.03 / (1 + k / 500)),
    ],
)
def test_telescoping_identity(options):
    # sums of 2,000 terms, of order 1 to 10; measured: at most 1.6e-13
    assert telescope(**options)[0] < 1e-12


def test_telescoping_fails_by_the_coupling_that_momentum_keeps():
    """Inside the buffer the coupling no longer cancels: what V gained stays over."""
    residual, states = telescope(coupling="inside")
    V = np.abs(states[-1].V["w"]).max()
    assert residual > 0.1
    np.testing.assert_allclose(residual, V, rtol=1e-9)


def test_telescoping_fails_by_the_decoupled_decay():
    residual, states = telescope(decay=0.01, decoupled=True)
    lost = sum(0.02 * 0.01 * s.W["w"] for s in states[:-1])
    assert residual > 0.01
    np.testing.assert_allclose(residual, np.abs(lost).max(), rtol=1e-9)


# ---- Entry -----------------------------------------------------------------------------------


def entry_steps(states):
    """First state in which each entry of Gamma is not zero, -1 if it never is."""
    active = np.array([s.Gamma["w"] != 0 for s in states])
    return np.where(active.any(axis=0), active.argmax(axis=0), -1)


@pytest.mark.parametrize("kappa, nu, alpha", [(1.0, 10.0, 1.0), (2.0, 1.0, 0.5), (0.5, 3.0, 1.0)])
@pytest.mark.parametrize("options", [{}, dict(penalty="group"), dict(group_dim=1)], ids=str)
@pytest.mark.parametrize("weight", [None, "sqrt"])
def test_entry_by_initialisation(kappa, nu, alpha, options, weight):
    """Without a gradient ||V_k|| = ||W_0|| / kappa * (1 - (1 - kappa alpha / nu)^k) up to entry.

    So a group enters exactly if its norm is larger than kappa * lam (times sqrt of its size), and
    at the first k for which this is larger than lam.
    """
    lam, shape = 0.7, (6, 4)
    options = dict(penalty="group" if options else "l1", weight=weight) | options
    axis = options.get("group_dim", 0)
    shape = shape if axis == 0 else shape[::-1]
    size = 4 if options["penalty"] == "group" else 1
    factor = np.sqrt(size) if weight == "sqrt" and size > 1 else 1.0
    ratio = np.array([0.2, 1 - 1e-6, 1 + 1e-6, 1.01, 1.5, 30.0])  # norm over threshold
    W = vectors.array(shape)
    W = np.moveaxis(W, axis, 0)
    norms = np.linalg.norm(W, axis=1, keepdims=True) if size > 1 else np.abs(W)
    W = W / norms * (ratio * kappa * lam * factor)[:, None]
    W = np.moveaxis(W, 0, axis)
    states = path(W, no_gradient, 400, kappa=kappa, nu=nu, alpha=alpha, lam=lam, **options)
    entered = np.moveaxis(entry_steps(states), axis, 0)

    k = np.arange(401)
    reach = ratio[:, None] * (1 - (1 - kappa * alpha / nu) ** k)
    expected = np.where((reach > 1).any(axis=1), (reach > 1).argmax(axis=1), -1)
    assert (expected > 0).tolist() == [False, False, True, True, True, True]
    np.testing.assert_array_equal(entered, np.broadcast_to(expected[:, None], entered.shape))


@pytest.mark.parametrize("penalty", ["l1", "group"])
@pytest.mark.parametrize(
    "options", [dict(momentum=0), dict(momentum=0.9, coupling="inside", weight_decay=0.01)]
)
def test_speed_and_level_are_one_number_at_a_given_learning_rate(penalty, options):
    """(kappa, lam, alpha) = (1/4, 1, 4 lr) is (1, 1/4, lr) to the last bit, and (4, 1/16, lr/4)."""
    W, lr = vectors.array((6, 5), seed=1), 1 / 8
    runs = []
    for kappa, lam in ((1.0, 0.25), (0.25, 1.0), (4.0, 0.0625)):
        grad, _ = injected(W.shape, 60)
        runs.append(
            path(W, grad, 60, penalty=penalty, kappa=kappa, lam=lam, alpha=lr / kappa, nu=2.0,
                 **options)
        )  # fmt: skip
    assert any(0 < (s.Gamma["w"] != 0).mean() < 1 for s in runs[0])
    for run in runs[1:]:
        for one, same in zip(runs[0], run, strict=True):
            np.testing.assert_array_equal(one.W["w"], same.W["w"])
            np.testing.assert_array_equal(one.Gamma["w"], same.Gamma["w"])


def test_entry_by_initialisation_needs_a_small_step():
    """With kappa * alpha > nu the first step overshoots, and a norm below kappa * lam enters."""
    W = np.array([0.9])  # kappa * lam = 1
    small, large = (path(W, no_gradient, 400, nu=10.0, alpha=a) for a in (10.0, 12.0))
    assert entry_steps(small) == [-1]
    assert entry_steps(large) == [1]


@pytest.mark.parametrize("penalty, weight", [("l1", None), ("group", None), ("group", "sqrt")])
@pytest.mark.parametrize("kappa, nu, alpha", [(1.0, 5.0, 0.01), (20.0, 1.0, 0.002)])
def test_entry_times_of_the_orthogonal_quadratic(close, penalty, weight, kappa, nu, alpha):
    """Loss ||X w - y||^2 / (2 n) with X'X = n I, that is ||w - c||^2 / 2 up to a constant.

    From W = 0, as long as a group is out: W_k = w (1 - q^k) and V_k = alpha/nu sum_{j<k} W_j with
    w = c / (1 + 1/nu) and q = 1 - alpha kappa (1 + 1/nu). In the limit of small steps and large
    kappa a group enters at lam (nu + 1) / ||c_g||. In the end Gamma is c: the path has no bias.
    """
    X, y = vectors.orthogonal(p=12)
    n, c = len(y), X.T @ y / len(y)
    lam = 0.3
    shape = (3, 4)
    c = c.reshape(shape)

    def grad(W):
        return {"w": (X.T @ (X @ W["w"].ravel() - y) / n).reshape(shape)}

    options = dict(penalty=penalty, weight=weight, lam=lam)
    threshold = lam * (2.0 if weight == "sqrt" else 1.0)
    sizes = np.abs(c) if penalty == "l1" else np.linalg.norm(c, axis=1, keepdims=True) + 0 * c
    limit = threshold * (nu + 1) / sizes
    seen = sizes > np.median(sizes) / 2  # the smallest coefficients would take very long
    n_steps = int((limit[seen].max() + 3) / alpha)
    states = path(
        np.zeros(shape), grad, n_steps, kappa=kappa, nu=nu, alpha=alpha, momentum=0, **options
    )
    k = np.arange(n_steps + 1)
    rate = kappa * (1 + 1 / nu)
    q = 1 - alpha * rate
    V = (alpha / (nu + 1)) * (k - (1 - q**k) / (1 - q))  # of a coefficient c = 1
    reached = V[:, None, None] * sizes > threshold
    expected = np.where(reached.any(axis=0), reached.argmax(axis=0), -1)
    entered = entry_steps(states)
    np.testing.assert_array_equal(entered, expected)
    assert (entered[seen] > 0).all()
    # the start from zero costs 1 / rate, the grid at most a step
    assert (np.abs(alpha * entered - limit - 1 / rate)[seen] <= 1.01 * alpha).all()
    out = min(entered[seen]) - 1
    close(states[out].V["w"], V[out] * c)
    close(states[out].W["w"], (1 - q**out) / (1 + 1 / nu) * c)


def test_the_end_of_the_path_is_not_biased(close):
    c = np.array([2.0, -1.0, 0.5])
    states = path(np.zeros(3), lambda W: {"w": W["w"] - c}, 4000, alpha=0.2, nu=1.0, momentum=0)
    close(states[-1].Gamma["w"], c)
    close(states[-1].W["w"], c)


@pytest.mark.parametrize("penalty", ["l1", "group"])
@pytest.mark.parametrize(
    "options",
    [
        dict(kappa=2.0),
        dict(kappa=0.5, group_dim=1),
        dict(weight="sqrt", coupling="inside", alpha=0.005),
    ],
    ids=str,
)
def test_g_is_a_subgradient_at_every_step(close, penalty, options):
    """g = V - Gamma / kappa lies in the dual ball, and <g, Gamma> = Omega(Gamma)."""
    options = dict(kappa=1.0, alpha=0.02, group_dim=0, weight=None) | options
    shape, lam, kappa = (6, 5), 0.3, options["kappa"]
    states = path(
        vectors.array(shape),
        injected(shape, 500)[0],
        500,
        nu=1.0,
        lam=lam,
        penalty=penalty,
        **options,
    )
    kind = {key: options[key] for key in ("group_dim", "weight")}
    assert 0 < (states[-1].Gamma["w"] != 0).mean()
    for s in states:
        V, G = s.V["w"], s.Gamma["w"]
        np.testing.assert_array_equal(G, gamma(V, kappa=kappa, lam=lam, penalty=penalty, **kind))
        g = V - G / kappa
        if penalty == "l1":
            size, value = prox.l1_dual_norm(g), prox.l1_norm(G, lam)
        else:
            size, value = prox.group_dual_norm(g, **kind), prox.group_norm(G, lam, **kind)
        assert size <= lam * (1 + 1e-12)
        close((g * G).sum(), value)


# ---- Descent ---------------------------------------------------------------------------------


def lyapunov_path(W, loss_grad, n_steps, penalties, *, lam, kappa, nu, alpha):
    """F at states 1 ... n_steps, and the squared moves ``||dW||^2 + ||dGamma||^2`` towards them."""

    def omega(name, G):
        value = prox.l1_norm if penalties[name] == "l1" else prox.group_norm
        return value(G, lam)

    options = dict(kappa=kappa, nu=nu, alpha=alpha)
    states = dessilbi_states(
        W, lambda W: loss_grad(W)[1], penalties=penalties, lam=lam, momentum=0, **options
    )
    old, F, moves = next(states), [], []
    for new in islice(states, n_steps):
        loss = loss_grad(new.W)[0]
        F.append(
            theory.lyapunov(loss, new.W, new.Gamma, old.V, old.Gamma, penalty=omega, **options)
        )
        moves.append(
            sum(((new.W[n] - old.W[n]) ** 2).sum() for n in W)
            + sum(((new.Gamma[n] - old.Gamma[n]) ** 2).sum() for n in penalties)
        )
        old = new
    return np.array(F), np.array(moves), old


def softplus_net(**options):
    X, y = vectors.images(30, shape=(5,), classes=3)
    W = nets.mlp_init((5, 5, 3), vectors.rng(0), init="he")
    penalties = {"fc1.weight": "group", "fc2.weight": "l1"}
    return lyapunov_path(
        W, lambda W: nets.mlp_loss_grad(W, X, y, "softplus"), 600, penalties, **options
    )


@pytest.mark.parametrize(
    "kappa, nu, alpha, lam",
    [
        (1, 10, 0.1, 1.0),
        (1, 1, 0.1, 0.3),
        (5, 1, 0.05, 0.2),
        (1, 100, 0.1, 0.02),
        (1, 10, 0.5, 1.0),
    ],
)
def test_lyapunov_never_increases_on_a_softplus_net(kappa, nu, alpha, lam):
    F, _, last = softplus_net(kappa=kappa, nu=nu, alpha=alpha, lam=lam)
    assert np.diff(F).max() <= 1e-14 * F[0]  # rounding, once the path has come to rest
    assert F[-1] < 0.5 * F[0]
    assert any((G != 0).any() for G in last.Gamma.values())


def test_lyapunov_increases_on_a_softplus_net_when_the_step_is_too_large():
    """At L = 0 the bound would be 1 here; 0.9 is too much for the loss on top of the coupling."""
    F = softplus_net(kappa=1, nu=1, alpha=0.9, lam=0.5)[0]
    assert np.diff(F).max() > 0.1 * F[0]


def quadratic(seed=0):
    """Loss <A w, w> / 2 - <c, w> of a (4, 3) tensor, and the largest eigenvalue of A."""
    B = vectors.array((12, 12), seed)
    A, c = B @ B.T / 12, vectors.array(12, seed + 1)
    L = np.linalg.eigvalsh(A)[-1]

    def loss_grad(W):
        w = W["w"].ravel()
        return w @ (A @ w) / 2 - c @ w, {"w": (A @ w - c).reshape(4, 3)}

    return loss_grad, L


@pytest.mark.parametrize("penalty", ["l1", "group"])
@pytest.mark.parametrize("kappa, nu", [(1.0, 10.0), (4.0, 0.2), (0.5, 1.0), (1.0, 0.01)])
@pytest.mark.parametrize("fraction", [0.1, 0.99])
def test_sufficient_descent_below_the_step_bound(penalty, kappa, nu, fraction):
    """F_{k+1} <= F_k - rho (||dW||^2 + ||dGamma||^2), rho = 1/kappa - alpha (L + 2/nu) / 2 > 0."""
    loss_grad, L = quadratic()
    alpha = fraction * theory.step_bound(L, kappa=kappa, nu=nu)
    rho = 1 / kappa - alpha * (L + 2 / nu) / 2
    assert rho > 0
    W = {"w": vectors.array((4, 3), seed=3)}
    F, moves, last = lyapunov_path(
        W, loss_grad, 400, {"w": penalty}, lam=0.5, kappa=kappa, nu=nu, alpha=alpha
    )
    slack = 1e-13 * np.abs(F).max()  # rounding
    assert (np.diff(F) <= -rho * moves[1:] + slack).all()
    assert (last.Gamma["w"] != 0).any()


@pytest.mark.parametrize("nu", [1e-3, 1.0])
def test_above_the_exact_bound_of_a_quadratic_it_diverges(nu):
    """Once all is active the iteration is linear, with the largest eigenvalue of the joint Hessian.

    That eigenvalue is at most L + 2/nu, and close to it for small nu: the bound cannot be larger.
    """
    loss_grad, L = quadratic()
    joint = np.array([[L + 1 / nu, -1 / nu], [-1 / nu, 1 / nu]])
    exact = 2 / np.linalg.eigvalsh(joint)[-1]
    bound = theory.step_bound(L, kappa=1.0, nu=nu)
    assert bound <= exact <= (1.01 * bound if nu < 1 else 2 * bound)
    W = {"w": vectors.array((4, 3), seed=3, scale=10.0)}
    options = dict(lam=1e-3, kappa=1.0, nu=nu)
    below, _, _ = lyapunov_path(W, loss_grad, 300, {"w": "l1"}, alpha=0.99 * exact, **options)
    above, _, _ = lyapunov_path(W, loss_grad, 300, {"w": "l1"}, alpha=1.1 * exact, **options)
    assert np.abs(below).max() <= np.abs(below[0]) * (1 + 1e-12) and below[-1] < below[0]
    assert above[-1] > 1e6 * np.abs(above[0])


def test_the_bound_with_one_over_nu_is_too_large():
    """L = 0, kappa = 1, nu = 10: 2 / (kappa (L + 1/nu)) = 20 would be allowed, the bound is 10.

    Once active W - Gamma is multiplied by 1 - 2 kappa alpha / nu: -0.8, -1.2 and -2.8 below.
    """
    recalled = 20.0
    assert theory.step_bound(0.0, kappa=1.0, nu=10.0) == recalled / 2

    def gaps(fraction, start, n_steps=200):
        states = path(np.array([start]), no_gradient, n_steps, nu=10.0, alpha=fraction * recalled)
        assert states[1].Gamma["w"] != 0
        return np.array([abs(s.W["w"] - s.Gamma["w"]).item() for s in states])

    assert gaps(0.45, 1.5)[-1] < 1e-12
    assert gaps(0.45, 15.0)[-1] < 1e-12
    assert (gaps(0.55, 1.5)[100:] > 0.5).all()  # a cycle of two states, for ever
    assert gaps(0.55, 15.0)[-1] > 1e12
    assert gaps(0.95, 1.5)[-1] > 1e12
    assert gaps(0.95, 15.0, 30)[-1] > 1e12


def test_step_bounds_of_the_linear_models():
    assert theory.step_bound(4.0, kappa=5.0) == 0.1
    assert theory.step_bound(1.0, kappa=2.0, nu=0.5) == 0.2
    assert theory.step_bound(1.0, kappa=1.0, nu=1.0, D_norm=2.0) == 2 / 6


# ---- Joint families --------------------------------------------------------------------------

# Two tensors whose k-th rows, and k-th heads of two rows, enter together.
PAIR = {"a": vectors.array((6, 3), seed=1), "b": vectors.array((6, 2, 2), seed=2)}
JOINT = dict(penalties={"a": "group", "b": "group"}, joint=[["a", "b"]])
JOINT_UNITS = [{}, dict(weight="sqrt"), dict(block=2), dict(block=2, weight="sqrt"), dict(parts=2)]


def unit_of_row(options):
    """The unit of each of six rows."""
    block, parts = options.get("block", 1), options.get("parts", 1)
    return np.arange(6) % (6 // parts) // block


def joint_norm(x, unit):
    squares = sum((x[name].reshape(6, -1) ** 2).sum(axis=1) for name in x)
    return np.sqrt(np.bincount(unit, squares))


@pytest.mark.parametrize("options", JOINT_UNITS, ids=str)
def test_a_joint_gamma_scales_all_its_slices_alike(options, close):
    V = [vectors.array((6, 3), seed=3), vectors.array((6, 2, 2), seed=4)]
    unit = unit_of_row(options)
    a, b = dessilbi.gamma(V, kappa=2.0, lam=0.3, penalty="group", **options)
    size = np.bincount(unit) * 7 if options.get("weight") else 1.0
    norm = joint_norm(dict(a=V[0], b=V[1]), unit)
    scale = 2 * np.maximum(1 - 0.3 * np.sqrt(size) / norm, 0)[unit]
    close(a, scale[:, None] * V[0])
    close(b, scale[:, None, None] * V[1])


@pytest.mark.parametrize("kappa, nu, alpha", [(1.0, 10.0, 1.0), (2.0, 1.0, 0.5), (0.5, 3.0, 1.0)])
@pytest.mark.parametrize("options", JOINT_UNITS, ids=str)
def test_joint_entry_by_initialisation(kappa, nu, alpha, options):
    """Without a gradient a unit enters exactly if its *joint* norm is larger than kappa * lam.

    With weights the threshold is times the square root of its joint size; either tensor alone
    would decide otherwise for the ratios close to 1.
    """
    lam, unit = 0.7, unit_of_row(options)
    size = 7 * np.bincount(unit)
    ratio = np.array([1 - 1e-6, 1 + 1e-6, 0.3, 1.5, 0.99, 1.01])[: len(size)]
    threshold = kappa * lam * (np.sqrt(size) if options.get("weight") else 1.0)
    scale = (ratio * threshold / joint_norm(PAIR, unit))[unit]
    W = {n: x * scale.reshape(-1, *[1] * (x.ndim - 1)) for n, x in PAIR.items()}
    both = dict(kappa=kappa, nu=nu, alpha=alpha, lam=lam, **JOINT, **options)
    states = list(islice(dessilbi_states(W, no_gradient, **both), 401))
    k = np.arange(401)
    reach = ratio[:, None] * (1 - (1 - kappa * alpha / nu) ** k)
    first = np.where((reach > 1).any(axis=1), (reach > 1).argmax(axis=1), -1)
    assert (first > 0).tolist() == (ratio > 1).tolist()
    for name, axes in (("a", (1,)), ("b", (1, 2))):
        on = np.array([(s.Gamma[name] != 0).all(axis=axes) for s in states])
        any_on = np.array([(s.Gamma[name] != 0).any(axis=axes) for s in states])
        np.testing.assert_array_equal(on, any_on)
        entered = np.where(on.any(axis=0), on.argmax(axis=0), -1)
        np.testing.assert_array_equal(entered, first[unit])


@pytest.mark.parametrize("options", JOINT_UNITS, ids=str)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_joint_telescoping_identity(options, momentum):
    """W/kappa + V + sum alpha*u is constant for each tensor of a family."""
    n_steps, kappa, alpha = 800, 1.5, 0.02
    streams = {n: list(vectors.gradients(x.shape, n_steps, seed=7)) for n, x in PAIR.items()}
    step_number = iter(range(n_steps))

    def grad(W):
        k = next(step_number)
        return {name: listed[k] for name, listed in streams.items()}

    both = dict(kappa=kappa, nu=2.0, alpha=alpha, lam=0.3, momentum=momentum, **JOINT, **options)
    states = list(islice(dessilbi_states(PAIR, grad, **both), n_steps + 1))
    for name, listed in streams.items():
        u = [s.m[name] for s in states[1:]] if momentum else listed
        first, last = states[0], states[-1]
        residual = theory.telescoping_residual(
            first.W[name], first.V[name], last.W[name], last.V[name], alpha * sum(u), kappa=kappa
        )
        assert residual < 1e-12
        assert last.Gamma[name].any()


def test_a_family_of_one_is_a_tensor_alone():
    grads = dict(alpha=0.5, nu=1.0, lam=0.5, penalties={"a": "group", "b": "l1"})
    alone, single = (
        list(islice(dessilbi_states(PAIR, no_gradient, joint=joint, **grads), 30))[-1]
        for joint in ((), [["b"], ["a"]])
    )
    assert list(alone.Gamma) == list(single.Gamma) == ["a", "b"]
    for name in PAIR:
        assert alone.Gamma[name].any()
        np.testing.assert_array_equal(alone.Gamma[name], single.Gamma[name])


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(joint=[["a", "c"]]), r"penalties and joint must name tensors of W, got \['c'\]"),
        (dict(joint=[["a", "b"], ["a"]]), r"joint must name every tensor once, got \['a'\] again"),
        (dict(penalties={"a": "group", "b": "l1"}), r"one penalty, got \['group', 'l1'\]"),
        (dict(penalties={"a": "group"}), r"one penalty, got \['group', None\]"),
        (dict(group_dim=1), r"joint arrays must have equally many units, got \[3, 2\]"),
        (dict(block=4), r"block \* parts must divide the 6 slices of an axis, got 4 \* 1"),
        (dict(parts=4), r"block \* parts must divide the 6 slices of an axis, got 1 \* 4"),
    ],
)
def test_bad_families_are_one_clear_line(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        next(dessilbi_states(PAIR, no_gradient, alpha=0.1, **{**JOINT, **changes}))
    assert "\n" not in str(error.value)


# ---- Bad input -------------------------------------------------------------------------------

W = np.ones((3, 2))
BAD_OPTIONS = [
    (dict(alpha=0.0), "alpha must be positive and finite, got 0.0"),
    (dict(alpha=lambda k: np.nan), "alpha must be positive and finite, got nan"),
    (dict(kappa=-1.0), "kappa must be positive and finite, got -1.0"),
    (dict(nu=np.inf), "nu must be positive and finite, got inf"),
    (dict(nu=np.nan), "nu must be positive and finite, got nan"),
    (dict(lam=0.0), "lam must be positive and finite, got 0.0"),
    (dict(momentum=1.0), r"momentum must be in \[0, 1\), got 1.0"),
    (dict(momentum=np.nan), r"momentum must be in \[0, 1\), got nan"),
    (dict(dampening=-0.1), r"dampening must be in \[0, 1\), got -0.1"),
    (dict(weight_decay=-1.0), "weight_decay must be at least 0 and finite, got -1.0"),
    (dict(nesterov=True, momentum=0), "nesterov needs momentum > 0 .* got momentum 0"),
    (dict(nesterov=True, dampening=0.1), "nesterov needs .* dampening 0.1"),
    (dict(coupling="both"), "coupling must be .* got 'both'"),
    (dict(penalty="l2"), "penalty must be .* got 'l2'"),
    (dict(penalty="group", weight="size"), "weight must be .* got 'size'"),
    (dict(penalty="group", group_dim=2), "group_dim must name axes of a 2-d array, got 2"),
]


@pytest.mark.parametrize(
    "options, message", BAD_OPTIONS, ids=lambda x: str(x).split(" at 0x")[0][:40]
)
def test_bad_options_are_one_clear_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        path(W, no_gradient, 1, **{"alpha": 0.1, **options})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "grad, penalties, message",
    [
        (no_gradient, {"v": "l1"}, r"penalties and joint must name tensors of W, got \['v'\]"),
        (lambda W: {"w": np.ones(3)}, {}, r"grad must have the shape of W, \(3, 2\), got \(3,\)"),
        (lambda W: {}, {}, r"grad must return a gradient of every tensor, missing \['w'\]"),
    ],
)
def test_bad_tensors_are_one_clear_line(grad, penalties, message):
    with pytest.raises(ValueError, match=message):
        list(islice(dessilbi_states({"w": W}, grad, penalties=penalties, alpha=0.1), 2))


def test_a_step_bound_needs_some_curvature():
    with pytest.raises(ValueError, match="L must be positive where there is no coupling, got 0"):
        theory.step_bound(0.0, kappa=1.0)


# ---- Length ----------------------------------------------------------------------------------


def test_path_length_of_a_decaying_weight(close):
    """Without a gradient, before any entry, W shrinks by q in each step, on a straight line."""
    W, q = vectors.array((3, 2)), 1 - 2.0 * 0.1 / 5.0  # kappa * alpha / nu
    states = dessilbi_states(
        {"w": W}, no_gradient, penalties={"w": "l1"}, kappa=2.0, nu=5.0, alpha=0.1, lam=100.0
    )
    path = record(states, 80)
    length = theory.path_length(path.W, path.Gamma)
    close(length, np.linalg.norm(W) * (1 - q ** np.arange(81)))


def test_path_length_of_a_polygon(close):
    """The corners of a regular polygon, as one array and as parts of one."""
    angle = 2 * np.pi * np.arange(8) / 7
    corners = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    length = theory.path_length(corners)
    close(length, 2 * np.sin(np.pi / 7) * np.arange(8))
    close(theory.path_length({"x": corners[:, 0]}, {"y": corners[:, 1:]}), length)
    close(theory.path_length(corners[:1]), [0.0])
    close(theory.path_length(corners, np.zeros((8, 0))), length)  # an empty tensor adds nothing


@pytest.mark.parametrize("parts", [(), ({},), (np.zeros((0, 2)),), (np.zeros(3), np.zeros(4))])
def test_path_length_needs_states(parts):
    with pytest.raises(ValueError, match="parts must hold one number of states"):
        theory.path_length(*parts)

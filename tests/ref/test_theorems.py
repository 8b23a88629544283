"""Theorems of the book as inequalities and identities on problems where both sides are known."""

from itertools import islice

import numpy as np
import pytest
import vectors
from numpy.testing import assert_allclose

from dslbi_ref import theory, transforms
from dslbi_ref.dessilbi import dessilbi_states
from dslbi_ref.iss import iss_path
from dslbi_ref.lbi import lbi_path, lbi_states
from dslbi_ref.path import record
from dslbi_ref.solvers.linear_system import solver
from dslbi_ref.solvers.projections import kernel_projector
from dslbi_ref.split_iss import split_iss_path
from dslbi_ref.split_lbi import split_lbi_states


def integral(path, times, values):
    """Integral from 0 to each time of the values that hold from each event to the next."""
    edges = np.append(path.t, np.inf)
    spent = np.clip(times[:, None], edges[:-1], edges[1:]) - edges[:-1]
    return spent @ values


def design(n=200, p=30, s=4, sigma=0.5, seed=0):
    """X, y, S (mask), and of the true columns: their Gram matrix and least squares fit."""
    X, y, beta = vectors.linear(n, p, k=s, sigma=sigma, seed=seed)
    S = beta != 0
    return X, y, S, X[:, S].T @ X[:, S] / n, np.linalg.lstsq(X[:, S], y)[0]


def clock_noise(X, y, S):
    """``X_T'(y - fit on S) / n``: what drives the false clocks beside the true ones."""
    fit = X[:, S] @ np.linalg.lstsq(X[:, S], y)[0]
    return X[:, ~S].T @ (y - fit) / len(y)


# ---- Nearness of LBI to the inverse scale space


@pytest.mark.parametrize("kappa", [2.0, 20.0, 200.0])
@pytest.mark.parametrize("n, p", [(60, 20), (30, 50)])
def test_lbi_stays_within_its_bound_of_the_exact_path(n, p, kappa):
    """Step 1/(2 kappa L): ``|X (B - G)|^2 / n <= integral of (|g| + |g - end| / 2)^2 / kappa``."""
    X, y, _ = vectors.linear(n, p, sigma=0.5)
    exact = iss_path(X, y, t_max=np.inf)
    alpha = 1 / (2 * kappa * np.linalg.norm(X, 2) ** 2 / n)
    states = record(lbi_states(X, y, kappa=kappa, alpha=alpha), int(29 * exact.t[1] / alpha))
    t, beta, z = states.t[1:], states.beta[1:], states.z[1:]
    B = np.concatenate([np.zeros((1, p)), np.cumsum(alpha * beta[:-1], axis=0)])
    gap = B - integral(exact, t, exact.gamma)
    end = exact.gamma[-1]
    size = np.linalg.norm(exact.gamma, axis=1) + np.linalg.norm(exact.gamma - end, axis=1) / 2
    bound = integral(exact, t, size**2) / kappa
    error = ((gap @ X.T) ** 2).sum(axis=1) / n
    assert (error <= bound + 1e-12).all()
    assert error.max() > 1e-4 * bound.max()  # at most a factor of 100 in the distance
    h = ((X**2).sum(axis=0) / n).max()
    rho = exact.at(t).z
    assert (np.abs(z - rho).max(axis=1) <= np.sqrt(h * bound) + 1e-12).all()


def test_on_a_fixed_support_lbi_is_gradient_descent(close):
    X, y, _ = vectors.linear(60, 20, sigma=0.5)
    H, c, kappa, alpha = X.T @ X / 60, X.T @ y / 60, 5.0, 0.05
    beta = record(lbi_states(X, y, kappa=kappa, alpha=alpha), 400).beta[1:]
    seen = set()
    for before, after in zip(beta[:-1], beta[1:], strict=True):
        on = before != 0
        if (np.sign(before) == np.sign(after)).all() and on.any():
            seen.add(on.sum())
            close(after[on], before[on] - alpha * kappa * (H[np.ix_(on, on)] @ before[on] - c[on]))
    assert len(seen) > 3


# ---- Consistency


@pytest.mark.parametrize("kappa", [3.0, np.inf])
def test_false_clocks_follow_the_true_ones(kappa):
    """``z_T = X_T'X_S (X_S'X_S)^-1 z_S + t X_T'(1 - P_S) noise / n`` while T is silent."""
    X, y, S, gram, _ = design()
    if kappa == np.inf:
        path = iss_path(X, y, t_max=12.0)
    else:
        path = lbi_path(X, y, kappa=kappa, times=np.linspace(0, 12, 60))
    silent = ~path.gamma[:, ~S].any(axis=1)
    assert silent.sum() > 3 and path.gamma[silent].any()
    project = X[:, ~S].T @ X[:, S] / len(y) @ np.linalg.inv(gram)
    expected = path.z[:, S] @ project.T + path.t[:, None] * clock_noise(X, y, S)
    assert_allclose(path.z[silent][:, ~S], expected[silent], atol=1e-12)


@pytest.mark.parametrize("kappa", [20.0, 100.0])
def test_no_false_entry_of_lbi_before_its_stopping_time(kappa):
    for seed in range(10):
        X, y, S, gram, best = design(sigma=1.0, seed=seed)
        eta = 1 - theory.irrepresentable(X, S)
        e_min = np.linalg.eigvalsh(gram)[0]
        reach = np.abs(best).max() + np.sqrt(best @ gram @ best / e_min)
        slack = 1 - (1 - eta) * (1 + reach / kappa)
        assert 0 < slack < eta
        tau = slack / np.abs(clock_noise(X, y, S)).max()
        path = lbi_path(X, y, kappa=kappa, times=np.linspace(0, 5 * tau, 400))
        assert np.abs(path.gamma[:, S]).max() <= reach
        entries = path.entry_times()
        assert entries[~S].min() > tau > entries[S].max()


def test_the_true_support_is_complete_by_the_time_of_the_theorem():
    """At ``(4 + 2 log s) / (e_min m)`` it is least squares, and ``|d| <= 4 sqrt(s) / (e_min t)``.

    On the columns of S alone, which is where the path lives until a false entry.
    """
    for seed in range(10):
        X, y, S, gram, best = design(sigma=1.0, s=6, seed=seed)
        e_min, m, s = np.linalg.eigvalsh(gram)[0], np.abs(best).min(), S.sum()
        path = iss_path(X[:, S], y, t_max=np.inf)
        bound = (4 + 2 * np.log(s)) / (e_min * m)
        assert path.t[-1] < bound < 30 * path.t[-1]
        assert_allclose(path.gamma[-1], best, atol=1e-12)
        # the distance is constant on an interval: the bound is tightest at its end
        distance = np.linalg.norm(path.gamma - best, axis=1)[:-1]
        assert (distance <= 4 * np.sqrt(s) / (e_min * path.t[1:])).all()


@pytest.mark.parametrize("kappa", [2.0, 20.0])
@pytest.mark.parametrize("fraction", [0.5, 1.5])
def test_lbi_has_all_signs_by_the_time_of_the_theorem(kappa, fraction):
    for seed in range(5):
        X, y, S, gram, best = design(sigma=1.0, s=6, seed=seed)
        A, s = X[:, S], S.sum()
        e_min, L = np.linalg.eigvalsh(gram)[[0, -1]]
        m, size = np.abs(best).min(), np.abs(best).sum() + best @ best / (2 * kappa)
        bound = (6 + 2 * np.log(2 * s)) / m
        bound += (max(np.log(size / (4 * s * m)), 0) + np.log(2 * s) / 2) / kappa
        bound /= e_min * (1 - fraction / 2)
        t = np.geomspace(1, 20, 200) * bound
        path = lbi_path(A, y, kappa=kappa, alpha=fraction / (kappa * L), times=t)
        assert (np.sign(path.gamma) == np.sign(best)).all()
        early = lbi_path(A, y, kappa=kappa, alpha=fraction / (kappa * L), times=t / 200)
        assert (np.sign(early.gamma[0]) != np.sign(best)).any()


@pytest.mark.parametrize("r, wrong", [(0.45, False), (0.6, True)])
def test_beyond_one_a_false_entry_comes_first(r, wrong):
    """x_3 = r (x_1 + x_2) + rest, no noise: the number of these signs is 2 r."""
    Q, _ = vectors.orthogonal(40, 3)
    X = Q @ np.array([[1, 0, r], [0, 1, r], [0, 0, np.sqrt(1 - 2 * r * r)]])
    assert_allclose(theory.irrepresentable(X, [1, 1, 0]), 2 * r)
    *true, false = iss_path(X, X @ np.array([1.0, 1.2, 0.0]), t_max=np.inf).entry_times()
    assert (false < max(true)) == wrong
    assert (false == np.inf) != wrong


# ---- Split LBI


def split_problem(n=50, p=30, seed=0, sigma=1.0):
    X, y, beta = vectors.step_signal(n, p, sigma=sigma, seed=seed)
    D = np.vstack([transforms.differences(p).toarray(), np.eye(p)[:3]])
    return X, y, D, beta


def reduced(X, D, nu):
    """H, and G = D A^-1 D'."""
    G = D @ solver(X, D, nu)(D.T)
    return (np.eye(len(D)) - G) / nu, G


@pytest.mark.parametrize("nu", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("n", [20, 50])
def test_noise_of_the_split_clocks_is_at_most_that_of_their_gram_matrix(nu, n):
    """``D A^-1 (X'X/n) A^-1 D' = G H``, between 0 and H; and ``0 <= H <= 1/nu``."""
    X, _, D, _ = split_problem(n)
    H, G = reduced(X, D, nu)
    half = D @ solver(X, D, nu)(X.T) / np.sqrt(n)
    assert_allclose(half @ half.T, G @ H, atol=1e-11 / nu)
    for square in (H, np.eye(len(D)) / nu - H, H - half @ half.T):
        assert np.linalg.eigvalsh(square)[0] > -1e-11 / nu


def test_no_false_row_before_the_split_stopping_time():
    sigma, nu, late = 0.5, 5.0, 0
    for seed in range(20):
        X, y, D, beta = split_problem(n=400, sigma=sigma, seed=seed)
        S = np.abs(D @ beta) > 1e-12
        H, _ = reduced(X, D, nu)
        eta = 1 - theory.split_irrepresentable(X, D, S, nu=nu)
        n, m = len(y), len(D)
        tau = eta / (2 * sigma) * np.sqrt(n / np.log(m) / np.diag(H)[~S].max())
        assert tau >= eta * np.sqrt(n * nu / np.log(m)) / (2 * sigma)
        entries = split_iss_path(X, y, D, nu=nu, t_max=50 * tau).entry_times()
        assert entries[~S].min() > tau
        late += entries[~S].min() < 20 * tau
    assert late > 10


def test_without_noise_the_split_plateau_is_the_truth(close):
    X, _, D, beta = split_problem(n=60)
    S = np.abs(D @ beta) > 1e-12
    assert theory.split_irrepresentable(X, D, S, nu=5.0) < 1
    path = split_iss_path(X, X @ beta, D, nu=5.0, t_max=np.inf)
    assert not path.gamma[:, ~S].any()
    close(path.gamma[-1], np.where(S, D @ beta, 0))
    close(path.beta[-1], beta)


@pytest.mark.parametrize("nu", [0.1, 3.0, 100.0])
def test_a_split_plateau_is_a_soft_constraint(nu, close):
    """On every interval beta minimises ``f + |D_J beta|^2 / (2 nu)``, and gamma_S is D_S beta."""
    X, y, D, _ = split_problem()
    path = split_iss_path(X, y, D, nu=nu)
    for beta, gamma in zip(path.beta, path.gamma, strict=True):
        J = gamma == 0
        A = X.T @ X / len(y) + D[J].T @ D[J] / nu
        close(beta, np.linalg.solve(A, X.T @ y / len(y)))
        close(gamma[~J], D[~J] @ beta)
    assert (path.gamma != 0).sum(axis=1).max() > 5


def test_the_revised_estimator_is_nearer_once_no_true_row_is_missing():
    nearer = further = 0
    for seed in range(5):
        X, y, D, truth = split_problem(seed=seed)
        project = kernel_projector(D)
        path = split_iss_path(X, y, D, nu=5.0)
        S = np.abs(D @ truth) > 1e-12
        for beta, gamma in zip(path.beta, path.gamma, strict=True):
            revised = np.linalg.norm(project(beta, gamma == 0) - truth)
            dense = np.linalg.norm(beta - truth)
            if (gamma[S] != 0).all():
                assert revised <= dense * (1 + 1e-12)
                nearer += revised < 0.9 * dense
            else:
                further += revised > dense
    assert nearer > 3 and further > 3


@pytest.mark.parametrize("nu", [1e-3, 1.0, 1e3, 1e6])
def test_the_kernel_of_X_bounds_the_split_condition_from_below(nu):
    """For w with X w = 0: ``IRR(nu) |D_J w|_1 >= |D_I w|_1``."""
    X, _, D, beta = split_problem(n=20)
    I = np.abs(D @ beta) > 1e-12
    number = theory.split_irrepresentable(X, D, I, nu=nu)
    kernel = np.linalg.svd(X)[2][20:]
    ratios = []
    for seed in range(200):
        w = kernel.T @ vectors.array(10, seed)
        ratios.append(np.abs(D[I] @ w).sum() / np.abs(D[~I] @ w).sum())
    assert number >= max(ratios) > 0.1


def test_the_split_condition_may_rise_before_it_falls():
    X, D, on = vectors.array((8, 4), 31), vectors.array((5, 4), 1031), np.arange(5) < 1
    few, more, many = (theory.split_irrepresentable(X, D, on, nu=nu) for nu in (1e-3, 0.3, 1e4))
    assert more > 1.1 * few and many < 0.01 * few


def test_the_part_across_the_kernel_is_of_order_nu():
    """Of ``(Sigma + D_J'D_J / nu) beta = D_S' rho``, for the worst of many rho, and the limit of
    the part along the kernel."""
    X, _, D, beta = split_problem(n=60)
    S = np.abs(D @ beta) > 1e-12
    Sigma, across = X.T @ X / len(X), D[~S].T @ D[~S]
    _, sizes, axes = np.linalg.svd(D[~S])
    rank = (sizes > 1e-10).sum()
    V, U = axes[:rank].T, axes[rank:].T
    rho = D[S].T @ np.sign(vectors.array((S.sum(), 50), seed=3))
    limit = U @ np.linalg.solve(U.T @ Sigma @ U, U.T @ rho)
    K = V.T @ across @ V
    bound = np.linalg.norm(V.T @ (rho - Sigma @ limit), axis=0) / np.linalg.eigvalsh(K)[0]
    for nu in (1e-2, 1e-4, 1e-6):
        found = np.linalg.solve(Sigma + across / nu, rho)
        assert (np.linalg.norm(V.T @ found, axis=0) <= nu * bound * (1 + 1e-6)).all()
    assert_allclose(U.T @ found, U.T @ limit, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", [True, False])
def test_the_first_split_entry_of_a_stiff_spring(kernel):
    """Differences have constants in their kernel, which the data fit at no cost first."""
    X, y, D, _ = split_problem(n=60)
    if kernel:
        D = transforms.differences(X.shape[1]).toarray()
    Sigma, c = X.T @ X / len(X), X.T @ y / len(X)
    U = np.linalg.svd(D)[2][np.linalg.matrix_rank(D) :].T
    assert U.shape[1] == kernel
    rest = c - Sigma @ U @ np.linalg.solve(U.T @ Sigma @ U, U.T @ c)
    t0 = 1 / np.abs(D @ np.linalg.pinv(D.T @ D) @ rest).max()
    path = split_iss_path(X, y, D, nu=1e-8, t_max=2 * t0)
    assert_allclose(path.entry_times().min(), t0, rtol=1e-4)
    if kernel:  # where the kernel is forgotten, another time comes out
        forgotten = 1 / np.abs(D @ np.linalg.pinv(D.T @ D) @ c).max()
        assert abs(forgotten / t0 - 1) > 0.02


def test_a_loose_split_thresholds_least_squares():
    X, y, D, _ = split_problem()
    target = D @ np.linalg.lstsq(X, y)[0]
    nu = 1e9
    path = split_iss_path(X, y, D, nu=nu, t_max=np.inf)
    assert_allclose(path.entry_times() / nu, 1 / np.abs(target), rtol=1e-5)
    k = len(path.t) // 2
    on = np.abs(target) * path.t[k] / nu >= 1 - 1e-6
    assert 0 < on.sum() < len(D)
    assert_allclose(path.gamma[k], np.where(on, target, 0), rtol=1e-5, atol=1e-12)


def test_the_pull_of_the_split_is_conserved(close):
    X, y, D, _ = split_problem()
    kappa, alpha = 4.0, 0.01
    states = split_lbi_states(X, y, D, nu=1.0, kappa=kappa, alpha=alpha, start="zero")
    states = record(states, 1500)
    assert states.gamma[-1].any()
    g = (states.beta @ X.T - y) @ X / len(y)
    pulled = np.concatenate([np.zeros((1, 30)), alpha * np.cumsum(g[:-1], axis=0)])
    close(states.z @ D + states.beta / kappa + pulled, np.zeros((1501, 30)))


# ---- Convergence of DessiLBI


def logistic_run(fraction, n_steps, kappa=2.0, nu=1.0, lam=0.05, decay=0.1):
    """DessiLBI on a logistic loss with a ridge: gradient, states, and the options of the run."""
    X, y, _ = vectors.labels()
    n = len(y)
    L = np.linalg.norm(X, 2) ** 2 / (4 * n) + decay

    def loss(w):
        return np.logaddexp(0, -y * (X @ w)).mean() + decay * w @ w / 2

    def grad(W):
        w = W["w"]
        return {"w": -X.T @ (y / (1 + np.exp(y * (X @ w)))) / n + decay * w}

    alpha = fraction * theory.step_bound(L, kappa=kappa, nu=nu)
    W = {"w": vectors.array(15, seed=5)}
    options = dict(alpha=alpha, kappa=kappa, nu=nu, lam=lam, momentum=0.0)
    states = list(islice(dessilbi_states(W, grad, penalties={"w": "l1"}, **options), n_steps + 1))
    return grad, states, options | dict(L=L, loss=loss)


@pytest.mark.parametrize("fraction", [0.2, 0.95])
def test_a_subgradient_of_the_lyapunov_function_is_bounded_by_the_move(fraction):
    """At (P_{k+1}, g_k) one is at most ``(alpha (L + 2/nu) + 1/kappa + 1) |dP|`` long."""
    grad, states, o = logistic_run(fraction, 300)
    b = o["alpha"] * (o["L"] + 2 / o["nu"]) + 1 / o["kappa"] + 1
    worst = 0.0
    for old, new in zip(states[:-1], states[1:], strict=True):
        W, G = new.W["w"], new.Gamma["w"]
        g_old, g_new = (s.V["w"] - s.Gamma["w"] / o["kappa"] for s in (old, new))
        pull = (W - G) / o["nu"]
        part_W = o["alpha"] * (grad(new.W)["w"] + pull)
        part_Gamma = -o["alpha"] * pull + g_new - g_old  # g_new is a subgradient of Omega there
        part_g = old.Gamma["w"] - G  # and the old Gamma one of its conjugate at g_old
        size = np.linalg.norm(np.concatenate([part_W, part_Gamma, part_g]))
        move = np.hypot(np.linalg.norm(W - old.W["w"]), np.linalg.norm(G - old.Gamma["w"]))
        assert size <= b * move + 1e-15
        worst = max(worst, size / (b * move + 1e-300)) if move > 1e-12 else worst
    assert worst > 0.2


@pytest.mark.parametrize("fraction", [0.2, 0.95])
def test_squared_moves_sum_to_at_most_the_excess_loss(fraction):
    """``rho * sum |dP|^2 <= alpha (Lbar(P_0) - inf L)``, and so for the smallest gradient."""
    grad, states, o = logistic_run(fraction, 4000)
    W, G = (np.array([getattr(s, name)["w"] for s in states]) for name in ("W", "Gamma"))
    alpha, kappa, nu = o["alpha"], o["kappa"], o["nu"]
    rho = 1 / kappa - alpha * (o["L"] + 2 / nu) / 2
    lbar = np.array([o["loss"](w) for w in W]) + ((W - G) ** 2).sum(axis=1) / (2 * nu)
    assert (np.diff(lbar) <= 1e-15).all()  # the coupled loss goes down too
    excess = lbar[0] - o["loss"](W[-1])
    moved = (np.diff(W, axis=0) ** 2).sum() + (np.diff(G, axis=0) ** 2).sum()
    assert 0.01 * alpha * excess < rho * moved <= alpha * excess
    size = [
        ((grad(s.W)["w"] + (w - g) / nu) ** 2).sum() for s, w, g in zip(states, W, G, strict=True)
    ]
    steps = np.arange(1, len(states))
    bound = excess / (alpha * kappa**2 * rho * steps)
    assert (np.minimum.accumulate(size[:-1]) <= bound).all()


@pytest.mark.parametrize("fraction", [0.2, 0.95])
def test_the_path_has_finite_length_and_ends_at_a_critical_point(fraction):
    grad, states, o = logistic_run(fraction, 6000)
    moves = np.array(
        [
            np.hypot(
                np.linalg.norm(b.W["w"] - a.W["w"]), np.linalg.norm(b.Gamma["w"] - a.Gamma["w"])
            )
            for a, b in zip(states[:-1], states[1:], strict=True)
        ]
    )
    assert moves[3000:].sum() < 1e-3 * moves.sum()
    last = states[-1]
    assert np.abs(last.W["w"] - last.Gamma["w"]).max() < 1e-6
    assert np.abs(grad(last.W)["w"]).max() < 1e-6


@pytest.mark.parametrize("stiff", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("kappa, nu", [(1.0, 10.0), (5.0, 0.3)])
def test_the_recalled_bound_is_too_large_for_every_curvature(stiff, kappa, nu):
    """Loss h w^2 / 2: the joint Hessian has a top eigenvalue between h + 1/nu and h + 2/nu."""
    h = stiff / nu
    top = h / 2 + 1 / nu + np.hypot(h / 2, 1 / nu)
    assert h + 1 / nu < top <= h + 2 / nu
    recalled, safe = 2 / (kappa * (h + 1 / nu)), theory.step_bound(h, kappa=kappa, nu=nu)
    exact = 2 / (kappa * top)
    assert safe <= exact < recalled

    def size(alpha, n_steps=4000):
        states = dessilbi_states(
            {"w": np.array([1e3 * kappa])},
            lambda W: {"w": h * W["w"]},
            penalties={"w": "l1"},
            alpha=alpha,
            kappa=kappa,
            nu=nu,
            momentum=0.0,
        )
        for s in islice(states, n_steps):
            if not abs(s.W["w"].item()) < 1e12:
                return np.inf
        return abs(s.W["w"] - s.Gamma["w"]).item()

    assert size((exact + recalled) / 2) == np.inf
    assert size(0.95 * safe) < 1.0

"""What a release changes: Split LBI's own start, entries by the gradient, and not by the birth."""

from itertools import islice

import numpy as np
import pytest
import vectors

from dslbi_ref import dessilbi_states, split_lbi_states
from dslbi_ref.release import dense_start, scaled_levels
from dslbi_ref.split_lbi import split_lbi_path


def ridge(X, y, nu):
    """Minimiser of the squared loss and |W|^2 / (2 nu)."""
    n, p = X.shape
    return np.linalg.solve(X.T @ X / n + np.eye(p) / nu, X.T @ y / n)


def gradient(X, y):
    return lambda W: {"w": X.T @ (X @ W["w"] - y) / len(y)}


def path(W, grad, n_steps, *, penalty="l1", **options):
    states = dessilbi_states({"w": W}, grad, penalties={"w": penalty}, momentum=0.0, **options)
    return list(islice(states, n_steps + 1))


def entries(states):
    """The state at which each entry is first selected; -1: none."""
    active = np.array([state.Gamma["w"] != 0 for state in states])
    return np.where(active.any(0), active.argmax(0), -1)


def case(orthogonal=False, seed=0):
    if orthogonal:
        X, y = vectors.orthogonal(seed=seed)
    else:
        X, y, _ = vectors.linear(seed=seed)
    L = np.linalg.norm(X, 2) ** 2 / len(y)
    return X, y, L


@pytest.mark.parametrize("lam", [1.0, 0.3])
@pytest.mark.parametrize("kappa", [1.0, 20.0])
def test_after_a_rest_at_the_minimiser_it_is_split_lbi(kappa, lam, close):
    """State for state, where t0 is a whole number of steps; the release is at time 0."""
    X, y, L = case()
    nu = 0.5
    W0 = ridge(X, y, nu)
    t0 = lam * nu / np.abs(W0).max()
    m = int(np.ceil(t0 * kappa * (L + 2 / nu)))  # half of the safe step
    options = dict(nu=nu, kappa=kappa, lam=lam, alpha=t0 / m)
    rest = 300  # at the minimiser nothing moves
    states = path(W0, gradient(X, y), rest + m + 600, release=rest, pull=1.0, **options)
    twin = list(islice(split_lbi_states(X, y, np.eye(len(W0)), **options), 602))
    close(states[rest].W["w"], twin[0].beta)
    assert states[rest].t == 0 and twin[1].t == pytest.approx(t0, rel=1e-12)
    for mine, its in zip(states[rest + m :], twin[1:], strict=True):
        close(mine.t, its.t)
        close(mine.W["w"], its.beta)
        close(mine.V["w"], its.z)
        close(mine.Gamma["w"], its.gamma)
    entered = entries(states[rest + m + 1 :])
    np.testing.assert_array_equal(entered, entries_of(twin[2:]))
    assert (entered > 0).sum() > 3


def entries_of(twin):
    active = np.array([state.gamma != 0 for state in twin])
    return np.where(active.any(0), active.argmax(0), -1)


def test_entry_times_after_the_release_are_those_of_split_lbi(close):
    """Orthogonal design: entries do not wait for each other, and have a closed form."""
    X, y, L = case(orthogonal=True)
    nu, lam, kappa = 2.0, 1.0, 5.0
    W0 = ridge(X, y, nu)
    t0 = lam * nu / np.abs(W0).max()
    m = int(np.ceil(t0 * kappa * (L + 2 / nu)))
    alpha = t0 / m
    states = path(
        W0, gradient(X, y), 10 + 8 * m, release=10, pull=1.0, nu=nu, kappa=kappa, alpha=alpha
    )
    z = np.array([state.V["w"] for state in states[10:]])
    exact = lam * nu / np.abs(W0)  # z = t W0 / nu
    times = np.arange(len(z)) * alpha
    D = np.eye(len(W0))
    its = split_lbi_path(X, y, D, nu=nu, kappa=kappa, alpha=alpha, times=times).entry_times()
    found = np.full(len(W0), np.inf)
    for j, size in enumerate(np.abs(z).T):
        if size[-1] > lam * (1 + 1e-9):
            k = np.argmax(size > lam * (1 + 1e-9))
            found[j] = times[k - 1] + alpha * (lam - size[k - 1]) / (size[k] - size[k - 1])
    reached = np.isfinite(found)
    assert 4 < reached.sum() < len(W0)
    close(found[reached], its[reached])
    close(found[reached], exact[reached])


@pytest.mark.parametrize("penalty", ["l1", "group"])
def test_what_enters_first_has_the_largest_gradient_of_the_loss(penalty):
    """At the minimiser W / nu = -grad L: the first entry is that of the largest |X'residual|, and
    the order of the largest initial weights is another one."""
    for seed in range(5):
        X, y, L = case(seed=seed)
        nu, kappa = 3.0, 2.0
        alpha = 1 / (kappa * (L + 2 / nu))
        born = vectors.array(X.shape[1], seed=100 + seed, scale=2.0)
        rest = 4000
        shape = (5, 4) if penalty == "group" else (20,)

        def grad(W, X=X, y=y, shape=shape):
            return {"w": (X.T @ (X @ W["w"].ravel() - y) / len(y)).reshape(shape)}

        options = dict(nu=nu, kappa=kappa, alpha=alpha, lam=0.2, penalty=penalty)
        states = path(born.reshape(shape), grad, rest + 400, release=rest, pull=1.0, **options)
        at_release = states[rest]
        size = np.abs(grad(at_release.W)["w"])
        born_size = np.abs(born.reshape(shape))
        if penalty == "group":
            size, born_size = (np.linalg.norm(x.reshape(shape), axis=1) for x in (size, born_size))
        active = np.array([s.Gamma["w"].reshape(len(size), -1).any(1) for s in states])
        first = active[active.any(1).argmax()]
        assert first.any() and size[first].min() >= size[~first].max()
        without = path(born.reshape(shape), grad, 4000, **options)
        active = np.array([s.Gamma["w"].reshape(len(size), -1).any(1) for s in without])
        first = active[active.any(1).argmax()]
        if penalty == "l1":  # at random weights the largest enter, whatever the loss says
            assert born_size[first].min() > np.median(born_size)


def test_blocks_that_do_not_see_each_other_enter_in_the_order_of_the_gradient():
    """X'X = n I: all entries, not the first alone, follow |X'residual| at the minimiser."""
    X, y, L = case(orthogonal=True)
    nu, kappa = 1.0, 50.0
    alpha = 0.1 / (kappa * (L + 2 / nu))
    W0 = ridge(X, y, nu)
    states = path(W0, gradient(X, y), 40000, release=1, pull=1.0, nu=nu, kappa=kappa, alpha=alpha)
    entered = entries(states)
    size = np.abs(X.T @ (y - X @ W0))
    order = np.argsort(-size)
    reached = entered[order][entered[order] >= 0]
    assert len(reached) > 4 and (np.diff(reached) > 0).all()
    assert (entered[order][len(reached) :] == -1).all()


def test_after_a_release_the_initial_weights_are_forgotten(close):
    """The rest contracts towards the minimiser: two births, one path. Without it, two paths; and a
    loss without gradient has nothing to say, so that entry is by initialisation as ever."""
    X, y, L = case()
    nu, kappa = 1.0, 1.0
    options = dict(nu=nu, kappa=kappa, lam=0.3, alpha=1 / (kappa * (L + 2 / nu)))
    births = [vectors.array(X.shape[1], seed=s, scale=3.0) for s in (1, 2)]
    for release, pull in ((3000, 1.0), (3000, 0.0)):
        runs = [
            path(W, gradient(X, y), release + 300, release=release, pull=pull, **options)
            for W in births
        ]
        close(runs[0][-1].V["w"], runs[1][-1].V["w"])
        np.testing.assert_array_equal(*(entries(run) for run in runs))
        assert (entries(runs[0]) > 0).any()
    runs = [path(W, gradient(X, y), 300, **options) for W in births]
    assert (entries(runs[0]) != entries(runs[1])).any()
    none = dict(release=50, **options)
    W = births[0]
    (*_, last) = path(W, lambda W: {"w": 0 * W["w"]}, 4000, **none)
    np.testing.assert_array_equal(np.abs(last.V["w"]) > 0.3, np.abs(W) > 0.3 * kappa)


def test_v_is_the_sum_of_gradients_but_for_the_move_of_the_weights(close):
    """V = -sum alpha grad L + (W(0) - W) / kappa: what the start adds, beside the evidence."""
    X, y, L = case()
    nu, kappa = 1.0, 4.0
    alpha = 1 / (kappa * (L + 2 / nu))
    W = vectors.array(X.shape[1], seed=3)
    states = path(W, gradient(X, y), 250, release=50, nu=nu, kappa=kappa, alpha=alpha)
    evidence = sum(-alpha * gradient(X, y)(state.W)["w"] for state in states[50:-1])
    moved = (states[50].W["w"] - states[-1].W["w"]) / kappa
    close(states[-1].V["w"], evidence + moved)


def test_levels_in_proportion_to_a_power_of_the_size(close):
    W = {"a": np.full((2, 3), 2.0), "b": np.full((3,), -1.0), "c": np.full((3,), 1.0)}
    families = [["a"], ["b", "c"]]
    typical = np.sqrt((6 * 4 + 6 * 1) / 12)
    found = scaled_levels(W, families, lam=0.5, power=2.0)
    close([found[n] for n in "abc"], [0.5 * x / typical**2 for x in (4, 1, 1)])
    assert scaled_levels(W, families, lam=0.5, power=0.0) == dict.fromkeys("abc", 0.5)
    assert scaled_levels({"a": W["a"]}, [["a"]], lam=0.5, power=3.0)["a"] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="power needs weights .* root mean square 0.0 of b and c"):
        scaled_levels({**W, "b": 0 * W["b"], "c": 0 * W["c"]}, families, lam=0.5, power=1.0)


def test_a_dense_start_by_hand(close):
    (V,) = dense_start([np.array([3.0, -4.0, 0.0])], kappa=2.0, lam=0.5, penalty="l1")
    close(V, [2.0, -2.5, 0.0])
    (V,) = dense_start([np.array([[3.0, 4.0], [0.0, 0.0]])], kappa=2.0, lam=0.5, penalty="group")
    close(V, [[1.8, 2.4], [0.0, 0.0]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(release=-1), "release must be an integer of at least 0, got -1"),
        (dict(release=1.5), "release must be an integer of at least 0, got 1.5"),
        (dict(pull=-0.1), "pull must be at least 0 and finite, got -0.1"),
        (dict(power=np.inf), "power must be finite, got inf"),
    ],
)
def test_bad_settings_are_one_line(options, message):
    with pytest.raises(ValueError, match=message):
        path(np.ones(3), lambda W: W, 1, alpha=0.1, **options)

"""The one source of test inputs: named problems in float64, the same for both libraries."""

import numpy as np


def rng(seed):
    """The generator that every problem below draws from; nobody else calls one."""
    return np.random.default_rng(seed)


def array(shape, seed=0, scale=1.0):
    """Independent normal entries."""
    return scale * rng(seed).standard_normal(shape)


def gradients(shape, n_steps, seed=0):
    """A sequence of ``n_steps`` gradients that lets groups enter, stay and leave.

    A slowly turning signal plus noise, different in strength from slice to slice.
    """
    g = rng(seed)
    signal = g.standard_normal(shape)
    phase = g.uniform(0, 2 * np.pi, shape)
    for k in range(n_steps):
        yield signal * np.cos(phase + 0.01 * k) + 0.3 * g.standard_normal(shape)


def linear(n=60, p=20, k=5, sigma=0.1, seed=0):
    """Sparse linear model: X (n, p), y (n,), beta (p,) with the first k entries non-zero."""
    g = rng(seed)
    X = g.standard_normal((n, p))
    beta = np.zeros(p)
    beta[:k] = np.where(np.arange(k) % 2 == 0, 1.0, -1.0) * np.linspace(2.0, 1.0, k)
    return X, X @ beta + sigma * g.standard_normal(n), beta


def orthogonal(n=40, p=12, seed=0):
    """X with X'X / n = I, and y: every path has a closed form in c = X'y / n."""
    g = rng(seed)
    Q = np.linalg.qr(g.standard_normal((n, p)))[0]
    return np.sqrt(n) * Q, g.standard_normal(n)


def labels(n=80, p=15, k=4, seed=0):
    """Sparse logistic model: X (n, p), y (n,) in {-1, +1}, beta (p,)."""
    X, eta, beta = linear(n, p, k, sigma=0.0, seed=seed)
    flip = rng(seed + 1).uniform(size=n)
    return X, np.where(flip < 1 / (1 + np.exp(-eta)), 1.0, -1.0), beta


def counts(n=80, p=15, k=4, seed=0):
    """Sparse Poisson model: X (n, p), y (n,) in {0, 1, ...}, beta (p,)."""
    X, eta, beta = linear(n, p, k, sigma=0.0, seed=seed)
    return X, rng(seed + 1).poisson(np.exp(eta / 3)).astype(float), beta / 3


def images(n=32, shape=(1, 28, 28), classes=10, seed=0):
    """Pictures X (n, *shape) and classes y (n,): one pattern per class, plus noise."""
    g = rng(seed)
    patterns = g.standard_normal((classes, *shape))
    y = g.integers(classes, size=n)
    return patterns[y] + 0.5 * g.standard_normal((n, *shape)), y


def classes(n=90, p=12, k=4, seed=0):
    """Multinomial model: X (n, p), y (n,) in {0, ..., k-1} with every class present."""
    g = rng(seed)
    X = g.standard_normal((n, p))
    return X, np.argmax(X[:, :k] + g.gumbel(size=(n, k)), axis=1)


def edges(n_nodes=30, m=60, seed=0):
    """Random edges (m, 2) between different nodes."""
    tails = rng(seed).integers(n_nodes, size=m)
    return np.stack([tails, (tails + rng(seed + 1).integers(1, n_nodes, size=m)) % n_nodes], axis=1)


def step_signal(n=60, p=40, jumps=3, sigma=0.3, seed=0):
    """Linear model whose beta (p,) is piecewise constant: X (n, p), y (n,), beta."""
    g = rng(seed)
    beta = np.repeat(
        g.standard_normal(jumps + 1), np.diff(np.linspace(0, p, jumps + 2).astype(int))
    )
    X = g.standard_normal((n, p))
    return X, X @ beta + sigma * g.standard_normal(n), beta


def spins(n=100, p=6, strength=1.0, seed=0):
    """Spins (n, p) in {-1, +1} of a chain: each equals the one before it more often than not."""
    g = rng(seed)
    turn = g.uniform(size=(n, p)) < 1 / (1 + np.exp(strength))
    turn[:, 0] = g.uniform(size=n) < 0.4
    return np.where(np.cumsum(turn, axis=1) % 2 == 0, 1.0, -1.0)

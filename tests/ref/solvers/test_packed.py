"""Paths over many entries: packed rows against filled ones, matrices that are read by blocks."""

import copy
import pickle
import subprocess
import sys
import tracemalloc

import matplotlib
import numpy as np
import pytest
import scipy.sparse as sp
import vectors
from numpy.testing import assert_allclose, assert_array_equal

from dslbi_ref import iss, problem, split_iss, transforms
from dslbi_ref.iss import iss_path
from dslbi_ref.solvers.blocks import Blocks
from dslbi_ref.solvers.packed import PackedRows, area
from dslbi_ref.split_iss import split_iss_path
from dslbi_ref.stopping import path_losses

matplotlib.use("Agg")


@pytest.fixture
def many(monkeypatch):
    """Every path is packed, and every dense X is read by blocks of a few lines."""
    monkeypatch.setattr(iss, "MANY", 0)
    monkeypatch.setattr(split_iss, "MANY", 0)
    monkeypatch.setattr(problem, "LARGE", 0)
    monkeypatch.setattr("dslbi_ref.solvers.blocks.BLOCK", 100)


def data(kind, n=60, p=40, loss="squared"):
    X, y, _ = vectors.linear(n, p, k=8, sigma=1.0, seed=3)
    X = X + 0.5 * X[:, ::-1] + 1.0  # correlated enough for entries to leave; means to take off
    X = np.where(np.abs(X) > 1, X, 0.0)
    y = y + 2.0 if loss == "squared" else np.where(y > np.median(y), 1.0, -1.0)
    if kind == "sparse":
        return sp.csr_array(X), y
    return np.asfortranarray(X) if kind == "columns" else X, y


def same(path, other, atol=1e-12):
    """Every part of two paths, and what is read off them."""
    stored = vars(other)
    assert all(isinstance(stored[name], PackedRows) for name in ("z", "gamma"))
    assert_allclose(other.t, path.t, rtol=1e-12)
    assert_array_equal(other.entry_times() < np.inf, path.entry_times() < np.inf)
    assert_allclose(other.entry_times(), path.entry_times(), rtol=1e-12)
    times = np.append(path.t[:-1] + 0.3 * np.diff(path.t), path.t[-1])
    for t in (times[3], times):
        a, b = path.at(t), other.at(t)
        for name in ("z", "gamma", "beta", "intercept"):
            if getattr(a, name) is not None:
                assert_allclose(getattr(b, name), getattr(a, name), atol=atol)
        assert_array_equal(other.support(t), path.support(t))
    assert all(isinstance(stored[name], PackedRows) for name in ("z", "gamma"))  # still
    assert_allclose(other.gamma, path.gamma, atol=atol)
    assert_allclose(other.z, path.z, atol=atol)


@pytest.mark.parametrize("kind", ["rows", "columns", "sparse"])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("options", [{}, dict(intercept=True, normalize=True)])
def test_a_packed_path_is_the_path(kind, loss, options, many, monkeypatch):
    X, y = data(kind, loss=loss)
    options = options | dict(loss=loss, t_max=np.inf if loss == "squared" else None)
    packed = iss_path(X, y, **options)
    monkeypatch.undo()
    path = iss_path(X, y, **options)
    assert not isinstance(vars(path)["z"], PackedRows)
    same(path, packed, 1e-12 if loss == "squared" else 1e-11)
    if "intercept" in options:
        assert_allclose(packed.intercept, path.intercept, atol=1e-11)
    if loss == "squared":
        assert ((path.gamma[:-1] != 0) & (path.gamma[1:] == 0)).any()  # some left


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("kind", ["rows", "sparse"])
def test_a_packed_path_with_weights_offset_and_signs_is_the_path(kind, loss, many, monkeypatch):
    X, y = data(kind, loss=loss)
    options = dict(loss=loss, intercept=True, normalize=True, positive=True)
    options |= dict(sample_weight=1.0 + np.arange(60) % 3, offset=vectors.array(60, seed=5))
    packed = iss_path(X, y, **options)
    monkeypatch.undo()
    path = iss_path(X, y, **options)
    assert len(path.t) > 4
    same(path, packed, 1e-12 if loss == "squared" else 1e-11)
    assert_allclose(packed.intercept, path.intercept, atol=1e-11)


@pytest.mark.parametrize("intercept", [False, True])
def test_a_packed_split_path_is_the_path(intercept, many, monkeypatch):
    X, y = data("rows")
    D = sp.vstack([transforms.differences(40), transforms.identity(40)], format="csr")
    packed = split_iss_path(X, y, D, nu=2.0, intercept=intercept)
    monkeypatch.undo()
    path = split_iss_path(X, y, D, nu=2.0, intercept=intercept)
    same(path, packed)
    assert_allclose(packed.beta, path.beta, atol=1e-12)
    if intercept:
        assert_allclose(packed.intercept, path.intercept, atol=1e-12)


def test_what_rides_along_is_kept(many, monkeypatch):
    """A nearly dependent column is held at the boundary, against its own flow of 1e-8."""
    X, y, _ = vectors.linear(40, 15, sigma=1.0, seed=5)
    wide = np.hstack([X, X + 1e-8 * vectors.array((40, 15), seed=6)])
    packed = iss_path(wide, y, t_max=100)
    monkeypatch.undo()
    path = iss_path(wide, y, t_max=100)
    assert np.abs(packed.z).max() == 1
    assert_allclose(packed.t, path.t, rtol=1e-5)
    assert_allclose(packed.z, path.z, atol=1e-5)
    assert ((packed.gamma != 0).sum(axis=1) <= 15).all()


def test_a_packed_path_is_drawn_ranked_copied_and_pickled(many, monkeypatch):
    X, y = data("rows")
    packed = iss_path(X, y)
    truth = np.arange(40) < 8
    monkeypatch.undo()
    path = iss_path(X, y)
    assert packed.auc(truth) == path.auc(truth)
    ours, theirs = (each.plot(truth=truth).lines for each in (packed, path))
    for a, b in zip(ours, theirs, strict=True):
        assert_allclose(a.get_ydata(), b.get_ydata(), atol=1e-12)
    assert isinstance(vars(packed)["gamma"], PackedRows)
    for again in (pickle.loads(pickle.dumps(packed)), copy.deepcopy(packed)):
        assert_allclose(again.z, path.z, atol=1e-12)
        assert_array_equal(again.gamma, packed.gamma)
    assert "array" not in repr(packed)
    renamed = iss_path(X, y).changed(stop_reason="other")
    assert renamed.stop_reason == "other" and renamed.kind == "step"


def test_losses_do_not_fill_a_packed_path(many, monkeypatch):
    X, y = data("rows")
    packed, split = iss_path(X, y), split_iss_path(X, y, np.eye(40), nu=1.0)
    for each in (packed, split):
        times = np.geomspace(each.t[1], each.t[-1], 40)
        values = path_losses(each, X, y, times)
        assert isinstance(vars(each)["gamma"], PackedRows)
        point = each.at(times)
        estimates = point.gamma if point.beta is None else point.beta
        assert_allclose(values, ((y - estimates @ X.T) ** 2).mean(axis=1) / 2, rtol=1e-12)


def test_rows_are_indexed_as_those_of_an_array():
    full = np.where(vectors.array((5, 7), 1) > 0.3, vectors.array((5, 7), 1), 0.0)
    base = vectors.array((5, 7), 2)
    zeros = PackedRows(sp.csr_array(full))
    mixed = PackedRows(sp.csr_array(full), lambda k: base[k])
    both = np.where(full != 0, full, base)
    for k in (2, -1, np.int64(0), slice(1, 4), slice(None), np.array([3, 0, 3]), np.array([], int)):
        assert_array_equal(zeros[k], full[k])
        assert_array_equal(mixed[k], both[k])
    v = np.arange(7.0)
    assert_allclose(zeros @ v, full @ v)
    assert_allclose(mixed @ v, both @ v)
    assert_allclose((zeros / (v + 1))[:], full / (v + 1), rtol=1e-15)
    first = np.where((full != 0).any(axis=0), (full != 0).argmax(axis=0), 5)
    assert_array_equal(zeros.first(), first)


def test_area_is_the_integral_of_the_steps():
    t, gamma = np.array([0.0, 1.0, 3.0]), np.array([[0, 0, 1.0], [0, 2.0, -1.0], [5.0, 0, 0]])
    moved = area(t, sp.csr_array(gamma)).toarray()
    assert_array_equal(moved, [[0, 0, 0], [0, 0, 1.0], [0, 4.0, -1.0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_blocks_multiply_as_the_matrix_does(dtype, order, tmp_path, monkeypatch):
    monkeypatch.setattr("dslbi_ref.solvers.blocks.BLOCK", 30)
    array = vectors.array((11, 17), 4).astype(dtype, order=order)
    file = np.lib.format.open_memmap(
        tmp_path / "X.npy", "w+", dtype, array.shape, fortran_order=order == "F"
    )
    file[:] = array
    factor = 1 + np.arange(17.0)
    exact = array.astype(np.float64) * factor
    for source in (array, file):
        X = Blocks(source).scaled(factor)
        assert X.X.dtype == dtype and np.shares_memory(X.X, source)
        v, r = vectors.array((17, 2), 5), vectors.array((11, 2), 6)
        for a, b in (
            (X @ v, exact @ v),
            (X @ v[:, 0], exact @ v[:, 0]),
            (X.T @ r, exact.T @ r),
            (X.T @ r[:, 0], exact.T @ r[:, 0]),
            (r.T @ X, r.T @ exact),
            (X[:, np.array([3, 5])], exact[:, [3, 5]]),
            (X.mean(axis=0), exact.mean(axis=0)),
            (X.squares(), (exact**2).sum(axis=0)),
            (X.squares(v[:, 0]), ((exact - v[:, 0]) ** 2).sum(axis=0)),
        ):
            assert a.dtype == np.float64
            assert_allclose(a, b, rtol=1e-13, atol=1e-12)


def traced(solve):
    """Peak of the memory that numpy asks for during a call, in bytes, and its result."""
    tracemalloc.start()
    result = solve()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, result


@pytest.mark.parametrize("kind", ["float64", "float32", "memmap"])
def test_a_long_path_needs_little_beside_a_large_x(kind, tmp_path, monkeypatch):
    n, p = 40, 30_000
    monkeypatch.setattr(problem, "LARGE", 2**20)
    monkeypatch.setattr("dslbi_ref.solvers.blocks.BLOCK", 2**15)
    X = np.random.default_rng(0).standard_normal((n, p), dtype=np.float32)
    y = X[:, :5].sum(axis=1).astype(np.float64) + vectors.array(n, 1)
    if kind == "float64":
        X = X.astype(np.float64)
    if kind == "memmap":
        np.save(tmp_path / "X.npy", X)
        X = np.load(tmp_path / "X.npy", mmap_mode="r")
    peak, path = traced(lambda: iss_path(X, y, t_max=4.0, intercept=True, normalize=True))
    assert len(path.t) > 30
    assert peak < 8 * n * p / 2  # half of a copy
    assert traced(lambda: path.z)[0] > 8 * len(path.t) * p  # what is not kept


def test_a_million_sparse_columns_fit(tmp_path):
    """In a process of its own: the peak of its resident memory beside the data."""
    script = """
import resource
import numpy as np
import scipy.sparse as sp
from dslbi_ref.iss import iss_path

g = np.random.default_rng(0)
n, p = 500, 10**6
rows, starts = g.integers(0, n, 4 * p), np.arange(0, 4 * p + 1, 4)
X = sp.csc_array((g.standard_normal(4 * p), rows, starts), shape=(n, p))
y = X[:, :10] @ np.full(10, 5.0) + g.standard_normal(n)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
path = iss_path(X, y, t_max=1.5 / np.abs(X.T @ y / n).max())
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(path.t), int(np.isfinite(path.entry_times()).sum()), (after - before) / 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    events, entries, megabytes = done.stdout.split()
    assert int(events) > 10 and int(entries) > 5
    assert float(megabytes) < 400  # one row of p numbers takes 8

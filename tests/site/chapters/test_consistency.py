"""Figures and solutions of the chapter on consistency."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dslbi_ref import iss_path
from dslbi_ref.stability import largest_first
from dslbi_ref.theory import irrepresentable, stopping_time


def test_the_imitator_adds_up_what_the_true_ones_do(chapter):
    curves = chapter.imitator()
    t = curves["t"]
    true = np.minimum([t, t / 2], 1)
    assert_allclose(curves["$r = 0.45$"].T, [*true, 0.45 * true.sum(axis=0)], atol=1e-12)
    early = t < 4 / 3
    first = curves["$r = 0.6$"][early].T
    assert_allclose(first, np.array([*true, 0.6 * true.sum(axis=0)])[:, early], atol=1e-12)
    assert_allclose(curves["$r = 0.6$"][~early, 2], 1)


def test_the_window_is_where_its_caption_says(chapter):
    curves = chapter.window()
    entries = curves["entries"]
    assert entries[:4].max() == pytest.approx(1.06, abs=0.005)
    assert entries[4:].min() == pytest.approx(5.62, abs=0.005)
    assert curves["safe"] == pytest.approx(2.08, abs=0.005)
    inside = (curves["t"] > entries[:4].max()) & (curves["t"] < entries[4:].min())
    expected = np.append(curves["oracle"], np.zeros(26))
    shown = curves["gamma"][inside]
    assert_allclose(shown, np.broadcast_to(expected, shown.shape), atol=1e-12)


def test_solutions_of_the_chapter_on_consistency(chapter):
    for r, entry in ((0.6, 4 / 3), (0.49, np.inf), (-0.49, np.inf)):
        X, y = chapter.imitation(r)
        assert_allclose(irrepresentable(X, [1, 1, 0]), 2 * abs(r))
        times = iss_path(X, y, t_max=np.inf).entry_times()
        assert_allclose(times[[0, 2]], [1, entry])
        assert times[1] == pytest.approx(2) or r == 0.6
    for n, p, sigma in ((400, 100, 1.0), (800, 10_000, 1.0), (1600, 100, 2.0)):
        X = np.zeros((n, p))
        X[np.arange(p) % (n - 1), np.arange(p)] = np.sqrt(n)
        X[[0, 1, -1], 0] = 0, np.sqrt(n / 4), np.sqrt(3 * n / 4)  # half of the second column
        true = np.arange(p) == 0
        assert irrepresentable(X, true) == pytest.approx(0.5)
        assert stopping_time(X, true, sigma=sigma) == pytest.approx(2.33, abs=0.005)
    for threshold, most in ((0.9, 28), (0.75, 22)):
        assert largest_first(1000, threshold, 1, assumption="none") == most

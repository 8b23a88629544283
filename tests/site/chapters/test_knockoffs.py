"""Figures and solutions of the chapter on knockoffs."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dslbi_ref.knockoff_filter import knockoff_threshold
from dslbi_ref.knockoffs import split_copy

W = np.array([5, 4.2, 3.7, -3, 2.5, 2, 1.7, -1.5, 1.2, -0.8])


def test_the_race_is_as_its_titles_say(chapter):
    curves, (*_, gamma) = chapter.race(), chapter.pieces()
    for i, title in chapter.SHOWN.items():
        assert (gamma[i] != 0) == title.startswith("a jump") == curves["true"][i]
        assert (curves["W"][i] > 0) == title.endswith("wins")
        apart = curves["copy"][1:, i] - curves["row"][1:, i]
        assert_allclose(apart / curves["t"][1:], apart[0] / curves["t"][1], atol=1e-9)


def test_the_evidence_is_as_its_caption_says(chapter):
    curves = chapter.race()
    W, T, true = (curves[key] for key in ("W", "T", "true"))
    named = W >= T
    assert T == pytest.approx(0.061, abs=5e-4) and knockoff_threshold(W, 0.2) == T
    assert (named.sum(), (named & ~true).sum(), (W <= -T).sum()) == (11, 1, 1)
    largest = np.argsort(-np.abs(W))[:11]
    assert true[largest].sum() == 10 and (true & (W > 0))[largest].sum() == 9
    assert (chapter.pieces()[3] != 0).sum() == 11  # twelve pieces


def test_solutions_of_the_chapter_on_knockoffs():
    assert knockoff_threshold(W, 1 / 3) == 1.7 and (W >= 1.7).sum() == 6
    assert knockoff_threshold(W, 1 / 4) == np.inf
    rest = np.arange(1.0, 21)
    assert knockoff_threshold(rest[:9], 0.1) == np.inf and knockoff_threshold(rest[:10], 0.1) == 1
    # X with Sigma = I: what split_copy can reach is a part of the largest s
    n, p = 100, 5
    noise = np.random.default_rng(0).standard_normal((n, p))
    X = np.linalg.qr(noise - noise.mean(axis=0))[0] * n**0.5
    for nu, largest, deviations in ((1.0, 1.0, 5.0), (4.0, 0.25, 2.5)):
        C = np.linalg.inv(nu * np.eye(p) + np.linalg.inv(X.T @ X / n))
        s = min(2 * np.linalg.eigvalsh(C)[0], 1 / nu)
        assert_allclose(s, largest)
        assert split_copy(X, np.eye(p), nu=nu)[1] <= s
        assert_allclose(np.sqrt(s * n) * 0.5 / np.sqrt(2 - nu * s), deviations)

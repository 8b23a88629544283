"""Figures and solutions of the chapter on Split LBI."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dslbi_ref import split_iss_path

C = np.array([2.0, -1.25, 0.8, 0.3])


def test_springs_delay_by_one_plus_nu(chapter):
    curves = chapter.springs()
    t = curves["t"][:, None]
    for nu in (0.5, 3.0):
        entry = (1 + nu) / np.abs(C)
        gamma, apart = np.where(t >= entry, C, 0), np.abs(t - entry) > 1e-9
        assert_allclose(np.where(apart, curves[rf"$\nu = {nu:g}$"], gamma), gamma, atol=1e-9)


def test_the_direct_way_fails_where_its_caption_says_so(chapter):
    curves = chapter.direct()
    assert curves["false"][0] == 5 and curves["IRR"][0] == pytest.approx(5, abs=0.1)
    assert not curves["false"][curves["nu"] >= 1 - 1e-9].any()
    assert not curves["false"][curves["IRR"] < 1].any()
    assert curves["IRR"][-1] == pytest.approx(0.6, abs=0.05)


def test_solutions_of_the_chapter_on_split_lbi(chapter):
    X, y = chapter.orthogonal()
    assert_allclose(split_iss_path(X, y, np.eye(4), nu=3.0).entry_times()[3], 13.3, atol=0.05)
    assert_allclose(split_iss_path(X, y, np.eye(4), nu=1.0).entry_times()[0], 1.0)
    for nu, bound, digits in ((2.0, 0.057, 3), (0.01, 0.0004, 4)):
        joint = np.array([[1 + 4 / nu, -2 / nu], [-2 / nu, 1 / nu]])  # f'' = 1 and D = 2
        sure = 2 / (10 * (1 + 5 / nu))
        assert round(sure, digits) == bound and sure <= 2 / (10 * np.linalg.eigvalsh(joint).max())

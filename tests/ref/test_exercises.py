"""Checks of answers: what opens a seal, what does not, and that no check says the right answer."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dslbi_ref.exercises import attempt, seal


def said(capsys, *args, **options):
    attempt("task", *args, **options)
    return capsys.readouterr().out.strip()


@pytest.mark.parametrize("answer", [0.4312, -3, [1.5, -0.25, 7.0], "Right", [True, False, True]])
def test_a_seal_opens_for_its_answer_and_task_alone(answer, capsys):
    sealed = seal("task", answer)
    assert said(capsys, answer, sealed=sealed) == "task: right"
    attempt("another task", answer, sealed=sealed)
    assert "not yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ("a", "b"),
        ([True, False], [False, True]),
        ([True, False], [1, 0]),
        (2.0, "2"),
        (2.0, [2.0, 2.0]),
        (2.0, np.inf),
        (2.0, np.nan),
        ([1.0, 2.0], [2.0, 1.0]),
        (0.5, np.zeros(9)),
    ],
)
def test_another_answer_does_not_open_it(answer, wrong, capsys):
    assert "not yet" in said(capsys, wrong, sealed=seal("task", answer))


@given(st.floats(-1e3, 1e3), st.floats(-5, 5), st.sampled_from([1e-3, 1e-2, 0.5]))
def test_a_seal_holds_its_tolerance(answer, units, tolerance):

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        yours = answer + units * tolerance
        attempt("task", yours, sealed=seal("task", answer, tolerance), tolerance=tolerance)
    off = abs(yours - answer) / tolerance
    if off < 0.999:
        assert "right" in out.getvalue()
    if off > 2.001:
        assert "not yet" in out.getvalue()


@pytest.mark.parametrize("yours", [None, (None, 2.0), [1.0, None]])
def test_nothing_is_judged_before_an_attempt(yours, capsys):
    assert said(capsys, yours, 2.0) == "task: your turn"


def test_a_computed_answer_wants_its_shape_and_its_tolerance(capsys):
    expected = np.array([0.125, 7.875])
    assert said(capsys, expected + 9e-4, expected) == "task: right"
    assert said(capsys, expected + 2e-3, expected) == "task: not yet, got [0.127 7.877]"
    assert "not yet" in said(capsys, expected[:1], expected)
    assert "not yet" in said(capsys, "a word", 2.0)
    for ragged in ([[0.125], [7.875, 0.0]], [0.125, [7.875]]):
        assert "task: not yet, got [" in said(capsys, ragged, expected)
    assert said(capsys, [True, False], [True, False]) == "task: right"


def test_no_check_says_the_right_answer(capsys):
    for yours in (None, 1.0, [1.0, 2.0], "x"):
        assert "7.875" not in said(capsys, yours, 7.875)
        assert "7.875" not in said(capsys, yours, sealed=seal("task", 7.875))


@pytest.mark.parametrize("options", [{}, {"expected": 1.0, "sealed": "0" * 12}])
def test_one_of_answer_and_seal_is_wanted(options):
    with pytest.raises(ValueError, match="either the expected answer or its seal"):
        attempt("task", 1.0, **options)


def test_a_seal_and_a_computed_answer_want_the_same_digits(capsys):
    for off, verdict in ((9e-4, "right"), (2.1e-3, "not yet")):
        for right in ({"expected": 2.0}, {"sealed": seal("task", 2.0)}):
            assert verdict in said(capsys, 2.0 + off, **right)


def test_a_tolerance_of_zero_is_refused():
    with pytest.raises(ValueError, match="tolerance must be positive and finite, got 0"):
        attempt("task", 1.0, 1.0, tolerance=0)
    with pytest.raises(ValueError, match="tolerance must be positive and finite, got -1"):
        seal("task", 1.0, -1)

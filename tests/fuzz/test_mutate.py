"""The harness finds what is planted: errors of others, NaN, wrong results, hangs, silent names."""

import numpy as np
from fuzz import mutate
from fuzz.mutate import Call, finding, finite, fuzz, public

OWN = {"fuzz"}
SQUARE = dict(x=np.ones(2))


def refusing(x):
    raise ValueError(f"x must be positive, got {x}")


def unnamed(x):
    raise ValueError("what is given must be positive")


def wordy(x):
    raise ValueError("x must\nbe positive")


def broken(x):
    return {}["x"]


def numpy_speaks(x):
    return np.reshape(x, (3, 3))


def warns(x):
    return np.log(-x)


def hangs(x):
    while True:
        pass


def test_what_is_found(monkeypatch):
    monkeypatch.setattr(mutate, "LIMIT", 0.1)
    found = {
        f.__name__: finding(Call(f, dict), SQUARE, OWN)
        for f in (refusing, unnamed, wordy, broken, numpy_speaks, warns, hangs)
    }
    assert found.pop("refusing") is None
    assert found.pop("unnamed").startswith("message without the argument")
    assert found.pop("wordy").startswith("message of 2 lines")
    assert found.pop("broken").startswith("KeyError in test_mutate.py")
    assert found.pop("numpy_speaks").startswith("ValueError of")
    assert found.pop("warns").startswith("RuntimeWarning in")
    assert found == {"hangs": "hang"}


def test_results_are_checked():
    nan = Call(lambda x: x * np.nan, dict)
    assert finding(nan, SQUARE, OWN) == "NaN or infinity from finite input"
    assert finding(nan, dict(x=np.array([np.nan])), OWN) is None
    assert finding(nan._replace(infinite=True), SQUARE, OWN) is None

    def is_square(result, given):
        np.testing.assert_array_equal(result, given["x"] ** 2)

    double = Call(lambda x: 2 * x, dict, is_square)
    assert finding(double, SQUARE, OWN).startswith("wrong result: AssertionError")
    assert finding(double, dict(x=np.array([2.0])), OWN) is None


def test_calls_are_the_same_from_run_to_run():
    seen = []
    call = Call(lambda x: seen.append(repr(x)), lambda: dict(x=np.ones(2)))
    for _ in range(2):
        assert fuzz("name", call, 50, OWN) == {}
    shown = [text for text in seen if " at 0x" not in text]
    assert shown[: len(shown) // 2] == shown[len(shown) // 2 :] and len(set(shown)) > 20


def test_finite():
    assert finite([{"a": (1.0, np.ones(2), None, "nan")}, 3, 10**400])
    for wrong in (np.inf, [np.nan], {"a": np.array([1.0, -np.inf])}, np.array([1j * np.inf])):
        assert not finite(wrong)


def test_what_is_public_is_found():
    names = public("dslbi_ref", ("solvers", "figures"))
    assert {"lbi.lbi_path", "path.Path", "estimators.SplitLBIRegressor"} <= set(names)
    assert not [name for name in names if name.startswith(("solvers", "figures"))]
    assert "lbi.LBIState" not in names  # data

"""Checks of a reader's answers that do not show the right ones.

A check has the right answer in one of two forms. Where the package can compute it, the cell does
so, and the value is never printed. Where writing it down would give it away, the cell holds a
seal, the hash of the rounded answer.
"""

from hashlib import sha256
from itertools import product
from math import isfinite
from numbers import Real

import numpy as np

from .checks import check_positive

TOLERANCE = 1e-3  # of a check and of a seal, where nothing else is said
MOST_SEALED = 8  # numbers in one sealed answer: with each, three times as many seals are tried


def _items(answer):
    """Return the answer as a flat list of plain numbers, truth values and words."""
    return np.ravel(np.array(answer, dtype=object)).tolist()


def _hashed(task, items):
    return sha256(f"{task}: {items}".encode()).hexdigest()[:12]


def _places(item, tolerance):
    """Return what an item may be rounded to, the nearest first; only numbers have more than one."""
    if isinstance(item, bool | np.bool_):
        return (bool(item),)
    if not isinstance(item, Real) or not isfinite(item):
        return (str(item).strip().lower(),)
    nearest = round(float(item) / tolerance)
    return nearest, nearest - 1, nearest + 1


def seal(task, answer, tolerance=TOLERANCE):
    """Return the seal of an answer, for the author of an exercise.

    Parameters
    ----------
    task : str
        Name of the exercise, which enters the hash: equal answers have different seals.
    answer : number, truth value, word or sequence of these
        The right answer.
    tolerance : float, positive
        Unit to which numbers are rounded.

    Returns
    -------
    str
        Twelve hexadecimal digits.
    """
    check_positive(tolerance=tolerance)
    return _hashed(task, [_places(item, tolerance)[0] for item in _items(answer)])


def _opens(task, yours, sealed, tolerance):
    """Return whether the rounded answer, or one a unit beside it in any number, has this seal."""
    items = _items(yours)
    if len(items) > MOST_SEALED:
        return False
    places = [_places(item, tolerance) for item in items]
    return any(_hashed(task, list(tried)) == sealed for tried in product(*places))


def _array(answer):
    """Return the answer as an array: one of objects where its rows are not equally long."""
    try:
        return np.asarray(answer)
    except ValueError:
        return np.array(answer, dtype=object)


def _agrees(yours, expected, tolerance):
    if _array(yours).shape != np.shape(expected):
        return False
    try:
        return bool(np.abs(np.subtract(yours, expected, dtype=float)).max() <= tolerance)
    except (TypeError, ValueError):  # words, where numbers are asked for
        return False


def attempt(task, yours, expected=None, *, sealed=None, tolerance=TOLERANCE):
    """Print whether an answer is right, and never what the right one is.

    Parameters
    ----------
    task : str
        Name of the exercise.
    yours : number, truth value, word, array or sequence of these
        The reader's answer. As long as it is None, or holds a None, nothing is judged.
    expected : number or array, optional
        The right answer, where the cell computes it. Yours must have its shape, and be within
        ``tolerance`` in every entry.
    sealed : str, optional
        Seal of the right answer, in place of ``expected``. Numbers nearer than ``tolerance`` open
        it, and numbers further off than twice ``tolerance`` never do.
    tolerance : float, positive
        What may be between yours and the right answer.

    Raises
    ------
    ValueError
        If not exactly one of ``expected`` and ``sealed`` is given, or for a bad tolerance.
    """
    check_positive(tolerance=tolerance)
    if (expected is None) == (sealed is None):
        given = "neither" if expected is None else "both"
        raise ValueError(f"an attempt needs either the expected answer or its seal, got {given}")
    if yours is None or any(item is None for item in _items(yours)):
        print(f"{task}: your turn")
    elif (
        _agrees(yours, expected, tolerance)
        if sealed is None
        else _opens(task, yours, sealed, tolerance)
    ):
        print(f"{task}: right")
    else:
        shown = np.array2string(_array(yours), precision=4, threshold=8, edgeitems=3)
        print(f"{task}: not yet, got {shown}")

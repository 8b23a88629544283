"""What an argument may be: a number, a word, an array. What is not is refused in one line.

A number is one of Python or NumPy, never a text or a bool, and is returned as Python's, so that
its precision does not enter a result. An array holds real, finite numbers: integers, bools and half
precision become float64, complex numbers and texts are refused.
"""

import functools
import inspect
import numbers
import operator

import numpy as np
import scipy.sparse as sp

# Sizes of entries whose squares, and sums of them, are neither infinite nor zero.
LEAST, MOST = 1e-140, 1e140
INF = float("inf")
# No array has more entries along an axis than these, and nothing is counted further.
MOST_ENTRIES = 2**31 - 1


def shown(value):
    """Return a value as a short text of one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---- Numbers and words -----------------------------------------------------------------------


def check_number(name, value):
    """Return a number as a float (NaN and infinity are numbers)."""
    if type(value) is float:
        return value
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if not isinstance(value, numbers.Real) or isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be a number, got {shown(value)}")
    try:
        return float(value)
    except OverflowError:  # of a long integer
        return np.inf if value > 0 else -np.inf


def check_positive(**values):
    """Return the numbers as floats, in their order; refuse what is not positive and finite."""
    for name, given in values.items():
        number = given
        if type(given) is not float:  # asked once a step
            number = values[name] = check_number(name, given)
        if not 0 < number < INF:
            raise ValueError(f"{name} must be positive and finite, got {given}")
    return values.values()


def step_size(alpha, k):
    """Return the step of iteration k as a float; alpha is a number, or a callable of k."""
    (alpha_k,) = check_positive(alpha=alpha(k) if callable(alpha) else alpha)
    return alpha_k


def check_in(low, high, **values):
    """Return the numbers as floats, in their order; refuse what is outside of [low, high)."""
    for name, given in values.items():
        number = given
        if type(given) is not float:
            number = values[name] = check_number(name, given)
        if not low <= number < high:
            interval = f"in [{low}, {high})" if high < INF else f"at least {low} and finite"
            raise ValueError(f"{name} must be {interval}, got {given}")
    return values.values()


def check_integer(name, value, least, most=MOST_ENTRIES):
    """Return a whole number from ``least`` to ``most`` as an int."""
    if isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be an integer, got {value}")
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be an integer, got {shown(value)}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {shown(number)}")
    if number > most:
        raise ValueError(f"{name} must be at most {most:,}, got {shown(number)}")
    return number


def check_flag(name, value):
    """Return True or False, of Python or NumPy, as a bool."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def check_kind(name, value, kind):
    """Return an object of a class; a callable where ``kind`` is ``callable`` itself."""
    if not (callable(value) if kind is callable else isinstance(value, kind)):
        wanted = "callable" if kind is callable else f"a {getattr(kind, '__name__', kind)}"
        raise ValueError(f"{name} must be {wanted}, got {shown(value)}")
    return value


def check_word(name, value, words, hint=""):
    """Return a word out of ``words``; ``hint`` says where another one could be had."""
    if not (isinstance(value, str) and value in words):
        raise ValueError(f"{name} must be one of {', '.join(words)}{hint}, got {shown(value)}")
    return value


def check_list(name, values):
    """Return the entries of an iterable as a list; a text is none."""
    try:
        if not isinstance(values, str | bytes):
            return list(values)
    except TypeError:
        pass
    raise ValueError(f"{name} must be a sequence, got {shown(values)}")


# ---- Arrays ----------------------------------------------------------------------------------


def real(x, name="v"):
    """Return an array of real numbers: float32 and float64 as they are, any other in float64."""
    if type(x) is np.ndarray and x.dtype == np.float64:
        return x
    if sp.issparse(x):
        raise ValueError(f"{name} must be dense, got a sparse array: {name}.toarray() is dense")
    try:
        x = np.asarray(x)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name} must be an array, but {error}") from error
    _check_kind(x.dtype, name)
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float64)


def _check_kind(dtype, name):
    if dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers, got {dtype}")


def check_array(name, x, shape=None):
    """Return an array in float64, finite and of that shape (None: any)."""
    x = real(x, name).astype(np.float64, copy=False)
    if shape is not None and x.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {x.shape}")
    check_finite(name, x)
    return x


def check_arraylike(name, value, *, needed):
    """Refuse what is neither an array of real numbers nor held packed; None unless ``needed``."""
    if isinstance(value, np.ndarray):
        real(value, name)
    elif (value is not None or needed) and not hasattr(value, "shape"):
        raise ValueError(f"{name} must be an array, got {shown(value)}")


def check_finite(name, entries):
    """Refuse NaN and infinity."""
    finite = np.isfinite(entries)
    if not finite.all():
        raise ValueError(f"{name} must be finite, got {entries[~finite][0]}")


def check_times(times, name="times"):
    """Return path times as a float64 array: finite, non-negative, strictly increasing."""
    t = check_array(name, times)
    if t.ndim != 1 or t.size == 0:
        raise ValueError(f"{name} must be a non-empty 1-d array, got shape {t.shape}")
    if t.min() < 0:
        raise ValueError(f"{name} must be at least 0, got {t.min()}")
    late = np.flatnonzero(np.diff(t) <= 0)
    if late.size:
        raise ValueError(f"{name} must be increasing, got {t[late[0] + 1]} after {t[late[0]]}")
    return t


def check_design(X, name="X", *, sparse=True, as_is=False):
    """Return X in float64, as a csc_array if sparse; ``as_is``: a dense float32 X stays one.

    Refused unless 2-d, non-empty, finite, and of entries whose squares are: a largest one beyond
    ``MOST``, or below ``LEAST`` and not zero, would make a path of zeros or of NaN.
    """
    if sparse and sp.issparse(X):
        _check_kind(X.dtype, name)
        X = sp.csc_array(X, dtype=np.float64)
        entries = X.data
    else:
        X = real(X, name)
        X = entries = X if as_is else X.astype(np.float64, copy=False)
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"{name} must be a non-empty 2-d array, got shape {X.shape}")
    check_scale(name, entries)
    return X


def check_transform(D, p):
    """Return D as :func:`check_design` does; refuse one that has not the p columns of X."""
    D = check_design(D, "D")
    if D.shape[1] != p:
        raise ValueError(f"D must have the {p} columns of X, got shape {D.shape}")
    return D


def check_scale(name, entries):
    """Refuse entries that are not finite, whose squares overflow, or all of which vanish."""
    size = max(float(entries.max(initial=0.0)), -float(entries.min(initial=0.0)))
    if size and not LEAST <= size <= MOST:  # or NaN
        check_finite(name, entries)
        raise ValueError(
            f"{name} must have a largest entry between {LEAST:g} and {MOST:g}, got {size:g}: "
            "rescale it"
        )


def no_overflow(function):
    """Decorate a function of arrays: what float64 does not hold is refused, with their sizes."""
    names = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def guarded(*args, **options):
        try:
            with np.errstate(over="raise", divide="raise", invalid="raise"):
                return function(*args, **options)
        except FloatingPointError as error:
            given = dict(zip(names, args, strict=False)) | options
            sizes = ", ".join(f"{name} {_size(x)}" for name, x in given.items())
            raise ValueError(f"the result must be finite, got {error} of {sizes}") from error

    return guarded


def _size(x):
    """Return the largest absolute entry of an array as a text, or what else is given."""
    if isinstance(x, np.ndarray) and x.dtype.kind in "biuf" and x.size:
        x = np.asarray(x)  # not a masked one
        return f"up to {np.abs(x.astype(np.float64)).max():.3g}"
    return shown(x)

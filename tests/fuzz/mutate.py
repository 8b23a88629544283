"""Valid calls with one or two arguments made wrong, and what may come of them.

A call is a function, fresh arguments and a check of its result. What comes back from a wrong one is
a result that passes the check, or an error of ours in one line that names the argument. All else is
a finding: an error of Python's or NumPy's own, a warning, a hang, NaN from finite input.
"""

import dataclasses
import faulthandler
import importlib
import inspect
import numbers
import pkgutil
import signal
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

LIMIT = 10  # seconds of processor time for a call
NAN, INF = float("nan"), float("inf")
NUMBERS = (NAN, INF, -INF, 0, -1, 2.5, 1e-300, 5e-324, 1e300, 10**13, 10**400, True, np.int8(3))
NUMBERS += (np.float16(1), np.float32(0.3), np.uint8(200), np.longdouble(1), np.array(1.0), 3)
JUNK = (None, "", "text", b"x", [], {}, (), 1j, [1.0, 2.0], {"a": 1}, object(), np.ones(2))
JUNK += (np.array([1.0]), np.datetime64("2020-01-01"), ["a"], range(3), lambda *a, **o: None)
RETURNS = (None, "text", 1.0, [], {}, NAN, np.ones(7), np.ones((2, 2), complex))


class Call(NamedTuple):
    """A valid call: ``function(**arguments())``, whose result passes ``check(result, given)``.

    ``infinite``: NaN or infinity is a right answer of finite arguments. ``says``: further words by
    which an error may name the arguments. ``foreign``: a package whose own errors are documented.
    ``slow``: so many times fewer calls.
    """

    function: Callable
    arguments: Callable
    check: Callable | None = None
    infinite: bool = False
    says: tuple = ()
    foreign: str | None = None
    slow: int = 1


class Hang(BaseException):
    """A call that took longer than the limit; no ``except Exception`` takes it."""


# ---- What is wrong ---------------------------------------------------------------------------


def pick(rng, options):
    return options[rng.integers(len(options))]


def _cast(a, kind):
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return a.astype(kind)


def _array(a, rng):
    """An array of another value, kind or shape."""
    kinds = ("int8", "uint8", "int64", "float16", "float32", "longdouble", "complex", "bool")
    shapes = (
        lambda a: a[:0],
        lambda a: a[..., :0],
        lambda a: a.T,
        lambda a: a[:-1],
        lambda a: a[..., :-1],
        lambda a: np.concatenate([a, a[:1]]) if a.ndim else a,
        lambda a: a.ravel(),
        lambda a: a[None],
        lambda a: a[..., None],
        lambda a: a[:1],
        lambda a: a.ravel()[0] if a.size else a,
        lambda a: a[::-1],
        lambda a: np.asfortranarray(a),
        lambda a: a.tolist(),
        lambda a: tuple(a.tolist()) if a.ndim else a,
        lambda a: sp.csr_array(a) if a.ndim == 2 else a,
        lambda a: np.ma.masked_array(a, mask=True),
        lambda a: 0 * a,
        lambda a: 0 * a + 1,
    )
    way = rng.integers(5)
    if way == 0:
        return _cast(a, pick(rng, (*kinds, object, str, "datetime64[s]")))
    if way == 1:
        return pick(rng, shapes)(a)
    a = np.array(a, dtype=float if way < 4 or a.dtype.kind in "iu" else a.dtype)
    if way == 2:
        return a * pick(rng, (1e155, 1e-160, 1e300, 1e-300, -1.0, 1e9, 1e-9))
    if a.size and a.dtype.kind == "f":
        a.flat[rng.integers(a.size)] = pick(rng, (NAN, INF, -INF, 1e300, 1e-310, 0.0, -1e5, 1e17))
    return a


def wrong(value, rng, others=()):
    """Return something like a value but wrong, or not like it at all."""
    for kind, change in others:
        if isinstance(value, kind) and rng.integers(4):
            return change(value, rng)
    if rng.integers(4) == 0:
        return pick(rng, JUNK + NUMBERS)
    if sp.issparse(value):
        dense = _array(value.toarray(), rng)
        return sp.csr_array(dense) if rng.integers(2) and np.ndim(dense) == 2 else dense
    if isinstance(value, np.ndarray):
        return _array(value, rng)
    if isinstance(value, dict) and value:
        name = pick(rng, list(value))
        rest = {k: v for k, v in value.items() if k != name}
        new = {name: wrong(value[name], rng, others)}
        return pick(rng, (rest, value | new, value | new, rest | {"strange": value[name]}))
    if isinstance(value, list | tuple) and value and type(value) in (list, tuple):
        k, kind = rng.integers(len(value)), type(value)
        new = kind([*value[:k], wrong(value[k], rng, others), *value[k + 1 :]])
        return pick(rng, (new, new, value[:k] + value[k + 1 :], value + value))
    if isinstance(value, str):
        return pick(rng, (value.upper(), value + " ", "", [value], value[:1], "strange"))
    if callable(value) and not inspect.isclass(value):
        back = pick(rng, RETURNS)
        return pick(rng, (lambda *a, **o: back, *JUNK))
    return pick(rng, NUMBERS)


def finite(x, depth=0):
    """Return whether there is no NaN and no infinity in numbers, arrays and containers of them."""
    if depth > 6 or x is None or isinstance(x, str | bytes):
        return True
    if hasattr(x, "is_meta"):  # a tensor
        x = x.detach().to_dense() if x.is_sparse else x.detach()
        return x.is_meta or bool(x.isfinite().all())
    if isinstance(x, numbers.Number | np.ndarray | np.generic) or sp.issparse(x):
        x = x.data if sp.issparse(x) else np.asarray(x)
        return x.dtype.kind not in "fc" or bool(np.isfinite(x).all())
    if hasattr(x, "state_dict"):  # a net, an optimizer with its parameters
        parameters = [group["params"] for group in getattr(x, "param_groups", ())]
        return finite([x.state_dict(), parameters], depth + 1)
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        x = {f.name: getattr(x, f.name) for f in dataclasses.fields(x) if f.name != "kappa"}
    if callable(x):
        return finite([c.cell_contents for c in getattr(x, "__closure__", None) or ()], depth + 1)
    entries = x.values() if isinstance(x, dict) else x if isinstance(x, list | tuple | set) else ()
    return all(finite(entry, depth + 1) for entry in entries)


# ---- What may come of it ---------------------------------------------------------------------


def _limited(call, given):
    """Call within the limit of processor time."""

    def late(*_):
        raise Hang

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    try:
        return call.function(**given)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _of_error(error, given, call, own):
    """Return what is wrong with an error, or None."""
    trace, called = error.__traceback__, ()  # what our last frame called
    while trace.tb_next:
        before = Path(trace.tb_frame.f_code.co_filename).parts
        trace = trace.tb_next
        place = Path(trace.tb_frame.f_code.co_filename)
        if own & {*before}:
            called = place.parts
    text, kind = str(error), type(error).__name__
    if call.foreign in called:
        return None
    if not own & {*place.parts}:
        return f"{kind} of {place.name}:{trace.tb_lineno}"
    if not isinstance(error, ValueError | TypeError | RuntimeError | OSError | Warning):
        return f"{kind} in {place.name}:{trace.tb_lineno}"
    warned = type(error) is UserWarning  # as documented
    if isinstance(error, Warning) and not warned:
        return f"{kind} in {place.name}:{trace.tb_lineno}"
    if not warned and trace.tb_frame.f_code.co_code[trace.tb_lasti] not in _RAISES:
        return f"{kind} in {place.name}:{trace.tb_lineno}"
    if "\n" in text or not text:
        return f"message of {text.count(chr(10)) + 1} lines of {place.name}:{trace.tb_lineno}"
    words = set("".join(c if c.isalnum() or c == "_" else " " for c in text).split())
    if not words & {*given, *call.says}:
        return f"message without the argument of {place.name}:{trace.tb_lineno}"
    return None


_RAISES = {__import__("dis").opmap[name] for name in ("RAISE_VARARGS", "RERAISE")}


def finding(call, given, own):
    """Return what is wrong with a call of these arguments, or None."""
    clean = finite(given)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = _limited(call, given)
    except Hang:
        return "hang"
    except Exception as error:
        return _of_error(error, given, call, own)
    if clean and not call.infinite and not finite(result):
        return "NaN or infinity from finite input"
    if clean and call.check is not None:
        try:
            call.check(result, given)
        except Exception as error:  # a check reads the result in any way
            return f"wrong result: {type(error).__name__} {' '.join(str(error).split())[:100]}"
    return None


def check_valid(call):
    """Make a call with its own arguments, and check what comes back."""
    given = call.arguments()
    result = call.function(**given)
    if call.check:
        call.check(result, given)


def fuzz(name, call, count, own, others=()):
    """Return the findings of ``count`` wrong calls: what, how often, and the arguments of one."""
    found, example = Counter(), {}
    faulthandler.dump_traceback_later(600, exit=True)  # what no signal ends
    for seed in range(-(-count // call.slow)):
        rng = np.random.default_rng([seed, *name.encode()])
        given = call.arguments()
        changed = rng.choice(list(given), size=min(len(given), 1 + rng.integers(2)), replace=False)
        given |= {key: wrong(given[key], rng, others) for key in changed}
        what = finding(call, given, own)
        if what:
            found[what] += 1
            shown = " ".join(f"{key}={given[key]!r}" for key in changed)
            example.setdefault(what, f"seed {seed}: {' '.join(shown.split())[:300]}")
    faulthandler.cancel_dump_traceback_later()
    return {what: (n, example[what]) for what, n in found.most_common()}


def public(package, inner):
    """Return the names of the public functions and classes of a package, but for inner modules."""
    names = []
    root = importlib.import_module(package)
    for found in pkgutil.walk_packages(root.__path__, package + "."):
        if any((found.name + ".").startswith(f"{package}.{module}.") for module in inner):
            continue
        for name, thing in vars(importlib.import_module(found.name)).items():
            own = getattr(thing, "__module__", None) == found.name and not name.startswith("_")
            data = inspect.isclass(thing) and issubclass(thing, tuple | Exception)
            if own and callable(thing) and not data:
                names.append(f"{found.name.removeprefix(package + '.')}.{name}")
    return sorted(names)

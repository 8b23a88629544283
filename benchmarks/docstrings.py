"""Short texts that are at hand wherever this runs: the docstrings of NumPy and SciPy.

A function gives a pair of texts: its first line, and the longest paragraph of prose after it. One
function in five, chosen by its name, is kept for measuring; the texts of the others are for
training.
"""

import hashlib
import inspect
from importlib import import_module

MODULES = """numpy numpy.linalg numpy.fft scipy.signal scipy.stats scipy.optimize scipy.linalg
    scipy.special scipy.ndimage scipy.interpolate scipy.spatial scipy.integrate
    scipy.cluster.hierarchy""".split()
SHORTEST, CODE = 40, ("----", ">>>", ".. ", "::", "=None")


def prose(text):
    """The paragraphs of a docstring that are prose, each in one line."""
    lines = (" ".join(part.split()) for part in text.split("\n\n"))
    return [p for p in lines if len(p) >= SHORTEST and not any(sign in p for sign in CODE)]


def pairs(modules=MODULES):
    """Pairs of texts of all functions by name, each text once."""
    found, seen = {}, set()
    for module in map(import_module, modules):
        for name, member in sorted(vars(module).items()):
            text = inspect.getdoc(member) if callable(member) and name[0] != "_" else None
            if len(parts := prose(text or "")) > 1:
                both = parts[0], max(parts[1:], key=len)
                if seen.isdisjoint(both):
                    seen.update(both)
                    found[f"{module.__name__}.{name}"] = both
    return found


def is_kept(name):
    """Whether a function is one of those that are kept for measuring."""
    return hashlib.sha256(name.encode()).digest()[0] % 5 == 0


def divided(modules=MODULES):
    """Texts to train on, and pairs to measure on."""
    found = pairs(modules)
    train = [text for name, both in found.items() if not is_kept(name) for text in both]
    return train, [both for name, both in found.items() if is_kept(name)]

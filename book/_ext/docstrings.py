"""Docstrings are written to be read in a terminal; this makes reStructuredText of them.

Bars are absolute values and norms, a trailing underscore belongs to its name: neither is markup. In
the prose above the first section an indented block is a display, shown as it stands. Fields of
named tuples are described in their class; inherited machinery of other packages is left out.
"""

import re

LITERAL = re.compile(r"(``.*?``|`.*?`)")
TRAILING_UNDERSCORE = re.compile(r"(?<=\w)_(?!\w)")


def escape(line, header):
    """Plain bars and underscores; in the header of a parameter napoleon sees to its name."""
    parts = LITERAL.split(line)
    for i in range(0, len(parts), 2):
        parts[i] = parts[i].replace("|", r"\|")
        if not header:
            parts[i] = TRAILING_UNDERSCORE.sub(r"\_", parts[i])
    return "".join(parts)


def process(app, what, name, obj, options, lines):
    out, display, prose = [], False, True
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        prose = prose and not re.fullmatch(r"-{3,}", below.strip())
        if line.strip():
            opens = prose and line.startswith("    ") and out and not out[-1].strip()
            if opens and not display:
                out += ["::", ""]
            display = prose and line.startswith("    ") and (display or opens)
        out.append(line if display else escape(line, header=not prose and line[:1] != " "))
    lines[:] = out


def skip(app, what, name, obj, skip, options):
    field = type(obj).__name__ == "_tuplegetter"
    foreign = not (getattr(obj, "__module__", None) or "dslbi").startswith("dslbi")
    return True if field or foreign else None


def setup(app):
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", process, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

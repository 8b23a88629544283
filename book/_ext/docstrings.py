"""Docstrings are written to be read in a terminal; this makes reStructuredText of them.

Bars are absolute values and norms, not substitutions. In the prose above the first section an
indented block is a display, shown as it stands. Fields of named tuples are described in the class.
"""

import re

LITERAL = re.compile(r"(``.*?``)")


def escape_bars(line):
    """``|x|`` outside double backquotes as plain text."""
    parts = LITERAL.split(line)
    return "".join(part if part.startswith("``") else part.replace("|", r"\|") for part in parts)


def process(app, what, name, obj, options, lines):
    out, display, prose = [], False, True
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        prose = prose and not re.fullmatch(r"-{3,}", below.strip())
        if line.strip():
            opens = prose and line.startswith("    ") and out and not out[-1].strip()
            if opens and not display:
                out += ["::", ""]
            display = prose and line.startswith("    ") and (display or opens)
        out.append(line if display else escape_bars(line))
    lines[:] = out


def skip(app, what, name, obj, skip, options):
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app):
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", process, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

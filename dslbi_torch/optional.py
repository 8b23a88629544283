"""Packages that an extra of the installation brings, imported where they are used."""

from contextlib import contextmanager


@contextmanager
def brought_by(extra: str, what: str):
    """Let imports within the block say what to install where a package is missing.

    Parameters
    ----------
    extra : str
        Of this distribution, that has the package.
    what : str
        The feature that needs it, as the first words of the message.

    Raises
    ------
    ImportError
        In one line, with the missing module and the command.
    """
    try:
        yield
    except ImportError as error:
        missing = error.name or error
        raise ImportError(f"{what} needs {missing}: pip install 'dslbi[{extra}]'") from error

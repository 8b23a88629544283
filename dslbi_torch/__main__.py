"""The command line: ``python -m dslbi_torch COMMAND``, or ``dslbi COMMAND`` once installed.

One line on standard error and exit status 2: a wrong flag, an impossible value, missing data, a
damaged file, a missing package, a full memory or disk, a lost process of several, a compiler that
does not work. Status 1: a run that diverged, and a check that failed. Status 130: an interruption;
143: SIGTERM, after a checkpoint.
"""

import argparse
import difflib
import sys

import torch

from .training.commands import COMMANDS
from .training.run.contexts import Terminated
from .training.run.set_up import BrokenCompiler

# What is said in one line, and ends with status 2.
REFUSED = (
    *(ValueError, OSError, ImportError, BrokenCompiler),
    *(MemoryError, torch.OutOfMemoryError),
)


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, without the usage above it."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    parser = _Parser(
        prog="dslbi",
        description="Train networks while their sparse structure is found.",
        allow_abbrev=False,
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands = {}
    for name, command in COMMANDS.items():
        about = command.run.__doc__.splitlines()[0]
        commands[name] = subparsers.add_parser(
            name, help=about, description=about, allow_abbrev=False
        )
        command.add_arguments(commands[name])
    try:
        arguments, unknown = parser.parse_known_args(argv)
        if unknown:
            commands[arguments.command].error(_unknown(commands[arguments.command], unknown[0]))
    except SystemExit as stop:  # --help, or an error that has been printed
        return stop.code
    try:
        return COMMANDS[arguments.command].run(arguments)
    except REFUSED as error:
        return _say(arguments.command, error, 2)
    except FloatingPointError as error:
        return _say(arguments.command, error, 1)
    except Terminated as stop:
        return _say(arguments.command, f"{stop}; the same command resumes the run", 143)
    except KeyboardInterrupt:
        resumed = arguments.command in ("train", "sweep", "ticket", "grow")
        advice = "; the same command resumes the run" if resumed else ""
        return _say(arguments.command, f"interrupted{advice}", 130)


def _unknown(parser, argument):
    """The message for an argument that the command does not have, with the nearest that it has."""
    words = (word.strip("[]") for word in parser.format_usage().split())
    flags = [word for word in words if word.startswith("--")]
    near = difflib.get_close_matches(argument.split("=")[0], flags, n=1)
    return f"unknown argument {argument}" + (f", did you mean {near[0]}?" if near else "")


def _say(command, message, status):
    sys.stderr.write(f"dslbi {command}: {' '.join(str(message).split())}\n")  # whole, or none
    return status


if __name__ == "__main__":
    sys.exit(main())

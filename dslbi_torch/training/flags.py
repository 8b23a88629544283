"""Flags of the command line for the fields of a config: the one place where a setting is text."""

import argparse
import dataclasses
import types
from collections.abc import Callable, Collection

from .config import Config
from .config_checks import refuse_idle, refuse_lost_milestones, types_of
from .recipes import RECIPES, recipe


def add_recipe(parser: argparse.ArgumentParser, without: Collection[str] = ()) -> None:
    """Add a recipe, and a flag for each field of its config but these."""
    parser.add_argument("recipe", metavar="RECIPE", help=", ".join(RECIPES))
    for field in dataclasses.fields(Config):
        if field.name not in ("recipe", *without):
            add_field(parser, Config, field)


def add_field(
    parser: argparse.ArgumentParser, owner: type, field: dataclasses.Field, **settings
) -> None:
    """Add the flag of a field of a dataclass: absent from the arguments unless it is given."""
    flag, kinds = f"--{field.name.replace('_', '-')}", types_of(owner, field.name)
    settings |= {"default": argparse.SUPPRESS, "help": field.metadata["about"], "dest": field.name}
    if kinds == (bool,):
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, **settings)
    else:
        words = [_METAVARS[kind] for kind in kinds if kind is not types.NoneType]
        parser.add_argument(flag, type=_parse_as(kinds), metavar="|".join(words), **settings)


_METAVARS = {
    str: "STR",
    int: "INT",
    float: "FLOAT",
    tuple[int, ...]: "A,B,...",
    tuple[float, ...]: "A,B,...",
    dict[str, float]: "NAME=FLOAT,...",
}


def _parse_as(kinds):
    """What makes a value of one of these types from a text; argparse names it in its message."""
    by_name, kind = dict[str, float] in kinds, kinds[0]
    if kind == tuple[int, ...]:
        return list_of(int, "list of whole numbers")
    if kind == tuple[float, ...]:
        return list_of(float, "list of numbers")

    def parse(text):
        if types.NoneType in kinds and text.lower() == "none":
            return None
        if by_name and (float not in kinds or "=" in text):
            return numbers_by_name(text)
        return kind(text)

    parse.__name__ = getattr(kind, "__name__", "value")
    return parse


def list_of(kind: type, words: str) -> Callable[[str], tuple]:
    """Return what makes a tuple from values between commas; ``words`` say what it is."""

    def parse(text):
        return tuple(kind(part) for part in text.split(",") if part)

    parse.__name__ = words
    return parse


def numbers_by_name(text: str) -> dict[str, float]:
    """Return ``{"conv3.weight": 0.7}`` of ``"conv3.weight=0.7"``; commas stand between several."""
    numbers = {}
    for part in filter(None, text.split(",")):
        name, _, number = part.rpartition("=")
        if name in numbers:
            raise argparse.ArgumentTypeError(f"must give a name once, got {name} twice")
        try:
            numbers[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise argparse.ArgumentTypeError(f"must be NAME=NUMBER,..., got {part!r}")
    return numbers


def config_of(
    arguments: argparse.Namespace, adjust: Callable[[Config, dict], dict] = lambda _, values: values
) -> Config:
    """Return the config of a recipe with the fields that flags have set.

    ``adjust(config, values)`` may change what flags say of the recipe's config.

    Raises
    ------
    ValueError
        For impossible values, and for a flag that has no effect.
    """
    names = {field.name for field in dataclasses.fields(Config)} - {"recipe"}
    start = recipe(arguments.recipe).config
    values = {name: value for name, value in vars(arguments).items() if name in names}
    values = adjust(start, values)
    config = dataclasses.replace(start, **values)
    refuse_idle(config, values)
    refuse_lost_milestones(config, values)
    return config


def fields_of(flag: str, words: list[str]) -> dict:
    """Return fields of Config as their flags would set them: ``["lr=0.1"]`` is ``{"lr": 0.1}``."""
    parser = _Fields(prog=flag, add_help=False, allow_abbrev=False)
    for field in dataclasses.fields(Config):
        add_field(parser, Config, field)
    split = [word.partition("=") for word in words]
    flags = [f"--{name.replace('_', '-')}{equals}{value}" for name, equals, value in split]
    found, unknown = parser.parse_known_args(flags)
    if unknown:
        raise ValueError(f"{flag} must be fields of a config, got {unknown[0].lstrip('-')!r}")
    return vars(found)


class _Fields(argparse.ArgumentParser):
    """argparse whose errors are those of the flag that holds the fields."""

    def error(self, message):
        raise ValueError(f"{self.prog}: {message}")

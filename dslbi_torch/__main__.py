"""The command line: ``python -m dslbi_torch COMMAND``, or ``dslbi COMMAND`` once installed.

A wrong flag, an impossible value, missing data or a damaged file is one line on standard error and
exit status 2; a run that diverged, and a check that failed, status 1; an interruption, status 130,
and SIGTERM, after a checkpoint, 143.
"""

import argparse
import dataclasses
import difflib
import sys
import types
from pathlib import Path

from . import verify
from .training import config as configs
from .training import idle, recipes
from .training.experiments import grow, methods, shrink, sweep, tickets
from .training.run import report, train
from .training.run import run_folder as folders


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, without the usage above it."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = _Parser(
        prog="dslbi",
        description="Train networks while their sparse structure is found.",
        allow_abbrev=False,
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands = {}
    for name, (add_arguments, run) in COMMANDS.items():
        about = run.__doc__.splitlines()[0]
        commands[name] = subparsers.add_parser(
            name, help=about, description=about, allow_abbrev=False
        )
        add_arguments(commands[name])
    try:
        arguments, unknown = parser.parse_known_args(argv)
        if unknown:
            commands[arguments.command].error(_unknown(commands[arguments.command], unknown[0]))
    except SystemExit as stop:  # --help, or an error that has been printed
        return stop.code
    try:
        return COMMANDS[arguments.command][1](arguments)
    except (ValueError, OSError, ImportError) as error:
        return _say(arguments.command, error, 2)
    except FloatingPointError as error:
        return _say(arguments.command, error, 1)
    except train.Terminated as stop:
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


# train


def _add_train(parser):
    _add_recipe(parser)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="refuse to start afresh (an unfinished run is resumed with or without this flag)",
    )


def _add_recipe(parser, without=()):
    """A recipe, and a flag for each field of its config but these."""
    parser.add_argument("recipe", metavar="RECIPE", help=", ".join(recipes.RECIPES))
    for field in dataclasses.fields(configs.Config):
        if field.name not in ("recipe", *without):
            _add_field(parser, field)


def _add_field(parser, field, kinds=None, **settings):
    """The flag of a field of Config, or of these types: absent from the arguments unless it is
    given."""
    flag, kinds = f"--{field.name.replace('_', '-')}", kinds or configs.types_of(field.name)
    settings |= {"default": argparse.SUPPRESS, "help": field.metadata["about"], "dest": field.name}
    if kinds == (bool,):
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, **settings)
    elif kinds == (tuple[int, ...],):
        parse = _list_of(int, "list of whole numbers")
        parser.add_argument(flag, type=parse, metavar="A,B,...", **settings)
    else:
        kind = next(k for k in kinds if k is not types.NoneType)
        parse = _or_none(kind) if types.NoneType in kinds else kind
        parser.add_argument(flag, type=parse, metavar=kind.__name__.upper(), **settings)


def _list_of(kind, words):
    def parse(text):
        return tuple(kind(part) for part in text.split(",") if part)

    parse.__name__ = words  # argparse names the type in its message
    return parse


def _or_none(kind):
    def parse(text):
        return None if text.lower() == "none" else kind(text)

    parse.__name__ = kind.__name__
    return parse


def _config(arguments):
    """The config of a recipe with the fields that flags have set."""
    names = {field.name for field in dataclasses.fields(configs.Config)} - {"recipe"}
    values = {name: value for name, value in vars(arguments).items() if name in names}
    recipe = recipes.recipe(arguments.recipe).config
    if arguments.command == "sweep":
        values = sweep.scaled(recipe, values)
    config = dataclasses.replace(recipe, **values)
    idle.refuse_idle(config, values)
    idle.refuse_flat(config, values)
    return config


def _train(arguments):
    """train a recipe into a run folder; any field of its config can be set by a flag"""
    config = _config(arguments)
    run = train.train(config, resume=arguments.resume)
    if run.processes.first:
        print(f"\n{report.result_table(run.at.result, holdout=config.holdout)}")
        print(f"run folder: {config.folder}")
    return 0


# sweep


def _add_sweep(parser):
    _add_recipe(parser)
    for name in ("kappas", "nus"):
        parse, about = _list_of(float, "list of numbers"), f"{name[:-1]} to try"
        parser.add_argument(f"--{name}", type=parse, default=(), metavar="A,B,...", help=about)


def _sweep(arguments):
    """train a recipe over kappa and nu; results in the layout of the paper's Tables 3 to 6"""
    config = _config(arguments)
    text = sweep.sweep(config, arguments.kappas, arguments.nus)
    if text is not None:  # in the first of several processes
        print(f"{text}\n\nrun folders: {config.folder}")
    return 0


# evaluate and path


def _add_folder(parser):
    parser.add_argument("run", metavar="RUN", help="a run folder")


def _add_place(parser):
    _add_folder(parser)
    parser.add_argument("--data", metavar="STR", help="folder of the data sets; else as in the run")
    parser.add_argument("--device", metavar="STR", default="auto", help="cpu, cuda, ...; or auto")


def _open(arguments, **options):
    """The run of a folder, or what has grown in it, after its last epoch."""
    place = dict(data=arguments.data, device=arguments.device)
    if folders.grows(arguments.run):
        if options.get("epoch") is not None:
            raise ValueError(f"epoch must be left out for a growth, got {options['epoch']}")
        return grow.open_grown(arguments.run, **place)
    return train.open_run(arguments.run, **place, **options)


def _add_evaluate(parser):
    _add_place(parser)
    parser.add_argument(
        "--epoch", type=int, metavar="INT", help="a kept checkpoint (train --keep); else the last"
    )


def _evaluate(arguments):
    """evaluate the dense, the sparse and the Gamma model of a run folder's checkpoint"""
    run = _open(arguments, epoch=arguments.epoch)
    print(report.result_table(train.evaluate(run), holdout=run.config.holdout))
    return 0


def _path(arguments):
    """show the path of a run: when what entered, the density along the epochs, and a picture"""
    print(report.path_table(arguments.run))
    print(f"\npicture: {report.draw_path(arguments.run)}")
    return 0


# prune and compact


def _add_prune(parser):
    _add_place(parser)
    parser.add_argument(
        "--density", type=float, metavar="FLOAT", help="share of the split weights to keep, (0, 1]"
    )
    orders = f"{', '.join(shrink.ORDERS)}; else gamma, without a split magnitude"
    parser.add_argument("--by", metavar="ORDER", help=f"what goes last: {orders}")
    parser.add_argument("--per-layer", action="store_true", help="the density of every layer")
    parser.add_argument("--seed", type=int, metavar="INT", help="of random masks; else 0")
    parser.add_argument(
        "--step", type=int, metavar="INT", help="without a density: the support at this step"
    )
    parser.add_argument("--masks", metavar="FILE", help=f"what to write; else RUN/{shrink.PRUNED}")


def _prune(arguments):
    """choose what stays of a run's net, at a density or as Gamma says, and write it as masks"""
    run = _open(arguments)
    file = Path(arguments.masks or Path(arguments.run) / shrink.PRUNED)
    choice = {
        key: getattr(arguments, key) for key in ("density", "by", "per_layer", "seed", "step")
    }
    print(f"{shrink.prune(run, file, **choice)}\n\nmasks: {file}")
    return 0


def _add_compact(parser):
    _add_place(parser)
    parser.add_argument(
        "--masks",
        metavar="FILE",
        help=f"what stays; else RUN/{shrink.PRUNED}, else the support of Gamma; where nothing is "
        "split, what is not zero",
    )
    parser.add_argument("--out", metavar="FILE", help="what to write; else RUN/compact.pt")
    parser.add_argument("--onnx", action="store_true", help="write it as ONNX too")
    parser.add_argument("--program", action="store_true", help="write it by torch.export too")


def _compact(arguments):
    """cut what is masked out of a run's net, and write the smaller net"""
    run = _open(arguments)
    masks = shrink.read_masks(arguments.run, arguments.masks)
    file = Path(arguments.out or Path(arguments.run) / "compact.pt")
    kinds = dict(onnx=arguments.onnx, program=arguments.program)
    print(f"{shrink.compact_run(run, masks, file, **kinds)}\n\ncompact net: {file}")
    return 0


# grow


def _add_grow(parser):
    _add_recipe(parser, without=("record_every",))  # no path is recorded, whatever a recipe says
    for field in dataclasses.fields(grow.Growth):
        required = field.default is dataclasses.MISSING
        _add_field(parser, field, (field.type,), required=required)


def _grow(arguments):
    """grow a recipe's net from a few filters, where the path saturates, within a budget"""
    names = {field.name for field in dataclasses.fields(grow.Growth)}
    growth = grow.Growth(**{k: value for k, value in vars(arguments).items() if k in names})
    config = _config(arguments)
    grown = grow.grow(config, growth)
    print(f"\n{grow.report(grown)}\n\ngrown net: {config.folder / 'grown.pt'}")
    return 0


# ticket


def _add_ticket(parser):
    _add_recipe(parser)
    whole = _list_of(int, "list of whole numbers")
    parser.add_argument(
        "--at",
        type=whole,
        metavar="A,B,...",
        help="epochs at which the search counts as stopped, whose selection is trained alone; "
        "else the last",
    )
    parser.add_argument(
        "--seeds", type=whole, metavar="A,B,...", help="a comparison for each; else the seed"
    )
    parser.add_argument(
        "--methods",
        type=_list_of(str, "list of names"),
        default=(),
        metavar="A,B,...",
        help=f"else all that the net allows: {', '.join(methods.METHODS)}",
    )
    for name, about in (
        ("retrain", "in what the trainings after the search differ from it, as epochs=20 lr=0.05"),
        ("tune", "in what those that train on differ from these; without it a tenth of lr"),
    ):
        parser.add_argument(f"--{name}", nargs="+", default=[], metavar="FIELD=VALUE", help=about)
    parser.add_argument(
        "--rewind",
        type=int,
        default=0,
        metavar="INT",
        help="epoch whose weights tickets start with",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, metavar="INT", help="of iterative magnitude pruning"
    )
    parser.add_argument(
        "--slimming-l1", type=float, default=1e-4, metavar="FLOAT", help="l1 of slimming"
    )
    parser.add_argument(
        "--transfer", metavar="DATASET", help="train the tickets on another data set too"
    )
    parser.add_argument(
        "--whole", action="store_true", help="do not cut a masked net before it is trained"
    )


def _ticket(arguments):
    """search a winning ticket, train it beside other ways to a net as small, and print a table"""
    config = _config(arguments)
    plan = tickets.Plan(
        at=(config.epochs,) if arguments.at is None else arguments.at,
        methods=arguments.methods,
        seeds=(config.seed,) if arguments.seeds is None else arguments.seeds,
        rewind=arguments.rewind,
        rounds=arguments.rounds,
        retrain=_fields("retrain", arguments.retrain),
        tune=_fields("tune", arguments.tune),
        l1_scales=arguments.slimming_l1,
        transfer=arguments.transfer,
        cut=not arguments.whole,
    )
    print(tickets.compare(config, plan))
    print(f"\nrun folders: {config.folder}")
    return 0


def _fields(flag, words):
    """Fields of Config, as their flags would set them: ``["lr=0.1"]`` is ``{"lr": 0.1}``."""
    parser = _Fields(prog=flag, add_help=False, allow_abbrev=False)
    for field in dataclasses.fields(configs.Config):
        _add_field(parser, field)
    split = [word.partition("=") for word in words]
    flags = [f"--{name.replace('_', '-')}{equals}{value}" for name, equals, value in split]
    found, unknown = parser.parse_known_args(flags)
    if unknown:
        raise ValueError(f"{flag} must be fields of a config, got {unknown[0].lstrip('-')!r}")
    return vars(found)


class _Fields(argparse.ArgumentParser):
    def error(self, message):
        raise ValueError(f"{self.prog}: {message}")


# recipes and verify


def _add_nothing(parser):
    pass


def _add_recipes(parser):
    parser.add_argument(
        "recipe", nargs="?", metavar="RECIPE", help="the settings of this one, as JSON"
    )


def _recipes(arguments):
    """list the recipes and what each needs"""
    if arguments.recipe is not None:
        print(configs.to_json(recipes.recipe(arguments.recipe).config), end="")
        return 0
    for name, recipe in recipes.RECIPES.items():
        print(
            f"{name}\n    {recipe.about}\n    needs: {recipe.needs}\n    settings: {recipe.source}"
        )
    return 0


def _verify(arguments):
    """check the NumPy reference against every device present, as a table"""
    rows = verify.verify()
    print(verify.table(rows))
    return 0 if all(row.passed for row in rows) else 1


# Each command: what adds its arguments, and what runs it; the first line of its docstring is its
# help.
COMMANDS = {
    "train": (_add_train, _train),
    "sweep": (_add_sweep, _sweep),
    "evaluate": (_add_evaluate, _evaluate),
    "path": (_add_folder, _path),
    "prune": (_add_prune, _prune),
    "compact": (_add_compact, _compact),
    "grow": (_add_grow, _grow),
    "ticket": (_add_ticket, _ticket),
    "verify": (_add_nothing, _verify),
    "recipes": (_add_recipes, _recipes),
}

if __name__ == "__main__":
    sys.exit(main())

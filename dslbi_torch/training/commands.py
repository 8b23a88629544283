"""The commands of the command line: what arguments each takes, and what it does."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .. import verify
from . import config as configs
from . import flags, recipes
from .experiments import compact_run, grow, methods, prune_run, sweep, tickets
from .run import report, train
from .run import run_folder as folders
from .run.evaluate import evaluate
from .run.set_up import open_run

# train


def _add_train(parser):
    flags.add_recipe(parser)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="refuse to start afresh, and go on from the newest whole checkpoint where the last is "
        "damaged (an unfinished run is resumed with or without this flag)",
    )


def _train(arguments):
    """train a recipe into a run folder; any field of its config can be set by a flag"""
    config = flags.config_of(arguments)
    run = train.train(config, resume=arguments.resume)
    if run.processes.first:
        print(f"\n{report.result_table(run.at.result, holdout=config.holdout)}")
        print(f"run folder: {config.folder}")
    return 0


# sweep


def _add_sweep(parser):
    flags.add_recipe(parser)
    for name in ("kappas", "nus"):
        parse, about = flags.list_of(float, "list of numbers"), f"{name[:-1]} to try"
        parser.add_argument(f"--{name}", type=parse, default=(), metavar="A,B,...", help=about)


def _sweep(arguments):
    """train a recipe over kappa and nu; results in the layout of the paper's Tables 3 to 6"""
    for name, other in (("kappa", "nu"), ("nu", "kappa")):
        swept, fixes = getattr(arguments, f"{name}s"), getattr(arguments, f"{other}s")
        if swept and name in vars(arguments) and not fixes:
            raise ValueError(
                f"{name} needs {other}s to have an effect beside {name}s, got "
                f"{getattr(arguments, name):g} without"
            )
    config = flags.config_of(arguments, sweep.scaled)
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
    return open_run(arguments.run, **place, **options)


def _add_evaluate(parser):
    _add_place(parser)
    parser.add_argument(
        "--epoch", type=int, metavar="INT", help="a kept checkpoint (train --keep); else the last"
    )


def _evaluate(arguments):
    """evaluate the dense, the sparse and the Gamma model of a run folder's checkpoint"""
    run = _open(arguments, epoch=arguments.epoch)
    print(report.result_table(evaluate(run), holdout=run.config.holdout))
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
    orders = f"{', '.join(prune_run.ORDERS)}; else gamma, without a split magnitude"
    parser.add_argument("--by", metavar="ORDER", help=f"what goes last: {orders}")
    parser.add_argument("--per-layer", action="store_true", help="the density of every layer")
    parser.add_argument("--seed", type=int, metavar="INT", help="of random masks; else 0")
    parser.add_argument(
        "--step", type=int, metavar="INT", help="without a density: the support at this step"
    )
    parser.add_argument(
        "--masks", metavar="FILE", help=f"what to write; else RUN/{prune_run.PRUNED}"
    )


def _prune(arguments):
    """choose what stays of a run's net, at a density or as Gamma says, and write it as masks"""
    run = _open(arguments)
    file = Path(arguments.masks or Path(arguments.run) / prune_run.PRUNED)
    choice = {
        key: getattr(arguments, key) for key in ("density", "by", "per_layer", "seed", "step")
    }
    print(f"{prune_run.prune(run, file, **choice)}\n\nmasks: {file}")
    return 0


def _add_compact(parser):
    _add_place(parser)
    parser.add_argument(
        "--masks",
        metavar="FILE",
        help=f"what stays; else RUN/{prune_run.PRUNED}, else the support of Gamma; where nothing "
        "is split, what is not zero",
    )
    parser.add_argument("--out", metavar="FILE", help="what to write; else RUN/compact.pt")
    parser.add_argument("--onnx", action="store_true", help="write it as ONNX too")
    parser.add_argument("--program", action="store_true", help="write it by torch.export too")
    parser.add_argument(
        "--statistics",
        type=int,
        default=0,
        metavar="INT",
        help="training batches from which the statistics of BatchNorms are taken anew; else 0",
    )
    parser.add_argument(
        "--fold", action="store_true", help="fold BatchNorms in what --onnx and --program write"
    )


def _compact(arguments):
    """cut what is masked out of a run's net, and write the smaller net"""
    run = _open(arguments)
    masks = prune_run.read_masks(arguments.run, arguments.masks)
    file = Path(arguments.out or Path(arguments.run) / "compact.pt")
    options = {key: getattr(arguments, key) for key in ("onnx", "program", "statistics", "fold")}
    print(f"{compact_run.compact_run(run, masks, file, **options)}\n\ncompact net: {file}")
    return 0


# grow


def _add_grow(parser):
    flags.add_recipe(
        parser, without=("record_every",)
    )  # no path is recorded, whatever a recipe says
    for field in dataclasses.fields(grow.GrowthPlan):
        required = field.default is dataclasses.MISSING
        flags.add_field(parser, grow.GrowthPlan, field, required=required)


def _grow(arguments):
    """grow a recipe's net from a few filters, where the path saturates, within a budget"""
    names = {field.name for field in dataclasses.fields(grow.GrowthPlan)}
    plan = grow.GrowthPlan(**{k: value for k, value in vars(arguments).items() if k in names})
    config = flags.config_of(arguments)
    grown = grow.grow(config, plan)
    print(f"\n{grow.report(grown)}\n\ngrown net: {config.folder / 'grown.pt'}")
    return 0


# ticket


def _add_ticket(parser):
    flags.add_recipe(parser)
    whole = flags.list_of(int, "list of whole numbers")
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
        type=flags.list_of(str, "list of names"),
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
    config = flags.config_of(arguments)
    plan = tickets.TicketPlan(
        at=(config.epochs,) if arguments.at is None else arguments.at,
        methods=arguments.methods,
        seeds=(config.seed,) if arguments.seeds is None else arguments.seeds,
        rewind=arguments.rewind,
        rounds=arguments.rounds,
        retrain=flags.fields_of("retrain", arguments.retrain),
        tune=flags.fields_of("tune", arguments.tune),
        l1_scales=arguments.slimming_l1,
        transfer=arguments.transfer,
        cut=not arguments.whole,
    )
    print(tickets.compare(config, plan))
    print(f"\nrun folders: {config.folder}")
    return 0


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


class Command(NamedTuple):
    """A command: what adds its arguments, and what runs it and returns the exit status. The first
    line of the docstring of ``run`` is its help."""

    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


COMMANDS = {
    "train": Command(_add_train, _train),
    "sweep": Command(_add_sweep, _sweep),
    "evaluate": Command(_add_evaluate, _evaluate),
    "path": Command(_add_folder, _path),
    "prune": Command(_add_prune, _prune),
    "compact": Command(_add_compact, _compact),
    "grow": Command(_add_grow, _grow),
    "ticket": Command(_add_ticket, _ticket),
    "verify": Command(_add_nothing, _verify),
    "recipes": Command(_add_recipes, _recipes),
}

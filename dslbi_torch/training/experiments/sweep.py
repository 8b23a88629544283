"""A recipe over kappa and over nu, and the tables of the paper's section 5.3 from it.

Tables 3 and 5 of the paper give, for every kappa (nu fixed) and every nu (kappa fixed), the best
test accuracy of the full model W and of the sparse model W * 1{Gamma != 0}; Tables 4 and 6 give the
share of non-zeros and the accuracy of the sparse model at epochs 20, 40, 80 and 160 of 160, and
here at the same shares of a run of any length.
"""

import dataclasses
import itertools
from functools import partial

from ...text import text_table
from ..config import Config
from ..run import run_folder as folders
from ..run import train
from ..run.processes import joined

EPOCH_SHARES = (1 / 8, 1 / 4, 1 / 2, 1)  # 20, 40, 80 and 160 of 160 epochs


def runs(config: Config, kappas=(), nus=()) -> dict[str, list[Config]]:
    """Return the configs of a sweep, by what is swept. Each has a folder of its own below that of
    ``config``."""
    if not config.splits:
        raise ValueError(f"a sweep needs an optimizer that splits, got {config.optimizer}")
    if not (kappas or nus):
        raise ValueError("a sweep needs at least one kappa or nu, got none")
    wanted = {"kappa": kappas, "nu": nus}
    found = {}
    for name, values in wanted.items():
        if len(set(values)) < len(values):
            raise ValueError(f"each {name} of a sweep must be given once, got {list(values)}")
        found[name] = [
            _placed(dataclasses.replace(config, **{name: v}), config.folder) for v in values
        ]
    return {name: configs for name, configs in found.items() if configs}


def _placed(config, folder):
    """A run is called by both values: one that is in both tables is trained once."""
    name = f"kappa-{config.kappa:g}-nu-{config.nu:g}"
    return dataclasses.replace(config, out=str(folder / name))


def scaled(recipe: Config, changes: dict) -> dict:
    """Return the changes of a recipe by flags, with its milestones in proportion to other epochs,
    as the tables take theirs."""
    own = {"milestones", "schedule"} & changes.keys()
    if recipe.schedule != "step" or "epochs" not in changes or own:
        return changes
    share = changes["epochs"] / recipe.epochs
    epochs = dict.fromkeys(max(1, round(share * epoch)) for epoch in recipe.milestones)
    return changes | {"milestones": tuple(epochs)}


def sweep(config: Config, kappas=(), nus=(), *, progress: bool | None = None) -> str | None:
    """Train a config for every kappa and every nu, write the tables to ``tables.txt``, and return
    them (of several processes, in the first one; None in the others).

    A run that is finished in its folder is not trained again, an unfinished one goes on: the same
    call continues a sweep that was cut off.
    """
    plan = runs(config, kappas, nus)
    with joined(config.device) as processes:
        for one in itertools.chain.from_iterable(plan.values()):
            if not processes.agreed(partial(folders.is_finished, one)):
                train.train(one, progress=progress)
        if not processes.first:
            return None
    text = tables(config, plan)
    folders.write_text(config.folder / "tables.txt", text + "\n")
    return text


def tables(config: Config, plan: dict[str, list[Config]]) -> str:
    """Return the logs of a sweep in the layout of the paper's Tables 3 to 6."""
    blocks, measured = [], "held-out" if config.holdout else "test"
    for name, configs in plan.items():
        other = "nu" if name == "kappa" else "kappa"
        logs = [(getattr(c, name), folders.read_log(c.folder)) for c in configs]
        fixed = f"{config.model} on {config.dataset}, {other} = {getattr(config, other):g}"
        blocks += [
            f"Best {measured} accuracy %, {fixed}\n{_best(name, logs)}",
            f"Sparse model by epoch, {fixed}: non-zero % of the split weights, "
            f"{measured} accuracy %\n{_course(name, logs, config.epochs)}",
        ]
    return "\n\n".join(blocks)


def _best(name, logs):
    """Layout of Tables 3 and 5."""
    rows = []
    for key, title in (("acc_dense", "Full"), ("acc_sparse", "Sparse")):
        best = [max(row[key] for row in log[1:]) for _, log in logs]
        rows.append((title, *(f"{100 * x:.2f}" for x in best)))
    head = (name, *(f"{value:g}" for value, _ in logs))
    return text_table(head, rows, "<" + ">" * len(logs), (20, *[7] * len(logs)))


def _course(name, logs, epochs):
    """Layout of Tables 4 and 6."""
    chosen = sorted({max(1, round(share * epochs)) for share in EPOCH_SHARES})
    rows = []
    for value, log in logs:
        cells = [
            100 * log[epoch][key] for epoch in chosen for key in ("nonzero_split", "acc_sparse")
        ]
        rows.append((f"{value:g}", *(f"{x:.2f}" for x in cells)))
    head = [f"epoch {epoch}\n{what}" for epoch in chosen for what in ("non-zero", "accuracy")]
    return text_table((name, *head), rows, "<" + ">" * len(head), (20, *[9] * len(head)))

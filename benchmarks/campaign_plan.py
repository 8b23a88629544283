"""The plan of the campaign: its runs by name, most valuable first, and what each needs.

Settings that a run takes from a grid were measured on held-out training pictures, with as many
trials for every method of a comparison; the test set is read once, by the final runs. Runs that
wait for what the laboratory cannot do yet are named with the reason.
"""

from dataclasses import replace
from itertools import product
from typing import NamedTuple

from dslbi_torch.training.config import Config, without_path
from dslbi_torch.training.experiments.sweep import scaled
from dslbi_torch.training.recipes import recipe


class Job(NamedTuple):
    """A run: its config, but for what other runs decide."""

    name: str
    part: str
    config: Config | None = None
    masks_of: str = ""  # the run whose net is made sparse
    choice: dict = {}  # how: what prune_run.choose_masks takes, or crossing: a density
    tunes: bool = True  # from the weights of that run; no: from initial weights of its own
    grid: tuple[str, ...] = ()  # runs on held-out pictures, the best of which decides
    fields: tuple[str, ...] = ()  # these settings
    data: str = ""  # folder of its data below the root; "": the root
    waits: str = ""  # what it waits for: it cannot be made yet
    note: str = ""


def waits(part: str, reason: str, *names: str) -> list[Job]:
    """Return runs that cannot be made yet."""
    return [Job(name, part, waits=reason) for name in names]


def on_grid(name, part, config, changes: list[dict]) -> tuple[list[Job], dict]:
    """Return a run for each of these changes of a config, on held-out pictures, and what a final
    run says of them."""
    held_out = replace(config, holdout=HELD_OUT, seed=GRID_SEED)
    jobs = []
    for change in changes:
        words = [f"{field.replace('_', '-')}-{value:.3g}" for field, value in change.items()]
        jobs.append(Job("-".join([name, *words]), part, replace(held_out, **change)))
    return jobs, {"grid": tuple(job.name for job in jobs), "fields": tuple(changes[0])}


HELD_OUT, GRID_SEED = 5000, 100
SEEDS = (0, 1, 2)

# Single weights of the fast net: 14 epochs for every way to a sparse net

EPOCHS, TUNING = 10, 4
RIVALS = ("gradual", "adabreg", "rigl")  # a run for each density
DENSITIES = (0.1, 0.02, 0.2, 0.05)  # in the order of their value


def settings(model: str) -> dict[str, Config]:
    """Return the settings of each way, which its own of a seed are variants of."""
    own, dense = recipe(model).config, recipe(f"{model}-dense").config
    longer = replace(dense, epochs=EPOCHS + TUNING)
    short = dict(epochs=TUNING, lr=dense.lr / 5, lr_min=dense.lr / 75, warmup=0.5)
    # A level of 0.05: V of a weight that is zero has to grow to it by steps of lr, from nothing.
    levels = dict(target=0.1, first=0.2, lam_conv=0.05, lam_linear=0.05)
    adam = dict(nesterov=False, momentum=0.9, weight_decay=0.0, lr_biases=1.0, lr_min=0.0)
    return {
        "dense": dense,
        "dessilbi": replace(own, target=max(DENSITIES), crossings=DENSITIES),
        "gradual": replace(longer, prune="gradual", target=0.1),
        "adabreg": replace(longer, optimizer="adabreg", lr=0.01, **levels, **adam),
        "rigl": replace(longer, prune="rigl", target=0.1),
        "longer": longer,
        "tuning": replace(dense, **short),
    }


def grids(part: str, model: str) -> tuple[list[Job], dict]:
    """Return a grid for each way, and what final runs say of it."""
    jobs, by, ways = [], {}, settings(model)
    starts = ((30.0, 1.0), (100.0, 1.0), (100.0, 0.0))
    for method, changes in (
        ("dense", [dict(lr=lr) for lr in (0.5, 0.75, 1.1)]),
        ("dessilbi", [dict(nu=nu, release_power=power) for nu, power in starts]),
        ("gradual", [dict(ramp=ramp) for ramp in (0.5, 0.7, 0.9)]),
        ("adabreg", [dict(lr=lr) for lr in (0.003, 0.01, 0.03)]),
        ("rigl", [dict(ramp=ramp) for ramp in (0.5, 0.75, 0.9)]),
    ):
        grid, by[method] = on_grid(f"{model}-{method}", part, ways[method], changes)
        jobs += grid
    return jobs, by


def single_weights(part, model, seed, by) -> list[Job]:
    """Return the runs of a seed: dense, DessiLBI at all densities, and its rivals."""
    ways = {way: replace(config, seed=seed) for way, config in settings(model).items()}
    dense, path = f"{model}-dense-{seed}", f"{model}-dessilbi-{seed}"
    jobs = [
        Job(dense, part, ways["dense"], **by["dense"]),
        Job(path, part, ways["dessilbi"], **by["dessilbi"]),
        Job(f"{model}-dense-long-{seed}", part, ways["longer"], **by["dense"]),
    ]
    for density in DENSITIES:
        name = f"{model}-{{}}-{100 * density:g}-{seed}".format
        rivals = {way: replace(ways[way], target=density) for way in RIVALS}
        share = dict(density=density)
        drawn = share | dict(by="random", seed=seed)
        jobs += [
            Job(name("gamma"), part, ways["tuning"], path, share | dict(by="gamma")),
            Job(name("entry"), part, ways["tuning"], path, share | dict(by="entry")),
            Job(name("normalised"), part, ways["tuning"], path, share | dict(by="normalised")),
            Job(name("crossing"), part, ways["tuning"], path, dict(crossing=density)),
            *(Job(name(way), part, rivals[way], **by[way]) for way in RIVALS),
            Job(name("magnitude"), part, ways["tuning"], dense, share),
            Job(name("random"), part, ways["longer"], path, drawn, tunes=False),
        ]
    return jobs


def headline(model, seed, by, densities=(0.034, 0.1)) -> list[Job]:
    """Return dense and DessiLBI at full width, with the settings that half of it has found."""
    ways = {way: replace(config, seed=seed) for way, config in settings(model).items()}
    path, part = f"{model}-dessilbi-{seed}", "headline"
    own = [
        Job(f"{model}-dense-{seed}", part, ways["dense"], **by["dense"]),
        Job(path, part, ways["dessilbi"], **by["dessilbi"]),
    ]
    for density, order in product(densities, ("gamma", "normalised")):
        name = f"{model}-{order}-{100 * density:g}-{seed}"
        own.append(Job(name, part, ways["tuning"], path, dict(density=density, by=order)))
    return own


HALF, WHOLE = "cifar10-fast-half", "cifar10-fast"
TRIED, BY = grids("weights", HALF)
WEIGHTS = [
    *TRIED,
    *(job for seed in SEEDS for job in single_weights("weights", HALF, seed, BY)),
    *(job for seed in SEEDS for job in headline(WHOLE, seed, BY)),
]  # fmt: skip
CHANNELS = waits(
    "channels", "joint units of layers that are added or read one another have no setting yet",
    "cifar10-fast-channels-0.5", "cifar10-fast-channels-0.25",
)  # fmt: skip

# Tables 9 and 10


def at_length(name: str, epochs: int, **changes) -> Config:
    """Return a recipe at another length, its milestones in proportion."""
    config = recipe(name).config
    return replace(config, **scaled(config, dict(epochs=epochs, **changes)))


CONVOLUTIONS = [
    Job(f"conv{depth}-{seed}", "tables-9-10", at_length(f"cifar10-conv{depth}", 15, seed=seed))
    for seed in SEEDS
    for depth in (2, 4)
]

# Tables 3 to 6: 20 epochs in place of 160, and nu an eighth. The level V of a weight moves by
# alpha / nu times its distance to Gamma in a step, so this ratio decides what enters in a run.

SHORTER = 20 / 160
KAPPAS, NUS = (1, 2, 5, 10), (20, 100, 500, 2000)  # ours: those of the tables are not known


def swept(model: str, kappa: float, nu: float) -> Config:
    """Return a run of Tables 3 to 6 in small; nu is that of the whole length."""
    own = dict(model=model, kappa=float(kappa), nu=nu * SHORTER)
    return at_length("cifar10-resnet56", round(160 * SHORTER), **own)


_NOTE = "nu / 8, because the run is an eighth as long"
GRIDS = [
    *(Job(f"resnet20-kappa-{kappa}-nu-100", "tables-3-6", swept("resnet20", kappa, 100), note=_NOTE)
      for kappa in KAPPAS),
    *(Job(f"resnet20-kappa-1-nu-{nu}", "tables-3-6", swept("resnet20", 1, nu), note=_NOTE)
      for nu in NUS if nu != 100),
    *(Job(f"{model}-kappa-1-nu-100", "tables-3-6", swept(model, 1, 100), note=f"part; {_NOTE}")
      for model in ("resnet56", "vgg16-bn")),
]  # fmt: skip


def controls(path: str, config: Config, densities=(0.5, 0.2, 0.1, 0.05)) -> list[Job]:
    """Return what the sparse nets of a run are to be better than, at each density: masks by the
    sizes of the trained and of the initial weights, and by chance; two epochs of tuning."""
    own = dict(epochs=2, lr=0.01, schedule="cosine", milestones=())
    short, name = replace(without_path(config, "sgd"), **own), f"{path}-{{}}-{{:g}}".format
    return [
        Job(name(by, 100 * density), "tables-3-6", short, path, dict(density=density, by=by))
        for density in densities
        for by in ("gamma", "magnitude", "initial", "random")
    ]


GRIDS += controls("resnet20-kappa-1-nu-100", swept("resnet20", 1, 100))

# Table 2, the column of CIFAR-10

TABLE_2 = {
    "dessilbi": dict(momentum=0.0, weight_decay=0.0),
    "dessilbi-mom": dict(weight_decay=0.0),
    "dessilbi-mom-wd": {},
    "sgd": dict(optimizer="sgd", momentum=0.0, weight_decay=0.0),
    "sgd-l1": dict(optimizer="sgd", momentum=0.0, weight_decay=0.0, l1=1e-3),
    "sgd-mom": dict(optimizer="sgd", weight_decay=0.0),
    "sgd-mom-wd": dict(optimizer="sgd"),
    "sgd-nesterov": dict(optimizer="sgd", nesterov=True),
    **{name: dict(optimizer=name, lr=1e-3, weight_decay=0.0)
       for name in ("adam", "adabound", "adagrad", "amsgrad", "radam")},
}  # fmt: skip


def table_2() -> list[Job]:
    """Return a grid of lr and a final run for each optimizer."""
    grids, finals = [], []
    for name, own in TABLE_2.items():
        config = at_length("cifar10-resnet20-paper", 15, **own)
        short = replace(config, epochs=3, schedule="cosine", milestones=())
        lrs = [dict(lr=config.lr * factor) for factor in (0.3, 1.0, 3.0)]
        grid, by = on_grid(f"table-2-{name}", "table-2", short, lrs)
        grids += grid
        finals.append(Job(f"table-2-{name}", "table-2", config, **by))
    return [*grids, *finals]


# Imagenette

IMAGENETTE = recipe("imagenette-resnet18").config
PICTURES = [
    Job(f"imagenette-{name}-{seed}", "imagenette", replace(config, seed=seed, image_size=112),
        data="imagenette-144")
    for seed in SEEDS[:2]
    for name, config in (
        ("sgd", without_path(IMAGENETTE, "sgd")),
        ("weights", replace(IMAGENETTE, conv="l1", linear="l1", weight=None)),
    )
] + waits("imagenette", "joint units have no setting yet", "imagenette-channels")  # fmt: skip

PLAN = [*WEIGHTS, *CHANNELS, *CONVOLUTIONS, *GRIDS, *PICTURES, *table_2()]

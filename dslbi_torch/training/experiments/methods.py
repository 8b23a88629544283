"""Ways to a small net, one function each: what ``ticket`` compares.

All get the ticket's share of each layer, so they differ in which weights they keep, and with which
values they begin. They are the columns of the paper's Figure 5, and two controls:

=============  ===================================================================================
``dense``      the whole net; all methods are trained by the search's optimizer without a split
``ticket``     the ticket, from the weights that the net had before the search (or ``rewind``)
``tuned``      the ticket, from the weights that the search had come to
``random``     masks drawn at random, from the weights of ``ticket``
``reinit``     the ticket, from other initial weights
``scratch``    a dense net of the ticket's widths, from initial weights of its own ("Rethinking",
               Liu et al. 2019); the single weights that a ticket lacks are in it
``magnitude``  the largest weights of ``dense``, trained on (Han et al. 2015)
``iterative``  the largest weights of ``dense``, from the weights of ``ticket``, and of these the
               largest, in ``rounds`` (Frankle and Carbin 2019; of one round: one-shot)
``gradual``    pruned by magnitude on the way (Zhu and Gupta 2017)
``soft``       pruned after every epoch, and allowed to come back (He et al. 2018)
``slimming``   the filters of largest BatchNorm scale after a training with their l1 norm in the
               loss, trained on (Network Slimming, Liu et al. 2017); it needs a net with BatchNorm,
               of which whole filters are split
=============  ===================================================================================

The originals of the last four choose one threshold for all layers.

Each takes a :class:`dslbi_torch.training.experiments.tickets.Trial` and an epoch of its search, and
returns the config of a finished run, and the epochs that were spent before it.
"""

from ...masks.budget import random_masks, ranked_masks
from ...masks.ranking import magnitude_ranking, scale_ranking
from ..run.make_optimizer import groups_of
from ..run.run_folder import checkpoint_file

OTHER_SEED = 1000  # added to the seed where weights are to be others


def _dense(trial, _):
    return trial.trained("dense", trial.retrain), 0


def _ticket(trial, epoch):
    own = dict(masks=trial.ticket(epoch), initial=trial.weights(trial.plan.rewind))
    return trial.trained(f"ticket-{epoch}", trial.retrain, **own), epoch


def _tuned(trial, epoch):
    own = dict(masks=trial.ticket(epoch), initial=trial.weights(epoch))
    return trial.trained(f"tuned-{epoch}", trial.tune, **own), epoch


def _random(trial, epoch):
    def draw(run):
        return random_masks(trial.split(trial.ticket(epoch)), seed=trial.search.seed)

    masks = trial.masks(f"random-{epoch}", trial.searched(), draw)
    own = dict(masks=masks, initial=trial.weights(trial.plan.rewind))
    return trial.trained(f"random-{epoch}", trial.retrain, **own), 0


def _reinit(trial, epoch):
    own = dict(masks=trial.ticket(epoch), seed=trial.search.seed + OTHER_SEED)
    return trial.trained(f"reinit-{epoch}", trial.retrain, **own), epoch


def _scratch(trial, epoch):
    own = dict(masks=trial.ticket(epoch), cut="new", seed=trial.search.seed + OTHER_SEED)
    return trial.trained(f"scratch-{epoch}", trial.retrain, **own), epoch


def _magnitude(trial, epoch):
    dense, shares = trial.trained("dense", trial.retrain), trial.shares(epoch)
    masks = trial.masks(f"magnitude-{epoch}", dense, lambda run: _largest(run, shares))
    own = dict(masks=masks, initial=checkpoint_file(dense.folder))
    return trial.trained(f"magnitude-{epoch}", trial.tune, **own), dense.epochs


def _iterative(trial, epoch):
    source = trial.trained("dense", trial.retrain)
    shares, rounds = trial.shares(epoch), trial.plan.rounds
    for k in range(1, rounds + 1):
        due = {name: share ** (k / rounds) for name, share in shares.items()}
        name = f"iterative-{epoch}-{k}-of-{rounds}"
        masks = trial.masks(name, source, lambda run, due=due: _largest(run, due))
        # what is ranked next must have the shapes of the whole net
        whole = {"cut": None} if k < rounds else {}
        initial = trial.weights(trial.plan.rewind)
        source = trial.trained(name, trial.retrain, masks=masks, initial=initial, **whole)
    return source, rounds * trial.retrain.epochs


def _gradual(trial, epoch):
    own = dict(prune="gradual", target=trial.shares(epoch))
    return trial.trained(f"gradual-{epoch}", trial.retrain, **own), 0


def _soft(trial, epoch):
    own = dict(prune="soft", target=trial.shares(epoch))
    return trial.trained(f"soft-{epoch}", trial.retrain, **own), 0


def _slimming(trial, epoch):
    shares, l1 = trial.shares(epoch), {"l1_scales": trial.plan.l1_scales}
    slim = trial.trained("slimming", trial.retrain, **l1)

    def largest(run):
        groups = groups_of(run.config, run.model, run.data.example())
        return ranked_masks(scale_ranking(groups, run.model, run.data.example()), shares)

    masks = trial.masks(f"slimming-{epoch}", slim, largest)
    own = dict(masks=masks, initial=checkpoint_file(slim.folder))
    return trial.trained(f"slimming-{epoch}", trial.tune, **own), slim.epochs


def _largest(run, shares):
    groups = groups_of(run.config, run.model, run.data.example())
    return ranked_masks(magnitude_ranking(groups), shares)


METHODS = {
    "dense": _dense,
    "ticket": _ticket,
    "tuned": _tuned,
    "random": _random,
    "reinit": _reinit,
    "scratch": _scratch,
    "magnitude": _magnitude,
    "iterative": _iterative,
    "gradual": _gradual,
    "soft": _soft,
    "slimming": _slimming,
}
MOVABLE = ("dense", "ticket", "random")  # what is trained on the other data set of a transfer

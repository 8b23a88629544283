"""Ways to a sparse net that the ranking is compared with, each written as its paper has it.

A way trains a net to a share of its weights, and returns the masks of what it kept. Where a method
steers a level and not a share (LinBreg, AdaBreg), our controller of the density steers it; where a
share is found and not asked for (STR), the smallest weights above it are cut.

gradual   magnitude pruning in training, by the cubic schedule (Zhu and Gupta 2017).
linbreg   linearized Bregman iterations with momentum (Bungert, Roith, Tenbrinck, Burger, JMLR
          23(192), 2022): few weights at first, from which the density grows.
adabreg   the same with the steps of Adam.
rigl      a sparse net whose smallest weights are exchanged for those of largest gradient (Evci,
          Gale, Menick, Castro, Elsen 2020).
pat       pruning-aware training of torchao: a hard threshold on all weights, falling by the cubic
          schedule, then a time in which what is zero stays.
str       a soft threshold that is learned for each layer (Kusupati et al. 2020).
random    a net that is sparse from the start, its masks drawn by chance.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize

from dslbi_torch import (
    MaskedTraining,
    TargetDensity,
    magnitude_ranking,
    ranked_masks,
    split_groups,
)
from dslbi_torch.training.run.bregman import AdaBreg, LinBreg, sparsify_
from dslbi_torch.training.run.exchange import RigL, drawn_masks, scale_up_
from dslbi_torch.training.run.make_optimizer import split_weights
from dslbi_torch.training.run.pruning import Pruning

MOMENTUM, DECAY = 0.9, 5e-4


class Course(NamedTuple):
    """What a way is given beside the net: its batches, its length, and how an epoch is trained.

    ``train(model, optimizer, generator, instead=None)`` runs all epochs; where ``instead(step)`` is
    true, the optimizer makes no step.
    """

    train: callable
    steps: int
    epochs: int
    generator: torch.Generator
    example: torch.Tensor


def groups_of(model, **options):
    return split_groups(model, conv="l1", linear="l1", **options)


def weights_of(model):
    """Names and tensors of what is made sparse."""
    return split_weights(groups_of(model))


def largest(model, density):
    """Masks of the largest weights that are not zero."""
    masks = ranked_masks(magnitude_ranking(groups_of(model)), density)
    return {name: masks[name] & (W != 0) for name, W in weights_of(model).items()}


def sgd(model, lr, decay=DECAY):
    return torch.optim.SGD(
        model.parameters(), lr, momentum=MOMENTUM, weight_decay=decay, fused=True
    )


def gradual(model, density, course, *, lr, ramp):
    optimizer = sgd(model, lr)
    per_epoch = course.steps // course.epochs
    pruning = Pruning(
        "gradual", model, optimizer, groups_of(model), density, course.example,
        epochs=course.epochs, epoch=per_epoch, ramp=ramp,
    )  # fmt: skip
    course.train(model, optimizer, course.generator)
    masks = {name: pruning.held.masks[name] for name in weights_of(model)}
    pruning.held.detach()
    return masks


def linbreg(model, density, course, *, lr, first, ramp):
    return _bregman(LinBreg, model, density, course, lr, first, ramp)


def adabreg(model, density, course, *, lr, first, ramp):
    return _bregman(AdaBreg, model, density, course, lr, first, ramp)


def _bregman(kind, model, density, course, lr, first, ramp):
    """``first``: the part of the density at which the net begins; it grows in the ramp."""
    groups = groups_of(model, lam=0.05)
    sparsify_(weights_of(model), first * density, course.generator)
    optimizer = kind(groups, lr)
    TargetDensity(optimizer, density, steps=course.steps, ramp=ramp, first=first * density)
    course.train(model, optimizer, course.generator)
    return largest(model, density)


# Sparse from the start: random masks, and RigL


def _sparse_start(model, density, course, layout, scaled):
    """Masks by chance; scaled, so that a layer's output varies as before."""
    weights = weights_of(model)
    masks = drawn_masks(weights, density, layout, course.generator)
    if scaled:
        scale_up_(weights, masks)
    return masks


def random(model, density, course, *, lr, layout, scaled):
    masks = _sparse_start(model, density, course, layout, scaled)
    optimizer = sgd(model, lr)
    held = MaskedTraining(model, optimizer, masks)
    course.train(model, optimizer, course.generator)
    held.detach()
    return masks


def rigl(model, density, course, *, lr, layout, scaled, every=100, end=0.75):
    masks, optimizer = _sparse_start(model, density, course, layout, scaled), sgd(model, lr)
    own = RigL(optimizer, weights_of(model), masks, end * course.steps, every)
    course.train(model, optimizer, course.generator, lambda _: own.exchange())
    return own.masks


def pat(model, density, course, *, lr, warm, heal):
    """``warm`` and ``heal``: when the threshold begins, and when the zeros are kept, as parts of
    the run."""
    from torchao.prototype.pat import PruneOptimizer

    own = list(weights_of(model).values())
    rest = [p for p in model.parameters() if all(p is not W for W in own)]
    config = dict(
        group_type="KElementGrouper", k=1, prox_type="GlobalMinSparsityConstraint",
        min_sparsity=1 - density, min_sparsity_schedule=True,
    )  # fmt: skip
    base = torch.optim.SGD(
        [dict(params=own, **config), dict(params=rest)], lr, momentum=MOMENTUM, weight_decay=DECAY
    )
    optimizer = PruneOptimizer(
        base,
        warmup_steps=round(warm * course.steps),
        healing_start_step=round(heal * course.steps),
    )
    course.train(model, optimizer, course.generator)
    return largest(model, density)


class Threshold(nn.Module):
    """``sign(W) max(|W| - sigmoid(s), 0)`` with a learned s."""

    def __init__(self, s):
        super().__init__()
        self.s = nn.Parameter(torch.tensor(s))

    def forward(self, W):
        return W.sign() * torch.relu(W.abs() - torch.sigmoid(self.s))


def learned_threshold(model, density, course, *, lr, start, decay):
    """``start``: s at the beginning; ``decay``: of weights and of s, which is what makes s grow."""
    for name in weights_of(model):
        layer, own = name.rsplit(".", 1)
        parametrize.register_parametrization(model.get_submodule(layer), own, Threshold(start))
    course.train(model, sgd(model, lr, decay), course.generator)
    for layer in list(model.modules()):
        if parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight")
    return largest(model, density)


RIVALS = {
    "gradual": gradual,
    "linbreg": linbreg,
    "adabreg": adabreg,
    "rigl": rigl,
    "pat": pat,
    "str": learned_threshold,
    "random": random,
}

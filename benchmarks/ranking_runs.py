"""The runs of the ranking: LeNet-5 on MNIST by each method, and the settings that are tried."""

import math
from copy import deepcopy
from itertools import product

import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from benchmarks.rivals import MOMENTUM, RIVALS, Course, groups_of, sgd
from dslbi_torch import (
    DessiLBI,
    PathRecorder,
    Release,
    TargetDensity,
    crossing_masks,
    crossing_weights,
    entry_ranking,
    gamma_ranking,
    magnitude_ranking,
    ranked_masks,
)
from dslbi_torch.training.nets import zoo

EPOCHS, WARM, BATCH = 10, 2, 128
WARM_UP = 400  # steps in which lr is reached; without it some seeds diverge
RAMP = 0.98  # the path has 10 % before its end
DENSITIES = (0.1, 0.05, 0.025, 0.01)
ONE_RUN = ("dessilbi", "magnitude", "plain")  # the others have a run for each density

# The settings that are tried, on held-out pictures: eight for each method; twelve more for STR,
# whose share is found, so that each density has a decay of its own, and five for AdaBreg, whose
# best lr was the largest.
_PATH = dict(nu=10.0, nu_first=5.0, dwell=1.5, power=0.5, pull=0.1, lr=0.1)
_PLAIN = [dict(lr=lr, decay=d) for lr, d in product((0.05, 0.1), (5e-4, 1e-3, 2e-3))]
_PLAIN += [dict(lr=0.2, decay=5e-4), dict(lr=0.02, decay=1e-3)]
_RAMPS = [(lr, part) for lr, part in product((0.05, 0.1), (0.5, 0.7, 0.9))]
_RAMPS += [(0.2, 0.7), (0.02, 0.7)]
_SPARSE = product((0.05, 0.1), (("erk", True), ("erk", False), ("uniform", True)))
_SPARSE = [*_SPARSE, (0.2, ("erk", True)), (0.02, ("erk", True))]
_DRAWN = [dict(lr=lr, layout=layout, scaled=scaled) for lr, (layout, scaled) in _SPARSE]
_GROWN = [  # lr as a multiple, the share at the beginning as part of the last, length of the growth
    *((1, 1.0, 0.0), (1, 0.2, 0.5), (1, 0.2, 0.8), (1, 0.05, 0.5)),
    *((0.4, 0.2, 0.5), (2, 0.2, 0.5), (0.4, 1.0, 0.0), (2, 1.0, 0.0)),
]


def _grown(lr):
    return [dict(lr=lr * k, first=first, ramp=ramp) for k, first, ramp in _GROWN]


GRIDS = {
    "dessilbi": [
        dict(_PATH, **own)
        for own in (
            *(dict(), dict(power=1.0), dict(dwell=1.0), dict(dwell=2.0)),
            *(dict(nu=7.5), dict(nu=15.0), dict(nu=30.0), dict(nu=30.0, nu_first=10.0)),
        )
    ],
    "magnitude": _PLAIN,
    "plain": _PLAIN,
    "gradual": [dict(lr=lr, ramp=part) for lr, part in _RAMPS],
    "linbreg": _grown(0.1),
    "adabreg": [
        *_grown(3e-3),
        *(dict(lr=lr, first=1.0, ramp=0.0) for lr in (0.012, 0.024, 0.048, 0.096, 0.192)),
    ],
    "rigl": _DRAWN,
    "pat": [dict(lr=lr, warm=0.1, heal=part) for lr, part in _RAMPS],
    "str": [
        dict(lr=0.1, start=start, decay=decay)
        for start, decay in (
            *product((-8.0, -5.0), (5e-5, 1e-4, 2e-4, 4e-4)),
            *product(
                (-5.0,),
                (
                    6e-4,
                    8e-4,
                    1.2e-3,
                    1.6e-3,
                    2.4e-3,
                    3.2e-3,
                    4.8e-3,
                    7.2e-3,
                    9.6e-3,
                    0.0144,
                    0.02,
                    0.03,
                ),
            ),
        )
    ],
    "random": _DRAWN,
}


class Net(zoo.NETS["lenet5"].make):
    """LeNet-5 with its third layer, which sees all of its input at once, as a matrix product: a
    quarter less time on a CPU."""

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(F.linear(x.flatten(1), self.conv3.weight.flatten(1), self.conv3.bias))
        return self.fc2(F.relu(self.fc1(x)))


def start(seed):
    """The net and the order of the batches, the same for every method."""
    torch.manual_seed(seed)
    return Net(), torch.Generator().manual_seed(seed)


def train(model, optimizer, pictures, epochs, generator, instead=None, warm_up=WARM_UP):
    """Epochs of cross-entropy, lr on half a cosine from where it stands, after some steps in which
    it grows to there. Where ``instead(step)`` is true, the optimizer makes no step."""
    steps = epochs * math.ceil(len(pictures) / BATCH)
    growth = LinearLR(optimizer, 0.02, 1.0, max(1, warm_up))
    # never 0, which DessiLBI refuses
    low = 1e-3 * optimizer.param_groups[0]["lr"]
    fall = CosineAnnealingLR(optimizer, max(1, steps - warm_up), eta_min=low)
    schedule = SequentialLR(optimizer, [growth, fall], [warm_up])
    step = 0
    for _ in range(epochs):
        for x, y in pictures.batches(BATCH, generator):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            if instead is None or not instead(step):
                optimizer.step()
            schedule.step()
            step += 1


# The methods: {(method, density): (state, masks)}, and the dense net where there is one


def dessilbi(pictures, seed, *, nu, nu_first, dwell, power, pull, lr):
    """``nu_first``: nu at the release, from which it grows to nu as the density does."""
    model, generator = start(seed)
    optimizer = DessiLBI(groups_of(model, nu=nu, apart=True), lr / 2, momentum=MOMENTUM)
    per_epoch = math.ceil(len(pictures) / BATCH)
    warm, steps = WARM * per_epoch, EPOCHS * per_epoch
    Release(optimizer, warm, pull=pull, power=power, steps=steps)
    TargetDensity(optimizer, DENSITIES[0], steps=steps, ramp=RAMP, dwell=dwell)
    at = {D: 0.99 * D for D in DENSITIES}  # the path comes to the densities in small leaps
    recorder = PathRecorder(optimizer, every=steps, elements=True, at=at.values())
    step = 0
    for _ in range(EPOCHS):
        for x, y in pictures.batches(BATCH, generator):
            past = (step - warm) / (steps - warm)
            for group in optimizer.param_groups:
                group["lr"] = _lr(lr, step, past)
                if past >= 0 and group["penalty"]:
                    group["nu"] = nu_first * (nu / nu_first) ** min(1, past / RAMP)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            step += 1
    state = deepcopy(model.state_dict())
    rankings = {
        "entry": entry_ranking(recorder),
        "gamma": gamma_ranking(optimizer),
        "weight": magnitude_ranking(optimizer),
    }
    nets = {
        (name, D): (state, ranked_masks(ranking, D))
        for name, ranking in rankings.items()
        for D in DENSITIES
    }
    for D in DENSITIES:
        with crossing_weights(recorder, at[D]):
            nets["crossing", D] = deepcopy(model.state_dict()), crossing_masks(recorder, at[D])
    return nets | {("dessilbi", 1.0): (state, {})}


def _lr(lr, step, past):
    """Half of lr until the release, after some steps in which it is reached; then half a cosine."""
    if past < 0:
        return lr / 2 * min(1, (step + 1) / WARM_UP)
    return lr * max(1e-3, (1 + math.cos(math.pi * past)) / 2)


def magnitude(pictures, seed, *, lr, decay):
    model, generator = start(seed)
    train(model, sgd(model, lr, decay), pictures, EPOCHS, generator)
    ranking, state = magnitude_ranking(groups_of(model)), model.state_dict()
    return {("magnitude", D): (state, ranked_masks(ranking, D)) for D in DENSITIES}


def plain(pictures, seed, *, lr, decay):
    model, generator = start(seed)
    train(model, sgd(model, lr, decay), pictures, EPOCHS, generator)
    return {("plain", 1.0): (model.state_dict(), {})}


def rival(method, density, pictures, seed, settings):
    model, generator = start(seed)

    def trained(model, optimizer, generator, instead=None):
        train(model, optimizer, pictures, EPOCHS, generator, instead)

    steps = EPOCHS * math.ceil(len(pictures) / BATCH)
    example = next(iter(pictures.batches(1, torch.Generator().manual_seed(0))))[0]
    course = Course(trained, steps, EPOCHS, generator, example)
    masks = RIVALS[method](model, density, course, **settings)
    return {(method, density): (model.state_dict(), masks)}


def read_off(method, density, pictures, seed, settings):
    if method in ONE_RUN:
        one_run = {"dessilbi": dessilbi, "magnitude": magnitude, "plain": plain}[method]
        return one_run(pictures, seed, **settings)
    return rival(method, density, pictures, seed, settings)

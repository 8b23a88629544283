"""Cost of one optimizer step on the CPU, against torch.optim.SGD(momentum=0.9, fused=True).

    python benchmarks/step.py [--rounds 30] [--out FILE.json]

One thread; the optimizers take turns in every round, so a ratio compares steps of the same moment,
in an order drawn anew, since a step finds the caches and the heap as its neighbour left them;
medians over the rounds. Convolutions carry the group penalty, linear weights l1, the rest none.
DessiLBI is measured in two states: fresh, when nothing is selected and a step needs no Gamma of the
groups, and with half of the groups and of the single weights selected; and with joint units, where
convolutions of as many filters share them. PAT of torchao takes part where it is installed.
"""

import argparse
import json
import platform
import time
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import torch
import torchvision

from dslbi_torch import DessiLBI, Split
from dslbi_torch.units import families, scores, spread

LENET5 = [(6, 1, 5, 5), (6,), (16, 6, 5, 5), (16,), (120, 16, 5, 5), (120,)]
LENET5 += [(84, 120), (84,), (10, 84), (10,)]
LENET300 = [(300, 784), (300,), (100, 300), (100,), (10, 100), (10,)]


def shapes():
    """The parameter lists, by name."""
    with torch.device("meta"):
        resnets = {f"ResNet-{d}": getattr(torchvision.models, f"resnet{d}")() for d in (18, 50)}
    lists = {"LeNet-5": LENET5, "LeNet-300-100": LENET300}
    return lists | {k: [tuple(p.shape) for p in m.parameters()] for k, m in resnets.items()}


def parameters(shapes):
    g = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(0.05 * torch.randn(s, generator=g)) for s in shapes]
    for p in params:
        p.grad = 0.01 * torch.randn(p.shape, generator=g)
    return params


def groups(params, conv, linear):
    """One parameter group for each number of axes, with the options of its kind."""
    options = {4: conv, 2: linear, 1: {}}
    found = [dict(params=[p for p in params if p.ndim == d], **o) for d, o in options.items()]
    return [group for group in found if group["params"]]


def split(params):
    return groups(params, dict(penalty="group"), dict(penalty="l1"))


def joint(params):
    """Convolutions of as many filters are joint: the k-th filters of all of them are one unit."""
    convs = [p for p in params if p.ndim == 4]
    counts = sorted({p.shape[0] for p in convs})
    streams = [[p for p in convs if p.shape[0] == n] for n in counts]
    alone = [p for stream in streams if len(stream) == 1 for p in stream]
    found = [dict(params=s, penalty="group", joint=True) for s in streams if len(s) > 1]
    return found + split([*alone, *(p for p in params if p.ndim < 4)])


def sgd(params):
    return torch.optim.SGD(params, lr=1e-3, momentum=0.9, fused=True)


def adamw(params):
    return torch.optim.AdamW(params, lr=1e-3, weight_decay=0, fused=True)


def half_selected(params, groups=split):
    """DessiLBI with V at half or at twice the level, and a step so small that it stays there."""
    optimizer = DessiLBI(groups(params), lr=1e-9, nu=20, momentum=0.9)
    optimizer.step()
    for family in families(optimizer):
        for V in family.Vs:
            V.normal_(generator=torch.Generator().manual_seed(1))
        levels = [torch.where(s > s.median(), 2.0, 0.5) / s for s in scores(family)]
        for V, level in zip(family.Vs, spread(levels, family), strict=True):
            V.mul_(level)
    return optimizer


def pat(params):
    from torchao.prototype.pat import PruneOptimizer

    conv = dict(group_type="Dim0Grouper", prox_type="ProxGroupLasso", reg_lambda=1e-3)
    linear = dict(group_type="ElemGrouper", prox_type="ProxLasso", reg_lambda=1e-3)
    return PruneOptimizer(sgd(groups(params, conv, linear)))


OPTIMIZERS = {
    "SGD fused": sgd,
    "SGD": lambda params: torch.optim.SGD(params, lr=1e-3, momentum=0.9),
    "Adam fused": lambda params: torch.optim.Adam(params, lr=1e-3, fused=True),
    "DessiLBI": lambda params: DessiLBI(split(params), lr=1e-3, nu=20, momentum=0.9),
    "DessiLBI, half selected": half_selected,
    "DessiLBI, joint": lambda params: DessiLBI(joint(params), lr=1e-3, nu=20, momentum=0.9),
    "DessiLBI, joint, half selected": lambda params: half_selected(params, joint),
    "Split, SGD fused": lambda params: Split(sgd(split(params)), nu=20),
    "AdamW fused": adamw,
    "Split, AdamW fused": lambda params: Split(adamw(split(params)), nu=20),
}
OPTIONAL = {"PAT, SGD fused": ("torchao", pat)}  # by the package that they need


def available():
    """The optimizers whose packages are installed."""
    found = dict(OPTIMIZERS)
    for name, (package, make) in OPTIONAL.items():
        if find_spec(package):
            found[name] = make
        else:
            print(f"{name}: skipped, {package} is not installed")
    return found


def state_bytes(optimizer):
    """Bytes of tensor state per parameter (single counters left out)."""
    values = [v for s in optimizer.state.values() for v in s.values()]
    tensors = [v for v in values if isinstance(v, torch.Tensor) and v.numel() > 1]
    n = sum(p.numel() for g in optimizer.param_groups for p in g["params"])
    return sum(t.numel() * t.element_size() for t in tensors) / n


def measure(shapes, makers, rounds):
    optimizers = {name: make(parameters(shapes)) for name, make in makers.items()}
    times = {name: [] for name in optimizers}
    rng = np.random.default_rng(0)
    for k in range(rounds + 3):  # three rounds of warm-up
        for name in rng.permutation(list(optimizers)):
            start = time.perf_counter()
            optimizers[name].step()
            if k >= 3:
                times[name].append(time.perf_counter() - start)
    base = np.array(times["SGD fused"])
    return {
        name: dict(
            ms=1e3 * float(np.median(t)),
            ratio=float(np.median(np.array(t) / base)),
            bytes=state_bytes(optimizers[name]),
        )
        for name, t in times.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", help="also write the figures to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    makers, result = available(), {}
    print(f"{'list':<15}{'parameters':>12}  {'optimizer':<32}{'ms':>9}{'ratio':>8}{'bytes':>8}")
    for name, sizes in shapes().items():
        n = sum(int(np.prod(s)) for s in sizes)
        rounds = args.rounds * (10 if n < 1e6 else 1)
        result[name] = measure(sizes, makers, rounds)
        for optimizer, row in result[name].items():
            print(
                f"{name:<15}{n:>12,}  {optimizer:<32}{row['ms']:>9.3f}"
                f"{row['ratio']:>8.2f}{row['bytes']:>8.1f}"
            )
    print("ratio: to SGD fused, median of the rounds; bytes: of state per parameter")
    if args.out:
        about = dict(
            command=f"python benchmarks/step.py --rounds {args.rounds}",
            date=str(date.today()),
            torch=torch.__version__,
            peers={p: version(p) for p, _ in OPTIONAL.values() if find_spec(p)},
            machine=f"{platform.machine()}, 1 thread",
        )
        with open(args.out, "w") as file:
            json.dump(dict(about, result=result), file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()

"""Cost of one optimizer step on the CPU, against torch.optim.SGD(momentum=0.9, fused=True).

    python benchmarks/step.py [--rounds 30] [--out FILE.json]

One thread; the optimizers take turns in every round, so a ratio compares steps of the same moment;
medians over the rounds. Convolutions carry the group penalty, linear weights l1, the rest none.
"""

import argparse
import json
import platform
import time
from datetime import date

import numpy as np
import torch
import torchvision

from dslbi_torch import DessiLBI

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


def dessilbi(params):
    kinds = {4: "group", 2: "l1", 1: None}
    groups = [dict(params=[p for p in params if p.ndim == d], penalty=k) for d, k in kinds.items()]
    return DessiLBI([g for g in groups if g["params"]], lr=1e-3, nu=20, momentum=0.9)


OPTIMIZERS = {
    "SGD fused": lambda params: torch.optim.SGD(params, lr=1e-3, momentum=0.9, fused=True),
    "SGD": lambda params: torch.optim.SGD(params, lr=1e-3, momentum=0.9),
    "Adam fused": lambda params: torch.optim.Adam(params, lr=1e-3, fused=True),
    "DessiLBI": dessilbi,
}


def state_bytes(optimizer):
    """Bytes of tensor state per parameter (single counters left out)."""
    tensors = [t for s in optimizer.state.values() for t in s.values() if t.numel() > 1]
    n = sum(p.numel() for g in optimizer.param_groups for p in g["params"])
    return sum(t.numel() * t.element_size() for t in tensors) / n


def measure(shapes, rounds):
    optimizers = {name: make(parameters(shapes)) for name, make in OPTIMIZERS.items()}
    times = {name: [] for name in optimizers}
    for k in range(rounds + 3):  # three rounds of warm-up
        for name, optimizer in optimizers.items():
            start = time.perf_counter()
            optimizer.step()
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
    result = {}
    print(f"{'list':<15}{'parameters':>12}  {'optimizer':<12}{'ms':>9}{'ratio':>8}{'bytes':>8}")
    for name, sizes in shapes().items():
        n = sum(int(np.prod(s)) for s in sizes)
        rounds = args.rounds * (10 if n < 1e6 else 1)
        result[name] = measure(sizes, rounds)
        for optimizer, row in result[name].items():
            print(
                f"{name:<15}{n:>12,}  {optimizer:<12}{row['ms']:>9.3f}"
                f"{row['ratio']:>8.2f}{row['bytes']:>8.1f}"
            )
    print("ratio: to SGD fused, median of the rounds; bytes: of state per parameter")
    if args.out:
        about = dict(
            command="python benchmarks/step.py",
            date=str(date.today()),
            torch=torch.__version__,
            machine=f"{platform.machine()}, 1 thread",
        )
        with open(args.out, "w") as file:
            json.dump(dict(about, result=result), file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()

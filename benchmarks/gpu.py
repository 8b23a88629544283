"""Cost of training on a GPU: the step of the optimizer, and ResNet-50 with and without DessiLBI.

    python -m benchmarks.gpu [--rounds 50] [--steps 60] [--out FILE.json] [--dry]

The step: parameters of ResNet-50, convolutions with the group penalty, linear weights with l1. Its
bytes are what it must read and write once, in float32: weight, gradient and momentum for SGD, and V
for what is split. Their rate is given as a share of that of a copy of a gigabyte on the same
device. The peak is that of a step, above what the optimizers hold before. Throughput: the recipe
``imagenet-resnet50`` (bf16, batches of 256) on noise, through the loop of the training.

``--dry`` measures a small net on the CPU instead: that the script works, nothing else.
"""

import argparse
import json
import statistics
import sys
from dataclasses import replace

import torch

from benchmarks import step, training
from dslbi_torch import DessiLBI
from dslbi_torch.training.recipes import recipe
from dslbi_torch.training.run.sessions import environment

DRY = dict(shapes="LeNet-5", recipe="digits", train_size=200, batch=32)
REAL = dict(shapes="ResNet-50", recipe="imagenet-resnet50", train_size=1024, batch=256)


def optimizers(device) -> dict:
    """Return what makes the optimizers to compare, by name."""
    options = dict(lr=1e-3, momentum=0.9)

    def dessilbi(**route):
        return lambda params: DessiLBI(step.split(params), nu=20, **options, **route)

    found = {
        "SGD fused": lambda params: torch.optim.SGD(params, **options, fused=True),
        "SGD foreach": lambda params: torch.optim.SGD(params, **options, foreach=True),
        "DessiLBI foreach": dessilbi(foreach=True),
    }
    return found | ({"DessiLBI fused": dessilbi(fused=True)} if device.type == "cuda" else {})


def least_bytes(optimizer) -> int:
    """Return the bytes that a step reads and writes if it touches every tensor once."""
    total = 0
    for group in optimizer.param_groups:
        for p in group["params"]:
            kept = 2 + ("V" in optimizer.state[p])  # weight, momentum, V: read and written
            total += (2 * kept + 1) * p.numel() * p.element_size()  # and the gradient is read
    return total


def copy_rate(device, bytes_=2**30, rounds=20) -> float:
    """Return bytes a second of a copy, read and written."""
    x = torch.empty(bytes_, dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    times = timed(lambda: y.copy_(x), device, rounds)
    return 2 * bytes_ / statistics.median(times)


def timed(act, device, rounds, warm_up=3) -> list[float]:
    """Return seconds of each round, after some that warm up."""
    times = []
    for _ in range(rounds + warm_up):
        start = training.clock(device)
        act()
        times.append(training.clock(device) - start)
    return times[warm_up:]


def steps(shapes, device, rounds, rate) -> dict:
    """Return, for each optimizer, milliseconds, share of the copy's rate, and the peak."""
    found = {}
    for name, make in optimizers(device).items():
        params = [torch.nn.Parameter(p.detach().to(device)) for p in step.parameters(shapes)]
        for p in params:
            p.grad = torch.full_like(p, 0.01)
        optimizer = make(params)
        optimizer.step()
        held = peak = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            held = torch.cuda.memory_allocated(device)
        seconds = statistics.median(timed(optimizer.step, device, rounds))
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device) - held
        moved = least_bytes(optimizer)
        share = moved / seconds / rate
        found[name] = dict(ms=1e3 * seconds, bytes=moved, copy_share=share, peak_bytes=peak)
    for row in found.values():
        row["ratio"] = row["ms"] / found["SGD fused"]["ms"]
    return found


def throughput(plan, device, n_steps) -> dict:
    """Return times of a recipe's steps with DessiLBI and with SGD, and the peak of both."""
    own = dict(train_size=plan["train_size"], batch_size=plan["batch"], device=device.type)
    if plan is REAL:
        own |= dict(dataset="synthetic", image_size=224, workers=0, fused=True)
    found = training.measure(replace(recipe(plan["recipe"]).config, **own), n_steps, warm_up=5)
    if device.type == "cuda":
        found["peak_bytes"] = torch.cuda.max_memory_allocated(device)
    return found


def main(words=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--dry", action="store_true", help="a small net on the CPU")
    parser.add_argument("--out", help="also write the figures to this JSON file")
    args = parser.parse_args(words)
    for name in ("rounds", "steps"):
        if getattr(args, name) < 1:
            print(f"{name} must be at least 1, got {getattr(args, name)}", file=sys.stderr)
            return 2
    if not (args.dry or torch.cuda.is_available()):
        print("gpu needs a GPU; --dry tries the script without one", file=sys.stderr)
        return 2
    plan, device = (DRY, torch.device("cpu")) if args.dry else (REAL, torch.device("cuda"))
    rate = copy_rate(device, 2**24 if args.dry else 2**30)
    print(f"a copy moves {rate / 1e9:.0f} GB/s")
    result = {"copy_bytes_s": rate}
    result["steps"] = steps(step.shapes()[plan["shapes"]], device, args.rounds, rate)
    print(f"{plan['shapes']:<20}{'ms':>9}{'ratio':>8}{'of copy %':>11}{'peak MB':>9}")
    for name, row in result["steps"].items():
        shown = 100 * row["copy_share"], row["peak_bytes"] / 1e6
        print(f"{name:<20}{row['ms']:>9.3f}{row['ratio']:>8.2f}{shown[0]:>11.1f}{shown[1]:>9.1f}")
    result["training"] = throughput(plan, device, args.steps)
    for name in ("sgd", "dessilbi"):
        print(f"{plan['recipe']}, {name}: {result['training'][name]['pictures_s']:.0f} pictures/s")
    print(f"a step with DessiLBI takes {result['training']['ratio']:.3f} times that with SGD")
    if args.out:
        about = environment(device) | {"command": "python -m benchmarks.gpu"}
        with open(args.out, "w") as file:
            json.dump({"about": about, "dry": args.dry, **result}, file, indent=1)
            file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Cost of training: the steps of a recipe with DessiLBI and with SGD, side by side.

    python benchmarks/training.py [--recipe cifar10-resnet20-short] [--steps 100] [--threads 2]
                                  [--amp bf16] [--channels-last] [--device cpu] [--out FILE.json]

Both make the same steps on the same batches in turns, through the training loop's own
``train_step``, with all that a run does beside it: the penalty levels steered to the recipe's
target, the path recorded, the schedule. SGD has the recipe's momentum and decay; on a CPU it is the
default of ``torch.optim``, tensor by tensor. The share of the optimizer is that of the mean time of
its step, control and record included. An epoch is the mean step times the steps of an epoch, as
they are in the middle of a run; one evaluation (dense, sparse and Gamma model on the test set) is
timed once.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace

import torch

from dslbi_torch.training import recipes
from dslbi_torch.training.config import without_path
from dslbi_torch.training.run.evaluate import evaluate
from dslbi_torch.training.run.loop import train_step
from dslbi_torch.training.run.sessions import environment
from dslbi_torch.training.run.set_up import set_up


def clock(device):
    """Seconds, once the device has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class Steps:
    """A run whose steps, and in them those of its optimizer, are timed."""

    def __init__(self, config):
        self.run = set_up(config)
        self.total, self.own, self._begin = [], [], 0.0
        self.run.optimizer.register_step_pre_hook(self._before)
        self.run.optimizer.register_step_post_hook(self._after)  # after those of control and record
        self.run.net.train()

    def _before(self, *_):
        self._begin = clock(self.run.processes.device)

    def _after(self, *_):
        self.own.append(clock(self.run.processes.device) - self._begin)

    def take(self, x, y):
        start = clock(self.run.processes.device)
        train_step(self.run, x, y, len(x))
        self.run.scheduler.step()
        self.total.append(clock(self.run.processes.device) - start)


def by_sgd(config):
    """The same steps by SGD."""
    return replace(without_path(config, "sgd"), lr=config.kappa * config.lr, lr_min=0.0)


def measure(config, steps, warm_up=20):
    """Times of a config and of the same with SGD."""
    sides = {"dessilbi": Steps(config), "sgd": Steps(by_sgd(config))}
    run = sides["dessilbi"].run
    generator, k = torch.Generator().manual_seed(0), 0
    while k < warm_up + steps:
        for x, y in run.data.train.batches(config.batch_size, generator):
            if len(x) < config.batch_size or k == warm_up + steps:
                continue
            for side in sides.values():
                side.take(x, y)
            k += 1
    found = {}
    for name, side in sides.items():
        total, own = side.total[warm_up:], side.own[warm_up:]
        found[name] = dict(
            ms=1e3 * statistics.median(total),
            ms_mean=1e3 * statistics.mean(total),
            optimizer_share=sum(own) / sum(total),
            pictures_s=config.batch_size / statistics.median(total),
            epoch_s=run.steps_per_epoch * statistics.mean(total),
        )
    pairs = zip(sides["dessilbi"].total[warm_up:], sides["sgd"].total[warm_up:], strict=True)
    found["ratio"] = statistics.median(a / b for a, b in pairs)
    start = clock(run.processes.device)
    evaluate(run)
    found["evaluation_s"] = clock(run.processes.device) - start
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="cifar10-resnet20-short", choices=recipes.RECIPES)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--amp", choices=["bf16", "fp16"], help="mixed precision; else the recipe's"
    )
    parser.add_argument(
        "--channels-last", action="store_true", help="also where the recipe has not"
    )
    parser.add_argument("--fused", action="store_true", help="the fused step, on a GPU")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data", help="folder of the data sets")
    parser.add_argument("--out", help="also write the figures to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = recipes.recipe(args.recipe).config
    config = replace(
        config,
        amp=args.amp or config.amp,
        channels_last=args.channels_last or config.channels_last,
        fused=args.fused,
        device=args.device,
        data=args.data,
    )
    found = measure(config, args.steps)
    print(f"{args.recipe}, batch {config.batch_size}, {args.threads} CPU threads")
    print(f"{'':<10}{'ms a step':>11}{'pictures/s':>12}{'optimizer %':>13}{'s an epoch':>12}")
    for name in ("dessilbi", "sgd"):
        row = found[name]
        print(
            f"{name:<10}{row['ms']:>11.2f}{row['pictures_s']:>12.0f}"
            f"{100 * row['optimizer_share']:>13.1f}{row['epoch_s']:>12.1f}"
        )
    print(
        f"a step with DessiLBI takes {found['ratio']:.3f} times that with SGD (median of pairs); "
        f"one evaluation of the three models takes {found['evaluation_s']:.1f} s"
    )
    if args.out:
        about = environment(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        about["command"] = " ".join(["python benchmarks/training.py", *_flags(args)])
        with open(args.out, "w") as file:
            json.dump({"about": about, args.recipe: found}, file, indent=1)
            file.write("\n")


def _flags(args):
    """The flags that decide what is measured, as they would be typed."""
    words = [f"--recipe {args.recipe} --steps {args.steps} --threads {args.threads}"]
    words += [f"--amp {args.amp}"] if args.amp else []
    words += [f"--{key.replace('_', '-')}" for key in ("channels_last", "fused") if vars(args)[key]]
    return words


if __name__ == "__main__":
    main()

"""A ViT of 2 million parameters on CIFAR-10: half of its neurons and a third of its heads go.

    python -m benchmarks.vit [--seeds 0] [--runs runs/vit]      # measured on held-out pictures
    python -m benchmarks.vit --test --out benchmarks/results/vit.json

Three convolutions of stride 2 make 16 tokens of 192 channels of a picture; four blocks with six
heads and 768 neurons each follow. AdamW trains it for 1,500 steps of 64 pictures at one lr. From
these weights two runs of 1,500 steps begin, on the same pictures: "dense" stays whole; "path" goes
from dense to sparse in its first 600 steps (``benchmarks/shrinking.py``), every block by itself.
"cut" is the smaller net of what the path ends with, W where Gamma is not zero; "gap" its largest
difference to the masked net in an output; ONNX Runtime runs what it is exported to. Nothing is
trained after the cut. One thread. 5,000 training pictures are held out of every training; settings
are looked at on them, before ``--test``. The test set was read once before, with 200 and 400 steps
in place of 1,500, which was too short (dense 48 %, cut 42 %); nothing else was changed then.

What is finished lies in ``--runs`` and is not computed again: the command may be stopped and given
again.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import shrinking
from benchmarks.shrinking import Course
from dslbi_torch.training.data import datasets
from dslbi_torch.training.run.run_folder import write_text
from dslbi_torch.training.run.sessions import environment

DIM, HEADS, DEPTH, NEURONS, TOKENS = 192, 6, 4, 768, 16
WARM, STEPS, BATCH, LR, GROWTH, HELD_OUT = 1500, 1500, 64, 1e-3, 50, 5000


class Attention(nn.Module):
    """Queries, keys and values from one matrix."""

    def __init__(self, dim, heads):
        super().__init__()
        self.head_dim = dim // heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        n, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, -1, self.head_dim).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(*qkv.unbind(0))
        return self.proj(x.transpose(1, 2).reshape(n, tokens, -1))


class Block(nn.Module):
    """Attention, and a layer of neurons, each added to the stream."""

    def __init__(self, dim, heads, neurons):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.fc1, self.fc2 = nn.Linear(dim, neurons), nn.Linear(neurons, dim)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    """Convolutions in place of patches, positions, blocks, and the mean of the tokens."""

    def __init__(self):
        super().__init__()
        layers = []
        for before, width in ((3, DIM // 4), (DIM // 4, DIM // 2)):
            layers += [nn.Conv2d(before, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width)]
            layers += [nn.ReLU()]
        self.stem = nn.Sequential(*layers, nn.Conv2d(DIM // 2, DIM, 3, 2, 1))
        self.positions = nn.Parameter(0.02 * torch.randn(1, TOKENS, DIM))
        self.blocks = nn.Sequential(*(Block(DIM, HEADS, NEURONS) for _ in range(DEPTH)))
        self.norm, self.head = nn.LayerNorm(DIM), nn.Linear(DIM, 10)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(x)).mean(1))


class Batches:
    """The batch of every step, the same whoever asks: epochs are shuffled by their number."""

    def __init__(self, pictures, seed):
        self.pictures, self.seed, self.at = pictures, seed, None

    def __call__(self, step):
        epoch, start = divmod(step, len(self.pictures) // BATCH)
        if self.at != step:
            generator = torch.Generator().manual_seed(1000 * self.seed + epoch)
            self.own = self.pictures.batches(BATCH, generator, epoch=epoch, start=start)
        last = start + 1 == len(self.pictures) // BATCH  # what is over is too few for a batch
        x_and_y, self.at = next(self.own), None if last else step + 1
        return x_and_y


@torch.no_grad()
def accuracy(model, test):
    model.eval()
    hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in test.batches(500))
    model.train()
    return hits / len(test)


def start(data, seed):
    """A net, and its groups."""
    torch.manual_seed(seed)
    model, rules = ViT(), ("blocks.*.attention.qkv", "blocks.*.fc1")
    groups = shrinking.groups_of(model, rules[:1], rules[1:], data.test.x[:2])
    return model, groups


def run(folder, data, test, seed):
    """Train what is not trained yet; return the row of a seed."""
    folder = folder / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    batches, courses = Batches(data.train, seed), {}

    def loss_of(model, first):
        def loss(step):
            x, y = batches(first + step)
            return F.cross_entropy(model(x), y)

        return loss

    for name in ("warm", "dense", "path"):
        model, groups = start(data, seed)
        steps, rest = STEPS, dict(path=name == "path")
        if name == "warm":
            steps, rest = WARM, dict(fall=False)
        else:
            model.load_state_dict(courses["warm"].model.state_dict())
        courses[name] = course = Course(model, groups, LR, steps, warm=GROWTH, **rest)
        first = 0 if name == "warm" else WARM
        course.train(loss_of(model, first), steps, folder / f"{name}.pt")
    return row_of(folder, test, courses) | dict(seed=seed)


def row_of(folder, test, courses):
    """What a seed gives."""
    dense, path = courses["dense"].model, courses["path"]
    few = test.x[:2]
    masks, small = shrinking.cut(path.model, path.optimizer, few)
    nets = dict(dense=dense, path=path.model, cut=small)
    found = {name: accuracy(net, test) for name, net in nets.items()}
    nets, x = dict(dense=dense.eval(), cut=small.eval()), test.x[:BATCH]
    size = shrinking.sizes(nets, x)
    for name, own in shrinking.onnx_times(nets, x, folder).items():
        size[name] |= own
    return dict(
        accuracy=found,
        gap=shrinking.gap(path.model.eval(), masks, small, x, lambda net, x: net(x)),
        sizes=size,
        path=shrinking.path_of(path.recorder),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/vit"))
    parser.add_argument("--test", action="store_true", help="measure on the test set")
    parser.add_argument("--out", help="also write the figures to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = datasets.load("cifar10", shift=4, flip=True, holdout=HELD_OUT)
    test = datasets.load("cifar10").test if args.test else data.test
    rows = [run(args.runs, data, test, seed) for seed in args.seeds]
    for row in rows:
        shown = ", ".join(f"{name} {100 * share:.2f} %" for name, share in row["accuracy"].items())
        print(f"seed {row['seed']}: {shown}; gap {row['gap']:.1e}")
        for name, size in row["sizes"].items():
            print(f"  {name}: " + ", ".join(f"{key} {value:,.4g}" for key, value in size.items()))
    if args.out:
        about = environment(torch.device("cpu"))
        about["command"] = "python -m benchmarks.vit --seeds " + " ".join(map(str, args.seeds))
        settings = dict(measured_on="test set" if args.test else "held-out pictures")
        settings |= dict(warm=WARM, steps=STEPS, batch=BATCH, lr=LR, growth=GROWTH)
        settings |= dict(S=shrinking.S, ramp=shrinking.RAMP, held_out=HELD_OUT)
        settings |= dict(heads=shrinking.HEADS, neurons=shrinking.NEURONS)
        text = json.dumps(dict(about=about, settings=settings, rows=rows), indent=1)
        write_text(Path(args.out), text + "\n")


if __name__ == "__main__":
    main()

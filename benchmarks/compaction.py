"""Compacted nets at half of the multiplications: time of a batch on the CPU, and what they predict.

    python benchmarks/compaction.py [--nets ...] [--rounds 21] [--out FILE.json]

LeNet-5 (Caffe's) is trained for one epoch of MNIST, and the filters with the smallest norms of each
layer are removed. VGG-16 (with batch norm) and ResNet-56 on CIFAR-10 take hours to train on a CPU,
so their weights are the initial ones, with the running statistics of twenty training batches, and
filters are removed at random; in ResNet-56 once within the blocks, which leaves the streams whole
("inside"), and once in the streams too: eight of the first sixteen channels, the same ones through
all three stages, since a channel of a stream goes only where every writer of it does. What is kept
(``NETS``) is close to half of the dense net's MACs, and not more; in LeNet-5 and where a stream is
cut in whole eights, which is how the processor's vector instructions come.

"folded" is the compact net with its batch norm folded into the layers before
(:func:`dslbi_torch.fold_norms`); the dense net is measured folded too, so that a ratio can be had
with and without what folding alone brings. One thread, channels last; the nets take turns.
Predictions of the compact, the folded and the masked net are compared on the whole test set.
"""

import argparse
import copy
import json
import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional as F

from dslbi_torch import compact, fold_norms, masked, whole_filters
from dslbi_torch.layers import NORM
from dslbi_torch.surgery.costs import count_macs
from dslbi_torch.surgery.measure import batch_times
from dslbi_torch.training.data import datasets
from dslbi_torch.training.nets import zoo
from dslbi_torch.training.run.run_folder import write_text
from dslbi_torch.training.run.sessions import environment


class Net(NamedTuple):
    """What is compacted: a model on a data set, and what of it is kept."""

    model: str
    dataset: str
    batch: int  # pictures
    train: bool  # whether one epoch of training is feasible
    shares: dict  # of the filters to keep, in layers whose names match; the others stay whole
    stream: str = "$"  # layers that write a residual stream, which lose the same eight channels


NETS = {
    "caffe-lenet5": Net("caffe-lenet5", "mnist", 128, True, {"conv1": 8 / 20, "conv2": 48 / 50}),
    "vgg16-bn": Net("vgg16-bn", "cifar10", 64, False, {".*": 45 / 64}),
    "resnet56 inside": Net(
        "resnet56", "cifar10", 64, False, {"layer[12].*conv1": 1 / 2, "layer3.*conv1": 31 / 64}
    ),
    "resnet56": Net(
        *("resnet56", "cifar10", 64, False),
        {"layer1.*conv1": 8 / 16, "layer2.*conv1": 24 / 32, "layer3.*conv1": 48 / 64},
        "conv1|layer.*conv2",
    ),
}


def prepared(name, pictures, batch_size, train):
    """A net after one epoch, or initial weights with the running statistics of a training."""
    torch.manual_seed(0)
    net = zoo.build(name, init="he")
    optimizer = torch.optim.Adam(net.parameters()) if train else None
    generator = torch.Generator().manual_seed(0)
    for k, (x, y) in enumerate(pictures.train.batches(batch_size, generator)):
        if train:
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        elif k < 20:
            with torch.no_grad():
                net(x)
        else:
            break
    return net.eval()


def kept(net, shares, by_norm, stream="$"):
    """The masks that keep a share of the filters, those of the largest norms or drawn ones; of what
    writes a residual stream all but the same eight of the first sixteen."""
    generator = torch.Generator().manual_seed(0)
    masks, thinned = {}, torch.randperm(16, generator=generator)[:8]
    for name, W in [(name, W) for name, W in net.named_parameters() if W.ndim > 1][:-1]:
        if re.match(stream, name):
            masks[name] = torch.ones(W.shape, dtype=torch.bool)
            masks[name][thinned] = False
            continue
        share = next((s for key, s in shares.items() if re.match(key, name)), None)
        if share is None:
            continue
        drawn = torch.randperm(len(W), generator=generator)
        order = W.detach().flatten(1).norm(dim=1).argsort(descending=True) if by_norm else drawn
        masks[name] = torch.zeros(W.shape, dtype=torch.bool)
        masks[name][order[: max(1, int(share * len(W) + 1e-9))]] = True
    return masks


@torch.no_grad()
def compared(net, masks, others, test):
    """Pictures that the masked net and any of the others put into different classes, all pictures,
    and the largest difference of outputs relative to the largest output."""
    differing, gap = 0, 0.0
    for x, _ in test.batches(500):
        with masked(net, masks):
            expected = net(x)
        for other in others:
            found = other(x)
            differing += int((found.argmax(1) != expected.argmax(1)).sum())
            gap = max(gap, ((found - expected).abs().max() / expected.abs().max()).item())
    return differing, len(test), gap


def measure(name, rounds, root):
    chosen = NETS[name]
    pictures = datasets.load(chosen.dataset, root)
    net = prepared(chosen.model, pictures, chosen.batch, chosen.train)
    x = pictures.test.x[: chosen.batch]
    found = kept(net, chosen.shares, by_norm=chosen.train, stream=chosen.stream)
    masks = whole_filters(net, found, x[:2])
    nets = {"dense": net, "compact": compact(net, masks, x[:2])}
    if any(isinstance(module, NORM) for module in net.modules()):
        nets |= {f"{key}, folded": fold_norms(model, x[:2]) for key, model in nets.items()}
    last = dict(memory_format=torch.channels_last)
    times = batch_times(
        {key: copy.deepcopy(model).to(**last) for key, model in nets.items()},
        x.contiguous(**last),
        rounds=rounds,
        budget=60,
    )
    small = [model for key, model in nets.items() if "compact" in key]
    differing, total, gap = compared(net, masks, small, pictures.test)
    return dict(
        macs={key: count_macs(nets[key], x[:2])[""] for key in ("dense", "compact")},
        parameters={key: sum(p.numel() for p in nets[key].parameters()) for key in nets},
        ms={key: 1e3 * seconds for key, seconds in times.items()},
        batch=chosen.batch,
        differing=differing,
        pictures=total,
        gap=gap,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=NETS)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--data", help="folder of the data sets")
    parser.add_argument("--out", help="also write the figures to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'net':<16}{'':<17}{'parameters':>12}{'MACs':>14}{'ms':>9}{'ratio':>7}")
    result = {}
    for name in args.nets:
        row = result[name] = measure(name, args.rounds, args.data)
        for key, ms in row["ms"].items():
            macs = row["macs"][key.split(",")[0]]
            print(
                f"{name:<16}{key:<17}{row['parameters'][key]:>12,}{macs:>14,}"
                f"{ms:>9.2f}{ms / row['ms']['dense']:>7.2f}"
            )
        print(
            f"{'':<16}in another class than the masked net says: {row['differing']} of "
            f"{row['pictures']:,}; largest gap of an output {row['gap']:.1e}",
            flush=True,
        )
    print("ms of a batch; ratio: to the dense net")
    if args.out:
        about = environment(torch.device("cpu"))
        about["command"] = f"python benchmarks/compaction.py --rounds {args.rounds}"
        text = json.dumps({"about": about, "result": result}, indent=1)
        write_text(Path(args.out), text + "\n")


if __name__ == "__main__":
    main()

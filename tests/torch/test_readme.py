"""The lines of the README and of the page on loops, trained as they stand there."""

import re
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from dslbi_torch import density, shrink, sparse_weights, split_groups
from dslbi_torch.surgery.costs import count_macs
from dslbi_torch.training.data import datasets

ROOT = Path(__file__).parents[2]


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), flags=re.S)


def test_the_ten_lines_find_the_three_inputs_that_count(capsys):
    (lines,) = blocks("README.md")
    names = {}
    exec(lines, names)
    accuracy = float(re.search(r"tensor\(([\d.]+)\)", capsys.readouterr().out)[1])
    assert accuracy > 0.98
    steps = names["path"].entry_steps("0.weight")
    assert [i for i, step in enumerate(steps) if step >= 0] == [3, 7, 20]
    assert "0.99" in lines


@pytest.mark.slow
def test_the_lines_around_adamw_find_a_sparse_model_as_good_as_the_dense_one():
    data = datasets.load("digits")
    torch.manual_seed(0)
    layers = dict(
        conv1=nn.Conv2d(1, 16, 3, padding=1),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(16, 32, 3, padding=1),
        relu2=nn.ReLU(),
        pool=nn.MaxPool2d(2),
        flat=nn.Flatten(),
        fc=nn.Linear(512, 64),
        relu3=nn.ReLU(),
        head=nn.Linear(64, 10),
    )
    model = nn.Sequential(OrderedDict(layers))
    generator, epochs = torch.Generator().manual_seed(0), 30
    loader = list(data.train.batches(32, generator))
    (lines,) = [block for block in blocks("book/your_loop.md") if "AdamW" in block]
    names = dict(torch=torch, split_groups=split_groups, model=model, epochs=epochs, loader=loader)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an S below 3
        exec(lines, names)
    optimizer = names["optimizer"]
    for _ in range(epochs):
        for x, y in data.train.batches(32, generator):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    def accuracy():
        with torch.no_grad():
            found = [(model(x).argmax(1) == y).float() for x, y in data.test.batches(500)]
        return torch.cat(found).mean().item()

    dense = accuracy()
    with sparse_weights(optimizer):
        sparse = accuracy()
    assert dense > 0.95 and sparse >= dense - 0.01
    assert density(optimizer, model).nonzero_split == pytest.approx(0.2, abs=0.01)


@pytest.mark.slow
def test_the_lines_from_a_trained_net_leave_what_is_asked_of_its_multiplications():
    data, generator = datasets.load("digits"), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    layers = []
    for before, width in ((1, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10))

    def train(net, optimizer, steps):
        net.train()
        batches = (pair for _ in range(99) for pair in data.train.batches(32, generator))
        for _, (x, y) in zip(range(steps), batches, strict=False):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()

    @torch.no_grad()
    def accuracy(net):
        net.eval()
        found = [(net(x).argmax(1) == y).float() for x, y in data.test.batches(500)]
        return torch.cat(found).mean().item()

    train(model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), 200)
    trained, x, steps = accuracy(model), data.example(2), 200
    batches = list(data.train.batches(32, generator))[:20]
    (lines,) = [block for block in blocks("book/your_loop.md") if "weigh_units_" in block]
    names = dict(torch=torch, F=nn.functional, model=model.train(), x=x, steps=steps)
    names |= dict(batches=batches)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(lines, names)
    train(model, names["optimizer"], steps)
    small = shrink(model, names["optimizer"], x, batches).model
    assert count_macs(small, x)[""] / count_macs(model, x)[""] == pytest.approx(0.55, abs=0.03)
    train(small, torch.optim.SGD(small.parameters(), lr=0.05, momentum=0.9), 200)
    assert trained > 0.95 and accuracy(small) > trained - 0.02

"""The tables of the book on what is split in which net are those of small nets of each."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch
from net_families import make_family
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from dslbi_torch import DessiLBI, split_groups

PAGE = Path(__file__).parents[2] / "book" / "what_is_split.md"
SIZES = dict(vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=4)
SIZES |= dict(intermediate_size=24)
NETS = {
    "ResNet": "resnet",
    "ConvNeXt": "convnext",
    "ViT": "vit of torchvision",
    "Swin": "swin",
    "BERT": lambda: BertForSequenceClassification(BertConfig(**SIZES)),
    "GPT-2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
    ),
    "LLaMA": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2)),
}


def rows(table):
    """Of a table of the page, by the net, the names in each cell."""
    text = PAGE.read_text().split("\n| net |")[1 + table]
    lines = [line.split("|")[1:-1] for line in text.split("\n\n")[0].splitlines()[2:]]
    return {net.strip(): [re.findall("`([^`]+)`", cell) for cell in cells] for net, *cells in lines}


def made(net):
    if isinstance(NETS[net], str):
        return make_family(NETS[net])
    torch.manual_seed(0)
    return NETS[net](), {"input_ids": torch.randint(0, 30, (2, 7))}


def meets(names, patterns):
    """Whether every name has a pattern, and every pattern a name."""
    fits = {
        (name, pattern)
        for name in names
        for pattern in patterns
        if fnmatchcase(name.removesuffix(".weight"), pattern)
    }
    assert {name for name, _ in fits} == set(names)
    assert {pattern for _, pattern in fits} == set(patterns)


def test_every_net_has_its_row():
    assert set(rows(0)) == set(NETS)
    assert set(rows(1)) == set(NETS) - {"ResNet", "ConvNeXt"}


@pytest.mark.parametrize("net", NETS)
def test_what_is_split_and_what_is_left_whole(net):
    model, x = made(net)
    split, whole = [], []
    for group in split_groups(model, example_input=x):
        for name, p in group["params"]:
            if p.ndim > 1:
                (whole if group["penalty"] is None else split).append(name)
    patterns, left = rows(0)[net]
    meets(split, patterns)
    meets(whole, [name for name in left if name != "lm_head" or net == "LLaMA"])
    assert ("lm_head" in left) == (net in ("GPT-2", "LLaMA"))


@pytest.mark.parametrize("net", [net for net in NETS if net not in ("ResNet", "ConvNeXt")])
def test_where_heads_are(net):
    model, x = made(net)
    groups = split_groups(model, conv="head", linear="head", example_input=x)
    split = [group for group in groups if group["penalty"]]
    meets([name for group in split for name, _ in group["params"]], rows(1)[net][0])
    assert all(group["block"] > 1 for group in split)
    DessiLBI(groups)


@pytest.mark.parametrize("net", ["ResNet", "ConvNeXt"])
def test_a_net_without_heads_is_told_so(net):
    model, x = made(net)
    with pytest.raises(ValueError, match="must have heads of attention .* by 'head', found none"):
        split_groups(model, conv="head", linear="head", example_input=x)


def test_neurons_of_bert_and_gpt():
    """A neuron is a unit wherever its weights lie."""
    for net, key, size in (("BERT", "*.intermediate.dense", 24), ("GPT-2", "*.mlp.c_fc", 64)):
        model, _ = made(net)
        group, *_ = split_groups(model, {key: "row"}, conv=None, linear=None)
        for _, W in group["params"]:
            assert W.shape[group["group_dim"]] == size

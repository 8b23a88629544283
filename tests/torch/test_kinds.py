"""What the tensors of a model are: layers, embeddings, outputs, and what is tied."""

import pytest
import torch
from net_families import make_family
from torch import nn

from dslbi_torch import split_groups, split_table
from dslbi_torch.kinds import inputs_first, output_weights, owned_tensors


def names_of(model, tensors):
    names = {id(p): name for name, p in model.named_parameters()}
    return [names[id(p)] for p in tensors]


class Words(nn.Module):
    """An embedding that may be tied to the head, which stands before it or after."""

    def __init__(self, head_first=False, tied=True):
        super().__init__()
        parts = {"head": nn.Linear(4, 9, bias=False), "middle": nn.Linear(4, 4)}
        parts["words"] = nn.Embedding(9, 4)
        for name in parts if head_first else reversed(parts):
            setattr(self, name, parts[name])
        if tied:
            self.head.weight = self.words.weight

    def forward(self, ids):
        return self.head(self.middle(self.words(ids)))


IDS = torch.zeros(2, 3, dtype=torch.int64)


@pytest.mark.parametrize("head_first", [False, True])
def test_tied_weights_are_an_embedding_under_all_their_names(head_first):
    model = Words(head_first)
    tied = next(own for own in owned_tensors(model) if own.tensor is model.words.weight)
    assert sorted(tied.names) == ["head.weight", "words.weight"] and tied.kind == "embedding"
    groups = split_groups(model)
    assert [name for g in groups if g["penalty"] for name, _ in g["params"]] == ["middle.weight"]
    for key in ("head", "words", nn.Embedding):  # asked for
        split, *_ = split_groups(model, {key: "row"}, linear=None)
        assert split["group_dim"] == 0 and split["params"][0][1] is model.words.weight
    with pytest.raises(ValueError, match="rule 'Linear' must match"):
        split_groups(nn.ModuleDict({"a": Words(head_first).words}), {nn.Linear: "row"})


def test_the_head_is_left_whole_where_it_is_known_unless_asked():
    model = Words(tied=False)
    penalties = lambda groups: {n: g["penalty"] for g in groups for n, _ in g["params"]}  # noqa: E731
    assert penalties(split_groups(model))["head.weight"] == "l1"  # nothing says what it is
    assert penalties(split_groups(model, example_input=IDS))["head.weight"] is None
    assert penalties(split_groups(model, {"head": "l1"}, example_input=IDS))["head.weight"] == "l1"
    whole = split_groups(model, outputs=True, example_input=IDS)
    assert penalties(whole)["head.weight"] == "l1"
    model.get_output_embeddings = lambda: model.head  # as Hugging Face has it
    assert penalties(split_groups(model))["head.weight"] is None
    with pytest.raises(ValueError, match="outputs must be True or False, got 'no'"):
        split_groups(model, outputs="no")


@pytest.mark.parametrize(("family", "head"), [
    ("resnet", ["fc.weight"]), ("vit", ["head.weight"]), ("swin", ["head.weight"]),
    ("densenet", ["classifier.weight"]), ("llama", ["head.weight"]), ("gpt", []),
])  # fmt: skip
def test_outputs_are_found_by_an_example(family, head):
    model, x = make_family(family)
    for p in model.parameters():
        p.requires_grad_(False)  # what is frozen is found too
    assert names_of(model, output_weights(model, x)) == head
    assert not any(p.requires_grad for p in model.parameters())


def test_a_stream_that_many_write_has_no_head():
    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.into, self.one, self.two = (nn.Linear(3, 3) for _ in range(3))
            self.norm = nn.LayerNorm(3)

        def forward(self, x):
            x = self.into(x)
            x = x + self.one(x)
            return {"hidden": self.norm(x + self.two(x)), "pooled": torch.tanh(self.two(x[:1]))}

    model = Body()
    assert names_of(model, output_weights(model, torch.randn(2, 3))) == ["two.weight"]  # pooled
    model.two = nn.Identity()
    assert names_of(model, output_weights(model, torch.randn(2, 3))) == []


def test_the_projections_of_attention_are_linear_layers():
    model = nn.ModuleDict({"a": nn.MultiheadAttention(8, 2)})
    model["b"] = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, add_bias_kv=True)
    kinds = {own.names[0]: own.kind for own in owned_tensors(model)}
    layers = {name for name, kind in kinds.items() if kind == "linear"}
    assert layers == {
        *("a.in_proj_weight", "a.out_proj.weight", "b.out_proj.weight"),
        *("b.q_proj_weight", "b.k_proj_weight", "b.v_proj_weight"),
    }
    groups = split_groups(model, {"a.in_proj_weight": {"block": 4, "parts": 3}}, linear="row")
    heads = next(g for g in groups if g.get("block") == 4)
    assert [name for name, _ in heads["params"]] == ["a.in_proj_weight"]


def test_the_conv1d_of_hugging_face_is_known_by_its_form():
    model, _ = make_family("gpt")
    assert inputs_first(model.attend) and not inputs_first(model.head)
    found = {n: g for g in split_groups(model, linear="row") for n, _ in g["params"]}
    assert found["attend.weight"]["group_dim"] == 1  # 48 outputs of 16 inputs
    columns = split_groups(model, {"attend": "column"}, linear=None)
    assert columns[0]["group_dim"] == 0


def test_the_table_says_what_stays_whole():
    model = Words()
    last = split_table(split_groups(model), model).splitlines()[-1]
    assert last == (
        "unpenalised: 2 tensors, 40 parameters (words.weight of Embedding, tied to head.weight, "
        "middle.bias of Linear)"
    )
    norms = [nn.LayerNorm(3) for _ in range(7)]
    blocks = nn.Sequential(*norms, nn.Linear(3, 3), nn.Embedding(5, 3))
    last = split_table(split_groups(blocks)).splitlines()[-1]
    assert last == "unpenalised: 16 tensors, 60 parameters (8.weight, 15 of one axis)"

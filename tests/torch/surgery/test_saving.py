"""Files: what is written loads again, whatever the layers are; what is damaged is refused."""

import copy

import pytest
import torch
import vectors
from torch import nn

from dslbi_torch import compact, load_masks, save_masks, whole_filters
from dslbi_torch.safe_files import read_tensors, write_tensors
from dslbi_torch.surgery.saving import load_compact, save_compact, save_onnx, save_program


class Plain(nn.Conv2d):
    """A convolution of another class, with code of its own."""

    def __init__(self, units):
        super().__init__(3, units, 3)

    def forward(self, x):
        return 2 * super().forward(x)


class Scores(nn.Linear):
    def __init__(self):
        super().__init__(64, 4)


def made_of(first, *middle):
    torch.manual_seed(0)
    return nn.Sequential(first, *middle, nn.Conv2d(8, 4, 3), nn.Flatten(), Scores())


class Repeated(nn.Module):
    """One layer under two names, and one weight in two layers."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(6, 6), nn.Linear(6, 6)
        self.right.weight = self.left.weight
        self.into, self.one, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.other = self.one

    def forward(self, x):
        x = self.into(self.left(x) + self.right(x).relu()).relu()
        return self.head(self.other(self.one(x).relu()).relu())


def without(net, name, filters):
    mask = torch.ones_like(net.get_parameter(name), dtype=torch.bool)
    mask[filters] = False
    return {name: mask}


@pytest.mark.parametrize(
    "make",
    [
        lambda: made_of(nn.Conv2d(3, 8, 3), nn.PReLU(8)),
        lambda: made_of(nn.Conv2d(3, 8, 3), nn.PReLU()),
        lambda: made_of(nn.Conv2d(3, 8, 3), nn.SyncBatchNorm(8), nn.ReLU()),
        lambda: made_of(Plain(8), nn.BatchNorm2d(8, affine=False), nn.ReLU()),
    ],
)
def test_cut_layers_of_any_class_load(make, tmp_path):
    net, x = make().eval(), torch.tensor(vectors.array((2, 3, 8, 8), seed=3)).float()
    small = compact(net, whole_filters(net, without(net, "0.weight", [1, 5]), x), x)
    assert small[0].out_channels == 6
    save_compact(small, tmp_path / "small.pt")
    loaded = load_compact(tmp_path / "small.pt", lambda: make())
    torch.testing.assert_close(loaded(x), small(x), rtol=0, atol=0)
    assert [type(m) for m in loaded.modules()] == [type(m) for m in small.modules()]
    assert repr(loaded) == repr(small)


def test_what_is_shared_is_shared_after_loading(tmp_path):
    torch.manual_seed(0)
    net, x = Repeated(), torch.tensor(vectors.array((4, 6), seed=3)).float()
    masks = without(net, "into.weight", [1, 5]) | without(net, "one.weight", [1, 5])
    small = compact(net, whole_filters(net, masks, x), x)
    assert small.one is small.other and small.one.weight.shape == (6, 6)
    save_compact(small, tmp_path / "small.pt")
    loaded = load_compact(tmp_path / "small.pt", Repeated)
    torch.testing.assert_close(loaded(x), small(x), rtol=0, atol=0)
    assert loaded.one is loaded.other
    assert loaded.left.weight is loaded.right.weight
    assert [n for n, _ in loaded.named_parameters()] == [n for n, _ in small.named_parameters()]


def test_a_damaged_file_is_refused_wherever_it_is_damaged(tmp_path):
    masks = {"w": torch.tensor(vectors.array((30, 30), seed=3)) > 0}
    file, bad = tmp_path / "masks.pt", tmp_path / "bad.pt"
    save_masks(masks, file)
    whole, same = file.read_bytes(), 0
    for k in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[k] ^= 0x10
        bad.write_bytes(damaged)
        try:  # what is not refused is padding, and tells the same
            torch.testing.assert_close(load_masks(bad), masks)
            same += 1
        except ValueError as error:
            assert str(error).startswith(f"{bad} must be a file of dslbi masks 1, but: ")
    assert same < len(whole) // 7


def test_another_kind_of_file_is_named(tmp_path):
    write_tensors({"masks": {}}, tmp_path / "other.pt", "dslbi compact model 1")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "text.pt").write_text("hi")
    for name, found in [
        ("other.pt", "it is a file of dslbi compact model 1"),
        ("list.pt", "it is a file of something else"),
        ("text.pt", "it is a file of something else, or a damaged one"),
    ]:
        with pytest.raises(ValueError, match=f"must be a file of dslbi masks 1, but: {found}$"):
            read_tensors(tmp_path / name, "dslbi masks 1", copy.copy)


def test_only_masks_are_saved(tmp_path):
    for masks, said in [
        ({}, "masks must hold at least one tensor, got none"),
        ({"w": torch.tensor([0.5, 2])}, "the mask of w must be a bool tensor, got torch.float32"),
        ({"w": torch.tensor([255], dtype=torch.uint8)}, "must be a bool tensor, got torch.uint8"),
        ({"w": [True]}, "the mask of w must be a bool tensor, got list"),
        ([torch.ones(2, dtype=torch.bool)], "masks must be a dict of bool tensors, got a list"),
    ]:
        with pytest.raises(ValueError, match=said):
            save_masks(masks, tmp_path / "masks.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("entry", [nn.Linear, lambda: 3])
def test_an_architecture_that_could_not_be_loaded_is_not_saved(tmp_path, entry):
    with pytest.raises(ValueError, match="architecture must be plain data .* for 'f'"):
        save_compact(nn.Linear(2, 2), tmp_path / "net.pt", {"n": 2, "f": entry})
    assert not list(tmp_path.iterdir())


def test_a_build_that_does_not_take_the_architecture_is_named(tmp_path):
    save_compact(nn.Linear(2, 2), tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"build must take the architecture that .*, \{\}, but: "):
        load_compact(tmp_path / "net.pt", lambda n: nn.Linear(n, 2))


def test_a_program_holds_no_examples(tmp_path):
    net, x = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), torch.randn(2000, 1, 12, 12)
    save_program(net, x[:2], tmp_path / "net.pt2")
    assert (tmp_path / "net.pt2").stat().st_size < 100_000
    program = torch.export.load(tmp_path / "net.pt2")
    assert not program.example_inputs[0][0].any()
    torch.testing.assert_close(program.module()(x[:5]), net(x[:5]))


class Scored(nn.Module):
    """Takes tokens, a mask, positions that all examples share, and a number; gives two tensors."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(10, 6), nn.Linear(6, 3)

    def forward(self, ids, mask=None, positions=None, *, scale=1.0):
        x = self.embed(ids) + positions
        x = x if mask is None else x * mask[..., None]
        return {"scores": scale * self.head(x.mean(1)), "states": x}


def batch_of(n):
    generator = torch.Generator().manual_seed(n)
    return torch.randint(0, 10, (n, 5), generator=generator), torch.rand(n, 5, generator=generator)


@pytest.mark.parametrize("count", [1, 2])  # of one row, as the positions, or of more
def test_tuples_and_dicts_are_exported_for_any_batch(count, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    net, positions = Scored(), torch.randn(5, 6)
    ids, mask = batch_of(count)
    options = {"ids": ids, "mask": mask, "positions": positions, "scale": 2.0}
    ids, mask = batch_of(3)
    more, file = options | {"ids": ids, "mask": mask}, tmp_path / "net"
    expected = net(**more)
    save_program(net, options, file)
    torch.testing.assert_close(torch.export.load(file).module()(**more), expected)
    save_program(net, tuple(options.values())[:3], file)
    found = torch.export.load(file).module()(ids, mask, positions)
    torch.testing.assert_close(found["scores"], expected["scores"] / 2)
    save_onnx(net, options, file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    tensors = {key: x.numpy() for key, x in more.items() if isinstance(x, torch.Tensor)}
    found = session.run(["scores", "states"], tensors)
    torch.testing.assert_close(list(map(torch.from_numpy, found)), list(expected.values()))


def test_arguments_of_another_kind_are_named(tmp_path):
    with pytest.raises(ValueError, match="architecture must be a dict, got a list"):
        save_compact(nn.Linear(2, 2), tmp_path / "net.pt", [1])
    with pytest.raises(ValueError, match="example_input must be a tensor, got a NoneType"):
        save_program(nn.Linear(2, 2), None, tmp_path / "net.pt2")

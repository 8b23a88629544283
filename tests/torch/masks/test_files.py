"""Masks as files."""

import pytest
import torch
from on_path import equal, make_net, some_masks

from dslbi_torch import load_masks, save_masks


def test_masks_through_a_file(tmp_path):
    masks = {**some_masks(make_net()), "empty": torch.ones(0, 3, dtype=bool)}
    masks["scalar"] = torch.tensor(True)
    save_masks(masks, tmp_path / "masks.pt")
    equal(load_masks(tmp_path / "masks.pt"), masks)
    assert [f.name for f in tmp_path.iterdir()] == ["masks.pt"]
    bad = tmp_path / "bad.pt"
    whole = (tmp_path / "masks.pt").read_bytes()
    for content in (b"", b"no masks", whole[: len(whole) // 2]):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match="must be a file of dslbi masks 1, but: "):
            load_masks(bad)
    torch.save({"0.weight": torch.ones(2)}, bad)
    with pytest.raises(ValueError, match="must be a file of dslbi masks 1, but: "):
        load_masks(bad)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_masks(tmp_path / "none.pt")

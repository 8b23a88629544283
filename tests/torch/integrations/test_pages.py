"""The scripts of the pages on trainers, run as they stand there, and resumed as the pages say."""

import re
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from dslbi_torch import density

ROOT = Path(__file__).parents[3]
INPUTS = [3, 7, 20]  # those that count

pytestmark = [
    pytest.mark.slow,
    # Of Lightning itself: what it advises, and what of torch it uses.
    pytest.mark.filterwarnings("ignore:The .*_dataloader. does not have many workers"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec"),
]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


def run(page, *changes):
    """The names that the script of a page leaves, with some of its words changed."""
    (lines,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "book" / page).read_text("utf-8"), flags=re.S
    )
    for old, new in changes:
        assert lines.count(old) == 1
        lines = lines.replace(old, new)
    AcceleratorState._reset_state(True)
    names = {"__name__": page}
    exec(lines, names)
    return names


def assert_equal(resumed, through, model="model"):
    for name, x in through[model].state_dict().items():
        found = resumed[model].state_dict()[name]
        torch.testing.assert_close(found, x, rtol=0, atol=0, msg=name)
    for field in ("step", "time", "steps", "times"):
        assert getattr(resumed["path"], field) == getattr(through["path"], field)


def entered(path):
    return [i for i, step in enumerate(path.entry_steps("0.weight")) if step >= 0]


def test_the_page_on_hugging_face():
    through = run("with_huggingface.md")
    assert through["result"]["eval_accuracy"] > 0.95
    assert density(through["optimizer"], through["model"]).nonzero_split == 0.5
    dense, small = (sum(p.numel() for p in m.parameters()) for m in _nets(through))
    assert small < 0.8 * dense
    last = 'trainer.train(resume_from_checkpoint="runs/bert/checkpoint-200")'
    assert_equal(run("with_huggingface.md", ("trainer.train()  #", f"{last}  #")), through)


def test_the_page_on_lightning():
    names = run("with_lightning.md")
    assert names["result"]["accuracy"] > 0.95
    assert entered(names["path"]) == INPUTS
    assert Path("runs/lightning/last.ckpt").is_file()


def test_the_page_on_accelerate():
    through = run("with_accelerate.md")
    assert through["accuracy"] > 0.95 and entered(through["path"]) == INPUTS
    stop = "        print_density(accelerator, path, model)", "        break"
    assert run("with_accelerate.md", stop)["epoch"] == 9
    again = run("with_accelerate.md", ('"runs/accelerate", False', '"runs/accelerate", True'))
    assert again["done"] == 10
    assert_equal(again, through, "net")


def test_the_page_on_timm():
    through = run("with_timm.md")
    assert through["accuracy"] > 0.85
    dense, small = (sum(p.numel() for p in m.parameters()) for m in _nets(through))
    assert small < 0.8 * dense
    stop = "    print(density_line(path, model))", "    if epoch == 5:\n        break"
    assert run("with_timm.md", stop)["epoch"] == 5
    again = run("with_timm.md", ('"runs/timm", False', '"runs/timm", True'))
    assert again["first"] == 6
    assert_equal(again, through)


def _nets(names):
    return names["model"], names["small"].model

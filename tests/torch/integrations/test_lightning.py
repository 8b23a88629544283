"""Lightning, stopped and resumed: every bit as if it had gone through."""

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from resumed import assert_same, everything, steered
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dslbi_torch.integrations.lightning import LightningRecord

pytestmark = [
    # Of Lightning itself: what it advises, and what of torch it uses.
    pytest.mark.filterwarnings("ignore:The .*_dataloader. does not have many workers"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
]


class Net(L.LightningModule):
    def __init__(self, *, split=True):
        super().__init__()
        self.layers, self.split = (
            nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 2)),
            split,
        )

    def training_step(self, batch, index):
        x, y = batch
        return nn.functional.cross_entropy(self.layers(x), y)

    validation_step = training_step

    def configure_optimizers(self):
        steps = int(self.trainer.estimated_stepping_batches)
        if not self.split:
            return torch.optim.SGD(self.layers.parameters(), lr=0.1)
        optimizer, _ = steered(
            self.layers, lambda groups: torch.optim.AdamW(groups, lr=3e-2), steps, record=False
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return [optimizer], [dict(scheduler=schedule, interval="step")]


def train(folder, *, resume=None, callbacks=None, net=None, **settings):
    """Train four epochs; return all that the run has come to, or nothing without a record."""
    torch.manual_seed(0)
    net = net or Net()
    x = torch.randn(48, 10)
    loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=4)
    if callbacks is None:
        callbacks = [LightningRecord(every=3, elements=True)]
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer = L.Trainer(
        max_epochs=4,
        accelerator="cpu",
        devices=1,
        callbacks=[*callbacks, ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)],
        **quiet,
        **settings,
    )
    trainer.fit(net, loader, loader, ckpt_path=resume)
    recorder = callbacks[0].recorder if callbacks else None
    return everything(net, recorder.optimizer, recorder) if recorder else None


@pytest.mark.parametrize(
    "settings",
    [
        lambda: dict(),
        lambda: dict(accumulate_grad_batches=2, gradient_clip_val=0.1),
        lambda: dict(precision="bf16-mixed"),
        lambda: dict(
            plugins=[MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))]
        ),
    ],
    ids=["float32", "accumulated and clipped", "bf16", "scaled"],
)
def test_a_resumed_training_is_bit_equal(tmp_path, capsys, settings):
    through = train(tmp_path, **settings())
    lines = [line for line in capsys.readouterr().out.splitlines() if "non-zero" in line]
    assert len(lines) == 4 and lines[-1].startswith(f"step {through['record steps'][-1]}: ")
    assert 0 < through["record nonzero/0.weight"][-1] < 160
    assert_same(train(tmp_path, resume=tmp_path / "epoch=1.ckpt", **settings()), through)


def test_a_checkpoint_without_a_record_is_named(tmp_path):
    train(tmp_path, callbacks=[])
    with pytest.raises(ValueError, match="^the checkpoint of step 24 must hold the record"):
        train(tmp_path, resume=tmp_path / "epoch=1.ckpt")


def test_a_training_that_splits_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="^the optimizer splits nothing"):
        train(tmp_path, net=Net(split=False))

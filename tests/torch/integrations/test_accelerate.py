"""Accelerate, stopped and resumed: every bit as if it had gone through."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from resumed import assert_same, everything, steered
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dslbi_torch.integrations.accelerate import keep_record, print_density

STEPS, STOP = 24, 10


@pytest.fixture(autouse=True)
def one_state():
    """An Accelerator of other settings than the last one's."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


def train(folder, *, resume=False, scaled=False, clip=None, kept=True, **settings):
    """Train by a loop of one's own, which saves its state once."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 2))
    x = torch.randn(4 * STEPS, 10)
    loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=4)
    accelerator = Accelerator(cpu=True, **settings)
    if scaled:  # Accelerate itself has fp16 on GPUs only
        accelerator.scaler = torch.amp.GradScaler("cpu")
    optimizer, recorder = steered(net, lambda groups: torch.optim.AdamW(groups, lr=3e-2), STEPS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    prepared = accelerator.prepare(net, optimizer, loader, schedule)
    model, stepped, loader, schedule = prepared
    if kept:
        keep_record(accelerator, recorder)
    done = 0
    if resume:
        accelerator.load_state(folder)
        loader, done = accelerator.skip_first_batches(loader, STOP), STOP
    for k, (inputs, labels) in enumerate(loader, done + 1):
        with accelerator.accumulate(model):
            with accelerator.autocast():
                loss = nn.functional.cross_entropy(model(inputs), labels)
            accelerator.backward(loss)
            if clip and accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), clip)
            stepped.step()
            schedule.step()
            stepped.zero_grad()
        if k == STOP and not resume:
            accelerator.save_state(folder)
    print_density(accelerator, recorder, model)
    return everything(net, optimizer, recorder)


@pytest.mark.parametrize(
    "settings",
    [
        dict(),
        dict(gradient_accumulation_steps=2, clip=0.1),
        dict(mixed_precision="bf16"),
        dict(scaled=True),
    ],
    ids=["float32", "accumulated and clipped", "bf16", "scaled"],
)
def test_a_resumed_training_is_bit_equal(tmp_path, capsys, settings):
    through = train(tmp_path, **settings)
    steps = STEPS // settings.get("gradient_accumulation_steps", 1)
    assert f"step {steps}: " in capsys.readouterr().out
    assert 0 < through["record nonzero/0.weight"][-1] < 160
    assert_same(train(tmp_path, resume=True, **settings), through)


def test_a_folder_without_a_record_is_named(tmp_path):
    train(tmp_path, kept=False)
    with pytest.raises(FileNotFoundError, match="must hold path.pt, .* got none"):
        train(tmp_path, resume=True)
    with pytest.warns(UserWarning, match="^the record must be restored with its optimizer"):
        train(tmp_path, resume=True, kept=False)

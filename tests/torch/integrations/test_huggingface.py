"""Hugging Face's Trainer, stopped and resumed: every bit as if it had gone through."""

import shutil

import pytest
import torch
from resumed import assert_same, everything, steered
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from dslbi_torch.integrations.huggingface import RecordCallback

STEPS = 24


def train(folder, *, resume=None, kept=True, **settings):
    """Train a tiny BERT on random tokens; return all that the run has come to."""
    torch.manual_seed(0)
    sizes = dict(vocab_size=20, hidden_size=16, intermediate_size=32, max_position_embeddings=8)
    config = BertConfig(num_hidden_layers=1, num_attention_heads=2, **sizes)
    model = BertForSequenceClassification(config)
    tokens, labels = torch.randint(20, (48, 8)), torch.randint(2, (48,))
    data = [dict(input_ids=x, labels=int(y)) for x, y in zip(tokens, labels, strict=True)]
    args = TrainingArguments(
        output_dir=folder,
        max_steps=STEPS,
        per_device_train_batch_size=4,
        save_steps=10,
        eval_strategy="steps",
        eval_steps=10,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **settings,
    )
    optimizer, recorder = steered(model, lambda groups: torch.optim.AdamW(groups, lr=3e-3), STEPS)
    trainer = Trainer(
        model,
        args,
        train_dataset=data,
        eval_dataset=data[:8],
        optimizers=(optimizer, None),
        callbacks=[RecordCallback(recorder)] if kept else [],
    )
    trainer.train(resume_from_checkpoint=resume)
    return everything(model, optimizer, recorder)


@pytest.mark.parametrize(
    "settings",
    [dict(), dict(gradient_accumulation_steps=2, max_grad_norm=0.1), dict(bf16=True)],
    ids=["float32", "accumulated and clipped", "bf16"],
)
def test_a_resumed_training_is_bit_equal(tmp_path, capsys, settings):
    through = train(tmp_path, **settings)
    lines = [line for line in capsys.readouterr().out.splitlines() if "non-zero" in line]
    assert [line.split(":")[0] for line in lines] == ["step 10", "step 20", "step 24"]
    assert 0 < through["record nonzero/bert.pooler.dense.weight"][-1] < 16 * 16
    assert through["group 0 rest"] == 0 and through["group 0 steered"] == STEPS
    assert_same(train(tmp_path, resume=str(tmp_path / "checkpoint-10"), **settings), through)


def test_without_the_callback_the_optimizer_goes_on_and_the_recorder_says_so(tmp_path):
    through = train(tmp_path)
    said = "the record must be restored with its optimizer, which comes with 10 recorded steps"
    with pytest.warns(UserWarning, match=f"^{said}, got one of 0: ") as warned:
        resumed = train(tmp_path, resume=str(tmp_path / "checkpoint-10"), kept=False)
    assert len(warned) == 1
    steering = {k: x for k, x in through.items() if not k.startswith(("record", "group"))}
    assert_same({k: resumed[k] for k in steering}, steering)
    levels = {k: x for k, x in through.items() if k.startswith("group") and "recorded" not in k}
    assert_same({k: resumed[k] for k in levels}, levels)
    assert resumed["group 0 recorded"] == STEPS - 10


def test_a_checkpoint_without_a_record_is_named(tmp_path):
    train(tmp_path, kept=False)
    with pytest.raises(FileNotFoundError, match="checkpoint-10 must hold path.pt, .* got none"):
        train(tmp_path, resume=str(tmp_path / "checkpoint-10"))
    moved = tmp_path / "elsewhere"
    shutil.move(tmp_path / "checkpoint-10", moved)
    with pytest.raises(FileNotFoundError, match="elsewhere must hold path.pt"):
        train(tmp_path, resume=str(moved), resume_from_checkpoint=str(moved))

"""The benchmark of training: both sides make the steps of the loop, and their parts are counted."""

from dataclasses import replace

from benchmarks import training
from dslbi_torch.training import recipes

CONFIG = replace(recipes.recipe("digits").config, train_size=200, target=0.3, batch_size=32)


def test_both_sides_step_and_the_optimizer_is_a_part():
    found = training.measure(CONFIG, steps=6, warm_up=2)
    for name in ("dessilbi", "sgd"):
        row = found[name]
        assert 0 < row["optimizer_share"] < 1
        assert row["pictures_s"] == 32 / (row["ms"] / 1e3)
        assert row["epoch_s"] == 7 * row["ms_mean"] / 1e3  # 200 pictures in batches of 32
    assert found["ratio"] > 0 and found["evaluation_s"] > 0


def test_every_recipe_has_steps_by_sgd():
    for name, entry in recipes.RECIPES.items():
        dense = entry.config.optimizer == "sgd"
        plain = training.by_sgd(entry.config if dense else replace(entry.config, fused=True))
        assert (plain.optimizer, plain.splits, plain.recipe) == ("sgd", False, name)


def test_control_and_record_belong_to_the_optimizer():
    side = training.Steps(CONFIG)
    x, y = next(iter(side.run.data.train.batches(32)))
    for _ in range(3):
        side.take(x, y)
    assert len(side.own) == len(side.total) == 3
    assert all(own < total for own, total in zip(side.own, side.total, strict=True))
    assert side.run.controller.step == 3

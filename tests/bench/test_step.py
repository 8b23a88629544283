"""The benchmark of the step measures what it says: states, bytes, and a peer that may be absent."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import step
from dslbi_torch import DessiLBI
from dslbi_torch.units import families, selected


def shares(optimizer):
    return [selected(family)[0].double().mean().item() for family in families(optimizer)]


def test_fresh_and_half_selected_stay_what_they_are():
    fresh = step.OPTIMIZERS["DessiLBI"](step.parameters(step.LENET5))
    half = step.OPTIMIZERS["DessiLBI, half selected"](step.parameters(step.LENET5))
    for _ in range(50):
        fresh.step()
        half.step()
    assert shares(fresh) == [0.0] * 5
    assert shares(half) == [0.5] * 5


@pytest.mark.parametrize(("name", "expected"), [("SGD fused", 4), ("Adam fused", 8)])
def test_bytes_of_state(name, expected):
    optimizer = step.OPTIMIZERS[name](step.parameters(step.LENET300))
    optimizer.step()
    assert step.state_bytes(optimizer) == expected


def test_bytes_of_state_where_everything_is_split():
    params = step.parameters([(30, 20), (5, 4, 3, 3)])
    optimizer = DessiLBI(step.split(params), lr=0.1)
    optimizer.step()
    assert step.state_bytes(optimizer) == 8


def test_an_absent_peer_is_skipped_with_a_line(monkeypatch, capsys):
    monkeypatch.setattr(step, "OPTIONAL", {"peer": ("no_such_package", None)})
    assert set(step.available()) == set(step.OPTIMIZERS)
    assert capsys.readouterr().out == "peer: skipped, no_such_package is not installed\n"


def test_the_record_has_a_row_for_sgd_and_for_dessilbi_in_every_list():
    record = json.loads((Path(step.__file__).parent / "results" / "step.json").read_text())
    assert set(record["result"]) == set(step.shapes())
    for rows in record["result"].values():
        assert rows["SGD fused"]["ratio"] == 1 and rows["DessiLBI"]["ratio"] > 0
        assert all(set(row) == {"ms", "ratio", "bytes"} for row in rows.values())


def test_measure_has_a_row_for_each():
    rows = step.measure([(6, 5), (6,)], step.OPTIMIZERS, 3)
    assert set(rows) == set(step.OPTIMIZERS)
    assert rows["SGD fused"]["ratio"] == 1
    assert torch.tensor([row["ms"] for row in rows.values()]).gt(0).all()

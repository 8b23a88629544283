"""The table that a user pastes into a bug report: it passes here, and it can fail."""

import math

import pytest

from dslbi_torch import dessilbi, verify
from dslbi_torch.penalties import PENALTIES
from dslbi_torch.routes import pieces


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(verify, "N_STEPS", 25)


def test_every_row_agrees_and_every_case_is_there():
    rows = verify.verify()
    assert all(row.passed for row in rows)
    assert {row.device for row in rows} == set(verify.devices())
    assert {row.route for row in rows} >= {"loop", "foreach"}
    assert {row.dtype for row in rows} == {"float64", "float32"}
    assert {row.coupling for row in rows} == {"outside", "inside"}
    assert {row.penalty for row in rows} == {name for name, _ in verify.PENALTIES}
    assert {row.variant for row in rows} == {name for name, _ in verify.VARIANTS}
    assert any(0 < row.selected < 1 for row in rows)  # the thresholds are crossed on the way
    text = verify.table(rows)
    assert f"{len(rows)} of {len(rows)} rows agree" in text
    assert "FAILED" not in text


def test_a_wrong_update_is_found(monkeypatch):
    """W moved by one part in 10^8 too far: float64 sees it in every split row."""
    for module in (dessilbi, pieces):

        def wrong(*tensors, right=module.step_, **options):
            return right(*tensors, **{**options, "alpha": options["alpha"] * (1 + 1e-8)})

        monkeypatch.setattr(module, "step_", wrong)
    rows = verify.verify()
    split = [row for row in rows if row.dtype == "float64" and row.penalty != "none"]
    assert not any(row.passed for row in split if row.route in ("loop", "compiled"))
    words = {name: options["penalty"] for name, options in verify.PENALTIES if options["penalty"]}
    in_lists = {name for name, word in words.items() if "lists" in PENALTIES[word].routes}
    by_lists = [row for row in split if row.route == "foreach" and row.penalty in in_lists]
    assert by_lists
    assert all(row.passed for row in by_lists if "dampening" not in row.variant)
    assert "FAILED" in verify.table(rows)


def test_nan_fails():
    row = verify.Row("cpu", "loop", "float64", "l1", "outside", "plain", 0.5, math.nan, 1e-12)
    assert not row.passed

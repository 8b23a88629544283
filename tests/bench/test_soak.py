"""The soak: it trains until it is asked to stop, and its figures are those of its samples."""

import pytest

from benchmarks import soak


def test_a_soak_trains_evaluates_and_records_until_its_time_is_over(tmp_path):
    small = dict(train_size=200, image_size=28, model="one-conv")
    found = soak.soak(tmp_path / "run", 3.0, 0.5, **small)
    rows = found["seconds, MB"]
    assert len(rows) == 6 and [t for t, _ in rows] == sorted(t for t, _ in rows)
    assert all(100 < mb < 10_000 for _, mb in rows)
    assert found["epochs"] > 0 and found["steps"] >= 2 * found["epochs"]
    assert found["snapshots"] >= found["steps"] // 10 and found["gathered_MB"] >= 0


def test_a_run_that_ends_before_its_time_is_refused(tmp_path):
    with pytest.raises(ValueError, match="epochs must outlast 60 s, got 1"):
        soak.soak(tmp_path / "run", 60, 1, train_size=200, model="one-conv", epochs=1, ramp=0.5)


def test_growth_is_that_of_a_line_through_what_comes_after_a_sixth():
    rows = [(t, 500.0 if t < 10 else 700.0 + t / 3600) for t in range(1, 61)]
    found = soak.growth(rows)
    assert found["growth_MB_per_hour"] == pytest.approx(1, abs=0.01)
    assert found["level_MB"] == 700.0

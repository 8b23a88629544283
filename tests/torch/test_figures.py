"""The figures: what is behind the artists, and what is refused."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import vectors
from matplotlib.colors import to_hex

from dslbi_torch.figures import (
    GREY,
    accuracy_by_density,
    density_and_accuracy,
    entry_order,
    filter_norms,
    filters,
)

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    plt.close("all")


def log(epochs=3):
    rows = []
    for k in range(epochs):
        grown = 1 - 0.5**k
        rows.append(
            dict(epoch=k, acc_dense=0.9, acc_sparse=0.1 + 0.8 * grown, acc_gamma=0.1 + 0.7 * grown)
            | dict(nonzero_split=0.2 * grown, nonzero_all=0.3 * grown, loss=1.0)
        )
    return rows


def test_curves_are_the_log_in_percent():
    rows = log()
    top, bottom = density_and_accuracy(rows)
    keys = ["acc_dense", "acc_sparse", "acc_gamma"], ["nonzero_split", "nonzero_all"]
    for ax, names in zip((top, bottom), keys, strict=True):
        assert len(ax.lines) == len(names)
        for line, name in zip(ax.lines, names, strict=True):
            np.testing.assert_allclose(line.get_xdata(), [0, 1, 2])
            np.testing.assert_allclose(line.get_ydata(), [100 * row[name] for row in rows])
    labels = [text.get_text() for text in bottom.get_legend().get_texts()]
    assert labels == ["of the split tensors", "of all parameters"]
    assert len({line.get_linestyle() for line in top.lines}) == 3  # told apart without colour
    assert top.get_ylim() == pytest.approx((100 * rows[-1]["acc_gamma"] - 10, 92))
    assert bottom.get_ylim()[0] == 0


def test_curves_go_where_they_are_told():
    figure, axes = plt.subplots(2)
    assert density_and_accuracy(log(), axes=axes) == tuple(axes)
    assert plt.get_fignums() == [figure.number]


def nets():
    """Two seeds of two methods at two densities; the second method is not fine-tuned."""
    rows = []
    for seed in (0, 1):
        for D in (0.1, 0.01):
            row = {"seed": seed, "density": D, "without": 0.9 - 0.1 * seed - D}
            rows.append({"method": "one", "with": 0.95 + 0.01 * seed, **row})
            rows.append({"method": "other", **row})
    return rows


def test_accuracy_by_density_is_the_mean_of_the_seeds_in_percent():
    without, tuned = accuracy_by_density(nets())
    assert [line.get_label() for line in without.lines] == ["one", "other"]
    assert len({line.get_linestyle() for line in without.lines}) == 2  # told apart without colour
    for line in without.lines:
        np.testing.assert_allclose(line.get_xdata(), [1, 10])
        np.testing.assert_allclose(line.get_ydata(), [84, 75])
    assert [line.get_label() for line in tuned.lines] == ["one"]
    np.testing.assert_allclose(tuned.lines[0].get_ydata(), [95.5, 95.5])
    band = tuned.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((95, 96))


def test_entry_order():
    norms = [[0, 0, 0, 1], [0, 2, 0, 0], [0, 3, 1, 0]]
    assert entry_order(np.array(norms)).tolist() == [-1, 1, 2, 0]


NORMS = np.array([[0, 0, 0, 0.0], [0, 2, 0, 0], [0, 3, 1, 1]])


def curves(ax):
    """The lines by the last value of each."""
    return {float(line.get_ydata()[-1]): line for line in ax.lines}


def test_filters_that_enter_are_coloured_early_ones_dark():
    ax = filter_norms([0, 10, 20], NORMS)
    assert sorted(line.get_ydata().tolist() for line in ax.lines) == sorted(NORMS.T.tolist())
    for line in ax.lines:
        np.testing.assert_allclose(line.get_xdata(), [0, 10, 20])
    assert to_hex(curves(ax)[0].get_color()) == to_hex(GREY)
    luminance = {
        key: np.dot(line.get_color()[:3], [0.2, 0.7, 0.1])
        for key, line in curves(ax).items()
        if key
    }
    assert luminance[3] < luminance[1]
    last = [to_hex(line.get_color()) for line in ax.lines if line.get_ydata()[-1] == 1]
    assert len(last) == 2 and last[0] == last[1]  # entered together
    assert ax.get_title().startswith("3 of 4 filters")


def test_entry_can_be_told():
    ax = filter_norms([0, 1, 2], NORMS + 5, entry=np.array([-1, 7, -1, -1]))
    grey = [line for line in ax.lines if to_hex(line.get_color()) == to_hex(GREY)]
    assert len(grey) == 3 and ax.get_title().startswith("1 of 4")


def test_nothing_or_everything_selected():
    assert len(filter_norms([0], np.zeros((1, 2))).lines) == 2
    assert filter_norms([0], np.ones((1, 2))).get_title().startswith("2 of 2")


def sheet(ax):
    return ax.images[0].get_array()


def test_each_filter_has_its_tile():
    weight = vectors.array((3, 1, 2, 4))
    ax = filters(weight, columns=2, selected=np.array([True, False, True]))
    picture = sheet(ax)
    assert picture.shape == (7, 11)
    np.testing.assert_array_equal(picture[1:3, 1:5], weight[0, 0])
    np.testing.assert_array_equal(picture[1:3, 6:10], weight[1, 0])
    np.testing.assert_array_equal(picture[4:6, 1:5], weight[2, 0])
    assert np.ma.count(np.ma.masked_invalid(picture)) == weight.size
    limit = np.abs(weight).max()
    assert ax.images[0].get_clim() == (-limit, limit)
    frames = [(box.get_xy(), box.get_linewidth() > 1) for box in ax.patches]
    assert frames == [((0.5, 0.5), True), ((5.5, 0.5), False), ((0.5, 3.5), True)]
    assert [(box.get_width(), box.get_height()) for box in ax.patches] == [(4, 2)] * 3


def test_three_channels_are_colours():
    weight = vectors.array((2, 3, 2, 2))
    picture = sheet(filters(weight, columns=2, scale=2.0))
    expected = np.clip(0.5 + np.moveaxis(weight[1], 0, -1) / 4, 0, 1)
    np.testing.assert_allclose(picture[1:3, 4:6], expected)
    np.testing.assert_array_equal(picture[0], 1.0)


def test_many_channels_lie_side_by_side():
    weight = vectors.array((1, 5, 2, 3))
    tile = sheet(filters(weight))[1:-1, 1:-1]
    assert tile.shape == (4, 9)
    np.testing.assert_array_equal(tile[:2, 3:6], weight[0, 1])
    np.testing.assert_array_equal(tile[2:, :3], weight[0, 3])
    np.testing.assert_array_equal(tile[2:, 6:], 0)


def test_a_bank_of_zeros_is_white():
    ax = filters(np.zeros((4, 1, 3, 3)))
    assert ax.images[0].get_clim() == (-1, 1) and sheet(ax).shape == (9, 9)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: density_and_accuracy([]), "at least one epoch"),
        (lambda: density_and_accuracy([{"epoch": 0}]), "a line of the log must have"),
        (lambda: accuracy_by_density([]), "at least one net"),
        (lambda: accuracy_by_density([{"method": "one", "density": 0}]), r"in \(0, 1\], got"),
        (lambda: filter_norms([0, 1], np.ones((3, 2))), r"\(len\(steps\), filters\), got \(3, 2\)"),
        (lambda: filter_norms([], np.ones((0, 2))), "norms must be of shape"),
        (lambda: filter_norms([0], np.ones((1, 2)), entry=[1]), "one per filter, 2"),
        (lambda: filters(np.ones((2, 3, 3))), r"\(n, channels, h, w\), got \(2, 3, 3\)"),
        (lambda: filters(np.ones((0, 1, 3, 3))), "weight must be of shape"),
        (lambda: filters(np.ones((2, 1, 3, 3)), selected=[0, 1]), "2 truth values, got int64"),
        (lambda: filters(np.ones((2, 1, 3, 3)), columns=0), "at least 1, got 0"),
        (lambda: filters(np.ones((2, 1, 3, 3)), scale=-1.0), "positive and finite, got -1.0"),
    ],
)
def test_refusals(call, says):
    with pytest.raises(ValueError, match=says):
        call()

"""The figures that RESULTS and the book quote are those of the recorded files in benchmarks/."""

import pytest
from quoted_records import quoted, record

from benchmarks import filters
from benchmarks.intervals import half_width

RESULTS, REPRODUCING, LOOP = "book/results.md", "book/reproducing.md", "book/your_loop.md"


def mean(values):
    return sum(values) / len(values)


def percent(share, digits=2):
    return f"{100 * share + 1e-9:.{digits}f}"  # 0.015 becomes 0.02, whatever its last bit


def ticket_errors(part, method, dataset="mnist"):
    return [
        1 - row["accuracy"]
        for row in record("tickets")[part]["rows"]
        if (row["method"], row["dataset"]) == (method, dataset)
    ]


def with_interval(values, digits=2):
    """Mean of shares and half the width of its interval of 95 % (Student's t), in percent; of one
    value, that."""
    if len(values) == 1:
        return percent(values[0], digits)
    return f"{percent(mean(values), digits)} ± {percent(half_width(values), digits)}"


@pytest.mark.parametrize(
    "recipe", ["mnist-lenet5", "mnist-lenet5-filters", "mnist-lenet5-official"]
)
def test_the_table_of_lenet5_is_the_recorded_one(recipe):
    runs = record("mnist")[recipe]["runs"]
    shown = {"acc_dense": 2, "acc_sparse": 2, "nonzero_all": 1}
    cells = [with_interval([run[key] for run in runs], digits) for key, digits in shown.items()]
    row = quoted(RESULTS).split(f"| `{recipe}` |")[1].split(" | `")[0]
    assert f"| {' | '.join(cells)} |" in row


@pytest.mark.parametrize(("recipe", "line"), [
    ("mnist-lenet5", "LeNet-5, single weights"),
    ("mnist-lenet5-filters", "LeNet-5, filters, and weights of the linear layers"),
])  # fmt: skip
def test_the_table_of_the_front_page_is_the_recorded_one(recipe, line):
    runs = record("mnist")[recipe]["runs"]
    shown = {"acc_dense": 2, "acc_sparse": 2, "nonzero_all": 1}
    cells = [with_interval([run[key] for run in runs], digits) for key, digits in shown.items()]
    assert f"| {line} | {' | '.join(cells)} |" in quoted("README.md")


@pytest.mark.parametrize("page", [RESULTS, REPRODUCING])
def test_the_errors_of_tickets_are_the_recorded_ones(page):
    text = quoted(page)
    assert f"{with_interval(ticket_errors('filters', 'ticket'))} %" in text
    assert with_interval(ticket_errors("weights", "ticket")) in text
    if page == RESULTS:
        assert f"{with_interval(ticket_errors('weights', 'tuned'))} % from those" in text


COMPARED = {
    RESULTS: (
        ("ticket", "ticket {} % right"),
        ("gradual", "gradual pruning {} %"),
        ("magnitude", "one-shot magnitude pruning {} % (in 40)"),
        ("iterative", "iterative {} % (in 80 epochs)"),
        ("soft", "soft pruning {} %"),
        ("reinit", "from other initial weights {} %"),
        ("random", "random masks {} %"),
    ),
    REPRODUCING: (
        ("ticket", "ticket {} %"),
        ("gradual", "gradual {} %"),
        ("magnitude", "magnitude (40 epochs) {} %"),
        ("iterative", "iterative (80) {} %"),
        ("random", "random {} % right"),
    ),
}


@pytest.mark.parametrize(
    ("page", "method", "words"), [(page, *row) for page, rows in COMPARED.items() for row in rows]
)
def test_the_other_ways_to_small_nets_are_the_recorded_ones(page, method, words):
    right = 1 - mean(ticket_errors("weights-compared", method))
    assert words.format(percent(right)) in quoted(page)


def test_filters_are_as_close_together_as_the_page_says():
    methods = {row["method"] for row in record("tickets")["filters-compared"]["rows"]}
    assert len(methods) == 10
    errors = [
        mean(ticket_errors("filters-compared", method)) for method in methods - {"dense", "soft"}
    ]
    assert max(errors) - min(errors) < 1e-3
    assert "all but soft pruning lie within 0.1 points" in quoted(RESULTS)


@pytest.mark.parametrize("page", [RESULTS, REPRODUCING])
def test_the_grown_net_is_the_recorded_one(page):
    runs = record("growing")["runs"]
    parameters = {run["rounds"][-1]["parameters"] for run in runs}
    assert len(parameters) == 1 and f"{parameters.pop():,} parameters" in quoted(page)
    assert f"{with_interval([run['last']['accuracy'] for run in runs])} %" in quoted(page)


@pytest.mark.parametrize("page", [RESULTS, REPRODUCING])
def test_resnet20_in_25_epochs_is_the_recorded_one(page):
    (run,) = record("cifar10_resnet20_short")["runs"]
    dense, sparse = (percent(run["log"][-1][f"acc_{key}"]) for key in ("dense", "sparse"))
    assert f"dense {dense} %, sparse {sparse} % at half of the weights" in quoted(page)


def test_the_batch_times_of_smaller_nets_are_the_recorded_ones():
    result = record("compaction")["result"]
    assert {row["differing"] for row in result.values()} == {0}

    def ratio(net, kind=""):
        ms = result[net]["ms"]
        return f"{ms[f'compact{kind}'] / ms['dense']:.2f}"

    folded = ", folded"
    for words in (
        f"{ratio('caffe-lenet5')} of the dense net's time (LeNet-5 of Caffe), "
        f"{ratio('vgg16-bn')} (VGG-16) and {ratio('resnet56 inside')} (ResNet-56, cut inside its "
        f"blocks; {ratio('resnet56')} with its streams cut too)",
        f"{ratio('vgg16-bn', folded)} and {ratio('resnet56 inside', folded)} "
        f"({ratio('resnet56', folded)}) once BatchNorm is folded",
    ):
        assert words in quoted(LOOP)


def test_the_step_costs_are_the_recorded_ones():
    nets = [record("step")["result"][net] for net in ("ResNet-18", "ResNet-50", "LeNet-5")]
    own = [f"{net['DessiLBI']['ratio']:.1f}" for net in nets]
    assert own[0] == own[1]
    assert f"A step costs {own[0]} times that" in quoted(RESULTS)
    assert f"{own[2]} times on those of LeNet-5" in quoted(RESULTS)
    half = [net["DessiLBI, half selected"]["ratio"] for net in nets]
    assert f"{min(half):.1f} to {max(half):.1f} times once half" in quoted(RESULTS)
    around = [
        {f"{net[f'Split, {base}']['ms'] / net[base]['ms']:.1f}" for net in nets[:2]}
        for base in ("SGD fused", "AdamW fused")
    ]
    sgd, adamw = (share for (share,) in around)
    assert f"{sgd} times its base around SGD and {adamw} times around AdamW" in quoted(RESULTS)


def of_row(part, name):
    """The runs of a row of ``rows.py``."""
    return [run for run in record(part)["runs"] if run["name"] == name]


def lasts(runs, key):
    return [run["log"][-1][key] for run in runs]


def test_the_layers_of_lenet300_are_the_recorded_ones():
    runs = of_row("table8", "dessilbi")
    assert [run["seed"] for run in runs] == [0, 1, 2]
    shares = [[run["layers"][f"fc{k}.weight"] for run in runs] for k in (1, 2, 3)]
    for first, second, third in zip(*shares, strict=True):
        assert first < second < third  # larger layers get sparser, whatever the seed
    cells = [f"`fc{k}` {with_interval(own, 1)} %" for k, own in enumerate(shares, start=1)]
    dense, sparse = (with_interval(lasts(runs, f"acc_{key}")) for key in ("dense", "sparse"))
    words = f"{', '.join(cells)}; dense {dense} %, sparse {sparse} %"
    assert words in quoted(REPRODUCING)


NETS_OF_FILTERS = {"lenet5": "LeNet-5", "small-net": "small-net, BatchNorm"}


@pytest.mark.parametrize("net", record("filters"))
def test_the_filters_that_enter_first_are_the_recorded_ones(net):
    content = record("filters")[net]
    found = filters.compared(content["rows"])
    assert found == content["summary"]
    assert {row["seed"] for row in content["rows"]} == {10, 11, 12, 13, 14}
    for cell in found:
        shown = [f"{cell[by]['mean']:.2f} ± {cell[by]['sd']:.2f}" for by in filters.ORDERS]
        for by in filters.ORDERS[1:]:
            gap = cell[by]["entry_above"]
            shown.append(f"{gap['difference']:+.2f} ({gap['low']:+.2f} to {gap['high']:+.2f})")
        again = {"with": "2 epochs", "without": "no"}[cell["tuning"]]
        row = [NETS_OF_FILTERS[net], f"{100 * cell['density']:g}", again, *shown]
        assert f"| {' | '.join(row)} |" in quoted(REPRODUCING)


def test_what_is_said_of_lenet5s_filters_is_what_its_intervals_say():
    cells = record("filters")["lenet5"]["summary"]
    gaps = {
        (by, 100 * cell["density"]): cell[by]["entry_above"]
        for cell in cells
        for by in filters.ORDERS[1:]
        if cell["tuning"] == "without"
    }
    apart = {key for key, gap in gaps.items() if gap["low"] > 0 or gap["high"] < 0}
    assert apart == {("magnitude", 30), ("magnitude", 10)} | {
        ("random", density) for density in (50, 30, 20, 10)
    }
    assert all(gaps[key]["difference"] > 0 for key in apart if key[0] == "random")
    below = [-gaps["magnitude", density]["difference"] for density in (30, 10)]
    words = (
        "Magnitude is above entry at 30 and at 10 % without more training, by {:.2f} and by {:.2f}"
    )
    assert words.format(*below) in quoted(REPRODUCING)
    (again,) = (cell for cell in cells if cell["tuning"] == "with")
    assert all(
        again[by]["entry_above"]["low"] < 0 < again[by]["entry_above"]["high"]
        for by in ("gamma", "magnitude")
    )

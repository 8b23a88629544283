"""The widgets: their JavaScript says what the reference says, and what is on the page at first."""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from importlib.resources import files
from itertools import islice
from urllib.parse import unquote

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dslbi_ref import (
    dessilbi_states,
    iss_path,
    mirror_descent_states,
    record,
    soft_threshold,
    split_iss_path,
)
from dslbi_ref.figures.widget import WIDGETS, source, widget
from dslbi_ref.mirror_maps import elastic_net, hypentropy
from dslbi_ref.solvers.reduced import split_reduced_states
from dslbi_ref.transforms import differences

FOLDER = files("dslbi_ref.figures") / "widgets"
LIMIT = 50_000  # bytes of one widget


def run(name, expression):
    """Return the value of an expression among the scripts of a widget."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("the scripts of the widgets are run by node, and there is none")
    # JSON has no infinity
    text = f"JSON.stringify({expression}, (_, v) => v === Infinity ? 'inf' : v)"
    script = source(name, f"process.stdout.write({text});")
    done = subprocess.run([node, "-e", script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def numbers(values):
    return np.array([float(x) for x in values])


def reference(*, start, want, kappa, nu, lam, alpha, steps, rest=0):
    states = dessilbi_states(
        {"w": np.array(start, float)},
        lambda W: {"w": W["w"] - np.array(want, float)},
        penalties={"w": "l1"},
        **dict(alpha=alpha, kappa=kappa, nu=nu, lam=lam, momentum=0.0, release=rest),
    )
    return record(states, steps + rest)


@pytest.mark.parametrize("name", WIDGETS)
def test_the_page_has_a_picture_and_asks_nothing_from_elsewhere(name):
    page = widget(name)
    assert page == widget(name)._repr_html_() and repr(page) == "<widget>"
    assert len(page.encode()) < LIMIT
    shown = re.fullmatch(
        rf'<dslbi-{name}><img width="640" alt="([^"]+)" '
        rf'src="data:image/svg\+xml,([^"]+)"></dslbi-{name}>'
        r"\n<script>\n\(\(\) => \{\n\"use strict\";.*\}\)\(\)\n</script>",
        page,
        re.DOTALL,
    )
    assert len(shown[1]) > 80
    assert ElementTree.fromstring(unquote(shown[2])).tag.endswith("svg")
    assert set(re.findall(r"https?://[^\"%]*", unquote(page))) == {"http://www.w3.org/2000/svg"}
    assert " id=" not in page and page.count("</script>") == 1


@pytest.mark.parametrize("name", WIDGETS)
def test_the_picture_is_what_the_script_draws_at_first(name):
    drawn = run(name, f"scene({name}, {{}}).svg")
    assert drawn + "\n" == (FOLDER / f"{name}.svg").read_text("utf-8")


@pytest.mark.parametrize("name", WIDGETS)
def test_impossible_values_stop_at_their_bounds(name):
    inputs = run(name, f"{name}.inputs")
    for wild, bound in (("-1e9", "min"), ("1e9", "max"), ("Infinity", "max"), ("NaN", "value")):
        asked = "{" + ", ".join(f"{one['name']}: {wild}" for one in inputs) + "}"
        got = run(name, f"bounded({name}.inputs, {asked})")
        assert got == {one["name"]: one[bound] for one in inputs}
        # at the corners of its box a widget still draws, of finite numbers
        drawn = run(name, f"scene({name}, {asked})")
        assert not re.search("NaN|Infinity|undefined", drawn["svg"] + drawn["words"])
        ElementTree.fromstring(drawn["svg"])


def test_no_widget_can_be_asked_for_what_the_method_refuses():
    for name in WIDGETS:
        for one in run(name, f"{name}.inputs"):
            assert one["min"] <= one["value"] <= one["max"]
            if one["name"] in ("kappa", "nu", "lam", "s"):
                assert one["min"] > 0


def test_another_name_is_refused():
    with pytest.raises(ValueError, match="^name must be one of machine, .*, got 'engine'$"):
        widget("engine")


@pytest.mark.parametrize(
    ("nu", "lam", "kappa", "start"), [(1, 1, 10, 0), (0.2, 0.5, 20, 2), (4, 2, 0.5, 0.7)]
)
def test_the_machine_makes_the_steps_of_the_reference(nu, lam, kappa, start):
    own = f"{{nu: {nu}, lam: {lam}, kappa: {kappa}, start: {start}}}"
    alpha, paths = run("machine", f"[stepSize({kappa}, {nu}), machine.solve({own})]")
    assert 0 < alpha <= 1 / (kappa * (1 + 2 / nu))  # half of what is safe, or less
    steps = len(paths[0]["t"]) - 1
    want = run("machine", "WANTED")
    path = reference(
        start=[start] * 3, want=want, kappa=kappa, nu=nu, lam=lam, alpha=alpha, steps=steps
    )
    assert_allclose(paths[0]["t"], path.t, rtol=1e-12)
    for j, mine in enumerate(paths):
        for letter, theirs in (("W", path.W), ("V", path.V), ("Gamma", path.Gamma)):
            assert_allclose(mine[letter], theirs["w"][:, j], rtol=1e-12, atol=1e-12)


def test_what_the_machine_says_first_is_the_theory():
    """Entry at lam (nu + 1) / w, plus the moment in which a weight grows."""
    paths = run("machine", "machine.solve(bounded(machine.inputs, {}))")
    entry = [path["t"][np.flatnonzero(path["Gamma"])[0]] for path in paths]
    assert_allclose(entry, [1, 2, 8], atol=0.15)
    said = run("machine", "scene(machine, {time: 12}).words")
    assert said.startswith("Entered so far: 3 of 3.") and "wanted at 0.25 enters at 8.1" in said
    assert "never does" in run("machine", "scene(machine, {lam: 2}).words")


@pytest.mark.parametrize(("kappa", "s"), [(4, 0.05), (0.3, 3), (15, 0.002)])
def test_balls_touch_the_line_where_mirror_descent_ends(kappa, s):
    a, origin = np.array([1.0, 2.0]), np.zeros(2)
    solved = run("ball", f"ball.solve({{kappa: {kappa}, s: {s}}})")
    for m, alpha, one in zip(
        (elastic_net(kappa), hypentropy(s)), (0.05 / kappa, 0.02), solved, strict=True
    ):
        states = mirror_descent_states(lambda x: a * (a @ x - 2), m, origin, alpha=alpha)
        assert_allclose(record(states, 6000).x[-1], one["end"], atol=1e-6)
        radius = m.divergence(np.array(one["end"]), origin)
        points = np.array(one["points"])
        assert_allclose([m.divergence(x, origin) for x in points], radius, rtol=1e-9)
        assert (points @ a).max() <= 2 + 1e-9  # the ball only touches the line


def test_the_corner_of_the_elastic_net_holds_from_speed_one_on():
    ends = run("ball", "[0.9, 1, 4].map(kappa => ball.solve({kappa, s: 1})[0].end[0])")
    assert ends[0] > 0.01 and ends[1:] == [0, 0]


@pytest.mark.parametrize("c", [(2, -1.25, 0.8, 0.3), (-0.5, 0.5, 1.9, 0)])
def test_entries_are_those_of_the_exact_path(c):
    n = 20
    X = np.linalg.qr(np.random.default_rng(0).standard_normal((n, 4)))[0] * n**0.5
    path = iss_path(X, X @ np.array(c, float), t_max=50)
    own = "{" + ", ".join(f"c{j + 1}: {x}" for j, x in enumerate(c)) + "}"
    assert_allclose(numbers(run("entries", f"entries.solve({own}).entry")), path.entry_times())
    for t in (0.1, 0.7, 1.3, 4.9):
        parts = run(
            "entries", f"(s => [s.rho({t}), s.gamma({t}), s.lasso({t})])(entries.solve({own}))"
        )
        state = path.at(t)
        for mine, theirs in zip(
            parts, (state.z, state.gamma, soft_threshold(np.array(c, float), 1 / t)), strict=True
        ):
            assert_allclose(mine, theirs, atol=1e-12)


@pytest.mark.parametrize(("kappa", "rest"), [(0.02, 0), (0.02, 60), (1, 0)])
def test_births_enter_as_in_the_reference(kappa, rest):
    born, asked, alpha = run("births", f"[BORN, ASKED, stepSize({kappa}, LEASH)]")
    solved = run("births", f"births.solve({{kappa: {kappa}, rest: {rest}}})")
    path = reference(
        start=born,
        want=asked,
        **dict(kappa=kappa, nu=10, lam=1, alpha=alpha, steps=round(60 / alpha)),
        rest=round(rest / alpha),
    )
    on = path.Gamma["w"] != 0
    entry = np.where(on.any(axis=0), path.t[on.argmax(axis=0)], np.inf)
    assert np.isfinite(entry).all()
    assert_allclose(numbers(solved["times"]), entry, rtol=1e-9)


def test_birth_decides_without_a_rest_and_the_loss_after_one():
    from scipy.stats import spearmanr

    born, asked = run("births", "[BORN, ASKED]")
    before, after = run("births", "[0, 200].map(rest => births.solve({kappa: 0.02, rest}))")
    assert before["birth"] > 0.99 and abs(before["asked"]) < 0.1
    assert after["asked"] > 0.99 and abs(after["birth"]) < 0.1
    for one in (before, after):
        late = -numbers(one["times"])
        assert_allclose(one["birth"], spearmanr(late, born)[0], atol=1e-12)
        assert_allclose(one["asked"], spearmanr(late, asked)[0], atol=1e-12)
    fast = run("births", "births.solve({kappa: 1, rest: 0})")
    assert fast["asked"] > 0.99 and abs(fast["birth"]) < 0.1
    ties = run("births", "rankCorrelation([1, 1, 2, 3], [4, 2, 2, 9])")
    assert_allclose(ties, spearmanr([1, 1, 2, 3], [4, 2, 2, 9])[0], atol=1e-12)


def test_a_ring_stands_where_its_correlation_is_dragged_to():
    drawn = run("entries", "scene(entries, {c1: 1.3, c2: -2, c3: 0, c4: 0.45}).svg")
    rings = re.findall(r'cy="([\d.]+)"[^>]*data-drag="(c\d)"', drawn)
    assert [name for _, name in rings] == ["c1", "c2", "c3", "c4"]
    back = run("entries", f"[{', '.join(y for y, _ in rings)}].map(y => entries.drag(0, y))")
    assert_allclose(back, [1.3, -2, 0, 0.45], atol=2e-3)


def design():
    """X, beta, noise and D of the widget on selection, from its own numbers."""
    X, beta, noise = (np.array(a) for a in run("selection", "[DESIGN, BETA, NOISE]"))
    return X, beta, noise, np.vstack([differences(20).toarray(), np.eye(20)])


@pytest.mark.parametrize(("nu", "sigma"), [(0.02, 0), (3, 1), (1000, 2)])
def test_rows_are_selected_as_by_the_reduced_iteration(nu, sigma):
    X, beta, noise, D = design()
    solved = run("selection", f"select({nu}, {sigma})")
    first, alpha = solved["first"], solved["alpha"]
    assert alpha <= nu / 30  # half of the bound, or less
    states = split_reduced_states(X, X @ beta + sigma * noise, D, nu=nu, kappa=30.0, alpha=alpha)
    states = list(islice(states, 1, solved["steps"] + 2))
    assert_allclose(states[0].t, first, rtol=1e-9)
    assert_allclose(solved["z"], states[-1].z, atol=1e-6)
    assert_allclose(solved["gamma"], states[-1].gamma, atol=1e-5)
    on = np.array([state.gamma != 0 for state in states])
    time = np.array([state.t for state in states]) / first
    for row, spans in enumerate(solved["spans"]):
        came = np.flatnonzero(np.diff(on[:, row].astype(int)) == 1) + 1
        went = np.flatnonzero(np.diff(on[:, row].astype(int)) == -1) + 1
        assert_allclose([span[0] for span in spans], time[came], rtol=1e-9)
        assert_allclose([span[1] for span in spans if span[1] != "inf"], time[went], rtol=1e-9)


def test_the_selection_says_what_the_chapter_says():
    """Perfect data: false rows come first by a stiff spring, none by a looser one."""
    X, beta, _, D = design()
    true = D @ beta != 0
    assert run("selection", "TRUE") == true.tolist() and true.sum() == 12
    for nu, early in ((0.02, 5), (3, 0)):
        entry = split_iss_path(X, X @ beta, D, nu=nu).entry_times()
        assert (entry[~true] < entry[true].max()).sum() == early
        said = run("selection", f"scene(selection, {{nu: {nu}, noise: 0}}).words")
        assert f"In this run {early} false rows enter before the last true one" in said
    said = run("selection", "scene(selection, {}).words")
    assert said.startswith("Selected now: 12 of 12 true rows, 0 of 27 false ones.")
    late = run("selection", "scene(selection, {nu: 1000, noise: 2}).words")
    assert "not every true row enters" in late


def test_nothing_of_a_selection_is_shown_before_its_time():
    early = run("selection", "scene(selection, {time: 0.5}).svg")
    assert 'stroke-width="3.4"' not in early
    drawn = run("selection", "scene(selection, {time: 2}).svg").count('stroke-width="3.4"')
    assert drawn == run("selection", "select(3, 1).spans.flat().filter(([t]) => t <= 2).length") > 5

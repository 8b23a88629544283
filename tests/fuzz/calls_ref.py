"""A valid call of every public function of the reference; what is not called by name says why."""

import matplotlib.pyplot as plt
import numpy as np
import vectors
from fuzz.calls_ref_paths import CALLS as PATHS
from fuzz.calls_ref_paths import CLASSES, PATH, SIGNS, W, X, given, rng, states_of
from fuzz.calls_ref_selection import CALLS as SELECTION
from fuzz.calls_ref_selection import INNER_NAMES as INNER_OF_SELECTION
from fuzz.mutate import Call

from dslbi_ref import (
    dessilbi,
    losses,
    mirror_descent,
    mirror_maps,
    nets,
    nets_layers,
    path,
    penalties,
    release,
    shrinkage,
)
from dslbi_ref.figures import paths, slider, widget

# Modules of what their callers have checked, or that check (exercises: any answer is judged).
INNER = """checks design problem weighting fitting units solvers.active_newton
    solvers.active_set solvers.gradients solvers.linear_system solvers.start solvers.packed
    solvers.gram solvers.blocks exercises""".split()
# Parts of one algorithm in a file that begins with its checks; what a forward layer returned.
INNER_NAMES = INNER_OF_SELECTION | {
    *(f"nets_layers.{name}_back" for name in ("linear", "conv2d", "max_pool", "relu", "softplus")),
    "nets_layers.cross_entropy_back",
    "nets_layers.require",
    "losses.check_numbers",
    "optional.brought_by",
    "path.follow",
    *(f"shrinkage.{name}" for name in ("shrink", "crossing", "positive_part", "with_factors")),
    "penalties.factor",
    "split_lbi.first_split_jump",
    "split_lbi.split_path",
    "iss.collect",
    "iss.events",
    "release.check_release",
    "estimators.chosen_time",
    "estimators.PathEstimator",
    "figures.slider.Slider",
    "figures.widget.Widget",
    "figures.widget.source",
}

# ---- Checks of results -----------------------------------------------------------------------


def is_prox(shrunk, g):
    """Optimality of ``|x - v|^2 / 2 + lam |x|_1``."""
    v = np.asarray(g["v"], dtype=float)
    dual, on = v - shrunk, shrunk != 0
    scale = 1e-9 * max(float(g["lam"]), np.abs(v).max(initial=0.0))
    assert (np.abs(dual) <= float(g["lam"]) + scale).all()
    assert (np.abs(dual - float(g["lam"]) * np.sign(shrunk))[on] <= scale).all()


def is_group_prox(shrunk, g):
    """No group is longer than before, and by no more than lam shorter."""
    v = np.asarray(g["v"], dtype=float)
    gap = np.sqrt(((v - shrunk) ** 2).sum())
    most = float(g["lam"]) * max(v.size, 1)
    assert gap <= most * (1 + 1e-9) + 1e-9 * np.abs(v).max(initial=0.0)


# ---- The table -------------------------------------------------------------------------------

MIRROR = dict(grad=lambda x: x, mirror_map=mirror_maps.euclidean(), x0=np.ones(3), z0=None)
NET = dict(penalties={"a": "group", "b": "l1"}, alpha=0.1, kappa=1.0, nu=10.0, lam=0.1)
NET |= dict(group_dim=0, block=1, parts=1, joint=(), weight=None, release=0, pull=0.0, power=0.0)
NET |= dict(dense=False, momentum=0.9, dampening=0.0, weight_decay=0.0, decoupled=False)
NET |= dict(nesterov=False, coupling="outside", W=W, grad=lambda W: W)
STEP = dict(W=W["a"], V=W["a"], Gamma=0 * W["a"], m=None, grad=W["a"], alpha=0.1, kappa=1.0)
STEP |= dict(nu=100.0, momentum=0.9, dampening=0.0, weight_decay=0.0, decoupled=False)
STEP |= dict(nesterov=False, coupling="outside")
UNITS = dict(group_dim=0, groups=None)
CONV = dict(X=vectors.array((2, 3, 5, 5)), W=vectors.array((4, 3, 2, 2)), b=np.zeros(4))
MLP = nets.mlp_init((4, 3, 2), rng(0))
LENET = nets.lenet5_init(rng(0))
PICTURES = vectors.array((1, 1, 28, 28))
NETS = ("W", "b", "logits")  # what a layer is given
FRAME = "<svg></svg>"


def map_parts(make):
    def function(x, y, **options):
        phi = make(**options)
        z = phi.grad(y)
        return phi.value(x), phi.grad(x), phi.inverse(z), phi.conjugate(z), phi.divergence(x, y)

    return function


def loss_parts(word):
    row = losses.loss_named(word)
    eta = 0.5 * np.ones((10, *row.columns(CLASSES)))
    return row.value(eta, CLASSES if eta.ndim == 2 else SIGNS)


def drawn(path, **given):
    ax = paths.draw(path, **given)
    plt.close(ax.figure)


POINTS = dict(x=np.array([0.2, 0.3, 0.5]), y=np.array([0.5, 0.25, 0.25]))
CALLS = {
    **PATHS,
    **SELECTION,
    # penalties
    "penalties.l1_norm": Call(penalties.l1_norm, given(x=X, lam=1.0)),
    "penalties.soft_threshold": Call(penalties.soft_threshold, given(v=X, lam=0.5), is_prox),
    "penalties.l1_dual_norm": Call(penalties.l1_dual_norm, given(x=X)),
    "penalties.group_norms": Call(penalties.group_norms, given(x=X, **UNITS)),
    "penalties.group_norm": Call(penalties.group_norm, given(x=X, lam=1.0, weight=None, **UNITS)),
    "penalties.group_soft_threshold": Call(
        penalties.group_soft_threshold, given(v=X, lam=0.5, weight=None, **UNITS), is_group_prox
    ),
    "penalties.group_dual_norm": Call(
        penalties.group_dual_norm, given(x=X, weight="sqrt", **UNITS)
    ),
    "penalties.penalty_named": Call(
        lambda word: penalties.penalty_named(word).value, given(word="l1"), says=("penalty",)
    ),
    "shrinkage.penalty_of_labels": Call(
        lambda groups: shrinkage.penalty_of_labels(groups)[0].prox(
            [X], 1.0, shrinkage.penalty_of_labels(groups)[1]
        ),
        given(groups=np.arange(10) % 3),
    ),
    "losses.loss_named": Call(loss_parts, given(word="squared"), says=("loss",)),
    "losses.curved_loss": Call(
        lambda word: losses.curved_loss(word).lipschitz, given(word="squared"), says=("loss",)
    ),
    # mirror descent
    "mirror_descent.mirror_descent_states": Call(
        states_of(mirror_descent.mirror_descent_states), given(alpha=0.1, **MIRROR), says=("x",)
    ),
    "mirror_descent.dual_averaging_states": Call(
        states_of(mirror_descent.dual_averaging_states), given(alpha=0.1, **MIRROR), says=("x",)
    ),
    "mirror_descent.mirror_flow": Call(
        mirror_descent.mirror_flow,
        given(times=np.array([0.5, 1.0]), rtol=1e-6, atol=1e-8, **MIRROR),
    ),
    **{
        f"mirror_maps.{name}": Call(
            map_parts(getattr(mirror_maps, name)), given(**POINTS, **own), says=("z",)
        )
        for name, own in {
            "euclidean": {},
            "simplex_entropy": {},
            "orthant_entropy": {},
            "log_barrier": {},
            "p_norm": dict(p=1.5),
            "hypentropy": dict(scale=0.5),
            "elastic_net": dict(kappa=2.0, lam=0.1, groups=np.array([0, 0, 1])),
        }.items()
    },
    # nets
    "dessilbi.gamma": Call(
        dessilbi.gamma,
        given(
            Vs=[X], kappa=1.0, lam=0.5, penalty="group", group_dim=0, block=1, parts=1, weight=None
        ),
        says=("family",),
    ),
    "dessilbi.step": Call(dessilbi.step, given(**STEP)),
    "dessilbi.dessilbi_states": Call(
        lambda **given: path.record(dessilbi.dessilbi_states(**given), 3)[:4],
        given(**NET),
        says=("penalty", "family"),
    ),
    "release.scaled_levels": Call(
        release.scaled_levels, given(W=W, families=[["a"], ["b"]], lam=1.0, power=1.0)
    ),
    "release.dense_start": Call(
        release.dense_start,
        given(Ws=[X], kappa=1.0, lam=1.0, penalty="group", group_dim=0, block=1, weight="sqrt"),
        says=("family",),
    ),
    "nets.layer_init": Call(
        lambda seed, **given: nets.layer_init(rng=rng(0), **given),
        given(seed=0, shape=(3, 4), init="torch"),
    ),
    "nets.mlp_init": Call(nets.mlp_init, lambda: dict(sizes=(4, 3, 2), rng=rng(0), init="he")),
    "nets.mlp_logits": Call(nets.mlp_logits, given(params=MLP, X=X, activation="relu"), says=NETS),
    "nets.mlp_loss_grad": Call(
        nets.mlp_loss_grad, given(params=MLP, X=X, y=CLASSES % 2, activation="softplus"), says=NETS
    ),
    "nets.lenet5_init": Call(nets.lenet5_init, lambda: dict(rng=rng(0), init="torch")),
    "nets.lenet5_logits": Call(
        nets.lenet5_logits, given(params=LENET, X=PICTURES, activation="relu"), says=NETS
    ),
    "nets.lenet5_loss_grad": Call(
        nets.lenet5_loss_grad,
        given(params=LENET, X=PICTURES, y=np.array([3]), activation="relu"),
        says=NETS,
    ),
    "nets_layers.linear": Call(nets_layers.linear, given(X=X, W=np.ones((3, 4)), b=np.ones(3))),
    "nets_layers.conv2d": Call(nets_layers.conv2d, given(padding=1, **CONV)),
    "nets_layers.max_pool": Call(
        nets_layers.max_pool, given(X=vectors.array((2, 1, 4, 4)), size=2)
    ),
    "nets_layers.relu": Call(nets_layers.relu, given(X=X)),
    "nets_layers.softplus": Call(nets_layers.softplus, given(X=X)),
    "nets_layers.activation_pair": Call(
        lambda name: nets_layers.activation_pair(name)[0](X),
        given(name="relu"),
        says=("activation",),
    ),
    "nets_layers.cross_entropy": Call(nets_layers.cross_entropy, given(logits=X[:, :3], y=CLASSES)),
    # figures
    "figures.paths.draw": Call(
        drawn, given(path=PATH, ax=None, truth=np.array([1, 1, 0, 0]), names=list("abcd"))
    ),
    "figures.slider.slider": Call(
        slider.slider,
        given(frames=[FRAME, FRAME], labels=["a", "b"], name="time", alt="a path", start=0),
        says=("frame",),
    ),
    "figures.slider.draw_frames": Call(
        slider.draw_frames,
        given(draw=lambda figure, value: None, values=[1.0], kind="svg", figsize=None),
    ),
    "figures.widget.widget": Call(widget.widget, given(name="machine")),
}

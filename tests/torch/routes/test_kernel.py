"""The fused step against ``dessilbi.step_``: on a GPU, or through the interpreter of Triton.

The interpreter is chosen by an environment variable before triton is imported, so it gets a
process of its own: one test runs this file again in there, where the tensors lie on the CPU.
"""

import copy
import importlib.util
import itertools
import os
import pickle
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import vectors
from one_tensor import step_

from dslbi_torch import DessiLBI, Release, routes
from dslbi_torch.routes import kernel, launch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
on_device = (lambda test: test) if INTERPRETED else pytest.mark.gpu
only_interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs through the interpreter")
needs_triton = pytest.mark.skipif(kernel.triton is None, reason="needs triton")

SETTINGS = dict(alpha=0.3, kappa=1.3, nu=2.0, lam=0.7, momentum=0.9)
SHAPES = ((5, 1), (7, 3, 3, 3), (2, 60), (1, 300), (1,), (17,))


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
@needs_triton
def test_this_file_through_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def lists(shapes=SHAPES, dtype=torch.float64, seed=0, offset=0):
    """Ws, Vs, ms as views that start ``offset`` elements into a larger tensor."""

    def array(shape, seed, dtype):
        values = torch.tensor(vectors.array(shape, seed)).to(DEVICE, dtype)
        room = values.new_full((values.numel() + offset + 8,), 7.0)
        view = room[offset : offset + values.numel()].view(shape)
        return view.copy_(values)

    dual = torch.promote_types(dtype, torch.float32)
    kinds = (dtype, dual, dtype)
    n = len(shapes)
    return tuple(
        [array(shape, seed + 3 * i + k, kinds[k]) for i, shape in enumerate(shapes)]
        for k in range(3)
    ), [torch.zeros(shapes[i][:1], dtype=dual, device=DEVICE) for i in range(n)]


def gradients(shapes=SHAPES, dtype=torch.float64, seed=100, offset=0):
    return lists(shapes, dtype, seed, offset)[0][0]


def clones(state):
    return tuple([t.clone() for t in tensors] for tensors in state)


def walk(state, norms, grads, table=None, **options):
    """The fused step with one list of gradients after the other."""
    options = {**SETTINGS, **options}
    Ws, Vs, ms = state
    Vs = Vs if options.get("penalty", "l1") else None
    ms = ms if options["momentum"] else None
    norms = norms if options.get("penalty") == "group" else None
    table = launch.Table() if table is None else table
    for k, g in enumerate(grads):
        if k == 0 and norms is not None:
            launch.norms_(Ws, Vs, ms, g, norms, table=table, **options)
        launch.step_(Ws, Vs, ms, g, norms, table=table, **options)


def reference(state, grads, *, maximize=False, **options):
    """The same with ``dessilbi.step_``, tensor by tensor."""
    options = {**SETTINGS, **options}
    for g in grads:
        for W, V, m, x in zip(*state, g, strict=True):
            V = V if options.get("penalty", "l1") else None
            m = m if options["momentum"] else None
            step_(W, V, m, -x if maximize else x, **options)


def agree(ours, theirs):
    for a, b in zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True):
        tol = {torch.float64: 1e-12 if INTERPRETED else 1e-10}.get(a.dtype, 1e-6)
        torch.testing.assert_close(a, b, rtol=tol, atol=tol)


def equal(ours, theirs):
    for a, b in zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


PENALTIES = (
    dict(penalty=None),
    dict(penalty="l1"),
    dict(penalty="group"),
    dict(penalty="group", weight="sqrt"),
)
MOMENTA = (
    dict(momentum=0.0),
    dict(momentum=0.9),
    dict(momentum=0.9, dampening=0.4),
    dict(momentum=0.9, nesterov=True),
)
DECAYS = (dict(), dict(weight_decay=0.1), dict(weight_decay=0.1, decoupled=True))
COUPLINGS = (dict(coupling="outside"), dict(coupling="inside"))


@on_device
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
def test_every_option_agrees_with_the_plain_step(penalty, dtype):
    shapes = ((2, 300), (5, 7))
    grads = [gradients(shapes, dtype, seed) for seed in (100, 200, 300)]
    momenta = MOMENTA if dtype == torch.float64 else MOMENTA[2:]
    for k, parts in enumerate(itertools.product(momenta, DECAYS, COUPLINGS)):
        options = {**penalty, **parts[0], **parts[1], **parts[2], "maximize": k // 2 % 2 == 1}
        ours, norms = lists(shapes, dtype)
        theirs = clones(ours)
        walk(ours, norms, grads, **options)
        reference(theirs, grads, **options)
        agree(ours, theirs)


LONG = ((2, 4609), (1, 4608), (18, 27), (5, 256), (5, 3, 70), (40,), (1, 1025))


@on_device
@pytest.mark.parametrize("offset", [0, 3], ids=["aligned", "unaligned"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
def test_rows_of_any_length(penalty, dtype, offset):
    """Sizes that are no multiple of a tile, addresses that are no multiple of a word."""
    grads = [gradients(LONG, dtype, seed, offset) for seed in (100, 200)]
    ours, norms = lists(LONG, dtype, offset=offset)
    theirs = clones(ours)
    walk(ours, norms, grads, **penalty)
    reference(theirs, grads, **penalty)
    agree(ours, theirs)


@on_device
@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
def test_nothing_but_the_tensors_is_written(penalty):
    """The gradient stays, and so does the memory before and behind every tensor."""
    (ours, norms), grads = lists(LONG, offset=4), gradients(LONG)
    kept = [g.clone() for g in grads]
    walk(ours, norms, [grads], **penalty)
    equal([grads], [kept])
    for t in itertools.chain(*ours):
        room = torch.empty(0, dtype=t.dtype, device=t.device).set_(t.untyped_storage())
        assert (room[:4] == 7).all() and (room[4 + t.numel() :] == 7).all()


@on_device
def test_many_small_tensors_in_one_launch():
    shapes = tuple((1 + i % 5, 1 + i % 7) for i in range(30))
    for penalty in PENALTIES:
        (ours, norms), grads = lists(shapes), gradients(shapes)
        theirs = clones(ours)
        walk(ours, norms, [grads], **penalty)
        reference(theirs, [grads], **penalty)
        agree(ours, theirs)


@on_device
def test_scalars_and_empty_tensors_without_groups():
    shapes = ((), (0,), (3, 0), (5,))
    (ours, _), grads = lists(shapes), gradients(shapes)
    theirs = clones(ours)
    walk(ours, None, [grads], penalty=None)
    reference(theirs, [grads], penalty=None)
    agree(ours, theirs)
    launch.step_([], [], [], [], None, alpha=0.1)
    launch.step_(ours[0][1:3], None, None, grads[1:3], None, alpha=0.1, penalty=None)


@on_device
def test_channels_last():
    """Filters are contiguous in both layouts, and norms do not depend on the order inside."""
    (ours, norms), grads = lists(((6, 4, 3, 3),)), gradients(((6, 4, 3, 3),))
    last = dict(memory_format=torch.channels_last)
    mixed, turned = clones(ours), [g.to(**last) for g in grads]
    ours = tuple([t.to(**last) for t in tensors] for tensors in ours)
    theirs = clones(ours)
    for penalty in PENALTIES:
        walk(ours, norms, [turned], **penalty)
        reference(theirs, [grads], **penalty)
        agree(ours, theirs)
        with pytest.raises(ValueError, match="same layout"):
            walk(mixed, norms, [turned], **penalty)


@on_device
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
def test_half_precision_is_float32_rounded_once(penalty, dtype):
    ours, norms = lists(dtype=dtype)
    table = launch.Table()
    if penalty["penalty"] == "group":
        options = {**SETTINGS, **penalty, "table": table}
        launch.norms_(*ours, gradients(dtype=dtype), norms, **options)
    for seed in (100, 200, 300):
        grads = gradients(dtype=dtype, seed=seed)
        theirs = tuple([t.clone().float() for t in tensors] for tensors in ours)
        reference(theirs, [[g.float() for g in grads]], **penalty)
        walk(ours, norms, [grads], table, **penalty)
        agree([ours[1]], [theirs[1]])
        for a, b in zip(ours[0] + ours[2], theirs[0] + theirs[2], strict=True):
            ulp = torch.finfo(dtype).eps  # the float32 values may differ in the last bit
            torch.testing.assert_close(a, b.to(dtype), rtol=ulp, atol=ulp * 1e-3)
        assert {t.dtype for t in ours[1]} == {torch.float32}


@on_device
def test_float64_is_honest():
    """Settings with more digits than float32 holds, as floats and as a tensor."""
    for alpha in (1 / 3, torch.tensor(1 / 3, dtype=torch.float64, device=DEVICE)):
        for penalty in PENALTIES:
            options = dict(alpha=1 / 3, kappa=1 / 7, nu=1 / 11, lam=1 / 13, momentum=1 / 17)
            options |= dict(dampening=1 / 19, weight_decay=1 / 23, **penalty)
            (ours, norms), grads = lists(), gradients()
            theirs = clones(ours)
            walk(ours, norms, [grads], **{**options, "alpha": alpha})
            reference(theirs, [grads], **options)
            agree(ours, theirs)


@on_device
def test_a_tensor_of_another_device_or_dtype_is_a_good_alpha():
    for alpha in (torch.tensor(0.25), torch.tensor([0.25], device=DEVICE)):
        (ours, norms), grads = lists(), gradients()
        theirs = clones(ours)
        walk(ours, norms, [grads], penalty="group", alpha=alpha)
        reference(theirs, [grads], penalty="group", alpha=0.25)
        agree(ours, theirs)


@on_device
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_carried_norms_are_recomputed_norms_bit_for_bit(dtype):
    grads = [gradients(LONG, dtype, seed) for seed in range(100, 400, 100)]
    state, norms = lists(LONG, dtype)
    table = launch.Table()
    options = dict(penalty="group", nesterov=True)
    walk(state, norms, grads, table, **options)
    before, again = clones(state), [torch.full_like(n, 9.0) for n in norms]
    launch.norms_(*state, grads[0], again, **SETTINGS, **options)
    equal([again], [norms])
    equal(state, before)  # and nothing else is touched
    for V, n in zip(state[1], norms, strict=True):
        plain = torch.linalg.vector_norm(V.reshape(len(V), -1), dim=1) ** 2
        torch.testing.assert_close(n, plain, rtol=1e-12 if dtype == torch.float64 else 1e-6, atol=0)


@on_device
def test_a_resumed_run_goes_on_bit_for_bit():
    grads = [gradients(LONG, torch.float32, seed) for seed in range(100, 500, 100)]
    whole, norms = lists(LONG, torch.float32)
    halves = clones(whole)
    walk(whole, norms, grads, penalty="group")
    walk(halves, norms, grads[:2], penalty="group")
    halves = clones(halves)  # as a checkpoint: other addresses, no norms
    walk(halves, [torch.zeros_like(n) for n in norms], grads[2:], penalty="group")
    equal(whole, halves)


@on_device
def test_two_runs_have_the_same_bits():
    grads = [gradients(LONG, torch.float32, seed) for seed in (100, 200)]
    for penalty in PENALTIES[1:3]:
        (first, norms), (second, others) = lists(LONG, torch.float32), lists(LONG, torch.float32)
        walk(first, norms, grads, **penalty)
        walk(second, others, grads, **penalty)
        equal((*first, norms), (*second, others))


@on_device
@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
def test_settings_may_change_between_steps(penalty):
    """Gamma follows lam and kappa at once; the carried norms need no help."""
    ours, norms = lists()
    theirs, table = clones(ours), launch.Table()
    if penalty["penalty"] == "group":
        launch.norms_(*ours, gradients(), norms, **SETTINGS, **penalty, table=table)
    changes = (dict(lam=0.3), dict(kappa=0.5), dict(nu=5.0, alpha=0.1), dict(momentum=0.5))
    for seed, change in enumerate(changes, start=1):
        grads = gradients(seed=100 * seed)
        options = {**SETTINGS, **penalty, **change}
        Vs, squared = ours[1], norms if penalty["penalty"] == "group" else None
        launch.step_(ours[0], Vs, ours[2], grads, squared, **options, table=table)
        reference(theirs, [grads], **penalty, **change)
        agree(ours, theirs)


@on_device
@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
def test_the_first_step(penalty):
    """V = 0 has norm 0 and Gamma 0; the momentum buffer becomes the gradient."""
    ours, norms = lists()
    for t in ours[1] + ours[2]:
        t.zero_()
    theirs, grads = clones(ours), gradients()
    options = {**SETTINGS, **penalty}
    Vs, squared = ours[1], norms if penalty["penalty"] == "group" else None
    launch.step_(ours[0], Vs, ours[2], grads, squared, **options)
    reference(theirs, [grads], **penalty)
    agree(ours, theirs)
    equal([ours[2]], [grads])


@on_device
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, in the interpreter
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_nan_and_infinity_reach_what_depends_on_them(bad):
    for penalty, place in itertools.product(PENALTIES[:3], range(4)):
        (ours, norms), grads = lists(((3, 4),)), gradients(((3, 4),))
        [*ours, grads][place][0][1, 2] = bad
        theirs = clones(ours)
        walk(ours, norms, [grads, grads], **penalty)
        reference(theirs, [grads, grads], **penalty)
        for a, b in zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10, equal_nan=True)


@on_device
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of NumPy, in the interpreter
def test_tiny_and_huge_groups():
    """Squares that leave the range of float32: the group is far below or above the threshold."""
    shapes, dtype = ((3, 4), (3, 400)), torch.float32
    for factor in (1e-30, 1e-22, 1e15, 1e25):
        (ours, norms), grads = lists(shapes, dtype), gradients(shapes, dtype)
        for V in ours[1]:
            V.mul_(factor)
        theirs = clones(ours)
        walk(ours, norms, [grads], penalty="group")
        reference(theirs, [grads], penalty="group")
        agree(ours, theirs)


@on_device
@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
def test_gradient_scaler(penalty):
    """Gradients are divided by grad_scale; where found_inf is set nothing is written."""
    (ours, norms), grads = lists(), gradients()
    theirs, table = clones(ours), launch.Table()
    scale = torch.tensor([1024.0], device=DEVICE)
    clear, found = torch.zeros(1, device=DEVICE), torch.ones(1, device=DEVICE)
    scaled = [g * 1024 for g in grads]
    walk(ours, norms, [scaled], table, grad_scale=scale, found_inf=clear, **penalty)
    reference(theirs, [grads], **penalty)
    agree(ours, theirs)
    before = clones((*ours, norms))
    scaled[0].fill_(float("inf"))
    squared = norms if penalty["penalty"] == "group" else None
    options = {**SETTINGS, **penalty, "grad_scale": scale, "found_inf": found}
    launch.step_(*ours, scaled, squared, **options, table=table)
    equal((*ours, norms), before)


@on_device
def test_a_table_follows_its_tensors(monkeypatch):
    """Other gradients are found; nothing is made anew while everything stays."""
    (ours, norms), grads = lists(), gradients()
    theirs, table = clones(ours), launch.Table()
    options = {**SETTINGS, "penalty": "group", "table": table}
    launch.norms_(*ours, grads, norms, **options)
    launch.step_(*ours, grads, norms, **options)
    held = table.blocks.tensor, table.tensors.tensor, table.settings.tensor
    for name in ("block_rows", "tensor_rows", "why_not"):
        monkeypatch.setattr(launch, name, None)
    launch.step_(*ours, grads, norms, **options)
    now = table.blocks.tensor, table.tensors.tensor, table.settings.tensor
    assert all(a is b for a, b in zip(held, now, strict=True))
    monkeypatch.undo()
    others = gradients(seed=500)
    launch.step_(*ours, others, norms, **options)
    reference(theirs, [grads, grads, others], penalty="group")
    agree(ours, theirs)
    for empty in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert empty.tensors.key is None


@on_device
def test_a_backward_pass_through_the_old_weights_is_refused():
    W = torch.nn.Parameter(torch.ones(3, device=DEVICE))
    loss = (W**2).sum()
    launch.step_([W], None, None, [torch.ones(3, device=DEVICE)], None, alpha=0.1, penalty=None)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@only_interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("penalty", PENALTIES[:3], ids=str)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_every_array_is_moved_once(monkeypatch, penalty, momentum, dtype):
    """Bytes at the addresses of W, V, m and grad that the kernel really loads and stores."""
    from triton.runtime import interpreter

    shapes = ((4, 1500), (70, 30), (9, 130))
    (state, norms), grads = lists(shapes, dtype), gradients(shapes, dtype)
    table = launch.Table()
    walk(state, norms, [grads], table, momentum=momentum, **penalty)
    real, moved = interpreter._interpreter, []
    data = [(t.data_ptr(), t.nbytes) for t in (*itertools.chain(*state), *grads)]

    def count(pointers, mask, size):
        where = pointers[mask.astype(bool)].astype("uint64")
        moved.append(size * sum(((where >= a) & (where < a + n)).sum() for a, n in data))

    def load(pointers, mask, other, kind):
        count(pointers, mask, other.dtype.itemsize)
        return real.load(pointers, mask, other, kind)

    def store(pointers, value, mask):
        count(pointers, mask, value.dtype.itemsize)
        return real.store(pointers, value, mask)

    names = {name: getattr(real, name) for name in dir(real) if not name.startswith("__")}
    counting = SimpleNamespace(**{**names, "load": load, "store": store})
    monkeypatch.setattr(interpreter, "_interpreter", counting)
    squared = norms if penalty["penalty"] == "group" else None
    Vs, ms = state[1] if penalty["penalty"] else None, state[2] if momentum else None
    options = {**SETTINGS, **penalty, "momentum": momentum, "table": table}
    launch.step_(state[0], Vs, ms, grads, squared, **options)
    each = launch.bytes_per_parameter(dtype, penalty=penalty["penalty"], momentum=momentum)
    assert sum(moved) == each * sum(g.numel() for g in grads)


COMPILED = (
    dict(TYPE="float32", PENALTY="group", COUPLING="outside"),
    dict(TYPE="bfloat16", PENALTY="group", WEIGHT="sqrt", NESTEROV=True, DECAY="l2"),
    dict(TYPE="float64", PENALTY="l1", COUPLING="inside", DECAY="decoupled", MAXIMIZE=True),
)


@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@needs_triton
@pytest.mark.parametrize("options", COMPILED, ids=str)
def test_it_compiles_for_a_gpu_and_moves_long_words(options, tmp_path, monkeypatch):
    """To the machine code of an sm_90, which needs none: 16 bytes a thread of every array."""
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = dict(WEIGHT=None, MOMENTUM=True, NESTEROV=False, DECAY=None, MAXIMIZE=False)
    constants |= dict(COUPLING="outside", alpha=None, TILES=launch.ROW_TILES) | options
    constants["TYPE"] = getattr(tl, options["TYPE"])
    constants["DUAL"] = tl.float64 if options["TYPE"] == "float64" else tl.float32
    if options["PENALTY"] != "group":
        constants["TILES"] = launch.FLAT_TILES
    pointers = dict(blocks="*i32", tensors="*i64", settings="*fp64", refresh="i32")
    pointers |= dict(grad_scale="*fp32", found_inf="*fp32")
    names = kernel._kernel.arg_names
    source = ASTSource(
        kernel._kernel,
        {name: pointers.get(name, "constexpr") for name in names},
        {(names.index(name),): value for name, value in constants.items()},
    )
    target = GPUTarget("cuda", 90, 32)
    built = triton.compile(source, target=target, options=dict(enable_fp_fusion=False))
    assert len(built.asm["cubin"]) > 0
    word = {"float32": r"v4\.b32", "bfloat16": r"v2\.b32", "float64": r"v2\.b64"}[options["TYPE"]]
    for access in ("ld", "st"):
        assert re.search(rf"{access}\.global[\w.:]*\.{word}", built.asm["ptx"])


def only_gpu(test):
    return pytest.mark.gpu(pytest.mark.skipif(INTERPRETED, reason="needs a real GPU")(test))


@only_gpu
@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
def test_a_captured_graph_follows_gradients_and_alpha(penalty):
    """The step of the graph sees gradients at addresses of its own; steps outside go on."""
    (ours, norms), grads = lists(), gradients()
    theirs, table = clones(ours), launch.Table()
    alpha = torch.tensor(0.3, dtype=torch.float64, device=DEVICE)
    squared = norms if penalty["penalty"] == "group" else None
    options = {**SETTINGS, **penalty, "alpha": alpha, "table": table}
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        if squared:
            launch.norms_(*ours, grads, squared, **options)
        launch.step_(*ours, grads, squared, **options)
    torch.cuda.current_stream().wait_stream(side)
    reference(theirs, [grads], **penalty)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch.step_(*ours, [2 * g for g in grads], squared, **options)
    for rate, seed in ((0.3, 200), (0.1, 300), (0.2, 400)):
        for g, new in zip(grads, gradients(seed=seed), strict=True):
            g.copy_(new)
        alpha.fill_(rate)
        graph.replay()
        reference(theirs, [[2 * g for g in grads]], alpha=rate, **penalty)
        launch.step_(*ours, grads, squared, **options)
        reference(theirs, [grads], alpha=rate, **penalty)
        agree(ours, theirs)


@only_gpu
@pytest.mark.parametrize("penalty", [dict(penalty="l1"), dict(penalty="group")], ids=str)
def test_more_elements_than_32_bits_count(penalty):
    shape, dtype = (2**21 + 1, 1025), torch.bfloat16
    if torch.cuda.mem_get_info()[0] < 28 * 2**30:
        pytest.skip("needs 28 GiB of free device memory")
    W, grad = (torch.empty(shape, dtype=dtype, device=DEVICE).normal_() for _ in range(2))
    V = torch.empty(shape, device=DEVICE).normal_()
    norms = [torch.zeros(shape[0], device=DEVICE)] if penalty["penalty"] == "group" else None
    options = {**SETTINGS, **penalty, "momentum": 0.0}
    ends = [slice(0, 3), slice(shape[0] - 3, shape[0])]
    plain = [(W[e].float(), V[e].clone(), grad[e].float()) for e in ends]
    if norms:
        launch.norms_([W], [V], None, [grad], norms, **options)
    launch.step_([W], [V], None, [grad], norms, **options)
    for e, (w, v, g) in zip(ends, plain, strict=True):
        step_(w, v, None, g, **options)
        torch.testing.assert_close(V[e], v, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(W[e], w.to(dtype), rtol=2**-7, atol=1e-5)


def test_bytes_per_parameter():
    count = launch.bytes_per_parameter
    assert count(torch.float32) == 28
    assert count(torch.float32, penalty=None) == 20  # SGD with momentum
    assert count(torch.float32, momentum=0) == 20
    assert count(torch.float32, penalty=None, momentum=0) == 12
    assert count(torch.bfloat16) == 18  # V in float32, the momentum buffer in bfloat16


class Mine(torch.Tensor):
    """A subclass may mean anything by its memory."""


@only_interpreted
def test_what_the_fused_step_cannot_take():
    def reason(change=None, **options):
        state, norms = lists(((3, 4),))
        named = dict(Ws=state[0], Vs=state[1], ms=state[2], grads=gradients(((3, 4),)), norms=norms)
        if change:
            name, function = change
            named[name] = function(named[name])
        return launch.why_not(*named.values(), penalty="group", **options)

    assert reason() is None
    assert reason(group_dim=(0,)) is None
    assert "group_dim 1" in reason(group_dim=1)
    assert "group_dim (0, 1)" in reason(group_dim=(0, 1))
    assert "one V for every W" in reason(("Vs", lambda x: None))
    assert "one gradient for every W" in reason(("grads", lambda x: []))
    assert "torch.float32" in reason(("Vs", lambda x: [x[0].float()]))
    assert "(4, 3)" in reason(("grads", lambda x: [x[0].T.contiguous()]))
    assert "same layout" in reason(("grads", lambda x: [x[0].T.contiguous().T]))
    assert "sparse" in reason(("grads", lambda x: [x[0].to_sparse()]))
    assert "meta" in reason(("Ws", lambda x: [x[0].to("meta")]))
    assert "complex" in reason(("Ws", lambda x: [x[0].to(torch.complex128)]))
    assert "a Mine" in reason(("ms", lambda x: [x[0].as_subclass(Mine)]))
    assert "(3, 1)" in reason(("norms", lambda x: [x[0][:, None]]))
    state, _ = lists(((3, 4),))
    with pytest.raises(ValueError, match="needs norms"):
        launch.step_(*state, gradients(((3, 4),)), None, **SETTINGS, penalty="group")


@pytest.mark.skipif(INTERPRETED, reason="the interpreter takes them")
def test_tensors_on_the_cpu_are_refused():
    W = [torch.zeros(3)]
    with pytest.raises(ValueError, match="needs (tensors on a GPU, got cpu|triton)"):
        launch.step_(W, W, W, W, None, alpha=0.1)


def test_without_triton_the_module_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)

    def again(module):
        spec = importlib.util.spec_from_file_location(module.__name__, module.__file__)
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
        return found

    monkeypatch.setattr(routes, "kernel", again(kernel))
    bare = again(launch)
    W = [torch.zeros(3)]
    with pytest.raises(ValueError, match="the fused step needs triton, which is not installed"):
        bare.step_(W, W, W, W, None, alpha=0.1)
    assert bare.bytes_per_parameter(torch.float32) == 28


# The optimizer with fused=True


def optimizer(fused, dtype=torch.float64, **options):
    """Filters, rows and plain vectors in three groups, of which the last has no penalty."""
    (Ws, _, _), _ = lists(((6, 2, 3, 3), (5, 40), (7,)), dtype)
    params = [torch.nn.Parameter(W.clone()) for W in Ws]
    splits = dict(penalty="group", weight="sqrt"), dict(penalty="l1"), dict(penalty=None)
    groups = [dict(params=[p], **split) for p, split in zip(params, splits, strict=True)]
    options = {**dict(lr=0.3, kappa=1.3, nu=2.0, lam=0.2), **options}
    return DessiLBI(groups, **options, fused=fused), params


def train(optimizer, params, steps, start=0):
    for k in range(start, start + steps):
        for i, p in enumerate(params):
            p.grad = torch.tensor(vectors.array(tuple(p.shape), 50 * k + i)).to(p)
        optimizer.step()


def state_of(optimizer, params):
    return [
        [p.detach(), *(optimizer.state[p][k] for k in sorted(optimizer.state[p]))] for p in params
    ]


OPTIONS = (
    dict(),
    dict(momentum=0.0),
    dict(dampening=0.5, weight_decay=0.1),
    dict(nesterov=True, coupling="inside", maximize=True),
    dict(weight_decay=0.1, decoupled=True),
    dict(group_dim=1),  # by foreach: the kernel owns rows only
)


@on_device
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_fused_optimizer_is_the_plain_one(options):
    runs = []
    for fused in (True, False):
        ours, params = optimizer(fused, **options)
        train(ours, params[1:], 1)  # the first tensor gets its first gradient late
        train(ours, params, 3, start=1)
        ours.param_groups[0]["lam"] = 0.1
        ours.param_groups[1]["lr"] = torch.tensor(0.1)
        train(ours, params, 2, start=4)
        runs.append(state_of(ours, params))
    agree(*runs)


@on_device
@pytest.mark.parametrize("settings", [dict(), dict(pull=0.5, power=1.0), dict(dense=True)], ids=str)
def test_the_fused_optimizer_goes_through_a_release_as_the_plain_one(settings):
    runs = []
    for fused in (True, False):
        ours, params = optimizer(fused, lam=0.05)
        Release(ours, 3, **settings)
        train(ours, params, 9)
        state = state_of(ours, params)
        assert any(x.any() for x in ours.state[params[0]].values())
        runs.append(state)
    agree(*runs)


@on_device
def test_the_fused_optimizer_resumes_bit_for_bit():
    """Also when V was written to by hand, or the optimizer copied, in between."""
    whole, params = optimizer(True, torch.float32)
    train(whole, params, 6)
    first, again = optimizer(True, torch.float32)
    train(first, again, 3)
    second, fresh = optimizer(True, torch.float32)
    with torch.no_grad():
        for p, q in zip(fresh, again, strict=True):
            p.copy_(q)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(second, fresh, 3, start=3)
    equal(state_of(second, fresh), state_of(whole, params))
    train(first, again, 1, start=3)
    first.state[again[0]]["V"].mul_(1.0)
    train(first, again, 2, start=4)
    equal(state_of(first, again), state_of(whole, params))


@on_device
@pytest.mark.parametrize("dampening", [0.0, 0.5])
@pytest.mark.parametrize("group_dim", [0, 1])
def test_the_fused_optimizer_under_a_gradient_scaler(dampening, group_dim):
    """What a GradScaler hands over: scaled gradients, and steps that must leave no trace."""
    runs = []
    for scale in (1.0, 4.0):
        ours, params = optimizer(True, lr=0.1, dampening=dampening, group_dim=group_dim)
        assert ours._step_supports_amp_scaling
        for k, skipped in enumerate((True, False, False, True, False)):
            for i, p in enumerate(params):
                p.grad = scale * torch.tensor(vectors.array(tuple(p.shape), 50 * k + i)).to(p)
                if skipped:
                    p.grad.fill_(float("inf"))
            if skipped and scale == 1.0:
                continue
            if scale != 1.0:
                ours.grad_scale = torch.tensor(scale, device=DEVICE)
                ours.found_inf = torch.tensor(float(skipped), device=DEVICE)
            ours.step()
        runs.append(state_of(ours, params))
    agree(*runs)

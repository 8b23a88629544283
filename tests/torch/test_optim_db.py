"""PyTorch's own optimizer database, pointed at our class.

The wheel ships the database (what an optimizer is tried with, and what must be refused), not the
bodies of PyTorch's tests: these are ours, one for each property that PyTorch asks of an optimizer.
Left out, because it contradicts the method:

- a step with zero gradients changes nothing: W is pulled to Gamma, and V collects W - Gamma;
- duplicate parameters in one group only warn: V would move twice in a step, so they are refused.
"""

import copy
import inspect
import io
from functools import cache, partial

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.optim import lr_scheduler
from torch.testing._internal import common_optimizers as db

from dslbi_torch import DessiLBI

SPLIT = dict(nu=1.0, lam=0.02)


def inputs(device, dtype=None):
    """What SGD is tried with, for every penalty, and what only we have."""
    sgd = db.optim_inputs_func_sgd(device, dtype)
    own = [
        dict(momentum=0.0),
        dict(coupling="inside"),
        dict(weight_decay=0.1, decoupled=True),
        dict(kappa=2.0, lr=0.01),
        dict(weight="sqrt", lr=torch.tensor(0.01)),
    ]
    options = [(x.kwargs, x.desc) for x in sgd] + [(x, str(x)) for x in own]
    return [
        db.OptimizerInput(
            params=None, kwargs=dict(split, **o), desc=f"{split.get('penalty')} {desc}"
        )
        for split in ({}, dict(SPLIT, penalty="l1"), dict(SPLIT, penalty="group"))
        for o, desc in options
    ]


def error_inputs(device, dtype):
    return [
        case
        for case in db.optim_error_inputs_func_sgd(device, dtype)
        if case.error_type is not UserWarning  # duplicates in one group: refused, see above
    ]


INFO = db.OptimizerInfo(
    DessiLBI,
    optim_inputs_func=inputs,
    optim_error_inputs_func=error_inputs,
    supported_impls=("foreach", "fused", "differentiable"),
    supports_fused_on=("cuda",),
    has_capturable_arg=True,
    not_og_supported_flags=("foreach", "fused", "capturable", "differentiable"),
)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
on_devices = pytest.mark.parametrize("device", DEVICES)


def configs(device, skip=()):
    """Every config of the database with every flag, foreach on the CPU too."""
    found = db._get_optim_inputs_including_global_cliquey_kwargs(device, None, INFO, skip)
    if device == "cpu" and "foreach" not in skip:
        base = {"differentiable": False}
        found += [
            db.OptimizerInput(None, {**x.kwargs, **base, "foreach": True}, f"{x.desc} & foreach")
            for x in inputs(device)
        ]
    return found


def net(device, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 2, bias=False))
    return model.to(device, dtype)


def groups(model, kwargs):
    """The weights with the options of a config; the biases, which carry no penalty, without."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim == 1]
    return [dict(params=weights), dict(params=rest, penalty=None)]


def problem(device, kwargs, dtype=torch.float64, seed=0):
    """Model, optimizer, and a closure that computes loss and gradients."""
    model = net(device, dtype, seed)
    optimizer = DessiLBI(groups(model, kwargs), **copy.deepcopy(kwargs))
    x = torch.randn(6, 1, 4, 4, device=device, dtype=dtype)
    y = torch.randn(6, 2, device=device, dtype=dtype)
    sign = -1.0 if kwargs.get("maximize") else 1.0

    def closure():
        optimizer.zero_grad()
        loss = sign * ((model(x) - y) ** 2).mean()
        loss.backward()
        return loss

    return model, optimizer, closure


def tensors(model, optimizer):
    state = [optimizer.state[p][k] for p in model.parameters() for k in sorted(optimizer.state[p])]
    return [p.detach() for p in model.parameters()] + state


def assert_same(a, b, rtol=0.0):
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=rtol, atol=rtol)


@on_devices
def test_errors(device):
    """Every rejected case of the database, in its words."""
    for case in error_inputs(device, torch.float64):
        params, kwargs = case.optimizer_error_input.params, case.optimizer_error_input.kwargs
        if params is None:
            params = [nn.Parameter(torch.randn(2, 3, device=device))]
        expect = pytest.warns if issubclass(case.error_type, Warning) else pytest.raises
        with expect(case.error_type, match=case.error_regex):
            DessiLBI(params, **kwargs)


@on_devices
def test_the_loss_goes_down_and_is_returned(device):
    for config in configs(device):
        _, optimizer, closure = problem(device, config.kwargs)
        if config.kwargs.get("differentiable"):
            continue  # leaf parameters cannot be stepped under autograd: see the gradient check
        first = closure().item()
        last = [optimizer.step(closure).item() for _ in range(30)][-1]
        sign = -1 if config.kwargs.get("maximize") else 1
        assert sign * last < sign * first, config


@on_devices
@pytest.mark.parametrize("scheduler", range(len(INFO.scheduler_inputs[0])))
def test_it_goes_right_with_a_scheduler(device, scheduler):
    for config in configs(device, skip=("differentiable",)):
        model, optimizer, closure = problem(device, config.kwargs)
        schedule = INFO.scheduler_inputs[0][scheduler](optimizer)
        first = closure().item()
        for _ in range(30):
            loss = optimizer.step(closure)
            if isinstance(schedule, lr_scheduler.ReduceLROnPlateau):
                schedule.step(loss.detach())
            else:
                schedule.step()
        sign = -1 if config.kwargs.get("maximize") else 1
        assert sign * closure().item() < sign * first, config
        # A schedule that changes lr in place must still see the one-element tensor it was given.
        kinds = {type(group["lr"]) for group in optimizer.param_groups}
        assert kinds == {type(config.kwargs.get("lr", 1e-3))}, config


@on_devices
def test_a_tensor_lr_is_the_number_it_holds(device):
    for config in configs(device, skip=("differentiable",)):
        runs = []
        for lr in (0.01, torch.tensor(0.01, dtype=torch.float64), torch.tensor([0.01])):
            model, optimizer, closure = problem(device, {**config.kwargs, "lr": lr})
            for _ in range(4):
                optimizer.step(closure)
            runs.append(tensors(model, optimizer))
        assert_same(runs[1], runs[0])
        assert_same(runs[2], runs[0], rtol=1e-8)  # 0.01 rounded to float32


@on_devices
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_foreach_matches_the_loop(device, dtype):
    """Also with a conv in channels_last and a tensor that gets its first gradient late."""
    for config in inputs(device):
        runs = []
        for foreach in (False, True):
            model, optimizer, closure = problem(
                device, {**config.kwargs, "foreach": foreach}, dtype
            )
            model[0].weight.data = model[0].weight.data.to(memory_format=torch.channels_last)
            for k in range(7):
                closure()
                if k < 2:
                    model[2].weight.grad = None
                optimizer.step()
            runs.append(tensors(model, optimizer))
        assert_same(*runs, rtol=1e-12 if dtype == torch.float64 else 1e-6)


@on_devices
@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("shape", [(6,), (4, 3)])
def test_complex_parameters_are_pairs_of_real_ones(device, foreach, shape):
    """l1 shrinks real and imaginary parts; a group holds both."""
    for config in inputs(device):
        if len(shape) == 1 and config.kwargs.get("penalty") == "group":
            continue  # groups of one axis: covered by (4, 3)
        torch.manual_seed(0)
        z = torch.randn(shape, dtype=torch.complex128, device=device)
        a = nn.Parameter(z.clone())
        b = nn.Parameter(torch.view_as_real(z).clone())
        kwargs = {**copy.deepcopy(config.kwargs), "foreach": foreach}
        runs = DessiLBI([a], **kwargs), DessiLBI([b], **kwargs)
        for _ in range(5):
            g = torch.randn(shape, dtype=torch.complex128, device=device)
            a.grad, b.grad = g, torch.view_as_real(g).clone()
            for optimizer in runs:
                optimizer.step()
        assert_same([torch.view_as_real(a.detach())], [b.detach()], rtol=1e-12)
        for key, value in runs[0].state[a].items():
            assert_same([torch.view_as_real(value)], [runs[1].state[b][key]], rtol=1e-12)


@on_devices
@pytest.mark.parametrize("foreach", [False, True])
def test_parameters_of_several_dtypes_and_devices(device, foreach):
    """In one optimizer as each alone."""
    places = {(device, torch.float64), (device, torch.float32), ("cpu", torch.bfloat16)}
    places = sorted(places, key=str)
    for config in inputs(device):
        kwargs = {**config.kwargs, "foreach": foreach}

        def fresh():
            torch.manual_seed(0)
            return [nn.Parameter(torch.randn(4, 3, dtype=d, device=w)) for w, d in places]

        together, alone = fresh(), fresh()
        optimizers = [DessiLBI(together, **copy.deepcopy(kwargs))]
        optimizers += [DessiLBI([p], **copy.deepcopy(kwargs)) for p in alone]
        for k in range(3):
            for p, q in zip(together, alone, strict=True):
                torch.manual_seed(k)
                p.grad = torch.randn(4, 3).to(p)
                q.grad = p.grad.clone()
            for optimizer in optimizers:
                optimizer.step()
        assert_same([p.detach() for p in together], [p.detach() for p in alone])


@on_devices
def test_groups_have_their_own_lr_and_weight_decay(device):
    for name in ("lr", "weight_decay"):
        for flag in ("foreach", None):
            p, q = (nn.Parameter(torch.ones(3, 2, device=device)) for _ in range(2))
            flags = {flag: True} if flag else {}
            optimizer = DessiLBI(
                [dict(params=[p], **{name: 0.5}), dict(params=[q])], lr=0.1, **flags
            )
            for t in (p, q):
                t.grad = torch.ones_like(t)
            optimizer.step()
            want = (0.5, 0.9) if name == "lr" else (0.85, 0.9)
            for t, value in zip((p, q), want, strict=True):
                torch.testing.assert_close(t.detach(), torch.full_like(t, value))


@on_devices
def test_without_gradients_nothing_changes(device):
    """None for every gradient: no state, no change, as in torch.optim."""
    for config in configs(device):
        model, optimizer, _ = problem(device, config.kwargs)
        before = copy.deepcopy(model.state_dict())
        optimizer.step()
        assert_same(model.state_dict().values(), before.values())
        assert len(optimizer.state) == 0


@on_devices
def test_a_large_tensor_by_lists(device):
    """More elements than 2**16 blocks of a small kernel, which foreach cuts into chunks."""
    torch.manual_seed(0)
    start = torch.randn(3, 400_003, device=device)
    runs = []
    for foreach in (False, True):
        p = nn.Parameter(start.clone())
        p.grad = start.flip(0)
        optimizer = DessiLBI([p], lr=0.1, penalty="group", nu=1.0, lam=0.1, foreach=foreach)
        optimizer.step()
        optimizer.step()
        runs.append([p.detach(), *optimizer.state[p].values()])
    assert_same(*runs, rtol=1e-6)


@on_devices
def test_state_dict_is_deterministic_and_continues(device):
    """Save in the middle, load into a fresh optimizer: bit-equal to never having stopped."""
    for config in configs(device, skip=("differentiable",)):
        model, optimizer, closure = problem(device, config.kwargs)
        for _ in range(3):
            optimizer.step(closure)
        twin, other, closure_twin = problem(device, config.kwargs, seed=0)
        twin.load_state_dict(model.state_dict())
        saved = io.BytesIO()
        torch.save(optimizer.state_dict(), saved)
        saved.seek(0)
        loaded = torch.load(saved, weights_only=True)
        other.load_state_dict(loaded)
        for _ in range(3):
            optimizer.step(closure)
            other.step(closure_twin)
        assert_same(tensors(model, optimizer), tensors(twin, other))


@on_devices
def test_an_older_state_dict_without_the_newer_flags_loads(device):
    for config in configs(device, skip=("differentiable",)):
        model, optimizer, closure = problem(device, config.kwargs)
        optimizer.step(closure)
        old = copy.deepcopy(optimizer.state_dict())
        for group in old["param_groups"]:
            for flag in INFO.not_og_supported_flags:
                del group[flag]
        optimizer.load_state_dict(old)
        optimizer.step(closure)
        for group in optimizer.param_groups:
            assert set(INFO.not_og_supported_flags) <= set(group)


@on_devices
def test_deepcopy_keeps_every_public_attribute(device):
    def public(optimizer):
        return {
            k
            for k in dir(optimizer)
            if not k.startswith("_") and not callable(getattr(optimizer, k))
        }

    for config in configs(device):
        _, optimizer, _ = problem(device, config.kwargs)
        assert public(copy.deepcopy(optimizer)) == public(optimizer)


@cache
def _flags():
    return set(inspect.signature(DessiLBI).parameters) & {
        *("foreach", "fused", "maximize", "capturable", "differentiable")
    }


def test_every_flag_of_torch_optim_exists_and_cannot_contradict_another():
    assert _flags() == {"foreach", "fused", "maximize", "capturable", "differentiable"}
    p = [nn.Parameter(torch.ones(2))]
    with pytest.raises(RuntimeError, match="`fused` and `foreach` cannot be `True` together"):
        DessiLBI(p, foreach=True, fused=True)
    with pytest.raises(RuntimeError, match="`fused` does not support `differentiable`"):
        DessiLBI(p, fused=True, differentiable=True)
    with pytest.raises(RuntimeError, match="`foreach` does not support `differentiable`"):
        DessiLBI(p, foreach=True, differentiable=True)
    with pytest.raises(RuntimeError, match="`fused=True` requires all the params to be floating"):
        DessiLBI([nn.Parameter(torch.ones(2, dtype=torch.complex64))], fused=True)


@pytest.mark.parametrize("penalty", [None, "l1", "group"])
@pytest.mark.parametrize(
    "options",
    [dict(), dict(momentum=0.0), dict(nesterov=True), dict(weight_decay=0.1, decoupled=True)],
)
def test_a_differentiable_step_has_the_right_derivative(penalty, options):
    """Two steps as a function of W, the gradient and lr, by finite differences."""

    def two_steps(W, grad, lr):
        W = W.clone()
        W.grad = grad
        optimizer = DessiLBI.__new__(DessiLBI)
        leaf = W.detach().clone().requires_grad_()
        optimizer.__init__(
            [leaf], lr=lr, penalty=penalty, nu=0.2, lam=0.3, differentiable=True, **options
        )
        optimizer.param_groups[0]["params"] = [W]  # not a leaf, as in a differentiable inner loop
        optimizer.step()
        W.grad = grad * 0.5
        optimizer.step()
        return W

    torch.manual_seed(0)
    W = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    lr = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(two_steps, (W, grad, lr))


@pytest.mark.parametrize("penalty", [None, "l1", "group"])
@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("options", [dict(), dict(dampening=0.5), dict(coupling="inside")])
def test_the_step_compiles_without_graph_breaks_nor_recompilation(penalty, foreach, options):
    """The whole step is one graph, also while a schedule changes a tensor lr."""
    torch._dynamo.reset()
    runs = []
    for compiled in (False, True):
        torch.manual_seed(0)
        params = [nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(2, 5))]
        lr = torch.tensor(0.1)
        optimizer = DessiLBI(
            params, lr=lr, penalty=penalty, nu=0.5, lam=0.1, foreach=foreach, **options
        )
        counter = CompileCounter()
        step = optimizer.step
        if compiled:
            step = torch.compile(
                partial(step.__wrapped__.__wrapped__, optimizer), backend=counter, fullgraph=True
            )
        for k in range(4):
            for p in params:
                p.grad = torch.sin(torch.arange(float(p.numel())) + k).view_as(p)
            with torch.no_grad():
                step()
            lr.mul_(0.7)
        if compiled:
            assert 1 <= counter.frame_count <= 2, counter.frame_count
        runs.append([p.detach() for p in params])
    assert_same(*runs, rtol=1e-6)


def test_hooks_and_the_profiler_see_the_step():
    p = nn.Parameter(torch.ones(3, 2))
    p.grad = torch.ones_like(p)
    optimizer = DessiLBI([p], penalty="l1")
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        optimizer.step()
    assert seen == ["before", "after"]
    assert "Optimizer.step#DessiLBI.step" in {event.key for event in profile.key_averages()}


@pytest.mark.gpu
def test_a_cuda_graph_holds_the_step():
    """capturable, with lr in a tensor: replays follow gradients and lr written in place."""
    for foreach in (False, True):
        runs = []
        for captured in (False, True):
            torch.manual_seed(0)
            p = nn.Parameter(torch.randn(8, 3, device="cuda"))
            lr = torch.tensor(0.1, device="cuda")
            options = dict(SPLIT, penalty="group", foreach=foreach, capturable=True)
            optimizer = DessiLBI([p], lr=lr, **options)
            p.grad = torch.zeros_like(p)
            optimizer.step()  # makes the state
            graph = torch.cuda.CUDAGraph()
            if captured:
                with torch.cuda.graph(graph):
                    optimizer.step()
            for k in range(4):
                p.grad.copy_(torch.randn(8, 3, generator=torch.Generator().manual_seed(k)))
                lr.fill_(0.1 / (k + 1))
                graph.replay() if captured else optimizer.step()
            runs.append([p.detach(), *optimizer.state[p].values()])
        assert_same(*runs, rtol=1e-6)

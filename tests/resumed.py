"""A run that goes through against one that is stopped and resumed: what both must have."""

import torch
from recorded import flat

from dslbi_torch import FallingNu, PathRecorder, Release, Split, TargetDensity, split_groups


def steered(model, base, steps, *, record=True):
    """Split a base optimizer, with all that steers a run of so many steps; return optimizer and
    recorder."""
    groups = split_groups(model, linear="l1", nu=0.5, lam=0.1, apart=True)
    optimizer = Split(base(groups))
    Release(optimizer, steps // 4)
    FallingNu(optimizer)
    TargetDensity(optimizer, 0.4, steps=steps, every=2, at_least=1)
    return optimizer, PathRecorder(optimizer, every=3, elements=True) if record else None


def everything(model, optimizer, recorder):
    """Weights, states, options and record of a run, by name."""
    state = optimizer.state_dict()
    found = {f"model {k}": x for k, x in model.state_dict().items()}
    for i, of in state["state"].items():
        found |= {f"state {i} {k}": x for k, x in of.items()}
    for i, group in enumerate(state["param_groups"]):
        found |= {f"group {i} {k}": x for k, x in group.items()}
    return found | {f"record {k}": x for k, x in flat(recorder.recorded()).items()}


def assert_same(resumed, through):
    """Refuse any bit of difference."""
    assert resumed.keys() == through.keys()
    for name, x in through.items():
        if isinstance(x, torch.Tensor):
            torch.testing.assert_close(resumed[name], x, rtol=0, atol=0, equal_nan=True, msg=name)
        elif hasattr(x, "shape"):
            assert (resumed[name] == x).all(), name
        else:
            assert resumed[name] == x, name

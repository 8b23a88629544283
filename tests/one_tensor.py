"""The reference's update of a tensor that is a family by itself: Gamma from V, then the step."""

from dslbi_ref import dessilbi


def gamma(V, **options):
    return dessilbi.gamma([V], **options)[0]


def step(W, V, m, grad, *, kappa=1.0, lam=1.0, penalty="l1", group_dim=0, weight=None, **options):
    unit = dict(penalty=penalty, group_dim=group_dim, weight=weight)
    Gamma = None if V is None else gamma(V, kappa=kappa, lam=lam, **unit)
    return dessilbi.step(W, V, Gamma, m, grad, kappa=kappa, **options)

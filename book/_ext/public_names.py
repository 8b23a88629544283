"""Resolve a public name, ``dslbi_torch.DessiLBI``, to the module that defines and documents it."""

from importlib import import_module


def resolve(app, env, node, content):
    """Look again for ``package.name`` under the module in which the object was defined."""
    package, _, name = node.get("reftarget", "").partition(".")
    if node.get("refdomain") != "py" or package not in ("dslbi_ref", "dslbi_torch"):
        return None
    first, *rest = name.split(".")
    module = getattr(getattr(import_module(package), first, None), "__module__", None)
    if module is None:
        return None
    target = ".".join([module, first, *rest])
    python = env.get_domain("py")
    kind = node["reftype"]
    return python.resolve_xref(env, node["refdoc"], app.builder, kind, target, node, content)


def setup(app):
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

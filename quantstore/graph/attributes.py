"""A node's attributes as plain values, whatever a file may hold in their place."""

import ast

import onnx_ir as ir

from quantstore.errors import ModelFileError

# Where torch's exporter says which module a node comes from: the names of its scopes from the
# outside in, the last one the operation itself; under the other key with the class of each.
_SCOPES = "pkg.torch.onnx.name_scopes"
_NAMESPACE = "namespace"
_LONGEST_METADATA = 10_000


def integer(node: ir.Node, name: str, default: int) -> int:
    """The attribute as a whole number, ``default`` where the node does not have it."""
    attribute = _attribute(node, name, ir.AttributeType.INT)
    return default if attribute is None else attribute.as_int()


def number(node: ir.Node, name: str, default: float) -> float:
    """The attribute as a floating-point number, ``default`` where the node does not have it."""
    attribute = _attribute(node, name, ir.AttributeType.FLOAT)
    return default if attribute is None else attribute.as_float()


def text(node: ir.Node, name: str, default: str) -> str:
    """The attribute as text, ``default`` where the node does not have it."""
    attribute = _attribute(node, name, ir.AttributeType.STRING)
    value = default if attribute is None else attribute.value
    if not isinstance(value, str):
        raise ModelFileError(
            f"attribute {name!r} of node {node.name!r} is no text", "export the model again"
        )
    return value


def module_path(node: ir.Node) -> str | None:
    """The module that a node was exported from, such as ``backbone.layer1.0``.

    None where the file does not say, or where the node belongs to the whole model.
    """
    scopes: list[str] = []
    written = node.metadata_props.get(_SCOPES, "")
    if 0 < len(written) < _LONGEST_METADATA:
        try:
            found = ast.literal_eval(written)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found = None
        if isinstance(found, list):
            scopes = [scope for scope in found if isinstance(scope, str)]
    if not scopes:
        namespace = node.metadata_props.get(_NAMESPACE, "")
        if ": " in namespace:
            scopes = [part.partition(": ")[0] for part in namespace.split("/")]
    return next((scope for scope in reversed(scopes[:-1]) if scope), None)


def _attribute(node: ir.Node, name: str, kind: ir.AttributeType) -> ir.Attr | None:
    attribute = node.attributes.get(name)
    if attribute is not None and attribute.is_ref():
        # It stands for an attribute of a function's call, and outside of functions for nothing.
        return None
    if attribute is not None and attribute.type != kind:
        raise ModelFileError(
            f"attribute {name!r} of node {node.name!r} has type {attribute.type.name},"
            f" not {kind.name}",
            "export the model again",
        )
    return attribute

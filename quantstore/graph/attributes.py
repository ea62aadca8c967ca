"""A node's attributes as plain numbers, whatever a file may hold in their place."""

import onnx_ir as ir

from quantstore.errors import ModelFileError


def integer(node: ir.Node, name: str, default: int) -> int:
    """The attribute as a whole number, ``default`` where the node does not have it."""
    attribute = _attribute(node, name, ir.AttributeType.INT)
    return default if attribute is None else attribute.as_int()


def number(node: ir.Node, name: str, default: float) -> float:
    """The attribute as a floating-point number, ``default`` where the node does not have it."""
    attribute = _attribute(node, name, ir.AttributeType.FLOAT)
    return default if attribute is None else attribute.as_float()


def _attribute(node: ir.Node, name: str, kind: ir.AttributeType) -> ir.Attr | None:
    attribute = node.attributes.get(name)
    if attribute is not None and attribute.type != kind:
        raise ModelFileError(
            f"attribute {name!r} of node {node.name!r} has type {attribute.type.name},"
            f" not {kind.name}",
            "export the model again",
        )
    return attribute

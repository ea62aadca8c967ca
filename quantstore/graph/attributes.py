"""A node's attributes as plain values, whatever a file may hold in their place."""

import ast
import json
import math

import numpy as np
import onnx_ir as ir

from quantstore.errors import ModelFileError

# Where torch's exporter says which module a node comes from: the names of its scopes from the
# outside in, the last one the operation itself; under the other key with the class of each.
_SCOPES = "pkg.torch.onnx.name_scopes"
_NAMESPACE = "namespace"
_LONGEST_METADATA = 10_000

# Beyond these an attribute is data, not a setting.
_LONGEST_TEXT = 100
_LONGEST_LIST = 32
_LONGEST_JSON = 2_000

_Plain = int | float | str | list["_Plain"]


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
            f"attribute {name!r} of node {node.name!r} is not valid text", "export the model again"
        )
    return value


def plain(node: ir.Node) -> str | None:
    """The node's settings as one line of JSON, sorted by name; None where it has none.

    Whole numbers, floating-point numbers, short texts and short lists of them, as the file spells
    them out: what is left to its default is not there, and neither are tensors, graphs and whatever
    is too long. Floats that JSON has no number for are texts such as ``NaN``.
    """
    pairs: list[str] = []
    length = 0
    for name in sorted(node.attributes):
        attribute = node.attributes[name]
        value = None if attribute.is_ref() else _plain(attribute)
        if value is None or len(name) > _LONGEST_TEXT:
            continue
        pair = f"{_json(name)}:{_json(value)}"
        length += len(pair) + 1
        if length >= _LONGEST_JSON:
            break
        pairs.append(pair)
    return "{" + ",".join(pairs) + "}" if pairs else None


def _plain(attribute: ir.Attr) -> "_Plain | None":
    value = attribute.value
    match attribute.type:
        case ir.AttributeType.INT:
            return int(value)
        case ir.AttributeType.FLOAT:
            return _float(value)
        case ir.AttributeType.STRING:
            return _short_text(value)
        case ir.AttributeType.INTS if len(value) <= _LONGEST_LIST:
            return [int(number) for number in value]
        case ir.AttributeType.FLOATS if len(value) <= _LONGEST_LIST:
            return [_float(number) for number in value]
        case ir.AttributeType.STRINGS if len(value) <= _LONGEST_LIST:
            texts = [_short_text(entry) for entry in value]
            return [entry for entry in texts if entry is not None] if None not in texts else None
    return None


def _float(value: float) -> float | str:
    """A float32 in as few digits as tell it from its neighbours."""
    if math.isfinite(value):
        with np.errstate(over="ignore"):
            return float(str(np.float32(value)))
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _short_text(value: object) -> str | None:
    """A text; bytes are what a file has instead of one that is no UTF-8."""
    return value if isinstance(value, str) and len(value) <= _LONGEST_TEXT else None


def _json(value: "_Plain") -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def module_path(node: ir.Node) -> str | None:
    """The module that a node was exported from, such as ``backbone.layer1.0``.

    None where the file does not say, or where the node belongs to the whole model.
    """
    scopes: list[str] = []
    written = node.metadata_props.get(_SCOPES, "")
    if 0 < len(written) < _LONGEST_METADATA:
        try:
            scope_names = ast.literal_eval(written)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            scope_names = None
        if isinstance(scope_names, list):
            scopes = [scope for scope in scope_names if isinstance(scope, str)]
    if not scopes:
        namespace = node.metadata_props.get(_NAMESPACE, "")
        if ": " in namespace:
            scopes = [part.partition(": ")[0] for part in namespace.split("/")]
    return next((scope for scope in reversed(scopes[:-1]) if scope), None)


def _attribute(node: ir.Node, name: str, expected_type: ir.AttributeType) -> ir.Attr | None:
    attribute = node.attributes.get(name)
    if attribute is not None and attribute.is_ref():
        # It stands for an attribute of a function's call, and outside of functions for nothing.
        return None
    if attribute is not None and attribute.type != expected_type:
        raise ModelFileError(
            f"attribute {name!r} of node {node.name!r} has type {attribute.type.name},"
            f" not {expected_type.name}",
            "export the model again",
        )
    return attribute

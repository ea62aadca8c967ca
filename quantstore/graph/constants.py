"""Which values of a graph are constant, and where their tensors lie."""

import onnx_ir as ir


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The stored tensor behind a value, None where the value is computed at run time.

    Looks through Identity; knows initializers (also those that an old IR version lists among the
    graph's inputs) and Constant nodes.
    """
    seen: set[int] = set()
    while value is not None and id(value) not in seen:
        seen.add(id(value))
        if value.const_value is not None:
            return value.const_value
        node = value.producer()
        if node is None:
            return None
        if node.op_type == "Constant":
            attribute = node.attributes.get("value")
            is_tensor = attribute is not None and attribute.type == ir.AttributeType.TENSOR
            return attribute.as_tensor() if is_tensor and attribute is not None else None
        if node.op_type != "Identity" or not node.inputs:
            return None
        value = node.inputs[0]
    return None


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The node that alone reads a value; None where there are more, or the graph returns it."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    return next(iter(uses)).node

"""Where the outputs of two networks are compared: before whatever hides or reorders the difference.

A saturated Softmax reports 100 dB where the scores before it differ at 20; behind NonMaxSuppression
or TopK the tensors do not even hold the same things in the same order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common as passes

# They squash, so that a difference shrinks or is lost. Their input is compared.
SQUASHING = ("Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "ArgMax", "ArgMin")
# What they give, and in which order, depends on the data. Nothing behind them can be compared.
SELECTING = (
    "TopK",
    "NonMaxSuppression",
    "NonZero",
    "Unique",
    "Compress",
    "ArgMax",
    "ArgMin",
    "ZipMap",
    "ArrayFeatureExtractor",
)
# Looked through on the way back to a squashing operator: they move values, or pick the largest.
PASSING = (
    "Reshape",
    "Transpose",
    "Identity",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Cast",
    "Dropout",
    "Slice",
    "Split",
    "Gather",
    "ReduceMax",
    "Max",
    "ZipMap",
    "ArrayFeatureExtractor",
)
# Before a selection, boxes are decoded with constants that carry energy and hide a loss.
DECODING = ("Add", "Sub", "Mul", "Div")
FLOATS = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.DOUBLE,
    ir.DataType.BFLOAT16,
    None,
)


@dataclass(frozen=True, slots=True)
class Points:
    """Names of the tensors to compare, in graph order, and where that is, in words."""

    names: tuple[str, ...]
    description: str


@dataclass(frozen=True, slots=True)
class _Stripped:
    """Values to compare in place of one; ``stepped_over``: operators between, the last first."""

    values: tuple[ir.Value, ...]
    stepped_over: tuple[str, ...] = ()


def cut(model: ir.Model) -> Points:
    """Make the points of comparison the outputs of the model, in place, and drop what is behind.

    There may be none, where no float tensor depends on the inputs.
    """
    search = _Search(model.graph)
    compared = search.points()
    model.graph.outputs.clear()
    for value in compared:
        if value.type is None:
            value.type = ir.TensorType(ir.DataType.FLOAT)
        # Inferred shapes of a file can be wrong, and nobody needs that of an output.
        value.shape = None
        model.graph.outputs.append(value)
    passes.RemoveUnusedNodesPass()(model)
    return Points(tuple(str(value.name) for value in compared), search.description())


class _Search:
    """Walks from the outputs of a graph back to what can be compared."""

    def __init__(self, main: ir.Graph) -> None:
        self._main = main
        # Values that depend on the inputs' data, not on their shapes alone.
        self._live = {value for value in main.inputs if value.const_value is None}
        # Values behind a selection.
        self._selected: set[ir.Value] = set()
        self._selecting: dict[str, None] = {}
        self._squashing: dict[str, None] = {}
        self._has_plain = self._has_selection = self._has_decoding = False
        # Nodes come in topological order.
        for node in main:
            if node.op_type in ("Shape", "Size"):
                continue
            read = list(_read_by(node))
            if not any(value in self._live for value in read):
                continue
            self._live.update(node.outputs)
            if node.op_type in SELECTING or any(value in self._selected for value in read):
                self._selected.update(node.outputs)

    def points(self) -> list[ir.Value]:
        """What to compare, each value once."""
        compared: dict[ir.Value, None] = {}
        for output in list(self._main.outputs):
            if output in self._selected:
                self._has_selection = True
                seen: set[ir.Value] = set()
                compared |= dict.fromkeys(self._before_selection(output, seen))
            elif output in self._live and self._is_comparable(output):
                stripped = self._stripped(output, is_selected=False)
                self._note(stripped)
                self._has_plain = self._has_plain or not stripped.stepped_over
                compared |= dict.fromkeys(stripped.values)
        return [value for value in compared if self._is_comparable(value)]

    def description(self) -> str:
        """Where the points are, for a reader: of :meth:`points`, called before."""
        phrases = ["the outputs"] if self._has_plain else []
        squashing = _listed(self._squashing)
        if self._has_selection:
            phrase = f"the last tensors before {_listed(self._selecting)}"
            extra = [f"before {squashing}"] if squashing else []
            extra += ["before boxes are decoded"] if self._has_decoding else []
            phrases.append(f"{phrase} ({', '.join(extra)})" if extra else phrase)
        elif squashing:
            phrases.append(f"before the final {squashing}")
        return " and ".join(phrases) or "nothing"

    def _is_comparable(self, value: ir.Value) -> bool:
        # An input is the same in both models.
        return value in self._live and value.producer() is not None and value.dtype in FLOATS

    def _note(self, stripped: _Stripped) -> None:
        for op_type in stripped.stepped_over:
            if op_type in DECODING:
                self._has_decoding = True
            else:
                self._squashing[op_type] = None

    def _before_selection(self, value: ir.Value, seen: set[ir.Value]) -> Iterator[ir.Value]:
        """The float tensors that feed the part of the graph behind a selection."""
        if value in seen:
            return
        seen.add(value)
        node = value.producer()
        if node is None:
            return
        if node.op_type in SELECTING:
            self._selecting[node.op_type] = None
        for read in _read_by(node):
            if read in self._selected:
                yield from self._before_selection(read, seen)
            elif read in self._live and read.dtype in FLOATS:
                stripped = self._stripped(read, is_selected=True)
                self._note(stripped)
                yield from stripped.values

    def _stripped(self, value: ir.Value, *, is_selected: bool) -> _Stripped:
        """Back over what only moves values, to the input of a squashing operator if there is one.

        Args:
            is_selected: also step back over arithmetic with constants. Not for plain outputs: it
                would strip the last bias.
        """
        whole = _Stripped((value,))
        node = value.producer()
        if node is None:
            return whole
        op_type = node.op_type
        if op_type in SQUASHING and node.inputs[0] is not None:
            return _Stripped((node.inputs[0],), (op_type,))
        if op_type in PASSING:
            source = node.inputs[1 if op_type == "ArrayFeatureExtractor" else 0]
            inner = whole if source is None else self._stripped(source, is_selected=is_selected)
            return inner if inner.stepped_over else whole
        if op_type == "Concat":
            stripped_inputs = [
                self._stripped(operand, is_selected=is_selected)
                for operand in node.inputs
                if operand is not None and operand in self._live
            ]
            stepped = tuple(name for part in stripped_inputs for name in part.stepped_over)
            if stepped:
                return _Stripped(
                    tuple(leaf for part in stripped_inputs for leaf in part.values), stepped
                )
        if op_type == "If":
            output_index = list(node.outputs).index(value)
            return _Stripped((value,), tuple(_strip_branches(node, output_index)))
        if is_selected and op_type in DECODING:
            moving = [
                operand for operand in node.inputs if operand is not None and operand in self._live
            ]
            if len(moving) == 1:
                inner = self._stripped(moving[0], is_selected=True)
                return _Stripped(inner.values, (op_type, *inner.stepped_over))
        return whole


def _strip_branches(node: ir.Node, output_index: int) -> Iterator[str]:
    """Let both branches of an If give what they have before they squash, in place; over what."""
    for name in ("then_branch", "else_branch"):
        branch = node.attributes[name].as_graph()
        value = output = branch.outputs[output_index]
        inner = value.producer()
        while inner is not None and inner.op_type in (*PASSING, *SQUASHING, "If"):
            if inner.op_type == "If":
                yield from _strip_branches(inner, list(inner.outputs).index(value))
                break
            source = inner.inputs[0]
            if source is None:
                break
            if inner.op_type in SQUASHING:
                branch.outputs[output_index] = source
                source.type = source.type or output.type
                yield inner.op_type
                break
            value, inner = source, source.producer()


def _read_by(node: ir.Node) -> Iterator[ir.Value]:
    """Inputs of a node, and what its subgraphs read."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in attribute.as_graph().all_nodes():
                yield from (value for value in inner.inputs if value is not None)


def _listed(names: Sequence[str] | dict[str, None]) -> str:
    *others, last = [*names] or [""]
    return f"{', '.join(others)} and {last}" if others else last

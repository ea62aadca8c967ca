"""Where the outputs of two networks are compared: before whatever hides or reorders the difference.

A saturated Softmax reports 100 dB where the scores before it differ at 20; behind NonMaxSuppression
or TopK the tensors do not even hold the same things in the same order; constants that decode a
head carry energy that no rounding touches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from quantstore.graph.attributes import integer, number
from quantstore.graph.constants import constant_tensor
from quantstore.graph.fold import values_of
from quantstore.run.noise import names_a_state

# They squash, so that a difference shrinks or is lost. Their input is compared.
SIGMOIDS = ("Sigmoid", "HardSigmoid")
SOFTMAXES = ("Softmax", "LogSoftmax")
LARGEST = ("ArgMax", "ArgMin")
SQUASHING = (*SOFTMAXES, *SIGMOIDS, *LARGEST)
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
    "GatherElements",
    "ReduceMax",
    "Max",
    "ZipMap",
    "ArrayFeatureExtractor",
)
# What is bounded stays bounded.
BOUNDING = ("Mul", "Sqrt", "Pow", "Min", "Clip")
# Boxes are decoded with constants that carry energy and hide a loss.
DECODING = ("Add", "Sub", "Mul", "Div", "Exp", "Pow")
# What a head ends with.
HEADS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN")
FLOATS = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.DOUBLE,
    ir.DataType.BFLOAT16,
    None,
)
# Graphs name few outputs that matter at once.
_MOST_NAMED = 3

# How the values of a point decide: each by itself against a limit, or the largest along an axis.
Decision = Literal["", "set", "top1"]


@dataclass(frozen=True, slots=True)
class Part:
    """An output, or a part that a Concat joins there, and the tensors in which it is compared.

    ``output``: names of the outputs of the model that hang on it. ``part``: empty for a whole
    output. ``point``: where the tensors are, in words. ``limit``: with ``decision`` ``set``, what
    an element must exceed. ``axis``: with ``top1``, along which one is chosen; ``is_flat``: along
    it and all axes behind it together. ``is_decoded``: constants are applied to it, anchors for
    example. ``is_state``: of a recurrent network, fed back.
    """

    output: str
    part: str
    names: tuple[str, ...]
    point: str
    decision: Decision = ""
    limit: float = 0.0
    axis: int = -1
    is_flat: bool = False
    is_decoded: bool = False
    is_state: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """A tensor that a runtime hands out, or the last before a selection: behind the decoder."""

    output: str
    name: str


@dataclass(frozen=True, slots=True)
class Join:
    """A Concat behind a selection that puts scores and other values on one grid.

    ``node``: its name. ``scores`` and ``values``: the tensors before the selection, by their names,
    that its operands were taken from.
    """

    node: str
    scores: tuple[str, ...]
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Points:
    """Names of the tensors to compare, in graph order, and where that is, in words.

    ``parts``: the same by output. ``ends``: what the tensors become behind them, without those
    that are compared as they are. ``joins``: what happens to those behind a selection.
    """

    names: tuple[str, ...]
    description: str
    parts: tuple[Part, ...] = ()
    ends: tuple[End, ...] = ()
    joins: tuple[Join, ...] = ()


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A tensor to compare; ``stepped_over``: operators behind it, the last first.

    ``squashing``: the one that reads it, if it is squashed.
    """

    value: ir.Value
    stepped_over: tuple[str, ...] = ()
    squashing: "_Squashing | None" = None

    @property
    def key(self) -> tuple[str, bool]:
        """What is of one kind."""
        decision = self.squashing.decision if self.squashing else ""
        return decision, any(name in DECODING for name in self.stepped_over)

    def behind(self, op_type: str) -> "_Leaf":
        return _Leaf(self.value, (op_type, *self.stepped_over), self.squashing)


@dataclass(frozen=True, slots=True)
class _Squashing:
    name: str
    decision: Decision
    limit: float = 0.0
    axis: int = -1
    is_flat: bool = False


# Of the values that a Sigmoid gives. Detectors are used with limits from 0.25 to 0.5.
SCORE_LIMIT = 0.3


@dataclass(slots=True)
class _Group:
    """Leaves of one kind at an output, and the outputs that hang on them."""

    outputs: dict[str, None] = field(default_factory=dict)
    leaves: list[_Leaf] = field(default_factory=list)
    selecting: tuple[str, ...] = ()
    is_state: bool = False


def cut(model: ir.Model, *, keeps_decoder: bool = False) -> Points:
    """Make the points of comparison the outputs of the model, in place, and drop what is behind.

    There may be none, where no float tensor depends on the inputs.

    Args:
        keeps_decoder: what is behind the points stays as far as it can be compared: the outputs of
            the model are :attr:`Points.names`, and after them :attr:`Points.ends`.
    """
    search = _Search(model)
    compared = search.points()
    values = list(compared)
    points = Points(
        tuple(str(value.name) for value in values),
        search.description(),
        search.output_parts(),
        search.ends(compared),
        search.joins(),
    )
    if keeps_decoder:
        values += search.end_values(points.ends)
    model.graph.outputs.clear()
    for value in values:
        if value.type is None:
            value.type = ir.TensorType(ir.DataType.FLOAT)
        # Inferred shapes of a file can be wrong, and nobody needs that of an output.
        value.shape = None
        model.graph.outputs.append(value)
    passes.RemoveUnusedNodesPass()(model)
    return points


class _Search:
    """Walks from the outputs of a graph back to what can be compared."""

    def __init__(self, model: ir.Model) -> None:
        main = model.graph
        self._main = main
        self._opset = model.opset_imports.get("") or model.opset_imports.get("ai.onnx")
        # Values that depend on the inputs' data, not on their shapes alone.
        self._live = {value for value in main.inputs if value.const_value is None}
        # Integers that no float has touched, such as lengths and shapes: rounding changes none.
        self._exact = {value for value in self._live if value.dtype not in FLOATS}
        # Values behind a selection.
        self._selected: set[ir.Value] = set()
        self._selecting: dict[str, None] = {}
        self._squashing: dict[str, None] = {}
        self._has_plain = self._has_selection = self._has_decoding = False
        self._groups: list[_Group] = []
        self._group_of: dict[ir.Value, _Group] = {}
        self._ends: dict[ir.Value, str] = {}
        self._stripped_of: dict[tuple[ir.Value, bool], tuple[_Leaf, ...]] = {}
        # Nodes come in topological order.
        for node in main:
            if node.op_type in ("Shape", "Size"):
                self._exact.update(node.outputs)
                continue
            read = list(_read_by(node))
            is_exact = self._is_exact(node, read)
            if is_exact:
                self._exact.update(node.outputs)
            if not any(value in self._live for value in read):
                continue
            self._live.update(node.outputs)
            if is_exact:
                continue
            if node.op_type in SELECTING or any(value in self._selected for value in read):
                self._selected.update(node.outputs)

    def _is_exact(self, node: ir.Node, read: Sequence[ir.Value]) -> bool:
        """Whether integers are computed from integers, and from shapes."""
        if any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
            return False
        if node.op_type == "Cast":
            return read[0] in self._exact and ir.DataType(integer(node, "to", 0)) not in FLOATS
        if node.op_type in ("DequantizeLinear", "ConstantOfShape"):
            return False
        return bool(read) and all(
            # What depends on the data of an input is no constant.
            value in self._exact or (value not in self._live and _holds_integers(value))
            for value in read
        )

    def points(self) -> list[ir.Value]:
        """What to compare, each value once."""
        compared: dict[ir.Value, None] = {}
        for output in list(self._main.outputs):
            name = str(output.name)
            if output in self._selected:
                self._has_selection = True
                selecting: dict[str, None] = {}
                for read in self._before_selection(output, set(), selecting):
                    self._ends.setdefault(read, name)
                    leaves = self._stripped(read, is_selected=True)
                    self._add(name, leaves, tuple(selecting))
                    compared |= dict.fromkeys(leaf.value for leaf in leaves)
                self._selecting |= selecting
            elif output in self._live and self._is_comparable(output):
                self._ends.setdefault(output, name)
                leaves = self._stripped(output, is_selected=False)
                is_plain = not any(leaf.stepped_over for leaf in leaves)
                self._has_plain = self._has_plain or is_plain
                self._add(name, leaves, (), is_state=self._is_state(output))
                compared |= dict.fromkeys(leaf.value for leaf in leaves)
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
        else:
            if squashing:
                phrases.append(f"before the final {squashing}")
            if self._has_decoding:
                phrases.append("before constants are applied")
        return " and ".join(phrases) or "nothing"

    def output_parts(self) -> tuple[Part, ...]:
        """What was found, by output: of :meth:`points`, called before."""
        groups = [
            (group, leaves)
            for group in self._groups
            if (leaves := [leaf for leaf in group.leaves if self._is_comparable(leaf.value)])
        ]
        counts: dict[tuple[str, str], int] = {}
        together: dict[str, int] = {}
        for group, _ in groups:
            together[_outputs_of(group)] = together.get(_outputs_of(group), 0) + 1
        rows = []
        for group, leaves in groups:
            output = _outputs_of(group)
            squashing = leaves[0].squashing or _Squashing("values", "")
            part = ""
            if together[output] > 1:
                part = squashing.name
                counts[output, part] = number_of = counts.get((output, part), 0) + 1
                part = f"{part} {number_of}" if number_of > 1 else part
            rows.append(
                Part(
                    output=output,
                    part=part,
                    names=tuple(dict.fromkeys(str(leaf.value.name) for leaf in leaves)),
                    point=_point(group, leaves),
                    is_decoded=leaves[0].key[1],
                    is_state=group.is_state,
                    decision=squashing.decision,
                    limit=squashing.limit,
                    axis=squashing.axis,
                    is_flat=squashing.is_flat,
                )
            )
        return tuple(rows)

    def ends(self, compared: Sequence[ir.Value]) -> tuple[End, ...]:
        """What the points become: of :meth:`points`, called before."""
        points = set(compared)
        return tuple(
            End(output, str(value.name))
            for value, output in self._ends.items()
            if value not in points
            and value.dtype in FLOATS
            and value.producer() is not None
            # Where the branches of an If were cut short, what is behind it is another network.
            and not any(
                leaf.stepped_over and _producer(leaf.value, "If") is not None
                for leaf in self._stripped(value, is_selected=value not in self._main.outputs)
            )
        )

    def end_values(self, ends: Sequence[End]) -> list[ir.Value]:
        """The tensors by these names."""
        names = {end.name for end in ends}
        return [value for value in self._ends if value.name in names]

    def joins(self) -> tuple[Join, ...]:
        """Where scores and other values meet behind a selection: of :meth:`points`, called before.

        Their order depends on the data there, but not the grid on which they are put.
        """
        joins = []
        for node in self._main:
            if node.op_type != "Concat" or node.outputs[0] not in self._selected:
                continue
            sources = self._sources(node.outputs[0])
            scores = [
                str(operand.name) for operand in sources if score_operator(operand) is not None
            ]
            values = [str(operand.name) for operand in sources if score_operator(operand) is None]
            if scores and values:
                name = node.name or str(node.outputs[0].name)
                joins.append(Join(name, tuple(scores), tuple(values)))
        return tuple(joins)

    def _sources(self, value: ir.Value) -> list[ir.Value]:
        """The float tensors before a selection whose values, moved or picked, a tensor holds."""
        sources: dict[ir.Value, None] = {}
        waiting, seen = [value], {value}
        while waiting:
            value = waiting.pop()
            if value in self._ends:
                if value.dtype in FLOATS:
                    sources[value] = None
                continue
            node = value.producer()
            if node is None or value not in self._live:
                continue
            read = [operand for operand in node.inputs if operand is not None]
            if node.op_type == "Where":
                read = read[1:]
            elif node.op_type not in ("Concat", *DECODING):
                read = read[:1]
            fresh = [operand for operand in read if operand not in seen]
            seen.update(fresh)
            waiting += fresh
        return list(sources)

    def _is_comparable(self, value: ir.Value) -> bool:
        # An input is the same in both models.
        return self._is_float(value) and value.producer() is not None

    def _is_float(self, value: ir.Value) -> bool:
        return value in self._live and value not in self._exact and value.dtype in FLOATS

    def _is_state(self, output: ir.Value) -> bool:
        """Whether an output is fed back: an input that is called a state has its shape."""
        return any(
            names_a_state(str(value.name)) and _is_alike(value.shape, output.shape)
            for value in self._main.inputs
            if value.const_value is None and value.dtype in FLOATS
        )

    def _add(
        self,
        output: str,
        leaves: Sequence[_Leaf],
        selecting: tuple[str, ...],
        *,
        is_state: bool = False,
    ) -> None:
        """Sort what is compared for an output by kinds; each value belongs to one group."""
        group_of_key: dict[tuple[str, bool], _Group] = {}
        for leaf in leaves:
            for op_type in leaf.stepped_over:
                if op_type in DECODING:
                    self._has_decoding = True
                elif op_type in SQUASHING:
                    self._squashing[op_type] = None
            group = self._group_of.get(leaf.value) or group_of_key.get(leaf.key)
            if group is None:
                group = group_of_key[leaf.key] = _Group(selecting=selecting, is_state=is_state)
                self._groups.append(group)
            if leaf.value not in self._group_of:
                self._group_of[leaf.value] = group
                group.leaves.append(leaf)
            group.outputs[output] = None

    def _before_selection(
        self, value: ir.Value, seen: set[ir.Value], selecting: dict[str, None]
    ) -> Iterator[ir.Value]:
        """The float tensors that feed the part of the graph behind a selection."""
        if value in seen:
            return
        seen.add(value)
        node = value.producer()
        if node is None:
            return
        if node.op_type in SELECTING:
            selecting[node.op_type] = None
        for read in _read_by(node):
            if read in self._selected:
                yield from self._before_selection(read, seen, selecting)
            elif self._is_float(read):
                yield read

    def _stripped(self, value: ir.Value, *, is_selected: bool) -> tuple[_Leaf, ...]:
        """What to compare in place of a value."""
        key = value, is_selected
        if key not in self._stripped_of:
            self._stripped_of[key] = self._looked_through(value, is_selected=is_selected)
        return self._stripped_of[key]

    def _looked_through(self, value: ir.Value, *, is_selected: bool) -> tuple[_Leaf, ...]:
        """Back over what only moves values, to the input of a squashing operator if there is one.

        Also over arithmetic with constants, where a head or something bounded is behind it.

        Args:
            is_selected: over that arithmetic in any case.
        """
        whole = (_Leaf(value),)
        node = value.producer()
        if node is None or value not in self._live:
            return whole
        op_type = node.op_type
        squashed = self._squashed(node)
        if squashed is not None:
            return (squashed,)
        if op_type in PASSING or _is_mean_of_one(node):
            source = node.inputs[1 if op_type == "ArrayFeatureExtractor" else 0]
            inner = whole if source is None else self._stripped(source, is_selected=is_selected)
            return inner if any(leaf.stepped_over for leaf in inner) else whole
        if op_type == "Concat":
            leaves = [
                leaf
                for operand in node.inputs
                if operand is not None and operand in self._live
                for leaf in self._stripped(operand, is_selected=is_selected)
            ]
            return tuple(leaves) if any(leaf.stepped_over for leaf in leaves) else whole
        if op_type == "If":
            output_index = list(node.outputs).index(value)
            stepped = tuple(_strip_branches(node, output_index))
            if not stepped:
                return whole
            # Its branches give now what they had before they squashed.
            return (_Leaf(value, stepped, _Squashing(stepped[0], *_decision(stepped[0]))),)
        return self._before_arithmetic(node, is_selected=is_selected) or whole

    def _squashed(self, node: ir.Node) -> _Leaf | None:
        """What a squashing operator reads, or one that is spelled out."""
        source = node.inputs[0] if node.inputs else None
        if source is None:
            return None
        op_type = node.op_type
        if op_type in SIGMOIDS:
            limit = float(np.log(SCORE_LIMIT / (1 - SCORE_LIMIT)))
            if op_type == "HardSigmoid":
                limit = (SCORE_LIMIT - number(node, "beta", 0.5)) / number(node, "alpha", 0.2)
            return _Leaf(source, (op_type,), _Squashing(op_type, "set", limit))
        if op_type in SOFTMAXES:
            is_flat = self._opset is not None and self._opset < 13
            axis = integer(node, "axis", 1 if is_flat else -1)
            squashing = _Squashing(op_type, "top1", axis=axis, is_flat=is_flat)
            return _Leaf(source, (op_type,), squashing)
        if op_type == "ArgMax":
            axis = integer(node, "axis", 0)
            return _Leaf(source, (op_type,), _Squashing(op_type, "top1", axis=axis))
        if op_type == "ArgMin":
            return _Leaf(source, (op_type,))
        return self._spelled_softmax(node)

    def _spelled_softmax(self, node: ir.Node) -> _Leaf | None:
        """``exp(x - max x) / sum exp(x - max x)``, the subtraction or not."""
        if node.op_type != "Div" or len(node.inputs) != 2:
            return None
        raised, total = node.inputs
        exp, add = _producer(raised, "Exp"), _producer(total, "ReduceSum")
        if exp is None or add is None or add.inputs[0] is not raised:
            return None
        source = exp.inputs[0]
        less = _producer(source, "Sub")
        if less is not None:
            largest = _producer(less.inputs[1], "ReduceMax")
            if largest is not None and largest.inputs[0] is less.inputs[0]:
                source = less.inputs[0]
        axis = _only_axis(add)
        if source is None or axis is None:
            return None
        return _Leaf(source, ("Softmax",), _Squashing("Softmax", "top1", axis=axis))

    def _before_arithmetic(self, node: ir.Node, *, is_selected: bool) -> tuple[_Leaf, ...]:
        """What a head or something bounded gives to arithmetic; nothing where there is no such."""
        op_type = node.op_type
        moving = [value for value in node.inputs if value is not None and value in self._live]
        if len(moving) > 1:
            if op_type not in ("Add", "Sub", *BOUNDING):
                return ()
            each = [self._stripped(value, is_selected=is_selected) for value in moving]
            if op_type in BOUNDING and all(_is_bounded(leaves) for leaves in each):
                return tuple(leaf.behind("") for leaves in each for leaf in leaves)
            # Corners from the middle and the size: both come from one head.
            values = [tuple(leaf.value for leaf in leaves) for leaves in each]
            is_one_head = op_type in ("Add", "Sub") and len(set(values)) == 1
            return each[0] if is_one_head and any(leaf.stepped_over for leaf in each[0]) else ()
        if len(moving) != 1 or op_type not in (*DECODING, *BOUNDING):
            return ()
        inner = self._stripped(moving[0], is_selected=is_selected)
        if op_type in BOUNDING and op_type != "Mul" and _is_bounded(inner):
            return tuple(leaf.behind("") for leaf in inner)
        if op_type not in DECODING or (_is_last_bias(node, moving[0]) and not is_selected):
            return ()
        has_more = any(leaf.stepped_over for leaf in inner)
        if is_selected or has_more or _head_of(moving[0]) is not None:
            return tuple(leaf.behind(op_type) for leaf in inner)
        return ()


def score_operator(value: ir.Value) -> str | None:
    """The operator that bounds a value to 0 to 1, perhaps behind others; None where none does."""
    waiting = [value]
    operator = None
    while waiting:
        node = waiting.pop().producer()
        if node is None:
            return None
        if node.op_type in (*SIGMOIDS, "Softmax"):
            operator = node.op_type
        elif node.op_type == "Div" and _is_share(node):
            operator = "Softmax"
        elif node.op_type in (*BOUNDING, *PASSING):
            sources = [
                operand
                for operand in node.inputs
                if operand is not None and operand.const_value is None
            ]
            waiting += sources if node.op_type in BOUNDING else sources[:1]
        else:
            return None
    return operator


def _is_share(node: ir.Node) -> bool:
    """Whether a Div is the last step of a softmax that is spelled out."""
    total = _producer(node.inputs[1], "ReduceSum")
    return (
        total is not None
        and total.inputs[0] is node.inputs[0]
        and _producer(node.inputs[0], "Exp") is not None
    )


def _is_bounded(leaves: Sequence[_Leaf]) -> bool:
    """Whether all come from a Sigmoid or a Softmax, and no constant made more of them."""
    return all(
        leaf.squashing is not None
        and leaf.squashing.name not in ("LogSoftmax", *LARGEST)
        and not any(name in DECODING for name in leaf.stepped_over)
        for leaf in leaves
    )


def _decision(op_type: str) -> tuple[Decision, float]:
    if op_type in SIGMOIDS:
        return "set", float(np.log(SCORE_LIMIT / (1 - SCORE_LIMIT)))
    return ("top1" if op_type != "ArgMin" else ""), 0.0


def _is_last_bias(node: ir.Node, source: ir.Value) -> bool:
    """Whether an Add is the bias of the layer right before it: it belongs to the head."""
    head = source.producer()
    if node.op_type != "Add" or head is None or head.op_type not in HEADS:
        return False
    others = [value for value in node.inputs if value is not None and value is not source]
    array = None if not others else values_of(others[0], None)
    if array is None:
        return False
    return bool(np.sum(np.array(array.shape) > 1) <= 1)


def _head_of(value: ir.Value) -> ir.Node | None:
    """The layer that gives a value, behind its bias and what only moves values."""
    node = value.producer()
    while node is not None:
        if node.op_type in HEADS:
            return node
        if node.op_type in PASSING and node.op_type not in ("ReduceMax", "Max"):
            source = node.inputs[0]
        elif node.op_type == "Add":
            sources = [
                operand
                for operand in node.inputs
                if operand is not None and _producer(operand, *HEADS) is not None
            ]
            if len(sources) != 1 or not _is_last_bias(node, sources[0]):
                return None
            source = sources[0]
        elif node.op_type == "Concat":
            heads = [None if operand is None else _head_of(operand) for operand in node.inputs]
            return heads[0] if all(head is not None for head in heads) else None
        else:
            return None
        node = None if source is None else source.producer()
    return None


def _is_mean_of_one(node: ir.Node) -> bool:
    """Whether a ReduceMean has nothing to average, as far as the file tells."""
    if node.op_type != "ReduceMean" or node.inputs[0] is None:
        return False
    axis, shape = _only_axis(node), node.inputs[0].shape
    if axis is None:
        return False
    if shape is None or not -len(shape) <= axis < len(shape):
        return True
    size = shape[axis]
    return size == 1 or not isinstance(size, int)


def _only_axis(node: ir.Node) -> int | None:
    """The one axis along which a reduction goes; None where there are several, or none is known."""
    attribute = node.attributes.get("axes")
    if attribute is not None:
        axes = list(attribute.as_ints())
    elif len(node.inputs) > 1 and node.inputs[1] is not None:
        array = values_of(node.inputs[1], None)
        axes = [] if array is None else [int(axis) for axis in array.ravel()]
    else:
        axes = []
    return int(axes[0]) if len(axes) == 1 else None


def _producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node that computes a value, where it is of one of these kinds."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in op_types else None


def _is_alike(first: ir.Shape | None, second: ir.Shape | None) -> bool:
    if first is None or second is None or len(first) != len(second):
        return False
    pairs = [(operand, other) for operand, other in zip(first, second, strict=True)]
    return all(
        operand == other
        for operand, other in pairs
        if isinstance(operand, int) and isinstance(other, int)
    )


def _outputs_of(group: _Group) -> str:
    return _first_of(list(group.outputs))


def _first_of(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _point(group: _Group, leaves: Sequence[_Leaf]) -> str:
    """Where the tensors of a group are, in words."""
    names = list(dict.fromkeys(str(leaf.value.name) for leaf in leaves))
    stepped = list(dict.fromkeys(name for leaf in leaves for name in leaf.stepped_over if name))
    squashing = [name for name in stepped if name not in DECODING]
    phrases = [f"before {_listed(squashing)}"] if squashing else []
    if any(name in DECODING for name in stepped):
        phrases.append("before constants are applied")
    if group.selecting:
        phrases.append(f"before {_listed(group.selecting)}")
    return ", ".join([_first_of(names), *phrases]) if phrases else "the output"


def _strip_branches(node: ir.Node, output_index: int) -> Iterator[str]:
    """Let both branches of an If give what they have before they squash, in place; over what."""
    for name in ("then_branch", "else_branch"):
        branch = node.attributes[name].as_graph()
        value = output = branch.outputs[output_index]
        reader: ir.Node | None = None
        while (inner := value.producer()) is not None:
            if inner.op_type == "If":
                yield from _strip_branches(inner, list(inner.outputs).index(value))
                break
            source = inner.inputs[0] if inner.inputs else None
            if source is None:
                break
            if inner.op_type in SQUASHING:
                if reader is None or inner.op_type in LARGEST:
                    branch.outputs[output_index] = _in_graph(source, branch)
                    source.type = source.type or output.type
                else:
                    # What moves the values goes on doing so.
                    reader.replace_input_with(list(reader.inputs).index(value), source)
                yield inner.op_type
                break
            if inner.op_type not in PASSING and not _is_mean_of_one(inner):
                break
            value, reader = source, inner


def _in_graph(value: ir.Value, branch: ir.Graph) -> ir.Value:
    """The value, or where another graph has it what a branch may give in its place."""
    if value.graph is branch and not value.is_graph_output():
        return value
    same = ir.node("Identity", [value])
    branch.append(same)
    return same.outputs[0]


def _read_by(node: ir.Node) -> Iterator[ir.Value]:
    """Inputs of a node, and what its subgraphs read."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in attribute.as_graph().all_nodes():
                yield from (value for value in inner.inputs if value is not None)


def _holds_integers(value: ir.Value) -> bool:
    tensor = constant_tensor(value)
    return tensor is not None and tensor.dtype not in FLOATS


def _listed(names: Sequence[str] | dict[str, None]) -> str:
    *others, last = [*names] or [""]
    return f"{', '.join(others)} and {last}" if others else last

"""Nodes that round a tensor to a grid, which is fed (:class:`GridInputs`) or constant.

The rounding is that of QuantizeLinear and DequantizeLinear, in float32::

    ((clip(x / scale, lowest, highest) + magic) - magic) * scale

with codes counted from the zero point, and ``magic = 1.5 * 2^23``, whose addition leaves no bit for
a fraction: ties go to the even code (https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html).
With ``scale = 1, lowest = -inf, highest = inf, magic = 0`` every value passes through as it is, bit
for bit but for the sign of a zero: the tensor stays in float.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from quantstore.records import Array, Floats
from quantstore.run.grids import ActivationGrid

MAGIC = np.float32(1.5 * 2**23)
_FLOAT = onnx.TensorProto.FLOAT
# In front of names that are added; no exporter writes one like it.
_PREFIX = "quantstore/"
# All grids of one number each, one after the other: fed as one array, for it is fed at every run.
_GRIDS, _SIZES = f"{_PREFIX}grids", f"{_PREFIX}sizes"
_ZERO, _ONE, _CODES, _TINY = (f"{_PREFIX}{word}" for word in ("zero", "one", "codes", "tiny"))
_NUMBERS = {_ZERO: 0.0, _ONE: 1.0, _CODES: 255.0, _TINY: float(np.finfo(np.float32).tiny)}
_PARTS = ("scale", "lowest", "highest", "magic")
_PASSING = np.array([1, -np.inf, np.inf, 0], np.float32)


@dataclass(frozen=True, slots=True)
class GridInputs:
    """Grids of a graph, by name; what is not fed for one lets every value pass.

    ``wide``: of these, those with a number for each channel, in the shape of the array.
    ``dynamic``: those whose range may be found at run time, which a scale of 0 asks for.
    """

    names: Sequence[str]
    wide: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dynamic: Collection[str] = ()

    @classmethod
    def of(
        cls, names: Sequence[str], grids: Sequence[Mapping[str, ActivationGrid]]
    ) -> "GridInputs":
        """For these names; ``grids``, as far as they are all_grids, say which need more nodes."""
        all_grids = [(name, grid) for of_plan in grids for name, grid in of_plan.items()]
        return cls(
            names,
            {name: grid.scale.shape for name, grid in all_grids if grid.scale.size > 1},
            frozenset(name for name, grid in all_grids if grid.is_dynamic),
        )

    def fed(self, grids: Mapping[str, ActivationGrid]) -> dict[str, Array]:
        """The arrays to feed."""
        together = np.tile(_PASSING, max(1, len(self._narrow)))
        for index, name in enumerate(self._narrow):
            grid = grids.get(name)
            if grid is not None:
                together[4 * index : 4 * index + 4] = [number.item() for number in _numbers(grid)]
        arrays: dict[str, Array] = {_GRIDS: together}
        for name, shape in self.wide.items():
            grid = grids.get(name)
            for index, part in enumerate(_input_names(name)):
                number = _PASSING[index] if grid is None else _numbers(grid)[index]
                arrays[part] = np.broadcast_to(np.asarray(number, np.float32), shape)
        return arrays

    def declare(self, graph: onnx.GraphProto) -> None:
        """Add inputs and constants, and the nodes that every rounding reads, in place."""
        input_names = [part for name in self._narrow for part in _input_names(name)]
        shapes = {
            part: list(shape) for name, shape in self.wide.items() for part in _input_names(name)
        }
        shapes[_GRIDS] = [max(4, len(input_names))]
        graph.input.extend(
            helper.make_tensor_value_info(name, _FLOAT, shape) for name, shape in shapes.items()
        )
        if not input_names:
            return
        graph.node.append(
            onnx.NodeProto(op_type="Split", input=[_GRIDS, _SIZES], output=input_names)
        )
        graph.initializer.append(
            numpy_helper.from_array(np.ones(len(input_names), np.int64), _SIZES)
        )
        if self.dynamic:
            graph.initializer.extend(
                numpy_helper.from_array(np.array([number], np.float32), name)
                for name, number in _NUMBERS.items()
            )

    def rounding(self, grid: str, source: str, result: str) -> Iterator[onnx.NodeProto]:
        """The nodes that round ``source`` to a grid and call it ``result``."""
        scale, lowest, highest, magic = _input_names(grid)
        if grid in self.dynamic:
            yield from _fed_or_found(grid, source, result)
            scale, lowest, highest = _taken(result)
        numbers = (scale, lowest, highest, magic)
        yield from _steps(numbers, source, result, is_wide=grid in self.wide)

    @property
    def _narrow(self) -> list[str]:
        return [name for name in self.names if name not in self.wide]


@dataclass(frozen=True, slots=True)
class FixedGrids:
    """Grids that are constants of a graph: what has one is rounded in every run."""

    grids: Mapping[str, ActivationGrid]

    @property
    def names(self) -> Sequence[str]:
        return tuple(self.grids)

    def declare(self, graph: onnx.GraphProto) -> None:
        """Add the constants that the roundings read, in place."""
        constants: dict[str, Array] = {}
        for name, grid in self.grids.items():
            scale, lowest, highest, magic = _input_names(name)
            if has_byte_codes(grid):
                zero_point = -grid.lowest.reshape(())
                constants |= {
                    scale: grid.scale.reshape(()),
                    lowest: zero_point.astype(np.uint8),
                }
            elif grid.is_dynamic:
                constants |= {
                    **{part: np.array([number], np.float32) for part, number in _NUMBERS.items()},
                    magic: MAGIC.reshape(1),
                }
            else:
                numbers = (grid.scale, grid.lowest, grid.highest, MAGIC.reshape(1))
                constants |= dict(zip((scale, lowest, highest, magic), numbers, strict=True))
        graph.initializer.extend(
            numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()
        )

    def rounding(self, name: str, source: str, result: str) -> Iterator[onnx.NodeProto]:
        """The nodes that round ``source`` to the grid of a name and call it ``result``."""
        grid, numbers = self.grids[name], _input_names(name)
        if has_byte_codes(grid):
            codes = byte_codes(result)
            for op_type, inputs, output in (
                ("QuantizeLinear", [source, *numbers[:2]], codes),
                ("DequantizeLinear", [codes, *numbers[:2]], result),
            ):
                yield onnx.NodeProto(op_type=op_type, input=inputs, output=[output])
            return
        if grid.is_dynamic:
            at = f"{result}/found/"
            shape = helper.make_tensor("", onnx.TensorProto.INT64, [1], [1])
            yield helper.make_node("Constant", [], [f"{at}shape"], value=shape)
            yield from _range_nodes(at, source)
            numbers = [*(at + part for part in _PARTS[:3]), numbers[3]]
        yield from _steps(numbers, source, result, is_wide=grid.scale.size > 1)


def has_byte_codes(grid: ActivationGrid) -> bool:
    """Whether a grid has one scale and the codes of uint8, counted from a zero point."""
    if grid.scale.size > 1 or grid.is_dynamic:
        return False
    lowest, highest = float(grid.lowest[0]), float(grid.highest[0])
    return highest - lowest == _NUMBERS[_CODES] and -_NUMBERS[_CODES] <= lowest <= 0


def byte_codes(result: str) -> str:
    """What the codes of a tensor are called that :class:`FixedGrids` rounds with bytes."""
    return f"{result}/codes"


def _steps(
    numbers: Sequence[str], source: str, result: str, *, is_wide: bool
) -> Iterator[onnx.NodeProto]:
    """The formula of this module, step by step; ``numbers``: names in the order of ``_PARTS``."""
    scale, lowest, highest, magic = numbers
    step = [f"{result}/{word}" for word in ("steps", "from_below", "clipped", "lifted", "code")]
    clip = [("Clip", [step[0], lowest, highest], step[2])]
    if is_wide:
        # Clip takes one number for all.
        clip = [("Max", [step[0], lowest], step[1]), ("Min", [step[1], highest], step[2])]
    for op_type, inputs, output in (
        ("Div", [source, scale], step[0]),
        *clip,
        ("Add", [step[2], magic], step[3]),
        ("Sub", [step[3], magic], step[4]),
        ("Mul", [step[4], scale], result),
    ):
        yield onnx.NodeProto(op_type=op_type, input=inputs, output=[output])


def _numbers(grid: ActivationGrid) -> tuple[Floats, Floats, Floats, Floats]:
    """In the order of ``_PARTS``."""
    return grid.scale, grid.lowest, grid.highest, np.asarray(MAGIC)


def _input_names(grid: str) -> list[str]:
    return [f"{_PREFIX}{grid}/{part}" for part in _PARTS]


def _fed_or_found(grid: str, source: str, result: str) -> Iterator[onnx.NodeProto]:
    """Scale, lowest and highest code: as they are fed, or where that scale is 0 of the tensor."""
    fed = _input_names(grid)[:3]
    at = f"{result}/found/"
    passed = [
        onnx.NodeProto(op_type="Identity", input=[part], output=[f"{at}fed_{word}"])
        for part, word in zip(fed, _PARTS, strict=False)
    ]
    shape = numpy_helper.from_array(np.ones(1, np.int64), f"{at}shape")
    yield onnx.NodeProto(op_type="Equal", input=[fed[0], _ZERO], output=[f"{at}is_asked"])
    yield helper.make_node(
        "If",
        [f"{at}is_asked"],
        _taken(result),
        then_branch=helper.make_graph(
            _range_nodes(at, source),
            "found",
            [],
            [_number(at + part) for part in _PARTS[:3]],
            [shape],
        ),
        else_branch=helper.make_graph(
            passed, "fed", [], [_number(f"{at}fed_{part}") for part in _PARTS[:3]]
        ),
    )


def _range_nodes(at: str, source: str) -> list[onnx.NodeProto]:
    """The nodes that find scale, lowest and highest code of a tensor; names begin with ``at``.

    https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html
    """
    return [
        onnx.NodeProto(op_type=op_type, input=inputs, output=[at + output])
        for op_type, inputs, output in (
            ("ReduceMin", [source], "min"),
            ("ReduceMax", [source], "max"),
            ("Min", [f"{at}min", _ZERO], "low_of_any_rank"),
            ("Max", [f"{at}max", _ZERO], "high_of_any_rank"),
            ("Reshape", [f"{at}low_of_any_rank", f"{at}shape"], "low"),
            ("Reshape", [f"{at}high_of_any_rank", f"{at}shape"], "high"),
            ("Sub", [f"{at}high", f"{at}low"], "span"),
            ("Div", [f"{at}span", _CODES], "exact"),
            ("Less", [f"{at}exact", _TINY], "is_nothing"),
            ("Where", [f"{at}is_nothing", _ONE, f"{at}exact"], "scale"),
            ("Div", [f"{at}low", f"{at}scale"], "steps_below"),
            ("Round", [f"{at}steps_below"], "lowest"),
            ("Add", [f"{at}lowest", _CODES], "highest"),
        )
    ]


def _taken(result: str) -> list[str]:
    return [f"{result}/{part}" for part in _PARTS[:3]]


def _number(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _FLOAT, [1])

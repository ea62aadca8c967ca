"""onnxruntime's only door: sessions, and its refusals as our failures.

It is imported where it is needed first, never at the top: it costs time and memory, and only the
processes that run a model need it.
"""

import contextlib
import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import version_converter

from quantstore.errors import MissingRuntimeError, RunError, printable
from quantstore.records import Array

# One sample: an array for each input of a model.
Feeds = Mapping[str, Array]

# onnxruntime's words for the types that networks compute with.
_ELEMENT_TYPES = {
    f"tensor({word})": number
    for word, number in (
        ("float", onnx.TensorProto.FLOAT),
        ("double", onnx.TensorProto.DOUBLE),
        ("float16", onnx.TensorProto.FLOAT16),
        ("bfloat16", onnx.TensorProto.BFLOAT16),
        ("int8", onnx.TensorProto.INT8),
        ("uint8", onnx.TensorProto.UINT8),
        ("int32", onnx.TensorProto.INT32),
        ("int64", onnx.TensorProto.INT64),
        ("bool", onnx.TensorProto.BOOL),
    )
}
# onnxruntime's own number: errors alone. What goes wrong arrives as an exception as well.
_ONLY_FATAL = 4
# DequantizeLinear knows no axis before. onnxruntime writes such a file, and then refuses it.
LOWEST_QDQ_OPSET = 13
# Messages of onnxruntime can quote half a graph.
LONGEST_MESSAGE = 300
# Of what a converter of operator sets looks at: scales of a Resize, limits of a Clip, axes.
_MOST_LOOKED_AT_BYTES = 1024
# A protobuf message holds less than 2 GB. Some of that is for the graph.
PROTOBUF_BYTES = 1900 << 20
NOT_INSTALLED = "onnxruntime, which runs models, is not installed"
REFUSES = "onnxruntime rejects the model"
CRASHED = "onnxruntime crashed on this model"
NEEDS_MORE_MEMORY = "the model exceeded its memory limit"
_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "failed to allocate memory", "out of memory")


def version() -> str:
    """The installed onnxruntime.

    Raises:
        MissingRuntimeError: there is none.
    """
    return str(_onnxruntime().__version__)


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """Element type (of ``onnx.TensorProto``, 0 for what is no tensor) and shape of a tensor.

    ``shape`` is None where the rank is not known, a dimension is None where it is not.
    """

    element_type: int
    shape: tuple[int | None, ...] | None

    @property
    def is_float(self) -> bool:
        """Whether it holds single-precision floats, which is what int8 replaces."""
        return self.element_type == onnx.TensorProto.FLOAT

    @property
    def nbytes(self) -> int | None:
        """None where the shape is not known."""
        if not self.element_type or self.shape is None or None in self.shape:
            return None
        itemsize = onnx.helper.tensor_dtype_to_np_dtype(self.element_type).itemsize
        return int(math.prod(size or 0 for size in self.shape)) * int(itemsize)


class Session:
    """A model that onnxruntime agreed to run, on one thread: the same inputs, the same outputs."""

    def __init__(
        self,
        model: onnx.ModelProto | Path,
        *,
        is_optimized: bool = True,
        has_integer_kernels: bool = False,
        has_exact_sums: bool = False,
    ) -> None:
        """Load a model; one whose weights lie in other files must be loaded from its path.

        Args:
            is_optimized: False keeps every tensor of the graph, so that each can be observed.
            has_integer_kernels: True runs DequantizeLinear, operator, QuantizeLinear as one integer
                operator where onnxruntime has one. Floats rounded to the same grids give the same
                figure on every processor. Integers differ from it by up to 1 dB, and lose 15 dB and
                more on x86 processors without VNNI, where sums saturate (``kernels``).
            has_exact_sums: with integer kernels, sums that cannot saturate, at some cost of speed
                (onnxruntime's ``session.x64quantprecision``).

        Raises:
            RunError: onnxruntime refuses the model, or has no memory for it.
        """
        library = _onnxruntime()
        options = _options()
        if not is_optimized:
            options.graph_optimization_level = library.GraphOptimizationLevel.ORT_DISABLE_ALL
        if not has_integer_kernels:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        if has_exact_sums:
            options.add_session_config_entry("session.x64quantprecision", "1")
        self._session = _loaded(model, options)
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def facts(self) -> dict[str, TensorFacts]:
        """Type and shape of each output, as far as onnxruntime can tell without running it."""
        return {
            value.name: TensorFacts(_ELEMENT_TYPES.get(value.type, 0), _shape_of(value.shape))
            for value in self._session.get_outputs()
        }

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> list[Array]:
        """The outputs, all or those named, in that order.

        Args:
            feeds: an array for every input; others than the model's are left out.

        Raises:
            RunError: an input is missing or has another shape, or the model fails on it.
        """
        missing = [name for name in self.inputs if name not in feeds]
        if missing:
            raise RunError(f"input {missing[0]!r} has no array", "add an array for it")
        fed = {name: feeds[name] for name in self.inputs}
        with _translated("onnxruntime stops"):
            arrays: list[Array] = self._session.run(list(outputs) if outputs else None, fed)
        return arrays


def quantizable(
    model: onnx.ModelProto, folder: Path, *, fold: bool = True, name: str = "float.onnx"
) -> Path:
    """The model as int8 runtimes see it, saved: constants computed, BatchNormalization folded.

    This is what ``onnxruntime.quantization.preprocess`` does, less the symbolic shape inference,
    which fails on many models and which min-max calibration does not need. Names of nodes may
    change: ``nodes_to_exclude`` speaks of this file.

    Raises:
        RunError: the operator set cannot be raised, or onnxruntime refuses the model.
    """
    library = _onnxruntime()
    options = _options()
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_BASIC
    path = folder / name
    options.optimized_model_filepath = str(path)
    raised = raise_opset(model)
    source: onnx.ModelProto | Path = raised
    if _weight_bytes(raised) > PROTOBUF_BYTES:
        # Neither the model nor what is made of it fits into one protobuf message.
        source = _moved_apart(raised, folder / f"whole-{name}")
        for key, value in (
            ("session.optimized_model_external_initializers_file_name", f"{name}.data"),
            ("session.optimized_model_external_initializers_min_size_in_bytes", "1024"),
        ):
            options.add_session_config_entry(key, value)
    _loaded(source, options, disabled=() if fold else ("ConvBNFusion",))
    return path


def _weight_bytes(model: onnx.ModelProto) -> int:
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def _moved_apart(model: onnx.ModelProto, path: Path) -> Path:
    """The model in a file, its weights in another beside it, and no longer in memory."""
    onnx.save_model(
        model, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=1024
    )
    return path


def raise_opset(model: onnx.ModelProto, lowest: int = LOWEST_QDQ_OPSET) -> onnx.ModelProto:
    """The model in an operator set of at least ``lowest``; itself where it is there already.

    Raises:
        RunError: onnx cannot convert it.
    """
    opset = next((used.version for used in model.opset_import if used.domain in ("", "ai.onnx")), 0)
    if opset >= lowest:
        return model
    with (
        _translated(f"the model cannot be raised from operator set {opset} to {lowest}"),
        _without_weights(model) as weights,
    ):
        raised = version_converter.convert_version(model, lowest)
    for tensor in raised.graph.initializer:
        if tensor.name in weights:
            tensor.raw_data = weights[tensor.name]
    return raised


@contextlib.contextmanager
def _without_weights(model: onnx.ModelProto) -> Iterator[dict[str, bytes]]:
    """Take what large initializers hold out of a model meanwhile; by their names.

    onnx's converter copies a model several times, and never looks at weights.
    """
    large = [
        tensor for tensor in model.graph.initializer if len(tensor.raw_data) > _MOST_LOOKED_AT_BYTES
    ]
    weights = {tensor.name: tensor.raw_data for tensor in large}
    try:
        for tensor in large:
            tensor.ClearField("raw_data")
        yield weights
    finally:
        for tensor in large:
            tensor.raw_data = weights[tensor.name]


def _shape_of(sizes: Sequence[object] | None) -> tuple[int | None, ...] | None:
    if sizes is None:
        return None
    return tuple(size if isinstance(size, int) and size >= 0 else None for size in sizes)


def _onnxruntime() -> Any:
    try:
        library: Any = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingRuntimeError(NOT_INSTALLED) from error
    # The quantizer makes sessions of its own, with the default.
    library.set_default_logger_severity(_ONLY_FATAL)
    return library


def _options() -> Any:
    library = _onnxruntime()
    options = library.SessionOptions()
    options.log_severity_level = _ONLY_FATAL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    # An arena keeps what it had and grows by doubling: half as much memory again, and no faster.
    options.enable_cpu_mem_arena = False
    return options


def _loaded(model: onnx.ModelProto | Path, options: Any, disabled: Sequence[str] = ()) -> Any:
    with _translated(REFUSES):
        content = str(model) if isinstance(model, Path) else model.SerializeToString()
        return _onnxruntime().InferenceSession(
            content,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(disabled) or None,
        )


@contextlib.contextmanager
def _translated(failure: str) -> Iterator[None]:
    """Turn an exception of onnxruntime, which has no base class, into one of ours."""
    try:
        yield
    except RunError:
        raise
    except MemoryError as error:
        raise RunError(NEEDS_MORE_MEMORY) from error
    except Exception as error:
        message = str(error).strip() or type(error).__name__
        if any(phrase in message.lower() for phrase in _OUT_OF_MEMORY):
            raise RunError(NEEDS_MORE_MEMORY) from error
        raise RunError(f"{failure}: {_shortened(message)}") from error


def _shortened(message: str) -> str:
    """The first line, without the prefix that every message of onnxruntime has."""
    line = message.splitlines()[0]
    if line.startswith("[ONNXRuntimeError]"):
        # "[ONNXRuntimeError] : 1 : FAIL : what it says"
        line = line.split(" : ", 3)[-1]
    line = printable(line.strip())
    return line if len(line) <= LONGEST_MESSAGE else f"{line[:LONGEST_MESSAGE]}…"

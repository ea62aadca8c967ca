"""A plan in, the files that other tools read out, as text.

onnxruntime's quantizer takes every scale, so that ``quantize.py`` reproduces the plan. The other
formats are written after their descriptions and were not run with the tools that read them:

- AIMET and QNN, encodings 0.6.1: https://github.com/quic/aimet
- tpu-mlir, quantization tables of mixed precision: https://github.com/sophgo/tpu-mlir

Names of tensors and nodes are untrusted. JSON holds every name; the formats of lines leave out what
they cannot hold, and say which.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from quantstore.rescuing.facts import QuantizedNetwork, QuantizedTensor, QuantizedWeights
from quantstore.schemes import TARGETS


@dataclass(frozen=True, slots=True)
class Kind:
    """A file that a rescue writes: what it is called, and the line that uses it."""

    pattern: str
    use: str

    def file_name(self, name: str) -> str:
        """What the file of a model is called."""
        return self.pattern.replace("NAME", name)


# In the order of their use.
KINDS = {
    "rescued": Kind(
        "NAME.rescued.onnx",
        "The quantized model (QDQ) for onnxruntime, TensorRT 10 or later, OpenVINO and QNN:"
        ' onnxruntime.InferenceSession("NAME.rescued.onnx")',
    ),
    "ongrid": Kind(
        "NAME.ongrid.onnx",
        "The float model with its weights on the int8 grid, for tools that quantize"
        " themselves: choose symmetric int8 weights per channel there",
    ),
    "quantize": Kind(
        "quantize.py",
        "Quantizes NAME.ongrid.onnx with onnxruntime, with the scales of overrides.json:"
        " python quantize.py",
    ),
    "overrides": Kind(
        "overrides.json",
        'The scales for quantize.py; "overrides" is what onnxruntime calls TensorQuantOverrides',
    ),
    "exclude": Kind(
        "exclude.txt",
        "Names of the nodes to keep in float, one per line. NNCF:"
        ' IgnoredScope(names=open("exclude.txt").read().splitlines()). Not run with'
        " NNCF, ModelOpt (whose nodes_to_exclude takes regular expressions) or Neural"
        " Compressor",
    ),
    "qtable": Kind(
        "NAME.qtable",
        "tpu-mlir: model_deploy.py --quantize INT8 --quantize_table NAME.qtable."
        " Not run with tpu-mlir",
    ),
    "encodings": Kind(
        "NAME.encodings",
        "AIMET and QNN: qnn-onnx-converter --input_network NAME.ongrid.onnx"
        " --quantization_overrides NAME.encodings. Not run with either",
    ),
    "node_data": Kind(
        "NAME.METRIC.node_data.json",
        "Colours and values on the nodes of the original file in Model Explorer:"
        " model-explorer NAME.onnx --extensions=model_explorer_onnx"
        " --node_data_paths=NAME.band.node_data.json",
    ),
    "annotated": Kind(
        "NAME.annotated.onnx",
        "The original model with bands and values in the properties of its nodes, for Netron:"
        " netron NAME.annotated.onnx",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A file of text. ``skipped``: names that its format cannot hold."""

    kind: str
    file_name: str
    text: str
    skipped: tuple[str, ...] = ()


def texts(
    network: QuantizedNetwork,
    name: str,
    *,
    float_file: str | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    first_outputs: Mapping[str, str] | None = None,
) -> tuple[Written, ...]:
    """Every file of text about a network.

    Args:
        name: of the model, as its files are called.
        float_file: the file that ``quantize.py`` reads, ``NAME.ongrid.onnx`` by default.
        input_shapes: of one sample, by the name of the input; without them ``quantize.py`` takes 1
            for a size that the model leaves open.
        first_outputs: by the name of a node its first output, after which tpu-mlir calls it.
    """
    source = float_file or KINDS["ongrid"].file_name(name)
    return (
        Written(kind="quantize", file_name=KINDS["quantize"].file_name(name), text=quantize_py()),
        Written(
            kind="overrides",
            file_name=KINDS["overrides"].file_name(name),
            text=overrides_json(
                network, source, f"{name}.quantized.onnx", input_shapes=input_shapes
            ),
        ),
        exclude_txt(network.float_nodes),
        qtable(network, name, first_outputs=first_outputs),
        Written(
            kind="encodings",
            file_name=KINDS["encodings"].file_name(name),
            text=encodings(network),
        ),
    )


# onnxruntime


def quantize_py() -> str:
    """The script, which is the same for every model: all names are in ``overrides.json``."""
    return resources.files("quantstore.rescuing").joinpath("quantize.txt").read_text("utf-8")


def overrides_json(
    network: QuantizedNetwork,
    float_file: str,
    quantized_file: str,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> str:
    """What ``quantize.py`` reads: every grid of the plan, and what stays in float."""
    target = TARGETS[network.target]
    multiplying = ["Conv", "ConvTranspose", "Gemm", "MatMul"]
    is_everywhere = target.placement == "everywhere"
    # Weights first: of the first entry onnxruntime wants to know that the graph has it.
    on_grid: dict[str, list[dict[str, Any]]] = {
        weights.tensor: _weight_overrides(weights, weights.bits)
        for weights in network.weights
        if weights.bits is not None
    }
    on_grid |= {
        tensor.tensor: _tensor_overrides(tensor, tensor.bits)
        for tensor in network.tensors
        if tensor.bits is not None
    }
    in_float = [weights.tensor for weights in network.weights if weights.bits is None]
    in_float += [tensor.tensor for tensor in network.tensors if tensor.bits is None]
    settings = {
        "float_file": float_file,
        "quantized_file": quantized_file,
        "input_shapes": {name: list(shape) for name, shape in (input_shapes or {}).items()},
        # Recurrent layers stay in float: onnxruntime would round their states with their inputs.
        "op_types_to_quantize": None if is_everywhere else multiplying,
        "op_types_to_exclude_output": [] if is_everywhere else multiplying,
        "per_channel": target.scheme.is_per_channel,
        "activation_type": _quant_type(network.activation_bits, network.symmetric_activations),
        "activation_symmetric": network.symmetric_activations,
        "float": in_float,
        "overrides": on_grid,
    }
    return f"{json.dumps(settings, indent=1, allow_nan=False)}\n"


def _quant_type(bits: int, is_signed: bool) -> str:
    """A member of onnxruntime's ``QuantType``."""
    return f"Q{'Int' if is_signed else 'UInt'}{bits}"


def _weight_overrides(weights: QuantizedWeights, bits: int) -> list[dict[str, Any]]:
    """One entry, or one for each channel."""
    channel = {} if weights.axis is None else {"axis": weights.axis}
    quant_type = _quant_type(bits, is_signed=True)
    return [
        {**channel, "scale": scale, "zero_point": 0, "quant_type": quant_type}
        for scale in weights.scales
    ]


def _tensor_overrides(tensor: QuantizedTensor, bits: int) -> list[dict[str, Any]]:
    quant_type = _quant_type(bits, tensor.is_symmetric)
    return [{"scale": tensor.scale, "zero_point": tensor.zero_point, "quant_type": quant_type}]


# Lists of nodes


def exclude_txt(nodes: Iterable[str]) -> Written:
    """Names of nodes, one a line."""
    names = tuple(dict.fromkeys(nodes))
    listed = [name for name in names if _is_a_line(name)]
    return Written(
        kind="exclude",
        file_name=KINDS["exclude"].file_name(""),
        text="".join(f"{name}\n" for name in listed),
        skipped=tuple(name for name in names if not _is_a_line(name)),
    )


def _is_a_line(name: str) -> bool:
    """Whether a reader of lines finds the name again."""
    return name.splitlines() == [name] and name.strip() == name


_QTABLE_HEAD = """\
# Written by quantstore, and not run with tpu-mlir.
# A processor without F32 (CV18xx) needs BF16 instead.
# op_name quantize_mode
"""


def qtable(
    network: QuantizedNetwork, name: str, *, first_outputs: Mapping[str, str] | None = None
) -> Written:
    """The nodes that stay in float, as tpu-mlir calls them: first output, ``_``, operator.

    Args:
        first_outputs: by the name of a node; without it, only nodes whose output has a place in the
            plan are known.
    """
    outputs = {
        tensor.node_name: tensor.tensor
        for tensor in reversed(network.tensors)
        if tensor.node_name is not None
    } | dict(first_outputs or {})
    op_types = dict(network.every_node)
    lines, skipped = [], []
    for node in dict.fromkeys(network.float_nodes):
        operation = f"{outputs.get(node, '')}_{op_types.get(node, '')}"
        is_known = node in outputs and node in op_types
        if is_known and operation.split() == [operation] and not operation.startswith("#"):
            lines.append(f"{operation} F32\n")
        else:
            skipped.append(node)
    return Written(
        kind="qtable",
        file_name=KINDS["qtable"].file_name(name),
        text=_QTABLE_HEAD + "".join(lines),
        skipped=tuple(skipped),
    )


# AIMET and QNN


def encodings(network: QuantizedNetwork) -> str:
    """Encodings 0.6.1 of every tensor and of all weights."""
    content = {
        "version": "0.6.1",
        "activation_encodings": {
            tensor.tensor: [_activation_encoding(tensor)] for tensor in network.tensors
        },
        "param_encodings": {
            weights.tensor: _param_encodings(weights) for weights in network.weights
        },
    }
    return f"{json.dumps(content, indent=1, allow_nan=False)}\n"


_FLOAT_ENCODING = {"bitwidth": 32, "dtype": "float"}


def _activation_encoding(tensor: QuantizedTensor) -> dict[str, Any]:
    if tensor.bits is None:
        return dict(_FLOAT_ENCODING)
    lowest = -(2 ** (tensor.bits - 1)) if tensor.is_symmetric else -tensor.zero_point
    return _encoding(tensor.scale, tensor.bits, lowest, is_symmetric=tensor.is_symmetric)


def _param_encodings(weights: QuantizedWeights) -> list[dict[str, Any]]:
    if weights.bits is None:
        return [dict(_FLOAT_ENCODING)]
    lowest = -(2 ** (weights.bits - 1))
    return [_encoding(scale, weights.bits, lowest, is_symmetric=True) for scale in weights.scales]


def _encoding(scale: float, bits: int, lowest: int, *, is_symmetric: bool) -> dict[str, Any]:
    """Codes count from 0: a value is ``(code + offset) * scale``."""
    return {
        "bitwidth": bits,
        "dtype": "int",
        "is_symmetric": str(is_symmetric),
        "max": (lowest + 2**bits - 1) * scale,
        "min": lowest * scale,
        "offset": lowest,
        "scale": scale,
    }

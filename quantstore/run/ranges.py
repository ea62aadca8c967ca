"""The smallest and largest value of every tensor, for onnxruntime's quantizer, in bounded memory.

The quantizer's own calibration keeps every tensor of a run alive at once, which takes gigabytes
where the model itself takes hundreds of megabytes. This gives the same figures block by block, in
the file that the quantizer keeps such figures in.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from quantstore.run.choices import ReportSteps
from quantstore.run.drift import BLOCK_BYTES, UNKNOWN_BYTES, bytes_of_tensors, packed
from quantstore.run.inputs import Samples
from quantstore.run.relay import Relay, rounds


def write_minmax(
    model: Any,
    samples: Samples,
    folder: Path,
    target: Path,
    report: ReportSteps | None = None,
    *,
    block_bytes: int = BLOCK_BYTES,
) -> None:
    """Run the model on all samples and write the range of each of its tensors.

    Args:
        model: with its weights kept in ``folder``.
        target: what :func:`quantstore.run.runtime.quantize_file` takes as ``cache``.

    Raises:
        RunError: onnxruntime refuses the model, or stops.
    """
    sizes = bytes_of_tensors(model, samples)
    named_sizes = [
        (name, sizes.get(name, UNKNOWN_BYTES))
        for node in model.graph.node
        for name in node.output
        if name and sizes.get(name, UNKNOWN_BYTES)
    ]
    blocks = packed(named_sizes, lambda named_size: named_size[1], block_bytes)
    limits: dict[str, tuple[Any, Any]] = {}
    for index in range(len(samples)):
        for name, array in samples[index].items():
            _widen(limits, name, array)
    relay = Relay(model, [[name for name, _ in block] for block in blocks], folder, "ranges")
    done = 0
    for indices in rounds(len(samples), lambda: relay.most_bytes):
        for number in range(len(blocks)):
            relay.open(number)
            for index in indices:
                for name, array in relay.run(index, samples[index]).items():
                    _widen(limits, name, array)
                done += 1
                if report is not None:
                    report(done, len(blocks) * len(samples))
    content = {
        "CLS": "TensorsData",
        "data": {
            name: {"CLS": "TensorData", "lowest": _number(low), "highest": _number(high)}
            for name, (low, high) in limits.items()
        },
        "calibration_method": {"CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax"},
        "smooth_quant": False,
    }
    target.write_text(json.dumps(content), encoding="utf-8")


def _widen(limits: dict[str, tuple[Any, Any]], name: str, array: Any) -> None:
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or not array.size:
        return
    low, high = array.min(), array.max()
    if name in limits:
        low, high = np.minimum(low, limits[name][0]), np.maximum(high, limits[name][1])
    limits[name] = low, high


def _number(value: Any) -> dict[str, object]:
    return {"CLS": "numpy.array", "dtype": str(value.dtype), "data": [float(value)]}

"""What quantstore is measured against: the ways to such figures that people have today.

Each function imports what it needs and returns the work, which reads the file itself.
``python bench/peers.py plain-loop MODEL.onnx`` does it once and prints its seconds as JSON.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timing import serve

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Where a model leaves its input open, calibration runs one image as small as its strides allow:
# running the network is not what is compared.
BATCH_SIZE, IMAGE_SIZE = 1, 64


def plain_loop(path: str) -> Callable[[], object]:
    """What a person would write in numpy: quartiles per kernel and four int8 schemes.

    It computes less than quantstore: four schemes instead of more than twenty, no clipping
    thresholds, bits needed, equalization, histograms or outliers, no BatchNorm folded, channels
    always on the first axis, nothing stored.
    """
    import numpy as np
    import onnx
    from onnx import numpy_helper

    def work() -> None:
        for tensor in onnx.load(path).graph.initializer:
            weights = numpy_helper.to_array(tensor)
            if weights.ndim < 2 or weights.dtype != np.float32:
                continue
            rows = weights.reshape(len(weights), -1)
            np.percentile(rows, (25, 50, 75), axis=1)
            plain_schemes(rows, 4)

    return work


def plain_schemes(rows: "npt.NDArray[np.float32]", scheme_count: int) -> list[tuple[Any, Any, Any]]:
    """Round trips per tensor and per channel, symmetric and asymmetric, straight from the formulas.

    Returns:
        For each scheme the mse, the largest error, and the SQNR of each row in dB.
    """
    import numpy as np

    results = []
    energy = np.sum(rows**2, axis=1)
    for number in range(scheme_count):
        is_symmetric, axis = number % 2 == 0, (None, 1)[number // 2 % 2]
        low = np.minimum(rows.min(axis=axis, keepdims=True), 0)
        high = np.maximum(rows.max(axis=axis, keepdims=True), 0)
        if is_symmetric:
            scale = np.maximum(-low, high) / 127
            back = np.clip(np.rint(rows / scale), -127, 127) * scale
        else:
            scale = (high - low) / 255
            zero_point = -np.rint(low / scale)
            codes = np.clip(np.rint(rows / scale) + zero_point, 0, 255)
            back = (codes - zero_point) * scale
        error = rows - back
        mse, largest = np.mean(error**2), np.abs(error).max()
        with np.errstate(divide="ignore", invalid="ignore"):
            sqnr_db = 10 * np.log10(energy / np.sum(error**2, axis=1))
        results.append((mse, largest, sqnr_db))
    return results


def plain_layer(scheme_count: str, rows: str, columns: str) -> Callable[[], object]:
    """The schemes of the plain loop alone, over and over, on one random matrix in memory."""
    import numpy as np

    weights = np.random.default_rng(0).standard_normal((int(rows), int(columns)), dtype=np.float32)
    return lambda: plain_schemes(weights, int(scheme_count))


def onnxruntime_debug(path: str) -> Callable[[], object]:
    """onnxruntime's own answer: quantize, match the weights, compute the error. One scheme.

    int8 symmetric per tensor; calibrated with one small random image, which is the least it takes.
    """
    import logging
    import tempfile

    import numpy as np
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization import qdq_loss_debug

    logging.disable(logging.WARNING)

    class OneRandomInput(quantization.CalibrationDataReader):
        def __init__(self, inputs: Any) -> None:
            random = np.random.default_rng(0)
            sample = {}
            for value in inputs:
                dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
                shape = [
                    size or (IMAGE_SIZE if axis else BATCH_SIZE) for axis, size in enumerate(dims)
                ]
                sample[value.name] = random.standard_normal(shape, dtype=np.float32)
            self.samples = iter([sample])

        def get_next(self) -> Any:
            return next(self.samples, None)

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            quantized = Path(folder) / "quantized.onnx"
            graph = onnx.load(path, load_external_data=False).graph
            constants = {tensor.name for tensor in graph.initializer}
            quantization.quantize_static(
                path,
                quantized,
                OneRandomInput([value for value in graph.input if value.name not in constants]),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=False,
            )
            matched = qdq_loss_debug.create_weight_matching(path, str(quantized))
            # Scalars, a constant of a Mul for example, are no weights and make the next call fail.
            matched = {name: pair for name, pair in matched.items() if pair["float"].ndim}
            if not qdq_loss_debug.compute_weight_error(matched):
                raise SystemExit("onnxruntime quantized no weight")

    return work


def onnxsim_estimate(path: str) -> Callable[[], object]:
    """onnxsim's estimate of what int8 costs each node, in C++. One scheme."""
    import onnx
    import onnxsim.onnxsim_cpp2py_export  # noqa: F401 - the first call would load it otherwise
    from onnxsim import estimate_quantization_precision

    def work() -> None:
        if not estimate_quantization_precision(onnx.load(path)):
            raise SystemExit("onnxsim estimated no node")

    return work


def sha256(path: str) -> Callable[[], object]:
    """The least that anything which knows a file by its content must do."""
    import hashlib

    def work() -> None:
        with Path(path).open("rb") as file:
            hashlib.file_digest(file, "sha256")

    return work


if __name__ == "__main__":
    serve((plain_loop, plain_layer, onnxruntime_debug, onnxsim_estimate, sha256), sys.argv[1:])

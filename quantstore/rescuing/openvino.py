"""A written file in OpenVINO, where that is installed: its int8 passes are not taken on trust."""

import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from quantstore.rescuing.judge import Judge, db_of
from quantstore.run import qdq_file

NOT_INSTALLED = "Not run in OpenVINO, which is not installed (pip install 'quantstore[openvino]')."


@dataclass(frozen=True, slots=True)
class OpenVinoRun:
    """``value_db``: SQNR on the CPU, NaN where it was not run; ``sentence`` says either."""

    value_db: float
    sentence: str


def run_in_openvino(
    model: onnx.ModelProto, judge: Judge, file_db: float, folder: Path
) -> OpenVinoRun:
    """Compile and run a file that has the compared tensors as outputs.

    Args:
        file_db: what it keeps in float arithmetic.
    """
    try:
        library: Any = importlib.import_module("openvino")
    except ImportError:
        return OpenVinoRun(math.nan, NOT_INSTALLED)
    path = qdq_file.save(model, folder / "openvino.onnx")
    version = str(library.__version__).split("-")[0]
    # One thread and single precision: the same figure on every run.
    options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    try:
        compiled = library.Core().compile_model(str(path), "CPU", options)
        outputs = []
        for sample in judge.samples:
            names = {name for port in compiled.inputs for name in port.get_names()}
            results = compiled({name: array for name, array in sample.items() if name in names})
            outputs.append([results[name] for name in judge.names])
    except RuntimeError as error:
        first = (str(error).strip().splitlines() or ["no reason given"])[-1]
        return OpenVinoRun(math.nan, f"OpenVINO {version} does not run the file: {first[:200]}")
    value_db = db_of(judge.ratios_of(outputs))
    sentence = f"In OpenVINO {version} on this CPU the file keeps {value_db:.1f} dB"
    if file_db - value_db > 1:
        sentence += (
            f", {file_db - value_db:.1f} dB less than in float arithmetic: its int8 passes lose"
            " them on processors without VNNI"
        )
    return OpenVinoRun(value_db, f"{sentence}.")

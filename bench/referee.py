"""The emulator beside the files that onnxruntime's quantizer writes, model by model.

``python bench/referee.py [MODEL.onnx...]`` takes the models of ../shared/models and the examples,
or those named, and prints the table of docs/method.md, section 8. The referee's session runs
without graph optimizations: with them onnxruntime adds in another order. Takes about two minutes.
"""

import argparse
import importlib
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from quantstore.errors import QuantstoreError  # noqa: E402
from quantstore.pipeline.files import demo_paths  # noqa: E402
from quantstore.run import noise, points, twin  # noqa: E402
from quantstore.run.comparison import Reference  # noqa: E402
from quantstore.run.emulator import Emulator  # noqa: E402
from quantstore.run.inputs import Samples  # noqa: E402
from quantstore.run.nodes import every_node, name_of  # noqa: E402
from quantstore.run.placement import RECURRENT, placement  # noqa: E402
from quantstore.run.plans import Planner, Rounding  # noqa: E402
from quantstore.run.probe_figures import CALIBRATION_SEED, TEST_SEED, prepared  # noqa: E402
from quantstore.run.ranges import observe  # noqa: E402
from quantstore.run.runtime import Feeds, Session  # noqa: E402
from quantstore.schemes import TARGETS, Target  # noqa: E402

SHARED = Path(os.environ.get("QUANTSTORE_SHARED", HERE.parent.parent / "shared"))
MULTIPLYING = ["Conv", "ConvTranspose", "Gemm", "MatMul"]
COMPARED = [
    target for target in TARGETS.values() if target.is_default and target.activations is not None
]


class Reader:
    """Samples as the quantizer asks for them."""

    def __init__(self, samples: list[Feeds]) -> None:
        self._remaining = iter(samples)

    def get_next(self) -> Feeds | None:
        """The next sample, None at the end."""
        return next(self._remaining, None)


def written(source: Path, target: Target, samples: list[Feeds], planner: Planner) -> Path:
    """The file that quantize_static writes, from the ranges that the emulator found."""
    logging.root.setLevel(logging.ERROR)
    library: Any = importlib.import_module("onnxruntime.quantization")
    is_everywhere = target.placement == "everywhere"
    options = {} if is_everywhere else {"OpTypesToExcludeOutputQuantization": MULTIPLYING}
    path = source.with_name("written.onnx")
    cache = source.with_name("ranges.json")
    made = [name for node in onnx.load(source).graph.node for name in node.output if name]
    cache.write_text(json.dumps(_cache(planner, made)), encoding="utf-8")
    library.quantize_static(
        source,
        path,
        Reader(samples),
        quant_format=library.QuantFormat.QDQ,
        per_channel=target.scheme.is_per_channel,
        activation_type=library.QuantType.QUInt8,
        weight_type=library.QuantType.QInt8,
        op_types_to_quantize=None if is_everywhere else MULTIPLYING,
        extra_options=options,
        calibration_cache_path=cache,
    )
    return path


def _cache(planner: Planner, made: list[str]) -> dict[str, object]:
    """Ranges in the form in which the quantizer keeps them; sentinels do not count.

    Tensors that no output depends on have any range: the quantizer asks for one.
    """

    def number(value: float) -> dict[str, object]:
        return {"CLS": "numpy.array", "dtype": "float32", "data": [value]}

    ends = dict.fromkeys(made, (0.0, 1.0)) | {
        name: seen.range.ends for name, seen in planner.observed.items() if seen.range is not None
    }
    return {
        "CLS": "TensorsData",
        "data": {
            name: {"CLS": "TensorData", "lowest": number(low), "highest": number(high)}
            for name, (low, high) in ends.items()
        },
        "calibration_method": {"CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax"},
        "smooth_quant": False,
    }


def compared(path: Path) -> Iterator[str]:
    """The cells of a row."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = twin.open_float(path)
        for input_name, value in noise.frozen_inputs(model.model).items():
            twin.freeze_input(model.model, input_name, value)
        names = points.cut(model.model).names
        network, inputs = prepared(model, names, folder, fold=True)
        calibration_count, count = noise.sample_counts(inputs)
        calibration, test = (
            noise.samples(inputs, many, seed=seed)
            for many, seed in ((calibration_count, CALIBRATION_SEED), (count, TEST_SEED))
        )
        # What the quantizer leaves in float stays in float here as well.
        excluded = {
            name_of(node) for node in every_node(network.model.graph) if node.op_type in RECURRENT
        }
        excluded |= {
            slot.site.name
            for slot in network.layers.slots
            if slot.site.operator.family == "recurrent"
        }
        placements = [placement(network, target, excluded) for target in COMPARED]
        samples = Samples("noise", len(calibration), lambda index: dict(calibration[index]))
        observed = observe(network, network.float_tensors, samples, folder)
        planner = Planner(network, observed)
        emulator = Emulator(network, placements)
        as_float = [network.session.run(network.fed(feeds), names) for feeds in test]
        reference = Reference(names, as_float)
        for target, placed in zip(COMPARED, placements, strict=True):
            plan = planner.plan(placed, Rounding.of(target))
            emulated = reference.median_db(emulator.run(plan, test))
            try:
                file = written(folder / "float.onnx", target, calibration, planner)
                session = Session(file, is_optimized=False)
                truth = reference.median_db(session.run(feeds, names) for feeds in test)
            except Exception as error:
                yield f"{emulated:.2f} / not written: {str(error)[:200]}"
            else:
                yield f"{emulated:.2f} / {truth:.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    shared = sorted((SHARED / "models").glob("**/*.onnx"))
    paths = parser.parse_args().models or [*demo_paths(), *shared]
    print(f"| model | {' | '.join(target.name for target in COMPARED)} |")
    print("| --- |" + " --- |" * len(COMPARED))
    for path in paths:
        started = time.perf_counter()
        name = path.parent.name if path.stem == "model" else path.stem
        try:
            cells = list(compared(path))
        except QuantstoreError as error:
            cells = [error.sentence, *[""] * (len(COMPARED) - 1)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        print(f"{name}: {time.perf_counter() - started:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()

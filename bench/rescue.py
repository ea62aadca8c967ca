"""What a rescue reaches, beside onnxruntime's own quantizer and NNCF, on inputs nobody searched on.

``python bench/rescue.py [--write] [--only NAME]`` rescues the networks of docs/rescue.md, has the
peers quantize the same networks with the same inputs, runs every file on the same test inputs and
prints a table; ``--write`` puts it into docs/rescue.md. NNCF runs in the interpreter that
``QUANTSTORE_NNCF_PYTHON`` names, in this one by default, and is left out where it is not installed.
Takes about five minutes.
"""

import argparse
import importlib
import logging
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from quantstore.errors import QuantstoreError  # noqa: E402
from quantstore.pipeline.files import demo_paths  # noqa: E402
from quantstore.records import RescueRecord  # noqa: E402
from quantstore.rescuing.choices import RescueChoices  # noqa: E402
from quantstore.rescuing.judge import Judge, db_of  # noqa: E402
from quantstore.rescuing.opening import open_model  # noqa: E402
from quantstore.rescuing.rescue import rescue  # noqa: E402
from quantstore.run.choices import Choices  # noqa: E402
from quantstore.run.runtime import Feeds, Session  # noqa: E402
from quantstore.run.workplace import Workplace  # noqa: E402

SHARED = Path(os.environ.get("QUANTSTORE_SHARED", HERE.parent.parent / "shared"))
DOCUMENT = HERE.parent / "docs" / "rescue.md"
START, END = "<!-- bench-rescue -->", "<!-- end of bench-rescue -->"
MULTIPLYING = ["Conv", "ConvTranspose", "Gemm", "MatMul"]
DIGITS = "digits"


@dataclass(frozen=True)
class Case:
    """A network, its inputs and what is asked of the rescue; ``asked_db``: what it shall reach."""

    name: str
    target: str
    preprocess: str = "auto"
    asked_db: float = math.nan
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file."""
        for path in demo_paths():
            if path.stem == self.name:
                return path
        return SHARED / "models" / f"{self.name}.onnx"

    @property
    def is_digits(self) -> bool:
        """Whether it reads digits."""
        return self.name.startswith(DIGITS)

    def choices(self) -> RescueChoices:
        """What the rescue is asked for."""
        samples = 450 if self.is_digits else None
        return RescueChoices(
            target=self.target, preprocess=self.preprocess, samples=samples, **self.options
        )


CASES = (
    Case("digits-rescaled", "int8_channel_fused", asked_db=33),
    Case("squeezenet-winml", "int8_channel_fused", "raw-bgr", 39),
    Case("squeezenet-winml", "int8_channel", "raw-bgr", 30),
    Case("retinaface-mnet025", "int8_channel_fused", "retinaface", 20, {"keep_macs": 0.98}),
    Case("rtmdet-nano", "int8_channel_fused", "rtmdet", 24.5, {"keep_macs": 1.0}),
    Case("rtmdet-nano", "int8_channel_fused", "rtmdet"),
    Case(
        "rtmdet-nano",
        "int8_channel_fused",
        "rtmdet",
        27,
        {"reach_db": 30.0, "keep_macs": 0.85},
    ),
    Case("ultraface-rfb320", "int8_channel_fused", "ultraface"),
    Case("digits-plain", "int8_channel_fused"),
)


@dataclass(frozen=True, slots=True)
class Value:
    """Of a file on the test inputs: SQNR of the worst output, and the median over all outputs."""

    worst_db: float
    median_db: float
    seconds: float = math.nan

    def __str__(self) -> str:
        if math.isnan(self.worst_db):
            return "-"
        text = f"{self.worst_db:.1f}"
        if abs(self.median_db - self.worst_db) > 0.05:
            text += f" ({self.median_db:.1f})"
        return text if math.isnan(self.seconds) else f"{text}, {self.seconds:.1f} s"


NOTHING = Value(math.nan, math.nan)


class Reader:
    """Samples as onnxruntime's quantizer asks for them."""

    def __init__(self, samples: list[Feeds]) -> None:
        self._remaining = iter(samples)

    def get_next(self) -> Feeds | None:
        """The next sample, None at the end."""
        return next(self._remaining, None)


def value_of(path: Path, judge: Judge) -> tuple[float, float]:
    """SQNR of a file in float arithmetic: of the worst output, and the median over outputs."""
    session = Session(path)
    ratios = judge.ratios_of([session.run(sample, judge.names) for sample in judge.samples])
    return db_of(ratios), float(-10 * np.log10(np.median(ratios)))


def by_onnxruntime(
    source: Path, samples: list[Feeds], judge: Judge, case: Case, method: str
) -> Value:
    """What quantize_static makes of it."""
    logging.root.setLevel(logging.ERROR)
    library: Any = importlib.import_module("onnxruntime.quantization")
    is_everywhere = not case.target.endswith("fused")
    path = source.with_name(f"{method}.onnx")
    started = time.process_time()
    try:
        library.quantize_static(
            source,
            path,
            Reader(samples),
            quant_format=library.QuantFormat.QDQ,
            per_channel=True,
            activation_type=library.QuantType.QUInt8,
            weight_type=library.QuantType.QInt8,
            op_types_to_quantize=None if is_everywhere else MULTIPLYING,
            calibrate_method=getattr(library.CalibrationMethod, method),
            extra_options={}
            if is_everywhere
            else {"OpTypesToExcludeOutputQuantization": MULTIPLYING},
        )
        return Value(*value_of(path, judge), time.process_time() - started)
    except (QuantstoreError, ValueError, RuntimeError, KeyError) as error:
        print(f"{case.name}: onnxruntime, {method}: {error}", file=sys.stderr)
        return NOTHING


def by_nncf(source: Path, samples: list[Feeds], judge: Judge, case: Case, preset: str) -> Value:
    """What NNCF makes of it."""
    python = os.environ.get("QUANTSTORE_NNCF_PYTHON", sys.executable)
    stored = source.with_name("samples.npz")
    arrays = {
        f"{index}|{name}": array
        for index, sample in enumerate(samples)
        for name, array in sample.items()
    }
    np.savez(stored, **arrays)
    path = source.with_name(f"nncf-{preset}.onnx")
    done = subprocess.run(
        [python, str(HERE / "peer_nncf.py"), str(source), str(stored), str(path), preset],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it ended without a word"]
        print(f"{case.name}: NNCF, {preset}: {lines[-1]}", file=sys.stderr)
        return NOTHING
    seconds = float(done.stdout.rsplit("SECONDS", 1)[1])
    return Value(*value_of(path, judge), seconds)


def compared(case: Case, inputs: str) -> tuple[list[str], RescueRecord]:
    """A row of the table, and the rescue."""
    choices = case.choices()
    run_choices = Choices(target=case.target, preprocess=case.preprocess, samples=choices.samples)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = Workplace(run_choices, folder, lambda _: None)
        opened = open_model(case.path, inputs, choices, work)
        judge = opened.bench.test
        source = folder / "peers" / "float.onnx"
        source.parent.mkdir()
        float_file(opened, source)
        # All that the rescue searched on.
        samples = [
            *(opened.bench.calibration[index] for index in range(len(opened.bench.calibration))),
            *opened.bench.validation.samples,
        ]
        peers = [
            by_onnxruntime(source, samples, judge, case, "MinMax"),
            by_onnxruntime(source, samples, judge, case, "Percentile"),
            by_nncf(source, samples, judge, case, "mixed"),
            by_nncf(source, samples, judge, case, "transformer"),
        ]
        record = rescue(
            case.path, inputs, RescueChoices(**(vars_of(choices) | {"output": str(folder / "out")}))
        ).record
        (file,) = [file for file in record.files if file.kind == "rescued"]
        ours = Value(record.file_db, median_db(Path(file.path), opened), record.cpu_seconds)
    options = "".join(
        f", {key.replace('_db', '').replace('_', '-')} {value:g}"
        for key, value in case.options.items()
    )
    row = [
        case.name,
        f"`{case.target}`{options}",
        *map(str, peers),
        f"**{ours}**",
        "" if math.isnan(case.asked_db) else f"{case.asked_db:g}",
        f"{record.int8_macs:.1%}".replace("%", " %"),
        agreement(record),
        f"{record.integer_db:.1f}",
        f"{record.float_file_db:.0f}" if math.isfinite(record.float_file_db) else "equal",
    ]
    return row, record


def float_file(opened: Any, path: Path) -> None:
    """The network that is compared, for the peers: folded, in float, ending at the outputs."""
    from quantstore.run import qdq_file
    from quantstore.run.emulator import Plan
    from quantstore.run.plans import Rounding

    model = qdq_file.qdq_model(
        opened.subject.network, opened.bench.placed, Rounding(None, None), Plan()
    )
    qdq_file.save(model, path)


def median_db(path: Path, opened: Any) -> float:
    """Median over the compared tensors of a written file."""
    import onnx

    model = onnx.load(path)
    made = {value.name for value in model.graph.output}
    for name in opened.bench.test.names:
        if name not in made:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    observed = path.with_name("observed.onnx")
    onnx.save(model, observed)
    return value_of(observed, opened.bench.test)[1]


def vars_of(choices: RescueChoices) -> dict[str, Any]:
    """The fields of a dataclass with slots."""
    return {name: getattr(choices, name) for name in choices.__slots__}


def agreement(record: RescueRecord) -> str:
    """Decisions before and after."""
    if math.isnan(record.agreement_after):
        return "-"
    return f"{record.agreement_before:.2f} -> {record.agreement_after:.2f}"


HEADERS = (
    *("network", "target", "onnxruntime min-max", "onnxruntime percentile", "NNCF"),
    *("NNCF transformer", "rescue", "asked", "MACs in int8", "decisions"),
    *("integer kernels", "rescaled float"),
)


def steps_table(rows: list[tuple[Case, RescueRecord]]) -> str:
    """Prediction, search and unseen inputs, step by step."""
    lines = [
        [
            case.name,
            step.remedy,
            step.detail.split(";")[0],
            "" if math.isnan(step.predicted_db) else f"{step.predicted_db:.1f}",
            f"{step.validation_db:.1f}",
            f"{step.test_db:.1f}",
            f"{step.int8_macs:.1%}".replace("%", " %"),
            "kept" if step.kept else "dropped",
        ]
        for case, record in rows
        for step in record.steps
    ]
    headers = [
        *("network", "step", "what", "predicted", "search inputs", "unseen inputs"),
        *("MACs in int8", ""),
    ]
    return tabulate(lines, headers, tablefmt="github", disable_numparse=True)


def digits(folder: Path) -> str:
    """scikit-learn's digits, as an ``.npz``: those that the demo models were not trained on."""
    datasets = importlib.import_module("sklearn.datasets")
    selection = importlib.import_module("sklearn.model_selection")
    images, labels = datasets.load_digits(return_X_y=True)
    images = (images / 16).reshape(-1, 1, 8, 8)
    _, images, _, labels = selection.train_test_split(
        images, labels, test_size=0.25, stratify=labels, random_state=0
    )
    path = folder / "digits.npz"
    np.savez(path, **{"input": images.astype(np.float32), "labels": labels})
    return str(path)


def written(cases: list[Case]) -> Iterator[str]:
    """Both tables, as Markdown."""
    rows, records = [], []
    with tempfile.TemporaryDirectory() as folder:
        digits_file = digits(Path(folder)) if any(case.is_digits for case in cases) else ""
        for case in cases:
            inputs = digits_file if case.is_digits else str(SHARED / "images")
            row, record = compared(case, inputs)
            rows.append(row)
            records.append((case, record))
            print(" | ".join(row), file=sys.stderr, flush=True)
    yield tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True)
    yield ""
    yield steps_table(records)
    predicted = [
        step for _, record in records for step in record.steps if not math.isnan(step.predicted_db)
    ]
    if predicted:
        search, unseen = (
            float(np.median([abs(step.predicted_db - value) for step, value in pairs]))
            for pairs in (
                [(step, step.validation_db) for step in predicted],
                [(step, step.test_db) for step in predicted],
            )
        )
        yield ""
        yield (
            f"Predictions ({len(predicted)}) were off by {search:.1f} dB in the median on the"
            f" search inputs, by {unseen:.1f} dB on unseen ones."
        )


def rewritten(document: str, tables: str) -> str:
    """The document with these tables between its marks."""
    before, rest = document.split(START, 1)
    _, after = rest.split(END, 1)
    return f"{before}{START}\n\n{tables}\n\n{END}{after}"


def main() -> None:
    """Run what was asked for, print, and write where that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", help="networks by name")
    parser.add_argument("--write", action="store_true", help="write into docs/rescue.md")
    options = parser.parse_args()
    cases = [case for case in CASES if not options.only or case.name in options.only]
    tables = "\n".join(written(cases))
    print(tables)
    if options.write and not options.only:
        DOCUMENT.write_text(rewritten(DOCUMENT.read_text("utf-8"), tables), "utf-8")


if __name__ == "__main__":
    main()

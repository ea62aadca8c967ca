"""Which outputs decide, and by which figure: decibels beside decisions on the photographs.

``python bench/outputs.py [MODEL...]`` runs networks of ../shared/models on the photographs of
../shared/images under four targets and prints the table of docs/method.md, section 8, "Which
outputs decide". Takes about three minutes.
"""

import math
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from quantstore.records import OutputRecord, SimulationRecord  # noqa: E402
from quantstore.run.choices import Choices  # noqa: E402
from quantstore.run.simulate import simulate  # noqa: E402

SHARED = Path(os.environ.get("QUANTSTORE_SHARED", HERE.parent.parent / "shared"))
TARGETS = ("int8_tensor", "int8_channel", "int8_channel_fused", "int8_weights")
# How each wants its pictures prepared: known, or a good guess.
PREPARED = {
    "rtmdet-nano": "mmdet-bgr",
    "yolov10n-quant": "zero-one",
    "ultraface-rfb320": "ultraface",
    "retinaface-mnet025": "caffe-bgr",
    "squeezenet-winml": "raw-bgr",
    "mobilenetv2-12-int8": "imagenet",
    "maui-model": "imagenet",
    "vit-pgd_2_3_16": "imagenet",
    "ppocr-v2-det": "paddle-bgr",
}


def rows(model: str) -> list[str]:
    """Lines of the table: one for each target and part."""
    lines = []
    for target in TARGETS:
        choices = Choices(target=target, drift=False, preprocess=PREPARED[model])
        record = simulate(
            SHARED / "models" / f"{model}.onnx", str(SHARED / "images"), choices
        ).record
        if record.failure is not None:
            continue
        lines += [line(model, target, record, output) for output in record.outputs]
    return lines


def line(model: str, target: str, record: SimulationRecord, output: OutputRecord) -> str:
    """One line."""
    decided = "" if math.isnan(output.decision_f1) else f"{output.decision_f1:.2f}"
    if not decided and not math.isnan(record.top1_agreement):
        decided = f"{record.top1_agreement:.2f}"
    count = output.decisions or (record.sample_count if decided else "")
    cells = [
        model,
        target,
        output.part or output.output,
        f"{output.sqnr_db:.1f}",
        f"{output.varying_sqnr_db:.1f}",
        decided,
        count,
        f"{record.output_sqnr_db:.1f}",
        f"{record.deciding_sqnr_db:.1f}",
        "" if math.isnan(record.tail_sqnr_db) else f"{record.tail_sqnr_db:.1f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Run what was asked for and print."""
    print(
        "| model | target | part | plain | varying | stay | of | median | deciding | whole file |"
    )
    print("| --- | --- | --- |" + " ---: |" * 7)
    for model in sys.argv[1:] or PREPARED:
        for text in rows(model):
            print(text, flush=True)


if __name__ == "__main__":
    main()

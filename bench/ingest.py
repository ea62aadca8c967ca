"""How long an ingest takes, beside the plain numpy loop that a person would write instead.

Every figure is a whole process (interpreter, imports, commit), run in turns with its peer; the
table shows minimum, median and maximum, so that the machine's noise is seen. ``make bench`` runs
it; more models are named on the command line: ``python bench/ingest.py MODEL.onnx ...``.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from models import resnet50_like

ROUNDS = 5
HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "ingest.json"

# Range, quartiles per kernel and the error of four schemes, straight from the formulas.
PLAIN_LOOP = """
import sys
import numpy as np, onnx
from onnx import numpy_helper
for tensor in onnx.load(sys.argv[1]).graph.initializer:
    weights = numpy_helper.to_array(tensor)
    if weights.ndim < 2 or weights.dtype != np.float32:
        continue
    rows = weights.reshape(len(weights), -1)
    np.percentile(rows, (25, 50, 75), axis=1)
    for axis in (None, 1):
        low = np.minimum(rows.min(axis=axis, keepdims=True), 0)
        high = np.maximum(rows.max(axis=axis, keepdims=True), 0)
        scale = np.maximum(-low, high) / 127
        back = np.clip(np.rint(rows / scale), -127, 127) * scale
        np.mean((back - rows) ** 2, axis=1)
        scale = (high - low) / 255
        zero = -np.rint(low / scale)
        back = (np.clip(np.rint(rows / scale) + zero, 0, 255) - zero) * scale
        np.mean((back - rows) ** 2, axis=1)
"""


def main(extra: list[str]) -> None:
    """Measure, print the table, write it as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        generated = Path(folder) / "resnet50-like.onnx"
        weight_count = resnet50_like(generated)
        print(f"generated {generated.name}: {weight_count:,} weights", file=sys.stderr)
        rows = [measure(path, Path(folder)) for path in (generated, *map(Path, extra))]
    print(f"{'model':28} {'what':18} {'min':>7} {'median':>7} {'max':>7}   seconds, {ROUNDS} runs")
    for row in rows:
        for what in ("quantstore ingest", "plain numpy loop"):
            times = row[what]
            print(
                f"{row['model']:28} {what:18}"
                f" {min(times):7.2f} {statistics.median(times):7.2f} {max(times):7.2f}"
            )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"cores": os.cpu_count(), "rows": rows}, indent=1))


def measure(path: Path, folder: Path) -> dict[str, object]:
    """Times of both, in turns; the order alternates, so that neither always meets a warm cache."""
    store = folder / "bench.duckdb"
    commands = {
        "quantstore ingest": [
            *[sys.executable, "-m", "quantstore", "ingest", str(path)],
            *["--db", str(store), "--replace"],
        ],
        "plain numpy loop": [sys.executable, "-c", PLAIN_LOOP, str(path)],
    }
    times: dict[str, list[float]] = {what: [] for what in commands}
    for turn in range(ROUNDS + 1):
        order = list(commands) if turn % 2 else list(reversed(commands))
        for what in order:
            started = time.perf_counter()
            done = subprocess.run(commands[what], capture_output=True, text=True, check=False)
            elapsed = time.perf_counter() - started
            if done.returncode:
                raise SystemExit(f"{what} failed on {path.name}: {done.stderr}")
            if turn:  # The first turn warms the disk cache.
                times[what].append(elapsed)
    return {"model": path.stem, "bytes": path.stat().st_size, **times}


if __name__ == "__main__":
    main(sys.argv[1:])

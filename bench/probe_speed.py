"""What the probe costs beside that of release 0.1.0, in turns: CPU seconds and peak memory.

``python bench/probe_speed.py [--rounds N] [MODEL.onnx...]`` takes 0.1.0 out of this repository's
history, runs both on the same files with the same packages, and prints minimum, median and maximum
with the ratio of the medians. 0.1.0 gives full int8 for two schemes and weights alone for four;
this version gives four targets and weights alone for three schemes. Its targets alone have a line
of their own. Without models: rtmdet-nano and fasterrcnn-structure of ../shared/models and one of
the digits models. Takes about three minutes.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import release
from timing import UnavailableError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SHARED = Path(os.environ.get("QUANTSTORE_SHARED", ROOT.parent / "shared"))
DEFAULT_ROUNDS = 5
# The same in both: a path in, rows out. What is measured is a child of its own, imports and all.
PROBE = """
import resource, sys
from pathlib import Path
from quantstore.run.probe import probe
asked = {}
if sys.argv[2] == "targets":
    from quantstore.run.plan import PLAN
    asked = {"asked": [probed for probed in PLAN if probed.target is not None]}
rows = probe(Path(sys.argv[1]), seconds=600, **asked)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
measured = sum(row.output_sqnr_db == row.output_sqnr_db for row in rows)
print(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, measured)
"""


@dataclass(frozen=True)
class Cost:
    """One probe: CPU seconds and peak bytes of its child, and how many figures it gave."""

    cpu_seconds: float
    peak_bytes: float
    figures: int


def probed(package_folder: Path, environment: dict[str, str], model: Path, asked: str) -> Cost:
    """Run the probe of one version: ``everything``, or its ``targets`` alone."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(model), asked],
        env=environment,
        cwd=package_folder,
        capture_output=True,
        text=True,
        check=True,
    )
    cpu_seconds, peak_bytes, figures = done.stdout.split()
    return Cost(float(cpu_seconds), float(peak_bytes), int(figures))


def spread(values: list[float]) -> str:
    """Minimum, median and maximum."""
    ordered = sorted(values)
    return f"{ordered[0]:.2f} / {ordered[len(ordered) // 2]:.2f} / {ordered[-1]:.2f}"


def median(values: list[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]


def default_models() -> list[Path]:
    """What the table of docs/method.md shows."""
    shared = [
        SHARED / "models" / f"{name}.onnx" for name in ("rtmdet-nano", "fasterrcnn-structure")
    ]
    return [
        *(path for path in shared if path.is_file()),
        ROOT / "quantstore" / "demo_models" / "digits-plain.onnx",
    ]


def main() -> None:
    """Run both versions in turns and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=DEFAULT_ROUNDS)
    asked = parser.parse_args()
    lines = [
        "| model | version | figures | CPU s: least / median / most | MB at the peak | ratio |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    with release.versions() as by_release:
        versions = {
            "0.1.0": (*by_release["0.1.0"], "everything"),
            "this": (*by_release["this"], "everything"),
            "this, targets alone": (*by_release["this"], "targets"),
        }
        for model in asked.models or default_models():
            print(model.stem, file=sys.stderr, flush=True)
            costs: dict[str, list[Cost]] = {name: [] for name in versions}
            # One round more goes first: it compiles what is imported, and fills the disk cache.
            for turn in range(asked.rounds + 1):
                for name in list(versions)[:: 1 if turn % 2 else -1]:
                    package_folder, environment, figures = versions[name]
                    cost = probed(package_folder, environment, model.absolute(), figures)
                    if turn:
                        costs[name].append(cost)
            before = median([cost.cpu_seconds for cost in costs["0.1.0"]])
            for name, of_version in costs.items():
                seconds = [cost.cpu_seconds for cost in of_version]
                peak = median([cost.peak_bytes for cost in of_version]) / 1e6
                lines.append(
                    f"| {model.stem} | {name} | {of_version[0].figures} | {spread(seconds)} |"
                    f" {peak:,.0f} | {median(seconds) / before:.2f} |"
                )
    print("\n".join(lines))


if __name__ == "__main__":
    try:
        main()
    except UnavailableError as error:
        sys.exit(str(error))

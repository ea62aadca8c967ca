"""What running a model gave: conditions, values, and what is missing. Plain text.

Rows are those of ``queries.model_runs``: the latest run of each kind.
"""

from collections.abc import Sequence

from quantstore.errors import printable
from quantstore.schemes import SCHEMES, TARGETS, Scheme
from quantstore.wording import failures
from quantstore.wording.columns import NOTHING, Cell, Column, Row, band_at
from quantstore.wording.frames import figure_or_none
from quantstore.wording.text import listed
from quantstore.wording.units import counted, db, seconds, share
from quantstore.wording.verdicts import MODES

HEADING = "Test runs"
NOT_RUN = "The model was not run, so the verdict is based on weights only."
PROBE_FAILED = "The noise probe failed, so the verdict is based on weights only:"
NOISE = "noise"
# What the probe quantizes, in the order of its columns.
PROBED_MODES = ("weights", "both", "activations")
# From here on the activations add more noise than the weights do.
HALF_OF_THE_NOISE_DB = 3.0


def rounded(row: Row) -> str:
    """What a run rounds: its target, or scheme and mode where no target is that."""
    if row["target"] in TARGETS:
        return TARGETS[row["target"]].title
    scheme = str(row["scheme"])
    # Another release may have measured others.
    title = SCHEMES[scheme].title if scheme in SCHEMES else printable(scheme)
    return f"{title}, {MODES[row['mode']]}"


def probes_of(runs: Sequence[Row]) -> list[Row]:
    """Those of the noise probe that have a value."""
    return [run for run in runs if run["input_source"] == NOISE and _output_db(run) is not None]


def own_runs_of(runs: Sequence[Row]) -> list[Row]:
    """Runs on inputs that somebody chose, under schemes of this release."""
    return [run for run in runs if run["input_source"] != NOISE and run["scheme"] in SCHEMES]


def _output_db(run: Row) -> float | None:
    return figure_or_none(run["output_sqnr_db"])


def not_probed(runs: Sequence[Row]) -> str:
    """Why there is no value of the probe at all."""
    # The reasons of several schemes are mostly one.
    reasons = list(dict.fromkeys(reason for run in runs if (reason := _failure(run))))
    return f"{PROBE_FAILED} {'; '.join(reasons)}." if reasons else NOT_RUN


def _failure(run: Row) -> str:
    if run["input_source"] != NOISE or not isinstance(run["failure"], str):
        return ""
    return failures.reason(run["failure"])


def conditions(probes: Sequence[Row]) -> str:
    """``SQNR at the worst output, median over noise samples · 1x3x320x320 · ...``."""
    shapes = dict.fromkeys(
        printable(str(run["input_shape"])) for run in probes if isinstance(run["input_shape"], str)
    )
    samples = sorted({int(run["sample_count"]) for run in probes})
    least_to_most = " to ".join(str(number) for number in dict.fromkeys((samples[0], samples[-1])))
    clauses = ["SQNR at the worst output, median over noise samples"]
    if shapes:
        clauses.append("; ".join(shapes))
    clauses.append(f"{least_to_most} sample{'' if samples[-1] == 1 else 's'}")
    clauses.append(f"{seconds(sum(float(run['seconds']) for run in probes))} in total")
    clauses.append(f"onnxruntime {printable(str(probes[0]['onnxruntime_version']))}")
    return " · ".join(clauses) + "."


def probe_schemes(probes: Sequence[Row]) -> list[Row]:
    """A row for each scheme with its runs by mode, for :func:`probe_columns`."""
    by_scheme: dict[str, dict[str, Row]] = {}
    for run in probes:
        by_scheme.setdefault(str(run["scheme"]), {})[str(run["mode"])] = run
    return [{"scheme": name, **by_scheme[name]} for name in SCHEMES if name in by_scheme]


def probe_columns(schemes: Sequence[Row]) -> list[Column]:
    """What the probe gave; rows as :func:`probe_schemes` gives them, some of which it has seen."""
    modes = [mode for mode in PROBED_MODES if any(mode in row for row in schemes)]

    def runs_of(row: Row) -> list[Row]:
        return [row[mode] for mode in modes if mode in row]

    def compared(row: Row) -> Cell:
        outputs = (printable(str(run["compared"] or "the outputs")) for run in runs_of(row))
        return Cell(text=listed(list(dict.fromkeys(outputs))))

    return [
        Column(
            title="noise probe, scheme",
            style="name",
            cell=lambda row: Cell(text=SCHEMES[row["scheme"]].title),
        ),
        *map(_mode_column, modes),
        Column(title="compared at", is_wide=True, cell=compared),
        Column(
            title="seconds",
            is_number=True,
            is_wide=True,
            cell=lambda row: Cell(text=seconds(sum(float(run["seconds"]) for run in runs_of(row)))),
        ),
    ]


def _mode_column(mode: str) -> Column:
    return Column(
        title=f"output SQNR, {MODES[mode]}",
        style="chip",
        cell=lambda row: (
            band_at(row[mode]["band"], row[mode]["output_sqnr_db"]) if mode in row else None
        ),
    )


def probe_failures(runs: Sequence[Row]) -> list[str]:
    """A line for each reason why the probe has no value where others have one."""
    measured = {(run["scheme"], run["mode"]) for run in probes_of(runs)}
    subjects: dict[str, list[str]] = {}
    for run in runs:
        is_missing = (run["scheme"], run["mode"]) not in measured and run["scheme"] in SCHEMES
        if (reason := _failure(run)) and is_missing:
            subject = f"{SCHEMES[run['scheme']].title}, {MODES[run['mode']]}"
            subjects.setdefault(reason, []).append(subject)
    return [
        f"Not measured: {'; '.join(names)}. Reason: {reason}." for reason, names in subjects.items()
    ]


def _inputs(run: Row) -> Cell:
    failure = run["failure"]
    if isinstance(failure, str):
        small = failures.reason(failure)
    else:
        small = counted(int(run["sample_count"]), "sample")
    return Cell(text=printable(str(run["input_source"])), small=small)


def _top1(run: Row) -> Cell:
    agreement = figure_or_none(run["top1_agreement"])
    return Cell(text=NOTHING if agreement is None else share(agreement))


# Rows as ``own_runs_of`` gives them.
OWN_RUN_COLUMNS = (
    Column(title="run on your inputs", style="name", cell=_inputs),
    Column(
        title="scheme, quantized",
        cell=lambda run: Cell(text=SCHEMES[run["scheme"]].title, small=MODES[run["mode"]]),
    ),
    Column(
        title="output SQNR",
        style="chip",
        cell=lambda run: (
            None if _output_db(run) is None else band_at(run["band"], run["output_sqnr_db"])
        ),
    ),
    Column(title="top-1 agrees", is_number=True, is_wide=True, cell=_top1),
    Column(
        title="layer by layer",
        is_number=True,
        is_wide=True,
        cell=lambda run: Cell(text="yes" if run["has_drift"] else "no"),
    ),
)


def activations_to_blame(runs: Sequence[Row], scheme: Scheme) -> str | None:
    """A sentence where the probe survives on quantized weights and not in full int8, else None."""
    by_mode = {
        run["mode"]: run
        for run in runs
        if run["input_source"] == NOISE and run["scheme"] == scheme.name
    }
    if not {"weights", "both"} <= by_mode.keys():
        return None
    weights, both = by_mode["weights"], by_mode["both"]
    if weights["band"] not in ("fine", "watch") or both["band"] not in ("broken", "at risk"):
        return None
    if not weights["output_sqnr_db"] - both["output_sqnr_db"] > HALF_OF_THE_NOISE_DB:
        return None
    verb = "break the model" if both["band"] == "broken" else "put the model at risk"
    return (
        f"Activations {verb}, not weights: the output SQNR is {db(weights['output_sqnr_db'])} with"
        f" int8 weights only, but {db(both['output_sqnr_db'])} in full int8 (estimated with noise)."
    )

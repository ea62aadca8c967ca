"""The command that measures targets of a model: probe."""

from pathlib import Path

import click

from quantstore.cli.names import ModelName
from quantstore.cli.output import OK, SOME_FAILED, print_frame, say
from quantstore.cli.root import (
    commands,
    everywhere,
    format_option,
    probe_seconds_option,
    targets_option,
)
from quantstore.cli.stages import showing_stages
from quantstore.schemes import TARGETS

COLUMNS = (
    "target",
    "deciding_sqnr_db",
    "sample_count",
    "cpu_seconds",
    "float_layers",
    "failure",
)
EXPENDABLE = ("float_layers", "cpu_seconds", "sample_count")


@commands.command(position=65)
@click.argument("model", metavar="MODEL", type=ModelName(or_file=True))
@targets_option("Measure", ", ".join(name for name, target in TARGETS.items() if target.is_default))
@probe_seconds_option
@format_option
@everywhere
def probe(
    db: Path, model: str, targets: tuple[str, ...], probe_seconds: float | None, style: str
) -> int:
    """Estimate with noise what MODEL would lose on a target.

    MODEL is the name of a stored model, or a file, which is ingested if it is not stored yet. A
    target says which weights and activations the hardware rounds, and how; the table "targets"
    describes each. New values replace earlier values of the same target. If a value cannot be
    measured, the earlier value is kept and the exit code is 1, unless there is nothing to round.

    \b
    Examples:
      quantstore probe rtmdet-s
      quantstore probe rtmdet-s --target int8_channel_int16 --target int4_weights
      quantstore probe model.onnx --target all --probe-seconds 300 --format csv
    """
    from quantstore.pipeline import probes
    from quantstore.wording import frames
    from quantstore.wording.targets import stayed_in_float
    from quantstore.wording.units import NO_BREAK_SPACE

    seconds = probes.SECONDS if probe_seconds is None else probe_seconds
    with showing_stages() as report:
        result = probes.probe_model(model, db, targets or None, seconds=seconds, report=report)
    frame = frames.target_figures(result.model, result.records, result.kept_db)
    if style == "table":
        frame["float_layers"] = [len(names) or None for names in frame["float_layers"]]
        print_frame(frame, style, COLUMNS, EXPENDABLE)
        targets_by_names: dict[tuple[str, ...], list[str]] = {}
        for record in result.records:
            targets_by_names.setdefault(tuple(record.float_layers or ()), []).append(
                str(record.target)
            )
        for names, of_targets in targets_by_names.items():
            if names:
                sentence = stayed_in_float(names).replace(NO_BREAK_SPACE, " ")
                say(f"{', '.join(of_targets)}: {sentence}")
    else:
        print_frame(frame, style)
    if result.was_ingested:
        say(f"also stored {result.model}")
    for note in result.notes:
        say(f"no value for {note}")
    return OK if result.is_complete else SOME_FAILED

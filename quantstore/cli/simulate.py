"""Commands that run a model in float and quantized: simulate."""

import dataclasses
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantstore.cli.names import NameChoice
from quantstore.cli.output import OK, SOME_FAILED, counted, print_frame, say
from quantstore.cli.preprocessing import no_fold_option, preprocessing_options, samples_option
from quantstore.cli.root import commands, everywhere, format_option, scheme_option
from quantstore.cli.stages import showing_stages
from quantstore.errors import QuantstoreError
from quantstore.schemes import TARGETS

if TYPE_CHECKING:
    import pandas as pd

    from quantstore.pipeline.runs import Done

DRIFT_COLUMNS = (
    "depth",
    "node_name",
    "op_type",
    "tensor",
    "sqnr_db",
    "local_sqnr_db",
    "cosine",
    "mean_shift",
    "std_ratio",
)
EXPENDABLE = ("std_ratio", "mean_shift", "cosine", "depth", "op_type", "tensor")

NO_FILE = "no such file"


@commands.command(position=70)
@click.argument("path", type=click.Path(path_type=Path), metavar="MODEL.onnx")
@click.option(
    "--inputs",
    required=True,
    metavar="FOLDER|FILE|noise",
    help="Run on these inputs: a folder of images, an image, arrays by input name"
    " (.npz), one array (.npy), or noise.",
)
@preprocessing_options
@click.option(
    "--target",
    type=NameChoice(list(TARGETS)),
    help="Quantize as this target does. Replaces --scheme and --mode.",
)
@scheme_option("Quantize under")
@click.option(
    "--mode",
    type=click.Choice(["weights", "activations", "both"]),
    default="both",
    show_default=True,
    help="Quantize weights, activations or both.",
)
@click.option(
    "--calibration",
    type=click.Choice(["minmax", "percentile", "entropy", "mse"]),
    default="minmax",
    show_default=True,
    help="Find the ranges of activations with this method.",
)
@click.option(
    "--calibration-inputs",
    metavar="FOLDER|FILE",
    help="Find the ranges of activations on these inputs. [default: every other sample"
    " of --inputs]",
)
@samples_option
@click.option(
    "--exclude",
    multiple=True,
    metavar="NAME",
    help="Leave this layer, node or tensor in float; may be repeated.",
)
@click.option("--no-drift", is_flag=True, help="Compare only the outputs. This is faster.")
@click.option(
    "--sensitivity/--no-sensitivity",
    default=False,
    help="Measure sensitivity: quantize one tensor or one layer's weights at a time,"
    " and all but one.",
)
@click.option(
    "--goal",
    "goal_db",
    type=float,
    metavar="DB",
    help="Search for the fewest tensors and weights to keep in float so that the output"
    " SQNR reaches DB.",
)
@click.option(
    "--budget",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Limit the CPU time of --sensitivity; --goal may take the same time again.",
)
@click.option(
    "--no-pictures",
    is_flag=True,
    help="Do not keep small pictures of the inputs that changed most.",
)
@no_fold_option
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=10,
    metavar="N",
    show_default=True,
    help="Show N tensors in a table.",
)
@format_option
@everywhere
def simulate(
    db: Path,
    path: Path,
    inputs: str,
    preprocess: Any,
    no_drift: bool,
    sensitivity: bool,
    goal_db: float | None,
    budget: float,
    no_fold: bool,
    no_pictures: bool,
    limit: int,
    style: str,
    exclude: tuple[str, ...],
    **chosen: Any,
) -> int:
    """Run MODEL.onnx in float and in int8 on the same inputs, and compare every tensor.

    Every tensor is compared twice: with the whole model quantized (accumulated error), and with
    only its own operator quantized (local error). The results are stored; MODEL.onnx is ingested if
    it is not stored yet. A table shows the worst tensors, csv and json show all.

    Mode "weights" rounds only the weights. Mode "both" also rounds the tensors that onnxruntime's
    quantizer rounds. Mode "activations" rounds those tensors and keeps the weights in float.

    \b
    Examples:
      quantstore simulate rtmdet.onnx --inputs photos/ --preprocess mmdet-bgr
      quantstore simulate ocr.onnx --inputs pages/ --size 480x640 --mean 0.5 --std 0.5
      quantstore simulate model.onnx --inputs test.npz --mode weights --sensitivity
      quantstore simulate model.onnx --inputs noise --scheme int8_channel_symmetric
      quantstore simulate model.onnx --inputs photos/ --target int8_channel --goal 20

    If an .npz file has an array named "labels" with the right class of each sample, the accuracy of
    both models is reported.
    """
    from quantstore.pipeline import runs
    from quantstore.run.choices import Choices

    if not path.is_file():
        raise QuantstoreError(f"{path}: {NO_FILE}", "check the path")
    choices = Choices(
        preprocess=preprocess,
        exclude=exclude,
        drift=not no_drift,
        # What must stay in float is sought among what the sensitivities rank.
        sensitivity=sensitivity or goal_db is not None,
        goal_db=goal_db,
        budget_seconds=budget,
        fold=not no_fold,
        pictures=not no_pictures,
        **chosen,
    )
    with showing_stages(path.name) as report:
        done = runs.run(path, db, inputs, choices, report)
    frame = _drift_frame(done)
    if style == "table":
        shown = frame[frame["kind"] == "accumulated"]
        shown = shown.sort_values("sqnr_db", kind="stable", na_position="last").head(limit)
        local = frame[frame["kind"] == "local"].set_index("tensor")["sqnr_db"]
        shown = shown.assign(local_sqnr_db=shown["tensor"].map(local))
        print_frame(shown, style, DRIFT_COLUMNS, EXPENDABLE)
    else:
        print_frame(frame, style)
    _say_simulation(done)
    return SOME_FAILED if done.simulation.record.failure else OK


def _drift_frame(done: "Done") -> "pd.DataFrame":
    """One row per tensor and kind of error."""
    import pandas as pd

    from quantstore.records import ActivationErrorRecord
    from quantstore.wording.changed_answers import changes

    columns = [field.name for field in dataclasses.fields(ActivationErrorRecord)]
    rows = [dataclasses.asdict(row) for row in done.simulation.activation_errors]
    frame = pd.DataFrame(rows, columns=columns)
    record = done.simulation.record
    # Each row says by itself what it belongs to.
    owner: dict[str, Any] = {
        "model": done.model,
        "simulation_id": done.simulation_id,
        "scheme": record.scheme,
        "mode": record.mode,
        "output_sqnr_db": record.output_sqnr_db,
        "answers": changes(record.answers),
    }
    return frame.assign(**owner)[[*owner, *columns]]


def _say_simulation(done: "Done") -> None:
    """What the table does not say, the result before all."""
    from quantstore.run.drift import collapse
    from quantstore.wording import failures
    from quantstore.wording.changed_answers import changes
    from quantstore.wording.units import NO_BREAK_SPACE

    record = done.simulation.record
    for note in done.notes:
        say(f"note: {note}")
    if done.was_ingested:
        say(f"also stored {done.model}")
    if record.failure:
        say(f"no value: {failures.reason(record.failure)}")
    else:
        say(f"output SQNR {record.output_sqnr_db:.1f} dB, compared: {record.compared}")
        if not math.isnan(record.deciding_sqnr_db):
            say(f"the verdict uses the worst output: {record.deciding_sqnr_db:.1f} dB")
    if record.answers:
        say(changes(record.answers).replace(NO_BREAK_SPACE, " "))
    lost = collapse(done.simulation.activation_errors)
    if lost.first:
        say(
            f"first layer below 10 dB: {lost.first};"
            f" all layers below 10 dB from: {lost.for_good or 'nowhere'}"
        )
    if not math.isnan(record.top1_agreement):
        say(f"the top class is the same in {record.top1_agreement:.1%} of the samples")
    if done.simulation.accuracy is not None:
        before, after = done.simulation.accuracy
        say(f"accuracy: float {before:.2%}, quantized {after:.2%}")
    if done.simulation.sensitivities:
        _say_sensitivities(done)
    peak = f", {done.peak_bytes / 1e6:,.0f} MB at the peak" if done.peak_bytes else ""
    say(
        f"{done.model}, {record.scheme}, {record.mode}:"
        f" {counted(record.sample_count, 'sample')} ({record.input_source}) in"
        f" {record.seconds:.1f} s{peak}; stored as simulation {done.simulation_id}"
    )


RANKING_AGREES = "Spearman correlation with the ranking by weights (channel_sqnr_p10_db):"


def _say_sensitivities(done: "Done") -> None:
    alone = [row for row in done.simulation.sensitivities if row.kind == "alone"]
    worst = sorted(
        (row for row in alone if not math.isnan(row.output_sqnr_db)),
        key=lambda row: row.output_sqnr_db,
    )[:3]
    named = ", ".join(f"{row.unit} ({row.unit_kind}, {row.output_sqnr_db:.1f} dB)" for row in worst)
    say(f"most sensitive when quantized alone: {named}")
    if not math.isnan(done.agreement):
        layers = sum(row.depth is not None for row in alone)
        say(f"{RANKING_AGREES} {done.agreement:.2f} over {counted(layers, 'layer')}")
    float_set = done.simulation.float_set
    if float_set:
        say(
            f"{counted(len(float_set), 'unit')} in float for {float_set[0].goal_db:g} dB, measured"
            f" {float_set[-1].output_sqnr_db:.1f} dB:"
        )
        for row in float_set:
            name = shlex.quote(row.unit)
            say(f"  --exclude {name}   {row.unit_kind}, {row.output_sqnr_db:.1f} dB")

"""The command that holds an int8 file against the float file that it was made from: audit."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantstore.cli.output import OK, emit, print_frame, say
from quantstore.cli.preprocessing import preprocessing_options, samples_option
from quantstore.cli.root import commands, everywhere, format_option
from quantstore.cli.stages import showing_stages
from quantstore.wording.units import NO_BREAK_SPACE

if TYPE_CHECKING:
    from quantstore.pipeline.audits import DoneAudit

LAYER_COLUMNS = (
    "layer",
    "stored_scheme",
    "stored_p10_db",
    "plain_p10_db",
    "per_channel_p10_db",
    "scale_ratio",
    "rounding",
    "released_gain_db",
)
LAYER_EXPENDABLE = ("scale_ratio", "rounding", "stored_scheme", "per_channel_p10_db")
TENSOR_COLUMNS = (
    "tensor",
    "grid_low",
    "grid_high",
    "seen_low",
    "seen_high",
    "saturated_share",
    "sqnr_db",
    "best_sqnr_db",
    "drift_db",
    "released_gain_db",
)
TENSOR_EXPENDABLE = ("seen_low", "seen_high", "grid_low", "grid_high", "best_sqnr_db")
# Rows of a table; csv and json have all.
MOST_ROWS = 10
DEFAULT_RELEASE = 16


@commands.command(position=77)
@click.argument("float_model", metavar="FLOAT")
@click.argument("int8_model", metavar="INT8")
@click.option(
    "--inputs",
    default="noise",
    show_default=True,
    metavar="FOLDER|FILE|noise",
    help="Run both files on these inputs: a folder of images, an image,"
    " arrays by input name (.npz), one array (.npy), or noise.",
)
@preprocessing_options
@samples_option
@click.option(
    "--release",
    type=click.IntRange(min=0),
    default=DEFAULT_RELEASE,
    show_default=True,
    metavar="N",
    help="Undo N roundings one at a time, half of them of weights, and measure the gain.",
)
@format_option
@everywhere
def audit(
    db: Path,
    float_model: str,
    int8_model: str,
    inputs: str,
    preprocess: Any,
    samples: int | None,
    release: int,
    style: str,
) -> int:
    """Explain why the int8 file INT8 differs from the float file FLOAT it was made from.

    FLOAT and INT8 are files, or names of stored models. Layers are paired by their weights, tensors
    by the graph. Both files run on the same inputs: the int8 file in float arithmetic, with the
    integer kernels of this computer, with its weights alone and with its activations alone. Then
    the worst roundings are undone one at a time.

    Of two files of weights (safetensors, GGUF) only the weights are compared: they cannot be run.

    Tables show layers and tensors, the largest gain first; csv shows the layers, json everything.
    The result is stored; files that are not stored yet are ingested.

    \b
    Examples:
      quantstore audit model.onnx model-int8.onnx --inputs photos/ --preprocess imagenet
      quantstore audit model.onnx vendor.onnx --inputs test.npz --release 40 --format json
      quantstore audit model.tflite model-int8.tflite --inputs photos/
      quantstore audit model-F16.gguf model-Q4_K_M.gguf
    """
    from quantstore.pipeline import audits

    paths = [audits.file_of(named, db) for named in (float_model, int8_model)]
    choices = audits.AuditChoices(
        samples=samples,
        release=release,
        preprocess=preprocess,
    )
    with showing_stages() as report:
        done = audits.run(paths[0], paths[1], db, inputs, choices, report)
    _print(done, db, (paths[0].name, paths[1].name), style)
    return OK


def _print(done: "DoneAudit", db: Path, names: tuple[str, str], style: str) -> None:
    """Data, then what it comes to: the headline in the end."""
    import pandas as pd

    from quantstore import queries, store
    from quantstore.wording import audits as wording
    from quantstore.wording.units import db as decibels

    with store.reading(db) as con:
        rows = queries.audits(con, done.int8_model)
        layers = queries.audit_layers(con, done.audit_id)
        tensors = queries.audit_tensors(con, done.audit_id)
        outputs = queries.audit_outputs(con, done.audit_id)
    row = rows[rows["audit_id"] == done.audit_id].reset_index(drop=True)
    if style == "table":
        print_frame(layers.head(MOST_ROWS), "table", LAYER_COLUMNS, LAYER_EXPENDABLE)
        if len(tensors):
            emit("\n")
            print_frame(tensors.head(MOST_ROWS), "table", TENSOR_COLUMNS, TENSOR_EXPENDABLE)
        emit("\n")
        for title, figure in wording.figures(done.audit.record):
            emit(f"{decibels(figure).replace(NO_BREAK_SPACE, ' '):>9}  {title}\n")
    elif style == "csv":
        print_frame(layers, style)
    else:
        for key, frame in (("layers", layers), ("tensors", tensors), ("outputs", outputs)):
            row[key] = pd.Series([frame.to_dict("records")])
        print_frame(row, style)
    record = done.audit.record
    for note in record.notes:
        say(f"note: {note}")
    for model in done.ingested:
        say(f"also stored {model}")
    peak = f", {done.peak_bytes / 1e6:,.0f} MB at the peak" if done.peak_bytes else ""
    samples = f", {record.sample_count} samples" if record.was_run else ""
    say(
        f"{record.input_source}{samples} in {record.seconds:.1f} s{peak};"
        f" stored as audit {done.audit_id}"
    )
    layer_names = dict(zip(layers["int8_depth"], layers["layer"], strict=True))
    headline = wording.headline(record, names[1], names[0])
    for sentence in (headline, *wording.sentences(record, layer_names)):
        say(sentence.replace(NO_BREAK_SPACE, " "))

"""The command that finds what keeps a network under a target, and writes files: rescue."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantstore.cli.names import NameChoice
from quantstore.cli.output import OK, SOME_FAILED, emit, print_frame, say
from quantstore.cli.preprocessing import no_fold_option, preprocessing_options, samples_option
from quantstore.cli.root import commands, everywhere, format_option
from quantstore.cli.stages import showing_stages
from quantstore.errors import QuantstoreError, hint_for
from quantstore.rescuing.terms import (
    DEFAULT_BUDGET_SECONDS,
    DEFAULT_KEEP_MACS,
    DEFAULT_REACH_DB,
    RESCUE_TARGETS,
)
from quantstore.schemes import DEFAULT_TARGET
from quantstore.wording.rescues import DROPPED, KEPT, REMEDY_NAMES
from quantstore.wording.units import NO_BREAK_SPACE

if TYPE_CHECKING:
    import pandas as pd

    from quantstore.pipeline.rescues import DoneRescue

STEP_COLUMNS = (
    "remedy",
    "validation_db",
    "test_db",
    "int8_macs",
    "seconds",
    "result",
    "detail",
)
UNIT_COLUMNS = ("unit", "kind", "layer", "precision", "sensitivity_db", "macs", "cause")
STEP_EXPENDABLE = ("seconds", "int8_macs", "validation_db")
UNIT_EXPENDABLE = ("macs", "kind", "sensitivity_db")
FILE_COLUMNS = ("file", "bytes", "use")

NO_FILE = "no such file"


def default_output(path: Path) -> Path:
    """The folder for the files where none is named: in the working folder, after the model."""
    return Path(f"{path.stem}-rescued")


def unknown_remedy(name: str) -> str:
    """What to say of a remedy that there is not."""
    hint = hint_for(name, REMEDY_NAMES, f"there are {', '.join(REMEDY_NAMES)}")
    return f"--allow: no remedy is named {name!r}; {hint}"


NO_REMEDY = f"--allow needs at least one remedy of {', '.join(REMEDY_NAMES)}"


def _remedies(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[str, ...]:
    """Names with commas between them."""
    if value is None:
        return REMEDY_NAMES
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    for name in names:
        if name not in REMEDY_NAMES:
            raise click.UsageError(unknown_remedy(name))
    if not names:
        raise click.UsageError(NO_REMEDY)
    return names


@commands.command(position=75)
@click.argument("path", type=click.Path(path_type=Path), metavar="MODEL.onnx")
@click.option(
    "--inputs",
    required=True,
    metavar="FOLDER|FILE|noise",
    help="Calibrate, search and test on these inputs: a folder of images, an image,"
    " arrays by input name (.npz), one array (.npy), or noise.",
)
@click.option(
    "--test-inputs",
    metavar="FOLDER|FILE",
    help="Test the result on these inputs. [default: every fourth of --inputs]",
)
@preprocessing_options
@click.option(
    "--target",
    type=NameChoice(RESCUE_TARGETS),
    default=DEFAULT_TARGET.name,
    show_default=True,
    metavar="TARGET",
    help="Rescue for this target. Choose the one that matches your hardware; on other"
    f" hardware the files lose more, or compute in float. One of: {', '.join(RESCUE_TARGETS)}.",
)
@click.option(
    "--reach",
    "reach_db",
    type=float,
    default=DEFAULT_REACH_DB,
    show_default=True,
    metavar="DB",
    help="Stop at this output SQNR.",
)
@click.option(
    "--keep-macs",
    type=click.FloatRange(0, 1),
    default=DEFAULT_KEEP_MACS,
    show_default=True,
    metavar="SHARE",
    help="Keep at least this share of the multiply-accumulates in int8.",
)
@click.option(
    "--allow",
    callback=_remedies,
    metavar="NAME[,NAME...]",
    help=f"Try only these remedies, of: {', '.join(REMEDY_NAMES)}. [default: all]",
)
@click.option(
    "--budget",
    "budget_seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=DEFAULT_BUDGET_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="Limit the CPU time of the search.",
)
@samples_option
@no_fold_option
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write the files into this folder; it is created if necessary. [default:"
    " NAME-rescued in the working folder]",
)
@format_option
@everywhere
def rescue(
    db: Path,
    path: Path,
    inputs: str,
    preprocess: Any,
    no_fold: bool,
    output: Path | None,
    style: str,
    **chosen: Any,
) -> int:
    """Quantize MODEL.onnx for a target so that it stays accurate, and write the files.

    Remedies are tried one after another and kept if they help. Half of the inputs are used for
    calibration, a quarter for the search, and a quarter (or --test-inputs) only for the final test.
    The written model is loaded and run. The result is stored; MODEL.onnx is ingested if it is not
    stored yet.

    With --inputs noise the result is a proposal: no quantized model is written.

    A table shows the steps, what runs outside int8, and the files; csv shows the
    steps, json everything. If the goal is not reached, the best model is written and the exit code
    is 1.

    \b
    Examples:
      quantstore rescue rtmdet.onnx --inputs photos/ --preprocess mmdet-bgr
      quantstore rescue model.onnx --inputs test.npz --target int8_channel_fused --reach 30
      quantstore rescue model.onnx --inputs photos/ --allow depthwise,ranges,rounding -o out/
      quantstore rescue model.onnx --inputs noise
    """
    from quantstore.pipeline import rescues

    if not path.is_file():
        raise QuantstoreError(f"{path}: {NO_FILE}", "check the path")
    choices = rescues.RescueChoices(
        preprocess=preprocess,
        output=str(default_output(path) if output is None else output),
        fold=not no_fold,
        **chosen,
    )
    with showing_stages(path.name) as report:
        done = rescues.run(path, db, inputs, choices, report)
    _print(done, db, path.stem, style)
    return OK if done.rescue.record.reached else SOME_FAILED


def _print(done: "DoneRescue", db: Path, name: str, style: str) -> None:
    """Data, then what it comes to: the verdict before and after in the end."""
    import pandas as pd

    from quantstore import queries, store
    from quantstore.pipeline.rescues import use_of
    from quantstore.wording.rescues import CAUSE_SENTENCES, limits, result_sentences

    with store.reading(db) as con:
        rescues = queries.rescues(con, done.model)
        steps = queries.rescue_steps(con, done.rescue_id)
        units = queries.rescue_units(con, done.rescue_id)
        files = queries.rescue_files(con, done.rescue_id)
    row = rescues[rescues["rescue_id"] == done.rescue_id].reset_index(drop=True)
    files["use"] = [use_of(file_kind, name) for file_kind in files["kind"]]
    if style == "table":
        _print_tables(steps, units, files)
    elif style == "csv":
        print_frame(_with_owner(steps, done), style)
    else:
        for key, frame in (("steps", steps), ("units", units), ("files", files)):
            row[key] = pd.Series([frame.to_dict("records")])
        print_frame(row, style)
    record = done.rescue.record
    for cause in dict.fromkeys(units["cause"].dropna()):
        say(f"{cause}: {CAUSE_SENTENCES[cause]}")
    for note in (*record.notes, *limits(record)):
        say(f"note: {note}")
    if done.was_ingested:
        say(f"also stored {done.model}")
    if len(files):
        say(f"wrote files to {Path(files['path'].iloc[0]).parent}")
    peak = f", {done.peak_bytes / 1e6:,.0f} MB at the peak" if done.peak_bytes else ""
    say(
        f"{done.model}, {record.target}: {record.input_source} in {record.seconds:.1f} s{peak};"
        f" stored as rescue {done.rescue_id}"
    )
    bands = row.iloc[0].fillna("")
    after = bands["after_band"] if record.is_proposal else bands["file_band"]
    states = bands["before_band"] or None, after or None
    sentences = result_sentences(record, *states)
    # The verdict before and after comes last; a failure has none.
    coloured_words = (
        [None] * len(sentences) if record.failure else [None] * (len(sentences) - 2) + [*states]
    )
    for sentence, word in zip(sentences, coloured_words, strict=True):
        say(sentence.replace(NO_BREAK_SPACE, " "), word)


def _print_tables(steps: "pd.DataFrame", units: "pd.DataFrame", files: "pd.DataFrame") -> None:
    shown = steps.assign(result=[KEPT if kept else DROPPED for kept in steps["kept"]])
    print_frame(shown, "table", STEP_COLUMNS, STEP_EXPENDABLE)
    promoted = units[units["rank"].notna()]
    if len(promoted):
        emit("\n")
        print_frame(promoted, "table", UNIT_COLUMNS, UNIT_EXPENDABLE)
    if len(files):
        emit("\n")
        names = [Path(path).name for path in files["path"]]
        print_frame(files.assign(file=names), "table", FILE_COLUMNS)


def _with_owner(steps: "pd.DataFrame", done: "DoneRescue") -> "pd.DataFrame":
    """Steps of which each says by itself what it belongs to."""
    owner: dict[str, Any] = {
        "model": done.model,
        "rescue_id": done.rescue_id,
        "target": done.rescue.record.target,
    }
    return steps.assign(**owner)[[*owner, *steps.columns]]

"""The command line: parse, call the same functions as the pages, print.

Standard output carries data, standard error carries talk. Everything heavy is imported by the
command that needs it, so that ``quantstore --help`` answers at once.
"""

import dataclasses
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from quantstore import __version__, settings, words
from quantstore.errors import MissingStoreError, QuantstoreError, RejectedQueryError, printable
from quantstore.schemes import DEFAULT_SCHEME, INT8_SCHEMES, SCHEMES

if TYPE_CHECKING:
    import pandas as pd

    from quantstore.ingest import Choices, IngestResult, Progress
    from quantstore.simulation import Done
    from quantstore.store import Connection

OK, SOME_FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

# What a table shows; CSV and JSON have every column.
MODEL_COLUMNS = (
    "model",
    "layer_count",
    "weight_count",
    "max_weight_range",
    "median_weight_range",
    "channel_spread_p90_bits",
    "file_bytes",
)
LAYER_COLUMNS = (
    "rank",
    "layer",
    "op_type",
    "shape",
    "weight_range",
    "channel_spread_bits",
    "band",
    "channel_sqnr_p10_db",
    "channels_below_10db",
    "channel_count",
    "zeroed_fraction",
)
COMPARE_COLUMNS = (
    "model",
    "verdict",
    "evidence",
    "mode",
    "output_sqnr_db",
    "layers_broken",
    "layers_at_risk",
    "layers_watch",
    "layers_fine",
    "channels_below_10db",
    "max_weight_range",
    "median_weight_range",
    "channel_spread_p90_bits",
    "layer_count",
    "weight_count",
    "worst_layer",
)

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

# Progress that is over at once only flickers.
PATIENCE_SECONDS = 1.0
LONGEST_TIMEOUT_SECONDS = 86_400.0

Command = TypeVar("Command", bound=Callable[..., Any])


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: done. 1: some input failed or a query was wrong, the rest is done. 2: usage, or a model that
    the store does not hold. 3: the store cannot be used. 130: interrupted.
    """
    try:
        outcome = commands.main(args=argv, prog_name="quantstore", standalone_mode=False)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "quantstore"
        _complain(f"{_one_line(error.format_message())}; try: {command} --help")
        return USAGE
    except QuantstoreError as error:
        _complain(error.sentence)
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    except SystemExit as error:
        # click leaves in this way where a pipe is closed, and after completing a shell's line.
        return error.code if isinstance(error.code, int) else OK
    return outcome if isinstance(outcome, int) else OK


class _Commands(click.Group):
    """Commands in the order of their definition, which is the order of use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def _store_path(
    context: click.Context, _parameter: click.Parameter, value: Path | None
) -> Path | None:
    """The store named after the command, else before it, else by the environment."""
    if context.parent is None:
        return value
    return value or context.parent.params["db"] or settings.store_path()


def everywhere(command: Command) -> Command:
    """Give a command the options that every command has."""
    db = click.option(
        "--db",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        callback=_store_path,
        help=f"The store. [default: ${settings.ENVIRONMENT_VARIABLE} or {settings.DEFAULT_STORE}]",
    )
    version = click.version_option(
        __version__, prog_name="quantstore", message="%(prog)s %(version)s"
    )
    return db(version(command))


scheme_option = click.option(
    "--scheme",
    type=click.Choice(list(SCHEMES)),
    default=DEFAULT_SCHEME.name,
    show_default=True,
    metavar="SCHEME",
    help=f"One of: {', '.join(SCHEMES)}.",
)
format_option = click.option(
    "--format",
    "style",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="A table shows the main columns, rounded; csv and json carry all of them, exactly.",
)


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 96},
)
@everywhere
@click.pass_context
def commands(context: click.Context, db: Path | None) -> None:
    """Does a network survive int8, which layers break it, and what would rescue it?

    quantstore measures the weights of ONNX models under several int8 schemes and keeps everything
    in one DuckDB file.

    \b
    Start here:
      quantstore demo                      load four small example models
      quantstore compare digits-plain digits-rescaled
      quantstore layers digits-rescaled    which layers break, worst first
      quantstore app                       the same and more, in the browser

    \b
    Then with models of your own:
      quantstore ingest model.onnx
      quantstore sql "from model_summary"

    \b
    Exit codes: 0 done; 1 some input failed or a query was wrong; 2 usage, or a model that the
    store does not hold; 3 the store is missing, locked, too new or damaged.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(USAGE)


@commands.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--name", metavar="NAME", help="Store the model under this name; for one file only.")
@click.option("--replace", is_flag=True, help="Measure anew what is stored already.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Files to measure at the same time. [default: one per core]",
)
@click.option(
    "--no-fold", is_flag=True, help="Measure raw weights: leave BatchNormalization unfolded."
)
@click.option(
    "--no-probe",
    is_flag=True,
    help="Do not run the model on noise; verdicts then rest on its weights alone.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what became of each file as JSON.")
@everywhere
def ingest(
    db: Path,
    paths: tuple[str, ...],
    name: str | None,
    replace: bool,
    jobs: int | None,
    no_fold: bool,
    no_probe: bool,
    as_json: bool,
) -> int:
    """Measure ONNX files and store what comes out.

    PATH is a file, a folder (searched for *.onnx at every depth) or a pattern in quotes. What is
    stored already, by content, is left alone. A file that fails does not stop the others; the exit
    code is then 1.

    \b
    Examples:
      quantstore ingest rtmdet-s.onnx
      quantstore ingest models/ --jobs 4
      quantstore ingest "runs/*/best.onnx" --json | jq '.[] | select(.error)'
      quantstore ingest model.onnx --name rtmdet-s-epoch300 --replace
    """
    from quantstore.ingest import Choices, find_files

    files, failures = find_files(paths)
    if name is not None and len(files) + len(failures) != 1:
        raise click.UsageError(f"--name is for one file, and these are {len(files)}")
    choices = Choices(name=name, replace=replace, fold=not no_fold, probe=not no_probe)
    results = [*failures, *_ingested(files, db, choices, jobs, failures)]
    if as_json:
        _print_lines([dataclasses.asdict(result) for result in results])
    return SOME_FAILED if any(result.outcome == "failed" for result in results) else OK


@commands.command()
@format_option
@everywhere
def models(db: Path, style: str) -> None:
    """List the models that the store holds.

    \b
    Examples:
      quantstore models
      quantstore models --format json | jq -r '.[].model'
    """
    from quantstore import queries, store

    with store.reading(db) as connection:
        frame = queries.models(connection)
    _print_frame(frame, style, MODEL_COLUMNS)
    if frame.empty:
        _say("the store is empty; fill it with: quantstore ingest MODEL.onnx (or: quantstore demo)")
    if style == "table":
        _say_already_quantized(frame)


@commands.command()
@click.argument("model")
@scheme_option
@click.option(
    "--sort",
    metavar="COLUMN",
    help="Order by this column, worst first: text and dB upwards, other numbers downwards."
    " COLUMN:asc and COLUMN:desc choose.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N layers.")
@click.option(
    "--search",
    metavar="TEXT",
    help="Only layers whose name or module path contains TEXT, in any case.",
)
@format_option
@everywhere
def layers(
    db: Path,
    model: str,
    scheme: str,
    sort: str | None,
    limit: int | None,
    search: str | None,
    style: str,
) -> None:
    """List the layers of MODEL, worst first.

    Worst is the layer with the lowest SQNR that nine in ten of its channels reach
    (channel_sqnr_p10_db); of equals, the one that loses more weights.

    \b
    Examples:
      quantstore layers rtmdet-nano --limit 10
      quantstore layers rtmdet-nano --search depthwise --sort weight_range
      quantstore layers rtmdet-nano --scheme int8_channel_symmetric --format csv
    """
    from quantstore import queries, store

    with store.reading(db) as connection:
        store.find_model(connection, model)
        frame = queries.worst_layers(connection, model, scheme)
        bands = _bands(connection)
    layer_count = len(frame)
    columns: tuple[str, ...] = LAYER_COLUMNS
    if sort is not None:
        column, is_ascending = _sorting(frame, sort)
        frame = frame.sort_values(column, ascending=is_ascending, kind="stable")
        columns = LAYER_COLUMNS if column in LAYER_COLUMNS else (*LAYER_COLUMNS, column)
    if search is not None:
        frame = queries.found_by_name(frame, search)
    frame = frame.head(limit) if limit is not None else frame
    _print_frame(frame, style, columns)
    if style == "table":
        _say(f"{len(frame):,} of {layer_count:,} layers under {scheme}; {bands}")
        if frame["already_quantized"].any():
            _say(f"{model}: {_FIRST_LOSS_UNKNOWN}")


@commands.command()
@click.argument("names", nargs=-1, required=True, metavar="MODEL...")
@scheme_option
@format_option
@everywhere
def compare(db: Path, names: tuple[str, ...], scheme: str, style: str) -> None:
    """Set models side by side: one row per MODEL, in the order given.

    A verdict rests on the noise probe (the SQNR at the outputs of the network) where there is one,
    else on the weights alone: they can prove that a model will break, never that it survives.

    \b
    Examples:
      quantstore compare rtmdet-nano yolov10n-quant
      quantstore compare rtmdet-nano yolov10n-quant --scheme int8_channel_symmetric
    """
    from quantstore import queries, store

    chosen = list(dict.fromkeys(names))
    with store.reading(db) as connection:
        for model in chosen:
            store.find_model(connection, model)
        frame = queries.verdicts(connection, chosen)
        bands = _bands(connection)
    frame = frame[frame["scheme"] == scheme].set_index("model").loc[chosen].reset_index()
    _print_frame(frame, style, COMPARE_COLUMNS)
    if style == "table":
        _say(f"{scheme}, judged by {_evidence(frame)}; {bands}")
        for model, failure in frame[["model", "probe_failure"]].dropna().itertuples(index=False):
            _say(f"{model}: the probe failed: {failure}")
        _say_already_quantized(frame)


@commands.command()
@click.argument("query")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N rows.")
@click.option(
    "--timeout",
    type=float,
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Stop the statement after this time.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write to FILE instead, as its ending says: .csv, .json or .parquet.",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "csv", "json"]),
    help="[default: table]",
)
@everywhere
def sql(
    db: Path,
    query: str,
    limit: int | None,
    timeout: float,
    output: Path | None,
    style: str | None,
) -> None:
    """Ask the store one question in SQL.

    QUERY is one SELECT; - reads it from standard input. The store is read, never changed, and
    nothing else is within reach. "show tables" and "describe TABLE" tell what there is; every
    column has a comment (duckdb_columns()).

    \b
    Examples:
      quantstore sql "from model_summary"
      quantstore sql "select layer, weight_range from model_layers order by 2 desc" --limit 10
      quantstore sql "from layer_errors where band = 'broken'" --output broken.parquet
      quantstore sql - --format json < question.sql | jq '.[0]'
    """
    from quantstore import console

    if not 0 < timeout <= LONGEST_TIMEOUT_SECONDS:
        raise click.UsageError(f"--timeout must lie between 0 and {LONGEST_TIMEOUT_SECONDS:,.0f}")
    if output is not None and output.suffix.lower() not in (".csv", ".json", ".parquet"):
        raise click.UsageError("--output must end in .csv, .json or .parquet")
    if output is not None and style is not None:
        raise click.UsageError("--output and --format exclude each other")
    statement = _standard_input() if query == "-" else query
    running = console.start(db, statement, row_limit=limit, timeout_seconds=timeout)
    # pandas loads while the child does.
    from quantstore import formats  # noqa: F401

    answer = running.result()
    if output is not None:
        _write_answer(answer, output)
        _say(f"wrote {_counted(answer.table.num_rows, 'row')} to {output}")
    elif list(answer.frame.columns) == ["explain_key", "explain_value"] and style is None:
        # A plan is drawn in lines; in a table, their ends would show as \n.
        for plan in answer.frame["explain_value"]:
            _print("".join(f"{printable(line)}\n" for line in plan.splitlines()))
    else:
        _print_frame(answer.frame, style or "table")
    if answer.was_cut:
        _say(f"cut after {_counted(answer.table.num_rows, 'row')}; there are more than --limit")


@commands.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="MODEL.onnx")
@click.option(
    "--inputs",
    required=True,
    metavar="FOLDER|FILE|noise",
    help="What to run on: a folder of images, an image, arrays by input name (.npz), one array"
    " (.npy), or noise.",
)
@click.option(
    "--preprocess",
    default="auto",
    show_default=True,
    metavar="PRESET",
    help="What becomes of pixels; --preprocess help lists the presets. auto is imagenet, gray for"
    " one channel.",
)
@click.option("--size", metavar="N|HxW", help="Size of images where the model leaves it open.")
@click.option("--mean", metavar="A[,B,C]", help="(pixel * scale - mean) / std, pixels from 0.")
@click.option("--std", metavar="A[,B,C]", help="See --mean.")
@click.option("--scale", type=float, metavar="X", help="See --mean.")
@click.option("--color", type=click.Choice(["rgb", "bgr", "gray"]), help="Order of the channels.")
@scheme_option
@click.option(
    "--mode",
    type=click.Choice(["weights", "activations", "both"]),
    default="both",
    show_default=True,
    help="What is quantized.",
)
@click.option(
    "--calibration",
    type=click.Choice(["minmax", "percentile", "entropy"]),
    default="minmax",
    show_default=True,
    help="How the ranges of activations are found.",
)
@click.option(
    "--calibration-inputs",
    metavar="FOLDER|FILE",
    help="Where they are found. [default: every other sample of --inputs]",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    metavar="N",
    help="Use at most N samples, at even distances. [default: 32]",
)
@click.option(
    "--exclude", multiple=True, metavar="LAYER", help="Leave this layer in float; may be repeated."
)
@click.option("--no-drift", is_flag=True, help="Compare the outputs alone: quicker.")
@click.option(
    "--sensitivity/--no-sensitivity",
    default=False,
    help="Also quantize one layer at a time, and all but one.",
)
@click.option(
    "--budget",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="At most so long for --sensitivity.",
)
@click.option("--no-fold", is_flag=True, help="Leave BatchNormalization out of the weights.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=10,
    metavar="N",
    show_default=True,
    help="How many tensors a table shows.",
)
@format_option
@everywhere
def simulate(
    db: Path,
    path: Path,
    inputs: str,
    preprocess: str,
    size: str | None,
    mean: str | None,
    std: str | None,
    scale: float | None,
    color: str | None,
    no_drift: bool,
    sensitivity: bool,
    budget: float,
    no_fold: bool,
    limit: int,
    style: str,
    exclude: tuple[str, ...],
    **chosen: Any,
) -> int:
    """Run MODEL.onnx beside its int8 twin and see where it drifts.

    Both models see the same inputs. Every tensor is compared twice: with the whole model quantized
    (accumulated), and with its own operator alone (local). What is found is stored; a model that
    the store does not hold is ingested as well. A table shows the worst tensors, csv and json all.

    Mode weights rounds the weights to the scheme; both is full int8 by onnxruntime's quantizer;
    activations is the same with float weights.

    \b
    Examples:
      quantstore simulate rtmdet.onnx --inputs photos/ --preprocess mmdet-bgr
      quantstore simulate ocr.onnx --inputs pages/ --size 480x640 --mean 0.5 --std 0.5
      quantstore simulate model.onnx --inputs test.npz --mode weights --sensitivity
      quantstore simulate model.onnx --inputs noise --scheme int8_channel_symmetric

    An array named labels in an .npz file is the right class of each sample: the accuracy of both
    models is then reported.
    """
    from quantstore import simulation
    from quantstore.run.simulate import Choices, Progress

    if preprocess == "help":
        _print_presets()
        return OK
    if not path.is_file():
        raise QuantstoreError(f"{path}: there is no such file", "check the path")
    how = _preprocessing(preprocess, size=size, mean=mean, std=std, scale=scale, color=color)
    choices = Choices(
        preprocess=how,
        exclude=exclude,
        drift=not no_drift,
        sensitivity=sensitivity,
        budget_seconds=budget,
        fold=not no_fold,
        **chosen,
    )
    with _Talk() as talk:
        stage = ""

        def report(progress: Progress) -> None:
            nonlocal stage
            if progress.stage != stage:
                stage = progress.stage
                talk.begin()
            talk.progress(progress.done, progress.total, progress.stage)

        try:
            done = simulation.run(path, db, inputs, choices, report)
        except KeyboardInterrupt:
            raise click.Abort from None
        except QuantstoreError as error:
            error.args = (f"{path.name}: {error}",)
            raise
    frame = _drift_frame(done)
    if style == "table":
        shown = frame[frame["kind"] == "accumulated"]
        shown = shown.sort_values("sqnr_db", kind="stable", na_position="last").head(limit)
        local = frame[frame["kind"] == "local"].set_index("tensor")["sqnr_db"]
        shown = shown.assign(local_sqnr_db=shown["tensor"].map(local))
        _print_frame(shown, style, DRIFT_COLUMNS)
    else:
        _print_frame(frame, style)
    _say_simulation(done)
    return SOME_FAILED if done.simulation.record.failure else OK


@commands.command()
@click.argument("names", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default="report.html",
    show_default=True,
    metavar="FILE",
    help="The file to write; one that is there already is replaced.",
)
@click.option(
    "--scheme",
    type=click.Choice(list(INT8_SCHEMES)),
    default=DEFAULT_SCHEME.name,
    show_default=True,
    metavar="SCHEME",
    help=f"What the report judges by; its matrix has all four: {', '.join(INT8_SCHEMES)}.",
)
@everywhere
def report(db: Path, names: tuple[str, ...], output: Path, scheme: str) -> None:
    """Write one HTML file about the MODELs, to send to a colleague.

    It holds the verdicts, the charts, the worst layers with their causes, and the method. It opens
    in a browser without a network: nothing in it asks for anything outside.

    \b
    Examples:
      quantstore report rtmdet-nano
      quantstore report rtmdet-nano yolov10n-quant -o detectors.html
      quantstore report rtmdet-nano --scheme int8_channel_symmetric
    """
    from quantstore import report as reports
    from quantstore import store

    chosen = list(dict.fromkeys(names))
    with store.reading(db) as connection, _Talk() as talk:
        for model in chosen:
            store.find_model(connection, model)
        page = reports.html(
            connection,
            chosen,
            INT8_SCHEMES[scheme],
            progress=lambda done, total: talk.progress(done, total, "models"),
        )
    content = page.encode("utf-8")
    try:
        output.write_bytes(content)
    except OSError as error:
        raise _unwritable(output, error) from error
    _say(f"wrote {output} ({words.file_size(len(content)).replace(words.NO_BREAK_SPACE, ' ')})")


@commands.command()
@click.argument("model")
@everywhere
def remove(db: Path, model: str) -> None:
    """Take MODEL out of the store, with everything known about it.

    \b
    Example:
      quantstore remove rtmdet-nano
    """
    from quantstore import store

    # Writing creates a store where there is none; reading says that there is none.
    with store.reading(db) as connection:
        store.find_model(connection, model)
    with store.writing(db) as connection:
        store.remove_model(connection, store.find_model(connection, model))
    _say(f"removed {model}")


@commands.command()
@everywhere
def demo(db: Path) -> int:
    """Load the example models that ship with quantstore.

    Four small networks that read handwritten digits: digits-plain survives int8, and
    digits-rescaled computes the same function with weights that do not.

    \b
    Examples:
      quantstore demo
      quantstore --db /tmp/try.duckdb demo
    """
    code = _load_demo(db)
    program = "quantstore"
    if db.absolute() != settings.store_path().absolute():
        program += f" --db {shlex.quote(str(db))}"
    _say("what next:")
    _say(f"  {program} compare digits-plain digits-rescaled")
    _say(f"  {program} layers digits-rescaled --limit 5")
    _say(f"  {program} app")
    return code


@commands.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), metavar="PORT", help="[default: 8501, or the next]"
)
@click.option("--no-browser", "--headless", "headless", is_flag=True, help="Open no browser.")
@click.option("--demo", "with_demo", is_flag=True, help="Load the example models if it is empty.")
@everywhere
def app(db: Path, port: int | None, headless: bool, with_demo: bool) -> int:
    """Start the web app, for this computer only. Stop it with Ctrl-C.

    \b
    Examples:
      quantstore app
      quantstore app --demo --port 8600 --no-browser
    """
    if with_demo and _is_empty(db):
        _load_demo(db)
    from streamlit.web import cli as streamlit

    os.environ[settings.ENVIRONMENT_VARIABLE] = str(db.absolute())
    script = Path(__file__).parent / "start" / "app.py"
    sys.argv = ["streamlit", "run", str(script), "--server.address=127.0.0.1"]
    if port is not None:
        sys.argv.append(f"--server.port={port}")
    if headless:
        sys.argv.append("--server.headless=true")
    return int(streamlit.main(standalone_mode=False) or OK)


def _ingested(
    files: list[Path],
    db: Path,
    choices: "Choices",
    jobs: int | None,
    failures: "Iterable[IngestResult]" = (),
) -> "list[IngestResult]":
    """Ingest and say what became of each file, those that failed before included."""
    from quantstore.ingest import ingest_many

    results = []
    with _Talk() as talk:
        for failure in failures:
            talk.say(_sentence(failure))
        found = (
            _ingest_alone(files[0], db, choices, talk)
            if len(files) == 1
            else ingest_many(files, db, choices, jobs)
        )
        for result in found:
            results.append(result)
            talk.say(_sentence(result))
            talk.progress(len(results), len(files), "files")
    if len(files) > 1:
        _say(_summary([*failures, *results], talk.seconds))
    return results


def _ingest_alone(
    path: Path, db: Path, choices: "Choices", talk: "_Talk"
) -> "Iterator[IngestResult]":
    """One file, with progress by bytes of weights: layers differ too much in size."""
    from quantstore.errors import StoreError
    from quantstore.ingest import IngestResult, ingest_file

    def report(progress: "Progress") -> None:
        what = printable(path.name)
        if progress.is_probing:
            what += ", running it on noise"
        talk.progress(progress.bytes_done, progress.bytes_total, what)

    try:
        yield ingest_file(path, db, choices, report)
    except StoreError:
        raise
    except QuantstoreError as error:
        yield IngestResult(path=str(path), outcome="failed", error=error.sentence)


def _sentence(result: "IngestResult") -> str:
    if result.outcome == "failed":
        return f"error: {result.path}: {result.error}"
    if result.outcome == "already stored":
        return f"already stored as {result.model}: {result.path}"
    layers = _counted(result.layers or 0, "layer")
    took = words.seconds(result.seconds or 0).replace(words.NO_BREAK_SPACE, " ")
    return f"{result.outcome} {result.model}: {layers} in {took}"


def _summary(results: "list[IngestResult]", seconds: float) -> str:
    outcomes = [result.outcome for result in results]
    counts = [f"{outcomes.count(outcome)} {outcome}" for outcome in dict.fromkeys(outcomes)]
    return f"{len(results)} files in {seconds:.1f} s: {', '.join(counts)}"


def _preprocessing(name: str, *, size: str | None, **given: Any) -> Any:
    """A preset's name, or the preset with what was given on the command line."""
    from quantstore.run import inputs

    own = {key: value for key, value in given.items() if value is not None}
    for key in ("mean", "std"):
        if key in own:
            try:
                own[key] = tuple(float(part) for part in own[key].split(","))
            except ValueError:
                raise click.UsageError(
                    f"--{key} is one number or three, as in 0.5,0.5,0.5"
                ) from None
    if size is not None:
        height, _, width = size.lower().partition("x")
        try:
            own["size"] = (int(height), int(width or height))
        except ValueError:
            raise click.UsageError("--size is a number or HEIGHTxWIDTH, as in 480x640") from None
    if name == inputs.AUTO:
        if not own:
            return name
        # Numbers of one's own replace the preset's, the size alone does not.
        name = "zero-one" if own.keys() - {"size"} else "imagenet"
    return inputs.changed(inputs.preset(name), **own)


def _print_presets() -> None:
    from quantstore.run.inputs import ALIASES, PRESETS

    also = {
        name: [alias for alias, target in ALIASES.items() if target == name] for name in PRESETS
    }
    for name, preset in PRESETS.items():
        _print(f"{', '.join([name, *also[name]])}: {preset.description}\n")


def _drift_frame(done: "Done") -> "pd.DataFrame":
    """One row per tensor and kind of error."""
    import pandas as pd

    from quantstore.records import ActivationErrorRecord

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
    }
    return frame.assign(**owner)[[*owner, *columns]]


def _say_simulation(done: "Done") -> None:
    """What the table does not say, the result before all."""
    from quantstore.run.drift import collapse

    record = done.simulation.record
    for note in done.notes:
        _say(f"note: {note}")
    if done.was_ingested:
        _say(f"stored {done.model}, which the store did not hold")
    if record.failure:
        _say(f"no figure: {record.failure}")
    else:
        _say(f"output SQNR {record.output_sqnr_db:.1f} dB, compared: {record.compared}")
    lost = collapse(done.simulation.activation_errors)
    if lost.first:
        _say(f"first layer below 10 dB: {lost.first}; all below from: {lost.for_good or 'nowhere'}")
    if not math.isnan(record.top1_agreement):
        _say(f"the largest score stays the same in {record.top1_agreement:.1%} of the samples")
    if done.simulation.accuracy is not None:
        before, after = done.simulation.accuracy
        _say(f"accuracy: float {before:.2%}, quantized {after:.2%}")
    if done.simulation.sensitivities:
        _say_sensitivities(done)
    peak = f", {done.peak_bytes / 1e6:,.0f} MB at the peak" if done.peak_bytes else ""
    _say(
        f"{done.model}, {record.scheme}, {record.mode}:"
        f" {_counted(record.sample_count, 'sample')} ({record.input_source}) in"
        f" {record.seconds:.1f} s{peak}; stored as simulation {done.simulation_id}"
    )


def _say_sensitivities(done: "Done") -> None:
    alone = [row for row in done.simulation.sensitivities if row.kind == "alone"]
    worst = sorted(
        (row for row in alone if not math.isnan(row.output_sqnr_db)),
        key=lambda row: row.output_sqnr_db,
    )[:3]
    named = ", ".join(f"{done.layers[row.depth]} ({row.output_sqnr_db:.1f} dB)" for row in worst)
    _say(f"most sensitive when quantized alone: {named}")
    if not math.isnan(done.agreement):
        _say(
            "the ranking by weights (channel_sqnr_p10_db) agrees with it at Spearman"
            f" {done.agreement:.2f} over {_counted(len(alone), 'layer')}"
        )


def _load_demo(db: Path) -> int:
    from quantstore.ingest import Choices, demo_paths

    results = _ingested(demo_paths(), db, Choices(), jobs=1)
    return SOME_FAILED if any(result.outcome == "failed" for result in results) else OK


def _is_empty(db: Path) -> bool:
    from quantstore import queries, store

    try:
        with store.reading(db) as connection:
            return queries.store_size(connection).models == 0
    except MissingStoreError:
        return True


def _sorting(frame: "pd.DataFrame", wanted: str) -> tuple[str, bool]:
    """The column that ``--sort`` names, and whether it goes upwards."""
    column, _, direction = wanted.partition(":")
    # Lists have no order that means anything.
    is_list = frame.map(lambda value: hasattr(value, "__len__") and not isinstance(value, str))
    sortable = [str(name) for name in frame.columns if not is_list[name].any()]
    if column not in sortable or direction not in ("", "asc", "desc"):
        raise click.UsageError(f"cannot sort by {wanted!r}; columns: {', '.join(sortable)}")
    if direction:
        return column, direction == "asc"
    is_text = frame[column].dtype.kind not in "biuf"
    return column, is_text or column.endswith("_db") or column in ("rank", "depth")


def _evidence(frame: "pd.DataFrame") -> str:
    """What the verdicts of a frame rest on."""
    kinds = set(frame["evidence"])
    if kinds == {"probe"}:
        return "the noise probe"
    if "probe" in kinds:
        return "the noise probe where there is one, else by weights alone"
    return "weights alone"


_FIRST_LOSS_UNKNOWN = "stored as integers; the first loss is unknown"


def _say_already_quantized(frame: "pd.DataFrame") -> None:
    quantized = frame[frame["layers_already_quantized"] > 0]
    for model, count, total in quantized[
        ["model", "layers_already_quantized", "layer_count"]
    ].itertuples(index=False):
        _say(f"{model}: {count:,} of {total:,} layers are {_FIRST_LOSS_UNKNOWN}")


def _bands(connection: "Connection") -> str:
    """The limits of the bands in one line; they live in the store, where they can be changed."""
    from quantstore import queries

    limits = sorted(queries.band_limits(connection).items(), key=lambda limit: -limit[1])
    parts = [
        f"{band} from {lower:g} dB" if math.isfinite(lower) else f"{band} below"
        for band, lower in limits
    ]
    return f"provisional bands: {', '.join(parts)}"


def _write_answer(answer: Any, path: Path) -> None:
    from quantstore import formats

    try:
        match path.suffix.lower():
            case ".parquet":
                formats.write_parquet(answer.table, path)
            case ".json":
                path.write_text(formats.to_json(answer.frame), encoding="utf-8", newline="\n")
            case _:
                path.write_text(formats.to_csv(answer.frame), encoding="utf-8", newline="\n")
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> QuantstoreError:
    return QuantstoreError(
        f"{path}: cannot be written: {error.strerror or error}",
        "name a file in a folder that exists and that you may write to",
    )


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise RejectedQueryError("the statement is not valid text", "save it as UTF-8") from error


def _print_frame(frame: "pd.DataFrame", style: str, columns: Iterable[str] | None = None) -> None:
    """Print a frame; a table shows the given columns, the other formats all of them."""
    from quantstore import formats

    if style == "table":
        shown = frame if columns is None else frame[list(columns)]
        _print(formats.to_table(shown) + "\n")
    elif style == "json":
        _print(formats.to_json(frame))
    else:
        text = formats.to_csv(frame)
        if sys.stdout.isatty():
            # A file gets names as they are; a terminal must not obey what they contain.
            text = "".join(f"{printable(line)}\n" for line in text.split("\n")[:-1])
        _print(text)


def _print_lines(rows: list[dict[str, Any]]) -> None:
    _print("[\n  " + ",\n  ".join(map(json.dumps, rows)) + "\n]\n")


def _print(text: str) -> None:
    """Write data to standard output."""
    stream = sys.stdout
    if hasattr(stream, "reconfigure"):
        # A terminal may lack the letters of a layer's name.
        stream.reconfigure(errors="backslashreplace")
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # Whoever reads has enough (head, less). Python would complain once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise click.exceptions.Exit(OK) from None


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _say(message: str) -> None:
    # Names in it come from files that anybody can write.
    click.echo(printable(message), err=True)


def _complain(sentence: str) -> None:
    _say(f"error: {sentence}")


def _one_line(message: str) -> str:
    return " ".join(message.split()).rstrip(".")


class _Talk:
    """Lines on standard error and, on a terminal, a progress bar below them."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> "_Talk":
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._started

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._clear()
        _say(line)
        if self._bar is not None:
            self._bar.render_progress()

    def begin(self) -> None:
        """Another stage: a bar of its own."""
        self._clear()
        self._bar = None

    def progress(self, done: int, total: int, label: str) -> None:
        """Show how far the work is, once it has turned out to be long."""
        if not sys.stderr.isatty() or done >= total:
            return
        if self._bar is None:
            if self.seconds < PATIENCE_SECONDS:
                return
            self._bar = click.progressbar(length=total, label=label, file=sys.stderr)
        self._bar.update(done - self._bar.pos)

    def _clear(self) -> None:
        if self._bar is not None:
            # Back to the first column, erase to the end of the line, show the cursor again.
            click.echo("\r\033[K\033[?25h", nl=False, err=True)


if __name__ == "__main__":
    raise SystemExit(main())

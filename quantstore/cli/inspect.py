"""Commands that ask the store: models, layers, compare, diff, sql, report."""

import contextlib
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantstore import settings
from quantstore.cli.names import ModelName, NameChoice
from quantstore.cli.output import (
    Talk,
    counted,
    emit,
    print_frame,
    say,
    standard_input,
    write_answer,
)
from quantstore.cli.root import (
    commands,
    everywhere,
    format_option,
    scheme_option,
    target_option,
    targets_option,
)
from quantstore.errors import printable, unwritable
from quantstore.schemes import ALL_TARGETS, DEFAULT_TARGET, SCHEMES, TARGETS, target_of
from quantstore.wording import audits, units, verdicts
from quantstore.wording.text import listed

if TYPE_CHECKING:
    import pandas as pd

    from quantstore.store import Connection

# What a table shows; CSV and JSON have every column.
MODEL_COLUMNS = (
    "model",
    "verdict",
    "output_sqnr_db",
    "evidence",
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


# What a narrow terminal does without, the least important first.
LAYER_EXPENDABLE = (
    "zeroed_fraction",
    "dead_channel_count",
    "shape",
    "channel_count",
    "op_type",
    "weight_range",
    "channels_below_10db",
    "channel_spread_bits",
    "rank",
    "channel_sqnr_p10_db",
    "band",
)


# What is known of a model under a target, beside the model itself.
VERDICT_COLUMNS = (
    "target",
    "verdict",
    "evidence",
    "mode",
    "output_sqnr_db",
    "sample_count",
    "input_source",
    "provisional",
    "reason",
)


COMPARE_COLUMNS = (
    "model",
    "target",
    "verdict",
    "evidence",
    "mode",
    "output_sqnr_db",
    "sample_count",
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


COMPARE_EXPENDABLE = (
    "weight_count",
    "layer_count",
    "median_weight_range",
    "channel_spread_p90_bits",
    "max_weight_range",
    "sample_count",
    "channels_below_10db",
    "layers_fine",
    "layers_watch",
    "mode",
    "worst_layer",
    "layers_at_risk",
    "evidence",
)


DIFF_COLUMNS = (
    "layer",
    "outcome",
    "change_db",
    "channel_sqnr_p10_before_db",
    "channel_sqnr_p10_after_db",
    "band_before",
    "band_after",
    "weight_range_before",
    "weight_range_after",
    "rule",
)


LONGEST_TIMEOUT_SECONDS = 86_400.0


@commands.command(position=20)
@target_option
@format_option
@everywhere
def models(db: Path, target: str, style: str) -> None:
    """List the stored models with their verdicts.

    \b
    Examples:
      quantstore models
      quantstore models --target int8_tensor
      quantstore models --format json | jq -r '.[].model'
    """
    from quantstore import queries, store

    with store.reading(db) as connection:
        frame = queries.models(connection)
        judged = queries.verdicts(connection, None, target)[["model", *VERDICT_COLUMNS]]
        frame = frame.merge(judged, on="model", how="left")
    print_frame(frame, style, MODEL_COLUMNS)
    if frame.empty:
        say("the store is empty; fill it with: quantstore ingest MODEL.onnx (or: quantstore demo)")
    if style == "table":
        if not frame.empty:
            say(f"{target}, judged by {_evidence(frame)}")
        _say_which_weights(frame)


@commands.command(position=30)
@click.argument("model", type=ModelName())
@scheme_option("Judge layers under")
@click.option(
    "--sort",
    metavar="COLUMN",
    help="Sort by this column, worst first (text and dB ascending, other numbers"
    " descending). COLUMN:asc and COLUMN:desc set the order.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Show only the first N layers."
)
@click.option(
    "--search",
    metavar="TEXT",
    help="Show only layers whose name or module path contains TEXT (case-insensitive).",
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

    Layers are ordered by the SQNR that 90 % of their channels reach (channel_sqnr_p10_db), then by
    the share of weights that are rounded to zero.

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
    sorted_by = None
    if sort is not None:
        sorted_by, is_ascending = _sorting(frame, sort)
        frame = frame.sort_values(sorted_by, ascending=is_ascending, kind="stable")
        columns = LAYER_COLUMNS if sorted_by in LAYER_COLUMNS else (*LAYER_COLUMNS, sorted_by)
    if search is not None:
        frame = queries.found_by_name(frame, search)
    frame = frame.head(limit) if limit is not None else frame
    dead_count = int(frame["dead_channel_count"].fillna(0).sum())
    if dead_count and "dead_channel_count" not in columns:
        columns = (*columns, "dead_channel_count")
    expendable = [name for name in LAYER_EXPENDABLE if name != sorted_by]
    print_frame(frame, style, columns, expendable)
    if style == "table":
        say(f"{len(frame):,} of {layer_count:,} layers under {scheme}; {bands}")
        if dead_count:
            say(
                f"{counted(dead_count, 'dead channel')} left out: the weights are below a millionth"
                " of the layer's largest"
            )
        if frame["already_quantized"].any():
            say(f"{model}: {FIRST_LOSS_UNKNOWN}")


@commands.command(position=40)
@click.argument("names", nargs=-1, required=True, metavar="MODEL...", type=ModelName())
@targets_option("Judge for", DEFAULT_TARGET.name)
@click.option(
    "--scheme",
    type=NameChoice(list(SCHEMES)),
    metavar="SCHEME",
    help="Judge for the target whose weights are rounded under this scheme.",
)
@format_option
@everywhere
def compare(
    db: Path, names: tuple[str, ...], targets: tuple[str, ...], scheme: str | None, style: str
) -> None:
    """Compare models: one row per MODEL and target, in the order given.

    A verdict is based on a run on your own inputs, or else on the noise probe. Weights alone can
    prove that a model is broken, but not that it is fine: such a model is untested.

    \b
    Examples:
      quantstore compare rtmdet-nano yolov10n-quant
      quantstore compare rtmdet-nano yolov10n-quant --target int8_tensor --target int8_weights
      quantstore compare rtmdet-nano --target all --format csv
    """
    from quantstore import queries, store

    chosen = list(dict.fromkeys(names))
    if targets and scheme is not None:
        raise click.UsageError("--target and --scheme exclude each other")
    if not targets:
        targets = (target_under(scheme),)
    chosen_targets = list(TARGETS) if ALL_TARGETS in targets else list(dict.fromkeys(targets))
    with store.reading(db) as connection:
        for model in chosen:
            store.find_model(connection, model)
        frame = queries.verdicts(connection, chosen)
        bands = _bands(connection)
    places = [(model, target) for model in chosen for target in chosen_targets]
    frame = frame.set_index(["model", "target"]).loc[places].reset_index()
    print_frame(frame, style, COMPARE_COLUMNS, COMPARE_EXPENDABLE)
    if style == "table":
        say(f"{', '.join(chosen_targets)}, judged by {_evidence(frame)}; {bands}")
        for row in frame.to_dict("records"):
            facts = queries.model_facts(row)
            if facts.is_untested or facts.provisional:
                say(f"{facts.model}, {facts.target}: {verdicts.verdict_sentence(facts)}")
        _say_which_weights(frame.drop_duplicates("model"))


@commands.command(position=50)
@click.argument("before", type=ModelName())
@click.argument("after", type=ModelName())
@scheme_option("Judge layers under")
@click.option("--all", "is_whole", is_flag=True, help="Show unchanged layers as well.")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Show only the first N rows."
)
@format_option
@everywhere
def diff(
    db: Path,
    before: str,
    after: str,
    scheme: str,
    is_whole: bool,
    limit: int | None,
    style: str,
) -> None:
    """Compare two revisions of a network layer by layer: BEFORE and AFTER.

    Layers are matched by name, or else by operator, shape and order; the column "rule" says how.
    The largest loss comes first (of the SQNR that 90 % of channels reach), layers that only one
    revision has come last. A change of less than 1 dB counts as unchanged.

    \b
    Examples:
      quantstore diff digits-rescaled digits-separable
      quantstore diff rtmdet-nano rtmdet-nano-tuned --limit 10
      quantstore diff rtmdet-nano rtmdet-nano-tuned --all --format csv
    """
    from quantstore import queries, store
    from quantstore.queries import matching

    with store.reading(db) as connection:
        changed = queries.revision_changes(connection, before, after, scheme)
        integers = queries.integer_models(connection, [before, after])
        bands = _bands(connection)
    if len(integers) == 1:
        (int8_model,) = integers
        _point_to_audit(int8_model, before if after == int8_model else after, db)
        if style == "table":
            return
    frame = matching.worst_first(changed)
    if not is_whole:
        frame = frame[frame["outcome"] != "unchanged"]
    print_frame(frame.head(limit) if limit is not None else frame, style, DIFF_COLUMNS)
    if style == "table":
        sentences = matching.headline(changed, before, after), matching.how_matched(changed)
        for sentence in sentences:
            say(sentence.replace(units.NO_BREAK_SPACE, " "))
        say(f"{scheme}; {bands}")


def _point_to_audit(int8_model: str, float_model: str, db: Path) -> None:
    """Say that layers of an int8 and of a float model tell nothing, and what does."""
    command = settings.command(shlex.join(("audit", float_model, int8_model)), db)
    say(f"{audits.instead_of_a_diff(int8_model, float_model)}.")
    say(audits.DIFF_POINTS_HERE)
    say(f"Run: {printable(command)} --inputs FOLDER")


@commands.command(position=60)
@click.argument("query")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Return at most N rows.")
@click.option(
    "--timeout",
    type=float,
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Stop the query after this time.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write to FILE instead; its extension sets the format: .csv, .json or .parquet.",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "csv", "json"]),
    help="Choose the output format. [default: table]",
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
    """Query the store in SQL.

    QUERY is one SELECT statement; - reads it from standard input. A query can read the store and
    nothing else, and cannot change it. Use "show tables" and "describe TABLE" to see what there is.
    Every column has a comment (duckdb_columns()).

    \b
    Examples:
      quantstore sql "from model_summary"
      quantstore sql "select layer, weight_range from model_layers order by 2 desc" --limit 10
      quantstore sql "from layer_errors where band = 'broken'" --output broken.parquet
      quantstore sql - --format json < question.sql | jq '.[0]'
    """
    from quantstore.console import statement

    if not 0 < timeout <= LONGEST_TIMEOUT_SECONDS:
        raise click.UsageError(f"--timeout must lie between 0 and {LONGEST_TIMEOUT_SECONDS:,.0f}")
    if output is not None and output.suffix.lower() not in (".csv", ".json", ".parquet"):
        raise click.UsageError("--output must end in .csv, .json or .parquet")
    if output is not None and style is not None:
        raise click.UsageError("--output and --format exclude each other")
    sql = standard_input() if query == "-" else query
    running = statement.start(db, sql, row_limit=limit, timeout_seconds=timeout)
    with contextlib.closing(running):
        # pandas loads while the child does.
        from quantstore.wording import tables  # noqa: F401

        answer = running.wait()
    if output is not None:
        write_answer(answer, output)
        say(f"wrote {counted(answer.table.num_rows, 'row')} to {output}")
    elif list(answer.frame.columns) == ["explain_key", "explain_value"] and style is None:
        # A plan is drawn in lines; in a table, their ends would show as \n.
        for plan in answer.frame["explain_value"]:
            emit("".join(f"{printable(line)}\n" for line in plan.splitlines()))
    else:
        print_frame(answer.frame, style or "table")
    if answer.was_cut:
        say(cut_after(answer.table.num_rows))


@commands.command(position=80)
@click.argument("names", nargs=-1, required=True, metavar="MODEL...", type=ModelName())
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default="report.html",
    show_default=True,
    metavar="FILE",
    help="Write to this file, replacing an existing one.",
)
@target_option
@click.option(
    "--scheme",
    type=NameChoice(list(SCHEMES)),
    metavar="SCHEME",
    help="Judge layers under this scheme. [default: the scheme of the target]",
)
@click.option(
    "--note",
    default="",
    metavar="TEXT",
    help="Add this note for the reader at the top, with the date.",
)
@everywhere
def report(
    db: Path, names: tuple[str, ...], output: Path, target: str, scheme: str | None, note: str
) -> None:
    """Write one HTML file about the MODELs, to send to a colleague.

    The file has the verdicts with what they rest on, the charts, the worst layers with their
    causes, findings, runs and rescues, and the method. It opens in any browser and loads nothing
    from the network.

    \b
    Examples:
      quantstore report rtmdet-nano
      quantstore report rtmdet-nano yolov10n-quant -o detectors.html
      quantstore report rtmdet-nano --target int8_tensor --note "See Conv_6 first."
    """
    from quantstore import report as reports
    from quantstore import store

    chosen = list(dict.fromkeys(names))
    with store.reading(db) as connection, Talk() as talk:
        for model in chosen:
            store.find_model(connection, model)
        page = reports.html(
            connection,
            chosen,
            TARGETS[target],
            SCHEMES[scheme] if scheme else None,
            note=note,
            progress=lambda done, total: talk.progress(done, total, "models"),
        )
    content = page.encode("utf-8")
    try:
        output.write_bytes(content)
    except OSError as error:
        raise unwritable(output, error) from error
    say(f"wrote {output} ({units.file_size(len(content)).replace(units.NO_BREAK_SPACE, ' ')})")


def _sorting(frame: "pd.DataFrame", sort_option: str) -> tuple[str, bool]:
    """The column that ``--sort`` names, and whether it goes upwards."""
    column, _, direction = sort_option.partition(":")
    # Lists have no order that means anything.
    is_list = frame.map(lambda value: hasattr(value, "__len__") and not isinstance(value, str))
    sortable = [str(name) for name in frame.columns if not is_list[name].any()]
    if column not in sortable or direction not in ("", "asc", "desc"):
        raise click.UsageError(f"cannot sort by {sort_option!r}; columns: {', '.join(sortable)}")
    if direction:
        return column, direction == "asc"
    is_text = frame[column].dtype.kind not in "biuf"
    return column, is_text or column.endswith("_db") or column in ("rank", "depth")


def _evidence(frame: "pd.DataFrame") -> str:
    """What the verdicts of a frame rest on."""
    return listed(
        [EVIDENCE[evidence] for evidence in EVIDENCE if (frame["evidence"] == evidence).any()]
    )


EVIDENCE = {"run": "your own inputs", "probe": "the noise probe", "weights": "weights alone"}


def target_under(scheme: str | None) -> str:
    """The target whose weights are rounded under a scheme, the default one without a scheme."""
    if scheme is None:
        return DEFAULT_TARGET.name
    target = target_of(scheme, "both") or target_of(scheme, "weights")
    if target is None:
        raise click.UsageError(f"{NO_TARGET_UNDER} {scheme}; choose one with --target")
    return target


NO_TARGET_UNDER = "no target rounds weights under"


def cut_after(row_count: int) -> str:
    """What to say of an answer of which ``--limit`` left something out."""
    return f"cut after {counted(row_count, 'row')}; there are more than --limit"


FIRST_LOSS_UNKNOWN = "stored as integers, earlier loss unknown"


def _say_which_weights(frame: "pd.DataFrame") -> None:
    """Of which models other weights were measured than those that a runtime would round."""
    quantized = frame[frame["layers_already_quantized"] > 0]
    for model, count, total in quantized[
        ["model", "layers_already_quantized", "layer_count"]
    ].itertuples(index=False):
        say(f"{model}: {count:,} of {total:,} layers are {FIRST_LOSS_UNKNOWN}")
    for model in frame.loc[~frame["folded"].astype(bool), "model"]:
        say(f"{model}: {verdicts.UNFOLDED}")


def _bands(connection: "Connection") -> str:
    """The limits of the bands in one line; they live in the store, where they can be changed."""
    from quantstore import queries

    limits = sorted(queries.band_limits(connection).items(), key=lambda limit: -limit[1])
    limit_texts = [
        f"{band} from {lower:g} dB" if math.isfinite(lower) else f"{band} below"
        for band, lower in limits
    ]
    return f"provisional bands: {', '.join(limit_texts)}"

"""The report from top to bottom: an open store and names of models in, one HTML page out."""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from quantstore import queries
from quantstore.charts import compare as compare_charts
from quantstore.charts import model as model_charts
from quantstore.charts.measures import CHANNEL_SPREAD, WEIGHT_RANGE, measure_of
from quantstore.charts.palette import BANDS, DARK, LIGHT, PROPERTIES, by_name
from quantstore.errors import printable
from quantstore.report import judged
from quantstore.report.figures import as_json, figure
from quantstore.report.judged import Row
from quantstore.report.markup import (
    band_class,
    chip,
    element,
    facts,
    layers_by_band,
    legend,
    name,
    paragraph,
    plural,
    spark,
    strip,
    table,
    text,
)
from quantstore.report.method import method
from quantstore.schemes import (
    DEFAULT_SCHEME,
    DEFAULT_TARGET,
    SCHEMES,
    TARGETS,
    Scheme,
    Target,
)
from quantstore.store import Connection
from quantstore.version import __version__
from quantstore.wording import tables
from quantstore.wording.causes import causes
from quantstore.wording.frames import figure_or_none, layer_facts
from quantstore.wording.nodes import operator
from quantstore.wording.notes import evidence_notes
from quantstore.wording.remedies import equalization_hope, fine_from
from quantstore.wording.text import listed, short_name
from quantstore.wording.units import (
    bits,
    count,
    counted,
    db,
    file_size,
    shape,
    share,
    weight,
    weights,
)
from quantstore.wording.verdicts import UNFOLDED

FOLDER = Path(__file__).resolve().parent
# Worst layers of a model: what is shown at once, and the most that the file carries.
FIRST_LAYERS, MOST_LAYERS = 8, 40
# Of a model without a layer in trouble, its worst few.
LEAST_LAYERS = 3
# A model's name in a chart, where it must be short and still its own.
CHART_NAME = 26
# A layer's name in a sentence.
LAYER_NAME = 40
CountProgress = Callable[[int, int], None]


def html(
    connection: Connection,
    models: Sequence[str],
    target: Target = DEFAULT_TARGET,
    scheme: Scheme | None = None,
    *,
    made_at: datetime | None = None,
    progress: CountProgress | None = None,
) -> str:
    """One self-contained page about models of a store; the same store gives the same page.

    Args:
        models: names that the store holds; the page puts the worst first.
        target: what the page judges for.
        scheme: what it judges layers under, by default the target's.
        made_at: when the page says it was made; now unless told otherwise.
        progress: called with how many models are done, and of how many.
    """
    scheme = scheme or target.layer_scheme
    ranked = queries.rank_of_models(connection, target.name, list(models))
    verdicts = queries.verdicts(connection, ranked)
    limits = queries.band_limits(connection)
    by_cell = {(row["model"], row["target"]): row for row in verdicts.to_dict("records")}
    summaries = queries.models(connection).set_index("model", drop=False)
    profiles = queries.layer_profiles(connection, ranked, scheme.name)
    labels = _chart_names(ranked)
    profiles = profiles.assign(
        model=profiles["model"].map(labels), layer=profiles["layer"].map(printable)
    )
    per_channel = target.per_channel
    rows = [by_cell[(model, target.name)] for model in ranked]
    twins = [by_cell[(model, per_channel.name)] for model in ranked] if per_channel else []
    headline = judged.models(rows, twins, target)
    sections, layers = [], []
    for number, model in enumerate(ranked, 1):
        worst = queries.worst_layers(connection, model, scheme.name).merge(
            queries.layer_rescues(connection, model, scheme.name), on="layer_id"
        )
        layers.append(worst)
        sections.append(
            _model(
                connection,
                number,
                by_cell[(model, target.name)],
                by_cell[(model, per_channel.name)] if per_channel else None,
                worst,
                profiles[profiles["model"] == labels[model]],
                target,
                scheme,
                limits,
            )
        )
        if progress is not None:
            progress(number, len(ranked))
    made_on = made_at or datetime.now(UTC)
    body = [
        _opening(headline, len(ranked), target, scheme, made_on),
        _matrix(by_cell, ranked, queries.shown_targets(verdicts, target.name), target, limits),
        _differences(profiles, scheme),
        _depth(profiles) if len(ranked) > 1 else "",
        *sections,
        method(limits, ranked, [model for model in ranked if not summaries.loc[model, "folded"]]),
        _origin(summaries.loc[ranked].to_dict("records"), made_on),
        _all_layers(layers),
    ]
    return _page(headline, "\n".join(part for part in body if part))


def file_name(models: Sequence[str]) -> str:
    """A name for the file that every disk accepts: ``quantstore-rtmdet-nano.html``."""
    subject = models[0] if len(models) == 1 else f"{len(models)}-models"
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", subject).strip("-.")[:60]
    return f"quantstore-{safe or 'report'}.html"


def _page(title: str, body: str) -> str:
    """The page around the sections: nothing in it may ask for anything outside."""
    vega_script, report_script = (
        (FOLDER / asset).read_text(encoding="utf-8") for asset in ("vega.js", "report.js")
    )
    # Only these two scripts run, and not through eval: vega's interpreter reads its expressions.
    # Styles are ours throughout, and could load nothing either.
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_fingerprint(vega_script)} {_fingerprint(report_script)}",
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    style = _colours() + (FOLDER / "report.css").read_text(encoding="utf-8")
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f'<meta name="generator" content="quantstore {text(__version__)}">',
            f"<title>{text(title)}</title>",
            f"<style>{style}</style>",
            "</head>",
            "<body>",
            f"<main>{body}</main>",
            f"<script>{vega_script}</script>",
            f"<script>{report_script}</script>",
            "</body>",
            "</html>",
            "",
        )
    )


def _fingerprint(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _colours() -> str:
    """The colours of both themes; paper is always light."""
    light, dark = (
        ";".join(f"{key}:{value}" for key, value in by_name(theme).items())
        for theme in (LIGHT, DARK)
    )
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"


def _opening(
    headline: str, model_count: int, target: Target, scheme: Scheme, made_on: datetime
) -> str:
    about = (
        f"{plural(model_count, 'ONNX model')}, judged for {target.name} ({target.title}), layers"
        f" under {scheme.title} · quantstore {__version__}, {_day(made_on)}"
    )
    return element("header", element("h1", text(headline)) + paragraph(about, "muted"), "opening")


def _matrix(
    by_cell: Mapping[tuple[str, str], Row],
    ranked: list[str],
    columns: list[str],
    target: Target,
    limits: Any,
) -> str:
    heads = [("model", "")]
    heads += [(TARGETS[name].title, "chosen" if name == target.name else "") for name in columns]
    rows = []
    rows_shown = [by_cell[(model, column)] for model in ranked for column in columns]
    for number, model in enumerate(ranked, 1):
        chosen_row = by_cell[(model, target.name)]
        size = [
            plural(int(chosen_row["layer_count"]), "layer"),
            f"{weights(chosen_row['weight_count'])} weights",
        ]
        if chosen_row["layers_already_quantized"]:
            size.append("stored as integers")
        if not chosen_row["folded"]:
            size.append(UNFOLDED)
        cells = [
            element(
                "th",
                element("a", name(model), href=f"#model-{number}")
                + paragraph(" · ".join(size), "small"),
                scope="row",
            )
        ]
        for column in columns:
            row = by_cell[(model, column)]
            verdict = judged.cell_verdict(row)
            detail = element("span", text(verdict.addition), "more") if verdict.addition else ""
            cells.append(
                element(
                    "td",
                    element(
                        "div",
                        element("b", text(verdict.text))
                        + detail
                        # A space that is read aloud; the rest is layout.
                        + " "
                        + element("span", text(verdict.evidence), "evidence")
                        + strip(layers_by_band(row)),
                        f"cell {band_class(verdict.band)}",
                    ),
                )
            )
        rows.append(element("tr", "".join(cells)))
    return element(
        "section",
        element("h2", "Verdicts", "unseen")
        + element("div", table(heads, rows, "matrix"), "scroll")
        + legend(limits)
        + "".join(element("p", note, "note") for note in evidence_notes(rows_shown)),
    )


def _differences(profiles: pd.DataFrame, scheme: Scheme) -> str:
    # The page says the same as the app where nobody has chosen operators.
    chosen = compare_charts.convolutions(profiles)
    layer_kind = compare_charts.kind_of(chosen)
    elements = [
        element("h2", "How the layers differ"),
        paragraph(_counted_kinds(profiles, chosen), "story"),
    ]
    ranges = chosen[chosen["weight_range"] > 0]
    if len(ranges):
        elements += [
            element("h3", WEIGHT_RANGE),
            paragraph(_range_story(chosen, layer_kind), "story"),
            figure(
                compare_charts.bricks(chosen, measure_of(WEIGHT_RANGE, scheme), PROPERTIES),
                key="range",
                alt=f"Weight range of the layers, one brick per {layer_kind}, one row per model",
            ),
        ]
    if chosen["channel_spread_bits"].notna().any():
        elements += [
            element("h3", CHANNEL_SPREAD),
            paragraph(_spread_story(chosen, layer_kind), "story"),
            figure(
                compare_charts.bricks(chosen, measure_of(CHANNEL_SPREAD, scheme), PROPERTIES),
                key="spread",
                alt=f"Channel spread of the layers in bits, one brick per {layer_kind}",
            ),
        ]
    return element("section", "".join(elements))


def _counted_kinds(profiles: pd.DataFrame, chosen: pd.DataFrame) -> str:
    uncounted, without = compare_charts.not_counted(profiles, chosen)
    sentences = []
    if uncounted:
        verb = "is" if uncounted == 1 else "are"
        sentences.append(
            f"Convolutions are counted; {counted(uncounted, 'other layer')} {verb} not."
        )
    if without:
        verb = "has" if len(without) == 1 else "have"
        sentences.append(f"{listed(without)} {verb} no convolution: every layer counts there.")
    return " ".join(sentences)


def _range_story(profiles: pd.DataFrame, layer_kind: str) -> str:
    landmarks = compare_charts.landmarks(profiles, "weight_range")
    story = f"One brick per {layer_kind}, coloured by band."
    if landmarks is None:
        return story
    is_several = profiles["model"].nunique() > 1

    def called(layer: pd.Series) -> str:
        layer_name = short_name(str(layer["layer"]), LAYER_NAME)
        return f"{layer['model']} {layer_name}" if is_several else layer_name

    story += (
        f" The widest layer is {called(landmarks.widest)} with a range of"
        f" {weight(landmarks.widest['weight_range'])}."
    )
    if landmarks.widest_unharmed is not None and landmarks.narrowest_broken is not None:
        story += (
            f" Range alone does not decide: {called(landmarks.widest_unharmed)} spans"
            f" {weight(landmarks.widest_unharmed['weight_range'])} and is not at risk, while"
            f" {called(landmarks.narrowest_broken)} breaks with a range of"
            f" {weight(landmarks.narrowest_broken['weight_range'])}."
        )
    return story


def _spread_story(profiles: pd.DataFrame, layer_kind: str) -> str:
    spread = profiles.groupby("model", sort=False)["channel_spread_bits"].quantile(0.9)
    spread = spread.dropna().sort_values()
    story = (
        "log2 of the widest channel's range over the median channel's: the bits that a typical"
        " channel loses when the tensor shares one scale."
    )
    if len(spread) > 1:
        story += (
            f" A tenth of the counted {layer_kind}s spread {bits(spread.iloc[-1])} or more in"
            f" {spread.index[-1]}, {bits(spread.iloc[0])} in {spread.index[0]}."
        )
    return story


def _depth(profiles: pd.DataFrame) -> str:
    return element(
        "section",
        element("h2", "Where in the network")
        + paragraph(
            "Input on the left, output on the right. Bars show the SQNR that 90 % of the layer's"
            " channels reach, measured down from 40 dB. Longer bars are worse.",
            "story",
        )
        + figure(
            compare_charts.hanging_bars(profiles, PROPERTIES),
            key="depth",
            alt="SQNR of every layer from input to output, one row per model",
        ),
    )


def _model(
    connection: Connection,
    number: int,
    row: Row,
    per_channel_row: Row | None,
    worst: pd.DataFrame,
    profiles: pd.DataFrame,
    target: Target,
    scheme: Scheme,
    limits: dict[str, float],
) -> str:
    model = str(row["model"])
    runs = queries.model_runs(connection, model)
    layer_counts = judged.layers_in_words(row)
    about = (
        f"{layer_counts[0].upper()}{layer_counts[1:]}; {count(row['channels_below_10db'])} of"
        f" {count(row['channel_count'])} channels stay below 10 dB. Median weight range of a layer"
        f" {weight(row['median_weight_range'])}, largest {weight(row['max_weight_range'])}."
    )
    elements = [
        element("h2", name(model)),
        element("p", text(judged.model(row, per_channel_row, target)), "answer"),
        paragraph(judged.sentence(row), "story"),
        paragraph(about, "story"),
        _findings(queries.model_findings(connection, model)),
        _runs(runs),
        element("h3", "Where it breaks" if row["layers_broken"] else "From input to output"),
        figure(
            model_charts.layer_map(profiles, PROPERTIES),
            key=f"map-{number}",
            alt=f"SQNR of every layer of {printable(short_name(model, CHART_NAME))} from input to"
            " output",
        ),
        element("h3", "Worst layers first"),
        paragraph(_what_helps(connection, model, scheme), "story"),
        _worst(worst, scheme, limits),
    ]
    return element("section", "".join(elements), "model", id=f"model-{number}")


def _findings(findings: pd.DataFrame) -> str:
    """What the file gives away, the gravest first, each with its remedy."""
    if findings.empty:
        return ""
    items = []
    for row in findings.to_dict("records"):
        shown = listed([short_name(printable(layer), LAYER_NAME) for layer in row["layers"][:3]])
        hidden_count = int(row["layer_count"]) - min(3, len(row["layers"]))
        where = (
            f" ({shown}{f' and {hidden_count} more' if hidden_count > 0 else ''})" if shown else ""
        )
        items.append(
            element(
                "li",
                element("b", text(f"{row['severity']}: {row['kind']}"))
                + text(f"{where}. {printable(row['message'])} ")
                + element("i", text(printable(row["remedy"]))),
            )
        )
    return element("h3", FINDINGS) + element("ul", "".join(items), "findings")


FINDINGS = "Warnings"
NOT_RUN = (
    "The model was not run: what is said of it rests on its weights alone, and activations were not"
    " measured."
)


def _runs(runs: pd.DataFrame) -> str:
    """What running the model gave: figures of the probe, and of runs on somebody's own inputs."""
    runs = runs[runs["scheme"].isin(SCHEMES)]
    measured = runs[runs["output_sqnr_db"].notna()]
    if measured.empty:
        reasons = list(dict.fromkeys(str(why) for why in runs["failure"].dropna()))
        because = f" It could not be: {'; '.join(reasons)}." if reasons else ""
        return paragraph(f"{NOT_RUN}{because}", "note")
    modes = [mode for mode in judged.MODES if (measured["mode"] == mode).any()]
    heads = [("fed with", ""), ("scheme", "")]
    heads += [(f"{judged.MODES[mode]}, at the outputs", "") for mode in modes]
    heads.append(("compared", "wide"))
    rows = []
    for source, of_source in measured.groupby("input_source", sort=False):
        for scheme in (
            scheme_name for scheme_name in SCHEMES if (of_source["scheme"] == scheme_name).any()
        ):
            cells = of_source[of_source["scheme"] == scheme]
            by_mode = {cell["mode"]: cell for cell in cells.to_dict("records")}
            compared = [str(comparison) for comparison in dict.fromkeys(cells["compared"].dropna())]
            written = [
                element("td", "noise probe" if source == "noise" else name(str(source))),
                element("td", text(SCHEMES[scheme].title)),
                *(element("td", _run(by_mode.get(mode))) for mode in modes),
                element("td", text(listed(compared) or "the outputs"), "wide"),
            ]
            rows.append(element("tr", "".join(written)))
    return (
        element("h3", "Test runs")
        + element("div", table(heads, rows, "runs"), "scroll")
        + paragraph(_conditions(measured), "note")
    )


def _run(run: Row | None) -> str:
    if run is None:
        return text("–")
    agreement = figure_or_none(run["top1_agreement"])
    same = "" if agreement is None else f"{share(agreement)} keep their top class"
    return f"{chip(run['band'])} {text(db(run['output_sqnr_db']))}" + paragraph(same, "small")


def _conditions(measured: pd.DataFrame) -> str:
    samples = sorted({int(number) for number in measured["sample_count"]})
    numbers = " to ".join(str(number) for number in dict.fromkeys((samples[0], samples[-1])))
    shapes = [str(input_shape) for input_shape in dict.fromkeys(measured["input_shape"].dropna())]
    versions = sorted(set(measured["onnxruntime_version"].astype(str)))
    inputs = f" Inputs: {'; '.join(shapes)}." if shapes else ""
    return (
        "The float model and its quantized version on the same inputs, run by onnxruntime"
        f" {listed(versions)}: the worst output, as the median over {numbers}"
        f" sample{'' if samples[-1] == 1 else 's'}.{inputs}"
    )


def _what_helps(connection: Connection, model: str, scheme: Scheme) -> str:
    sentences = []
    if scheme == DEFAULT_SCHEME:
        hopes = queries.model_equalization(connection, model, scheme.name)
        by_band = {row["band"]: row for row in hopes.to_dict("records")}
        band = next((band for band in ("broken", "at risk") if band in by_band), None)
        if band is not None:
            sentences.append(
                equalization_hope(
                    band,
                    layers=int(by_band[band]["layers"]),
                    with_pair=int(by_band[band]["layers_with_pair"]),
                    lifted=int(by_band[band]["layers_lifted"]),
                )
            )
    needed = queries.model_bits_needed(connection, model)
    if needed:
        sentences.append(fine_from(needed, of_model=True))
    return " ".join(sentences)


def _worst(worst: pd.DataFrame, scheme: Scheme, limits: dict[str, float]) -> str:
    in_trouble = int(worst["band"].isin(["broken", "at risk"]).sum())
    shown = worst.head(max(LEAST_LAYERS, min(in_trouble, MOST_LAYERS)))
    heads = [
        ("layer, and what breaks it", ""),
        ("operator, weight shape", "wide"),
        ("its channels by SQNR, 0 to 50 dB", "wide"),
        ("band, at p10", ""),
        ("channels below 10 dB", "number"),
        ("weights zeroed", "number wide"),
        ("p10 would be", "rescue"),
        ("bits needed", "rescue"),
    ]
    if scheme.is_per_channel:
        heads.remove(("p10 would be", "rescue"))
    rows = [_layer(layer, scheme, limits) for layer in shown.to_dict("records")]
    shown_rows, hidden_rows = rows[:FIRST_LAYERS], rows[FIRST_LAYERS:]
    if len(hidden_rows) <= 2:
        shown_rows, hidden_rows = rows, []
    out = element("div", table(heads, shown_rows, "layers"), "scroll")
    if hidden_rows:
        out += element(
            "details",
            element("summary", text(f"{plural(len(hidden_rows), 'more layer')} at risk or broken"))
            + element("div", table(heads, hidden_rows, "layers"), "scroll"),
        )
    omitted = len(worst) - len(shown)
    if omitted:
        verb = "is" if omitted == 1 else "are"
        out += paragraph(
            f"{plural(omitted, 'further layer')} {verb} in the CSV at the end.", "note"
        )
    return out


def _layer(layer: Row, scheme: Scheme, limits: dict[str, float]) -> str:
    reasons = "; ".join(causes(layer_facts(layer), scheme))
    counts = [int(number) for number in layer["spark"]]
    bin_bands = [
        next(
            (b for b, low in limits.items() if position * queries.SPARK_DB_PER_BIN >= low), BANDS[0]
        )
        for position in range(len(counts))
    ]
    below = int(layer["channels_below_10db"])
    of_channels = f"of {count(int(layer['channel_count']))}"
    cells = [
        (name(str(layer["layer"])) + paragraph(reasons, "small"), ""),
        (
            text(operator(layer["op_type"], layer["is_depthwise"]))
            + paragraph(shape(layer["shape"]), "small"),
            "wide",
        ),
        (spark(counts, bin_bands, f"{below} {of_channels} channels below 10 dB"), "wide"),
        (
            chip(layer["band"])
            + paragraph(db(figure_or_none(layer["channel_sqnr_p10_db"])), "small"),
            "",
        ),
        (text(count(below)) + paragraph(of_channels, "small"), "number"),
        (text(share(layer["zeroed_fraction"])), "number wide"),
        (_rescues(layer), "rescue"),
        (_bits(layer), "rescue"),
    ]
    if scheme.is_per_channel:
        # It is per channel already, and neither clipping nor equalization is stored for it.
        del cells[-2]
    return element(
        "tr",
        "".join(element("td", cell, css_class) for cell, css_class in cells),
        id=f"layer-{int(layer['layer_id'])}",
    )


def _rescues(layer: Row) -> str:
    """What a layer under a per-tensor scheme would reach otherwise, as far as it is stored."""
    entries = [("per channel", db(figure_or_none(layer["per_channel_p10_db"])))]
    for column, label in (("clipped_p10_db", "clipped"), ("equalized_p10_db", "equalized")):
        if not pd.isna(layer[column]):
            entries.append((label, db(float(layer[column]))))
    return _pairs(entries)


def _bits(layer: Row) -> str:
    entries: list[tuple[str, str]] = []
    for column, label in (
        ("bits_tensor", "per tensor"),
        ("bits_channel", "per channel"),
        ("bits_block", "per block"),
    ):
        if not pd.isna(layer[column]):
            number = int(layer[column])
            entries.append((label, "> 16" if number < 0 else str(number)))
    return _pairs(entries)


def _pairs(entries: list[tuple[str, str]]) -> str:
    if not entries:
        return text("–")
    lines = "".join(f"<dt>{text(term)}</dt><dd>{text(value)}</dd>" for term, value in entries)
    return f'<dl class="pairs">{lines}</dl>'


def _origin(summaries: Sequence[Row], made_on: datetime) -> str:
    """Which files this is about, when they were measured, and by what."""
    return element(
        "section",
        element("h2", "Where this comes from")
        + paragraph(
            f"Made on {_day(made_on)} at {made_on:%H:%M} UTC by quantstore {__version__} from its"
            " store. The same file, measured by the same version, gives the same figures.",
            "story",
        )
        + "".join(_file(row) for row in summaries),
    )


def _file(row: Row) -> str:
    # The folder a file lay in says more about its owner than about the model.
    own_name = re.split(r"[/\\\\]", str(row["source"]))[-1]
    folded = int(row["layers_with_batchnorm_folded"])
    pairs = [
        ("file", name(own_name)),
        ("size", text(file_size(int(row["file_bytes"])))),
        ("SHA-256", element("code", text(row["sha256"]), "hash")),
        ("written by", name(_optional(row["producer"]) or "unknown")),
        ("opset", text(_optional(row["opset"]) or "unknown")),
        ("measured", text(f"{_day(row['ingested_at'])}, quantstore {row['quantstore_version']}")),
    ]
    if folded:
        pairs.append(("batch normalization", text(f"folded into {counted(folded, 'layer')}")))
    elif not row["folded"]:
        pairs.append(("batch normalization", "not folded (--no-fold)"))
    return element("h3", name(str(row["model"]))) + facts(pairs)


def _all_layers(layers: Sequence[pd.DataFrame]) -> str:
    """Every layer of every model as CSV, for a spreadsheet."""
    columns = [
        "model", "rank", "depth", "layer", "op_type", "shape", "weight_count", "channel_count",
        "scheme", "band", "channel_sqnr_p10_db", "sqnr_db", "channels_below_10db",
        "zeroed_fraction", "weight_min", "weight_max", "weight_range", "channel_spread_bits",
        "per_channel_p10_db", "clipped_p10_db", "equalized_p10_db", "bits_tensor", "bits_channel",
        "bits_block",
    ]  # fmt: skip
    frame = pd.concat([layer_frame[columns] for layer_frame in layers], ignore_index=True)
    bits_columns = ["bits_tensor", "bits_channel", "bits_block"]
    # Where 16 bits are not enough there is no number to give.
    frame[bits_columns] = frame[bits_columns].astype("Int64").where(frame[bits_columns] > 0)
    return (
        '<section><h2>All layers</h2><p class="story">'
        f"{text(plural(len(frame), 'layer'))} with their figures, for a spreadsheet:"
        ' <button type="button" class="link" data-save="layers">Save as CSV</button></p>'
        f'<script type="application/json" data-table="layers">{as_json(tables.to_csv(frame))}'
        "</script></section>"
    )


def _chart_names(models: Sequence[str]) -> dict[str, str]:
    """A short name for each model, different from all others."""
    names: dict[str, str] = {}
    for model in models:
        short = short_name(printable(model), CHART_NAME)
        number = 2
        while short in names.values():
            short = f"{short_name(printable(model), CHART_NAME - 5)} ({number})"
            number += 1
        names[model] = short
    return names


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y}"


def _optional(value: Any) -> str:
    return "" if pd.isna(value) else str(value)

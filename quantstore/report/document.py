"""The report from top to bottom: an open store and names of models in, one HTML page out."""

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from quantstore import queries, store
from quantstore.charts import compare as charts
from quantstore.charts.measures import CHANNEL_SPREAD, WEIGHT_RANGE, measure_of
from quantstore.charts.palette import DARK, LIGHT, PROPERTIES, by_name
from quantstore.errors import printable
from quantstore.report.figures import PlacedChart, as_json, figure
from quantstore.report.rendering import FOLDER, render
from quantstore.report.sections import ModelSubject, layers_of, section
from quantstore.schemes import BLOCK_SIZE, DEFAULT_TARGET, TARGETS, Scheme, Target
from quantstore.store import Connection
from quantstore.version import __version__
from quantstore.wording import (
    audit_tables,
    drift,
    explanations,
    findings,
    method,
    notes,
    remedies,
    rescue_tables,
    runs,
    stories,
    tables,
    targets,
)
from quantstore.wording.columns import Row
from quantstore.wording.headlines import model_size, models_headline
from quantstore.wording.text import short_name
from quantstore.wording.units import counted, file_size
from quantstore.wording.verdicts import UNFOLDED, verdict

# A model's name in a chart, where it must be short and still its own.
CHART_NAME = 26
CountProgress = Callable[[int, int], None]
Pairs = list[tuple[str, str, bool]]
# What templates take words from.
_WORDS = {
    "audit_tables": audit_tables,
    "drift": drift,
    "explanations": explanations,
    "findings": findings,
    "method": method,
    "remedies": remedies,
    "rescue_tables": rescue_tables,
    "runs": runs,
    "stories": stories,
    "targets": targets,
}


def html(
    connection: Connection,
    models: Sequence[str],
    target: Target = DEFAULT_TARGET,
    scheme: Scheme | None = None,
    *,
    note: str = "",
    made_at: datetime | None = None,
    progress: CountProgress | None = None,
) -> str:
    """One self-contained page about models of a store; the same store gives the same page.

    Args:
        models: names that the store holds; the page puts the worst first.
        target: what the page judges for.
        scheme: what it judges layers under, by default the target's.
        note: by the sender, plain text of any number of lines; it stands at the top.
        made_at: when the page says it was made; now unless told otherwise.
        progress: called with how many models are done, and of how many.

    Raises:
        LabelError: the note is longer than notes in the store may be, or holds control characters.
    """
    note = store.cleaned_note(note)
    scheme = scheme or target.layer_scheme
    ranked = queries.rank_of_models(connection, target.name, list(models))
    verdicts = queries.verdicts(connection, ranked)
    limits = queries.band_limits(connection)
    summaries = queries.models(connection).set_index("model", drop=False).loc[ranked]
    names = _chart_names(ranked)
    profiles = queries.layer_profiles(connection, ranked, scheme.name)
    profiles = profiles.assign(
        model=profiles["model"].map(names), layer=profiles["layer"].map(printable)
    )
    sections, layers = [], []
    for number, model in enumerate(ranked, 1):
        layers.append(layers_of(connection, model, scheme))
        subject = ModelSubject(
            name=model,
            number=number,
            target=target,
            scheme=scheme,
            limits=limits,
            verdicts=verdicts[verdicts["model"] == model].to_dict("records"),
            layers=layers[-1],
            profiles=profiles[profiles["model"] == names[model]],
        )
        sections.append(section(connection, subject))
        if progress is not None:
            progress(number, len(ranked))
    moment = made_at or datetime.now(UTC)
    scripts = [(FOLDER / name).read_text(encoding="utf-8") for name in ("vega.js", "report.js")]
    csv = pd.concat([_for_spreadsheets(frame) for frame in layers], ignore_index=True)
    unfolded = [str(name) for name in summaries.index[~summaries["folded"].astype(bool)]]
    return render(
        "report.html.j2",
        **_WORDS,
        version=__version__,
        policy=_policy(scripts),
        style=_colours() + (FOLDER / "report.css").read_text(encoding="utf-8"),
        scripts=scripts,
        headline=_headline(verdicts, ranked, target),
        subject=f"{counted(len(ranked), 'ONNX model')}, judged for {target.name} ({target.title}),"
        f" layers under {scheme.title}",
        made_on=_day(moment),
        made_at=f"{moment:%H:%M}",
        note_lines=note.split("\n") if note else [],
        matrix=_matrix(verdicts, ranked, target),
        bands=notes.band_ranges(limits),
        **_differences(profiles, scheme),
        depth=_depth(profiles) if len(ranked) > 1 else None,
        models=sections,
        folding=method.folding(len(ranked), unfolded),
        block_size=BLOCK_SIZE,
        origins=[(row["model"], _origin(row)) for row in summaries.to_dict("records")],
        layer_count=len(csv),
        csv=as_json(tables.to_csv(csv)),
    )


def file_name(models: Sequence[str]) -> str:
    """A name for the file that every disk accepts: ``quantstore-rtmdet-nano.html``."""
    subject = models[0] if len(models) == 1 else f"{len(models)}-models"
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", subject).strip("-.")[:60]
    return f"quantstore-{safe or 'report'}.html"


def _policy(scripts: Sequence[str]) -> str:
    """Only these scripts run, and not through eval: vega's interpreter reads its expressions.

    Styles are ours throughout, and could load nothing either.
    """
    digests = (hashlib.sha256(script.encode("utf-8")).digest() for script in scripts)
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode('ascii')}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline';"
        " img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _colours() -> str:
    """The colours of both themes; paper is always light."""
    light, dark = (
        ";".join(f"{key}:{value}" for key, value in by_name(theme).items())
        for theme in (LIGHT, DARK)
    )
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"


def _headline(verdicts: pd.DataFrame, ranked: Sequence[str], target: Target) -> str:
    def facts_of(target_name: str) -> list[Any]:
        rows = verdicts[verdicts["target"] == target_name].set_index("model", drop=False)
        return [queries.model_facts(row) for row in rows.loc[list(ranked)].to_dict("records")]

    per_channel = facts_of(target.per_channel.name) if target.per_channel else []
    return models_headline(facts_of(target.name), per_channel, target)


def _matrix(verdicts: pd.DataFrame, ranked: Sequence[str], target: Target) -> dict[str, Any]:
    """Models by targets, as Compare shows them."""
    columns = queries.shown_targets(verdicts, target.name)
    shown = verdicts[verdicts["target"].isin(columns)].to_dict("records")
    by_cell = {(row["model"], row["target"]): row for row in shown}
    rows = []
    for model in ranked:
        chosen = by_cell[(model, target.name)]
        cells = [
            (verdict(queries.model_facts(row)), queries.layers_by_band(row))
            for row in (by_cell[(model, column)] for column in columns)
        ]
        size = [*model_size(chosen), *([] if chosen["folded"] else [UNFOLDED])]
        rows.append({"model": model, "size": size, "cells": cells})
    return {
        "targets": [(TARGETS[column].title, column == target.name) for column in columns],
        "rows": rows,
        "notes": notes.evidence_notes(shown),
    }


def _differences(profiles: pd.DataFrame, scheme: Scheme) -> dict[str, Any]:
    """The bricks of Compare, of the operators it counts where nobody has chosen any."""
    chosen = charts.convolutions(profiles)
    mark = stories.bricks_note(charts.kind_of(chosen))
    differences = []
    for key, label, story_of in (
        ("range", WEIGHT_RANGE, charts.range_story),
        ("spread", CHANNEL_SPREAD, charts.spread_story),
    ):
        measure = measure_of(label, scheme)
        if not (chosen[measure.column] > 0).any():
            continue
        sentences = (f"{mark}.", measure.explanation, story_of(chosen, measure.column))
        bricks = charts.bricks(chosen, measure, PROPERTIES)
        alt = f"{label} of the layers. {mark}, one row per model"
        story = " ".join(filter(None, sentences))
        differences.append((label, story, figure(bricks, key=key, alt=alt)))
    uncounted, without = charts.not_counted(profiles, chosen)
    return {
        "differences": differences,
        "layers_counted": stories.layers_counted(uncounted, without),
    }


def _depth(profiles: pd.DataFrame) -> PlacedChart:
    return figure(
        charts.hanging_bars(profiles, PROPERTIES),
        key="depth",
        alt="SQNR of every layer from input to output, one row per model",
    )


def _origin(row: Row) -> Pairs:
    """Which file this is about, when it was measured, and by what; names are marked."""
    # The folder a file lay in says more about its owner than about the model.
    own_name = re.split(r"[/\\]", str(row["source"]))[-1]
    folded = int(row["layers_with_batchnorm_folded"])
    pairs = [
        ("file", own_name, True),
        ("size", file_size(int(row["file_bytes"])), False),
        ("SHA-256", str(row["sha256"]), False),
        ("written by", _or_unknown(row["producer"]), True),
        ("opset", _or_unknown(row["opset"]), False),
        ("measured", f"{_day(row['ingested_at'])}, quantstore {row['quantstore_version']}", False),
    ]
    if folded:
        pairs.append(("batch normalization", f"folded into {counted(folded, 'layer')}", False))
    elif not row["folded"]:
        pairs.append(("batch normalization", "not folded (--no-fold)", False))
    return pairs


def _for_spreadsheets(layers: pd.DataFrame) -> pd.DataFrame:
    """Every layer of a model with its values."""
    columns = [
        "model", "rank", "depth", "layer", "op_type", "shape", "weight_count", "channel_count",
        "scheme", "band", "channel_sqnr_p10_db", "sqnr_db", "channels_below_10db",
        "zeroed_fraction", "weight_min", "weight_max", "weight_range", "channel_spread_bits",
        "per_channel_p10_db", "clipped_p10_db", "equalized_p10_db", "bits_tensor", "bits_channel",
        "bits_block",
    ]  # fmt: skip
    frame = layers[columns].copy()
    bits_columns = ["bits_tensor", "bits_channel", "bits_block"]
    # Where 16 bits are not enough there is no number to give.
    frame[bits_columns] = frame[bits_columns].astype("Int64").where(frame[bits_columns] > 0)
    return frame


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


def _or_unknown(value: Any) -> str:
    return "unknown" if pd.isna(value) or str(value) == "" else str(value)

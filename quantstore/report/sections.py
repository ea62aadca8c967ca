"""The section of one model: an open store in, what its template shows out.

The facts, tables and notes are those of the pages; ``wording`` has them. What the store does not
hold is None or empty, and the template leaves it out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from quantstore import queries
from quantstore.charts import audit as audit_charts
from quantstore.charts import drift as drift_charts
from quantstore.charts import rescue as rescue_charts
from quantstore.charts.model import layer_map
from quantstore.charts.palette import PROPERTIES
from quantstore.errors import printable
from quantstore.pipeline.rescues import name_in_files, use_of
from quantstore.report.figures import figure
from quantstore.rescuing.terms import RESCUE_TARGETS
from quantstore.schemes import DEFAULT_SCHEME, TARGETS, Scheme, Target
from quantstore.store import Connection
from quantstore.wording import (
    audit_tables,
    audits,
    drift,
    findings,
    frames,
    layers,
    rescue_tables,
    rescues,
    runs,
    stories,
)
from quantstore.wording import sensitivity as sensitivities
from quantstore.wording.answers import HEADING, StoredRescue, answers, opening
from quantstore.wording.columns import Column, Row
from quantstore.wording.headlines import model_headline, verdict_line, weights_line
from quantstore.wording.remedies import model_remedies
from quantstore.wording.targets import HEADING as TARGETS_HEADING
from quantstore.wording.targets import stayed_in_float, target_columns, target_rows
from quantstore.wording.text import short_name
from quantstore.wording.units import file_size
from quantstore.wording.verdicts import ModelFacts

# Rows of a table: what is shown at once, and the most that the file carries.
FIRST_ROWS, MOST_ROWS = 8, 40
# Of a model without a layer in trouble, its worst few.
LEAST_LAYERS = 3
# A model's name in the words for a chart.
ALT_NAME = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSubject:
    """A model, what it is judged for, and what the page has read of it.

    ``verdicts`` has a row for each target, ``layers`` is what :func:`layers_of` gives, ``profiles``
    what the charts draw, ``number`` counts the models from 1.
    """

    name: str
    number: int
    target: Target
    scheme: Scheme
    limits: dict[str, float]
    verdicts: Sequence[Row]
    layers: pd.DataFrame
    profiles: pd.DataFrame

    def alt(self, content: str) -> str:
        """What a chart of this model shows, for people who cannot see it."""
        return f"{content} of {printable(short_name(self.name, ALT_NAME))}"


@dataclass(slots=True, kw_only=True)
class Listing:
    """A table of the page; rows beyond the first few are folded in, ``omitted`` are left out."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    caption: str = ""
    omitted: int = 0
    are_rows_marked: bool = False
    first_rows: Sequence[Row] = field(init=False)
    more_rows: Sequence[Row] = field(init=False)

    def __post_init__(self) -> None:
        is_short = len(self.rows) <= FIRST_ROWS + 2
        self.first_rows = self.rows if is_short else self.rows[:FIRST_ROWS]
        self.more_rows = [] if is_short else self.rows[FIRST_ROWS:]


def layers_of(connection: Connection, model: str, scheme: Scheme) -> pd.DataFrame:
    """Every layer of a model, worst first, with what would rescue it."""
    frame = queries.worst_layers(connection, model, scheme.name).merge(
        queries.layer_rescues(connection, model, scheme.name), on="layer_id"
    )
    return frame.assign(label=frames.layer_labels(frame))


def section(connection: Connection, subject: ModelSubject) -> dict[str, Any]:
    """What the template ``model.html.j2`` shows."""
    facts_by_target = {row["target"]: queries.model_facts(row) for row in subject.verdicts}
    facts = facts_by_target[subject.target.name]
    (row,) = (row for row in subject.verdicts if row["target"] == subject.target.name)
    per_channel = subject.target.per_channel
    stored = queries.stored_rescues(connection, subject.name)
    return {
        "name": subject.name,
        "number": subject.number,
        "headline": model_headline(
            facts, facts_by_target[per_channel.name] if per_channel else None, subject.target
        ),
        "verdict_line": verdict_line(facts),
        "weights_line": weights_line(row, facts),
        **_answers(facts, list(facts_by_target.values()), stored),
        **_audits(connection, subject),
        "targets": _targets(connection, subject.name, stored),
        **_runs(connection, subject),
        "map_title": stories.map_heading(row["layers_broken"]),
        "map": figure(
            layer_map(subject.profiles, PROPERTIES),
            key=f"map-{subject.number}",
            alt=subject.alt("SQNR of every layer from input to output"),
        ),
        "layers": _layers(connection, subject),
        "findings": findings.in_words(
            queries.model_findings(connection, subject.name).to_dict("records")
        ),
        "drift": _drift(connection, subject),
        **_sensitivity(connection, subject),
        **_rescues(connection, subject),
    }


def _answers(
    facts: ModelFacts, others: Sequence[ModelFacts], stored: Sequence[StoredRescue]
) -> dict[str, Any]:
    return {
        "answers_heading": HEADING,
        # Of what is untested, the verdict names the command that measures it.
        "opening": "" if facts.is_untested else opening(facts),
        "answers": answers(facts, others, stored, can_be_rescued=facts.target in RESCUE_TARGETS),
    }


def _targets(connection: Connection, model: str, stored: Sequence[StoredRescue]) -> Listing | None:
    """Targets that the probe was asked for, or that were rescued."""
    values = queries.model_targets(connection, model).to_dict("records")
    asked = {str(row["target"]) for row in values} | {rescue.record.target for rescue in stored}
    rows = target_rows(values, stored, [name for name in TARGETS if name in asked])
    return Listing(title=TARGETS_HEADING, columns=target_columns(rows), rows=rows) if rows else None


def _runs(connection: Connection, subject: ModelSubject) -> dict[str, Any]:
    rows = queries.model_runs(connection, subject.name).to_dict("records")
    probes, own_runs = runs.probes_of(rows), runs.own_runs_of(rows)
    schemes = runs.probe_schemes(probes)
    return {
        "conditions": runs.conditions(probes) if probes else "",
        "probes": schemes
        and Listing(title="Noise probe", columns=runs.probe_columns(schemes), rows=schemes),
        "probe_failures": runs.probe_failures(rows),
        "not_probed": runs.not_probed(rows),
        "own_runs": own_runs
        and Listing(title="Runs on your inputs", columns=runs.OWN_RUN_COLUMNS, rows=own_runs),
        "activations_to_blame": runs.activations_to_blame(rows, subject.scheme),
    }


def _layers(connection: Connection, subject: ModelSubject) -> list[Listing]:
    """What breaks the worst layers, what would rescue them, and tables that are looked up."""
    scheme = subject.scheme
    is_looked_up = subject.layers["op_family"] == "embedding"
    worst, embeddings = subject.layers[~is_looked_up], subject.layers[is_looked_up]
    in_trouble = int(worst["band"].isin(["broken", "at risk"]).sum())
    shown = worst.head(max(LEAST_LAYERS, min(in_trouble, MOST_ROWS))).to_dict("records")
    columns = layers.cause_columns(scheme, subject.limits)
    hopes = []
    if scheme == DEFAULT_SCHEME:
        hopes = queries.model_equalization(connection, subject.name, scheme.name).to_dict("records")
    listed = [
        Listing(
            title=layers.HEADING,
            caption=model_remedies(hopes, queries.model_bits_needed(connection, subject.name)),
            columns=columns,
            rows=shown,
            omitted=len(worst) - len(shown),
            are_rows_marked=True,
        ),
        Listing(
            title=layers.RESCUES,
            caption=layers.RESCUE_NOTE,
            columns=layers.remedy_columns(layers.stored_remedies(subject.layers, scheme)),
            rows=shown if in_trouble else [],
        ),
        Listing(
            title=layers.EMBEDDINGS,
            caption=layers.EMBEDDINGS_NOTE,
            columns=columns,
            rows=embeddings.head(MOST_ROWS).to_dict("records"),
            omitted=max(0, len(embeddings) - MOST_ROWS),
            are_rows_marked=True,
        ),
    ]
    return [table for table in listed if table.rows]


def _audits(connection: Connection, subject: ModelSubject) -> dict[str, Any]:
    """The latest audit of an int8 model in full; of a float one, a line for each int8 file."""
    stored_audits = queries.audits(connection, subject.name)
    own_audits = stored_audits[stored_audits["int8_model"] == subject.name].to_dict("records")
    int8_files = stored_audits[stored_audits["int8_model"] != subject.name].drop_duplicates(
        "int8_model"
    )
    return {
        "audit": _audit(connection, subject, own_audits[0]) if own_audits else None,
        "int8_files": [_audit_headline(row) for row in int8_files.to_dict("records")],
    }


def _audit_headline(row: Row) -> str:
    band = row["band"] if isinstance(row["band"], str) else None
    record = frames.audit_record(row)
    return audits.headline(record, str(row["int8_model"]), str(row["float_model"]), band)


def _audit(connection: Connection, subject: ModelSubject, row: Row) -> dict[str, Any]:
    audit_id = int(row["audit_id"])
    parts = [
        question(connection, audit_id)
        for question in (queries.audit_layers, queries.audit_tensors, queries.audit_outputs)
    ]
    record = frames.audit_record(row, *parts)
    layer_rows, tensor_rows, output_rows = (part.to_dict("records") for part in parts)
    tables = [
        Listing(
            title=audit_tables.LAYERS,
            caption=audit_tables.LAYERS_NOTE,
            columns=audit_tables.LAYER_COLUMNS,
            rows=layer_rows[:MOST_ROWS],
        ),
        Listing(
            title=audit_tables.TENSORS,
            caption=audit_tables.TENSORS_NOTE,
            columns=audit_tables.TENSOR_COLUMNS,
            rows=tensor_rows[:MOST_ROWS],
        ),
        Listing(
            title=audit_tables.OUTPUTS,
            columns=audit_tables.output_columns(record),
            rows=output_rows,
        ),
    ]
    left_out = [
        f"Largest gains and losses only: {len(rows) - MOST_ROWS:,} more {noun} are left out."
        for rows, noun in ((layer_rows, "layers"), (tensor_rows, "tensors"))
        if len(rows) > MOST_ROWS
    ]
    return {
        "headline": _audit_headline(row),
        "sentences": list(audits.sentences(record, frames.audit_layer_names(parts[0]))),
        "notes": [*record.notes, audits.inputs_sentence(record), *left_out],
        "ways_note": audit_tables.ways_note(record),
        "chart": record.failure is None
        and figure(
            audit_charts.six_values(record, subject.limits, PROPERTIES),
            key=f"audit-{subject.number}",
            alt=subject.alt(audit_tables.WAYS),
        ),
        "tables": [table for table in tables if table.rows],
    }


def _drift(connection: Connection, subject: ModelSubject) -> dict[str, Any] | None:
    """The latest run on inputs that somebody chose, else on noise; first of this target."""
    drift_runs = queries.drift_runs(connection, subject.name)
    if drift_runs.empty:
        return None
    first = drift_runs.assign(
        is_noise=drift_runs["input_source"].str.startswith(runs.NOISE),
        is_other=drift_runs["target"] != subject.target.name,
    ).sort_values(["is_noise", "is_other"], kind="stable")
    run = first.iloc[0].to_dict()
    title = f"{runs.rounded(run)}, {printable(str(run['input_source']))}"
    tensors = queries.drift(connection, [int(run["simulation_id"])]).assign(run=title)
    falls = drift.steepest_falls(tensors)
    rows = falls.to_dict("records")
    float_layers = stayed_in_float(frames.names_or_none(run["float_layers"]))
    return {
        "headline": drift.headline([run], rows),
        "run": title,
        "float_layers": float_layers,
        "has_local": bool(tensors["has_local"].any()),
        "chart": figure(
            drift_charts.lines(tensors, falls, PROPERTIES, with_local=True),
            key=f"drift-{subject.number}",
            alt=subject.alt("SQNR of every tensor from input to output"),
        ),
        "jumps": rows
        and Listing(title=drift.JUMPS, columns=drift.jump_columns(is_several=False), rows=rows),
    }


def _sensitivity(connection: Connection, subject: ModelSubject) -> dict[str, Any]:
    rows = queries.sensitivities(connection, subject.name).to_dict("records")
    if not rows:
        return {"sensitivity": None}
    return {
        "agreement": sensitivities.agreement(rows),
        "sensitivity": Listing(
            title=sensitivities.HEADING,
            caption=sensitivities.subject(rows),
            columns=sensitivities.columns(len(rows)),
            rows=rows[: sensitivities.MOST_LAYERS],
        ),
    }


def _rescues(connection: Connection, subject: ModelSubject) -> dict[str, Any]:
    """The latest rescue for the target in full, or that of another target; a line for the rest."""
    latest = queries.latest_rescues(connection, subject.name)
    if latest.empty:
        return {"rescue": None, "other_rescues": []}
    ranked = latest.assign(is_other=latest["target"] != subject.target.name).sort_values(
        ["is_other", "is_latest"], ascending=[True, False], kind="stable"
    )
    first, *others = ranked.to_dict("records")
    return {
        "rescue": _rescue(connection, subject, first),
        "other_rescues": [f"{_rescue_headline(row)}." for row in others],
    }


def _rescue_headline(row: Row) -> str:
    record = frames.rescue_record(row)
    return rescues.headline(record, *rescue_tables.bands_of(row, record))


def _rescue(connection: Connection, subject: ModelSubject, row: Row) -> dict[str, Any]:
    record, rescue_id = frames.rescue_record(row), int(row["rescue_id"])
    steps = queries.rescue_steps(connection, rescue_id)
    units = queries.rescue_units(connection, rescue_id, only_promoted=True).to_dict("records")
    files = queries.rescue_files(connection, rescue_id).to_dict("records")
    name = name_in_files(files, subject.name)
    has_steps = record.failure is None and not steps.empty
    return {
        "headline": _rescue_headline(row),
        "answer_lines": rescue_tables.answer_lines(record, rescue_tables.bands_of(row, record)),
        "notes": record.notes,
        "inputs": rescue_tables.inputs_sentence(record),
        "chart": has_steps
        and figure(
            rescue_charts.staircase(steps, subject.limits, PROPERTIES, reach_db=record.reach_db),
            key=f"rescue-{subject.number}",
            alt=subject.alt("SQNR on unseen inputs, step by step, in the rescue"),
        ),
        "steps": has_steps
        and Listing(
            title=rescue_tables.STEPS,
            caption=rescue_tables.steps_note(record),
            columns=rescue_tables.STEP_COLUMNS,
            rows=steps.to_dict("records"),
        ),
        "units": units
        and Listing(
            title=rescue_tables.UNITS,
            caption=rescue_tables.units_note(len(units)),
            columns=rescue_tables.UNIT_COLUMNS,
            rows=rescue_tables.numbered(units[:MOST_ROWS]),
        ),
        "is_all_int8": has_steps and not (steps["int8_macs"] < 1).any(),
        "files": [
            (
                Path(str(file["path"])).name,
                file_size(int(file["bytes"])),
                use_of(str(file["kind"]), name),
            )
            for file in files
        ],
        "limits": rescues.limits(record),
    }

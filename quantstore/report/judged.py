"""What the report says of a model under a scheme, from the probe where there is one."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from quantstore.schemes import Scheme
from quantstore.words import (
    NO_BREAK_SPACE,
    Verdict,
    counted,
    db,
    model_headline,
    models_headline,
    verdict,
)

MODES = {
    "weights": "weights only",
    "both": "weights and activations",
    "activations": "activations only",
}
Row = Mapping[Any, Any]


def is_probed(row: Row) -> bool:
    """Whether a row of ``queries.verdicts`` rests on a run, not on weights alone."""
    return bool(row["evidence"] == "probe")


def said(row: Row) -> tuple[Verdict, str]:
    """What a cell of the matrix says, and what that rests on."""
    if not is_probed(row):
        return verdict(row["layers_broken"], row["layers_at_risk"]), "weights alone, not run"
    mode = "full int8" if row["mode"] == "both" else MODES[str(row["mode"])]
    survives = "survives" if row["mode"] == "both" else "weights survive"
    word = survives if row["verdict"] == "fine" else str(row["verdict"])
    band = "broken" if row["verdict"] == "breaks" else str(row["verdict"])
    return Verdict(band, f"{word}: {about_db(row['output_sqnr_db'])}"), f"at the outputs, {mode}"


def models(rows: Sequence[Row], twins: Sequence[Row], scheme: Scheme) -> str:
    """The headline of the whole report.

    Args:
        twins: the same models under the per-channel scheme of the same symmetry.
    """
    verdicts = [row["verdict"] for row in rows]
    breaking, at_risk = verdicts.count("breaks"), verdicts.count("at risk")
    if not breaking and not at_risk and any(map(is_probed, rows)):
        of = "the model" if len(rows) == 1 else f"{len(rows):,} models"
        modes = {row["mode"] if is_probed(row) else "" for row in rows}
        if modes == {"both"}:
            subject = "The model survives" if len(rows) == 1 else f"All {of} survive"
            return f"{subject} {scheme.title} in the noise probe"
        return f"Nothing found that breaks {of} under {scheme.title}; not everything was run"
    return models_headline(
        breaking=breaking,
        at_risk=at_risk,
        model_count=len(rows),
        scheme=scheme,
        breaking_per_channel=sum(row["verdict"] == "breaks" for row in twins),
    )


def model(row: Row, twin: Row, scheme: Scheme) -> str:
    """The headline of one model."""
    if is_probed(row):
        told = {
            "breaks": "it breaks",
            "at risk": "it is at risk",
            "watch": "its loss is visible",
            "fine": "it survives" if row["mode"] == "both" else "its weights survive",
        }[str(row["verdict"])]
        rest = "" if row["mode"] == "both" else "; activations not measured"
        found = about_db(row["output_sqnr_db"])
        return (
            f"In the noise probe {told} under {scheme.title}: {found} at the outputs{rest}".replace(
                "survives under", "survives"
            ).replace("survive under", "survive")
        )
    return model_headline(
        broken=row["layers_broken"],
        at_risk=row["layers_at_risk"],
        layer_count=row["layer_count"],
        scheme=scheme,
        broken_per_channel=twin["layers_broken"],
    )


def layers_in_words(row: Row) -> str:
    """``24 of 123 layers are broken by their weights, 44 at risk``."""
    total = counted(int(row["layer_count"]), "layer")
    broken, at_risk = int(row["layers_broken"]), int(row["layers_at_risk"])
    if broken:
        more = f", {at_risk:,} at risk" if at_risk else ""
        verb = "is" if broken == 1 else "are"
        return f"{broken:,} of {total} {verb} broken by their weights{more}"
    if at_risk:
        return f"{at_risk:,} of {total} {'is' if at_risk == 1 else 'are'} at risk by their weights"
    return f"none of {total} is broken or at risk by its weights"


def about_db(value: float | None) -> str:
    """``7 dB``: another seed moves the probe by more than a decimal; 9.7 must not read 10."""
    if value is None or not math.isfinite(value):
        return db(value)
    whole = round(value)
    if whole % 10 == 0 and value < whole:
        return f"{math.floor(10 * value) / 10:.1f}{NO_BREAK_SPACE}dB"
    return f"{whole}{NO_BREAK_SPACE}dB".replace("-", "−")

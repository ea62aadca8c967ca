"""An audit and limits in, one outcome per limit out: what an int8 file keeps of its float file."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from quantstore import queries, store
from quantstore.checks.limits import Limits, fits
from quantstore.checks.outcome import Check, CheckOutcome, Offender, db
from quantstore.records import AuditLayerRecord, AuditRecord
from quantstore.settings import command
from quantstore.wording import audits as wording
from quantstore.wording import frames
from quantstore.wording.units import NO_BREAK_SPACE, share

AUDIT = "audit"
KERNELS_NOT_RUN = "the int8 file was not run with integer kernels"
NOTHING_RUN = "the audit compared weights only, because neither file can be run"
NO_GRID = "the int8 file rounds no activation on a grid of its own"
NO_LAYER = "no layer of the int8 file has a partner in the float file"


@dataclass(frozen=True, slots=True)
class AuditSubject:
    """The latest audit of a model against a float one; names of its layers by depth, its band."""

    record: AuditRecord
    layer_names: Mapping[int, str]
    band: str


def read(connection: store.Connection, model: str, float_model: str) -> AuditSubject | None:
    """The latest audit of a model against a float one; None where the store has none."""
    audits = queries.audits(connection, model)
    is_of_both = (audits["int8_model"] == model) & (audits["float_model"] == float_model)
    rows = audits[is_of_both & audits["failure"].isna()].to_dict("records")
    if not rows:
        return None
    audit_id = int(rows[0]["audit_id"])
    layers = queries.audit_layers(connection, audit_id)
    record = frames.audit_record(rows[0], layers, queries.audit_tensors(connection, audit_id))
    return AuditSubject(record, frames.audit_layer_names(layers), str(rows[0]["band"]))


def judge(model: str, scheme: str, limits: Limits, subject: AuditSubject | None) -> Iterator[Check]:
    """Every limit of audits that is set; where none is, the file must not be broken.

    Args:
        scheme: that layers of the model are judged under; the audit does not depend on it.
        limits: with the float model in ``audit``.
        subject: None where there is no audit.
    """
    assessment = _AuditAssessment(model, scheme, limits, subject)
    if limits.min_audit_db is None:
        if not limits.limits_audit:
            yield assessment.band()
    else:
        yield assessment.kept(limits.min_audit_db)
    if limits.max_integer_gap_db is not None:
        yield assessment.integer_gap(limits.max_integer_gap_db)
    if limits.max_saturated_share is not None:
        yield assessment.saturated(limits.max_saturated_share)
    if limits.min_audit_layer_db is not None:
        yield assessment.layers(limits.min_audit_layer_db)


class _AuditAssessment:
    """One audit before its limits."""

    def __init__(
        self, model: str, scheme: str, limits: Limits, subject: AuditSubject | None
    ) -> None:
        self._model, self._scheme, self._limits = model, scheme, limits
        self._float_model = str(limits.audit)
        self._subject = subject
        # The same, of files that were run.
        self._run = subject if subject is not None and subject.record.was_run else None

    def band(self) -> Check:
        """Whether the file is broken as it is stored."""
        subject = self._run
        if subject is None:
            return self._missing(AUDIT, None)
        return self._check(
            AUDIT,
            is_held=subject.band != "broken",
            message=f"{subject.band}: {self._kept()}",
            value=subject.record.grid_db,
            notes=self._reasons(),
        )

    def kept(self, least_db: float) -> Check:
        """What the outputs keep, in float arithmetic on the grids of the file."""
        name = "min-audit-db"
        if self._run is None:
            return self._missing(name, least_db)
        kept_db = self._run.record.grid_db
        return self._check(
            name,
            is_held=kept_db >= least_db,
            message=f"{self._kept()}; at least {least_db:g} dB required",
            value=kept_db,
            limit=least_db,
            notes=self._reasons(),
        )

    def integer_gap(self, most_db: float) -> Check:
        """What the integer kernels of the computer that ran the audit lose beyond that."""
        name = "max-integer-gap-db"
        if self._run is None:
            return self._missing(name, most_db)
        record = self._run.record
        if math.isnan(record.integer_db):
            return self._check(name, is_held=None, message=KERNELS_NOT_RUN, limit=most_db)
        gap_db = 0.0 if math.isinf(record.integer_db) else record.grid_db - record.integer_db
        return self._check(
            name,
            is_held=gap_db <= most_db,
            message=(
                f"{db(record.grid_db)} in float arithmetic, {db(record.integer_db)} with integer"
                f" kernels; at most {most_db:g} dB less allowed"
            ),
            value=gap_db,
            limit=most_db,
        )

    def saturated(self, most_share: float) -> Check:
        """The largest share of values of a tensor that lie beyond the ends of its grid."""
        name = "max-saturated-share"
        if self._run is None:
            return self._missing(name, most_share)
        shares = sorted(
            (
                (tensor.saturated_share, tensor.float_tensor or tensor.int8_tensor)
                for tensor in self._run.record.tensors
                if not math.isnan(tensor.saturated_share)
            ),
            key=lambda saturated: -saturated[0],
        )
        if not shares:
            return self._check(name, is_held=None, message=NO_GRID, limit=most_share)
        beyond = [saturated for saturated in shares if saturated[0] > most_share]
        number = f"{len(beyond):,}" if beyond else "none"
        return self._check(
            name,
            is_held=not beyond,
            message=_plain(
                f"{number} of {len(shares):,} tensors saturate more than"
                f" {share(most_share, digits=1)} of their values, the most"
                f" {share(shares[0][0], digits=1)}"
            ),
            value=shares[0][0],
            limit=most_share,
            unit="share",
            offenders=tuple(Offender(tensor, "", value) for value, tensor in beyond),
        )

    def layers(self, least_db: float) -> Check:
        """What the stored weights keep of the float weights, for 90 % of channels of each layer."""
        name = "min-audit-layer-db"
        if self._subject is None:
            return self._missing(name, least_db)
        kept = [
            (_stored_db(layer), self._name_of(layer))
            for layer in self._subject.record.layers
            if layer.matched_by is not None
        ]
        kept = sorted(
            (layer_db, layer)
            for layer_db, layer in kept
            if not any(fits(layer, pattern) for pattern in self._limits.exclude)
        )
        if not kept:
            return self._check(name, is_held=None, message=NO_LAYER, limit=least_db)
        below = [(layer_db, layer) for layer_db, layer in kept if layer_db < least_db]
        number = f"{len(below):,}" if below else "none"
        return self._check(
            name,
            is_held=not below,
            message=(
                f"{number} of {len(kept):,} layers keep less than {least_db:g} dB of their float"
                f" weights, the worst {db(kept[0][0])} (what 90 % of channels reach)"
            ),
            value=kept[0][0],
            limit=least_db,
            offenders=tuple(Offender(layer, "", layer_db) for layer_db, layer in below),
        )

    def _kept(self) -> str:
        if self._subject is None:
            raise ValueError("there is no audit")
        record = self._subject.record
        sentence = wording.headline(record, self._model, self._float_model)
        return _plain(sentence).removesuffix(".")

    def _reasons(self) -> tuple[str, ...]:
        """Why the file loses what it loses; the roundings that cost most by name."""
        subject = self._subject
        if subject is None:
            return ()
        return tuple(map(_plain, wording.reasons(subject.record, subject.layer_names)))

    def _name_of(self, layer: AuditLayerRecord) -> str:
        names = {} if self._subject is None else self._subject.layer_names
        return names.get(layer.int8_depth, f"layer {layer.int8_depth + 1}")

    def _missing(self, name: str, limit: float | None) -> Check:
        message = no_audit(self._model, self._float_model) if self._subject is None else NOTHING_RUN
        return self._check(name, is_held=None, message=message, limit=limit)

    def _check(
        self,
        check: str,
        *,
        is_held: bool | None,
        message: str,
        value: float | None = None,
        limit: float | None = None,
        unit: str = "dB",
        offenders: Sequence[Offender] = (),
        notes: Sequence[str] = (),
    ) -> Check:
        outcomes: dict[bool | None, CheckOutcome] = {
            True: "pass",
            False: "fail",
            None: "not measured",
        }
        return Check(
            model=self._model,
            scheme=self._scheme,
            audit=self._float_model,
            check=check,
            outcome=outcomes[is_held],
            message=message,
            value=value,
            limit=limit,
            unit=unit,
            offenders=tuple(offenders),
            notes=() if is_held else tuple(notes),
        )


def no_audit(model: str, float_model: str) -> str:
    """That the store has no audit of both, and the command that makes one."""
    return (
        f"no audit of {model} against {float_model}; make one with:"
        f" {command(f'audit {float_model} {model}')}"
    )


def _stored_db(layer: AuditLayerRecord) -> float:
    """Missing where the stored weights are the float weights."""
    return math.inf if math.isnan(layer.stored_p10_db) else layer.stored_p10_db


def _plain(text: str) -> str:
    return text.replace(NO_BREAK_SPACE, " ")

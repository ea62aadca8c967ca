"""What a model must keep within, from the command line and from TOML."""

import dataclasses
import fnmatch
import json
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from quantstore.errors import LimitsError, hint_for
from quantstore.schemes import DEFAULT_TARGET, SCHEMES, TARGETS, Target, target_of

# What is judged; ``both`` is all that the target rounds.
MODES = ("both", "weights")
REGRESSION_DB = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a model must keep within; None stands for no such limit.

    Args:
        target: the target that the outputs are judged under; by default the one whose weights
            ``scheme`` names, else int8 per channel.
        scheme: the scheme that layers are judged under; by default the target's.
        mode: ``weights`` to judge by the weights alone; otherwise the target itself must have been
            measured.
        min_sqnr_db: least SQNR at the outputs, in dB.
        min_layer_sqnr_db: least SQNR that 90 % of channels of every layer reach, in dB.
        max_broken_layers: most layers in the band broken.
        max_at_risk_layers: most layers in the band at risk; broken ones are not counted.
        max_channels_below_10db: most channels, over all layers, below 10 dB.
        baseline: a model of the store; no layer may be worse than the layer of that name there.
        max_regression_db: by so much a layer may be worse than the baseline's, in dB.
        audit: the float model that an int8 model was made from; the latest audit of both is judged.
        min_audit_db: least SQNR that the int8 file keeps of the float file, in dB.
        max_integer_gap_db: by so much integer kernels may keep less than float arithmetic, in dB.
        max_saturated_share: most values of a tensor beyond the ends of its grid, from 0 to 1.
        min_audit_layer_db: least SQNR of stored weights against float weights that 90 % of channels
            of every layer reach, in dB.
        exclude: names of layers, or patterns with ``*``, ``?`` and ``[...]``, that are left out.

    Raises:
        LimitsError: a value that is none, such as a scheme that does not exist.

    Without any limit a model must not break: its verdict is judged.
    """

    target: str | None = None
    scheme: str | None = None
    mode: str | None = None
    min_sqnr_db: float | None = None
    min_layer_sqnr_db: float | None = None
    max_broken_layers: int | None = None
    max_at_risk_layers: int | None = None
    max_channels_below_10db: int | None = None
    baseline: str | None = None
    max_regression_db: float = REGRESSION_DB
    audit: str | None = None
    min_audit_db: float | None = None
    max_integer_gap_db: float | None = None
    max_saturated_share: float | None = None
    min_audit_layer_db: float | None = None
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in LIMIT_NAMES:
            value = getattr(self, name)
            if value is not None:
                _require(name, list(value) if name == "exclude" else value, _dashed(name))
        if self.audit is None and self.limits_audit:
            raise LimitsError(NEEDS_AUDIT, "name the float model: audit")

    @property
    def judged_target(self) -> Target | None:
        """The target that outputs are judged under; None where no target has the scheme."""
        if self.target is not None:
            return TARGETS[self.target]
        if self.scheme is None:
            return DEFAULT_TARGET
        name = target_of(self.scheme, "both") or target_of(self.scheme, "weights")
        return None if name is None else TARGETS[name]

    @property
    def layer_scheme(self) -> str:
        """The scheme that layers are judged under."""
        if self.scheme is not None:
            return self.scheme
        return TARGETS[self.target or DEFAULT_TARGET.name].layer_scheme.name

    @property
    def limits_audit(self) -> bool:
        """Whether a value of an audit is limited."""
        return any(getattr(self, name) is not None for name in OF_AUDITS)

    @property
    def are_none(self) -> bool:
        """Whether nothing is limited, so that the verdict decides."""
        limits = (
            self.min_sqnr_db,
            self.min_layer_sqnr_db,
            self.max_broken_layers,
            self.max_at_risk_layers,
            self.max_channels_below_10db,
            self.baseline,
            self.audit,
        )
        return all(limit is None for limit in limits)


# Limits that an audit is held to.
OF_AUDITS = ("min_audit_db", "max_integer_gap_db", "max_saturated_share", "min_audit_layer_db")
NEEDS_AUDIT = f"{', '.join(name.replace('_', '-') for name in OF_AUDITS)} are limits of an audit"
LIMIT_NAMES = tuple(spec.name for spec in dataclasses.fields(Limits))


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The limits of a file: common ones, and those of models whose name fits a pattern."""

    path: Path | None = None
    common: Mapping[str, Any] = field(default_factory=dict)
    by_model: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def limits(self, model: str, overrides: Mapping[str, Any] | None = None) -> Limits:
        """The limits of one model.

        Args:
            overrides: what the command line says; it wins over the model's own table, which wins
                over the common one. Of several patterns that fit, the later wins.
        """
        chosen = dict(self.common)
        for pattern, table in self.by_model.items():
            if fits(model, pattern):
                chosen |= table
        chosen |= overrides or {}
        # False lifts a limit that a more general table sets.
        return Limits(**{name: value for name, value in chosen.items() if value is not False})


def fits(name: str, pattern: str) -> bool:
    """Whether a name is the pattern, or fits it; ``[`` is common in names of layers."""
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


def find_config(folder: Path) -> Config:
    """The limits of the nearest ``pyproject.toml`` with a table of ours, upwards from a folder.

    Raises:
        LimitsError: such a file is no TOML, or its table is wrong.
    """
    for parent in (folder, *folder.parents):
        path = parent / "pyproject.toml"
        if path.is_file():
            content = _parsed(path)
            if _has_table(content):
                return _config(path, content)
    return Config()


def read_config(path: Path) -> Config:
    """The limits of a TOML file, in ``[check]`` or ``[tool.quantstore.check]``.

    Raises:
        LimitsError: it cannot be read, is no TOML, or has no such table, or a wrong one.
    """
    content = _parsed(path)
    if not _has_table(content) and "check" not in content:
        raise LimitsError(
            f"{path} has no limits", "write limits into [check] or [tool.quantstore.check]"
        )
    return _config(path, content)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise LimitsError(
            f"{path} cannot be read: {error.strerror or error}", "check the path"
        ) from error
    except ValueError as error:
        # No TOML, or no UTF-8.
        raise LimitsError(f"{path} is not TOML: {error}") from error


def _has_table(content: Mapping[str, Any]) -> bool:
    tool = content.get("tool")
    return isinstance(tool, dict) and "quantstore" in tool


def _config(path: Path, content: Mapping[str, Any]) -> Config:
    tables = [("check", content["check"])] if not _has_table(content) else []
    if _has_table(content):
        tool_table = content["tool"]["quantstore"]
        where = "tool.quantstore"
        _require_table(tool_table, where, path)
        # Limits may stand in either table; the inner one wins.
        outer = {key: value for key, value in tool_table.items() if key != "check"}
        tables = [(where, outer)]
        if "check" in tool_table:
            tables.append((f"{where}.check", tool_table["check"]))
    common: dict[str, Any] = {}
    by_model: dict[str, Mapping[str, Any]] = {}
    for where, table in tables:
        _require_table(table, where, path)
        models = table.get("models", {})
        common |= _limits(
            {key: value for key, value in table.items() if key != "models"}, where, path
        )
        _require_table(models, f"{where}.models", path)
        for pattern, model_table in models.items():
            model_where = f"{where}.models.{json.dumps(pattern, ensure_ascii=False)}"
            _require_table(model_table, model_where, path)
            by_model[pattern] = {
                **by_model.get(pattern, {}),
                **_limits(model_table, model_where, path),
            }
    return Config(path=path, common=common, by_model=by_model)


MUST_BE_A_TABLE = "must be a table, not"


def _require_table(value: object, where: str, path: Path) -> None:
    if not isinstance(value, dict):
        raise LimitsError(f"{path}: {where} {MUST_BE_A_TABLE} {_shown(value)}")


def _limits(table: Mapping[str, Any], where: str, path: Path) -> dict[str, Any]:
    return dict(_checked(table, where, path))


def _checked(table: Mapping[str, Any], where: str, path: Path) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in LIMIT_NAMES:
            limit_names = [_dashed(limit) for limit in LIMIT_NAMES]
            hint = hint_for(_dashed(key), limit_names, "") or f"there are: {', '.join(limit_names)}"
            raise LimitsError(f"{path}: there is no limit {where}.{key}", hint)
        if value is not False:
            _require(name, value, f"{path}: {where}.{key}")
        if name in ("baseline", "audit") and isinstance(value, str) and value.endswith(".onnx"):
            # As every path in a file, it starts at the file.
            value = str(path.parent / value)
        if name == "exclude" and value is not False:
            value = tuple(value)
        yield name, value


def _is_number(value: object) -> bool:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and math.isfinite(cast("float", value))


def _is_count(value: object) -> bool:
    return _is_number(value) and isinstance(value, int) and value >= 0


def _is_list_of_text(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


# What each limit accepts, and how to say so.
NUMBER_OF_DB = "a number of dB"
NO_NEGATIVE_DB = "a number of dB, 0 or more"
WHOLE_NUMBER = "a whole number, 0 or more"
MODEL_NAME = "the name of a model"
LAYER_PATTERNS = "a list of names or patterns of layers"
SHARE = "a share from 0 to 1"
_DB = (_is_number, NUMBER_OF_DB)
_MODEL = (lambda value: isinstance(value, str) and value != "", MODEL_NAME)
_LOSS = (lambda value: _is_number(value) and cast("float", value) >= 0, NO_NEGATIVE_DB)
_COUNT = (_is_count, WHOLE_NUMBER)
_ACCEPTED: dict[str, tuple[Callable[[object], bool], str]] = {
    "target": (lambda value: value in list(TARGETS), f"one of {', '.join(TARGETS)}"),
    "scheme": (lambda value: value in list(SCHEMES), f"one of {', '.join(SCHEMES)}"),
    "mode": (lambda value: value in MODES, f"one of {', '.join(MODES)}"),
    "min_sqnr_db": _DB,
    "min_layer_sqnr_db": _DB,
    "max_broken_layers": _COUNT,
    "max_at_risk_layers": _COUNT,
    "max_channels_below_10db": _COUNT,
    "baseline": _MODEL,
    "max_regression_db": _LOSS,
    "audit": _MODEL,
    "min_audit_db": _DB,
    "max_integer_gap_db": _LOSS,
    "max_saturated_share": (
        lambda value: _is_number(value) and 0 <= cast("float", value) <= 1,
        SHARE,
    ),
    "min_audit_layer_db": _DB,
    "exclude": (_is_list_of_text, LAYER_PATTERNS),
}


def _require(name: str, value: object, where: str) -> None:
    """Raise where a limit does not accept a value."""
    is_right, expectation = _ACCEPTED[name]
    if not is_right(value):
        raise LimitsError(f"{where} must be {expectation}, not {_shown(value)}")


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _dashed(name: str) -> str:
    return name.replace("_", "-")

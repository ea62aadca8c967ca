"""Charts for a file that others open: small, in both themes, read without a server.

A specification carries the columns that it draws and nothing else, each column as its different
values and an index into them where that is shorter. ``report.js`` unpacks them.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantstore.charts.common import AnyChart, specification

# Nobody sees more digits in a chart.
SIGNIFICANT_DIGITS = 5
# The page's own font, so that a chart and the words around it are of one kind.
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif'
_DATUM_FIELD = re.compile(r"datum(?:\.(\w+)|\[['\"](.+?)['\"]\])")


@dataclass(frozen=True, slots=True)
class PlacedChart:
    """A chart of the page: the ``key`` of its place, what it shows in words, its specification."""

    key: str
    alt: str
    specification: str


def figure(chart: AnyChart, *, key: str, alt: str) -> PlacedChart:
    """A chart that the page draws by itself.

    Args:
        alt: what the chart shows, for people who cannot see it.
    """
    spec = packed(specification(chart)) | {"description": alt}
    spec["config"] = spec["config"] | {
        "font": FONT,
        "text": {"font": FONT},
        # On a phone a title is cut where its axis ends.
        "axisX": spec["config"].get("axisX", {}) | {"titleLimit": {"expr": "width"}},
    }
    return PlacedChart(key, alt, as_json(spec))


def as_json(value: object) -> str:
    """JSON inside a script element: nothing in it can end the element."""
    written = json.dumps(
        value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
    )
    return written.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def packed(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A specification whose datasets hold, column by column, what it draws."""
    without_data = {key: value for key, value in spec.items() if key != "datasets"}
    drawn = set(_fields(without_data))
    datasets = {
        name: _columns(rows, drawn) if rows else {"rows": 0, "columns": {}}
        for name, rows in spec.get("datasets", {}).items()
    }
    return without_data | {"datasets": datasets}


def _columns(rows: Sequence[Mapping[str, Any]], drawn: set[str]) -> dict[str, Any]:
    columns = {}
    for name in rows[0]:
        if name in drawn:
            columns[name] = _column([_short(row.get(name)) for row in rows])
    return {"rows": len(rows), "columns": columns}


def _column(values: list[Any]) -> dict[str, Any]:
    different = list(dict.fromkeys(values))
    if len(different) > 0.6 * len(values):
        return {"values": values}
    positions = {value: index for index, value in enumerate(different)}
    return {"different": different, "index": [positions[value] for value in values]}


def _short(value: Any) -> Any:
    if isinstance(value, float):
        short = float(f"{value:.{SIGNIFICANT_DIGITS}g}")
        return int(short) if short.is_integer() else short
    return value


def _fields(node: Any) -> Iterator[str]:
    """Names of the columns that a specification mentions."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "field" and isinstance(value, str):
                yield value
            elif key == "fields" and isinstance(value, list):
                yield from (column_name for column_name in value if isinstance(column_name, str))
            else:
                yield from _fields(value)
    elif isinstance(node, list):
        for child in node:
            yield from _fields(child)
    elif isinstance(node, str):
        yield from (plain or quoted for plain, quoted in _DATUM_FIELD.findall(node))

"""A quick chart of whatever a query returned: the columns decide what is drawn.

Names and values come from a person and from files. Fields of the chart have names of our own;
theirs appear as plain text only.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt
import numpy as np
import pandas as pd

from quantstore.charts.common import AnyChart, styled, tooltip
from quantstore.charts.palette import BANDS, Palette
from quantstore.wording.text import short_name
from quantstore.wording.units import counted, with_minus

# More rows than this are a texture, not a chart to read.
MOST_BARS = 60
MOST_BOXES = 128
MOST_DOTS = 500
LABEL_LENGTH = 34
SEPARATOR = " · "

# Beyond this many points a line is no longer drawn smoothly.
MOST_POINTS = 5_000

Mark = Literal["bars", "dots", "lines"]
MARKS: tuple[Mark, ...] = ("bars", "dots", "lines")

BOX = ("q1", "median", "q3")
# What is untested has no band: it keeps the quiet colour of plain bars.
VERDICT_BANDS = {"untested": "untested", **{band: band for band in BANDS}}
NO_ROWS = "There are no rows to draw."
NEEDS_NUMBERS = "A chart needs a column of numbers, but this result has none."
NEEDS_ANOTHER_COLUMN = "A chart needs a second column: row names, or more numbers."

UNITS = {"_db": "dB", "_bits": "bits", "_bytes": "bytes", "_seconds": "s"}


@dataclass(frozen=True, slots=True)
class QuickChart:
    """What could be drawn, and in words what it shows, or what a chart would need."""

    chart: AnyChart | None
    caption: str


def quick_chart(frame: pd.DataFrame, palette: Palette) -> QuickChart:
    """The most sensible chart of a result.

    Boxes where there are quartiles; bars where text names each row; dots where text repeats, or
    where there are two columns of numbers.
    """
    if frame.empty:
        return QuickChart(None, NO_ROWS)
    numbers = {
        name: values for name in frame.columns if (values := _numbers(frame[name])) is not None
    }
    if not numbers:
        return QuickChart(None, NEEDS_NUMBERS)
    if all(name in numbers for name in BOX):
        return _boxes(frame, numbers, palette)
    texts = [str(name) for name in frame.columns if _is_text(frame[name])]
    # A band colours the rows; it names them only where nothing else does.
    texts = [name for name in texts if name != _band_column(frame)] or texts
    labels = _labels(frame, texts)
    if labels is not None and (len(frame) <= MOST_BARS or len(numbers) == 1):
        return _bars(frame, labels, numbers, palette)
    if len(numbers) > 1 and labels is None and texts and _counts(list(numbers.values())[1]):
        return _rows_of_dots(frame, texts[0], numbers, palette)
    if len(numbers) > 1:
        named = frame[texts[0]].astype(str) if labels is None and texts else labels
        return _scatter(frame, numbers, named, palette)
    if texts:
        return _bars(frame, frame[texts[0]].astype(str), numbers, palette)
    return QuickChart(None, NEEDS_ANOTHER_COLUMN)


@dataclass(frozen=True, slots=True)
class Suited:
    """Columns that go well on the axes and into the colour of a chart; None where none does."""

    x: str | None
    y: str | None
    colour: str | None


def suited(frame: pd.DataFrame) -> Suited:
    """Text or time across where there is any, the first numbers up, bands as colours."""
    numbers = number_columns(frame)
    names = [str(name) for name in frame.columns]
    across = [name for name in names if name not in numbers and name != _band_column(frame)]
    if across:
        return Suited(across[0], next(iter(numbers), None), _band_column(frame))
    x = next(iter(numbers), None)
    return Suited(x, next((name for name in numbers if name != x), x), _band_column(frame))


def number_columns(frame: pd.DataFrame) -> list[str]:
    """The columns that hold a finite number."""
    return [str(name) for name in frame.columns if _numbers(frame[name]) is not None]


def text_columns(frame: pd.DataFrame) -> list[str]:
    """The columns that hold nothing but text."""
    return [str(name) for name in frame.columns if _is_text(frame[name])]


def as_mark(text: str) -> Mark:
    """The mark of this name; bars where there is none."""
    return next((mark for mark in MARKS if mark == text), MARKS[0])


def drawn_as(
    frame: pd.DataFrame, palette: Palette, *, mark: Mark, x: str, y: str, colour: str | None
) -> QuickChart:
    """The columns somebody chose. Text lies on the vertical axis, where names have room.

    Args:
        y: a column of numbers.
        colour: a column of text, or None.
    """
    values = _numbers(frame[y])
    if values is None:
        return QuickChart(None, f"{_named(y)} has no numbers.")
    scale_type = _scale_type(frame[x])
    groups, colours, unsaid = _grouped(frame, colour, palette)
    data = pd.DataFrame(
        {
            "x": frame[x].astype(str) if scale_type == "nominal" else _axis_values(frame[x]),
            "y": values,
            "group": groups,
            "x_words": [_value_text(value) for value in frame[x]],
            "y_words": [_number_text(value) for value in values],
        }
    ).dropna(subset=["x", "y"])
    if scale_type == "nominal":
        row_of_name = {name: row_index for row_index, name in enumerate(dict.fromkeys(data["x"]))}
        data = data.assign(label=data["x"], row=data["x"].map(row_of_name))
        data = data[data["row"] < MOST_BARS]
    data = data[:MOST_POINTS]
    chart = _marked(alt.Chart(data), mark).encode(
        **_axes(data, scale_type, x, y),
        color=_group_colour(data, colours),
        tooltip=tooltip(("x_words", x), ("y_words", y), *([("group", colour)] if colour else [])),
        description=alt.Description("x_words:N"),
    )
    rows = data["row"].nunique() if scale_type == "nominal" else 0
    height = 22 * rows + 60 if scale_type == "nominal" else 380
    over = "for each" if scale_type == "nominal" else "over"
    stacked = " Rows at the same place are stacked." if mark == "bars" else ""
    caption = f"{_named(y)} {over} {_named(x)}{_cut(len(data), len(frame))}.{unsaid}"
    if data.duplicated("x").any():
        caption += stacked
    return QuickChart(styled(chart, palette, height=height), caption)


def _marked(base: alt.Chart, mark: Mark) -> alt.Chart:
    chart: alt.Chart
    if mark == "bars":
        chart = base.mark_bar()
    elif mark == "dots":
        chart = base.mark_circle(size=46, opacity=0.9)
    else:
        chart = base.mark_line(point=True, strokeWidth=1.5)
    return chart


def _axes(data: pd.DataFrame, scale_type: str, x: str, y: str) -> dict[str, Any]:
    number: dict[str, Any] = {"title": _titled(y), "axis": _number_axis()}
    if scale_type == "nominal":
        rows = alt.Axis(labelExpr=_label_expression(data.drop_duplicates("row")), labelLimit=260)
        return {"y": alt.Y("row:O", title=None, axis=rows), "x": alt.X("y:Q", **number)}
    across: dict[str, Any] = {"title": _titled(x)}
    if scale_type == "quantitative":
        across |= {"axis": _number_axis(), "scale": alt.Scale(zero=False)}
    return {"x": alt.X(f"x:{scale_type[0].upper()}", **across), "y": alt.Y("y:Q", **number)}


def _scale_type(column: "pd.Series[Any]") -> str:
    if pd.api.types.is_datetime64_any_dtype(column):
        return "temporal"
    return "nominal" if _numbers(column) is None else "quantitative"


def _axis_values(column: "pd.Series[Any]") -> "pd.Series[Any]":
    numbers = _numbers(column)
    return column if numbers is None else numbers


def _value_text(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number_text(value)
    return "NULL" if value is None or value is pd.NaT else str(value)


def _grouped(
    frame: pd.DataFrame, colour: str | None, palette: Palette
) -> tuple[list[str], dict[str, str], str]:
    """Each row's group, the colour of each group, and what to say where there are too many."""
    if colour is None:
        return [""] * len(frame), {"": palette.bar}, ""
    groups = frame[colour].astype(str).tolist()
    names = list(dict.fromkeys(groups))
    if colour == _band_column(frame):
        order = [*VERDICT_BANDS, *names]
        names.sort(key=order.index)
        bands = {name: palette.bands.get(VERDICT_BANDS.get(name, "")) for name in names}
        return groups, {n: band.fill if band else palette.bar for n, band in bands.items()}, ""
    if len(names) > len(palette.models):
        too_many = too_many_for_colours(_named(colour), len(names))
        return groups, dict.fromkeys(names, palette.bar), f" {too_many}"
    return groups, dict(zip(names, palette.models, strict=False)), ""


def too_many_for_colours(column: str, value_count: int) -> str:
    """Why a column that was chosen for the colour has none."""
    return f"{column} has {value_count:,} values, too many to tell apart by colour."


def _group_colour(data: pd.DataFrame, colours: dict[str, str]) -> alt.Color:
    shown = [name for name in colours if name in set(data["group"])]
    legend = alt.Legend() if len({colours[name] for name in shown}) > 1 else None
    scale = alt.Scale(domain=shown, range=[colours[name] for name in shown])
    return alt.Color("group:N", scale=scale, legend=legend)


def _numbers(column: "pd.Series[Any]") -> "pd.Series[float] | None":
    """The column as finite floats or NaN; None where it holds no number."""
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return None
    values = pd.Series(column.to_numpy(dtype=np.float64, na_value=np.nan), index=column.index)
    values = values.where(np.isfinite(values))
    return None if values.isna().all() else values


def _counts(values: "pd.Series[float]") -> bool:
    """Whether these can be sizes: whole numbers, none below zero."""
    present = values.dropna()
    return bool(((present >= 0) & (present % 1 == 0)).all())


def _is_text(column: "pd.Series[Any]") -> bool:
    present = column.dropna()
    return len(present) > 0 and all(isinstance(value, str) for value in present)


def _labels(frame: pd.DataFrame, texts: list[str]) -> "pd.Series[str] | None":
    """A different label for each row: one text column, or the fewest that together differ."""
    for name in texts:
        if frame[name].is_unique:
            return frame[name].astype(str)
    for count in range(2, len(texts) + 1):
        joined = frame[texts[:count]].astype(str).agg(SEPARATOR.join, axis=1)
        if joined.is_unique:
            return joined
    return None


def _bars(
    frame: pd.DataFrame,
    labels: "pd.Series[str]",
    numbers: dict[str, "pd.Series[float]"],
    palette: Palette,
) -> QuickChart:
    name, values = next(iter(numbers.items()))
    shown = slice(None, MOST_BARS)
    data = pd.DataFrame(
        {
            "row": range(len(frame)),
            "label": labels.to_numpy(),
            "value": values.to_numpy(),
            "words": [_number_text(value) for value in values],
            "colour": _colours(frame, palette),
        }
    )[shown]
    data["text_at"] = data["value"].clip(lower=0)
    y = alt.Y(
        "row:O",
        title=None,
        sort=None,
        axis=alt.Axis(labelExpr=_label_expression(data), labelLimit=260, labelColor=palette.text),
        scale=alt.Scale(paddingInner=0.3, paddingOuter=0.15),
    )
    # Room for the figures at the ends of the bars.
    low, high = min(0.0, data["value"].min()), max(0.0, data["value"].max())
    domain = [1.02 * low, 1.12 * high] if low < high else [0, 1]
    x = alt.X(
        "value:Q",
        title=_titled(name),
        axis=_number_axis(),
        scale=alt.Scale(domain=domain, nice=False),
    )
    base = alt.Chart(data)
    bars = base.mark_bar().encode(
        x=x,
        y=y,
        color=alt.Color("colour:N", scale=None),
        tooltip=tooltip(("label", "row"), ("words", name)),
        description=alt.Description("label:N"),
    )
    figures = base.mark_text(align="left", dx=5, color=palette.muted, fontSize=11).encode(
        x=alt.X("text_at:Q"), y=y, text=alt.Text("words:N")
    )
    chart = alt.layer(bars, figures).properties(height=22 * len(data) + 44)
    limit = _cut(len(data), len(frame))
    return QuickChart(styled(chart, palette), f"{_named(name)} of each row{limit}.")


def _rows_of_dots(
    frame: pd.DataFrame, text: str, numbers: dict[str, "pd.Series[float]"], palette: Palette
) -> QuickChart:
    """Text that repeats: a row for each, dots along the first number, as large as the second."""
    (x_name, x_values), (size_name, sizes) = list(numbers.items())[:2]
    names = frame[text].astype(str)
    rows = {name: row for row, name in enumerate(dict.fromkeys(names))}
    data = pd.DataFrame(
        {
            "row": names.map(rows),
            "label": names,
            "x": x_values,
            "size": sizes,
            "x_words": [_number_text(value) for value in x_values],
            "size_words": [_number_text(value) for value in sizes],
            "colour": _colours(frame, palette),
        }
    ).dropna(subset=["x", "size"])
    data = data[data["row"] < MOST_BARS][:MOST_DOTS]
    first_labels = data.drop_duplicates("row")
    chart = (
        alt.Chart(data)
        .mark_circle(opacity=0.85, stroke=palette.background, strokeWidth=1)
        .encode(
            x=alt.X("x:Q", title=_titled(x_name), axis=_number_axis(), scale=alt.Scale(padding=16)),
            y=alt.Y(
                "row:O",
                title=None,
                axis=alt.Axis(
                    labelExpr=_label_expression(first_labels),
                    labelLimit=260,
                    labelColor=palette.text,
                    grid=True,
                ),
            ),
            size=alt.Size("size:Q", scale=alt.Scale(range=[12, 520]), legend=None),
            color=alt.Color("colour:N", scale=None),
            tooltip=tooltip(("label", text), ("x_words", x_name), ("size_words", size_name)),
            description=alt.Description("label:N"),
        )
        .properties(height=30 * len(first_labels) + 44)
    )
    return QuickChart(
        styled(chart, palette),
        f"A row for each {_named(text)}, dots along {_named(x_name)}, as large as"
        f" {_named(size_name)}{_cut(len(data), len(frame))}.",
    )


def _scatter(
    frame: pd.DataFrame,
    numbers: dict[str, "pd.Series[float]"],
    labels: "pd.Series[str] | None",
    palette: Palette,
) -> QuickChart:
    (x_name, x_values), (y_name, y_values) = list(numbers.items())[:2]
    data = pd.DataFrame(
        {
            "x": x_values,
            "y": y_values,
            "label": "" if labels is None else labels,
            "x_words": [_number_text(value) for value in x_values],
            "y_words": [_number_text(value) for value in y_values],
            "colour": _colours(frame, palette),
        }
    ).dropna(subset=["x", "y"])[:MOST_DOTS]
    label_tooltip = [] if labels is None else [("label", "row")]
    chart = (
        alt.Chart(data)
        .mark_circle(size=46, opacity=0.9, stroke=palette.background, strokeWidth=0.7)
        .encode(
            x=alt.X("x:Q", title=_titled(x_name), axis=_number_axis(), scale=alt.Scale(zero=False)),
            y=alt.Y("y:Q", title=_titled(y_name), axis=_number_axis(), scale=alt.Scale(zero=False)),
            color=alt.Color("colour:N", scale=None),
            tooltip=tooltip(*label_tooltip, ("x_words", x_name), ("y_words", y_name)),
        )
        .properties(height=380)
    )
    return QuickChart(
        styled(chart, palette),
        f"{_named(y_name)} over {_named(x_name)}{_cut(len(data), len(frame))}.",
    )


def _boxes(
    frame: pd.DataFrame, numbers: dict[str, "pd.Series[float]"], palette: Palette
) -> QuickChart:
    """Quartiles as boxes, whiskers and extremes where there are columns for them."""
    low = next((name for name in ("whisker_low", "weight_min", "min") if name in numbers), "q1")
    high = next((name for name in ("whisker_high", "weight_max", "max") if name in numbers), "q3")
    label_columns = [
        str(name)
        for name in frame.columns
        if name not in (*BOX, low, high) and frame[name].is_unique
    ]
    category = label_columns[0] if label_columns else "row"
    names = frame[category].astype(str) if label_columns else pd.Series(range(1, len(frame) + 1))
    data = pd.DataFrame(
        {
            "row": range(len(frame)),
            "label": names.to_numpy(),
            "low": numbers[low].to_numpy(),
            "high": numbers[high].to_numpy(),
            **{name: numbers[name].to_numpy() for name in BOX},
            "smallest": numbers.get("weight_min", numbers[low]).to_numpy(),
            "largest": numbers.get("weight_max", numbers[high]).to_numpy(),
            "colour": _colours(frame, palette),
        }
    )[:MOST_BOXES]
    for name in (*BOX, "low", "high"):
        data[f"{name}_words"] = [_number_text(value) for value in data[name]]
    x = alt.X(
        "row:O",
        title=category,
        axis=alt.Axis(labelExpr=_label_expression(data), labelAngle=0, labelOverlap=True),
        scale=alt.Scale(paddingInner=0.22, paddingOuter=0.1),
    )
    is_weight = low in ("whisker_low", "weight_min")
    y = alt.Y("low:Q", title="weight units" if is_weight else None, axis=_number_axis())
    colour: Any = alt.Color("colour:N", scale=None)
    base = alt.Chart(data)
    extremes = [
        base.transform_filter(f"datum.{field} {beyond}")
        .mark_circle(size=22, opacity=1, aria=False)
        .encode(x=x, y=alt.Y(f"{field}:Q"), color=colour)
        for field, beyond in (("smallest", "< datum.low"), ("largest", "> datum.high"))
    ]
    chart = alt.layer(
        base.mark_rule(aria=False).encode(x=x, y=y, y2=alt.Y2("high"), color=colour),
        *extremes,
        base.mark_bar().encode(
            x=x,
            y=alt.Y("q1:Q"),
            y2=alt.Y2("q3"),
            color=colour,
            tooltip=tooltip(
                ("label", category),
                ("high_words", high),
                ("q3_words", "q3"),
                ("median_words", "median"),
                ("q1_words", "q1"),
                ("low_words", low),
            ),
            description=alt.Description("label:N"),
        ),
        base.mark_tick(color=palette.background, thickness=2, aria=False).encode(
            x=x, y=alt.Y("median:Q")
        ),
    ).properties(height=380)
    return QuickChart(
        styled(chart, palette),
        f"A box for each {_named(category)}: quartiles and median, lines to {_named(low)} and"
        f" {_named(high)}{_cut(len(data), len(frame))}.",
    )


def _band_column(frame: pd.DataFrame) -> str | None:
    """The column whose every value is a band or a verdict, if there is one of that name."""
    for name in ("band", "verdict"):
        if name in frame and set(frame[name].dropna().astype(str)) <= VERDICT_BANDS.keys():
            return name
    return None


def _colours(frame: pd.DataFrame, palette: Palette) -> list[str]:
    """The fill of each row's band where the result has one, else the quiet colour of plain bars."""
    column = _band_column(frame)
    if column is None:
        return [palette.bar] * len(frame)
    bands = frame[column].map(VERDICT_BANDS)
    return [palette.bands[band].fill if band in palette.bands else palette.bar for band in bands]


def _label_expression(data: pd.DataFrame) -> str:
    """Row numbers become labels inside the chart; JSON keeps a name from being an expression."""
    labels = {
        str(row): short_name(label, LABEL_LENGTH)
        for row, label in zip(data["row"], data["label"].astype(str), strict=True)
    }
    return f"{json.dumps(labels)}[datum.value]"


def _number_axis() -> alt.Axis:
    # "~r" can misround, but only beyond what an axis shows.
    return alt.Axis(labelExpr="replace(format(datum.value, ',~r'), '-', '−')", tickCount=7)


def _number_text(value: float) -> str:
    if not np.isfinite(value):
        return "NULL"
    if value == int(value) and abs(value) < 1e15:
        return with_minus(f"{int(value):,}")
    return with_minus(f"{value:,.4g}")


def _titled(name: str) -> str:
    unit = next((unit for suffix, unit in UNITS.items() if name.endswith(suffix)), None)
    return _named(name) if unit is None else f"{_named(name)}, in {unit}"


def _named(name: str) -> str:
    return short_name(str(name), 60)


def _cut(shown: int, all_rows: int) -> str:
    return "" if shown == all_rows else f"; {shown:,} of {counted(all_rows, 'row')} drawn"

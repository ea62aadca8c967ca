"""The charts of Compare: how the layers differ, where they lie, what goes with what."""

import html
from collections.abc import Callable, Sequence
from dataclasses import replace

import pandas as pd
import streamlit as st

from quantstore.app.widgets import address, colours, components, navigation, notes, pickers
from quantstore.app.widgets import drawing as drawing_widgets
from quantstore.charts import against, spread
from quantstore.charts import compare as charts
from quantstore.charts.common import CLICK, ready
from quantstore.charts.compare import Measure
from quantstore.charts.measures import CHANNEL_SPREAD, LABELS, SQNR, WEIGHT_RANGE, measure_of
from quantstore.errors import printable
from quantstore.numerics.measures import Axis
from quantstore.schemes import Scheme
from quantstore.wording import stories
from quantstore.wording.nodes import operator
from quantstore.wording.text import listed, short_name
from quantstore.wording.units import count, counted, weight
from quantstore.wording.verdicts import NINE_IN_TEN

DECADE_BINS = (5, 10, 20)
BIN_WIDTHS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
# About as many bins as the article's chart has.
ARTICLE_BINS = 11
BRICKS, BARS, CUMULATIVE, RIDGES = "Bricks", "Bars", "Cumulative", "Ridges"
# The key of a chart, and what it is called.
Drawn = tuple[str, str]
# A longer list is one to export, not to read.
MOST_LISTED = 500

WHAT_A_DOT_DOES = (
    "One dot per layer. Click a dot to open the layer, or draw a rectangle to list the layers in"
    " it."
)


def draw(profiles: pd.DataFrame, scheme: Scheme, limits: dict[str, float]) -> None:
    """The three sections.

    Args:
        profiles: one row per layer that is shown, models in display order, at least one.
        limits: the lower limit of each band in dB.
    """
    models = list(dict.fromkeys(profiles["model"]))
    drawn = dict(
        (
            _differences(profiles, models, scheme),
            _depth(profiles, scheme),
            _against(profiles, models, scheme, limits),
        )
    )
    components.save_as_svg(drawn, key="save_compare")


def _focus(models: Sequence[str]) -> str | None:
    """The model that stands out where there are too many for a colour each."""
    if len(models) <= charts.ROOMY_MODELS:
        return None
    address.link("highlight", default=models[0], options=models)
    return st.selectbox("Highlight", models, key="highlight", format_func=printable, width=240)


def _pick_measure(
    label: str, *, key: str, default: str, on_change: Callable[[], None] | None = None
) -> str:
    address.link(key, default=default, options=list(LABELS))
    return st.selectbox(label, list(LABELS), key=key, width=200, on_change=on_change)


def _differences(profiles: pd.DataFrame, models: list[str], scheme: Scheme) -> Drawn:
    st.space("small")
    st.header(stories.DIFFERENCES, anchor=False)
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        label = _pick_measure("Measure", key="measure", default=WEIGHT_RANGE)
        shapes = [BRICKS, CUMULATIVE]
        if 1 < len(models) <= charts.ROOMY_MODELS:
            shapes = [BRICKS, BARS, CUMULATIVE]
        elif len(models) > charts.ROOMY_MODELS:
            shapes = [BRICKS, RIDGES, CUMULATIVE]
        shape = pickers.choice("Shape", shapes, key="shape")
        measure = measure_of(label, scheme)
        everything = profiles
        if not st.session_state.get("family"):
            profiles = charts.convolutions(everything)
        if label == WEIGHT_RANGE:
            with st.popover("Axis"):
                measure = _axis(measure, profiles, has_bins=shape in (BRICKS, BARS))
        focus = _focus(models) if shape == CUMULATIVE else None
    st.caption(f"{_story(profiles, measure, shape)}{_not_counted(everything, profiles)}")
    description = f"{_medians(profiles, measure)}; {shape.lower()}, {measure.title}"
    palette = colours.palette()
    if shape == BARS:
        drawing_widgets.chart(
            charts.grouped_bars(profiles, measure, palette), key="bars", alt=description
        )
    else:
        drawing = (
            charts.bricks(profiles, measure, palette)
            if shape == BRICKS
            else spread.ridges(profiles, measure, palette)
            if shape == RIDGES
            else spread.cumulative(profiles, measure, palette, focus=focus)
        )
        drawing_widgets.clickable_chart(drawing, key=shape.lower(), alt=description)
    _left_out(profiles, measure, shape)
    return shape.lower(), f"{label}, {shape.lower()}"


def _axis(measure: Measure, profiles: pd.DataFrame, *, has_bins: bool) -> Measure:
    """How the axis of the range is divided: in decades, or evenly as the article has it."""
    axis: Axis = (
        "linear" if pickers.choice("Axis", ["log", "linear"], key="axis") == "linear" else "log"
    )
    bins_per_decade, bin_width = measure.bins_per_decade, measure.bin_width
    if has_bins and axis == "log":
        picked = _pick_number("Bins per decade", DECADE_BINS, bins_per_decade, key="decade_bins")
        bins_per_decade = int(picked)
    elif has_bins:
        largest = float(profiles["weight_range"].max() or 1)
        best = min(BIN_WIDTHS, key=lambda width: abs(largest / width - ARTICLE_BINS))
        bin_width = _pick_number("Bin width", BIN_WIDTHS, best, key="bin_width")
    return replace(measure, axis=axis, bins_per_decade=bins_per_decade, bin_width=bin_width)


def _pick_number(label: str, numbers: Sequence[float], default: float, *, key: str) -> float:
    """One of a few numbers, part of the address."""
    options = [f"{number:g}" for number in numbers]
    address.link(key, default=f"{default:g}", options=options)
    return float(st.selectbox(label, options, key=key))


def _medians(profiles: pd.DataFrame, measure: Measure) -> str:
    """What a chart of a measure shows, for people who cannot see it."""
    as_text = charts.said_as(measure.column)
    medians = profiles.groupby("model", sort=False)[measure.column].median()
    return "Median per model: " + ", ".join(
        f"{model} {as_text(None if pd.isna(value) else float(value))}"
        for model, value in medians.items()
    )


def _left_out(profiles: pd.DataFrame, measure: Measure, shape: str) -> None:
    """Which layers have no place in the chart, and why."""
    values = profiles[measure.column]
    missing = int(values.isna().sum() + (values == 0).sum() * (measure.axis == "log"))
    if not missing:
        return
    if measure.column.endswith("_db"):
        where = "no line reaches them" if shape == CUMULATIVE else "they are not in this chart"
        verb = "is" if missing == 1 else "are"
        where = where.replace("them", "it").replace("they are", "it is") if missing == 1 else where
        notes.note(f"{counted(missing, 'layer')} {verb} exact: {where}.")
        return
    verb = "has" if missing == 1 else "have"
    title = html.escape(measure.title)
    are = "is" if missing == 1 else "are"
    notes.note(f"{counted(missing, 'layer')} {verb} no {title} and {are} not in this chart.")


def _not_counted(everything: pd.DataFrame, profiles: pd.DataFrame) -> str:
    """What the distribution leaves out where nobody has chosen operators."""
    if st.session_state.get("family"):
        return ""
    note = stories.layers_counted(
        *charts.not_counted(everything, profiles), hint=" (see Filter layers)"
    )
    return f" {notes.escaped(note)}" if note else ""


_MARKS = {
    BRICKS: f"{stories.bricks_note('{kind}')}. Click a brick to open the layer.",
    BARS: "",
    CUMULATIVE: "Each line rises by one layer at a time. Click a dot to open the layer.",
    RIDGES: "Each ridge is scaled to its own peak. Ticks below it are layers, coloured by band.",
}


def _story(profiles: pd.DataFrame, measure: Measure, shape: str) -> str:
    noun = charts.kind_of(profiles)
    mark = _MARKS[shape].format(kind=noun)
    if measure.label == WEIGHT_RANGE:
        return f"{mark} {notes.escaped(charts.range_story(profiles, measure.column))}"
    story = f"{mark} {measure.explanation}"
    if measure.label == CHANNEL_SPREAD:
        story += f" {notes.escaped(charts.spread_story(profiles, measure.column))}"
    return story


def _depth(profiles: pd.DataFrame, scheme: Scheme) -> Drawn:
    st.space("small")
    st.header(stories.DEPTH, anchor=False)
    label = _pick_measure("Measure", key="depth_measure", default=SQNR)
    measure = measure_of(label, scheme)
    palette = colours.palette()
    if label == SQNR:
        st.caption(f"{stories.DEPTH_NOTE} Click one to open the layer.")
        drawing = charts.hanging_bars(profiles, palette)
    else:
        st.caption(
            f"One dot per layer, coloured by band: {measure.title}. All rows have the same"
            f" {'logarithmic ' if measure.axis == 'log' else ''}scale. Click a dot to open the"
            " layer."
        )
        drawing = against.by_depth(profiles, measure, palette)
    key = "depth" if label == SQNR else f"depth_{measure.column}"
    drawing_widgets.clickable_chart(
        drawing,
        key=key,
        alt=f"{_worst_places(profiles)}; {measure.title}, from input to output",
    )
    return key, f"{label} along the network"


def _worst_places(profiles: pd.DataFrame) -> str:
    """Which layer is the worst one of each model, and where it lies."""
    worst = profiles.sort_values("channel_sqnr_p10_db", kind="stable").groupby("model", sort=False)
    rows = worst.first().to_dict("index")
    return "Worst layer per model: " + ", ".join(
        f"{model} {rows[model]['layer']}, number {rows[model]['depth'] + 1} of"
        f" {rows[model]['layer_count']}"
        for model in dict.fromkeys(profiles["model"])
    )


def _against(
    profiles: pd.DataFrame, models: list[str], scheme: Scheme, limits: dict[str, float]
) -> Drawn:
    st.space("small")
    heading = st.empty()
    with st.container(horizontal=True, gap="small"):
        across, up = (
            _pick_measure(label, key=key, default=default, on_change=address.by_hand(_wipe_box))
            for label, key, default in (("X axis", "x", WEIGHT_RANGE), ("Y axis", "y", SQNR))
        )
        focus = None
        if len(models) > charts.ROOMY_MODELS and st.session_state.get("shape") != CUMULATIVE:
            focus = _focus(models)
        elif len(models) > charts.ROOMY_MODELS:
            focus = st.session_state.get("highlight")
    heading.header(_question(across, up), anchor=False)
    x, y = measure_of(across, scheme), measure_of(up, scheme)
    dots = against.placed(profiles, x, y)
    rank_correlation = _correlation(dots)
    law = (
        " Dashed line: the loss of the whole tensor from uniform rounding noise. Layers below the"
        " line lose more in their weakest channels."
        if x.has_db_labels and up == SQNR
        else ""
    )
    st.caption(f"{WHAT_A_DOT_DOES}{rank_correlation}{law}")
    address.link("box", default="")
    box = _box(st.session_state["box"])
    key = f"against_{x.column}_{y.column}_{_generation(st.session_state['box'])}"

    def selected() -> None:
        selection = st.session_state[key].selection
        if picked := selection.get(CLICK):
            navigation.open_layer(int(picked[0]["layer_id"]))
        else:
            drawn = _box_in_words(selection.get(against.BRUSH) or {})
            st.session_state["_box_on_screen"] = drawn
            address.choose("box", drawn)

    chart = against.scatter(profiles, x, y, colours.palette(), limits, focus=focus, box=box)
    st.altair_chart(
        ready(chart),
        key=key,
        on_select=selected,
        alt=f"{x.title} of {counted(len(dots), 'layer')} against {y.title}.{rank_correlation}",
    )
    components.hide_brush(against.BRUSH)
    if box is not None:
        _listed(dots[box.holds(dots)], across, up, x, y)
    return key, f"{across} against {up}"


def _question(across: str, up: str) -> str:
    if up == SQNR and across != SQNR:
        measure_name = across[0].lower() + across[1:]
        return f"Does the {measure_name.removeprefix('weight ')} predict the loss?"
    return f"{across} vs. {up if 'SQNR' in up else up[0].lower() + up[1:]}"


def _correlation(dots: pd.DataFrame) -> str:
    """Spearman's rank correlation in a sentence, empty where there is nothing to rank."""
    points = dots[["x", "y"]]
    if len(points) < 3 or points.nunique().min() < 2:
        return ""
    # Ranks, because neither axis is linear in the other. pandas' own "spearman" wants scipy.
    ranks = points.rank()
    correlation = float(ranks["x"].corr(ranks["y"]))
    return f" Spearman's rank correlation over {count(len(points))} layers: {weight(correlation)}."


def _generation(box: str) -> int:
    """A number that grows whenever a rectangle comes from elsewhere than the chart on screen.

    A chart keeps what was drawn on it, also where the address then says otherwise.
    """
    if st.session_state.get("_box_on_screen") != box:
        st.session_state["_box_on_screen"] = box
        st.session_state["_box_generation"] = st.session_state.get("_box_generation", 0) + 1
    return int(st.session_state["_box_generation"])


def _wipe_box() -> None:
    """From a callback: the rectangle was drawn in units of other measures."""
    address.choose("box", "")


def _box(text: str) -> against.BrushBox | None:
    """The rectangle of an address; None where it holds none."""
    try:
        x_low, x_high, y_low, y_high = (float(part) for part in text.split("~"))
    except ValueError:
        return None
    return against.BrushBox((x_low, x_high), (y_low, y_high))


def _box_in_words(drawn: dict[str, list[float]]) -> str:
    """The rectangle that was drawn, for the address; empty where it was wiped."""
    if not drawn.get("x") or not drawn.get("y"):
        return ""
    ends = [*sorted(drawn["x"]), *sorted(drawn["y"])]
    return "~".join(f"{end:.4g}" for end in ends)


def _listed(dots: pd.DataFrame, across: str, up: str, x: Measure, y: Measure) -> None:
    """The layers in the rectangle, worst first; a row opens its layer."""
    layers = dots.sort_values("channel_sqnr_p10_db", kind="stable", na_position="last")
    by_model = layers["model"].value_counts()
    whose = listed(
        [
            f"{count(number)} of {short_name(str(model), 40)}"
            for model, number in by_model.head(3).items()
        ]
    )
    and_others = " and others" if len(by_model) > 3 else ""
    st.markdown(
        f"**{counted(len(layers), 'layer')} in the rectangle**"
        + (f", {notes.escaped(whose)}{and_others}" if len(by_model) > 1 else "")
        + (". Click a row to open the layer." if len(layers) else ".")
    )
    if layers.empty:
        return
    ids = layers["layer_id"].tolist()

    def clicked() -> None:
        picked = st.session_state["boxed_layers"].selection.rows
        if picked:
            navigation.open_layer(int(ids[picked[0]]))

    columns = {
        "layer": layers["layer"].map(printable),
        "model": layers["model"].map(printable),
        "operator": [
            operator(op_type, bool(is_depthwise))
            for op_type, is_depthwise in zip(layers["op_type"], layers["is_depthwise"], strict=True)
        ],
        "band": layers["band"],
        "p10, dB": layers["channel_sqnr_p10_db"],
        "weights": layers["weight_count"],
    }
    for label, measure in ((across, x), (up, y)):
        if measure.column != "channel_sqnr_p10_db":
            columns[label] = layers[measure.column]
    st.dataframe(
        pd.DataFrame(columns).head(MOST_LISTED),
        hide_index=True,
        key="boxed_layers",
        on_select=clicked,
        selection_mode="single-row",
        column_config={
            "p10, dB": st.column_config.NumberColumn(format="%.1f", help=NINE_IN_TEN),
            "weights": st.column_config.NumberColumn(format="localized"),
        }
        | {label: st.column_config.NumberColumn(format="%.3g") for label in (across, up)},
        height=min(360, 36 * (len(layers) + 1) + 3),
    )

"""Compare: which model survives, under which scheme, and what sets it apart?"""

import html

import pandas as pd
import streamlit as st

from quantstore import queries
from quantstore.charts import compare as charts
from quantstore.pages import address, report_button, shared
from quantstore.schemes import Scheme
from quantstore.words import (
    Finding,
    bits,
    count,
    counted,
    listed,
    models_headline,
    short_name,
    verdict,
    weight,
)

# Beyond this many rows a chart is a texture; the others are one page further.
MODELS_PER_PAGE = 12

CONVOLUTIONS = ("conv", "conv_transpose")
MEASURES = {
    "Weight range": "weight_range",
    "Channel spread": "channel_spread_bits",
    "Range / rms": "span_over_rms",
    "SQNR": "channel_sqnr_p10_db",
}


def main() -> None:
    """Draw the page."""
    shared.follow_click()
    with shared.open_store() as con:
        names = queries.model_names(con)
        scheme = shared.scheme()
        st.title("Compare")
        # The answer stands above the picker it depends on.
        headline = st.empty()
        picked: list[str] = []
        if len(names) > 1:
            address.link("models", default=[], options=names)
            picked = st.multiselect(
                "Models",
                names,
                key="models",
                placeholder=f"All {count(len(names))} models",
                label_visibility="collapsed",
            )
        ranked = queries.ranking(con, scheme.name, picked or None)
        twin = ranked
        if not scheme.per_channel:
            twin_name = scheme.name.replace("_tensor_", "_channel_")
            twin = queries.ranking(con, twin_name, picked or None)
        headline.header(models_headline(_findings(ranked), _findings(twin), scheme), anchor=False)
        shown = _page_of(ranked["model"].tolist())
        limits = queries.band_limits(con)
        _verdict_section(queries.verdicts(con, shown), shown, len(ranked), scheme, limits)
        report_button.draw(picked or shown, scheme, key="report_compare")
        profiles = queries.layer_profiles(con, shown, scheme.name)
    _differences(profiles, scheme)
    _depth(profiles)
    _prediction(profiles, scheme, limits)


def _findings(ranked: pd.DataFrame) -> list[Finding]:
    """One per model, over all models and not only those of the page."""
    return [queries.finding(row) for row in ranked.to_dict("records")]


def _page_of(ranked: list[str]) -> list[str]:
    pages = -(-len(ranked) // MODELS_PER_PAGE)
    if pages <= 1:
        return ranked
    number = min(int(st.session_state.get("compare_page") or 1), pages)
    return ranked[(number - 1) * MODELS_PER_PAGE : number * MODELS_PER_PAGE]


def _verdict_section(
    verdicts: pd.DataFrame, shown: list[str], total: int, scheme: Scheme, limits: dict[str, float]
) -> None:
    shared.verdict_matrix(verdicts, shown, scheme, corner="model", key="matrix")
    if total > MODELS_PER_PAGE:
        st.pagination(-(-total // MODELS_PER_PAGE), key="compare_page")
        st.caption(
            f"{len(shown)} of {count(total)} models, worst first. The charts below show the same."
        )
    shared.legend(limits)
    shared.evidence_notes(verdicts)
    with st.expander("The figures behind it: SQNR at the outputs, range, spread, channels"):
        own = verdicts[verdicts["scheme"] == scheme.name].set_index("model").loc[shown]
        said_of = [verdict(queries.finding(row)) for row in own.to_dict("records")]
        st.dataframe(
            pd.DataFrame(
                {
                    "model": own.index,
                    "verdict": [said.text for said in said_of],
                    "evidence": [f"{said.where}{said.evidence}" for said in said_of],
                    "SQNR at the outputs, dB": own["output_sqnr_db"].to_numpy(),
                    "layers": own["layer_count"].to_numpy(),
                    "weights": own["weight_count"].to_numpy(),
                    "largest range": own["max_weight_range"].to_numpy(),
                    "median range": own["median_weight_range"].to_numpy(),
                    "channel spread, bits": own["channel_spread_p90_bits"].to_numpy(),
                    "broken": own["layers_broken"].to_numpy(),
                    "at risk": own["layers_at_risk"].to_numpy(),
                    "channels below 10 dB": own["channels_below_10db"].to_numpy(),
                    "channels": own["channel_count"].to_numpy(),
                }
            ),
            hide_index=True,
            column_config={
                "SQNR at the outputs, dB": st.column_config.NumberColumn(
                    format="%.1f", help="in the noise probe"
                ),
                "weights": st.column_config.NumberColumn(format="localized"),
                "largest range": st.column_config.NumberColumn(format="%.2f"),
                "median range": st.column_config.NumberColumn(format="%.2f"),
                "channel spread, bits": st.column_config.NumberColumn(
                    format="%.1f", help="90th percentile over the layers"
                ),
                "channels": st.column_config.NumberColumn(format="localized"),
            },
        )


def _differences(profiles: pd.DataFrame, scheme: Scheme) -> None:
    st.space("small")
    st.header("How the layers differ", anchor=False)
    with st.container(horizontal=True, gap="small"):
        label = shared.choice("Measure", list(MEASURES), key="measure")
        column = _column(MEASURES[label], scheme)
        axis: charts.Axis = "log" if column.endswith("_over_rms") else "linear"
        bins_per_decade, bin_width = 10, 2.0
        if column == "weight_range":
            axis = (
                "linear"
                if shared.choice("Axis", ["log", "linear"], key="axis") == "linear"
                else "log"
            )
            if axis == "log":
                bins_per_decade = st.selectbox(
                    "Bins per decade", [5, 10, 20], index=1, key="decade_bins", width=130
                )
            else:
                widths = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0]
                largest = float(profiles["weight_range"].max() or 1)
                # About eleven bins, as the article's chart has.
                best = min(range(len(widths)), key=lambda i: abs(largest / widths[i] - 11))
                bin_width = st.selectbox(
                    "Bin width", widths, index=best, format_func="{:g}".format, width=130
                )
        elif column == "channel_spread_bits":
            bin_width = 0.5
        is_conv = profiles["op_family"].isin(CONVOLUTIONS)
        # The article counts convolutions. Where there is none, there is nothing to choose.
        is_all = (
            not is_conv.any()
            or shared.choice("Layers", ["Convolutions", "All"], key="operators") == "All"
        )
        shape = "Bricks"
        model_count = profiles["model"].nunique()
        if 1 < model_count <= charts.ROOMY_MODELS:
            shape = shared.choice("Shape", ["Bricks", "Bars"], key="shape")
    if column == "symmetric_span_over_rms":
        bins_per_decade = 20
    chosen = profiles if is_all else profiles[is_conv]
    measure = charts.Measure(
        column=column,
        title=_title(column),
        axis=axis,
        bins_per_decade=int(bins_per_decade),
        bin_width=float(bin_width),
        has_db_labels=column.endswith("_over_rms") and not scheme.per_channel,
    )
    st.caption(_story(chosen, column, shape))
    words = f"{label} of the layers, per model"
    if shape == "Bars":
        shared.chart(charts.grouped_bars(chosen, measure, shared.palette()), key="bars", alt=words)
    else:
        shared.clickable_chart(
            charts.bricks(chosen, measure, shared.palette()), key="bricks", alt=words
        )
    left_out = [model for model in profiles["model"].unique() if model not in set(chosen["model"])]
    if left_out:
        verb = "has" if len(left_out) == 1 else "have"
        shared.note(
            f"{html.escape(listed(left_out))} {verb} no convolution: choose all layers to see"
            f" {'it' if len(left_out) == 1 else 'them'}."
        )
    missing = int(chosen[column].isna().sum() + (chosen[column] == 0).sum() * (axis == "log"))
    if missing:
        verb = "has" if missing == 1 else "have"
        title = html.escape(measure.title)
        shared.note(f"{counted(missing, 'layer')} {verb} no {title}, and no place in this chart.")


def _column(measure: str, scheme: Scheme) -> str:
    if measure != "span_over_rms":
        return measure
    return "symmetric_span_over_rms" if scheme.is_symmetric else "asymmetric_span_over_rms"


def _title(column: str) -> str:
    return {
        "weight_range": "weight range of a layer, max − min, in weight units",
        "channel_spread_bits": "channel spread of a layer, bits",
        "symmetric_span_over_rms": "range of the symmetric grid over rms weight",
        "asymmetric_span_over_rms": "range of the asymmetric grid over rms weight",
        "channel_sqnr_p10_db": "SQNR that nine in ten channels reach, dB",
    }[column]


def _story(profiles: pd.DataFrame, column: str, shape: str) -> str:
    mark = (
        "One brick per layer, coloured by band; click one to open it." if shape == "Bricks" else ""
    )
    if column == "channel_spread_bits":
        spread = profiles.groupby("model", sort=False)[column].quantile(0.9).sort_values()
        text = (
            "Channel spread is log2 of the widest channel's range over the median channel's: the"
            " bits a typical channel loses when the tensor shares one scale."
        )
        if len(spread) > 1:
            text += (
                f" A tenth of the layers spread {bits(spread.iloc[-1])} or more in"
                f" {shared.escaped(str(spread.index[-1]))}, {bits(spread.iloc[0])} in"
                f" {shared.escaped(str(spread.index[0]))}."
            )
        return f"{mark} {text}"
    if column.endswith("_over_rms"):
        return (
            f"{mark} The range that the grid must cover, over the root mean square weight: it sets"
            " the SQNR of the whole tensor (second line of the axis), and says nothing about the"
            " channels that share it."
        )
    if column == "channel_sqnr_p10_db":
        return f"{mark} The measure that the bands rest on: further left is worse."
    found = charts.landmarks(profiles, column)
    if found is None:
        return mark
    text = (
        f"{mark} The widest layer is **{_full_name(found.widest, profiles)}** with a range of"
        f" {weight(found.widest[column])}."
    )
    if found.widest_unharmed is not None and found.narrowest_broken is not None:
        text += (
            f" Range alone does not decide: {_full_name(found.widest_unharmed, profiles)} spans"
            f" {weight(found.widest_unharmed[column])} and is not at risk, while"
            f" {_full_name(found.narrowest_broken, profiles)} breaks with a range of"
            f" {weight(found.narrowest_broken[column])}."
        )
    return text


def _full_name(layer: pd.Series, profiles: pd.DataFrame) -> str:
    name = short_name(str(layer["layer"]), 40)
    if profiles["model"].nunique() > 1:
        name = f"{short_name(str(layer['model']), 40)} {name}"
    return shared.escaped(name)


def _depth(profiles: pd.DataFrame) -> None:
    st.space("small")
    st.header("Where in the network", anchor=False)
    st.caption(
        "Each bar hangs from 40 dB down to the SQNR that nine in ten of the layer's channels reach:"
        " the longer the bar, the worse. Click one to open the layer."
    )
    shared.clickable_chart(
        charts.hanging_bars(profiles, shared.palette()),
        key="depth",
        alt="SQNR of every layer from input to output, one row per model",
    )


def _prediction(profiles: pd.DataFrame, scheme: Scheme, limits: dict[str, float]) -> None:
    st.space("small")
    st.header("Does the range predict the loss?", anchor=False)
    options = {name: MEASURES[name] for name in ("Weight range", "Channel spread", "Range / rms")}
    label = shared.choice("Predictor", list(options), key="predictor", label_is_hidden=True)
    column = _column(options[label], scheme)
    measure = charts.Measure(
        column=column,
        title=_title(column),
        axis="linear" if column == "channel_spread_bits" else "log",
        has_db_labels=column.endswith("_over_rms") and not scheme.per_channel,
    )
    known = profiles[[column, "channel_sqnr_p10_db"]].dropna()
    if len(known) > 2 and known.nunique().min() > 1:
        # Ranks, because neither axis is linear in the other. pandas' own "spearman" wants scipy.
        ranks = known.rank()
        correlation = float(ranks[column].corr(ranks["channel_sqnr_p10_db"]))
        st.caption(
            f"One dot per layer. Spearman's rank correlation over {count(len(known))} layers:"
            f" {weight(correlation)}; −1 would be a perfect warning."
            + (
                " The dashed line is what uniform rounding noise costs the whole tensor; layers"
                " below it lose more in their weakest channels."
                if measure.has_db_labels
                else ""
            )
        )
    chart = charts.scatter(
        profiles, measure, shared.palette(), limits, show_law=measure.has_db_labels
    )
    shared.clickable_chart(chart, key="scatter", alt=f"{label} of each layer against its SQNR")


main()

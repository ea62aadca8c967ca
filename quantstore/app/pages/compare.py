"""Compare: which models survive on which target, and how do their layers differ?"""

import pandas as pd
import streamlit as st

from quantstore import queries
from quantstore.app.sections import compare_charts, facets, filters, ways_on
from quantstore.app.widgets import (
    address,
    colours,
    matrix,
    navigation,
    notes,
    pickers,
    report_button,
    stores,
)
from quantstore.errors import printable
from quantstore.schemes import Target
from quantstore.store import Connection
from quantstore.wording.headlines import models_headline
from quantstore.wording.units import count, with_minus
from quantstore.wording.verdicts import verdict

# Beyond this many rows a chart is a texture; the others are one page further.
MODELS_PER_PAGE = 12

# The orders of the matrix, by what the address calls them.
SORTS = {
    "verdict": "worst verdict",
    "name": "name",
    "outputs": "SQNR at the outputs",
    "broken": "share of broken weights",
    "weights": "number of weights",
}

NO_LAYER_PASSES = "No layer passes the filter."


def main() -> None:
    """Draw the page."""
    navigation.follow_click()
    with stores.open_store() as con:
        target, scheme = pickers.target(), pickers.scheme()
        st.title("Compare")
        # The answer stands above the pickers it depends on.
        headline = st.empty()
        picked, among = _models(con, target)
        if among == []:
            st.info(facets.NO_MODEL_PASSES)
            return
        ranked = stores.ranking(con, target, among)
        per_channel = []
        if target.per_channel and (ranked["verdict"] == "broken").any():
            per_channel = stores.facts(con, target.per_channel, among)
        facts = stores.facts(con, target, among)
        headline.header(models_headline(facts, per_channel, target), anchor=False)
        address.link("sort", default="verdict", options=list(SORTS))
        shown = _page_of(_sorted(ranked, st.session_state["sort"])["model"].tolist())
        limits = queries.band_limits(con)
        _verdict_section(con, shown, len(ranked), target, limits)
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            is_part = not picked and len(shown) < len(ranked)
            report_button.draw(
                picked or shown,
                target,
                key="report_compare",
                label=f"Download report of these {len(shown)}" if is_part else "Download report",
            )
            if len(ranked) == 2:
                # As they were picked, or as an alphabet has them.
                _revisions_link(*(picked or sorted(shown)))
        profiles = queries.layer_profiles(con, shown, scheme.name)
    st.space("small")
    kept = filters.draw(profiles)
    if kept.empty:
        st.info(NO_LAYER_PASSES)
        return
    compare_charts.draw(kept, scheme, limits)


def _models(con: Connection, target: Target) -> tuple[list[str], list[str] | None]:
    """The models that the person has picked, and those that are meant; None for all of them."""
    pickers.say_missing("model named", queries.model_names(con), "models")
    if queries.store_size(con).models == 1:
        return [], None
    # Facets come first: they decide what there is to pick from.
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        passing = facets.draw(con, target)
        names = queries.model_names(con) if passing is None else passing
        picked: list[str] = []
        if len(names) > 1:
            address.link("models", default=[], options=names)
            picked = st.multiselect(
                "Models",
                names,
                key="models",
                placeholder=f"All {count(len(names))} models",
                label_visibility="collapsed",
                # Enter takes the model that fits best, not every one that fits somehow.
                select_all=False,
            )
    return picked, picked or passing


def _revisions_link(before: str, after: str) -> None:
    navigation.link(
        "revisions",
        notes.escaped(f"{_both_ends(before)} against {_both_ends(after)}, layer by layer"),
        query_params={"before": before, "after": after},
        width="content",
    )


def _both_ends(name: str, length: int = 40) -> str:
    """A name of a model for a link: where it is long, revisions may differ at either end."""
    name = printable(name.strip())
    if len(name) <= length:
        return name
    return f"{name[: length // 2 - 1].rstrip()}…{name[-length // 2 :].lstrip()}"


def _sorted(ranked: pd.DataFrame, order: str) -> pd.DataFrame:
    """The models of a ranking in another order than the worst first."""
    if order == "name":
        return ranked.sort_values("model", key=lambda names: names.str.lower(), kind="stable")
    if order == "outputs":
        return ranked.sort_values("output_sqnr_db", kind="stable", na_position="last")
    if order == "broken":
        return ranked.sort_values("broken_weight_share", ascending=False, kind="stable")
    if order == "weights":
        return ranked.sort_values("weight_count", ascending=False, kind="stable")
    return ranked


def _page_of(ranked: list[str]) -> list[str]:
    """The models of the page that the address names, which is the first one at first."""
    pages = -(-len(ranked) // MODELS_PER_PAGE)
    if pages <= 1:
        return ranked
    address.link("page", default="1", options=[str(number) for number in range(1, pages + 1)])
    number = int(st.session_state["page"])
    return ranked[(number - 1) * MODELS_PER_PAGE : number * MODELS_PER_PAGE]


def _turn_page(key: str) -> None:
    # The widget counts; an address holds words.
    address.choose("page", str(st.session_state[key]))


def _verdict_section(
    con: Connection, shown: list[str], total: int, target: Target, limits: dict[str, float]
) -> None:
    verdicts = stores.verdicts(con, shown)
    matrix.verdict_matrix(
        verdicts,
        shown,
        target,
        corner="model",
        key="matrix",
        sorts=SORTS if total > 1 else None,
    )
    if total > MODELS_PER_PAGE:
        number = int(st.session_state["page"])
        # A widget of its own for each page: one with a default may not be set from outside.
        key = f"compare_page_{number}"
        st.pagination(
            -(-total // MODELS_PER_PAGE),
            default=number,
            key=key,
            on_change=_turn_page,
            args=(key,),
        )
        st.caption(f"Showing {len(shown)} of {count(total)} models, here and in the charts below.")
    colours.legend(limits)
    with st.container(horizontal=True, gap="small"):
        facts = [
            queries.model_facts(row)
            for row in verdicts[verdicts["target"] == target.name].to_dict("records")
        ]
        ways_on.from_matrix(con, facts, target)
    notes.evidence_notes(matrix.in_matrix(verdicts, target))
    notes.explain("probe", "sqnr", "bands", "per_channel", limits=limits)
    with st.expander("All values: output SQNR, weight range, channel spread, channels"):
        rows = verdicts[verdicts["target"] == target.name].set_index("model", drop=False).loc[shown]
        cells = [verdict(queries.model_facts(row)) for row in rows.to_dict("records")]

        def clicked() -> None:
            picked = st.session_state["values"].selection.cells
            if picked:
                address.choose("model", shown[picked[0][0]])
                navigation.open_next("model")

        st.caption("Click a cell to open its model.")
        st.dataframe(
            pd.DataFrame(
                {
                    "model": rows.index,
                    "verdict": [cell.text for cell in cells],
                    "outputs, dB": rows["output_sqnr_db"].to_numpy(),
                    "layers": rows["layer_count"].to_numpy(),
                    "weights": rows["weight_count"].to_numpy(),
                    "largest range": rows["max_weight_range"].to_numpy(),
                    "median range": rows["median_weight_range"].to_numpy(),
                    "spread, bits": rows["channel_spread_p90_bits"].to_numpy(),
                    "broken": rows["layers_broken"].to_numpy(),
                    "at risk": rows["layers_at_risk"].to_numpy(),
                    "channels": rows["channel_count"].to_numpy(),
                    "below 10 dB": rows["channels_below_10db"].to_numpy(),
                    "inputs": rows["sample_count"].to_numpy(),
                    "evidence": [cell.evidence for cell in cells],
                }
                # A format of Streamlit's own would write a hyphen for a minus.
            ).style.format({"outputs, dB": _tenths}, na_rep=""),
            hide_index=True,
            key="values",
            on_select=clicked,
            selection_mode="single-cell",
            column_config={
                "outputs, dB": st.column_config.NumberColumn(
                    help="SQNR at the worst output, which decides the verdict"
                ),
                "below 10 dB": st.column_config.NumberColumn(help="Channels below 10 dB"),
                "weights": st.column_config.NumberColumn(format="localized"),
                "largest range": st.column_config.NumberColumn(format="%.2f"),
                "median range": st.column_config.NumberColumn(format="%.2f"),
                "spread, bits": st.column_config.NumberColumn(
                    format="%.1f", help="Channel spread: 90th percentile over the layers"
                ),
                "channels": st.column_config.NumberColumn(format="localized"),
            },
        )


def _tenths(value: object) -> str:
    return with_minus(f"{value:.1f}")


if __name__ == "__main__":
    main()

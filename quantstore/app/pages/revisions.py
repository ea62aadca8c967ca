"""Revisions: what got better and what got worse between two revisions of a network?"""

from typing import Any

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from quantstore import queries
from quantstore.app.sections import audits
from quantstore.app.widgets import (
    address,
    colours,
    components,
    drawing,
    matrix,
    navigation,
    pickers,
    stores,
)
from quantstore.app.widgets import notes as notes_widgets
from quantstore.charts import revisions as charts
from quantstore.errors import printable
from quantstore.queries import matching
from quantstore.schemes import Scheme
from quantstore.wording import frames, headlines, notes, tables
from quantstore.wording.nodes import operator
from quantstore.wording.units import bits, count, counted, db, shape, weight
from quantstore.wording.verdicts import NINE_IN_TEN

FIRST_ROWS = 10
# Beyond this many rows a scrolling table serves better than a long page.
MOST_ROWS = 200
ORDERS: dict[str, charts.PairOrder] = {"By change": "change", "Along the network": "depth"}

NOTHING_TO_COMPARE = "There is nothing to compare yet"
SAME_MODEL_TWICE = "Both sides show the same model"


def main() -> None:
    """Draw the page."""
    navigation.follow_click()
    with stores.open_store() as con:
        names = queries.model_names(con)
        scheme = pickers.scheme()
        st.title("Revisions")
        # The answer stands above the pickers it depends on.
        headline = st.empty()
        if len(names) < 2:
            headline.header(NOTHING_TO_COMPARE, anchor=False)
            st.write(
                "This page compares two revisions of a network layer by layer, for example before"
                " and after fine-tuning. The store has only one model: add another one in the"
                " sidebar."
            )
            return
        pickers.say_missing("model named", names, "before", "after")
        before, after = _pickers(
            names, stores.ask(con, queries.likely_revisions) or (names[0], names[1])
        )
        if before == after:
            headline.header(SAME_MODEL_TWICE, anchor=False)
            st.caption("Choose a different model on one side.")
            return
        integers = queries.integer_models(con, [before, after])
        if len(integers) == 1:
            (int8_model,) = integers
            float_model = before if after == int8_model else after
            audits.instead_of_a_diff(con, headline, int8_model, float_model)
            return
        changed = queries.revision_changes(con, before, after, scheme.name)
        verdicts = stores.verdicts(con, [before, after])
        _answer(headline, verdicts, matching.headline(changed, before, after), before, after)
        limits = queries.band_limits(con)
    matrix.verdict_matrix(
        verdicts, [before, after], pickers.target(), corner="model", key="revisions_matrix"
    )
    colours.legend(limits)
    notes_widgets.note(
        f"{matching.how_matched(changed)} A change of less than"
        f" {matching.TELLING_CHANGE_DB:g} dB counts as unchanged, because rounding alone may cause"
        " it."
    )
    if verdicts["layers_already_quantized"].gt(0).any():
        notes_widgets.note(notes.ALREADY_QUANTIZED_NOTE)
    pairs = changed[~changed["rule"].isin([matching.ONLY_BEFORE, matching.ONLY_AFTER])]
    tally = matching.tally(changed)
    if tally.changed:
        _chart(pairs, limits, scheme)
        _table(matching.worst_first(pairs[pairs["outcome"] != "unchanged"]))
    _unchanged_and_unmatched(changed, tally, before, after)


def _answer(
    headline: DeltaGenerator, verdicts: pd.DataFrame, layers: str, before: str, after: str
) -> None:
    """What happened to the verdict and at the outputs, and then in the layers."""
    target = pickers.target()
    of_target = verdicts[verdicts["target"] == target.name]
    facts = {row["model"]: queries.model_facts(row) for row in of_target.to_dict("records")}
    answer = headlines.revision_headline(facts[before], facts[after], target)
    with headline.container():
        st.header(notes_widgets.escaped(answer), anchor=False)
        st.markdown(notes_widgets.escaped(f"Layers: {layers[0].lower()}{layers[1:]}."))


def _pickers(names: list[str], likely: tuple[str, str]) -> tuple[str, str]:
    """The two models, both part of the address, and a button that swaps them."""

    def swap() -> None:
        before, after = st.session_state["before"], st.session_state["after"]
        address.choose("before", after)
        address.choose("after", before)

    picked = []
    with st.container(horizontal=True, vertical_alignment="bottom"):
        for key, default in zip(("before", "after"), likely, strict=True):
            # Always written: another model in the store would change what is likely.
            address.link(key, default=default, options=names, is_always_written=True)
            picked.append(st.selectbox(key.capitalize(), names, key=key, format_func=printable))
        st.button("Swap", on_click=swap, key="swap_revisions", help="Exchange before and after")
    return picked[0], picked[1]


def _chart(pairs: pd.DataFrame, limits: dict[str, float], scheme: Scheme) -> None:
    st.space("small")
    st.header("Every layer, before and after", anchor=False)
    order = pickers.choice("Order", list(ORDERS), key="order", label_is_hidden=True)
    st.caption(
        f"Under {scheme.title}. Ring: before. Dot: after. A dot below its ring is a loss. Click a"
        " dot to open the layer."
    )
    drawing.clickable_chart(
        charts.dumbbells(pairs, colours.palette(), limits, order=ORDERS[order]),
        key="dumbbells",
        alt=_finding(pairs),
    )


def _finding(pairs: pd.DataFrame) -> str:
    """What the chart shows, for people who cannot see it."""
    tally = matching.tally(pairs)
    return (
        f"SQNR of {counted(tally.pairs, 'layer')} before and after: {count(tally.better)} better,"
        f" {count(tally.worse)} worse, {count(tally.unchanged)} unchanged"
    )


def _table(changed: pd.DataFrame) -> None:
    st.space("small")
    st.header("What changed, losses first", anchor=False)
    if len(changed) > MOST_ROWS:
        _long_table(changed, key="long_changes")
        return
    show_all = st.session_state.get("show_all_changes", False) or len(changed) <= FIRST_ROWS + 2

    def clicked() -> None:
        target = st.session_state["changes"].clicked
        if target:
            navigation.open_layer(int(target["row"]))

    shown = changed if show_all else changed.head(FIRST_ROWS)
    components.table(
        columns=[
            {"title": "layer", "kind": "name"},
            {"title": "change", "kind": "pair", "number": True},
            {"title": "before", "kind": "chip", "help": NINE_IN_TEN},
            {"title": "after", "kind": "chip", "help": NINE_IN_TEN},
            {"title": "weight range", "kind": "pair", "number": True},
            {"title": "channel spread", "kind": "pair", "number": True, "wide": True},
        ],
        rows=[_row(pair) for pair in shown.to_dict("records")],
        key="changes",
        on_click=clicked,
    )
    if not show_all:
        st.button(
            f"Show all {len(changed)} layers that changed",
            icon=":material/expand_more:",
            type="tertiary",
            key="show_all_revisions",
            on_click=lambda: st.session_state.update(show_all_changes=True),
        )


def _row(pair: dict[Any, Any]) -> dict[str, Any]:
    about = [operator(str(pair["op_type_after"]), bool(pair["is_depthwise_after"]))]
    if list(pair["shape_before"]) == list(pair["shape_after"]):
        about.append(shape(pair["shape_after"]))
    else:
        about.append(f"{shape(pair['shape_before'])} → {shape(pair['shape_after'])}")
    if pair["layer_before"] != pair["layer_after"]:
        about.append(f"was {printable(str(pair['layer_before']))}")
    return {
        "key": str(pair["layer_id_after"]),
        "cells": [
            {"text": printable(str(pair["layer"])), "small": "; ".join(about)},
            {"text": _said_change(pair["change_db"])},
            *(
                {
                    "band": pair[f"band_{side}"],
                    "small": db(frames.figure_or_none(pair[f"channel_sqnr_p10_{side}_db"])),
                }
                for side in ("before", "after")
            ),
            {
                "text": weight(frames.figure_or_none(pair["weight_range_after"])),
                "small": f"was {weight(frames.figure_or_none(pair['weight_range_before']))}",
            },
            {
                "text": bits(frames.figure_or_none(pair["channel_spread_after_bits"])),
                "small": f"was {bits(frames.figure_or_none(pair['channel_spread_before_bits']))}",
            },
        ],
    }


def _said_change(change_db: float) -> str:
    if change_db == float("inf"):
        return "now exact"
    if change_db == float("-inf"):
        return "no longer exact"
    return db(change_db, signed=True)


def _unchanged_and_unmatched(
    changed: pd.DataFrame, tally: matching.ChangeCounts, before: str, after: str
) -> None:
    """What did not change, and what has no partner: there for whoever looks for it."""
    st.space("small")
    sections = (
        (tally.unchanged, "unchanged", f"{counted(tally.unchanged, 'layer')} unchanged"),
        *(
            (number, rule, f"{counted(number, 'layer')} only in {notes_widgets.escaped(model)}")
            for number, rule, model in (
                (tally.only_before, matching.ONLY_BEFORE, before),
                (tally.only_after, matching.ONLY_AFTER, after),
            )
        ),
    )
    for number, outcome, title in sections:
        if number:
            with st.expander(title):
                _long_table(changed[changed["outcome"] == outcome], key=f"rows_{outcome}")
    if tally.changed:
        components.save_as_svg({"dumbbells": "Before and after"}, key="save_revisions")
    st.download_button(
        "All layers as CSV",
        data=lambda: tables.to_csv(changed),
        file_name="revisions.csv",
        mime="text/csv",
        icon=":material/download:",
        type="tertiary",
        key="revisions_csv",
    )


def _long_table(rows: pd.DataFrame, *, key: str) -> None:
    either = rows["layer_id_after"].fillna(rows["layer_id_before"])
    ids = either.astype(int).tolist()
    sides = [side for side in ("before", "after") if rows[f"layer_{side}"].notna().any()]

    def clicked() -> None:
        picked = st.session_state[key].selection.rows
        if picked:
            navigation.open_layer(int(ids[picked[0]]))

    columns: dict[str, Any] = {"layer": rows["layer"].map(printable)}
    if len(sides) == 2:
        columns["change, dB"] = rows["change_db"]
    for side in sides:
        columns[f"{side}, dB"] = rows[f"channel_sqnr_p10_{side}_db"].astype(float)
        columns[f"band {side}"] = rows[f"band_{side}"]
        columns[f"range {side}"] = rows[f"weight_range_{side}"].astype(float)
    st.dataframe(
        pd.DataFrame(columns),
        hide_index=True,
        key=key,
        on_select=clicked,
        selection_mode="single-row",
        column_config={
            name: st.column_config.NumberColumn(format="%+.1f" if "change" in name else "%.1f")
            for name in columns
            if name.endswith("dB")
        },
        height=min(480, 36 * (len(rows) + 1) + 3),
    )


if __name__ == "__main__":
    main()

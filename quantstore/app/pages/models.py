"""Models: which models are in the store, and are they up to date?"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from quantstore import queries, settings
from quantstore.app.sections import facets, model_dialogs, shelf
from quantstore.app.widgets import (
    address,
    components,
    export_button,
    navigation,
    pickers,
    reach,
    report_button,
    stores,
)
from quantstore.errors import printable
from quantstore.pipeline import freshness, kept
from quantstore.pipeline.freshness import Freshness
from quantstore.schemes import Target
from quantstore.store import Connection
from quantstore.wording import frames
from quantstore.wording.headlines import shelf_headline
from quantstore.wording.text import markdown, visible_lines
from quantstore.wording.units import count, counted, file_size, moment, seconds, share, weights
from quantstore.wording.verdicts import UNFOLDED, verdict

MODELS_PER_PAGE = 25
INGESTS = 10
# More names than this make an address that no program passes on whole; a tag has no such limit.
MOST_COMPARED = 50
ORDERS: dict[str, queries.ModelOrder] = {
    "name": "name",
    "newest": "newest",
    "file-size": "file size",
    "layers": "layers",
    "store-share": "store share",
}
# Space that nobody needs, from so much on worth a hint.
WORTH_COMPACTING_BYTES = 10_000_000
WORTH_COMPACTING_SHARE = 0.25

NO_MODEL_FITS = "No model matches. Shorten the search text, or clear a filter."
HOW_TO_ACT = (
    "Click a name to open the model, or Edit to change its name, tags or note. Select several"
    " models to act on them together."
)
# Compare has facets of its own.
FACET_PREFIX = "models_"


def main() -> None:
    """Draw the page."""
    navigation.follow_click()
    target = pickers.target()
    with stores.open_store() as con:
        size = queries.store_size(con)
        origins = stores.ask(con, queries.origins)
        free_bytes = queries.free_bytes(con)
        disk_bytes = settings.store_path().stat().st_size
        ingests = queries.recent_ingests(con, INGESTS)
        fresh = freshness.all_fresh(origins, may_look=reach.is_this_computer_only())
        st.title("Models")
        st.header(
            shelf_headline(
                size.models,
                size.layers,
                disk_bytes,
                changed=sum(state.is_changed for state in fresh.values()),
                perhaps=sum(state.may_have_changed for state in fresh.values()),
                outdated=sum(state.is_outdated for state in fresh.values()),
            ),
            anchor=False,
        )
        text, passing, among = _filters(
            con, target, [name for name, state in fresh.items() if state.needs_care]
        )
        rows, number = _page_of(con, text, among)
        verdicts = stores.ranking(con, target, rows["model"].tolist())
    marked = _marked({origin.model for origin in origins})
    stale = [
        origin
        for origin in origins
        if origin.model in marked and fresh[origin.model].can_be_refreshed
    ]
    _actions(marked, stale, target, disk_bytes, passing)
    if rows.empty:
        st.info(NO_MODEL_FITS)
    else:
        _table(rows, verdicts, fresh, marked)
        _pages(rows, number)
    _ingests(ingests, {origin.model for origin in origins})
    _disk(disk_bytes, free_bytes)
    model_dialogs.draw(target)


def _filters(
    con: Connection, target: Target, care: list[str]
) -> tuple[str, list[str] | None, list[str] | None]:
    """What is searched for, the models that pass the facets, and those that are meant.

    None for all models.
    """
    address.link("models_order", default="name", options=list(ORDERS))
    among = None
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        address.link("models_search", default="")
        text = st.text_input(
            "Find a model by name, note or file",
            placeholder="Find by name, note or file",
            label_visibility="collapsed",
            key="models_search",
            width=300,
        )
        if care:
            shown = pickers.choice(
                "Show", ["All", "Needs attention"], key="models_show", label_is_hidden=True
            )
            among = care if shown == "Needs attention" else None
        passing = facets.draw(con, target, prefix=FACET_PREFIX)
    if passing is not None:
        among = [name for name in passing if among is None or name in among]
    return text, passing, among


def _page_of(con: Connection, text: str, among: list[str] | None) -> tuple[pd.DataFrame, int]:
    """The rows of the page that is open, and its number from 1."""
    order = ORDERS[st.session_state["models_order"]]
    number = int(st.session_state.get("models_page") or 1)
    for page in dict.fromkeys((number, 1)):
        rows = queries.shelf(
            con,
            text=text,
            among=among,
            order=order,
            limit=MODELS_PER_PAGE,
            offset=(page - 1) * MODELS_PER_PAGE,
        )
        if not rows.empty:
            break
    return rows, page


def _marked(models: set[str]) -> list[str]:
    """The models that are marked, on whatever page, as far as they still exist."""
    marked = [name for name in st.session_state.get("models_marked", []) if name in models]
    st.session_state["models_marked"] = marked
    return marked


def _actions(
    marked: list[str],
    stale: list[queries.Origin],
    target: Target,
    disk_bytes: int,
    passing: list[str] | None,
) -> None:
    """What can be done with the marked models, or with those that pass the facets.

    Args:
        stale: the marked ones that another measurement would change.
        passing: None where no facet is chosen.
    """
    # The key lets the stylesheet keep them in sight while the table scrolls.
    with st.container(
        horizontal=True, vertical_alignment="center", gap="small", key="models_actions"
    ):
        if not marked:
            st.caption(HOW_TO_ACT, width="content" if passing else "stretch")
            if passing and len(passing) > 1:
                chosen = facets.chosen_values(FACET_PREFIX)
                _compare_link("Compare these models", _compared(chosen))
            return
        st.markdown(f"**{count(len(marked))} selected**", width="content")
        if 1 < len(marked) <= MOST_COMPARED:
            _compare_link("Compare", _compared({}, marked))
        st.button(
            "Add a tag", icon=":material/label:", key="tag_marked", on_click=model_dialogs.ask_tag
        )
        if stale:
            st.button(
                "Measure again",
                icon=":material/refresh:",
                key="measure_marked",
                on_click=model_dialogs.measure_again,
                args=(stale,),
            )
        report_button.draw(marked, target, key="report_marked")
        export_button.draw(marked, key="export_marked", store_bytes=disk_bytes)
        st.button(
            "Remove",
            icon=":material/delete:",
            key="remove_marked",
            on_click=model_dialogs.ask_remove,
            args=(marked,),
        )
        st.button("Clear", type="tertiary", key="clear_marked", on_click=_clear_marked)


def _compared(
    chosen: Mapping[queries.Facet, list[str]], models: Sequence[str] = ()
) -> dict[str, str | list[str]]:
    """The address of Compare that shows these; what it showed last must hide none of them."""
    where: dict[str, str | list[str]] = {facet: chosen.get(facet) or "" for facet in queries.FACETS}
    return {**where, "models": list(models) or ""}


def _compare_link(label: str, where: Mapping[str, str | list[str]]) -> None:
    navigation.link("compare", label, icon="compare_arrows", query_params=where, width="content")


def _clear_marked() -> None:
    st.session_state["models_marked"] = []


def _table(
    rows: pd.DataFrame,
    ranking: pd.DataFrame,
    fresh: Mapping[str, Freshness],
    marked: list[str],
) -> None:
    chosen_tags = facets.chosen_values(FACET_PREFIX)["tag"]
    judged = {row["model"]: row for row in ranking.to_dict("records")}

    def clicked() -> None:
        target = st.session_state["shelf"].clicked or {}
        if "open" in target:
            address.choose("model", str(target["open"]))
            navigation.open_next("model")
        if "edit" in target:
            model_dialogs.ask_edit(str(target["edit"]))
        if "mark" in target:
            st.session_state["models_marked"] = [str(name) for name in target["mark"]]
        if "sort" in target:
            address.choose("models_order", str(target["sort"]).replace(" ", "-"))
        if "tag" in target:
            address.choose(f"{FACET_PREFIX}tag", [str(target["tag"])] if target["tag"] else [])

    kept_bytes = kept.sizes(settings.store_path())
    shelf.draw(
        columns=[
            {"title": "model", "sort": "name"},
            {"title": "verdict", "sort": None},
            {"title": "layers, weights", "sort": "layers", "number": True},
            {"title": "file", "sort": "file size", "number": True, "wide": True},
            {"title": "share of store", "sort": "store share", "number": True, "wide": True},
            {"title": "measured (UTC)", "sort": "newest", "wide": True},
        ],
        rows=[
            _row(row, judged[row["model"]], fresh[row["model"]], kept_bytes.get(row["sha256"]))
            for row in rows.to_dict("records")
        ],
        marked=marked,
        order=ORDERS[st.session_state["models_order"]],
        tags=chosen_tags,
        key="shelf",
        on_click=clicked,
    )


def _row(
    row: dict[Any, Any], judged: dict[Any, Any], fresh: Freshness, kept_bytes: int | None
) -> dict[str, Any]:
    cell = verdict(queries.model_facts(judged))
    # Of a file that is as it was there is nothing to say.
    about_file = [] if fresh.is_in_order else [stores.file_words(fresh)]
    if kept_bytes is not None:
        about_file.append(f"copy kept, {file_size(kept_bytes)}")
    return {
        "name": row["model"],
        "title": printable(row["model"]),
        "caveat": "" if row["folded"] else UNFOLDED,
        "note": visible_lines(row["note"]),
        "tags": [{"name": tag, "title": printable(tag)} for tag in row["tags"]],
        "verdict": {
            "band": cell.band,
            "text": cell.text,
            "small": cell.evidence,
        },
        "layers": count(row["layer_count"]),
        "weights": weights(row["weight_count"]),
        "bytes": file_size(row["file_bytes"]),
        "share": share(row["store_share"], digits=1),
        "when": moment(row["ingested_at"]),
        "file": {"text": "; ".join(about_file), "care": fresh.needs_care},
    }


def _pages(rows: pd.DataFrame, number: int) -> None:
    model_count = int(rows["found_count"].iloc[0])
    if model_count <= MODELS_PER_PAGE:
        return
    st.pagination(-(-model_count // MODELS_PER_PAGE), key="models_page")
    first = (number - 1) * MODELS_PER_PAGE
    st.caption(
        f"{count(first + 1)} to {count(first + len(rows))} of {counted(model_count, 'model')}"
    )


def _ingests(ingests: pd.DataFrame, models: Collection[str]) -> None:
    """The latest files that came in, or did not."""
    if ingests.empty:
        return
    st.space("small")
    st.header("Recent imports", anchor=False)
    failed = int((ingests["outcome"] == "failed").sum())
    st.caption(
        f"The latest {counted(len(ingests), 'file')}"
        + (f", {count(failed)} of which failed" if failed else "")
        + ". The table *ingests* lists every attempt."
    )

    def clicked() -> None:
        click = st.session_state["ingests"].clicked
        if click:
            address.choose("model", str(click["row"]))
            navigation.open_next("model")

    components.table(
        columns=[
            {"title": "file", "kind": "name"},
            {"title": "result", "kind": "pair"},
            {"title": "when (UTC)", "kind": "pair", "wide": True},
            {"title": "duration", "kind": "pair", "number": True},
            {"title": "peak memory", "kind": "pair", "number": True, "wide": True},
        ],
        rows=[
            {
                # A file that brought no model, or one that is gone, opens nothing.
                "key": row["model"] if row["model"] in models else None,
                "chosen": False,
                "cells": _ingest(row),
            }
            for row in ingests.to_dict("records")
        ],
        key="ingests",
        on_click=clicked,
    )


def _ingest(row: dict[Any, Any]) -> list[dict[str, str]]:
    memory = frames.figure_or_none(row["peak_bytes"])
    # A name wraps below the path; beside it, a long one would push the table off the page.
    detail = row["message"] if pd.isna(row["model"]) else f"as {row['model']}"
    return [
        {"text": printable(row["path"]), "small": printable(detail)},
        {"text": str(row["outcome"])},
        {"text": moment(row["finished_at"])},
        {"text": seconds(row["seconds"])},
        {"text": "–" if memory is None else file_size(int(memory))},
    ]


def _disk(disk_bytes: int, free_bytes: int) -> None:
    st.space("small")
    st.header("The store", anchor=False)
    sentence = (
        f"One DuckDB file of {file_size(disk_bytes)}: {printable(str(settings.store_path()))}"
    )
    if free_bytes > max(WORTH_COMPACTING_BYTES, WORTH_COMPACTING_SHARE * disk_bytes):
        sentence += (
            f". {file_size(free_bytes)} of this is free space that new models will use. To return"
            " it to the disk, run:"
        )
        st.markdown(markdown(sentence))
        st.code(settings.command("compact"), language=None, width="content", wrap_lines=True)
    else:
        st.markdown(markdown(sentence))
    export_button.draw(
        None,
        key="export_all",
        store_bytes=disk_bytes,
        label="Export everything as Parquet",
    )


if __name__ == "__main__":
    main()

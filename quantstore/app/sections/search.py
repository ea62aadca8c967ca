"""One box at the top of every page that finds models, layers and tags, and opens them.

It asks the store by itself, whatever the page does; only what is opened draws a page anew.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from quantstore import queries, settings, store
from quantstore.app.sections import facets
from quantstore.app.widgets import address, components, navigation
from quantstore.errors import QuantstoreError, printable
from quantstore.wording.units import count, counted

LABEL = "Search models, layers and tags"

_KEY = "search"
_ASSETS = Path(__file__).resolve().parent.parent / "assets"
_box = components.register(
    "quantstore_search",
    css=(_ASSETS / "search.css").read_text(encoding="utf-8"),
    js=(_ASSETS / "search.js").read_text(encoding="utf-8"),
)


@st.fragment
def draw() -> None:
    """The box, with what fits what is typed there; a slash on the keyboard leads to it."""
    page = st.session_state.pop("_search_opens", None)
    if page is not None:
        navigation.go_to(page)
    text = str((st.session_state.get(_KEY) or {}).get("query") or "")
    # By its key the stylesheet puts it into the bar above the title.
    _box(
        key=_KEY,
        data={"label": LABEL, "query": text, **_results(text)},
        on_query_change=_nothing,
        on_opened_change=_open,
    )


def _results(text: str) -> dict[str, Any]:
    """``groups`` of hits, the best first, and a ``hint`` where there is more to say."""
    if not text:
        return {"groups": [], "hint": ""}
    try:
        with store.reading(settings.store_path(), settings.patience_seconds()) as con:
            return shown(queries.search(con, text), text)
    except QuantstoreError as error:
        return {"groups": [], "hint": error.sentence}


def shown(results: queries.SearchResults, text: str) -> dict[str, Any]:
    """What the browser gets of what was found: names as they are, it sets them as text."""
    groups: list[tuple[str, queries.Hits, list[dict[str, Any]]]] = [
        (
            "Models",
            results.models,
            [_hit(hit.name, "", model=hit.name) for hit in results.models.best],
        ),
        (
            "Layers",
            results.layers,
            [
                _hit(hit.name, printable(hit.model), layer=str(hit.layer_id))
                for hit in results.layers.best
            ],
        ),
        (
            "Tags",
            results.tags,
            [
                _hit(hit.name, counted(hit.models, "model"), tag=hit.name)
                for hit in results.tags.best
            ],
        ),
    ]
    # The best group first; of equals, models.
    groups.sort(key=lambda group: group[1].rank)
    return {
        "groups": [
            {"title": _title(title, hits), "hits": shown_hits}
            for title, hits, shown_hits in groups
            if shown_hits
        ],
        "hint": ""
        if any(hits.best for _, hits, _ in groups)
        else f"No model, layer or tag contains “{printable(text)}”.",
    }


def _title(title: str, hits: queries.Hits) -> str:
    if hits.total == len(hits.best):
        return title
    return f"{title}, {count(len(hits.best))} of {count(hits.total)}"


def _hit(name: str, small: str, **target: str) -> dict[str, Any]:
    return {"title": printable(name), "small": small, "target": target}


def _open() -> None:
    """From a callback: what was chosen is what the page to open is about."""
    target: Mapping[str, Any] = st.session_state[_KEY].opened or {}
    if "model" in target:
        address.choose("model", str(target["model"]))
        st.session_state["_search_opens"] = "model"
    elif "layer" in target:
        if navigation.choose_layer(int(target["layer"])):
            st.session_state["_search_opens"] = "layer"
    elif "tag" in target:
        facets.clear()
        address.choose("models", [])
        address.choose("tag", [str(target["tag"])])
        st.session_state["_search_opens"] = "compare"


def _nothing() -> None:
    """A component reports only what has a callback."""

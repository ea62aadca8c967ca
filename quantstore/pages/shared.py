"""What several pages use: the theme, the chosen scheme and model, the store, the empty page."""

import html
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from quantstore import queries, settings, store
from quantstore.charts.common import CLICK, AnyChart, ready
from quantstore.charts.palette import BANDS, DARK, LIGHT, PALETTES, Palette, ThemeName, both
from quantstore.errors import MissingStoreError, OlderStoreError, QuantstoreError, printable
from quantstore.jobs import FILES
from quantstore.pages import address, components
from quantstore.pipeline.files import demo_paths
from quantstore.pipeline.freshness import Freshness
from quantstore.schemes import DEFAULT_SCHEME, INT8_SCHEMES, Scheme
from quantstore.wording.explanations import EXPLANATIONS
from quantstore.wording.notes import ALREADY_QUANTIZED_NOTE, BAND_NOTE, PROBE_NOTE, WEIGHTS_NOTE
from quantstore.wording.text import markdown
from quantstore.wording.units import counted, db, file_size, weights
from quantstore.wording.verdicts import MODES, UNFOLDED, ModelFacts, verdict

PAGES = Path(__file__).resolve().parent
ANY_TAG = ""


def theme() -> ThemeName:
    """The theme to draw in: what the browser last reported, at first what Streamlit believes."""
    reported_theme = st.session_state.get("theme_name")
    if reported_theme is None:
        reported_theme = "dark" if st.context.theme.type == "dark" else "light"
        st.session_state["theme_name"] = reported_theme
    return "dark" if reported_theme == "dark" else "light"


def watch_theme() -> None:
    """Redraw when the person switches the theme: charts cannot follow it by themselves."""
    browser_theme = components.watch_theme(theme())
    if browser_theme is not None and browser_theme != theme():
        st.session_state["theme_name"] = browser_theme
        st.rerun()


def palette() -> Palette:
    """The colours of the theme on screen."""
    return PALETTES[theme()]


@contextmanager
def open_store() -> Iterator[store.Connection]:
    """The store for the length of the block.

    Raises:
        MissingStoreError: also where the store is empty; the frame then shows how to begin.
    """
    patience = 0.0 if st.session_state.get("store_is_locked") else settings.patience_seconds()
    with store.reading(settings.store_path(), patience) as con:
        if queries.store_size(con).models == 0:
            raise MissingStoreError("the store is empty")
        yield con


def scheme() -> Scheme:
    """The scheme that the sidebar (or a click in the matrix) chose; it is part of the address.

    Known once the sidebar is drawn: before, an address has not reached its widget.
    """
    return INT8_SCHEMES.get(str(st.session_state.get("scheme")), DEFAULT_SCHEME)


def pick_scheme() -> None:
    """The picker of the scheme, on every page that judges."""
    address.link("scheme", default=DEFAULT_SCHEME.name, options=list(INT8_SCHEMES))
    st.selectbox(
        "Scheme",
        list(INT8_SCHEMES),
        key="scheme",
        format_func=lambda name: INT8_SCHEMES[name].title,
        help="How the weights are rounded: who shares one scale, and whether zero sits in the"
        " middle of the codes. Every page judges by it. Activations, where they are quantized"
        " too, share one scale per tensor.",
    )


def pick_model(ranked: list[str], *, is_always_written: bool = False) -> str:
    """The picker of the model, part of the address; the worst one at first.

    Args:
        is_always_written: whether the address names the worst one too.
    """
    say_missing("model named", ranked, "model")
    address.link("model", default=ranked[0], options=ranked, is_always_written=is_always_written)
    return st.selectbox(
        "Model", ranked, key="model", format_func=printable, label_visibility="collapsed"
    )


def say_missing(noun: str, existing: Collection[str], *keys: str) -> None:
    """A notice where the address asks for what is not, or no longer, in the store.

    Before the keys are linked: what the page shows instead must not pass for what was asked for.

    Args:
        noun: in the singular, with what leads to its name: ``model named``.
        existing: all that the store holds of the kind, not only what the page offers.
    """
    asked = dict.fromkeys(name for key in keys for name in st.query_params.get_all(key))
    missing = [escaped(name) for name in asked if name and name not in existing]
    if missing:
        named = " or ".join(", ".join(part) for part in (missing[:-1], missing[-1:]) if part)
        st.warning(f"The store holds no {noun} {named}.")


def choice(
    label: str,
    options: list[str],
    *,
    key: str,
    first: str | None = None,
    label_is_hidden: bool = False,
) -> str:
    """One of a few options, part of the address; the first one unless told otherwise."""
    default = first or options[0]
    address.link(key, default=default, options=options)
    chosen_option = st.segmented_control(
        label,
        options,
        key=key,
        required=True,
        label_visibility="collapsed" if label_is_hidden else "visible",
    )
    return chosen_option if chosen_option in options else default


def spark(counts: Sequence[int], limits: dict[str, float]) -> dict[str, Any]:
    """A small histogram of a layer's channels by SQNR, each bin in the colour of its band."""
    numbers = [int(number) for number in counts]
    width = queries.SPARK_DB_PER_BIN
    bands = [
        next((band for band, low in limits.items() if position * width >= low), BANDS[0])
        for position in range(len(numbers))
    ]
    below = sum(number for number, band in zip(numbers, bands, strict=True) if band == "broken")
    label = f"{below} of {sum(numbers)} channels below {limits.get('at risk', 10):g} dB"
    return {"counts": numbers, "bands": bands, "label": label}


def go_to(page: str) -> None:
    """Open another page; what the address carries (model, layer, scheme) comes along."""
    st.switch_page(PAGES / f"{page}.py", query_params=address.travel())


def follow_click() -> None:
    """Open what was clicked in a chart or a matrix. First thing on every page with one.

    A callback may set what widgets show, but only the script itself may change the page.
    """
    page = st.session_state.pop("go_to", None)
    if page is not None:
        go_to(page)


def open_layer(layer_id: int) -> None:
    """From a callback: show this layer, on the Layer page."""
    with open_store() as con:
        model_and_layer = queries.layer_address(con, layer_id)
    if model_and_layer is not None:
        address.choose("model", model_and_layer[0])
        address.choose("layer", model_and_layer[1])
        st.session_state["go_to"] = "layer"


def tag_picker(tags: Mapping[str, int], *, key: str) -> str | None:
    """A choice among the tags in use, part of the address; None for any, or where there is none.

    Args:
        tags: how many models have each.
    """
    if not tags:
        return None
    options = [ANY_TAG, *tags]
    address.link(key, default=ANY_TAG, options=options)
    tag = st.selectbox(
        "Tag",
        options,
        key=key,
        format_func=lambda option: f"{printable(option)} ({tags[option]})" if option else "Any tag",
        label_visibility="collapsed",
        width=220,
    )
    return tag or None


def clickable_chart(chart: AnyChart, *, key: str, alt: str) -> None:
    """A chart whose marks open their layer.

    Args:
        alt: what the chart shows, for people who cannot see it.
    """

    def clicked() -> None:
        picked = st.session_state[key].selection.get(CLICK, [])
        if picked:
            open_layer(int(picked[0]["layer_id"]))

    st.altair_chart(ready(chart), key=key, on_select=clicked, alt=alt)


def chart(
    drawing: AnyChart, *, key: str, alt: str, on_select: Callable[[], None] | None = None
) -> None:
    """A chart to look at.

    Args:
        alt: what the chart shows, for people who cannot see it.
        on_select: called when the person has selected something in it.
    """
    st.altair_chart(ready(drawing), key=key, on_select=on_select or "ignore", alt=alt)


def verdict_matrix(
    verdicts: pd.DataFrame,
    models: list[str],
    scheme: Scheme,
    *,
    corner: str,
    key: str,
    sorts: dict[str, str] | None = None,
) -> None:
    """Models by schemes; a head chooses the scheme, a cell opens the model under it.

    Args:
        verdicts: as ``queries.verdicts`` gives them.
        models: the rows, in order.
        sorts: orders to choose from, by the value that the address has for ``sort``.
    """
    by_cell = {(row["model"], row["scheme"]): row for row in verdicts.to_dict("records")}
    is_single = corner != "model"
    rows = []
    for model in models:
        first = by_cell[(model, scheme.name)]
        facts = [
            counted(int(first["layer_count"]), "layer").replace("\u00a0", " "),
            f"{weights(int(first['weight_count']))} weights",
        ]
        if first["layers_already_quantized"]:
            facts.append("stored as integers")
        cells = []
        for name in INT8_SCHEMES:
            cell = by_cell[(model, name)]
            model_facts = queries.finding(cell)
            verdict_cell = verdict(model_facts)
            counts = [(band, int(cell[f"layers_{band.replace(' ', '_')}"])) for band in BANDS]
            cells.append(
                {
                    "band": verdict_cell.band,
                    "text": verdict_cell.text,
                    "more": verdict_cell.addition,
                    "where": verdict_cell.where,
                    "evidence": verdict_cell.evidence,
                    "tip": _tip(model_facts),
                    "counts": counts,
                }
            )
        rows.append(
            {
                "model": None if is_single else model,
                "name": model,
                "title": facts[0] if is_single else printable(model),
                "facts": [*facts[1:], file_size(int(first["file_bytes"]))] if is_single else facts,
                # The page of the model says so itself.
                "caveat": "" if is_single or first["folded"] else UNFOLDED,
                "cells": cells,
            }
        )

    def clicked() -> None:
        target = st.session_state[key].clicked
        if not target:
            return
        if sorts and target.get("sort") in sorts:
            address.choose("sort", target["sort"])
        if target.get("scheme") in INT8_SCHEMES:
            address.choose("scheme", target["scheme"])
        if target.get("model") and not is_single:
            address.choose("model", target["model"])
            st.session_state["go_to"] = "model"

    components.verdict_matrix(
        corner=corner,
        schemes=[
            {
                "name": int8_scheme.name,
                "title": int8_scheme.title,
                "lines": [f"per {int8_scheme.granularity}", int8_scheme.symmetry],
            }
            for int8_scheme in INT8_SCHEMES.values()
        ],
        rows=rows,
        chosen=scheme.name,
        key=key,
        on_click=clicked,
        sort=sorts and {"options": list(sorts.items()), "chosen": st.session_state["sort"]},
    )


def _tip(facts: ModelFacts) -> str:
    """What a cell rests on, in a sentence; a matrix sets it as text."""
    if facts.is_on_its_own_grid:
        return "The file holds integers of this very grid: rounding them again loses nothing."
    if not facts.is_probed:
        failed = (
            f" The probe failed: {printable(facts.probe_failure)}" if facts.probe_failure else ""
        )
        return f"Judged by its weights alone; it was not run.{failed}"
    tip = (
        f"Noise probe, {MODES[facts.mode or 'weights']}: {db(facts.output_sqnr_db)} at the outputs."
    )
    if facts.is_already_quantized:
        tip += " Stored as integers: the first loss is unknown."
    return tip


def evidence_notes(verdicts: pd.DataFrame) -> None:
    """Below a matrix: what its words rest on, as far as they occur in it."""
    evidence_shown = set(verdicts[verdicts["scheme"].isin(INT8_SCHEMES)]["evidence"])
    note(
        " ".join(
            text
            for evidence, text in (
                ("probe", PROBE_NOTE),
                ("", BAND_NOTE),
                ("weights", WEIGHTS_NOTE),
            )
            if not evidence or evidence in evidence_shown
        )
    )
    if verdicts["layers_already_quantized"].gt(0).any():
        note(ALREADY_QUANTIZED_NOTE)


def legend(limits: dict[str, float], counts: dict[str, int] | None = None) -> None:
    """The bands with their limits, or with how many layers each holds."""
    items = []
    muted = both(LIGHT.muted, DARK.muted)
    for position, band in enumerate(BANDS):
        fill = both(LIGHT.bands[band].fill, DARK.bands[band].fill)
        if counts is not None:
            number = counts.get(band, 0)
            label = f"{number:,} layer{'' if number == 1 else 's'}"
        elif position == 0:
            label = f"below {limits[BANDS[1]]:g} dB"
        elif position == len(BANDS) - 1:
            label = f"{limits[band]:g} dB and more"
        else:
            label = f"{limits[band]:g} to {limits[BANDS[position + 1]]:g} dB"
        items.append(
            '<span style="white-space:nowrap;margin-right:16px">'
            f'<span style="display:inline-block;width:11px;height:11px;border-radius:2px;'
            f'background:{fill};margin-right:6px;vertical-align:-1px"></span>'
            f"<b style='font-weight:600'>{html.escape(band)}</b> "
            f'<span style="color:{muted}">{html.escape(label)}</span></span>'
        )
    st.html(f'<div style="font-size:12px;line-height:1.8">{"".join(items)}</div>')


def note(text: str) -> None:
    """One muted line of prose, as HTML; escape what comes from a file."""
    st.html(f'<div style="font-size:12px;color:{both(LIGHT.muted, DARK.muted)}">{text}</div>')


def explain(*names: str, limits: Mapping[str, float]) -> None:
    """A line of buttons, one per word, each of which opens what the word means.

    Args:
        names: keys of ``EXPLANATIONS``.
        limits: the lower limit of each band in dB.
    """
    with st.container(
        horizontal=True, gap="small", vertical_alignment="center", key=_row_key(names)
    ):
        st.caption("What is", width="content")
        for name in names:
            with st.popover(EXPLANATIONS[name].title, type="tertiary", key=f"explain_{name}"):
                st.markdown(EXPLANATIONS[name].under(limits))
                st.page_link(
                    PAGES / "example.py",
                    label="See it happen to a few numbers",
                    icon=":material/straighten:",
                )


def _row_key(names: Sequence[str]) -> str:
    return f"explanations_{'_'.join(names)}"


def file_name(*pieces: str) -> str:
    """A name for a download out of names from files: nothing in it but letters, digits and dots."""
    return "-".join(re.sub(r"[^\w.]+", "-", piece).strip("-.")[-60:] for piece in pieces)


def add_examples() -> None:
    """Queue the example models that ship with the package."""
    for path in demo_paths():
        FILES.add(path, settings.store_path(), name=path.name, source=f"example {path.name}")


def offer_update(older: OlderStoreError) -> None:
    """What a page shows where the store was written by an earlier release."""
    st.title("This store needs an update")
    st.markdown(
        f"{markdown(str(older))}. Updating keeps what is in it, and a copy of the file as it is"
        " now beside it. It takes a moment."
    )
    if not st.button("Update the store", type="primary", icon=":material/upgrade:"):
        return
    try:
        with st.spinner("Updating the store"):
            store.update(settings.store_path(), settings.patience_seconds())
    except QuantstoreError as error:
        st.error(markdown(error.sentence))
    else:
        st.rerun()


def empty_page(title: str) -> None:
    """What a page shows before there is a model."""
    if title != "Compare":
        st.title(title)
        st.write("There is no model in the store yet.")
        st.button(
            "Add the example models",
            type="primary",
            icon=":material/add:",
            on_click=add_examples,
            key="add_examples",
        )
        return
    st.title("Will your model survive int8?")
    st.markdown(
        "Add an ONNX file. quantstore measures every layer's weights under int8, int4 and fp8"
        " schemes and shows which layers break, why, and what would rescue them. Nothing leaves"
        " this computer."
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Add the example models",
            type="primary",
            icon=":material/add:",
            on_click=add_examples,
            key="add_examples",
        )
        st.caption("four small digit classifiers that ship with quantstore; one of them breaks")
    st.markdown("or upload a file or give its path in the sidebar, or run")
    st.code(
        settings.command("ingest path/to/models"), language=None, width="content", wrap_lines=True
    )
    st.space("small")
    st.header("What you will see", anchor=False)
    with st.grid(3, min_column_width=140, gap="medium"):
        for name, heading, promise in _PROMISES:
            with st.container(gap="xsmall"):
                st.image(str(PAGES.parent / "static" / f"empty-{name}-{theme()}.svg"))
                st.subheader(heading, anchor=False)
                st.caption(promise)
    st.page_link(
        PAGES / "example.py",
        label="New to quantization? Start with the worked example",
        icon=":material/straighten:",
    )


_PROMISES = (
    ("matrix", "Which model survives", "A verdict per model and scheme, in words."),
    (
        "network",
        "Which layers break",
        "The network from input to output; long bars are in trouble.",
    ),
    ("channels", "Why they break", "Every channel of a layer against the int8 grid it must share."),
)


def file_words(state: Freshness) -> str:
    """What became of the file that a model was read from."""
    if state.is_outdated and not (state.is_changed or state.may_have_changed):
        return "measured by an older release"
    return {
        "same": "the file is unchanged",
        "changed": "the file changed since",
        "perhaps changed": "the file may have changed since",
        "unreadable": "the file is no model any more",
        "gone": "the file is not there now",
        "no file": "no file to compare",
        "out of reach": "files are looked into only where nobody else reaches the app",
    }[state.file_state]


def escaped(text: str) -> str:
    """A name for Markdown that shows it as itself."""
    return markdown(text)

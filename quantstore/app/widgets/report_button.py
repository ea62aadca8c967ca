"""The button that makes a report of the models at hand: one file, to be sent and read offline."""

from collections.abc import Sequence

import streamlit as st

from quantstore import report, settings, store
from quantstore.errors import printable
from quantstore.schemes import Target
from quantstore.wording.units import count

NOTE_LABEL = "Note to the reader"
MOST_NOTE = 1000
# A model adds about 150 kB and half a second; more than this is read by nobody.
MOST_MODELS = 25


def draw(
    models: Sequence[str], target: Target, *, key: str, label: str = "Download report"
) -> None:
    """The button with a field for a note beside it, or in words why there is none.

    Args:
        models: what the report is about; nothing is drawn where there is none.
    """
    if not models:
        return
    if len(models) > MOST_MODELS:
        st.caption(
            f"A report can hold at most {MOST_MODELS} models. You chose {count(len(models))}:"
            " choose"
            " fewer to download a report."
        )
        return
    path, names = settings.store_path(), list(models)
    # Whoever types and clicks the button at once sends both: the field fills what the page reads.
    written: dict[str, str] = st.session_state.setdefault(f"{key}_written", {"note": ""})

    def keep_note() -> None:
        # A field of one line may be filled with control characters, which no note holds.
        written["note"] = printable(st.session_state[f"{key}_note"])

    def page() -> bytes:
        # Only on the click, and outside the script: the store may have changed meanwhile.
        with store.reading(path) as con:
            return report.html(con, names, target, note=written["note"]).encode("utf-8")

    with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
        st.download_button(
            label,
            page,
            file_name=report.file_name(names),
            mime="text/html",
            key=key,
            icon=":material/download:",
            on_click="ignore",
            help="One HTML file with verdicts, charts, layers, runs and rescues. It opens without a"
            " network.",
        )
        st.text_input(
            NOTE_LABEL,
            placeholder=f"{NOTE_LABEL} (optional)",
            label_visibility="collapsed",
            key=f"{key}_note",
            max_chars=MOST_NOTE,
            on_change=keep_note,
            width=260,
        )

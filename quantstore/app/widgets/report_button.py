"""The button that makes a report of the models at hand: one file, to be sent and read offline."""

from collections.abc import Sequence

import streamlit as st

from quantstore import report, settings, store
from quantstore.schemes import Target
from quantstore.wording.units import count

# A model adds about 150 kB and half a second; more than this is read by nobody.
MOST_MODELS = 25


def draw(
    models: Sequence[str], target: Target, *, key: str, label: str = "Download report"
) -> None:
    """The button, or in words why there is none.

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

    def page() -> bytes:
        # Only on the click, and outside the script: the store may have changed meanwhile.
        with store.reading(path) as con:
            return report.html(con, names, target).encode("utf-8")

    st.download_button(
        label,
        page,
        file_name=report.file_name(names),
        mime="text/html",
        key=key,
        icon=":material/download:",
        on_click="ignore",
        help="One HTML file with verdicts, charts and the worst layers. It opens without a"
        " network.",
    )

"""What the browser needs besides the pages: honest Back and Forward, files from anywhere, a mark.

Streamlit writes an entry into the browser's history whenever the address changes: two where a click
opens another page (first the new query, then the new path), and one more where the page then spells
out what it shows. Back would lead to places where nobody has been. Here only a change that follows
something the person did is an entry; any other change corrects the entry that is there.

Files that are dropped anywhere go to the box of the sidebar. The title of the tab gets a mark when
a job ends while nobody looks.
"""

from pathlib import Path

import streamlit as st

from quantstore.app.queue import FILES, RUNS

_ASSETS = Path(__file__).resolve().parents[1] / "assets"
_frame = st.components.v2.component(
    "quantstore_frame",
    html="<i>\n</i>",
    js=(_ASSETS / "frame.js").read_text(encoding="utf-8"),
)


def draw() -> None:
    """Once a run, anywhere; it shows nothing."""
    _frame(key="frame", data={"done": FILES.ended_count + RUNS.ended_count}, height=1)

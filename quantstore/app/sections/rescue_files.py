"""The files that a rescue wrote: each to download, with the line that uses it."""

from pathlib import Path

import pandas as pd
import streamlit as st

from quantstore.app.widgets import reach
from quantstore.errors import printable
from quantstore.pipeline.rescues import WrittenState, name_in_files, state_of_file, use_of
from quantstore.wording.rescue_tables import NO_FILES
from quantstore.wording.text import markdown
from quantstore.wording.units import file_size

HEADING = "Files"
FROM_ELSEWHERE = (
    "This app is open to other computers, so it does not offer files of this one. The files are in:"
)
EMPTY = "This file is empty because it has nothing to list."
MISSING: dict[WrittenState, str] = {
    "gone": "The file is no longer there. Run the rescue again to write it.",
    "changed": "The file has changed since. Run the rescue again to write it.",
}


def section(files: pd.DataFrame, model: str) -> None:
    """Draw the section.

    Args:
        files: as ``queries.rescue_files`` gives them.
    """
    st.space("small")
    st.header(HEADING, anchor=False)
    if files.empty:
        st.caption(NO_FILES)
        return
    rows = files.to_dict("records")
    folder = str(Path(str(rows[0]["path"])).parent)
    if not reach.is_this_computer_only():
        st.caption(FROM_ELSEWHERE)
        st.code(printable(folder), language=None, width="content", wrap_lines=True)
        return
    st.caption(f"In {markdown(folder)}")
    name = name_in_files(rows, model)
    for number, row in enumerate(rows):
        path = Path(str(row["path"]))
        state = state_of_file(str(path), str(row["sha256"]), int(row["bytes"]))
        use = use_of(str(row["kind"]), name)
        with st.container(gap=None):
            if state == "there" and not row["bytes"]:
                st.markdown(f"**{markdown(path.name)}**")
                st.caption(f"{markdown(use)}. {EMPTY}")
            elif state == "there":
                st.download_button(
                    f"{markdown(path.name)} ({file_size(int(row['bytes']))})",
                    data=path.read_bytes,
                    file_name=path.name,
                    icon=":material/download:",
                    type="primary" if row["kind"] == "rescued" else "secondary",
                    on_click="ignore",
                    key=f"rescue_file_{number}",
                )
                st.caption(f"{markdown(use)}.")
            else:
                st.markdown(f"**{markdown(path.name)}**")
                st.caption(MISSING[state])

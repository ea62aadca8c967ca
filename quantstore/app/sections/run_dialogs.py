"""What is done to runs on the Drift page: delete those on show."""

from collections.abc import Mapping

import streamlit as st

from quantstore.app.widgets import address, dialogs, undo
from quantstore.wording.text import markdown
from quantstore.wording.units import counted

_KEY = "runs_dialog"

DELETE = "Delete"
WHAT_GOES = (
    "This deletes the values of every tensor and output, and the sensitivities that were measured"
    " in the same run. You can undo it in the sidebar until you close this page."
)


def forget_deleted() -> None:
    """Take runs that were deleted just now out of the choice. Before the choice is drawn."""
    deleted: set[str] = st.session_state.pop("deleted_runs", set())
    if deleted:
        shown = [run for run in st.query_params.get_all("runs") if run not in deleted]
        # Nobody asked for a run that is missing.
        st.query_params["runs"] = shown
        address.choose("runs", shown)


def offer(names: Mapping[int, str]) -> None:
    """The button that asks whether the runs on show shall go.

    Args:
        names: of each run, by its key.
    """
    st.button(
        f"{DELETE} run" if len(names) == 1 else f"{DELETE} {len(names)} runs",
        icon=":material/delete:",
        type="tertiary",
        key="delete_runs",
        on_click=dialogs.ask,
        args=(_KEY, dict(names)),
    )


def draw() -> None:
    """The open dialog, if there is one. Last thing on the page."""
    names: dict[int, str] | None = dialogs.asked(_KEY)
    if names:
        title = f"{DELETE} {counted(len(names), 'run')}?"
        dialogs.draw(_KEY, title, lambda: _delete(names))


def _delete(names: Mapping[int, str]) -> None:
    st.markdown("\n".join(f"- {markdown(name)}" for name in names.values()))
    st.markdown(WHAT_GOES)
    with st.container(horizontal=True):
        if st.button(DELETE, type="primary", icon=":material/delete:", key="really_delete_runs"):
            for run, name in names.items():
                undo.remove_run(run, name)
            st.session_state["deleted_runs"] = set(map(str, names))
            dialogs.close_and_redraw(_KEY)
        if st.button("Cancel", key="keep_runs"):
            dialogs.close_and_redraw(_KEY)

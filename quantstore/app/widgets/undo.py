"""What this session removed, and how to put it back, until the session ends."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from quantstore import settings, store
from quantstore.app.uploads import Upload
from quantstore.errors import QuantstoreError
from quantstore.pipeline import kept
from quantstore.wording.text import markdown, short_name
from quantstore.wording.units import counted

UNDO_MODELS = (
    "Restore the measurements, runs, rescues, tags, notes and kept copies. Possible until you"
    " close this page."
)
UNDO_RUN = "Restore the run with all its values. Possible until you close this page."
# Lines in the sidebar, the latest first.
MOST_LINES = 3


@dataclass(frozen=True, slots=True)
class _Removed:
    """Something that was removed; ``put_back`` gives the sentence that says what came of it."""

    sentence: str
    hint: str
    put_back: Callable[[], str]


def remove_models(models: Sequence[str]) -> None:
    """Take models out, and keep what is needed to put them back.

    Raises:
        QuantstoreError: they cannot be exported or removed; nothing is removed then.
    """
    path = settings.store_path()
    try:
        aside = Upload(0, name="removed")
    except OSError as error:
        raise QuantstoreError(
            f"cannot keep a copy for Undo: {error.strerror}",
            f"remove it with: {settings.command('remove NAME')}",
        ) from error
    with store.reading(path, settings.patience_seconds()) as con:
        names = [name for name in models if con.rows("from models where model = ?", [name])]
    if not names:
        return
    store.export(path, aside.folder, names)
    with store.writing(path, settings.patience_seconds()) as con:
        for name in names:
            store.remove_model_named(con, name)
    copies = _copies_put_aside(path)

    def put_back() -> str:
        summary = store.merge(path, aside.folder)
        if copies is not None:
            kept.put_back(path, copies.folder)
        done = f"{counted(len(summary.added), 'model')} restored"
        if summary.already_stored:
            done += f"; {counted(len(summary.already_stored), 'model')} stored again meanwhile"
        for former, name in summary.renamed:
            done += f"; {former} is now called {name}"
        return done

    what = short_name(names[0], 50) if len(names) == 1 else counted(len(names), "model")
    _offer(_Removed(f"Removed {what}", UNDO_MODELS, put_back))


def remove_run(simulation_id: int, title: str) -> None:
    """Take a run out, and keep what is needed to put it back."""
    path = settings.store_path()
    with store.writing(path, settings.patience_seconds()) as con:
        removed = store.remove_run(con, simulation_id)

    def put_back() -> str:
        with store.writing(path, settings.patience_seconds()) as con:
            is_back = store.restore_run(con, removed)
        return "Run restored" if is_back else "The run cannot be restored: its model changed"

    _offer(_Removed(f"Deleted the run {short_name(title, 50)}", UNDO_RUN, put_back))


def draw() -> None:
    """A line for each removal, with its Undo. In the sidebar, on every page."""
    outcome = st.session_state.pop("undo_outcome", None)
    if outcome:
        st.caption(markdown(outcome), width="stretch")
    removals = _removals()
    for number in reversed(range(len(removals))):
        if number < len(removals) - MOST_LINES:
            break
        removal = removals[number]
        with st.container(horizontal=True, vertical_alignment="center", gap="xsmall"):
            st.caption(markdown(f"{removal.sentence}."), width="stretch")
            st.button(
                "Undo",
                icon=":material/undo:",
                type="tertiary",
                key=f"undo_{number}",
                help=removal.hint,
                on_click=_put_back,
                args=(removal,),
            )


def _put_back(removal: _Removed) -> None:
    try:
        st.session_state["undo_outcome"] = f"{removal.put_back()}."
    except QuantstoreError as error:
        # It can be tried again.
        st.session_state["undo_outcome"] = f"Not restored: {error.sentence}"
    else:
        _removals().remove(removal)


def _offer(removal: _Removed) -> None:
    _removals().append(removal)


def _removals() -> list[_Removed]:
    removals: list[_Removed] = st.session_state.setdefault("removals", [])
    return removals


def _copies_put_aside(path: Path) -> Upload | None:
    """Copies of models that are gone, on the same disk: moved, not copied."""
    unowned = kept.unowned(path)
    if not unowned:
        return None
    try:
        aside = Upload(0, name="copies", parent=kept.folder_of(path))
        aside.folder.mkdir()
        kept.put_aside(path, unowned, aside.folder)
    except OSError:
        # Without room to move them they go with their models, as was asked.
        kept.sweep(path)
        return None
    return aside

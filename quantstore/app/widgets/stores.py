"""The store of a page: opened for a block, updated where it is old."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import streamlit as st

from quantstore import queries, settings, store
from quantstore.errors import MissingStoreError, OlderStoreError, QuantstoreError
from quantstore.pipeline.freshness import Freshness
from quantstore.schemes import TARGETS, Target
from quantstore.wording.text import markdown


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


NEEDS_UPDATE = "This store needs an update"


def offer_update(older: OlderStoreError) -> None:
    """What a page shows where the store was written by an earlier release."""
    st.title(NEEDS_UPDATE)
    st.markdown(
        f"{markdown(str(older))}. Updating keeps all content, and saves a copy of the current file"
        " next to it. It takes a moment."
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


# What becomes of a file, by what ``Freshness.file_state`` calls it.
FILE_STATES = {
    "same": "the file is unchanged",
    "changed": "the file changed since",
    "perhaps changed": "the file may have changed since",
    "unreadable": "the file is no longer a model",
    "gone": "the file is no longer there",
    "no file": "no file to compare",
    "out of reach": "files are not checked while the app is open to other computers",
}


def file_words(state: Freshness) -> str:
    """What became of the file that a model was read from."""
    if state.is_outdated and not (state.is_changed or state.may_have_changed):
        return "measured by an older release"
    return FILE_STATES[state.file_state]


def verdicts(con: store.Connection, models: Collection[str] | None = None) -> pd.DataFrame:
    """One row per model and target, as ``queries.verdicts`` gives them; not to be changed.

    All of them are asked for at once, and once for each state of the store: what takes the time is
    the question, however few models it is about, and pages turn, sort and narrow down what they
    have.

    Args:
        models: the only models that are meant; None for every model.
    """
    path = settings.store_path()
    return _of_models(_verdicts_at(path, store.stamp(path), con), models)


def worst_first(con: store.Connection, target: Target) -> list[str]:
    """Every model, the worst under the target first: what a picker offers."""
    return [str(model) for model in ranking(con, target)["model"]]


def ranking(
    con: store.Connection, target: Target, among: Collection[str] | None = None
) -> pd.DataFrame:
    """The verdicts under a target, the worst model first, as ``queries.ranked`` orders them.

    Args:
        among: the only models that are meant; None for every model.
    """
    path = settings.store_path()
    return _of_models(_ranking_at(path, store.stamp(path), target.name, con), among)


def _of_models(frame: pd.DataFrame, models: Collection[str] | None) -> pd.DataFrame:
    if models is None:
        return frame
    return frame[frame["model"].isin(models)].reset_index(drop=True)


# Nobody writes while a page reads, and the stamp differs after every write. Frames are shared by
# all sessions: copying them for each would take longer than what pages do with them.
@st.cache_resource(show_spinner=False, max_entries=1)
def _verdicts_at(path: Path, stamp: store.StoreStamp, _con: store.Connection) -> pd.DataFrame:
    return queries.verdicts(_con)


@st.cache_resource(show_spinner=False, max_entries=len(TARGETS))
def _ranking_at(
    path: Path, stamp: store.StoreStamp, target: str, _con: store.Connection
) -> pd.DataFrame:
    every_target = _verdicts_at(path, stamp, _con)
    return queries.ranked(every_target[every_target["target"] == target])

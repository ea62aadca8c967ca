"""The store of a page: opened for a block, updated where it is old."""

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar, cast

import pandas as pd
import streamlit as st

from quantstore import queries, settings, store
from quantstore.errors import MissingStoreError, OlderStoreError, QuantstoreError
from quantstore.pipeline.freshness import Freshness
from quantstore.schemes import Target
from quantstore.wording.text import markdown
from quantstore.wording.verdicts import ModelFacts


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


Arguments = ParamSpec("Arguments")
Answered = TypeVar("Answered")

# The largest, of verdicts on a thousand models, has some 10 MB; most have a few kB.
MOST_ANSWERS = 64
_answers_lock = threading.Lock()


def ask(
    con: store.Connection,
    question: Callable[Concatenate[store.Connection, Arguments], Answered],
    *arguments: Arguments.args,
    **options: Arguments.kwargs,
) -> Answered:
    """What a function of ``queries`` answers, asked once for each state of the store.

    For questions that look at many rows, and whose answers pages look at again and again. The
    answer is shared by all sessions and not to be changed: copying it for each would take longer
    than what pages do with it.
    """
    path = settings.store_path()
    answers = _answers_at(path, store.stamp_read(con, path))
    key = (question, arguments, tuple(sorted(options.items())))
    with _answers_lock:
        if key in answers:
            return cast("Answered", answers[key])
    answer = question(con, *arguments, **options)
    with _answers_lock:
        while len(answers) >= MOST_ANSWERS:
            answers.pop(next(iter(answers)))
        answers[key] = answer
    return answer


@lru_cache(maxsize=1)
def _answers_at(path: Path, stamp: store.StoreStamp) -> dict[object, object]:
    """The answers of one state; those of the state before are forgotten."""
    return {}


def verdicts(con: store.Connection, models: Collection[str] | None = None) -> pd.DataFrame:
    """One row per model and target, as ``queries.verdicts`` gives them; not to be changed.

    All of them are asked for at once, and once for each state of the store: what takes the time is
    the question, however few models it is about, and pages turn, sort and narrow down what they
    have.

    Args:
        models: the only models that are meant; None for every model.
    """
    return _of_models(ask(con, queries.verdicts), models)


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
    return _of_models(ask(con, _ranked, target.name), among)


def facts(
    con: store.Connection, target: Target, among: Collection[str] | None = None
) -> list[ModelFacts]:
    """What words need of the verdicts under a target, the worst model first.

    Args:
        among: the only models that are meant; None for every model.
    """
    every_model = ask(con, _facts, target.name)
    if among is None:
        return every_model
    meant = set(among)
    return [of_model for of_model in every_model if of_model.model in meant]


def _facts(con: store.Connection, target: str) -> list[ModelFacts]:
    return [queries.model_facts(row) for row in ask(con, _ranked, target).to_dict("records")]


def _of_models(frame: pd.DataFrame, models: Collection[str] | None) -> pd.DataFrame:
    if models is None:
        return frame
    return frame[frame["model"].isin(models)].reset_index(drop=True)


def _ranked(con: store.Connection, target: str) -> pd.DataFrame:
    every_target = ask(con, queries.verdicts)
    return queries.ranked(every_target[every_target["target"] == target])

"""What is done to models, one question at a time: edit one, tag several, remove some.

A dialog stays open from run to run through a word in the session, because the queue in the sidebar
draws the page anew whenever a model arrives.
"""

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from quantstore import queries, settings, store
from quantstore.app.queue import FILES
from quantstore.app.widgets import address, dialogs, navigation, reach, report_button, stores, undo
from quantstore.app.widgets.stores import file_words
from quantstore.errors import QuantstoreError, printable
from quantstore.pipeline import freshness, kept
from quantstore.pipeline.freshness import Freshness
from quantstore.schemes import Target
from quantstore.wording.text import markdown
from quantstore.wording.units import counted, file_size

_KEY = "models_dialog"
# Names that a question spells out; the others it counts.
NAMED = 8


def ask_edit(model: str) -> None:
    """From a callback: open the dialog about one model."""
    dialogs.ask(_KEY, ("edit", [model]))


def ask_tag() -> None:
    """From a callback: ask for a tag for every marked model."""
    dialogs.ask(_KEY, ("tag", list(st.session_state["models_marked"])))


def ask_remove(models: Sequence[str]) -> None:
    """From a callback: ask whether these models shall go."""
    dialogs.ask(_KEY, ("remove", list(models)))


def measure_again(origins: Sequence[queries.Origin]) -> None:
    """Queue the files that these models were read from; names, tags and notes stay."""
    for origin in origins:
        FILES.add(
            Path(origin.source),
            settings.store_path(),
            name=printable(origin.model),
            source=origin.source,
            fold=origin.folded,
            replaces=origin.model,
        )


def draw(target: Target) -> None:
    """The open dialog, if there is one. Last thing on the page."""
    dialog, models = dialogs.asked(_KEY) or ("", [])
    if dialog == "edit":
        dialogs.draw(_KEY, models[0], lambda: _edit(models[0], target), width="medium")
    elif dialog == "tag":
        dialogs.draw(_KEY, f"Add a tag to {_models(models)}", lambda: _tag(models))
    elif dialog == "remove":
        dialogs.draw(_KEY, f"Remove {_models(models)}?", lambda: _remove(models))


def _models(models: Sequence[str]) -> str:
    return models[0] if len(models) == 1 else counted(len(models), "model")


def _edit(model: str, target: Target) -> None:
    with stores.open_store() as con:
        if not queries.origins(con, [model]):
            st.info("This model is no longer in the store.")
            return
        (origin,) = queries.origins(con, [model])
        labels = store.labels(con, model)
        known_tags = list(queries.tag_counts(con))
    with st.form("model_labels", border=False):
        name = st.text_input("Name", model, key=f"name of {model}", max_chars=store.LONGEST_NAME)
        tags = st.multiselect(
            "Tags",
            sorted({*known_tags, *labels.tags}),
            list(labels.tags),
            key=f"tags of {model}",
            accept_new_options=True,
            format_func=printable,
            placeholder="Choose or type a tag",
        )
        # The key tells the stylesheet that this is prose.
        with st.container(key="model_note"):
            note = st.text_area(
                "Note",
                labels.note,
                key=f"note of {model}",
                max_chars=store.LONGEST_NOTE,
                placeholder="What is worth remembering about this model?",
                height=110,
            )
        is_sent = st.form_submit_button("Save", type="primary", key="save_labels")
    if is_sent:
        try:
            _save(model, name, tags, note)
        except QuantstoreError as error:
            st.error(markdown(error.sentence))
    _file(origin)
    with st.container(horizontal=True):
        if st.button("Open the model", icon=":material/schema:", key="open_model"):
            dialogs.close(_KEY)
            address.choose("model", model)
            navigation.go_to("model")
        report_button.draw([model], target, key="report_model")
        if st.button("Remove", icon=":material/delete:", key="remove_model"):
            ask_remove([model])
            st.rerun()


def _save(model: str, name: str, tags: Sequence[str], note: str) -> None:
    """All of it or, where a part is refused, nothing."""
    with store.writing(settings.store_path(), settings.patience_seconds()) as con:
        name = store.rename_model(con, model, name)
        store.set_tags(con, name, tags)
        store.set_note(con, name, note)
    _follow(model, name)
    dialogs.close_and_redraw(_KEY)


def _follow(model: str, name: str) -> None:
    """What the pages remember of a model goes by its new name."""
    if name == model:
        return
    if address.remembered("model") == model:
        address.choose("model", name)
    marked = st.session_state.get("models_marked", [])
    st.session_state["models_marked"] = [
        name if marked_model == model else marked_model for marked_model in marked
    ]


def _file(origin: queries.Origin) -> None:
    """What became of the file, and what can be done about it."""
    state = freshness.freshness(origin, may_look=reach.is_this_computer_only())
    where = markdown(origin.source)
    st.caption(f"Read from {where}: {markdown(_what_became(state))}.")
    _copy(origin)
    if not state.can_be_refreshed:
        return
    if state.is_changed:
        with store.reading(settings.store_path(), settings.patience_seconds()) as con:
            twin = queries.model_of_content(con, state.sha256 or "", folded=origin.folded)
        if twin is not None:
            st.caption(f"The current content of the file is already stored as {markdown(twin)}.")
            return
    if st.button("Measure it again", icon=":material/refresh:", key="measure_again"):
        measure_again([origin])
        dialogs.close_and_redraw(_KEY)
    st.caption(
        "Name, tags and note are kept. Runs of the earlier file content are deleted."
        if state.is_changed
        else "Name, tags, note and runs are kept."
    )


def _copy(origin: queries.Origin) -> None:
    """The copy beside the store, which somebody may not need any more."""
    store_path = settings.store_path()
    kept_bytes = kept.sizes(store_path).get(origin.sha256)
    if kept_bytes is None:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"A copy is kept beside the store: {file_size(kept_bytes)}.", width="content")
        if st.button("Delete the copy", icon=":material/delete:", type="tertiary", key="no_copy"):
            kept.remove(store_path, origin.sha256)
            st.rerun()


def _what_became(state: Freshness) -> str:
    if state.file_state == "unreadable":
        return f"{file_words(state)} ({state.message})"
    return file_words(state)


def _tag(models: Sequence[str]) -> None:
    with stores.open_store() as con:
        known_tags = list(queries.tag_counts(con))
    with st.form("tag_models", border=False):
        tags = st.multiselect(
            "Tags",
            known_tags,
            key="new_tags",
            accept_new_options=True,
            format_func=printable,
            placeholder="Choose or type a tag",
        )
        is_sent = st.form_submit_button("Add", type="primary", key="add_tags")
    if is_sent and tags:
        with store.writing(settings.store_path(), settings.patience_seconds()) as con:
            for model in models:
                store.set_tags(con, model, {*store.labels(con, model).tags, *tags})
        dialogs.close_and_redraw(_KEY)


def _remove(models: Sequence[str]) -> None:
    with stores.open_store() as con:
        shelf = queries.shelf(con, among=models, limit=len(models))
    if shelf.empty:
        st.info("These models are already removed.")
        return
    names = [f"- {markdown(name)}" for name in shelf["model"][:NAMED]]
    if len(shelf) > NAMED:
        names.append(f"- and {len(shelf) - NAMED:,} more")
    if len(models) > 1:
        st.markdown("\n".join(names))
    st.markdown(
        f"This deletes all measurements ({counted(int(shelf['layer_count'].sum()), 'layer')}),"
        " runs, tags and notes. Model files on disk are not touched."
        " You can undo it in the sidebar until you close this page."
    )
    with st.container(horizontal=True):
        if st.button("Remove", type="primary", icon=":material/delete:", key="really_remove"):
            undo.remove_models(models)
            dialogs.close_and_redraw(_KEY)
        if st.button("Cancel", key="keep_models"):
            dialogs.close_and_redraw(_KEY)

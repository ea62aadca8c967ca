"""Which models a page is about: a row of small popovers with counts, and the address."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import streamlit as st

from quantstore import queries
from quantstore.app.widgets import address, notes, pickers, stores
from quantstore.errors import printable
from quantstore.schemes import TARGETS, Target
from quantstore.store import Connection
from quantstore.wording.text import short_name
from quantstore.wording.units import count, counted

NO_MODEL_PASSES = "No model passes these filters. Clear one of them, or choose another target."
CLEAR = "Clear filters"

# More values than these are searched, not looked through.
MOST_PILLS = 24


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a facet is called, and what it means."""

    label: str
    meaning: str


def _terms(target: Target) -> dict[queries.Facet, _Terms]:
    return {
        "verdict": _Terms("Verdict", f"Verdict with {target.title}."),
        "survives": _Terms(
            "Survives on", "Rated fine or watch on at least one of these targets, by a measurement."
        ),
        "operator": _Terms(
            "Broken operators", f"At least one broken layer of this kind with {target.title}."
        ),
        "tag": _Terms("Tag", "At least one of these tags."),
        "integers": _Terms(
            "Already quantized", "The file stores weights as integers, or on an integer grid."
        ),
    }


def draw(con: Connection, target: Target, *, prefix: str = "") -> list[str] | None:
    """The popovers; returns the models that pass by name, None where nothing is chosen.

    Args:
        prefix: of the keys in the address, where a page has facets of its own.
    """
    traits = stores.ask(con, _traits, target.name)
    pickers.say_missing("tag named", queries.facet_values(traits, "tag"), f"{prefix}tag")
    values = {facet: queries.facet_values(traits, facet) for facet in queries.FACETS}
    for facet in queries.FACETS:
        address.link(f"{prefix}{facet}", default=[], options=values[facet])
    chosen: dict[queries.Facet, list[str]] = {
        facet: list(st.session_state[f"{prefix}{facet}"]) for facet in queries.FACETS
    }
    for facet, terms in _terms(target).items():
        if not chosen[facet] and not _divides(traits, facet):
            continue
        counts = queries.facet_counts(traits, facet, chosen)
        offered = [value for value in values[facet] if counts[value] or value in chosen[facet]]
        _popover(facet, terms, offered, counts, chosen[facet], key=f"{prefix}{facet}")
    if not any(chosen.values()):
        return None
    passing = queries.passing(traits, chosen)
    st.caption(f"{count(len(passing))} of {counted(len(traits), 'model')}", width="content")
    st.button(CLEAR, type="tertiary", key=f"{prefix}clear_facets", on_click=clear, args=(prefix,))
    return passing


def clear(prefix: str = "") -> None:
    """From a callback: every model passes again."""
    for facet in queries.FACETS:
        address.choose(f"{prefix}{facet}", [])


def chosen_values(prefix: str = "") -> dict[queries.Facet, list[str]]:
    """What is chosen of each facet, once :func:`draw` has drawn them."""
    return {facet: list(st.session_state[f"{prefix}{facet}"]) for facet in queries.FACETS}


def _popover(
    facet: queries.Facet,
    terms: _Terms,
    offered: Sequence[str],
    counts: Mapping[str, int],
    chosen: Sequence[str],
    *,
    key: str,
) -> None:
    label = terms.label
    if chosen:
        titles = [short_name(_title(facet, value), 24) for value in chosen]
        label += f": {titles[0]}" + (f" +{len(titles) - 1}" if len(titles) > 1 else "")
    with st.popover(notes.escaped(label), key=f"facet_{key}"):
        st.caption(notes.escaped(terms.meaning))
        if len(offered) > MOST_PILLS:
            st.multiselect(
                terms.label,
                offered,
                key=key,
                format_func=lambda value: f"{_title(facet, value)} ({counts[value]})",
                label_visibility="collapsed",
                select_all=False,
            )
        else:
            st.pills(
                terms.label,
                offered,
                key=key,
                selection_mode="multi",
                format_func=lambda value: notes.escaped(
                    f"{_title(facet, value)} ({count(counts[value])})"
                ),
                label_visibility="collapsed",
            )


def _title(facet: queries.Facet, value: str) -> str:
    if facet == "survives":
        return pickers.capital(TARGETS[value].title)
    if facet in ("verdict", "integers"):
        return pickers.capital(value)
    return printable(value)


def _divides(traits: Sequence[queries.ModelTraits], facet: queries.Facet) -> bool:
    """Whether some models have a value that others have not."""
    counts = queries.facet_counts(traits, facet, {})
    return any(number < len(traits) for number in counts.values())


def _traits(con: Connection, target: str) -> tuple[queries.ModelTraits, ...]:
    return queries.model_traits(con, TARGETS[target], stores.verdicts(con))

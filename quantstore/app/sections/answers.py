"""The section of the Model page on what to do: up to three answers, each with its button."""

from collections.abc import Sequence

import streamlit as st

from quantstore.app.widgets import address, navigation
from quantstore.rescuing.terms import RESCUE_TARGETS
from quantstore.wording.answers import HEADING, Advice, AdviceKind, StoredRescue, answers, opening
from quantstore.wording.text import markdown
from quantstore.wording.verdicts import ModelFacts

BUTTONS: dict[AdviceKind, str] = {
    "file": "Get the file",
    "other file": "Get the file",
    "target": "Judge by this target",
    "rescue": "Rescue for this target",
}
ICONS: dict[AdviceKind, str] = {
    "file": "download",
    "other file": "download",
    "target": "swap_horiz",
    "rescue": "healing",
}


def section(
    facts: ModelFacts,
    others: Sequence[ModelFacts],
    rescues: Sequence[StoredRescue],
    why_not_run: str,
) -> None:
    """Draw the section.

    Args:
        facts: under the target that is looked at.
        others: the same model under every target.
        rescues: as ``queries.stored_rescues`` gives them.
        why_not_run: as a sentence; empty where the model can be run.
    """
    st.header(HEADING, anchor=False)
    sentence = opening(facts, why_not_run)
    if sentence:
        st.markdown(markdown(sentence))
    ranked = answers(
        facts, others, rescues, can_be_rescued=facts.target in RESCUE_TARGETS and not why_not_run
    )
    for number, answer in enumerate(ranked):
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            st.markdown(
                f"{number + 1}\\. {markdown(answer.text)}  \n:small[{markdown(answer.gain)}]",
                width="stretch",
            )
            st.button(
                BUTTONS[answer.kind],
                icon=f":material/{ICONS[answer.kind]}:",
                type="primary" if number == 0 else "secondary",
                key=f"answer_{number}",
                on_click=_follow,
                args=(answer,),
            )


def _follow(answer: Advice) -> None:
    """What the button of an answer does."""
    address.choose("target", answer.target)
    if answer.kind == "target":
        return
    if answer.rescue_id is not None:
        address.choose("rescue", str(answer.rescue_id))
    navigation.open_next("rescue")

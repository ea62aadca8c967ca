"""Which layers the charts of a page show: one small popover, a sentence, and the address."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from quantstore.app.widgets import address, notes, pickers
from quantstore.wording.text import listed
from quantstore.wording.units import count, counted

FAMILIES = {
    "conv": "convolutions",
    "conv_transpose": "transposed convolutions",
    "linear": "linear layers",
    "recurrent": "recurrent layers",
    "embedding": "embeddings",
    "attention": "attention layers",
}
DEPTHWISE = ("Include", "Only", "Exclude")
# By the words of the control: at least this many weights.
SIZES = {"Any": 0, "100": 100, "1,000": 1_000, "10,000": 10_000, "100,000": 100_000}


@dataclass(frozen=True, slots=True)
class LayerFilter:
    """What a layer must be to be shown; the defaults let every layer through."""

    families: tuple[str, ...] = ()
    depthwise: str = DEPTHWISE[0]
    least_weights: int = 0
    named: str = ""

    @property
    def is_open(self) -> bool:
        return self == LayerFilter()

    def passes(self, layers: pd.DataFrame) -> pd.Series:
        """Which layers are shown."""
        keep = layers["weight_count"] >= self.least_weights
        if self.families:
            keep &= layers["op_family"].isin(self.families)
        if self.depthwise != DEPTHWISE[0]:
            keep &= layers["is_depthwise"] == (self.depthwise == DEPTHWISE[1])
        if self.named:
            keep &= layers["layer"].str.contains(self.named, case=False, regex=False)
        return keep

    def in_words(self, shown: int, total: int) -> str:
        """``12 of 123 layers shown: depthwise convolutions``; the name as it was typed."""
        kinds = listed([FAMILIES.get(family, family) for family in self.families])
        if self.depthwise == DEPTHWISE[1]:
            kinds = "depthwise convolutions"
        conditions = [kinds] if kinds else []
        if self.depthwise == DEPTHWISE[2]:
            conditions.append("no depthwise convolutions")
        if self.least_weights:
            conditions.append(f"at least {counted(self.least_weights, 'weight')}")
        if self.named:
            conditions.append(f"“{self.named}” in the name")
        return f"{count(shown)} of {counted(total, 'layer')} shown: {', '.join(conditions)}"


def draw(profiles: pd.DataFrame) -> pd.DataFrame:
    """The control, what it leaves out, and the layers that remain.

    Args:
        profiles: one row per layer with op_family, is_depthwise, weight_count and layer.
    """
    families = [family for family in FAMILIES if (profiles["op_family"] == family).any()]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        with st.popover("Filter layers", icon=":material/filter_list:"):
            chosen = _controls(families, has_depthwise=bool(profiles["is_depthwise"].any()))
        kept = profiles[chosen.passes(profiles)]
        if not chosen.is_open:
            sentence = chosen.in_words(len(kept), len(profiles)) + _models_without(profiles, kept)
            st.caption(notes.escaped(sentence), width="content")
            st.button("Show all layers", type="tertiary", key="clear_filters", on_click=_clear)
    return kept


def _models_without(profiles: pd.DataFrame, kept: pd.DataFrame) -> str:
    """``; none in silero-vad``: models of which no layer is left."""
    remaining = set(kept["model"])
    gone = [model for model in dict.fromkeys(profiles["model"]) if model not in remaining]
    if not gone or kept.empty:
        return ""
    named = gone if len(gone) <= 3 else [*gone[:2], f"{len(gone) - 2} other models"]
    return f"; none in {listed(named)}"


def _controls(families: Sequence[str], *, has_depthwise: bool) -> LayerFilter:
    """The widgets, each part of the address; one that has nothing to choose from is left out."""
    picked: list[str] = []
    if len(families) > 1:
        address.link("family", default=[], options=families)
        picked = st.pills(
            "Operators",
            families,
            key="family",
            selection_mode="multi",
            format_func=lambda family: FAMILIES[family].capitalize(),
        )
    depthwise = DEPTHWISE[0]
    if has_depthwise:
        depthwise = pickers.choice("Depthwise convolutions", list(DEPTHWISE), key="depthwise")
    size = pickers.choice("Minimum number of weights", list(SIZES), key="size")
    address.link("named", default="")
    named = st.text_input("Name contains", key="named")
    return LayerFilter(tuple(picked), depthwise, SIZES[size], named.strip())


def _clear() -> None:
    address.choose("family", [])
    address.choose("depthwise", DEPTHWISE[0])
    address.choose("size", next(iter(SIZES)))
    address.choose("named", "")

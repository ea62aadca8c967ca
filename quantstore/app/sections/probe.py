"""The section of the Model page on runs: what the probe found, and runs on inputs of one's own."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from quantstore.app.widgets import address, listing, navigation
from quantstore.schemes import Scheme
from quantstore.wording import runs as wording
from quantstore.wording.columns import Row
from quantstore.wording.text import markdown

MEASURE_BELOW = "A probe needs no data: measure the targets below."


def section(runs: pd.DataFrame, scheme: Scheme) -> None:
    """Draw the section.

    Args:
        runs: as ``queries.model_runs`` gives them.
    """
    st.space("small")
    st.header(wording.HEADING, anchor=False)
    rows = runs.to_dict("records")
    probes = wording.probes_of(rows)
    if probes:
        st.caption(markdown(wording.conditions(probes)))
        schemes = wording.probe_schemes(probes)
        listing.draw(
            wording.probe_columns(schemes),
            schemes,
            key="probe_table",
            row_key="scheme",
            chosen=scheme.name,
        )
        for line in wording.probe_failures(rows):
            st.caption(markdown(line))
    else:
        reason = wording.not_probed(rows)
        addition = f" {MEASURE_BELOW}" if reason == wording.NOT_RUN else ""
        st.markdown(markdown(f"{reason}{addition}"))
    if own_runs := wording.own_runs_of(rows):
        _own_runs(own_runs)
    with st.container(horizontal=True, gap="small"):
        drift_link(runs, key="to_drift")
        _link("reality", "How well weights predict the loss: Predicted vs. measured", "to_reality")


def drift_link(runs: pd.DataFrame, *, key: str) -> None:
    """A button that opens the drift runs of the model, or the form for its first one."""
    if runs["has_drift"].any():
        label = "See the error layer by layer: Drift"
    else:
        label = "Run on your own inputs, layer by layer: Drift"
    _link("drift", label, key)


def _link(page: str, label: str, key: str) -> None:
    st.button(
        label,
        type="tertiary",
        icon=":material/arrow_forward:",
        key=key,
        on_click=navigation.open_next,
        args=(page,),
    )


def _own_runs(runs: Sequence[Row]) -> None:
    st.space("small")
    with_drift = {int(run["simulation_id"]) for run in runs if run["has_drift"]}

    def clicked() -> None:
        target = st.session_state["own_runs"].clicked
        if target and int(target["row"]) in with_drift:
            address.choose("runs", [str(target["row"])])
            navigation.open_next("drift")

    listing.draw(
        wording.OWN_RUN_COLUMNS, runs, key="own_runs", row_key="simulation_id", on_click=clicked
    )

"""Where a page shows an int8 model: what its latest audit found, or how to make one."""

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from quantstore import queries
from quantstore.app.widgets import navigation
from quantstore.store import Connection
from quantstore.wording import audits as wording
from quantstore.wording import frames
from quantstore.wording.columns import Row
from quantstore.wording.text import markdown

OPEN, START = "Open the audit", "Audit against the float file"
# Int8 files of one float model; the Audit page has all.
MOST_FILES = 5


def of_model(con: Connection, model: str, *, is_integer: bool) -> None:
    """The latest audit of an int8 model, or those of the int8 files made from a float one."""
    audits = queries.audits(con, model)
    if not is_integer:
        int8_audits = audits[audits["float_model"] == model].drop_duplicates("int8_model")
        for row in int8_audits.head(MOST_FILES).to_dict("records"):
            _latest(row)
        return
    own_audits = audits[audits["int8_model"] == model]
    if own_audits.empty:
        st.caption(wording.FOR_AN_INT8_MODEL)
        navigation.link("audit", START, query_params={"model": model}, width="content")
    else:
        _latest(own_audits.iloc[0].to_dict())


def _latest(row: Row) -> None:
    st.markdown(markdown(headline(row)))
    key = str(row["audit_id"])
    navigation.link(
        "audit",
        OPEN,
        query_params={"model": str(row["int8_model"]), "audit": key},
        width="content",
    )


def headline(row: Row) -> str:
    """The headline of a row of ``queries.audits``, with its band."""
    band = row["band"] if isinstance(row["band"], str) else None
    record = frames.audit_record(row)
    return wording.headline(record, str(row["int8_model"]), str(row["float_model"]), band)


def instead_of_a_diff(
    con: Connection, title: DeltaGenerator, int8_model: str, float_model: str
) -> None:
    """In place of a comparison by layers: the audit of both, or the way to one.

    Args:
        title: where the headline stands.
    """
    audits = queries.audits(con, int8_model)
    of_both: pd.DataFrame = audits[
        (audits["int8_model"] == int8_model) & (audits["float_model"] == float_model)
    ]
    title.header(markdown(wording.instead_of_a_diff(int8_model, float_model)), anchor=False)
    st.markdown(wording.DIFF_POINTS_HERE)
    if of_both.empty:
        both = {"model": int8_model, "float": float_model}
        navigation.link("audit", START, query_params=both, width="content")
    else:
        _latest(of_both.iloc[0].to_dict())

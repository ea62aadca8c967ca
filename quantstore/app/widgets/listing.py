"""A table of columns from ``wording``: names, chips and small histograms, in rows that may open."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from quantstore.app.widgets import components
from quantstore.wording.columns import Cell, Column, Row


def draw(
    columns: Sequence[Column],
    rows: Sequence[Row],
    *,
    key: str,
    row_key: str | None = None,
    chosen: Any = None,
    on_click: Callable[[], None] | None = None,
) -> None:
    """Draw the table.

    Args:
        row_key: the name of the value that a click tells, which is the row's number if None.
        chosen: the value of ``row_key`` whose row stands out.
        on_click: reads ``st.session_state[key].clicked``: ``{"row": value}``; a number is text.
    """
    # Text: JavaScript would round a key of 63 bits.
    values = [number if row_key is None else str(row[row_key]) for number, row in enumerate(rows)]
    components.table(
        columns=[
            {
                "title": column.title,
                "kind": column.style,
                "number": column.is_number,
                "wide": column.is_wide,
                "help": column.help,
            }
            for column in columns
        ],
        rows=[
            {
                "key": value,
                "chosen": chosen is not None and value == chosen,
                "cells": [_cell(column.cell(row)) for column in columns],
            }
            for value, row in zip(values, rows, strict=True)
        ],
        key=key,
        on_click=on_click,
    )


def _cell(cell: Cell | None) -> dict[str, Any] | None:
    if cell is None:
        return None
    if cell.spark is not None:
        return asdict(cell.spark)
    picture: dict[str, Any] = {}
    if cell.interval is not None:
        picture = {"bars": cell.interval.bars, "label": cell.interval.label}
    texts = {"band": cell.band, "text": cell.text, "small": cell.small, "note": cell.note}
    written = {name: text for name, text in texts.items() if text}
    return picture | written or {"text": ""}

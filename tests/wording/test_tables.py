"""What a frame looks like as text: rounded for people, exact for programs."""

import csv
import io
import json
from datetime import UTC, date, datetime, time
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from quantstore.wording import tables

HOSTILE = "conv\x1b[31m\n\u202eevil"


def rows_of(csv_text):
    return list(csv.reader(io.StringIO(csv_text)))


def strict_json(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def cells_of(table):
    """The cells of the only row of a table of single words."""
    return table.splitlines()[2].split()


def one(value):
    return pd.DataFrame({"x": pd.Series([value])})


def test_a_table_has_the_column_names_on_top_and_one_line_per_row():
    frame = pd.DataFrame({"layer": ["a", "bb"], "weight_count": [7, 1234567]})
    assert tables.to_table(frame).splitlines() == [
        "layer      weight_count",
        "-------  --------------",
        "a                     7",
        "bb            1,234,567",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (211.79637, "211.8"),
        (0.123456, "0.1235"),
        (0.0, "0"),
        (-0.5, "-0.5"),
        (12345.678, "12,346"),
        (99999.6, "100,000"),
        (1.5e12, "1.5e+12"),
        (0.00001234, "1.234e-05"),
        (float("inf"), "inf"),
        (float("nan"), ""),
    ],
)
def test_a_table_gives_four_significant_digits(value, text):
    assert cells_of(tables.to_table(one(value)) + "\n ") == text.split()


@pytest.mark.parametrize(("value", "text"), [(9.96, "10.0"), (-0.04, "0.0"), (40.0, "40.0")])
def test_a_table_gives_decibels_one_decimal(value, text):
    frame = pd.DataFrame({"sqnr_db": [value]})
    assert cells_of(tables.to_table(frame)) == [text]


def test_a_table_shows_control_characters_instead_of_obeying_them():
    table = tables.to_table(pd.DataFrame({HOSTILE: [HOSTILE]}))
    assert len(table.splitlines()) == 3
    assert all(line.isprintable() for line in table.splitlines())
    assert r"conv\x1b[31m\n\u202eevil" in table


def test_a_table_leaves_text_that_looks_like_a_number_alone():
    frame = pd.DataFrame({"layer": ["1e5", "007", " x"]})
    assert tables.to_table(frame).splitlines()[2:] == ["1e5", "007", " x"]


def test_a_table_of_no_rows_still_names_the_columns():
    frame = pd.DataFrame({"model": pd.Series(dtype=str), "layer_count": pd.Series(dtype=int)})
    assert tables.to_table(frame).split()[:2] == ["model", "layer_count"]


LONG_NAME = "/backbone/blocks.2/depthwise/conv/Conv"


def fitted(width, **columns):
    return tables.fitted_table(pd.DataFrame(columns), width)


def test_a_table_that_fits_stays_as_it_is():
    frame = pd.DataFrame({"layer": [LONG_NAME], "weight_range": [1.5]})
    assert tables.fitted_table(frame, 80) == tables.FittedTable(tables.to_table(frame))


def test_a_header_is_broken_before_anything_is_left_out():
    table = fitted(60, layer=[LONG_NAME], channel_sqnr_p10_db=[1.5])
    assert (table.left_out, table.shortened) == ((), ())
    header = [line[len(LONG_NAME) :].strip() for line in table.text.splitlines()[:3]]
    assert header == ["channel_", "sqnr_", "p10_db"]


def test_a_long_name_loses_its_middle():
    table = fitted(42, layer=[LONG_NAME], weight_range=[1.5])
    assert table.shortened == ("layer",)
    assert table.text.splitlines()[-1].split() == ["/backbone/…/depthwise/conv/Conv", "1.5"]


def test_columns_are_left_out_from_the_right_and_one_always_stays():
    table = fitted(10, layer=[LONG_NAME], weight_range=[1.5], band=["fine"])
    assert table.left_out == ("band", "weight_range")
    assert table.text.splitlines()[-1] == "/ba…v/Conv"


@pytest.mark.parametrize("width", range(8, 90, 3))
def test_wide_letters_and_columns_of_one_name_fit_as_well(width):
    frame = pd.DataFrame([["量子化" * 10, LONG_NAME, 1.5]], columns=["a", "a", "a"])
    lines = tables.fitted_table(frame, width).text.splitlines()
    assert max(tables._width(line) for line in lines) <= width


def test_a_cell_is_painted_after_it_is_measured():
    frame = pd.DataFrame({"band": ["fine", "broken"], "n": [1, 2]})
    painted = tables.to_table(frame, lambda name, cell: f"\x1b[1m{cell}\x1b[0m")
    assert painted.replace("\x1b[1m", "").replace("\x1b[0m", "") == tables.to_table(frame)


def test_csv_carries_every_digit_and_no_separators():
    frame = pd.DataFrame({"a": [1234567], "b": [0.1 + 0.2], "c": ['x,"y"\n'], "d": [True]})
    assert rows_of(tables.to_csv(frame)) == [
        ["a", "b", "c", "d"],
        ["1234567", "0.30000000000000004", 'x,"y"\n', "true"],
    ]


def test_csv_leaves_what_is_not_there_empty():
    frame = pd.DataFrame({"a": [np.nan], "b": [None], "c": [pd.NaT], "d": [pd.NA], "e": [0]})
    assert rows_of(tables.to_csv(frame))[1] == ["", "", "", "", "0"]


@pytest.mark.parametrize(
    "text",
    [
        *("=1+1", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1", "-"),
        '=HYPERLINK("http://example.org";"open")',
        "=cmd|' /C calc'!A0",
    ],
)
def test_text_that_a_spreadsheet_would_run_is_inert_in_csv(text):
    frame = pd.DataFrame({text: [text]})
    rows = csv.reader(io.StringIO(tables.to_csv(frame), newline=""))
    assert list(rows) == [[f"'{text}"], [f"'{text}"]]
    assert strict_json(tables.to_json(frame)) == [{text: text}]


@pytest.mark.parametrize("text", ["conv-1", "a=b", "-1.5", "+3", "-2e-7", "/model/Conv", "'=1", ""])
def test_other_text_stays_as_it_is_in_csv(text):
    frame = pd.DataFrame({"x": [text], "n": [-1.5]})
    assert rows_of(tables.to_csv(frame)) == [["x", "n"], [text, "-1.5"]]


def test_json_is_a_list_of_objects_one_per_line():
    frame = pd.DataFrame({"model": ["a", "b"], "layer_count": [1, 2]})
    text = tables.to_json(frame)
    assert strict_json(text) == [
        {"model": "a", "layer_count": 1},
        {"model": "b", "layer_count": 2},
    ]
    assert len(text.splitlines()) == 4


def test_json_of_no_rows_is_an_empty_list():
    assert strict_json(tables.to_json(pd.DataFrame({"a": []}))) == []


@pytest.mark.parametrize(
    "value", [np.nan, np.inf, -np.inf, None, pd.NA, pd.NaT, np.float32("nan"), Decimal("nan")]
)
def test_json_knows_neither_nan_nor_infinity(value):
    frame = pd.DataFrame({"x": pd.Series([value], dtype=object)})
    assert strict_json(tables.to_json(frame)) == [{"x": None}]
    nested = pd.DataFrame({"x": pd.Series([[value, {"y": value}]], dtype=object)})
    assert strict_json(tables.to_json(nested)) == [{"x": [None, {"y": None}]}]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.int32(5), 5),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.array([[1, 2]]), [[1, 2]]),
        ((1, "a"), [1, "a"]),
        ({1: np.int8(2)}, {"1": 2}),
        (Decimal(7), 7),
        (Decimal("1.5"), 1.5),
        (b"\x00\xff", "00ff"),
        (date(2026, 11, 23), "2026-11-23"),
        (time(10, 30), "10:30:00"),
        (2**60 + 1, 2**60 + 1),
        (HOSTILE, HOSTILE),
    ],
)
def test_values_of_every_kind_come_out_plain(value, plain):
    frame = pd.DataFrame({"x": pd.Series([value], dtype=object)})
    assert strict_json(tables.to_json(frame)) == [{"x": plain}]


@pytest.mark.parametrize(
    ("moments", "text"),
    [
        (pd.Series([datetime(2026, 11, 23, 4, 9)]), "2026-11-23T04:09:00Z"),
        (pd.Series([datetime(2026, 11, 23, 4, 9, tzinfo=UTC)]), "2026-11-23T04:09:00Z"),
        (
            pd.Series([pd.Timestamp("2026-11-23 04:09", tz="Asia/Taipei")]),
            "2026-11-22T20:09:00Z",
        ),
        (pd.Series([pd.Timestamp("2026-11-23 04:09:00.5")]), "2026-11-23T04:09:00.500000Z"),
    ],
    ids=["naive is UTC", "UTC", "another zone", "with a fraction"],
)
def test_times_are_iso_8601_in_utc(moments, text):
    frame = pd.DataFrame({"x": moments})
    assert strict_json(tables.to_json(frame)) == [{"x": text}]
    assert rows_of(tables.to_csv(frame))[1] == [text]
    assert cells_of(tables.to_table(frame)) == [text]


def test_integers_with_gaps_stay_integers():
    frame = pd.DataFrame({"x": pd.array([2**60 + 1, None], dtype="Int64")})
    assert strict_json(tables.to_json(frame)) == [{"x": 2**60 + 1}, {"x": None}]
    assert rows_of(tables.to_csv(frame))[1:] == [[str(2**60 + 1)], [""]]


def test_a_list_in_csv_is_its_json():
    frame = pd.DataFrame({"shape": [np.array([64, 1, 3, 3])]})
    assert rows_of(tables.to_csv(frame))[1] == ["[64, 1, 3, 3]"]


def test_parquet_keeps_types(tmp_path):
    table = pa.table({"shape": [[64, 3]], "big": pa.array([2**60 + 1])})
    tables.write_parquet(table, tmp_path / "x.parquet")
    assert parquet.read_table(tmp_path / "x.parquet").equals(table)

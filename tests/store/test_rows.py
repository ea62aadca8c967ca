"""Columns go into a table as they are, whatever they begin with."""

import math
from datetime import datetime

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantstore.store.connection import CONFIG
from quantstore.store.rows import insert

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**63), 2**63 - 1)
FIGURES = st.floats(allow_nan=False, allow_infinity=False)
KINDS = {
    "varchar": TEXT,
    "bigint": NUMBERS,
    "boolean": st.booleans(),
    "double": FIGURES,
    "timestamp": st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),
    "blob": st.binary(),
    "varchar[]": st.lists(TEXT, max_size=3).map(tuple),
    "bigint[]": st.lists(NUMBERS, max_size=3).map(tuple),
}


def inserted(sql_type, values):
    """What a table of one column holds after values were inserted, in their order."""
    with duckdb.connect(config=dict(CONFIG)) as connection:
        connection.execute(f"create table figures (place integer, figure {sql_type})")
        insert(connection, "figures", {"figure": values, "place": range(len(values))})
        rows = connection.execute("select place, figure from figures").fetchall()
        assert [place for place, _ in rows] == list(range(len(values)))
        return [figure for _, figure in rows]


@pytest.mark.parametrize("sql_type", KINDS)
@given(data=st.data())
@pytest.mark.slow
def test_every_kind_of_cell_comes_back_as_it_was(sql_type, data):
    cells = st.none() | KINDS[sql_type]
    values = data.draw(st.lists(cells, min_size=1, max_size=6))
    expected = [list(value) if isinstance(value, tuple) else value for value in values]
    assert inserted(sql_type, values) == expected


@pytest.mark.parametrize("nothing", [1, 3000])
@pytest.mark.parametrize(
    ("sql_type", "value"),
    [
        ("varchar", "nan"),
        ("bigint", 2**62 + 1),
        ("boolean", True),
        ("double", 0.1),
        ("timestamp", datetime(2026, 1, 2, 3, 4, 5, 6)),
        ("blob", b"\x00\xff'"),
        ("varchar[]", ("it's", 'a "b", c', "")),
        ("integer[]", (3, 1)),
    ],
)
def test_a_column_may_begin_with_nothing(sql_type, value, nothing):
    expected = list(value) if isinstance(value, tuple) else value
    assert inserted(sql_type, [None] * nothing + [value]) == [None] * nothing + [expected]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_defined_is_null(dtype):
    values = np.array([1.5, np.nan, np.inf, -np.inf, -0.25], dtype=dtype)
    expected = [1.5, None, None, None, -0.25]
    assert inserted("double", values) == expected
    assert inserted("double", values.tolist()) == expected
    assert inserted("double", [None, math.nan, 2, 0.5]) == [None, None, 2.0, 0.5]
    assert inserted("double[]", [values, values[:1]]) == [expected, [1.5]]


@pytest.mark.slow
@given(
    st.lists(
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5).map(
            lambda items: np.array(items, dtype=np.int64)
        ),
        min_size=1,
        max_size=5,
    )
)
def test_arrays_keep_their_items_in_order(arrays):
    assert inserted("bigint[]", arrays) == [array.tolist() for array in arrays]


def test_many_arrays_of_many_items_keep_their_order():
    random = np.random.default_rng(0)
    arrays = [random.normal(size=size) for size in random.integers(0, 300, size=3000)]
    assert inserted("double[]", arrays) == [array.tolist() for array in arrays]


def test_a_failed_insert_leaves_nothing_behind():
    with duckdb.connect(config=dict(CONFIG)) as connection:
        connection.execute("create table figures (figure double[])")
        with pytest.raises(duckdb.Error):
            insert(connection, "figures", {"other": [np.array([1.0])]})
        assert connection.execute("from duckdb_views() where not internal").fetchall() == []

"""Which statements only read: told by DuckDB's own parser, before anything runs."""

import duckdb
import pytest

from quantstore.errors import RejectedQueryError
from quantstore.store.statements import only_select

PIVOT = "pivot orders on kind using sum(amount)"


@pytest.fixture(scope="module")
def connection():
    with duckdb.connect() as opened:
        opened.execute("create table orders (kind varchar, amount int)")
        opened.execute("create table taken (amount int)")
        yield opened


@pytest.mark.parametrize(
    "sql",
    [
        *("from orders", "select 1;", "values (1)", "table orders", "describe orders"),
        *("show tables", "summarize orders", "explain select 1", "explain analyze from orders"),
        *("explain (analyze, format json) from orders", "explain /* x */ analyze from orders"),
        *(PIVOT, f"{PIVOT};", f"({PIVOT})", f"from ({PIVOT})", f"with x as ({PIVOT}) from x"),
        *(f"/* x */ {PIVOT}", f"-- x\n{PIVOT}; -- y", f"describe {PIVOT}", f"explain {PIVOT}"),
        *(f"explain analyze {PIVOT}", f"/* x */ explain /* y */ analyze {PIVOT}"),
        f"select 'é;' from ({PIVOT}) -- é",
        *('select \'copy\', "insert" from (select 1 as "insert")', "select 1 as copy"),
        "with copy as (from orders) select * from copy union all from orders",
        "with recursive t as (select 1 as n union all select n + 1 from t where n < 9) from t",
    ],
)
def test_what_reads_is_let_through(connection, sql):
    assert only_select(connection, sql).query.strip().startswith(sql[:4])


@pytest.mark.parametrize(
    ("prefix", "remark"),
    [
        pytest.param(prefix, remark, marks=() if prefix == remark == "" else pytest.mark.slow)
        for prefix in ("", "explain ", "explain analyze ", "explain (analyze) ")
        for remark in ("", "/* from orders */ ", "/* ééééé */ ", "-- x\n")
    ],
)
@pytest.mark.parametrize(
    "sql",
    [
        *("copy orders to 'x.csv'", f"copy ({PIVOT}) to 'x.csv'", f"create table x as {PIVOT}"),
        *(f"with x as ({PIVOT}) delete from taken", f"insert into taken {PIVOT}"),
        f"with x as ({PIVOT}) insert into taken select 1 from x",
        f"with x as ({PIVOT}) update taken set amount = 1",
        f"with x as ({PIVOT}) merge into taken using x on true when matched then delete",
        *("export database 'x'", "attach 'x'", "delete from orders", "drop table orders"),
        f"copy ({PIVOT}) to 'x.csv' -- from orders",
        "with x as (copy orders to 'x.csv') from x",
        f"with x as (copy orders to 'x.csv'), y as ({PIVOT}) from y",
        "select (with x as materialized (copy orders to 'x.csv') select count(*) from x)",
        "from orders where amount in (with x as (delete from taken returning amount) from x)",
        "with x as (with y as (from taken) insert into taken from y returning *) from x",
        "(with x as (update taken set amount = 1 returning *) from x)",
        "select 1 union all (with x as (COPY orders TO 'x.csv') select 1)",
        "explain analyze with x as (copy orders to 'x.csv') from x",
        "with x as (copy/**/orders to 'x.csv') select '\"type\":\"SELECT_NODE\"' from x",
    ],
)
def test_what_writes_is_refused_behind_explain_remarks_and_pivots(connection, prefix, remark, sql):
    for text in (f"{remark}{prefix}{sql}", f"{prefix}{remark}{sql}"):
        with pytest.raises((RejectedQueryError, duckdb.ParserException)):
            only_select(connection, text)


@pytest.mark.parametrize("length", range(40))
def test_bytes_are_not_taken_for_characters(connection, length):
    """DuckDB counts bytes: a remark of two-byte letters must not hide what stands behind it."""
    for source in ("orders", f"({PIVOT})"):
        sql = f"explain analyze /*{'é' * length}*/ copy {source} to 'x.csv' -- from orders"
        with pytest.raises(RejectedQueryError):
            only_select(connection, sql)

"""The SQL page as a person types in it: completion, the schema, running, cancelling."""

import re

import pytest

from tests.support.browsing import Visitor, expect

# Minutes of work for DuckDB, and no way to be quick about it.
ENDLESS = "select count(*) from range(900000) as a, range(900000) as b where a.range % 7 < b.range"


@pytest.fixture
def sql(visit, full_app: str) -> Visitor:
    """The page as it opens."""
    visitor: Visitor = visit(full_app)
    visitor.open("/sql")
    visitor.shows("rows in")
    return visitor


def box(visitor: Visitor):
    return visitor.page.get_by_role("textbox", name="SQL query")


def options(visitor: Visitor) -> list[str]:
    found = visitor.page.get_by_role("option")
    expect(found.first).to_be_visible()
    return [one.locator(".name").inner_text() for one in found.all()]


@pytest.mark.slow
def test_names_are_completed_from_the_keyboard_and_the_statement_runs(sql) -> None:
    box(sql).fill("")
    box(sql).press_sequentially("select model, layers_b")
    # Nothing says yet which table is meant.
    assert options(sql)[0] == "layers_broken"
    box(sql).press("Tab")
    expect(box(sql)).to_have_value("select model, layers_broken")
    box(sql).press_sequentially(" from verd")
    assert options(sql) == ["verdicts"]
    box(sql).press("Enter")
    box(sql).press_sequentially(" as v where v.ev")
    assert options(sql) == ["evidence"]
    box(sql).press("Escape")
    expect(sql.page.get_by_role("option")).to_have_count(0)
    box(sql).press("Control+Space")
    box(sql).press("Enter")
    expect(box(sql)).to_have_value(
        "select model, layers_broken from verdicts as v where v.evidence"
    )
    box(sql).press_sequentially(" = 'weights' order by lay")
    # What the statement speaks of comes first, and arrows choose.
    first, second, *_ = options(sql)
    box(sql).press("ArrowDown")
    box(sql).press("Enter")
    expect(box(sql)).to_have_value(re.compile(rf" order by {second}$"))
    assert (first, second) == ("layers_broken", "layers_at_risk")
    # A completed name is undone like a typed one.
    box(sql).press("Control+z")
    expect(box(sql)).not_to_have_value(re.compile(rf" order by {second}$"))
    box(sql).press_sequentially(" desc limit 3")
    box(sql).fill(f"{box(sql).input_value().split(' order by')[0]} limit 3")
    box(sql).press("Control+Enter")
    sql.shows("3 rows")
    sql.settle()
    sql.reaches("query", box(sql).input_value())
    sql.screenshot("sql-completed")
    sql.leaves_no_trace()


@pytest.mark.slow
def test_nothing_is_suggested_inside_of_text_and_comments(sql) -> None:
    for statement in ("select 'mod", "-- from mod", "select 12"):
        box(sql).fill("")
        box(sql).press_sequentially(statement)
        sql.page.wait_for_timeout(100)
        expect(sql.page.get_by_role("option")).to_have_count(0)
    sql.leaves_no_trace()


@pytest.mark.slow
def test_a_click_in_the_schema_goes_where_the_cursor_is(sql) -> None:
    box(sql).fill("select  from verdicts")
    box(sql).evaluate("box => box.setSelectionRange(7, 7)")
    sql.page.get_by_role("searchbox", name="Find a table or column").fill("worst_layer")
    sql.page.get_by_role("button", name="Insert worst_layer, text").first.click()
    expect(box(sql)).to_have_value("select worst_layer from verdicts")
    expect(box(sql)).to_be_focused()
    sql.page.get_by_role("button", name="Run", exact=True).click()
    sql.shows(re.compile(r"\d+\srows in"))
    sql.leaves_no_trace()


@pytest.mark.slow
def test_a_slow_statement_is_cancelled_while_the_page_stays_usable(sql) -> None:
    box(sql).fill(ENDLESS)
    box(sql).press("Control+Enter")
    sql.shows("of 30 seconds")
    box(sql).press_sequentially(" -- still here")
    sql.page.get_by_role("button", name="Cancel").click()
    sql.shows("Cancelled. Run the query again")
    sql.settle()
    expect(box(sql)).to_have_value(f"{ENDLESS} -- still here")
    sql.page.get_by_role("button", name="History").click()
    sql.page.get_by_role("button", name="rows in").first.click()
    sql.shows("rows in")
    sql.settle()
    expect(box(sql)).to_have_value(re.compile("Who survives"))
    sql.leaves_no_trace()

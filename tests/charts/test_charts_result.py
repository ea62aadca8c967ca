"""Columns of a result that somebody chose to draw."""

import pandas as pd
import pytest

from quantstore.charts import result as charts
from quantstore.charts.palette import LIGHT


def some_rows():
    return pd.DataFrame(
        {
            "model": ["a", "a", "b"],
            "depth": [1, 2, 3],
            "sqnr_db": [10.5, None, 30.0],
            "band": ["at risk", "watch", "fine"],
        }
    )


def drawn(frame=None, **chosen):
    chosen = {"mark": "dots", "x": "depth", "y": "sqnr_db", "colour": None} | chosen
    return charts.drawn_as(some_rows() if frame is None else frame, LIGHT, **chosen)


def spec(**chosen):
    return drawn(**chosen).chart.to_dict()


@pytest.mark.parametrize(
    ("mark", "drawn_mark"), [("bars", "bar"), ("dots", "circle"), ("lines", "line")]
)
def test_a_mark_is_the_one_chosen(mark, drawn_mark):
    assert spec(mark=mark)["mark"]["type"] == drawn_mark


def test_numbers_lie_across_and_text_goes_down():
    across = spec()["encoding"]
    assert (across["x"]["field"], across["x"]["type"]) == ("x", "quantitative")
    assert across["y"]["title"] == "sqnr_db, in dB"
    down = spec(x="model", mark="bars")["encoding"]
    assert (down["y"]["field"], down["x"]["field"]) == ("row", "y")


def test_time_lies_across():
    frame = some_rows().assign(depth=pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-03"]))
    assert drawn(frame).chart.to_dict()["encoding"]["x"]["type"] == "temporal"


def test_what_is_missing_is_not_drawn_and_said():
    chart = spec()
    (rows,) = chart["datasets"].values()
    assert [row["x"] for row in rows] == [1, 3]
    assert drawn().caption == "sqnr_db over depth; 2 of 3\u00a0rows drawn."


def test_bands_have_their_own_colours_the_worst_first():
    scale = spec(colour="band", y="depth")["encoding"]["color"]["scale"]
    assert scale["domain"] == ["at risk", "watch", "fine"]
    assert scale["range"] == [LIGHT.bands[band].fill for band in scale["domain"]]


def test_a_few_groups_have_colours_and_many_have_none_and_that_is_said():
    assert spec(colour="model")["encoding"]["color"]["scale"]["range"] == list(LIGHT.models[:2])
    many = pd.DataFrame(
        {"depth": range(9), "sqnr_db": range(9), "name": [f"m{n}" for n in range(9)]}
    )
    found = drawn(many, colour="name")
    assert set(found.chart.to_dict()["encoding"]["color"]["scale"]["range"]) == {LIGHT.bar}
    assert found.caption.endswith(charts.too_many_for_colours("name", 9))


def test_rows_that_share_a_place_are_said_to_be_stacked():
    assert "stacked" in drawn(x="model", y="depth", mark="bars").caption
    assert "stacked" not in drawn(x="depth", y="depth", mark="bars").caption


def test_names_of_columns_and_values_are_no_expressions():
    frame = pd.DataFrame({"a.b[0]'": ["x'];alert(1)", "y"], "n%": [1, 2]})
    chart = charts.drawn_as(frame, LIGHT, mark="bars", x="a.b[0]'", y="n%", colour="a.b[0]'")
    fields = {
        channel["field"]
        for channel in chart.chart.to_dict()["encoding"].values()
        if "field" in channel
    }
    assert fields == {"row", "y", "group", "x_words"}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["model", "sqnr_db", "band"], charts.Suited("model", "sqnr_db", "band")),
        (["depth", "sqnr_db"], charts.Suited("depth", "sqnr_db", None)),
        (["band", "depth"], charts.Suited("depth", "depth", "band")),
    ],
)
def test_what_suits_is_chosen_by_type(columns, expected):
    assert charts.suited(some_rows()[columns]) == expected

"""What the worked example and the quick chart of a result draw: positions, words, colours."""

import json

import numpy as np
import pandas as pd
import pytest

from quantstore.charts import example as charts
from quantstore.charts import result
from quantstore.charts.palette import DARK, LIGHT
from quantstore.charts.result import quick_chart
from quantstore.schemes import Scheme
from quantstore.wording import worked_example

ARTICLE = worked_example.parse_values(worked_example.ARTICLE_VALUES)


def worked(values=ARTICLE, bits=8, is_symmetric=False):
    return worked_example.work_out(values, Scheme("any", bits, "tensor", is_symmetric))


def data_of(chart):
    """Rows of each layer, as they go to the browser."""
    specification = chart.to_dict()
    layers = specification.get("layer", [specification])
    sets = specification["datasets"]
    shared = specification.get("data")
    return [sets[layer.get("data", shared)["name"]] for layer in layers]


def marks_of(chart):
    """Mark type and rows of each layer."""
    specification = chart.to_dict()
    layers = specification.get("layer", [specification])
    kinds = [
        mark if isinstance(mark, str) else mark["type"]
        for mark in (layer["mark"] for layer in layers)
    ]
    return list(zip(kinds, data_of(chart), strict=True))


def texts_of(chart):
    return [row["text"] for kind, rows in marks_of(chart) if kind == "text" for row in rows]


def whole(example, enlarged=None, palette=LIGHT):
    codes = range(example.scheme.qmin, example.scheme.qmax + 1)
    grid = worked_example.grid_points(example, codes)
    return charts.whole_line(worked_example.points(example), grid, enlarged, palette)


def enlarged(example, palette=LIGHT):
    codes = worked_example.enlarged_codes(example)
    points = worked_example.points(example)
    points = points[points["code"].isin(codes)]
    grid = worked_example.grid_points(example, codes)
    return charts.enlarged_line(points, grid, "0.85", palette)


def test_the_whole_line_has_a_tick_for_each_code_and_a_mark_for_each_value():
    drawn = marks_of(whole(worked()))
    assert [len(rows) for kind, rows in drawn if kind == "rule"] == [1, 256, 6]
    returns, values = (rows for kind, rows in drawn if kind == "point")
    assert [row["at"] for row in values] == list(ARTICLE)
    assert [round(row["at"], 2) for row in returns] == [-51.03, 165.84, 0, 0, 0.85, 0.85]


def test_values_too_close_for_labels_of_their_own_share_one():
    assert texts_of(whole(worked())) == [
        "−51.35",
        "4 values",
        "165.52",
        "code 0",
        "code 60 is zero",
        "code 255",
    ]


def test_the_stretch_that_is_enlarged_is_shaded_as_one_piece():
    example = worked()
    (kind, rows), *_ = marks_of(whole(example, worked_example.enlarged_codes(example)))
    assert kind == "rect"
    (stretch,) = rows
    assert (round(stretch["at"], 2), round(stretch["end"], 2)) == (-1.28, 2.13)


def test_the_enlarged_line_tints_what_ends_up_in_one_place():
    (kind, zones), *_ = marks_of(enlarged(worked()))
    assert kind == "rect"
    assert [round(zone["at"], 3) for zone in zones] == [-0.425, 0.425]
    assert [zone["colour"] for zone in zones] == [tint for _, tint in LIGHT.merged[:2]]


def test_each_label_of_the_enlarged_line_keeps_clear_of_its_neighbour():
    chart = enlarged(worked())
    labels = next(rows for kind, rows in marks_of(chart) if kind == "text")
    assert [row["text"] for row in labels] == ["−0.4", "0.4", "0.5", "1.2"]
    assert [row["level"] for row in labels] == [0, 0, 1, 0]
    assert "one step, s = 0.85" in texts_of(chart)


def test_merged_values_have_one_colour_per_group_in_either_theme():
    for palette in (LIGHT, DARK):
        values = next(
            rows
            for kind, rows in reversed(marks_of(whole(worked(), palette=palette)))
            if kind == "point"
        )
        first, second = palette.merged[0][0], palette.merged[1][0]
        assert [row["colour"] for row in values] == [
            palette.muted,
            palette.muted,
            first,
            first,
            second,
            second,
        ]


def test_more_groups_than_colours_still_get_one():
    values = [position + offset for position in (1, 20, 40, 60, 80, 100) for offset in (0, 0.01)]
    colours = {row["colour"] for row in data_of(whole(worked(values)))[-3]}
    assert colours == {ink for ink, _ in LIGHT.merged}


@pytest.mark.slow
@pytest.mark.parametrize("values", [(0.0,), (3.0,), (-1e30, 1e30), (1e-42, 2e-42), (5.0,) * 9])
@pytest.mark.parametrize("is_symmetric", [True, False])
def test_odd_values_draw_as_well(values, is_symmetric):
    example = worked(values, is_symmetric=is_symmetric)
    assert "NaN" not in json.dumps(whole(example).to_dict())
    if worked_example.enlarged_codes(example) is not None:
        assert "NaN" not in json.dumps(enlarged(example).to_dict())


def drawn(frame):
    found = quick_chart(frame, LIGHT)
    assert found.chart is not None, found.caption
    return found.chart.to_dict(), found.caption


def rows_of(specification):
    return max(specification["datasets"].values(), key=len)


def test_text_and_a_number_make_bars_in_the_order_of_the_rows():
    frame = pd.DataFrame({"model": ["b", "a"], "layers": [3, 7], "other": [1.5, 2.5]})
    specification, words = drawn(frame)
    assert specification["layer"][0]["mark"]["type"] == "bar"
    assert [(row["label"], row["value"]) for row in rows_of(specification)] == [("b", 3), ("a", 7)]
    assert words == "layers of each row."


def test_bars_are_named_by_as_many_columns_as_it_takes():
    frame = pd.DataFrame({"model": ["a", "a", "b"], "layer": ["x", "y", "x"], "n": [1, 2, 3]})
    specification, _ = drawn(frame)
    assert [row["label"] for row in rows_of(specification)] == ["a · x", "a · y", "b · x"]


def test_a_band_colours_the_rows_and_does_not_name_them():
    frame = pd.DataFrame({"band": ["broken", "fine"], "model": ["a", "b"], "n": [1, 2]})
    rows = rows_of(drawn(frame)[0])
    assert [row["label"] for row in rows] == ["a", "b"]
    assert [row["colour"] for row in rows] == [LIGHT.bands["broken"].fill, LIGHT.bands["fine"].fill]


def test_another_column_called_verdict_colours_nothing():
    frame = pd.DataFrame({"verdict": ["guilty", "free"], "n": [1, 2]})
    assert {row["colour"] for row in rows_of(drawn(frame)[0])} == {LIGHT.bar}


def test_text_that_repeats_beside_counts_makes_a_row_of_dots_for_each():
    frame = pd.DataFrame({"model": ["a", "a", "b"], "range_from": [0, 5, 0], "layers": [9, 2, 4]})
    specification, words = drawn(frame)
    assert specification["mark"]["type"] == "circle"
    assert [(row["row"], row["x"], row["size"]) for row in rows_of(specification)] == [
        (0, 0, 9),
        (0, 5, 2),
        (1, 0, 4),
    ]
    assert words == "A row for each model, dots along range_from, as large as layers."


def test_two_columns_of_numbers_make_a_scatter_with_units():
    frame = pd.DataFrame({"weight_range": [1.0, 2.0, np.inf], "sqnr_db": [30.0, 20.0, 10.0]})
    specification, words = drawn(frame)
    assert specification["encoding"]["y"]["title"] == "sqnr_db, in dB"
    assert len(rows_of(specification)) == 2
    assert words == "sqnr_db over weight_range; 2 of 3\u00a0rows drawn."


def test_quartiles_make_boxes():
    frame = pd.DataFrame(
        {
            "channel": [4, 5],
            "q1": [-1, -2],
            "median": [0, 0],
            "q3": [1, 2],
            "whisker_low": [-2, -4],
            "whisker_high": [2, 4],
            "weight_min": [-2, -9],
            "weight_max": [2, 4],
        }
    )
    specification, words = drawn(frame)
    kinds = [layer["mark"]["type"] for layer in specification["layer"]]
    assert kinds == ["rule", "circle", "circle", "bar", "tick"]
    assert words.startswith("A box for each channel")


def test_a_chart_never_draws_more_than_some_hundreds_of_marks():
    many = pd.DataFrame({"x": np.arange(9000.0), "y": np.arange(9000.0)})
    assert len(rows_of(drawn(many)[0])) == result.MOST_DOTS
    named = pd.DataFrame({"name": [f"n{i}" for i in range(300)], "y": np.arange(300.0)})
    specification, words = drawn(named)
    assert len(rows_of(specification)) == result.MOST_BARS
    assert words == "y of each row; 60 of 300\u00a0rows drawn."


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (pd.DataFrame({"n": []}), result.NO_ROWS),
        (
            pd.DataFrame({"name": ["a"], "is": [True]}),
            result.NEEDS_NUMBERS,
        ),
        (
            pd.DataFrame({"n": [1, 2]}),
            result.NEEDS_ANOTHER_COLUMN,
        ),
        (
            pd.DataFrame({"n": pd.array([None, None], dtype="Int64"), "name": ["a", "b"]}),
            result.NEEDS_NUMBERS,
        ),
    ],
)
def test_what_cannot_be_drawn_says_what_it_needs(frame, words):
    found = quick_chart(frame, LIGHT)
    assert (found.chart, found.caption) == (None, words)


def test_names_stay_text_inside_the_expressions_of_a_chart():
    hostile = '"]+alert(1)+["'
    frame = pd.DataFrame({"name": [hostile, "b"], "datum['x']": [1, -2]})
    specification, _ = drawn(frame)
    expression = specification["layer"][0]["encoding"]["y"]["axis"]["labelExpr"]
    labels, _, rest = expression.partition("}")
    assert json.loads(labels + "}") == {"0": hostile, "1": "b"}
    assert rest == "[datum.value]"
    fields = {
        channel["field"]
        for layer in specification["layer"]
        for channel in layer["encoding"].values()
        if isinstance(channel, dict) and "field" in channel
    }
    assert fields <= {"row", "value", "label", "colour", "words", "text_at"}

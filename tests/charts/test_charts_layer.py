"""What the Layer page draws: boxes and zone from the stored numbers, in the colour of the band."""

import json

import numpy as np
import pandas as pd
import pytest

from quantstore.charts import clipping, codes
from quantstore.charts import layer as charts
from quantstore.charts.palette import DARK, LIGHT
from quantstore.schemes import (
    INT8_CHANNEL_SYMMETRIC,
    INT8_TENSOR_ASYMMETRIC,
    INT8_TENSOR_SYMMETRIC,
)

BANDS_OF_THREE = ["fine", "at risk", "broken"]


def some_channels(count=3, **columns):
    """Channel n spans -(n + 1) to n + 1, with quartiles at half of that."""
    width = np.arange(1, count + 1, dtype=float)
    frame = {
        "first": np.arange(count),
        "last": np.arange(count),
        "place": np.arange(count),
        "channels": np.ones(count, dtype=int),
        "weight_min": -width,
        "whisker_low": -0.8 * width,
        "q1": -0.5 * width,
        "median": 0.1 * width,
        "q3": 0.5 * width,
        "whisker_high": width,
        "weight_max": width,
        "weight_range": 2 * width,
        "outlier_count": np.ones(count, dtype=int),
        "is_outlier": [False] * count,
        "sqnr_db": np.linspace(45, 5, count),
        "zeroed_fraction": np.linspace(0, 1, count),
        "band": [BANDS_OF_THREE[n % 3] for n in range(count)],
    }
    return pd.DataFrame({**frame, **columns})


def histogram_of(values, bins=2048):
    counts, edges = np.histogram(values, bins)
    return pd.DataFrame(
        {"bin": range(bins), "bin_low": edges[:-1], "bin_high": edges[1:], "weights": counts}
    )


def boxes(channels, *, order="by index", axis="linear", step=None, palette=LIGHT):
    return charts.channel_boxes(channels, palette, order=order, axis=axis, step=step).to_dict()


def marks(chart, kind):
    return [layer for layer in chart["layer"] if layer["mark"]["type"] == kind]


def rows_of(chart, layer):
    name = layer.get("data", chart.get("data"))["name"]
    return chart["datasets"][name]


def encoded(layer, *channels):
    return [layer["encoding"][channel]["field"] for channel in channels]


def the_box(chart):
    """The rectangle from quartile to quartile."""
    (found,) = [mark for mark in marks(chart, "rect") if mark["encoding"]["y"].get("field") == "q1"]
    return found


# Channels


def test_a_box_reaches_from_quartile_to_quartile_in_the_colour_of_its_channels_band():
    chart = boxes(some_channels())
    box = the_box(chart)
    assert encoded(box, "y", "y2", "color") == ["q1", "q3", "band"]
    drawn = rows_of(chart, box)
    assert [(row["q1"], row["q3"]) for row in drawn] == [(-0.5, 0.5), (-1, 1), (-1.5, 1.5)]
    assert [row["band"] for row in drawn] == BANDS_OF_THREE
    scale = box["encoding"]["color"]["scale"]
    assert dict(zip(scale["domain"], scale["range"], strict=True))["broken"] == (
        LIGHT.bands["broken"].fill
    )


def test_whiskers_end_at_the_fences_and_dots_lie_only_beyond_them():
    chart = boxes(some_channels())
    assert encoded(marks(chart, "rule")[0], "y", "y2") == ["whisker_low", "whisker_high"]
    (dots,) = marks(chart, "point")
    # The upper whisker reaches the largest weight, the lower one stops short of the smallest.
    assert [row["extreme"] for row in rows_of(chart, dots)] == [-1, -2, -3]


@pytest.mark.parametrize("step", [0.5, 3.0])
def test_the_grey_zone_is_half_a_step_on_either_side_of_zero(step):
    chart = boxes(some_channels(), step=step)
    zone = chart["layer"][0]
    assert zone["mark"]["color"] == LIGHT.zero_zone
    assert rows_of(chart, zone) == [{"low": -step / 2, "high": step / 2}]


def test_channels_with_grids_of_their_own_have_no_shared_zone():
    fills = [mark["mark"].get("color") for mark in marks(boxes(some_channels()), "rect")]
    assert LIGHT.zero_zone not in fills


def test_axes_say_what_they_measure():
    chart = boxes(some_channels())
    encoding = the_box(chart)["encoding"]
    assert encoding["y"]["title"] == "weight"
    assert encoding["x"]["title"] == "output channel"
    below = charts.channel_sqnr(some_channels(), LIGHT, order="by index").to_dict()
    assert marks(below, "rect")[0]["encoding"]["y"]["title"] == "SQNR, dB"


def test_widest_first_names_the_channels_in_that_order():
    chart = boxes(some_channels().iloc[::-1], order="widest first")
    assert [row["first"] for row in rows_of(chart, the_box(chart))] == [2, 1, 0]
    axis = the_box(chart)["encoding"]["x"]["axis"]
    labels = json.loads(axis["labelExpr"].removesuffix("[datum.value]"))
    assert labels == {"0": "2", "1": "1", "2": "0"}


@pytest.mark.parametrize(("count", "is_compact"), [(128, False), (129, True)])
def test_beyond_128_channels_a_column_in_three_shades_replaces_the_box(count, is_compact):
    chart = boxes(some_channels(count))
    shades = {
        tuple(encoded(mark, "y", "y2")): mark["mark"].get("opacity")
        for mark in marks(chart, "rect")
        if "field" in mark["encoding"]["y"]
    }
    assert (("weight_min", "weight_max") in shades) is is_compact
    if is_compact:
        assert shades == {
            ("weight_min", "weight_max"): 0.28,
            ("whisker_low", "whisker_high"): 0.5,
            ("q1", "q3"): 1.0,
        }
        assert not marks(chart, "rule")


def test_a_column_of_several_channels_says_which():
    together = some_channels(2).assign(first=[0, 4], last=[3, 7], channels=4)
    chart = boxes(together)
    said = [row["said_channel"] for row in rows_of(chart, the_box(chart))]
    assert said == ["channels 0 to 3", "channels 4 to 7"]
    by_width = boxes(together, order="widest first")
    assert rows_of(by_width, the_box(by_width))[0]["said_channel"] == (
        "4 channels of similar width, including 0"
    )


def test_a_stretch_can_be_dragged_over_where_the_page_wants_it():
    def selections(can_zoom):
        drawn = charts.channel_boxes(
            some_channels(), LIGHT, order="by index", axis="linear", step=None, can_zoom=can_zoom
        ).to_dict()
        return [one["select"] for one in drawn.get("params", []) if one["name"] == charts.ZOOM]

    assert selections(True) == [{"type": "interval", "encodings": ["x"]}]
    assert selections(False) == []


def test_every_slot_answers_the_pointer_in_finished_words():
    chart = boxes(some_channels())
    (hover,) = [mark for mark in marks(chart, "rect") if "tooltip" in mark["encoding"]]
    assert all(field["type"] == "nominal" for field in hover["encoding"]["tooltip"])
    last = rows_of(chart, hover)[2]
    assert last["said_channel"] == "channel 2"
    assert last["said_sqnr"] == "5.0\u00a0dB, broken"
    assert last["said_zeroed"] == "100\u00a0%"
    assert last["said_range"] == "6.00, from −3.00 to 3.00"
    assert hover["encoding"]["description"]["field"] == "said"


def test_outlier_channels_are_marked_unless_there_are_too_many_or_they_come_first():
    few = some_channels(is_outlier=[False, True, False])
    triangles = [
        mark for mark in marks(boxes(few), "point") if mark["mark"].get("shape") == "triangle-down"
    ]
    assert [row["first"] for row in rows_of(boxes(few), triangles[0])] == [1]
    assert not charts.marks_outliers(few, "widest first")
    assert not charts.marks_outliers(some_channels(50, is_outlier=[True] * 50), "by index")


def test_symlog_starts_where_the_widest_channel_is_eight_times_a_typical_one():
    assert charts.default_axis(8.0) == "linear"
    assert charts.default_axis(8.1) == "symlog"
    assert charts.default_axis(None) == charts.default_axis(float("nan")) == "linear"


def test_a_symlog_axis_bends_outside_typical_boxes_and_keeps_its_ticks_apart():
    wide = some_channels(weight_max=[1.0, 2.0, 3000.0], whisker_high=[1.0, 2.0, 3.0])
    y = the_box(boxes(wide, axis="symlog", step=0.5))["encoding"]["y"]
    # Twice the 75th percentile of the interquartile ranges 1, 2 and 3.
    assert y["scale"]["constant"] == 5.0
    assert y["scale"]["domain"][1] > 3000
    ticks = y["axis"]["values"]
    assert 0 in ticks
    assert 1000 in ticks
    assert 0.1 not in ticks


def test_sqnr_bars_hang_from_40_db_and_a_better_channel_has_none():
    chart = charts.channel_sqnr(some_channels(), LIGHT, order="by index").to_dict()
    bars = marks(chart, "rect")[0]
    assert encoded(bars, "y", "y2") == ["hang", "bottom"]
    drawn = rows_of(chart, bars)
    assert [(row["first"], row["hang"], row["bottom"]) for row in drawn] == [
        (1, 40, 25),
        (2, 40, 5),
    ]


def test_both_charts_of_the_channels_leave_the_same_room_for_their_axis():
    above = the_box(boxes(some_channels()))["encoding"]["y"]["axis"]
    chart = charts.channel_sqnr(some_channels(), LIGHT, order="by index").to_dict()
    below = marks(chart, "rect")[0]["encoding"]["y"]["axis"]
    for axis in (above, below):
        assert axis["minExtent"] == axis["maxExtent"] == 58


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["linear", "symlog"])
@pytest.mark.parametrize("order", charts.ORDERS)
@pytest.mark.parametrize(
    "channels",
    [
        some_channels(1),
        some_channels(2).assign(
            **dict.fromkeys(
                ["weight_min", "whisker_low", "q1", "median", "q3", "whisker_high"], 0.0
            ),
            weight_max=0.0,
            weight_range=0.0,
            sqnr_db=np.nan,
            band="fine",
        ),
    ],
    ids=["one channel", "all zero"],
)
def test_odd_layers_still_give_finite_axes(channels, order, axis):
    chart = boxes(channels, order=order, axis=axis, step=1.0)
    domain = the_box(chart)["encoding"]["y"]["scale"]["domain"]
    assert np.isfinite(domain).all()
    assert domain[0] < domain[1]
    assert len(rows_of(chart, the_box(chart))) == len(channels)
    charts.channel_sqnr(channels, DARK, order=order).to_dict()


def test_charts_carry_the_colours_of_the_theme():
    light, dark = boxes(some_channels()), boxes(some_channels(), palette=DARK)
    assert light["config"]["axis"]["labelColor"] == LIGHT.muted
    assert dark["config"]["axis"]["labelColor"] == DARK.muted
    assert the_box(dark)["encoding"]["color"]["scale"]["range"] == DARK.band_fills


# Codes


def test_weights_count_for_the_code_that_their_bin_rounds_to():
    weights = np.array([-127, -127, -1, 0, 0, 0, 1, 2, 64, 127], dtype=float)
    grid = codes.shared_grid(-127, 127, INT8_TENSOR_SYMMETRIC)
    per_code = codes.weights_per_code(histogram_of(weights), grid)
    assert dict(per_code.itertuples(index=False)) == {
        -127: 2,
        -1: 1,
        0: 3,
        1: 1,
        2: 1,
        64: 1,
        127: 1,
    }
    assert codes.codes_holding(per_code, 0.5) == 2
    assert codes.codes_holding(per_code, 1.0) == 7


def test_a_grid_per_channel_has_no_codes_to_share():
    with pytest.raises(ValueError, match="grid per channel"):
        codes.shared_grid(-1, 1, INT8_CHANNEL_SYMMETRIC)


def test_the_bulk_lies_within_three_iqr_of_the_quartiles_and_within_the_weights():
    assert codes.bulk_of(-1, 1, -100, 100) == (-7, 7)
    assert codes.bulk_of(-1, 1, -2, 100) == (-2, 7)
    assert codes.bulk_of(0, 0, -5, 5) == (-5, 5)


def test_a_code_is_one_bar_and_zero_has_the_band_of_the_layer():
    grid = codes.shared_grid(-127, 127, INT8_TENSOR_SYMMETRIC)
    per_code = pd.DataFrame({"code": [-1, 0], "weights": [1, 1000]})
    chart = charts.code_bars(per_code, grid, LIGHT, band="at risk", format_name="int8").to_dict()
    (bars,) = marks(chart, "rect")
    assert [(row["left"], row["right"]) for row in rows_of(chart, bars)] == [
        (-1.5, -0.5),
        (-0.5, 0.5),
    ]
    assert bars["encoding"]["color"]["condition"]["test"] == "(datum.code === 0)"
    assert bars["encoding"]["color"]["condition"]["value"] == LIGHT.bands["at risk"].fill
    assert bars["encoding"]["x"]["title"] == "int8 code"
    assert bars["encoding"]["y"]["title"] == "weights (log scale)"
    assert rows_of(chart, bars)[1]["said_weights"] == "≈\u00a01,000"


def test_the_axis_above_the_codes_says_their_weights_under_an_asymmetric_grid():
    grid = codes.shared_grid(-51.0, 204.0, INT8_TENSOR_ASYMMETRIC)
    per_code = pd.DataFrame({"code": [51], "weights": [1]})
    chart = charts.code_bars(per_code, grid, LIGHT, band="fine", format_name="int8").to_dict()
    assert marks(chart, "rect")[0]["encoding"]["color"]["condition"]["test"].endswith("51)")
    above = marks(chart, "rule")[0]["encoding"]["x"]
    assert above["title"] == "weight"
    # One weight unit to a code, zero at code 51.
    assert above["axis"]["values"] == [1.0, 51.0, 101.0, 151.0, 201.0, 251.0]


def test_dashed_edges_lie_halfway_between_codes():
    weights = np.linspace(-2, 2, 4001)
    histogram = histogram_of(np.append(weights, [-127, 127]), 2048)
    grid = codes.shared_grid(-127, 127, INT8_TENSOR_SYMMETRIC)
    chart = charts.bulk_bars(histogram, (-2.0, 2.0), grid, LIGHT).to_dict()
    edges = [rule for rule in marks(chart, "rule") if rule["mark"].get("strokeDash")]
    assert [row["edge"] for row in rows_of(chart, edges[0])] == pytest.approx(
        [-1.5, -0.5, 0.5, 1.5], abs=1e-5
    )
    bars = rows_of(chart, marks(chart, "rect")[0])
    for bar in bars:
        centre = (bar["left"] + bar["right"]) / 2
        assert bar["is_odd"] == (round(centre) % 2 == 1)


@pytest.mark.parametrize(
    ("window", "words", "edges"),
    [
        ((-0.4, 0.4), charts.ALL_BECOME_ONE, 0),
        ((-0.4, 1.2), charts.EACH_SIDE_BECOMES_ONE, 1),
        ((-0.9, 1.2), charts.BETWEEN_LINES_BECOME_ONE, 2),
    ],
)
def test_the_words_beside_the_bulk_speak_of_the_edges_that_are_drawn(window, words, edges):
    histogram = histogram_of(np.append(np.linspace(*window, 401), [-127, 127]), 2048)
    grid = codes.shared_grid(-127, 127, INT8_TENSOR_SYMMETRIC)
    chart = charts.bulk_bars(histogram, window, grid, LIGHT).to_dict()
    drawn = [rule for rule in marks(chart, "rule") if rule["mark"].get("strokeDash")]
    assert len(rows_of(chart, drawn[0])) == edges
    assert charts.codes_shown(codes.codes_between(*window, grid)) == words


def test_no_weight_of_the_bulk_is_lost_when_bins_become_bars():
    weights = np.random.default_rng(0).standard_normal(5000)
    histogram = histogram_of(weights)
    window = (float(weights.min()), float(weights.max()))
    grid = codes.shared_grid(*window, INT8_TENSOR_SYMMETRIC)
    for chart in (
        charts.bulk_bars(histogram, window, None, LIGHT),
        charts.bulk_bars(histogram, window, grid, LIGHT),
        charts.whole_range(histogram, LIGHT),
    ):
        drawn = chart.to_dict()
        bars = rows_of(drawn, marks(drawn, "rect")[0])
        assert sum(bar["weights"] for bar in bars) == 5000


@pytest.mark.parametrize("value", [0.0, 0.37, -2.0, 1e-30])
def test_a_constant_layer_is_one_bar_with_a_width(value):
    histogram = pd.DataFrame(
        {"bin": [0], "bin_low": [value], "bin_high": [value], "weights": [128]}
    )
    grid = codes.shared_grid(value, value, INT8_TENSOR_SYMMETRIC)
    for chart in (
        charts.whole_range(histogram, LIGHT),
        charts.bulk_bars(histogram, (value, value), grid, LIGHT),
        charts.bulk_bars(histogram, (value, value), None, LIGHT),
    ):
        drawn = chart.to_dict()
        (bar,) = rows_of(drawn, marks(drawn, "rect")[0])
        assert bar["left"] < value < bar["right"]
        assert bar["weights"] == 128


# Clipping


def some_curves(measures=("tensor", "channel_p10", "channel_median"), last=20.0):
    """Under int8 the given measures, under int4 the whole tensor; the best is half the range."""
    keys = [*((8, measure) for measure in measures), (4, "tensor")]
    rows = [
        (bits, measure, threshold, sqnr, threshold == 0.5)
        for bits, measure in keys
        for threshold, sqnr in ((0.05, 10.0), (0.5, 30.0), (1.0, last))
    ]
    columns = ["bits", "measure", "threshold", "sqnr_db", "is_best"]
    return pd.DataFrame(rows, columns=columns).astype({"sqnr_db": float})


def clipping_marks(curves, palette=LIGHT):
    chart = clipping.clipping_lines(curves, palette).to_dict()
    (line,) = marks(chart, "line")
    best, hover = marks(chart, "point")
    return chart, line, best, hover


def test_clipping_shows_the_tensor_dashed_beside_the_channels():
    chart, line, _, _ = clipping_marks(some_curves())
    colour, dash = (line["encoding"][name]["scale"] for name in ("color", "strokeDash"))
    assert dict(zip(colour["domain"], colour["range"], strict=True)) == {
        "whole tensor": LIGHT.muted,
        "90 % of channels": LIGHT.text,
        "median channel": LIGHT.accent,
    }
    assert dash["domain"] == colour["domain"]
    assert [len(set(pattern)) > 1 and 0 not in pattern for pattern in dash["range"]] == [
        True,
        False,
        False,
    ]
    assert {row["line"] for row in rows_of(chart, line)} == set(colour["domain"])


def test_without_curves_of_the_channels_int8_and_int4_stand_side_by_side():
    _, line, _, _ = clipping_marks(some_curves(["tensor"]))
    assert line["encoding"]["color"]["scale"]["domain"] == [
        "whole tensor, int8",
        "whole tensor, int4",
    ]


def test_every_line_of_clipping_has_a_dot_at_its_best_and_axes_with_units():
    chart, line, best, hover = clipping_marks(some_curves())
    assert [(row["percent"], row["place"]) for row in rows_of(chart, best)] == [(50, 30)] * 3
    x, y = (line["encoding"][name] for name in ("x", "y"))
    assert x["title"] == clipping.THRESHOLD_TITLE
    assert (x["scale"]["type"], x["scale"]["domain"]) == ("log", [1, 100])
    assert y["title"] == "SQNR, dB"
    first = rows_of(chart, hover)[0]
    assert first["said_threshold"] == "5.0\u00a0% of the largest weight"
    assert first["said_sqnr"] == "10.0\u00a0dB"
    assert hover["encoding"]["description"]["field"] == "said"


def test_an_exact_threshold_is_off_the_line_and_its_dot_lies_at_the_upper_edge():
    curves = some_curves(["tensor"], last=np.nan).assign(
        is_best=lambda rows: rows["threshold"] == 1
    )
    chart, line, best, _ = clipping_marks(curves, DARK)
    assert max(row["percent"] for row in rows_of(chart, line)) == 50
    upper = line["encoding"]["y"]["scale"]["domain"][1]
    assert [(row["place"], row["said_sqnr"]) for row in rows_of(chart, best)] == [
        (upper, "exact")
    ] * 2


def test_sqnr_between_two_thresholds_follows_the_log_of_the_threshold():
    curve = some_curves().query("measure == 'channel_p10'")
    assert clipping.sqnr_at(curve, 0.5) == 30
    assert clipping.sqnr_at(curve, np.sqrt(0.5)) == pytest.approx(25)
    assert clipping.sqnr_at(curve.assign(sqnr_db=np.nan), 0.5) is None

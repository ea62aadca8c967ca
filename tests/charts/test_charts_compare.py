"""Compare's charts: one mark is one layer, in its bin, in its band, on its model's own baseline."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantstore.charts import against, compare, model, spread
from quantstore.charts.compare import Measure
from quantstore.charts.measures import CHANNEL_SPREAD, LABELS, SQNR, WEIGHT_RANGE, measure_of
from quantstore.charts.palette import BANDS, DARK, LIGHT
from quantstore.numerics.measures import MEASURES
from quantstore.schemes import DEFAULT_SCHEME, SCHEMES
from tests.support.profiles import LIMITS, profiles

RANGE = Measure(column="weight_range", title="range of a layer", axis="log")
LINEAR = Measure(column="weight_range", title="weight range", axis="linear", bin_width=10)
P10 = measure_of("SQNR", DEFAULT_SCHEME)


TWO = profiles(
    {"wide": [(1.2, 35.0), (1.21, 5.0), (200.0, 15.0)], "narrow": [(1.2, 35.0), (19.9, 25.0)]}
)


def layer_specs(chart) -> list[dict]:
    return chart.to_dict()["layer"]


def rows_of(chart, field: str) -> pd.DataFrame:
    """The data of the layer that encodes a field."""
    spec = chart.to_dict()
    for data in spec["datasets"].values():
        frame = pd.DataFrame(data)
        if field in frame:
            return frame
    raise AssertionError(f"no layer has {field}")


def test_a_distribution_counts_convolutions_and_every_layer_of_a_model_without_any():
    families = ["conv", "linear", "conv_transpose", "linear", "embedding"]
    mixed = TWO.assign(op_family=families)
    counted = compare.convolutions(mixed)
    assert counted.index.tolist() == [0, 2, 3, 4]
    assert compare.kind_of(counted) == "layer"
    assert compare.not_counted(mixed, counted) == (1, ["narrow"])

    wide = mixed[mixed["model"] == "wide"]
    assert compare.kind_of(compare.convolutions(wide)) == "convolution"
    assert compare.not_counted(wide, compare.convolutions(wide)) == (1, [])

    narrow = mixed[mixed["model"] == "narrow"]
    assert compare.convolutions(narrow).equals(narrow)
    assert compare.kind_of(narrow) == "layer"
    # All layers alike: nothing is left out, and nothing to be said.
    assert compare.not_counted(narrow, narrow) == (0, [])


def test_every_layer_is_one_brick_in_the_bin_of_its_range():
    bricks = compare.lay_bricks(TWO, RANGE)
    assert len(bricks) == len(TWO)
    assert bricks["layers"].tolist() == [1] * len(TWO)
    inside = (bricks["left"] <= bricks["weight_range"]) & (
        bricks["weight_range"] < bricks["right"] / 0.94
    )
    assert inside.all()


def test_models_share_the_same_bins():
    bricks = compare.lay_bricks(TWO, RANGE).set_index(["model", "layer"])
    assert bricks.loc[("wide", "Conv_0"), "bin"] == bricks.loc[("narrow", "Conv_0"), "bin"]


def test_the_worst_band_lies_on_top_of_a_stack():
    bricks = compare.lay_bricks(TWO, RANGE).set_index(["model", "layer"])
    assert bricks.loc[("wide", "Conv_0"), "level"] == 0  # fine
    assert bricks.loc[("wide", "Conv_1"), "level"] == 1  # broken


def test_a_linear_axis_uses_the_width_that_was_chosen():
    bricks = compare.lay_bricks(TWO, LINEAR).set_index(["model", "layer"])
    assert bricks.loc[("wide", "Conv_2"), "bin"] == 20  # 200 to 210
    assert bricks.loc[("narrow", "Conv_1"), "bin"] == 1  # 10 to 20


def crowd(count, decades, seed):
    """Ranges of many layers, over so many powers of ten."""
    return (10 ** np.random.default_rng(seed).uniform(-decades, decades, count)).tolist()


@pytest.mark.slow
@given(
    st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20)
    | st.builds(crowd, st.integers(1, 200), st.floats(0, 6), st.integers(0, 2**32))
)
def test_no_two_bricks_lie_in_the_same_place_and_no_stack_grows_too_high(ranges):
    frame = profiles({"one": [(value, 35.0) for value in ranges]})
    for measure, highest in ((RANGE, 26), (LINEAR, 16)):
        bricks = compare.lay_bricks(frame, measure)
        places = bricks[["left", "level"]].round(9).drop_duplicates()
        assert len(places) == len(bricks) == len(ranges)
        assert bricks["level"].max() < highest


def test_bricks_keep_their_size_beside_a_large_model():
    small = [(1.2, 35.0), (1.2, 5.0), (9.0, 35.0)]
    alone = compare.lay_bricks(profiles({"small": small}), RANGE)
    beside = compare.lay_bricks(profiles({"large": [(1.2, 35.0)] * 340, "small": small}), RANGE)
    edges = ["left", "right", "level", "height"]
    assert beside.loc[beside["model"] == "small", edges].to_numpy() == pytest.approx(
        alone[edges].to_numpy()
    )
    large = beside[beside["model"] == "large"]
    assert len(large) == 340
    # Its own lie abreast, within the width of the bin.
    assert large["right"].max() == pytest.approx(alone["right"].min())


def test_a_model_of_very_many_layers_is_drawn_as_one_rectangle_per_bin_and_band():
    many = profiles({"huge": [(1.2, 35.0)] * 300 + [(1.2, 5.0)] * 200, "small": [(1.2, 35.0)]})
    bricks = compare.lay_bricks(many, RANGE)
    huge = bricks[bricks["model"] == "huge"]
    assert sorted(huge["layers"]) == [200, 300]
    assert bricks["layers"].sum() == 501


def test_layers_without_the_measure_are_left_out_not_drawn_at_zero():
    frame = profiles({"one": [(0.0, 35.0), (2.0, 35.0)]})
    frame.loc[len(frame)] = frame.iloc[1].to_dict() | {"weight_range": np.nan, "layer_id": 9}
    assert len(compare.lay_bricks(frame, RANGE)) == 1


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_colour_means_band_and_nothing_else(palette):
    spec = compare.bricks(TWO, RANGE, palette).to_dict()
    colours = [
        layer["encoding"]["color"] for layer in spec["layer"] if "color" in layer["encoding"]
    ]
    (colour,) = colours
    assert colour["field"] == "band"
    assert colour["scale"]["domain"] == list(BANDS)
    assert colour["scale"]["range"] == palette.band_fills


def test_axes_carry_their_unit():
    lines = compare.axis_of((0.1, 10), RANGE).title
    assert " ".join(lines) == f"{RANGE.title} (log scale)"
    long = replace(RANGE, title="weight range of a layer, max − min, in weight units")
    # What a chart of 390 pixels shows beside the names.
    assert max(map(len, compare.axis_of((0.1, 10), long).title)) <= 45
    for chart in (
        compare.bricks(TWO, RANGE, LIGHT),
        against.scatter(TWO, RANGE, P10, LIGHT, LIMITS),
    ):
        assert json.dumps(lines) in json.dumps(chart.to_dict())
    assert P10.title in json.dumps(chart.to_dict())
    assert P10.title.endswith(", dB")


def test_model_names_are_data_in_expressions_never_code():
    evil = "\"]}; alert('x'); //"
    frame = profiles({evil: [(1.2, 35.0)], "other": [(1.2, 35.0)]})
    spec = compare.bricks(frame, RANGE, LIGHT).to_dict()
    expression = spec["layer"][0]["encoding"]["y"]["axis"]["labelExpr"]
    table = expression[: expression.rindex("[format(")]
    assert evil in json.loads(table).values()


def test_bars_hang_from_forty_decibels_and_longer_is_worse():
    bars = rows_of(compare.hanging_bars(TWO, LIGHT), "bottom")
    length = (bars["top"] - bars["bottom"]).to_numpy()
    by_p10 = np.argsort(bars["channel_sqnr_p10_db"].to_numpy())
    assert (np.diff(length[by_p10]) <= 0).all()
    assert (length > 0).all()
    assert bars["right"].max() == 1.0


def test_an_exact_layer_is_a_sliver_not_a_hole():
    frame = profiles({"one": [(1.2, 35.0)]})
    frame["channel_sqnr_p10_db"] = np.nan
    bars = rows_of(compare.hanging_bars(frame, LIGHT), "bottom")
    assert ((bars["top"] - bars["bottom"]) < 2).all()
    assert bars["said_p10"].tolist() == ["exact"]
    bars = rows_of(model.layer_map(frame, LIGHT), "bottom")
    assert bars["bottom"].tolist() == [40 - model.SLIVER_DB]


def test_the_map_of_a_model_clips_at_zero_decibels_and_keeps_graph_order():
    frame = profiles({"one": [(1.2, -1.0), (1.2, 22.0)]})
    bars = rows_of(model.layer_map(frame, LIGHT), "bottom")
    assert bars["bottom"].tolist() == [0, 22.0]
    assert bars["left"].tolist() == [-0.5, 0.5]


def test_the_whole_column_of_a_layer_opens_it_however_short_its_bar_is():
    spec = model.layer_map(profiles({"one": [(1.2, 45.0)] * 500}), LIGHT).to_dict()
    bars, columns = spec["layer"]
    assert not bars["mark"]["aria"]
    assert (columns["encoding"]["y"]["value"], columns["encoding"]["y2"]["value"]) == (0, "height")
    (parameter,) = spec["params"]
    assert parameter["views"] == [columns["name"]]


@pytest.mark.parametrize("chart", [compare.bricks, compare.hanging_bars])
def test_every_mark_opens_its_layer(chart):
    made = chart(TWO, RANGE, LIGHT) if chart is compare.bricks else chart(TWO, LIGHT)
    spec = made.to_dict()
    (parameter,) = spec["params"]
    assert parameter["name"] == "open_layer"
    assert parameter["select"]["fields"] == ["layer_id"]
    assert set(rows_of(made, "layer_id")["layer_id"]) == set(map(str, TWO["layer_id"]))


def test_up_to_four_models_have_colours_of_their_own_beyond_that_one_stands_out():
    four = profiles({f"m{i}": [(1.0 + i, 35.0)] for i in range(4)})
    five = profiles({f"m{i}": [(1.0 + i, 35.0)] for i in range(5)})

    def groups(frame):
        made = against.scatter(frame, RANGE, P10, LIGHT, LIMITS)
        return list(dict.fromkeys(rows_of(made, "group")["group"]))

    assert groups(four) == ["m0", "m1", "m2", "m3"]
    assert sorted(groups(five)) == ["m0", "the others"]


def test_the_caption_names_the_layers_that_show_how_far_range_can_be_trusted():
    found = compare.landmarks(TWO, "weight_range")
    assert found.widest["weight_range"] == 200.0
    assert found.widest_unharmed["weight_range"] == 19.9
    assert found.narrowest_broken["weight_range"] == 1.21
    assert compare.landmarks(TWO.iloc[:0], "weight_range") is None


def test_grouped_bars_count_layers_per_bin_and_model():
    bars = rows_of(compare.grouped_bars(TWO, LINEAR, LIGHT), "size")
    counts = {(row["model"], row["left"]): row["size"] for _, row in bars.iterrows()}
    assert counts == {("wide", 0): 2, ("wide", 200): 1, ("narrow", 0): 1, ("narrow", 10): 1}


def test_grouped_bars_stand_on_zero():
    bars = compare.grouped_bars(TWO, LINEAR, LIGHT)
    assert layer_specs(bars)[0]["encoding"]["y2"] == {"field": "none"}
    assert set(rows_of(bars, "size")["none"]) == {0}


def test_every_row_of_a_chart_shows_its_name():
    for layer in layer_specs(compare.bricks(TWO, RANGE, LIGHT))[:2]:
        # Both layers: where they differ, Vega-Lite thins the names out.
        assert layer["encoding"]["y"]["axis"]["labelOverlap"] is False


@pytest.mark.parametrize(("low", "high"), [(3.1, 4.1), (0.4, 0.51), (0.01, 2000), (1e-6, 1e6)])
def test_a_log_axis_has_at_least_two_numbers_on_it_however_narrow(low, high):
    ticks = compare._log_ticks(low, high)
    assert 2 <= len(ticks) <= 25
    assert all(low <= tick <= high for tick in ticks)


def test_the_dashed_line_is_the_law_of_uniform_noise():
    spans = profiles({"one": [(8.0, 40.0), (80.0, 20.0)]})
    span = replace(measure_of("Range / rms", DEFAULT_SCHEME), column="weight_range")
    made = against.scatter(spans, span, P10, LIGHT, LIMITS)
    law = next(
        pd.DataFrame(data)
        for data in made.to_dict()["datasets"].values()
        if set(data[0]) == {"x", "y"}
    )
    np.testing.assert_allclose(law["y"], 58.9 - 20 * np.log10(law["x"]), atol=1e-9)


def test_every_measure_that_charts_are_offered_is_in_the_list_once():
    offered = [measure.chart.label for measure in MEASURES.values() if measure.chart]
    assert set(offered) <= set(LABELS)
    assert len(offered) == len(set(offered))
    assert {WEIGHT_RANGE, CHANNEL_SPREAD, SQNR} <= set(LABELS)
    assert [measure_of(label, DEFAULT_SCHEME).label for label in LABELS] == list(LABELS)


def test_every_measure_has_words_and_a_unit_and_only_a_shared_scale_has_a_law():
    per_channel = SCHEMES["int8_channel_symmetric"]
    for label in LABELS:
        measure = measure_of(label, DEFAULT_SCHEME)
        assert measure.title
        assert measure.has_db_labels == (label == "Range / rms")
        assert not measure_of(label, per_channel).has_db_labels
    asymmetric = measure_of("Range / rms", SCHEMES["int8_tensor_asymmetric"])
    assert asymmetric.column == "asymmetric_span_over_rms"


def test_beyond_four_models_another_one_can_stand_out_and_lies_on_top():
    five = profiles({f"m{i}": [(1.0 + i, 35.0)] for i in range(5)})
    dots = rows_of(against.scatter(five, RANGE, P10, LIGHT, LIMITS, focus="m3"), "group")
    assert dots["group"].tolist() == ["the others"] * 4 + ["m3"]
    assert dots["model"].tolist()[-1] == "m3"


def test_a_rectangle_holds_the_dots_as_they_are_drawn():
    frame = profiles({"one": [(1.0, 35.0), (10.0, 70.0), (100.0, 5.0)]})
    frame.loc[len(frame)] = frame.iloc[0].to_dict() | {"channel_sqnr_p10_db": np.nan, "layer_id": 9}
    dots = against.placed(frame, RANGE, P10)
    # 70 dB lies on the edge of the plot, and so does what is exact.
    assert dots["y"].tolist() == [35.0, 50.0, 5.0, 50.0]
    box = against.BrushBox((1.0, 20.0), (35.0, 50.0))
    assert dots[box.holds(dots)]["weight_range"].tolist() == [1.0, 10.0, 1.0]
    spec = against.scatter(frame, RANGE, P10, LIGHT, LIMITS, box=box).to_dict()
    brush = next(one for one in spec["params"] if one["name"] == against.BRUSH)
    assert brush["value"] == {"x": [1.0, 20.0], "y": [35.0, 50.0]}


def test_two_measures_without_sqnr_have_no_bands_behind():
    up = measure_of("Channel spread", DEFAULT_SCHEME)
    text = json.dumps(against.scatter(TWO, RANGE, up, LIGHT, LIMITS).to_dict())
    assert LIGHT.bands["broken"].tint not in text
    assert up.title in text


def test_lines_climb_by_one_layer_at_a_time_to_all_of_them():
    ranks = spread.ranked_shares(TWO, RANGE)
    wide = ranks[ranks["model"] == "wide"]
    assert wide["x"].tolist() == [1.2, 1.21, 200.0]
    np.testing.assert_allclose(wide["percent"], [100 / 3, 200 / 3, 100])


def test_exact_layers_count_but_no_line_reaches_them():
    frame = profiles({"one": [(1.0, 35.0), (2.0, 35.0)]})
    frame.loc[0, "channel_sqnr_p10_db"] = np.nan
    assert spread.ranked_shares(frame, P10)["percent"].tolist() == [50.0]
    frame.loc[0, "weight_range"] = 0.0
    # A range of 0 has no place on a log axis, and no share either.
    assert spread.ranked_shares(frame, RANGE)["percent"].tolist() == [100.0]


@pytest.mark.slow
@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("draw", [spread.cumulative, spread.ridges, against.by_depth])
def test_every_measure_can_be_drawn_and_every_mark_opens_its_layer(draw, label):
    measure = measure_of(label, DEFAULT_SCHEME)
    frame = TWO.assign(**{measure.column: TWO.get(measure.column, [0.5, 1.0, 3.0, 12.0, 40.0])})
    made = draw(frame, measure, LIGHT)
    assert made.to_dict()["params"][0]["select"]["fields"] == ["layer_id"]
    assert set(rows_of(made, "layer_id")["layer_id"]) == set(map(str, TWO["layer_id"]))


def test_of_many_cumulative_lines_the_one_that_stands_out_shows_its_dots():
    many = pd.concat([TWO.assign(model=f"m{number}") for number in range(5)], ignore_index=True)
    made = spread.cumulative(many, RANGE, LIGHT, focus="m3")
    opacity = made.to_dict()["layer"][-1]["encoding"]["opacity"]
    assert opacity == {"condition": {"test": "datum.is_shown", "value": 1}, "value": 0}
    dots = rows_of(made, "is_shown")
    assert dots["is_shown"].tolist() == (dots["model"] == "m3").tolist()
    few = rows_of(spread.cumulative(TWO, RANGE, LIGHT), "is_shown")
    assert few["is_shown"].all()


def test_along_the_network_every_row_has_the_same_scale():
    dots = rows_of(against.by_depth(TWO, RANGE, LIGHT), "floor")
    dots["rise"] = dots["y"] - dots["floor"]
    equal = dots[dots["weight_range"] == 1.2]["rise"]
    assert equal.round(9).nunique() == 1
    assert dots["rise"].max() == dots.loc[dots["weight_range"] == 200.0, "rise"].item()


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.7), (3, 70), (1e-3, 300), (-1, 52), (0.0, 40)])
@pytest.mark.parametrize("axis", ["log", "linear"])
def test_a_row_has_two_or_three_round_ticks(low, high, axis):
    if axis == "log" and low <= 0:
        return
    ticks = against._few_ticks((low, high), replace(RANGE, axis=axis))
    assert 1 <= len(ticks) <= 4
    assert all(low <= tick <= high for tick in ticks)

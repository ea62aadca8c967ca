"""Compare's charts: one mark is one layer, in its bin, in its band, on its model's own baseline."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantstore.charts import compare, model
from quantstore.charts.compare import Measure
from quantstore.palette import BANDS, DARK, LIGHT

RANGE = Measure(column="weight_range", title="weight range of a layer", axis="log")
LINEAR = Measure(column="weight_range", title="weight range", axis="linear", bin_width=10)
LIMITS = {"fine": 30.0, "watch": 20.0, "at risk": 10.0, "broken": -np.inf}


def band_of(p10: float) -> str:
    return next(band for band, low in LIMITS.items() if p10 >= low)


def profiles(rows: dict[str, list[tuple[float, float]]]) -> pd.DataFrame:
    """Layers of several models from (weight range, p10) pairs."""
    records = []
    for name, layers in rows.items():
        for depth, (weight_range, p10) in enumerate(layers):
            records.append(
                {
                    "model": name,
                    "layer_id": len(records),
                    "layer": f"Conv_{depth}",
                    "depth": depth,
                    "layer_count": len(layers),
                    "op_type": "Conv",
                    "is_depthwise": False,
                    "weight_count": 100,
                    "weight_range": weight_range,
                    "channel_spread_bits": 1.0,
                    "channel_sqnr_p10_db": p10,
                    "band": band_of(p10),
                }
            )
    return pd.DataFrame(records)


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


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=200))
def test_no_two_bricks_lie_in_the_same_place_and_no_stack_grows_too_high(ranges):
    frame = profiles({"one": [(value, 35.0) for value in ranges]})
    for measure, highest in ((RANGE, 26), (LINEAR, 16)):
        bricks = compare.lay_bricks(frame, measure)
        places = bricks[["left", "level"]].round(9).drop_duplicates()
        assert len(places) == len(bricks) == len(ranges)
        assert bricks["level"].max() < highest


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
    text = json.dumps(compare.bricks(TWO, RANGE, LIGHT).to_dict())
    assert "weight range of a layer (log scale)" in text
    text = json.dumps(compare.scatter(TWO, RANGE, LIGHT, LIMITS, show_law=True).to_dict())
    assert "SQNR that nine in ten channels reach, dB" in text


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


@pytest.mark.parametrize("chart", [compare.bricks, compare.hanging_bars])
def test_every_mark_opens_its_layer(chart):
    made = chart(TWO, RANGE, LIGHT) if chart is compare.bricks else chart(TWO, LIGHT)
    spec = made.to_dict()
    (parameter,) = spec["params"]
    assert parameter["name"] == "open_layer"
    assert parameter["select"]["fields"] == ["layer_id"]
    assert set(rows_of(made, "layer_id")["layer_id"]) == set(TWO["layer_id"])


def test_up_to_four_models_have_colours_of_their_own_beyond_that_one_stands_out():
    four = profiles({f"m{i}": [(1.0 + i, 35.0)] for i in range(4)})
    five = profiles({f"m{i}": [(1.0 + i, 35.0)] for i in range(5)})

    def groups(frame):
        made = compare.scatter(frame, RANGE, LIGHT, LIMITS, show_law=False)
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
    made = compare.scatter(spans, RANGE, LIGHT, LIMITS, show_law=True)
    law = next(
        pd.DataFrame(data)
        for data in made.to_dict()["datasets"].values()
        if set(data[0]) == {"x", "y"}
    )
    np.testing.assert_allclose(law["y"], 58.9 - 20 * np.log10(law["x"]), atol=1e-9)

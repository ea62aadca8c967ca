"""The charts of runs: drift along depth, values of a tensor, weights against reality."""

import json

import numpy as np
import pandas as pd
import pytest

from quantstore.charts import drift, reality
from quantstore.charts.palette import BANDS, DARK, LIGHT
from quantstore.charts.reality import Statistic

LIMITS = {"fine": 30.0, "watch": 20.0, "at risk": 10.0, "broken": -np.inf}
RANGE = Statistic("max_weight_range", "largest weight range", "largest weight range", True)
P10 = Statistic("worst_p10_db", "worst channel p10", "worst p10, dB", False, is_db=True)


def tensors(runs=("one",), values=(None, 70.0, 31.0, -3.0)):
    return pd.DataFrame(
        [
            {
                "run": run,
                "simulation_id": number,
                "tensor": f"t{depth}",
                "node_name": f"/node/{depth}",
                "op_type": "Conv",
                "depth": depth,
                "place": depth / (len(values) - 1),
                "sqnr_db": np.nan if value is None else value,
                "local_db": np.nan if value is None else value + 5,
                "has_local": depth > 0,
                "drop_db": 9.0 if value == 31.0 else 0.0,
            }
            for number, run in enumerate(runs)
            for depth, value in enumerate(values)
        ]
    )


NO_JUMPS = tensors().head(0).assign(number=[])


def rows_of(chart, field):
    for data in chart.to_dict()["datasets"].values():
        frame = pd.DataFrame(data)
        if field in frame:
            return frame
    raise AssertionError(f"no layer has {field}")


def test_error_along_depth_is_cut_to_what_can_be_told():
    points = rows_of(drift.lines(tensors(), NO_JUMPS, LIGHT, with_local=True), "said")
    assert points["shown"].tolist() == [60, 60, 31, 0]
    assert points["said_db"].tolist()[0] == "exact"
    assert points["said_local"].tolist()[0] == "not measured"
    assert points["said_db"].tolist()[3].startswith("−3.0")


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_every_run_has_a_colour_of_its_own_and_none_of_the_bands(palette):
    runs = ("a", "b", "c", "d")
    spec = drift.lines(tensors(runs), NO_JUMPS, palette, with_local=False).to_dict()
    scale = spec["layer"][0]["encoding"]["color"]["scale"]
    assert scale["domain"] == list(runs)
    assert scale["range"] == list(palette.models)
    assert not set(scale["range"]) & set(palette.band_fills)


def test_what_a_node_does_by_itself_is_dotted_and_can_be_left_out():
    def dashes(with_local):
        spec = drift.lines(tensors(), NO_JUMPS, LIGHT, with_local=with_local).to_dict()
        return [layer["mark"].get("strokeDash") for layer in spec["layer"]]

    assert [1, 3] in dashes(True)
    assert [1, 3] not in dashes(False)


def test_a_click_on_a_line_picks_run_and_tensor():
    spec = drift.lines(tensors(), NO_JUMPS, LIGHT, with_local=True).to_dict()
    parameters = {parameter["name"]: parameter["select"] for parameter in spec["params"]}
    assert set(parameters) == {drift.CLICK, drift.HOVER}
    assert parameters[drift.CLICK]["fields"] == ["simulation_id", "tensor"]


def test_the_pointer_snaps_to_the_nearest_tensor_and_reads_its_name_value_and_drop():
    chart = drift.lines(tensors(), NO_JUMPS, LIGHT, with_local=False)
    words = rows_of(chart, "readout")["readout"].str.replace("\u00a0", " ").tolist()
    assert words[1:3] == [
        "/node/1: 70.0 dB; local 75.0 dB",
        "/node/2: 31.0 dB, drop 9.0 dB; local 36.0 dB",
    ]
    select = {one["name"]: one["select"] for one in chart.to_dict()["params"]}[drift.HOVER]
    assert select["nearest"]
    assert select["encodings"] == ["x"]
    # With several lines, the pointer is at one of them.
    several = drift.lines(tensors(("a", "b")), NO_JUMPS, LIGHT, with_local=False).to_dict()
    select = {one["name"]: one["select"] for one in several["params"]}[drift.HOVER]
    assert select["fields"] == ["simulation_id", "tensor"]


def test_the_steepest_falls_carry_the_numbers_of_the_table():
    jumps = tensors().iloc[[2, 3]].assign(number=[1, 2])
    marks = rows_of(drift.lines(tensors(), jumps, LIGHT, with_local=True), "label")
    assert marks["label"].tolist() == ["1", "2"]
    assert marks["shown"].tolist() == [31, 0]


def test_marks_never_lie_over_one_another():
    jumps = pd.concat([tensors().iloc[[2]], tensors(("other",)).iloc[[2]]]).assign(number=[1, 2])
    marks = rows_of(drift.lines(tensors(), jumps, LIGHT, with_local=True), "label")
    assert marks["label"].tolist() == ["1", "2"]
    assert marks["shown"].tolist() == [31, 31]
    # Both are drawn, the steeper one at its point.
    assert marks["at"].tolist()[0] == 31
    assert abs(marks["at"].diff().iloc[1]) >= drift.APART[1]


def test_marks_stay_in_the_chart():
    many = pd.concat([tensors((str(run),)).iloc[[3]] for run in range(6)])
    marks = rows_of(
        drift.lines(tensors(), many.assign(number=range(1, 7)), LIGHT, with_local=True), "label"
    )
    assert sorted(marks["at"]) == [drift.APART[1] * step for step in range(6)]


def test_both_histograms_lie_over_the_same_bins_and_keep_every_value():
    tensor = pd.Series(
        {
            "low": -2.0,
            "high": 2.0,
            "float_counts": np.array([0, 5, 5, 0]),
            "quantized_counts": np.array([1, 4, 4, 1]),
        }
    )
    chart = drift.histograms(tensor, LIGHT)
    bars, steps = rows_of(chart, "said_bin"), rows_of(chart, "order")
    assert bars["left"].tolist() == [-2, -1, 0, 1]
    assert bars["float"].sum() == bars["quantized"].sum() == 10
    assert steps["x"].tolist() == [-2, -1, -1, 0, 0, 1, 1, 2]
    assert steps["y"].tolist() == [1, 1, 4, 4, 4, 4, 1, 1]
    assert "values (square-root scale)" in json.dumps(chart.to_dict())


def models(rows):
    return pd.DataFrame(
        [
            {
                "model": name,
                "max_weight_range": weight_range,
                "worst_p10_db": 20.0,
                "output_sqnr_db": db,
                "input_source": "noise",
                "band": next(band for band, low in LIMITS.items() if db >= low),
            }
            for name, weight_range, db in rows
        ]
    )


FOUR = models([("wide", 200.0, 7.0), ("narrow", 1.0, 41.0), ("middle", 10.0, 25.0), ("x", 3.0, 15)])


def test_one_dot_per_model_that_opens_it_in_the_band_of_its_outputs():
    chart = reality.scatter(FOUR, RANGE, LIMITS, LIGHT, title="Spearman −1.00, n = 4")
    dots = rows_of(chart, "said_x")
    assert dots["model"].tolist() == FOUR["model"].tolist()
    spec = chart.to_dict()
    assert spec["title"]["text"] == "Spearman −1.00, n = 4"
    assert [parameter["name"] for parameter in spec["params"]] == [reality.CLICK]
    colours = [layer["encoding"].get("color", {}) for layer in spec["layer"]]
    assert any(colour.get("scale", {}) and colour.get("field") == "band" for colour in colours)
    assert set(dots["band"]) <= set(BANDS)


def test_a_log_axis_leaves_out_what_it_cannot_show():
    frame = pd.concat([FOUR, models([("zero", 0.0, 30.0)])], ignore_index=True)
    dots = rows_of(reality.scatter(frame, RANGE, LIMITS, LIGHT, title=""), "said_x")
    assert "zero" not in set(dots["model"])
    assert len(rows_of(reality.scatter(frame, P10, LIMITS, DARK, title=""), "said_x")) == 5


def test_names_never_lie_over_one_another():
    crowd = models([(f"model-{number}", 10.0 + number / 100, 20.0) for number in range(20)])
    named = reality._with_room(reality._placed(crowd, RANGE), (1.0, 100.0), (0.0, 50.0), RANGE)
    assert 1 <= len(named) <= 2
    assert len(reality._with_room(reality._placed(FOUR, RANGE), (0.5, 400), (0, 50), RANGE)) == 4


def test_the_outermost_dots_have_their_names_first():
    crowd = [(f"middle-{number}", 8.0 + number / 10, 24.0) for number in range(8)]
    frame = models([*crowd, ("beside-the-culprit", 110.0, 6.5), ("culprit", 200.0, 7.0)])
    placed = reality._placed(frame, RANGE)
    named = reality._with_room(placed, (0.8, 270.0), (-8.0, 50.0), RANGE)
    sides = dict(zip(named["model"], named["side"], strict=True))
    assert {"culprit", "beside-the-culprit"} <= sides.keys()
    # Near the right edge a name ends at its dot.
    assert reality.SIDES[sides["culprit"]].align == "right"


def test_so_many_models_have_no_names_beside_them():
    crowd = models([(f"m{number}", 1.0 + number, 20.0) for number in range(41)])
    chart = reality.scatter(crowd, RANGE, LIMITS, LIGHT, title="")
    assert "label:N" not in json.dumps([layer["encoding"] for layer in chart.to_dict()["layer"]])

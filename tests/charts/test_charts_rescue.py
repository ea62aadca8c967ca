"""The charts of a rescue: the staircase of its steps, and what they cost."""

import json

import numpy as np
import pandas as pd
import pytest

from quantstore.charts import rescue
from quantstore.charts.palette import DARK, LIGHT
from quantstore.wording.rescues import DROPPED, KEPT, REMEDY_TITLES
from quantstore.wording.units import NO_BREAK_SPACE

LIMITS = {"fine": 30.0, "watch": 20.0, "at risk": 10.0, "broken": -np.inf}


def steps(*changes):
    rows = [
        ("placement", "everywhere", 8.0, 1.0, True, "broken"),
        ("depthwise", "3 inputs", 18.0, 1.0, True, "at risk"),
        ("ranges", "calibration mse; gains 0.2 dB", 17.5, 1.0, False, "at risk"),
        ("ranges", "min-max times 1.2", 21.0, 1.0, True, "watch"),
        ("int16", "1 of 4", 25.0, 0.95, True, "watch"),
    ]
    columns = ["remedy", "detail", "test_db", "int8_macs", "kept", "band"]
    frame = pd.DataFrame(rows, columns=columns).assign(
        step=range(len(rows)),
        predicted_db=[np.nan] * 4 + [24.0],
        validation_db=[7.0, 18.5, 18.6, 20.5, 26.0],
        seconds=0.5,
    )
    for row, column, value in changes:
        frame.loc[row, column] = value
    return frame


def staircase(frame, palette=LIGHT, reach_db=20.0):
    return rescue.staircase(frame, LIMITS, palette, reach_db=reach_db)


def datasets(chart):
    return [pd.DataFrame(rows) for rows in chart.to_dict()["datasets"].values()]


def rows_of(chart, column):
    """Of all layers whose rows have this column, in the order of the steps."""
    frames = [frame for frame in datasets(chart) if column in frame]
    return pd.concat(frames).drop_duplicates("y").sort_values("y")


def encodings(chart):
    return [layer.get("encoding", {}) for layer in chart.to_dict()["layer"]]


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_a_row_for_every_step_with_its_values_in_words(palette):
    said = rows_of(staircase(steps(), palette), "said_validation")
    assert said["said_title"].tolist()[:2] == ["target as it is", REMEDY_TITLES["depthwise"]]
    assert said["said_db"].tolist()[-1] == f"25.0{NO_BREAK_SPACE}dB"
    assert said["said_validation"].tolist()[-1] == f"26.0{NO_BREAK_SPACE}dB"
    assert said["said_predicted"].tolist()[-2:] == ["–", f"24.0{NO_BREAK_SPACE}dB"]
    assert said["said_result"].tolist() == [KEPT, KEPT, DROPPED, KEPT, KEPT]


def test_the_stairs_go_through_what_was_kept_alone():
    (stairs,) = (frame for frame in datasets(staircase(steps())) if "order" in frame)
    corners = list(zip(stairs["x"], stairs["y"], strict=True))
    assert corners == [(8, 0), (8, 1), (18, 1), (18, 3), (21, 3), (21, 4), (25, 4)]


def test_what_was_dropped_hangs_from_where_the_stairs_stood():
    (dropped,) = (frame for frame in datasets(staircase(steps())) if "level" in frame)
    assert dropped[["x", "level", "y"]].to_numpy().tolist() == [[17.5, 18.0, 2]]


def test_only_what_was_kept_has_the_colour_of_a_band():
    coloured = [
        layer
        for layer in staircase(steps()).to_dict()["layer"]
        if layer.get("encoding", {}).get("color", {}).get("field") == "band"
    ]
    assert len(coloured) == 1
    assert coloured[0]["encoding"]["color"]["scale"]["range"] == LIGHT.band_fills


def test_steps_of_one_remedy_are_told_apart_beside_the_plot():
    text = json.dumps(staircase(steps()).to_dict())
    assert "calibration mse" in text
    names = next(
        encoding["y"]["axis"]["labelExpr"]
        for encoding in encodings(staircase(steps()))
        if "labelExpr" in (encoding.get("y", {}).get("axis") or {})
    )
    lines = json.loads(names.partition("[format")[0])
    assert lines["0"] == ["target as it is"]
    assert " ".join(lines["2"]) == "better activation ranges: calibration mse"
    assert " ".join(lines["4"]) == "16-bit activations"


def test_what_loses_nothing_stands_at_the_end_of_the_axis_and_is_called_exact():
    chart = staircase(steps((4, "test_db", np.nan)))
    last = rows_of(chart, "said_validation").iloc[-1]
    assert last["said_db"] == "exact"
    assert last["x"] <= 40.0


def test_the_axis_holds_the_goal_and_what_is_below_nothing():
    chart = staircase(steps((0, "test_db", -3.0)), reach_db=55.0)
    domains = [
        encoding["x"]["scale"]["domain"]
        for encoding in encodings(chart)
        if "scale" in encoding.get("x", {})
    ]
    assert domains[0][0] <= -3.0
    assert domains[0][1] > 55.0
    assert all(domain == domains[0] for domain in domains)


def test_steps_that_were_all_kept_have_no_grey():
    frame = steps()
    assert all("level" not in part for part in datasets(staircase(frame[frame["kept"]])))


def test_a_detail_is_never_a_control_character():
    text = json.dumps(staircase(steps((2, "detail", "a\x1b[31mb"))).to_dict())
    assert "\\u001b" not in text


def test_the_price_is_the_share_of_macs_in_int8():
    chart = rescue.macs(steps(), LIMITS, LIGHT, reach_db=20.0, keep_macs=0.9)
    shares = rows_of(chart, "said_macs")["macs"].tolist()
    assert shares == [100, 100, 100, 100, 95]
    spec = chart.to_dict()
    rules = [layer for layer in spec["layer"] if layer["mark"]["type"] == "rule"]
    assert [rule["mark"]["strokeDash"] for rule in rules] == [[5, 4], [1, 3]]
    assert {frame["macs"].iloc[0] for frame in datasets(chart) if list(frame) == ["macs"]} == {90}


def test_the_plan_that_was_chosen_has_a_ring():
    chart = rescue.macs(steps(), LIMITS, LIGHT, reach_db=20.0, keep_macs=0.9)
    (ring,) = (
        layer
        for layer in chart.to_dict()["layer"]
        if layer["mark"]["type"] == "point" and not layer["mark"]["filled"]
    )
    frame = pd.DataFrame(chart.to_dict()["datasets"][ring["data"]["name"]])
    assert frame.to_dict("records") == [{"macs": 95.0, "x": 25.0}]


def test_axes_carry_their_units():
    text = json.dumps(staircase(steps()).to_dict())
    assert "output SQNR on unseen inputs, dB" in text
    price = rescue.macs(steps(), LIMITS, LIGHT, reach_db=20.0, keep_macs=0.9).to_dict()
    assert "multiply-accumulates (MACs) in int8" in json.dumps(price)


def layers(**changes):
    frame = pd.DataFrame(
        {
            "depth": [0, 1, 2],
            "node_name": ["conv0", "a\nb", "head"],
            "op_type": ["Conv", "Conv", "Gemm"],
            "tensor": ["h", "d", "y"],
            "before_db": [30.0, 6.0, -2.0],
            "after_db": [np.nan, 26.0, 24.0],
        }
    )
    return frame.assign(**changes)


def test_drift_shows_both_runs_and_what_is_exact_at_the_edge():
    chart = rescue.drift(layers(), LIMITS, LIGHT)
    (rows,) = [frame for frame in datasets(chart) if "said_node" in frame]
    assert rows["when"].tolist() == ["before"] * 3 + ["after"] * 3
    assert rows["x"].tolist()[:3] == [30.0, 6.0, -2.0]
    assert rows["said_db"].iloc[3] == "exact"
    assert rows["x"].iloc[3] == rows["x"].max()
    assert "\n" not in rows["said_node"].iloc[1]
    # Two series that differ in more than their colour.
    assert "strokeDash" in json.dumps(chart.to_dict())


def test_drift_of_a_single_layer_has_an_axis():
    chart = rescue.drift(layers().head(1), LIMITS, DARK)
    assert chart.to_dict()

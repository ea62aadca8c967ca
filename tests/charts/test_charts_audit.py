"""The chart of an audit: a bar for each way that was measured."""

import math

import pandas as pd
import pytest

from quantstore.charts import audit as charts
from quantstore.charts.palette import LIGHT
from quantstore.wording.audits import PAIRING_CHECK, WAY_TITLES
from tests.support.runs import an_audit

LIMITS = {"fine": 30.0, "watch": 20.0, "at risk": 10.0, "broken": float("-inf")}


def drawn(**changes):
    return charts.six_values(an_audit(**changes), LIMITS, LIGHT).to_dict()


def rows_of(spec, layer):
    name = spec["layer"][layer]["data"]["name"]
    return pd.DataFrame(spec["datasets"][name])


def test_every_way_has_a_bar_in_its_band_but_the_check_of_the_pairing():
    spec = drawn()
    judged, check = rows_of(spec, 0), rows_of(spec, 1)
    assert judged["title"].tolist() == [
        title for column, title in WAY_TITLES.items() if column != PAIRING_CHECK
    ]
    assert judged["band"].tolist() == ["at risk", "at risk", "at risk", "at risk", "watch"]
    assert check["title"].tolist() == [WAY_TITLES[PAIRING_CHECK]]
    assert "color" in spec["layer"][0]["encoding"]
    assert "color" not in spec["layer"][1]["encoding"]


def test_what_was_not_measured_has_no_bar():
    assert len(rows_of(drawn(integer_db=math.nan, exact_db=math.nan), 0)) == 3


@pytest.mark.parametrize(("grid_db", "end"), [(math.inf, 40.0), (-5.5, -5.5)])
def test_an_exact_value_ends_with_the_axis_and_a_negative_one_below_zero(grid_db, end):
    spec = drawn(grid_db=grid_db)
    low, high = spec["layer"][0]["encoding"]["x"]["scale"]["domain"]
    assert rows_of(spec, 0)["end"].iloc[0] == end
    assert (low, high) == (min(0.0, end), 40.0)


def test_the_axis_has_a_title_with_its_unit():
    assert drawn()["layer"][0]["encoding"]["x"]["axis"]["title"].endswith("dB")

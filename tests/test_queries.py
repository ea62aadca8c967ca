"""The questions that are asked of tables, for speed, answer as the views do."""

import shutil

import altair as alt
import pandas as pd
import pytest

from quantstore import queries, store
from quantstore.charts.common import ready, styled
from quantstore.palette import LIGHT

SCHEMES = ("int8_tensor_symmetric", "int8_tensor_asymmetric", "int8_channel_symmetric")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_ranking_of_models_counts_as_the_verdicts_do(demo_store, scheme):
    with store.reading(demo_store) as con:
        ranked = queries.ranking(con, scheme)
        verdicts = queries.verdicts(con)
    verdicts = verdicts[verdicts["scheme"] == scheme].set_index("model")
    assert sorted(ranked["model"]) == sorted(verdicts.index)
    verdicts = verdicts.loc[ranked["model"]]
    for column in ("layers_broken", "layers_at_risk"):
        assert ranked[column].tolist() == verdicts[column].tolist()
    shares = [
        (row.layers_broken / row.layers, row.layers_at_risk / row.layers)
        for row in verdicts.assign(layers=verdicts["layer_count"]).itertuples()
    ]
    assert shares == sorted(shares, reverse=True)


def test_the_ranking_can_be_limited_to_some_models(demo_store):
    some = ["digits-plain", "digits-rescaled"]
    with store.reading(demo_store) as con:
        assert sorted(queries.rank_of_models(con, SCHEMES[0], some)) == some


def test_every_layer_has_an_address_of_its_own(demo_store):
    with store.reading(demo_store) as con:
        layers = con.rows("select layer_id, model, layer from model_layers")
        found = [queries.layer_address(con, layer_id) for layer_id, _, _ in layers]
        assert queries.layer_address(con, -1) is None
    assert found == [(model, layer) for _, model, layer in layers]


def test_a_node_with_several_operands_names_them(demo_store, tmp_path):
    path = tmp_path / "several.duckdb"
    shutil.copy(demo_store, path)
    with store.writing(path) as con:
        con.rows("update layers set layer = 'node' where depth < 2")
        con.rows("update layers set operand = 'R' where depth = 1")
        first = con.value("select min(layer_id) from layers where depth = 0")
        assert queries.layer_address(con, first)[1] == "node (W)"
        assert queries.layer_address(con, first + 1)[1] == "node (R)"


def test_a_chart_for_a_page_is_the_same_chart():
    chart = alt.Chart(pd.DataFrame({"x": [1]})).mark_point().encode(x="x:Q")
    plain = styled(chart, LIGHT).to_dict()
    trusted = ready(styled(chart, LIGHT)).to_dict()
    # Altair numbers the views of a process.
    assert {**trusted, "name": ""} == {**plain, "name": ""}
    assert plain["config"]["axis"]["gridColor"] == LIGHT.grid

"""The questions that are asked of tables, for speed, answer as the views do."""

import shutil

import altair as alt
import numpy as np
import pandas as pd
import pytest

from quantstore import queries, schemes, store
from quantstore.charts.common import ready, styled
from quantstore.charts.measures import LABELS, measure_of
from quantstore.charts.palette import LIGHT
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import IngestChoices
from tests.support.graphs import conv_model, gaussian, make_model, node, save

SCHEMES = ("int8_tensor_symmetric", "int8_tensor_asymmetric", "int8_channel_symmetric")


@pytest.mark.slow
@pytest.mark.parametrize("target", schemes.TARGETS)
def test_where_no_model_was_run_broken_layers_rank_them(demo_store, target):
    with store.reading(demo_store) as con:
        ranked = queries.ranked(queries.verdicts(con, target=target))
        verdicts = queries.verdicts(con)
    verdicts = verdicts[verdicts["target"] == target].set_index("model")
    assert sorted(ranked["model"]) == sorted(verdicts.index)
    shares = [
        (row.layers_broken / row.layers, row.layers_at_risk / row.layers)
        for row in ranked.assign(layers=ranked["layer_count"]).itertuples()
    ]
    assert shares == sorted(shares, reverse=True)


def test_a_table_has_columns_for_targets_that_are_measured_or_chosen(demo_store):
    with store.reading(demo_store) as con:
        verdicts = queries.verdicts(con)
    default = [name for name, target in schemes.TARGETS.items() if target.is_default]
    assert queries.shown_targets(verdicts, "int8_channel") == default
    is_dynamic = verdicts["target"] == "int8_dynamic"
    verdicts.loc[is_dynamic & (verdicts["model"] == "digits-plain"), "is_measured"] = True
    shown = queries.shown_targets(verdicts, "int4_weights")
    assert shown == [
        name for name in schemes.TARGETS if name in (*default, "int8_dynamic", "int4_weights")
    ]


def test_the_ranking_can_be_limited_to_some_models(demo_store):
    some = ["digits-plain", "digits-rescaled"]
    with store.reading(demo_store) as con:
        assert sorted(queries.rank_of_models(con, "int8_tensor", some)) == some


@pytest.mark.parametrize("name", SCHEMES)
def test_charts_get_every_measure_that_they_offer(demo_store, name):
    models = ["digits-rescaled", "digits-plain"]
    with store.reading(demo_store) as con:
        profiles = queries.layer_profiles(con, models, name)
        layers = con.frame("from model_layers").set_index("layer_id").loc[profiles["layer_id"]]
    assert list(dict.fromkeys(profiles["model"])) == models
    columns = {measure_of(label, schemes.SCHEMES[name]).column for label in LABELS}
    assert columns <= set(profiles)
    for column in columns & set(layers):
        assert profiles[column].tolist() == layers[column].tolist()


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
        model_id = con.value("select min(model_id) from models")
        first, second = con.rows(
            "select layer_id from layers where model_id = ? and depth < 2 order by depth",
            [model_id],
        )
        assert queries.layer_address(con, *first)[1] == "node (W)"
        assert queries.layer_address(con, *second)[1] == "node (R)"


def test_a_chart_for_a_page_is_the_same_chart():
    chart = alt.Chart(pd.DataFrame({"x": [1]})).mark_point().encode(x="x:Q")
    plain = styled(chart, LIGHT).to_dict()
    trusted = ready(styled(chart, LIGHT)).to_dict()
    # Altair numbers the views of a process.
    assert {**trusted, "name": ""} == {**plain, "name": ""}
    assert plain["config"]["axis"]["gridColor"] == LIGHT.grid


# What could help: neighbours to share scale with, and bits


@pytest.fixture
def pairs(demo_store, tmp_path):
    """A store where the first three layers of a model are a chain with known forecasts."""
    path = tmp_path / "pairs.duckdb"
    shutil.copy(demo_store, path)
    with store.writing(path) as con:
        con.rows("delete from equalization")
        ids = [
            row[0]
            for row in con.rows(
                "select layer_id from model_layers where model = 'digits-rescaled' order by depth"
            )
        ]
        for layer, partner, before, after in (
            (0, 1, 12, 25),
            (1, 0, 5, 9),
            (1, 2, 5, None),
            (2, 1, 31, 19),
        ):
            con.rows(
                "insert into equalization values (?, ?, ?, ?, ?)",
                [ids[layer], ids[partner], SCHEMES[0], before, after],
            )
    return path, ids


def test_neighbours_come_with_the_better_one_first_and_both_sides_of_the_trade(pairs):
    path, ids = pairs
    with store.reading(path) as con:
        found = queries.layer_equalization(con, ids[1], SCHEMES[0])
        names = dict(con.rows("select layer_id, layer from layers"))
        assert queries.layer_equalization(con, ids[1], SCHEMES[1]).empty
        assert queries.layer_equalization(con, ids[3], SCHEMES[0]).empty
    exact, better = found.to_dict("records")
    assert (exact["partner"], exact["is_before"]) == (names[ids[2]], False)
    assert pd.isna(exact["after_db"])
    assert (exact["band"], exact["band_after"]) == ("broken", "fine")
    assert (exact["partner_band"], exact["partner_band_after"]) == ("fine", "at risk")
    assert better == {
        "partner_layer_id": ids[0],
        "partner": names[ids[0]],
        "is_before": True,
        "before_db": 5,
        "after_db": 9,
        "band": "broken",
        "band_after": "broken",
        "partner_before_db": 12,
        "partner_after_db": 25,
        "partner_band": "at risk",
        "partner_band_after": "watch",
    }


def test_what_equalization_could_give_a_model_counts_its_layers_by_band(pairs):
    path, ids = pairs
    with store.writing(path) as con:
        # The bands are those of the errors; here they agree with the forecasts.
        con.rows("update stored_errors set channel_sqnr_p10_db = 35 where scheme = ?", [SCHEMES[0]])
        for layer, value in ((0, 12), (1, 5), (2, 31), (3, 9.5)):
            con.rows(
                "update stored_errors set channel_sqnr_p10_db = ?"
                " where layer_id = ? and scheme = ?",
                [value, ids[layer], SCHEMES[0]],
            )
    with store.reading(path) as con:
        found = queries.model_equalization(con, "digits-rescaled", SCHEMES[0])
        other = queries.model_equalization(con, "digits-plain", SCHEMES[0])
    assert found.to_dict("split")["data"] == [
        ["broken", 2, 1, 1],
        ["at risk", 1, 1, 1],
        ["fine", len(ids) - 3, 1, 0],
    ]
    assert other["layers_with_pair"].sum() == 0


def test_the_stored_forecasts_come_in_pairs(demo_store):
    with store.reading(demo_store) as con:
        stored = con.rows("select layer_id, partner_layer_id from equalization")
        assert stored
        for layer_id in {layer_id for layer_id, _ in stored}:
            found = queries.layer_equalization(con, layer_id, SCHEMES[0])
            partners = {partner for layer, partner in stored if layer == layer_id}
            assert set(found["partner_layer_id"]) == partners


def test_the_bits_of_a_model_are_those_of_its_neediest_layer(demo_store, tmp_path):
    path = tmp_path / "bits.duckdb"
    shutil.copy(demo_store, path)
    with store.writing(path) as con:
        needed = con.rows(
            """
            select granularity, max(bits)
            from bits_needed join model_layers using (layer_id)
            where model = 'digits-plain'
            group by granularity
            """
        )
        assert queries.model_bits_needed(con, "digits-plain") == dict(needed)
        con.rows(
            """
            update bits_needed set bits = null
            where granularity = 'tensor' and layer_id = (
                select min(layer_id) from model_layers where model = 'digits-plain'
            )
            """
        )
        assert queries.model_bits_needed(con, "digits-plain") == {**dict(needed), "tensor": None}
        assert queries.model_bits_needed(con, "no such model") == {}


@pytest.fixture(scope="module")
def many_channels(demo_store, tmp_path_factory):
    """A store whose layer 1 has 2,048 channels: number n is n wide, and has 2048 - n dB / 40.

    Read it, never write to it.
    """
    path = tmp_path_factory.mktemp("many") / "many.duckdb"
    shutil.copy(demo_store, path)
    with store.writing(path) as con:
        (key,) = con.rows("select layer_id from layers order by model_id, depth limit 1")[0]
        for table in ("layers", *store.CHILDREN_OF_LAYERS):
            con.rows(f"update {table} set layer_id = 1 where layer_id = ?", [key])
        con.rows("delete from stored_channels where layer_id = 1")
        con.rows(
            """
            insert into stored_channels by name
            select
                1 as layer_id, channel,
                case when channel <> 7 then -channel end as weight_min, channel as weight_max,
                -channel / 2 as q1, 0 as median, channel / 2 as q3,
                -channel as whisker_low, channel as whisker_high, 0 as mean, channel as std,
                1 as outlier_count, 2048 as nonzero_count,
                case when channel > 0 then (2048 - channel) / 40 end
                    as int8_tensor_symmetric_sqnr_db,
                channel as int8_tensor_symmetric_zeroed_count
            from range(2048) as channels (channel)
            """
        )
    return path


def test_more_channels_than_columns_share_one_that_keeps_the_extremes_and_the_worst(many_channels):
    with store.reading(many_channels) as con:
        columns = queries.layer_channel_columns(con, 1, SCHEMES[0])
    assert len(columns) == 512
    second = columns.iloc[1]
    # Channel 7 has no finite weight: the column reaches to the next one.
    assert (second["first"], second["last"], second["channels"]) == (4, 8, 4)
    assert (second["weight_min"], second["weight_max"]) == (-8, 8)
    assert second["sqnr_db"] == (2048 - 8) / 40
    assert second["band"] == "fine"
    assert columns["band"].iloc[-1] == "broken"
    assert columns["channels"].sum() == 2047


def test_a_stretch_of_channels_has_a_column_each(many_channels):
    with store.reading(many_channels) as con:
        by_index = queries.layer_channel_columns(con, 1, SCHEMES[0], first=0, last=9)
        widest = queries.layer_channel_columns(
            con, 1, SCHEMES[0], order="widest first", first=0, last=2
        )
    assert by_index["first"].tolist() == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]
    assert by_index["place"].tolist() == list(range(10))
    assert pd.isna(by_index["sqnr_db"].iloc[0])
    assert by_index["band"].iloc[0] == "fine"
    assert widest["first"].tolist() == [2047, 2046, 2045]


def test_what_stands_out_among_channels_is_counted_where_they_lie(many_channels):
    with store.reading(many_channels) as con:
        facts = queries.layer_channel_facts(con, 1, SCHEMES[0])
    assert (facts["known_channels"], facts["zero_channels"]) == (2047, 1)
    assert (facts["largest_channel"], facts["largest_abs"]) == (2047, 2047)
    assert facts["typical_abs"] == 1024
    assert sum(facts["bands"].values()) == 2047
    assert facts["bands"]["broken"] == 399


@pytest.mark.parametrize("model", ["digits-plain", "digits-rescaled"])
def test_what_a_layer_is_asked_alone_is_what_all_layers_are_asked_together(demo_store, model):
    with store.reading(demo_store) as con:
        worst = queries.worst_layers(con, model, SCHEMES[0])
        ranked = queries.ranked_layers(con, model, SCHEMES[0])
        columns = ["flattened_channels", "narrow_channels"]
        for row in worst.to_dict("records"):
            facts = queries.layer_channel_facts(con, row["layer_id"], SCHEMES[0])
            assert [facts[column] for column in columns] == [row[column] for column in columns]
            assert queries.layer_sparks(con, row["layer_id"])[SCHEMES[0]] == list(row["spark"])
            assert sum(row["spark"]) == row["channel_count"]
    pd.testing.assert_frame_equal(ranked, worst[ranked.columns])


@pytest.mark.slow
def test_channels_come_a_page_at_a_time_in_the_order_asked_for(many_channels):
    def rows(**options):
        with store.reading(many_channels) as con:
            return queries.layer_channel_rows(con, 1, SCHEMES[0], **options)["channel"].tolist()

    assert rows(limit=3) == [2047, 2046, 2045]
    assert rows(limit=2, skip=2) == [2045, 2044]
    assert rows(order="by index", channels=(5, 8)) == [5, 6, 7, 8]
    assert rows(order="widest first", channels=(0, 9), limit=2) == [9, 8]
    assert len(rows()) == 2048
    # What comes back exactly is the best there is.
    assert rows()[-1] == 0


@pytest.mark.slow
def test_channels_that_round_to_zero_are_counted_without_dead_ones(tmp_path):
    weights = gaussian(10, 3, 3, 3)
    weights[[2, 5]] *= 1e-9
    weights[7] *= 1e-4
    db = tmp_path / "s.duckdb"
    ingest_file(save(conv_model(weights), tmp_path / "net.onnx"), db, IngestChoices(probe=False))
    with store.reading(db) as con:
        (layer,) = queries.worst_layers(con, "net", SCHEMES[0]).to_dict("records")
        rows = con.rows("select count(*) from channel_errors where scheme = ?", [SCHEMES[0]])
    assert layer["dead_channel_count"] == 2
    assert layer["flattened_channels"] == layer["narrow_channels"] == 1
    assert layer["channels_below_10db"] == 1
    assert sum(layer["spark"]) == 10
    assert rows == [(10,)]


@pytest.mark.slow
def test_true_channels_of_a_conv_transpose_are_joined_everywhere(tmp_path):
    weights = (
        gaussian(12, 1, 4, 4) * np.geomspace(0.05, 2, 12, dtype=np.float32)[:, None, None, None]
    )
    nodes = [
        node("Conv", ["x", "k"], ["h"], "conv"),
        node("ConvTranspose", ["h", "w"], ["y"], "up", group=12),
    ]
    path = save(make_model(nodes, {"k": gaussian(12, 3, 3, 3), "w": weights}), tmp_path / "n.onnx")
    db = tmp_path / "s.duckdb"
    ingest_file(path, db, IngestChoices(probe=False))
    with store.reading(db) as con:
        counts = con.rows(
            "select channel_count, group_count, channel_axis,"
            " (select count(*) from channels where channels.layer_id = layers.layer_id),"
            " (select count(*) from channel_errors where channel_errors.layer_id = layers.layer_id"
            f" and scheme = '{SCHEMES[0]}'),"
            " (select count(*) from channels join channel_errors using (layer_id, channel)"
            f" where layer_id = layers.layer_id and scheme = '{SCHEMES[0]}')"
            " from layers where layer = 'up'"
        )
    assert counts == [(12, 12, 1, 12, 12, 12)]

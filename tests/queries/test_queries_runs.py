"""What the pages ask of runs: verdicts from the probe, predictions beside it, drift."""

import shutil

import pytest

from quantstore import queries, store
from quantstore.records import INTEGERS_ON_GRID
from quantstore.schemes import DEFAULT_TARGET, TARGETS
from quantstore.wording.verdicts import NOT_MEASURED
from tests.support.runs import CHANNEL, TENSOR, a_run, a_sensitivity, a_tensor, add, layer_names


@pytest.fixture
def path(demo_store, tmp_path):
    path = tmp_path / "runs.duckdb"
    shutil.copy(demo_store, path)
    return path


@pytest.fixture
def probed(path):
    """Plain survives, rescaled breaks, separable is at risk by its weights alone, one failed."""
    with store.writing(path) as con:
        add(con, "digits-plain", a_run(39.7))
        add(con, "digits-plain", a_run(46.7, mode="weights"))
        add(con, "digits-rescaled", a_run(0.7))
        add(con, "digits-rescaled", a_run(44.8, CHANNEL, "weights"))
        add(con, "digits-separable", a_run(15.0, mode="weights"))
        add(con, "digits-separable-unfolded", a_run(None, failure="it was stopped"))
    return path


def test_integers_of_this_very_grid_have_nothing_to_lose(path):
    with store.writing(path) as con:
        con.rows("update layers set already_quantized = true")
        add(con, "digits-plain", a_run(None, CHANNEL, "weights", failure=INTEGERS_ON_GRID))
        add(con, "digits-plain", a_run(33.0, TENSOR))
    with store.reading(path) as con:
        verdicts = queries.verdicts(con, ["digits-plain"])
    facts = {row["target"]: queries.model_facts(row) for row in verdicts.to_dict("records")}
    assert [name for name, found in facts.items() if found.is_on_its_own_grid] == ["int8_weights"]


def test_models_are_ranked_by_verdict_then_by_what_came_out(probed):
    with store.reading(probed) as con:
        assert queries.rank_of_models(con, "int8_tensor") == [
            "digits-rescaled",  # broken
            "digits-separable",  # at risk
            "digits-plain",  # fine, 39.7 dB
            "digits-separable-unfolded",  # untested
        ]


def test_what_is_untested_comes_with_its_reason(probed):
    with store.reading(probed) as con:
        verdicts = queries.verdicts(con, ["digits-separable-unfolded"])
    reasons = verdicts.set_index("target")["reason"]
    assert reasons["int8_tensor"] == "it was stopped"
    assert reasons["int8_channel"] == NOT_MEASURED


def test_a_figure_comes_with_the_limit_that_it_stays_below(path):
    with store.writing(path) as con:
        con.rows("update bands set lower_db = 24.9 where band = 'watch'")
        add(con, "digits-plain", a_run(24.7))
        add(con, "digits-rescaled", a_run(24.9))
        add(con, "digits-separable", a_run(30.0))
    with store.reading(path) as con:
        rows = queries.verdicts(con, target="int8_tensor").set_index("model", drop=False)
    limits = {name: queries.model_facts(row).next_limit_db for name, row in rows.iterrows()}
    assert limits == {
        "digits-plain": 24.9,
        "digits-rescaled": 30.0,
        "digits-separable": None,
        "digits-separable-unfolded": None,
    }


def test_the_runs_of_a_model_are_the_latest_of_each_kind_probes_first(path):
    with store.writing(path) as con:
        add(con, "digits-plain", a_run(10, source="12 images"), [a_tensor(0, 30)])
        add(con, "digits-plain", a_run(20))
        add(con, "digits-plain", a_run(21, minute=1))
        add(con, "digits-plain", a_run(None, minute=2, failure="stopped"))
        add(con, "digits-rescaled", a_run(1))
    with store.reading(path) as con:
        found = queries.model_runs(con, "digits-plain")
    assert found["input_source"].tolist() == ["noise", "12 images"]
    assert found["output_sqnr_db"].tolist() == [21, 10]
    assert found["band"].tolist() == ["watch", "at risk"]
    assert found["has_drift"].tolist() == [False, True]


@pytest.mark.parametrize("of_model", [queries.model_runs, queries.model_targets])
def test_the_worst_output_is_what_a_model_shows(path, of_model):
    """A median over the outputs beside a verdict on the worst of them would be good news."""
    with store.writing(path) as con:
        add(
            con,
            "digits-plain",
            a_run(38, CHANNEL, target=DEFAULT_TARGET.name, deciding_sqnr_db=0.0),
        )
    with store.reading(path) as con:
        (row,) = of_model(con, "digits-plain").to_dict("records")
    assert (row["output_sqnr_db"], row["band"]) == (0.0, "broken")


def test_reality_sets_the_weights_beside_what_was_measured(probed):
    with store.reading(probed) as con:
        found = queries.reality(con, TENSOR, "both", is_real=False).set_index("model")
        assert sorted(found.index) == ["digits-plain", "digits-rescaled"]
        expected = con.rows(
            """
            select max(weight_range), sum(pow(10, -sqnr_db / 10)), min(channel_sqnr_p10_db)
            from layer_errors where model = 'digits-plain' and scheme = ?
            """,
            [TENSOR],
        )[0]
        row = found.loc["digits-plain"]
        columns = ["max_weight_range", "noise_to_signal", "worst_p10_db"]
        assert row[columns].tolist() == pytest.approx(list(expected))
        assert row["output_sqnr_db"] == 39.7
        assert found["band"].to_dict() == {"digits-plain": "fine", "digits-rescaled": "broken"}
        assert queries.reality(con, TENSOR, "both", is_real=True).empty


def test_reality_tells_the_probe_from_inputs_that_somebody_gave(path):
    with store.writing(path) as con:
        add(con, "digits-plain", a_run(30))
        add(con, "digits-plain", a_run(31, source="noise, image-like"))
        add(con, "digits-plain", a_run(32, source="12 images of photos/"))
    with store.reading(path) as con:
        probe = queries.reality(con, TENSOR, "both", is_real=False)
        real = queries.reality(con, TENSOR, "both", is_real=True)
        counts = queries.run_counts(con)
    assert (probe["output_sqnr_db"].tolist(), real["output_sqnr_db"].tolist()) == ([30], [32])
    assert sorted(counts["is_real"]) == [False, True]


def test_what_is_stored_on_this_very_grid_has_nothing_to_lose_and_is_left_out(path):
    with store.writing(path) as con:
        con.rows("update layers set already_quantized = true")
        add(con, "digits-plain", a_run(130))
        add(con, "digits-rescaled", a_run(17))
    with store.reading(path) as con:
        found = queries.reality(con, TENSOR, "both", is_real=False)
    assert found["model"].tolist() == ["digits-rescaled"]


@pytest.fixture
def drifted(path):
    """A run of six tensors: exact, then falling to 30 and, at a layer, to 12 dB."""
    with store.writing(path) as con:
        names = layer_names(con, "digits-rescaled")
        run = add(
            con,
            "digits-rescaled",
            a_run(8, source="12 images"),
            [
                a_tensor(0, None, names[0]),
                a_tensor(1, 55),
                a_tensor(2, 30, names[1]),
                a_tensor(3, 33),
                a_tensor(4, 12, names[2]),
                a_tensor(4, 31, names[2], "local"),
                a_tensor(5, -2),
            ],
        )
    return path, run


def test_drift_falls_only_below_everything_before(drifted):
    path, run = drifted
    with store.reading(path) as con:
        found = queries.drift(con, [run])
    assert found["depth"].tolist() == [0, 1, 2, 3, 4, 5]
    assert found["place"].tolist() == [0, 0.2, 0.4, 0.6, 0.8, 1]
    # 40 dB and more is as good as exact; 33 after 30 is no fall.
    assert found["drop_db"].tolist() == [0, 0, 10, 0, 18, 14]
    assert found["lowest_before_db"].tolist() == [40, 40, 40, 30, 30, 12]
    assert found["has_local"].tolist() == [False] * 4 + [True, False]
    assert found.loc[4, "local_db"] == 31


def test_drift_brings_the_weights_of_the_layers_on_its_way(drifted):
    path, run = drifted
    with store.reading(path) as con:
        found = queries.drift(con, [run])
        layers = con.frame(
            "from layer_errors where model = 'digits-rescaled' and scheme = ? order by depth",
            [TENSOR],
        )
    on_the_way = found[found["layer_id"].notna()]
    assert on_the_way["layer_id"].tolist() == layers["layer_id"].tolist()[:3]
    assert on_the_way["band"].tolist() == layers["band"].tolist()[:3]
    assert found.loc[[1, 3, 5], "band"].isna().all()


def test_a_node_with_several_weights_is_one_tensor(drifted):
    path, run = drifted
    with store.writing(path) as con:
        first, second = layer_names(con, "digits-rescaled")[:2]
        con.rows("update layers set layer = ?, operand = 'R' where layer = ?", [first, second])
    with store.reading(path) as con:
        assert len(queries.drift(con, [run])) == 6


def test_runs_come_in_the_order_that_was_asked_for(drifted):
    path, run = drifted
    with store.writing(path) as con:
        other = add(con, "digits-plain", a_run(20), [a_tensor(0, 20)])
    with store.reading(path) as con:
        found = queries.drift(con, [other, run])
        assert list(dict.fromkeys(found["simulation_id"])) == [other, run]
        assert queries.drift_runs(con)["model"].tolist() == ["digits-plain", "digits-rescaled"]
        assert queries.drift_runs(con, "digits-plain")["model"].tolist() == ["digits-plain"]


def test_a_tensor_comes_with_both_histograms(drifted):
    path, run = drifted
    with store.reading(path) as con:
        (row,) = queries.tensor_values(con, run, "tensor_4").to_dict("records")
        assert queries.tensor_values(con, run, "no such tensor").empty
    assert row["sqnr_db"] == 12
    assert (sum(row["float_counts"]), sum(row["quantized_counts"])) == (400, 384)


def test_sensitivities_are_ranked_by_outputs_beside_the_rank_by_weights(path):
    with store.writing(path) as con:
        model_id = store.find_model(con, "digits-rescaled")
        store.add_sensitivities(
            con,
            model_id,
            [
                *(a_sensitivity(depth, db) for depth, db in enumerate((30, 5, None))),
                *(a_sensitivity(depth, 1, kind="all but") for depth in range(3)),
            ],
        )
    with store.reading(path) as con:
        found = queries.sensitivities(con, "digits-rescaled")
        assert queries.sensitivities(con, "digits-plain").empty
    assert found["depth"].tolist() == [1, 0, 2]
    assert found["rank"].tolist() == [1, 2, 3]
    assert sorted(found["weight_rank"]) == [1, 2, 3]


def test_under_a_scheme_of_targets_alone_layers_have_the_figures_of_the_plain_one(path):
    target = TARGETS["int8_tensor_power_of_two"]
    rounded = {"scheme": target.scheme.name, "target": target.name}
    with store.writing(path) as con:
        model_id = store.find_model(con, "digits-rescaled")
        store.add_sensitivities(con, model_id, [a_sensitivity(0, 5, mode="both", **rounded)])
        first = layer_names(con, "digits-rescaled")[0]
        run = add(con, "digits-rescaled", a_run(9, **rounded), [a_tensor(0, 9, first)])
        ((plain_db,),) = con.rows(
            """
            select channel_sqnr_p10_db from layer_errors
            where model = 'digits-rescaled' and layer = ? and scheme = ?
            """,
            [first, TENSOR],
        )
        assert queries.drift(con, [run])["channel_sqnr_p10_db"].tolist() == [plain_db]
        found = queries.sensitivities(con, "digits-rescaled")
    assert found["channel_sqnr_p10_db"].tolist() == [plain_db]
    assert found["target"].tolist() == [target.name]


def test_a_drift_run_has_the_band_of_its_worst_output(path):
    with store.writing(path) as con:
        run = a_run(33, deciding_sqnr_db=12.0)
        add(con, "digits-plain", run, [a_tensor(0, 33)])
        (row,) = queries.drift_runs(con).to_dict("records")
    assert (row["output_sqnr_db"], row["band"]) == (12.0, "at risk")

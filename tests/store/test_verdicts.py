"""The verdict on a model under a target: what it rests on, and when there is none."""

import itertools
import shutil
from pathlib import Path

import pytest

from quantstore import queries, store
from quantstore.records import NOTHING_ROUNDED, OutputRecord
from quantstore.schemes import TARGETS
from quantstore.store.schema import schema_sql
from quantstore.store.totals import renew_totals
from tests.support.runs import CHANNEL, TENSOR, a_run, add

MODEL = "digits-plain"
CUT_OFF = "stopped after 60 s of processor time"
NOT_MEASURED = "not measured"
MINE = "12 images of photos, imagenet"
FULL = ("probe", "both")
ALONE = ("probe", "weights")
LAYERS = ("weights", "weights")


@pytest.fixture
def path(tmp_path, demo_store):
    path = Path(shutil.copy(demo_store, tmp_path / "test.duckdb"))
    with store.writing(path) as con:
        con.rows("delete from simulations")
    return path


@pytest.fixture
def judge(path):
    """The verdict on the model, whose layers are fine, after some runs."""

    def judge(*runs, target="int8_channel", worst_p10_db=40.0, columns="reason"):
        with store.writing(path) as con:
            model_id = store.find_model(con, MODEL)
            con.rows("delete from simulations where model_id = ?", [model_id])
            con.rows(
                "update stored_errors set channel_sqnr_p10_db = ? where layer_id in"
                " (select layer_id from layers where model_id = ?)",
                [worst_p10_db, model_id],
            )
            renew_totals(con._connection)
            for minute, run in enumerate(runs):
                add(con, MODEL, a_run(**{"scheme": CHANNEL, "minute": minute, **run}))
            columns = f"verdict, evidence, mode, output_sqnr_db, {columns}"
            (found,) = con.rows(
                f"select {columns} from verdicts where model = ? and target = ?", [MODEL, target]
            )
        return found

    return judge


def full(db, **more):
    return {"db": db, **more}


def alone(db, **more):
    return {"db": db, "mode": "weights", **more}


def cut_off(run=full, **more):
    return run(None, failure=CUT_OFF, **more)


def own(run, db, **more):
    return run(db, source=MINE, **more)


# --- every model has a row for every target -------------------------------------------------------


def test_a_target_that_was_never_measured_has_its_row(path):
    with store.reading(path) as con:
        rows = con.rows("select model, target, scheme from verdicts")
        models = queries.model_names(con)
    assert sorted(rows) == sorted(
        (model, name, target.scheme.name)
        for model, (name, target) in itertools.product(models, TARGETS.items())
    )


def test_the_layers_of_a_target_are_those_of_its_scheme_that_it_rounds(path):
    with store.reading(path) as con:
        for name, target in TARGETS.items():
            counted = con.rows(
                "select layers_broken, layers_at_risk, layers_watch, layers_fine from verdicts"
                " where target = ? and model = ?",
                [name, MODEL],
            )
            expected = con.rows(
                "select count(*) filter (band = 'broken'), count(*) filter (band = 'at risk'),"
                " count(*) filter (band = 'watch'), count(*) filter (band = 'fine')"
                " from layer_errors where model = ? and scheme = ?"
                " and (len($3) = 0 or list_contains($3, op_family))".replace("?", "$1", 1).replace(
                    "?", "$2", 1
                ),
                {"1": MODEL, "2": target.layer_scheme.name, "3": list(target.layer_families)},
            )
            assert counted == expected, name


# --- activations measured -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("db", "verdict"),
    [
        (30, "fine"),
        (29.9, "watch"),
        (20, "watch"),
        (19.9, "at risk"),
        (10, "at risk"),
        (9.9, "broken"),
    ],
)
def test_the_band_at_the_outputs_is_the_verdict(judge, db, verdict):
    assert judge(full(db)) == (verdict, *FULL, db, None)


def test_the_output_that_decides_counts_where_it_is_known(judge):
    assert judge(full(38.0, deciding_sqnr_db=4.0)) == ("broken", *FULL, 4.0, None)


def test_the_lower_one_of_full_int8_and_weights_alone_counts(judge):
    assert judge(full(31.3), alone(7.9)) == ("broken", *ALONE, 7.9, None)
    assert judge(alone(7.9), full(31.3)) == ("broken", *ALONE, 7.9, None)
    assert judge(full(25.0), alone(45.0)) == ("watch", *FULL, 25.0, None)
    tensor = {"scheme": TENSOR}
    assert judge(full(31.3, **tensor), alone(12, **tensor), target="int8_tensor")[:4] == (
        *("at risk", *ALONE, 12),
    )


def test_weights_of_another_scheme_lower_nothing(judge):
    assert judge(full(33), alone(7.9, scheme=TENSOR))[:4] == ("fine", *FULL, 33)


def test_weights_that_failed_take_nothing_from_full_int8(judge):
    assert judge(full(33), cut_off(alone))[:4] == ("fine", *FULL, 33)


def test_broken_layers_take_nothing_from_what_was_measured(judge):
    assert judge(full(33), worst_p10_db=5.0)[0] == "fine"


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_each_target_is_judged_by_its_own_value(judge, name):
    target = TARGETS[name]
    run = full(33, scheme=target.scheme.name, mode=target.mode, target=name)
    assert judge(run, target=name)[:4] == ("fine", "probe", target.mode, 33)
    others = [other for other in TARGETS if other not in (name, "int8_weights", "int4_weights")]
    assert {judge(run, target=other)[0] for other in others} == {"untested"}


def test_dynamic_quantization_leaves_convolutions_in_float(judge):
    dynamic = full(33, scheme=TENSOR, target="int8_dynamic")
    everything = alone(5, scheme=TENSOR)
    assert judge(dynamic, everything, target="int8_dynamic")[:4] == ("fine", *FULL, 33)
    assert judge(everything, target="int8_dynamic")[0] == "untested"


def test_finer_scales_bound_those_that_are_powers_of_two(judge):
    everything = alone(5, scheme=TENSOR)
    assert judge(everything, target="int8_tensor_power_of_two")[:2] == ("broken", "probe")


# --- inputs of one's own --------------------------------------------------------------------------


def test_a_run_on_own_inputs_takes_the_place_of_the_probe(judge):
    columns = "sample_count, input_source"
    found = judge(own(full, 25.0, sample_count=12), full(8), columns=columns)
    assert found == ("watch", "run", "both", 25.0, 12, MINE)
    assert judge(full(8), columns=columns)[4:] == (3, "noise")


def test_of_runs_the_latest_of_the_same_target_counts(judge):
    fused = own(full, 5.0, target="int8_channel_fused")
    assert judge(own(full, 8), own(full, 33), fused)[:4] == ("fine", "run", "both", 33)
    # With ranges that no target has.
    assert judge(own(full, 8, target=None), full(33))[:4] == ("fine", *FULL, 33)


def test_full_int8_and_weights_alone_are_compared_on_the_same_inputs(judge):
    assert judge(own(full, 33), own(alone, 15))[:4] == ("at risk", "run", "weights", 15)
    assert judge(own(full, 33), alone(15))[:4] == ("fine", "run", "both", 33)
    assert judge(full(33), own(alone, 15))[:4] == ("fine", *FULL, 33)


def test_noise_that_somebody_asked_for_is_no_input_of_theirs(judge):
    asked = full(25, source="noise, image-like")
    assert judge(asked)[:4] == ("watch", *FULL, 25)
    assert judge(full(33), asked)[:4] == ("fine", *FULL, 33)
    assert judge(own(full, 8), asked)[:2] == ("broken", "run")


def test_a_run_without_a_value_is_not_replaced_by_the_probe(judge):
    assert judge(full(33), cut_off(source=MINE)) == ("untested", *LAYERS, None, CUT_OFF)


# --- activations not measured ---------------------------------------------------------------------


def test_weights_alone_never_take_the_place_of_full_int8(judge):
    for runs in itertools.permutations((alone(22), cut_off())):
        assert judge(*runs) == ("untested", *ALONE, 22, CUT_OFF)
    assert judge(alone(45)) == ("untested", *ALONE, 45, NOT_MEASURED)


@pytest.mark.slow
def test_weights_alone_prove_a_loss(judge):
    for missing in ((), (cut_off(),)):
        assert judge(alone(5), *missing) == ("broken", *ALONE, 5, None)
        assert judge(alone(15), *missing) == ("at risk", *ALONE, 15, None)
    assert judge(alone(45), own(alone, 5)) == ("broken", "run", "weights", 5, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("worst_p10_db", "verdict"),
    [(40, "untested"), (25, "untested"), (15, "at risk"), (5, "broken")],
)
@pytest.mark.parametrize("name", ["int8_channel", "int8_channel_fused", "int8_weights"])
def test_without_any_value_the_worst_layer_may_prove_one(judge, worst_p10_db, verdict, name):
    target = TARGETS[name]
    for runs, reason in (
        ((), NOT_MEASURED),
        ((cut_off(target=name, mode=target.mode),), CUT_OFF),
    ):
        found = judge(*runs, target=name, worst_p10_db=worst_p10_db)
        assert found == (verdict, *LAYERS, None, reason if verdict == "untested" else None)


def test_what_came_out_counts_before_the_worst_layer(judge):
    assert judge(alone(45), worst_p10_db=5.0)[0] == "untested"


def test_what_was_cut_off_stays_so_until_it_is_measured(judge):
    assert judge(cut_off(), full(33))[0] == "fine"
    assert judge(full(33), cut_off())[0] == "untested"


def test_a_failure_that_nobody_has_heard_of_leaves_the_model_untested(judge):
    assert judge(full(None, failure="no idea")) == ("untested", *LAYERS, None, "no idea")


# --- activations in float -------------------------------------------------------------------------


def test_where_activations_stay_in_float_weights_alone_are_the_whole(judge):
    weights = {"target": "int8_weights"}
    assert judge(alone(33), **weights) == ("fine", *ALONE, 33, None)
    assert judge(alone(22), **weights) == ("watch", *ALONE, 22, None)
    assert judge(full(33), **weights) == ("untested", *LAYERS, None, NOT_MEASURED)


# --- nothing rounded ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("failure", NOTHING_ROUNDED)
def test_where_nothing_was_to_be_rounded_nothing_is_missing(judge, failure):
    assert judge(full(None, failure=failure)) == ("fine", *FULL, None, None)
    assert judge(full(33), alone(None, failure=failure)) == ("fine", *FULL, 33, None)
    assert judge(alone(22), full(None, failure=failure))[:4] == ("watch", *ALONE, 22)
    assert judge(alone(None, failure=failure))[0] == "untested"


def test_the_view_knows_every_text_that_says_nothing_was_rounded():
    sql = schema_sql()
    assert all(text.replace("'", "''") in sql for text in NOTHING_ROUNDED)


# --- what stands beside the verdict ---------------------------------------------------------------


def test_the_worst_output_that_decides_is_named(judge):
    outputs = (
        OutputRecord(output="boxes", sqnr_db=33.0, varying_sqnr_db=31.0),
        OutputRecord(output="all", part="scores", varying_sqnr_db=6.0, decision_f1=0.4),
        OutputRecord(output="all", part="sizes", sqnr_db=20.0, decision_f1=0.9),
        OutputRecord(output="debug", sqnr_db=-3.0, decides=False, decision_f1=0.0),
    )
    run = full(33.0, deciding_sqnr_db=6.0, outputs=outputs, provisional="tokens cannot be imitated")
    found = judge(run, columns="worst_output, decision_f1, provisional")
    assert found[3:] == (6.0, "all (scores)", 0.4, "tokens cannot be imitated")


@pytest.mark.parametrize(
    ("tail_db", "named"),
    [(30.0, "all (sizes)"), (27.5, "all (sizes)"), (0.1, "all (decoder)"), (None, "all (sizes)")],
)
def test_where_the_decoder_loses_it_the_part_that_was_worst_before_is_not_to_blame(
    judge, tail_db, named
):
    outputs = (
        OutputRecord(output="all", part="scores", sqnr_db=34.0, varying_sqnr_db=26.0),
        OutputRecord(output="all", part="sizes", sqnr_db=30.0, varying_sqnr_db=25.0),
    )
    more = {} if tail_db is None else {"tail_sqnr_db": tail_db}
    lowest_db = min(30.0, tail_db or 30.0)
    run = full(33.0, deciding_sqnr_db=lowest_db, outputs=outputs, **more)
    assert judge(run, columns="worst_output")[3:] == (pytest.approx(lowest_db, abs=1e-3), named)


def test_targets_that_are_evidence_on_their_scheme_are_those_of_schemes_py(path):
    with store.writing(path) as con:
        con.rows("delete from simulations")
        for target in TARGETS.values():
            add(con, MODEL, a_run(33.0, "any", f"{target.mode} {target.name}", target=target.name))
        evidence = con.rows("select target from probes")
    assert sorted(evidence) == sorted(
        (target.name,) for target in TARGETS.values() if target.is_of_its_scheme
    )

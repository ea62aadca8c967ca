"""Verdicts without a figure of full int8: less can prove a loss, never that there is none."""

import math
import shutil
from pathlib import Path

import pytest

from quantstore import queries, store
from quantstore.records import NOTHING_ROUNDED
from quantstore.schemes import TARGETS
from quantstore.store.schema import schema_sql
from tests.support.runs import CHANNEL, TENSOR, a_run, add

MODEL = "digits-plain"
CUT_OFF = "stopped after 20 s"


@pytest.fixture
def path(tmp_path, demo_store):
    return Path(shutil.copy(demo_store, tmp_path / "test.duckdb"))


@pytest.fixture
def judged(path):
    """The verdict on the model, whose layers are fine, after some runs."""

    def judge(*runs, worst_p10_db=40.0, scheme=CHANNEL):
        with store.writing(path) as con:
            model_id = store.find_model(con, MODEL)
            con.rows("delete from simulations where model_id = ?", [model_id])
            con.rows(
                "update errors set channel_sqnr_p10_db = ? where layer_id in"
                " (select layer_id from layers where model_id = ?)",
                [worst_p10_db, model_id],
            )
            for minute, run in enumerate(runs):
                add(con, MODEL, a_run(**{"scheme": scheme, "minute": minute, **run}))
            columns = "verdict, evidence, mode, output_sqnr_db, reason"
            view = con.rows(
                f"select {columns} from verdicts where model = ? and scheme = ?", [MODEL, scheme]
            )
            frame = queries.ranking(con, scheme, [MODEL]).astype(object)
        (ranked,) = frame.where(frame.notna(), None).to_dict("records")
        # The ranking counts by itself, and must find the same.
        assert view == [tuple(ranked[column] for column in columns.split(", "))]
        return view[0]

    return judge


FULL_INT8_CUT_OFF = {"db": None, "failure": CUT_OFF}


def weights_only(db, **more):
    return {"db": db, "mode": "weights", **more}


def test_a_figure_of_weights_alone_never_takes_the_place_of_full_int8(judged):
    assert judged(weights_only(22), FULL_INT8_CUT_OFF) == (
        *("untested", "probe", "weights", 22, CUT_OFF),
    )
    assert judged(weights_only(45), FULL_INT8_CUT_OFF)[0] == "untested"
    # Whichever came first.
    assert judged(FULL_INT8_CUT_OFF, weights_only(45))[0] == "untested"


def test_weights_alone_prove_a_loss(judged):
    assert judged(weights_only(5), FULL_INT8_CUT_OFF) == ("breaks", "probe", "weights", 5, None)
    assert judged(weights_only(15), FULL_INT8_CUT_OFF) == (
        *("at risk", "probe", "weights", 15, None),
    )


@pytest.mark.parametrize(
    ("worst_p10_db", "verdict", "reason"),
    [
        (40, "untested", CUT_OFF),
        (25, "untested", CUT_OFF),
        (15, "at risk", None),
        (5, "breaks", None),
    ],
)
def test_without_any_figure_the_worst_layer_may_prove_one(judged, worst_p10_db, verdict, reason):
    found = judged(FULL_INT8_CUT_OFF, worst_p10_db=worst_p10_db)
    assert found == (verdict, "weights", "weights", None, reason)


def test_the_latest_run_of_full_int8_counts(judged):
    assert judged(FULL_INT8_CUT_OFF, {"db": 33})[0] == "fine"
    assert judged({"db": 33}, FULL_INT8_CUT_OFF)[0] == "untested"
    assert judged({"db": 33}, {"db": 15})[0] == "at risk"


def test_a_failure_that_nobody_has_heard_of_leaves_the_model_untested(judged):
    assert judged({"db": None, "failure": "no idea"}) == (
        *("untested", "weights", "weights", None, "no idea"),
    )


@pytest.mark.parametrize("failure", NOTHING_ROUNDED)
def test_where_nothing_was_to_be_rounded_nothing_is_missing(judged, failure):
    rounded_nothing = {"db": None, "failure": failure}
    assert judged(rounded_nothing)[0] == "fine"
    assert judged(weights_only(22), rounded_nothing)[:3] == ("watch", "probe", "weights")
    assert judged({"db": 33}, rounded_nothing)[:3] == ("fine", "probe", "both")


def test_the_view_of_probes_knows_every_text_that_says_nothing_was_rounded():
    sql = schema_sql()
    assert all(text.replace("'", "''") in sql for text in NOTHING_ROUNDED)


def test_a_failure_of_weights_alone_changes_nothing(judged):
    failed = weights_only(None, failure=CUT_OFF)
    assert judged(failed)[0] == "fine"
    assert judged(weights_only(22), failed)[:4] == ("watch", "probe", "weights", 22)
    assert judged({"db": 33}, failed)[0] == "fine"


@pytest.mark.parametrize(
    "target",
    ["int8_channel_fused", "int8_channel_int16", "int8_channel_depthwise", "a target of tomorrow"],
)
def test_a_target_that_rounds_less_or_otherwise_is_no_evidence_on_a_scheme(judged, target):
    assert judged({"db": 5, "target": target}) == ("fine", "weights", "weights", None, None)
    assert judged({"db": None, "failure": CUT_OFF, "target": target})[0] == "fine"


def test_targets_that_are_evidence_on_their_scheme_are_those_of_schemes_py(path):
    with store.writing(path) as con:
        con.rows("delete from simulations")
        for target in TARGETS.values():
            add(con, MODEL, a_run(33.0, "any", f"{target.mode} {target.name}", target=target.name))
        evidence = con.rows("select target from probes")
    assert sorted(evidence) == sorted(
        (target.name,) for target in TARGETS.values() if target.is_of_its_scheme
    )


def test_a_target_that_rounds_everything_is(judged):
    assert judged({"db": 5, "target": "int8_channel"})[:3] == ("breaks", "probe", "both")
    assert judged(weights_only(22, target="int8_weights"))[:3] == ("watch", "probe", "weights")
    tensor = {"scheme": TENSOR}
    assert judged({"db": 5, "target": "int8_tensor"}, **tensor)[:3] == ("breaks", "probe", "both")
    assert judged({"db": 5, "target": "int8_dynamic"}, **tensor)[0] == "fine"


def test_what_is_untested_comes_after_all_that_is_known(path):
    with store.writing(path) as con:
        con.rows("delete from simulations")
        for model, db in (("digits-plain", None), ("digits-separable", 35)):
            add(con, model, a_run(db, CHANNEL, failure=None if db else CUT_OFF))
        ranked = queries.ranking(con, CHANNEL, ["digits-plain", "digits-separable"])
    assert ranked["verdict"].tolist() == ["fine", "untested"]
    assert math.isnan(ranked["output_sqnr_db"].iloc[1])

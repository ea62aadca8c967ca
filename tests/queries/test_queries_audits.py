"""Audits out of the store: their models, their parts, and which models belong together."""

import math
import shutil

import pytest

from quantstore import queries, store
from quantstore.errors import UnknownModelError
from quantstore.wording import frames
from tests.support.runs import an_audit, an_audited_layer, an_audited_tensor, audited

INT8, FLOAT = "digits-separable", "digits-rescaled"


@pytest.fixture
def path(demo_store, tmp_path):
    return shutil.copy(demo_store, tmp_path / "audits.duckdb")


def read(path, audit_id):
    with store.reading(path) as con:
        rows = queries.audits(con)
        (row,) = rows[rows["audit_id"] == audit_id].to_dict("records")
        parts = [
            question(con, audit_id)
            for question in (queries.audit_layers, queries.audit_tensors, queries.audit_outputs)
        ]
    return row, *parts


def test_a_stored_audit_is_the_record_that_was_written(path):
    record = an_audit()
    row, layers, tensors, outputs = read(path, audited(path, INT8, FLOAT, record))
    assert (row["int8_model"], row["float_model"], row["band"]) == (INT8, FLOAT, "at risk")
    stored = frames.audit_record(row, layers, tensors, outputs)

    # The parts come in the order that people read them in; NaN is equal to nothing.
    def comparable(audit):
        return (
            repr(audit.outputs),
            sorted(map(repr, audit.layers)),
            sorted(map(repr, audit.tensors)),
        )

    assert comparable(stored) == comparable(record)
    assert (stored.grid_db, stored.notes) == (record.grid_db, record.notes)
    assert frames.audit_layer_names(layers)[1] == layers["layer"].iloc[0]


def test_what_is_exact_is_told_from_what_was_not_measured(path):
    layer, tensor = an_audited_layer(0, gain=math.inf), an_audited_tensor("h")
    record = an_audit(
        grid_db=math.inf, integer_db=math.inf, exact_db=math.nan, layers=(layer,), tensors=(tensor,)
    )
    row, *parts = read(path, audited(path, INT8, FLOAT, record))
    stored = frames.audit_record(row, *parts)
    assert (stored.grid_db, stored.integer_db) == (math.inf, math.inf)
    assert math.isnan(stored.exact_db)
    assert row["band"] == "fine"
    assert stored.layers[0].released_gain_db == math.inf
    assert math.isnan(stored.tensors[0].released_gain_db)
    with store.reading(path) as con:
        (facts,) = (
            one for one in queries.verdict_facts(con, [INT8]) if one.target == "int8_channel"
        )
    assert facts.stored_loss == f"audited: same answers as {FLOAT}"


def test_audits_of_earlier_releases_have_null_where_nothing_is_lost(path):
    audit_id = audited(path, INT8, FLOAT)
    with store.writing(path) as con:
        con.rows("update audits set grid_db = null, integer_db = null, exact_db = null")
    row, *parts = read(path, audit_id)
    stored = frames.audit_record(row, *parts)
    assert stored.grid_db == math.inf
    assert math.isnan(stored.integer_db)
    assert row["band"] == "fine"


def test_layers_have_the_band_of_their_stored_weights_and_gains_come_first(path):
    _, layers, tensors, _ = read(path, audited(path, INT8, FLOAT))
    assert layers["band"].tolist() == ["broken", "fine"]
    assert layers["released_gain_db"].iloc[0] == 7.5
    assert tensors["tensor"].tolist() == ["h", "y"]


def test_layers_that_the_store_lost_keep_their_sentence(path):
    audit_id = audited(path, INT8, FLOAT)
    with store.writing(path) as con:
        con.rows("update audit_layers set int8_layer_id = null where audit_id = ?", [audit_id])
    row, layers, tensors, _ = read(path, audit_id)
    record = frames.audit_record(row, layers, tensors)
    names = frames.audit_layer_names(layers)
    assert [layer.int8_depth for layer in record.layers] == [-1, -2]
    assert [names[layer.int8_depth] for layer in record.layers] == layers["float_layer"].tolist()


def test_an_audit_is_found_from_either_model(path):
    audit_id = audited(path, INT8, FLOAT)
    with store.reading(path) as con:
        for model in (INT8, FLOAT):
            assert queries.audits(con, model)["audit_id"].tolist() == [audit_id]
        assert queries.audits(con, "digits-plain").empty


def test_models_that_store_integers_are_told_from_float_ones(path):
    audited(path, INT8, FLOAT)
    with store.reading(path) as con:
        assert queries.integer_models(con) == {INT8}
        assert queries.integer_models(con, [FLOAT]) == set()


def test_partners_are_of_the_other_kind_and_those_whose_layers_fit_come_first(path):
    audited(path, INT8, FLOAT)
    with store.reading(path) as con:
        partners = queries.audit_partners(con, INT8)
        assert partners[-1] == "digits-plain"
        assert set(partners) == set(queries.model_names(con)) - {INT8}
        assert queries.audit_partners(con, "digits-plain") == [INT8]
        with pytest.raises(UnknownModelError):
            queries.audit_partners(con, "nobody")

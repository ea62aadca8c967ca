"""What verdicts know of the layers of a model is what the tables ``errors`` and ``layers`` hold."""

import math
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from quantstore import store
from quantstore.schemes import TARGETS
from quantstore.store.totals import renew_totals

BANDS = ("broken", "at risk", "watch", "fine")
FAMILIES = ("conv", "linear", "recurrent", "embedding")
# Few different values, so that layers are equal and limits are met.
DECIBELS = (None, -4.0, 0.0, 0.0, 9.9, 10.0, 20.0, 29.9, 30.0, 55.0)
COLUMNS = (
    *("layers_broken", "layers_at_risk", "layers_watch", "layers_fine", "channels_below_10db"),
    *("channel_count", "worst_layer", "worst_channel_sqnr_p10_db", "broken_weight_share"),
)


@pytest.fixture
def path(tmp_path, demo_store):
    return Path(shutil.copy(demo_store, tmp_path / "test.duckdb"))


def totals(con):
    return con.rows("from layer_totals order by all")


def recomputed(con):
    """By model and target, the columns of ``verdicts`` that rest on layers, without the totals."""
    limits = sorted(con.rows("select lower_db, band from bands"))
    expected = {}
    for (model,) in con.rows("select model from models"):
        for target in TARGETS.values():
            layers = con.rows(
                "select channel_sqnr_p10_db, zeroed_fraction, depth, layer, op_family,"
                " layers.channel_count, channels_below_10db, layers.weight_count"
                " from errors join layers using (layer_id) join models using (model_id)"
                " where model = ? and scheme = ?",
                [model, target.layer_scheme.name],
            )
            families = target.layer_families
            rounded = [row for row in layers if not families or row[4] in families]
            expected[model, target.name] = _figures(rounded, limits)
    return expected


def _figures(layers, limits):
    bands, weights = Counter(), Counter()
    for db, *_, weight_count in layers:
        reached = math.inf if db is None else db
        band = next((band for limit, band in reversed(limits) if reached >= limit), None)
        bands[band] += 1
        weights[band] += weight_count
    severity = sorted(
        (math.inf if db is None else db, -zeroed, depth, layer)
        for db, zeroed, depth, layer, *_ in layers
    )
    worst_db = severity[0][0] if layers else None
    total = sum(layer[-1] for layer in layers)
    return (
        *(bands[band] for band in BANDS),
        sum(layer[6] for layer in layers),
        sum(layer[5] for layer in layers),
        severity[0][3] if layers else None,
        None if worst_db == math.inf else worst_db,
        pytest.approx(weights["broken"] / total if total else 0),
    )


def stored_figures(con):
    rows = con.rows(f"select model, target, {', '.join(COLUMNS)} from verdicts")
    return {(model, target): tuple(values) for model, target, *values in rows}


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))]
)
def test_verdicts_count_the_layers_that_the_tables_hold(path, seed):
    # A seed each, not drawn values: what fails is a store, and shrinking it takes minutes.
    draw = random.Random(seed)
    with store.writing(path) as con:
        for (layer_id,) in con.rows("select layer_id from layers order by layer_id"):
            con.rows(
                "update layers set op_family = ?, weight_count = ? where layer_id = ?",
                [draw.choice(FAMILIES), draw.randint(1, 99), layer_id],
            )
            for scheme in sorted({target.layer_scheme.name for target in TARGETS.values()}):
                con.rows(
                    "update stored_errors set channel_sqnr_p10_db = ?, zeroed_fraction = ?"
                    " where layer_id = ? and scheme = ?",
                    [draw.choice(DECIBELS), draw.choice([0, 0.5]), layer_id, scheme],
                )
        renew_totals(con._connection)
        # They do not know the limits: whoever changes those changes every verdict at once.
        for limits in ((-math.inf, 10, 20, 30), (-2, 0, 29.9, 55), (-math.inf, 30, 20, 10)):
            for band, limit in zip(BANDS, limits, strict=True):
                con.rows("update bands set lower_db = ? where band = ?", [limit, band])
            assert stored_figures(con) == recomputed(con)


def test_totals_are_written_with_a_model_and_leave_with_it(path):
    with store.writing(path) as con:
        written = totals(con)
        renew_totals(con._connection)
        assert totals(con) == written
        model_id = con.value("select min(model_id) from models")
        store.remove_model(con, model_id)
        assert totals(con) == [row for row in written if row[0] != model_id]
        assert stored_figures(con) == recomputed(con)


@pytest.mark.slow
def test_an_import_believes_no_totals_of_others(path, tmp_path):
    with store.writing(path) as con:
        con.rows("update layer_totals set channel_sqnr_p10_db = [55], worst_layer = 'none'")
    ours = tmp_path / "ours.duckdb"
    store.merge(ours, path)
    with store.reading(ours) as con:
        assert stored_figures(con) == recomputed(con)


@pytest.mark.slow
def test_a_store_without_totals_gets_them_by_an_update(path):
    with store.writing(path) as con:
        written = totals(con)
        con.rows("drop view verdicts")
        con.rows("drop table layer_totals")
    store.update(path)
    with store.reading(path) as con:
        assert totals(con) == written
        assert stored_figures(con) == recomputed(con)

"""Stores of earlier releases: who reads them is told, who writes to them brings them up to date."""

import gzip
import math
import re
import shutil
from pathlib import Path

import duckdb
import pytest

from quantstore import store
from quantstore.app.widgets.stores import NEEDS_UPDATE
from quantstore.cli import main
from quantstore.errors import OlderStoreError, StoreError
from quantstore.numerics.measures import lacking
from quantstore.pipeline.files import demo_paths
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import IngestChoices
from quantstore.schemes import INT8_SCHEMES, TARGETS, target_of
from quantstore.store import keys, tables
from quantstore.store.migrations import NO_COPY
from tests.support.visits import unopened

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"

# Each written by the release that had this schema, never made anew; see data/write_store.py.
FILES = ("1", "2", "2-runs", "3", "4", "5", "6", "7")
OLDER = [name for name in FILES if int(name.split("-")[0]) < store.SCHEMA_VERSION]
every_older = pytest.mark.parametrize("name", OLDER)


def unpacked(name, folder):
    path = folder / "old.duckdb"
    with (
        gzip.open(DATA / f"store-schema-{name}.duckdb.gz") as packed,
        path.open("wb") as file,
    ):
        shutil.copyfileobj(packed, file)
    return path


def ask(path, sql):
    with duckdb.connect(path, read_only=True) as connection:
        return connection.execute(sql).fetchall()


def in_order(sql):
    """DuckDB writes the columns of an EXCLUDE in any order."""
    return re.sub(
        r"EXCLUDE \((.*?)\)", lambda m: f"EXCLUDE {sorted(m.group(1).split(', '))}", sql or ""
    )


# All that DuckDB knows of tables, views, columns, constraints, sequences and comments.
CATALOG = {
    "columns": "select table_name, column_index, column_name, data_type, column_default,"
    " is_nullable, comment from duckdb_columns() where not internal",
    "tables": "select table_name, comment, sql from duckdb_tables() where not internal",
    "views": "select view_name, comment, sql from duckdb_views() where not internal",
    "constraints": "select table_name, constraint_type, constraint_column_names"
    " from duckdb_constraints()",
    "sequences": "select sequence_name from duckdb_sequences()",
    "schemes": "from schemes",
}


def catalog(path):
    with duckdb.connect(path, read_only=True) as connection:
        found = {part: connection.execute(sql).fetchall() for part, sql in CATALOG.items()}
    for part in ("tables", "views"):
        found[part] = [(*names, in_order(sql)) for *names, sql in found[part]]
    return {part: sorted(rows, key=repr) for part, rows in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_store_of_every_release_answers_every_view(name, tmp_path):
    path = unpacked(name, tmp_path)
    store.update(path)
    with store.reading(path) as connection:
        views = connection.rows("select view_name from duckdb_views() where not internal")
        for (view,) in views:
            rows = connection.value(f"select count(*) from {view}")
            # Findings are only where there is something to find.
            assert rows > 0 or view == "model_findings", view
        assert "digits-plain" in [model for (model,) in connection.rows("select model from models")]


def test_the_schema_of_this_release_is_the_one_that_is_kept_for_later_ones(tmp_path, fresh):
    """Where it fails: a published schema changed. Count SCHEMA_VERSION up and keep a new file.

    A measure that is added since needs neither, as long as it may be NULL.
    """
    kept = catalog(unpacked(str(store.SCHEMA_VERSION), tmp_path))
    added = lacking([column for _, _, column, *_ in kept["columns"]])
    assert published(kept["columns"]) == published(fresh["columns"], without=added)
    for part in ("constraints", "sequences"):
        assert kept[part] == fresh[part], part


def published(columns, without=()):
    """Every column of each table and view in its order, but for its comment."""
    in_place = sorted(columns, key=lambda row: row[:2])
    return [(table, name, *rest) for table, _, name, *rest, _ in in_place if name not in without]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    path = tmp_path_factory.mktemp("fresh") / "fresh.duckdb"
    with store.writing(path):
        pass
    return catalog(path)


@pytest.mark.slow
@every_older
def test_an_updated_store_is_as_if_it_were_new(name, tmp_path, fresh):
    path = unpacked(name, tmp_path)
    store.update(path)
    assert catalog(path) == fresh
    assert [name for (name,) in ask(path, "select target from targets")] == list(TARGETS)


def rows_of(path, columns_of):
    with duckdb.connect(path, read_only=True) as connection:
        rows = {}
        for table, columns in columns_of.items():
            place, source = "all", table
            if table in STORED_SHORTER:
                # Values may change a little, and must not change the order.
                named = {"scheme", "channel", "bits", "measure"} & set(columns.split(","))
                place = ", ".join(("name", *sorted(named)))
                source = (
                    "(select *, (select layer || operand from layers where layers.layer_id ="
                    f" child.layer_id) as name from {table} as child)"
                )
            rows[table] = connection.execute(
                f"select {columns} from {source} order by {place}"
            ).fetchall()
        return rows


# What was kept in double precision, and is kept as float32, an SQNR to 0.001 dB.
STORED_SHORTER = ("channels", "errors", "channel_errors", "clipping")


def is_kept(column, before, after):
    if isinstance(before, list):
        return len(before) == len(after) and all(
            is_kept(column, *pair) for pair in zip(before, after, strict=True)
        )
    if before is None or not isinstance(before, float):
        return before == after
    if column == "zeroed_fraction" and before in (0, 1):
        return before == after
    in_db = column.endswith("_db")
    return math.isclose(before, after, rel_tol=2**-24, abs_tol=0.00050001 if in_db else 0)


@pytest.mark.slow
@every_older
def test_nothing_of_what_it_held_is_lost(name, tmp_path):
    path = unpacked(name, tmp_path)
    columns_of = dict(
        ask(
            path,
            "select table_name, string_agg(column_name) from duckdb_columns()"
            " where not internal and table_name in (select table_name from duckdb_tables())"
            " and table_name not in ('store_info', 'schemes', 'targets', 'layer_totals')"
            " and column_name <> 'measures_version' and not ends_with(column_name, '_id')"
            " group by all",
        )
    )
    before = rows_of(path, columns_of)
    measured = ask(path, "select measures_version from models")
    models = len(before["models"])
    assert models > 0
    lacks_measures = lacking(columns_of["layers"].split(","))
    belongings = belongings_of(path)
    store.update(path)
    after = rows_of(path, columns_of)
    for table in columns_of.keys() & set(STORED_SHORTER):
        names = columns_of[table].split(",")
        for row_before, row_after in zip(before.pop(table), after.pop(table), strict=True):
            for column, *values in zip(names, row_before, row_after, strict=True):
                assert is_kept(column, *values), (table, column, *values)
    assert after == before
    assert belongings_of(path, belongings) == belongings
    # Without a figure that is measured today, models wait to be measured anew.
    now = ask(path, "select measures_version from models")
    assert now == ([(0,)] * models if lacks_measures else measured)


def belongings_of(path, among=None):
    """How many rows of each table belong to each model, layer or run, by what these are called."""
    names = {"models": "sha256", "layers": "layer || operand"} | dict.fromkeys(
        ("simulations", "rescues", "audits"), "created_at::varchar"
    )
    belongings = {}
    with duckdb.connect(path, read_only=True) as connection:
        stored_columns = connection.execute(
            "select table_name, column_name from duckdb_columns() where not internal"
        ).fetchall()
        for table in tables.OF_MODELS:
            for column, parent in table.points_to:
                place = f"{table.name}.{column}"
                if (table.name, column) in stored_columns and place in (among or [place]):
                    belongings[place] = connection.execute(
                        f"select {names[parent]}, count(*) from {table.name} as child"
                        f" join {parent} as parent on parent.{keys.KEY_COLUMNS[parent]} ="
                        f" child.{column} group by all order by all"
                    ).fetchall()
    return belongings


@pytest.mark.slow
@every_older
def test_counted_keys_become_those_that_a_new_store_would_have(name, tmp_path):
    path = unpacked(name, tmp_path)
    store.update(path)
    with store.reading(path) as connection:
        for table, columns in keys.CONTENT.items():
            listed = ", ".join((keys.KEY_COLUMNS[table], *columns))
            for key, *content in connection.rows(f"select {listed} from {table}"):
                assert key == keys.key_of(table, content)


@pytest.mark.slow
def test_a_model_of_an_old_store_has_the_key_that_it_has_in_a_new_one(tmp_path, demo_store):
    path = unpacked("1", tmp_path)
    store.update(path)
    ids = (
        "select model_id, layer_id, layer from layers join models using (model_id)"
        " where model = 'digits-plain' order by layer"
    )
    assert ask(path, ids) == ask(demo_store, ids) != []


@pytest.mark.slow
def test_shares_of_channels_with_zeros_stay_what_they_were(tmp_path):
    """They are kept as counts, and how many weights of a channel are not 0 was not stored."""
    path = unpacked("5", tmp_path)
    shares = (
        "select zeroed_fraction from channel_errors join layers using (layer_id)"
        " order by depth, scheme, channel"
    )
    with duckdb.connect(path) as connection:
        for scheme, share in zip(INT8_SCHEMES, ("2 / 7", "1", "3 / 7", "0"), strict=True):
            connection.execute(
                f"update channel_errors set zeroed_fraction = {share}"
                " where scheme = ? and channel % 3 = 1",
                [scheme],
            )
    before = ask(path, shares)
    assert {0, 1, 2 / 7, 3 / 7} <= {share for (share,) in before}
    store.update(path)
    assert ask(path, shares) == before


FIGURES = """
    select layer, scheme, sqnr_db, channel_sqnr_min_db, channel_sqnr_p10_db,
        channel_sqnr_median_db, zeroed_fraction, channels_below_10db, weight_min, weight_max,
        kurtosis
    from layer_errors
    where model = 'digits-plain' and list_contains($schemes, scheme)
    order by all
"""


@pytest.fixture(scope="module")
def measured_anew(tmp_path_factory):
    path = tmp_path_factory.mktemp("new") / "s.duckdb"
    model = next(path for path in demo_paths() if path.stem == "digits-plain")
    ingest_file(model, path, IngestChoices(probe=False))
    return path


@pytest.mark.slow
@every_older
def test_the_layers_of_an_example_have_the_figures_of_earlier_releases(
    name, tmp_path, measured_anew
):
    """What is left out or shared since then is nothing that ordinary layers have."""
    path = unpacked(name, tmp_path)
    schemes = {"schemes": [scheme for (scheme,) in ask(path, "select scheme from schemes")]}
    before, after = (
        duckdb.connect(file, read_only=True).execute(FIGURES, schemes).fetchall()
        for file in (path, measured_anew)
    )
    assert len(before) > 10
    for row_before, row_after in zip(before, after, strict=True):
        assert row_after[:2] == row_before[:2]
        # SQNR is kept to 0.001 dB.
        assert row_after[2:6] == pytest.approx(row_before[2:6], abs=0.001)
        assert row_after[6:] == pytest.approx(row_before[6:], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OLDER if name < "3"])
def test_dead_channels_and_inputs_are_null_until_they_are_measured_anew(name, tmp_path):
    path = unpacked(name, tmp_path)
    store.update(path)
    assert ask(path, "select count(dead_channel_count) from layers") == [(0,)]
    assert ask(path, "select count(input_channels_below_10db) from errors") == [(0,)]
    assert ask(path, "select distinct measures_version from models") == [(0,)]


@pytest.mark.slow
def test_runs_of_schema_2_are_given_the_target_that_does_the_same(tmp_path):
    path = unpacked("2-runs", tmp_path)
    counts = "select (select count(*) from simulations), (select count(*) from sensitivities)"
    before = ask(path, counts)
    store.update(path)
    assert ask(path, counts) == before == [(12, 24)]
    runs = "select distinct scheme, mode, target from simulations order by all"
    assert ask(path, runs) == [
        (scheme, mode, target_of(scheme, mode))
        for scheme, mode in (
            ("int4_channel_symmetric", "weights"),
            ("int8_channel_symmetric", "both"),
            ("int8_channel_symmetric", "weights"),
            ("int8_tensor_asymmetric", "weights"),
            ("int8_tensor_symmetric", "both"),
            ("int8_tensor_symmetric", "weights"),
        )
    ]
    unknown = "select distinct float_layers, calibration_count, cpu_seconds from simulations"
    assert ask(path, unknown) == [(None, None, None)]
    units = "select distinct unit = layer, unit_kind, node_name from sensitivities"
    assert ask(path, f"{units} join layers using (layer_id)") == [(True, "layer", None)]


@pytest.mark.slow
def test_a_run_with_other_ranges_was_for_no_target(tmp_path):
    path = unpacked("2-runs", tmp_path)
    with duckdb.connect(path) as connection:
        connection.execute(
            "update simulations set calibration = 'entropy'"
            " where input_source <> 'noise' and mode = 'both'"
        )
    store.update(path)
    assert ask(path, "select target from simulations where calibration = 'entropy'") == [(None,)]


@pytest.mark.slow
def test_what_outputs_of_earlier_runs_reached_decides(tmp_path):
    path = unpacked("2-runs", tmp_path)
    store.update(path)
    same = "select bool_and(deciding_sqnr_db is not distinct from output_sqnr_db) from simulations"
    assert ask(path, same) == [(True,)]
    assert ask(path, "select distinct tail_sqnr_db, provisional from simulations") == [(None, None)]


@pytest.mark.slow
def test_the_format_of_an_earlier_model_is_that_of_its_file(tmp_path):
    path = unpacked("5", tmp_path)
    with duckdb.connect(path) as connection:
        connection.execute("update models set source = '/m/Net.TFLITE'")
    store.update(path)
    assert ask(path, "select file_format from models") == [("TensorFlow Lite",)]


@every_older
@pytest.mark.slow
def test_a_verdict_that_rested_on_weights_alone_is_untested(name, tmp_path):
    path = unpacked(name, tmp_path)
    with duckdb.connect(path) as connection:
        connection.execute("delete from simulations where mode = 'both'")
    store.update(path)
    verdicts = "select distinct verdict, reason from verdicts where target = 'int8_channel'"
    assert ask(path, verdicts) == [("untested", "not measured")]


@every_older
def test_who_reads_it_is_told_what_to_do_and_it_stays_as_it_is(name, tmp_path):
    path = unpacked(name, tmp_path)
    before = path.read_bytes()
    with pytest.raises(OlderStoreError) as caught, store.reading(path):
        pass
    assert caught.value.exit_code == 3
    assert f"quantstore migrate --db {path}" in caught.value.sentence
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.slow
def test_the_command_updates_keeps_a_copy_and_says_so(tmp_path, capsys):
    path = unpacked("1", tmp_path)
    before = catalog(path)
    assert main(["models", "--db", str(path)]) == 3
    assert "quantstore migrate --db" in capsys.readouterr().err
    assert main(["migrate", "--db", str(path)]) == 0
    backup = tmp_path / "old.duckdb.schema-1.backup"
    assert str(backup) in capsys.readouterr().err
    assert catalog(backup) == before
    assert ask(backup, "from model_summary") != []
    assert main(["migrate", "--db", str(path)]) == 0
    assert "up to date" in capsys.readouterr().err
    assert main(["models", "--db", str(path), "--format", "csv"]) == 0
    assert "digits-plain" in capsys.readouterr().out
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, backup.name]


@pytest.mark.slow
def test_whatever_writes_to_it_updates_it(tmp_path, capsys):
    path = unpacked("1", tmp_path)
    assert main(["remove", "digits-plain", "--db", str(path)]) == 0
    assert ask(path, "select model from models") == [("digits-rescaled",)]
    assert len(list(tmp_path.glob("*.backup"))) == 1


@pytest.mark.slow
def test_ingesting_updates_it_and_knows_what_it_holds(tmp_path):
    path = unpacked("1", tmp_path)
    file = next(file for file in demo_paths() if file.stem == "digits-plain")
    result = ingest_file(file, path, IngestChoices(probe=False))
    assert result.model == "digits-plain"
    assert ask(path, "select count(*) from models") == [(2,)]


@pytest.mark.slow
def test_an_earlier_copy_is_never_overwritten(tmp_path):
    path = unpacked("1", tmp_path)
    mine = tmp_path / "old.duckdb.schema-1.backup"
    mine.write_text("something of mine")
    left_by_a_kill = tmp_path / "old.duckdb.schema-1.backup.unfinished"
    left_by_a_kill.write_text("half a copy")
    assert store.update(path) == tmp_path / "old.duckdb.schema-1.backup-2"
    assert mine.read_text() == "something of mine"
    assert not left_by_a_kill.exists()


@pytest.mark.slow
def test_what_somebody_added_or_changed_stays(tmp_path):
    path = unpacked("1", tmp_path)
    with duckdb.connect(path) as connection:
        connection.execute("create table mine as select 42 as answer")
        connection.execute("create view my_layers as select layer, weight_count from layers")
        connection.execute("update bands set lower_db = 31 where band = 'fine'")
    store.update(path)
    assert ask(path, "from mine") == [(42,)]
    assert ask(path, "select count(*) from my_layers") == [(16,)]
    assert ask(path, "select lower_db from bands where band = 'fine'") == [(31,)]


@pytest.mark.slow
def test_an_update_that_fails_changes_nothing(tmp_path):
    path = unpacked("1", tmp_path)
    with duckdb.connect(path) as connection:
        # Two of the same: the new table, which allows one, refuses the rows.
        connection.execute("create table kept as from models")
        connection.execute("drop table models")
        connection.execute("create table models as from kept union all from kept")
        connection.execute("drop table kept")
    before = catalog(path)
    with pytest.raises(StoreError) as caught:
        store.update(path)
    assert "was not updated" in caught.value.sentence
    assert catalog(path) == before
    assert ask(path, "select value from store_info where key = 'schema_version'") == [("1",)]


def test_where_no_copy_can_be_kept_nothing_is_changed(tmp_path, monkeypatch):
    path = unpacked("1", tmp_path)
    (tmp_path / "old.duckdb.schema-1.backup.unfinished").mkdir()
    with pytest.raises(StoreError) as caught:
        store.update(path)
    assert NO_COPY in caught.value.sentence
    assert ask(path, "select value from store_info where key = 'schema_version'") == [("1",)]


# --- in the app --------------------------------------------------------------------------------


@pytest.fixture
def app(monkeypatch, tmp_path):
    monkeypatch.setenv("QUANTSTORE_DB", str(unpacked("1", tmp_path)))
    return unopened("model").run()


def the_button(app):
    (button,) = (button for button in app.button if button.label == "Update the store")
    return button


@pytest.mark.slow
def test_the_app_offers_to_update_it(app):
    assert app.error == app.exception == []
    assert app.title[0].value == NEEDS_UPDATE
    the_button(app).click().run()
    assert app.error == app.exception == []
    assert "digits" in app.title[0].value


@pytest.mark.slow
def test_the_app_says_why_it_could_not_be_updated(app, tmp_path):
    (tmp_path / "old.duckdb.schema-1.backup.unfinished").mkdir()
    the_button(app).click().run()
    assert NO_COPY in app.error[0].value
    assert app.exception == []


@pytest.mark.slow
def test_a_table_that_was_added_since_is_made_by_the_next_write(demo_store, tmp_path):
    path = Path(shutil.copy(demo_store, tmp_path / "fewer.duckdb"))
    with duckdb.connect(path) as connection:
        connection.execute("drop table graph_edges")
    with pytest.raises(OlderStoreError), store.reading(path):
        pass
    store.update(path)
    assert ask(path, "select count(*) from graph_edges") == [(0,)]
    assert ask(path, "select count(*) from graph_points") != [(0,)]

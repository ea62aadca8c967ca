"""In and out: a store as Parquet files, another store taken over, a backup, a smaller self."""

import glob
import json
import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from pyarrow import parquet

from quantstore import store
from quantstore.errors import (
    LockedStoreError,
    MissingStoreError,
    QuantstoreError,
    RefusedImportError,
    StoreError,
    UnknownModelError,
)
from quantstore.schemes import TARGETS
from quantstore.store import copies, exports, imports, tables
from tests.support.runs import a_run, add

pytestmark = pytest.mark.slow

PLAIN = "digits-plain"
VIEWS = ("model_layers", "layer_errors", "layer_channels", "model_findings", "histogram_bins")
VIEWS += ("verdicts", "model_summary")

# What the demo models lack: one row in every other table, and what somebody wrote about a model.
MORE_ROWS = """
    update models set tags = ['a', 'b'], note = 'the good one' where model = 'digits-plain';
    insert into simulations by name
        select hash(model_id, 'run') // 2 as simulation_id, model_id,
            'int8_tensor' as target, ['LSTM_0'] as float_layers, 4 as calibration_count,
            'int8_tensor_symmetric' as scheme, 'both' as mode, 'noise' as input_source,
            8 as sample_count, 12.5 as output_sqnr_db, 0.5 as seconds,
            '1' as onnxruntime_version, timestamp '2026-01-01' as created_at
        from models;
    insert into simulation_outputs by name
        select simulation_id, 'boxes' as output, 'scores' as part, 9.5 as sqnr_db, true as decides
        from simulations;
    insert into simulation_answers by name
        select simulation_id, 'cat.jpg' as input_name, 1 as rank, 9.5 as sqnr_db, 'boxes' as form,
            true as is_shown, '{}' as float_answer, 'a picture'::blob as picture
        from simulations;
    insert into activation_errors by name
        select simulation_id, 0 as depth, 'n' as node_name, 'Conv' as op_type, 't' as tensor,
            'local' as kind, 3.5 as sqnr_db, [1, 2] as float_counts
        from simulations;
    insert into sensitivities by name
        select model_id, layer_id, layer as unit, 'layer' as unit_kind,
            'int8_tensor_symmetric' as scheme, 'both' as mode,
            'alone' as kind, 'noise' as input_source, 8 as sample_count, 7.5 as output_sqnr_db,
            timestamp '2026-01-01' as created_at
        from layers where depth = 0
        union all by name
        select model_id, 'sum' as unit, 'tensor' as unit_kind, 'Add_1' as node_name,
            'int8_tensor' as target, 'int8_tensor_symmetric' as scheme, 'both' as mode,
            'alone' as kind, 'noise' as input_source, 8 as sample_count, 9.5 as output_sqnr_db,
            timestamp '2026-01-01' as created_at
        from models;
    insert into float_sets
        select simulation_id, 30, 0, 'sum', 'tensor', 31.5 from simulations;
    insert into rescues by name
        select hash(model_id, 'rescue') // 2 as rescue_id, model_id, 'int8_channel' as target,
            20 as reach_db, 0.9 as keep_macs, ['depthwise'] as allowed, 'photos' as input_source,
            4 as calibration_count, 2 as validation_count, 2 as test_count, 21.5 as file_db,
            0 as added_nodes, false as weights_unsigned, false as is_proposal, true as reached,
            1.5 as seconds, '1' as onnxruntime_version, timestamp '2026-01-01' as created_at,
            ['a note'] as notes
        from models;
    insert into rescue_steps by name
        select rescue_id, 0 as step, 'placement' as remedy, 'everywhere' as detail,
            0 as unit_count, true as kept
        from rescues;
    insert into rescue_units by name
        select rescue_id, layer as unit, 'weights' as kind, layer_id, 'int8' as precision
        from rescues join layers using (model_id) where depth = 0
        union all by name
        select rescue_id, 'sum' as unit, 'tensor' as kind, 'int16' as precision from rescues;
    insert into rescue_files by name
        select rescue_id, 'out/m.onnx' as path, 'rescued' as kind, 'ab' as sha256, 7 as bytes
        from rescues;
    insert into rescue_drift by name
        select rescue_id, 0 as depth, 'conv' as node_name, 'Conv' as op_type, 'h' as tensor,
            4.5 as before_db, 24.5 as after_db
        from rescues;
    insert into audits by name
        select hash(int8.model_id) // 2 as audit_id, int8.model_id as int8_model_id,
            floats.model_id as float_model_id, 'net.onnx' as float_file, 'noise' as input_source,
            'x 1x1x8x8' as input_shape, 'the outputs' as compared, 8 as sample_count,
            6 as float_layers, 6 as int8_layers, 6 as paired_layers, 10 as rounded_tensors,
            10 as paired_tensors, 18.5 as grid_db, 'infinity'::double as neither_db,
            false as saturates, 1.5 as seconds,
            '1' as onnxruntime_version, timestamp '2026-01-01' as created_at, ['a note'] as notes
        from models as int8, models as floats
        where int8.model = 'digits-plain' and floats.model = 'digits-plain';
    insert into audit_layers by name
        select audit_id, int8_layer.layer_id as int8_layer_id,
            float_layer.layer_id as float_layer_id, 'value' as matched_by
        from audits
        join layers as int8_layer on int8_layer.model_id = int8_model_id
        join layers as float_layer on float_layer.model_id = float_model_id
        where int8_layer.depth = 0 and float_layer.depth = 0;
    insert into audit_tensors by name
        select audit_id, 'sum' as int8_tensor, 0 as zero_point, 5.5 as sqnr_db from audits;
    insert into audit_outputs by name
        select audit_id, 'y' as output, 'the output' as point, true as decides, 18.5 as grid_db
        from audits;
    insert into findings
        select model_id, layer_id, 'dead channel', 'warning', 'm', 'r' from layers where depth = 1
        union all select model_id, null, 'old opset', 'note', 'm', 'r' from models;
    insert into ingests by name
        select hash(source) // 2 as ingest_id, source as path, model, 'stored' as outcome,
            '' as message, ingested_at as started_at, ingested_at as finished_at,
            0.5 as seconds, '0' as quantstore_version
        from models;
"""


@pytest.fixture(scope="module")
def full_store(demo_store, tmp_path_factory):
    """The demo models, with a row in every table. Read it, never write to it."""
    path = tmp_path_factory.mktemp("full") / "full.duckdb"
    shutil.copy(demo_store, path)
    with store.writing(path) as connection:
        for statement in MORE_ROWS.split(";")[:-1]:
            connection.rows(statement)
    return path


@pytest.fixture(scope="module")
def small_export(full_store, tmp_path_factory):
    """One model. Read it, never write to it."""
    folder = tmp_path_factory.mktemp("small") / "export"
    store.export(full_store, folder, [PLAIN])
    return folder


@pytest.fixture(scope="module")
def full_export(full_store, tmp_path_factory):
    """The full store in a folder of an odd name. Read it, never write to it."""
    folder = tmp_path_factory.mktemp("full") / "glob [*]?"
    store.export(full_store, folder)
    return folder


@pytest.fixture(scope="module")
def pair_export(full_store, tmp_path_factory):
    """Two models. Read it, never write to it."""
    folder = tmp_path_factory.mktemp("pair") / "export"
    store.export(full_store, folder, [PLAIN, "digits-rescaled"])
    return folder


@pytest.fixture
def ours(tmp_path):
    return tmp_path / "ours.duckdb"


@pytest.fixture(scope="module")
def small_store(pair_export, tmp_path_factory):
    """Two models. Read it, never write to it."""
    path = tmp_path_factory.mktemp("two") / "two.duckdb"
    store.merge(path, pair_export)
    return path


@pytest.fixture
def own_copy(small_store, tmp_path):
    """A store of two models to change."""
    return Path(shutil.copy(small_store, tmp_path / "copy.duckdb"))


def ask(path, sql, *parameters):
    with store.reading(path) as connection:
        return connection.rows(sql, parameters)


def change(path, *statements):
    with store.writing(path) as connection:
        for statement in statements:
            connection.rows(statement)


def contents(path):
    """How many rows every table and view of ours holds, and their sum without keys."""
    with store.reading(path) as connection:
        found = {
            name: connection.rows(
                f"select count(*), sum(hash(one)) from"
                f" (select columns(lambda c: not c.ends_with('_id')) from {name}) as one"
            )
            for name in (*(table.name for table in imports.INCOMING), *VIEWS)
        }
        # A pair of layers, by their names.
        found["partners"] = connection.rows(
            "select a.layer, b.layer, scheme from equalization join layers a using (layer_id)"
            " join layers b on b.layer_id = partner_layer_id order by all"
        )
    return found


@pytest.fixture(scope="module")
def everything(full_store):
    """What :func:`contents` says of the full store."""
    return contents(full_store)


def models_of(path):
    return [name for (name,) in ask(path, "select model from models order by model_id")]


def packed(folder, target):
    with zipfile.ZipFile(target, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"some folder/{file.name}")
    return target


# What hangs together.


def test_every_table_and_every_key_of_the_schema_is_known_here(full_store):
    (found,) = zip(*ask(full_store, "select table_name from duckdb_tables()"), strict=True)
    assert set(found) == set(tables.ALL_TABLES)
    known = {
        (table.name, column)
        # Totals are computed anew where models arrive.
        for table in (*imports.INCOMING, *tables.DERIVED)
        for column in (*(column for column, _ in table.points_to), *(table.keys or [[]])[0][:1])
        if column.endswith("_id")
    }
    ids = ask(
        full_store,
        "select table_name, column_name from duckdb_columns() join duckdb_tables()"
        " using (table_name) where column_name like '%\\_id' escape '\\'",
    )
    assert set(ids) == known


@pytest.mark.slow
def test_runs_for_every_target_travel_with_what_was_found_in_them(full_store, tmp_path, ours):
    theirs = Path(shutil.copy(full_store, tmp_path / "theirs.duckdb"))
    with store.writing(theirs) as connection:
        for target in TARGETS.values():
            run = a_run(20.0, target.scheme.name, target.mode, target=target.name)
            add(connection, PLAIN, run)
    store.merge(ours, theirs)
    for question in (
        "select target, scheme, mode, float_layers, calibration_count from simulations",
        "select unit, unit_kind, node_name, layer_id is null from sensitivities",
        "select goal_db, position, unit, unit_kind, float_sets.output_sqnr_db, model"
        " from float_sets join simulations using (simulation_id) join models using (model_id)",
        "select target, file_db, notes, model from rescues join models using (model_id)",
        "select unit, kind, layer_id is null, precision from rescue_units",
        "select remedy, detail, kept from rescue_steps",
        "select path, kind, sha256, bytes from rescue_files",
        "select depth, node_name, before_db, after_db from rescue_drift",
    ):
        rows = ask(ours, f"{question} order by all")
        assert rows == ask(theirs, f"{question} order by all")
        assert len(rows) > 1


# Export


def test_an_export_is_one_parquet_file_per_table_and_says_what_it_is(full_store, tmp_path):
    summary = store.export(full_store, tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == set(exports.file_names())
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["schema_version"] == store.SCHEMA_VERSION
    assert (manifest["models"], manifest["rows"]) == (4, summary.rows)
    for table in tables.ALL_TABLES:
        assert parquet.read_metadata(tmp_path / "out" / f"{table}.parquet").num_rows > 0


def test_the_schema_that_travels_along_makes_tables_that_the_files_fill(full_store, full_export):
    with duckdb.connect(":memory:") as duck:
        duck.execute((full_export / "schema.sql").read_text())
        duck.execute("delete from bands")
        for table in tables.ALL_TABLES:
            file = glob.escape(str(full_export / f"{table}.parquet"))
            duck.execute(f"insert into {table} by name from read_parquet(?)", [file])
        verdicts = duck.execute("select * exclude model_id from verdicts order by all").fetchall()
    assert verdicts == ask(full_store, "select * exclude model_id from verdicts order by all")


@pytest.mark.slow
def test_some_models_bring_everything_that_is_known_about_them_and_nothing_else(
    full_store, pair_export
):
    with duckdb.connect(":memory:") as duck:
        duck.execute((pair_export / "schema.sql").read_text())
        duck.execute("delete from bands")
        for table in tables.ALL_TABLES:
            file = str(pair_export / f"{table}.parquet")
            duck.execute(f"insert into {table} by name from read_parquet(?)", [file])
        some = {view: duck.execute(f"from {view} order by all").fetchall() for view in VIEWS}
        ingests = duck.execute("select distinct model from ingests order by 1").fetchall()
        pairs = duck.execute("select count(*) from equalization").fetchall()
    for view, rows in some.items():
        expected = f"from {view} where model in ('{PLAIN}', 'digits-rescaled') order by all"
        assert rows == ask(full_store, expected), view
    assert ingests == [(PLAIN,), ("digits-rescaled",)]
    assert pairs == ask(
        full_store,
        "select count(*) from equalization join layers using (layer_id) join models using"
        f" (model_id) where model in ('{PLAIN}', 'digits-rescaled')",
    )


def test_an_unknown_model_writes_nothing(full_store, tmp_path):
    with pytest.raises(UnknownModelError):
        store.export(full_store, tmp_path / "out", [PLAIN, "nobody"])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_is_left_alone_unless_told_and_they_stay(full_store, tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(QuantstoreError, match=exports.HOLDS_OTHER_FILES):
        store.export(full_store, folder, [PLAIN])
    assert [file.name for file in folder.iterdir()] == ["thesis.tex"]
    store.export(full_store, folder, [PLAIN], replace=True)
    assert (folder / "thesis.tex").read_text() == "years of work"
    assert exports.read_manifest(folder)["models"] == 1


def test_an_earlier_export_is_replaced_whole_and_keeps_who_may_read_it(full_store, tmp_path):
    folder = tmp_path / "out"
    store.export(full_store, folder)
    folder.chmod(0o750)
    store.export(full_store, folder, [PLAIN])
    assert exports.read_manifest(folder)["models"] == 1
    assert folder.stat().st_mode & 0o777 == 0o750
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_an_export_that_fails_leaves_the_earlier_one(full_store, tmp_path, monkeypatch):
    store.export(full_store, tmp_path / "out")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exports, "_write_parquet", fail)
    with pytest.raises(QuantstoreError, match="No space left on device"):
        store.export(full_store, tmp_path / "out", [PLAIN])
    assert exports.read_manifest(tmp_path / "out")["models"] == 4
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


# Import


@pytest.mark.parametrize("form", ["folder", pytest.param("zip", marks=pytest.mark.slow), "duckdb"])
def test_an_import_into_an_empty_store_shows_the_same_through_every_view(
    full_store, full_export, everything, tmp_path, ours, form
):
    source = {"duckdb": full_store, "folder": full_export, "zip": tmp_path / "zip [*]?"}[form]
    if form == "zip":
        store.export_zip(full_store, source)
    assert store.merge(ours, source).added == models_of(full_store)
    assert contents(ours) == everything


@pytest.mark.slow
def test_importing_twice_adds_nothing(small_export, ours, empty_store):
    shutil.copy(empty_store, ours)
    store.merge(ours, small_export)
    before = contents(ours)
    summary = store.merge(ours, small_export)
    assert (summary.added, summary.already_stored, summary.ingests) == ([], [PLAIN], 0)
    assert contents(ours) == before


def test_the_union_of_two_stores_is_their_merge(full_store, tmp_path, own_copy):
    store.export(full_store, tmp_path / "rest", ["digits-separable"])
    store.merge(own_copy, tmp_path / "rest")
    for table in tables.OF_MODELS:
        rows = f"from {table.name}"
        theirs, ours = (set(map(repr, ask(path, rows))) for path in (full_store, own_copy))
        assert ours <= theirs, table.name
    models = "select model_id from models where model = 'digits-separable'"
    assert ask(own_copy, models) == ask(full_store, models) != []


def test_runs_of_models_that_are_stored_come_along_once(full_store, tmp_path, own_copy):
    theirs = Path(shutil.copy(own_copy, tmp_path / "theirs.duckdb"))
    with store.writing(theirs) as connection:
        run = add(connection, PLAIN, a_run(source="3 photos", minute=7))
        add(connection, PLAIN, a_run(minute=8))
    summary = store.merge(own_copy, theirs)
    # The probe belongs to the measurement, and ours stays.
    assert (summary.added, summary.runs) == ([], 1)
    assert ask(own_copy, "select input_source from simulations where simulation_id = ?", run) == [
        ("3 photos",)
    ]
    assert store.merge(own_copy, theirs).runs == 0


@pytest.mark.slow
def test_a_name_that_belongs_to_other_content_here_gets_the_start_of_the_content(
    small_export, own_copy
):
    with store.writing(own_copy) as connection:
        store.remove_model_named(connection, PLAIN)
        store.rename_model(connection, "digits-rescaled", PLAIN)
    before = len(models_of(own_copy))
    summary = store.merge(own_copy, small_export)
    ((sha256,),) = ask(own_copy, "select sha256 from models where model = ?", summary.added[0])
    assert summary.renamed == [(PLAIN, f"{PLAIN}-{sha256[:8]}")]
    assert len(models_of(own_copy)) == before + 1


@pytest.mark.slow
def test_with_replace_the_incoming_model_takes_the_place_of_content_and_of_name_with_their_notes(
    small_export, own_copy
):
    change(
        own_copy,
        f"update models set model = 'mine', note = 'mine' where model = '{PLAIN}'",
        f"update models set model = '{PLAIN}' where model = 'digits-rescaled'",
    )
    summary = store.merge(own_copy, small_export, replace=True)
    assert (summary.replaced, summary.added, summary.renamed) == ([PLAIN, "mine"], [PLAIN], [])
    ((tags, note),) = ask(own_copy, "select tags, note from models")
    assert (tags, note) == (["a", "b"], "mine\n\nthe good one")
    assert models_of(own_copy) == [PLAIN]


@pytest.mark.slow
def test_limits_of_bands_that_somebody_changed_stay_where_they_were_changed(own_copy, ours):
    change(own_copy, "update bands set lower_db = 99 where band = 'fine'")
    store.merge(ours, own_copy)
    assert ask(ours, "select lower_db from bands where band = 'fine'") == [(30.0,)]


@pytest.mark.slow
def test_a_store_cannot_be_imported_into_itself(own_copy, tmp_path):
    (tmp_path / "link.duckdb").symlink_to(own_copy)
    with pytest.raises(RefusedImportError, match="the store itself"):
        store.merge(own_copy, tmp_path / "link.duckdb")


# What is refused, and changes nothing.


def rewrite(table, edit):
    """Change a table of an export; the manifest goes along."""

    def apply(folder):
        rows = edit(parquet.read_table(folder / f"{table}.parquet"))
        parquet.write_table(rows, folder / f"{table}.parquet")
        say(folder, rows={**exports.read_manifest(folder)["rows"], table: rows.num_rows})

    return apply


def say(folder, **changes):
    manifest = exports.read_manifest(folder) | changes
    (folder / "manifest.json").write_text(json.dumps(manifest))


def with_values(column, change_one):
    """The same table with the first value of a column changed."""

    def edit(rows):
        first, *others = rows[column].to_pylist()
        values = pa.array([change_one(first), *others], rows.schema.field(column).type)
        return rows.set_column(rows.schema.get_field_index(column), column, values)

    return edit


def as_text(column):
    return lambda rows: rows.set_column(
        rows.schema.get_field_index(column), column, rows[column].cast(pa.string())
    )


def broken_page(folder):
    path = folder / "stored_channels.parquet"
    bytes_ = bytearray(path.read_bytes())
    bytes_[200:260] = bytes(60)
    path.write_bytes(bytes_)


def not_utf8(rows):
    text = pa.Array.from_buffers(
        pa.string(),
        len(rows),
        [
            None,
            pa.py_buffer(b"".join((4 * i).to_bytes(4, "little") for i in range(len(rows) + 1))),
            pa.py_buffer(b"\xff\xfe\xc0\x80" * len(rows)),
        ],
    )
    return rows.set_column(rows.schema.get_field_index("layer"), "layer", text)


HOSTILE = {
    "older": (lambda folder: say(folder, schema_version=1), "older than"),
    "newer": (lambda folder: say(folder, schema_version=999), "upgrade quantstore"),
    "no version": (lambda folder: say(folder, schema_version="²"), "its schema version is missing"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), imports.IS_NO_EXPORT),
    "deep manifest": (
        lambda folder: (folder / "manifest.json").write_text("[" * 60_000),
        imports.IS_NO_EXPORT,
    ),
    "no file": (
        lambda folder: (folder / "stored_errors.parquet").unlink(),
        "no file stored_errors",
    ),
    "no Parquet": (
        lambda folder: (folder / "layers.parquet").write_text("layer,model\n"),
        "layers.parquet is not a Parquet file",
    ),
    "broken page": (broken_page, "cannot be read"),
    "cut short": (lambda folder: say(folder, rows={"models": 7}), "states 7"),
    "no column": (rewrite("layers", lambda r: r.drop_columns("shape")), "lacks the column shape"),
    "more columns": (
        rewrite("layers", lambda r: r.append_column("extra", r["depth"])),
        "has a column extra",
    ),
    "one column twice": (
        rewrite("layers", lambda r: r.append_column("depth", r["depth"])),
        "layers.parquet",
    ),
    "wrong type": (rewrite("stored_errors", as_text("mse")), "mse as VARCHAR, not as DOUBLE"),
    "no value": (rewrite("models", with_values("model", lambda _: None)), "without a model"),
    "not a number": (
        rewrite("stored_channels", with_values("q1", lambda _: float("nan"))),
        imports.is_infinite("q1"),
    ),
    "not UTF-8": (rewrite("layers", not_utf8), "text that is not valid"),
    "two of a key": (
        rewrite("stored_errors", lambda r: pa.concat_tables([r, r.slice(0, 1)])),
        "same layer_id and scheme",
    ),
    "two models": (
        rewrite("models", lambda r: pa.concat_tables([r, r])),
        "two rows with the same model_id",
    ),
    "orphan": (
        rewrite("histograms", with_values("layer_id", lambda _: 999)),
        "a layer_id that is not in layers.parquet",
    ),
    "orphan partner": (
        rewrite("equalization", with_values("partner_layer_id", lambda _: 999)),
        "a partner_layer_id that is not in layers.parquet",
    ),
    "part of a model": (
        rewrite("models", with_values("layer_count", lambda count: count + 1)),
        f"the model {PLAIN} is incomplete",
    ),
    "part of a layer": (rewrite("stored_channels", lambda r: r.slice(1)), "is incomplete"),
    "unknown scheme": (
        rewrite("stored_errors", with_values("scheme", lambda _: "int3")),
        "the scheme int3",
    ),
    "unknown target": (
        rewrite("simulations", with_values("target", lambda _: "int3_moon")),
        "the target int3_moon",
    ),
    "large picture": (
        rewrite("simulation_answers", with_values("picture", lambda _: bytes(70_000))),
        "a picture of 70000 bytes",
    ),
    "large answer": (
        rewrite("simulation_answers", with_values("float_answer", lambda _: "é" * 40_000)),
        "an answer or a picture of 80000 bytes",
    ),
    "no sha256": (rewrite("models", with_values("sha256", lambda _: "../..")), "sha256"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_an_export_that_contradicts_itself_is_refused_in_a_sentence(
    small_export, tmp_path, ours, name
):
    spoil, part = HOSTILE[name]
    folder = Path(shutil.copytree(small_export, tmp_path / "hostile"))
    spoil(folder)
    with pytest.raises(RefusedImportError) as refused:
        store.merge(ours, folder)
    assert part in refused.value.sentence
    assert refused.value.sentence.isprintable()
    assert not ours.exists()


@pytest.mark.slow
def test_an_import_that_fails_in_the_middle_changes_nothing(small_export, own_copy, monkeypatch):
    change(own_copy, f"update models set sha256 = repeat('0', 64) where model = '{PLAIN}'")
    before = contents(own_copy)

    def fail(self):
        raise OSError("unplugged")

    monkeypatch.setattr(imports._Merge, "_label", fail)
    with pytest.raises(OSError, match="unplugged"):
        store.merge(own_copy, small_export, replace=True)
    assert contents(own_copy) == before


def test_a_zip_file_unpacks_to_known_files_only_and_to_no_flood(small_export, tmp_path, ours):
    bomb = packed(small_export, tmp_path / "bomb.zip")
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../escaped.txt", "x")
        archive.writestr("stored_errors.parquet", bytes(100_000_000))
    with pytest.raises(RefusedImportError, match="more data than any export"):
        store.merge(ours, bomb)
    assert not list(tmp_path.parent.glob("escaped.txt"))


def foreign(path, *statements):
    with duckdb.connect(path) as duck:
        for statement in statements:
            duck.execute(statement)


FOREIGN = {
    "another database": (["create table t (i integer)"], "not a quantstore"),
    "older": (["update store_info set value = '1'"], "has schema 1"),
    "newer": (["update store_info set value = '999'"], "upgrade quantstore"),
    "a view for a table": (
        [
            "alter table stored_channels rename to hidden",
            "create view stored_channels as select * from hidden, range(1000000000000)",
        ],
        "no table stored_channels",
    ),
    "a view for the version": (
        [
            "drop table store_info",
            "create view store_info as select 'schema_version' as key, '2' as value"
            " from range(1000000000000)",
        ],
        "no table store_info",
    ),
    "a column that computes": (
        [
            "drop table bands",
            "create table bands (band varchar, lower_db double, meaning varchar,"
            " bomb varchar generated always as (repeat(band, 1000)))",
        ],
        "computes a column",
    ),
    "a column too few": (["alter table stored_errors drop column mse"], "lacks the column mse"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_nothing_of_a_foreign_database_runs(own_copy, ours, tmp_path, name):
    statements, part = FOREIGN[name]
    source = own_copy if name != "another database" else tmp_path / "another.duckdb"
    foreign(source, *statements)
    with pytest.raises(RefusedImportError) as refused:
        store.merge(ours, source)
    assert part in refused.value.sentence
    assert not ours.exists()


@pytest.mark.slow
def test_a_foreign_macro_shadows_nothing(own_copy, small_store, ours):
    foreign(
        own_copy,
        "create macro duckdb_tables() as table select * from range(1000000000000)",
        "create macro unnest(x) as 1",
        "create macro count(x) as 0",
    )
    store.merge(ours, own_copy)
    assert contents(ours) == contents(small_store)


@pytest.mark.parametrize("content", [b"", b"hello", bytes(20_000)])
def test_a_file_that_is_no_database_is_refused(tmp_path, ours, content):
    (tmp_path / "notes.txt").write_bytes(content)
    with pytest.raises(RefusedImportError, match=r"notes\.txt"):
        store.merge(ours, tmp_path / "notes.txt")
    assert not ours.exists()


# Backup and compact


def facts(path):
    """Everything about a database but its rows."""
    with duckdb.connect(path, read_only=True) as duck:
        return {
            question: duck.execute(question).fetchall()
            for question in (
                "select table_name, comment, sql from duckdb_tables() order by 1",
                "select view_name, comment from duckdb_views() where not internal order by 1",
                "select table_name, column_name, comment, column_default, is_nullable"
                " from duckdb_columns() where not internal order by 1, 2",
                "select sequence_name, start_value, last_value from duckdb_sequences() order by 1",
                "select table_name, constraint_text from duckdb_constraints() order by 1, 2",
                "select tags from duckdb_databases() where not internal",
            )
        }


def with_room(path):
    """Take a model out: its room stays in the file, and its keys are never used again."""
    with store.writing(path) as connection:
        store.remove_model_named(connection, "digits-rescaled")


def test_a_backup_is_the_same_store_with_comments_views_and_sequences(own_copy, tmp_path):
    with_room(own_copy)
    store.backup(own_copy, tmp_path / "it's a backup.duckdb")
    assert facts(tmp_path / "it's a backup.duckdb") == facts(own_copy)
    assert contents(tmp_path / "it's a backup.duckdb") == contents(own_copy)


def test_a_backup_overwrites_only_if_told_and_never_the_store(own_copy, full_store, tmp_path):
    target = tmp_path / "backup.duckdb"
    store.backup(own_copy, target)
    with pytest.raises(QuantstoreError, match="exists already"):
        store.backup(full_store, target)
    store.backup(full_store, target, replace=True)
    with pytest.raises(QuantstoreError, match="the store itself"):
        store.backup(own_copy, own_copy, replace=True)
    with pytest.raises(QuantstoreError, match="is a folder"):
        store.backup(own_copy, tmp_path)
    with pytest.raises(StoreError, match="cannot be written"):
        store.backup(own_copy, tmp_path / "absent" / "backup.duckdb")
    with pytest.raises(MissingStoreError):
        store.backup(tmp_path / "absent.duckdb", target, replace=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["backup.duckdb", "copy.duckdb"]


@pytest.mark.slow
def test_a_compact_store_is_smaller_and_otherwise_the_same(own_copy, tmp_path):
    with_room(own_copy)
    own_copy.chmod(0o640)
    link = tmp_path / "link.duckdb"
    link.symlink_to(own_copy)
    before = facts(own_copy), contents(own_copy)
    summary = store.compact(link)
    assert summary.bytes_after < summary.bytes_before
    assert (facts(own_copy), contents(own_copy)) == before
    assert link.is_symlink()
    assert own_copy.stat().st_mode & 0o777 == 0o640
    assert sorted(file.name for file in tmp_path.iterdir()) == ["copy.duckdb", "link.duckdb"]


def test_a_compaction_that_fails_leaves_the_store_as_it_was(own_copy, tmp_path, monkeypatch):
    before = contents(own_copy)

    def fail(self, target):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(StoreError, match="Read-only file system"):
        store.compact(own_copy)
    assert contents(own_copy) == before
    assert [file.name for file in tmp_path.iterdir()] == ["copy.duckdb"]


def test_what_a_killed_copy_left_is_removed_after_a_day(own_copy, tmp_path):
    old, young, other = (tmp_path / f".copy.duckdb.quantstore-{end}" for end in OF_A_COPY)
    for folder in (old, young, other):
        folder.mkdir()
        (folder / "copy.duckdb").write_text("half of it")
    for folder in (old, other):
        os.utime(folder, (0, 0))
    store.compact(own_copy)
    assert not old.exists()
    assert young.exists()
    assert other.exists()


OF_A_COPY = ("abcdefg1", "abcdefg2", "of somebody")

WRITER = """
import sys
from pathlib import Path
from quantstore import store
for number in range(8):
    with store.writing(Path(sys.argv[1])) as connection:
        connection.rows("insert into store_info values (?, '')", [f"row {number}"])
    print(number, flush=True)
"""


@pytest.mark.slow
def test_what_others_write_while_the_store_is_compacted_is_kept(own_copy):
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, own_copy], stdout=subprocess.PIPE, text=True
    ) as writer:
        for _ in range(2):
            # Between two of its rows.
            writer.stdout.readline()
            store.compact(own_copy)
        writer.communicate()
    assert writer.returncode == 0
    assert ask(own_copy, "select count(*) from store_info where key like 'row%'") == [(8,)]


READER = """
import sys
from pathlib import Path
from quantstore import store
with store.reading(Path(sys.argv[1]), wait_seconds=0) as connection:
    print(connection.value("select count(*) from models"))
"""


def test_others_read_while_the_store_is_compacted_and_write_before_the_copy_takes_over(
    own_copy, monkeypatch
):
    copy, seen = copies._copy, []

    def copy_among_others(connection, fresh):
        if not seen:
            reader = [sys.executable, "-c", READER, own_copy]
            seen.append(subprocess.run(reader, capture_output=True, text=True, check=True).stdout)
            # It waits for as long as the store is copied, and then goes first.
            writers.append(subprocess.Popen([sys.executable, "-c", WRITER, own_copy]))
        copy(connection, fresh)

    writers = []
    monkeypatch.setattr(copies, "_copy", copy_among_others)
    store.compact(own_copy)
    assert writers[0].wait() == 0
    assert seen == [f"{len(ask(own_copy, 'from models'))}\n"]
    assert ask(own_copy, "select count(*) from store_info where key like 'row%'") == [(8,)]


def test_a_store_is_compacted_where_much_of_it_is_free_and_nobody_holds_it(own_copy, monkeypatch):
    with_room(own_copy)
    assert store.compact_if_sparse(own_copy) is None
    monkeypatch.setattr(copies, "LEAST_FREE_BYTES", 1)
    monkeypatch.setattr(copies, "MOST_FREE_SHARE", 0)
    before = contents(own_copy)
    with store.reading(own_copy):
        assert store.compact_if_sparse(own_copy) is None
    summary = store.compact_if_sparse(own_copy)
    assert summary.bytes_after < summary.bytes_before
    assert contents(own_copy) == before
    assert store.compact_if_sparse(own_copy) is None


def test_a_store_that_somebody_holds_is_not_compacted(own_copy):
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, own_copy], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        holder.stdout.readline()
        with pytest.raises(LockedStoreError):
            store.compact(own_copy, wait_seconds=0.05)
        with suppress(BrokenPipeError):
            holder.communicate(b"\n")

"""A published folder: parts of several stores, read as one store by many at once."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pytest

import quantstore
from quantstore import cli, queries, store
from quantstore.console import statement
from quantstore.errors import QuantstoreError, RejectedQueryError, StoreError
from quantstore.records import OutputRecord
from quantstore.store.parts import PREFIX
from quantstore.store.published import IS_ONLY_READ, VIEWS_FILE
from tests.support import hostile
from tests.support.published import ask, contents, parts
from tests.support.runs import a_run, add

PLAIN = "digits-plain"


@pytest.fixture(scope="module")
def two_stores(demo_store, tmp_path_factory):
    """Two stores that share two of four models; the first has runs as well. Only read."""
    folder = tmp_path_factory.mktemp("two")
    paths = [folder / "anna.duckdb", folder / "ben.duckdb"]
    for path, leaving in zip(paths, ("digits-separable", "digits-rescaled"), strict=True):
        shutil.copy(demo_store, path)
        with store.writing(path) as connection:
            store.remove_model_named(connection, leaving)
    with store.writing(paths[0]) as connection:
        outputs = (OutputRecord(output="boxes", part="scores", sqnr_db=12.0, point="boxes"),)
        add(connection, PLAIN, a_run(31.5, source="3 photos", minute=1, outputs=outputs))
        add(connection, PLAIN, a_run(12.5, minute=2))
    return paths


@pytest.fixture(scope="module")
def folder(two_stores, tmp_path_factory):
    """Both stores, published in a folder of an odd name. Only read."""
    folder = tmp_path_factory.mktemp("published") / "it's, an = odd name"
    for path in two_stores:
        store.publish(path, folder)
    return folder


@pytest.mark.slow
def test_a_published_store_answers_every_table_and_view_as_the_store_does(two_stores, tmp_path):
    anna, _ = two_stores
    store.publish(anna, tmp_path / "published")
    expected, published = contents(anna), contents(tmp_path / "published")
    assert published.keys() == expected.keys()
    for table, rows in expected.items():
        assert published[table] == rows, table
    assert len(expected["stored_channels"]) > 100


@pytest.mark.slow
def test_the_union_of_two_published_stores_is_their_merge(two_stores, folder, tmp_path):
    merged = tmp_path / "merged.duckdb"
    for path in two_stores:
        store.merge(merged, path)
    expected, published = contents(merged), contents(folder)
    tables = ("models", "layers", "stored_channels", "layer_errors", "histogram_bins")
    for table in (*tables, "simulation_outputs"):
        assert published[table] == expected[table] != [], table
    runs = "select simulation_id from simulations where input_source <> 'noise'"
    assert ask(folder, runs) == ask(merged, runs) != []


def test_no_table_has_a_column_of_the_name_by_which_duckdb_knows_a_part(folder):
    columns = "select table_name from duckdb_columns() where column_name = ? and schema_name = ?"
    assert ask(folder, columns, PREFIX.rstrip("="), "declared") == []
    assert ask(folder, columns, PREFIX.rstrip("="), "parts") != []


@pytest.mark.slow
def test_publishing_again_stores_nothing_twice_and_only_what_changed(two_stores, tmp_path):
    path, folder = tmp_path / "own.duckdb", tmp_path / "published"
    shutil.copy(two_stores[0], path)
    first = store.publish(path, folder)
    assert (first.models, len(parts(folder))) == (3, 2)
    assert store.publish(path, folder) == store.PublishSummary(None, 0, 0, 0)
    assert len(parts(folder)) == 2
    with store.writing(path) as connection:
        run = add(connection, PLAIN, a_run(21.5, source="9 photos", minute=9))
    second = store.publish(path, folder)
    assert (second.models, second.runs) == (0, 1)
    assert ask(folder, "select simulation_id from simulations where input_source = '9 photos'") == [
        (run,)
    ]
    with store.writing(path) as connection:
        store.set_tags(connection, PLAIN, ["good"])
    assert store.publish(path, folder).models == 1
    assert ask(folder, "select tags from models where model = ?", PLAIN) == [(["good"],)]
    assert contents(folder)["layers"] == contents(path)["layers"]
    # Others that publish what they have do not bring the former tags back.
    assert store.publish(two_stores[0], folder).models == 0


@pytest.mark.slow
def test_of_two_measurements_the_later_version_counts_with_all_that_belongs_to_it(
    two_stores, tmp_path
):
    newer, folder = tmp_path / "newer.duckdb", tmp_path / "published"
    shutil.copy(two_stores[0], newer)
    with store.writing(newer) as connection:
        connection.rows("update models set measures_version = 1000")
        connection.rows("update layers set kurtosis = 77")
    store.publish(newer, folder)
    store.publish(two_stores[0], folder)
    assert ask(folder, "select distinct kurtosis from layers") == [(77,)]
    assert contents(folder)["stored_channels"] == contents(newer)["stored_channels"]


@pytest.mark.slow
def test_two_contents_of_one_name_are_two_models(two_stores, tmp_path):
    other, folder = tmp_path / "other.duckdb", tmp_path / "published"
    shutil.copy(two_stores[1], other)
    with store.writing(other) as connection:
        store.remove_model_named(connection, PLAIN)
        store.rename_model(connection, "digits-separable", PLAIN)
        ((sha256,),) = connection.rows("select sha256 from models where model = ?", [PLAIN])
    for path in (two_stores[0], other):
        store.publish(path, folder)
    names = [name for (name,) in ask(folder, "select model from models where model <> 'x'")]
    assert len(names) == len(set(names)) == 4
    assert {PLAIN, f"{PLAIN}-{sha256[:8]}"} <= set(names)


@pytest.mark.slow
def test_writers_never_meet(two_stores, tmp_path):
    folder = tmp_path / "published"
    with ThreadPoolExecutor(2) as pool:
        summaries = list(pool.map(lambda path: store.publish(path, folder), two_stores))
    # Whoever is later leaves out what the other has already published just so.
    assert all(1 <= summary.models <= 3 for summary in summaries)
    assert ask(folder, "select count(*), count(distinct model_id) from models") == [(4, 4)]


@pytest.mark.slow
def test_what_is_being_written_is_not_seen(two_stores, folder):
    before = contents(folder)["models"]
    unfinished = folder / ".part.quantstore-abcdefgh" / "part"
    unfinished.mkdir(parents=True)
    (unfinished / "models.parquet").write_bytes(b"half")
    try:
        assert contents(folder)["models"] == before
    finally:
        shutil.rmtree(unfinished.parent)


@pytest.mark.slow
def test_the_file_of_views_opens_the_folder_and_any_client_reads_it(folder):
    models = "select model from models order by model"
    assert ask(folder / VIEWS_FILE, models) == ask(folder, models) != []
    with duckdb.connect(folder / VIEWS_FILE, read_only=True) as connection:
        assert connection.execute(models).fetchall() == ask(folder, models)


@pytest.mark.slow
def test_python_and_commands_read_it_as_any_store(folder, two_stores, capsys):
    names = set(quantstore.open_store(folder).models()["model"])
    assert names == {row for path in two_stores for (row,) in ask(path, "select model from models")}
    assert quantstore.open_store(folder).verdict(PLAIN).model == PLAIN
    with store.reading(folder) as connection:
        assert len(queries.verdicts(connection)) > 4
    for command in (["models"], ["compare", PLAIN, "digits-rescaled"], ["layers", PLAIN]):
        assert cli.main([*command, "--db", str(folder)]) == 0
    assert PLAIN in capsys.readouterr().out


def test_the_list_of_tables_is_that_of_a_store(folder, two_stores):
    things = []
    for path in (folder, two_stores[0]):
        with store.reading(path) as connection:
            schema = queries.schema(connection)
        things.append(
            sorted(map(tuple, schema[["thing", "column_name", "comment"]].values), key=repr)
        )
    assert things[0] == things[1] != []


@pytest.mark.parametrize(
    "command",
    [
        ["remove", PLAIN],
        ["tag", PLAIN, "x"],
        ["rename", PLAIN, "y"],
        ["migrate"],
        ["backup", "copy.duckdb"],
        ["demo"],
    ],
    ids=lambda command: command[0],
)
def test_what_would_write_into_it_is_refused_with_the_command_to_use(folder, command, capsys):
    before = sorted(map(str, folder.rglob("*")))
    assert cli.main([*command, "--db", str(folder)]) == 3
    sentence = capsys.readouterr().err
    assert IS_ONLY_READ in sentence
    assert "quantstore publish" in sentence
    assert "Traceback" not in sentence
    assert sorted(map(str, folder.rglob("*"))) == before


@pytest.mark.slow
def test_publish_says_what_it_did_and_refuses_a_folder_of_other_files(two_stores, tmp_path, capsys):
    command = ["publish", str(tmp_path / "new"), "--db", str(two_stores[0])]
    assert cli.main(command) == 0
    assert "published 3 models and " in capsys.readouterr().err
    assert cli.main(command) == 0
    assert "already holds everything" in capsys.readouterr().err
    with pytest.raises(QuantstoreError, match="in its path"):
        store.publish(two_stores[0], tmp_path / "what [*]")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").write_bytes(b"x")
    with pytest.raises(QuantstoreError, match="not part of a published folder"):
        store.publish(two_stores[0], tmp_path / "other")


# The SQL console.


def console(folder, sql):
    return statement.run(folder, sql, row_limit=10, timeout_seconds=20).table


@pytest.mark.slow
def test_the_console_reads_a_published_folder(folder):
    assert console(folder, "select count(*) as n from models").to_pylist() == [{"n": 4}]
    assert console(folder, "explain analyze select count(*) from models").num_rows > 0


# A process each: one of them in the quick tests.
ATTACKS = [
    pytest.param(sql, marks=[] if sql.startswith("explain analyze copy (") else pytest.mark.slow)
    for kind in ("folder: copies into it", "folder: behind a pivot")
    for sql in hostile.REFUSED_AT_A_FOLDER[kind][:8]
] + [
    pytest.param(sql, marks=pytest.mark.slow)
    for sql in (
        "select * from read_text('{inside}/../outside/secret.csv')",
        "select * from read_text('{inside}/link.csv')",
        "from read_text('{inside}/door/secret.csv')",
        "from glob('{inside}/door/*')",
        "set allowed_directories = ['/']",
    )
]


@pytest.fixture(scope="module")
def besieged(two_stores, tmp_path_factory):
    """A published folder of an odd name with links out of it, and a secret beside it."""
    root = tmp_path_factory.mktemp("it's, besieged")
    folder, outside = root / "shared", root / "outside"
    store.publish(two_stores[0], folder)
    hostile.lay_links(folder, outside, "what-no-answer-may-hold")
    # A console that answers nothing would withstand every attack.
    assert console(folder, "from models").num_rows == 3
    return folder, outside


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_console_reaches_nothing_else_and_writes_nothing(besieged, attack):
    folder, outside = besieged
    before = sorted(map(str, folder.parent.rglob("*")))
    with pytest.raises((RejectedQueryError, StoreError)) as refused:
        console(folder, hostile.aimed_at_folder(attack, folder, outside))
    assert "what-no-answer" not in str(refused.value)
    assert sorted(map(str, folder.parent.rglob("*"))) == before

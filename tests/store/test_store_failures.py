"""Stores that cannot be used: a clear sentence, exit code 3, and nothing is made worse."""

import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
import pytest

from quantstore import store
from quantstore.errors import (
    DamagedStoreError,
    MissingStoreError,
    NewerStoreError,
    StoreError,
)
from quantstore.store.connection import IS_CORRUPT, IS_EMPTY, IS_NO_DATABASE, IS_TOO_SHORT
from quantstore.store.migrations import NO_COPY

pytestmark = pytest.mark.slow

ROOT = Path(store.__file__).parents[2]
both_ways = pytest.mark.parametrize("opening", [store.reading, store.writing])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "test.duckdb"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The bytes of a store that holds something."""
    path = tmp_path_factory.mktemp("sound") / "sound.duckdb"
    with store.writing(path) as connection:
        connection.rows("create table filler as select range as number from range(200000)")
    return path.read_bytes()


def everything(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def complaint(kind, path, opening=store.reading):
    """What the store says; afterwards everything beside it is as it was."""
    before = everything(path.parent) if path.parent.is_dir() else {}
    with pytest.raises(StoreError) as caught, opening(path, wait_seconds=0.05) as connection:
        connection.rows("select sum(number) from filler")
    assert type(caught.value) is kind
    assert caught.value.exit_code == 3
    assert caught.value.hint
    assert str(path) in caught.value.sentence
    assert len(caught.value.sentence) < 300
    if path.parent.is_dir():
        assert everything(path.parent) == before
    return caught.value.sentence


def flipped(content, place):
    changed = bytearray(content)
    changed[place] ^= 0xFF
    return bytes(changed)


# --- what is no store --------------------------------------------------------------------------


def test_a_store_that_is_not_there_yet(path):
    assert "quantstore ingest" in complaint(MissingStoreError, path)


def test_a_store_that_is_not_there_is_not_made_by_who_wants_to_change_one(path):
    with pytest.raises(MissingStoreError), store.writing(path, may_create=False):
        pass
    assert not path.exists()


@both_ways
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", IS_EMPTY),
        (b"abc", IS_NO_DATABASE),
        (b"Not a database.\n" * 1000, IS_NO_DATABASE),
        (b"PK\3\4" * 5000, IS_NO_DATABASE),
        (b"SQLite format 3\0".ljust(8192, b"\0"), IS_NO_DATABASE),
    ],
    ids=["zero bytes", "three bytes", "text", "zip", "SQLite"],
)
def test_a_file_that_is_no_database(path, content, sentence, opening):
    path.write_bytes(content)
    assert sentence in complaint(DamagedStoreError, path, opening)


@both_ways
@pytest.mark.parametrize(
    "statement",
    [
        "create table mine as select 1",
        "create table store_info as select 'schema_version' as key, 'x' as value",
        "create table store_info as select 1 as one",
    ],
)
def test_somebody_elses_database(path, statement, opening):
    with duckdb.connect(path) as connection:
        connection.execute(statement)
    assert "not a quantstore" in complaint(DamagedStoreError, path, opening)


@both_ways
def test_a_store_of_a_later_release(path, opening):
    with store.writing(path) as connection:
        connection.rows("update store_info set value = '999' where key = 'schema_version'")
    sentence = complaint(NewerStoreError, path, opening)
    assert "schema 999" in sentence
    assert "upgrade quantstore" in sentence


@both_ways
def test_a_folder_in_place_of_the_store(tmp_path, opening):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(StoreError) as caught, opening(folder, wait_seconds=0.05):
        pass
    assert str(folder) in caught.value.sentence
    assert caught.value.exit_code == 3


def test_a_folder_that_does_not_exist(tmp_path):
    path = tmp_path / "nowhere" / "test.duckdb"
    assert "No such file or directory" in complaint(StoreError, path, store.writing)
    complaint(MissingStoreError, path, store.reading)


# --- what is damaged ---------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda sound: sound[:100], IS_TOO_SHORT),
        (lambda sound: sound[:5000], IS_TOO_SHORT),
        (lambda sound: sound[: len(sound) // 2], IS_TOO_SHORT),
        (lambda sound: flipped(sound, 0), IS_CORRUPT),
        (lambda sound: flipped(sound, 4100), IS_CORRUPT),
        (lambda sound: sound[:12288] + bytes(len(sound) - 12288), "is damaged"),
    ],
    ids=["100 bytes", "5000 bytes", "half", "first byte", "header", "all but the header"],
)
def test_a_damaged_store(path, sound, damage, sentence, opening):
    path.write_bytes(damage(sound))
    assert sentence in complaint(DamagedStoreError, path, opening)


def test_a_log_that_cannot_be_replayed_is_named(path):
    crash = (
        "import duckdb, os, sys; c = duckdb.connect(sys.argv[1])\n"
        "c.execute('create table filler as select range as number from range(9999)'); os._exit(9)"
    )
    with store.writing(path):
        pass
    subprocess.run([sys.executable, "-c", crash, path], check=False)
    log = path.with_name(f"{path.name}.wal")
    log.write_bytes(flipped(log.read_bytes(), log.stat().st_size // 2))
    for opening in (store.reading, store.writing):
        assert f"its log {log} cannot be read" in complaint(DamagedStoreError, path, opening)


# --- no place to write -------------------------------------------------------------------------

# One process that has loaded everything forks for each case: with little room on the disk, or as
# somebody who may not write there.
ATTEMPTS = """
import json, os, resource, sys
from pathlib import Path
from quantstore import store
from quantstore.errors import StoreError
from quantstore.store.rows import load_numpy
# Python itself may be out of reach for somebody else.
load_numpy()

def attempt(path, room_bytes):
    if room_bytes is None:
        os.setgid(65534), os.setuid(65534)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes,) * 2)
    try:
        with store.writing(Path(path), 0) as connection:
            connection.rows("insert into store_info select range::varchar, repeat('x', 99)"
                            " from range(20000)")
    except StoreError as error:
        print(json.dumps([path, error.exit_code, error.sentence]), flush=True)

for path, room_bytes in json.loads(sys.argv[1]):
    pid = os.fork()
    if pid == 0:
        attempt(path, room_bytes)
        os._exit(0)
    os.waitpid(pid, 0)
"""

# What is there at first, and the room in bytes; None: for somebody else, all of it.
CASES = {
    "new, no room at all": (None, 1_000),
    "new, room for a store without rows": (None, 1_500_000),
    "existing": ("sound", 100_000),
    "of an earlier release": ("old", 100_000),
    "new, read-only": (None, None),
    "existing, read-only": ("sound", None),
}
IS_ROOT = getattr(os, "getuid", lambda: 1)() == 0


@pytest.fixture(scope="module")
def attempts(sound):
    """For each case the path, what was there before, the exit code and the sentence."""
    if os.name == "nt":
        pytest.skip("limits and users of Unix")
    with gzip.open(ROOT / "tests" / "data" / "store-schema-1.duckdb.gz") as packed:
        contents = {"sound": sound, "old": packed.read()}
    # Not pytest's own folder, which nobody else may enter.
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        paths = {}
        for number, (case, (content, room_bytes)) in enumerate(CASES.items()):
            if room_bytes is None and not IS_ROOT:
                continue
            (base / str(number)).mkdir(mode=0o755)
            paths[case] = base / str(number) / "test.duckdb"
            if content is not None:
                paths[case].write_bytes(contents[content])
        before = {case: everything(path.parent) for case, path in paths.items()}
        asked = [[str(path), CASES[case][1]] for case, path in paths.items()]
        done = subprocess.run(
            [sys.executable, "-c", ATTEMPTS, json.dumps(asked)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        said = {path: rest for path, *rest in map(json.loads, done.stdout.splitlines())}
        yield {case: (path, before[case], *said[str(path)]) for case, path in paths.items()}


def size_of_store(path):
    with store.reading(path) as connection:
        return connection.value("select count(*) from store_info")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_no_place_to_write_is_said_and_changes_nothing(attempts, case):
    if case not in attempts:
        pytest.skip("only root can become somebody else")
    path, before, exit_code, sentence = attempts[case]
    assert exit_code == 3
    _, room_bytes = CASES[case]
    if room_bytes is None:
        assert "test.duckdb cannot be opened: Permission denied" in sentence
    elif case == "of an earlier release":
        assert NO_COPY in sentence
    else:
        assert "File too large; free some space on that disk" in sentence
    after = everything(path.parent)
    if case in ("existing", "new, room for a store without rows"):
        # The log of what did not fit may remain; it counts for nothing.
        assert size_of_store(path) == 3
        after.pop("test.duckdb.wal", None)
        before = before or {path.name: path.read_bytes()}
    assert after == before


# --- a first ingest that is killed -------------------------------------------------------------


def test_a_database_without_a_table_is_no_store_yet_and_becomes_one(path):
    """An earlier release that was killed while it made a store left such a file."""
    duckdb.connect(path).close()
    assert "is an empty database, not a quantstore" in complaint(MissingStoreError, path)
    with store.writing(path):
        pass
    assert size_of_store(path) == 3


def test_a_store_appears_whole(path, monkeypatch):
    def fail(_):
        assert not path.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr("quantstore.store.connection.create_schema", fail)
    with pytest.raises(KeyboardInterrupt), store.writing(path):
        pass
    assert list(path.parent.iterdir()) == []


def test_who_comes_second_does_not_replace_the_first(path, monkeypatch):
    """Two first ingests at once: both made a store, one is put in place."""
    made = store.connection.create_schema

    def overtaken(connection):
        made(connection)
        monkeypatch.setattr("quantstore.store.connection.create_schema", made)
        with store.writing(path) as first:
            first.rows("insert into store_info values ('mine', 'yes')")

    monkeypatch.setattr("quantstore.store.connection.create_schema", overtaken)
    with store.writing(path) as second:
        assert second.value("select value from store_info where key = 'mine'") == "yes"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_a_killed_process_left_is_cleared_away_in_the_end(path):
    old, young = (path.with_name(f"{path.name}.new-{age}") for age in ("old", "young"))
    for file in (old, young):
        file.write_bytes(b"half")
    os.utime(old, (0, 0))
    with store.writing(path):
        pass
    assert {file.name for file in path.parent.iterdir()} == {path.name, young.name}


def test_a_file_system_without_links_will_do(path, monkeypatch):
    def refuse(*_):
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", refuse)
    with store.writing(path):
        pass
    assert size_of_store(path) == 3
    assert [file.name for file in path.parent.iterdir()] == [path.name]

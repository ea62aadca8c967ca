"""Compaction of a published folder: fewer parts, the same rows, at every moment for everybody."""

import math
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantstore import cli, store
from quantstore.store import compacting
from quantstore.store.parts import FILES, listing, put_in_place
from quantstore.store.published import VIEWS_FILE
from tests.support.published import ask, contents, parts
from tests.support.runs import a_run, add

PLAIN = "digits-plain"


@pytest.fixture(scope="module")
def versions(demo_store, tmp_path_factory):
    """A store with all models, and before with one of them under another tag. Only read."""
    folder = tmp_path_factory.mktemp("versions")
    before, after = folder / "before.duckdb", folder / "after.duckdb"
    shutil.copy(demo_store, before)
    with store.writing(before) as connection:
        for (name,) in connection.rows("select model from models where model <> ?", [PLAIN]):
            store.remove_model_named(connection, name)
        store.set_tags(connection, PLAIN, ["former"])
        add(connection, PLAIN, a_run(31.5, source="3 photos", minute=1))
    shutil.copy(demo_store, after)
    with store.writing(after) as connection:
        store.set_tags(connection, PLAIN, ["latter"])
    return before, after


@pytest.fixture(scope="module")
def published(versions, tmp_path_factory):
    """Both, published one after the other. Only read."""
    folder = tmp_path_factory.mktemp("published") / "published"
    for path in versions:
        store.publish(path, folder)
    return folder


@pytest.fixture
def folder(published, tmp_path):
    shutil.copytree(published, tmp_path / "folder")
    return tmp_path / "folder"


@pytest.mark.slow
def test_one_part_holds_what_many_held_and_they_go_a_day_later(folder, versions, capsys):
    before = contents(folder)
    assert ask(folder, "select tags from models where model = ?", PLAIN) == [(["latter"],)]
    former = parts(folder)
    assert cli.main(["compact", str(folder)]) == 0
    assert f"merged {len(former)} parts" in capsys.readouterr().err
    (merged,) = parts(folder)
    assert contents(folder) == before
    assert {part.name for part in listing(folder).replaced} == set(former)
    with duckdb.connect(folder / VIEWS_FILE, read_only=True) as connection:
        rows = connection.execute("select count(*), count(distinct part_id) from parts.models")
        assert rows.fetchall() == [(len(before["models"]), 1)]
    # The next day. The same content has the same name, so that nothing is written anew.
    for part in folder.glob("part_id=*"):
        os.utime(part / "part.json", (0, 0))
    assert cli.main(["compact", "--db", str(folder)]) == 0
    assert f"removed {len(former)} parts" in capsys.readouterr().err
    assert [part.name for part in folder.glob("part_id=*")] == [merged]
    assert contents(folder) == before
    # What counts no longer is known all the same: its owner does not bring it back.
    assert store.publish(versions[0], folder).part is None


@pytest.mark.slow
def test_who_opened_the_folder_before_reads_on_what_it_held(versions, tmp_path):
    folder = tmp_path / "folder"
    store.publish(versions[0], folder)
    before = contents(folder)["models"]
    with store.reading(folder) as connection:
        stamp = store.stamp_read(connection, folder)
        store.publish(versions[1], folder)
        store.compact_folder(folder)
        assert store.stamp_read(connection, folder) == stamp
        assert connection.rows("select tags from models") == [(["former"],)]
        assert connection.value("select count(*) from layers join models using (model_id)") > 0
    with store.reading(folder) as connection:
        assert store.stamp_read(connection, folder) != stamp
    after = contents(folder)["models"]
    assert len(after) > len(before) == 1
    assert ask(folder, "select tags from models where model = ?", PLAIN) == [(["latter"],)]


@pytest.mark.slow
def test_the_same_content_is_the_same_file(folder, published, tmp_path):
    shutil.copytree(published, tmp_path / "other")
    merged = []
    for path in (folder, tmp_path / "other"):
        store.compact_folder(path)
        (part,) = listing(path).live
        merged.append(part)
    assert merged[0].name == merged[1].name
    for name in FILES:
        assert (merged[0].path / name).read_bytes() == (merged[1].path / name).read_bytes(), name


@pytest.mark.slow
def test_two_compactions_at_once_do_what_one_does(folder):
    before = contents(folder)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(store.compact_folder, [folder, folder]))
    assert len(parts(folder)) == 1
    assert contents(folder) == before


@pytest.mark.slow
def test_a_compaction_that_is_stopped_leaves_the_folder_as_it_was(folder, monkeypatch):
    before, former = contents(folder), parts(folder)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("quantstore.store.publishing.put_in_place", stop)
        with pytest.raises(KeyboardInterrupt):
            store.compact_folder(folder)
    assert parts(folder) == former
    assert contents(folder) == before
    store.compact_folder(folder)
    assert contents(folder) == before


def test_what_is_no_published_folder_is_not_compacted(tmp_path, capsys):
    assert cli.main(["compact", str(tmp_path)]) == 2
    assert "is not a published folder" in capsys.readouterr().err


@dataclass(frozen=True)
class Sized:
    name: str
    size: int

    def file_bytes(self):
        return self.size


@given(st.lists(st.integers(1, 10**11), min_size=1, max_size=60))
def test_what_is_left_doubles_in_size_from_part_to_part(sizes):
    parts = [Sized(f"{number:02}", size) for number, size in enumerate(sizes)]
    chosen = compacting._small(parts)
    assert len(chosen) != 1
    left = sorted(part.size for part in parts if part not in chosen)
    merged = sum(part.size for part in chosen)
    # Whatever stays is larger than all that is smaller: so there are few.
    large = left[1:] if not chosen else left
    for size in large:
        assert size > compacting.SMALL_BYTES
        assert size > merged + sum(other for other in left if other < size)
    assert len(left) <= 2 + math.log2(max(1, sum(sizes) / compacting.SMALL_BYTES))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["publish", "list", "merge", "merge what was listed", "remove"]),
        st.sets(st.integers(0, 9), min_size=1, max_size=4),
    ),
    max_size=14,
)


@given(STEPS)
def test_whoever_lists_the_folder_has_everything_whatever_others_do(tmp_path_factory, steps):
    """Writers as they may meet: late ones, killed ones, and several at once."""
    folder = tmp_path_factory.mktemp("folder")
    held = {}

    def put(content, replaces=frozenset()):
        fresh = folder / ".fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        for name in FILES:
            (fresh / name).touch()
        part = put_in_place(fresh, folder, repr(sorted(content)), replaces)
        held[part.name] = frozenset(content)

    published = set()
    former = listing(folder)
    for step, numbers in steps:
        now = listing(folder)
        if step == "publish":
            put(numbers)
            published |= numbers
        elif step == "list":
            former = now
        elif step == "remove":
            for part in now.replaced[: min(numbers)]:
                shutil.rmtree(part.path)
        else:
            source = now if step == "merge" else former
            chosen = [part for number, part in enumerate(source.live) if number in numbers]
            if chosen:
                content = frozenset().union(*(held[part.name] for part in chosen))
                put(content, compacting._replaced_by(chosen, source))
        counting = frozenset().union(*(held[part.name] for part in listing(folder).live))
        assert counting == published

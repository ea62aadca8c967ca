"""What differs where a system lacks what Linux has: simulated, by taking it away.

docs/windows.md has the table. None of this runs on Windows itself.
"""

import errno
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import pytest

from quantstore import store
from quantstore.app import uploads
from quantstore.cli import output
from quantstore.process import child, limits, memory, pool
from quantstore.store import gate

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def without_file_locks(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr(gate, "fcntl", None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def without_groups(monkeypatch):
    for name in ("killpg", "waitid", "getuid"):
        monkeypatch.delattr(os, name)


@pytest.mark.usefixtures("without_file_locks")
def test_an_upload_keeps_no_file_open_and_goes_with_its_model(tmp_path, monkeypatch):
    upload = uploads.Upload(10)
    assert list(upload.folder.parent.iterdir()) == []
    upload.folder.mkdir()
    # A server that is gone cannot be told from one that runs: only what is a day old goes.
    assert uploads.remove_leftovers() == []
    assert upload.folder.exists()
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(upload.folder.parent, (two_days_ago, two_days_ago))
    assert uploads.remove_leftovers() == [upload.folder.parent]
    upload.remove()
    again = uploads.Upload(10)
    again.remove()
    assert not again.folder.parent.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("without_file_locks")
def test_readers_and_writers_of_one_store_still_wait_for_each_other(empty_store, tmp_path):
    path = tmp_path / "own.duckdb"
    path.write_bytes(empty_store.read_bytes())

    def write(number):
        with store.writing(path, 30) as connection:
            connection.rows("update store_info set value = value where key = ?", [str(number)])
        with store.reading(path, 30) as connection:
            return connection.value("select count(*) from models")

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(write, range(8))) == [0] * 8


def test_without_resource_limits_a_child_may_take_what_it_likes(monkeypatch, tmp_path):
    monkeypatch.setattr(limits, "resource", None)
    monkeypatch.setattr(memory, "resource", None)
    limits.put_on(limits.ChildLimits(cpu_seconds=1, memory_bytes=1, may_write_files=False))
    # Such a limit would make it fail.
    (tmp_path / "written.txt").write_text("x")
    assert memory.peak_bytes_with_children() == memory.peak_bytes()


@pytest.mark.usefixtures("without_groups")
def test_a_child_ends_where_there_are_no_groups_of_processes():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert not child._has_ended(process)
    child._kill_group(process)
    child._wait_for_end(process)
    assert child._has_ended(process)


def test_layers_are_measured_one_after_another_where_nothing_can_be_forked(monkeypatch):
    monkeypatch.setattr(pool, "CAN_FORK", False)
    results = list(pool.each(lambda context, task: (os.getpid(), context * task), 3, [1, 2], 4))
    assert results == [(os.getpid(), 3), (os.getpid(), 6)]


class ClosedPipe:
    """Standard output of Windows once its reader has gone."""

    def write(self, text):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def fileno(self):
        return self.descriptor

    def __init__(self):
        self.descriptor = os.open(os.devnull, os.O_WRONLY)


def test_a_reader_that_has_enough_is_no_failure(monkeypatch):
    closed = ClosedPipe()
    monkeypatch.setattr(sys, "stdout", closed)
    with pytest.raises(OSError, match="Invalid argument"):
        output.emit("text")
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(click.exceptions.Exit):
        output.emit("text")
    os.close(closed.descriptor)


def test_a_console_of_few_letters_gets_escapes_instead_of_a_failure():
    program = "from quantstore.cli.output import emit, say; emit('a → b\\n'); say('c → d')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    assert (done.stdout.split(), done.stderr.split()) == (
        [b"a", rb"\u2192", b"b"],
        [b"c", rb"\u2192", b"d"],
    )

"""Readers and writers of one file take turns: nobody waits for ever, nobody fails in between."""

import os
import threading
import time

import pytest

from quantstore import store
from quantstore.store.gate import Gate, gate_of, turnstile

fcntl = pytest.importorskip("fcntl")

LONG = 30.0


@pytest.fixture
def gate():
    return Gate()


def soon(seconds=LONG):
    return time.monotonic() + seconds


class Visitor(threading.Thread):
    """Comes through a gate and stays until it is told to leave."""

    def __init__(self, way, seconds=LONG):
        super().__init__(daemon=True)
        self.way, self.seconds = way, seconds
        self.is_in, self.may_leave = threading.Event(), threading.Event()
        self.start()

    def run(self):
        with self.way(soon(self.seconds)) as let_in:
            if let_in:
                self.is_in.set()
                self.may_leave.wait(LONG)

    def leave(self):
        self.may_leave.set()
        self.join(LONG)


def test_readers_share(gate):
    first, second = Visitor(gate.shared), Visitor(gate.shared)
    assert first.is_in.wait(LONG)
    assert second.is_in.wait(LONG)
    first.leave()
    second.leave()


def test_a_writer_is_alone(gate):
    writer = Visitor(gate.alone)
    assert writer.is_in.wait(LONG)
    others = [Visitor(gate.alone), Visitor(gate.shared)]
    assert not any(other.is_in.wait(0.05) for other in others)
    writer.leave()
    for other in others:
        assert other.is_in.wait(LONG)
        other.leave()


def test_who_waits_long_enough_is_turned_away(gate):
    writer = Visitor(gate.alone)
    assert writer.is_in.wait(LONG)
    with gate.alone(soon(0.02)) as is_in:
        assert not is_in
    with gate.shared(soon(0.02)) as is_in:
        assert not is_in
    writer.leave()
    # Nothing remains of those who left.
    with gate.alone(soon(0)) as is_in:
        assert is_in


def test_a_writer_that_waits_comes_before_readers_that_come_later(gate):
    reader = Visitor(gate.shared)
    assert reader.is_in.wait(LONG)
    writer = Visitor(gate.alone)
    while not gate._writers_waiting:
        time.sleep(0.001)
    later = Visitor(gate.shared)
    assert not later.is_in.wait(0.1)
    reader.leave()
    assert writer.is_in.wait(LONG)
    assert not later.is_in.is_set()
    writer.leave()
    assert later.is_in.wait(LONG)
    later.leave()


def test_a_reader_that_stays_does_not_shut_the_others_out(gate, monkeypatch):
    monkeypatch.setattr("quantstore.store.gate.COURTESY_SECONDS", 0.05)
    reader, writer = Visitor(gate.shared), None
    assert reader.is_in.wait(LONG)
    writer = Visitor(gate.alone)
    later = Visitor(gate.shared)
    assert later.is_in.wait(LONG)
    assert not writer.is_in.is_set()
    for visitor in (later, reader, writer):
        visitor.leave()


def test_who_reads_already_may_read_once_more_while_a_writer_waits(gate):
    with gate.shared(soon()) as is_in:
        assert is_in
        writer = Visitor(gate.alone)
        while not gate._writers_waiting:
            time.sleep(0.001)
        started = time.monotonic()
        with gate.shared(soon()) as again:
            assert again
        assert time.monotonic() - started < 0.5
    assert writer.is_in.wait(LONG)
    writer.leave()


def test_one_file_has_one_gate_whatever_it_is_called(tmp_path):
    file = tmp_path / "a.duckdb"
    (tmp_path / "link.duckdb").symlink_to(file)
    assert gate_of(file) is gate_of(tmp_path / "x" / ".." / "a.duckdb")
    assert gate_of(file) is gate_of(tmp_path / "link.duckdb")
    assert gate_of(file) is not gate_of(tmp_path / "b.duckdb")


def test_the_turnstile_lets_one_writer_or_several_readers_in(tmp_path):
    path = tmp_path / "a.duckdb"

    def lets_in(how):
        folder = os.open(tmp_path, os.O_RDONLY)
        try:
            fcntl.flock(folder, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(folder)
        return True

    with turnstile(path, soon(), is_writer=False):
        assert lets_in(fcntl.LOCK_SH)
        assert not lets_in(fcntl.LOCK_EX)
    with turnstile(path, soon(), is_writer=True):
        assert not lets_in(fcntl.LOCK_SH)
        started = time.monotonic()
        # Others go on without it when their time is over.
        with (
            turnstile(path, soon(0.05), is_writer=True),
            turnstile(path, soon(0.05), is_writer=False),
        ):
            assert time.monotonic() - started < 5
    assert lets_in(fcntl.LOCK_EX)


def test_a_folder_that_cannot_be_opened_needs_no_turnstile(tmp_path):
    with turnstile(tmp_path / "nowhere" / "a.duckdb", soon(), is_writer=True):
        pass


@pytest.mark.slow
def test_threads_that_read_and_write_one_store_all_get_through(tmp_path):
    path = tmp_path / "test.duckdb"
    with store.writing(path) as connection:
        connection.rows("create table counted (number integer)")
    failures, waits = [], []
    writers_left = threading.Semaphore(0)
    stop = threading.Event()

    def write(number):
        try:
            for _ in range(4):
                started = time.monotonic()
                with store.writing(path) as connection:
                    waits.append(time.monotonic() - started)
                    connection.rows("insert into counted values (?)", [number])
        except Exception as error:
            failures.append(error)
        writers_left.release()

    def read():
        seen = 0
        try:
            while not stop.is_set():
                with store.reading(path) as connection:
                    count = connection.value("select count(*) from counted")
                assert count >= seen
                seen = count
        except Exception as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    writers = [threading.Thread(target=write, args=[number]) for number in range(2)]
    for thread in (*readers, *writers):
        thread.start()
    for _ in writers:
        assert writers_left.acquire(timeout=LONG)
    stop.set()
    for thread in (*readers, *writers):
        thread.join(LONG)
    assert failures == []
    assert len(waits) == 8
    with store.reading(path) as connection:
        assert connection.value("select count(*) from counted") == 8

"""The console answers one SELECT; nothing that somebody types reaches further than the store."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from decimal import Decimal

import duckdb
import numpy as np
import pytest

from quantstore import store
from quantstore.console import answer, statement
from quantstore.errors import DamagedStoreError, MissingStoreError, RejectedQueryError
from quantstore.store.statements import NO_STATEMENT, ONE_SELECT
from quantstore.wording import tables
from tests.support import hostile

SECRET = "a variable of the process that asks"
# Left alone, these statements take minutes to hours; starting Python on a busy machine, seconds.
SOON_SECONDS = 20


def ask(path, sql, *, row_limit=None, timeout_seconds=20.0):
    return statement.run(path, sql, row_limit=row_limit, timeout_seconds=timeout_seconds)


def refusal(path, sql, **limits):
    with pytest.raises(RejectedQueryError) as caught:
        ask(path, sql, **limits)
    return caught.value


def value(path, sql):
    return ask(path, sql).frame.iloc[0, 0]


# Answers.


def test_an_answer_is_a_frame(demo_store):
    answer = ask(demo_store, "select model, layer_count from models order by model limit 1")
    assert answer.frame.to_dict("records") == [{"model": "digits-plain", "layer_count": 6}]
    assert not answer.was_cut
    assert 0 < answer.seconds < 20


@pytest.mark.parametrize(
    "sql",
    [
        "from bands",
        "table bands",
        "values (1), (2)",
        "show tables",
        "describe models",
        "summarize bands",
        "explain select 1",
        "explain analyze select 1",
        "with worst as (from layer_errors limit 1) from worst",
        "pivot layer_errors on scheme using avg(sqnr_db) group by model",
        "from (pivot layer_errors on scheme using avg(sqnr_db) group by model)",
        "-- a remark\n select 1;  ",
    ],
)
def test_whatever_only_reads_is_welcome(demo_store, sql):
    with (
        store.sandbox(demo_store, timeout_seconds=5) as connection,
        connection.answering(sql) as rows,
    ):
        assert rows.read_all().num_rows >= 1


def test_an_answer_without_rows_keeps_its_columns(demo_store):
    frame = ask(demo_store, "select model, depth from model_layers where false").frame
    assert frame.shape == (0, 2)
    assert list(frame.columns) == ["model", "depth"]


@pytest.mark.parametrize(
    ("rows", "limit", "kept", "was_cut"),
    [
        pytest.param(4, 5, 4, False, marks=pytest.mark.slow),
        (5, 5, 5, False),
        (6, 5, 5, True),
        pytest.param(5000, 3000, 3000, True, marks=pytest.mark.slow),
    ],
)
def test_a_limit_cuts_and_says_so(demo_store, rows, limit, kept, was_cut):
    answer = ask(demo_store, f"from range({rows})", row_limit=limit)
    assert answer.frame["range"].tolist() == list(range(kept))
    assert answer.was_cut is was_cut


def test_a_limit_spares_the_work_of_the_rest(demo_store):
    assert len(ask(demo_store, "from range(100_000_000_000)", row_limit=3).frame) == 3


def test_many_rows_arrive_whole_and_in_order(demo_store):
    frame = ask(demo_store, "select range as n, repeat('x', 20) as s from range(200_000)").frame
    assert np.array_equal(frame["n"], np.arange(200_000))


@pytest.mark.slow
def test_numbers_are_numbers(demo_store):
    frame = ask(
        demo_store,
        "select sum(weight_count) as total, 1.5::decimal(4, 2) as share, null::int as gap,"
        " [1, 2] as shape, map {'a': 1} as counts, 'x'::enum('x') as word from models",
    ).frame
    row = frame.iloc[0]
    assert row["total"] > 10_000
    assert frame["total"].dtype.kind == "i"
    assert row["share"] == 1.5
    assert not isinstance(row["share"], Decimal)
    assert str(frame["gap"].dtype) == "Int64"
    assert list(row["shape"]) == [1, 2]
    assert row["counts"] == {"a": 1}
    assert row["word"] == "x"


def test_types_that_a_frame_lacks_arrive_as_text(demo_store):
    texts = {
        "1::variant": "1",
        "'101'::bit": "101",
        "union_value(a := 1)": "1",
        "12345678901234567890123::bignum": "12345678901234567890123",
        "interval 90 minute": "01:30:00",
        "'infinity'::date": "infinity",
        "'\\xAA'::blob": "\\xAA",
        "[1::variant]": "[1]",
        f"{2**128 - 1}::uhugeint": str(2**128 - 1),
        f"{2**127 - 1}::hugeint": str(2**127 - 1),
        f"-{2**63 + 1}::hugeint": f"-{2**63 + 1}",
        "{'at': timestamp 'infinity'}": "{'at': infinity}",
        "map {[1]: 2}": "{[1]=2}",
    }
    frame = ask(demo_store, f"select {', '.join(texts)}").frame
    assert frame.iloc[0].tolist() == list(texts.values())


@pytest.mark.slow
def test_times_beyond_the_calendar_can_be_printed(demo_store):
    frame = ask(
        demo_store, "select 'infinity'::timestamp as a, '290000-01-01'::timestamptz as b"
    ).frame
    for text in (tables.to_table(frame), tables.to_csv(frame), tables.to_json(frame)):
        assert "290000-01-01T00:00:00" in text


def test_every_type_that_duckdb_has_arrives(demo_store):
    frame = ask(demo_store, "from test_all_types()").frame
    assert len(frame) == 3
    assert tables.to_json(frame).count("\n") == 5


def test_columns_of_one_name_are_told_apart(demo_store):
    frame = ask(demo_store, "select 1 as a, 2 as a, 3 as a_1, 4 as a").frame
    assert frame.columns.is_unique
    assert frame.iloc[0].tolist() == [1, 2, 3, 4]
    assert "a_1" in frame.columns


# Mistakes.


def test_a_mistake_names_its_place_and_a_way_out(demo_store):
    error = refusal(demo_store, "select model,\n  weight_rang\nfrom model_layers")
    assert error.sentence.startswith('Referenced column "weight_rang" not found in FROM clause')
    assert "at line 2, column 3" in error.sentence
    assert "did you mean weight_range" in error.hint
    assert error.detail.splitlines() == ["line 2:   weight_rang", "          ^^^^^^^^^^^"]


@pytest.mark.parametrize(
    ("sql", "part"),
    [
        ("from modls", "did you mean models?"),
        ("selec 1", 'syntax error at or near "selec", at line 1, column 1'),
        ("select 'ä' || nope from models", "at line 1, column 15"),
        ("select ?", answer.WRITE_VALUES),
        ("select 'x'::int", "Could not convert string 'x' to INT32"),
        ("select error('corrupt block')", "corrupt block"),
        ("", NO_STATEMENT),
        ("-- nothing", NO_STATEMENT),
        ("select 1; select 2", "these are 2 statements"),
    ],
)
def test_a_mistake_is_one_readable_line(demo_store, sql, part):
    # As the child asks and its parent explains.
    with (
        pytest.raises(RejectedQueryError) as caught,
        store.sandbox(demo_store, timeout_seconds=5) as connection,
    ):
        whole_answer(connection, sql)
    error = answer.explained(caught.value, sql)
    assert part in error.sentence
    assert error.sentence.isprintable()
    assert "{" not in error.sentence
    assert error.exit_code == 1


@pytest.mark.slow
def test_a_long_message_is_shortened(demo_store):
    assert len(refusal(demo_store, "select error(repeat('x', 100_000))").sentence) < 500


def test_text_that_is_no_unicode_is_refused(demo_store):
    assert "not valid text" in refusal(demo_store, "select '\udcff'").sentence


def test_a_missing_store_is_a_missing_store(tmp_path):
    with pytest.raises(MissingStoreError):
        ask(tmp_path / "none.duckdb", "select 1")


def test_another_file_is_no_store(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    with pytest.raises(DamagedStoreError):
        ask(path, "select 1")


@pytest.mark.slow
def test_a_store_held_by_a_writer_is_waited_for(demo_store, tmp_path):
    path = shutil.copy(demo_store, tmp_path / "held.duckdb")
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        timer = threading.Timer(2.5, holder.stdin.close)
        timer.start()
        # The wait for the lock does not count against the statement's own time.
        answer = ask(path, "select count(*) from models", timeout_seconds=2)
        assert not timer.is_alive()
        holder.stdin = None
    assert answer.frame.iloc[0, 0] == 4


# Attacks. Each one is refused or stopped, soon, and leaves no trace.

# Without the rule of one SELECT, read-only access and the settings must do.
DOES_HARM_UNGUARDED = (
    "files",
    "network",
    "variables of the program",
    "writing",
    "copies and exports",
)
FROM_OUTSIDE = [
    "from read_csv('{folder}/secret.csv')",
    "copy models to '{folder}/out.csv'",
    "attach '{folder}/out.duckdb' as other",
    "with x as (delete from models returning *) from x",
]


@pytest.fixture
def secret_frame(monkeypatch):
    """What a statement must not find: a variable by its name, and one of the environment."""
    import pandas as pd

    monkeypatch.setenv("QUANTSTORE_TEST_SECRET", SECRET)
    return pd.DataFrame({"x": [SECRET]})


def fingerprint(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture
def target(demo_store, tmp_path):
    """A store to attack, with a secret beside it; whatever happens, the folder stays as it was."""
    path = tmp_path / "store.duckdb"
    shutil.copy(demo_store, path)
    (tmp_path / "secret.csv").write_text(SECRET)
    before = fingerprint(tmp_path)
    yield path
    assert fingerprint(tmp_path) == before


def test_there_are_more_than_three_hundred_attacks():
    refused = [sql for statements in hostile.REFUSED.values() for sql in statements]
    others = [*hostile.HARMLESS, *hostile.ENDLESS, *hostile.GREEDY, *hostile.MONSTROUS.values()]
    assert len({*refused, *others, *hostile.DEADLY}) > 300
    assert len(refused) == len(set(refused)) >= 250


def answered(target, kind, ask, refusal_type):
    """The attacks of a kind that are answered; what is said of the others gives nothing away."""
    found, said = [], []
    with store.sandbox(target, timeout_seconds=5) as connection:
        for sql in hostile.REFUSED[kind]:
            try:
                ask(connection, hostile.aimed(sql, target.parent))
            except refusal_type as error:
                said.append(str(error))
            else:
                found.append(sql)
    assert SECRET not in "".join(said)
    return found


def whole_answer(connection, sql):
    with connection.answering(sql) as rows:
        rows.read_all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", hostile.REFUSED)
def test_attacks_are_refused(target, secret_frame, kind):
    assert answered(target, kind, whole_answer, RejectedQueryError) == []


@pytest.mark.parametrize("kind", DOES_HARM_UNGUARDED)
def test_the_settings_alone_refuse_what_does_harm(target, secret_frame, kind):
    assert answered(target, kind, store.Connection.rows, duckdb.Error) == []


def test_what_is_answered_does_no_harm(target, secret_frame):
    with store.sandbox(target, timeout_seconds=5) as connection:
        for sql in hostile.HARMLESS:
            with connection.answering(hostile.aimed(sql, target.parent)) as rows:
                assert SECRET not in str(rows.read_all().to_pylist()), sql


@pytest.mark.parametrize(
    "sql",
    [FROM_OUTSIDE[0], *(pytest.param(sql, marks=pytest.mark.slow) for sql in FROM_OUTSIDE[1:])],
)
def test_an_attack_is_refused_in_the_childs_process_too(target, secret_frame, sql):
    error = refusal(target, hostile.aimed(sql, target.parent), timeout_seconds=5)
    assert SECRET not in f"{error.sentence} {error.detail}"
    assert "crashed" not in error.sentence
    assert error.hint == ONE_SELECT or "only the store" in error.hint


@pytest.mark.slow
def test_a_sort_beyond_memory_leaves_no_file_behind(demo_store, tmp_path):
    path = tmp_path / "store.duckdb"
    shutil.copy(demo_store, path)
    refusal(path, "from range(1_000_000_000) order by random()", timeout_seconds=1)
    assert [file.name for file in tmp_path.iterdir()] == ["store.duckdb"]


@pytest.mark.parametrize(
    "sql",
    [
        # DuckDB's own clock stops the first two; the others do not look at it.
        hostile.ENDLESS[0],
        pytest.param(hostile.ENDLESS[2], marks=pytest.mark.slow),
        "select sleep_ms(100_000)",
        pytest.param(
            "select list_sum(list_transform(range(100_000_000), lambda x: x + 1))",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "pivot (select range as r from range(90_000)) on r using count(*)",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_takes_too_long_is_stopped(demo_store, sql):
    started = time.monotonic()
    error = refusal(demo_store, sql, timeout_seconds=0.2)
    # Reading a wide list is refused for its memory on some computers before its time is up.
    assert str(error) in ("the query was stopped after 0.2 seconds", str(answer.out_of_memory()))
    assert time.monotonic() - started < SOON_SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("sql", hostile.GREEDY[1:3])
def test_what_takes_too_much_memory_is_stopped(demo_store, sql):
    started = time.monotonic()
    error = refusal(demo_store, sql, timeout_seconds=2)
    assert str(error) in ("the query was stopped after 2 seconds", str(answer.out_of_memory()))
    assert time.monotonic() - started < SOON_SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parentheses", "a long text"])
def test_what_nobody_would_write_ends_soon_with_an_answer_or_without(demo_store, kind):
    started = time.monotonic()
    # A quick machine answers in time.
    with suppress(RejectedQueryError):
        statement.run(demo_store, hostile.MONSTROUS[kind], row_limit=10, timeout_seconds=0.2)
    assert time.monotonic() - started < SOON_SECONDS


def test_a_crash_of_duckdb_takes_down_nobody_else(demo_store):
    assert "crashed" in refusal(demo_store, hostile.DEADLY[0]).sentence
    assert value(demo_store, "select count(*) from models") == 4


@pytest.mark.slow
def test_an_answer_wider_than_anybody_reads_is_refused(demo_store):
    error = refusal(demo_store, f"select {'1, ' * 10_000}1", timeout_seconds=30)
    assert error.sentence == "the answer has 10,001 columns; choose fewer columns"


def test_columns_of_one_name_are_numbered_around_those_that_have_a_number(demo_store):
    found = ask(demo_store, "select 1 as a, 2 as a, 3 as a_1, 4 as a, 5 as a_1").table
    assert found.column_names == ["a", "a_2", "a_1", "a_3", "a_1_1"]


@pytest.mark.slow
def test_an_answer_that_nobody_could_hold_is_refused(demo_store, monkeypatch):
    monkeypatch.setattr(statement, "LARGEST_ANSWER_BYTES", 1 << 24)
    error = refusal(demo_store, "from range(1_000_000_000_000)", timeout_seconds=10)
    assert statement.IS_LARGER_THAN in error.sentence


@pytest.mark.slow
def test_a_query_can_be_cancelled(demo_store):
    running = statement.start(
        demo_store, "select sleep_ms(100_000)", row_limit=1, timeout_seconds=30
    )
    threading.Timer(0.4, running.cancel).start()
    started = time.monotonic()
    with pytest.raises(RejectedQueryError, match="cancelled"):
        running.wait()
    assert time.monotonic() - started < SOON_SECONDS


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_while_waiting_leaves_nothing_behind(ctrl_c, demo_store):
    running = statement.start(
        demo_store, "select sleep_ms(100_000)", row_limit=1, timeout_seconds=30
    )
    threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        running.wait()
    assert running.is_over()
    assert not running._child.is_alive


def test_a_folder_full_of_module_names_changes_nothing(demo_store, tmp_path, monkeypatch):
    for name in ("types", "queue", "json", "duckdb"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('wrong module')")
    monkeypatch.chdir(tmp_path)
    assert value(demo_store, "select 42") == 42


def test_a_process_that_waits_answers_the_next_statement_and_no_other(demo_store):
    statement.get_ready()
    (waiting,) = statement._waiting
    statement.get_ready()
    assert statement._waiting == [waiting]
    running = statement.start(demo_store, "select 42", row_limit=1, timeout_seconds=20)
    assert running._child is waiting
    assert running.wait().frame.iloc[0, 0] == 42
    assert not waiting.is_alive
    assert value(demo_store, "select 43") == 43


def test_a_waiting_process_that_was_killed_is_replaced(demo_store):
    statement.get_ready()
    (waiting,) = statement._waiting
    waiting.cancel()
    assert value(demo_store, "select 42") == 42
    waiting.close()

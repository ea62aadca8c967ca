"""What the command line promises: data on standard output, talk on standard error, exit codes."""

import contextlib
import csv
import gc
import http.client
import io
import json
import logging
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import helper, numpy_helper

from quantstore import __version__, cli, queries, settings, store
from quantstore.cli.ingest import (
    FOR_THE_OTHER_NAME,
    PROBE_CHILD,
    early_child,
    verdict_lines,
)
from quantstore.cli.inspect import FIRST_LOSS_UNKNOWN, NO_TARGET_UNDER, cut_after
from quantstore.console.answer import READS_THE_STORE_ONLY
from quantstore.errors import MissingStoreError, StoreError, UnknownModelError
from quantstore.pipeline.files import demo_paths
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import IngestChoices, IngestResult
from quantstore.process import logs, memory
from quantstore.run import probe_child
from quantstore.schemes import TARGETS
from quantstore.store.connection import IN_USE_BY_PROCESS, IS_NO_DATABASE, NO_STORE
from quantstore.store.imports import IS_NO_EXPORT
from quantstore.store.labelling import name_is_taken
from quantstore.store.models import NO_MODEL_NAMED
from quantstore.store.statements import ONE_SELECT
from quantstore.wording import audits
from tests.support.graphs import conv_model, gaussian, save
from tests.support.runs import a_run, add, audited

COMMANDS = tuple(cli.commands.commands)
DEMO_MODELS = ["digits-plain", "digits-rescaled", "digits-separable", "digits-separable-unfolded"]
HEAVY = ["altair", "duckdb", "numpy", "onnx", "onnx_ir", "pandas", "pyarrow", "streamlit"]
# Child processes find the package whether it is installed or not.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
HOSTILE = "evil\x1b[31m\n\u202ename"

with_a_store_here = pytest.mark.usefixtures("store_here")
every_command = pytest.mark.parametrize("command", COMMANDS)


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run a command in a folder of its own: exit code, standard output, standard error.

    Models are not run on noise, unless by ``demo``: that is told in test_probe.py.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QUANTSTORE_DB", raising=False)

    def run(*arguments):
        if arguments[:1] == ("ingest",):
            arguments += ("--no-probe",)
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def store_here(empty_store, tmp_path):
    """A store without a model where ``run`` looks for one, so that none has to be made first."""
    shutil.copy(empty_store, tmp_path / "quantstore.duckdb")


@pytest.fixture
def ask(run, demo_store):
    """Ask the demo store, which holds four models; fails unless the exit code is 0."""

    def ask(*arguments):
        code, out, err = run("--db", demo_store, *arguments)
        assert code == 0, err
        return out

    return ask


@pytest.fixture
def own_store(demo_store, tmp_path):
    """A store to write to."""
    return Path(shutil.copy(demo_store, tmp_path / "own.duckdb"))


@pytest.fixture
def plain_model():
    return demo_paths()[0]


def strict_json(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def rows_of(csv_text):
    return list(csv.DictReader(io.StringIO(csv_text)))


def error_line(err):
    """The only line of talk, which is an error."""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert line.isprintable()
    return line


def save_model(path, names, folder_of_data=None):
    """An ONNX file with one small MatMul per name, one behind the other."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for number, name in enumerate(names):
        weight = rng.standard_normal((4, 4)).astype(np.float32) * (number + 1)
        weights.append(numpy_helper.from_array(weight, f"w{number}"))
        nodes.append(
            helper.make_node("MatMul", [f"x{number}", f"w{number}"], [f"x{number + 1}"], name=name)
        )
    value = [helper.make_tensor_value_info(f"x{n}", 1, [1, 4]) for n in (0, len(names))]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


# Help.


def test_help_lists_every_command_in_the_order_of_use(run):
    code, out, _ = run("--help")
    assert code == 0
    listed = [line.split()[0] for line in out.split("Commands:\n")[1].splitlines()]
    assert sorted(listed) == sorted(COMMANDS)
    assert [listed[0], listed[-1]] == ["ingest", "app"]
    positions = [cli.commands.commands[name].position for name in listed]
    assert positions == sorted(set(positions)), "every command has a position of its own"


def test_every_module_with_a_command_is_found_and_none_is_listed():
    modules = Path(cli.__file__).parent.glob("*.py")
    with_commands = {
        f"quantstore.cli.{path.stem}"
        for path in modules
        if "@commands.command(" in path.read_text("utf-8")
    }
    assert {command.callback.__module__ for command in cli.commands.commands.values()} == (
        with_commands
    )


@every_command
def test_every_command_explains_itself_with_examples(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"  quantstore {command}" in out or f"quantstore --db /tmp/try.duckdb {command}" in out
    assert "--db FILE" in out


@every_command
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_the_version_is_told_everywhere(run, command, before):
    arguments = ["--version", command] if before else [command, "--version"]
    assert run(*arguments) == (0, f"quantstore {__version__}\n", "")


def test_help_is_quick_because_it_imports_nothing_heavy():
    script = (
        "import sys\nfrom quantstore import cli\ncli.main(['--help'])\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=ENVIRONMENT
    )
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("probing", [["--no-probe"], []], ids=["alone", "beside a probe"])
@pytest.mark.slow
def test_ingest_loads_neither_frames_nor_arrow(tmp_path, probing):
    script = (
        "import sys\nfrom quantstore import cli\n"
        "try:\n    cli.main(sys.argv[1:])\n"
        "finally:\n"
        "    print(sorted({'pandas', 'pyarrow', 'http.client'} & {*sys.modules}))"
    )
    path = next(path for path in demo_paths() if path.stem == "digits-plain")
    arguments = ["--db", tmp_path / "new.duckdb", "ingest", path, *probing]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        env=ENVIRONMENT,
    )
    assert "int8_tensor: " in done.stderr, "the verdicts were asked for, too"
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nonsense"], "nonsense"),
        (["models", "--nonsense"], "--nonsense"),
        (["models", "--format", "xml"], "xml"),
        (["layers"], "MODEL"),
        (["compare"], "MODEL"),
        (["ingest"], "PATH"),
        (["ingest", "x.onnx", "--jobs", "0"], "--jobs"),
        (["layers", "digits-plain", "--scheme", "int9"], "int9"),
        (["layers", "digits-plain", "--limit", "0"], "--limit"),
        (["sql", "select 1", "--timeout", "nan"], "--timeout"),
        (["sql", "select 1", "--timeout", "-1"], "--timeout"),
        (["sql", "select 1", "--output", "x.xlsx"], ".parquet"),
        (["sql", "select 1", "--output", "x.csv", "--format", "csv"], "--format"),
        (["--db", ".", "models"], "is a directory"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(run, arguments, part):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert part in error_line(err)
    assert err.rstrip().endswith("--help")


def test_no_command_at_all_shows_the_help(run):
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "Start here:" in err


# Which store.


@pytest.mark.slow
def test_the_store_is_named_before_or_after_the_command_or_by_the_environment(
    run, demo_store, monkeypatch
):
    before = run("--db", demo_store, "models")
    after = run("models", "--db", demo_store)
    both = run("--db", "nowhere.duckdb", "models", "--db", demo_store)
    monkeypatch.setenv("QUANTSTORE_DB", str(demo_store))
    environment = run("models")
    assert before[0] == 0
    assert before == after == both == environment


@pytest.mark.parametrize(
    "arguments",
    [
        ["models"],
        ["layers", "x"],
        ["compare", "x"],
        ["sql", "select 1"],
        ["remove", "x"],
        ["export", "x"],
        ["backup", "x"],
        ["compact"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_missing_store_is_exit_code_3_and_is_not_created(run, tmp_path, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (3, "")
    assert NO_STORE in error_line(err)
    assert MissingStoreError.hint in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["models"], ["sql", "select 1"], ["ingest", "PLAIN"]])
def test_a_file_that_is_no_store_is_exit_code_3(run, tmp_path, plain_model, arguments):
    (tmp_path / "notes.txt").write_text("hello")
    arguments = [plain_model if argument == "PLAIN" else argument for argument in arguments]
    code, _, err = run("--db", "notes.txt", *arguments)
    assert code == 3
    assert f"notes.txt {IS_NO_DATABASE}" in error_line(err)


def test_a_store_from_the_future_is_exit_code_3(run, own_store):
    with store.writing(own_store) as connection:
        connection.rows("update store_info set value = '999' where key = 'schema_version'")
    code, _, err = run("--db", own_store, "models")
    assert code == 3
    assert "upgrade quantstore" in error_line(err)


@pytest.fixture
def holder(own_store):
    """Another process that holds the store for writing."""
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, own_store], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.communicate(b"\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["models"],
        pytest.param(["remove", "digits-plain"], marks=pytest.mark.slow),
        pytest.param(["sql", "select 1"], marks=pytest.mark.slow),
        pytest.param(["ingest", "FOLDER"], marks=pytest.mark.slow),
    ],
    ids=lambda arguments: arguments[0],
)
def test_who_may_not_wait_is_told_at_once_who_holds_the_store(
    run, own_store, holder, plain_model, arguments
):
    arguments = [plain_model.parent if part == "FOLDER" else part for part in arguments]
    started = time.monotonic()
    code, _, err = run("--db", own_store, *arguments, "--wait", "0", "--log-file", "steps.log")
    assert code == 3
    assert f"{IN_USE_BY_PROCESS} {holder.pid} (python" in error_line(err)
    # Far less than the default.
    assert time.monotonic() - started < 25
    assert "LockedStoreError" in Path("steps.log").read_text().splitlines()[-1]


@pytest.mark.slow
def test_waiting_is_bounded(run, own_store, holder):
    started = time.monotonic()
    code, _, err = run("--wait", "0.5", "--db", own_store, "models", "--verbose")
    assert code == 3
    assert 0.5 <= time.monotonic() - started < 25
    assert "waiting:" in err
    assert settings.wait_seconds() == settings.DEFAULT_WAIT_SECONDS


def test_a_path_that_no_system_accepts_is_exit_code_3(run):
    code, _, err = run("--db", "x" * 300, "models")
    assert code == 3
    assert "cannot be opened" in error_line(err)


# ingest


def test_ingest_says_what_became_of_a_file(run, plain_model):
    code, out, err = run("ingest", plain_model)
    assert (code, out) == (0, "")
    first, *verdicts = err.splitlines()
    assert first.startswith("stored digits-plain: 6 layers in ")
    # A line for each target; without the probe, which tests leave out, none is measured.
    assert [line.split(": ")[:2] for line in verdicts] == [
        [f"  {name}", "untested"] for name, target in TARGETS.items() if target.is_default
    ]
    code, out, err = run("ingest", plain_model)
    assert (code, out, err) == (0, "", f"already stored as digits-plain: {plain_model}\n")
    code, _, err = run("ingest", plain_model, "--replace")
    assert code == 0
    assert err.startswith("replaced digits-plain: 6 layers in ")
    assert err.splitlines()[1:] == verdicts


@pytest.mark.slow
@with_a_store_here
def test_ingest_says_that_another_name_is_not_given_and_how_to_give_it(run, plain_model):
    run("ingest", plain_model)
    code, _, err = run("ingest", plain_model, "--name", "the other")
    said, command = err.rstrip("\n").split(f"; {FOR_THE_OTHER_NAME}: ")
    assert (code, said) == (0, f"already stored as digits-plain: {plain_model}")
    assert command == "quantstore rename digits-plain 'the other'"
    run(*shlex.split(command)[1:])
    again = run("ingest", plain_model, "--name", "the other")
    assert again[2] == f"already stored as the other: {plain_model}\n"


@pytest.mark.slow
@with_a_store_here
def test_ingest_says_which_runs_go_with_what_is_replaced(run, plain_model):
    run("ingest", plain_model)
    for number, said in (
        (1, "1 run"),
        (2, "2 runs"),
    ):
        with store.writing(Path("quantstore.duckdb")) as con:
            for minute in range(number):
                add(con, "digits-plain", a_run(source="12 images", minute=minute))
        other = demo_paths()[number]
        _, _, err = run("ingest", other, "--name", "digits-plain", "--replace")
        assert err.splitlines()[0].endswith(f"; removed {said} of its earlier content")


@pytest.mark.slow
@with_a_store_here
def test_ingest_goes_on_after_a_failure_and_ends_with_1(run, tmp_path, plain_model):
    shutil.copy(plain_model, tmp_path / "good.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    code, out, err = run("ingest", tmp_path, "missing.onnx", "none*.onnx", "--jobs", 1)
    assert (code, out) == (1, "")
    lines = err.splitlines()
    assert any(line.startswith("stored good: 6 layers") for line in lines)
    for path in (tmp_path / "bad.onnx", "missing.onnx", "none*.onnx"):
        (line,) = (line for line in lines if line.startswith(f"error: {path}: "))
        assert ";" in line
    assert "1 stored, 2 failed" in lines[-1] or "3 failed, 1 stored" in lines[-1]
    assert run("models", "--format", "csv")[1].count("good") == 2


@pytest.mark.slow
@with_a_store_here
def test_ingest_tells_scripts_what_became_of_each_file(run, tmp_path, plain_model):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    code, out, err = run("ingest", plain_model, "bad.onnx", "--json", "--jobs", 1)
    assert code == 1
    stored, failed = strict_json(out)
    assert list(stored) == [
        "path",
        "outcome",
        "model",
        "layers",
        "seconds",
        "error",
        "runs_removed",
        "is_linked",
        "keep_failure",
    ]
    assert stored["path"] == str(plain_model)
    assert (stored["model"], stored["outcome"], stored["layers"]) == ("digits-plain", "stored", 6)
    assert stored["seconds"] > 0
    assert stored["error"] is None
    assert (failed["path"], failed["outcome"], failed["model"]) == ("bad.onnx", "failed", None)
    assert f"error: bad.onnx: {failed['error']}" in err


@pytest.mark.slow
@with_a_store_here
def test_ingest_measures_several_files_at_once(run):
    code, _, err = run("ingest", demo_paths()[0].parent, "--jobs", 2)
    assert code == 0
    assert err.splitlines()[-1].endswith(": 4 stored")


def test_verdicts_of_files_that_were_stored_together_are_asked_for_together(demo_store, caplog):
    names = ["digits-rescaled", "digits-plain", "digits-separable"]
    outcomes = dict(zip(names, ("stored", "replaced", "already stored"), strict=True))
    batch = [
        IngestResult(path=f"{name}.onnx", outcome=outcome, model=name)
        for name, outcome in outcomes.items()
    ]
    with caplog.at_level("DEBUG", "quantstore.store"):
        lines = verdict_lines(batch, demo_store)
    assert sum(" for reading after " in message for message in caplog.messages) == 1
    assert list(lines) == names[:2]
    default = [name for name, target in TARGETS.items() if target.is_default]
    for model, said in lines.items():
        with store.reading(demo_store) as con:
            verdicts = queries.verdicts(con, [model]).set_index("target")["verdict"]
        assert [verdict for _, verdict in said] == [verdicts[name] for name in default]
        assert [text.strip().partition(":")[0] for text, _ in said] == default


@with_a_store_here
def test_the_process_that_probes_one_file_starts_early_and_ends_with_the_command(plain_model):
    with early_child((str(plain_model),)) as child:
        assert child.is_alive
    assert not child.is_alive
    assert probe_child.__name__ == PROBE_CHILD


@with_a_store_here
def test_cycles_are_sought_rarely_while_one_file_is_ingested(plain_model, tmp_path):
    before = gc.get_threshold()
    try:
        with early_child((str(tmp_path),)):
            assert gc.get_threshold() == before
        with early_child((str(plain_model),)):
            assert gc.get_threshold()[0] == memory.OBJECTS_PER_COLLECTION
    finally:
        gc.set_threshold(*before)


def test_no_process_starts_early_where_none_may_be_wanted(plain_model, tmp_path):
    for paths in [(), (str(plain_model),) * 2, (str(tmp_path),), (str(tmp_path / "no.onnx"),)]:
        with early_child(paths) as child:
            assert child is None


@pytest.mark.slow
def test_ingest_names_one_file_and_no_more(run, tmp_path, plain_model):
    assert run("ingest", plain_model, "--name", "mine")[0] == 0
    assert rows_of(run("models", "--format", "csv")[1])[0]["model"] == "mine"
    code, _, err = run("ingest", *demo_paths(), "--name", "mine")
    assert code == 2
    assert "--name" in error_line(err)


@with_a_store_here
@pytest.mark.slow
def test_ingest_refuses_a_name_that_is_taken_unless_told_to_replace(run, plain_model):
    other = demo_paths()[1]
    run("ingest", plain_model)
    code, _, err = run("ingest", other, "--name", "digits-plain")
    assert code == 1
    assert error_line(err).startswith(f"error: {other}: {name_is_taken('digits-plain')}")
    assert run("ingest", other, "--name", "digits-plain", "--replace")[0] == 0


@pytest.mark.slow
@with_a_store_here
def test_ingest_leaves_batch_normalization_alone_if_told_to(run):
    (path,) = (p for p in demo_paths() if p.stem == "digits-separable-unfolded")
    assert run("ingest", path, "--no-fold")[0] == 0
    (row,) = strict_json(run("models", "--format", "json")[1])
    assert row["folded"] is False
    assert row["layers_with_batchnorm_folded"] == 0


@with_a_store_here
def test_names_from_outside_are_escaped_wherever_they_are_printed(run, tmp_path, plain_model):
    path = tmp_path / f"{HOSTILE}.onnx"
    shutil.copy(plain_model, path)
    for arguments in (
        ["ingest", path],
        ["ingest", path],
        ["ingest", f"{HOSTILE}missing.onnx"],
        ["models"],
        ["layers", HOSTILE],
        ["compare", HOSTILE],
        ["compare", f"{HOSTILE}x"],
        ["sql", "select model, source from models"],
        ["remove", HOSTILE],
    ):
        code, out, err = run(*arguments)
        assert code in (0, 1, 2)
        assert all(line.isprintable() for line in (out + err).split("\n")), arguments
        if arguments[0] != "layers":
            assert "\\x1b[31m\\n\\u202ename" in out + err


@pytest.mark.slow
@with_a_store_here
def test_csv_on_a_terminal_is_escaped_too(run, tmp_path, plain_model, monkeypatch):
    shutil.copy(plain_model, tmp_path / f"{HOSTILE}.onnx")
    run("ingest", tmp_path / f"{HOSTILE}.onnx")
    into_a_file = run("models", "--format", "csv")[1]
    assert rows_of(into_a_file)[0]["model"] == HOSTILE
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "\x1b" not in run("models", "--format", "csv")[1]


@pytest.mark.slow
@with_a_store_here
def test_a_progress_bar_shows_on_a_terminal_and_cleans_up(run, plain_model, monkeypatch):
    monkeypatch.setattr("quantstore.cli.output.PATIENCE_SECONDS", 0.0)
    assert "\x1b" not in run("ingest", plain_model)[2]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for paths in ([plain_model], demo_paths()[:2]):
        code, _, err = run("ingest", *paths, "--replace", "--jobs", 1)
        assert code == 0
        assert "%" in err
        # The last thing said of the cursor is that it shows.
        assert err.rindex("\x1b[?25h") > err.rindex("\x1b[?25l")


# models


@pytest.mark.slow
def test_models_in_three_formats(ask):
    table = ask("models").splitlines()
    assert table[0].split()[:4] == ["model", "verdict", "output_sqnr_db", "evidence"]
    assert [line.split()[0] for line in table[2:]] == DEMO_MODELS
    rows = rows_of(ask("models", "--format", "csv"))
    objects = strict_json(ask("models", "--format", "json"))
    assert [row["model"] for row in rows] == DEMO_MODELS
    assert list(rows[0]) == list(objects[0])
    assert {"sha256", "source", "max_weight_range", "ingested_at"} <= set(objects[0])
    assert {(row["target"], row["verdict"]) for row in objects} == {("int8_channel", "untested")}
    tensor = strict_json(ask("models", "--target", "int8_tensor", "--format", "json"))
    assert {row["model"]: row["verdict"] for row in tensor}["digits-rescaled"] == "broken"
    assert objects[0]["ingested_at"].endswith("Z")


@with_a_store_here
def test_an_empty_store_has_no_models_and_says_how_to_get_some(run):
    code, out, err = run("models", "--format", "json")
    assert (code, strict_json(out)) == (0, [])
    assert "quantstore demo" in err


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
@pytest.mark.parametrize(
    ("command", "query"),
    [
        (["models"], ".[].model"),
        (["layers", "digits-rescaled"], ".[].layer"),
        (["compare", "digits-plain"], ".[].verdict"),
        (["sql", "select 'nan'::double x, 'inf'::double y"], ".[].x"),
    ],
)
def test_jq_reads_the_json(ask, command, query):
    done = subprocess.run(
        ["jq", "-r", query],
        input=ask(*command, "--format", "json"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout


# layers


def test_layers_come_worst_first(ask):
    layers = pd.read_csv(io.StringIO(ask("layers", "digits-rescaled", "--format", "csv")))
    assert layers["rank"].tolist() == list(range(1, 11))
    expected = layers.sort_values(
        ["channel_sqnr_p10_db", "zeroed_fraction"],
        ascending=[True, False],
        na_position="last",
        kind="stable",
    )
    assert expected["rank"].tolist() == layers["rank"].tolist()
    assert set(layers["scheme"]) == {"int8_tensor_symmetric"}


def test_layers_under_another_scheme(ask):
    out = ask("layers", "digits-rescaled", "--scheme", "int8_channel_symmetric", "--format", "csv")
    assert {row["scheme"] for row in rows_of(out)} == {"int8_channel_symmetric"}


def test_layers_can_be_limited(ask):
    assert len(rows_of(ask("layers", "digits-rescaled", "--limit", 3, "--format", "csv"))) == 3


@pytest.mark.parametrize(
    ("sort", "column", "is_descending"),
    [
        ("weight_range", "weight_range", True),
        ("weight_range:asc", "weight_range", False),
        ("sqnr_db", "sqnr_db", False),
        ("sqnr_db:desc", "sqnr_db", True),
        ("layer", "layer", False),
        ("depth", "depth", False),
        ("is_depthwise", "is_depthwise", True),
    ],
)
def test_layers_sort_by_any_column(ask, sort, column, is_descending):
    rows = strict_json(ask("layers", "digits-rescaled", "--sort", sort, "--format", "json"))
    values = [row[column] for row in rows]
    assert values == sorted(values, reverse=is_descending)


@pytest.mark.parametrize("sort", ["nonsense", "shape", "weight_range:up", "layer; drop table x"])
def test_layers_sort_by_nothing_else(run, demo_store, sort):
    code, out, err = run("--db", demo_store, "layers", "digits-rescaled", "--sort", sort)
    assert (code, out) == (2, "")
    assert "weight_range" in error_line(err)


def test_a_table_shows_the_column_it_is_sorted_by(ask):
    assert "kurtosis" in ask("layers", "digits-rescaled", "--sort", "kurtosis").split()


@pytest.fixture(scope="module")
def store_of_odd_names(empty_store, tmp_path_factory):
    """A model whose layers have names that mean something to SQL. Read it, never write to it."""
    folder = tmp_path_factory.mktemp("odd")
    path = Path(shutil.copy(empty_store, folder / "odd.duckdb"))
    save_model(folder / "m.onnx", ["Conv_A", "conv%b", "x_y"])
    ingest_file(folder / "m.onnx", path, IngestChoices(probe=False))
    return path


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("conv", ["Conv_A", "conv%b"]),
        ("CONV%", ["conv%b"]),
        ("%", ["conv%b"]),
        ("_", ["Conv_A", "x_y"]),
        ("", ["Conv_A", "conv%b", "x_y"]),
        ("nothing", []),
    ],
)
def test_search_is_literal_and_ignores_case(run, store_of_odd_names, text, found):
    words = ("layers", "m", "--search", text, "--format", "csv")
    code, out, _ = run("--db", store_of_odd_names, *words)
    assert code == 0
    assert sorted(row["layer"] for row in rows_of(out)) == found


def test_the_table_of_layers_names_its_scheme_and_its_provisional_bands(run, demo_store):
    _, out, err = run("--db", demo_store, "layers", "digits-rescaled", "--limit", 2)
    assert len(out.splitlines()) == 4
    assert "2 of 10 layers under int8_tensor_symmetric; provisional bands: fine from 30 dB" in err


@pytest.mark.slow
def test_dead_channels_are_counted_where_layers_are_listed(run, tmp_path):
    weights = gaussian(10, 3, 3, 3)
    weights[[2, 5]] *= 1e-9
    path = save(conv_model(weights), tmp_path / "net.onnx")
    run("ingest", path)
    _, out, err = run("layers", "net")
    assert "dead_channel_count" in out
    assert "2 dead channels left out" in err.replace("\N{NO-BREAK SPACE}", " ")


def test_nothing_is_said_of_dead_channels_where_there_are_none(run, demo_store):
    _, out, err = run("--db", demo_store, "layers", "digits-rescaled")
    assert "dead" not in out + err


@pytest.mark.parametrize("command", ["layers", "compare", "remove"])
def test_an_unknown_model_is_exit_code_2(run, demo_store, command):
    code, out, err = run("--db", demo_store, command, "nobody")
    assert (code, out) == (2, "")
    assert error_line(err) == (f"error: {NO_MODEL_NAMED} 'nobody'; {UnknownModelError.hint}")


# compare


def test_compare_has_one_row_per_model_in_the_order_given(ask):
    names = ["digits-rescaled", "digits-plain", "digits-rescaled"]
    arguments = ("--target", "int8_tensor", "--format", "json")
    rescaled, plain = strict_json(ask("compare", *names, *arguments))
    assert (rescaled["model"], plain["model"]) == ("digits-rescaled", "digits-plain")
    assert (rescaled["verdict"], plain["verdict"]) == ("broken", "untested")
    assert rescaled["layers_broken"] > plain["layers_broken"] == 0
    assert {
        "layer_count",
        "weight_count",
        "max_weight_range",
        "median_weight_range",
        "channel_spread_p90_bits",
        "layers_at_risk",
        "layers_watch",
        "layers_fine",
        "channels_below_10db",
        "worst_layer",
    } <= set(plain)


def test_compare_as_a_table_says_how_to_finish_what_is_untested(run, demo_store):
    code, out, err = run("--db", demo_store, "compare", "digits-plain", "digits-rescaled")
    assert code == 0
    assert out.split()[:4] == ["model", "target", "verdict", "evidence"]
    assert "int8_channel, judged by weights alone; provisional bands" in err
    assert "quantstore probe digits-plain --target int8_channel" in err


def test_compare_for_several_targets_has_a_row_for_each(ask):
    def rows(*targets):
        arguments = [part for name in targets for part in ("--target", name)]
        return strict_json(ask("compare", "digits-plain", *arguments, "--format", "json"))

    chosen = ["int8_weights", "int8_tensor"]
    assert [row["target"] for row in rows(*chosen)] == chosen
    assert [row["target"] for row in rows("all")] == list(TARGETS)


def test_compare_under_a_scheme_is_for_the_target_that_rounds_its_weights(ask, run, demo_store):
    command = ("compare", "digits-rescaled", "--format", "json", "--scheme")
    (row,) = strict_json(ask(*command, "int8_channel_symmetric"))
    assert (row["target"], row["layers_broken"]) == ("int8_channel", 0)
    code, _, err = run("--db", demo_store, *command, "int8_tensor_asymmetric")
    assert code == 2
    assert NO_TARGET_UNDER in err


# diff


def test_diff_says_what_got_better_and_worse_the_largest_loss_first(run, ask, demo_store):
    rows = strict_json(ask("diff", "digits-separable", "digits-rescaled", "--format", "json"))
    losses = [row["change_db"] for row in rows if row["outcome"] == "worse"]
    assert len(losses) >= 8
    assert losses == sorted(losses)
    assert {row["rule"] for row in rows} == {"name"}
    code, out, err = run("--db", demo_store, "diff", "digits-separable", "digits-rescaled")
    assert code == 0
    assert rows[0]["layer"] in out.splitlines()[2]
    assert f"worst change: {rows[0]['layer']}" in err
    assert "matched by name" in err
    assert "\\xa0" not in err


def test_diff_shows_unchanged_layers_on_demand(ask):
    alike = "diff", "digits-separable", "digits-separable-unfolded", "--format", "json"
    assert strict_json(ask(*alike)) == []
    assert {row["outcome"] for row in strict_json(ask(*alike, "--all"))} == {"unchanged"}


def test_diff_of_an_int8_and_a_float_model_points_to_an_audit(run, demo_store, tmp_path):
    path = shutil.copy(demo_store, tmp_path / "mixed.duckdb")
    int8, other = "digits-separable", "digits-rescaled"
    audited(path, int8, other)
    code, out, err = run("--db", path, "diff", other, int8)
    assert (code, out) == (0, "")
    assert audits.instead_of_a_diff(int8, other) in err
    assert audits.DIFF_POINTS_HERE in err
    assert f"audit {other} {int8} --inputs" in err
    # Whoever asks for data gets it, with the same words.
    code, out, err = run("--db", path, "diff", other, int8, "--format", "json")
    assert code == 0
    assert strict_json(out)
    assert audits.DIFF_POINTS_HERE in err


def test_diff_of_a_model_that_is_not_there(run, demo_store):
    code, out, err = run("--db", demo_store, "diff", "digits-plain", "nope")
    assert (code, out) == (2, "")
    assert "no model named 'nope'" in err


# sql


@pytest.mark.slow
def test_sql_in_three_formats(ask):
    query = "select model, layer_count from models order by model limit 1"
    assert ask("sql", query).splitlines()[2].split() == ["digits-plain", "6"]
    assert ask("sql", query, "--format", "csv") == "model,layer_count\ndigits-plain,6\n"
    assert strict_json(ask("sql", query, "--format", "json")) == [
        {"model": "digits-plain", "layer_count": 6}
    ]


def test_sql_reads_standard_input(ask, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("select 42 as answer"))
    assert ask("sql", "-", "--format", "csv") == "answer\n42\n"


@pytest.mark.slow
def test_sql_has_no_row_limit_unless_asked(run, demo_store):
    code, out, err = run("--db", demo_store, "sql", "from range(20_000)", "--format", "csv")
    assert (code, len(out.splitlines()), err) == (0, 20_001, "")
    code, out, err = run("--db", demo_store, "sql", "from range(20)", "--limit", 3)
    assert (code, len(out.splitlines())) == (0, 5)
    assert err == f"{cut_after(3)}\n"
    assert run("--db", demo_store, "sql", "from range(3)", "--limit", 3)[2] == ""


@pytest.mark.parametrize(
    "suffix",
    [
        ".csv",
        *(pytest.param(name, marks=pytest.mark.slow) for name in (".json", ".parquet", ".CSV")),
    ],
)
def test_sql_writes_a_file(run, demo_store, tmp_path, suffix):
    path = tmp_path / f"answer{suffix}"
    code, out, err = run("--db", demo_store, "sql", "from bands", "--output", path)
    assert (code, out, err) == (0, "", f"wrote 4 rows to {path}\n")
    read = {".csv": pd.read_csv, ".json": pd.read_json, ".parquet": pd.read_parquet}
    frame = read[suffix.lower()](path)
    assert list(frame.columns) == ["band", "lower_db", "meaning"]
    assert len(frame) == 4


def test_sql_that_cannot_write_its_file_is_exit_code_1(run, demo_store):
    code, _, err = run("--db", demo_store, "sql", "from bands", "--output", "no/folder.csv")
    assert code == 1
    assert error_line(err).startswith("error: no/folder.csv: cannot be written: ")


@pytest.mark.slow
def test_sql_draws_a_plan_in_lines(ask):
    plan = ask("sql", "explain from models")
    assert len(plan.splitlines()) > 4
    assert "\\n" not in plan


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ("select weight_rang from layers", "at line 1, column 8; did you mean weight_range"),
        pytest.param(
            "select model,\n  nope from models", "at line 2, column 3", marks=pytest.mark.slow
        ),
        ("drop table models", ONE_SELECT),
        pytest.param("select 1; select 2", "these are 2 statements", marks=pytest.mark.slow),
        pytest.param(
            "from read_csv('/etc/passwd')",
            READS_THE_STORE_ONLY,
            marks=pytest.mark.slow,
        ),
        pytest.param("select error(chr(27) || '[31m')", r"\x1b[31m", marks=pytest.mark.slow),
    ],
)
def test_a_wrong_query_is_one_line_and_exit_code_1(run, demo_store, query, part):
    code, out, err = run("--db", demo_store, "sql", query)
    assert (code, out) == (1, "")
    assert part in error_line(err)


@pytest.mark.slow
def test_a_query_that_takes_too_long_is_stopped(run, demo_store):
    code, _, err = run("--db", demo_store, "sql", "select sleep_ms(100_000)", "--timeout", "0.3")
    assert code == 1
    assert "stopped after 0.3 seconds" in error_line(err)


# remove and demo


def test_remove_takes_a_model_out(run, own_store):
    assert run("--db", own_store, "remove", "digits-plain") == (0, "", "removed digits-plain\n")
    left = rows_of(run("--db", own_store, "models", "--format", "csv")[1])
    assert [row["model"] for row in left] == DEMO_MODELS[1:]


@pytest.mark.slow
def test_demo_loads_the_examples_and_says_what_next(run):
    code, out, err = run("demo")
    assert (code, out) == (0, "")
    assert [row["model"] for row in rows_of(run("models", "--format", "csv")[1])] == DEMO_MODELS
    following = [line.split() for line in err.splitlines() if line.startswith("  quantstore")]
    assert [words[1] for words in following] == ["compare", "layers", "app"]
    # The two that compute the same.
    assert following[0][2:] == ["digits-separable", "digits-rescaled"]
    for words in following[:-1]:
        assert run(*words[1:])[0] == 0
    assert "4 already stored" in run("demo")[2]


@pytest.mark.slow
def test_demo_repeats_the_store_in_what_it_suggests(run, demo_store, tmp_path):
    shutil.copy(demo_store, tmp_path / "my store.duckdb")
    _, _, err = run("demo", "--db", tmp_path / "my store.duckdb")
    assert f"  quantstore --db '{tmp_path}/my store.duckdb' app" in err


def test_a_command_names_the_store_unless_it_finds_it_by_itself(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QUANTSTORE_DB", raising=False)
    default, other = tmp_path / "quantstore.duckdb", tmp_path / "other.duckdb"
    named = f"quantstore --db {other} compact"
    assert settings.command("compact") == "quantstore compact"
    assert settings.command("compact", default) == "quantstore compact"
    assert settings.command("compact", other) == named
    monkeypatch.setenv("QUANTSTORE_DB", str(other))
    assert settings.command("compact", other) == "quantstore compact"
    # Who reads it on a page has another terminal, in which the variable may be unset.
    assert settings.command("compact") == named


# As a process.


def start(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "quantstore", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        **options,
    )


@pytest.mark.slow
def test_a_reader_that_has_enough_is_no_error(demo_store):
    query = "select range as n, repeat('x', 50) as s from range(20_000)"
    process = start("--db", demo_store, "sql", query, "--format", "csv")
    assert process.stdout.readline() == "n,s\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == 0


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_ends_quietly_with_130(ctrl_c, demo_store):
    process = start(
        *("--db", demo_store, "sql", "select sleep_ms(100_000)", "--timeout", 20),
        start_new_session=True,
    )
    time.sleep(1.5)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    # Python itself turns 130 into a death by the signal where it was met while loading a module;
    # a shell shows 130 for both.
    assert process.returncode in (130, -signal.SIGINT)
    assert (out, err.strip()) == ("", "")


@pytest.mark.parametrize("failure", [ImportError("numpy is half loaded"), StoreError("no")])
def test_a_failure_that_ctrl_c_caused_is_no_failure(ctrl_c, failure, monkeypatch, capsys):
    def interrupted(**_):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise failure

    monkeypatch.setattr(cli.commands, "main", interrupted)
    assert cli.main(["models"]) == 130
    assert capsys.readouterr().err == ""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_command_line_runs_in_a_thread_too(demo_store, capsys):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(cli.main, ["models", "--db", str(demo_store)]).result() == 0


def answer_to_a_page(port, *, host, origin):
    """The status with which the app answers a browser that wants to talk to it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("GET", "/_stcore/stream", skip_host=True)
    headers = {
        "Host": host,
        "Origin": f"http://{origin}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Protocol": "streamlit",
    }
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    try:
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_app_serves_this_computer_with_the_demo_models(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = tmp_path / "app.duckdb"
    process = start("app", "--demo", "--headless", "--port", port, "--db", path, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health") as answer:
                    assert answer.read() == b"ok"
                break
            except urllib.error.URLError:
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.1)
        own, rebound = f"127.0.0.1:{port}", f"evil.example:{port}"
        assert answer_to_a_page(port, host=own, origin=own) == 101
        assert answer_to_a_page(port, host=own, origin="evil.example") == 403
        # A page elsewhere whose name leads to this computer all of a sudden.
        assert answer_to_a_page(port, host=rebound, origin=rebound) == 403
        with socket.socket() as other_address:
            assert other_address.connect_ex(("127.0.0.2", port)) != 0
        with store.reading(path) as connection:
            assert connection.value("select count(*) from models") == 4
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert f"http://127.0.0.1:{port}" in out
    assert "Traceback" not in err


# In and out.


@pytest.mark.slow
def test_a_store_goes_out_as_parquet_and_comes_in_elsewhere(run, own_store, tmp_path):
    code, out, err = run("--db", own_store, "export", "out", "digits-plain", "digits-rescaled")
    assert (code, out) == (0, "")
    assert re.fullmatch(r"exported 2 models to out, \d+ [kM]B\n", err)
    assert run("--db", "other.duckdb", "import", "out") == (0, "", "imported 2 models\n")
    assert run("--db", "other.duckdb", "import", own_store) == (
        *(0, ""),
        "imported 2 models, 2 already stored\n",
    )
    code, _, err = run("--db", "other.duckdb", "import", "out", "--replace")
    assert (code, err.splitlines()) == (
        *(0,),
        ["replaced digits-plain", "replaced digits-rescaled", "imported 2 models"],
    )


@pytest.mark.slow
def test_a_name_that_is_taken_is_told_when_models_come_in(run, own_store):
    run("--db", own_store, "export", "out", "digits-plain")
    other = next(path for path in demo_paths() if path.stem == "digits-rescaled")
    run("--db", "other.duckdb", "ingest", other, "--name", "digits-plain", "--no-probe")
    code, _, err = run("--db", "other.duckdb", "import", "out")
    assert code == 0
    assert re.match(r"digits-plain is stored as digits-plain-[0-9a-f]{8}: another model", err)


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["export", "out", "nobody"], 2, f"{NO_MODEL_NAMED} 'nobody'"),
        (["export", "."], 1, "add --replace"),
        (["import", "nowhere"], 1, "nowhere does not exist"),
        (["import", "."], 1, IS_NO_EXPORT),
        (["import", "notes.txt"], 1, f"notes.txt {IS_NO_DATABASE}"),
        (["backup", "notes.txt"], 1, "notes.txt exists already"),
        (["backup", "nowhere/b.duckdb"], 3, "cannot be written"),
    ],
)
def test_what_cannot_go_out_or_come_in_is_one_line(run, own_store, tmp_path, arguments, code, part):
    (tmp_path / "notes.txt").write_text("hello")
    answer = run("--db", own_store, *arguments)
    assert answer[:2] == (code, "")
    assert part in error_line(answer[2])


@pytest.mark.slow
def test_backup_and_compact_tell_sizes(run, own_store):
    assert run("--db", own_store, "remove", "digits-rescaled")[0] == 0
    code, out, err = run("--db", own_store, "backup", "b.duckdb")
    assert (code, out) == (0, "")
    assert re.fullmatch(r"copied .*own\.duckdb to b\.duckdb, [\d.]+ MB\n", err)
    code, out, err = run("--db", own_store, "compact")
    assert (code, out) == (0, "")
    before, after = map(float, re.search(r"([\d.]+) MB before, ([\d.]+) MB after", err).groups())
    assert after < before
    assert run("--db", "b.duckdb", "models") == run("--db", own_store, "models")


# The real models.


@pytest.mark.slow
def test_the_two_models_of_the_article_tell_their_story(run, shared_models):
    for model in ("rtmdet-nano", "yolov10n-quant"):
        assert run("ingest", shared_models / f"{model}.onnx")[0] == 0
    code, out, err = run(
        *("compare", "rtmdet-nano", "yolov10n-quant", "--target", "int8_tensor"),
        *("--format", "json"),
    )
    assert code == 0
    rtmdet, yolo = strict_json(out)
    counts = [f"layers_{band}" for band in ("broken", "at_risk", "watch", "fine")]
    assert [rtmdet[name] for name in counts] == [24, 44, 31, 24]
    assert [yolo[name] for name in counts] == [0, 1, 45, 37]
    # 707 with the 25 that carry nothing.
    assert (rtmdet["channels_below_10db"], yolo["channels_below_10db"]) == (682, 0)
    assert rtmdet["max_weight_range"] == pytest.approx(211.80, abs=0.005)
    assert yolo["max_weight_range"] == pytest.approx(19.94, abs=0.005)
    _, _, err = run("compare", "yolov10n-quant")
    assert f"83 of 83 layers are {FIRST_LOSS_UNKNOWN}" in err


# logs


@pytest.mark.slow
def test_every_step_can_be_logged_with_its_time(run, plain_model, tmp_path):
    code, out, err = run("--log-file", "steps.log", "ingest", plain_model, "--json", "--verbose")
    assert code == 0
    strict_json(out)
    lines = (tmp_path / "steps.log").read_text().splitlines()
    assert [line for line in err.splitlines() if "+00:00" in line] == lines
    for line in lines:
        moment, level, module, process = line.split()[:4]
        assert datetime.fromisoformat(moment).tzinfo == UTC
        assert level in ("DEBUG", "INFO")
        assert module.startswith("quantstore.")
        assert int(process) == os.getpid()
    text = "\n".join(lines)
    for step in ("sha256", "measured 6 layers", "opened quantstore.duckdb for writing", "stored"):
        assert step in text
    assert "done: exit code 0" in lines[-1]
    # What another command does is not logged any more, nor is anything said by itself.
    run("models")
    assert (tmp_path / "steps.log").read_text().splitlines() == lines


def test_an_unexpected_failure_is_logged_with_its_traceback(run, own_store, tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("no such number")

    monkeypatch.setattr(queries, "models", fail)
    with pytest.raises(ZeroDivisionError):
        run("models", "--db", own_store, "--log-file", "steps.log")
    text = (tmp_path / "steps.log").read_text()
    assert "ERROR quantstore.cli.root" in text
    assert "Traceback" in text
    assert "ZeroDivisionError: no such number" in text


def test_a_log_that_cannot_be_written_is_said_in_a_sentence(run):
    code, _, err = run("models", "--log-file", "nowhere/steps.log")
    assert code == 1
    assert "nowhere/steps.log: cannot be written" in error_line(err)


def test_a_name_cannot_fake_a_line_of_the_log(tmp_path):
    with logs.logging_to(logs.Logging(file=tmp_path / "steps.log")):
        logging.getLogger("quantstore.test").info("read %s", HOSTILE)
    (line,) = (tmp_path / "steps.log").read_text().splitlines()
    assert line.isprintable()

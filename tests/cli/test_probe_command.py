"""The command ``probe``, and the time that a probe may take."""

import csv
import io
import json
from pathlib import Path

import pytest

from quantstore import store
from quantstore.pipeline import ingest
from quantstore.pipeline.files import demo_paths
from quantstore.pipeline.outcome import IngestResult
from quantstore.run import probe
from quantstore.run.probe import Prober
from quantstore.schemes import TARGETS
from tests.support.graphs import conv_model, save
from tests.support.runs import a_run, add

MODEL = "digits-plain"
DEFAULTS = [name for name, target in TARGETS.items() if target.is_default]


@pytest.fixture
def answering(monkeypatch):
    """What the child would answer, by target: figures, reasons, names of layers in float."""

    def answer(failures=(), float_layers=()):
        requests = []

        def start(self, path, *, fold, seconds, asked):
            self.asked = asked
            requests.append(seconds)

        def result(self, report=None):
            return tuple(
                a_run(
                    None if one.names[1] in failures else 25.0,
                    *(one.scheme.name, one.mode),
                    target=one.names[1],
                    failure="stopped after 60 s of CPU time" if one.names[1] in failures else None,
                    float_layers=float_layers,
                )
                for one in self.asked
            )

        monkeypatch.setattr(Prober, "start", start)
        monkeypatch.setattr(Prober, "result", result)
        return requests

    return answer


@pytest.mark.slow
def test_a_table_has_a_row_for_each_default_target(run):
    code, out, err = run("probe", MODEL)
    assert (code, err) == (0, "")
    head, _, *rows = out.splitlines()
    assert head.split() == [
        *("target", "deciding_sqnr_db", "sample_count", "cpu_seconds", "float_layers", "failure")
    ]
    assert [row.split()[0] for row in rows] == DEFAULTS


def test_csv_and_json_carry_all_of_it(run, answering):
    answering(float_layers=("a", "b"))
    code, out, _ = run("probe", MODEL, "--target", "all", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [row["target"] for row in rows] == list(TARGETS)
    assert {row["model"] for row in rows} == {MODEL}
    _, out, _ = run("probe", MODEL, "--target", "int8_dynamic", "--format", "json")
    (row,) = json.loads(out)
    assert (row["output_sqnr_db"], row["float_layers"], row["failure"]) == (25.0, ["a", "b"], None)


def test_what_stayed_in_float_is_named_once(run, answering):
    answering(float_layers=("/rnn/LSTM", "evil\x1b[31m"))
    _, out, err = run("probe", MODEL, "--target", "int8_dynamic", "--target", "int8_channel")
    assert err == (
        "int8_dynamic, int8_channel: 2 layers stayed in float: /rnn/LSTM and evil\\x1b[31m\n"
    )
    assert "\x1b" not in out


def test_a_value_that_is_missing_is_exit_code_1_and_a_line(run, answering, tmp_path):
    with store.writing(tmp_path / "quantstore.duckdb") as con:
        earlier = a_run(33.9, "int8_channel_symmetric", target="int8_channel")
        add(con, MODEL, earlier)
    answering(failures=("int8_channel",))
    code, out, err = run("probe", MODEL, "--target", "int8_channel", "--target", "int4_weights")
    assert code == 1
    assert err == (
        "no value for int8_channel: stopped after 60 s of CPU time; the earlier value of 33.9 dB"
        " is kept\n"
    )
    assert "stopped after 60 s" in out


@pytest.mark.slow
def test_a_file_that_is_not_stored_is_ingested_as_well(run, tmp_path, answering):
    answering()
    file = save(conv_model(), tmp_path / "net.onnx")
    assert run("probe", file)[::2] == (0, "also stored net\n")
    assert run("probe", "net")[::2] == (0, "")


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        ([MODEL, "--target", "nope"], 2, "'int8_channel_fused'"),
        (["nope"], 2, "the store has no model named 'nope', and there is no such file"),
        (["text.onnx"], 1, "text.onnx: not an ONNX file"),
        (["gone"], 1, "the file of 'gone' has been moved or deleted"),
        ([MODEL, "--probe-seconds", "0"], 2, "--probe-seconds"),
    ],
)
def test_whatever_is_wrong_is_one_sentence(run, tmp_path, arguments, code, part):
    (tmp_path / "text.onnx").write_text("hello")
    with store.writing(tmp_path / "quantstore.duckdb") as con:
        con.rows(
            "update models set model = 'gone', source = '/gone.onnx'"
            " where model = 'digits-separable'"
        )
    actual_code, out, err = run("probe", *arguments)
    (line,) = err.splitlines()
    assert (actual_code, out) == (code, "")
    assert line.startswith("error: ")
    assert part in line


def test_ctrl_c_ends_it(run, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("quantstore.pipeline.probes.probe_model", interrupted)
    assert run("probe", MODEL)[0] == 130


@pytest.mark.slow
def test_the_time_of_a_probe_is_an_option_of_both_commands(run, answering, monkeypatch):
    requests = answering()
    run("probe", MODEL)
    run("probe", MODEL, "--probe-seconds", "7.5")
    assert requests == [probe.SECONDS, 7.5]

    choices = []

    def ingest_file(path, db, choice, report, prober):
        choices.append(choice)
        return IngestResult(path=str(path), outcome="already stored", model=MODEL)

    monkeypatch.setattr(ingest, "ingest_file", ingest_file)
    file: Path = demo_paths()[0]
    run("ingest", file)
    run("ingest", file, "--probe-seconds", "7.5")
    assert [choice.probe_seconds for choice in choices] == [probe.SECONDS, 7.5]
    code, _, err = run("ingest", file, "--no-probe", "--probe-seconds", "5")
    assert code == 2
    assert "exclude each other" in err


@pytest.mark.parametrize("command", ["probe", "ingest"])
def test_the_help_says_what_is_true_of_its_limit(run, command):
    _, out, _ = run(command, "--help")
    assert f"[default: {probe.SECONDS:g}]" in out
    assert probe.WALL_PER_CPU_SECOND == 5
    assert "five times as long on the clock" in " ".join(out.split())

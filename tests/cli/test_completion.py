"""What a shell completes, and what a mistyped name gets as an answer."""

import os
import shutil
import subprocess
import sys

import click
import pytest
from click.shell_completion import ShellComplete

import quantstore
from quantstore import cli, store
from quantstore.cli import shells
from quantstore.cli.completion import NO_SHELL
from quantstore.cli.names import ModelName, not_among_them
from quantstore.errors import UnknownModelError, hint_for
from quantstore.schemes import SCHEMES, TARGETS
from quantstore.store.models import NO_MODEL_NAMED

DEMO_MODELS = ["digits-plain", "digits-rescaled", "digits-separable", "digits-separable-unfolded"]
HOSTILE = "evil $(touch gone) name"


@pytest.fixture
def complete(demo_store, monkeypatch):
    """What could stand at the end of a line, given the words before it."""
    monkeypatch.setenv("QUANTSTORE_DB", str(demo_store))

    def complete(*words):
        asked = ShellComplete(cli.commands, {}, "quantstore", shells.VARIABLE)
        *before, incomplete = words
        return [item.value for item in asked.get_completions(before, incomplete)]

    return complete


# Names of models.


@pytest.mark.parametrize(
    "words",
    [
        ["layers"],
        ["compare"],
        ["compare", "nobody"],
        ["check", "nobody", "--baseline"],
        *(
            pytest.param(words, marks=pytest.mark.slow)
            for words in (
                *(["diff"], ["diff", "nobody"], ["check"], ["report"], ["rename"], ["tag"]),
                *(["note"], ["remove"], ["export", "folder"], ["probe"], ["overlay"], ["open"]),
            )
        ),
    ],
    ids=" ".join,
)
def test_names_of_models_are_completed(complete, words):
    assert complete(*words, "") == DEMO_MODELS
    assert complete(*words, "digits-s") == DEMO_MODELS[2:]
    assert not {*complete(*words, "zzz")} & {*DEMO_MODELS}


def test_every_argument_that_is_called_model_completes_names():
    for name, command in cli.commands.commands.items():
        for parameter in command.params:
            if parameter.human_readable_name.strip("[].").startswith("MODEL") and (
                ".onnx" not in (parameter.metavar or "")
            ):
                assert isinstance(parameter.type, ModelName), name


def test_a_model_that_stands_there_is_not_offered_again(complete):
    assert complete("compare", "digits-plain", "") == DEMO_MODELS[1:]


def test_a_command_that_takes_a_file_as_well_completes_files(complete):
    asked = ShellComplete(cli.commands, {}, "quantstore", shells.VARIABLE)
    assert [item.type for item in asked.get_completions(["check"], "build/")] == ["file"]
    assert asked.get_completions(["layers"], "build/") == []


def test_the_store_of_the_line_is_asked(complete, empty_store, demo_store):
    assert complete("--db", str(empty_store), "layers", "") == []
    assert complete("layers", "--db", str(empty_store), "") == []
    os.environ.pop("QUANTSTORE_DB")
    assert complete("layers", "--db", str(demo_store), "") == DEMO_MODELS


def test_completion_is_silent_where_the_store_cannot_be_read(complete, tmp_path, capfd):
    (tmp_path / "notes.txt").write_text("hello")
    own = tmp_path / "own.duckdb"
    with store.writing(own):
        # In use: nobody may wait while a key is pressed.
        assert complete("layers", "--db", str(own), "") == []
    for name in ("missing.duckdb", "notes.txt", "x" * 300):
        assert complete("layers", "--db", str(tmp_path / name), "") == []
    assert capfd.readouterr() == ("", "")
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "own.duckdb"}


def test_completing_a_line_does_nothing_that_the_line_would(complete, tmp_path):
    log = tmp_path / "steps.log"
    assert complete("layers", "--log-file", str(log), "--wait", "3", "digits-p") == ["digits-plain"]
    assert not log.exists()


def test_completion_loads_nothing_heavy_but_duckdb(demo_store):
    program = (
        "import sys\nfrom quantstore import cli\ncli.main([])\n"
        "heavy = {'pandas', 'numpy', 'pyarrow', 'onnx', 'altair', 'streamlit'}\n"
        "print(sorted(heavy & {*sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            shells.VARIABLE: "fish_complete",
            "COMP_WORDS": "quantstore layers ",
            "COMP_CWORD": "digits-p",
            "QUANTSTORE_DB": str(demo_store),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("plain,digits-plain\n", "[]\n")


# Targets, schemes, commands.


def test_targets_and_schemes_are_completed(complete):
    assert complete("compare", "x", "--target", "int8_ch") == [
        name for name in TARGETS if name.startswith("int8_ch")
    ]
    assert complete("layers", "x", "--scheme", "") == list(SCHEMES)
    assert complete("comp") == ["compare", "compact", "completion"]


# The shells.


@pytest.mark.parametrize("shell", shells.NAMES)
def test_the_script_of_a_shell_is_printed(shell, capsys, monkeypatch):
    assert cli.main(["completion", shell]) == 0
    named = capsys.readouterr().out
    assert shells.VARIABLE in named
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    assert cli.main(["completion"]) == 0
    assert capsys.readouterr().out == named


@pytest.mark.parametrize("shell", ["", "/bin/tcsh"])
def test_a_shell_that_cannot_be_completed_is_told(shell, capsys, monkeypatch):
    monkeypatch.setenv("SHELL", shell)
    assert cli.main(["completion"]) == 2
    assert NO_SHELL in capsys.readouterr().err


@pytest.fixture
def in_bash(demo_store, tmp_path):
    """What bash inserts for the last of some words, with the script that the command prints."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    own = tmp_path / "own.duckdb"
    shutil.copy(demo_store, own)
    with store.writing(own) as connection:
        store.rename_model(connection, "digits-plain", HOSTILE)
    program = tmp_path / "quantstore"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m quantstore "$@"\n')
    program.chmod(0o700)

    def in_bash(*words):
        script = (
            'source <(quantstore completion bash); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1));'
            " _quantstore_completion quantstore; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(
            [bash, "--norc", "-c", script, "bash", "quantstore", *words],
            env={
                **os.environ,
                "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(quantstore.__path__[0] + "/.."),
                "QUANTSTORE_DB": str(own),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    return in_bash


@pytest.mark.slow
def test_bash_completes_and_quotes_names_that_it_would_run(in_bash):
    assert in_bash("layers", "digits-s") == DEMO_MODELS[2:]
    assert in_bash("layers", "evil") == [f"'{HOSTILE}'"]
    assert in_bash("layers", "'evil") == [""]
    assert in_bash("layers", "'digits-r") == ["digits-rescaled"]


# Did you mean.


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("digits-rescald", "digits-rescaled"),
        ("Digits-Plain", "digits-plain"),
        # An abbreviation: the shortest name that contains it.
        ("separable", "digits-separable"),
        ("zzz", None),
        ("", None),
    ],
)
def test_the_most_similar_name_is_what_was_meant(name, meant):
    hint = "" if meant is None else f"did you mean {meant}? "
    assert hint_for(name, DEMO_MODELS, "list them") == f"{hint}list them"
    assert hint_for(name, DEMO_MODELS, "") == hint.rstrip()


@pytest.mark.parametrize("command", ["layers", "remove", "note", "report", "open"])
def test_a_mistyped_model_gets_the_name_that_was_meant(command, demo_store, capsys):
    assert cli.main(["--db", str(demo_store), command, "digits-rescald"]) == 2
    assert capsys.readouterr().err == (
        f"error: {NO_MODEL_NAMED} 'digits-rescald';"
        f" did you mean digits-rescaled? {UnknownModelError.hint}\n"
    )


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["compare", "x", "--target", "int8_tensr"], "int8_tensor"),
        (["layers", "x", "--scheme", "int8_chanel_symmetric"], "int8_channel_symmetric"),
        (["check", "x", "--target", "INT8_CHANNEL_FUSD"], "int8_channel_fused"),
    ],
)
def test_a_mistyped_target_or_scheme_gets_the_name_that_was_meant(arguments, meant, capsys):
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert f"{not_among_them(arguments[-1])}; did you mean {meant}?" in err
    with pytest.raises(click.BadParameter, match="is not one of"):
        cli.commands.commands["layers"].params[1].type.convert("zzz", None, None)

"""What tests of commands share."""

import shutil

import pytest

from quantstore import cli


@pytest.fixture
def run(demo_store, tmp_path, monkeypatch, capsys):
    """Run a command on the demo models: exit code, standard output, standard error."""
    shutil.copy(demo_store, tmp_path / "quantstore.duckdb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QUANTSTORE_DB", raising=False)

    def run(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run

"""Records: each is found by its name, in the module that defines it, and only what is asked for is
loaded."""

import dataclasses
import importlib
import pkgutil
import subprocess
import sys

import pytest

from quantstore import records


def test_every_record_of_every_module_is_found_by_its_name():
    defined = {}
    for found in pkgutil.iter_modules(records.__path__):
        module = importlib.import_module(f"{records.__name__}.{found.name}")
        defined |= {
            name: entry
            for name, entry in vars(module).items()
            if dataclasses.is_dataclass(entry) and entry.__module__ == module.__name__
        }
    listed = [name for names in records._RECORDS_OF.values() for name in names]
    assert sorted(listed) == sorted(defined)
    for name, record in defined.items():
        assert getattr(records, name) is record


def test_another_name_is_none_of_them():
    with pytest.raises(AttributeError, match="NoRecord"):
        records.NoRecord  # noqa: B018


def test_one_record_does_not_load_those_of_rescues_and_audits():
    code = (
        "import sys; from quantstore.records import FindingRecord;"
        " sys.exit(any(name in sys.modules for name in"
        " ('quantstore.records.rescues', 'quantstore.records.audits', 'quantstore.records.runs')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

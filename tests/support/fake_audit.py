"""An audit that takes no time, in place of the real one, in the child that is asked for it.

What it does goes by its inputs: each of ``tests.support.fake_rescue.TROUBLES`` some trouble, every
other one gives :func:`tests.support.runs.an_audit`.
"""

import dataclasses
import hashlib
from pathlib import Path

from quantstore.auditing.choices import Audit
from quantstore.run.choices import Progress
from tests.support.fake_rescue import TROUBLES
from tests.support.runs import an_audit

IN_THE_CHILD = """
import sys, types

def audit(*arguments):
    from tests.support import fake_audit
    return fake_audit.audit(*arguments)

module = types.ModuleType("quantstore.auditing.audit")
module.audit = audit
sys.modules[module.__name__] = module
"""


def install(folder, monkeypatch):
    """Let children that start from now on have this audit."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(IN_THE_CHILD)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{Path(__file__).resolve().parents[2]}")


def audit(float_path, int8_path, inputs, choices, report):
    """In place of ``quantstore.auditing.audit.audit``."""
    report(Progress("running the int8 file", 1, 6))
    if inputs in TROUBLES:
        TROUBLES[inputs]()
    record = dataclasses.replace(
        an_audit(), input_source=inputs, notes=(f"{choices.samples}, {choices.release}",)
    )
    float_sha256, int8_sha256 = (
        hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in (float_path, int8_path)
    )
    return Audit(float_sha256=float_sha256, int8_sha256=int8_sha256, record=record)

"""A rescue that takes no time, in place of the real one, in the child that is asked for it.

What it does goes by its inputs: ``photos`` gives :func:`a_rescue` and two files, every other one of
:data:`TROUBLES` some trouble after the first file.
"""

import dataclasses
import errno
import hashlib
import os
import signal
import tempfile
import time
from pathlib import Path

from quantstore.errors import InputsError
from quantstore.records import RescueFileRecord
from quantstore.rescuing.choices import Rescue
from quantstore.run.choices import Progress
from tests.support.runs import a_rescue

FILES = {"rescued": "net.rescued.onnx", "exclude": "exclude.txt"}

IN_THE_CHILD = """
import sys, types

def rescue(*arguments):
    from tests.support import fake_rescue
    return fake_rescue.rescue(*arguments)

module = types.ModuleType("quantstore.rescuing.rescue")
module.rescue = rescue
sys.modules[module.__name__] = module
"""


def install(folder, monkeypatch):
    """Let children that start from now on have this rescue."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(IN_THE_CHILD)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def wrong():
    raise InputsError("there is no such folder: nowhere", "check the path")


def bug():
    raise ZeroDivisionError("division by zero")


def hang():
    """In the middle of its work, of which a folder for temporary files is part."""
    Path(tempfile.mkdtemp(), "float.onnx").write_text("a copy of the model")
    time.sleep(60)


TROUBLES = {
    "full": full,
    "wrong": wrong,
    "bug": bug,
    "hang": hang,
    "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


def rescue(path, inputs, choices, report):
    """In place of ``quantstore.rescuing.rescue.rescue``."""
    report(Progress("calibrating", 0, 1))
    files = []
    for kind, name in FILES.items():
        if choices.output is not None:
            target = Path(choices.output) / name
            target.write_text(f"{kind} for {choices.target}")
            sha256 = hashlib.sha256(target.read_bytes()).hexdigest()
            files.append(
                RescueFileRecord(
                    path=str(target), kind=kind, sha256=sha256, bytes=target.stat().st_size
                )
            )
        report(Progress("writing files", len(files), len(FILES)))
        if inputs in TROUBLES:
            TROUBLES[inputs]()
    record = a_rescue(choices.target, files=tuple(files), allowed=choices.allow)
    record = dataclasses.replace(record, input_source=inputs, notes=(str(choices.preprocess),))
    sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return Rescue(sha256=sha256, folded=choices.fold, record=record)

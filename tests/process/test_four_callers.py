"""The four callers that keep a child (ingest, probe, run, SQL), in every trouble a child can have.

Each ends in a sentence, soon, with nothing left behind. How a child is limited and ended stands in
``test_child.py``; here it is tried through what people use.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from quantstore import errors, store
from quantstore.console import statement
from quantstore.pipeline import ingest_child, runs
from quantstore.pipeline.files import demo_paths
from quantstore.pipeline.outcome import IngestChoices
from quantstore.process import limits, memory
from quantstore.run import probe
from quantstore.run.choices import Choices

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and limits")
MODEL = next(path for path in demo_paths() if path.stem == "digits-plain")
# Left alone, a child of these tests sleeps for a minute.
SOON_SECONDS = 15


@dataclass
class Ingest:
    """A file on its way into the store, as the app does it."""

    store_path: Path
    killed = "there is not enough memory to measure the file; free some"
    silent = "the ONNX parser crashed on this file; validate it with onnx.checker"

    def start(self):
        self.running = ingest_child.start(MODEL, self.store_path, IngestChoices(probe=False))

    def cancel(self):
        self.running.cancel()

    def sentence(self):
        try:
            self.running.wait()
        except errors.QuantstoreError as error:
            return error.sentence
        return ""


@dataclass
class Run(Ingest):
    """A model in float and quantized."""

    killed = "there is not enough memory for the run; try smaller inputs"
    silent = "the run has no result: "

    def start(self):
        choices = Choices(mode="weights", samples=2)
        self.running = runs.start(MODEL, self.store_path, "noise", choices)


@dataclass
class Sql(Ingest):
    """A statement that somebody typed."""

    killed = "the query needs more memory than it may have; ask for fewer rows"
    silent = "the query crashed DuckDB; the store is intact"

    def start(self):
        self.running = statement.start(
            self.store_path, "from models", row_limit=10, timeout_seconds=20
        )


@dataclass
class Probe(Ingest):
    """A model on noise, at ingest."""

    killed = "the probe was killed, probably because memory ran out"
    silent = "the probe ended without a reason"

    def start(self):
        self.prober = probe.Prober()
        self.prober.start(MODEL, seconds=probe.SECONDS)

    def cancel(self):
        self.prober.close()

    def sentence(self):
        with self.prober:
            reasons = {record.failure for record in self.prober.result()}
        (reason,) = reasons
        return reason or ""


CALLERS = {"ingest": Ingest, "probe": Probe, "run": Run, "SQL": Sql}
every_caller = pytest.mark.parametrize("caller", CALLERS)
# What ends a child is the same for all: one caller is enough for a quick look.
one_caller = pytest.mark.parametrize(
    "caller",
    [
        "run",
        *(pytest.param(caller, marks=pytest.mark.slow) for caller in CALLERS if caller != "run"),
    ],
)


@pytest.fixture
def begin(tmp_path, monkeypatch, demo_store):
    """Starts a caller's child, which runs this code first."""

    def begin(caller, sabotage=""):
        folder = tmp_path / "sabotage"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(sabotage)
        monkeypatch.setenv("PYTHONPATH", str(folder))
        path = tmp_path / "store.duckdb"
        if caller == "SQL":
            shutil.copy(demo_store, path)
        asking = CALLERS[caller](path)
        asking.start()
        return asking

    return begin


# When the request has come and the limits are on.
ON_REQUEST = """
from quantstore.process import limits
put_on = limits.put_on
def first(allowed):
    put_on(allowed)
    {}
limits.put_on = first
"""
HANGING = "import time; time.sleep(60)"


def children() -> set[int]:
    """The processes that this one started and that have not ended."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            rest = path.read_text().rsplit(")", 1)[1]
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if int(parent) == os.getpid() and state != "Z":
            found.add(int(path.parent.name))
    return found


@one_caller
@pytest.mark.slow
def test_it_works_while_libraries_print(caller, begin):
    rubbish = (
        "print('a library says hello', flush=True)\nimport os\nos.write(1, b'{\"result\": ')\n"
    )
    assert begin(caller, f"{rubbish}os.write(1, b'\\n[1, 2]\\n')").sentence() == ""


@one_caller
def test_one_that_prints_without_end_is_ended(caller, begin):
    asking = begin(caller, "import os\nwhile True: os.write(1, b'rubbish' * 10_000)")
    assert asking.sentence().startswith(asking.silent)


@every_caller
def test_one_that_is_killed_is_a_sentence(caller, begin):
    asking = begin(caller, "import os; os.kill(os.getpid(), 9)")
    assert asking.sentence().startswith(asking.killed)


@one_caller
def test_one_that_ends_without_a_word_is_a_sentence(caller, begin):
    asking = begin(caller, "raise SystemExit(1)")
    assert asking.sentence().startswith(asking.silent)


@every_caller
@pytest.mark.parametrize(
    "sabotage",
    [
        pytest.param(HANGING, id="early", marks=pytest.mark.slow),
        pytest.param(ON_REQUEST.format(HANGING), id="late"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_one_that_hangs_can_be_ended_and_leaves_no_process(caller, sabotage, begin):
    before = children()
    started = time.monotonic()
    asking = begin(caller, sabotage)
    assert children() - before
    asking.cancel()
    if caller == "probe":
        asking.prober.close()
    else:
        assert "cancelled" in asking.sentence()
    assert children() <= before
    assert time.monotonic() - started < SOON_SECONDS


@pytest.mark.parametrize(
    "caller",
    ["probe", *(pytest.param(caller, marks=pytest.mark.slow) for caller in ("ingest", "SQL"))],
)
@pytest.mark.slow
def test_one_that_hangs_is_ended_by_the_clock(caller, begin, monkeypatch):
    monkeypatch.setattr(ingest_child, "TIME_LIMIT_SECONDS", 0.3)
    monkeypatch.setattr(probe, "SECONDS", 0.3)
    monkeypatch.setattr(statement, "START_SECONDS", 0.3)
    monkeypatch.setenv("QUANTSTORE_WAIT", "0")
    started = time.monotonic()
    sentence = begin(caller, HANGING).sentence()
    assert re.match(
        "not done after|stopped after waiting 1.5 s|the query did not start within", sentence
    )
    assert time.monotonic() - started < SOON_SECONDS


@pytest.fixture
def container(tmp_path, monkeypatch):
    """This process seems to run in a container of so many bytes."""

    def container(size):
        (tmp_path / "memory.max").write_text(str(size))
        (tmp_path / "cgroup").write_text("0::/\n")
        monkeypatch.setattr(memory, "CGROUPS_OF_PROCESS", tmp_path / "cgroup")
        monkeypatch.setattr(memory, "CGROUP_ROOT", tmp_path)
        # The same on a computer of any size.
        monkeypatch.setattr(limits, "RESERVED_BYTES_PER_CORE", 0)

    return container


# More than a container of half a GiB may have, with what libraries reserve, and less than a
# statement may.
MUCH_MEMORY = ON_REQUEST.format("bytes(13 << 27)")


@pytest.mark.slow
@one_caller
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit memory")
def test_one_that_eats_memory_is_a_sentence_and_a_container_counts(caller, begin, container):
    assert begin(caller, MUCH_MEMORY).sentence() == ""
    container(1 << 29)
    sentence = begin(caller, MUCH_MEMORY).sentence()
    assert "memory" in sentence
    assert begin(caller).sentence() == ""  # enough for a small model all the same


@pytest.mark.slow
def test_a_file_that_is_worth_several_processes_is_ingested_by_them(begin):
    sabotage = "from quantstore.pipeline import measure_file; measure_file.WORTH_A_PROCESS = 0"
    assert begin("ingest", sabotage).sentence() == ""


@pytest.mark.slow
def test_whoever_interrupts_does_not_wait_until_the_store_is_free(tmp_path, demo_store, ctrl_c):
    path = shutil.copy(demo_store, tmp_path / "store.duckdb")
    choices = Choices(mode="weights", samples=2)
    with store.writing(path):
        running = runs.start(MODEL, path, "noise", choices)
        while running._child.is_alive:  # then its thread waits for the store
            time.sleep(0.05)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            running.wait()
        assert time.monotonic() - started < SOON_SECONDS
    assert running.is_over(SOON_SECONDS)


STARTING = """
import sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from tests.process import test_four_callers
asking = test_four_callers.CALLERS[{caller!r}](Path({store!r}))
asking.start()
child = getattr(asking, "prober", None) or asking.running
print(child._child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.slow
@one_caller
@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_one_whose_parent_dies_ends_too(caller, begin, tmp_path, monkeypatch):
    (tmp_path / "sabotage").mkdir()
    (tmp_path / "sabotage" / "sitecustomize.py").write_text(
        f"import sys\nif '-m' in sys.orig_argv:\n    exec({ON_REQUEST.format(HANGING)!r})"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "sabotage"))
    program = STARTING.format(path=sys.path, caller=caller, store=str(tmp_path / "s.duckdb"))
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(child)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"

"""A child process: what it is asked, what it may take, and what becomes of it. No model is near."""

import dataclasses
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from quantstore.errors import MissingStoreError, QuantstoreError
from quantstore.process import limits, memory
from quantstore.process.child import BugInChildError, Cause, Child, ChunkReader, EndedError
from quantstore.process.limits import ChildLimits

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the limits are Linux's")

MODULE = '''
import gc, os, signal, subprocess, sys, tempfile, time
from quantstore.errors import MissingStoreError, QuantstoreError
from quantstore.process.serve import serve

class PrivateError(QuantstoreError):
    """No error of quantstore.errors."""

def doubled(factor, number):
    return factor * number

def answer(request, reply):
    action = request["action"]
    if action == "echo":
        return request["content"]
    if action == "count":
        for number in range(3):
            reply.progress(number)
        return "done"
    if action == "bytes":
        stream = reply.chunks()
        for _ in range(request["times"]):
            stream.write(bytes(request["size"]))
        stream.flush()
        return None
    if action == "fail":
        raise MissingStoreError("nothing there", "look elsewhere")
    if action == "fail privately":
        raise PrivateError("refused")
    if action == "bug":
        return 1 / 0
    if action == "allocate":
        return len(bytes(request["bytes"]))
    if action == "burn":
        while time.process_time() < 30:
            pass
    if action == "sleep":
        time.sleep(30)
    if action == "signal":
        os.kill(os.getpid(), request["number"])
        time.sleep(30)
    if action == "print":
        print("a library says hello")
        os.write(1, b"and so does its core\\n")
        return "heard"
    if action == "write":
        with open(request["path"], "w") as stream:
            stream.write("x" * 10)
    if action == "family":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
        reply.progress(child.pid)
        time.sleep(30)
    if action == "litter":
        reply.progress(tempfile.mkdtemp())
        time.sleep(30)
    if action == "leave":
        os._exit(request["code"])
    if action == "share":
        from quantstore.process import pool
        return sorted(pool.each(doubled, 2, [1, 2, 3], jobs=2))
    if action == "read":
        return sys.stdin.read()
    if action == "cycles":
        return [WERE_SOUGHT_WHILE_LOADING, gc.isenabled()]
    if action == "give":
        return {1, 2}
    if action == "limits":
        import resource
        return [resource.getrlimit(getattr(resource, name))[0] for name in request["names"]]

WERE_SOUGHT_WHILE_LOADING = gc.isenabled()
serve(answer)
'''
FREE = ChildLimits()


@pytest.fixture
def start(tmp_path, monkeypatch):
    children = []

    def start(before: str = "", **options) -> Child:
        (tmp_path / "answers_of_a_child.py").write_text(before + MODULE)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        children.append(Child("answers_of_a_child", **options))
        return children[-1]

    yield start
    for child in children:
        child.close()


def asked(child, action, limits=FREE, **more):
    child.ask({"action": action, **more}, limits)
    return child.answer()


def cause_of(child, action, limits=FREE, **more):
    with pytest.raises(EndedError) as caught:
        asked(child, action, limits, **more)
    return caught.value.cause


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_for_end(pid: int) -> bool:
    deadline = time.monotonic() + 60
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


def test_it_answers_one_request_after_another(start):
    child = start()
    for content in ("ä", [1, None, {"x": 2.5}], None):
        assert asked(child, "echo", content=content) == content
    child.ask({"action": "count"}, FREE)
    progress = []
    assert child.answer(progress.append) == "done"
    assert progress == [0, 1, 2]
    # A failure, a bug: it goes on.
    with pytest.raises(MissingStoreError, match="nothing there") as caught:
        asked(child, "fail")
    assert caught.value.sentence == "nothing there; look elsewhere"
    with pytest.raises(QuantstoreError, match="refused"):
        asked(child, "fail privately")
    with pytest.raises(BugInChildError, match="Traceback") as bug:
        asked(child, "bug")
    assert bug.value.summary == "ZeroDivisionError: division by zero"
    assert asked(child, "print") == "heard"
    assert asked(child, "echo", content="x" * (5 << 20)) == "x" * (5 << 20)
    assert child.is_alive


def test_work_can_be_shared_over_processes_that_it_forks(start):
    child = start()
    for _ in range(2):
        assert asked(child, "share", ChildLimits(wall_seconds=60)) == [2, 4, 6]


def test_what_it_runs_reads_no_requests(start):
    assert asked(start(), "read", ChildLimits(wall_seconds=60)) == ""


def test_cycles_are_sought_when_it_works_and_not_while_it_loads(start):
    assert asked(start(), "cycles") == [False, True]


def test_a_result_that_is_no_json_is_a_bug_and_the_child_goes_on(start):
    child = start()
    with pytest.raises(BugInChildError, match="set is not JSON serializable"):
        asked(child, "give")
    assert asked(child, "echo", content=1) == 1


def test_bytes_arrive_whole_and_can_be_read_while_they_come(start):
    child = start()
    child.ask({"action": "bytes", "times": 3, "size": 40 << 20}, FREE)
    reader = ChunkReader()
    sizes = []

    def read():
        while content := reader.read(1 << 20):
            sizes.append(len(content))

    thread = threading.Thread(target=read)
    thread.start()
    assert child.answer(on_chunk=reader.take) is None
    reader.finish()
    thread.join()
    assert sum(sizes) == 120 << 20


@pytest.mark.parametrize(
    "rubbish",
    [
        b"hello\n",
        b"\xff\xfe\n",
        b'{"result": 1, "progress": 2}\n',
        b"[1]\n",
        b"17\n",
        b'{"chunk": -1}\n',
        b'{"chunk": true}\n',
        b'{"chunk": 99999999999999}\n',
        b'{"failure": 3}\n',
        b'{"failure": {"kind": 1, "message": "", "hint": ""}}\n',
        b'{"bug": {}}\n',
        b"[" * 100_000 + b"\n",
        b"an unfinished line",
        b'{"progress": 1',
    ],
    ids=lambda line: line[:40].decode(errors="replace").strip(),
)
def test_what_is_no_message_is_passed_over(start, rubbish):
    child = start(f"import os; os.write(1, {rubbish!r})\n")
    assert asked(child, "echo", content=7) == 7


@pytest.mark.parametrize("line", ["x" * 80 + "\\n", "x" * 80], ids=["lines", "one long line"])
def test_one_that_never_stops_printing_is_ended(start, line):
    child = start(f"import os\nwhile True: os.write(1, b'{line}' * 10_000)\n")
    assert cause_of(child, "echo") is Cause.UNINTELLIGIBLE
    assert not child.is_alive


def test_a_name_of_a_failure_that_is_no_error_of_ours_is_a_plain_one(start):
    line = b'{"failure": {"kind": "printable", "message": "odd", "hint": ""}}\n'
    child = start(f"import os; os.write(1, {line!r})\n")
    with pytest.raises(QuantstoreError, match="odd") as caught:
        asked(child, "echo")
    assert type(caught.value) is QuantstoreError


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(
    ("number", "cause", "name"),
    [
        (9, Cause.KILLED, "SIGKILL"),
        (11, Cause.CRASHED, "SIGSEGV"),
        (14, Cause.TOO_SLOW, "SIGALRM"),
        (24, Cause.TOO_MUCH_CPU, "SIGXCPU"),
    ],
)
def test_a_signal_has_its_cause(start, number, cause, name):
    with pytest.raises(EndedError) as caught:
        asked(start(), "signal", number=number)
    assert (caught.value.cause, caught.value.signal_name) == (cause, name)


def test_one_that_leaves_without_a_word_is_silent(start):
    for code in (0, 3):
        assert cause_of(start(), "leave", code=code) is Cause.SILENT
    assert cause_of(start("raise SystemExit\n"), "echo") is Cause.SILENT


@pytest.mark.parametrize(
    "before",
    [
        pytest.param("", id="asked"),
        pytest.param("import time; time.sleep(30)\n", id="starting", marks=pytest.mark.slow),
    ],
)
def test_one_that_hangs_is_ended_by_the_clock(start, before):
    child = start(before)
    started = time.monotonic()
    assert cause_of(child, "sleep", ChildLimits(wall_seconds=0.3)) is Cause.TOO_SLOW
    assert time.monotonic() - started < 10


@pytest.mark.slow
def test_without_alarms_the_parent_keeps_the_time(start):
    # A child that switches its own clock off.
    child = start("import signal; signal.setitimer = lambda *_: None\n")
    assert cause_of(child, "sleep", ChildLimits(wall_seconds=0.3)) is Cause.TOO_SLOW


def test_a_clock_that_was_about_to_strike_does_not_end_what_comes_next(start):
    child = start()
    child.allow(1000)
    late = child._clock
    child.allow(None)
    late.function()
    assert asked(child, "echo", content=1) == 1


def test_time_without_end_is_no_limit(start):
    assert asked(start(), "echo", ChildLimits(wall_seconds=float("inf")), content=1) == 1


@pytest.mark.slow
@on_linux
def test_one_that_nobody_waits_for_ends_by_itself(start):
    child = start()
    child.ask({"action": "sleep"}, ChildLimits(wall_seconds=0.3))
    assert wait_for_end(child.pid)


def test_the_clock_can_be_started_anew(start):
    child = start()
    child.ask({"action": "family"}, ChildLimits(wall_seconds=30))
    started = time.monotonic()
    with pytest.raises(EndedError) as caught:
        child.answer(lambda _: child.allow(0.1))
    assert caught.value.cause is Cause.TOO_SLOW
    assert time.monotonic() - started < 20


@pytest.mark.slow
@on_linux
def test_processor_time_is_counted_not_time_on_the_clock(start):
    child = start()
    assert asked(child, "count", ChildLimits(cpu_seconds=1)) == "done"
    # Each request has its own; what was used before does not count.
    assert asked(child, "limits", ChildLimits(cpu_seconds=5), names=["RLIMIT_CPU"])[0] >= 5
    assert asked(child, "limits", names=["RLIMIT_CPU"]) == [-1]
    assert cause_of(child, "burn", ChildLimits(cpu_seconds=0.1)) is Cause.TOO_MUCH_CPU


@on_linux
@pytest.mark.parametrize("limit", ["memory_bytes", "address_space_bytes"])
def test_memory_beyond_the_limit_is_refused_and_the_child_goes_on(start, limit):
    child = start()
    allowed = ChildLimits(**{limit: 1 << 30})
    assert asked(child, "allocate", allowed, bytes=1 << 20) == 1 << 20
    with pytest.raises(EndedError) as caught:
        asked(child, "allocate", allowed, bytes=1 << 30)
    assert caught.value.cause is Cause.OUT_OF_MEMORY
    assert asked(child, "echo", content=1) == 1


@on_linux
def test_a_limit_that_it_began_with_is_never_raised(start):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (5 << 30, hard))
    try:
        child = start()
        names = ["RLIMIT_DATA"]
        assert asked(child, "limits", ChildLimits(memory_bytes=6 << 30), names=names) == [5 << 30]
        assert asked(child, "limits", ChildLimits(memory_bytes=4 << 30), names=names) == [4 << 30]
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@on_linux
def test_files_can_be_kept_out_of_reach(start, tmp_path):
    child = start()
    assert asked(child, "write", path=str(tmp_path / "before")) is None
    with pytest.raises(BugInChildError, match="File too large"):
        asked(child, "write", ChildLimits(may_write_files=False), path=str(tmp_path / "after"))
    assert (tmp_path / "after").read_text() == ""


@on_linux
def test_what_it_started_ends_with_it(start):
    child = start()
    grandchildren = []

    def cancel(pid):
        grandchildren.append(pid)
        child.cancel()

    child.ask({"action": "family"}, FREE)
    with pytest.raises(EndedError) as caught:
        child.answer(cancel)
    assert caught.value.cause is Cause.CANCELLED
    assert wait_for_end(grandchildren[0])


def test_what_it_wrote_into_its_folder_goes_with_it_although_it_was_killed(start):
    child = start(has_scratch=True)
    litter = []

    def kill(folder):
        litter.append(Path(folder))
        assert litter[0].is_dir()
        child.cancel()

    child.ask({"action": "litter"}, FREE)
    with pytest.raises(EndedError):
        child.answer(kill)
    child.close()
    assert [folder.parent.exists() for folder in litter] == [False]


def test_without_room_for_a_folder_it_has_none(start, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    assert asked(start(has_scratch=True), "echo", content="here") == "here"


def test_closing_ends_it_and_can_be_repeated(start):
    child = start()
    child.ask({"action": "sleep"}, FREE)
    child.close()
    child.close()
    assert not child.is_alive
    child.cancel()
    child.ask({"action": "echo"}, FREE)  # nobody is there: noticed with the answer
    with pytest.raises(EndedError):
        child.answer()


# What a container may take.


@pytest.fixture
def control_groups(tmp_path, monkeypatch):
    """A system of control groups: their files, and those this process belongs to."""

    def control_groups(belongs_to: str, **files: str):
        (tmp_path / "cgroup").write_text(belongs_to)
        for name, text in files.items():
            path = tmp_path / "root" / name.replace("__", "/").replace("_of_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(memory, "CGROUPS_OF_PROCESS", tmp_path / "cgroup")
        monkeypatch.setattr(memory, "CGROUP_ROOT", tmp_path / "root")

    return control_groups


@pytest.mark.parametrize(
    ("belongs_to", "files", "limits_of_groups"),
    [
        ("0::/\n", {"memory_of_max": "1000\n"}, [1000]),
        ("0::/\n", {"memory_of_max": "max\n"}, []),
        ("0::/a/b\n", {"a__memory_of_max": "500\n", "a__b__memory_of_max": "900\n"}, [500, 900]),
        ("5:cpu:/x\n4:memory:/x\n0::/\n", {"memory__x__memory_of_limit_in_bytes": "70"}, [70]),
        ("1:name=systemd:/\n", {}, []),
        ("", {}, []),
    ],
    ids=["version 2", "no limit", "nested", "version 1", "no memory", "no group"],
)
def test_a_container_limits_what_there_is(control_groups, belongs_to, files, limits_of_groups):
    control_groups(belongs_to, **files)
    assert sorted(memory.container_limits()) == limits_of_groups
    if limits_of_groups:
        assert memory.available_bytes() == limits_of_groups[0]
        reserved = limits.RESERVED_BYTES + os.cpu_count() * limits.RESERVED_BYTES_PER_CORE
        assert limits.memory_bytes() == int(0.75 * limits_of_groups[0]) + reserved


def test_without_control_groups_there_is_what_the_machine_has(control_groups, tmp_path):
    control_groups("0::/\n")
    (tmp_path / "cgroup").unlink()
    assert memory.container_limits() == []
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory.available_bytes() == machine
    assert dataclasses.asdict(limits.sharing_memory(wall_seconds=7))["wall_seconds"] == 7


@pytest.mark.slow
@on_linux
def test_what_is_freed_is_kept_where_that_is_asked_for():
    """Left alone, most of it goes back to the system, which clears it before it is handed out."""
    code = """
import resource, sys
import numpy as np
from quantstore.process import memory
if sys.argv[1] == "kept":
    memory.keep_freed()
for _ in range(6):
    arrays = [np.ones(1 << 18) for _ in range(40)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""
    faults = [
        int(subprocess.run([sys.executable, "-c", code, word], capture_output=True).stdout)
        for word in ("kept", "left")
    ]
    assert faults[0] < faults[1] / 2

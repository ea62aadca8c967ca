"""A queue of work: one at a time, each can be cancelled, none takes the queue down."""

import threading
import time
from dataclasses import dataclass

import pytest

from quantstore.errors import CancelledError, RunError
from quantstore.process.queue import FINISHED, UNFORESEEN, Queue


@dataclass
class Progress:
    share_done: float = 0.25


class Run:
    """A run that ends when it is told to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.progress = Progress()
        self.over = threading.Event()
        self.failure = failure

    def cancel(self) -> None:
        self.failure = self.failure or CancelledError("cancelled")
        self.over.set()

    def wait(self) -> str:
        assert self.over.wait(10)
        if self.failure is not None:
            raise self.failure
        return "a result"


@pytest.fixture
def queue_of():
    queues = []

    def make(*runs):
        queue = Queue()
        queues.append(queue)
        waiting = iter(runs)
        started = []

        def start():
            started.append(next(waiting))
            return started[-1]

        return queue, lambda **more: queue.put(start, **{"name": "tiny", **more}), started

    yield make
    for queue in queues:
        queue.cancel_all()


def until(queue, *states):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if tuple(job.state for job in queue.snapshot()) == states:
            return queue.snapshot()
        time.sleep(0.005)
    pytest.fail(f"{[job.state for job in queue.snapshot()]} never became {states}")


def test_one_at_a_time_with_its_progress_and_its_result(queue_of):
    first, second = Run(), Run()
    queue, add, started = queue_of(first, second)
    add(description="both"), add()
    running, waiting = until(queue, "running", "waiting")
    while running.progress is None:
        # It is started a moment later.
        running, waiting = until(queue, "running", "waiting")
    assert (running.share_done, waiting.share_done) == (0.25, 0)
    assert running.description == "both"
    assert started == [first]
    first.over.set()
    done, _ = until(queue, "done", "running")
    assert done.result == "a result"
    second.over.set()
    until(queue, "done", "done")


def test_a_failure_is_a_sentence_and_the_next_one_runs(queue_of):
    bad, good = Run(RunError("the model has no input", "export it anew")), Run()
    bad.over.set(), good.over.set()
    queue, add, _ = queue_of(bad, good)
    add(), add()
    failed, _ = until(queue, "failed", "done")
    assert failed.message == "the model has no input; export it anew"


@pytest.mark.parametrize("bug", [ZeroDivisionError(), RuntimeError("bug in the child")])
def test_a_bug_fails_one_and_the_queue_goes_on(queue_of, bug):
    bad, good = Run(bug), Run()
    bad.over.set(), good.over.set()
    queue, add, _ = queue_of(bad, good)
    add(), add()
    failed, _ = until(queue, "failed", "done")
    assert failed.message == UNFORESEEN


def test_a_process_that_cannot_start_is_a_sentence(queue_of):
    queue, _, _ = queue_of()

    def start():
        raise OSError(11, "Resource temporarily unavailable")

    queue.put(start, name="tiny")
    (failed,) = until(queue, "failed")
    assert failed.message == "cannot start: Resource temporarily unavailable"


def test_what_the_system_refuses_later_is_a_bug(queue_of):
    bad = Run(OSError(5, "Input/output error"))
    bad.over.set()
    queue, add, _ = queue_of(bad)
    add()
    (failed,) = until(queue, "failed")
    assert failed.message == UNFORESEEN


def test_what_runs_and_what_waits_can_be_cancelled_by_itself(queue_of):
    first, third = Run(), Run()
    queue, add, started = queue_of(first, third)
    one, two, _ = add(), add(), add()
    until(queue, "running", "waiting", "waiting")
    queue.cancel(two)
    queue.cancel(one)
    until(queue, "cancelled", "cancelled", "running")
    assert len(started) == 2
    third.over.set()
    until(queue, "cancelled", "cancelled", "done")
    queue.cancel(two)  # over: nothing to cancel
    until(queue, "cancelled", "cancelled", "done")


def test_whatever_becomes_of_it_its_upload_is_removed_once(queue_of):
    good, bad, cancelled = Run(), Run(RunError("no")), Run()
    good.over.set(), bad.over.set()
    queue, add, _ = queue_of(good, bad, cancelled)
    removed = []
    for name in ("good", "bad", "cancelled", "never started"):
        add(name=name, when_finished=lambda name=name: removed.append(name))
    until(queue, "done", "failed", "running", "waiting")
    queue.cancel_all()
    until(queue, "done", "failed", "cancelled", "cancelled")
    deadline = time.monotonic() + 60
    while len(removed) < 4 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert removed == ["good", "bad", "cancelled", "never started"]


def test_one_that_is_over_before_its_cancel_arrives_is_done(queue_of):
    run = Run()
    run.cancel = run.over.set  # too late: it is stored
    queue, add, _ = queue_of(run)
    job_id = add()
    until(queue, "running")
    queue.cancel(job_id)
    (job,) = until(queue, "done")
    assert (job.result, job.message) == ("a result", "")


def test_what_is_over_stays_until_it_is_dismissed(queue_of):
    run = Run()
    run.over.set()
    queue, add, _ = queue_of(run)
    add()
    until(queue, "done")
    queue.refuse("notes.txt", "no .onnx file among the upload")
    assert [job.state for job in queue.snapshot()] == ["done", "failed"]
    queue.dismiss_finished()
    assert queue.snapshot() == []
    assert FINISHED == ("done", "failed", "cancelled")


def test_names_with_control_characters_are_made_visible(queue_of):
    queue, add, _ = queue_of(Run())
    add(name="a\x1b[31mb", description="c\x1b")
    queue.refuse("d\x1b", "…")
    first, second = queue.snapshot()
    assert (first.name, first.description, second.name) == ("a\\x1b[31mb", "c\\x1b", "d\\x1b")

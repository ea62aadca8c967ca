"""The app's queue of runs: one at a time, each can be cancelled, none takes the queue down."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from quantstore.errors import CancelledError, RunError
from quantstore.runs_queue import FINISHED, RunsQueue


@dataclass
class Stage:
    stage: str = "calibrating"
    done: int = 3
    total: int = 12


@dataclass
class Done:
    model: str = "tiny"
    simulation_id: int = 7
    notes: tuple[str, ...] = ("the opset was raised to 13",)


class Run:
    """A run that ends when it is told to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.progress = Stage()
        self.over = threading.Event()
        self.failure = failure

    def cancel(self) -> None:
        self.failure = self.failure or CancelledError("cancelled")
        self.over.set()

    def wait(self) -> Done:
        assert self.over.wait(10)
        if self.failure is not None:
            raise self.failure
        return Done()


class Starter:
    """Hands out prepared runs, and remembers what was asked for."""

    def __init__(self, *runs: Run) -> None:
        self.runs = list(runs)
        self.asked: list[tuple] = []

    def __call__(self, path, store_path, inputs, choices):
        self.asked.append((path, store_path, inputs, choices))
        return self.runs[len(self.asked) - 1]


@pytest.fixture
def queue_of():
    queues = []

    def make(*runs):
        starter = Starter(*runs)
        queue = RunsQueue(starter)
        queues.append(queue)
        return queue, starter

    yield make
    for queue in queues:
        queue.cancel_all()


def add(queue, name="tiny"):
    return queue.add(
        Path("tiny.onnx"), Path("s.duckdb"), "noise", {"mode": "both"}, name=name, what="both"
    )


def until(queue, *states):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if tuple(job.state for job in queue.snapshot()) == states:
            return queue.snapshot()
        time.sleep(0.005)
    pytest.fail(f"{[job.state for job in queue.snapshot()]} never became {states}")


def test_one_run_at_a_time_with_its_progress_and_its_result(queue_of):
    first, second = Run(), Run()
    queue, starter = queue_of(first, second)
    add(queue), add(queue)
    running, waiting = until(queue, "running", "waiting")
    while running.stage == "starting":
        # Its first report comes a moment later.
        running, waiting = until(queue, "running", "waiting")
    assert (running.stage, running.done, running.total) == ("calibrating", 3, 12)
    assert running.share_done == 0.25
    assert waiting.share_done == 0
    first.over.set()
    done, _ = until(queue, "done", "running")
    assert (done.model, done.simulation_id) == ("tiny", 7)
    assert done.notes == ("the opset was raised to 13",)
    second.over.set()
    until(queue, "done", "done")
    assert starter.asked[0] == (Path("tiny.onnx"), Path("s.duckdb"), "noise", {"mode": "both"})


def test_a_failure_is_a_sentence_and_the_next_one_runs(queue_of):
    bad, good = Run(RunError("the model has no input", "export it anew")), Run()
    bad.over.set(), good.over.set()
    queue, _ = queue_of(bad, good)
    add(queue), add(queue)
    failed, _ = until(queue, "failed", "done")
    assert failed.message == "the model has no input; export it anew"


def test_a_bug_fails_one_run_and_the_queue_goes_on(queue_of):
    bug, good = Run(ZeroDivisionError()), Run()
    bug.over.set(), good.over.set()
    queue, _ = queue_of(bug, good)
    add(queue), add(queue)
    failed, _ = until(queue, "failed", "done")
    assert failed.message.startswith("something went wrong")


def test_what_runs_and_what_waits_can_be_cancelled_by_itself(queue_of):
    first, third = Run(), Run()
    queue, starter = queue_of(first, third)
    one, two, _ = add(queue), add(queue), add(queue)
    until(queue, "running", "waiting", "waiting")
    queue.cancel(two)
    queue.cancel(one)
    until(queue, "cancelled", "cancelled", "running")
    assert len(starter.asked) == 2
    third.over.set()
    until(queue, "cancelled", "cancelled", "done")
    queue.cancel(two)  # over: nothing to cancel
    until(queue, "cancelled", "cancelled", "done")


def test_what_is_over_stays_until_it_is_dismissed(queue_of):
    run = Run()
    run.over.set()
    queue, _ = queue_of(run)
    add(queue)
    until(queue, "done")
    queue.dismiss_finished()
    assert queue.snapshot() == []
    assert FINISHED == ("done", "failed", "cancelled")


def test_names_with_control_characters_are_made_visible(queue_of):
    queue, _ = queue_of(Run())
    add(queue, "a\x1b[31mb")
    assert queue.snapshot()[0].name == "a\\x1b[31mb"

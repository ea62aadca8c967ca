"""Waiting for the app's queue."""

import time

import pytest

from quantstore.process.queue import FINISHED, Job, Queue


def finished(queue: Queue) -> list[Job]:
    """Every job, once all are over."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        jobs = queue.snapshot()
        if all(job.state in FINISHED for job in jobs):
            return jobs
        time.sleep(0.02)
    pytest.fail("the queue did not finish")

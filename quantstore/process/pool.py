"""One file's work over several processes: each inherits what was read and sends back results.

Threads gain little here, because every short numpy call takes the interpreter lock again; processes
run side by side at full speed. A forked process shares what its parent read without a copy. Where
forking is not safe (macOS, Windows) the work is done in the process itself.
"""

import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

Context = TypeVar("Context")
Task = TypeVar("Task")
TaskResult = TypeVar("TaskResult")

CAN_FORK = sys.platform == "linux"


class BrokenPoolError(Exception):
    """A process that shared the work was killed, or crashed."""


def cores() -> int:
    """How many processes run at full speed: the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(
    work: Callable[[Context, Task], TaskResult], context: Context, tasks: Sequence[Task], jobs: int
) -> Iterator[TaskResult]:
    """``work(context, task)`` for every task; results come as they are done, in any order.

    Args:
        work: a function of a module; its results must be picklable.
        tasks: large ones first, so that all processes end together; must be picklable.
        jobs: how many processes; 1 for none beside this one.

    Raises:
        BrokenPoolError: a process was killed, or crashed.
    """
    jobs = min(jobs, len(tasks))
    if jobs <= 1 or not CAN_FORK:
        yield from (work(context, task) for task in tasks)
        return
    # Small models never come here.
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    with ProcessPoolExecutor(
        jobs, mp_context=get_context("fork"), initializer=_inherit, initargs=(work, context)
    ) as pool:
        try:
            with warnings.catch_warnings():
                # The threads that Python warns of are numpy's, idle and prepared for a fork.
                warnings.filterwarnings("ignore", "This process .* is multi-threaded")
                futures = [pool.submit(_run, task) for task in tasks]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise BrokenPoolError("a process that shared the work was ended") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def without_main() -> Iterator[None]:
    """Processes that are spawned meanwhile do not run the program of this one once more.

    A spawned process imports the ``__main__`` of its parent. A script that lacks the usual guard
    would begin anew in each of them; nothing that is sent to them lives there.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


# What a forked process got from its parent: the function and its context.
_inherited: list[Any] = []


def _inherit(work: Callable[[Any, Any], Any], context: object) -> None:
    _inherited[:] = work, context
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A parent that is killed cannot stop its children."""
    from multiprocessing import connection, parent_process

    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _run(task: Any) -> Any:
    work, context = _inherited
    return work(context, task)

"""Executors and workers that behave badly on purpose."""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from quantstore.pipeline import worker

DEADLY = "deadly"


class WatchedExecutor(ThreadPoolExecutor):
    """Threads; counts how many files are under way at most, and what was asked of it."""

    def __init__(self, workers: int = 2) -> None:
        super().__init__(workers)
        self.paths: list[Path] = []
        self.most_under_way = 0
        self._under_way = 0
        self._lock = threading.Lock()

    def submit(self, work: Callable[..., Any], path: Path, *arguments: Any) -> "Future[Any]":
        with self._lock:
            self.paths.append(path)
            self._under_way += 1
            self.most_under_way = max(self.most_under_way, self._under_way)
        future = super().submit(self.run, work, path, *arguments)
        future.add_done_callback(self._leave)
        return future

    def run(self, work: Callable[..., Any], path: Path, *arguments: Any) -> Any:
        return work(path, *arguments)

    def _leave(self, _future: "Future[Any]") -> None:
        with self._lock:
            self._under_way -= 1


class LossyExecutor(WatchedExecutor):
    """Its workers die of some files, as often as it says; the engine then raises."""

    def __init__(self, deaths: dict[str, int]) -> None:
        super().__init__()
        self._deaths = deaths

    def run(self, work: Callable[..., Any], path: Path, *arguments: Any) -> Any:
        with self._lock:
            deaths = self._deaths.get(path.stem, 0)
            self._deaths[path.stem] = deaths - 1
        if deaths > 0:
            raise ConnectionError("the worker is gone")
        return super().run(work, path, *arguments)


def begin_process_that_dies(*_settings: object) -> None:
    """The initializer of a process that is killed by the file :data:`DEADLY`."""
    opened = worker.opened

    def opened_or_dead(path: Path, attempt: Any) -> Any:
        if path.stem == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        return opened(path, attempt)

    worker.opened = opened_or_dead

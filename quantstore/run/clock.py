"""Two clocks: how long a person waits, and how much a processor works."""

import itertools
import time

# How many clocks this process had.
_count = itertools.count()


class Clock:
    """Seconds since the last lap, of the wall and of this process."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        # The first one counts from the start of the process: imports belong to what it costs. What
        # a process did for other models before does not.
        self._cpu = 0.0 if next(_count) == 0 else time.process_time()

    def wall_lap(self) -> float:
        before, self._wall = self._wall, time.perf_counter()
        return self._wall - before

    def cpu_lap(self) -> float:
        before, self._cpu = self._cpu, time.process_time()
        return self._cpu - before

"""Two clocks: how long a person waits, and how much a processor works."""

import time


class Clock:
    """Seconds since the last lap, of the wall and of this process."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), 0.0

    def wall_lap(self) -> float:
        before, self._wall = self._wall, time.perf_counter()
        return self._wall - before

    def cpu_lap(self) -> float:
        """The first one counts from the start of the process: imports belong to what it costs."""
        before, self._cpu = self._cpu, time.process_time()
        return self._cpu - before

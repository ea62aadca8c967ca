"""Histograms of values that come in pieces, their range not known before the last of them."""

import math
from dataclasses import dataclass, field

import numpy as np

from quantstore.records import Counts, Doubles

BINS = 64
# Fine bins are kept while samples come in, and joined in the end. A power of two: bins twice as
# wide hold exactly the counts of two.
_FINE_BINS = 4096


@dataclass(slots=True)
class SharedHistogram:
    """Histograms of several series over the same bins.

    Bin ``i`` counts what lies from ``(start + i) * width`` up to the next edge, one row for each
    series. ``width`` is a power of two.
    """

    width: float = 0.0
    start: int = 0
    rows: Counts = field(default_factory=lambda: np.zeros((2, 0), np.int64))

    @classmethod
    def of_one(cls) -> "SharedHistogram":
        """For a single series."""
        return cls(rows=np.zeros((1, 0), np.int64))

    @property
    def centers(self) -> Doubles:
        """The middle of each fine bin."""
        bins = np.arange(self.rows.shape[1], dtype=np.float64)
        return np.asarray((self.start + bins + 0.5) * self.width, np.float64)

    def widen(self, low: float, high: float) -> None:
        """Make room for values from ``low`` to ``high``."""
        if not self.width:
            span = max(high - low, 2.0**-20 * max(abs(low), abs(high)), 2.0**-100)
            self.width = 2.0 ** math.ceil(math.log2(span / _FINE_BINS))
            self.start = math.floor(low / self.width)
        first = min(self.start, math.floor(low / self.width))
        last = max(self.start + self.rows.shape[1] - 1, math.floor(high / self.width))
        while last - first >= _FINE_BINS:
            self._halve()
            first = min(self.start, math.floor(low / self.width))
            last = max(self.start + self.rows.shape[1] - 1, math.floor(high / self.width))
        wider = np.zeros((len(self.rows), last - first + 1), np.int64)
        offset = self.start - first
        wider[:, offset : offset + self.rows.shape[1]] = self.rows
        self.rows, self.start = wider, first

    def add(self, row: int, values: Doubles) -> None:
        """Count values, which lie within the range."""
        bins = np.floor(values / self.width).astype(np.int64) - self.start
        self.rows[row] += np.bincount(bins, minlength=self.rows.shape[1])

    def joined(self) -> tuple[float, float, Counts]:
        """All histograms over the same 64 bins: left edge, right edge, counts."""
        each = max(1, -(-self.rows.shape[1] // BINS))
        padded = np.zeros((len(self.rows), BINS * each), np.int64)
        padded[:, : self.rows.shape[1]] = self.rows
        low = self.start * self.width
        return low, low + BINS * each * self.width, padded.reshape(-1, BINS, each).sum(axis=2)

    def _halve(self) -> None:
        # Bins twice as wide begin at even numbers.
        lead = self.start % 2
        count = self.rows.shape[1]
        padded = np.zeros((len(self.rows), count + lead + (count + lead) % 2), np.int64)
        padded[:, lead : lead + count] = self.rows
        self.rows = padded.reshape(len(self.rows), -1, 2).sum(axis=2)
        self.start = (self.start - lead) // 2
        self.width *= 2

"""Outputs of a float model and of its rounded version in, one value out: the SQNR in dB."""

import copy
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from quantstore.errors import RunError
from quantstore.numerics import quantization
from quantstore.numerics.median import median
from quantstore.records import Array
from quantstore.schemes import LOST_DB

NO_OUTPUT_DEPENDS = "no output depends on the inputs"


def is_not_a_number(output: str) -> str:
    """Why there is nothing to compare with."""
    return f"output {output!r} of the float model is NaN or infinite"


class Reference:
    """What the float model gives on some samples, to hold a quantized one against.

    Outputs that are no floats, or the same on the first and the last sample, say nothing and are
    left out.
    """

    def __init__(self, names: Sequence[str], outputs: Sequence[Sequence[Array]]) -> None:
        """Take the outputs of each sample, in the order of ``names``.

        Raises:
            RunError: no output depends on the inputs, or one holds no finite number.
        """
        self.expected = outputs
        self._moving = [
            index
            for index, first in enumerate(outputs[0])
            if first.dtype.kind in "fV"
            and (len(outputs) == 1 or not _is_same(first, outputs[-1][index]))
        ]
        # An output of NaN alone is the same everywhere; that is not what is wrong with it.
        for index in self._moving or range(len(names)):
            if any(not _is_finite(sample[index]).any() for sample in outputs):
                raise RunError(is_not_a_number(names[index]))
        if not self._moving:
            raise RunError(NO_OUTPUT_DEPENDS)

    def of_first(self) -> "Reference":
        """The same of the first sample alone."""
        first = copy.copy(self)
        first.expected = self.expected[:1]
        return first

    def median_db(self, outputs: Iterable[Sequence[Array]]) -> float:
        """Median over outputs and samples of the SQNR; +infinity where all are the same.

        Args:
            outputs: of the quantized model, for the same samples.

        Returns:
            ``LOST_DB`` where one of them is.

        Raises:
            RunError: the float model gives zeros alone.
        """
        figures = [
            sqnr_db(expected[index], actual[index])
            for expected, actual in zip(self.expected, outputs, strict=True)
            for index in self._moving
        ]
        if LOST_DB in figures:
            return LOST_DB
        # An output of zeros alone has nothing to lose.
        figures = [figure for figure in figures if figure > -np.inf]
        if not figures:
            raise RunError("all outputs of the float model are zero")
        return median(figures)


def sqnr_db(expected: Array, actual: Array) -> float:
    """``10 log10(sum y^2 / sum (y' - y)^2)`` in dB, in float64, where the float output is finite.

    +infinity where nothing changed, -infinity where the float output is all zero and the other not,
    ``LOST_DB`` where the other is NaN or infinite.
    """
    usable = _is_finite(expected)
    y = expected[usable].astype(np.float64)
    changed = actual[usable].astype(np.float64)
    if not np.isfinite(changed).all():
        return LOST_DB
    return float(quantization.sqnr_db(np.sum(y**2), np.sum((changed - y) ** 2)))


def _is_finite(values: Array) -> npt.NDArray[np.bool_]:
    finite: npt.NDArray[np.bool_] = np.isfinite(values.astype(np.float64))
    return finite


def _is_same(first: Array, second: Array) -> bool:
    return np.array_equal(first.astype(np.float64), second.astype(np.float64), equal_nan=True)

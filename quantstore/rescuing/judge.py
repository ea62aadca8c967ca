"""Outputs in float and under a plan in, noise-to-signal ratios and one value in dB out.

The value is that of the worst output that decides, as in a verdict, but without what decisions
show: a search needs a value that moves with every change.
"""

from collections.abc import Sequence

import numpy as np

from quantstore.errors import RunError
from quantstore.records import Array, Doubles
from quantstore.run import outputs
from quantstore.run.emulator import Emulator, Plan
from quantstore.run.outputs import JudgedPart, Tensors
from quantstore.run.points import Part
from quantstore.run.runtime import Feeds
from quantstore.run.simulate import returns_no_number

# A network that answers with no numbers, or with none of the energy that it had.
_LOST = 1e30
MOST_DOUBT_DB = 3.0
# What varies may lose so much more than the whole: outputs.VARYING_MARGIN_DB.
_MARGIN = 10 ** (outputs.VARYING_MARGIN_DB / 10)


class Judge:
    """Some samples, and what the float network gives on them."""

    def __init__(
        self, emulator: Emulator, compared_parts: Sequence[Part], samples: Sequence[Feeds]
    ) -> None:
        """Run the float network.

        Raises:
            RunError: onnxruntime stops, the float network returns no numbers, or no output that
                decides depends on the inputs.
        """
        self.emulator, self.samples = emulator, samples
        self.expected: Tensors = list(emulator.run(Plan(), samples))
        names = emulator.network.outputs
        for index, name in enumerate(names):
            count = sum(not _is_number(sample[index]) for sample in self.expected)
            if count:
                sentence = returns_no_number("float", name, count)
                raise RunError(sentence, "check the weights, and the preprocessing of the inputs")
        rows = outputs.judged(compared_parts, names, self.expected, self.expected, is_real=False)
        self.parts = tuple(row.part for row in rows if row.record.decides)
        if not self.parts:
            raise RunError("no output depends on the inputs")
        index_of = {name: index for index, name in enumerate(names)}
        self._indices = [
            [index_of[name] for name in part.names if name in index_of] for part in self.parts
        ]
        self._every_part, self.names = tuple(compared_parts), names

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.samples)

    def outputs(self, plan: Plan) -> list[list[Array]]:
        """What the network gives under a plan, sample by sample.

        Raises:
            RunError: onnxruntime stops.
        """
        return list(self.emulator.run(plan, self.samples))

    def ratios(self, plan: Plan) -> Doubles:
        """Noise-to-signal ratios under a plan: ``(samples, deciding parts)``."""
        return self.ratios_of(self.outputs(plan))

    def ratios_of(self, actual: Tensors) -> Doubles:
        """The same of outputs that are there already."""
        columns = [
            _ratios(part, indices, self.expected, actual)
            for part, indices in zip(self.parts, self._indices, strict=True)
        ]
        return np.stack(columns, axis=1)

    def db(self, plan: Plan) -> float:
        """SQNR in dB of the worst output that decides, median over the samples."""
        return db_of(self.ratios(plan))

    def judged(self, actual: Tensors, *, is_real: bool) -> tuple[JudgedPart, ...]:
        """Every output, in the way of a verdict."""
        return outputs.judged(self._every_part, self.names, self.expected, actual, is_real=is_real)


def _is_number(output: Array) -> bool:
    return output.dtype.kind != "f" or bool(np.isfinite(output).all())


def db_of(ratios: Doubles) -> float:
    """SQNR in dB of the worst part, median over the samples; +infinity where nothing is lost."""
    worst = float(np.median(ratios, axis=0).max())
    return float(-10 * np.log10(worst)) if worst > 0 else np.inf


def safe_db(ratios: Doubles) -> float:
    """:func:`db_of` less two standard errors, but at most :data:`MOST_DOUBT_DB`.

    Of few inputs a value is known no better, and inputs that nobody has seen shall reach the goal
    as well.
    """
    if len(ratios) < 2:
        return db_of(ratios)
    each = -10 * np.log10(np.maximum(ratios.max(axis=1), 1e-30))
    doubt_db = 2 * float(np.std(each, ddof=1) / np.sqrt(len(each)))
    return db_of(ratios) - min(doubt_db, MOST_DOUBT_DB)


def gain_db(before: Doubles, after: Doubles) -> float:
    """By how much a change helps, in dB: median over the samples of what the worst part gains.

    Sample by sample: a picture that is harder than another one is so before and after.

    Args:
        before, after: noise-to-signal ratios, ``(samples, parts)``.
    """
    worst = [np.maximum(ratios.max(axis=1), 1e-30) for ratios in (before, after)]
    return float(np.median(10 * np.log10(worst[0] / worst[1])))


def _ratios(part: Part, indices: Sequence[int], expected: Tensors, actual: Tensors) -> Doubles:
    """Of each sample. Formulas: ``outputs.sqnr_db``, ``varying_sqnr_db``, ``figure_db``."""
    y = [[sample[index] for index in indices] for sample in expected]
    changed = [[sample[index] for index in indices] for sample in actual]
    varying = _varying(y, changed)
    if part.is_decoded and not part.decision and varying is not None:
        return varying / _MARGIN
    plain = np.array(
        [_plain(before, after) for before, after in zip(y, changed, strict=True)], np.float64
    )
    return plain if varying is None else np.maximum(plain, varying / _MARGIN)


def _plain(before: Sequence[Array], after: Sequence[Array]) -> float:
    signal = noise = 0.0
    for tensor, other in zip(before, after, strict=True):
        usable = np.isfinite(tensor)
        signal += float(np.sum(np.square(tensor[usable], dtype=np.float64)))
        noise += float(np.sum((other[usable].astype(np.float64) - tensor[usable]) ** 2))
    return _ratio(signal, noise)


def _varying(expected: Tensors, actual: Tensors) -> Doubles | None:
    """Of what differs from sample to sample; None with one sample, or samples of several shapes."""
    count = len(expected)
    if count < 2:
        return None
    signals, noises = np.zeros(count), np.zeros(count)
    for index in range(len(expected[0])):
        shapes = {sample[index].shape for sample in expected}
        if len(shapes) > 1:
            return None
        y = np.stack([sample[index] for sample in expected]).astype(np.float64).reshape(count, -1)
        errors = np.stack([sample[index] for sample in actual]).reshape(count, -1) - y
        usable = np.isfinite(y).all(axis=0)
        y, errors = y[:, usable], errors[:, usable]
        signals += np.square(y - y.mean(axis=0)).sum(axis=1)
        noises += np.square(errors - errors.mean(axis=0)).sum(axis=1)
    return np.array([_ratio(*pair) for pair in zip(signals, noises, strict=True)], np.float64)


def _ratio(signal: float, noise: float) -> float:
    if not np.isfinite(noise):
        return _LOST
    if noise == 0:
        return 0.0
    return min(noise / signal, _LOST) if signal > 0 else _LOST

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
                raise RunError(sentence, "check the weights and the preprocessing of the inputs")
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
    """Of each sample, as ``outputs.figure_db`` has it."""
    y = [[sample[index] for index in indices] for sample in expected]
    changed = [[sample[index] for index in indices] for sample in actual]
    varying = outputs.varying_energies(y, changed)
    plain = _over_signal(*outputs.energies(y, changed))
    if varying is None:
        return plain
    varying_ratios = _over_signal(*varying) / _MARGIN
    if part.is_decoded and not part.decision:
        return varying_ratios
    return np.maximum(plain, varying_ratios)


def _over_signal(signals: Doubles, noises: Doubles) -> Doubles:
    """Noise over signal; without a number, or without a signal, everything is lost."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(noises == 0, 0.0, noises / signals)
    return np.nan_to_num(np.minimum(ratios, _LOST), nan=_LOST)

"""Why a run has no value, in words for people; the store keeps the reason that it was given."""

from quantstore.errors import printable
from quantstore.records import (
    ABSORBED,
    INTEGERS_ON_GRID,
    RETURNS_THE_SAME,
    ROUNDS_NOTHING,
    WEIGHTS_ON_GRID,
)

_IN_WORDS = {
    INTEGERS_ON_GRID: "already quantized with this scheme; original loss unknown",
    WEIGHTS_ON_GRID: "the weights already have this format, so rounding changes nothing",
    RETURNS_THE_SAME: "int8 changes nothing, because the weights already have this format",
    ABSORBED: "the file's own quantizers absorb the rounding, so the outputs stay the same",
    ROUNDS_NOTHING: "this target rounds nothing that affects the outputs",
}


def reason(failure: str) -> str:
    """The reason without a full stop; printable, because it may quote a file."""
    return _IN_WORDS.get(failure, printable(failure).rstrip("."))

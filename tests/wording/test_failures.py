"""Why a run has no value, in words."""

import pytest

from quantstore.records import (
    ABSORBED,
    INTEGERS_ON_GRID,
    RETURNS_THE_SAME,
    ROUNDS_NOTHING,
    WEIGHTS_ON_GRID,
)
from quantstore.wording import failures


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (INTEGERS_ON_GRID, "already quantized with this scheme; original loss unknown"),
        (WEIGHTS_ON_GRID, "the weights already have this format, so rounding changes nothing"),
        (ABSORBED, "the file's own quantizers absorb the rounding, so the outputs stay the same"),
        (RETURNS_THE_SAME, "int8 changes nothing, because the weights already have this format"),
        (ROUNDS_NOTHING, "this target rounds nothing that affects the outputs"),
        ("no kernel for \x1b[1mFoo.", "no kernel for \\x1b[1mFoo"),
    ],
)
def test_a_reason_reads_as_a_clause(failure, said):
    assert failures.reason(failure) == said

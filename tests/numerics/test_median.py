"""The median: numpy's own is the reference, to the last bit."""

import subprocess
import sys

import numpy as np
import numpy.testing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quantstore.numerics.median import median


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64]),
        st.integers(1, 9),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=False),
    )
)
def test_it_is_numpys_to_the_last_bit(values):
    npt.assert_array_equal(median(values), float(np.median(values)))


def test_it_takes_lists_and_infinities():
    assert median([3, 1, 2]) == 2
    assert median([1.0, np.inf, 3.0]) == 3
    assert median([1.0, np.inf]) == np.inf


def test_it_does_not_load_masked_arrays():
    code = (
        "import sys; from quantstore.numerics.median import median; median([1, 2]);"
        " sys.exit('numpy.ma' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

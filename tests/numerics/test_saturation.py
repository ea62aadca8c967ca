"""Sums of two products in 16 bits, which clamp; on paper, and against saturating arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from quantstore.numerics.saturation import clamped_product, saturation


def row(*codes):
    return np.array([codes], np.uint8)


def column(*codes):
    return np.array(codes, np.int8)[:, None]


def test_the_example_of_the_instruction_clamps_at_the_largest_16_bit_number():
    # 255 * 127 * 2 = 64770 is beyond 32767.
    assert clamped_product(row(255, 255), column(127, 127)).item() == 32767
    assert clamped_product(row(255, 255), column(-128, -128)).item() == -32768


def test_neighbours_are_added_in_16_bits_and_pairs_in_32():
    data, weights = row(255, 255, 255, 255), column(127, 0, 127, 0)
    assert clamped_product(data, weights).item() == 2 * 255 * 127
    assert saturation(data, weights, 0).share == 0


def test_opposite_signs_in_a_pair_do_not_overflow():
    assert clamped_product(row(255, 255), column(127, -127)).item() == 0


def test_a_last_product_without_a_neighbour_fits():
    assert clamped_product(row(255, 255, 255), column(127, 127, 127)).item() == 32767 + 255 * 127


def test_weights_of_seven_bits_never_clamp():
    """Which is what ``reduce_range`` is for: 255 * 64 * 2 = 32640."""
    assert saturation(row(255, 255), column(-64, -64), 0) == saturation(row(0, 0), column(1, 1), 0)


def test_what_is_lost_is_held_against_the_sum_less_its_zero_point():
    # Exact: (255 - 55) * 254 = 50800. Lost: 64770 - 32767 = 32003.
    lost = saturation(row(255, 255), column(127, 127), 55)
    assert lost.share == 1
    assert lost.sqnr_db == pytest.approx(20 * np.log10(50800 / 32003))


@given(
    arrays.arrays(np.uint8, (3, 6)),
    arrays.arrays(np.int8, (6, 2)),
    st.integers(0, 255),
)
def test_without_a_clamped_sum_the_product_is_exact(data, weights, zero_point):
    exact = data.astype(np.int64) @ weights.astype(np.int64)
    clamped = clamped_product(data, weights)
    lost = saturation(data, weights, zero_point)
    # A clamped sum beside an exact one of zero is minus infinity: all of it is loss.
    assert (lost.share == 0) == np.isposinf(lost.sqnr_db)
    if lost.share == 0:
        np.testing.assert_array_equal(clamped, exact)

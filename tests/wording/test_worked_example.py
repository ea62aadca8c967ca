"""The worked example: what is read, where values go, and the sentences that say so.

Sentences stand here in full: this is their specification. The test of the page imports them.
"""

import math

import numpy as np
import pytest

from quantstore.numerics.quantization import measure_error
from quantstore.schemes import Scheme
from quantstore.wording import worked_example
from quantstore.wording.causes import BAND_LIMITS_DB
from quantstore.wording.worked_example import UnreadableValuesError, parse_values


def work_out(text, bits=8, is_symmetric=False):
    return worked_example.work_out(parse_values(text), Scheme("any", bits, "tensor", is_symmetric))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("1 two 3 four", "“two” is not a number; write"),
        ("1 nan", "“nan” cannot be placed on a grid"),
        ("-inf", "“-inf” cannot be placed on a grid"),
        ("1e999", "“1e999” cannot be placed on a grid"),
        ("1e31", "“1e31” is too large"),
        (" ".join(map(str, range(65))), "these are 65 values"),
        ("x" * 500, f"“{'x' * 23}…” is not a number"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(typed, said):
    with pytest.raises(UnreadableValuesError) as caught:
        parse_values(typed)
    assert caught.value.sentence.startswith(said)


@pytest.mark.parametrize(
    "text", ["1, 2, -3", "1 2 -3", "1;2;-3", "1\n2\t-3", "[1, 2, −3]", "((1,2,-3,))"]
)
def test_commas_spaces_semicolons_lines_and_brackets_separate(text):
    assert parse_values(text) == (1, 2, -3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("7", "A single value has nothing to merge with"),
        ("7, 7", "A single value has nothing to merge with"),
        ("0, 7", "The two values stay apart: each keeps a code of its own"),
        ("0, 7, 3", "No two of 3 values merge: each keeps a code of its own"),
        (
            worked_example.ARTICLE_VALUES,
            "4 of 6 values merge: 0.4 and −0.4 become 0.00; 0.5 and 1.2 become 0.85",
        ),
        ("100, 0.1, 0.1, -0.1", "2 of 3 values merge: 0.1 and −0.1 become 0.00"),
        (
            "255, 0, 10.1, 10.2, 20.1, 20.2, 30.1, 30.2, 40.1, 40.2, 50.1, 50.2",
            "10 of 12 values merge: 10.1 and 10.2 become 10.00; 20.1 and 20.2 become 20.00;"
            " 30.1 and 30.2 become 30.00; and 2 more groups",
        ),
        (
            "255, 0, 10.1, 10.2, 10.3, 9.9, 9.8, 20.1, 20.2",
            "7 of 9 values merge: 10.1, 10.2, 10.3 and 2 more become 10.00;"
            " 20.1 and 20.2 become 20.00",
        ),
    ],
)
def test_the_headline_counts_different_values_and_names_three_groups(text, said):
    assert worked_example.headline(work_out(text)) == said


def test_the_range_is_widened_to_include_zero():
    example = work_out("100, 101")
    assert (example.low, example.zero_point, example.codes) == (0, 0, (252, 255))


def test_values_that_are_all_zero_return_exactly():
    example = work_out("0, 0")
    assert example.returned == (0, 0)
    assert not example.has_range
    assert math.isnan(example.sqnr_db)


def test_figures_show_two_digits_below_the_step():
    assert worked_example.on_grid(-51.02824, 0.85047) == "−51.03"
    assert worked_example.on_grid(0.401569, 0.006275) == "0.4016"
    assert worked_example.on_grid(-0.001, 0.85) == "0.00"
    assert worked_example.on_grid(123456789.0, 2e6) == "1.235e+08"


def test_the_enlarged_stretch_holds_most_of_what_merged():
    assert list(worked_example.enlarged_codes(work_out("-51.35, 165.52, .4, -.4, .5, 1.2"))) == [
        59,
        60,
        61,
        62,
    ]
    # Two pairs far apart: the first of equals.
    assert list(worked_example.enlarged_codes(work_out("0, 255, 10.1, 10.2, 90.1, 90.2"))) == [
        9,
        10,
        11,
    ]
    assert worked_example.enlarged_codes(work_out("0, 255, 100")) is None


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("is_symmetric", [True, False])
def test_the_kernels_go_through_the_arithmetic_that_measures_models(bits, is_symmetric):
    layer = worked_example.kernels(100, Scheme("any", bits, "tensor", is_symmetric))
    weights = np.array([kernel.values for kernel in layer.kernels], dtype=np.float32)
    for granularity, measured in (("tensor", layer.shared_db), ("channel", layer.own_db)):
        error = measure_error(weights, Scheme("any", bits, granularity, is_symmetric))
        assert measured == pytest.approx(error.sqnr_db, abs=1e-6)
        own = [
            kernel.shared_db if granularity == "tensor" else kernel.own_db
            for kernel in layer.kernels
        ]
        assert own == pytest.approx(error.channel_sqnr_db.tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("widening", "said"),
    [
        (
            100,
            "2 of 3 channels are lost, although the whole tensor has 46.1 dB; per channel, none is",
        ),
        (1, "No channel is lost: all 3 reach 10 dB; the whole tensor has 50.3 dB"),
    ],
)
def test_the_headline_counts_the_lost_channels(widening, said):
    layer = worked_example.kernels(widening, Scheme("any", 8, "tensor", False))
    headline = worked_example.kernels_headline(layer, BAND_LIMITS_DB[0])
    assert headline.replace("\u00a0", " ") == said

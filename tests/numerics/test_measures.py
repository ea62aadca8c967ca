"""The measures of a layer, figure by figure, and what every entry must say."""

import numpy as np
import pytest

from quantstore.numerics.distribution import describe
from quantstore.numerics.measures import MEASURES, figures_of, lacking

# Two channels; 8 lies far beyond the fences, and NaN is left out of everything.
WEIGHTS = np.array([[-1, 0, 0, 1], [0, 1, 8, np.nan]], dtype=np.float32)
FINITE = WEIGHTS[np.isfinite(WEIGHTS)].astype(np.float64)
FIGURES = {
    "weight_min": -1,
    "weight_max": 8,
    "weight_range": 9,
    "abs_max": 8,
    "mean": FINITE.mean(),
    "std": FINITE.std(),
    "range_over_std": 9 / FINITE.std(),
    "q1": 0,
    "median": 0,
    "q3": 1,
    "kurtosis": np.mean((FINITE - FINITE.mean()) ** 4) / FINITE.std() ** 4,
    "zero_fraction": 3 / 7,
    "outlier_count": 1,
    "outlier_fraction": 1 / 7,
    "outlier_channel_count": 0,
    "dead_channel_count": 0,
    "channel_range_ratio": 8 / 5,
}


def test_every_figure_is_what_its_comment_says():
    assert figures_of(describe(WEIGHTS)) == pytest.approx(FIGURES)


def test_a_ratio_over_nothing_is_no_figure():
    constant = figures_of(describe(np.ones((2, 3), dtype=np.float32)))
    assert np.isnan(constant["range_over_std"])
    empty = figures_of(describe(np.full((1, 2), np.nan, dtype=np.float32)))
    assert np.isnan([empty["zero_fraction"], empty["outlier_fraction"]]).all()


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_an_entry_has_a_sentence_and_computes_its_type(measure):
    assert measure.meaning.endswith(".")
    figure = measure.of(describe(WEIGHTS))
    assert type(figure) is (float if measure.type == "double" else int)


def test_what_a_table_lacks_is_named_in_order():
    assert lacking(MEASURES) == []
    assert lacking(["layer", "mean", *list(MEASURES)[2:]]) == ["weight_min", "weight_max"]

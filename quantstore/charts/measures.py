"""The measures of a layer that charts can sort, place and hold against one another, by label.

Those of ``numerics.measures`` that charts are offered, and those that are derived in SQL: the view
``model_layers``, the table ``errors``, or the query behind the charts. One entry each.
"""

from dataclasses import replace

from quantstore.charts.compare import Measure
from quantstore.numerics.measures import MEASURES, ChartOffer
from quantstore.schemes import Scheme
from quantstore.wording.verdicts import NINE_IN_TEN

# What pages speak of by name.
WEIGHT_RANGE = "Weight range"
CHANNEL_SPREAD = "Channel spread"
SQNR = "SQNR"

_SPAN = "Range / rms"


def _span(grid: str) -> Measure:
    """What the grid of a scheme must cover; which one depends on the scheme."""
    return Measure(
        column=f"{grid}_span_over_rms",
        label=_SPAN,
        title=f"range of the {grid} grid / rms weight",
        short_title="range / rms",
        axis="log",
        # These spans lie within two decades.
        bins_per_decade=20,
        explanation=(
            "The range of the grid divided by the root mean square weight. It sets the"
            " SQNR of the whole tensor (second line of the axis), but says nothing about"
            " single channels."
        ),
    )


# Linear axes have about twenty bins over what networks have.
_DERIVED = (
    Measure(
        column="channel_spread_bits",
        label=CHANNEL_SPREAD,
        title="channel spread of a layer, bits",
        short_title="spread",
        axis="linear",
        bin_width=0.5,
        explanation=(
            "Channel spread is log2 of the widest channel's range over the median"
            " channel's range: the number of bits that a typical channel loses when all"
            " channels share one scale."
        ),
    ),
    _span("symmetric"),
    Measure(
        column="outlier_percent",
        label="Outlier share",
        title="outlier share of a layer's weights, %",
        short_title="outliers",
        axis="linear",
        bin_width=2.0,
        explanation=(
            "Share of weights more than 1.5 interquartile ranges beyond the quartiles of"
            " the tensor; 0.7 % for a Gaussian."
        ),
    ),
    Measure(
        column="channel_sqnr_p10_db",
        label=SQNR,
        title=f"{NINE_IN_TEN}, dB",
        axis="linear",
        bin_width=2.0,
        explanation="The bands are based on this measure: further left is worse.",
    ),
    Measure(
        column="sqnr_db",
        label="Tensor SQNR",
        title="SQNR of the whole tensor, dB",
        short_title="tensor",
        axis="linear",
        bin_width=2.0,
        explanation=(
            "The SQNR of the whole tensor hides weak channels: a layer can be broken"
            " although this value is high."
        ),
    ),
)


def _offered(column: str, offer: ChartOffer) -> Measure:
    return Measure(
        column=column,
        label=offer.label,
        title=offer.title,
        short_title=offer.short_title,
        axis=offer.axis,
        bins_per_decade=offer.bins_per_decade,
        bin_width=offer.bin_width,
        explanation=offer.explanation,
    )


_BY_LABEL = {
    measure.label: measure
    for measure in (
        *(
            _offered(measure.column, measure.chart)
            for measure in MEASURES.values()
            if measure.chart is not None
        ),
        *_DERIVED,
    )
}
# The words of a control, in its order.
LABELS = tuple(_BY_LABEL)


def measure_of(label: str, scheme: Scheme) -> Measure:
    """A measure by one of ``LABELS``, as it is drawn under a scheme."""
    if label == _SPAN:
        span = _span("symmetric" if scheme.is_symmetric else "asymmetric")
        # The law of uniform noise is one of the whole tensor and its one scale.
        return replace(span, has_db_labels=not scheme.is_per_channel)
    return _BY_LABEL[label]

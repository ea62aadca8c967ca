"""The measures of a layer that charts can sort, place and hold against one another."""

from quantstore.charts.compare import Axis, Measure
from quantstore.schemes import Scheme

SQNR = "SQNR"
# By the words of a control; a measure's column may depend on the scheme.
LABELS = (
    "Weight range",
    "Channel spread",
    "Range / rms",
    "Outlier share",
    SQNR,
    "Tensor SQNR",
)

_TITLES = {
    "weight_range": "weight range of a layer, max − min, in weight units",
    "channel_spread_bits": "channel spread of a layer, bits",
    "symmetric_span_over_rms": "range of the symmetric grid over rms weight",
    "asymmetric_span_over_rms": "range of the asymmetric grid over rms weight",
    "outlier_percent": "outlier share of a layer's weights, %",
    "channel_sqnr_p10_db": "SQNR that nine in ten channels reach, dB",
    "sqnr_db": "SQNR of the whole tensor, dB",
}
# Linear axes: about twenty bins over what networks have.
_BIN_WIDTHS = {"channel_spread_bits": 0.5, "outlier_percent": 2.0}
_SQNR_BIN_DB = 2.0
# Spans over rms lie within two decades.
_SPAN_BINS_PER_DECADE = 20


def measure_of(label: str, scheme: Scheme, *, axis: Axis | None = None) -> Measure:
    """A measure by one of ``LABELS``, as it is drawn under a scheme.

    Args:
        axis: how the axis is divided; what suits the measure unless told otherwise.
    """
    column = _column(label, scheme)
    is_span = column.endswith("_over_rms")
    return Measure(
        column=column,
        title=_TITLES[column],
        axis=axis or ("log" if is_span or column == "weight_range" else "linear"),
        bins_per_decade=_SPAN_BINS_PER_DECADE if is_span else 10,
        bin_width=_BIN_WIDTHS.get(column, _SQNR_BIN_DB),
        # The law of uniform noise is one of the whole tensor and its one scale.
        has_db_labels=is_span and not scheme.is_per_channel,
    )


def _column(label: str, scheme: Scheme) -> str:
    span = "symmetric_span_over_rms" if scheme.is_symmetric else "asymmetric_span_over_rms"
    return {
        "Weight range": "weight_range",
        "Channel spread": "channel_spread_bits",
        "Range / rms": span,
        "Outlier share": "outlier_percent",
        SQNR: "channel_sqnr_p10_db",
        "Tensor SQNR": "sqnr_db",
    }[label]

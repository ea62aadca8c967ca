"""Weights that nobody can have learned: the ramp with which a convolution computes a mean."""

from collections.abc import Iterator

import numpy as np

from quantstore.graph.findings.base import MeasuredLayer, OfLayer, Sentences

# A ramp of fewer weights may be learned by chance.
_SHORTEST_RAMP = 4


def _look(measured: MeasuredLayer) -> Iterator[Sentences]:
    layer = measured.layer
    weights = layer.weights
    if layer.op_family != "conv" or weights.shape[1] < _SHORTEST_RAMP or layer.group_count > 1:
        return
    first = weights[0].astype(np.float64)
    # The ends first: most layers hold something else, and NaN and infinities are no ramp.
    step = float(first[1]) - float(first[0])
    if not np.isfinite(first[[0, 1, -1]]).all() or step == 0:
        return
    ramp = first[0] + step * np.arange(first.size)
    # The last weights tell nearly all layers apart without a pass over the rest.
    for part in (np.s_[-1:], np.s_[:]):
        if not np.allclose(weights[:, part], ramp[part], rtol=1e-3, atol=1e-3 * abs(step)):
            return
    yield Sentences(
        f"The weights are a ramp from {first[0]:.4g} to {ramp[-1]:.4g} and were not learned: the"
        " layer computes a mean of positions, as in distribution focal loss (YOLO and others).",
        "Exclude the node from quantization: its rounding error directly shifts the decoded boxes.",
    )


NOT_LEARNED = OfLayer(
    name="not learned",
    severity="note",
    meaning="The weights of a convolution are a ramp, as in the distribution focal loss of YOLO.",
    look=_look,
)

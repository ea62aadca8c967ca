"""The median of a few numbers, without what numpy loads for its own."""

import numpy as np
import numpy.typing as npt


def median(values: npt.ArrayLike) -> float:
    """The middle one of some numbers, the mean of both where two are; NaN where one is NaN.

    What ``np.median`` gives, to the last bit. That imports ``numpy.ma``, which takes as long as
    probing a small model does.

    Args:
        values: at least one, in any shape.
    """
    ordered = np.sort(np.ravel(values))
    # NaN comes last.
    if np.isnan(ordered[-1]):
        return float("nan")
    middle = ordered.size // 2
    return float(ordered[middle - 1 + ordered.size % 2 : middle + 1].mean())

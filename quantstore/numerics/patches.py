"""What a convolution multiplies its kernels with, position by position: views into an image."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from quantstore.records import Array


def windows(
    image: Array,
    kernel: Sequence[int],
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    filling: float = 0,
) -> Array:
    """The windows of an image: ``(channels, *positions, *kernel)``, a view of a padded copy.

    Where ``auto_pad`` stands in place of pads, windows at the border are left out.

    Args:
        image: ``(channels, *sizes)``.
        pads: before each axis, then behind each, as ONNX has them.
        filling: what lies around the image.
    """
    rank = len(kernel)
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    # A kernel larger than the image has one window all the same.
    lacks = [
        max(0, far - before - after - size)
        for far, before, after, size in zip(
            reach, pads[:rank], pads[rank:], image.shape[1:], strict=True
        )
    ]
    padding = [
        (before, after + lack)
        for before, after, lack in zip(pads[:rank], pads[rank:], lacks, strict=True)
    ]
    padded = np.pad(image, [(0, 0), *padding], constant_values=filling)
    axes = tuple(range(1, rank + 1))
    views = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=axes)
    steps: list[Any] = [slice(None, None, step) for step in (1, *strides, *dilations)]
    return np.asarray(views[tuple(steps)])

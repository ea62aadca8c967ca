"""Windows of an image, held against the convolution that onnxruntime computes of them."""

import numpy as np
import pytest

from quantstore.numerics.patches import windows
from tests.support.graphs import conv_model, run


@pytest.mark.parametrize(
    ("strides", "dilations", "pads"),
    [([1, 1], [1, 1], [0] * 4), ([2, 1], [1, 1], [1, 0, 2, 1]), ([1, 2], [2, 3], [2, 3, 2, 3])],
)
def test_kernels_times_windows_is_the_convolution(strides, dilations, pads):
    random = np.random.default_rng(0)
    image = random.normal(size=(3, 11, 12)).astype(np.float32)
    kernels = random.normal(size=(5, 3, 3, 2)).astype(np.float32)
    views = windows(image, (3, 2), strides=strides, dilations=dilations, pads=pads)
    ours = np.einsum("chwij,ocij->ohw", views, kernels)
    model = conv_model(kernels, strides=strides, dilations=dilations, pads=pads)
    (theirs,) = run(model, x=image[None])
    assert ours.shape == theirs.shape[1:]
    assert np.allclose(ours, theirs[0], atol=1e-4)


def test_what_lies_around_the_image_can_be_another_number():
    views = windows(
        np.zeros((1, 2, 2)), (2, 2), strides=[1, 1], dilations=[1, 1], pads=[1] * 4, filling=7
    )
    assert views[0, 0, 0].tolist() == [[7, 7], [7, 0]]

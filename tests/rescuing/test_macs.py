"""MACs, held against the arithmetic of each operator."""

import numpy as np
import pytest

from quantstore.rescuing.macs import count_macs
from quantstore.run import network
from tests.support.graphs import float_value, gaussian, make_model, node


def counted(tmp_path, nodes, weights, shape):
    model = make_model(nodes, weights)
    model.graph.input[0].CopyFrom(float_value("x", list(shape)))
    return count_macs(network.prepare(model, ("y",), tmp_path, fold=True))


@pytest.mark.parametrize(
    ("weights", "attributes", "expected"),
    [
        # Outputs x input channels of a group x kernel.
        ((8, 4, 3, 3), {"pads": [1] * 4}, 8 * 100 * 4 * 9),
        ((8, 1, 3, 3), {"pads": [1] * 4, "group": 4}, 8 * 100 * 9),
        ((8, 4, 3, 3), {"pads": [1] * 4, "strides": [2, 2]}, 8 * 25 * 4 * 9),
    ],
)
def test_a_convolution(tmp_path, weights, attributes, expected):
    nodes = [node("Conv", ["x", "w"], ["y"], "conv", **attributes)]
    macs = counted(tmp_path, nodes, {"w": gaussian(*weights)}, (1, 4, 10, 10))
    assert macs.total == expected


def test_a_transposed_convolution_multiplies_every_input_by_every_kernel(tmp_path):
    nodes = [node("ConvTranspose", ["x", "w"], ["y"], "up", strides=[2, 2])]
    macs = counted(tmp_path, nodes, {"w": gaussian(4, 6, 2, 2)}, (1, 4, 5, 5))
    assert macs.total == 4 * 25 * 6 * 4


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_matrix_product(tmp_path, transposed):
    weights = gaussian(7, 5) if transposed else gaussian(5, 7)
    nodes = [node("Gemm", ["x", "w"], ["y"], "gemm", transB=transposed)]
    assert counted(tmp_path, nodes, {"w": weights}, (3, 5)).total == 3 * 5 * 7


def test_a_product_of_two_activations(tmp_path):
    nodes = [
        node("Transpose", ["x"], ["t"], "turn", perm=[0, 2, 1]),
        node("MatMul", ["x", "t"], ["p"], "scores"),
        node("MatMul", ["p", "w"], ["y"], "head"),
    ]
    macs = counted(tmp_path, nodes, {"w": gaussian(4, 2)}, (1, 4, 6))
    assert macs.of_node["scores"] == 4 * 4 * 6
    assert set(macs.nodes_of("x")) == {"scores"}


def test_what_leaves_int8_takes_its_products_along_once(tmp_path):
    nodes = [
        node("Conv", ["x", "w"], ["h"], "first"),
        node("Conv", ["h", "v"], ["y"], "second"),
    ]
    weights = {"w": gaussian(4, 4, 1, 1), "v": gaussian(4, 4, 1, 1)}
    macs = counted(tmp_path, nodes, weights, (1, 4, 5, 5))
    first, second = macs.nodes_of("x"), macs.nodes_of("h")
    assert (first, second) == (("first",), ("second",))
    slot = next(name for name in macs.reading if macs.nodes_of(name) == second and name != "h")
    assert macs.share_in_int8(frozenset()) == 1
    assert macs.share_in_int8(frozenset(["h"])) == 0.5
    # The tensor and the weights belong to the same products.
    assert macs.share_in_int8(frozenset(["h", slot])) == 0.5
    assert np.isclose(macs.share_in_int8(frozenset(["h", "x"])), 0)

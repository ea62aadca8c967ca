"""How large a value can become, by the graph alone."""

import numpy as np
import pytest

from quantstore.graph import bounds, open_model
from quantstore.graph.bounds import largest_of
from tests.support.graphs import gaussian, make_model, node, save

CONSTANTS = {
    "three": np.array([-3.0, 2.0], dtype=np.float32),
    "half": np.array([0.5], dtype=np.float32),
    "two": np.array([2.0], dtype=np.float32),
    "zero": np.array([0.0], dtype=np.float32),
    "true": np.array([True]),
}


def bound_of(tmp_path, operator, *inputs, opset=17, **attributes):
    """Of what one operator makes of scores up to 1 (``s``), of an input ``x``, of constants."""
    nodes = [node("Sigmoid", ["x"], ["s"]), node(operator, inputs, ["y"], **attributes)]
    model = make_model(nodes, CONSTANTS, opset=opset)
    file = open_model(save(model, tmp_path / "net.onnx"))
    return largest_of(file.model.graph.outputs[0], file.opset)


@pytest.mark.parametrize(
    ("operator", "inputs", "bound"),
    [
        ("Mul", ["s", "three"], 3.0),
        ("Mul", ["s", "x"], None),
        ("Add", ["s", "three"], 4.0),
        ("Sub", ["three", "s"], 4.0),
        ("Sum", ["s", "s", "two"], 4.0),
        ("Div", ["s", "half"], 2.0),
        ("Div", ["s", "zero"], None),
        ("Div", ["s", "x"], None),
        ("Div", ["x", "half"], None),
        ("Pow", ["s", "two"], 1.0),
        ("Pow", ["s", "three"], None),
        ("Sqrt", ["s"], 1.0),
        ("Max", ["s", "three"], 3.0),
        ("Min", ["s", "x"], None),
        ("Where", ["true", "s", "two"], 2.0),
        ("Where", ["true", "s", "x"], None),
        ("Relu", ["s"], 1.0),
        ("Relu", ["x"], None),
        ("Softplus", ["s"], None),
    ],
)
def test_bounds_follow_from_the_operators(tmp_path, operator, inputs, bound):
    assert bound_of(tmp_path, operator, *inputs) == (
        None if bound is None else pytest.approx(bound)
    )


def test_what_lies_before_a_convolution_is_not_looked_at(tmp_path, monkeypatch):
    nodes = [
        node("Mul", ["x", "scale"], ["scaled"]),
        node("Conv", ["scaled", "w"], ["c"]),
        node("Mul", ["c", "scale"], ["y"]),
    ]
    weights = {"w": gaussian(4, 3, 3, 3), "scale": np.array([2.0], dtype=np.float32)}
    file = open_model(save(make_model(nodes, weights), tmp_path / "net.onnx"))
    read = []
    monkeypatch.setattr(bounds, "constant_values", lambda value, _: read.append(value.name))
    assert largest_of(file.model.graph.outputs[0], file.opset) is None
    assert read == [], "no weight is read to learn that a convolution has no bound"

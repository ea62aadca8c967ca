"""What an integer file keeps of its own weights with float activations."""

import numpy as np
import onnx
import pytest

from quantstore.run import stored_grids
from quantstore.run.comparison import sqnr_db
from quantstore.run.runtime import Session
from quantstore.run.stored_rounding import stored_rounding
from tests.support.graphs import gaussian, make_model, node, save
from tests.support.pairs import quantized, samples_of, saved_network

CODES = np.int8


def rounding(name, scale, source=None):
    """QuantizeLinear and DequantizeLinear around a tensor, and their constants."""
    constants = {f"{name}_s": np.float32(scale), f"{name}_z": np.array(0, CODES)}
    nodes = [
        node("QuantizeLinear", [source or name, f"{name}_s", f"{name}_z"], [f"{name}_q"]),
        node("DequantizeLinear", [f"{name}_q", f"{name}_s", f"{name}_z"], [f"{name}_d"]),
    ]
    return nodes, constants


def unequal_residual(end=1.0, opset=17):
    """A residual whose sum is rounded to a grid that ends at ``end``."""
    weights = {"w0": gaussian(16, 3, 3, 3) / 3, "w1": gaussian(16, 16, 1, 1) / 8}
    weights["w2"] = gaussian(8, 16, 1, 1, seed=3) / 3
    constants, nodes = {}, []
    for name, array in weights.items():
        scale = np.float32(np.abs(array).max() / 127)
        constants[f"{name}_i"] = np.rint(array / scale).astype(CODES)
        constants |= {f"{name}_s": scale, f"{name}_z": np.array(0, CODES)}
        nodes.append(node("DequantizeLinear", [f"{name}_i", f"{name}_s", f"{name}_z"], [name]))

    def add(new_nodes, new_constants=None):
        nodes.extend(new_nodes)
        constants.update(new_constants or {})

    add(*rounding("x", 4 / 127))
    add([node("Conv", ["x_d", "w0"], ["a"], "stem", pads=[1] * 4), node("Relu", ["a"], ["ar"])])
    add(*rounding("ar", 6 / 127))
    add([node("Conv", ["ar_d", "w1"], ["c"], "branch")])
    add([node("Add", ["ar_d", "c"], ["sum"], "add")])
    add(*rounding("sum", end / 127))
    add([node("Conv", ["sum_d", "w2"], ["y"], "head")])
    return make_model(nodes, constants, opset=opset)


def without_roundings(model):
    """The same with float activations: every pair on an activation taken out by hand."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    names = {tensor.name for tensor in model.graph.initializer}
    quantizers = {
        item.output[0]: item.input[0]
        for item in model.graph.node
        if item.op_type == "QuantizeLinear"
    }
    passed = {
        item.output[0]: quantizers[item.input[0]]
        for item in model.graph.node
        if item.op_type == "DequantizeLinear" and item.input[0] not in names
    }
    kept = [
        item
        for item in model.graph.node
        if item.op_type != "QuantizeLinear" and item.output[0] not in passed
    ]
    for item in kept:
        item.input[:] = [passed.get(name, name) for name in item.input]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def feeds(count=4):
    random = np.random.default_rng(3)
    return [{"x": random.normal(size=(1, 3, 16, 16)).astype(np.float32)} for _ in range(count)]


def test_the_file_is_held_against_its_own_weights_with_float_activations(tmp_path):
    model = unequal_residual()
    shown = stored_rounding(save(model, tmp_path / "net.onnx"), feeds())
    as_stored, in_float = Session(model), Session(without_roundings(model))
    figures = [sqnr_db(in_float.run(sample)[0], as_stored.run(sample)[0]) for sample in feeds()]
    assert shown.output_sqnr_db == pytest.approx(float(np.median(figures)), abs=0.1)
    (saturated,) = shown.saturated
    assert saturated.name == "sum (sum_d)"
    assert (saturated.low, saturated.high) == pytest.approx((-128 / 127, 1.0))
    assert saturated.share > 0.1


def test_a_grid_that_is_wide_enough_saturates_nowhere(tmp_path):
    shown = stored_rounding(save(unequal_residual(end=8.0), tmp_path / "net.onnx"), feeds())
    assert shown.saturated == ()
    assert shown.output_sqnr_db > 20


def test_a_float_file_stores_no_rounding(tmp_path):
    assert stored_rounding(saved_network(tmp_path), samples_of(1)) is None


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_a_relu_that_the_quantizer_dropped_stays_where_nothing_is_rounded(tmp_path, form):
    float_path = saved_network(tmp_path)
    path = quantized(float_path, tmp_path / "int8.onnx", form)
    assert stored_rounding(path, samples_of(2)).output_sqnr_db > 25


def test_ends_of_a_grid_stand_for_a_relu_where_codes_begin_at_zero(tmp_path):
    path = quantized(saved_network(tmp_path), tmp_path / "int8.onnx", "qdq")
    bounds = {
        str(grid.source.name): stored_grids.kept_bounds(grid)
        for grid in stored_grids.open_rounding(path).grids
    }
    assert bounds["x"] == stored_grids.Bounds()
    relu = next(one for name, one in bounds.items() if name.startswith("stem"))
    assert (relu.low, relu.high) == (0.0, np.inf)


def test_an_older_operator_set_is_raised(tmp_path):
    model = unequal_residual(opset=12)
    shown = stored_rounding(save(model, tmp_path / "net.onnx"), feeds())
    now = stored_rounding(save(unequal_residual(), tmp_path / "new.onnx"), feeds())
    assert shown.output_sqnr_db == pytest.approx(now.output_sqnr_db, abs=0.01)

"""Operators that dequantize for themselves, back in float; onnxruntime is the referee."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from quantstore.graph.operators import MICROSOFT
from quantstore.run import twin
from quantstore.run.comparison import sqnr_db
from quantstore.run.runtime import Session
from quantstore.schemes import SCHEMES
from tests.support.graphs import gaussian, make_model, node, save

ROWS, WIDTH = 6, 8
SCALE, ZERO = np.float32(0.01), np.array(3, np.int8)
DATA_SCALE, DATA_ZERO = np.float32(0.04), np.array(120, np.uint8)


def codes(*shape, seed=0):
    return np.random.default_rng(seed).integers(-127, 128, shape, dtype=np.int8)


def rounded_data():
    """The data as codes, rounded at run time."""
    return node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"])


def product_in_floats():
    inputs = ["xq", "w", "xs", "ws", "xz", "wz", "b"]
    product = node("MatMulIntegerToFloat", inputs, ["y"], "product", domain=MICROSOFT)
    return [rounded_data(), product], {"w": codes(WIDTH, 5), "b": gaussian(5)}


def dynamic_product():
    product = node(
        "DynamicQuantizeMatMul", ["x", "w", "ws", "wz", "b"], ["y"], "product", domain=MICROSOFT
    )
    return [product], {"w": codes(WIDTH, 5), "b": gaussian(5)}


def attention(quantizer):
    inputs = ["xq", "w", "b", "xs", "ws", "", "xz", "wz"]
    return [quantizer, node("QAttention", inputs, ["y"], "heads", domain=MICROSOFT, num_heads=2)]


def dynamic_attention():
    return attention(rounded_data()), {"w": codes(WIDTH, 24), "b": gaussian(24)}


def static_attention():
    quantizer = node("QuantizeLinear", ["x", "xs", "xz"], ["xq"])
    constants = {"w": codes(WIDTH, 24), "b": gaussian(24), "xs": DATA_SCALE, "xz": DATA_ZERO}
    return attention(quantizer), constants


def recurrent(scale, zero):
    inputs = ["x", "w", "r", "b", "", "", "", "", "ws", "wz", "rs", "rz"]
    layer = node(
        "DynamicQuantizeLSTM",
        inputs,
        ["y", "h", "c"],
        "cell",
        domain=MICROSOFT,
        hidden_size=4,
        direction="bidirectional",
    )
    constants = {
        "w": codes(2, WIDTH, 16),
        "r": codes(2, 4, 16, seed=1),
        "b": gaussian(2, 32),
        **{"ws": scale, "wz": zero, "rs": scale / 2, "rz": zero},
    }
    return [layer], constants


def recurrent_per_tensor():
    return recurrent(np.array([0.02, 0.01], np.float32), np.array([2, -3], np.int8))


def recurrent_per_channel():
    scale = np.float32(0.005 + 0.02 * np.abs(gaussian(2, 16)))
    return recurrent(scale, np.zeros((2, 16), np.int8))


def bias_in_integers():
    """As early releases of quantize_dynamic write a convolution."""
    nodes = [
        node("Reshape", ["x", "image"], ["x4"]),
        node("DynamicQuantizeLinear", ["x4"], ["xq", "xs", "xz"]),
        node("Mul", ["xs", "ws"], ["step"]),
        node("Div", ["b", "step"], ["units"]),
        node("Floor", ["units"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["counts"], to=TensorProto.INT32),
        node("Reshape", ["counts", "channels"], ["column"]),
        node("ConvInteger", ["xq", "w", "xz", "wz"], ["sums"], "conv", kernel_shape=[3, 3]),
        node("Add", ["sums", "column"], ["with_bias"]),
        helper.make_node("Cast", ["with_bias"], ["counted"], to=TensorProto.FLOAT),
        node("Mul", ["xs", "ws"], ["step_again"]),
        node("Mul", ["counted", "step_again"], ["y"]),
    ]
    constants = {
        "w": codes(5, 1, 3, 3).astype(np.int16).clip(-120, 120).astype(np.int8),
        "b": gaussian(5),
        "image": np.array([1, 1, ROWS, WIDTH], np.int64),
        "channels": np.array([1, 5, 1, 1], np.int64),
    }
    return nodes, constants


FORMS = [
    product_in_floats,
    dynamic_product,
    dynamic_attention,
    static_attention,
    recurrent_per_tensor,
    recurrent_per_channel,
    bias_in_integers,
]


@pytest.fixture(params=FORMS, ids=lambda form: form.__name__)
def integer_file(request, tmp_path):
    nodes, constants = request.param()
    read = {name for one in nodes for name in one.input}
    scales = {name: array for name, array in {"ws": SCALE, "wz": ZERO}.items() if name in read}
    every_output = tuple(name for name in nodes[-1].output)
    model = make_model(
        nodes, {**{k: np.asarray(v) for k, v in scales.items()}, **constants}, outputs=every_output
    )
    model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return save(model, tmp_path / "integers.onnx")


def test_it_becomes_the_float_operator_of_its_own_weights(integer_file):
    model = twin.open_float(integer_file)
    assert model.was_quantized
    left = {one.op_type for one in model.model.graph}
    assert not {name for name in left if "Integer" in name or name.startswith(("Q", "Dynamic"))}
    x = gaussian(1, ROWS, WIDTH, seed=7)
    known = Session(integer_file).run({"x": x})
    found = Session(twin.to_proto(model)).run({"x": x})
    for stored, restored in zip(known, found, strict=True):
        # The rounding of the activations is all that differs.
        assert sqnr_db(stored, restored) > 28


def test_its_weights_lie_on_a_grid_of_their_own_and_can_be_exchanged(integer_file):
    model = twin.open_float(integer_file)
    lifted = twin.lift_weights(model)
    assert not lifted.packed
    for slot in lifted.slots:
        weights = twin.float_weights(slot)
        assert weights.dtype == np.float32
        rounded = twin.rounded_weights(model, slot, SCHEMES["int8_tensor_asymmetric"]).values
        assert sqnr_db(weights, rounded) > 28


def test_embeddings_of_a_quantized_transformer(tmp_path):
    constants = {
        "words": codes(12, WIDTH),
        "places": codes(ROWS, WIDTH, seed=1),
        "parts": codes(2, WIDTH, seed=2),
        "gamma": codes(WIDTH, seed=3),
        "beta": codes(WIDTH, seed=4),
        **{f"s{index}": np.float32(0.01 * (index + 1)) for index in range(5)},
        **{f"z{index}": np.array(index, np.int8) for index in range(5)},
    }
    inputs = ["ids", "kinds", "words", "places", "parts", "gamma", "beta", ""]
    inputs += [f"s{index}" for index in range(5)] + [f"z{index}" for index in range(5)]
    layer = node("QEmbedLayerNormalization", inputs, ["y", "lengths"], "embed", domain=MICROSOFT)
    model = make_model([layer], constants, inputs=())
    model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    for name in ("ids", "kinds"):
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT32, [1, ROWS]))
    path = save(model, tmp_path / "embed.onnx")
    feeds = {"ids": np.arange(ROWS, dtype=np.int32)[None], "kinds": np.zeros((1, ROWS), np.int32)}
    restored = twin.open_float(path)
    assert [one.op_type for one in restored.model.graph] == ["EmbedLayerNormalization"]
    (known,), (found,) = (Session(model).run(feeds) for model in (path, twin.to_proto(restored)))
    np.testing.assert_allclose(found, known, atol=1e-4)


def test_codes_that_cannot_be_restored_are_never_exchanged_for_floats(tmp_path):
    """Cut off to integers, the weights of a layer with a scale of 0.01 would all become zeros."""
    inputs = ["x", "xs", "xz", "w", "ws", "wz", "ys", "xz"]
    constants = {"w": codes(WIDTH, 5), "ws": SCALE, "wz": ZERO}
    constants |= {"xs": DATA_SCALE, "xz": DATA_ZERO, "ys": DATA_SCALE}
    model = make_model([node("QLinearMatMul", inputs, ["y"], "product")], constants)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.UINT8
    lifted = twin.lift_weights(twin.open_float(save(model, tmp_path / "codes.onnx")))
    assert (lifted.slots, lifted.packed) == ((), ("product",))

"""Large initializers stay in the bytes of a file: the message and they are what protobuf reads."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from quantstore.errors import ModelFileError
from quantstore.graph import large_tensors
from quantstore.graph.file import open_model
from quantstore.graph.large_tensors import LARGE_BYTES, parse_apart
from tests.support.graphs import gaussian, layers_of, make_model, node, save


@pytest.fixture(autouse=True)
def _small_ones_are_large(monkeypatch):
    monkeypatch.setattr(large_tensors, "LARGE_BYTES", 24)
    monkeypatch.setattr(large_tensors, "LARGE_FILE_BYTES", 24)


def model_of(*tensors, repeats=1):
    reading = [node("Identity", [tensor.name], [f"y{n}"]) for n, tensor in enumerate(tensors)]
    graph = helper.make_graph(reading * repeats, "g", [], [], initializer=tensors)
    return helper.make_model(graph)


def with_numbers(content):
    """The message with every number put back."""
    model, apart = parse_apart(content)
    for tensor in model.graph.initializer:
        if tensor.name in apart:
            large = apart[tensor.name]
            assert not tensor.HasField("raw_data")
            tensor.raw_data = large.content[large.start : large.stop]
    return model, apart


DTYPES = [np.float32, np.float16, np.float64, np.int8, np.uint8, np.int64, ml_dtypes.bfloat16]
TENSORS = st.lists(
    st.builds(
        lambda dtype, shape, name: numpy_helper.from_array(np.ones(shape, dtype=dtype), name),
        st.sampled_from(DTYPES),
        st.lists(st.integers(0, 9), max_size=3),
        st.sampled_from("abcdef"),
    ),
    max_size=4,
)


@given(tensors=TENSORS)
def test_the_message_and_what_lies_apart_are_the_model(tensors):
    model = model_of(*tensors)
    again, apart = with_numbers(model.SerializeToString())
    assert again == model
    if len({tensor.name for tensor in tensors}) == len(tensors):
        plain = {np.dtype(dtype) for dtype in DTYPES[:5]}
        large = {
            tensor.name
            for tensor in tensors
            if len(tensor.raw_data) >= 24 and numpy_helper.to_array(tensor).dtype in plain
        }
        # The whole message of a tensor has to be large as well, which costs nothing here.
        assert set(apart) == large


BASE = model_of(
    numpy_helper.from_array(gaussian(5, 4), "first"), numpy_helper.from_array(gaussian(3, 4), "x")
).SerializeToString()


@given(place=st.integers(0, len(BASE) - 1), byte=st.integers(0, 255), end=st.integers(1, len(BASE)))
@example(place=0, byte=0, end=len(BASE))
def test_whatever_the_bytes_are_protobuf_has_the_last_word(place, byte, end):
    content = bytearray(BASE)
    content[place] = byte
    content = bytes(content[:end])
    try:
        expected = onnx.load_model_from_string(content)
    except DecodeError:
        with pytest.raises(DecodeError):
            parse_apart(content)
        return
    assert with_numbers(content)[0].SerializeToString() == expected.SerializeToString()


def test_graphs_that_protobuf_merges_stay_in_the_message():
    first = model_of(numpy_helper.from_array(gaussian(5, 4), "a")).SerializeToString()
    second = model_of(numpy_helper.from_array(gaussian(5, 4), "b")).SerializeToString()
    model, apart = parse_apart(first + second)
    assert [tensor.name for tensor in model.graph.initializer] == ["a", "b"]
    assert not apart


def test_a_name_that_two_tensors_share_stays_in_the_message():
    tensors = [numpy_helper.from_array(gaussian(5, 4), "same") for _ in range(2)]
    model, apart = parse_apart(model_of(*tensors).SerializeToString())
    assert all(tensor.HasField("raw_data") for tensor in model.graph.initializer)
    assert not apart


@pytest.mark.parametrize(
    "change",
    [
        {"dims": [7, 4]},
        {"dims": [-5, -4]},
        {"data_type": TensorProto.STRING},
        {"data_location": TensorProto.EXTERNAL},
        {"float_data": [1.0]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_tensor_that_is_not_what_it_says_stays_in_the_message(change):
    tensor = numpy_helper.from_array(gaussian(5, 4), "a")
    for name in change:
        tensor.ClearField(name)
    tensor.MergeFrom(TensorProto(**change))
    content = model_of(tensor).SerializeToString()
    model, apart = parse_apart(content)
    assert model == onnx.load_model_from_string(content)
    assert not apart


@pytest.mark.parametrize("comment", ["", "a", "ab", "abc"])
def test_weights_are_read_from_any_address(tmp_path, monkeypatch, comment):
    monkeypatch.setattr(large_tensors, "LARGE_BYTES", LARGE_BYTES)
    weights = gaussian(64, 32, 3, 3)
    model = make_model([node("Conv", ["x", "w"], ["y"])], {"w": weights})
    model.graph.initializer[0].doc_string = comment
    path = save(model, tmp_path / "net.onnx")
    assert parse_apart(path.read_bytes())[1]
    (layer,) = layers_of(path)
    np.testing.assert_array_equal(layer.weights, weights.reshape(64, -1))
    assert layer.weights.flags.aligned
    complaint = open_model(path).complaint
    monkeypatch.setattr(large_tensors, "LARGE_BYTES", 1 << 30)
    assert complaint == open_model(path).complaint


def test_a_tensor_that_declares_more_than_it_holds_is_refused(tmp_path):
    model = make_model([node("Conv", ["x", "w"], ["y"])], {"w": gaussian(8, 4, 3, 3)})
    model.graph.initializer[0].dims[0] = 1 << 20
    with pytest.raises(ModelFileError, match="does not hold the"):
        open_model(save(model, tmp_path / "net.onnx"))

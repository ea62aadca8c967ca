"""What a file may do to its reader: nothing. Each case ends in a stored model or in one sentence.

Every hostile file here is small; what it asks for is not.
"""

import io
import os
import pickle
import time
import zipfile

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantstore import graph, store
from quantstore.errors import (
    MissingWeightsError,
    ModelFileError,
    NoLayersError,
    QuantstoreError,
    printable,
)
from quantstore.file_formats.signature import KERAS_FILE
from quantstore.graph import open_model, walk
from quantstore.graph.checker import complaint_of
from quantstore.graph.file import NAME_IS_NO_TEXT, NO_ONNX_FILE
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.measure_file import measure_file
from tests.support.graphs import (
    conv_model,
    float_value,
    gaussian,
    layers_of,
    make_model,
    move_outside,
    node,
    point_outside,
    save,
)


@pytest.fixture
def refused(tmp_path, prober):
    """Ingest bytes or a model, and hand back the one sentence that refuses it."""

    def run(content):
        path = tmp_path / "hostile.onnx"
        if not isinstance(content, bytes):
            content = content.SerializeToString()
        path.write_bytes(content)
        started = time.process_time()
        with pytest.raises(QuantstoreError) as caught:
            ingest_file(path, tmp_path / "store.duckdb", prober=prober)
        assert time.process_time() - started < 10
        sentence = caught.value.sentence
        assert sentence.isprintable()
        assert "; " in sentence, "what is wrong; what to do"
        assert len(sentence) < 500
        return sentence

    return run


# Files of another kind


def zipped(*names):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return stream.getvalue()


def message(*fields):
    """A message of protobuf: fields by number, whole numbers, or bytes with their length."""
    return b"".join(
        bytes([number << 3]) + bytes([value])
        if isinstance(value, int)
        else bytes([number << 3 | 2]) + varint(len(value)) + value
        for number, value in fields
    )


def varint(number):
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def saved_model():
    """The beginning of a SavedModel: its version, a graph with what it says of itself."""
    operators = message((1, message((1, b"AddV2"))))
    facts = message((2, operators), (4, b"serve"), (5, b"2.19.0"))
    return message((1, 1), (2, message((1, facts), (2, bytes(300)))))


def core_ml():
    feature = message((1, b"image"), (3, bytes(20)))
    return message((1, 5), (2, message((1, feature))), (18, bytes(300)))


def frozen_graph():
    return message((1, message((1, b"input"), (2, b"Placeholder"), (5, bytes(40))))) * 3


POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    b"size 12345\n"
)


@pytest.mark.parametrize(
    ("content", "named", "remedy"),
    [
        (b"", "the file is empty", "download the model again"),
        (b"layers: 3\nlearning rate: 0.1\n", "a text file", "right file"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "a web page", "download"),
        (POINTER, "a Git LFS pointer", "git lfs pull"),
        (zipped("archive/data.pkl", "archive/data/0"), "a PyTorch file", "torch.onnx.export"),
        (zipped("archive/data.pkl", "archive/data/0"), "a PyTorch file", "safetensors"),
        (pickle.dumps({"weight": [1.0]}, protocol=2), "a Python pickle", "torch.onnx.export"),
        (pickle.dumps({"weight": [1.0]}, protocol=5), "a Python pickle", "safetensors"),
        (saved_model(), "a TensorFlow SavedModel", "tf2onnx"),
        (frozen_graph(), "a TensorFlow graph", "tf2onnx"),
        (core_ml(), "a Core ML model", "ONNX"),
        (b'<?xml version="1.0"?>\n<net name="a" version="11">', "an OpenVINO model", ".onnx"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), KERAS_FILE, "tf2onnx"),
        (zipped("metadata.json", "config.json", "model.weights.h5"), "a Keras model", "export"),
        (zipped("arr_0.npy"), "a NumPy archive", "export"),
        (zipped("model.onnx"), "a zip archive", "unpack"),
        (b"\x1f\x8b\x08" + bytes(100), "a gzip archive", "unpack"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_a_file_of_another_kind_is_called_by_its_name(refused, content, named, remedy):
    sentence = refused(content)
    assert named in sentence
    assert remedy in sentence


def test_a_real_pytorch_zip_is_recognized_although_its_first_member_is_anything(refused):
    assert "PyTorch" in refused(zipped("model/version", "model/data.pkl"))


def test_noise_is_no_model(refused):
    assert "not an ONNX file" in refused(np.random.default_rng(0).bytes(4096))


def test_a_file_beyond_what_protobuf_can_hold_is_not_even_read(tmp_path):
    path = tmp_path / "huge.onnx"
    with path.open("wb") as stream:
        stream.write(conv_model().SerializeToString())
        # A hole: it takes no space on the disk.
        stream.truncate(1 << 40)
    with pytest.raises(ModelFileError, match="larger than 2 GiB"):
        open_model(path)


def test_a_pipe_in_place_of_the_model_does_not_make_it_wait(tmp_path):
    path = tmp_path / "pipe.onnx"
    os.mkfifo(path)
    with pytest.raises(ModelFileError, match="not a regular file"):
        open_model(path)


# Tensors that are not what they say


def with_dims(model, dims):
    tensor = model.graph.initializer[0]
    del tensor.dims[:]
    tensor.dims.extend(dims)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("dims", [[4, 3, 3, 4], [4, 3, 3], [1, 1, 1, 1], [4, 3, 3, 2**40]])
def test_dimensions_that_do_not_match_the_data(refused, dims):
    refused(with_dims(conv_model(), dims))


@pytest.mark.parametrize(
    "dims", [[-1, 3, 3, 3], [4, -3, 3, -3], [-(2**63), 1, 1, 1]], ids=lambda dims: str(dims)
)
def test_negative_dimensions(refused, dims):
    assert "negative" in refused(with_dims(conv_model(), dims))


@pytest.mark.parametrize(
    "dims", [[2**20] * 3, [2**62, 2**62, 2**62], [2**63 - 1, 1, 1, 1]], ids=lambda dims: str(dims)
)
def test_absurdly_large_dimensions_allocate_nothing(refused, dims):
    refused(with_dims(conv_model(), dims))


@pytest.mark.parametrize("field", ["float_data", "double_data", "int32_data", "int64_data"])
@pytest.mark.parametrize(
    "kind", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16]
)
def test_huge_dimensions_over_a_few_values_of_any_field(refused, field, kind):
    model = with_dims(conv_model(), [2**30, 3, 3, 3])
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_type = kind
    getattr(tensor, field).extend([1, 2, 3])
    refused(model)


def test_a_zero_element_tensor_is_no_layer_whatever_its_other_dimensions(tmp_path):
    model = make_model(
        [
            node("Conv", ["x", "empty"], ["h"], "empty"),
            node("Conv", ["h", "w"], ["y"], "conv"),
        ],
        {"empty": np.zeros((0, 3, 3, 3), np.float32), "w": gaussian(4, 3, 3, 3)},
    )
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend([0, 2**62, 2**62, 3])
    assert [layer.name for layer in layers_of(save(model, tmp_path / "m.onnx"))] == ["conv"]


def test_a_scalar_in_place_of_weights(refused):
    refused(with_dims(conv_model(gaussian(1, 1, 1)), []))


def sparse_model(dims):
    """A sparse weight of one value, which stands for as many as ``dims`` say."""
    model = make_model([node("MatMul", ["x", "w"], ["y"], "product")], {})
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64), "i"))
    sparse.dims.extend(dims)
    return model


def test_a_sparse_initializer_of_a_few_bytes_that_stands_for_a_trillion_values(refused):
    model = sparse_model([2**20, 2**20])
    assert len(model.graph.sparse_initializer[0].SerializeToString()) < 110
    assert "1,099,511,627,776 values" in refused(model)


def test_a_sparse_constant_is_bounded_too(refused):
    sparse = sparse_model([2**40]).graph.sparse_initializer[0]
    constant = node("Constant", [], ["w"], "constant", sparse_value=sparse)
    assert "values" in refused(
        make_model([constant, node("MatMul", ["x", "w"], ["y"], "product")], {})
    )


# Graphs that never end


def field(number, content):
    """A message inside a message, as protobuf writes it."""
    length, prefix = len(content), bytearray([number << 3 | 2])
    while length > 127:
        prefix.append(length & 127 | 128)
        length >>= 7
    return bytes([*prefix, length]) + content


def nested(levels):
    """A convolution inside so many If; helper functions refuse to build what is too deep."""
    inner = node("Conv", ["x", "w"], ["y"], "conv").SerializeToString()
    for _ in range(levels):
        graph = field(1, inner) + field(2, b"body")
        attribute = field(1, b"then_branch") + field(6, graph) + bytes([20 << 3 & 127 | 128, 1, 5])
        inner = field(1, b"x") + field(2, b"y") + field(3, b"if") + field(4, b"If")
        inner += field(5, attribute)
    model = conv_model()
    del model.graph.node[:]
    # Fields of a message may come in several pieces.
    return model.SerializeToString() + field(7, field(1, inner))


def test_subgraphs_as_deep_as_protobuf_allows(tmp_path):
    path = tmp_path / "deep.onnx"
    path.write_bytes(nested(30))
    assert [layer.name.count("then_branch") for layer in layers_of(path)] == [30]


def test_deeper_subgraphs_are_refused(refused):
    assert NO_ONNX_FILE in refused(nested(60))


def calling(functions, *, first="f0"):
    """A model whose only node calls a local function."""
    model = make_model([node(first, ["x"], ["y"], "call", domain="local")], {"w": gaussian(3, 3)})
    model.opset_import.add(domain="local", version=1)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    for name, called in functions.items():
        inside = [
            node(op, ["a"], [f"t{i}"], f"n{i}", domain=domain)
            for i, (op, domain) in enumerate(called)
        ]
        inside.append(node("Identity", ["t0"], ["b"], "last"))
        model.functions.append(helper.make_function("local", name, ["a"], ["b"], inside, opsets))
    return model


def test_forty_functions_that_each_call_the_next_twice(refused):
    functions = {f"f{i}": [(f"f{i + 1}", "local")] * 2 for i in range(39)}
    model = calling(functions | {"f39": [("Relu", "")]})
    assert len(model.SerializeToString()) < 8000
    assert "unfold to more than 200,000 nodes" in refused(model)


@pytest.mark.parametrize(
    "functions",
    [
        {"f0": [("f0", "local")]},
        {"f0": [("f1", "local")], "f1": [("f2", "local")], "f2": [("f0", "local")]},
    ],
    ids=["itself", "in a circle"],
)
def test_a_function_that_calls_itself(refused, functions):
    assert "calls itself" in refused(calling(functions))


def test_a_thousand_functions_in_a_row_are_too_deep(refused):
    functions = {f"f{i}": [(f"f{i + 1}", "local")] for i in range(1000)}
    assert "nested more than 100 deep" in refused(calling(functions | {"f1000": [("Relu", "")]}))


@pytest.mark.slow
def test_a_graph_in_a_circle(tmp_path, prober):
    model = make_model(
        [
            node("Conv", ["b", "w"], ["a"], "conv"),
            node("Relu", ["a"], ["b"], "relu"),
            node("Identity", ["i"], ["j"], "one"),
            node("Identity", ["j"], ["i"], "two"),
            node("Conv", ["a", "i"], ["y"], "endless"),
        ],
        {"w": gaussian(3, 3, 3, 3)},
    )
    path = save(model, tmp_path / "m.onnx")
    stored = ingest_file(path, tmp_path / "s.duckdb", prober=prober)
    assert stored.layers == 1


def test_an_unsorted_graph_is_read_in_its_own_order(tmp_path):
    model = make_model(
        [
            node("Conv", ["h", "w2"], ["y"], "second"),
            node("BatchNormalization", ["c", "g", "s", "m", "v"], ["h"], "norm"),
            node("Conv", ["x", "w1"], ["c"], "first"),
        ],
        {"w1": gaussian(3, 3, 1, 1), "w2": gaussian(3, 3, 1, 1, seed=1)}
        | {name: np.abs(gaussian(3, seed=2)) + 1 for name in "gsmv"},
    )
    layers = layers_of(save(model, tmp_path / "m.onnx"))
    assert [layer.name for layer in layers] == ["second", "first"]
    assert [layer.batchnorm_folded for layer in layers] == [False, True]


def test_two_nodes_with_the_same_output(tmp_path):
    model = make_model(
        [node("Conv", ["x", "w"], ["y"], "one"), node("Conv", ["x", "w"], ["y"], "two")],
        {"w": gaussian(3, 3, 1, 1)},
    )
    path = save(complete(model), tmp_path / "m.onnx")
    assert [layer.name for layer in layers_of(path)] == ["one", "two"]
    assert "SSA" in open_model(path).complaint


def test_an_unknown_domain_is_passed_over(tmp_path):
    model = make_model(
        [
            node("Mystery", ["x"], ["h"], "mystery", domain="com.example.unheard.of"),
            node("Conv", ["h", "w"], ["y"], "conv"),
        ],
        {"w": gaussian(3, 3, 1, 1)},
    )
    assert [layer.name for layer in layers_of(save(model, tmp_path / "m.onnx"))] == ["conv"]


@pytest.mark.slow
def test_twenty_thousand_nodes_that_share_a_weight(tmp_path, prober, monkeypatch):
    monkeypatch.setattr(walk, "MOST_CHANNELS", 40_000)
    weights = gaussian(4096, 1, 1, 1)
    model = conv_model(weights)
    shared = model.graph.node[0]
    del model.graph.node[:]
    for number in range(20_000):
        copy = model.graph.node.add()
        copy.CopyFrom(shared)
        copy.name = f"n{number}"
        copy.output[0] = f"y{number}"
    path = save(model, tmp_path / "m.onnx")
    result = ingest_file(path, tmp_path / "s.duckdb", prober=prober)
    assert result.layers == 9
    with store.reading(tmp_path / "s.duckdb") as con:
        (finding,) = con.rows("select kind, message from findings where kind = 'left out'")
    assert "Only the first 9 of 20,000 layers" in finding[1]


# Names and numbers nobody expects


def garbled(model, name):
    """The same model with a byte of a name that is no UTF-8."""
    return model.SerializeToString().replace(name, b"\xff" * len(name))


@pytest.mark.parametrize("name", [b"conv", b"Conv", b"WEIGHT", b"xinput"])
def test_a_name_that_is_no_utf8(refused, name):
    model = make_model(
        [node("Conv", ["xinput", "WEIGHT"], ["y"], "conv")],
        {"WEIGHT": gaussian(3, 3, 1, 1)},
        inputs=("xinput",),
    )
    assert NAME_IS_NO_TEXT in refused(garbled(model, name))


@pytest.mark.slow
def test_a_producer_that_is_no_utf8_is_no_obstacle(tmp_path, prober):
    model = conv_model()
    model.producer_name = "PRODUCER"
    path = tmp_path / "m.onnx"
    path.write_bytes(garbled(model, b"PRODUCER"))
    stored = ingest_file(path, tmp_path / "s.duckdb", prober=prober)
    assert stored.layers == 1


@pytest.mark.slow
@pytest.mark.parametrize("version", [2**62, -1, 2**31])
def test_versions_that_fit_no_column_are_unknown(tmp_path, prober, version):
    model = conv_model()
    model.ir_version = version
    model.opset_import[0].version = version
    path = save(model, tmp_path / "m.onnx")
    assert ingest_file(path, tmp_path / "s.duckdb", prober=prober).layers == 1
    file = open_model(path)
    assert (file.ir_version, file.opset) == (None, None)


HOSTILE = "a\nb\x1b[31mc\u202e\0d"


@pytest.mark.slow
def test_names_with_newlines_and_terminal_escapes_are_kept_and_made_visible(tmp_path, prober):
    model = conv_model()
    model.graph.node[0].name = HOSTILE
    model.graph.node[0].input[1] = model.graph.initializer[0].name = HOSTILE
    path = tmp_path / "s.duckdb"
    ingest_file(save(model, tmp_path / "m.onnx"), path, prober=prober)
    with store.reading(path) as con:
        (name, weight_name) = con.rows("select layer, weight_name from layers")[0]
    assert name == weight_name == HOSTILE
    assert printable(name) == "a\\nb\\x1b[31mc\\u202e\\x00d"


def test_a_refusal_shows_a_hostile_name_on_one_line(refused):
    model = with_dims(conv_model(), [4, 3, 3, 9])
    model.graph.initializer[0].name = model.graph.node[0].input[1] = HOSTILE
    assert "\\x1b" in refused(model)


# Weights in other files


def with_data(tmp_path, place="w.bin", **options):
    model = conv_model()
    move_outside(model.graph.initializer[0], tmp_path / place, **options)
    return model


def pointing_at(location, **options):
    model = conv_model()
    point_outside(model.graph.initializer[0], location, **options)
    return model


def test_external_data_that_is_a_pipe(refused, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(pointing_at("pipe"))


def test_external_data_that_is_a_device(refused, tmp_path):
    (tmp_path / "zeros").symlink_to("/dev/zero")
    refused(pointing_at("zeros"))


def test_external_data_that_links_to_a_system_file(refused, tmp_path):
    (tmp_path / "kernel").symlink_to("/proc/kmsg")
    refused(pointing_at("kernel"))


def test_a_system_file_is_refused_even_where_the_folder_is_the_root(monkeypatch, tmp_path):
    """A model in / has every file of the machine below it."""
    folder = tmp_path / "proc"
    folder.mkdir()
    monkeypatch.setattr(graph.file, "_SYSTEM_FOLDERS", (folder,))
    model = with_data(tmp_path, "proc/w.bin", location="proc/w.bin")
    with pytest.raises(MissingWeightsError, match="system file"):
        open_model(save(model, tmp_path / "m.onnx"))


def test_external_data_longer_than_any_file(refused, tmp_path):
    model = with_dims(with_data(tmp_path), [2**30, 3, 3, 3])
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "length":
            entry.value = str(2**30 * 27 * 4)
    assert "does not hold the 28,991,029,248 values" in refused(model)


@pytest.mark.parametrize("value", ["-1", "1e9", "x", "", str(2**70), "0x10"])
@pytest.mark.parametrize("key", ["offset", "length"])
def test_an_offset_or_length_that_is_no_number(refused, tmp_path, key, value):
    model = with_data(tmp_path, offset=0)
    tensor = model.graph.initializer[0]
    del tensor.external_data[:]
    for name, content in {"location": "w.bin", key: value}.items():
        tensor.external_data.add(key=name, value=content)
    refused(model)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-4]),
        lambda path: path.write_bytes(bytes(len(path.read_bytes()))),
        lambda path: path.unlink(),
        lambda path: path.with_suffix(".new").rename(path),
    ],
    ids=["truncated", "written to", "removed", "replaced"],
)
def test_weights_that_change_between_hashing_and_reading(tmp_path, spoil, monkeypatch):
    model = with_data(tmp_path)
    path, data = save(model, tmp_path / "m.onnx"), tmp_path / "w.bin"
    data.with_suffix(".new").write_bytes(data.read_bytes())
    os.utime(data, ns=(1, 1))
    survey = graph.survey

    def later(file):
        spoil(data)
        return survey(file)

    monkeypatch.setattr(graph, "survey", later)
    with pytest.raises(MissingWeightsError):
        measure_file(path)


def test_data_that_grows_for_ever_is_read_as_long_as_it_was(tmp_path):
    model = with_data(tmp_path)
    path = save(model, tmp_path / "m.onnx")
    first = open_model(path).file_bytes
    assert first == path.stat().st_size + (tmp_path / "w.bin").stat().st_size


def test_the_initializer_of_a_subgraph_is_read_from_the_models_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    folder.mkdir()
    tensor = numpy_helper.from_array(gaussian(3, 3, 1, 1), "w")
    move_outside(tensor, folder / "w.bin")
    body = helper.make_graph(
        [node("Conv", ["x", "w"], ["z"], "conv")], "body", [], [float_value("z")], [tensor]
    )
    model = make_model([node("If", ["x"], ["y"], "if", then_branch=body, else_branch=body)], {})
    assert len(layers_of(save(model, folder / "m.onnx"))) == 2


# Invalid, but readable


@pytest.mark.slow
def test_what_the_checker_rejects_is_ingested_with_its_complaint(tmp_path, prober):
    model = conv_model()
    model.graph.name = ""
    path = tmp_path / "s.duckdb"
    assert ingest_file(save(model, tmp_path / "m.onnx"), path, prober=prober).layers == 1
    with store.reading(path) as con:
        ((severity, message),) = con.rows(
            "select severity, message from findings where kind = 'invalid'"
        )
    assert severity == "note"
    assert "'name' of 'graph'" in message


def complete(model):
    """With the shapes of inputs and outputs, which the checker wants to be there."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.SetInParent()
    return model


def test_the_checker_sees_no_weights(monkeypatch):
    """What it takes is limited to 2 GB."""
    model = make_model([node("MatMul", ["x", "w"], ["y"], "product")], {"w": gaussian(1000, 1000)})
    constant = node("Constant", [], ["c"], "constant", value=numpy_helper.from_array(gaussian(999)))
    model.graph.node.append(constant)
    assert complaint_of(complete(model)) == ""
    seen = []
    monkeypatch.setattr("onnx.checker.check_model", seen.append)
    complaint_of(model)
    assert [len(content) < 500 for content in seen] == [True]


@pytest.mark.parametrize("op", ["ImageScaler", "Scale"])
def test_the_checker_writes_nothing(op, capfd):
    model = make_model(
        [node(op, ["x"], ["h"], "old"), node("Conv", ["h", "w"], ["y"], "conv")],
        {"w": gaussian(3, 3, 1, 1)},
    )
    complaint_of(complete(model))
    assert capfd.readouterr() == ("", "")


def test_a_model_without_layers_is_refused_in_a_sentence(tmp_path):
    model = make_model([node("Relu", ["x"], ["y"], "relu")], {})
    with pytest.raises(NoLayersError):
        measure_file(save(model, tmp_path / "m.onnx"))


def test_versions_are_read_when_they_are_ordinary(tmp_path):
    file = open_model(save(complete(conv_model()), tmp_path / "m.onnx"))
    assert (file.ir_version, file.opset, file.complaint) == (8, 17, "")

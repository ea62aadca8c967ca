"""safetensors files: which layers they hold, told by names and shapes, and what their weights are.

Read top to bottom, this is what ``quantstore ingest model.safetensors`` promises.
"""

import json

import ml_dtypes
import numpy as np
import pytest

from quantstore import graph
from quantstore.errors import ModelFileError, NoLayersError
from quantstore.graph.findings.loose_normalization import LOOSE_NORMALIZATION
from quantstore.graph.limits import MOST_NODES
from quantstore.graph.unread import PURPOSE_UNKNOWN
from quantstore.pipeline.files import find_files, name_of
from quantstore.pipeline.measure_file import measure_file
from tests.support.graphs import gaussian, make_model, node, save
from tests.support.refusals import refusal
from tests.support.tflite_files import CONV, T, one_layer, saved
from tests.support.weight_files import (
    normalization,
    save_parts,
    save_tensors,
    write_safetensors,
)


@pytest.fixture
def read(tmp_path):
    """The layers of tensors by name and operand, and what is unread."""

    def run(tensors):
        file = graph.open_any(save_tensors(tmp_path / "m.safetensors", tensors))
        survey = graph.survey(file)
        layers = [graph.read_or_reason(file, site) for site in survey.sites]
        return {(layer.name, layer.operand): layer for layer in layers}, survey.unread

    return run


@pytest.fixture
def only_layer(read):
    def run(tensors):
        layers, unread = read(tensors)
        assert unread == ()
        (layer,) = layers.values()
        return layer

    return run


# Which tensors are layers


@pytest.mark.parametrize(
    ("tensors", "op_type", "family", "axis"),
    [
        ({"fc.weight": gaussian(5, 8), "fc.bias": gaussian(5)}, "Gemm", "linear", 0),
        ({"fc.weight": gaussian(5, 8)}, "Gemm", "linear", 0),
        ({"weight": gaussian(5, 8)}, "Gemm", "linear", 0),
        ({"h.c_fc.weight": gaussian(5, 8), "h.c_fc.bias": gaussian(8)}, "Gemm", "linear", 1),
        ({"c.weight": gaussian(4, 3, 5)}, "Conv", "conv", 0),
        ({"c.weight": gaussian(4, 3, 2, 2), "c.bias": gaussian(4)}, "Conv", "conv", 0),
        ({"c.weight": gaussian(4, 3, 2, 2, 2)}, "Conv", "conv", 0),
        (
            {"up.weight": gaussian(4, 3, 2, 2), "up.bias": gaussian(3)},
            *("ConvTranspose", "conv_transpose", 1),
        ),
        ({"embed_tokens.weight": gaussian(9, 4)}, "Gather", "embedding", 0),
        ({"transformer.wte.weight": gaussian(9, 4)}, "Gather", "embedding", 0),
        ({"position_embeddings.weight": gaussian(9, 4)}, "Gather", "embedding", 0),
        ({"embed_out.weight": gaussian(9, 4)}, "Gemm", "linear", 0),
        ({"patch_embed.proj.weight": gaussian(4, 3, 2, 2)}, "Conv", "conv", 0),
        ({"attn.in_proj_weight": gaussian(12, 4)}, "Gemm", "linear", 0),
    ],
)
def test_rank_name_and_bias_tell_what_a_weight_is(only_layer, tensors, op_type, family, axis):
    layer = only_layer(tensors)
    (name, weights), *_ = tensors.items()
    assert (layer.op_type, layer.op_family, layer.channel_axis) == (op_type, family, axis)
    assert (layer.weight_name, layer.shape) == (name, weights.shape)
    in_rows = np.moveaxis(weights, axis, 0)
    np.testing.assert_array_equal(layer.weights, in_rows.reshape(in_rows.shape[0], -1))


@pytest.mark.parametrize(
    "tensors",
    [
        {"ln.weight": gaussian(8), "ln.bias": gaussian(8)},
        {"ln.weight": gaussian(4, 8), "ln.bias": gaussian(4, 8)},
        {"post.weight": gaussian(4, 6, 6), "post.bias": gaussian(4, 6, 6)},
        {"group_norm.weight": gaussian(4, 6, 6)},
        {"input_layernorm.weight": gaussian(4, 6)},
        {"fc.bias": gaussian(8)},
        {"steps": np.arange(12).reshape(3, 4)},
    ],
)
def test_normalizations_biases_and_counters_are_no_weights(read, tensors):
    layers, unread = read({"fc.weight": gaussian(5, 8)} | tensors)
    assert (len(layers), unread) == (1, ())


def test_one_input_channel_for_each_group_is_a_depthwise_convolution(only_layer):
    layer = only_layer({"dw.weight": gaussian(6, 1, 3, 3)})
    assert (layer.group_count, layer.is_depthwise) == (6, True)


def test_the_bias_of_a_transposed_convolution_tells_its_groups(only_layer):
    layer = only_layer({"up.weight": gaussian(4, 3, 2, 2), "up.bias": gaussian(6)})
    assert (layer.op_type, layer.group_count) == ("ConvTranspose", 2)


@pytest.mark.parametrize(("gates", "op_type"), [(4, "LSTM"), (3, "GRU"), (1, "RNN")])
def test_the_matrices_of_a_recurrent_layer_are_two_layers(read, gates, op_type):
    of_input, of_state = gaussian(5 * gates, 3), gaussian(5 * gates, 5, seed=1)
    layers, _ = read({"rnn.weight_ih_l0_reverse": of_input, "rnn.weight_hh_l0_reverse": of_state})
    assert list(layers) == [("rnn.l0_reverse", "W"), ("rnn.l0_reverse", "R")]
    for layer, stored in zip(layers.values(), (of_input, of_state), strict=True):
        assert (layer.op_type, layer.op_family) == (op_type, "recurrent")
        np.testing.assert_array_equal(layer.weights, stored)


def test_what_no_rule_knows_is_said(read):
    layers, unread = read(
        {
            "fc.weight": gaussian(5, 8),
            "pos": gaussian(1, 6, 7),
            "odd.weight": gaussian(5, 8),
            "odd.bias": gaussian(3),
        }
    )
    assert len(layers) == 1
    assert {operand.name: operand.weight_count for operand in unread} == {
        "odd.weight": 40,
        "pos": 42,
    }
    assert {operand.reason for operand in unread} == {PURPOSE_UNKNOWN}


def test_layers_are_in_the_order_of_their_names_with_numbers_counted(read):
    layers, _ = read({f"h.{n}.weight": gaussian(3, 3, seed=n) for n in (10, 2, 1)})
    assert [name for name, _ in layers] == ["h.1", "h.2", "h.10"]


# What the stored values are worth


@pytest.mark.parametrize(
    "dtype",
    ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"],
)
def test_floats_of_any_width_are_read_as_float32(tmp_path, dtype):
    codes = {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "bfloat16": "BF16"}
    weights = gaussian(5, 8).astype(getattr(ml_dtypes, dtype, dtype))
    entry = {
        "dtype": codes.get(dtype, f"F{weights.itemsize * 8}"),
        "shape": [5, 8],
        "data_offsets": [0, weights.nbytes],
    }
    path = write_safetensors(tmp_path / "m.safetensors", {"w.weight": entry}, weights.tobytes())
    file = graph.open_any(path)
    (site,) = graph.find_sites(file)
    layer = graph.read_layer(file, site)
    assert layer.weight_dtype == dtype
    assert not layer.already_quantized
    np.testing.assert_array_equal(layer.weights, weights.astype(np.float32))


@pytest.mark.parametrize(
    ("scale", "scheme"),
    [
        (np.array(0.5, np.float32), "int8 per tensor"),
        (np.array([0.5], np.float32), "int8 per tensor"),
        (np.full((5, 1), 0.5, np.float32), "int8 per channel"),
        (np.full(5, 0.5, np.float32), "int8 per channel"),
    ],
)
def test_a_scale_beside_codes_makes_them_weights(only_layer, scale, scheme):
    codes = np.arange(-20, 20, dtype=np.int8).reshape(5, 8)
    layer = only_layer({"fc.weight": codes, "fc.weight_scale": scale})
    assert (layer.stored_scheme, layer.stored_step) == (scheme, 0.5)
    np.testing.assert_array_equal(layer.weights, codes / np.float32(2))


def test_codes_without_a_scale_that_fits_are_no_weights_and_said(read):
    codes = np.ones((5, 8), np.int8)
    _, unread = read(
        {"a.weight": gaussian(5, 8), "b.weight": codes, "b.weight_scale": gaussian(2, 2)}
    )
    assert [(operand.name, operand.reason) for operand in unread] == [("b", "holds int8")]


def test_weights_that_are_no_numbers_are_counted_and_said(tmp_path):
    weights = gaussian(5, 8)
    weights[0, 0], weights[1, 1] = np.nan, np.inf
    path = save_tensors(tmp_path / "m.safetensors", {"fc.weight": weights})
    measured = measure_file(path)
    assert measured.layers[0].layer.nonfinite_count == 2
    assert "not finite" in {finding.kind for finding in measured.findings}


# BatchNormalization


def folded(weights, tensors, module):
    """The weights times what the normalization multiplies each output channel by."""
    variance = tensors[f"{module}.running_var"].astype(np.float64)
    factor = tensors[f"{module}.weight"] / np.sqrt(variance + 1e-5)
    trailing = (1,) * (weights.ndim - 1)
    return (weights * factor.reshape(-1, *trailing)).astype(np.float32)


@pytest.mark.parametrize(
    ("convolution", "norm"),
    [
        ("conv1", "bn1"),
        ("a.conv", "a.bn"),
        ("a.conv", "a.norm"),
        ("a.conv_2", "a.batch_norm_2"),
        ("a.convolution", "a.normalization"),
        ("features.0", "features.1"),
        ("0", "1"),
    ],
)
def test_a_normalization_whose_name_leaves_no_doubt_is_folded(read, convolution, norm):
    w, tensors = gaussian(6, 3, 3, 3), normalization(norm, 6)
    layers, _ = read({f"{convolution}.weight": w} | tensors)
    layer = layers[convolution, "W"]
    assert layer.batchnorm_folded
    np.testing.assert_allclose(layer.weights, folded(w, tensors, norm).reshape(6, -1), rtol=1e-6)


def said(tensors, tmp_path, *, fold=True):
    path = save_tensors(tmp_path / "m.safetensors", tensors)
    measured = measure_file(path, fold=fold)
    folded_count = sum(layer.layer.batchnorm_folded for layer in measured.layers)
    kinds = [(finding.kind, finding.severity) for finding in measured.findings]
    return folded_count, kinds.count((LOOSE_NORMALIZATION.name, LOOSE_NORMALIZATION.severity))


@pytest.mark.parametrize(
    "tensors",
    [
        # As many channels behind as before: the normalization may be on either side.
        {"conv1.weight": gaussian(6, 6, 3, 3)} | normalization("bn1", 6),
        # It is before, and so may be the other of these names.
        {"a.conv1.weight": gaussian(6, 3, 3, 3), "b.conv1.weight": gaussian(8, 6, 3, 3)}
        | normalization("a.bn1", 6)
        | normalization("b.bn1", 6, seed=2),
        # Its name says nothing.
        {"conv1.weight": gaussian(6, 3, 3, 3)} | normalization("after", 6),
        # Something stands between.
        {"0.weight": gaussian(6, 3, 3, 3)} | normalization("2", 6),
        # Another number of channels.
        {"0.weight": gaussian(6, 3, 3, 3)} | normalization("1", 5),
        # In another module.
        {"a.conv1.weight": gaussian(6, 3, 3, 3)} | normalization("b.bn1", 6),
        # Two lay claim to it.
        {"conv1.weight": gaussian(6, 3, 3, 3)}
        | normalization("bn1", 6)
        | normalization("norm1", 6, seed=2),
    ],
)
def test_where_names_leave_a_doubt_nothing_is_folded_and_that_is_said(tmp_path, tensors):
    assert said(tensors, tmp_path) == (0, 1)
    assert said(tensors, tmp_path, fold=False) == (0, 0)


def test_lengths_decide_for_all_of_the_same_names(read):
    """A residual block has convolutions of as many channels before as behind."""
    tensors = (
        {"layer1.conv1.weight": gaussian(6, 6, 3, 3), "layer2.conv1.weight": gaussian(8, 6, 3, 3)}
        | normalization("layer1.bn1", 6)
        | normalization("layer2.bn1", 8, seed=2)
    )
    layers, _ = read(tensors)
    assert [layer.batchnorm_folded for layer in layers.values()] == [True, True]


def test_what_follows_in_a_sequence_tells_a_transposed_convolution(only_layer):
    w, tensors = gaussian(6, 3, 2, 2), normalization("1", 3)
    layer = only_layer({"0.weight": w} | tensors)
    assert (layer.op_type, layer.batchnorm_folded) == ("ConvTranspose", True)
    expected = folded(np.moveaxis(w, 1, 0), tensors, "1")
    np.testing.assert_allclose(layer.weights, expected.reshape(3, -1), rtol=1e-6)


# The same network in other formats


def test_a_network_has_the_same_layers_in_onnx_tensorflow_lite_and_safetensors(tmp_path):
    """Each folds what it can: the ONNX and the safetensors file by themselves, the other before."""
    w, matrix = gaussian(4, 2, 3, 3), gaussian(5, 8, seed=2)
    norm = normalization("bn1", 4)
    path = save_tensors(
        tmp_path / "m.safetensors",
        {"conv1.weight": w, "fc.weight": matrix, "fc.bias": gaussian(5)} | norm,
    )
    members = ("weight", "bias", "running_mean", "running_var")
    in_onnx = make_model(
        [
            node("Conv", ["x", "w"], ["h"], "conv1"),
            node("BatchNormalization", ["h", *members], ["y"], "bn1"),
            node("Gemm", ["z", "m"], ["v"], "fc", transB=1),
        ],
        {"w": w, "m": matrix} | {name: norm[f"bn1.{name}"] for name in members},
        inputs=("x", "z"),
        outputs=("y", "v"),
    )
    lite = one_layer(
        "CONV_2D",
        T(name="w", values=np.ascontiguousarray(folded(w, norm, "bn1").transpose(0, 2, 3, 1))),
        data=(1, 6, 6, 2),
        result=(1, 4, 4, 4),
        options="Conv2DOptions",
        settings=CONV,
        bias=gaussian(4, seed=1),
    )
    of_tensors = measure_file(path).layers
    of_graph = measure_file(save(in_onnx, tmp_path / "m.onnx")).layers
    (of_lite,) = measure_file(saved(tmp_path / "m.tflite", lite)).layers
    assert [layer.layer.layer for layer in of_tensors] == ["conv1", "fc"]
    for ours, theirs in zip(of_tensors, of_graph, strict=True):
        assert ours.errors == theirs.errors
        np.testing.assert_array_equal(ours.channels.weight_max, theirs.channels.weight_max)
    np.testing.assert_allclose(
        of_lite.channels.weight_max, of_tensors[0].channels.weight_max, rtol=1e-6
    )


def test_a_real_network_as_tensors_has_the_layers_of_its_onnx_file(shared_pairs, tmp_path):
    """Its folded weights, saved under the names of its layers."""
    file = graph.open_any(shared_pairs / "basic-pitch-nmp.onnx")
    layers = [graph.read_layer(file, site) for site in graph.find_sites(file)]
    wanted = {
        f"l{number}": layer
        for number, layer in enumerate(layers)
        if layer.op_family == "conv" and layer.channel_axis == 0
    }
    tensors = {
        f"{name}.weight": layer.weights.reshape(layer.shape) for name, layer in wanted.items()
    }
    assert len(tensors) > 4
    again = graph.open_any(save_tensors(tmp_path / "m.safetensors", tensors))
    for site in graph.find_sites(again):
        layer = graph.read_layer(again, site)
        np.testing.assert_array_equal(layer.weights, wanted[layer.name].weights)


# Several files


def test_a_model_in_parts_is_what_its_index_names(tmp_path):
    tensors = {f"h.{number}.weight": gaussian(4, 5, seed=number) for number in range(5)}
    folder = tmp_path / "net"
    folder.mkdir()
    index = save_parts(folder, tensors)
    file = graph.open_any(index)
    assert file.file_bytes == sum(path.stat().st_size for path in folder.iterdir())
    for site in graph.find_sites(file):
        layer = graph.read_layer(file, site)
        np.testing.assert_array_equal(layer.weights, tensors[f"{layer.name}.weight"])
    assert find_files([str(tmp_path)]) == ([index], [])
    assert name_of(index) == "net"
    graph.require_unchanged(file)
    part = folder / "model-00002-of-00002.safetensors"
    part.write_bytes(part.read_bytes())
    with pytest.raises(ModelFileError, match="changed"):
        graph.require_unchanged(file)


def test_parts_may_be_links_into_a_folder_beside_the_index_as_the_hub_keeps_them(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    save_parts(blobs, {"a.weight": gaussian(4, 5), "b.weight": gaussian(4, 5, seed=1)})
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    assert len(graph.find_sites(graph.open_any(snapshot / "model.safetensors.index.json"))) == 2


def test_a_part_alone_is_no_model(tmp_path):
    save_parts(tmp_path, {"a.weight": gaussian(4, 5), "b.weight": gaussian(4, 5, seed=1)})
    with pytest.raises(ModelFileError) as failure:
        graph.open_any(tmp_path / "model-00001-of-00002.safetensors")
    assert "model.safetensors.index.json" in failure.value.sentence


# Damaged and malicious files


def entry(shape, start=0, end=None, dtype="F32"):
    end = start + 4 * int(np.prod(shape)) if end is None else end
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


GOOD = entry((5, 8))
HOSTILE = {
    "shape larger than its data": ({"a.weight": entry((5, 9), end=160)}, 160),
    "shape that overflows": ({"a.weight": entry((2**62, 2**62), end=160)}, 160),
    "negative dimensions": ({"a.weight": entry((-5, -8), end=160)}, 160),
    "negative offset": ({"a.weight": entry((5, 8), start=-160, end=0)}, 160),
    "data beyond the end": ({"a.weight": entry((5, 8), start=160)}, 160),
    "overlap": ({"a.weight": GOOD, "b.weight": GOOD}, 160),
    "a gap": ({"a.weight": GOOD, "b.weight": entry((5, 8), start=200)}, 360),
    "something behind": ({"a.weight": GOOD}, 200),
    "too short": ({"a.weight": GOOD}, 100),
    "unknown type": ({"a.weight": entry((5, 8), dtype="F33")}, 160),
    "no offsets": ({"a.weight": {"dtype": "F32", "shape": [5, 8]}}, 160),
    "text for a shape": ({"a.weight": {**GOOD, "shape": "5x8"}}, 160),
    "a list": (b'{"a.weight": []}', 160),
    "no JSON": (b'{"a.weight": ', 0),
    "no text": (b'{"\xff\xfe": 1}', 0),
    "nothing but brackets": (b'{"' + b"[" * 100_000, 0),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_header_that_no_file_can_have(tmp_path, what):
    header, length = HOSTILE[what]
    refusal(write_safetensors(tmp_path / "m.safetensors", header, bytes(length)))


@pytest.mark.parametrize("length", [10**6, 3 << 30, 2**63])
def test_a_header_that_is_longer_than_the_file(tmp_path, length):
    header = {"a.weight": GOOD}
    refusal(write_safetensors(tmp_path / "m.safetensors", header, bytes(160), length=length))


@pytest.mark.slow
def test_more_tensors_than_any_network_has(tmp_path):
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = {f"t{number}": empty for number in range(MOST_NODES + 1)}
    assert f"{MOST_NODES:,} tensors" in refusal(
        write_safetensors(tmp_path / "m.safetensors", header)
    )


def test_empty_tensors_are_no_layers(tmp_path):
    tensors = {"a.weight": np.zeros((0, 8), np.float32), "b.weight": np.zeros((3, 0), np.float32)}
    path = save_tensors(tmp_path / "m.safetensors", tensors)
    with pytest.raises(NoLayersError):
        measure_file(path)


@pytest.mark.parametrize(
    "name",
    ["../m.safetensors", "/etc/passwd", "sub/../../m.safetensors", "a\0b", "x" * 5000, "", ".."],
)
def test_an_index_leads_nowhere_but_into_its_folder(tmp_path, name):
    save_tensors(tmp_path / "m.safetensors", {"a.weight": gaussian(5, 8)})
    folder = tmp_path / "inner"
    folder.mkdir()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": name}}))
    refusal(index)


def test_a_part_that_is_a_link_out_of_the_folder(tmp_path):
    save_tensors(tmp_path / "m.safetensors", {"a.weight": gaussian(5, 8)})
    folder = tmp_path / "inner"
    folder.mkdir()
    (folder / "p.safetensors").symlink_to(tmp_path / "m.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": "p.safetensors"}}))
    assert "outside" in refusal(index)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a.weight": "gone.safetensors"}}',
        '{"weight_map": {"other.weight": "m.safetensors"}}',
        "[" * 100_000,
    ],
)
def test_an_index_that_names_nothing_or_what_is_not_there(tmp_path, content):
    save_tensors(tmp_path / "m.safetensors", {"a.weight": gaussian(5, 8)})
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(content)
    refusal(index)

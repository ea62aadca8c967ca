"""The files of text that other tools read: what they say, and that onnxruntime does it."""

import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import onnx
import pytest

from quantstore.rescuing import formats
from quantstore.rescuing.facts import QuantizedNetwork, QuantizedTensor, QuantizedWeights
from quantstore.run import qdq_file
from quantstore.run.emulator import Plan
from quantstore.run.grids import grid_of
from quantstore.run.runtime import Session
from quantstore.schemes import Activations
from tests.support.graphs import float_value, gaussian, make_model, node
from tests.support.planned import trial_on, trial_on_noise
from tests.support.rescued import facts_of, ongrid_model

# What a name may hold. The file system never sees one of them.
ODD = 'a "b"\n#c\\ \u2028é'


def small_network(prefix="", opset=17):
    """Convolutions, one of them depthwise, with activations, a sum, and a product."""

    def name(plain):
        return f"{prefix}{plain}"

    def layer(op_type, reads, writes, **attributes):
        operands = [one if one == "x" else name(one) for one in reads.split()]
        result = writes if writes == "y" else name(writes)
        return node(op_type, operands, [result], name(f"{op_type}_{writes}"), **attributes)

    model = make_model(
        [
            layer("Conv", "x w b", "h", pads=[1, 1, 1, 1]),
            layer("Relu", "h", "r"),
            layer("Conv", "r d db", "e", group=4, pads=[1, 1, 1, 1]),
            layer("LeakyRelu", "e", "l"),
            layer("Add", "l r", "a"),
            layer("Transpose", "a", "t", perm=[0, 1, 3, 2]),
            layer("Conv", "t v vb", "p"),
            layer("GlobalAveragePool", "p", "g"),
            layer("Flatten", "g", "f"),
            layer("Gemm", "f m mb", "y", transB=1),
        ],
        {
            name(plain): array
            for plain, array in {
                "w": gaussian(4, 3, 3, 3),
                "b": gaussian(4),
                "d": gaussian(4, 1, 3, 3),
                "db": gaussian(4, seed=1),
                "v": gaussian(6, 4, 1, 1),
                "vb": gaussian(6),
                "m": gaussian(5, 6),
                "mb": gaussian(5),
            }.items()
        },
        opset=opset,
    )
    model.graph.input[0].CopyFrom(float_value("x", [1, 3, 8, 8]))
    return model


def trial_of(model, target, folder):
    random = np.random.default_rng(0)
    draw = [{"x": random.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(8)]
    return trial_on(model, ("y",), draw[:4], draw[4:], target, folder)


def quantized(trial, network, folder):
    """The outputs of the file that ``quantize.py`` writes, run as a person runs it."""
    source = folder / "net.ongrid.onnx"
    qdq_file.save(ongrid_model(trial), source)
    for written in formats.texts(network, "net"):
        (folder / written.file_name).write_text(written.text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "quantize.py"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "in float" not in done.stdout
    path = folder / "net.quantized.onnx"
    onnx.checker.check_model(str(path))
    session = Session(path, is_optimized=False)
    return [session.run(sample, trial.network.outputs) for sample in trial.samples]


def without(trial, in_float):
    """The plan with these tensors in float, and the biases that had their scales."""
    biases = [bias.name for bias in trial.placed.biases if bias.input in in_float]
    return trial.plan.without([*in_float, *biases])


def assert_it_is_the_plan(trial, network, folder, plan=None):
    """``plan``: what the file should compute, where it is not that of the trial."""
    planned = dataclasses.replace(trial, plan=plan or trial.plan)
    actual = quantized(trial, network, folder)
    for ours, theirs in zip(planned.emulated(), actual, strict=True):
        np.testing.assert_array_equal(theirs[0], ours[0])


# onnxruntime


@pytest.mark.parametrize(
    ("target", "in_float"),
    [
        ("int8_channel_fused", ("r",)),
        *(
            pytest.param(target, in_float, marks=pytest.mark.slow)
            for target in (
                "int8_channel",
                "int8_tensor",
                "int8_channel_symmetric_activations",
                "int8_channel_int16",
            )
            for in_float in ((), ("r",), ("x", "p", "y"))
        ),
    ],
)
def test_the_script_writes_the_plan_bit_for_bit(target, in_float, tmp_path):
    trial = trial_of(small_network(), target, tmp_path)
    network = facts_of(trial, target, in_float=in_float)
    assert_it_is_the_plan(trial, network, tmp_path, without(trial, in_float))


@pytest.mark.slow
def test_odd_names_do_no_harm(tmp_path):
    trial = trial_of(small_network(ODD), "int8_channel_fused", tmp_path)
    network = facts_of(trial, "int8_channel_fused", in_float=(f"{ODD}r",))
    assert_it_is_the_plan(trial, network, tmp_path, without(trial, (f"{ODD}r",)))


@pytest.mark.slow
@pytest.mark.parametrize("opset", [13, 17, 21])
def test_single_tensors_have_sixteen_bits(opset, tmp_path):
    target = "int8_channel_fused"
    trial = trial_of(small_network(opset=opset), target, tmp_path)
    narrow = trial.plan.grids["r"]
    ends = (float(end[0]) * float(narrow.scale[0]) for end in (narrow.lowest, narrow.highest))
    grids = {**trial.plan.grids, "r": grid_of(*ends, Activations(bits=16))}
    plan = Plan(grids, trial.plan.constants, trial.plan.constant_grids)
    network = facts_of(dataclasses.replace(trial, plan=plan), target, wide=("r",))
    assert_it_is_the_plan(trial, network, tmp_path, plan.without(["db"]))


@pytest.mark.slow
def test_weights_stay_in_float(tmp_path):
    target = "int8_channel_fused"
    trial = trial_of(small_network(), target, tmp_path)
    deep = next(
        name for name, slot in trial.network.slot_of.items() if slot.site.tensor.name == "d"
    )
    trial = dataclasses.replace(trial, plan=trial.plan.without([deep, "db"]))
    network = facts_of(trial, target)
    assert [weights.tensor for weights in network.weights if weights.bits is None] == ["d"]
    assert_it_is_the_plan(trial, network, tmp_path)


@pytest.mark.slow
def test_a_bias_beyond_int32_stays_in_float(tmp_path):
    target = "int8_channel_fused"
    model = small_network()
    large = next(tensor for tensor in model.graph.initializer if tensor.name == "db")
    large.CopyFrom(onnx.numpy_helper.from_array(np.array([9e7, 1, 2, 3], np.float32), "db"))
    trial = trial_of(model, target, tmp_path)
    # The plan widens the scale of the weights instead; this one does not.
    network = facts_of(trial, target)
    thin = next(weights for weights in network.weights if weights.tensor == "d")
    thinner = dataclasses.replace(thin, scales=(thin.scales[0] / 1000, *thin.scales[1:]))
    others = [weights for weights in network.weights if weights is not thin]
    network = dataclasses.replace(network, weights=(*others, thinner))
    quantized(trial, network, tmp_path)
    graph = onnx.load(tmp_path / "net.quantized.onnx").graph
    stored = {one.name for one in graph.initializer}
    assert "db" in stored
    assert "db_quantized" not in stored
    assert "b_quantized" in stored


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("retinaface-mnet025", "int8_channel_fused"),
        ("rtmdet-nano", "int8_channel"),
        ("squeezenet-winml", "int8_channel"),
        ("vit-pgd_2_3_16", "int8_channel_fused"),
    ],
)
def test_real_networks_are_written_bit_for_bit(shared_models, name, target, tmp_path):
    trial = trial_on_noise(shared_models / f"{name}.onnx", target, tmp_path)
    in_float = tuple(trial.plan.grids)[1::5]
    network = facts_of(trial, target, in_float=in_float)
    assert_it_is_the_plan(trial, network, tmp_path, without(trial, in_float))


def test_the_script_holds_no_name_of_any_model():
    script = formats.quantize_py()
    compile(script, "quantize.py", "exec")
    assert all(len(line) <= 100 for line in script.splitlines())
    assert set(re.findall(r"[\w.]+\.(?:onnx|json|py)\b", script)) == {
        "overrides.json",
        "quantize.py",
    }


# The other formats


def network_of(**changes):
    """Two convolutions and a product; the second convolution stays in float."""
    facts = QuantizedNetwork(
        graph_name="net",
        opset=17,
        target="int8_channel_fused",
        every_node=(("one", "Conv"), ("two", "Conv"), ("three", "MatMul")),
        tensors=(
            tensor("x", None),
            tensor("h", "one", bits=None),
            tensor("r", "two", bits=16, scale=0.001, zero_point=1000),
        ),
        weights=(
            QuantizedWeights(tensor="w", node_name="one", axis=0, scales=(0.5, 0.25), bits=8),
            QuantizedWeights(tensor="v", node_name="two", axis=0, scales=(), bits=None),
        ),
        float_nodes=("one", "two"),
        symmetric_activations=False,
        activation_bits=8,
    )
    return dataclasses.replace(facts, **changes)


def tensor(name, node_name, *, bits=8, scale=0.5, zero_point=10, is_symmetric=False):
    top = 2 ** (bits or 8) - 1
    return QuantizedTensor(
        tensor=name,
        node_name=node_name,
        bits=bits,
        scale=scale,
        zero_point=zero_point,
        low=-zero_point * scale,
        high=(top - zero_point) * scale,
        is_symmetric=is_symmetric,
    )


def test_every_kind_has_one_file_of_its_own():
    assert list(formats.KINDS) == [
        *("rescued", "ongrid", "quantize", "overrides", "exclude", "qtable", "encodings"),
        *("node_data", "annotated"),
    ]
    names = [kind.file_name("net") for kind in formats.KINDS.values()]
    assert len(set(names)) == len(names)
    assert all("\n" not in kind.use for kind in formats.KINDS.values())


def test_what_was_not_run_with_its_tool_says_so():
    for kind in ("exclude", "qtable", "encodings"):
        assert "ot run with" in formats.KINDS[kind].use
    assert "not run with tpu-mlir" in formats.qtable(network_of(), "net").text


def test_overrides_are_what_onnxruntime_calls_them():
    content = json.loads(formats.overrides_json(network_of(), "net.ongrid.onnx", "net.q.onnx"))
    assert content["overrides"] == {
        "w": [
            {"axis": 0, "scale": 0.5, "zero_point": 0, "quant_type": "QInt8"},
            {"axis": 0, "scale": 0.25, "zero_point": 0, "quant_type": "QInt8"},
        ],
        "x": [{"scale": 0.5, "zero_point": 10, "quant_type": "QUInt8"}],
        "r": [{"scale": 0.001, "zero_point": 1000, "quant_type": "QUInt16"}],
    }
    assert content["float"] == ["v", "h"]
    assert content["op_types_to_exclude_output"] == ["Conv", "ConvTranspose", "Gemm", "MatMul"]


def test_the_scale_of_a_tensor_in_float_may_be_anything():
    nothing = tensor("h", "one", bits=None, scale=float("nan"), zero_point=0)
    text = formats.overrides_json(network_of(tensors=(nothing,)), "net.ongrid.onnx", "net.q.onnx")
    assert json.loads(text)["float"] == ["v", "h"]


def test_nodes_are_excluded_one_a_line():
    written = formats.exclude_txt(["one", "a b", "it's #2", "one"])
    assert written.text == "one\na b\nit's #2\n"
    assert written.skipped == ()


@pytest.mark.parametrize("name", ["a\nb", "a\u2028b", "a\x0cb", " a", "a ", ""])
def test_a_name_that_no_line_holds_is_left_out_and_reported(name):
    written = formats.exclude_txt([name, "one"])
    assert written.text == "one\n"
    assert written.skipped == (name,)


def test_tpu_mlir_calls_a_node_by_its_first_output_and_operator():
    written = formats.qtable(network_of(), "net")
    assert written.text.splitlines()[-2:] == ["h_Conv F32", "r_Conv F32"]
    outputs = {"one": "first", "two": "second"}
    written = formats.qtable(network_of(), "net", first_outputs=outputs)
    assert written.text.splitlines()[-2:] == ["first_Conv F32", "second_Conv F32"]


@pytest.mark.parametrize("name", ["a b", "a\nb", "#a", "a\tb"])
def test_what_a_table_cannot_hold_is_left_out_and_reported(name):
    outputs = {"one": name, "two": "second"}
    written = formats.qtable(network_of(), "net", first_outputs=outputs)
    assert [line for line in written.text.splitlines() if not line.startswith("# ")] == [
        "second_Conv F32"
    ]
    assert written.skipped == ("one",)


def test_encodings_have_the_fields_of_0_6_1():
    content = json.loads(formats.encodings(network_of()))
    assert content["version"] == "0.6.1"
    assert content["activation_encodings"]["x"] == [
        {
            "bitwidth": 8,
            "dtype": "int",
            "is_symmetric": "False",
            "max": 122.5,
            "min": -5.0,
            "offset": -10,
            "scale": 0.5,
        }
    ]
    assert content["activation_encodings"]["h"] == [{"bitwidth": 32, "dtype": "float"}]
    channel = content["param_encodings"]["w"][1]
    assert channel | {"max": 31.75, "min": -32.0, "offset": -128} == channel
    assert channel["is_symmetric"] == "True"
    assert content["param_encodings"]["v"] == [{"bitwidth": 32, "dtype": "float"}]


def test_a_signed_tensor_has_as_many_codes_below_zero():
    signed = tensor("x", None, zero_point=0, is_symmetric=True)
    content = json.loads(formats.encodings(network_of(tensors=(signed,))))
    (encoding,) = content["activation_encodings"]["x"]
    assert (encoding["min"], encoding["offset"]) == (-64.0, -128)
    assert encoding["is_symmetric"] == "True"


def test_json_holds_every_name():
    network = network_of(tensors=(tensor(ODD, None),), float_nodes=(ODD,))
    texts = {written.kind: written for written in formats.texts(network, "net")}
    assert ODD in json.loads(texts["overrides"].text)["overrides"]
    assert ODD in json.loads(texts["encodings"].text)["activation_encodings"]
    assert texts["exclude"].skipped == texts["qtable"].skipped == (ODD,)


def test_the_shapes_of_a_sample_reach_the_script():
    shapes = {"x": (1, 3, 224, 224)}
    content = json.loads(
        formats.overrides_json(network_of(), "a.onnx", "b.onnx", input_shapes=shapes)
    )
    assert content["input_shapes"] == {"x": [1, 3, 224, 224]}

"""The file that a plan becomes: what it computes, what is in it, and what cannot be written."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from quantstore.errors import RunError
from quantstore.pipeline.files import demo_paths
from quantstore.run import qdq_file
from quantstore.run.runtime import Session
from tests.support.graphs import float_value, gaussian, make_model, node
from tests.support.planned import trial_on, trial_on_noise

# Figures of the same arithmetic differ by no more.
SAME_DB = 0.05


def written(trial, **options):
    return qdq_file.qdq_model(trial.network, trial.placed, trial.rounding, trial.plan, **options)


def outputs_of(model, trial, **options):
    session = Session(model, **{"is_optimized": False} | options)
    return [session.run(sample, trial.network.outputs) for sample in trial.samples]


def assert_it_is_the_plan(trial, folder):
    """The file computes what the emulator computes, and onnx has nothing to complain of."""
    path = qdq_file.save(written(trial), folder / "written.onnx")
    onnx.checker.check_model(str(path))
    expected = trial.emulated()
    actual = outputs_of(path, trial)
    assert trial.reference.median_db(actual) == pytest.approx(
        trial.reference.median_db(expected), abs=SAME_DB
    )
    return all(
        np.array_equal(one, other, equal_nan=True)
        for ours, theirs in zip(expected, actual, strict=True)
        for one, other in zip(ours, theirs, strict=True)
    )


def small_model(nodes, weights, shape=(1, 3, 8, 8), opset=17):
    """A model whose input ``x`` has a shape."""
    model = make_model(nodes, weights, opset=opset)
    model.graph.input[0].CopyFrom(float_value("x", list(shape)))
    return model


def trial_of(model, tmp_path, target="int8_channel", names=("y",), seed=0):
    random = np.random.default_rng(seed)
    shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim]
    draw = [{"x": random.normal(size=shape).astype(np.float32)} for _ in range(6)]
    return trial_on(model, names, draw[:4], draw[4:], target, tmp_path)


CONVOLUTIONS = {"w": gaussian(4, 3, 3, 3), "b": gaussian(4), "v": gaussian(2, 4, 1, 1, seed=1)}


def convolutions(opset=17):
    return small_model(
        [
            node("Conv", ["x", "w", "b"], ["h"], "first"),
            node("Relu", ["h"], ["r"], "relu"),
            node("Transpose", ["r"], ["t"], "transpose", perm=[0, 1, 3, 2]),
            node("Conv", ["t", "v"], ["y"], "second"),
        ],
        CONVOLUTIONS,
        opset=opset,
    )


# What the file computes


@pytest.mark.slow
@pytest.mark.parametrize("target", ["int8_tensor", "int8_channel", "int8_channel_fused"])
@pytest.mark.parametrize("path", demo_paths(), ids=lambda path: path.stem)
def test_the_file_of_a_demo_model_is_the_plan_bit_for_bit(path, target, tmp_path):
    assert assert_it_is_the_plan(trial_on_noise(path, target, tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        pytest.param("rtmdet-nano", "int8_channel", marks=pytest.mark.slow),
        pytest.param("retinaface-mnet025", "int8_tensor", marks=pytest.mark.slow),
        ("ultraface-rfb320", "int8_channel_fused"),
        ("vit-pgd_2_3_16", "int8_channel"),
        pytest.param("silero-vad", "int8_channel", marks=pytest.mark.slow),
        pytest.param("tract-bidi-lstm", "int8_channel", marks=pytest.mark.slow),
        pytest.param("mobilenetv2-12-int8", "int8_tensor", marks=pytest.mark.slow),
        pytest.param("squeezenet-winml", "int8_tensor", marks=pytest.mark.slow),
        pytest.param("ppocr-v2-det", "int8_channel", marks=pytest.mark.slow),
        pytest.param("maui-model", "int8_channel", marks=pytest.mark.slow),
    ],
)
def test_the_file_of_a_real_model_computes_what_the_emulator_does(
    shared_models, name, target, tmp_path
):
    trial = trial_on_noise(shared_models / f"{name}.onnx", target, tmp_path)
    assert_it_is_the_plan(trial, tmp_path)


@pytest.mark.parametrize(
    "target",
    [
        "int8_channel",
        "int8_channel_symmetric_activations",
        "int8_tensor_power_of_two",
        "int8_channel_int16",
        "int8_weights",
    ],
)
def test_every_target_that_qdq_can_express_is_written(tmp_path, target):
    assert assert_it_is_the_plan(trial_of(convolutions(), tmp_path, target), tmp_path)


def test_onnx_itself_computes_the_same(tmp_path):
    # onnx's reference of DequantizeLinear begins with operator set 19.
    trial = trial_of(convolutions(opset=21), tmp_path)
    evaluator = ReferenceEvaluator(written(trial))
    step = float(trial.plan.grids["y"].scale[0])
    for sample, (expected,) in zip(trial.samples, trial.emulated(), strict=True):
        (actual,) = evaluator.run(["y"], dict(sample))
        # Sums of another order may fall on the other side of a tie, a step away.
        assert np.mean(np.abs(actual - expected) > step / 2) < 0.01
        assert np.abs(actual - expected).max() <= step * 1.001


@pytest.mark.parametrize("target", ["int8_tensor", "int8_channel"])
def test_unsigned_weights_are_the_same_numbers(tmp_path, target):
    trial = trial_of(convolutions(), tmp_path, target)
    model = written(trial, weights_unsigned=True)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    assert stored["w_quantized"].data_type == TensorProto.UINT8
    assert np.all(numpy_helper.to_array(stored["w_zero_point"]) == 128)
    signed = outputs_of(written(trial), trial)
    for expected, actual in zip(signed, outputs_of(model, trial), strict=True):
        np.testing.assert_array_equal(actual[0], expected[0])


def test_a_branch_reads_rounded_tensors_and_rounded_weights(tmp_path):
    def branch(name, weights):
        return helper.make_graph(
            [node("Conv", ["r", weights], [f"{name}_y"], name)],
            name,
            [],
            [float_value(f"{name}_y")],
        )

    model = small_model(
        [
            node("Conv", ["x", "w"], ["h"], "first"),
            node("Relu", ["h"], ["r"], "relu"),
            node("ReduceSum", ["x"], ["total"], "sum", keepdims=0),
            node("Greater", ["total", "zero"], ["is_bright"], "greater"),
            node(
                "If",
                ["is_bright"],
                ["y"],
                "if",
                then_branch=branch("bright", "v"),
                else_branch=branch("dark", "u"),
            ),
            node("Conv", ["r", "v"], ["z"], "beside"),
        ],
        CONVOLUTIONS | {"u": gaussian(2, 4, 1, 1, seed=2), "zero": np.zeros((), np.float32)},
    )
    model.graph.output.append(float_value("z"))
    trial = trial_of(model, tmp_path, names=("y", "z"))
    assert assert_it_is_the_plan(trial, tmp_path)
    (conditional,) = [one for one in written(trial).graph.node if one.op_type == "If"]
    read = {name for part in conditional.attribute for one in part.g.node for name in one.input}
    assert "r" in read
    assert not any(name.startswith("quantstore_weights") for name in read)


def test_both_directions_of_a_recurrent_layer_have_scales_of_their_own(tmp_path):
    model = small_model(
        [
            node(
                "LSTM", ["x", "w", "r"], ["", "y"], "lstm", hidden_size=4, direction="bidirectional"
            )
        ],
        {"w": gaussian(2, 16, 3), "r": gaussian(2, 16, 4, seed=1)},
        shape=(5, 1, 3),
    )
    trial = trial_of(model, tmp_path)
    assert assert_it_is_the_plan(trial, tmp_path)
    stored = {tensor.name: tensor for tensor in written(trial).graph.initializer}
    assert list(stored["w_scale"].dims) == [32]


def test_transposed_convolutions_in_groups_keep_their_scales(tmp_path):
    model = small_model(
        [node("ConvTranspose", ["x", "w", "b"], ["y"], "up", group=2)],
        {"w": gaussian(4, 3, 2, 2), "b": gaussian(6)},
        shape=(1, 4, 5, 5),
    )
    assert assert_it_is_the_plan(trial_of(model, tmp_path), tmp_path)


# What is in the file


def test_constants_are_stored_as_integers_under_the_names_of_the_model(tmp_path):
    model = written(trial_of(convolutions(), tmp_path))
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    types = {name: stored[f"{name}_quantized"].data_type for name in ("w", "v", "b")}
    assert types == {"w": TensorProto.INT8, "v": TensorProto.INT8, "b": TensorProto.INT32}
    assert list(stored["w_scale"].dims) == [4]
    assert not any(
        tensor.data_type == TensorProto.FLOAT
        for tensor in stored.values()
        if "scale" not in tensor.name
    )
    assert model.producer_name == qdq_file.PRODUCER


def test_every_operator_that_moves_values_has_a_pair_behind_it_so_that_integers_run_through(
    tmp_path,
):
    model = written(trial_of(convolutions(), tmp_path))
    read_by = {name: one for one in model.graph.node for name in one.input}
    for op_type, follower in (
        # A runtime runs Conv and Relu as one; there is no rounding between the two.
        ("Conv", ("Relu", "QuantizeLinear")),
        ("Relu", ("QuantizeLinear",)),
        ("Transpose", ("QuantizeLinear",)),
    ):
        for one in model.graph.node:
            if one.op_type == op_type:
                assert read_by[one.output[0]].op_type in follower
    relu, transpose = (
        read_by[one.output[0]] for one in model.graph.node if one.op_type in ("Relu", "Transpose")
    )
    assert relu.input[1:] == transpose.input[1:]


def test_an_integer_runtime_finds_its_operators(tmp_path):
    """onnxruntime's own optimizer is the judge of what an int8 runtime can run."""
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    model = written(trial_of(convolutions(), tmp_path))
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    optimized = onnx.load(tmp_path / "optimized.onnx")
    operators = [one.op_type for one in optimized.graph.node]
    assert operators.count("QLinearConv") == 2
    assert "Conv" not in operators
    assert "Relu" not in operators


def test_inputs_and_outputs_keep_their_names(tmp_path):
    model = written(trial_of(convolutions(), tmp_path))
    assert [value.name for value in model.graph.input] == ["x"]
    assert [value.name for value in model.graph.output] == ["y"]


def test_names_that_are_taken_are_left_alone(tmp_path):
    model = small_model(
        [
            node("Conv", ["x", "w"], ["x_DequantizeLinear_Output"], "first"),
            node("Conv", ["x_DequantizeLinear_Output", "v"], ["y"], "second"),
        ],
        CONVOLUTIONS,
    )
    del model.graph.initializer[1]
    assert assert_it_is_the_plan(trial_of(model, tmp_path), tmp_path)


def test_tensors_and_weights_that_a_plan_leaves_out_stay_in_float(tmp_path):
    trial = trial_of(convolutions(), tmp_path)
    first, _ = trial.placed.weights
    plan = trial.plan.without([first, "r"])
    model = qdq_file.qdq_model(trial.network, trial.placed, trial.rounding, plan)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    np.testing.assert_array_equal(numpy_helper.to_array(stored["w"]), CONVOLUTIONS["w"])
    assert "v_quantized" in stored
    rounded = {one.input[0] for one in model.graph.node if one.op_type == "QuantizeLinear"}
    # What only moves the values of a tensor in float lies on no grid.
    assert rounded == {"x", "y_QuantizeLinear_Input"}


def test_sixteen_bits_are_written_for_older_operator_sets_and_for_new_ones(tmp_path):
    for opset, domain in ((17, "com.microsoft"), (21, "")):
        trial = trial_of(convolutions(opset), tmp_path, "int8_channel_int16")
        model = written(trial)
        domains = {one.domain for one in model.graph.node if one.op_type == "QuantizeLinear"}
        assert domains == {domain}


def test_large_constants_go_into_a_file_beside(tmp_path):
    product = small_model(
        [node("MatMul", ["x", "w"], ["y"], "product")], {"w": gaussian(64, 64)}, shape=(4, 64)
    )
    trial = trial_of(product, tmp_path)
    model = written(trial)
    expected = outputs_of(model, trial)
    # Twice: what lies there already is no part of it.
    for _ in range(2):
        path = qdq_file.save(written(trial), tmp_path / "large.onnx", most_inline_bytes=10)
    beside = tmp_path / "large.onnx.data"
    assert (
        0
        < beside.stat().st_size
        < 2 * sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    )
    onnx.checker.check_model(str(path))
    for one, other in zip(expected, outputs_of(path, trial), strict=True):
        np.testing.assert_array_equal(one[0], other[0])


# What is refused


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("int8_channel_depthwise", qdq_file.IS_PER_CHANNEL),
        ("int8_dynamic", qdq_file.IS_DYNAMIC),
        ("int4_weights", qdq_file.NEEDS_INTEGERS),
    ],
)
def test_what_qdq_cannot_express_is_refused_in_one_sentence(tmp_path, target, reason):
    depthwise = small_model(
        [
            node("Conv", ["x", "w"], ["h"], "depthwise", group=3),
            node("Conv", ["h", "v"], ["y"], "pointwise"),
        ],
        {"w": gaussian(3, 1, 3, 3), "v": gaussian(2, 3, 1, 1)},
    )
    with pytest.raises(RunError) as refusal:
        written(trial_of(depthwise, tmp_path, target))
    assert str(refusal.value) == reason


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RunError, match=r"net\.onnx cannot be written"):
        qdq_file.save(onnx.ModelProto(), Path(tmp_path / "absent" / "net.onnx"))

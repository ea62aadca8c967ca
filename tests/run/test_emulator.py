"""What a network computes when its tensors and weights are rounded, against what others compute."""

import numpy as np
import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from quantstore.numerics.quantization import round_trip
from quantstore.pipeline.files import demo_paths
from quantstore.run.comparison import sqnr_db
from quantstore.run.emulator import Emulator, FixedEmulator, Plan
from quantstore.run.grids import AT_RUN_TIME, ActivationGrid, grids_of, of_channels
from quantstore.run.nodes import every_node, name_of
from quantstore.run.placement import RECURRENT, placement
from quantstore.run.plans import Rounding
from quantstore.run.ranges import Range
from quantstore.run.roundings import FixedGrids, GridInputs, has_byte_codes
from quantstore.run.runtime import Session
from quantstore.schemes import INT8_SCHEMES, TARGETS, Activations, Target
from tests.support.graphs import float_value, gaussian, make_model, node
from tests.support.trials import trial_of_file, trial_of_model

EVERYWHERE, BY_CHANNEL, FUSED = (
    TARGETS[name] for name in ("int8_tensor", "int8_channel", "int8_channel_fused")
)
WEIGHTS, DYNAMIC = TARGETS["int8_weights"], TARGETS["int8_dynamic"]

# --- one rounding ------------------------------------------------------------------------------

OPSET = [helper.make_opsetid("", 21)]


def rounding_session(inputs):
    """The nodes of one rounding, from ``x`` to ``y``, and nothing else."""
    graph = onnx.GraphProto(name="rounding")
    graph.input.append(float_value("x"))
    inputs.declare(graph)
    graph.node.extend(inputs.rounding("x", "x", "y"))
    graph.output.append(onnx.ValueInfoProto(name="y"))
    model = helper.make_model(graph, opset_imports=OPSET, ir_version=10)
    return Session(model, is_optimized=False)


def quantize_and_back(code, *, axis=None):
    """QuantizeLinear, then DequantizeLinear, in onnx's own implementation."""
    attributes = {} if axis is None else {"axis": axis}
    shape = [] if axis is None else [None]
    graph = helper.make_graph(
        [
            node("QuantizeLinear", ["x", "scale", "zero"], ["q"], **attributes),
            node("DequantizeLinear", ["q", "scale", "zero"], ["y"], **attributes),
        ],
        "there and back",
        [
            float_value("x"),
            float_value("scale", shape),
            helper.make_tensor_value_info("zero", code, shape),
        ],
        [float_value("y")],
    )
    return ReferenceEvaluator(helper.make_model(graph, opset_imports=OPSET, ir_version=10))


CODES = {
    "uint8": (TensorProto.UINT8, np.uint8, 0, 255),
    "int8": (TensorProto.INT8, np.int8, -128, 127),
    "uint16": (TensorProto.UINT16, np.uint16, 0, 65535),
}
ONE_FOR_ALL = rounding_session(GridInputs(["x"]))
THERE_AND_BACK = {name: quantize_and_back(code[0]) for name, code in CODES.items()}

scales = st.floats(2.0**-10, 2.0**10, width=32)
# Codes that fit into the 32 bits of the reference before they are clipped.
values = st.floats(-1e4, 1e4, width=32)
tensors = arrays.arrays(np.float32, arrays.array_shapes(max_dims=3, max_side=6), elements=values)


def counted_from(zero, scale, lowest, highest):
    """A grid as it is fed: its codes counted from the zero point."""
    return ActivationGrid(*(np.float32([one]) for one in (scale, lowest - zero, highest - zero)))


@pytest.mark.parametrize("name", CODES)
@given(x=tensors, scale=scales, share=st.floats(0, 1))
def test_a_rounding_is_that_of_onnx_bit_for_bit(name, x, scale, share):
    _, dtype, lowest, highest = CODES[name]
    zero = int(lowest + share * (highest - lowest))
    grid = counted_from(zero, scale, lowest, highest)
    (found,) = ONE_FOR_ALL.run({"x": x, **GridInputs(["x"]).fed({"x": grid})})
    feeds = {"x": x, "scale": np.float32(scale), "zero": np.array(zero, dtype)}
    (expected,) = THERE_AND_BACK[name].run(None, feeds)
    np.testing.assert_array_equal(found, expected)


def test_halves_go_to_the_even_code():
    x = np.arange(-8, 8, dtype=np.float32) / 2
    grid = counted_from(128, 1.0, 0, 255)
    (found,) = ONE_FOR_ALL.run({"x": x, **GridInputs(["x"]).fed({"x": grid})})
    np.testing.assert_array_equal(found, np.rint(x))


anything = arrays.arrays(
    np.float32, arrays.array_shapes(max_dims=3, max_side=6), elements=st.floats(width=32)
)


@given(x=anything)
def test_a_tensor_without_a_grid_passes_as_it_is(x):
    (found,) = ONE_FOR_ALL.run({"x": x, **GridInputs(["x"]).fed({})})
    # Equal are 0 and -0 as well.
    np.testing.assert_array_equal(found, x)


numbers = arrays.arrays(
    np.float32,
    arrays.array_shapes(max_dims=3, max_side=6),
    elements=st.floats(width=32, allow_nan=False),
)


@pytest.mark.parametrize("name", CODES)
@given(x=numbers, scale=scales, share=st.floats(0, 1))
def test_a_grid_that_is_constant_rounds_as_one_that_is_fed(name, x, scale, share):
    _, _, lowest, highest = CODES[name]
    grid = counted_from(int(lowest + share * (highest - lowest)), scale, lowest, highest)
    assert has_byte_codes(grid) == (name != "uint16")
    (found,) = rounding_session(FixedGrids({"x": grid})).run({"x": x})
    (expected,) = ONE_FOR_ALL.run({"x": x, **GridInputs(["x"]).fed({"x": grid})})
    np.testing.assert_array_equal(found, expected)


WIDE = GridInputs(["x"], wide={"x": (4, 1)})
WIDE_SESSION = rounding_session(WIDE)
BY_AXIS = quantize_and_back(TensorProto.UINT8, axis=1)


@given(
    x=arrays.arrays(np.float32, (2, 4, 3), elements=values),
    scale=arrays.arrays(np.float32, 4, elements=scales),
    zero=arrays.arrays(np.uint8, 4),
)
def test_a_grid_for_each_channel_is_that_of_onnx_along_an_axis(x, scale, zero):
    each = [counted_from(int(z), s, 0, 255) for s, z in zip(scale, zero, strict=True)]
    grid = of_channels(each, trailing_axes=1)
    (found,) = WIDE_SESSION.run({"x": x, **WIDE.fed({"x": grid})})
    (expected,) = BY_AXIS.run(None, {"x": x, "scale": scale, "zero": zero})
    np.testing.assert_array_equal(found, expected)
    (passed,) = WIDE_SESSION.run({"x": x, **WIDE.fed({})})
    np.testing.assert_array_equal(passed, x)


AT_RUN = GridInputs(["x"], dynamic={"x"})
AT_RUN_SESSION = rounding_session(AT_RUN)


def dynamically_rounded(x):
    graph = helper.make_graph(
        [
            node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
            node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        ],
        "at run time",
        [float_value("x")],
        [float_value("y")],
    )
    model = helper.make_model(graph, opset_imports=OPSET, ir_version=10)
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


@given(x=tensors)
@example(x=np.float32([6.38165e-40]))
def test_a_grid_found_at_run_time_is_that_of_dynamic_quantize_linear(x):
    (found,) = AT_RUN_SESSION.run({"x": x, **AT_RUN.fed({"x": AT_RUN_TIME})})
    step = (x.max(initial=0) - x.min(initial=0)) / np.float32(255)
    # A processor may take smaller steps for zero, and divide by them.
    is_nothing = step < np.finfo(np.float32).tiny
    np.testing.assert_array_equal(found, np.zeros_like(x) if is_nothing else dynamically_rounded(x))


@given(x=tensors, scale=scales)
def test_where_a_grid_may_be_found_at_run_time_one_may_be_fed_as_well(x, scale):
    grid = counted_from(128, scale, 0, 255)
    (found,) = AT_RUN_SESSION.run({"x": x, **AT_RUN.fed({"x": grid})})
    (expected,) = ONE_FOR_ALL.run({"x": x, **GridInputs(["x"]).fed({"x": grid})})
    np.testing.assert_array_equal(found, expected)
    (passed,) = AT_RUN_SESSION.run({"x": x, **AT_RUN.fed({})})
    np.testing.assert_array_equal(passed, x)


# --- the grid of a range -----------------------------------------------------------------------


@given(
    low=st.floats(-1e4, 1e4, width=32),
    span=st.floats(0.0009765625, 1e4, width=32),
    bits=st.sampled_from([8, 16]),
    is_symmetric=st.booleans(),
)
def test_a_grid_is_the_one_that_onnxruntime_computes(low, span, bits, is_symmetric):
    utilities = pytest.importorskip("onnxruntime.quantization.quant_utils")
    low, high = np.float32(low), np.float32(low + span)
    (grid,) = grids_of(
        np.float64([low]), np.float64([high]), Activations(bits=bits, is_symmetric=is_symmetric)
    )
    half = 2 ** (bits - 1)
    qmin, qmax = (-half, half - 1) if is_symmetric else (0, 2 * half - 1)
    zero, scale = utilities.compute_scale_zp(
        low,
        high,
        np.array(qmin, np.int32),
        np.array(qmax, np.int32),
        symmetric=is_symmetric,
    )
    if is_symmetric:
        # Its scale maps the range to 2^bits - 1 steps, ours the larger end to the last code.
        assert grid.scale[0] == pytest.approx(max(abs(low), abs(high)) / qmax, rel=1e-6)
        assert (grid.lowest[0], grid.highest[0]) == (qmin, qmax)
    else:
        assert grid.scale[0] == pytest.approx(float(scale), rel=1e-5)
        assert abs(-grid.lowest[0] - int(zero)) <= 1
        assert grid.highest[0] - grid.lowest[0] == qmax


# --- whole networks ----------------------------------------------------------------------------

QUICK = ("digits-plain", "digits-rescaled", "vit-pgd_2_3_16")
# What onnxruntime runs, and its quantizer writes.
FILES = (
    *("digits-plain", "digits-rescaled", "digits-separable", "digits-separable-unfolded"),
    *("vit-pgd_2_3_16", "ultraface-rfb320", "ext-digits-dynamo/model", "retinaface-mnet025"),
    *("rtmdet-nano", "squeezenet-winml", "ppocr-v2-det", "mobilenetv2-12-int8", "maui-model"),
    *("yolov10n-quant", "tract-bidi-lstm", "silero-vad", "fasterrcnn-structure"),
)
# Its quantizer drops a Relu that a branch reads, unless it is told to keep them all.
LOSE_A_RELU = ("silero-vad",)
every_file = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FILES],
)


@pytest.fixture
def path_of(request):
    demos = {path.stem: path for path in demo_paths()}

    def path_of(name):
        if name in demos:
            return demos[name]
        return request.getfixturevalue("shared_models") / f"{name}.onnx"

    return path_of


@every_file
def test_a_network_in_the_emulator_is_the_file_that_onnxruntimes_quantizer_writes(
    name, path_of, tmp_path
):
    trial = trial_of_file(path_of(name), tmp_path)
    # Its quantizer leaves recurrent layers in float.
    recurrent = [one for one in every_node(trial.network.model.graph) if one.op_type in RECURRENT]
    trial.exclude = tuple(name_of(one) for one in recurrent)
    targets = (EVERYWHERE, BY_CHANNEL, FUSED)
    in_float, figures, planner = trial.figures(*targets)
    # With nothing rounded it is the float network.
    assert in_float > 100
    ranges = {
        tensor: seen.range.ends
        for tensor, seen in planner.observed.items()
        if seen.range.sentinel_count
    }
    for target, figure in zip(targets, figures, strict=True):
        refereed = trial.refereed(
            target,
            ranges=ranges,
            nodes_to_exclude=trial.exclude,
            extra_options={"QDQKeepRemovableActivations": name in LOSE_A_RELU},
        )
        assert figure == pytest.approx(refereed, abs=0.5), target.name


@pytest.mark.parametrize("scheme", INT8_SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_every_int8_scheme_of_weights_goes_with_activations(scheme, path_of, tmp_path):
    trial = trial_of_file(path_of("digits-plain"), tmp_path)
    target = Target(scheme.name, scheme, Activations(), "everywhere", "")
    # Asymmetric weights take uint8 codes here and int8 there: the same grid, moved by 128.
    assert trial.figure(target) == pytest.approx(trial.refereed(target), abs=0.5)


@pytest.mark.slow
def test_one_session_runs_every_target(path_of, tmp_path):
    trial = trial_of_file(path_of("digits-separable"), tmp_path)
    asked = [target for target in TARGETS.values() if target.activations is not None]
    _, together, _ = trial.figures(*asked)
    for target, figure in zip(asked, together, strict=True):
        assert figure == pytest.approx(trial.figure(target), abs=0.01), target.name
    by_name = dict(zip((target.name for target in asked), together, strict=True))
    assert by_name["int8_channel_int16"] > by_name["int8_channel"] + 2
    assert by_name["int8_tensor_power_of_two"] < by_name["int8_tensor"]


def test_a_scale_for_each_channel_saves_what_a_depthwise_convolution_reads(tmp_path):
    nodes = [node("Conv", ["x", "w"], ["y"], "conv", group=2)]
    model = shaped(make_model(nodes, {"w": gaussian(2, 1, 3, 3)}), x=[1, 2, 8, 8])
    loud = np.float32([1, 300]).reshape(1, 2, 1, 1)
    trial = trial_of_model(
        model, tmp_path, feed=lambda index: {"x": loud * gaussian(1, 2, 8, 8, seed=index)}
    )
    for target, is_saved in ((FUSED, False), (TARGETS["int8_channel_depthwise"], True)):
        expected = [trial.network.session.run(trial.network.fed(one))[0] for one in trial.test]
        found = [y for (y,) in trial.emulated(target)]
        quiet = sqnr_db(np.stack(expected)[:, :, 0], np.stack(found)[:, :, 0])
        assert (quiet > 20) == is_saved


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("file", ["digits-separable", "silero-vad"])
def test_grids_that_are_constants_give_what_those_that_are_fed_give(name, file, path_of, tmp_path):
    """Bit for bit but for the sign of zeros, under every target."""
    target = TARGETS[name]
    trial = trial_of_file(path_of(file), tmp_path)
    placed, plan = trial.placed(target), trial.plan_of(target)
    fixed = FixedEmulator(trial.network, placed, plan.grids)
    fed = Emulator(trial.network, [placed], [plan.grids])
    for sample, expected in zip(trial.test, fed.run(plan, trial.test), strict=True):
        for one, other in zip(fixed.run(plan, sample), expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_order_of_targets_and_what_ran_before_change_nothing(path_of, tmp_path):
    trial = trial_of_file(path_of("digits-plain"), tmp_path)
    placements = [trial.placed(EVERYWHERE), trial.placed(FUSED)]
    plans = [trial.plan_of(EVERYWHERE), trial.plan_of(FUSED)]
    emulator = Emulator(trial.network, placements)
    first = [one[0] for one in emulator.run(plans[0], trial.test)]
    list(emulator.run(plans[1], trial.test))
    again = [one[0] for one in emulator.run(plans[0], trial.test)]
    np.testing.assert_array_equal(first, again)


# --- plans -------------------------------------------------------------------------------------


def two_layers(**more):
    """``y = relu(x w + b) v``."""
    nodes = [
        node("Gemm", ["x", "w", "b"], ["h"], "first"),
        node("Relu", ["h"], ["r"], "relu"),
        node("MatMul", ["r", "v"], ["y"], "second"),
    ]
    weights = {"w": gaussian(5, 8), "b": gaussian(8), "v": gaussian(8, 3)}
    return shaped(make_model(nodes, weights, **more), x=[1, 5])


def shaped(model, **shapes):
    for value in model.graph.input:
        if value.name in shapes:
            value.CopyFrom(float_value(value.name, shapes[value.name]))
    return model


def feed_of(**shapes):
    def feed(index):
        return {name: gaussian(*shape, seed=index) for name, shape in shapes.items()}

    return feed


def test_a_plan_with_or_without_some_names_is_a_smaller_plan(tmp_path):
    plan = trial_of_model(two_layers(), tmp_path, feed=feed_of(x=(1, 5))).plan_of(EVERYWHERE)
    assert set(plan.grids) == {"x", "r", "y"}
    only = plan.only(["x", "nobody"])
    assert (set(only.grids), set(only.constants)) == ({"x"}, set())
    rest = plan.without(["x"])
    assert set(rest.grids) == {"r", "y"}
    assert set(rest.constants) == set(plan.constants)
    assert plan.only([]) == plan.without([*plan.grids, *plan.constants]) == Plan()


def test_a_bias_is_a_whole_number_of_steps_of_input_and_weights(tmp_path):
    trial = trial_of_model(two_layers(), tmp_path, feed=feed_of(x=(1, 5)))
    plan = trial.plan_of(EVERYWHERE)
    weights = np.abs(gaussian(5, 8)).max() / 127
    step = np.float64(plan.grids["x"].scale[0]) * weights
    codes = plan.constants["b"] / step
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-2)
    np.testing.assert_allclose(plan.constants["b"], gaussian(8), atol=step / 2)


def test_the_outputs_are_rounded_as_well(tmp_path):
    trial = trial_of_model(two_layers(), tmp_path, feed=feed_of(x=(1, 5)))
    grid = trial.plan_of(EVERYWHERE).grids["y"]
    for (y,) in trial.emulated(EVERYWHERE):
        np.testing.assert_allclose(y / grid.scale, np.rint(y / grid.scale), atol=1e-3)
    assert len(np.unique(np.concatenate([y for (y,) in trial.emulated(FUSED)]))) == 24


# --- traps of onnxruntime's quantizer that are not imitated ------------------------------------


def read_in_a_branch():
    """Conv and Relu, whose result only an If reads."""

    def branch(name, op_type):
        inside = [node("GlobalAveragePool" if op_type else "GlobalMaxPool", ["r"], [f"y_{name}"])]
        return helper.make_graph(inside, name, [], [float_value(f"y_{name}")])

    nodes = [
        node("Conv", ["x", "w"], ["h"], "conv"),
        node("Relu", ["h"], ["r"], "relu"),
        node("ReduceSum", ["x"], ["total"], keepdims=0),
        node("Greater", ["total", "limit"], ["flag"]),
        node("If", ["flag"], ["y"], then_branch=branch("a", 1), else_branch=branch("b", 1)),
    ]
    weights = {"w": gaussian(4, 3, 3, 3), "limit": np.float32(0)}
    return shaped(make_model(nodes, weights), x=[1, 3, 8, 8])


def test_a_relu_that_a_branch_reads_is_not_lost(tmp_path):
    trial = trial_of_model(read_in_a_branch(), tmp_path, feed=feed_of(x=(1, 3, 8, 8)))
    assert trial.figure(EVERYWHERE) > 25
    assert trial.figure(EVERYWHERE) > trial.refereed(EVERYWHERE) + 10


LOWEST = np.float32(-3.4028235e38)


def padded_before_pooling():
    """What exporters write in front of a MaxPool: the lowest float as padding."""
    nodes = [
        node("Conv", ["x", "w"], ["h"], "conv"),
        node("Pad", ["h", "pads", "lowest"], ["p"], "pad"),
        node("MaxPool", ["p"], ["m"], "pool", kernel_shape=[3, 3], strides=[2, 2]),
        node("Conv", ["m", "v"], ["y"], "second"),
    ]
    weights = {
        "w": gaussian(4, 3, 3, 3),
        "v": gaussian(2, 4, 1, 1),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
        "lowest": LOWEST,
    }
    return shaped(make_model(nodes, weights), x=[1, 3, 8, 8])


def test_padding_with_the_lowest_float_does_not_set_a_range(tmp_path):
    trial = trial_of_model(padded_before_pooling(), tmp_path, feed=feed_of(x=(1, 3, 8, 8)))
    _, (figure,), planner = trial.figures(EVERYWHERE)
    sentinels = {
        name: seen.range for name, seen in planner.observed.items() if seen.range.sentinel_count
    }
    assert set(sentinels) == {"p"}
    assert figure > 25
    assert figure > trial.refereed(EVERYWHERE) + 10
    ranges = {name: seen.ends for name, seen in sentinels.items()}
    assert figure == pytest.approx(trial.refereed(EVERYWHERE, ranges=ranges), abs=0.5)


# --- networks of every shape -------------------------------------------------------------------


def agrees(trial, target=EVERYWHERE):
    """Whether the quantizer's file gives the same; and the figure."""
    figure = trial.figure(target)
    assert figure == pytest.approx(trial.refereed(target), abs=0.5)
    return figure


def test_a_weight_that_two_layers_share_is_rounded_for_both(tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["h"], "a"), node("MatMul", ["h", "w"], ["y"], "b")]
    model = shaped(make_model(nodes, {"w": gaussian(4, 4)}), x=[3, 4])
    trial = trial_of_model(model, tmp_path, feed=feed_of(x=(3, 4)))
    assert len(trial.plan_of(WEIGHTS).constants) == 2
    assert 20 < agrees(trial) < 60


def test_several_inputs_are_each_rounded(tmp_path):
    nodes = [
        node("MatMul", ["x", "w"], ["h"], "a"),
        node("Add", ["h", "z"], ["s"], "sum"),
        node("MatMul", ["s", "v"], ["y"], "b"),
    ]
    weights = {"w": gaussian(4, 6), "v": gaussian(6, 2)}
    model = shaped(make_model(nodes, weights, inputs=("x", "z")), x=[2, 3, 4], z=[2, 3, 6])
    trial = trial_of_model(model, tmp_path, feed=feed_of(x=(2, 3, 4), z=(2, 3, 6)))
    assert {"x", "z"} <= set(trial.plan_of(EVERYWHERE).grids)
    assert 20 < agrees(trial) < 60


def test_an_image_with_channels_last_is_rounded_before_its_transpose(tmp_path):
    nodes = [
        node("Transpose", ["x"], ["t"], "nchw", perm=[0, 3, 1, 2]),
        node("Conv", ["t", "w"], ["y"], "conv"),
    ]
    model = shaped(make_model(nodes, {"w": gaussian(4, 3, 3, 3)}), x=[1, 8, 8, 3])
    trial = trial_of_model(model, tmp_path, feed=feed_of(x=(1, 8, 8, 3)))
    assert 20 < agrees(trial) < 60
    for target in (FUSED, TARGETS["int8_channel_depthwise"]):
        assert 20 < trial.figure(target) < 60


def test_a_state_that_is_fed_like_an_input_is_rounded_like_one(tmp_path):
    nodes = [
        node("Concat", ["x", "state"], ["c"], "join", axis=1),
        node("MatMul", ["c", "w"], ["h"], "layer"),
        node("Tanh", ["h"], ["next"], "squash"),
    ]
    model = make_model(nodes, {"w": gaussian(6, 4)}, inputs=("x", "state"), outputs=("h", "next"))
    model = shaped(model, x=[1, 2], state=[1, 4])

    def feed(index):
        state = np.zeros((1, 4), np.float32) if index == 0 else np.tanh(gaussian(1, 4, seed=index))
        return {"x": gaussian(1, 2, seed=index), "state": state}

    trial = trial_of_model(model, tmp_path, feed=feed)
    assert {"x", "state"} <= set(trial.plan_of(EVERYWHERE).grids)
    assert 20 < agrees(trial) < 60


# --- recurrent layers --------------------------------------------------------------------------

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent_model(op_type):
    gates, hidden, size = GATES[op_type], 6, 5
    outputs = [node(op_type, ["x", "w", "r"], ["y"], "layer", hidden_size=hidden)]
    weights = {
        "w": 0.5 * gaussian(1, gates * hidden, size),
        "r": 0.5 * gaussian(1, gates * hidden, hidden, seed=1),
    }
    return shaped(make_model(outputs, weights), x=[7, 1, size]), weights


@pytest.mark.parametrize("op_type", GATES)
def test_a_recurrent_layer_has_its_weights_and_its_input_rounded(op_type, tmp_path):
    model, weights = recurrent_model(op_type)
    trial = trial_of_model(model, tmp_path, feed=feed_of(x=(7, 1, 5)))
    scheme = FUSED.scheme
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in changed.graph.initializer:
        rounded = round_trip(weights[tensor.name][0], scheme)[np.newaxis]
        tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    reference = ReferenceEvaluator(changed)
    seen = np.concatenate([one["x"].ravel() for one in trial.calibration])
    low, high = min(seen.min(), 0), max(seen.max(), 0)
    scale = np.float32((high - low) / 255)
    zero = np.rint(-low / scale)
    expected = []
    for sample in trial.test:
        x = (np.clip(np.rint(sample["x"] / scale) + zero, 0, 255) - zero) * scale
        expected.append(reference.run(None, {"x": x.astype(np.float32)}))
    assert trial.reference.median_db(expected) == pytest.approx(trial.figure(FUSED), abs=0.1)
    assert trial.placed(FUSED).left_in_float == ()
    assert 20 < trial.figure(FUSED) < 60
    excluded = trial_of_model(model, tmp_path, feed=feed_of(x=(7, 1, 5)), exclude=("layer",))
    with_nothing = excluded.plan_of(FUSED)
    assert with_nothing == Plan()


# --- bodies of branches and loops --------------------------------------------------------------


def float_graph(nodes, name, inputs, outputs, weights):
    return helper.make_graph(
        nodes,
        name,
        inputs,
        [float_value(one) for one in outputs],
        [numpy_helper.from_array(array, key) for key, array in weights.items()],
    )


def in_a_branch():
    def branch(name, seed):
        inside = [node("MatMul", ["x", f"w_{name}"], [f"y_{name}"], f"layer_{name}")]
        weights = {f"w_{name}": gaussian(4, 4, seed=seed)}
        return float_graph(inside, name, [], [f"y_{name}"], weights)

    nodes = [
        node("ReduceSum", ["x"], ["total"], keepdims=0),
        node("Greater", ["total", "limit"], ["flag"]),
        node("If", ["flag"], ["y"], then_branch=branch("a", 1), else_branch=branch("b", 2)),
    ]
    return make_model(nodes, {"limit": np.float32(0)}), {"layer_a", "layer_b"}


def in_a_loop():
    body = float_graph(
        [
            node("MatMul", ["before", "w"], ["h"], "layer"),
            node("Tanh", ["h"], ["after"], "squash"),
            node("Identity", ["go"], ["go_on"], "go on"),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            float_value("before"),
        ],
        [],
        {"w": gaussian(4, 4)},
    )
    body.output.extend(
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []), float_value("after")]
    )
    nodes = [node("Loop", ["count", "", "x"], ["y"], "loop", body=body)]
    return make_model(nodes, {"count": np.array(3, np.int64)}), {"layer"}


def in_a_scan():
    body = float_graph(
        [
            node("MatMul", ["row", "w"], ["h"], "layer"),
            node("Add", ["h", "before"], ["after"], "sum"),
            node("Identity", ["after"], ["out"], "copy"),
        ],
        "body",
        [float_value("before", [4]), float_value("row", [4])],
        ["after", "out"],
        {"w": gaussian(4, 4)},
    )
    nodes = [node("Scan", ["start", "x"], ["last", "y"], "scan", body=body, num_scan_inputs=1)]
    return make_model(nodes, {"start": np.zeros(4, np.float32)}), {"layer"}


@pytest.mark.parametrize("make", [in_a_branch, in_a_loop, in_a_scan])
def test_weights_in_bodies_are_rounded_and_a_layer_there_can_be_excluded(make, tmp_path):
    model, layers = make()
    trial = trial_of_model(shaped(model, x=[3, 4]), tmp_path, feed=feed_of(x=(3, 4)))
    nodes = {str(slot.site.node.name) for slot in trial.network.slot_of.values()}
    assert {name.split("/")[0] for name in nodes} == layers
    weights = {
        name: round_trip(array.T, WEIGHTS.scheme).T
        for name, array in trial.network.constants.items()
    }
    plan = trial.plan_of(WEIGHTS)
    assert set(plan.constants) == set(weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(plan.constants[name], array)
    assert 20 < trial.figure(WEIGHTS) < 60
    placed = trial.placed(FUSED)
    assert placed.left_in_float == ()
    assert len(placed.weights) == len(layers)
    excluded = placement(trial.network, FUSED, nodes)
    assert (excluded.weights, excluded.left_in_float) == ((), ())


def through(array, grid):
    codes = np.clip(np.rint(array / grid.scale[0]), grid.lowest[0], grid.highest[0])
    return codes * grid.scale[0]


def by_hand_in_a_branch(x, weights, rounded):
    return rounded(x) @ weights["layer_a" if x.sum() > 0 else "layer_b"]


def by_hand_in_a_loop(x, weights, rounded):
    for _ in range(3):
        x = np.tanh(rounded(x) @ weights["layer"])
    return x


def by_hand_in_a_scan(x, weights, rounded):
    return np.cumsum([rounded(row) @ weights["layer"] for row in x], axis=0)


@pytest.mark.parametrize(
    ("make", "by_hand"),
    [
        (in_a_branch, by_hand_in_a_branch),
        (in_a_loop, by_hand_in_a_loop),
        (in_a_scan, by_hand_in_a_scan),
    ],
)
def test_data_in_bodies_is_rounded_to_the_range_it_has_there(make, by_hand, tmp_path):
    model, _ = make()
    trial = trial_of_model(shaped(model, x=[3, 4]), tmp_path, feed=feed_of(x=(3, 4)))
    placed = trial.placed(FUSED)
    planner = trial.planner(placed)
    plan = planner.plan(placed, Rounding.of(FUSED))
    seen = []

    def watched(array):
        seen.append(array)
        return array

    def by_layer(constants):
        return {
            str(slot.site.node.name).split("/")[0]: constants[name]
            for name, slot in trial.network.slot_of.items()
        }

    for sample in trial.calibration:
        by_hand(sample["x"], by_layer(trial.network.constants), watched)
    # Fused with a sum behind it, a layer reads what a Reshape makes of the same values.
    (name,) = plan.grids
    ends = np.min(seen), np.max(seen)
    assert planner.observed[name].range.ends == pytest.approx(ends, rel=1e-5)
    emulator = Emulator(trial.network, [placed], [plan.grids])
    weights = by_layer(plan.constants)
    for sample, (found,) in zip(trial.test, emulator.run(plan, trial.test), strict=True):
        expected = by_hand(sample["x"], weights, lambda array: through(array, plan.grids[name]))
        assert sqnr_db(expected, found) > 80


def test_a_branch_that_no_sample_takes_has_no_range_and_stays_in_float(tmp_path):
    model, _ = in_a_branch()
    for attribute in model.graph.node[-1].attribute:
        # What the layer of this branch reads is computed in it.
        attribute.g.node.insert(0, node("Neg", ["x"], [f"minus_{attribute.name}"]))
        attribute.g.node[1].input[0] = f"minus_{attribute.name}"

    def feed(index):
        return {"x": np.abs(gaussian(3, 4, seed=index))}

    trial = trial_of_model(shaped(model, x=[3, 4]), tmp_path, feed=feed)
    assert set(trial.placed(FUSED).grid_of) == {"minus_then_branch", "minus_else_branch"}
    assert set(trial.plan_of(FUSED).grids) == {"minus_then_branch"}


def packed_model():
    """Codes of four bits, two in a byte, which the node unpacks itself, and a layer behind it."""
    blocks = np.random.default_rng(0).integers(0, 256, (8, 2, 8), np.uint8)
    nodes = [
        helper.make_node(
            "MatMulNBits",
            ["x", "codes", "scales"],
            ["h"],
            "packed",
            domain="com.microsoft",
            K=32,
            N=8,
            bits=4,
            block_size=16,
        ),
        node("MatMul", ["h", "w"], ["y"], "plain"),
    ]
    weights = {"codes": blocks, "scales": np.full(16, 0.1, np.float32), "w": gaussian(8, 3)}
    return shaped(make_model(nodes, weights), x=[2, 32])


def test_weights_that_a_node_unpacks_itself_are_listed(tmp_path):
    trial = trial_of_model(packed_model(), tmp_path, feed=feed_of(x=(2, 32)))
    assert trial.network.layers.packed == ("packed",)
    for target in (WEIGHTS, FUSED, EVERYWHERE):
        assert trial.placed(target).left_in_float == ("packed",)
    assert placement(trial.network, FUSED, ["packed"]).left_in_float == ()
    assert 20 < trial.figure(FUSED) < 60


# --- a mask --------------------------------------------------------------------------------------


def test_a_range_of_an_empty_tensor_is_nothing():
    assert Range.of(np.zeros((0, 3), np.float32)) == Range(0.0, 0.0)


def test_dynamic_quantization_takes_the_range_of_each_sample(tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["y"], "layer")]
    model = shaped(make_model(nodes, {"w": gaussian(8, 4)}), x=[3, 8])
    calm = [{"x": 1e-3 * gaussian(3, 8, seed=index)} for index in range(4)]
    trial = trial_of_model(model, tmp_path, feed=feed_of(x=(3, 8)), calibration=calm)
    weights = round_trip(gaussian(8, 4).reshape(1, -1), DYNAMIC.scheme).reshape(8, 4)
    expected = [[dynamically_rounded(one["x"]) @ weights] for one in trial.test]
    for (found,), (known,) in zip(trial.emulated(DYNAMIC), expected, strict=True):
        np.testing.assert_allclose(found, known, rtol=1e-5, atol=1e-6)
    assert sqnr_db(expected[0][0], trial.emulated(FUSED)[0][0]) < 10

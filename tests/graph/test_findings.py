"""What a graph and its weights give away before anything is run, each with a remedy.

A kind that is added needs an entry in ``EXAMPLES``.
"""

import dataclasses
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, defs, helper, numpy_helper

from quantstore import queries, store
from quantstore.graph import findings as registry
from quantstore.graph import walk
from quantstore.graph.bias import BiasOverflow, bias_overflows
from quantstore.graph.findings import FINDING_KINDS, OfRun, not_folded, old_opset
from quantstore.graph.findings.base import (
    DecoderFigures,
    FaintFigures,
    KernelFigures,
    LostFigures,
    SaturatedTensor,
    Severity,
    StoredRoundingFigures,
)
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.measure_file import measure_file
from quantstore.pipeline.outcome import IngestChoices
from quantstore.wording import findings as findings_wording
from tests.support.graphs import conv_model, gaussian, make_model, node, save
from tests.support.visits import fails, texts
from tests.support.weight_files import normalization, save_tensors


def quiet(model):
    """With the shapes that onnx.checker wants, so that it has nothing to say."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.SetInParent()
    return model


@pytest.fixture
def found(tmp_path):
    """The findings of a model, as (kind, severity, layer's depth)."""

    def run(model, **options):
        if isinstance(model, dict):
            path = save_tensors(tmp_path / "m.safetensors", model)
        else:
            path = save(quiet(model), tmp_path / "m.onnx")
        return measure_file(path, jobs=1, **options).findings

    return run


def kinds(findings):
    return [(one.kind, one.severity, one.depth) for one in findings]


def test_an_ordinary_model_has_none(found):
    assert found(conv_model()) == ()


# Weights


def holding(value):
    weights = gaussian(4, 3, 3, 3)
    weights[1, 0, 0, 0] = value
    return conv_model(weights)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers(found, value):
    (finding,) = found(holding(value))
    assert kinds([finding]) == [("not finite", "problem", 0)]
    assert finding.message.startswith("1 of 108 weights is NaN or infinite")


def one_channel(weights):
    return conv_model(weights.astype(np.float32).reshape(1, -1, 1, 1))


@pytest.mark.parametrize("ramp", [np.arange(16), np.arange(17) * 0.5 - 4], ids=["0 to 15", "steps"])
def test_a_ramp_is_no_learned_convolution(found, ramp):
    (finding,) = found(one_channel(ramp))
    assert kinds([finding]) == [("not learned", "note", 0)]


@pytest.mark.parametrize(
    "weights", [np.arange(3), np.ones(16), np.zeros(16), np.r_[np.arange(15), 15.5]]
)
def test_what_is_no_ramp(found, weights):
    assert found(one_channel(weights)) == ()


def with_bias(weights, bias, op="Conv", **attributes):
    return make_model(
        [node(op, ["x", "w", "b"], ["y"], "conv", **attributes)],
        {"w": weights, "b": np.asarray(bias, np.float32)},
    )


def nearly_dead(scale=1e-9):
    weights = gaussian(4, 3, 3, 3)
    weights[2] *= scale
    return weights


def test_a_nearly_dead_channel_with_a_bias_overflows_32_bits(found):
    (finding,) = found(with_bias(nearly_dead(), [1, 1, 1, 1]))
    assert kinds([finding]) == [("dead channel", "warning", 0)]
    assert "(2)" in finding.message


@pytest.mark.parametrize(
    ("weights", "bias"),
    [
        (nearly_dead(), [1, 1, 0, 1]),
        (nearly_dead(0), [1, 1, 1, 1]),
        (nearly_dead(1e-5), [1, 1, 1, 1]),
        (nearly_dead(1e-7), [0, 0, 1e-3, 0]),
        (nearly_dead(1e-44), [1, 1, 1, 1]),
    ],
    ids=["no bias", "exactly zero", "small but alive", "small bias", "scale below float32"],
)
def test_a_channel_that_fits_is_no_finding(found, weights, bias):
    assert found(with_bias(weights, bias)) == ()


def test_the_limit_is_the_one_onnxruntime_uses(found):
    """Its quantizer widens a scale exactly where a finding is made, for the assumed input."""
    quantizer = pytest.importorskip("onnxruntime.quantization.qdq_quantizer")
    weights = nearly_dead(1e-8)
    scale = (np.abs(weights).reshape(4, -1).max(axis=1) / 127).astype(np.float32)
    limit = 6 / 255 * float(scale[2]) * (2**31 - 1) / 1.0001
    for bias, expected in ((limit * 0.999, False), (limit * 1.001, True)):
        biases = np.array([0, 0, bias, 0], np.float32)
        widened, _ = quantizer.QDQQuantizer._adjust_weight_scale_for_int32_bias(
            None,
            np.array(6 / 255, np.float32),
            scale,
            "w",
            numpy_helper.from_array(biases, "b"),
            True,
        )
        assert widened is expected
        assert bool(found(with_bias(weights, biases))) is expected


def test_the_shift_of_a_folded_normalization_is_a_bias(found):
    norm = {name: np.ones(4, np.float32) for name in "gsmv"}
    model = make_model(
        [
            node("Conv", ["x", "w"], ["h"], "conv"),
            node("BatchNormalization", ["h", "g", "s", "m", "v"], ["y"], "norm"),
        ],
        {"w": nearly_dead()} | norm | {"s": np.full(4, 3, np.float32)},
    )
    assert kinds(found(model)) == [("dead channel", "warning", 0)]


def tiny_layer(scale=1e-8, bias=5.0):
    """No channel stands out; all of them are next to nothing beside their bias."""
    return with_bias(gaussian(2, 4, 3, 3) * np.float32(scale), [bias, -bias])


def test_a_whole_layer_of_tiny_weights_has_a_bias_beyond_int32(found):
    (finding,) = found(tiny_layer())
    assert kinds([finding]) == [("bias overflow", "warning", 0)]
    assert finding.message.startswith("The bias of 2 of 2 channels (0, 1)")
    assert "One scale for all channels does not help." in finding.message


@pytest.mark.parametrize(
    ("scale", "bias"), [(1e-8, 0.0), (1e-3, 5.0), (1e-8, 1e-3)], ids=["none", "larger", "smaller"]
)
def test_a_bias_that_int32_holds_is_no_finding(found, scale, bias):
    assert found(tiny_layer(scale, bias)) == ()


def test_a_bounded_input_has_a_finer_scale_and_a_larger_bias(found):
    """At 1/255 a bias takes 255 times as many units as at 1."""
    weights, bias = gaussian(2, 4, 3, 3) * np.float32(1e-6), np.array([9, 9], np.float32)
    model = make_model(
        [node("Sigmoid", ["x"], ["s"]), node("Conv", ["s", "w", "b"], ["y"], "conv")],
        {"w": weights, "b": bias},
    )
    (finding,) = found(model)
    assert "its input ends at 1" in finding.message
    assert found(with_bias(weights, bias)) == ()


def test_channels_of_a_conv_transpose_share_the_scale_that_saves_their_bias(found):
    weights = gaussian(4, 2, 2, 2)
    weights[:2] *= 1e-9
    shared = with_bias(weights, [1, 1, 1, 1], "ConvTranspose", group=2)
    assert found(shared) == ()


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9),
    st.floats(1e-12, 1.0),
    st.floats(1e-6, 10.0),
)
def test_a_bias_overflows_where_its_units_do_not_fit(bias, weight_scale, input_scale):
    units = [round(value / weight_scale / input_scale) for value in bias]
    expected = sum(abs(unit) > 2**31 - 1 for unit in units)
    assert bias_overflows(bias, weight_scale, input_scale) == BiasOverflow(
        expected, expected / len(bias)
    )
    scales = np.full(len(bias), weight_scale)
    assert bias_overflows(bias, scales, input_scale).count == expected


def half_of_its_inputs(ratio=3000):
    weights = gaussian(8, 12, 1, 1)
    weights[:, :6] /= ratio
    return conv_model(weights)


def test_input_channels_that_are_rounded_away(found):
    (finding,) = found(half_of_its_inputs())
    assert kinds([finding]) == [("lost inputs", "warning", 0)]
    assert finding.message.startswith("6 of 12 input channels are lost in int8")


def test_input_channels_that_int8_keeps_or_that_are_few(found):
    assert found(half_of_its_inputs(20)) == ()
    weights = gaussian(8, 12, 1, 1)
    weights[:, :3] /= 3000
    assert found(conv_model(weights)) == ()


# BatchNormalization


def normalized(*more, outputs=("y",), **changes):
    norm = {name: np.abs(gaussian(4, seed=3)) + 1 for name in "gsmv"}
    inputs = changes.pop("parameters", ["g", "s", "m", "v"])
    return make_model(
        [
            node("Conv", ["x", "w"], ["h"], "conv"),
            node("BatchNormalization", ["h", *inputs], ["y"], "norm", **changes),
            *more,
        ],
        {"w": gaussian(4, 3, 3, 3)} | norm,
        outputs=outputs,
    )


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (normalized(node("Relu", ["h"], ["z"], "r"), outputs=("y", "z")), "2 nodes read"),
        (normalized(outputs=("y", "h")), not_folded.IS_AN_OUTPUT),
        (normalized(training_mode=1), not_folded.IS_IN_TRAINING),
        (normalized(parameters=["x", "s", "m", "v"]), not_folded.IS_NOT_CONSTANT),
    ],
    ids=["another reader", "an output", "training", "computed"],
)
def test_a_normalization_left_unfolded_and_why(found, model, reason):
    (finding,) = found(model)
    assert kinds([finding]) == [("not folded", "warning", 0)]
    assert reason in finding.message


def test_a_folded_normalization_is_no_finding_nor_one_left_on_request(found):
    assert found(normalized()) == ()
    assert found(normalized(training_mode=1), fold=False) == ()


def lone_normalization():
    lone = node("BatchNormalization", ["r", "g", "s", "m", "v"], ["z"], "lone")
    return normalized(node("Relu", ["y"], ["r"], "relu"), lone)


def test_a_normalization_that_follows_no_convolution(found):
    (finding,) = found(lone_normalization())
    assert kinds([finding]) == [("not folded", "note", None)]
    assert "1 after Relu" in finding.message


# The graph


def joining(*nodes, inputs=("boxes", "scores")):
    return make_model(
        [
            node("Conv", ["x", "w"], ["c"], "conv"),
            *nodes,
            node("Concat", list(inputs), ["joined"], "concat", axis=1),
            node("Transpose", ["joined"], ["y"], "turn"),
        ],
        {"w": gaussian(4, 3, 1, 1), "two": np.full(1, 2, np.float32)},
    )


def scores_and_boxes():
    return joining(
        node("Mul", ["c", "two"], ["boxes"], "scale"),
        node("Sigmoid", ["c"], ["s"], "sigmoid"),
        node("Identity", ["s"], ["scores"], "same"),
    )


def test_scores_and_boxes_in_one_output(found):
    (finding,) = found(scores_and_boxes())
    assert kinds([finding]) == [("mixed output", "warning", None)]
    assert "(Sigmoid sigmoid)" in finding.message
    assert "(Mul scale)" in finding.message


@pytest.mark.parametrize("op", ["Sigmoid", "Relu"])
def test_branches_of_one_kind_may_be_joined(found, op):
    model = joining(node(op, ["c"], ["boxes"], "one"), node(op, ["c"], ["scores"], "two"))
    assert found(model) == ()


def test_joins_of_joins_are_seen_through(found):
    model = joining(
        node("Sigmoid", ["c"], ["s"], "sigmoid"),
        node("Concat", ["s", "c"], ["boxes"], "inner", axis=1),
        node("Sigmoid", ["c"], ["scores"], "more"),
    )
    assert kinds(found(model)) == [("mixed output", "warning", None)]


def joined_with(*nodes):
    """What these nodes make of the sigmoid ``s`` is joined with boxes."""
    return joining(
        node("Mul", ["c", "two"], ["boxes"], "scale"),
        node("Sigmoid", ["c"], ["s"], "sigmoid"),
        node("Sigmoid", ["c"], ["t"], "other"),
        *nodes,
    )


SCORES = {
    "product": [node("Mul", ["s", "t"], ["scores"], "n")],
    "root of a product": [node("Mul", ["s", "t"], ["p"]), node("Sqrt", ["p"], ["scores"], "n")],
    "power": [node("Pow", ["s", "two"], ["scores"], "n")],
    "minimum": [node("Min", ["s", "t"], ["scores"], "n")],
    "largest": [node("ReduceMax", ["s"], ["scores"], "n", axes=[1], keepdims=1)],
    "clip": [node("Clip", ["c", "zero", "one"], ["scores"], "n")],
    "softmax": [node("Softmax", ["c"], ["scores"], "n", axis=1)],
}


@pytest.mark.parametrize("nodes", SCORES.values(), ids=SCORES)
def test_what_is_made_of_bounded_values_is_a_score(found, nodes):
    model = joined_with(*nodes)
    ends = {"zero": np.float32(0), "one": np.float32(1)}
    model.graph.initializer.extend(numpy_helper.from_array(end, at) for at, end in ends.items())
    (finding,) = found(model)
    assert kinds([finding]) == [("mixed output", "warning", None)]
    assert f"({nodes[-1].op_type} n)" in finding.message


def decoded(stride):
    """Boxes as YOLO decodes them: a sigmoid times a constant."""
    model = joining(
        node("Sigmoid", ["c"], ["s"], "sigmoid"),
        node("Mul", ["s", "stride"], ["boxes"], "decode"),
        node("Sigmoid", ["c"], ["scores"], "score"),
    )
    model.graph.initializer.append(numpy_helper.from_array(np.float32(stride), "stride"))
    return model


@pytest.mark.parametrize(("stride", "is_mixed"), [(2, False), (30, False), (640, True)])
def test_bounded_boxes_are_mixed_with_scores_where_few_levels_are_left(found, stride, is_mixed):
    findings = found(decoded(stride))
    assert bool(findings) is is_mixed
    assert all("values up to 640 (Mul decode)" in finding.message for finding in findings)


def attention(*nodes, **constants):
    """Scores ``s``, masked by these nodes into ``m``, and a Softmax."""
    return make_model(
        [
            node("MatMul", ["x", "w"], ["s"], "scores"),
            *nodes,
            node("Softmax", ["m"], ["p"], "softmax", axis=-1),
            node("MatMul", ["p", "w"], ["y"], "context"),
        ],
        {"w": gaussian(4, 4)} | {name: np.float32(value) for name, value in constants.items()},
        inputs=("x", "keep"),
    )


def masked(largest=-3.4e38):
    mask = np.where(np.tri(4, dtype=bool), 0, largest)
    return attention(node("Add", ["s", "mask"], ["m"], "add"), mask=mask)


@pytest.mark.parametrize("largest", [-3.4e38, -1e4, -np.inf])
def test_a_mask_of_huge_numbers_is_named(found, largest):
    (finding,) = found(masked(largest))
    assert kinds([finding]) == [("large mask", "warning", None)]
    assert "Constant mask" in finding.message
    assert "Use -30" in finding.remedy
    assert "keep both Add add and Softmax softmax in float" in finding.remedy


def test_a_mask_of_minus_30_is_fine(found):
    assert found(masked(-30)) == ()


def test_a_mask_that_is_made_from_an_input_is_named(found):
    nodes = [
        node("Sub", ["one", "keep"], ["drop"], "invert"),
        node("Mul", ["drop", "large"], ["mask"], "times"),
        node("Add", ["s", "mask"], ["m"], "add"),
    ]
    (finding,) = found(attention(*nodes, one=1, large=-1e4))
    assert "Constant large" in finding.message
    assert "every node from Mul times to Softmax softmax" in finding.remedy


def test_a_choice_between_scores_and_a_constant_is_named(found):
    nodes = [
        node("Greater", ["keep", "zero"], ["is_kept"]),
        node("Where", ["is_kept", "s", "large"], ["m"], "choose"),
    ]
    (finding,) = found(attention(*nodes, zero=0, large=-65504))
    assert "Where choose" in finding.message


def test_a_large_constant_that_no_softmax_sees_is_no_mask(found):
    nodes = [node("Mul", ["s", "small"], ["m"], "n"), node("Add", ["s", "large"], ["z"], "o")]
    assert found(attention(*nodes, small=0.1, large=1e6)) == ()


def of_opset(opset):
    model = conv_model()
    model.opset_import[0].version = opset
    return model


@pytest.mark.parametrize(
    ("opset", "reason"),
    [
        (7, old_opset.KNOWS_NEITHER_OPERATOR),
        (9, old_opset.KNOWS_NEITHER_OPERATOR),
        (10, old_opset.KNOWS_ONE_SCALE),
        (12, old_opset.KNOWS_ONE_SCALE),
    ],
)
def test_an_opset_without_a_scale_per_channel(found, opset, reason):
    (finding,) = found(of_opset(opset))
    assert kinds([finding]) == [("old opset", "warning", None)]
    assert finding.message == f"{old_opset.opset_in_words(opset)} {reason}"
    # onnx is the referee: the operator came with the tenth set.
    has_operator = defs.has("DequantizeLinear", max_inclusive_version=opset)
    assert has_operator == (reason == old_opset.KNOWS_ONE_SCALE)


@pytest.mark.parametrize("opset", [13, 17])
def test_an_opset_with_a_scale_per_channel_is_not_too_old(found, opset):
    assert found(of_opset(opset)) == ()


def whole_numbers():
    strange = helper.make_tensor("i", TensorProto.INT64, [3, 3], list(range(9)))
    model = make_model(
        [node("Conv", ["x", "w"], ["h"], "conv"), node("MatMul", ["h", "i"], ["y"], "integers")],
        {"w": gaussian(3, 3, 1, 1)},
    )
    model.graph.initializer.append(strange)
    return model


def test_constant_weights_that_cannot_be_read_are_counted(found):
    (finding,) = found(whole_numbers())
    assert kinds([finding]) == [("unread", "warning", None)]
    assert "MatMul integers (B holds int64)" in finding.message


# Integer kernels


def test_integer_kernels_that_saturate_are_named_with_both_figures_and_the_lossless_cure():
    (finding,) = registry.of_run(saturated())
    assert "38.0 dB in float arithmetic" in finding.message
    assert "19.2 dB with the integer kernels of this processor" in finding.message
    assert "uint8 with zero point 128" in finding.remedy


@pytest.mark.parametrize(
    ("in_floats", "in_integers", "unsigned"),
    [(38.0, 37.1, np.nan), (36.0, 38.0, np.nan), (38.0, 35.0, 35.1), (np.inf, np.inf, np.nan)],
    ids=["close", "better", "uint8 weights do not help", "exact"],
)
def test_other_differences_of_integer_kernels_are_no_saturation(in_floats, in_integers, unsigned):
    figures = KernelFigures(
        float_arithmetic_db=in_floats,
        integer_kernels_db=in_integers,
        unsigned_weights_db=unsigned,
        saturating_layer="conv",
        saturating_share=0.5,
        saturating_sqnr_db=10.0,
    )
    assert registry.of_run(figures) == []


@pytest.mark.parametrize(
    ("float_db", "is_warned"),
    [(38.8, True), (14.0, True), (13.0, False), (6.8, False), (np.inf, True), (np.nan, False)],
)
def test_what_saturates_elsewhere_is_said_where_its_noise_would_cost_a_decibel(float_db, is_warned):
    figures = KernelFigures(
        float_arithmetic_db=float_db,
        saturating_layer="conv",
        saturating_share=0.0156,
        saturating_sqnr_db=19.4,
    )
    messages = [finding.message for finding in registry.of_run(figures)]
    assert len(messages) == is_warned
    assert all("without VNNI" in text and "1.56%" in text for text in messages)


# Decoders


def test_a_decoder_that_loses_is_named_with_what_brings_the_heads_figure_back():
    (finding,) = registry.of_run(losing_decoder())
    assert "38.2 dB at the heads, but 0.1 dB" in finding.message
    assert "0% of the scores" in finding.message
    assert "these 2 nodes (--exclude head_concat --exclude 'a b')" in finding.remedy
    assert "38.1 dB (measured)." in finding.remedy


def test_a_decoder_that_loses_nothing_is_not_mentioned():
    assert registry.of_run(DecoderFigures(heads_db=38.2, whole_file_db=37.0)) == []


def nameless():
    model = conv_model()
    model.graph.name = ""
    return model


def more_channels_than_the_store_takes():
    convolutions = [
        node("Conv", ["x", "w"], ["h"], "first"),
        node("Conv", ["h", "v"], ["y"], "second"),
    ]
    weights = gaussian(walk.MOST_CHANNELS, 3, 1, 1)
    return make_model(convolutions, {"w": weights, "v": gaussian(4, 3, 1, 1)})


# The list of kinds


def saturated():
    return KernelFigures(
        float_arithmetic_db=38.04, integer_kernels_db=19.22, unsigned_weights_db=38.04
    )


def losing_decoder():
    return DecoderFigures(
        heads_db=38.2,
        whole_file_db=0.1,
        nodes=("head_concat", "a b"),
        kept_db=38.1,
        scores_kept=0.0,
    )


def stored_too_narrow():
    return StoredRoundingFigures(
        output_sqnr_db=5.4,
        saturated=(SaturatedTensor(name="sum", low=-1.0, high=1.0, share=0.224, sqnr_db=5.9),),
    )


def test_a_stored_grid_that_is_too_narrow_is_named_with_its_share():
    saturation, rounding = registry.of_run(stored_too_narrow())
    assert "sum ends at -1 and 1, with 22.4% of its values beyond" in saturation.message
    assert "leave an output SQNR of 5.4 dB" in rounding.message
    assert "quantstore audit FLOAT INT8" in rounding.remedy


@pytest.mark.parametrize(("op_type", "is_said"), [("Log", True), ("Exp", False)])
def test_small_values_are_blamed_where_zero_is_what_an_operator_cannot_take(op_type, is_said):
    (finding,) = registry.of_run(LostFigures(node="n", op_type=op_type, tensor="p"))
    assert ("whose small values round to 0" in finding.message) == is_said


def test_stored_grids_that_lose_little_get_no_warning():
    figures = dataclasses.replace(stored_too_narrow(), output_sqnr_db=25.0)
    assert [finding.kind for finding in registry.of_run(figures)] == ["stored rounding"]


def quantized_activations():
    constants = {"s": np.float32(0.1), "z": np.float32(0), "b": np.float32(4), "w": gaussian(5, 3)}
    domain = "qonnx.custom_op.general"
    nodes = [
        node("Quant", ["x", "s", "z", "b"], ["q"], "quantizer", domain=domain),
        node("MatMul", ["q", "w"], ["y"], "layer"),
    ]
    model = make_model(nodes, {name: np.asarray(array) for name, array in constants.items()})
    model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


# By name and what they concern: a model, or what a run showed, of which such a finding is made.
EXAMPLES = {
    ("left out", "model"): more_channels_than_the_store_takes,
    ("not finite", "layer"): lambda: holding(np.nan),
    ("unread", "model"): whole_numbers,
    ("no graph", "model"): lambda: {"fc.weight": gaussian(5, 8)},
    ("unfolded", "model"): lambda: {"fc.weight": gaussian(5, 8)} | normalization("bn", 5),
    ("dead channel", "layer"): lambda: with_bias(nearly_dead(), [1, 1, 1, 1]),
    ("bias overflow", "layer"): tiny_layer,
    ("lost inputs", "layer"): half_of_its_inputs,
    ("large mask", "model"): masked,
    ("mixed output", "model"): scores_and_boxes,
    ("infinite output", "model"): lambda: LostFigures(node="log", op_type="Log", tensor="p"),
    ("decoder", "model"): losing_decoder,
    ("saturates", "model"): saturated,
    ("stored saturation", "model"): stored_too_narrow,
    ("stored rounding", "model"): stored_too_narrow,
    ("faint channels", "model"): lambda: FaintFigures(channels={"a": (3,)}, output_sqnr_db=80.0),
    ("own quantizers", "model"): quantized_activations,
    ("not folded", "model"): lone_normalization,
    ("old opset", "model"): lambda: of_opset(11),
    ("not learned", "layer"): lambda: one_channel(np.arange(16)),
    ("not folded", "layer"): lambda: normalized(training_mode=1),
    ("invalid", "model"): nameless,
}

every_kind = pytest.mark.parametrize(
    "entry", FINDING_KINDS, ids=lambda entry: f"{entry.name}, {entry.concerns}"
)


def test_every_kind_is_there_once_and_has_an_example():
    keys = [(entry.name, entry.concerns) for entry in FINDING_KINDS]
    assert sorted(keys) == sorted(EXAMPLES)


def test_every_file_holds_one_kind_that_is_listed():
    folder = Path(registry.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "base"}
    assert sorted(files) == sorted(
        entry.look.__module__.rpartition(".")[2] for entry in FINDING_KINDS
    )


@every_kind
def test_a_kind_has_a_severity_and_a_meaning_of_one_sentence(entry):
    assert entry.severity in get_args(Severity)
    assert entry.meaning[0].isupper()
    assert entry.meaning.endswith(".")
    assert ". " not in entry.meaning
    assert "\n" not in entry.meaning


@every_kind
def test_a_kind_is_made_of_its_example_in_sentences_with_a_remedy(found, monkeypatch, entry):
    monkeypatch.setattr(walk, "MOST_CHANNELS", 8)
    example = EXAMPLES[entry.name, entry.concerns]()
    (finding,) = [
        finding
        for finding in (registry.of_run if isinstance(entry, OfRun) else found)(example)
        if finding.kind == entry.name
        and (getattr(finding, "depth", None) is None) == (entry.concerns == "model")
    ]
    assert finding.severity == entry.severity
    assert finding.message[0].isupper() or finding.message[0].isdigit()
    assert finding.message.endswith(".")
    assert finding.remedy.endswith(".")


# In the store and on the pages


def stored(tmp_path, model, name="net"):
    path = tmp_path / "s.duckdb"
    choices = IngestChoices(name=name, probe=False)
    ingest_file(save(quiet(model), tmp_path / f"{name}.onnx"), path, choices)
    return path


def broken_model():
    weights = gaussian(4, 3, 1, 1)
    weights[0, 0] = np.nan
    model = make_model(
        [
            node("Conv", ["x", "w"], ["h"], "first"),
            node("Conv", ["h", "v"], ["y"], "<b>&\x1b second"),
        ],
        {"w": weights, "v": weights[:, :, :, :].repeat(2, axis=1)[:, :4]},
        opset=11,
    )
    return model


@pytest.mark.slow
def test_findings_are_stored_with_their_model_and_leave_with_it(tmp_path):
    path = stored(tmp_path, broken_model())
    with store.reading(path) as con:
        rows = con.rows("select model, layer, kind from model_findings order by depth nulls first")
    assert rows == [
        ("net", None, "old opset"),
        ("net", "first", "not finite"),
        ("net", "<b>&\x1b second", "not finite"),
    ]
    with store.writing(path) as con:
        assert store.remove_model_named(con, "net")
    with store.reading(path) as con:
        assert con.rows("from findings") == []


@pytest.mark.slow
def test_layers_of_one_kind_share_a_row_and_the_gravest_comes_first(tmp_path):
    with store.reading(stored(tmp_path, broken_model())) as con:
        frame = queries.model_findings(con, "net")
    assert frame["kind"].tolist() == ["not finite", "old opset"]
    assert frame["layer_count"].tolist() == [2, 0]
    assert list(frame["layers"][0]) == ["first", "<b>&\x1b second"]


@pytest.mark.slow
def test_the_model_page_lists_them_and_escapes_names(open_app, tmp_path):
    app = open_app(stored(tmp_path, broken_model()), "model", model="net")
    assert fails(app) == []
    said = texts(app)
    assert findings_wording.HEADING in said
    assert old_opset.opset_in_words(11) in said
    assert "&lt;b&gt;&amp;\\x1b second" in said


@pytest.mark.slow
def test_the_layer_page_says_what_is_wrong_with_this_layer(open_app, tmp_path):
    app = open_app(stored(tmp_path, broken_model()), "layer", model="net", layer="first")
    assert fails(app) == []
    assert "NaN or infinite" in texts(app)
    assert old_opset.opset_in_words(11) not in texts(app)


@pytest.mark.slow
def test_a_model_without_findings_has_no_list(open_app, tmp_path):
    app = open_app(stored(tmp_path, conv_model()), "model", model="net")
    assert fails(app) == []
    assert findings_wording.HEADING not in texts(app)

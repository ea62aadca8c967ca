"""An int8 file held against its float file: onnxruntime makes the pairs, faults are planted."""

import dataclasses
import math

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantstore.auditing.audit import audit
from quantstore.auditing.bench import IS_QONNX, OTHER_INPUTS
from quantstore.auditing.choices import Audit, AuditChoices
from quantstore.errors import ModelFileError, RunError
from quantstore.run.runtime import Session
from tests.support.graphs import node, save
from tests.support.pairs import (
    initializer,
    inputs_file,
    quantized,
    renamed,
    samples_of,
    saved_network,
    set_initializer,
    small_network,
)

FORMS = ("qdq", "qoperator", "dynamic")
LAYER_COUNT = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pairs")


@pytest.fixture(scope="module")
def float_path(folder):
    return saved_network(folder)


@pytest.fixture(scope="module")
def inputs(folder):
    return str(inputs_file(folder))


@pytest.fixture(scope="module")
def int8_path(folder, float_path):
    return quantized(float_path, folder / "qdq.onnx", "qdq")


def independent_db(float_path, int8_path, *, has_integer_kernels=False):
    """Both files run by onnxruntime as they are, judged as outputs on real inputs are.

    The median over the samples of the SQNR, of what varies from sample to sample if that is lower
    by more than 9.9 dB (docs/method.md, section 8).
    """
    before, after = (
        np.stack(
            [
                Session(path, has_integer_kernels=has_integer_kernels).run(sample)[0].ravel()
                for sample in samples_of(4, seed=6)
            ]
        ).astype(np.float64)
        for path in (float_path, int8_path)
    )
    errors = after - before
    plain_db = np.median([db(y, error) for y, error in zip(before, errors, strict=True)])
    centred = before - before.mean(axis=0), errors - errors.mean(axis=0)
    varying_db = np.median([db(y, error) for y, error in zip(*centred, strict=True)])
    return float(min(plain_db, varying_db + 9.9))


def db(signal, noise):
    return 10 * math.log10(np.sum(signal**2) / np.sum(noise**2))


def rows(record):
    return [
        row for row in (*record.layers, *record.tensors) if not math.isnan(row.released_gain_db)
    ]


def first(record):
    """What gains most where it is released."""
    return max(rows(record), key=lambda row: row.released_gain_db)


# Pairs that somebody else made


@pytest.mark.parametrize("per_channel", [True, False], ids=["per channel", "per tensor"])
@pytest.mark.parametrize("form", FORMS)
def test_every_layer_and_tensor_of_onnxruntimes_files_is_paired(
    folder, float_path, inputs, form, per_channel
):
    if form == "dynamic" and per_channel:
        pytest.skip("its dynamic files are per tensor here")
    path = quantized(
        float_path, folder / f"{form}-{per_channel}.onnx", form, per_channel=per_channel
    )
    record = audit(float_path, path, inputs, AuditChoices(release=0)).record
    assert [layer.matched_by for layer in record.layers] == ["value"] * LAYER_COUNT
    assert (record.paired_layers, record.paired_tensors) == (LAYER_COUNT, record.rounded_tensors)
    assert [layer.float_depth for layer in record.layers] == [*range(LAYER_COUNT)]
    assert {layer.rounding for layer in record.layers} == {"plain"}
    # Nothing rounded is the float file.
    assert record.neither_db > 100
    # As far as an independent run of both files says.
    assert record.grid_db == pytest.approx(independent_db(float_path, path), abs=0.3)
    integer_db = independent_db(float_path, path, has_integer_kernels=True)
    assert record.integer_db == pytest.approx(integer_db, abs=0.3)
    # Errors of weights and activations add, or cancel a little.
    noise = sum(10 ** (-kept / 10) for kept in (record.weights_db, record.activations_db))
    assert record.grid_db == pytest.approx(-10 * math.log10(noise), abs=3)


def test_names_are_not_needed(folder, float_path, int8_path, inputs):
    path = save(renamed(onnx.load(int8_path)), folder / "renamed.onnx")
    record = audit(float_path, path, inputs, AuditChoices(release=0)).record
    plain = audit(float_path, int8_path, inputs, AuditChoices(release=0)).record
    assert record.paired_layers == LAYER_COUNT
    assert record.paired_tensors == record.rounded_tensors
    assert record.grid_db == pytest.approx(plain.grid_db, abs=0.01)


def test_weights_of_an_equalized_parent_are_paired_by_their_names(folder, float_path, inputs):
    model = small_network()
    # The depthwise layer and the one before it share a scale per channel.
    scale = np.float32(4.0) ** np.arange(-4, 4, dtype=np.float32)
    for name, factor in (("stem.w", scale[:, None, None, None]), ("stem.b", scale)):
        set_initializer(model, name, initializer(model, name) * factor)
    set_initializer(
        model, "depthwise.w", initializer(model, "depthwise.w") / scale[:, None, None, None]
    )
    equalized = save(model, folder / "equalized.onnx")
    path = quantized(equalized, folder / "equalized-int8.onnx", "qdq")
    record = audit(float_path, path, inputs, AuditChoices(release=0)).record
    assert [layer.matched_by for layer in record.layers][:2] == ["name", "name"]
    assert record.paired_layers == LAYER_COUNT


def test_factors_that_a_mul_in_front_undoes_are_followed(folder, float_path, inputs):
    model = small_network()
    # Smooth quantization: the input of the product is divided, its weights are multiplied.
    factors = np.linspace(0.2, 5, 8, dtype=np.float32)
    set_initializer(model, "hidden.w", initializer(model, "hidden.w") * factors[:, None])
    model.graph.initializer.append(numpy_helper.from_array(1 / factors, "smooth"))
    position = next(at for at, one in enumerate(model.graph.node) if one.name == "hidden")
    model.graph.node[position].input[0] = "smoothed"
    model.graph.node.insert(position, node("Mul", ["flat", "smooth"], ["smoothed"], "smooth_mul"))
    smooth = save(model, folder / "smooth.onnx")
    path = quantized(smooth, folder / "smooth-int8.onnx", "qdq")
    record = audit(float_path, path, inputs, AuditChoices(release=0)).record
    assert record.neither_db > 100
    assert any("rescales the channels of 1 layer " in note for note in record.notes)


def test_a_grid_for_each_channel_is_rounded_and_let_go_like_any_other(
    folder, float_path, int8_path, inputs
):
    model = onnx.load(int8_path)
    tensor = next(
        one.input[0]
        for one in model.graph.node
        if one.op_type == "QuantizeLinear" and one.input[0].startswith("relu6")
    )
    scale, zero = (initializer(model, f"{tensor}_{part}") for part in ("scale", "zero_point"))
    spread = np.linspace(1, 1.5, 8, dtype=np.float32)
    set_initializer(model, f"{tensor}_scale", scale.reshape(1) * spread)
    set_initializer(model, f"{tensor}_zero_point", np.repeat(zero.reshape(1), 8))
    for one in model.graph.node:
        if f"{tensor}_scale" in one.input:
            del one.attribute[:]
            one.attribute.append(onnx.helper.make_attribute("axis", 1))
    path = save(onnx.shape_inference.infer_shapes(model), folder / "by-channel.onnx")
    record = audit(float_path, path, inputs, AuditChoices(release=0)).record
    assert record.neither_db > 100
    assert record.paired_tensors == record.rounded_tensors
    assert record.grid_db == pytest.approx(independent_db(float_path, path), abs=0.3)


def test_codes_that_were_changed_on_purpose_are_told_from_plain_rounding(
    folder, float_path, int8_path, inputs
):
    model = onnx.load(int8_path)
    name = next(one.name for one in model.graph.initializer if one.name.startswith("point.w_q"))
    codes = initializer(model, name).copy()
    codes[:, ::2] += np.where(codes[:, ::2] < 120, 1, 0).astype(np.int8)
    set_initializer(model, name, codes)
    record = audit(
        float_path, save(model, folder / "changed.onnx"), inputs, AuditChoices(release=0)
    ).record
    assert [layer.rounding for layer in record.layers] == [
        *("plain", "plain", "changed", "plain", "plain")
    ]


# Faults that we plant


def test_a_planted_weight_scale_is_first_in_the_list_with_its_gain(
    folder, float_path, int8_path, inputs
):
    model = onnx.load(int8_path)
    for ending in ("_scale",):
        name = f"point.w{ending}"
        set_initializer(model, name, initializer(model, name) * np.float32(1.3))
    path = save(model, folder / "planted.onnx")
    record = audit(float_path, path, inputs).record
    culprit = first(record)
    assert (culprit.int8_depth, culprit.rounding) == (2, "changed")
    assert culprit.scale_ratio == pytest.approx(1.3, abs=0.01)
    assert culprit.stored_sqnr_db == pytest.approx(20 * math.log10(1 / 0.3), abs=0.3)
    assert culprit.plain_p10_db > culprit.stored_p10_db + 20
    as_it_was = audit(float_path, int8_path, inputs, AuditChoices(release=0)).record
    assert culprit.released_gain_db > 3
    assert record.grid_db + culprit.released_gain_db == pytest.approx(as_it_was.grid_db, abs=1.5)


def test_a_planted_activation_grid_that_clips_is_first_with_its_share(
    folder, float_path, int8_path, inputs
):
    model = onnx.load(int8_path)
    set_initializer(model, "residual_scale", initializer(model, "residual_scale") / np.float32(4))
    record = audit(float_path, save(model, folder / "clips.onnx"), inputs).record
    culprit = first(record)
    assert culprit.float_tensor == "residual"
    assert culprit.saturated_share > 0.02
    assert culprit.best_sqnr_db - culprit.sqnr_db > 10
    assert culprit.grid_high < culprit.seen_high


def test_planted_grids_that_do_not_matter_are_not_first_by_gain(
    folder, float_path, int8_path, inputs
):
    model = onnx.load(int8_path)
    # The pool averages it away: locally far worse, at the outputs nothing.
    set_initializer(model, "point.w_scale", initializer(model, "point.w_scale") * np.float32(1.3))
    set_initializer(model, "point_scale", initializer(model, "point_scale") * np.float32(2))
    record = audit(float_path, save(model, folder / "harmless.onnx"), inputs).record
    assert first(record) in record.layers
    (harmless,) = [tensor for tensor in record.tensors if tensor.float_tensor == "point"]
    assert harmless.best_sqnr_db - harmless.sqnr_db > 3
    assert not harmless.released_gain_db > 1


# What cannot be audited


def test_files_that_are_no_pair_are_refused_in_a_sentence(folder, float_path, int8_path, inputs):
    with pytest.raises(RunError, match="is an integer model itself"):
        audit(int8_path, int8_path, inputs)
    with pytest.raises(RunError, match="holds no integer weights"):
        audit(float_path, float_path, inputs)
    model = small_network()
    for tensor in model.graph.initializer:
        if tensor.name.endswith(".w"):
            array = numpy_helper.to_array(tensor)
            other = np.concatenate([array, array], axis=0)
            tensor.CopyFrom(numpy_helper.from_array(other, tensor.name))
    other = save(model, folder / "other.onnx")
    with pytest.raises(RunError, match="only 0 of 5 layers have a counterpart"):
        audit(other, int8_path, inputs)


def test_a_file_with_quantizers_of_qonnx_is_refused_in_a_sentence(folder, float_path, inputs):
    model = small_network()
    quantizer = node("BipolarQuant", ["y", "low"], ["z"], "q", domain="onnx.brevitas")
    model.graph.node.append(quantizer)
    with pytest.raises(RunError, match=IS_QONNX):
        audit(float_path, save(model, folder / "own.onnx"), inputs)


def test_files_with_inputs_of_other_sizes_are_refused_in_a_sentence(
    folder, float_path, int8_path, inputs
):
    model = onnx.load(int8_path)
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    before = "x".join(str(size.dim_value) for size in sizes)
    sizes[2].dim_value += 1
    other = save(model, folder / "larger.onnx")
    with pytest.raises(RunError, match=OTHER_INPUTS) as failure:
        audit(float_path, other, inputs)
    assert f"{before} in the float file" in failure.value.sentence


def test_what_is_wrong_with_a_file_begins_with_its_name(folder, float_path, int8_path, inputs):
    text = folder / "text.onnx"
    text.write_text("hello")
    for pair in ((text, int8_path), (float_path, text)):
        with pytest.raises(ModelFileError, match=r"^text\.onnx: not an ONNX file"):
            audit(*pair, inputs)


def test_an_audit_crosses_to_another_process_whole(float_path, int8_path, inputs):
    answer = audit(float_path, int8_path, inputs, AuditChoices(release=2))
    read = Audit.from_json(answer.to_json())
    assert read.int8_sha256 == answer.int8_sha256
    before, after = (dataclasses.asdict(one.record) for one in (answer, read))
    np.testing.assert_equal(after, before)

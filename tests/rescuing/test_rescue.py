"""From a network that int8 wrecks to files that keep it: the whole way, on networks made here."""

import dataclasses
import json
import math
import runpy
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from quantstore.errors import InputsError, RunError
from quantstore.rescuing import openvino
from quantstore.rescuing.choices import Rescue, RescueChoices
from quantstore.rescuing.opening import WAS_QUANTIZED
from quantstore.rescuing.rescue import (
    NO_REMEDY_ALLOWED,
    NO_REMEDY_HELPED,
    NO_REMEDY_NEEDED,
    rescue,
)
from quantstore.rescuing.terms import REMEDIES
from quantstore.run.comparison import sqnr_db
from quantstore.run.runtime import Session
from tests.support.graphs import conv_model, float_value, gaussian, save
from tests.support.wrecks import inputs_file, wreck

# The last step: ranges over all inputs that were searched on.
ON_ALL_INPUTS = "seen over all inputs of the search"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Sixteen inputs."""
    return str(inputs_file(tmp_path_factory.mktemp("inputs") / "inputs.npz"))


def rescued(path, photos, target="int8_channel_fused", **choices):
    return rescue(path, photos, RescueChoices(target=target, **choices)).record


def remedies_of(record, *, kept=True):
    """In the order of the steps, but for the ranges over all inputs, which come last."""
    return [
        step.remedy for step in record.steps if step.kept == kept and step.detail != ON_ALL_INPUTS
    ]


def named(record, kind):
    (file,) = [file for file in record.files if file.kind == kind]
    return Path(file.path)


def worst_db(path, other, photos, *, has_integer_kernels=False, output="y"):
    """Of the outputs of two files on the test inputs, the median SQNR."""
    ours, theirs = Session(path), Session(other, has_integer_kernels=has_integer_kernels)
    samples = np.load(photos)["x"][3::4]
    return float(
        np.median(
            [
                sqnr_db(
                    ours.run({"x": x[None]}, [output])[0], theirs.run({"x": x[None]}, [output])[0]
                )
                for x in samples
            ]
        )
    )


# It works


@pytest.mark.parametrize("target", ["int8_channel_fused", "int8_channel", "int8_tensor"])
def test_channels_of_many_scales_are_folded_into_the_convolution_before(tmp_path, photos, target):
    path = wreck(tmp_path / "net.onnx")
    record = rescued(path, photos, target, output=str(tmp_path / "out"))
    assert record.before_db < 10
    assert record.after_db > 25
    assert record.reached
    assert remedies_of(record) == ["placement", "depthwise"]
    assert record.added_nodes == 0
    assert record.int8_macs == 1
    # The file is what the emulator said, and what onnxruntime makes of it.
    file = named(record, "rescued")
    assert worst_db(path, file, photos) > record.after_db - 0.5
    assert record.file_db == pytest.approx(record.after_db, abs=1.0)
    assert record.integer_db == pytest.approx(record.file_db, abs=1)
    assert record.float_file_db > 110


def test_a_mul_does_it_where_nothing_folds(tmp_path, photos):
    path = wreck(tmp_path / "net.onnx", activation="SiLU")
    record = rescued(path, photos, output=str(tmp_path / "out"))
    assert remedies_of(record) == ["placement", "mul"]
    assert record.added_nodes == 1
    assert record.after_db > record.before_db + 10
    nodes = onnx.load(named(record, "rescued")).graph.node
    assert sum(one.op_type == "Mul" for one in nodes) == 2
    assert worst_db(path, named(record, "rescued"), photos) > record.after_db - 0.5


def test_without_muls_there_are_none(tmp_path, photos):
    path = wreck(tmp_path / "net.onnx", activation="SiLU")
    allow = tuple(name for name in REMEDIES if name not in ("mul", "int16", "float"))
    record = rescued(path, photos, allow=allow)
    assert record.added_nodes == 0
    assert not record.reached


@pytest.mark.parametrize("activation", ["LeakyRelu", "SiLU"])
def test_who_else_reads_the_tensor_gets_it_unscaled(tmp_path, photos, activation):
    path = wreck(tmp_path / "net.onnx", activation=activation, has_branch=True)
    record = rescued(path, photos, output=str(tmp_path / "out"))
    assert remedies_of(record) == ["placement", "mul"]
    assert record.after_db > 25
    assert worst_db(path, named(record, "rescued"), photos) > record.after_db - 0.5


@pytest.mark.parametrize(("allow", "precision"), [(("int16",), "int16"), (("float",), "float")])
def test_the_most_sensitive_tensor_leaves_int8(tmp_path, photos, allow, precision):
    path = wreck(tmp_path / "net.onnx", activation="SiLU", factor=30)
    # The stem has 8 x 27 products a position, the depthwise convolution 72, the head 32.
    record = rescued(path, photos, allow=allow, keep_macs=0.5, output=str(tmp_path / "out"))
    assert remedies_of(record) == ["placement", precision]
    first = record.units[0]
    assert (first.unit, first.rank, first.precision) == ("a", 0, precision)
    assert first.cause == "outlier channels"
    assert record.reached
    # At least the depthwise convolution computes in something else.
    assert record.int8_macs <= 1 - 72 / (216 + 72 + 32)
    assert worst_db(path, named(record, "rescued"), photos) > record.after_db - 0.5
    if precision == "float":
        step = next(step for step in record.steps if step.remedy == "float")
        assert step.predicted_db == pytest.approx(step.validation_db, abs=4)


def test_floats_take_over_where_16_bits_do_not_suffice(tmp_path, photos):
    path = wreck(tmp_path / "net.onnx", activation="SiLU", factor=1000)
    record = rescued(path, photos, allow=("int16", "float"), keep_macs=0.5)
    assert remedies_of(record) == ["placement", "float"]
    assert "int16" in remedies_of(record, kept=False)
    assert record.units[0].precision == "float"
    assert record.after_db > 25


def test_macs_that_must_stay_do(tmp_path, photos):
    path = wreck(tmp_path / "net.onnx", activation="SiLU")
    record = rescued(path, photos, allow=("int16", "float"), keep_macs=1.0)
    assert record.int8_macs == 1
    assert not record.reached


def test_quantize_py_makes_the_plan_again(tmp_path, photos):
    path = wreck(tmp_path / "net.onnx", activation="SiLU")
    record = rescued(path, photos, reach_db=34, output=str(tmp_path / "out"))
    runpy.run_path(str(named(record, "quantize")), run_name="__main__")
    made = tmp_path / "out" / "net.quantized.onnx"
    ours = worst_db(path, named(record, "rescued"), photos)
    assert worst_db(path, made, photos) == pytest.approx(ours, abs=0.5)


def test_the_float_file_on_the_grid_is_quantized_to_the_same_integers(tmp_path, photos):
    path = wreck(tmp_path / "net.onnx")
    record = rescued(path, photos, output=str(tmp_path / "out"))
    stored = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(named(record, "rescued")).graph.initializer
    }
    for tensor in onnx.load(named(record, "ongrid")).graph.initializer:
        codes = stored.get(f"{tensor.name}_quantized")
        if codes is None or codes.dtype != np.int8:
            continue
        weights = onnx.numpy_helper.to_array(tensor).reshape(len(codes), -1)
        scale = np.abs(weights).max(axis=1, keepdims=True) / 127
        assert np.array_equal(np.rint(weights / scale), codes.reshape(len(codes), -1))


@pytest.mark.parametrize("target", ["int8_channel_fused", "int8_tensor_power_of_two"])
def test_every_file_is_valid_and_keeps_the_names_outside(tmp_path, photos, target):
    path = wreck(tmp_path / "a b.onnx", activation="SiLU", opset=13)
    record = rescued(path, photos, target, output=str(tmp_path / "out"))
    kinds = [file.kind for file in record.files]
    assert kinds == [
        *("rescued", "ongrid", "quantize", "overrides", "exclude", "qtable", "encodings"),
    ]
    for kind in ("rescued", "ongrid"):
        onnx.checker.check_model(str(named(record, kind)))
        session = Session(named(record, kind))
        assert (session.inputs, session.outputs) == (("x",), ("y",))
        # The number of images is still open.
        two = session.run({"x": np.zeros((2, 3, 16, 16), np.float32)})
        assert two[0].shape[0] == 2
    text = named(record, "encodings").read_text(encoding="utf-8")
    assert json.loads(text)["activation_encodings"]


def test_a_file_of_a_target_with_scales_per_channel_has_them(tmp_path, photos):
    path = wreck(tmp_path / "net.onnx", activation="SiLU")
    record = rescued(path, photos, "int8_channel_depthwise", output=str(tmp_path / "out"))
    assert record.reached
    nodes = onnx.load(named(record, "rescued")).graph.node
    axes = [
        onnx.helper.get_attribute_value(attribute)
        for one in nodes
        if one.op_type == "QuantizeLinear"
        for attribute in one.attribute
    ]
    assert axes == [1]
    assert worst_db(path, named(record, "rescued"), photos) > record.after_db - 0.5


def test_the_file_says_what_it_was_run_in(tmp_path, photos, monkeypatch):
    # As where OpenVINO is not installed.
    monkeypatch.setitem(sys.modules, "openvino", None)
    record = rescued(wreck(tmp_path / "net.onnx"), photos, output=str(tmp_path / "out"))
    assert openvino.NOT_INSTALLED in record.notes
    words = onnx.load(named(record, "rescued")).doc_string
    assert f"{record.file_db:.1f} dB in float arithmetic" in words
    assert openvino.NOT_INSTALLED in words


def test_openvino_runs_the_file_where_it_is_installed(tmp_path, photos):
    pytest.importorskip("openvino", reason="it is an extra")
    record = rescued(wreck(tmp_path / "net.onnx"), photos, output=str(tmp_path / "out"))
    (note,) = [note for note in record.notes if "OpenVINO" in note]
    assert "the file keeps" in note


# What decides, and what does not


def test_a_network_that_holds_is_left_as_it_is(tmp_path, photos):
    path = wreck(tmp_path / "net.onnx", factor=1.0)
    record = rescued(path, photos, output=str(tmp_path / "out"))
    assert remedies_of(record) == ["placement"]
    assert [step.detail for step in record.steps[1:]] == [ON_ALL_INPUTS]
    assert record.after_db > record.before_db - 1
    assert any(NO_REMEDY_NEEDED in note for note in record.notes)
    assert named(record, "rescued")


def test_inputs_are_shared_by_position_and_the_test_decides_nothing(tmp_path, photos):
    path = wreck(tmp_path / "net.onnx", activation="SiLU")
    record = rescued(path, photos)
    assert (record.calibration_count, record.validation_count, record.test_count) == (8, 4, 4)
    with np.load(photos) as stored:
        changed = stored["x"].copy()
    changed[3::4] *= 0.5
    np.savez(tmp_path / "changed.npz", x=changed)
    other = rescued(path, str(tmp_path / "changed.npz"))
    assert [dataclasses.replace(step, test_db=0, seconds=0) for step in other.steps] == [
        dataclasses.replace(step, test_db=0, seconds=0) for step in record.steps
    ]
    assert other.after_db != record.after_db


def test_test_inputs_can_come_from_elsewhere(tmp_path, photos):
    others = str(inputs_file(tmp_path / "others.npz", count=5, seed=9))
    path = wreck(tmp_path / "net.onnx")
    record = rescued(path, photos, test_inputs=others)
    assert (record.calibration_count, record.validation_count, record.test_count) == (11, 5, 5)
    with pytest.raises(InputsError, match="a test on noise is meaningless"):
        rescued(path, photos, test_inputs="noise")


def test_few_inputs_are_said_to_be_few(tmp_path):
    few = str(inputs_file(tmp_path / "few.npz", count=4))
    record = rescued(wreck(tmp_path / "net.onnx"), few)
    assert (record.calibration_count, record.validation_count, record.test_count) == (3, 3, 1)
    assert any("There are only 4 inputs" in note for note in record.notes)


@pytest.mark.slow
def test_noise_gives_a_proposal_and_no_quantized_file(tmp_path):
    path = wreck(tmp_path / "net.onnx")
    record = rescued(path, "noise", output=str(tmp_path / "out"))
    assert record.is_proposal
    assert [file.kind for file in record.files] == ["exclude"]
    assert "depthwise" in remedies_of(record)
    tried = {step.remedy for step in record.steps}
    assert tried.isdisjoint({"ranges", "rounding"})


def test_a_goal_out_of_reach_gives_the_best_plan(tmp_path, photos):
    path = wreck(tmp_path / "net.onnx")
    record = rescued(path, photos, reach_db=200, keep_macs=1.0)
    assert not record.reached
    assert record.after_db > 25


@pytest.mark.slow
def test_the_same_inputs_give_the_same_plan(tmp_path, photos):
    path = wreck(tmp_path / "net.onnx", activation="SiLU")
    one, other = (rescued(path, photos, reach_db=45, keep_macs=0.5) for _ in range(2))
    assert [unit.unit for unit in one.units] == [unit.unit for unit in other.units]
    assert one.after_db == other.after_db


def test_a_spent_budget_still_ends_with_a_file(tmp_path, photos):
    path = wreck(tmp_path / "net.onnx", activation="SiLU")
    record = rescued(path, photos, reach_db=60, budget_seconds=1e-6, output=str(tmp_path / "out"))
    assert any("budget" in note for note in record.notes)
    assert named(record, "rescued")


# What is refused


def test_inputs_of_another_shape_are_a_sentence(tmp_path):
    path = wreck(tmp_path / "net.onnx")
    np.savez(tmp_path / "wrong.npz", x=np.zeros((8, 5, 16, 16), np.float32))
    with pytest.raises(InputsError):
        rescued(path, str(tmp_path / "wrong.npz"))


def test_a_model_that_is_quantized_already_is_refused(tmp_path, photos):
    path = wreck(tmp_path / "net.onnx")
    record = rescued(path, photos, output=str(tmp_path / "out"))
    with pytest.raises(RunError, match=WAS_QUANTIZED):
        rescued(named(record, "rescued"), photos)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "int9"}, "no target is named 'int9'"),
        ({"target": "int8_weights"}, "cannot be rescued"),
        ({"target": "int8_dynamic"}, "cannot be rescued"),
        ({"allow": ("magic",)}, "no remedy is named 'magic'"),
        ({"reach_db": math.nan}, "a finite number of dB"),
        ({"reach_db": math.inf}, "a finite number of dB"),
        ({"keep_macs": 1.5}, "between 0 and 1"),
        ({"budget_seconds": 0}, "more than 0"),
    ],
)
def test_choices_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(InputsError, match=message):
        RescueChoices(**({"target": "int8_channel"} | changes))


def test_a_network_that_no_step_helps_says_so_by_its_steps(tmp_path):
    model = conv_model(gaussian(4, 3, 1, 1))
    model.graph.input[0].CopyFrom(float_value("x", [1, 3, 16, 16]))
    path = save(model, tmp_path / "net.onnx")
    inputs = str(inputs_file(tmp_path / "inputs.npz"))
    record = rescued(path, inputs, reach_db=90, allow=("depthwise", "ranges", "equalize"))
    assert not record.reached
    assert remedies_of(record) == ["placement"]
    assert NO_REMEDY_HELPED in record.notes
    assert NO_REMEDY_ALLOWED in rescued(path, inputs, reach_db=90, allow=()).notes


def test_a_rescue_crosses_to_another_process_whole(tmp_path, photos):
    path = wreck(tmp_path / "net.onnx", activation="SiLU")
    found = rescue(path, photos, RescueChoices(target="int8_channel_fused", reach_db=40))
    other = Rescue.from_json(found.to_json())
    assert other.sha256 == found.sha256
    assert [step.detail for step in other.record.steps] == [
        step.detail for step in found.record.steps
    ]
    assert math.isnan(other.record.steps[0].predicted_db)
    assert len(other.record.units) == len(found.record.units)


def test_ranges_are_found_on_all_inputs_of_the_search_in_the_end(tmp_path, photos):
    path = wreck(tmp_path / "net.onnx", factor=1.0)
    with np.load(photos) as stored:
        changed = stored["x"].copy()
    # Of the validation inputs one reaches further than all others; so do the unseen ones.
    changed[1] *= 3
    changed[3::4] *= 3
    np.savez(tmp_path / "changed.npz", x=changed)
    record = rescued(path, str(tmp_path / "changed.npz"), reach_db=1, output=str(tmp_path / "out"))
    assert record.steps[-1].detail == ON_ALL_INPUTS
    assert record.after_db > record.before_db + 3
    kept = rescued(path, str(tmp_path / "changed.npz"), reach_db=1, allow=("depthwise",))
    assert kept.after_db == kept.before_db == record.before_db


@pytest.mark.parametrize(("count", "shares"), [(1, (1, 1, 0)), (2, (1, 1, 1)), (3, (2, 2, 1))])
def test_an_input_that_was_searched_on_is_no_test(tmp_path, count, shares):
    few = str(inputs_file(tmp_path / "few.npz", count=count))
    record = rescued(wreck(tmp_path / "net.onnx"), few)
    assert (record.calibration_count, record.validation_count, record.test_count) == shares
    assert any(
        f"only {'one input' if count == 1 else f'{count} inputs'}" in note for note in record.notes
    )


def test_weights_that_are_no_numbers_are_a_sentence(tmp_path, photos):
    path = wreck(tmp_path / "net.onnx")
    model = onnx.load(path)
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    weights[0, 0, 0, 0] = np.nan
    model.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(weights, model.graph.initializer[0].name)
    )
    with pytest.raises(RunError, match="the float model returns NaN"):
        rescued(save(model, tmp_path / "nan.onnx"), photos)


def test_half_precision_is_said_to_become_single(tmp_path, photos):
    model = onnx.load(wreck(tmp_path / "net.onnx"))
    for tensor in model.graph.initializer:
        half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    record = rescued(save(model, tmp_path / "half.onnx"), photos, output=str(tmp_path / "out"))
    assert record.reached
    assert any("half precision" in note for note in record.notes)
    onnx.checker.check_model(str(named(record, "rescued")))


def test_layers_drift_less_under_the_plan(tmp_path, photos):
    record = rescued(wreck(tmp_path / "net.onnx"), photos)
    assert [layer.node_name for layer in record.drift] == ["stem", "depthwise", "head"]
    assert [layer.depth for layer in record.drift] == [0, 1, 2]
    depthwise, head = record.drift[1:]
    assert depthwise.before_db < 10 < depthwise.after_db
    # The last layer hands on the output.
    assert head.after_db == pytest.approx(record.after_db, abs=3)
    assert head.before_db == pytest.approx(record.before_db, abs=3)

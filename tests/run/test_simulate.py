"""A model in float and quantized on real inputs, from the file to the store."""

import json
import os
import shutil
import signal
import time

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from quantstore import cli, store
from quantstore.cli.preprocessing import WRONG_SIZE, wrong_numbers
from quantstore.cli.simulate import NO_FILE, RANKING_AGREES
from quantstore.errors import CancelledError, InputsError, QuantstoreError, RunError
from quantstore.numerics.quantization import round_trip
from quantstore.pipeline import runs
from quantstore.pipeline.files import demo_paths
from quantstore.records import RETURNS_THE_SAME, ROUNDS_NOTHING
from quantstore.run import noise, twin
from quantstore.run.choices import Choices, Simulation
from quantstore.run.feeding import how_shared
from quantstore.run.inputs import NO_FILE_OR_FOLDER
from quantstore.run.layers import FileLayers
from quantstore.run.network import prepare
from quantstore.run.runtime import CRASHED, REFUSES
from quantstore.run.simulate import returns_no_number, simulate
from quantstore.schemes import LOST_DB, SCHEMES
from tests.support.demo_models import MODELS, documented
from tests.support.graphs import float_value, gaussian, layers_of, make_model, node, save

WEIGHTS = Choices(mode="weights")
RESCALED = next(path for path in demo_paths() if path.stem == "digits-rescaled")


def network(*, opset=17, bias=None):
    """Two convolutions and a classifier of four classes, input 1x3x8x8."""
    nodes = [
        node("Conv", ["x", "w0"], ["a"], "first"),
        node("Relu", ["a"], ["b"], "relu"),
        node("Conv", ["b", "w1"], ["c"], "second"),
        node("GlobalAveragePool", ["c"], ["d"], "pool"),
        node("Flatten", ["d"], ["e"], "flatten"),
        node("Gemm", ["e", "w2", "bias"], ["y"], "scores", transB=1),
    ]
    weights = {
        "w0": gaussian(4, 3, 3, 3),
        "w1": gaussian(6, 4, 3, 3),
        "w2": gaussian(4, 6),
        "bias": np.zeros(4, np.float32) if bias is None else bias,
    }
    model = make_model(nodes, weights, opset=opset)
    model.graph.input[0].CopyFrom(float_value("x", ["batch", 3, 8, 8]))
    return model


@pytest.fixture
def model(tmp_path):
    return save(network(), tmp_path / "network.onnx")


@pytest.fixture
def arrays(tmp_path):
    np.savez(tmp_path / "x.npz", x=gaussian(8, 3, 8, 8))
    return str(tmp_path / "x.npz")


def with_weights(model, names, scheme="int8_tensor_symmetric"):
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in copy.graph.initializer:
        if tensor.name in names:
            array = numpy_helper.to_array(tensor)
            rows = round_trip(array.reshape(len(array), -1), SCHEMES[scheme])
            tensor.CopyFrom(numpy_helper.from_array(rows.reshape(array.shape), tensor.name))
    return copy


def outputs(model, count=8):
    run = ReferenceEvaluator(model)
    return [run.run(None, {"x": one[np.newaxis]})[0] for one in gaussian(count, 3, 8, 8)]


def median_db(expected, actual):
    return np.median(
        [
            10 * np.log10(np.sum(np.float64(y) ** 2) / np.sum((np.float64(z) - y) ** 2))
            for y, z in zip(expected, actual, strict=True)
        ]
    )


# What comes out


@pytest.mark.parametrize("scheme", ["int8_tensor_symmetric", "int4_channel_symmetric"])
def test_the_figure_is_the_median_over_samples_of_the_sqnr_at_the_outputs(model, arrays, scheme):
    found = simulate(model, arrays, Choices(mode="weights", scheme=scheme)).record
    expected = outputs(network())
    actual = outputs(with_weights(network(), {"w0", "w1", "w2"}, scheme))
    assert found.output_sqnr_db == pytest.approx(median_db(expected, actual), abs=1e-2)
    same = [y.argmax() == z.argmax() for y, z in zip(expected, actual, strict=True)]
    assert found.top1_agreement == np.mean(same)
    assert found.sample_count == 8
    assert found.input_source == "8 samples from x.npz"
    assert found.input_shape == "x 1x3x8x8"
    assert (found.mode, found.calibration, found.failure) == ("weights", None, None)
    assert found.calibration_count == 0


FILES = ("digits-plain", "digits-separable", "digits-separable-unfolded", "digits-rescaled")


@pytest.mark.parametrize("sharing", ["tensor", "channel"])
@pytest.mark.parametrize("file", FILES)
@pytest.mark.slow
def test_the_example_models_have_the_accuracy_that_their_table_says(
    file,
    sharing,
    test_split,
    tmp_path,
):
    images, labels = test_split
    np.savez(tmp_path / "test.npz", image=images, labels=labels)
    choices = Choices(
        mode="weights", scheme=f"int8_{sharing}_symmetric", samples=len(images), drift=False
    )
    found = simulate(MODELS / f"{file}.onnx", str(tmp_path / "test.npz"), choices)
    row = documented()[f"{file}.onnx"]
    as_float, quantized = found.accuracy
    assert f"{as_float:.2%}" == row["Float"]
    assert f"{quantized:.2%}" == row[f"int8 per {sharing}"]
    assert found.record.sample_count == 450


@pytest.mark.slow
def test_a_scale_per_channel_rescues_no_activations(test_split, tmp_path):
    images, labels = test_split
    np.savez(tmp_path / "test.npz", image=images, labels=labels)
    choices = Choices(
        mode="both", scheme="int8_channel_symmetric", samples=len(images), drift=False
    )
    found = simulate(MODELS / "digits-rescaled.onnx", str(tmp_path / "test.npz"), choices)
    # docs/drift.md and README.md say 15 %; another processor may turn a few images.
    assert found.accuracy[1] == pytest.approx(0.15, abs=0.03)
    assert found.record.sample_count == 225


@pytest.mark.parametrize("mode", ["activations", "both"])
@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("sharing", ["tensor", "channel"])
@pytest.mark.slow
def test_full_int8_works_below_the_opset_that_has_it(mode, opset, sharing, tmp_path, arrays):
    path = save(network(opset=opset), tmp_path / "network.onnx")
    choices = Choices(mode=mode, scheme=f"int8_{sharing}_symmetric")
    found = simulate(path, arrays, choices)
    assert 20 < found.record.output_sqnr_db < 60
    assert (found.record.calibration, found.record.sample_count) == ("minmax", 4)
    assert how_shared(4, 4) in found.notes
    assert {row.kind for row in found.activation_errors} == {"accumulated", "local"}


@pytest.mark.parametrize("calibration", ["percentile", "entropy", "mse"])
def test_ranges_can_be_found_in_other_ways(calibration, model, arrays):
    record = simulate(model, arrays, Choices(calibration=calibration)).record
    assert record.calibration == calibration
    assert record.output_sqnr_db > 5


@pytest.mark.slow
def test_what_is_excluded_stays_as_it_was(model, arrays):
    choices = Choices(mode="weights", exclude=("first", "second"))
    rows = simulate(model, arrays, choices).activation_errors
    # Infinite: stored as NULL, exact.
    exact = {row.tensor for row in rows if row.kind == "accumulated" and row.sqnr_db == np.inf}
    assert exact == {"a", "b", "c", "d", "e"}
    full = simulate(model, arrays, Choices(mode="both", exclude=("first",)))
    local = {row.node_name for row in full.activation_errors if row.kind == "local"}
    assert "first" not in local
    assert "second" in local
    with pytest.raises(InputsError, match="no layer, node or tensor is named 'third'"):
        simulate(model, arrays, Choices(exclude=("third",)))


@pytest.mark.slow
def test_noise_needs_no_inputs_and_is_the_same_each_time(model):
    one, other = (simulate(model, "noise", WEIGHTS).record for _ in range(2))
    assert one.input_source == "noise, image-like"
    assert one.output_sqnr_db == other.output_sqnr_db


def test_a_result_travels_between_processes_unchanged(model, arrays):
    found = simulate(model, arrays, Choices(mode="weights", sensitivity=True))
    again = Simulation.from_json(found.to_json())
    # As text, where a NaN equals a NaN.
    assert again.to_json() == found.to_json()
    for one, other in zip(found.activation_errors, again.activation_errors, strict=True):
        np.testing.assert_array_equal(one.float_counts, other.float_counts)
        assert (one.tensor, one.kind, one.sqnr_db) == (other.tensor, other.kind, other.sqnr_db)


def test_a_target_stands_for_scheme_and_mode(model, arrays):
    found = simulate(model, arrays, Choices(target="int8_channel")).record
    assert (found.target, found.scheme, found.mode) == (
        "int8_channel",
        "int8_channel_symmetric",
        "both",
    )
    assert (found.sample_count, found.calibration_count) == (4, 4)
    assert found.cpu_seconds >= 0
    assert found.float_layers == ()
    same = simulate(model, arrays, Choices(scheme="int8_channel_symmetric")).record
    assert (same.target, same.output_sqnr_db) == ("int8_channel", found.output_sqnr_db)
    fused = simulate(model, arrays, Choices(target="int8_channel_fused")).record
    assert fused.output_sqnr_db > found.output_sqnr_db


def test_tensors_and_nodes_can_be_left_in_float_as_well(model, arrays):
    def rounded(*exclude):
        choices = Choices(sensitivity=True, drift=False, exclude=exclude)
        return {row.unit for row in simulate(model, arrays, choices).sensitivities}

    every = rounded()
    assert every - rounded("c") == {"c"}
    # Its weights, and what it alone gave a grid.
    assert "first" in every - rounded("first")


def test_a_layer_in_a_body_is_excluded_by_the_name_that_the_file_gives_it(tmp_path):
    body = helper.make_graph(
        [
            node("MatMul", ["row", "w"], ["h"], "layer"),
            node("Add", ["h", "before"], ["after"], "sum"),
            node("Identity", ["after"], ["out"], "copy"),
        ],
        "body",
        [float_value("before", [4]), float_value("row", [4])],
        [float_value("after"), float_value("out")],
        [numpy_helper.from_array(gaussian(4, 4), "w")],
    )
    scan = node("Scan", ["start", "x"], ["last", "y"], "scan", body=body, num_scan_inputs=1)
    looping = make_model([scan], {"start": np.zeros(4, np.float32)})
    looping.graph.input[0].CopyFrom(float_value("x", [3, 4]))
    path = save(looping, tmp_path / "scan.onnx")
    found = simulate(path, "noise", Choices(target="int8_channel_fused"))
    assert found.record.float_layers == ()
    left = Choices(target="int8_channel_fused", exclude=("scan/body/layer",))
    assert simulate(path, "noise", left).record.failure == ROUNDS_NOTHING


@pytest.mark.parametrize(
    ("name", "layer_count"),
    [
        ("vit-pgd_2_3_16", 14),
        ("tract-bidi-lstm", 6),
        # Half of its layers lie in the branch that is not taken.
        pytest.param("silero-vad", 10, marks=pytest.mark.slow),
        pytest.param("rtmdet-nano", 123, marks=pytest.mark.slow),
        pytest.param("ppocr-v2-det", 58, marks=pytest.mark.slow),
    ],
)
def test_layers_keep_their_names_whatever_an_optimizer_made_of_them(
    name, layer_count, shared_models, tmp_path
):
    file = twin.open_float(shared_models / f"{name}.onnx")
    for frozen, value in noise.frozen_inputs(file.model).items():
        twin.freeze_input(file.model, frozen, value)
    layers = FileLayers.of(file)
    outputs_of = tuple(value.name for value in file.model.graph.outputs)
    prepared = prepare(twin.to_proto(file), outputs_of, tmp_path, fold=True)
    found = layers.keys_in(prepared)
    assert set(found) == set(prepared.slot_of)
    assert len(set(found.values())) == layer_count
    assert {key.name for key in found.values()} <= {one.name for one in layers.made_by}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit-pgd_2_3_16", "tract-bidi-lstm"])
def test_every_layer_that_is_stored_is_a_unit_of_its_depth_and_can_be_excluded(name, shared_models):
    path = shared_models / f"{name}.onnx"
    stored = [layer.name for layer in layers_of(path)]
    choices = Choices(mode="weights", sensitivity=True, drift=False, samples=2)
    rows = simulate(path, "noise", choices).sensitivities
    units = {row.depth: row.unit for row in rows if row.kind == "alone"}
    assert units == dict(enumerate(stored))
    left = Choices(mode="weights", sensitivity=True, drift=False, samples=2, exclude=(stored[-1],))
    rows = simulate(path, "noise", left).sensitivities
    assert {row.unit for row in rows} == {unit for unit in stored if unit != stored[-1]}


def test_values_that_stand_for_infinity_are_said(tmp_path, arrays):
    nodes = [
        node("Conv", ["x", "w"], ["h"], "conv"),
        node("Pad", ["h", "pads", "lowest"], ["p"], "pad"),
        node("MaxPool", ["p"], ["y"], "pool", kernel_shape=[3, 3]),
    ]
    weights = {
        "w": gaussian(4, 3, 3, 3),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
        "lowest": np.float32(-3.4028235e38),
    }
    padded = make_model(nodes, weights)
    padded.graph.input[0].CopyFrom(float_value("x", ["batch", 3, 8, 8]))
    found = simulate(save(padded, tmp_path / "padded.onnx"), arrays)
    assert found.record.output_sqnr_db > 25
    assert (
        "values beyond 1e+30 in 'p' stand for infinity: they do not count in the range"
        in found.notes
    )


# One layer at a time


def test_sensitivity_quantizes_one_layer_alone_and_all_but_one(model, arrays):
    found = simulate(model, arrays, Choices(mode="weights", sensitivity=True)).sensitivities
    measured = {(row.depth, row.kind): row.output_sqnr_db for row in found}
    names = ("w0", "w1", "w2")
    expected = outputs(network())
    for depth, name in enumerate(names):
        alone = outputs(with_weights(network(), {name}))
        assert measured[depth, "alone"] == pytest.approx(median_db(expected, alone), abs=1e-2)
        others = outputs(with_weights(network(), {*names} - {name}))
        assert measured[depth, "all but"] == pytest.approx(median_db(expected, others), abs=1e-2)
    assert len(measured) == 6


def test_sensitivity_of_full_int8_names_the_layers_of_the_file(model, arrays):
    found = simulate(model, arrays, Choices(sensitivity=True))
    measured = {(row.unit, row.kind): row.output_sqnr_db for row in found.sensitivities}
    kinds = ("alone", "all but")
    layers = {(row.depth, row.kind) for row in found.sensitivities if row.unit_kind == "weights"}
    assert layers == {(depth, kind) for depth in range(3) for kind in kinds}
    tensors = {(row.unit, row.kind) for row in found.sensitivities if row.unit_kind == "tensor"}
    # The result of the first layer is rounded behind its Relu; Flatten only moves what is rounded.
    assert tensors == {(name, kind) for name in ("x", "b", "c", "d", "y") for kind in kinds}
    assert {row.node_name for row in found.sensitivities if row.unit == "c"} == {"second"}
    assert {row.depth for row in found.sensitivities if row.unit_kind == "tensor"} == {None}
    # One layer alone loses less than everything together, give or take the luck of rounding.
    alone = [figure for (_, kind), figure in measured.items() if kind == "alone"]
    assert min(alone) > found.record.output_sqnr_db - 1


def test_with_a_goal_the_fewest_units_are_sought_that_reach_it(model, arrays):
    plain = simulate(model, arrays, Choices(drift=False)).record.output_sqnr_db
    choices = Choices(drift=False, sensitivity=True, goal_db=plain + 3)
    found = simulate(model, arrays, choices)
    assert [row.position for row in found.float_set] == list(range(len(found.float_set)))
    assert found.float_set[-1].output_sqnr_db >= plain + 3
    left = tuple(row.unit for row in found.float_set)
    again = simulate(model, arrays, Choices(drift=False, exclude=left)).record
    assert again.output_sqnr_db >= plain + 2
    assert Simulation.from_json(found.to_json()).float_set == found.float_set


def test_a_budget_that_is_too_small_is_said(model, arrays):
    found = simulate(model, arrays, Choices(mode="weights", sensitivity=True, budget_seconds=1e-9))
    assert found.sensitivities == ()
    assert any("0 of 6 runs finished in 1e-09 s of CPU time" in note for note in found.notes)


# What goes wrong


def test_an_input_of_another_shape_is_refused(model, tmp_path):
    np.savez(tmp_path / "x.npz", x=gaussian(2, 3, 9, 8))
    with pytest.raises(
        InputsError, match=r"input 'x' expects shape \?x3x8x8, but x.npz has 2x3x9x8"
    ):
        simulate(model, str(tmp_path / "x.npz"))


def test_a_scheme_that_goes_with_no_activations_is_refused_for_them():
    with pytest.raises(InputsError, match="does not go with weights in int4_channel_symmetric"):
        Choices(mode="both", scheme="int4_channel_symmetric")
    with pytest.raises(InputsError, match="no scheme is named"):
        Choices(scheme="int9")
    with pytest.raises(InputsError, match="no target is named 'int9'"):
        Choices(target="int9")


def test_a_model_that_onnxruntime_refuses_is_refused_in_its_words(tmp_path, arrays):
    broken = network()
    broken.graph.node[1].op_type = "NoSuchOperator"
    path = save(broken, tmp_path / "broken.onnx")
    with pytest.raises(RunError, match=f"{REFUSES}: .*NoSuchOperator"):
        simulate(path, arrays, WEIGHTS)


def test_outputs_that_are_no_numbers_are_refused(tmp_path, arrays):
    path = save(network(bias=np.float32([0, np.nan, 0, 0])), tmp_path / "nan.onnx")
    with pytest.raises(RunError, match=returns_no_number("float", "y", 8)):
        simulate(path, arrays, WEIGHTS)


def test_outputs_that_become_infinite_are_broken_and_say_why(tmp_path):
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Sigmoid", ["h"], ["p"]),
        node("Log", ["p"], ["y"], "log"),
    ]
    model = make_model(nodes, {"w": 1.5 * gaussian(5, 8)})
    model.graph.input[0].CopyFrom(float_value("x", ["batch", 5]))
    np.savez(tmp_path / "x.npz", x=gaussian(8, 5))
    path = save(model, tmp_path / "log.onnx")
    found = simulate(path, str(tmp_path / "x.npz"), Choices(target="int8_channel"))
    assert (found.record.output_sqnr_db, found.record.deciding_sqnr_db) == (LOST_DB, LOST_DB)
    assert found.record.failure is None
    assert any(note.startswith(returns_no_number("quantized", "y", 8)[:40]) for note in found.notes)
    assert any("log (Log) is the first operator" in note for note in found.notes)


def test_weights_that_lie_on_the_grid_already_are_not_called_fine(tmp_path, arrays):
    on_grid = with_weights(network(), {"w0", "w1", "w2"})
    found = simulate(save(on_grid, tmp_path / "grid.onnx"), arrays, WEIGHTS).record
    assert np.isnan(found.output_sqnr_db)
    assert found.failure == RETURNS_THE_SAME


@pytest.mark.slow
def test_a_detector_is_compared_before_the_selection(tmp_path):
    nodes = [
        node("Conv", ["x", "w"], ["a"], "conv"),
        node("Flatten", ["a"], ["b"], "flatten"),
        node("TopK", ["b", "k"], ["values", "places"], "best"),
    ]
    weights = {"w": gaussian(2, 3, 3, 3), "k": np.array([5], np.int64)}
    detector = make_model(nodes, weights, outputs=("values",))
    detector.graph.input[0].CopyFrom(float_value("x", [1, 3, 8, 8]))
    found = simulate(save(detector, tmp_path / "detector.onnx"), "noise", WEIGHTS).record
    assert "before TopK" in found.compared
    assert np.isnan(found.top1_agreement)


@pytest.mark.slow
def test_a_branch_chosen_by_a_number_is_quantized_too(tmp_path):
    def branch(name, weights):
        return helper.make_graph(
            [node("Gemm", ["x", weights], [f"{name}_y"], f"{name}_gemm")],
            name,
            [],
            [float_value(f"{name}_y")],
            [numpy_helper.from_array(gaussian(6, 3, seed=len(name)), weights)],
        )

    nodes = [
        node("Equal", ["rate", "sixteen"], ["is_wide"], "test"),
        node(
            "If",
            ["is_wide"],
            ["y"],
            "branch",
            then_branch=branch("then", "w_then"),
            else_branch=branch("otherwise", "w_else"),
        ),
    ]
    speech = make_model(nodes, {"sixteen": np.array(16, np.int64)}, inputs=("x",))
    speech.graph.input[0].CopyFrom(float_value("x", [1, 6]))
    speech.graph.input.append(helper.make_tensor_value_info("rate", onnx.TensorProto.INT64, []))
    path = save(speech, tmp_path / "speech.onnx")
    np.savez(tmp_path / "x.npz", x=gaussian(6, 6), rate=16)
    for mode in ("weights", "both"):
        record = simulate(path, str(tmp_path / "x.npz"), Choices(mode=mode)).record
        assert 25 < record.output_sqnr_db < 70


# In a process of its own, and in the store


@pytest.mark.slow
def test_a_run_is_stored_and_its_model_is_ingested(model, arrays, tmp_path):
    path = tmp_path / "store.duckdb"
    said = []
    choices = Choices(mode="weights", sensitivity=True)
    done = runs.run(model, path, arrays, choices, said.append)
    assert (done.model, done.was_ingested) == ("network", True)
    assert said
    with store.reading(path) as connection:
        assert connection.value(
            "select output_sqnr_db from simulations where simulation_id = ?", [done.simulation_id]
        ) == pytest.approx(done.simulation.record.output_sqnr_db)
        assert (
            connection.value(
                "select count(*) from activation_errors where simulation_id = ?",
                [done.simulation_id],
            )
            == 6 + 3
        )
        assert connection.rows(
            "select layer, count(*) from sensitivities join layers using (layer_id)"
            " group by layer order by layer"
        ) == [("first", 2), ("scores", 2), ("second", 2)]


def test_a_cancelled_run_leaves_nothing_behind(model, arrays, tmp_path):
    running = runs.start(model, tmp_path / "store.duckdb", arrays)
    running.cancel()
    with pytest.raises(CancelledError):
        running.wait()
    assert running.is_over()
    assert not (tmp_path / "store.duckdb").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_a_child_that_crashes_is_a_sentence(model, arrays, tmp_path):
    running = runs.start(model, tmp_path / "store.duckdb", arrays)
    while running.progress is None and not running.is_over():
        time.sleep(0.01)
    os.kill(running._child.pid, signal.SIGSEGV)
    with pytest.raises(QuantstoreError, match=CRASHED):
        running.wait()


# On the command line


@pytest.mark.slow
def test_the_command_prints_tensors_and_says_the_figure(demo_store, tmp_path, capsys):
    db = str(shutil.copy(demo_store, tmp_path / "store.duckdb"))
    argv = ["simulate", str(RESCALED), "--inputs", "noise", "--mode", "weights", "--db", db]
    assert cli.main([*argv, "--sensitivity", "--limit", "3"]) == cli.OK
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2 + 3
    assert "output SQNR 1.1 dB, compared: the outputs" in err
    assert "first layer below 10 dB: /blocks/blocks.0/depthwise/conv/Conv" in err
    assert RANKING_AGREES in err
    assert "did not hold" not in err

    assert cli.main([*argv, "--format", "json"]) == cli.OK
    rows = json.loads(capsys.readouterr().out)
    assert {row["kind"] for row in rows} == {"accumulated", "local"}
    assert {row["model"] for row in rows} == {"digits-rescaled"}
    assert len(rows[0]["float_counts"]) == 64


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "code", "sentence"),
    [
        (["gone.onnx", "--inputs", "noise"], 1, f"gone.onnx: {NO_FILE}"),
        ([str(RESCALED)], 2, "Missing option '--inputs'"),
        ([str(RESCALED), "--inputs", "gone"], 1, f"gone: {NO_FILE_OR_FOLDER}"),
        ([str(RESCALED), "--inputs", "noise", "--size", "big"], 2, WRONG_SIZE),
        ([str(RESCALED), "--inputs", "noise", "--mean", "a,b"], 2, wrong_numbers("mean")),
        (
            [str(RESCALED), "--inputs", "noise", "--scheme", "fp8_e4m3_tensor"],
            1,
            "which does not go with weights in fp8_e4m3_tensor",
        ),
    ],
    ids=["model", "no inputs", "inputs", "size", "mean", "scheme"],
)
def test_what_is_wrong_is_one_line(argv, code, sentence, tmp_path, capsys):
    assert cli.main(["simulate", *argv, "--db", str(tmp_path / "s.duckdb")]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert err.count("\n") == 1


def test_presets_are_listed(capsys, tmp_path):
    # With nothing else, as the help has it, and with everything.
    for argv in (["--preprocess", "help"], [str(RESCALED), "--inputs=noise", "--preprocess=help"]):
        assert cli.main(["simulate", *argv]) == cli.OK
        assert "mmdet-bgr, rtmdet: BGR" in capsys.readouterr().out

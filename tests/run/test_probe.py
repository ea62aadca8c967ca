"""The probe: whether a network survives, from running it on noise; and what is said where not."""

import dataclasses
import gc
import io
import math
import subprocess
import sys
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import quantstore
from quantstore import cli, store
from quantstore.errors import MissingRuntimeError, ModelFileError
from quantstore.graph import open_model
from quantstore.numerics.quantization import round_trip
from quantstore.pipeline.files import demo_paths
from quantstore.pipeline.fleet import ingest_many
from quantstore.pipeline.ingest import ingest_file
from quantstore.process.child import Child
from quantstore.process.serve import Reply
from quantstore.run import noise, probe, probe_child, twin
from quantstore.run.comparison import NO_OUTPUT_DEPENDS, Reference, is_not_a_number, sqnr_db
from quantstore.run.plan import PLAN, Probed
from quantstore.run.probe import Prober
from quantstore.run.probe_figures import (
    CALIBRATION_SEED,
    INTEGERS_ON_GRID,
    NO_FLOAT_OUTPUT_DEPENDS,
    TEST_SEED,
    WEIGHTS_ON_GRID,
    Facts,
    Figure,
    figures,
)
from quantstore.run.runtime import CRASHED, NEEDS_MORE_MEMORY, NOT_INSTALLED, Session, quantizable
from quantstore.schemes import LOST_DB, SCHEMES, TARGETS
from tests.support.graphs import gaussian, make_model, node, save
from tests.support.referees import quantize_file

# What is asked for, as figures name it: scheme, and target or None for weights alone.
TENSOR, CHANNEL, FUSED, WEIGHTS = (
    (TARGETS[name].scheme.name, name)
    for name in ("int8_tensor", "int8_channel", "int8_channel_fused", "int8_weights")
)
TENSOR_WEIGHTS = ("int8_tensor_symmetric", None)
FOUR_BITS = ("int4_channel_symmetric", None)
ROOT = Path(quantstore.__file__).parent.parent


def demo(name):
    return next(path for path in demo_paths() if path.stem == name)


def found_in(path, asked=PLAN, **more):
    """What the probe finds in this very process: the facts, and figures by scheme and target."""
    facts, *rest = figures(path, asked, **more)
    assert isinstance(facts, Facts)
    return facts, {(one.scheme, one.target): one for one in rest if isinstance(one, Figure)}


def two_layers(tmp_path, *, squash=False, first=None):
    """``y = relu(x w) v``, five inputs, perhaps a Softmax behind it."""
    weights = {"w": gaussian(5, 8) if first is None else first, "v": gaussian(8, 3)}
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "v"], ["scores" if squash else "y"]),
    ]
    nodes += [node("Softmax", ["scores"], ["y"])] if squash else []
    # From 19 on, onnx runs DequantizeLinear by itself.
    model = make_model(nodes, weights, opset=19, ir_version=9)
    shape = model.graph.input[0].type.tensor_type.shape
    for size in (1, 5):
        shape.dim.add().dim_value = size
    return save(model, tmp_path / f"net{'-squashed' if squash else ''}.onnx"), weights


# --- the figure --------------------------------------------------------------------------------


def test_full_int8_comes_first_for_a_verdict_rests_on_it(tmp_path):
    path, _ = two_layers(tmp_path)
    modes = [one.mode for one in figures(path, PLAN) if isinstance(one, Figure)]
    assert modes == ["both"] * 3 + ["weights"] * 4
    assert [one.names for one in PLAN][:3] == [TENSOR, CHANNEL, FUSED]


def test_what_is_asked_for_is_what_is_measured(tmp_path):
    path, _ = two_layers(tmp_path)
    asked = [Probed.of(target) for target in TARGETS.values()]
    found = found_in(path, asked)[1]
    assert list(found) == [one.names for one in asked]
    assert all(one.failure is None for one in found.values())
    alone = found_in(path, asked[:1])[1]
    assert alone[TENSOR].output_sqnr_db == pytest.approx(found[TENSOR].output_sqnr_db)
    assert found["int8_channel_symmetric", "int8_channel_int16"].output_sqnr_db > (
        found[CHANNEL].output_sqnr_db
    )


@pytest.mark.parametrize("names", [one.names for one in PLAN if one.mode == "weights"])
def test_with_weights_alone_it_is_what_numpy_makes_of_the_same_network(tmp_path, names):
    path, weights = two_layers(tmp_path)
    facts, found = found_in(path)
    assert (facts.input_shape, facts.compared) == ("x 1x5", "the outputs")

    def network(x, w, v):
        return np.maximum(x @ w, 0) @ v

    # MatMul counts output channels along its last axis; a layer has them in front.
    rounded = {name: round_trip(array.T, SCHEMES[names[0]]).T for name, array in weights.items()}
    # The first input, in its own turn.
    random = np.random.default_rng([TEST_SEED, 0])
    ratios = []
    for _ in range(48):
        x = random.standard_normal((1, 5)).astype(np.float32)
        y, changed = network(x, **weights), network(x, **rounded)
        ratios.append(10 * np.log10((y**2).sum() / ((changed - y) ** 2).sum()))
    figure = found[names]
    assert figure.output_sqnr_db == pytest.approx(np.median(ratios), abs=0.01)
    assert (figure.sample_count, figure.calibration, figure.failure) == (48, None, None)


@pytest.mark.parametrize("names", [TENSOR, CHANNEL, FUSED])
def test_with_activations_it_is_what_onnx_makes_of_the_quantized_file(tmp_path, names):
    """onnxruntime's quantizer writes the file; ONNX's reference implementation runs it here."""
    path, _ = two_layers(tmp_path)
    figure = found_in(path)[1][names]
    model = twin.open_float(path)
    inputs = next(noise.choices(model.model))
    calibration, test = (
        noise.samples(inputs, count, seed=seed)
        for count, seed in ((48, CALIBRATION_SEED), (48, TEST_SEED))
    )
    source = quantizable(twin.to_proto(model), tmp_path)
    target = quantize_file(
        source,
        tmp_path / "q.onnx",
        calibration,
        per_channel=SCHEMES[names[0]].is_per_channel,
        only_mac_inputs=names == FUSED,
    )
    known, changed = (
        [ReferenceEvaluator(str(one)).run(None, dict(x)) for x in test] for one in (source, target)
    )
    expected = Reference(["y"], known).median_db(changed)
    assert figure.output_sqnr_db == pytest.approx(expected, abs=0.2)
    assert (figure.calibration, figure.calibration_count, figure.sample_count) == ("minmax", 48, 48)


def test_it_is_the_same_every_time(tmp_path):
    path, _ = two_layers(tmp_path)
    first, again = (
        {key: one.output_sqnr_db for key, one in found_in(path)[1].items()} for _ in range(2)
    )
    assert first == again


def test_a_softmax_behind_the_scores_changes_nothing(tmp_path):
    plain, squashed = (two_layers(tmp_path, squash=squash)[0] for squash in (False, True))
    facts, found = found_in(squashed)
    assert facts.compared == "before the final Softmax"
    for key, figure in found_in(plain)[1].items():
        assert found[key].output_sqnr_db == pytest.approx(figure.output_sqnr_db, abs=0.01)


@pytest.mark.slow
def test_a_batchnorm_folded_by_hand_or_by_us_is_the_same_network():
    folded, unfolded = (
        found_in(demo(name))[1] for name in ("digits-separable", "digits-separable-unfolded")
    )
    for key, figure in folded.items():
        assert unfolded[key].output_sqnr_db == pytest.approx(figure.output_sqnr_db, abs=0.1), key


@pytest.mark.slow
def test_without_folding_it_is_another_network():
    path = demo("digits-separable-unfolded")
    folded, raw = (found_in(path, fold=fold)[1] for fold in (True, False))
    for key in (TENSOR_WEIGHTS, TENSOR):
        assert abs(raw[key].output_sqnr_db - folded[key].output_sqnr_db) > 0.1, key
    # A channel with a scale of its own does not mind what it is multiplied by.
    assert raw[WEIGHTS].output_sqnr_db == pytest.approx(folded[WEIGHTS].output_sqnr_db, abs=0.01)


@pytest.mark.slow
def test_a_network_that_was_rescaled_breaks_per_tensor_and_lives_per_channel_if_activations_do():
    plain, rescaled = (found_in(demo(name))[1] for name in ("digits-plain", "digits-rescaled"))
    assert plain[TENSOR_WEIGHTS].output_sqnr_db > 40
    assert rescaled[TENSOR_WEIGHTS].output_sqnr_db < 3
    assert rescaled[WEIGHTS].output_sqnr_db > 40
    # Activations share one scale per tensor, whatever the weights do.
    assert rescaled[CHANNEL].output_sqnr_db < 3


def test_what_a_model_left_is_gone_before_the_next_is_read(tmp_path):
    class Left:
        """What points at itself, as the nodes of a graph point at one another."""

    left = Left()
    left.itself = left
    is_left = weakref.ref(left)
    gc.disable()
    try:
        del left
        request = {"path": str(tmp_path / "no.onnx"), "fold": True, "asked": []}
        with pytest.raises(ModelFileError, match="does not exist"):
            probe_child.answer(request, Reply(io.BytesIO()))
        assert is_left() is None
    finally:
        gc.enable()


def test_the_figure_is_the_median_over_outputs_and_samples():
    known = [[np.ones(2), np.full(2, 2.0)], [np.ones(2) * 3, np.full(2, 4.0)]]
    changed = [
        [one * (1 + 10 ** (-db / 20)) for one, db in zip(sample, dbs, strict=True)]
        for sample, dbs in zip(known, ([10, 20], [30, 60]), strict=True)
    ]
    assert Reference("ab", known).median_db(changed) == pytest.approx(25)


def test_an_output_that_never_changes_is_left_out():
    known = [[np.ones(2), np.zeros(2)], [np.ones(2), np.ones(2)]]
    changed = [[np.zeros(2), one[1] + 0.1] for one in known]
    # All zero in the first sample, where there is nothing to lose.
    assert Reference("ab", known).median_db(changed) == pytest.approx(20)


def test_sqnr_counts_where_the_float_output_is_a_number():
    known = np.array([1, np.nan, -np.inf])
    assert sqnr_db(known, np.array([1.1, 5, 7])) == pytest.approx(20)
    assert sqnr_db(known, known) == math.inf
    assert sqnr_db(np.ones(2), np.array([1, np.nan])) == LOST_DB


# --- no figure, and why ------------------------------------------------------------------------


def test_weights_that_lie_on_the_grid_are_no_proof_that_all_is_well(tmp_path):
    steps = np.arange(-127, 128, dtype=np.float32)
    weights = np.random.default_rng(0).permutation(np.tile(steps, 4))[: 5 * 8].reshape(5, 8)
    weights[0] = 127
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    model = make_model(nodes, {"w": weights})
    _, found = found_in(save(model, tmp_path / "net.onnx"))
    for names in (TENSOR_WEIGHTS, WEIGHTS):
        assert math.isnan(found[names].output_sqnr_db)
        assert found[names].failure == WEIGHTS_ON_GRID
    assert found[FOUR_BITS].failure is None


def test_outputs_that_are_no_numbers_are_no_figure(tmp_path):
    weights = gaussian(5, 8)
    weights[0] = np.nan
    path, _ = two_layers(tmp_path, first=weights)
    records = in_process(path)
    assert {one.failure for one in records} == {is_not_a_number("y")}


def test_an_output_that_becomes_infinite_is_broken_and_the_operator_is_named(tmp_path):
    """A probability that rounds to 0, in front of a Log; onnxruntime's quantizer does the same."""
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Sigmoid", ["h"], ["p"]),
        node("Log", ["p"], ["y"], "log"),
    ]
    model = make_model(nodes, {"w": 2.5 * gaussian(5, 8)}, opset=19, ir_version=9)
    for size in (1, 5):
        model.graph.input[0].type.tensor_type.shape.dim.add().dim_value = size
    path = save(model, tmp_path / "net.onnx")
    samples = [{"x": gaussian(1, 5, seed=seed)} for seed in range(24)]
    written = Session(quantize_file(path, tmp_path / "int8.onnx", samples, per_channel=True))
    assert any(np.isinf(written.run(sample)[0]).any() for sample in samples)
    rows = list(figures(path, PLAN))
    found = {row.target: row for row in rows if isinstance(row, Figure)}
    assert found["int8_channel"].failure is None
    assert found["int8_channel"].deciding_sqnr_db == LOST_DB
    assert [row.sqnr_db for row in found["int8_channel"].outputs] == [LOST_DB]
    assert found["int8_weights"].output_sqnr_db > 20
    shown = [row for row in rows if getattr(row, "kind", "") == "infinite output"]
    assert all("log (Log) is the first operator" in row.message for row in shown)
    assert all("--exclude p" in row.remedy for row in shown)
    assert len(shown) == 1


def test_a_network_that_gives_zero_has_nothing_to_lose(tmp_path):
    path, _ = two_layers(tmp_path, first=np.zeros((5, 8), np.float32))
    assert {one.failure for one in in_process(path)} == {NO_OUTPUT_DEPENDS}


def test_a_network_without_float_outputs_is_not_compared(tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Shape", ["h"], ["y"])]
    path = save(make_model(nodes, {"w": gaussian(5, 8)}), tmp_path / "net.onnx")
    (reason,) = {one.failure for one in in_process(path)}
    assert reason == NO_FLOAT_OUTPUT_DEPENDS


def in_process(path):
    """The rows of ``simulations``, without a process: what the child would have said."""
    messages, reason = [], None
    try:
        messages += [
            {"facts" if isinstance(figure, Facts) else "figure": dataclasses.asdict(figure)}
            for figure in figures(path, PLAN)
        ]
    except quantstore.errors.QuantstoreError as error:
        reason = error.sentence
    return list(probe._records(PLAN, messages, reason))


# --- in a process of its own -------------------------------------------------------------------


def check_rows(records):
    assert [(one.scheme, one.target) for one in records] == [one.names for one in PLAN]
    for one in records:
        assert one.mode == ("weights" if one.target in (None, "int8_weights") else "both")
        assert (one.failure is None) == math.isfinite(one.output_sqnr_db)
        assert one.input_source == "noise"
        assert math.isnan(one.top1_agreement)


@pytest.mark.slow
def test_one_process_probes_several_models_and_finds_the_same(tmp_path, prober):
    path, _ = two_layers(tmp_path)
    broken = tmp_path / "broken.onnx"
    broken.write_text("no model")
    for one in (path, broken, demo("digits-plain")):
        prober.start(one)
        records = prober.result()
        check_rows(records)
        if one is broken:
            with pytest.raises(ModelFileError) as refused:
                open_model(broken)
            assert {record.failure for record in records} == {refused.value.sentence}
            continue
        here = found_in(one)[1]
        # Clocks of processor time may be coarse.
        assert sum(record.cpu_seconds for record in records) > 0
        for record in records:
            figure = here[record.scheme, record.target]
            assert record.output_sqnr_db == pytest.approx(figure.output_sqnr_db)
            assert record.failure is None
            assert record.seconds > 0
            assert record.float_layers == ()
            assert record.onnxruntime_version.startswith("1.")


@pytest.mark.slow
def test_what_a_process_did_before_does_not_count_for_the_next_model(tmp_path):
    path, _ = two_layers(tmp_path)
    with Prober() as prober:
        spent = []
        for one in (path, path):
            prober.start(one)
            spent.append(sum(record.cpu_seconds for record in prober.result()))
    # The first one pays for what is imported.
    assert spent[1] < spent[0] / 2


@pytest.mark.slow
def test_a_process_that_was_started_before_is_the_one_that_probes(tmp_path):
    path, _ = two_layers(tmp_path)
    child = Child(probe_child.__name__, has_scratch=True)
    with Prober(child) as prober:
        prober.start(path)
        assert all(record.failure is None for record in prober.result())
        assert prober._child is child
    assert not child.is_alive


@pytest.fixture
def sabotage(tmp_path, monkeypatch):
    """Code that every Python started here runs first."""

    def sabotage(code):
        (tmp_path / "sabotage").mkdir()
        (tmp_path / "sabotage" / "sitecustomize.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "sabotage"))

    return sabotage


# Full int8 comes before, and is there by then.
AT_THE_WEIGHTS = """
import os, signal
from quantstore.run import probe_figures
def weights_alone(trial, one):
    {}
probe_figures._Trial._weights_alone = weights_alone
"""


@pytest.mark.slow
def test_a_model_that_waits_for_ever_is_stopped_and_says_so(sabotage):
    sabotage("import time; time.sleep(60)")
    started = time.monotonic()
    records = probe.probe(demo("digits-plain"), seconds=0.2)
    assert time.monotonic() - started < 10
    check_rows(records)
    assert {one.failure for one in records} == {"stopped after waiting 1 s"}


@pytest.mark.slow
def test_waiting_alone_costs_no_figure(sabotage):
    """Asleep for longer than it may compute."""
    sabotage("import time; time.sleep(3)")
    assert {one.failure for one in probe.probe(demo("digits-plain"), seconds=2)} == {None}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows counts no processor time")
def test_a_model_that_computes_for_ever_is_stopped_and_keeps_what_it_has(sabotage):
    sabotage(AT_THE_WEIGHTS.format("while True: pass"))
    records = probe.probe(demo("digits-plain"), seconds=0.5)
    check_rows(records)
    for one in records:
        if one.mode == "both":
            assert one.failure is None
        else:
            assert one.failure == "stopped after 0.5 s of CPU time"
            assert (one.sample_count, one.seconds) == (0, 0.0)
        assert one.input_shape == "image 1x1x8x8"


@pytest.fixture
def busy():
    """Four processes that want a processor each."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    yield
    for loop in loops:
        loop.kill()
        loop.wait()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits-plain", "digits-rescaled"])
def test_a_busy_computer_gives_the_figures_of_an_idle_one(request, name):
    idle = probe.probe(demo(name))
    request.getfixturevalue("busy")
    loaded = probe.probe(demo(name))
    check_rows(loaded)
    assert [one.output_sqnr_db for one in loaded] == [one.output_sqnr_db for one in idle]
    assert {one.failure for one in loaded} == {None}


@pytest.mark.slow
def test_a_crash_is_a_row_and_the_next_model_gets_a_new_process(sabotage):
    sabotage(AT_THE_WEIGHTS.format("os.kill(os.getpid(), signal.SIGSEGV)"))
    with Prober() as prober:
        for _ in range(2):
            prober.start(demo("digits-plain"))
            records = prober.result()
            check_rows(records)
            assert {one.failure for one in records if one.mode == "weights"} == {
                f"{CRASHED} (SIGSEGV)"
            }
            assert {one.failure for one in records if one.mode == "both"} == {None}


@pytest.mark.slow
def test_without_onnxruntime_the_rows_say_what_to_install(sabotage):
    sabotage("import sys; sys.modules['onnxruntime'] = None")
    records = probe.probe(demo("digits-plain"))
    check_rows(records)
    assert {(one.failure, one.onnxruntime_version) for one in records} == {
        (MissingRuntimeError(NOT_INSTALLED).sentence, "not installed")
    }


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit memory")
def test_a_model_that_wants_all_memory_gets_a_row_and_no_more(tmp_path, prober):
    """Four terabytes, asked for by the model itself."""
    size = helper.make_tensor("size", TensorProto.INT64, [2], [1 << 20, 1 << 20])
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Constant", [], ["size"], value=size),
        node("Expand", ["h", "size"], ["y"]),
    ]
    model = make_model(nodes, {"w": gaussian(5, 1)})
    prober.start(save(model, tmp_path / "huge.onnx"))
    records = prober.result()
    check_rows(records)
    assert {one.failure for one in records} == {NEEDS_MORE_MEMORY}


# --- at ingest ---------------------------------------------------------------------------------


def stored(path):
    with store.reading(path) as connection:
        return connection.rows("""
            select model, scheme, target, output_sqnr_db, failure
            from simulations join models using (model_id) order by simulations.rowid
        """)


@pytest.mark.slow
def test_ingest_stores_the_probe_with_the_model_and_only_once(tmp_path):
    path = tmp_path / "s.duckdb"
    two = [demo("digits-plain"), demo("digits-rescaled")]
    assert [one.outcome for one in ingest_many(two, path, jobs=1)] == ["stored"] * 2
    rows = stored(path)
    for model in two:
        figures = [row[1:4] for row in rows if row[0] == model.stem]
        assert [figure[:2] for figure in figures] == [one.names for one in PLAN]
        here = found_in(model)[1]
        for scheme, target, output_sqnr_db in figures:
            assert output_sqnr_db == pytest.approx(here[scheme, target].output_sqnr_db)
    list(ingest_many(two, path, jobs=1))
    assert stored(path) == rows
    again = ["ingest", str(two[0]), "--replace", "--no-probe", "--db", str(path)]
    assert cli.main(again) == 0
    assert {row[0] for row in stored(path)} == {"digits-rescaled"}
    with store.reading(path) as connection:
        evidence = connection.rows(
            f"select model, evidence from verdicts where target = '{TENSOR[1]}' order by 1"
        )
    assert evidence == [("digits-plain", "weights"), ("digits-rescaled", "probe")]


@pytest.mark.slow
def test_a_model_that_cannot_be_run_is_stored_all_the_same(tmp_path, prober):
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Nonsense", ["h"], ["y"])]
    file = save(make_model(nodes, {"w": gaussian(5, 8)}), tmp_path / "net.onnx")
    seen = []
    done = ingest_file(file, tmp_path / "s.duckdb", report=seen.append, prober=prober)
    assert done.outcome == "stored"
    assert [one.is_probing for one in seen] == [False, False, True]
    rows = stored(tmp_path / "s.duckdb")
    assert len(rows) == len(PLAN)
    for *_, figure, failure in rows:
        assert figure is None
        assert failure.startswith("onnxruntime rejects the model: ")


def test_a_model_that_cannot_be_measured_leaves_no_process(tmp_path, prober):
    file = save(make_model([node("Relu", ["x"], ["y"])], {}), tmp_path / "net.onnx")
    with pytest.raises(quantstore.errors.NoLayersError):
        ingest_file(file, tmp_path / "s.duckdb", prober=prober)
    prober.start(demo("digits-plain"))
    check_rows(prober.result())


# --- real networks -----------------------------------------------------------------------------

# Output SQNR in dB; what it takes to tell them apart, not what another processor may round.
REAL = {
    ("rtmdet-nano", TENSOR_WEIGHTS): 8.2,
    ("rtmdet-nano", WEIGHTS): 18.2,
    ("ultraface-rfb320", TENSOR_WEIGHTS): 23.7,
    ("ultraface-rfb320", WEIGHTS): 23.9,
    ("vit-pgd_2_3_16", TENSOR_WEIGHTS): 35.8,
    ("silero-vad", TENSOR_WEIGHTS): 6.6,
    ("ext-digits-dynamo/model", TENSOR_WEIGHTS): 44.0,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", dict.fromkeys(name for name, _ in REAL))
def test_what_real_networks_come_to_with_weights_alone(shared_models, name):
    expected = {names: db for (model, names), db in REAL.items() if model == name}
    asked = [Probed.named(*names) for names in expected]
    found = found_in(shared_models / f"{name}.onnx", asked)[1]
    for names, db in expected.items():
        assert found[names].output_sqnr_db == pytest.approx(db, abs=0.5), names


@pytest.mark.slow
def test_a_file_that_is_quantized_already_says_that_its_first_loss_is_unknown(shared_models):
    asked = [Probed.named(*names) for names in (TENSOR_WEIGHTS, WEIGHTS)]
    found = found_in(shared_models / "mobilenetv2-12-int8.onnx", asked)[1]
    assert found[TENSOR_WEIGHTS].failure is None
    assert found[WEIGHTS].failure == INTEGERS_ON_GRID

"""How far each tensor drifts: the definitions, against numpy and onnx's own reference."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx.reference import ReferenceEvaluator

from quantstore.numerics.quantization import round_trip
from quantstore.run import drift, ranges, relay, surgery
from quantstore.run.inputs import Samples
from quantstore.run.runtime import Session, quantizable, quantize_file
from quantstore.schemes import SCHEMES
from tests.support.graphs import gaussian, make_model, node

TENSOR = SCHEMES["int8_tensor_symmetric"]


def network(*, opset=19):
    """Three convolutions, a Relu between them, a branch that joins again."""
    nodes = [
        node("Conv", ["x", "w0"], ["a"], "first", pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"], "relu"),
        node("Conv", ["b", "w1"], ["c"], "second", pads=[1, 1, 1, 1]),
        node("Conv", ["b", "w2"], ["d"], "third"),
        node("Add", ["c", "d"], ["y"], "join"),
    ]
    weights = {
        "w0": gaussian(4, 3, 3, 3),
        "w1": gaussian(5, 4, 3, 3),
        "w2": gaussian(5, 4, 1, 1),
    }
    # One wide channel, so that the tensors differ in what they lose.
    weights["w2"][0] *= 30
    # The lowest whose QuantizeLinear the reference knows.
    model = make_model(nodes, weights, opset=opset)
    shape = model.graph.input[0].type.tensor_type.shape
    for size in (1, 3, 6, 5):
        shape.dim.add().dim_value = size
    return model


def with_weights(model, change):
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in copy.graph.initializer:
        array = change(tensor.name, onnx.numpy_helper.to_array(tensor))
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return copy


def rounded(_name, array):
    return round_trip(array.reshape(len(array), -1), TENSOR).reshape(array.shape)


def samples(count=3):
    feeds = [{"x": gaussian(1, 3, 6, 5, seed=seed)} for seed in range(count)]
    return Samples("test", count, feeds.__getitem__)


def everything(model, feed):
    """Every tensor of a model, as onnx's reference computes it."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    names = [name for one in copy.graph.node for name in one.output]
    del copy.graph.output[:]
    copy.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    return dict(zip(names, ReferenceEvaluator(copy).run(None, feed), strict=True))


def db(x, y):
    x, y = np.float64(x), np.float64(y)
    return 10 * np.log10((x**2).sum() / ((y - x) ** 2).sum())


@pytest.fixture(scope="module")
def weights_pair():
    model = network()
    return surgery.TwinPair(model, with_weights(model, rounded), frozenset({"w0", "w1", "w2"}))


@pytest.fixture(scope="module")
def quantized_pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized")
    source = quantizable(network(), folder)
    feeds = [samples(8)[index] for index in range(8)]
    target = quantize_file(source, folder / "q.onnx", feeds, per_channel=False)
    return surgery.TwinPair(onnx.load(source), onnx.load(target))


@pytest.fixture(scope="module")
def rows(weights_pair, tmp_path_factory):
    found = drift.measure_drift(weights_pair, samples(), tmp_path_factory.mktemp("drift"))
    return {(row.tensor, row.kind): row for row in found}


# The statistics

finite = st.floats(-1e4, 1e4, width=32)


@given(
    x=arrays.arrays(np.float32, (3, 40), elements=finite),
    y=arrays.arrays(np.float32, (3, 40), elements=finite),
)
def test_sums_over_samples_are_those_over_everything_at_once(x, y):
    tally = drift.DriftSums()
    for one, other in zip(x, y, strict=True):
        tally.add(one, other)
    row = tally.record(depth=0, node_name="n", op_type="Conv", tensor="t", kind="local")
    u, v = x.astype(np.float64), y.astype(np.float64)
    assert (row.float_min, row.float_max) == (u.min(), u.max())
    assert (row.quantized_min, row.quantized_max) == (v.min(), v.max())
    if u.std() > 1e-2 * abs(u.mean()) + 1e-6 and v.std() and (u != v).any():
        assert row.sqnr_db == pytest.approx(db(x, y), abs=1e-6)
        assert row.mean_shift == pytest.approx((v.mean() - u.mean()) / u.std(), abs=1e-6, rel=1e-6)
        assert row.std_ratio == pytest.approx(v.std() / u.std(), rel=1e-5, abs=1e-6)
        cosine = (u * v).sum() / np.sqrt((u**2).sum() * (v**2).sum())
        assert row.cosine == pytest.approx(cosine, abs=1e-9)
    # Whatever the range turned out to be, no value is lost, and each lies in its bin.
    edges = np.linspace(row.low, row.high, drift.BINS + 1)
    np.testing.assert_array_equal(row.float_counts, np.histogram(u, edges)[0])
    np.testing.assert_array_equal(row.quantized_counts, np.histogram(v, edges)[0])


def test_a_quantized_tensor_that_all_but_vanished_keeps_its_direction():
    x, y = np.ones(40, np.float32), np.full(40, 1e-20, np.float32)
    tally = drift.DriftSums()
    tally.add(x, y)
    row = tally.record(depth=0, node_name="n", op_type="Conv", tensor="t", kind="local")
    assert row.cosine == pytest.approx(1.0)
    assert row.sqnr_db == pytest.approx(0.0)


def test_the_histogram_is_no_wider_than_it_must_be():
    tally = drift.DriftSums()
    for scale in (1e-3, 1.0, 50.0):
        values = np.linspace(-scale, 2 * scale, 1000, dtype=np.float32)
        tally.add(values, values)
    row = tally.record(depth=0, node_name="n", op_type="Conv", tensor="t", kind="local")
    assert row.low <= -50
    assert row.high > 100
    assert row.high - row.low < 1.05 * 150
    assert len(row.float_counts) == len(row.quantized_counts) == 64


def test_a_variance_far_below_the_mean_is_not_drowned():
    x = (1e4 + np.random.default_rng(0).normal(size=20_000)).astype(np.float32)
    tally = drift.DriftSums()
    tally.add(x, x + np.float32(0.5))
    row = tally.record(depth=0, node_name="n", op_type="Add", tensor="t", kind="local")
    assert row.mean_shift == pytest.approx(0.5 / x.astype(np.float64).std(), rel=1e-3)


def test_equal_tensors_have_no_error_and_constant_ones_no_spread():
    tally = drift.DriftSums()
    tally.add(np.full(9, 3.0, np.float32), np.full(9, 3.0, np.float32))
    row = tally.record(depth=0, node_name="n", op_type="Conv", tensor="t", kind="local")
    assert row.sqnr_db == np.inf  # stored as NULL: exact
    assert row.cosine == pytest.approx(1)
    assert np.isnan(row.mean_shift)
    assert row.float_counts.sum() == 9


def test_values_that_are_no_numbers_are_left_out_and_counted():
    tally = drift.DriftSums()
    tally.add(np.float32([1, 2, np.nan, 4]), np.float32([1, np.inf, 3, 5]))
    row = tally.record(depth=0, node_name="n", op_type="Conv", tensor="t", kind="local")
    assert tally.nonfinite_count == 2
    assert row.sqnr_db == pytest.approx(10 * np.log10(17))


# Tensor by tensor


def test_every_tensor_is_compared_in_the_order_of_the_graph(rows):
    found = sorted((row.depth, row.tensor) for (_, kind), row in rows.items() if kind != "local")
    assert found == [(0, "a"), (1, "b"), (2, "c"), (3, "d"), (4, "y")]
    assert rows["c", "accumulated"].node_name == "second"
    assert rows["c", "accumulated"].op_type == "Conv"


@pytest.mark.parametrize("tensor", ["a", "b", "c", "d", "y"])
def test_the_accumulated_error_is_that_of_the_whole_quantized_model(tensor, rows, weights_pair):
    feeds = [samples()[index] for index in range(3)]
    x = [everything(weights_pair.float_model, feed)[tensor] for feed in feeds]
    y = [everything(weights_pair.quantized, feed)[tensor] for feed in feeds]
    assert rows[tensor, "accumulated"].sqnr_db == pytest.approx(db(x, y), abs=1e-3)


@pytest.mark.parametrize(("tensor", "weight"), [("a", "w0"), ("c", "w1"), ("d", "w2")])
def test_the_local_error_is_that_of_the_layer_alone(tensor, weight, rows, weights_pair):
    alone = with_weights(
        weights_pair.float_model, lambda name, w: rounded(name, w) if name == weight else w
    )
    feeds = [samples()[index] for index in range(3)]
    x = [everything(weights_pair.float_model, feed)[tensor] for feed in feeds]
    y = [everything(alone, feed)[tensor] for feed in feeds]
    assert rows[tensor, "local"].sqnr_db == pytest.approx(db(x, y), abs=1e-3)


def test_what_has_no_weights_has_no_local_error_where_weights_alone_are_quantized(rows):
    assert {tensor for tensor, kind in rows if kind == "local"} == {"a", "c", "d"}


def test_the_size_of_a_block_changes_nothing(rows, weights_pair, tmp_path):
    small = drift.measure_drift(weights_pair, samples(), tmp_path, block_bytes=1)
    for row in small:
        known = rows[row.tensor, row.kind]
        assert (row.depth, row.sqnr_db) == (known.depth, pytest.approx(known.sqnr_db, abs=1e-6))
        np.testing.assert_array_equal(row.float_counts, known.float_counts)


def test_progress_counts_runs(weights_pair, tmp_path):
    said = []
    drift.measure_drift(
        weights_pair, samples(), tmp_path, lambda *progress: said.append(progress), block_bytes=1
    )
    assert said[-1] == (15, 15)


def test_a_rounded_activation_is_what_the_next_operator_reads(quantized_pair, tmp_path):
    found = drift.measure_drift(quantized_pair, samples(), tmp_path)
    rows = {(row.tensor, row.kind): row for row in found}
    feeds = [samples()[index] for index in range(3)]
    for tensor in ("b", "c", "d", "y"):
        observed = quantized_pair.observed[tensor]
        x = [everything(quantized_pair.float_model, feed)[tensor] for feed in feeds]
        y = [everything(quantized_pair.quantized, feed)[observed] for feed in feeds]
        # A tie may fall to either side.
        assert rows[tensor, "accumulated"].sqnr_db == pytest.approx(db(x, y), abs=0.3)


def test_the_quantizer_drops_a_relu_and_the_layer_before_it_makes_the_tensor(
    quantized_pair, tmp_path
):
    assert "Relu" not in {one.op_type for one in quantized_pair.quantized.graph.node}
    found = drift.measure_drift(quantized_pair, samples(), tmp_path)
    assert [row.node_name for row in found if row.tensor == "b"] == ["first", "first"]
    assert {row.tensor for row in found} == {"b", "c", "d", "y"}
    assert min(row.quantized_min for row in found if row.tensor == "b") == 0


def test_the_first_operator_reads_the_same_inputs_in_both_kinds(quantized_pair, tmp_path):
    found = drift.measure_drift(quantized_pair, samples(), tmp_path)
    accumulated, local = (row for row in found if row.tensor == "b")
    assert accumulated.sqnr_db == pytest.approx(local.sqnr_db, abs=1e-6)


# One operator at a time


def test_switches_lead_from_the_float_model_to_the_quantized_one(quantized_pair, tmp_path):
    keys = [surgery.key_of(one.node) for one in quantized_pair.operators()]
    model, flags = surgery.with_switches(quantized_pair, {key: key for key in keys})
    assert len(flags) == 4
    onnx.save(model, tmp_path / "switches.onnx")
    session = Session(tmp_path / "switches.onnx")
    feed = samples()[0]

    def output(is_on):
        return session.run({**feed, **{flag: np.array(is_on) for flag in flags}})[0]

    as_float = everything(quantized_pair.float_model, feed)["y"]
    quantized = everything(quantized_pair.quantized, feed)["y"]
    np.testing.assert_allclose(output(False), as_float, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(output(True), quantized, rtol=1e-4, atol=1e-4)
    assert np.abs(quantized - as_float).max() > 0.01


def test_activations_alone_leave_the_weights_as_they_are(quantized_pair, tmp_path):
    pair = surgery.TwinPair(
        quantized_pair.float_model, surgery.with_float_constants(quantized_pair)
    )
    onnx.save(pair.quantized, tmp_path / "activations.onnx")
    Session(tmp_path / "activations.onnx")
    both = {row.tensor: row for row in drift.measure_drift(quantized_pair, samples(), tmp_path)}
    (tmp_path / "again").mkdir()
    alone = {row.tensor: row for row in drift.measure_drift(pair, samples(), tmp_path / "again")}
    # The wide channel makes the third layer's weights the worst thing in the model.
    assert alone["d"].sqnr_db > both["d"].sqnr_db


# Where a network is lost


def test_a_network_collapses_where_its_layers_fall_below_ten_db():
    def row(depth, op_type, sqnr_db, kind="accumulated"):
        tally = drift.DriftSums()
        signal = np.ones(4, np.float32)
        tally.add(signal, signal + np.float32(10 ** (-sqnr_db / 20)))
        return tally.record(
            depth=depth, node_name=f"n{depth}", op_type=op_type, tensor=f"t{depth}", kind=kind
        )

    found = drift.collapse(
        [
            row(0, "Conv", 40),
            row(1, "Conv", 3, kind="local"),
            row(2, "Conv", 8),
            row(3, "Conv", 15),
            row(4, "Conv", 7),
            row(5, "Sigmoid", 30),
            row(6, "Conv", 5),
        ]
    )
    assert found == drift.Collapse(first="n2", for_good="n4")
    assert drift.collapse([row(0, "Conv", 40)]) == drift.Collapse(None, None)


# The ranges that rounding needs


def test_ranges_found_block_by_block_are_those_the_quantizer_finds(quantized_pair, tmp_path):
    source = quantizable(network(), tmp_path)
    as_float = onnx.load(source)
    surgery.kept_outside(as_float, tmp_path, "outside")
    ranges.write_minmax(as_float, samples(8), tmp_path, tmp_path / "ours.json", block_bytes=1)
    feeds = [samples(8)[index] for index in range(8)]
    ours = quantize_file(
        source, tmp_path / "ours.onnx", [], per_channel=False, cache=tmp_path / "ours.json"
    )
    theirs = quantize_file(source, tmp_path / "theirs.onnx", feeds, per_channel=False)
    assert ours.read_bytes() == theirs.read_bytes()


# Block by block


def test_each_operator_runs_once_however_many_blocks_there_are():
    model = network()
    blocks = [["a"], ["b"], ["d"], ["c", "y"]]
    parts = relay.block_plans(model, blocks)
    assert [part.nodes for part in parts] == [{"a"}, {"b"}, {"d"}, {"c", "y"}]
    assert [part.inherited for part in parts] == [set(), {"a"}, {"b"}, {"b", "d"}]
    # Each tensor goes as soon as nobody needs it any more.
    assert [part.last_read for part in parts] == [set(), {"a"}, set(), {"b", "d"}]


def test_what_is_handed_on_is_gone_in_the_end(weights_pair, tmp_path):
    drift.measure_drift(weights_pair, samples(), tmp_path, block_bytes=1)
    assert list(tmp_path.glob("*.npy")) == []


def test_samples_come_in_rounds_as_long_as_there_is_room():
    half = relay.ROOM_BYTES // 2
    assert list(relay.rounds(5, lambda: half)) == [range(0, 1), range(1, 3), range(3, 5)]
    assert list(relay.rounds(2, lambda: 0)) == [range(0, 1), range(1, 2)]

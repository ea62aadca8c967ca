"""How far each tensor drifts: the definitions, against numpy and onnx's own reference."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx.reference import ReferenceEvaluator

from quantstore.numerics.quantization import round_trip
from quantstore.run import drift, ranges, relay
from quantstore.run.emulator import Emulator
from quantstore.run.histogram import BINS
from quantstore.run.inputs import Samples
from quantstore.run.local import with_local_twins
from quantstore.run.plans import Rounding
from quantstore.schemes import SCHEMES, TARGETS, Target
from tests.support.graphs import gaussian, make_model, node
from tests.support.trials import trial_of_model

TENSOR = SCHEMES["int8_tensor_symmetric"]
WEIGHTS = Target("weights", TENSOR, None, "none", "")
EVERYWHERE = TARGETS["int8_tensor"]


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


class Drifting:
    """The network under a target, ready to be compared tensor by tensor."""

    def __init__(self, target, folder, *, rounds_weights=True):
        feeds = [samples(8)[index] for index in range(8)]
        self.trial = trial_of_model(
            network(), folder, feed=lambda index: feeds[index % 8], calibration=feeds
        )
        placed = self.trial.placed(target)
        planner = self.trial.planner(placed)
        scheme = target.scheme if rounds_weights else None
        self.plan = planner.plan(placed, Rounding(scheme, target.activations))
        grids = planner.grids(placed, target.activations) if target.activations else {}
        self.emulator = Emulator(self.trial.network, [placed], [self.plan.grids])
        self.local = with_local_twins(self.trial.network, placed, self.plan, grids)

    def rows(self, folder, *more, **options):
        found = drift.measure_drift(
            self.emulator, self.plan, self.local, samples(), folder, *more, **options
        )
        return {(row.tensor, row.kind): row for row in found}


@pytest.fixture(scope="module")
def weights_alone(tmp_path_factory):
    return Drifting(WEIGHTS, tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def full_int8(tmp_path_factory):
    return Drifting(EVERYWHERE, tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def rows(weights_alone, tmp_path_factory):
    return weights_alone.rows(tmp_path_factory.mktemp("drift"))


@pytest.fixture(scope="module")
def int8_rows(full_int8, tmp_path_factory):
    return full_int8.rows(tmp_path_factory.mktemp("drift"))


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
    edges = np.linspace(row.low, row.high, BINS + 1)
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
def test_the_accumulated_error_is_that_of_the_whole_quantized_model(tensor, rows):
    quantized = with_weights(network(), rounded)
    feeds = [samples()[index] for index in range(3)]
    x = [everything(network(), feed)[tensor] for feed in feeds]
    y = [everything(quantized, feed)[tensor] for feed in feeds]
    assert rows[tensor, "accumulated"].sqnr_db == pytest.approx(db(x, y), abs=1e-3)


@pytest.mark.parametrize(("tensor", "weight"), [("a", "w0"), ("c", "w1"), ("d", "w2")])
def test_the_local_error_is_that_of_the_layer_alone(tensor, weight, rows):
    alone = with_weights(network(), lambda name, w: rounded(name, w) if name == weight else w)
    feeds = [samples()[index] for index in range(3)]
    x = [everything(network(), feed)[tensor] for feed in feeds]
    y = [everything(alone, feed)[tensor] for feed in feeds]
    assert rows[tensor, "local"].sqnr_db == pytest.approx(db(x, y), abs=1e-3)


def test_channels_are_judged_one_by_one(rows):
    feeds = [samples()[index] for index in range(3)]
    quantized = with_weights(network(), rounded)
    x = np.stack([everything(network(), feed)["d"][0] for feed in feeds])
    y = np.stack([everything(quantized, feed)["d"][0] for feed in feeds])
    each = [db(x[:, channel], y[:, channel]) for channel in range(5)]
    row = rows["d", "accumulated"]
    assert row.channel_count == 5
    assert row.channels_below_10db == sum(one < 10 for one in each)
    assert row.channel_sqnr_p10_db == pytest.approx(np.quantile(each, 0.1), abs=1e-2)
    # The wide channel carries the tensor; the others have lost more.
    assert row.channel_sqnr_p10_db < row.sqnr_db - 10


def test_what_has_no_weights_has_no_local_error_where_weights_alone_are_quantized(rows):
    assert {tensor for tensor, kind in rows if kind == "local"} == {"a", "c", "d"}


def test_the_size_of_a_block_changes_nothing(rows, weights_alone, tmp_path):
    for key, row in weights_alone.rows(tmp_path, block_bytes=1).items():
        known = rows[key]
        assert (row.depth, row.sqnr_db) == (known.depth, pytest.approx(known.sqnr_db, abs=1e-6))
        np.testing.assert_array_equal(row.float_counts, known.float_counts)


def test_progress_counts_runs(weights_alone, tmp_path):
    said = []
    weights_alone.rows(tmp_path, lambda *progress: said.append(progress), block_bytes=1)
    assert said[-1] == (15, 15)


def test_depth_follows_the_order_of_the_file(weights_alone, tmp_path):
    found = weights_alone.rows(tmp_path, order=["a", "b", "d", "c", "y"])
    accumulated = [row for row in found.values() if row.kind == "accumulated"]
    assert [row.tensor for row in sorted(accumulated, key=lambda row: row.depth)] == [
        *("a", "b", "d", "c", "y")
    ]


def test_a_rounded_activation_is_what_the_next_operator_reads(full_int8, int8_rows):
    """In the file that onnxruntime's quantizer writes, run by onnx's reference."""
    full_int8.trial.refereed(EVERYWHERE)
    written = onnx.load(full_int8.trial.folder / "int8_tensor.onnx")
    feeds = [samples()[index] for index in range(3)]
    for tensor in ("b", "c", "d", "y"):
        observed = "y" if tensor == "y" else f"{tensor}_DequantizeLinear_Output"
        x = [everything(network(), feed)[tensor] for feed in feeds]
        y = [everything(written, feed)[observed] for feed in feeds]
        # A tie may fall to either side.
        assert int8_rows[tensor, "accumulated"].sqnr_db == pytest.approx(db(x, y), abs=0.3)


def test_a_relu_keeps_its_own_row_though_what_it_reads_is_not_rounded(full_int8, int8_rows):
    assert "a" not in full_int8.plan.grids
    assert {row.tensor for row in int8_rows.values()} == {"a", "b", "c", "d", "y"}
    assert int8_rows["b", "accumulated"].node_name == "relu"
    assert int8_rows["b", "accumulated"].quantized_min == 0


def test_the_first_operator_reads_the_same_inputs_in_both_kinds(int8_rows):
    accumulated, local = (int8_rows["a", kind].sqnr_db for kind in ("accumulated", "local"))
    assert accumulated == pytest.approx(local, abs=1e-6)


def test_the_local_error_of_an_addition_is_that_of_its_roundings(full_int8, int8_rows):
    grids = full_int8.plan.grids

    def on_grid(name, x):
        scale = grids[name].scale[0]
        codes = np.clip(np.rint(x / scale), grids[name].lowest[0], grids[name].highest[0])
        return codes * scale

    feeds = [samples()[index] for index in range(3)]
    known = [everything(network(), feed) for feed in feeds]
    x = [one["y"] for one in known]
    y = [on_grid("y", on_grid("c", one["c"]) + on_grid("d", one["d"])) for one in known]
    assert int8_rows["y", "local"].sqnr_db == pytest.approx(db(x, y), abs=1e-2)


# One operator at a time


def test_activations_alone_leave_the_weights_as_they_are(int8_rows, tmp_path):
    (tmp_path / "again").mkdir()
    drifting = Drifting(EVERYWHERE, tmp_path, rounds_weights=False)
    assert not drifting.plan.constants
    alone = drifting.rows(tmp_path / "again")
    # The wide channel makes the third layer's weights the worst thing in the model.
    assert alone["d", "accumulated"].sqnr_db > int8_rows["d", "accumulated"].sqnr_db


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


@pytest.mark.parametrize("block_bytes", [1, ranges.BLOCK_BYTES])
def test_ranges_block_by_block_or_all_at_once_are_those_of_every_value(
    full_int8, tmp_path, block_bytes
):
    names = ["x", "a", "b", "c", "d", "y"]
    trial = full_int8.trial
    found = ranges.observe(trial.network, names, samples(8), tmp_path, block_bytes=block_bytes)
    feeds = [samples(8)[index] for index in range(8)]
    known = [{**everything(network(), feed), **feed} for feed in feeds]
    for name in names:
        values = np.stack([one[name] for one in known])
        assert found[name].range.ends == pytest.approx((values.min(), values.max()), rel=1e-5)
        assert found[name].range.sentinel_count == 0


def test_ranges_of_channels_are_found_beside_that_of_the_tensor(full_int8, tmp_path):
    found = ranges.observe(
        full_int8.trial.network, ["x", "c"], samples(8), tmp_path, by_channel=["c"]
    )
    assert found["x"].range.channels is None
    feeds = [samples(8)[index] for index in range(8)]
    values = np.stack([everything(network(), feed)["c"][0] for feed in feeds])
    channels = found["c"].range.channels
    np.testing.assert_allclose(channels.low, values.min(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(channels.high, values.max(axis=(0, 2, 3)), rtol=1e-5)
    assert channels.trailing_axes == 2


# Block by block


def test_each_operator_runs_once_however_many_blocks_there_are():
    model = network()
    blocks = [["a"], ["b"], ["d"], ["c", "y"]]
    parts = relay.block_plans(model, blocks)
    assert [part.nodes for part in parts] == [{"a"}, {"b"}, {"d"}, {"c", "y"}]
    assert [part.inherited for part in parts] == [set(), {"a"}, {"b"}, {"b", "d"}]
    # Each tensor goes as soon as nobody needs it any more.
    assert [part.last_read for part in parts] == [set(), {"a"}, set(), {"b", "d"}]


def test_what_is_handed_on_is_gone_in_the_end(weights_alone, tmp_path):
    weights_alone.rows(tmp_path, block_bytes=1)
    assert list(tmp_path.glob("*.npy")) == []


def test_samples_come_in_rounds_as_long_as_there_is_room():
    half = relay.ROOM_BYTES // 2
    assert list(relay.rounds(5, lambda: half)) == [range(0, 1), range(1, 3), range(3, 5)]
    assert list(relay.rounds(2, lambda: 0)) == [range(0, 1), range(1, 2)]


def test_a_block_that_is_open_is_not_loaded_again(tmp_path):
    relayed = relay.Relay(network(), [["a", "y"]], tmp_path, "block")
    relayed.open(0)
    loaded = relayed._session
    relayed.open(0)
    assert relayed._session is loaded
